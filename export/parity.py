"""Compare the ONNX graphs with torch from the file and from the sentence, everything in between included.

The reference decodes, crops and tokenizes by its own code here and in models.py; the other side is galsearch's own path
(images.read_picture, model_input, encode). The fp32 graphs must reach a cosine of 0.9999 on every input, the shipped
small ones 0.999; below that this raises. Run `python -m export.parity`; figures are written to the cards.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

from export import cards
from export.evaluate import BARRED, EDGE_ON, ELLIPTICAL, LENSED, MERGING, RING, SPIRAL, held_out
from export.models import load_tokenizer, minilm_folder, tokenize
from export.prepare import MODEL_PX, cache_folder
from export.sentences import draw_statement, word
from export.to_onnx import SHIPPED, load_image, load_text, write_card
from galsearch.encode import Encoder
from galsearch.science import images

FLOOR_FP32, FLOOR_SHIPPED = 0.9999, 0.999
FILES, SENTENCES = 256, 256
SEED = 11


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of matching rows of two (n, d) arrays."""
    return (first * second).sum(axis=1) / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))


def demand(name: str, values: np.ndarray, floor: float) -> float:
    """Return the lowest cosine, rounded down to six digits; raise where it is below the floor."""
    lowest = float(np.floor(values.min() * 1e6) / 1e6)
    print(f"{name}: lowest cosine of {len(values)} {lowest:.6f} (floor {floor})", file=sys.stderr)
    if lowest < floor:
        raise SystemExit(
            f"{name}: cosine {lowest} at input {int(values.argmin())} is below {floor}; do not ship this graph"
        )
    return lowest


def session(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU."""
    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def sample_files() -> list[str]:
    """Return paths of validation pictures of every labeled set."""
    rows, _ = held_out("validation")
    random = np.random.default_rng(SEED)
    return [rows[index]["path"] for index in random.choice(len(rows), FILES, replace=False)]


def sample_sentences() -> list[str]:
    """Return generated sentences and the hand-written queries of evaluate.py, some of odd form."""
    random = np.random.default_rng(SEED)
    written = [
        *SPIRAL,
        *ELLIPTICAL,
        *EDGE_ON,
        *BARRED,
        *RING,
        *MERGING,
        *LENSED,
        "  Ring\tGalaxies  ",
        "Éclair-shaped galaxy?!",
        "z " * 100,
    ]
    return written + [word(draw_statement(random), random) for _ in range(SENTENCES - len(written))]


def prepared(path: str) -> np.ndarray:
    """Decode, center-crop and resize one file by PIL alone: (MODEL_PX, MODEL_PX, 3) uint8."""
    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    left, top = (picture.size[0] - side) // 2, (picture.size[1] - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    return np.asarray(picture.resize((MODEL_PX, MODEL_PX), Image.Resampling.BICUBIC))


def image_parity() -> dict:
    """Check both image graphs from the file on; return the card's parity entry."""
    paths = sample_files()
    pictures = np.stack([prepared(path) for path in paths])
    with torch.inference_mode():
        reference = load_image()(torch.from_numpy(pictures)).numpy()
    read = [images.render(images.read_picture(path)) for path in paths]
    full = session(cache_folder() / "image_fp32.onnx").run(None, {"image": images.model_input(read, MODEL_PX)})[0]
    exact = demand("image fp32, from the file", cosines(reference, full), FLOOR_FP32)
    small = demand(
        "image shipped, from the file",
        cosines(reference, Encoder.from_folder(SHIPPED / cards.IMAGE_ID).encode(read)),
        FLOOR_SHIPPED,
    )
    return {
        "reference": "torch fp32, from the JPEG file",
        "files": len(paths),
        "min_cosine_fp32": exact,
        "min_cosine": small,
    }


def text_parity() -> dict:
    """Check both text graphs from the sentence on; return the card's parity entry."""
    texts = sample_sentences()
    tokenizer = load_tokenizer(minilm_folder() / "tokenizer.json")
    model, graph = load_text(), session(cache_folder() / "text_fp32.onnx")
    reference, full = [], []
    for text in texts:
        ids, mask = tokenize(tokenizer, [text])
        with torch.inference_mode():
            reference.append(model(ids, mask).numpy())
        full.append(graph.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0])
    reference = np.concatenate(reference)
    exact = demand("text fp32, from the sentence", cosines(reference, np.concatenate(full)), FLOOR_FP32)
    small = demand(
        "text shipped, from the sentence",
        cosines(reference, Encoder.from_folder(SHIPPED / cards.TEXT_ID).encode(texts)),
        FLOOR_SHIPPED,
    )
    return {
        "reference": "torch fp32, from the sentence",
        "sentences": len(texts),
        "min_cosine_fp32": exact,
        "min_cosine": small,
    }


def main() -> None:
    """Check both models and write what was found to their cards."""
    for model_id, parity in ((cards.IMAGE_ID, image_parity()), (cards.TEXT_ID, text_parity())):
        folder = SHIPPED / model_id
        write_card(folder, json.loads((folder / "card.json").read_text()) | {"parity": parity})


if __name__ == "__main__":
    main()
