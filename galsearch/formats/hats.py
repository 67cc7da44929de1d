"""HATS catalogs on disk: Parquet in HEALPix partitions, as LSDB reads them (Hierarchical Adaptive Tiling Scheme).

A catalog is a folder with `hats.properties` and `dataset/Norder=k/Dir=d/Npix=n.parquet`, a file or a folder of files
for each pixel of the nested order k that has rows. Their column `_healpix_29` is the pixel of each row at order 29.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import GalsearchError, QueryError, SchemaError
from galsearch.science import healpix, sky

PROPERTIES = ("hats.properties", "properties")
HEALPIX = "_healpix_29"
ADDED = (HEALPIX, "Norder", "Dir", "Npix")  # columns that say where a row is kept, and nothing of it
PARTITION_ROWS = 200_000  # of a partition that is written, at most
DEEPEST = 12  # order of a partition: 50 arcsec, where even a globular cluster has no more rows
DIR_PIXELS = 10_000  # in one folder
Pixel = tuple[int, int]  # order and number
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}")


# ---- reading


def hats_root(path: Path) -> Path | None:
    """Return the folder of the primary catalog of a HATS catalog or collection; None for anything else."""
    if not path.is_dir():
        return None
    if any((path / name).is_file() for name in PROPERTIES):
        return path
    if not (path / "collection.properties").is_file():
        return None
    primary = _properties(path / "collection.properties").get("hats_primary_table_url", "")
    root = (path / primary).resolve()
    if (
        not primary
        or not root.is_relative_to(path.resolve())
        or not any((root / name).is_file() for name in PROPERTIES)
    ):
        raise SchemaError(
            f"{path}: the collection names no catalog inside it as hats_primary_table_url; name the catalog"
        )
    return root


def properties_of(root: Path) -> dict[str, str]:
    """Return what a catalog says of itself. Raises SchemaError where it is none of objects or sources."""
    stated = _properties(next(root / name for name in PROPERTIES if (root / name).is_file()))
    if stated.get("dataproduct_type", "object") not in ("object", "source"):
        raise SchemaError(
            f"{root}: is a HATS {stated['dataproduct_type']} catalog, expected object or source; name that"
        )
    return stated


def _properties(path: Path) -> dict[str, str]:
    """Return key = value of a Java properties file."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: not readable ({error}); copy the catalog again") from None
    pairs = (line.partition("=") for line in map(str.strip, lines) if line[:1] not in ("", "#", "!"))
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


def partitions(root: Path) -> dict[Pixel, list[Path]]:
    """Return the files of each partition, by pixel; none for one that is listed and not there.

    Raises SchemaError where there is no partition at all, or one of a pixel that there is not.
    """
    files = _partition_files(root)
    result = {pixel: files.get(pixel, []) for pixel in sorted({*files, *_listed_pixels(root)})}
    if not result:
        raise SchemaError(f"{root}: has no partition Norder=…/Dir=…/Npix=…; copy the catalog again, with its dataset")
    for order in {order for order, _ in result}:
        try:
            healpix.pixel_centers(order, np.array([number for each, number in result if each == order]))
        except QueryError as error:
            raise SchemaError(f"{root}: {error}") from None
    return result


def all_files(root: Path) -> list[Path]:
    """Return the files of all partitions, in the order of the pixels. Raises SchemaError where one is missing."""
    by_pixel = partitions(root)
    for (order, number), files in by_pixel.items():
        if not files:
            raise SchemaError(f"{root}: partition {title((order, number))} is listed and not there; copy it again")
    return [file for files in by_pixel.values() for file in files]


def title(pixel: Pixel) -> str:
    """Return what messages call a partition."""
    return f"Norder={pixel[0]}, Npix={pixel[1]}"


def partitions_near(
    root: Path, ra: np.ndarray, dec: np.ndarray, reach_arcsec: float
) -> Iterator[tuple[Pixel, list[Path], np.ndarray]]:
    """Yield the partitions that may have rows within reach of positions `(n,)`: their files, and of which positions.

    Partitions beside a position's own are among them, so that no margin catalog is needed.
    """
    by_pixel = partitions(root)
    for order in sorted({order for order, _ in by_pixel}):
        numbers = np.array([number for each, number in by_pixel if each == order])
        center_ra, center_dec = healpix.pixel_centers(order, numbers)
        reach = min(healpix.pixel_reach(order) * 3600 + reach_arcsec, float(sky.HALF_TURN))
        near: dict[int, list[np.ndarray]] = {}
        for pairs in sky.crossmatch_blocks(center_ra, center_dec, ra, dec, radius_arcsec=reach, mode="all"):
            for left in np.unique(pairs.left).tolist():
                near.setdefault(left, []).append(pairs.right[pairs.left == left])
        for left, rows in sorted(near.items()):
            pixel = (order, int(numbers[left]))
            yield pixel, by_pixel[pixel], np.concatenate(rows)


def _partition_files(root: Path) -> dict[Pixel, list[Path]]:
    """Return the files of each partition; a partition may be a folder of several."""
    result: dict[Pixel, list[Path]] = {}
    for base in (root / "dataset", root):
        for path in sorted(base.glob("Norder=*/Dir=*/Npix=*")):
            order, number = path.parts[-3].partition("=")[2], path.name.partition("=")[2].partition(".")[0]
            if order.isdigit() and number.isdigit():
                files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
                result.setdefault((int(order), int(number)), []).extend(files)
        if result:
            break
    return result


def _listed_pixels(root: Path) -> set[Pixel]:
    """Return the partitions that the catalog says it has."""
    path = root / "partition_info.csv"
    if not path.is_file():
        return set()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise SchemaError(f"{path}: not readable ({error!r:.80}); copy the catalog again") from None


# ---- writing


def write_hats(
    table: pa.Table,
    out: str | Path,
    *,
    name: str | None = None,
    facts: Mapping[str, str] | None = None,
    partition_rows: int = PARTITION_ROWS,
) -> int:
    """Write a table with `ra` and `dec` (degrees ICRS) as the HATS catalog `out`, a new folder; return how many rows.

    Rows without a position are left out, since no partition is theirs. A pixel with more than `partition_rows` is
    divided, down to order 12. `name` is what the catalog is called (the folder's name unless given), `facts` are
    further properties. The folder appears whole or not at all. Raises GalsearchError where it is there already or
    cannot be written, SchemaError for a name or a table that cannot be one.
    """
    out = Path(out)
    name = name or out.name
    if not _NAME.fullmatch(name):
        raise SchemaError(f"{name!r:.90} cannot be the name of a catalog; use letters, digits, _ . and -")
    if partition_rows < 1:
        raise SchemaError(f"partition_rows is {partition_rows}, expected 1 or more")
    table = _by_pixel(table)
    if not table.num_rows:
        raise SchemaError(f"{out}: no row has a position, and a HATS catalog is made of positions")
    if os.path.lexists(out):
        raise GalsearchError(f"{out} is there already; name a new folder, or remove it first")
    partial: Path | None = None
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        _fill(partial, table, name, dict(facts or {}), partition_rows)
        partial.chmod(0o755)
        partial.rename(out)
    except OSError as error:
        raise GalsearchError(
            f"{out}: cannot be written ({error.strerror or error}); choose another folder or free some space"
        ) from None
    finally:
        if partial is not None:
            with suppress(OSError):
                shutil.rmtree(partial)
    return table.num_rows


def _by_pixel(table: pa.Table) -> pa.Table:
    """Return the rows that have a position with their pixel of order 29 in front, in its order."""
    ra, dec = (np.array(table[axis].to_pylist(), np.float64) for axis in ("ra", "dec"))
    there = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    pixels = healpix.pixels_of(healpix.MAX_ORDER, ra[there], dec[there])
    order = np.argsort(pixels, kind="stable")
    kept = [column for column in table.column_names if column not in ADDED]
    result = table.select(kept).take(pa.array(there[order]))
    return result.add_column(0, pa.field(HEALPIX, pa.int64()), pa.array(pixels[order]))


def _fill(root: Path, table: pa.Table, name: str, facts: dict[str, str], partition_rows: int) -> None:
    from pyarrow import parquet

    data = root / "dataset"
    pixels = np.asarray(table[HEALPIX])
    leaves = list(_leaves(pixels, partition_rows))
    footers: list[parquet.FileMetaData] = []
    for (order, number), start, stop in leaves:
        below = f"Norder={order}/Dir={number // DIR_PIXELS * DIR_PIXELS}/Npix={number}.parquet"
        (data / below).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(
            table.slice(start, stop - start), data / below, compression="zstd", metadata_collector=footers
        )
        footers[-1].set_file_path(below)
    parquet.write_metadata(table.schema, data / "_metadata", metadata_collector=footers)
    parquet.write_metadata(table.schema, data / "_common_metadata")
    with (root / "partition_info.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Norder", "Npix"), *(pixel for pixel, _, _ in leaves)])
    size = sum(path.stat().st_size for path in data.rglob("*.parquet"))
    stated = {
        "obs_collection": name,
        "dataproduct_type": "object",
        "hats_nrows": table.num_rows,
        "hats_col_ra": "ra",
        "hats_col_dec": "dec",
        "hats_col_healpix": HEALPIX,
        "hats_col_healpix_order": healpix.MAX_ORDER,
        "hats_npix_suffix": ".parquet",
        "hats_order": max(order for (order, _), _, _ in leaves),
        "hats_max_rows": max(stop - start for _, start, stop in leaves),
        "hats_estsize": -(-size // 1024),
        "hats_builder": schema.software(),
        "hats_creation_date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "hats_release_date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hats_version": "v1.0",
        "hats_frame": "ICRS",
        **facts,
    }
    text = "#HATS catalog\n" + "".join(f"{key}={_one_line(value)}\n" for key, value in stated.items())
    for each in PROPERTIES:
        (root / each).write_text(text, "utf-8")


def _leaves(pixels: np.ndarray, most: int) -> Iterator[tuple[Pixel, int, int]]:
    """Yield the partitions of ascending pixels of order 29, each with its first row and the one after its last."""
    waiting = [((0, number), 0, len(pixels)) for number in reversed(range(12))]
    while waiting:
        (order, number), low, high = waiting.pop()
        shift = 2 * (healpix.MAX_ORDER - order)
        start = low + int(np.searchsorted(pixels[low:high], number << shift))
        stop = low + int(np.searchsorted(pixels[low:high], (number + 1) << shift))
        if stop - start > most and order < DEEPEST:
            waiting += [((order + 1, 4 * number + part), start, stop) for part in (3, 2, 1, 0)]
        elif stop > start:
            yield (order, number), start, stop


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
