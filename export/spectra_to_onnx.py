"""Write the spectrum encoder as ONNX with its card, and compare graph and torch.

Normalization, constants and the unit length are inside the graph: flux and ivar (n, 1050) float32 in, embedding
(n, 128) out. Run `python -m export.spectra_to_onnx`; reads spectra_head.pt, writes onnx_models/galspec-1, prints the
lowest cosine and the spectra a second, raises below 0.9999.
"""

import base64
import json
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from export import train_spectra, train_spectra_head
from export.parity import FLOOR_FP32, cosines, demand
from export.prepare import cache_folder
from export.prepare_spectra import TRAIN_TEMPLATES
from export.spectra_models import DEPTH, DIM, MERGE, PATCH, STRIDE, WIDTH, ShippedEncoder
from export.spectra_synthetic import GRID, INSTRUMENTS, KINDS
from export.to_onnx import SHIPPED, export_graph, write_folder

SPECTRUM_ID, VERSION, SPACE = "galspec-1", "1.0", "galspec-1"
EXAMPLES = 3
PARITY_ROWS = 256
SPEED_ROWS, SPEED_BATCH, SPEED_THREADS = 512, 64, 2
SETS = (
    (
        "SDSS and eBOSS spectra",
        "Sloan Digital Sky Survey (www.sdss.org)",
        "none stated; cite",
    ),
    ("VLT/FORS2, field of RX J0054.0-2823", "Giraud et al. 2011 (cluster field)", "none stated; cite"),
    ("Indo-US stars", "Valdes et al. 2004, ApJS 152, 251", "none stated; cite"),
    ("DESI coadds", "DESI Collaboration, test files of QuasarNP and fastspecfit", "BSD-3-Clause (of the packages)"),
)
USE = (
    "Spectra in the rest frame: search by example, votes of known neighbors, outliers. Where z is unknown the observed "
    "frame is taken as if z were 0: then stars are right, and galaxies are compared by what falls where; kinds of "
    "galaxies must not be read from it. On this grid (552 km/s a pixel) lines closer than 1,000 km/s blend."
)
ARCHITECTURE = (
    f"patches of {PATCH} pixels every {STRIDE}, {MERGE} neighbors merged into a token for speed, {DEPTH} Transformer "
    f"layers of width {WIDTH}, mean over tokens with data; windows about known lines beside it; an MLP joins both"
)
SYNTHETIC = (
    "Semi-synthetic spectra (export/spectra_synthetic.py): SDSS eigentemplates, emission lines over the BPT plane, "
    "real sky residuals. Kinds and line ratios known by drawing weakly supervise the space; no label of a real "
    "spectrum was used. No real LINER and no real lens was available: nothing is claimed of real ones."
)


def load_encoder() -> ShippedEncoder:
    """Return the trained encoder in evaluation mode."""
    encoder = ShippedEncoder()
    encoder.load_state_dict(torch.load(cache_folder() / "spectra_head.pt"))
    return encoder.eval()


def drawn_spectra() -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw three spectra by formulas alone, flux and ivar (p,) float32: old stars, young stars with lines, a quasar."""
    random, wavelength = np.random.default_rng(3), GRID.wavelength_angstrom
    rise = 1 / (1 + np.exp(-(wavelength - 4000) / 60))
    gauss = {width: lambda at, width=width: np.exp(-0.5 * ((wavelength - at) / width) ** 2) for width in (5.0, 60.0)}
    old = (0.4 + 0.6 * rise) * (wavelength / 5500) ** 0.5 - sum(0.2 * gauss[5.0](at) for at in (3934.8, 3969.6, 5895.6))
    lines = ((3728.5, 2.0), (4862.7, 1.0), (5008.2, 2.0), (6564.6, 3.0), (6585.3, 0.9), (6725.0, 0.8))
    young = (wavelength / 5500) ** -1.0 + sum(height * gauss[5.0](at) for at, height in lines)
    quasar = (wavelength / 3000) ** -1.5 + sum(0.8 * gauss[60.0](at) for at in (1908.7, 2799.1, 4862.7))
    pairs = []
    for flux, (low, high) in zip((old, young, quasar), ((3300, 8300), (3500, 9000), (1900, 5200)), strict=True):
        ivar = np.where((wavelength > low) & (wavelength < high), 400 / np.median(flux) ** 2, 0)
        noisy = flux + random.normal(0, np.median(flux) / 20, len(flux))
        pairs.append((np.where(ivar > 0, noisy, 0).astype(np.float32), ivar.astype(np.float32)))
    return pairs


NOTICE = (
    "Trained on spectra of the Sloan Digital Sky Survey (www.sdss.org), VLT/FORS2 (Giraud et al. 2011), the Indo-US "
    "library (Valdes et al. 2004) and DESI, and on templates of SDSS."
)


def packed(values: np.ndarray) -> str:
    """Return float32 values as base64 of their zlib-compressed little-endian bytes."""
    return base64.b64encode(zlib.compress(np.asarray(values, "<f4").tobytes(), 9)).decode()


def card() -> dict:
    """Return the card without digest, self-test and parity."""
    with np.load(cache_folder() / "spectra_real.npz") as file:
        trained = [str(source) for source in file["source"][file["split"] == "train"]]
    with np.load(cache_folder() / "spectra_train.npz") as file:
        kinds = {kind: int((file["kind"] == kind).sum()) for kind in KINDS}
    return {
        "id": SPECTRUM_ID,
        "version": VERSION,
        "kind": "spectrum",
        "embedding": "spectrum",
        "dim": DIM,
        "metric": "cosine",
        "sha256": "",
        "space": SPACE,
        "output": "embedding",
        "input": {
            "pixels": GRID.count,
            "log_wavelength_start": GRID.start,
            "log_wavelength_step": GRID.step,
            "frame": "rest",
            "medium": "vacuum",
            "flux": "per wavelength, any positive scale; ivar is its inverse variance, 0 without data",
        },
        "use": USE,
        "architecture": ARCHITECTURE,
        "activation_bytes_per_row": 1_000_000,
        "license": "MIT",
        "notices": [NOTICE],
        "training": {
            "sets": [
                {"name": name, "rows": rows_of(name, trained), "credit": credit, "license": terms}
                for name, credit, terms in SETS
            ],
            "semi_synthetic": {
                "sources": kinds,
                "templates": TRAIN_TEMPLATES,
                "instruments": list(INSTRUMENTS),
                "note": SYNTHETIC,
                "credit": "SDSS idlspec2d eigentemplates, SDSS sky fibers; the test uses redrock-templates (BSD-3)",
            },
            "seed": [train_spectra.SEED, train_spectra_head.SEED],
            "script": "export/prepare_spectra.py, export/train_spectra.py, export/train_spectra_head.py",
        },
        "precision": "fp32",
    }


def rows_of(name: str, sources: list[str]) -> int:
    """Return how many training spectra belong to an entry of SETS."""
    words = {"VLT/FORS2": "FORS2", "Indo-US": "Indo-US", "DESI": "DESI"}
    key = next((word for start, word in words.items() if name.startswith(start)), None)
    if key:
        return sum(key in source for source in sources)
    return sum(not any(word in source for word in words.values()) for source in sources)


def parity(path: Path, encoder: ShippedEncoder) -> dict:
    """Compare graph and torch on validation views; return the card's entry."""
    held = train_spectra.Views(cache_folder(), "validation")
    rows = np.random.default_rng(5).choice(len(held.kind), PARITY_ROWS, replace=False)
    flux, ivar = held.of(rows, np.zeros(PARITY_ROWS, int))
    with torch.inference_mode():
        reference = encoder(flux, ivar).numpy()
    graph = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    result = graph.run(["embedding"], {"flux": flux.numpy(), "ivar": ivar.numpy()})[0]
    lowest = demand("spectrum", cosines(reference, result), FLOOR_FP32)
    return {"reference": "torch fp32", "spectra": PARITY_ROWS, "min_cosine_fp32": lowest, "min_cosine": lowest}


def speed(path: Path) -> float:
    """Return the spectra a second of ONNX Runtime on SPEED_THREADS threads, the best of three runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = SPEED_THREADS
    graph = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    pairs = drawn_spectra()
    flux, ivar = (np.stack([pairs[row % EXAMPLES][part] for row in range(SPEED_BATCH)]) for part in (0, 1))
    best = 0.0
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(SPEED_ROWS // SPEED_BATCH):
            graph.run(["embedding"], {"flux": flux, "ivar": ivar})
        best = max(best, SPEED_ROWS / (time.perf_counter() - begun))
    return best


def main() -> None:
    """Export, check and write the folder."""
    encoder, path = load_encoder(), cache_folder() / "spectra.onnx"
    example = tuple(torch.from_numpy(np.stack(part)) for part in zip(*drawn_spectra(), strict=True))
    axis = {0: torch.export.Dim("n", min=1)}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        export_graph(encoder, example, path, inputs=["flux", "ivar"], dynamic={"flux": axis, "ivar": axis})
    entry = card() | {"parity": parity(path, encoder)}
    graph = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    pairs = drawn_spectra()
    flux, ivar = (np.stack(part) for part in zip(*pairs, strict=True))
    outputs = graph.run(["embedding"], {"flux": flux, "ivar": ivar})[0]
    entry["self_test"] = {
        "inputs": [{"flux": packed(flux), "ivar": packed(ivar)} for flux, ivar in pairs],
        "outputs": np.round(outputs.astype(float), 6).tolist(),
        "min_cosine": 0.999,
    }
    old = SHIPPED / SPECTRUM_ID / "card.json"
    if old.exists() and "evaluation" in (stated := json.loads(old.read_text())):
        entry["evaluation"] = stated["evaluation"] | {"of_another_file": True}
    folder = write_folder(onnx.load(path), entry)
    size = (folder / "model.onnx").stat().st_size / 1e6
    print(f"{folder.name}: {size:.1f} MB, {speed(path):.0f} spectra/s on {SPEED_THREADS} threads", file=sys.stderr)


if __name__ == "__main__":
    main()
