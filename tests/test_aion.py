"""AION-1 and AION-Search brought by the user: weights in the hub's layout to ONNX, published tables to atlases.

Weights are random and small but named and shaped as the published ones; tables are synthetic, in the published columns.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from typer.testing import CliRunner

import galsearch
from galsearch.encode import Encoder
from galsearch.sources import known_embeddings

ROWS = 40
QUIET = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # raised inside torch.onnx
DIM, HEADS, DEPTH, HIDDEN = 32, 4, 2, 24  # HIDDEN: two thirds of 36, as a gated layer has it
LEVELS, WIDTH, CHANNELS = [7, 5, 5, 5, 5], 6, 64
pytestmark = pytest.mark.slow
ENCODER_CONFIG = {
    "act_layer": "SiLU",
    "decoder_depth": 1,
    "dim": DIM,
    "domains_in": ["tok_image", "tok_image_hsc"],
    "domains_out": ["tok_image", "tok_image_hsc"],
    "encoder_depth": DEPTH,
    "gated_mlp": True,
    "mlp_bias": False,
    "mlp_ratio": 36 / DIM,
    "norm_bias": False,
    "num_heads": HEADS,
    "proj_bias": False,
    "qk_norm": False,
    "qkv_bias": False,
}
CODEC_CONFIG = {
    "embedding_dim": 5,
    "hidden_dims": CHANNELS,
    "mult_factor": 10.0,
    "multisurvey_projection_dims": WIDTH,
    "n_compressions": 2,
    "num_consecutive": 1,
    "quantizer_levels": LEVELS,
    "range_compression_factor": 0.01,
}
PROJECTOR_CONFIG = {
    "image_input_dim": 768,
    "text_input_dim": 3072,
    "embedding_dim": 1024,
    "image_hidden_dim": 768,
    "text_hidden_dim": 1024,
    "dropout": 0.1,
    "use_mean_embeddings": True,
}


# ---- the hub's layout


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], *, aliases: dict[str, str] | None = None) -> None:
    """Write arrays as the safetensors format says: 8 bytes of length, a JSON table, then the numbers."""
    table, start = ({"__metadata__": aliases} if aliases else {}), 0
    for name, array in arrays.items():
        kind = {"f4": "F32", "i4": "I32"}[array.dtype.str[1:]]
        table[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(array.tobytes() for array in arrays.values()))


def drawn(shapes: dict[str, tuple[int, ...]], *, seed: int) -> dict[str, np.ndarray]:
    """Draw weights that keep numbers of order one: by the fan-in, norms about 1, biases small."""
    random, found = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        values = random.normal(size=shape)
        if len(shape) > 1 and "emb" not in name.rpartition(".")[2]:
            values /= math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight"):
            values = 1 + 0.1 * values
        found[name] = (values if len(shape) > 1 else values * (1 if name.endswith("weight") else 0.1)).astype("<f4")
    return found


def transformer_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {"encoder_norm.weight": (DIM,), "encoder_norm.bias": (DIM,), "mask_token": (1, 1, DIM)}
    for key in ("tok_image", "tok_image_hsc"):
        for side in ("encoder", "decoder"):
            shapes[f"{side}_embeddings.{key}.pos_emb"] = (1, 576, DIM)
            shapes[f"{side}_embeddings.{key}.token_emb.weight"] = (math.prod(LEVELS), DIM)
        shapes[f"decoder_embeddings.{key}.mod_emb"] = (1, 1, DIM)  # shared: stored once, as safetensors does
    for block in range(DEPTH):
        start = f"encoder.{block}."
        shapes |= {f"{start}norm{place}.{part}": (DIM,) for place in (1, 2) for part in ("weight", "bias")}
        shapes |= {f"{start}attn.qkv.weight": (3 * DIM, DIM), f"{start}attn.proj.weight": (DIM, DIM)}
        shapes |= {f"{start}mlp.fc{place}.weight": (HIDDEN, DIM) for place in (1, 3)}
        shapes[f"{start}mlp.fc2.weight"] = (DIM, HIDDEN)
    return shapes | {"decoder_proj_context.weight": (DIM, DIM), "decoder_proj_context.bias": (DIM,)}


def residual_shapes(start: str, channels: int) -> dict[str, tuple[int, ...]]:
    inner = max(16, channels // 2)
    shapes = {
        f"{start}net.0.conv": (channels, channels, 3, 3),
        f"{start}net.2": (channels, channels, 1, 1),
        f"{start}net.4.to_k": (1, channels, 1, 1),
        f"{start}net.4.net.0": (inner, channels, 1, 1),
        f"{start}net.4.net.2": (channels, inner, 1, 1),
    }
    return with_biases(shapes)


def with_biases(weights: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape for name, shape in weights.items()} | {
        f"{name}.bias": shape[:1] for name, shape in weights.items()
    }


def codec_shapes() -> dict[str, tuple[int, ...]]:
    layers, first = "model.encoder_layers.", CHANNELS // 4
    shapes = {
        "subsample_in": (WIDTH, 9),
        "subsample_out": (9, WIDTH),
        "model.conv_in.conv": (first, WIDTH, 7, 7),
        f"{layers}1.conv": (2 * first, first, 3, 3),
        f"{layers}3.conv": (4 * first, 2 * first, 3, 3),
        f"{layers}5.conv": (4 * first, 4 * first, 7, 7),
        f"{layers}7.1": (CHANNELS,),
        "pre_quant_proj": (5, CHANNELS, 1, 1),
        "post_quant_proj": (CHANNELS, 5, 1, 1),
    }
    found = with_biases(shapes) | residual_shapes(f"{layers}0.", first)
    for place, channels in ((2, 2 * first), (4, 4 * first), (6, 4 * first)):
        found |= residual_shapes(f"{layers}{place}.0.", channels)
    return found


@pytest.fixture(scope="module")
def encoder_hub(tmp_path_factory) -> Path:
    """A folder as the hub has AION-1: config.json, model.safetensors, codecs/image/."""
    folder = tmp_path_factory.mktemp("aion")
    keys = ("tok_image", "tok_image_hsc")
    aliases = {f"encoder_embeddings.{key}.mod_emb": f"decoder_embeddings.{key}.mod_emb" for key in keys}
    write_safetensors(folder / "model.safetensors", drawn(transformer_shapes(), seed=1), aliases=aliases)
    (folder / "config.json").write_text(json.dumps(ENCODER_CONFIG))
    weights = drawn(codec_shapes(), seed=2) | {"_quantizer.levels": np.array(LEVELS, "<i4")}
    write_safetensors(folder / "codecs" / "image" / "model.safetensors", weights)
    (folder / "codecs" / "image" / "config.json").write_text(json.dumps(CODEC_CONFIG))
    return folder


@pytest.fixture(scope="module")
def projector_hub(tmp_path_factory) -> Path:
    """A folder as the hub has AION-Search: config.json, model.safetensors, of the published size."""
    folder, shapes = tmp_path_factory.mktemp("aion-search"), {}
    for kind, (dim, hidden) in {"image": (768, 768), "text": (3072, 1024)}.items():
        start = f"{kind}_projector."
        shapes |= with_biases({f"{start}fc_in": (hidden, dim), f"{start}fc_out": (1024, hidden)})
        for block in range(4):
            shapes |= with_biases({f"{start}blocks.{block}.0": (hidden,), f"{start}blocks.{block}.3": (hidden, hidden)})
    write_safetensors(folder / "model.safetensors", drawn(shapes, seed=3) | {"logit_scale": np.array(2.66, "<f4")})
    (folder / "config.json").write_text(json.dumps(PROJECTOR_CONFIG))
    return folder


# ---- export


def projected(vectors: np.ndarray, hub: Path, kind: str) -> np.ndarray:
    """Compute a projector in numpy, from the published description alone."""
    from scipy.special import erf

    content = (hub / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    table = json.loads(content[8 : 8 + length])

    def read(name: str) -> np.ndarray:
        entry = table[f"{kind}_projector.{name}"]
        first, last = entry["data_offsets"]
        return np.frombuffer(content[8 + length + first : 8 + length + last], "<f4").reshape(entry["shape"])

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ read(f"{name}.weight").T.astype(float) + read(f"{name}.bias")

    x = vectors.astype(float)
    x = linear(x / np.linalg.norm(x, axis=1, keepdims=True) if kind == "image" else x, "fc_in")
    for block in range(4):
        spread = np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        y = (x - x.mean(axis=1, keepdims=True)) / spread * read(f"blocks.{block}.0.weight")
        y = y + read(f"blocks.{block}.0.bias")
        x = x + linear(y * (1 + erf(y / math.sqrt(2))) / 2, f"blocks.{block}.3")
    out = linear(x, "fc_out")
    return out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def exported(projector_hub, tmp_path_factory) -> Path:
    """The folder that the exporter writes both projectors to."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from export import aion

    out = tmp_path_factory.mktemp("projectors")
    aion.write_projectors(projector_hub, out)
    return out


@pytest.mark.torch
@QUIET
@pytest.mark.parametrize(("kind", "dim"), [("image", 768), ("text", 3072)])
def test_an_exported_projector_computes_what_is_published(exported, projector_hub, kind, dim):
    projector = Encoder.from_folder(exported / f"aion-search-{kind}-projector", device="cpu")
    vectors = np.random.default_rng(4).normal(size=(5, dim)).astype(np.float32)
    found = projector.encode(vectors)
    assert np.abs(found - projected(vectors, projector_hub, kind)).max() < 1e-4
    assert projector.self_test() > 0.99999
    assert projector.card["parity"]["max_difference"] < 1e-4
    # the length of a picture's vector does not count, that of a text's does
    assert np.allclose(projector.encode(3 * vectors), found, atol=1e-5) == (kind == "image")


@pytest.mark.torch
@pytest.mark.slow
@QUIET
@pytest.mark.parametrize("survey", ["legacy", "hsc"])
def test_an_exported_image_encoder_computes_what_torch_computes(encoder_hub, tmp_path, survey):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from export import aion

    folder = aion.write_encoder(encoder_hub, tmp_path, survey=survey)
    encoder = Encoder.from_folder(folder, device="cpu")
    facts = aion.SURVEYS[survey]
    flux = np.pad(aion.drawn_flux(3, survey=facts, seed=5), ((0, 0), (0, 0), (3, 4), (10, 10)), constant_values=9)
    kept, center = flux.copy(), torch.from_numpy(flux[:, :, 3:99, 10:106].copy())
    model = aion.load_encoder(encoder_hub, facts)
    with torch.inference_mode():
        expected, tokens = model(center).numpy(), model.codec(center)
    assert np.abs(encoder.encode(flux) - expected).max() < 1e-4
    assert np.array_equal(flux, kept)  # the original codec divides the caller's HSC flux in place
    assert tokens.shape == (3, 576)
    assert 0 <= tokens.min() < tokens.max() < math.prod(LEVELS)
    assert len(set(tokens.ravel().tolist())) > 20
    assert encoder.self_test() > 0.9999
    assert encoder.card["parity"]["max_difference"] < 1e-4
    assert encoder.card["input"]["bands"] == list(facts.bands)


@pytest.mark.torch
def test_an_image_encoder_sees_all_its_tokens(encoder_hub):
    """The published default of 256 tokens would be blind to most of the picture."""
    torch = pytest.importorskip("torch")
    from export import aion

    transformer = aion.load_encoder(encoder_hub, aion.SURVEYS["legacy"]).transformer
    tokens = torch.zeros(1, 576, dtype=torch.int64)
    changed = tokens.clone()
    changed[0, 575] = 1
    with torch.inference_mode():
        assert not torch.allclose(transformer(tokens), transformer(changed), atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("count", [4, 5, 7, 8])
def test_the_quantizer_reaches_every_level_in_order(count):
    torch = pytest.importorskip("torch")
    from export import aion

    known = {name: torch.tensor(values) for name, values in aion.quantizer_constants([count]).items()}
    z = torch.linspace(-9, 9, 4001)
    steps = torch.round(torch.tanh(z + known["shift"]) * known["reach"] - known["offset"]) + known["below"]
    assert steps.unique().tolist() == list(range(count))
    assert torch.all(steps.diff() >= 0)


@pytest.mark.torch
def test_the_image_encoder_is_that_of_the_original_package(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("aion", reason="polymathic-aion is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    from aion.codecs.image import ImageCodec
    from aion.modalities import HSCImage, LegacySurveyImage
    from aion.model import AION
    from safetensors.torch import save_file

    from export import aion

    torch.manual_seed(0)
    original = AION(ENCODER_CONFIG | {"mlp_ratio": 4, "qk_norm": True}).eval()
    original.save_pretrained(tmp_path)
    codec = ImageCodec(**CODEC_CONFIG).eval()
    for name, weight in codec.named_parameters():
        if ".net.4." in name:  # gates start closed
            torch.nn.init.normal_(weight, std=0.2)
    below = tmp_path / "codecs" / "image"
    below.mkdir(parents=True)
    save_file(codec.state_dict(), below / "model.safetensors")
    (below / "config.json").write_text(json.dumps(CODEC_CONFIG))
    for survey, kind in (("legacy", LegacySurveyImage), ("hsc", HSCImage)):
        facts = aion.SURVEYS[survey]
        flux = torch.from_numpy(aion.drawn_flux(2, survey=facts, seed=6))
        ours = aion.load_encoder(tmp_path, facts)
        with torch.inference_mode():
            tokens = codec.encode(kind(flux=flux.clone(), bands=list(facts.bands)))
            expected = original.encode({facts.key: tokens}, num_encoder_tokens=576).mean(dim=1)
            assert torch.equal(ours.codec(flux), tokens.long())
            assert torch.allclose(ours.transformer(tokens.long()), expected, atol=1e-5)


@pytest.mark.torch
def test_a_shared_embedding_is_found_under_its_other_name(encoder_hub, tmp_path):
    torch = pytest.importorskip("torch")
    from export import aion, hub

    facts = aion.SURVEYS["hsc"]
    weights = {
        name: value.clone() for name, value in hub.read_weights(encoder_hub).items() if "encoder_emb" not in name
    }
    weights |= {
        name: value
        for name, value in hub.read_weights(encoder_hub).items()
        if name.endswith(("token_emb.weight", "pos_emb"))
    }
    torch.save(weights, tmp_path / "pytorch_model.bin")  # the other layout of a hub, without a list of aliases
    (tmp_path / "config.json").write_text(json.dumps(ENCODER_CONFIG))
    (tmp_path / "codecs").symlink_to(encoder_hub / "codecs")
    first, second = aion.load_encoder(encoder_hub, facts), aion.load_encoder(tmp_path, facts)
    known = "encoder_embeddings.tok_image_hsc.mod_emb"
    assert torch.equal(first.transformer.state_dict()[known], second.transformer.state_dict()[known])
    assert first.transformer.state_dict()[known].abs().max() > 0


@pytest.mark.torch
@pytest.mark.parametrize("cut", [4, 200, -8])
def test_weights_that_end_too_soon_are_refused(encoder_hub, tmp_path, cut):
    pytest.importorskip("torch")
    from export import hub

    (tmp_path / "model.safetensors").write_bytes((encoder_hub / "model.safetensors").read_bytes()[:cut])
    with pytest.raises(galsearch.ModelMismatchError, match="download it again"):
        hub.read_weights(tmp_path)


@pytest.mark.torch
def test_weights_of_another_size_are_refused_by_name(encoder_hub, tmp_path):
    pytest.importorskip("torch")
    from export import aion, hub

    (tmp_path / "model.safetensors").symlink_to(encoder_hub / "model.safetensors")
    (tmp_path / "codecs").symlink_to(encoder_hub / "codecs")
    (tmp_path / "config.json").write_text(json.dumps(ENCODER_CONFIG | {"encoder_depth": DEPTH + 1}))
    with pytest.raises(galsearch.ModelMismatchError, match=f"encoder.{DEPTH}.norm1.weight"):
        aion.load_encoder(tmp_path, aion.SURVEYS["legacy"])
    with pytest.raises(galsearch.GalsearchError, match=r"no model\.safetensors"):
        hub.read_weights(tmp_path / "codecs")


# ---- models that are not of words or pictures, with no torch


def write_model(folder: Path, matrix: np.ndarray, *, inputs: list, outputs: np.ndarray, **facts: object) -> Path:
    """Write a model folder: the input, summed over any pixels, through a matrix, to unit length."""
    from onnx import TensorProto, helper, numpy_helper

    kind = facts["kind"]
    name, shape = ("flux", ["n", len(matrix), 4, 4]) if kind == "flux" else ("vector", ["n", len(matrix)])
    nodes = [
        helper.make_node("ReduceSum", ["flux", "pixels"], ["vector"], keepdims=0),
        helper.make_node("MatMul", ["vector", "matrix"], ["vectors"]),
        helper.make_node("LpNormalization", ["vectors"], ["embedding"], axis=1, p=2),
    ][0 if kind == "flux" else 1 :]
    constants = {"matrix": matrix} | ({"pixels": np.array([2, 3])} if kind == "flux" else {})
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", matrix.shape[1]])],
        initializer=[numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    card = {"id": folder.name, "embedding": "image", "dim": matrix.shape[1], "output": "embedding"}
    card |= {"sha256": hashlib.sha256(content).hexdigest(), "license": "MIT", **facts}
    card["self_test"] = {"inputs": inputs, "outputs": np.round(outputs, 6).tolist(), "min_cosine": 0.999}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


IMAGE_MATRIX = np.random.default_rng(7).normal(size=(768, 1024)).astype(np.float32)
TEXT_MATRIX = np.random.default_rng(8).normal(size=(3072, 1024)).astype(np.float32)


@pytest.fixture(scope="module")
def projectors(tmp_path_factory) -> Path:
    """Both projectors of a small kind, as the exporter lays them out."""
    out = tmp_path_factory.mktemp("projectors")
    for kind, matrix, takes in (
        ("image", IMAGE_MATRIX, "aion-1-base"),
        ("text", TEXT_MATRIX, "text-embedding-3-large"),
    ):
        facts = {"kind": "projector", "projects": kind, "space": "aion-search"}
        facts |= {"input": {"dim": len(matrix), "space": takes}}
        probes = np.eye(len(matrix), dtype=np.float32)[:2]
        write_model(out / f"tiny-{kind}", matrix, inputs=probes.tolist(), outputs=unit(probes @ matrix), **facts)
    return out


def test_a_flux_encoder_takes_the_center_of_calibrated_pictures(tmp_path):
    facts = {"kind": "flux", "space": "flux", "input": {"size_px": 4, "bands": ["DES-G", "DES-R"]}}
    matrix, none = np.eye(2, 3, dtype=np.float32), np.empty((0, 3))
    folder = write_model(tmp_path / "tiny-flux", matrix, inputs=[], outputs=none, **facts)
    encoder = Encoder.from_folder(folder, device="cpu")
    flux = np.full((2, 7, 4), 50.0)
    flux[:, 1:5] = np.array([3.0, 4.0])[:, None, None]
    assert np.allclose(encoder.encode([flux]), [[0.6, 0.8, 0.0]])
    assert encoder.encode([]).shape == (0, 3)
    for wrong in (flux[:1], flux[:, :3], flux.astype(np.uint8)):
        with pytest.raises(galsearch.SchemaError, match="DES-G, DES-R"):
            encoder.encode([wrong])
    with pytest.raises(galsearch.SchemaError, match="not finite"):
        encoder.encode([np.where(flux == 3, np.nan, flux)])


def test_a_projector_refuses_vectors_of_another_length(projectors):
    projector = Encoder.from_folder(projectors / "tiny-image", device="cpu")
    assert projector.encode(np.empty((0, 768), np.float32)).shape == (0, 1024)
    with pytest.raises(galsearch.ModelMismatchError, match="768 numbers"):
        projector.encode(np.ones((2, 1024), np.float32))


# ---- published tables


MEAN, SEARCH = tiny.random_units(ROWS, 768, seed=9) * 31, tiny.random_units(ROWS, 1024, seed=10)
RA, DEC = np.linspace(0.01, 359.9, ROWS), np.linspace(-89.5, 80.25, ROWS)


def lists(array: np.ndarray) -> pa.Array:
    return pa.array(list(array.astype(np.float32)), pa.list_(pa.float32()))


@pytest.fixture
def decals(tmp_path) -> Path:
    """A table as gz-decals-embeddings has it: votes in columns with dashes and dots, both kinds of vectors."""
    table = pa.table(
        {
            "iauname": [f"J{row:06d}" for row in range(ROWS)],
            "ra": RA,
            "dec": DEC,
            "has-spiral-arms_yes_fraction": np.linspace(0, 1, ROWS),
            "has-spiral-arms_yes_fraction.mask": [False] * ROWS,
            "smooth-or-featured_total-votes": np.arange(ROWS),
            "kfold": np.arange(ROWS) % 10,
            "aion_mean_embedding": lists(MEAN),
            "aion_search_embedding": lists(SEARCH),
        }
    )
    pq.write_table(table, tmp_path / "decals.parquet")
    return tmp_path / "decals.parquet"


@pytest.fixture
def lenses(tmp_path) -> Path:
    """A table as lens-retrieval-ls-embeddings has it: positions, and no ids at all."""
    columns = {"ra": RA, "dec": DEC, "is_lens": [row % 9 == 0 for row in range(ROWS)]}
    columns |= {"aion_mean_embedding": lists(MEAN), "aion_search_embedding": lists(SEARCH)}
    pq.write_table(pa.table(columns), tmp_path / "lenses.parquet")
    return tmp_path / "lenses.parquet"


@pytest.mark.parametrize("named", [{}, {"model": "aion-search"}, {"vectors": "aion_search_embedding"}])
def test_a_published_table_is_known_by_its_columns(decals, tmp_path, named):
    path = tmp_path / "decals.atlas"
    assert galsearch.build(path, table=decals, **named).rows == ROWS
    for place in (path, galsearch.bundle(path, tmp_path / "decals.duckdb")):
        with galsearch.open(place) as atlas:
            hits = atlas.search(atlas["J000007"], where='"has-spiral-arms_yes_fraction" > 0.5', k=5)
            allowed = np.flatnonzero(np.linspace(0, 1, ROWS) > 0.5)
            best = allowed[np.argsort(-(SEARCH[allowed] @ SEARCH[7]))][:5]
            assert hits.ids == [f"J{row:06d}" for row in best]
            space = atlas.manifest.embeddings["image"]
            assert (space["dim"], space["model"], space["space"]) == (1024, "aion-search", "aion-search")
            assert not {"aion_mean_embedding", "aion_search_embedding"} & set(atlas.columns()["column"].to_pylist())
            assert all(finding.ok for finding in atlas.check())


def test_rows_without_ids_are_called_after_their_positions(lenses, tmp_path):
    from astropy.coordinates import Angle

    galsearch.build(tmp_path / "lenses.atlas", table=lenses, model="aion")
    with galsearch.open(tmp_path / "lenses.atlas") as atlas:
        assert atlas.manifest.embeddings["image"]["dim"] == 768
        found = atlas.sql("SELECT object_id, ra, dec FROM galaxies ORDER BY ra").to_pylist()
        assert len(found) == ROWS
    for row in found:  # cut, not rounded: read back, they are less than a unit of the last digit below
        name = row["object_id"]
        ra = Angle(f"{name[1:3]}h{name[3:5]}m{name[5:10]}s").degree
        dec = Angle(f"{name[10:13]}d{name[13:15]}m{name[15:]}s").degree
        assert -1e-9 <= (row["ra"] - ra) * 3600 < 0.15 + 1e-6
        assert -1e-6 <= (abs(row["dec"]) - abs(dec)) * 3600 < 0.1 + 1e-6


def test_words_name_the_model_that_is_missing(decals, projectors, tmp_path):
    galsearch.build(tmp_path / "a.atlas", table=decals)
    with galsearch.open(tmp_path / "a.atlas") as atlas:
        with pytest.raises(galsearch.ModelMismatchError, match=r"text-embedding-3-large .*--projector"):
            atlas.search("visible spiral arms")
        with pytest.raises(galsearch.ModelMismatchError, match="no image encoder"):
            atlas._encoder("image")
    galsearch.build(tmp_path / "b.atlas", table=decals, projector=projectors)
    with (
        galsearch.open(tmp_path / "b.atlas") as atlas,
        pytest.raises(galsearch.ModelMismatchError, match=r"text-embedding-3-large .*travels with the atlas"),
    ):
        atlas.search("visible spiral arms")
    galsearch.build(tmp_path / "c.atlas", table=decals, model="aion")
    with galsearch.open(tmp_path / "c.atlas") as atlas, pytest.raises(galsearch.ModelMismatchError, match="no words"):
        atlas.search("visible spiral arms")


@pytest.mark.parametrize("given", ["", "tiny-image"])
def test_vectors_are_projected_when_an_atlas_is_built(decals, projectors, tmp_path, given):
    path, expected = tmp_path / "p.atlas", unit(MEAN @ IMAGE_MATRIX)
    galsearch.build(path, table=decals, projector=projectors / given)
    for place in (path, galsearch.bundle(path, tmp_path / "p.duckdb")):
        with galsearch.open(place) as atlas:
            assert np.abs(atlas.embed(atlas["J000003"]) - expected[3]).max() < 1e-5
            space, card = atlas.manifest.embeddings["image"], atlas.models()["image_projector"]
            assert (space["model"], space["sha256"]) == (card["id"], card["sha256"])
            assert atlas.search(MEAN[5], k=1).ids == ["J000005"]  # 768 numbers go through the projector
            assert {f.name for f in atlas.check() if f.ok} >= {"model image_projector"}
            assert all(finding.ok for finding in atlas.check())
            with pytest.raises(galsearch.QueryError):
                atlas.search(np.full(3072, np.nan))
            with pytest.raises(galsearch.ModelMismatchError, match="12 dimensions"):
                atlas.search(np.ones(12))
            if not given:
                text = np.random.default_rng(11).normal(size=3072).astype(np.float32)
                best = np.argsort(-(expected @ unit(text[None] @ TEXT_MATRIX)[0]))[:4]
                assert atlas.search(text, k=4).ids == [f"J{row:06d}" for row in best]


def test_a_text_projector_travels_with_vectors_that_are_projected_already(decals, projectors, tmp_path):
    path = tmp_path / "t.atlas"
    galsearch.build(path, table=decals, vectors="aion_search_embedding", projector=projectors)
    with galsearch.open(path) as atlas:
        assert atlas.manifest.embeddings["image"]["model"] == "aion-search"
        assert set(atlas.models()) == {"image_projector", "text_projector"}
        text = np.random.default_rng(12).normal(size=3072).astype(np.float32)
        best = np.argmax(SEARCH @ unit(text[None] @ TEXT_MATRIX)[0])
        assert atlas.search(text, k=1).ids == [f"J{best:06d}"]
        assert all(finding.ok for finding in atlas.check())


def test_added_rows_go_through_the_same_projector_or_not_at_all(decals, projectors, tmp_path):
    path, more = tmp_path / "a.atlas", tmp_path / "more.parquet"
    table = pq.read_table(decals)
    names = pa.array([f"K{row:06d}" for row in range(ROWS)])
    pq.write_table(table.set_column(0, "iauname", names), more)
    galsearch.build(path, table=decals, projector=projectors)
    for other in ({}, {"model": "aion"}):
        with pytest.raises(galsearch.ModelMismatchError, match="two models cannot be compared"):
            galsearch.add(path, table=more, **other)
    assert galsearch.add(path, table=more, projector=projectors).rows == 2 * ROWS
    with galsearch.open(path) as atlas:
        assert np.allclose(atlas.embed(atlas["K000003"]), atlas.embed(atlas["J000003"]), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vectors": "aion_mean_embedding", "model": "aion-search"}, "768 numbers, .* 1024; .*--model aion$"),
        ({"vectors": "aion_search_embedding", "model": "aion"}, "1024 numbers, .* 768; .*--model aion-search"),
        ({"vectors": "kfold", "model": "aion"}, "expected a list of numbers"),
    ],
)
def test_vectors_of_the_wrong_length_are_refused(decals, tmp_path, options, said):
    with pytest.raises(galsearch.SchemaError, match=said):
        galsearch.build(tmp_path / "w.atlas", table=decals, **options)
    assert not (tmp_path / "w.atlas").exists()


def test_a_table_without_the_published_column_says_which_it_wants(decals, tmp_path):
    pq.write_table(pq.read_table(decals).drop_columns(["aion_search_embedding"]), tmp_path / "mean.parquet")
    with pytest.raises(galsearch.SchemaError, match=r"no column aion_search_embedding.*--vectors"):
        galsearch.build(tmp_path / "n.atlas", table=tmp_path / "mean.parquet", model="aion-search")


def test_a_projector_of_another_space_is_refused(decals, projectors, tmp_path):
    with pytest.raises(galsearch.ModelMismatchError, match="takes vectors of 768 numbers of aion-1-base"):
        galsearch.build(
            tmp_path / "o.atlas",
            table=decals,
            vectors="aion_mean_embedding",
            model="another",
            id_column="iauname",
            projector=projectors / "tiny-image",
        )
    with pytest.raises(galsearch.ModelMismatchError, match="the vectors lie in aion-1-base"):
        galsearch.build(tmp_path / "o.atlas", table=decals, model="aion", projector=projectors / "tiny-text")
    with pytest.raises(galsearch.GalsearchError, match="expected the folder of a projector"):
        galsearch.build(tmp_path / "o.atlas", table=decals, projector=tmp_path)
    assert not (tmp_path / "o.atlas").exists()


def test_the_command_line_builds_and_asks_a_published_table(decals, projectors, tmp_path):
    from galsearch.cli import app

    path = str(tmp_path / "c.atlas")
    told = CliRunner().invoke(app, ["build", path, "--table", str(decals), "--projector", str(projectors)])
    assert told.exit_code == 0, told.output
    found = CliRunner().invoke(app, ["search", path, "--like", "J000004", "-k", "3", "--format", "json"])
    ids = [row["object_id"] for row in json.loads(found.stdout)["rows"]]
    expected = unit(MEAN @ IMAGE_MATRIX)
    order = [row for row in np.argsort(-(expected @ expected[4])) if row != 4]
    assert ids == [f"J{row:06d}" for row in order[:3]]


def test_what_is_said_decides_before_what_the_columns_are_called():
    names = ["ra", "aion_mean_embedding", "aion_search_embedding"]
    assert known_embeddings.find(names, vectors=None, model=None) is known_embeddings.AION_SEARCH
    assert known_embeddings.find(names, vectors=None, model=None, takes="aion-1-base") is known_embeddings.AION
    assert known_embeddings.find(names, vectors=None, model="aion") is known_embeddings.AION
    assert known_embeddings.find(names, vectors="mine", model="aion") is known_embeddings.AION
    assert known_embeddings.find(names, vectors="aion_mean_embedding", model=None) is known_embeddings.AION
    assert known_embeddings.find(names, vectors="aion_mean_embedding", model="mine") is None
    assert known_embeddings.find(names, vectors=None, model="mine") is None
    assert known_embeddings.find(["ra", "emb"], vectors=None, model=None) is None
