"""Tiny deterministic encoders for tests: real ONNX graphs of a few kB, drawn by code, that agree on a few
words.

Both encoders see a 4 x 4 grid of colors (48 numbers from -1 to 1): the image encoder averages a 16 px picture
down to it, the text encoder averages the grids that its words stand for. One seeded matrix takes the grid to
`dim` numbers. So "red" lies near a red picture and "edge-on" near a bar of light, with no training. Other
words get small random grids by their letters.

    text_folder, image_folder = write_tiny_models(tmp_path)
    Encoder.from_folder(text_folder).encode(["red edge-on galaxy"])

A model of another `seed` has another matrix and another `space`: vectors of the two must not be compared.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import string
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIZE_PX = 16
DIM = 16
GRID = 4
COLORS = {
    "red": (1, -1, -1),
    "green": (-1, 1, -1),
    "blue": (-1, -1, 1),
    "yellow": (1, 1, -1),
    "white": (1, 1, 1),
    "dark": (-1, -1, -1),
}
SHAPES = {  # rows of the grid; "#" is light
    "edge": (0, "....", "####", "####", "...."),
    "face": (0, ".##.", "####", "####", ".##."),
    "round": (0, "....", ".##.", ".##.", "...."),
    "ring": (0, "####", "#..#", "#..#", "####"),
}
NEUTRAL = ("galaxy", "galaxies", "a", "an", "the", "on", "with", "disk")  # words that change nothing
FEATURES = 3 * GRID * GRID + 1  # the last one is a constant, so that no vector is zero
BIAS = 0.05


def write_tiny_models(
    folder: str | Path,
    *,
    seed: int = 0,
    version: str = "1",
    dim: int = DIM,
    names: str = "tiny",
    embedding: str = "image",
) -> tuple[Path, Path]:
    """Write a text and an image model under `folder` and return their two folders, (text, image).

    Ids are `gal<kind>-<names>-<version>`; models of one `seed` and `dim` share the space `<names>-<seed>`. `embedding`
    is what an atlas calls their vectors.
    """
    facts = {"version": version, "dim": dim, "space": f"{names}-{seed}", "names": names, "seed": seed}
    facts["embedding"] = embedding
    text = _write(Path(folder), "text", _text_graph(seed, dim), facts, tokenizer=_tokenizer_json())
    image = _write(Path(folder), "image", _image_graph(seed, dim), facts)
    return text, image


def picture(*, color: str = "white", shape: str | None = None, size_px: int = SIZE_PX) -> np.ndarray:
    """Draw an `(size, size, 3) uint8` picture: a shape of that color on black, or the plain color."""
    grid = np.broadcast_to(np.array(COLORS[color], dtype=float), (GRID, GRID, 3))
    if shape is not None:
        grid = np.where(_mask(shape)[..., None], grid, -1.0)
    cell = -(-size_px // GRID)
    pixels = np.rint((grid + 1) * 127.5).astype(np.uint8)
    return pixels.repeat(cell, axis=0).repeat(cell, axis=1)[:size_px, :size_px]


def reference_image(pictures: list[np.ndarray], *, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Return in numpy what the image model must return for 16 px pictures."""
    stack = np.stack(pictures).astype(np.float64).reshape(len(pictures), GRID, 4, GRID, 4, 3).mean(axis=(2, 4))
    grid = stack.transpose(0, 3, 1, 2).reshape(len(pictures), -1) / 127.5 - 1
    return _project(grid, seed, dim)


def reference_text(token_rows: list[list[int]], *, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Return in numpy what the text model must return for rows of token ids."""
    table = _token_grids()
    return _project(np.stack([table[row].mean(axis=0) for row in token_rows]), seed, dim)


def _project(grid: np.ndarray, seed: int, dim: int) -> np.ndarray:
    features = np.concatenate([grid, np.full((len(grid), 1), BIAS)], axis=1)
    vectors = features @ _matrix(seed, dim)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _matrix(seed: int, dim: int) -> np.ndarray:
    """Return a (49, dim) matrix with orthogonal columns that keeps mean colors and shapes apart."""
    rng = np.random.default_rng([seed, 16])
    kept = [_color_grid(color) for color in ("red", "green", "blue")]
    kept += [_shape_grid(shape) for shape in SHAPES]
    basis = np.concatenate([np.array(kept), rng.normal(size=(max(dim - len(kept), 0), FEATURES - 1))])
    columns = np.linalg.qr(basis.T)[0][:, :dim]  # spans every named grid, so angles between them are kept
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]  # another seed, another basis
    return (np.concatenate([columns, rng.normal(size=(1, dim))]) @ turn).astype(np.float32)


def _mask(shape: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in SHAPES[shape][1:]])


def _color_grid(color: str) -> np.ndarray:
    return np.repeat(np.array(COLORS[color], dtype=float), GRID * GRID)


def _shape_grid(shape: str) -> np.ndarray:
    return np.tile(np.where(_mask(shape), 1.0, -1.0).ravel(), 3)


def _vocabulary() -> list[str]:
    letters = string.ascii_lowercase + string.digits
    words = [*COLORS, *SHAPES, *NEUTRAL]
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    return [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "-",
        *words,
        *(piece for piece in pieces if piece not in words),
    ]


def _token_grids() -> np.ndarray:
    """Return the grid of every token, `(tokens, 48)`; special and neutral tokens are zero."""
    rng = np.random.default_rng(5)
    table = {"-": None, **dict.fromkeys(NEUTRAL)}
    table |= {color: _color_grid(color) for color in COLORS} | {shape: _shape_grid(shape) for shape in SHAPES}
    rows = []
    for token in _vocabulary():
        random = rng.normal(scale=0.3, size=FEATURES - 1)
        grid = table.get(token) if token in table else (None if token.startswith("[") else random)
        rows.append(np.zeros(FEATURES - 1) if grid is None else grid)
    return np.array(rows)


def _tokenizer_json() -> bytes:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: row for row, token in enumerate(_vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return tokenizer.to_str().encode()


def _image_graph(seed: int, dim: int) -> bytes:
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("Div", ["flat", "half"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "one"], ["grid"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIZE_PX, SIZE_PX, 3])]
    return _model(nodes, inputs, {"half": np.float32(127.5), "one": np.float32(1)}, seed, dim)


def _text_graph(seed: int, dim: int) -> bytes:
    nodes = [
        helper.make_node("Gather", ["grids", "input_ids"], ["tokens"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["tokens", "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["weights", "middle"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["grid"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    constants = {"grids": _token_grids().astype(np.float32), "last": np.array([2]), "middle": np.array([1])}
    return _model(nodes, inputs, constants, seed, dim)


def _model(nodes: list, inputs: list, constants: dict, seed: int, dim: int) -> bytes:
    matrix = _matrix(seed, dim)
    tail = [
        helper.make_node("Gemm", ["grid", "matrix", "bias"], ["vectors"]),
        helper.make_node("LpNormalization", ["vectors"], ["embedding"], axis=1, p=2),
    ]
    constants = {**constants, "matrix": matrix[:-1], "bias": matrix[-1] * np.float32(BIAS)}
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", dim])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph([*nodes, *tail], "tiny", inputs, [output], initializer=tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _write(root: Path, kind: str, graph: bytes, facts: dict, *, tokenizer: bytes | None = None) -> Path:
    model_id = f"gal{kind}-{facts['names']}-{facts['version']}"
    folder = root / model_id
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_bytes(tokenizer)
    card = _card(model_id, graph, tokenizer, facts)
    (folder / "card.json").write_text(json.dumps(card, indent=1))
    return folder


def _card(model_id: str, graph: bytes, tokenizer: bytes | None, facts: dict) -> dict:
    kind = "image" if tokenizer is None else "text"
    card = {
        "id": model_id,
        "version": facts["version"],
        "kind": kind,
        "embedding": facts["embedding"],
        "dim": facts["dim"],
        "metric": "cosine",
        "sha256": hashlib.sha256(graph).hexdigest(),
        "space": facts["space"],
        "output": "embedding",
        "activation_bytes_per_row": 8192,
        "license": "MIT",
        "training": {"sets": [], "seed": facts["seed"], "script": "tests/tiny_models.py"},
    }
    if kind == "text":
        card["tokenizer_sha256"] = hashlib.sha256(tokenizer).hexdigest()
        card["input"] = {"max_tokens": 32, "tokenizer": "tokenizer.json"}
    else:
        card["input"] = {"size_px": SIZE_PX, "layout": "NHWC", "dtype": "uint8", "bands": "RGB"}
    card["self_test"] = _self_test(tokenizer, facts["seed"], facts["dim"])
    return card


def _self_test(tokenizer: bytes | None, seed: int, dim: int) -> dict:
    if tokenizer is not None:
        from tokenizers import Tokenizer

        inputs = ["red galaxy", "an edge-on disk"]
        vectors = reference_text(
            [Tokenizer.from_buffer(tokenizer).encode(text).ids for text in inputs], seed=seed, dim=dim
        )
    else:
        drawn = [picture(color="red"), picture(shape="edge")]
        inputs = [_png(pixels) for pixels in drawn]
        vectors = reference_image(drawn, seed=seed, dim=dim)
    return {"inputs": inputs, "outputs": np.round(vectors, 6).tolist(), "min_cosine": 0.999}


def _png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
