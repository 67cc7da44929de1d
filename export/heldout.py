"""Lay out the held-out fifth of the labeled sets as `galsearch build` takes it: pictures and one table.

`galsearch evaluate` judges the atlas built from it, on objects that no training and no choice has seen. Run
`python -m export.heldout FOLDER` (env GALSEARCH_DATA names the folder of the sets), then the commands that it prints.
"""

import argparse
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from export.prepare import data_folder, labeled_rows
from export.split import assign

TEXT = {
    "set",
    "split",
    "file",
    "gz1_class",
    "gz2_class",
    "gz2_flags",
    "lens_label",
    "ngc_name",
    "common_names",
    "classes",
}
LEFT_OUT = {"key", "path", "PGC", "dr7objid", "sdss_objid", "name", "zoo_id", "esa_id"}  # the object_id says it
SETS = ("efigi", "gz1", "phys449", "spacewarps")


def column(name: str, values: list[str | None]) -> pa.Array:
    """Return a column of a manifest: text as it is, everything else as numbers."""
    if name in TEXT or name == "object_id":
        return pa.array(values, pa.string())
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def chosen(folder: Path, split: str) -> list[dict]:
    """Return the rows of one part of the split, each object once."""
    rows = list(labeled_rows(folder))
    _, splits = assign(rows)
    found: dict[str, dict] = {}
    for row, part in zip(rows, splits, strict=True):
        if part == split and row["set"] in SETS:
            found.setdefault(f"{row['set']}:{row['key']}", row | {"split": part})
    return [{"object_id": name, **row} for name, row in found.items()]


def lay_out(rows: list[dict], out: Path) -> Path:
    """Copy the pictures and write table.parquet; return its path."""
    for row in rows:
        row["file"] = f"{row['set']}/{Path(row['path']).name}"
        target = out / "pictures" / row["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(row["path"], target)
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in LEFT_OUT]
    table = pa.table({name: column(name, [row.get(name) for row in rows]) for name in names})
    pq.write_table(table, out / "table.parquet")
    return out / "table.parquet"


def main() -> None:
    """Write pictures/ and table.parquet into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    arguments = parser.parse_args()
    rows = chosen(data_folder(), arguments.split)
    table = lay_out(rows, arguments.folder)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(Counter(row["set"] for row in rows).items()))
    atlas = arguments.folder / f"{arguments.split}.atlas"
    print(
        f"{len(rows)} objects of the {arguments.split} part: {counts}\nnext: galsearch build {atlas} "
        f"--images {table.parent / 'pictures'} --table {table}{os.linesep}      galsearch evaluate {atlas}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
