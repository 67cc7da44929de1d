"""A tiny spectrum encoder and drawn spectra for tests: a real ONNX graph of a few kB, and galaxies of a few kinds.

The encoder takes the mean from the flux and divides by the size of what is left, sees nothing where ivar is 0, and
turns what it sees by a seeded matrix. So spectra of one kind lie together, whatever their flux and their redshift.

    write_tiny_spectrum_model(tmp_path)
    write_spectra(tmp_path / "spectra", {"a": ("emission", 0.05), "b": ("passive", 0.1)})
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from spectrum_files import sdss
from tiny_models import write_tiny_models

from galsearch.encode import Encoder, read_card, shipped
from galsearch.science.spectra import LogGrid, Spectrum, model_input

PIXELS, START, STEP = 50, 3.54, 0.009  # 3,470 to 9,570 angstrom
DIM = 16
WAVELENGTH = 10 ** (3.58 + 1e-4 * np.arange(3_840))  # of the files, vacuum, observed: 3,800 to 9,200 angstrom
LINES = {  # wavelengths in vacuum, heights
    "emission": {4862.683: 4.0, 4960.295: 4 / 2.98, 5008.240: 4.0, 6564.610: 4.0},
    "broad": {4862.683: 4.0, 6564.610: 4.0},
    "passive": {},
    # the lines of a BPT diagram: of young stars, and of an active nucleus
    "young": {4862.683: 1.5, 4960.295: 0.3, 5008.240: 0.9, 6549.860: 0.5, 6564.610: 4.5, 6585.270: 1.5},
    "nucleus": {4862.683: 0.8, 4960.295: 2.0, 5008.240: 6.0, 6549.860: 0.9, 6564.610: 2.6, 6585.270: 2.7},
}
SIGMA = {
    **dict.fromkeys(("emission", "young", "nucleus"), 250 / 299_792.458),
    **{"broad": 4_000 / 299_792.458, "passive": 1.0},
}  # of the wavelength


# Five galaxies by kind and redshift: two pairs of one kind, and a quasar.
OBJECTS = {
    "lines-near": ("emission", 0.02),
    "lines-far": ("emission", 0.3),
    "quasar": ("broad", 0.1),
    "old-near": ("passive", 0.03),
    "old-far": ("passive", 0.25),
}


def write_models(folder: Path) -> Path:
    """Write tiny models of words, of pictures and of spectra into `folder`; return it."""
    write_tiny_models(folder)
    write_tiny_spectrum_model(folder)
    return folder


WORDS = {"red": "passive", "blue": "emission", "green": "broad"}  # what the tiny words say of spectra


def write_tiny_words(folder: Path, *, seed: int = 0) -> Path:
    """Write a projector of the words of `tiny_models` into the space of the tiny spectra; return its folder.

    It takes the vector of each of WORDS to that of a spectrum of its kind, and others to where that leads them.
    """
    text = Encoder.from_folder(shipped("text", root=folder), device="cpu")
    card = read_card(shipped("spectrum", root=folder))
    grid = LogGrid.of_input(card["input"])
    spectra = [
        Spectrum(WAVELENGTH, flux_of(kind, 0.05), np.full(len(WAVELENGTH), 2500.0), z=0.05) for kind in WORDS.values()
    ]
    goals = reference(np.stack([model_input(one, grid, frame="rest") for one in spectra]), seed=seed)
    matrix = (np.linalg.pinv(text.encode(list(WORDS))) @ goals).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["vector", "matrix"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], ["embedding"], axis=1, p=2),
    ]
    given = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", text.dim])
    made = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])
    graph = helper.make_graph(nodes, "words", [given], [made], [numpy_helper.from_array(matrix, "matrix")])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    inputs = text.encode(list(WORDS))
    outputs = inputs @ matrix
    outputs /= np.linalg.norm(outputs, axis=1, keepdims=True)
    home = folder / "galspec-words-tiny-1"
    home.mkdir()
    (home / "model.onnx").write_bytes(content)
    about = {"dim": text.dim, "model": text.model_id, "sha256": text.sha256, "space": text.space}
    words = {
        **{key: card[key] for key in ("version", "embedding", "dim", "metric", "space", "output", "license")},
        "id": home.name,
        "kind": "projector",
        "projects": "text",
        "sha256": hashlib.sha256(content).hexdigest(),
        "activation_bytes_per_row": 8192,
        "training": {"sets": [], "seed": seed, "script": "tests/tiny_spectra.py"},
        "input": about,
        "self_test": {"inputs": inputs.tolist(), "outputs": outputs.tolist(), "min_cosine": 0.999},
    }
    (home / "card.json").write_text(json.dumps(words, indent=1))
    return home


def write_tiny_spectrum_model(folder: Path, *, seed: int = 0, version: str = "1") -> Path:
    """Write the model under `folder` and return its folder; another seed is another space."""
    home = folder / f"galspec-tiny-{version}"
    home.mkdir(parents=True)
    graph = _graph(seed)
    (home / "model.onnx").write_bytes(graph)
    (home / "card.json").write_text(json.dumps(_card(home.name, graph, seed, version), indent=1))
    return home


def reference(seen: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return in numpy what the model must return for flux and ivar `(n, 2, PIXELS)`."""
    mask = (seen[:, 1] > 0).astype(float)
    mean = (seen[:, 0] * mask).sum(axis=1, keepdims=True) / (mask.sum(axis=1, keepdims=True) + 1e-6)
    centered = (seen[:, 0] - mean) * mask
    scale = np.abs(centered).mean(axis=1, keepdims=True) + 1e-6
    matrix = _matrix(seed)
    vectors = centered / scale @ matrix[:-1] + matrix[-1]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def flux_of(kind: str, z: float, *, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Return the flux of a galaxy of a kind at a redshift on WAVELENGTH, with a little noise."""
    rest = WAVELENGTH / (1 + z)
    flux = np.where(rest < 4800, 0.2, 1.0) if kind == "passive" else np.full(len(rest), 0.8)
    for line, height in LINES[kind].items():
        flux = flux + height * np.exp(-0.5 * ((rest / line - 1) / SIGMA[kind]) ** 2)
    return scale * (flux + np.random.default_rng(seed).normal(scale=0.02, size=len(rest)))


def write_spectra(folder: Path, objects: Mapping[str, tuple[str, float]], *, scale: float = 1.0) -> Path:
    """Write a spec-lite file of each object by its kind and redshift, as SDSS has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (kind, z)) in enumerate(objects.items()):
        flux = flux_of(kind, z, scale=scale, seed=number)
        ivar = np.full(len(flux), (0.02 * scale) ** -2)
        content = sdss(loglam=np.log10(WAVELENGTH), flux=flux, ivar=ivar, z=z)
        (folder / f"{name}.fits").write_bytes(content)
    return folder


def _matrix(seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 61])
    turned = np.linalg.qr(rng.normal(size=(PIXELS, DIM)))[0]
    return np.concatenate([turned, 0.05 * rng.normal(size=(1, DIM))]).astype(np.float32)


def _graph(seed: int) -> bytes:
    nodes = [
        helper.make_node("Greater", ["ivar", "zero"], ["seen"]),
        helper.make_node("Cast", ["seen"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["flux", "mask"], ["kept"]),
        helper.make_node("ReduceMean", ["kept"], ["kept_mean"], axes=[1], keepdims=1),
        helper.make_node("ReduceMean", ["mask"], ["share"], axes=[1], keepdims=1),
        helper.make_node("Add", ["share", "least"], ["some"]),
        helper.make_node("Div", ["kept_mean", "some"], ["mean"]),
        helper.make_node("Sub", ["flux", "mean"], ["differing"]),
        helper.make_node("Mul", ["differing", "mask"], ["centered"]),
        helper.make_node("Abs", ["centered"], ["sizes"]),
        helper.make_node("ReduceMean", ["sizes"], ["size"], axes=[1], keepdims=1),
        helper.make_node("Add", ["size", "least"], ["scale"]),
        helper.make_node("Div", ["centered", "scale"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "matrix", "bias"], ["vectors"]),
        helper.make_node("LpNormalization", ["vectors"], ["embedding"], axis=1, p=2),
    ]
    matrix = _matrix(seed)
    constants = {"zero": np.float32(0), "least": np.float32(1e-6), "matrix": matrix[:-1], "bias": matrix[-1]}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", PIXELS]) for name in ("flux", "ivar")]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initializer=tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _card(model_id: str, graph: bytes, seed: int, version: str) -> dict:
    rng = np.random.default_rng(1)
    seen = np.stack([rng.uniform(0.5, 2, (2, PIXELS)), np.ones((2, PIXELS))], axis=1).astype(np.float32)
    inputs = [{"flux": _packed(one[0]), "ivar": _packed(one[1])} for one in seen]
    outputs = np.round(reference(seen, seed=seed), 6).tolist()
    return {
        "id": model_id,
        "version": version,
        "kind": "spectrum",
        "embedding": "spectrum",
        "dim": DIM,
        "metric": "cosine",
        "sha256": hashlib.sha256(graph).hexdigest(),
        "space": f"tiny-spectra-{seed}",
        "output": "embedding",
        "activation_bytes_per_row": 8192,
        "license": "MIT",
        "training": {"sets": [], "seed": seed, "script": "tests/tiny_spectra.py"},
        "input": {"pixels": PIXELS, "log_wavelength_start": START, "log_wavelength_step": STEP, "frame": "rest"},
        "self_test": {"inputs": inputs, "outputs": outputs, "min_cosine": 0.999},
    }


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.astype("<f4").tobytes())).decode()
