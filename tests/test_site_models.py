"""The models of a static site give a browser the vectors that Python gives, and its rules the same tokens."""

import json
import sys

import duckdb
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from site_reader import Site, tokens
from tiny import write_source

import galsearch
from galsearch import GalsearchError
from galsearch.encode import Encoder, run_graph, shipped
from galsearch.site import models

EMBEDDINGS = "SELECT value FROM galsearch_manifest WHERE key = 'embeddings'"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("page")]
CORPUS = (
    "edge-on disk with a dust lane", "NGC 1300", "a", "M51", "spiral galaxy without a bar",
    "z < 0.05 AND mag_r > 17.5", "Röntgen-hell, très rouge; ÅÉÎÕÜ ñ ß ﬁ", "銀河の腕 galaxy 星系",
    "🌌 galaxy 🔭✨", "tab\tand\nnewline\r\n  spaces   ", "[SEP]", "a [MASK] b [UNK] c[CLS]d",
    "zero\u200bwidth\u00a0joined\u202eturned", "İstanbul ǅ Σίσυφος ΌΣΟΣ", "e\u0301 vs é",
    "don't-stop...believing!?", "x" * 99, "x" * 100, "x" * 101, "unbelievablyoverextendedcompoundword",
    "\ufffd\ufffd ok", "½ ² ³ μm 10⁻¹⁷ erg/s/cm²/Å", "`~!@#$%^&*()_+-={}[]|\\:\";'<>?,./", "「括弧」、。",
    "русская галактика", "مجرة حلزونية", "ring " * 100, "हिन्दी आकाशगंगा", "ไทย กาแล็กซี", "한국어 은하",
    "日本語ガラクシー", "1234567890 12376500000000001", "\U0001d49c script",
    "spectrum with strong [O III] emission", "Hα", "merging\u2028galaxies", "A\u0000B", "\u00adsoft hyphen",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """The text model that ships."""
    return Encoder.from_folder(shipped("text"), device="cpu")


@pytest.fixture(scope="module")
def atlas_path(tmp_path_factory):
    """An atlas of drawn galaxies with the models that ship."""
    home = tmp_path_factory.mktemp("shipped")
    pictures, table = write_source(home)
    galsearch.build(home / "a.atlas", images=pictures, table=table, device="cpu", measure="none")
    return home / "a.atlas"


@pytest.fixture(scope="module")
def site(page, atlas_path) -> Site:
    return Site(galsearch.write_site(atlas_path, atlas_path.with_name("out")))


def embedded(site: Site, text: str) -> np.ndarray:
    """Return the vector of a text by what a browser has of the model."""
    about = site.manifest["text_encoder"]
    table = about["embedding_rows"]
    ids = tokens(text, about["tokenizer"], json.loads(site.inflated(about["vocab"])), about["max_tokens"])
    rows = np.stack([_row(site, table, number) for number in ids])[None]
    feed = {about["inputs"]["embeddings"]: rows, about["inputs"]["attention_mask"]: np.ones((1, len(ids)), np.int64)}
    return run_graph(site.inflated(about["body"]), feed, output=about["output"], name=about["model"])[0]


def _row(site: Site, table: dict, number: int) -> np.ndarray:
    content = site.read(table["file"], number * table["dim"], (number + 1) * table["dim"])
    return np.frombuffer(content, "<i1") * site.array(table["scales"], "<f4")[number]


def test_the_rules_of_a_site_give_the_tokens_of_the_model(site, encoder):
    about = site.manifest["text_encoder"]
    pieces = json.loads(site.inflated(about["vocab"]))
    assert about["tokenizer"]["added_tokens"]["[SEP]"] == about["tokenizer"]["last"][0]
    texts = [text for text in CORPUS if not any(added in text for added in about["tokenizer"]["added_tokens"])]
    got = {text: tokens(text, about["tokenizer"], pieces, about["max_tokens"]) for text in texts}
    assert got == dict(zip(texts, encoder.token_ids(texts), strict=True))


def test_the_text_model_of_a_browser_gives_the_vectors_of_the_atlas(site, encoder, atlas_path):
    texts = [text for text in CORPUS if "[" not in text][:24]
    expected = encoder.encode(texts)
    got = np.stack([embedded(site, text) for text in texts])
    assert np.sum(got * expected, axis=1).min() >= 0.999
    phrases = site.manifest["chips"]["image"]
    vectors = site.array(phrases["vectors"], "<f4", -1, 256)
    index = phrases["phrases"].index("edge-on galaxy")
    assert embedded(site, "edge-on galaxy") @ vectors[index] >= 0.999
    assert site.manifest["text_encoder"]["parity"]["lowest_cosine"] >= 0.999


def test_what_a_first_question_fetches_is_half_of_the_model(site):
    about = site.manifest["text_encoder"]
    size = (shipped("text") / "model.onnx").stat().st_size
    parts = [about["body"], about["vocab"], about["embedding_rows"]["scales"]]
    assert about["bytes_total"] == sum(part["bytes"] for part in parts) < 0.5 * size
    kinds = [(node.domain, node.op_type) for node in onnx.load_from_string(site.inflated(about["body"])).graph.node]
    assert kinds.count(("com.microsoft", "MatMulNBits")) == 36


def test_the_image_model_of_a_browser_is_that_of_the_atlas(site, atlas_path):
    about = site.manifest["image_encoder"]
    with galsearch.open(atlas_path, device="cpu") as atlas:
        galaxy = next(iter(atlas))
        pixels = galsearch.decode_thumbnail(atlas.thumbnails([galaxy.object_id])[galaxy.object_id])
        expected = Encoder.from_folder(shipped("image"), device="cpu").encode([pixels])[0]
    from galsearch.science.images import model_input

    feed = {about["input"]["name"]: model_input([pixels], about["input"]["size_px"])}
    got = run_graph(site.inflated(about["body"]), feed, output=about["output"], name=about["model"])[0]
    assert got @ expected > 0.9999


# ---- models of other makers


def text_model(*, table: np.ndarray, width: int = 8, reused: bool = False, looked_up: str = "Gather") -> bytes:
    """Return a text model of a table of floats and one matrix, which may use the numbers of words otherwise, too."""
    rng = np.random.default_rng(1)
    hidden = table.shape[1]
    constants = {"table": table, "matrix": rng.normal(size=(hidden, width)).astype(np.float32)}
    nodes = [
        helper.make_node(looked_up, ["table", "input_ids"], ["words"]),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("MatMul", ["words", "matrix"], ["each"]),
        helper.make_node("ReduceMean", ["each"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("LpNormalization", ["mean"], ["embedding"], axis=1, p=2),
    ]
    if reused:
        nodes.insert(2, helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"]) for name in (models.IDS, models.MASK)
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", width])]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "text", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_a_model_that_stores_floats_is_rounded_by_words_and_groups():
    table = np.random.default_rng(0).normal(size=(100, 128)).astype(np.float32)
    content = text_model(table=table, width=128)
    body, codes, scales = models.without_words(content, name="m")
    ids, mask = np.array([[3, 7, 99]]), np.ones((1, 3), np.int64)
    expected = run_graph(content, {models.IDS: ids, models.MASK: mask}, output="embedding", name="m")[0]
    rows = codes[ids] * scales[ids][..., None]
    got = run_graph(body, {models.ROWS_INPUT: rows, models.MASK: mask}, output="embedding", name="m")[0]
    assert 0.9995 < got @ expected < 1 and codes.dtype == np.int8
    assert next(iter(onnx.load_from_string(body).graph.node)).op_type == "MatMulNBits"


@pytest.mark.parametrize("given", [{"reused": True}, {"looked_up": "GatherElements"}])
def test_a_model_that_looks_words_up_otherwise_is_left_out(given):
    table = np.ones((100, 128), np.float32)
    content = text_model(table=table, **given)
    if given.get("reused"):  # what nobody needs does not count
        graph = onnx.load_from_string(content)
        graph.graph.node[-3].input[0] = "words"
        graph.graph.node.insert(3, helper.make_node("Unsqueeze", ["numbers", "axes"], ["wide"]))
        graph.graph.initializer.append(numpy_helper.from_array(np.array([2]), "axes"))
        graph.graph.node.insert(4, helper.make_node("Mul", ["words", "wide"], ["times"]))
        graph.graph.node[5].input[0] = "times"
        content = graph.SerializeToString()
    with pytest.raises(models.NotForBrowsersError, match="word"):
        models.without_words(content, name="m")


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"type": "BPE", "vocab": {}, "merges": []}},
        {"normalizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"post_processor": {"type": "RobertaProcessing"}},
        {"model": {"type": "WordPiece", "vocab": {}}},
        {"model": {"type": "WordPiece", "vocab": {"a": 10**9}}},
    ],
)
def test_a_tokenizer_of_another_kind_leaves_the_model_out(change):
    stated = json.loads((shipped("text") / "tokenizer.json").read_text())
    with pytest.raises(models.NotForBrowsersError, match="tokenizer"):
        models.word_pieces(json.dumps({**stated, **change}).encode())


def test_a_model_that_did_not_make_the_vectors_is_left_out(atlas_path, tmp_path):
    path = galsearch.bundle(atlas_path, tmp_path / "a.duckdb")
    with duckdb.connect(str(path)) as connection:
        stated = json.loads(connection.execute(EMBEDDINGS).fetchall()[0][0])
        stated["image"] |= {"sha256": "5" * 64, "space": "another"}
        connection.execute("UPDATE galsearch_manifest SET value = $1 WHERE key = 'embeddings'", [json.dumps(stated)])
    manifest = Site(galsearch.write_site(path, tmp_path / "out")).manifest
    assert (manifest["text_encoder"], manifest["image_encoder"]) == (None, None)
    assert all("must not be compared" in reason for reason in manifest["encoders_left_out"].values())


def test_a_model_that_would_answer_otherwise_in_8_bits_is_left_out(atlas_path, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "LEAST_COSINE", 1.1)
    manifest = Site(galsearch.write_site(atlas_path, tmp_path / "out")).manifest
    assert manifest["text_encoder"] is None and "differs from itself" in manifest["encoders_left_out"]["text"]


def test_without_the_package_onnx_the_remedy_is_told(atlas_path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(GalsearchError, match=r"galsearch\[site\].*--no-encoders"):
        galsearch.write_site(atlas_path, tmp_path / "out")
    assert Site(galsearch.write_site(atlas_path, tmp_path / "out", encoders=False)).manifest["text_encoder"] is None
