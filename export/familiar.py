"""Write on the card of galimage what its training pictures look like to it: centers, and quantiles of held-out ones.

`python -m export.familiar` embeds pictures of the training sets that GALSEARCH_DATA names, fits the centers to those of
the training part, measures how close those of the other parts come, and writes the entry `familiar` of card.json.
Galaxy10 has no labels and was trained on whole; it counts with the centers only.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from scipy.cluster.vq import kmeans2

from export.prepare import data_folder, labeled_rows
from export.split import assign
from galsearch.encode import Encoder, shipped
from galsearch.science.familiarity import Reference

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "familiar.json"
LATER = ("galaxy10_decals_samples", "lens_guide", "gz2", "gz2_mergers", "mergers")  # sets that no training has seen
CENTERS = 64
MOST_OF_A_SET = 1_500  # pictures of one set and part: no survey outweighs the others
QUANTILES = 101
SEED = 0
BATCH = 256
SIDE = 64


def picture(source: Path | bytes) -> np.ndarray:
    """Return the middle square of a picture, (64, 64, 3) uint8."""
    image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB")
    side = min(image.size)
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, upper, left + side, upper + side))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0))


def embedded(encoder: Encoder, sources: Iterable[Path | bytes]) -> np.ndarray:
    """Return unit vectors (n, d) of pictures."""
    pictures = [picture(source) for source in sources]
    return np.concatenate([encoder.encode(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)])


def measured(encoder: Encoder, made: Reference) -> list[dict]:
    """Return how sets compare: the parts that were held out of training, and those that came after it."""
    folder = data_folder() / "galaxies"
    rows = list(labeled_rows(folder.parent))
    sets: dict[str, list[Path]] = {}
    for row, split in zip(rows, assign(rows)[1], strict=True):
        if split != "train":
            sets.setdefault(f"{row['set']}, held out", []).append(Path(row["path"]))
    for name in LATER:
        with (folder / f"{name}.csv").open(newline="") as handle:
            sets[name] = [folder / name / row["file"] for row in csv.DictReader(handle)]
    result = []
    for name, paths in sets.items():
        chosen = [paths[index] for index in np.random.default_rng(SEED).permutation(len(paths))[:MOST_OF_A_SET]]
        told = made.compared(made.scorer.of(embedded(encoder, chosen)), model=encoder.model_id)
        result.append(
            {"set": name, "pictures": told.objects, "median": round(told.median, 1), "rare": round(told.rare, 3)}
        )
        print(f"{name}: {told}", file=sys.stderr)
    return result


def parts() -> tuple[list[Path | bytes], list[Path | bytes]]:
    """Return pictures of the training part and of the others, at most so many of each set."""
    random, folder = np.random.default_rng(SEED), data_folder()
    rows = list(labeled_rows(folder))
    by_part: dict[tuple[str, bool], list[Path | bytes]] = {}
    for row, split in zip(rows, assign(rows)[1], strict=True):
        by_part.setdefault((row["set"], split == "train"), []).append(Path(row["path"]))
    unlabeled = pq.read_table(folder / "galaxies" / "galaxy10_sdss.parquet", columns=["image"])["image"]
    drawn = random.choice(len(unlabeled), MOST_OF_A_SET, replace=False)
    by_part["galaxy10", True] = [unlabeled[int(index)].as_py() for index in drawn]
    train, held = [], []
    for (_, is_train), sources in by_part.items():
        chosen = random.permutation(len(sources))[:MOST_OF_A_SET]
        (train if is_train else held).extend(sources[index] for index in chosen)
    return train, held


def reference(train: np.ndarray, held: np.ndarray) -> Reference:
    """Fit the centers to vectors (n, d), and measure how close others (m, d) come."""
    centers, _ = kmeans2(train, CENTERS, seed=SEED, minit="++")
    centers = (centers / np.linalg.norm(centers, axis=1, keepdims=True)).astype("<f2").astype(np.float32)
    closest = (held @ centers.T).max(axis=1)
    return Reference(centers, np.quantile(closest, np.linspace(0, 1, QUANTILES)), len(held))


def main() -> None:
    """Embed, fit, and write the card."""
    path = shipped("image") / "card.json"
    encoder = Encoder.from_folder(path.parent, device="cpu")
    train, held = (embedded(encoder, sources) for sources in parts())
    card = json.loads(path.read_text()) | {"familiar": reference(train, held).entry()}
    path.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    made = Reference.of_card(card)
    assert made is not None
    DOCUMENT.write_text(json.dumps({"model": card["id"], "sets": measured(encoder, made)}, indent=1) + "\n")
    print(f"{path}: {CENTERS} centers of {len(train):,} pictures, {len(held):,} held out", file=sys.stderr)


if __name__ == "__main__":
    main()
