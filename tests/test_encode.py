"""The encoder against a numpy computation of the same tiny models, and its refusals."""

import hashlib
import json
import logging
import sys

import numpy as np
import pytest
import tiny_models
import tiny_spectra
from tiny_models import picture, reference_image, reference_text, write_tiny_models

from galsearch import encode
from galsearch.encode import Encoder, check_same_model, compatible, shipped
from galsearch.errors import GalsearchError, ModelMismatchError, QueryError, SchemaError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def text(folders):
    return Encoder.from_folder(folders[0])


@pytest.fixture(scope="module")
def image(folders):
    return Encoder.from_folder(folders[1])


def test_texts_equal_the_numpy_reference(text):
    texts = ["red edge-on galaxy", "blue", "a ring"]
    tokens = [text._tokenizer.encode(line).ids for line in texts]
    np.testing.assert_allclose(text.encode(texts), reference_text(tokens), atol=1e-5)


def test_pictures_equal_the_numpy_reference(image):
    pictures = [picture(color="red"), picture(shape="edge"), picture(color="blue", shape="ring")]
    np.testing.assert_allclose(image.encode(pictures), reference_image(pictures), atol=1e-5)


def test_words_lie_nearest_the_picture_they_name(text, image):
    colors, shapes = ["red", "green", "blue"], ["edge", "face", "ring"]
    pictures = [picture(color=color) for color in colors] + [picture(shape=shape) for shape in shapes]
    words = text.encode(["red galaxy", "green", "a blue galaxy", "edge-on galaxy", "face-on disk", "ring galaxy"])
    assert (words @ image.encode(pictures).T).argmax(axis=1).tolist() == list(range(6))


def test_attributes_come_from_the_card(text, folders):
    card = json.loads((folders[0] / "card.json").read_text())
    assert (text.model_id, text.sha256, text.dim, text.kind) == (card["id"], card["sha256"], 16, "text")
    assert (text.embedding, text.space, text.provider) == ("image", "tiny-0", "CPUExecutionProvider")


def test_no_items_give_no_rows(text, image):
    assert text.encode([]).shape == image.encode([]).shape == (0, 16)
    assert text.encode([]).dtype == image.encode([]).dtype == np.float32


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_a_text_does_not_depend_on_its_batch_and_order_is_kept(folders, text, batch_rows):
    texts = ["red", "a blue galaxy with a ring", "edge-on", "the galaxies", "qqq www eee", "x"]
    small = Encoder.from_folder(folders[0], batch_rows=batch_rows)
    alone = np.concatenate([text.encode([line]) for line in texts])
    np.testing.assert_allclose(small.encode(texts), alone, atol=1e-5)


def test_pictures_of_an_iterator_are_read_a_batch_at_a_time(folders, image):
    encoder, pictures = (
        Encoder.from_folder(folders[1], batch_rows=2),
        [picture(color=c) for c in tiny_models.COLORS],
    )
    batches = []
    encoder._session, session = None, encoder._session
    encoder._session = type(
        "Counting", (), {"run": lambda _, names, feed: batches.append(read) or session.run(names, feed)}
    )()
    read = 0

    def stream():
        nonlocal read
        for one in pictures:
            read += 1
            yield one

    np.testing.assert_allclose(encoder.encode(stream()), image.encode(pictures), atol=1e-5)
    assert batches == [2, 4, 6]


def test_batches_fit_the_memory_budget(folders):
    assert Encoder.from_folder(folders[0], memory_bytes=3 * 8192 + 1).batch_rows == 3
    assert Encoder.from_folder(folders[0], memory_bytes=1).batch_rows == 1


def test_long_texts_are_cut_at_max_tokens(text):
    kept = " ".join(["red"] * 30)  # 32 tokens with the two special ones
    np.testing.assert_allclose(text.encode([kept + " blue" * 50]), text.encode([kept]), atol=1e-6)


def test_a_tokenizer_that_ships_fixed_padding_changes_nothing(folders, text, tmp_path):
    from tokenizers import Tokenizer

    padded = Tokenizer.from_file(str(folders[0] / "tokenizer.json"))
    padded.enable_padding(length=24)
    content = padded.to_str().encode()
    card = text.card | {"tokenizer_sha256": hashlib.sha256(content).hexdigest()}
    other = Encoder.from_bytes(card, (folders[0] / "model.onnx").read_bytes(), content)
    np.testing.assert_allclose(other.encode(["red ring"]), text.encode(["red ring"]), atol=1e-6)


def test_a_model_loads_from_bytes(folders, text):
    parts = [(folders[0] / name).read_bytes() for name in ("model.onnx", "tokenizer.json")]
    np.testing.assert_array_equal(Encoder.from_bytes(text.card, *parts).encode(["red"]), text.encode(["red"]))


def test_pictures_of_another_size_are_taken(image):
    large = image.encode([picture(color="red", size_px=64)])
    assert float((large @ image.encode([picture(color="red")]).T)[0, 0]) > 0.999


@pytest.mark.parametrize("bad", ["", "  \n", 3, None, "a\udce9"])
def test_empty_text_is_refused(text, bad):
    with pytest.raises(QueryError, match=r"empty|takes strings|not valid Unicode"):
        text.encode(["red", bad])


def test_one_bare_text_is_refused(text):
    with pytest.raises(QueryError, match="takes a list"):
        text.encode("red")


@pytest.mark.parametrize(
    "bad",
    [
        *(np.zeros(shape, np.uint8) for shape in ((4, 4), (0, 4, 3), (4, 0, 3), (4, 4, 4), (4, 4, 3, 1), (4, 3, 3, 3))),
        *(np.zeros((4, 4, 3)), "red.png"),
    ],
)
def test_pictures_of_another_shape_are_refused(image, bad):
    with pytest.raises(SchemaError, match="an image encoder takes RGB"):
        image.encode([bad])


def test_a_changed_graph_is_refused_with_both_digests(folders, image):
    damaged = bytearray((folders[1] / "model.onnx").read_bytes())
    damaged[-20] ^= 1
    with pytest.raises(ModelMismatchError, match=f"{hashlib.sha256(damaged).hexdigest()}.*{image.sha256}"):
        Encoder.from_bytes(image.card, bytes(damaged))


def test_a_changed_tokenizer_is_refused(folders, text):
    onnx, tokenizer = (folders[0] / "model.onnx").read_bytes(), (folders[0] / "tokenizer.json").read_bytes()
    with pytest.raises(ModelMismatchError, match="tokenizer_sha256"):
        Encoder.from_bytes(text.card, onnx, tokenizer + b" ")
    with pytest.raises(ModelMismatchError, match=r"tokenizer\.json"):
        Encoder.from_bytes(text.card, onnx)


def test_bytes_that_are_no_model_are_refused(image):
    card = image.card | {"sha256": hashlib.sha256(b"junk").hexdigest()}
    with pytest.raises(ModelMismatchError, match="no ONNX graph"):
        Encoder.from_bytes(card, b"junk")


def test_a_graph_of_other_inputs_is_refused(folders, image):
    card = image.card | {"input": {"size_px": 32}}
    with pytest.raises(ModelMismatchError, match="does not run"):
        Encoder.from_bytes(card, (folders[1] / "model.onnx").read_bytes()).encode([picture()])


@pytest.mark.parametrize(
    ("change", "words"),
    [({"dim": 8}, "promises"), ({"id": None}, "lacks"), ({"kind": "smell"}, "kind"), ({"input": "x"}, "lacks input")],
)
def test_a_card_of_another_model_is_refused(folders, image, change, words):
    card = {key: value for key, value in (image.card | change).items() if value is not None}
    with pytest.raises(ModelMismatchError, match=words):
        Encoder.from_bytes(card, (folders[1] / "model.onnx").read_bytes()).encode([picture()])


@pytest.mark.parametrize("vector", [[np.nan] * 16, [0.0] * 16, [1.0] * 16])
def test_output_that_is_not_of_unit_length_is_refused(folders, vector):
    encoder = Encoder.from_folder(folders[1])
    encoder._session = type(
        "Broken", (), {"run": lambda *_: [np.array([vector], np.float32)], "get_providers": lambda _: ["X"]}
    )()
    with pytest.raises(ModelMismatchError, match="unit norm"):
        encoder.encode([picture()])


def test_self_test_passes_and_finds_another_graph(text, image):
    assert min(text.self_test(), image.self_test()) > 0.9999
    outputs = image.card["self_test"]["outputs"]
    wrong = image.card | {"self_test": image.card["self_test"] | {"outputs": outputs[::-1]}}
    with pytest.raises(ModelMismatchError, match="self-test cosine"):
        Encoder(wrong, image._session, None, batch_rows=2).self_test()


def test_self_test_needs_examples(image):
    with pytest.raises(ModelMismatchError, match="no self_test"):
        Encoder({**image.card, "self_test": None}, image._session, None, batch_rows=2).self_test()


# --- cards --------------------------------------------------------------------------------------------------


def test_models_of_one_space_are_compatible(folders, tmp_path):
    text, image = (encode.read_card(folder) for folder in folders)
    other_text, other_image = (encode.read_card(folder) for folder in write_tiny_models(tmp_path, seed=1, version="2"))
    assert compatible(text, image)
    assert not compatible(text, other_image)
    made_with = {"model": image["id"], "sha256": image["sha256"], "space": image["space"], "dim": 16}
    check_same_model(made_with, image, name="a.duckdb")
    check_same_model(made_with, text, name="a.duckdb")
    for other in (other_text, other_image):
        with pytest.raises(ModelMismatchError, match=r"a\.duckdb.*galimage-tiny-1.*-tiny-2"):
            check_same_model(made_with, other, name="a.duckdb")


def test_an_image_encoder_of_one_space_but_another_file_is_refused(folders):
    card = encode.read_card(folders[1])
    made_with = {"model": card["id"], "sha256": "0" * 64, "space": card["space"], "dim": 16}
    with pytest.raises(ModelMismatchError, match="re-embed"):
        check_same_model(made_with, card, name="a.atlas")


def test_vectors_of_no_named_model_are_refused(folders):
    with pytest.raises(ModelMismatchError, match="unnamed model"):
        check_same_model({"dim": 16}, encode.read_card(folders[0]), name="a.atlas")


def test_a_damaged_card_is_refused(tmp_path):
    (tmp_path / "card.json").write_text('{"id": ')
    with pytest.raises(ModelMismatchError, match="not valid JSON"):
        encode.read_card(tmp_path)
    with pytest.raises(GalsearchError, match="No such file"):
        encode.read_card(tmp_path / "nowhere")


def test_shipped_is_the_highest_version(tmp_path, monkeypatch):
    for version in ("2", "10", "9"):
        write_tiny_models(tmp_path / "onnx_models", version=version)
    monkeypatch.setattr(encode, "__file__", str(tmp_path / "galsearch" / "encode.py"))
    assert shipped("text").name == "galtext-tiny-10"
    assert shipped("image").name == "galimage-tiny-10"
    with pytest.raises(GalsearchError, match=f"no spectrum model found in {tmp_path}"):
        shipped("spectrum")


def test_shipped_looks_in_the_installed_package(tmp_path, monkeypatch):
    write_tiny_models(tmp_path / "galsearch" / "_models")
    monkeypatch.setattr(encode, "__file__", str(tmp_path / "galsearch" / "encode.py"))
    assert shipped("image").parent == tmp_path / "galsearch" / "_models"


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_shipped_model_passes_its_self_test(kind):
    try:
        folder = shipped(kind)
    except GalsearchError:
        pytest.skip("no model in this checkout")
    encoder = Encoder.from_folder(folder)
    assert encoder.self_test() > 0.999
    one = ["a red galaxy", "edge-on galaxy with a dust lane"] if kind == "text" else [picture(), picture(shape="edge")]
    np.testing.assert_allclose(encoder.encode(one), [encoder.encode([item])[0] for item in one], atol=1e-5)


# --- runtime ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
def test_a_missing_runtime_is_named_with_the_remedy(folders, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(GalsearchError, match=rf"{package} is not installed.*galsearch\[cpu\].*galsearch\[gpu\]"):
        Encoder.from_folder(folders[0])


def test_a_gpu_is_asked_for_only_where_there_is_one():
    cpu, both = ["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert encode._providers("auto", cpu) == encode._providers("cpu", both) == cpu
    assert encode._providers("auto", both) == encode._providers("cuda", both) == both
    with pytest.raises(GalsearchError, match=r"galsearch\[gpu\]"):
        encode._providers("cuda", cpu)
    with pytest.raises(GalsearchError, match="'auto', 'cpu', 'cuda'"):
        encode._providers("tpu", cpu)


def test_a_gpu_that_fails_is_said_aloud_or_refused(caplog):
    wanted, used = ["CUDAExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"]
    with caplog.at_level(logging.WARNING, logger="galsearch"):
        encode._check_provider("auto", wanted, used)
    assert "CUDAExecutionProvider is listed but could not be used" in caplog.text
    with pytest.raises(GalsearchError, match="fell back"):
        encode._check_provider("cuda", wanted, used)


def test_importing_encode_loads_no_engine():
    import subprocess

    heavy = "{'onnxruntime', 'tokenizers', 'PIL', 'astropy'}"
    code = f"import sys, galsearch.encode; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_spectra_that_are_not_on_the_grid_or_not_finite_are_refused_and_weights_of_zero_are_not(tmp_path):
    found = Encoder.from_folder(tiny_spectra.write_tiny_spectrum_model(tmp_path))
    good = np.ones((2, tiny_spectra.PIXELS), np.float32)
    good[0] += np.linspace(0, 1, tiny_spectra.PIXELS)
    good[1, ::7] = 0  # no data there
    np.testing.assert_allclose(found.encode([good]), tiny_spectra.reference(good[None].astype(float)), atol=1e-5)
    holed, denied = good.copy(), good.copy()
    holed[0, 3], denied[1, 3] = np.nan, -1.0
    for bad in (good[:, 1:], good[:1], good[None], holed, denied):
        for batch in ([bad], [good, bad]):
            with pytest.raises(SchemaError, match="a spectrum encoder takes"):
                found.encode(batch)
