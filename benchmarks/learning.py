"""How much verdicts help: simulated reviewers judge real galaxies, and the list afterwards is compared with labels.

`python -m benchmarks.learning FOLDER` lays out ordinary galaxies and mergers of the sets that GALSEARCH_DATA names,
builds FOLDER/review.atlas from them with the shipped encoder, lets simulated reviewers judge 50 of them in several
orders, and writes docs/learning.json; again, it reads the atlas that is there. Mergers are cut to the field of the
ordinary galaxies, and everything is centered on the galaxy that Galaxy Zoo asked about, so that neither scale nor
centering tells them apart. Ordinary galaxies of Galaxy Zoo 1 are those of the validation and test parts of the
project's split, which no training of the encoder has seen.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import galsearch
from export.prepare import data_folder, labeled_rows
from export.split import assign

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "learning.json"
SIDE = 160  # pixels of every picture, whatever set it is from
FIELD = 256  # pixels of Galaxy Zoo 2 that a picture shows, as those of gz1 and gz2 do


@dataclass
class Row:
    """A picture to lay out: its name and set, whether it shows a merger, which part of the field it is.

    `part` is that of the project's split, "later" for sets that came after it and no training has seen.
    """

    name: str
    source: str
    part: str
    is_merger: bool
    kind: str
    path: Path
    crop: float = 1.0  # the central part of each side


def lay_out(folder: Path) -> Path:
    """Write the pictures, all of one scale, and table.parquet into a folder; return the path of the table."""
    rows = list(_rows(data_folder()))
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for row in rows:
        _cut(row).save(folder / "pictures" / f"{row.name}.png", compress_level=1)
    columns = {name: [getattr(row, name) for row in rows] for name in ("source", "part", "kind", "is_merger")}
    table = {"object_id": [row.name for row in rows], "file": [f"{row.name}.png" for row in rows], **columns}
    pq.write_table(pa.table(table), folder / "table.parquet")
    print(f"{len(rows)} pictures", file=sys.stderr)
    return folder / "table.parquet"


def _cut(row: Row) -> Image.Image:
    picture = Image.open(row.path).convert("RGB")
    margin = (1 - row.crop) / 2
    box = (margin * picture.width, margin * picture.height)
    box = (*box, picture.width - box[0], picture.height - box[1])
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)


def _rows(data: Path) -> Iterator[Row]:
    labeled = list(labeled_rows(data))
    _, parts = assign(labeled)
    for row, part in zip(labeled, parts, strict=True):
        kind = row.get("gz1_class")
        if row["set"] == "gz1" and kind not in (None, "merger", "dont_know"):
            yield Row(f"gz1-{row['key']}", "gz1", part, is_merger=False, kind=kind, path=Path(row["path"]))
    for name in ("gz2", "gz2_mergers"):
        with (data / "galaxies" / f"{name}.csv").open(newline="") as handle:
            for row in csv.DictReader(handle):
                kind = row.get("appearance") or row["label"]
                if kind != "odd_spiral":  # which holds overlooked interactions, so it is neither
                    path, crop = data / "galaxies" / name / row["file"], FIELD / float(row["field_pixels"])
                    yield Row(f"{name}-{path.stem}", name, "later", row["label"] == "merger", kind, path, crop)


def built(folder: Path) -> Path:
    """Return the atlas of a folder, built where it is not there."""
    path = folder / "review.atlas"
    if not path.exists():
        table = lay_out(folder)
        galsearch.build(path, images=folder / "pictures", table=table, measure="none", processes=1, device="cpu")
    return path


def main() -> None:
    """Build the atlas where it is not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pictures and their atlas are, or come")
    built(parser.parse_args().folder)


if __name__ == "__main__":
    main()
