"""Where galaxies come from: cutouts in a folder, a mosaic with a catalog, or a table that already holds vectors.

Each source is a table of columns, one row an object, and a way to get the picture of a row. What cannot be taken is
rejected row by row with its reason; what makes the whole input doubtful (repeated ids) is refused at once.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import exchange, images, morphology, published, schema, shapes
from galsearch.errors import GalsearchError, SchemaError
from galsearch.published import Publication

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".fits", ".fit", ".fits.gz", ".fits.fz")
ID_NAMES = ("object_id", "objid", "objectid", "source_id", "targetid", "id", "name")
FILE_NAMES = ("file", "filename", "file_name", "path", "image")
RA_NAMES = ("ra", "raj2000", "ra_j2000", "ra_icrs", "alpha_j2000", "_raj2000", "ra_deg")
DEC_NAMES = (
    "dec",
    "dej2000",
    "decj2000",
    "dec_j2000",
    "de_icrs",
    "dec_icrs",
    "delta_j2000",
    "_dej2000",
    "dec_deg",
)
RESERVED = "cut"  # a parameter of the bundle's macros, which DuckDB does not let hide a column
MISSING = -9999.0  # the marker that survey tables write for "no value"; here missing is NULL
MATCH_PX = 4.0  # a catalog position takes the size of the detection within this many pixels
DEFAULT_RADIUS_PX = 8.0
FORM = (*shapes.COLUMNS, "morphology_flag")  # of what lies in the center of a cutout; a detection has none
MEASURED = (
    *(name for name in morphology.COLUMNS if not name.startswith("is_") and name not in ("x_px", "y_px")),
    *FORM,
)


@dataclass(frozen=True)
class Taken:
    """One accepted object: its picture `(h, w, 3) uint8` and the columns measured on it."""

    picture: np.ndarray
    columns: dict[str, Any]


@dataclass
class Source:
    """Objects to take in: `table` has object_id, ra, dec and any other columns; `rejected` what is left out already."""

    table: pa.Table
    inputs: dict[str, str]
    rejected: list[dict] = field(default_factory=list)

    def take(self, row: int) -> Taken:
        """Return the picture of a row; SchemaError when it cannot be used."""
        raise NotImplementedError


@dataclass
class CutoutSource(Source):
    """One picture file an object."""

    files: list[Path] = field(default_factory=list)

    def take(self, row: int) -> Taken:
        """Read, render and measure the picture of a row."""
        picture = images.read_picture(self.files[row])
        rgb = images.render(picture)
        light = rgb if picture.stretched else images.red_first(picture)
        measured = {name: value for name, value in morphology.measure(light).items() if name in MEASURED}
        return Taken(rgb, {**measured, **_on_the_sky(picture, measured["radius_px"])})


def _on_the_sky(picture: images.Picture, radius_px: float | None) -> dict[str, float]:
    """Return the position of the picture's center and the radius in arcsec, where the picture has a WCS."""
    height, width = picture.flux.shape[:2]
    place = picture.sky_position((width - 1) / 2, (height - 1) / 2)
    if place is None:
        return {}
    if not np.isfinite(place).all():
        raise SchemaError(f"{picture.name}: its WCS puts its center nowhere on the sky; mend it or remove its CTYPE")
    known = {"ra": place[0], "dec": place[1]}
    return known if radius_px is None else {**known, "radius_arcsec": radius_px * picture.pixel_arcsec}


@dataclass
class MosaicSource(Source):
    """Objects cut out of one picture, at a scale that follows their size; `light` is what is measured in a cutout."""

    rgb: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))
    light: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))

    def take(self, row: int) -> Taken:
        """Cut out the picture of a row and measure the form of the galaxy in it."""
        known = self.table.slice(row, 1).to_pylist()[0]
        x, y, radius, ratio = (known.get(name) for name in ("x_px", "y_px", "radius_px", "axis_ratio"))
        size = min(morphology.cutout_size(radius or DEFAULT_RADIUS_PX, ratio or 1.0), max(self.rgb.shape))
        measured = morphology.measure(images.cutout(self.light, x, y, size))
        return Taken(images.cutout(self.rgb, x, y, size), {name: measured[name] for name in FORM})


@dataclass
class VectorSource(Source):
    """A table that already holds the vectors, `(n, d) float32` of unit length; there are no pictures."""

    vectors: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))


def open_source(
    source: Path | None,
    table: Path | None,
    *,
    vectors: str | None,
    id_column: str | None,
    publication: Publication | None = None,
) -> Source:
    """Return the source that the arguments describe: a folder is cutouts, a file is a mosaic, `vectors` a column.

    A `publication` says whose vectors the column has, and names it where `vectors` does not.

    Raises SchemaError when the input as a whole cannot be taken.
    """
    if vectors is not None:
        if table is None or source is not None:
            raise SchemaError("vectors names a column of a table: give the table, and no pictures")
        return vector_source(table, vectors, id_column, publication)
    if publication is not None and table is not None:
        return vector_source(table, publication.column, id_column, publication)
    rows = None if table is None else _read(table, id_column)
    inputs = {} if table is None else {str(table): digest(table)}
    if source is None:
        raise SchemaError("nothing to take in: give a folder of cutouts, a mosaic, or a table with a column of vectors")
    if source.is_dir():
        return cutout_source(source, rows, inputs)
    picture = images.read_picture(source)
    return mosaic_source(picture, rows, inputs={**inputs, str(source): digest(source)}, name=source.stem)


def _read(table: Path, id_column: str | None, *, without: Sequence[str] = ()) -> pa.Table:
    """Read a table, all but the columns `without`; ids and file names stay digit for digit, whatever their names."""
    text = (*ID_NAMES, *FILE_NAMES, *([] if id_column is None else [id_column]))
    rows = normalize(exchange.read_table(table, text=text, without=without), id_column=id_column, name=str(table))
    if rows.num_rows == 0:
        raise SchemaError(f"{table}: the table has no rows; give one with at least one object")
    return rows


def digest(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- tables


def normalize(table: pa.Table, *, id_column: str | None, name: str) -> pa.Table:
    """Return `table` with object_id as text first, then ra and dec in degrees or NULL, then everything else.

    Raises SchemaError for a table without usable ids, with repeated ids or with columns that differ only in case.
    """
    folded = Counter(column.casefold() for column in table.column_names)
    twice = [column for column in table.column_names if folded[column.casefold()] > 1]
    if twice:
        raise SchemaError(f"{name}: columns that differ only in case: {', '.join(twice)}; rename one, SQL ignores case")
    if RESERVED in folded:
        raise SchemaError(
            f"{name}: a column may not be called '{RESERVED}', the macros of the bundle use it; rename it"
        )
    table = _renamed(table, id_column, name)
    if "object_id" in table.column_names:
        check_ids(table["object_id"].to_pylist(), name)
    for position in ("ra", "dec"):
        table = _as_double(table, position, name)
    return _missing_to_null(_ordered(table))


def _renamed(table: pa.Table, id_column: str | None, name: str) -> pa.Table:
    """Give the columns that galsearch works with their names; a second object_id becomes object_id_in_table."""
    if id_column is not None and id_column not in table.column_names:
        raise SchemaError(f"{name}: no column '{id_column}' for the ids; there are: {', '.join(table.column_names)}")
    ids = id_column or _first_of(table, ID_NAMES)
    found = {_first_of(table, [measured]): measured for measured in (*MEASURED, "x_px", "y_px", "radius_arcsec")}
    found[_first_of(table, ("object_id",))] = "object_id_in_table"
    for known, names in (("ra", RA_NAMES), ("dec", DEC_NAMES)):
        found[_first_of(table, names)] = known
    found[_first_of(table.select([item.name for item in table.schema if _is_name(item.type)]), FILE_NAMES)] = "file"
    found[ids] = "object_id"
    names = [found.get(column, column) for column in table.column_names]
    table = table.rename_columns(names)
    for known in {"object_id", "file"} & set(names):
        item = table.field(known).with_type(pa.string())
        table = table.set_column(names.index(known), item, pc.cast(table[known], pa.string()))
    return table


def _is_name(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)


def _first_of(table: pa.Table, names: Sequence[str]) -> str | None:
    by_name = {column.casefold(): column for column in table.column_names}
    return next((by_name[name] for name in names if name in by_name), None)


def check_ids(ids: list[str | None], name: str) -> None:
    """Raise SchemaError when an id is missing, empty or repeated."""
    if any(i is None or not i.strip() for i in ids):
        row = next(row for row, i in enumerate(ids) if i is None or not i.strip())
        raise SchemaError(f"{name}: object_id is missing in row {row + 1}; every object needs its own id")
    twice = [i for i, count in Counter(ids).items() if count > 1]
    if twice:
        raise SchemaError(
            f"{name}: {len(twice)} ids stand more than once, such as '{twice[0]}'; an object_id is unique: remove the "
            "repeated rows, or name another column with --id-column"
        )


def _as_double(table: pa.Table, column: str, name: str) -> pa.Table:
    """Return the table with ra, dec, x_px or y_px as float64 in the unit that the schema gives it."""
    kind = schema.arrow_field(column)
    if column not in table.column_names:
        return table.append_column(kind, pa.nulls(table.num_rows, pa.float64()))
    unit = (table.field(column).metadata or {}).get(b"unit", b"").decode()
    expected = schema.GALAXIES[column].unit
    if unit.removesuffix("s") not in ("", expected, "pix"):
        raise SchemaError(f"{name}: column {column} is in {unit}, expected {expected}; convert it first")
    try:
        values = pc.cast(table[column], pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        meant = "decimal degrees (ICRS)" if expected == "deg" else "numbers"
        raise SchemaError(f"{name}: column {column} is {table[column].type}, expected {meant}; convert it") from None
    return table.set_column(table.column_names.index(column), kind, values)


def _ordered(table: pa.Table) -> pa.Table:
    first = [name for name in ("object_id", "ra", "dec") if name in table.column_names]
    return table.select(first + [name for name in table.column_names if name not in first])


def _missing_to_null(table: pa.Table) -> pa.Table:
    for place, item in enumerate(table.schema):
        column = table[item.name]
        if pa.types.is_float16(item.type):  # which neither Arrow nor DuckDB compares
            item, column = item.with_type(pa.float32()), pc.cast(column, pa.float32())
        if pa.types.is_floating(item.type):
            absent = pc.or_(pc.invert(pc.is_finite(column)), pc.equal(column, MISSING))
        elif pa.types.is_signed_integer(item.type):
            absent = pc.equal(pc.cast(column, pa.int64()), int(MISSING))
        else:
            continue
        table = table.set_column(place, item, pc.if_else(absent, pa.scalar(None, item.type), column))
    return table


def _off_the_sky(table: pa.Table) -> dict[int, str]:
    """Return the rows whose position is no position, with the reason."""
    bad = {}
    for row, (ra, dec) in enumerate(zip(table["ra"].to_pylist(), table["dec"].to_pylist(), strict=True)):
        if (ra is None) != (dec is None):
            bad[row] = f"ra is {ra} and dec is {dec}; give both or neither"
        elif ra is not None and not (0 <= ra <= 360 and -90 <= dec <= 90):
            bad[row] = f"ra {ra} dec {dec} is not on the sky (degrees ICRS, 0 <= ra < 360, -90 <= dec <= 90)"
    return bad


def _without(table: pa.Table, bad: dict[int, str]) -> tuple[pa.Table, list[dict], list[int]]:
    """Return the rows that are not `bad`, the rejections, and the row numbers kept."""
    ids = table["object_id"].to_pylist()
    files = table["file"].to_pylist() if "file" in table.column_names else [None] * len(ids)
    rejected = [{"object_id": ids[row], "file": files[row], "reason": reason} for row, reason in sorted(bad.items())]
    kept = [row for row in range(len(ids)) if row not in bad]
    table = table.take(pa.array(kept, pa.int64()))
    wrapped = pc.if_else(pc.equal(table["ra"], 360.0), 0.0, table["ra"])
    return table.set_column(table.column_names.index("ra"), table.field("ra"), wrapped), rejected, kept


# ---- cutouts


def cutout_source(folder: Path, rows: pa.Table | None, inputs: dict[str, str]) -> CutoutSource:
    """Join the picture files of a folder to the rows of a table by file name or by id; without a table, the file's
    name is the id. Rows without a picture and pictures without a row are rejected."""
    files = sorted(item for item in folder.rglob("*") if item.is_file() and item.name.lower().endswith(SUFFIXES))
    if not files:
        raise SchemaError(f"{folder}: no pictures inside; galsearch reads {', '.join(SUFFIXES)}")
    inputs = {**inputs, str(folder): _listing_digest(folder, files)}
    if rows is None:
        rows = normalize(pa.table({"object_id": [stem(item) for item in files]}), id_column=None, name=str(folder))
    rows = _with_ids(rows)
    paths, bad = _joined(folder, files, rows)
    bad |= _off_the_sky(rows)
    unused = sorted(set(files) - {path for path in paths if path})
    rows, rejected, kept = _without(rows, bad)
    rejected += [
        {"object_id": None, "file": str(f.relative_to(folder)), "reason": "no row in the table"} for f in unused
    ]
    chosen = [paths[row] for row in kept]
    names = pa.array([str(path.relative_to(folder)) for path in chosen], pa.string())
    rows = rows.drop_columns(["file"]) if "file" in rows.column_names else rows
    return CutoutSource(rows.append_column("file", names), inputs, rejected, chosen)


def _with_ids(rows: pa.Table) -> pa.Table:
    """Return rows with ids: where the table has file names alone, they are the files' names without suffix."""
    if "object_id" in rows.column_names or "file" not in rows.column_names:
        _must_have_ids(rows)
        return rows
    ids = [stem(Path(name)) if name else None for name in rows["file"].to_pylist()]
    check_ids(ids, "the table's file names")
    return rows.add_column(0, schema.arrow_field("object_id"), pa.array(ids, pa.string()))


def _must_have_ids(rows: pa.Table) -> None:
    if "object_id" not in rows.column_names:
        raise SchemaError(f"the table has no id column ({', '.join(ID_NAMES)}); name it with --id-column")


def stem(path: Path) -> str:
    """Return the file's name without its picture suffix."""
    name = path.name
    return name[: -max((len(suffix) for suffix in SUFFIXES if name.lower().endswith(suffix)), default=-len(name))]


def _joined(folder: Path, files: list[Path], rows: pa.Table) -> tuple[list[Path | None], dict[int, str]]:
    by_name = {stem(item): item for item in files} | {item.name: item for item in files}
    by_name |= {str(item.relative_to(folder)): item for item in files}
    names = rows["file"].to_pylist() if "file" in rows.column_names else [None] * rows.num_rows
    paths: list[Path | None] = []
    bad = {}
    for row, (object_id, name) in enumerate(zip(rows["object_id"].to_pylist(), names, strict=True)):
        tried = ((name, Path(name).name) if name else ()) + (object_id,)
        found = next((by_name[item] for item in tried if item in by_name), None)
        if found is None:
            bad[row] = f"no picture named '{name or object_id}' in {folder.name}"
        paths.append(found)
    return paths, bad


def _listing_digest(folder: Path, files: list[Path]) -> str:
    """Return a digest of names, sizes and times: enough to see that a folder changed, without reading it twice."""
    lines = [f"{item.relative_to(folder)} {item.stat().st_size} {item.stat().st_mtime_ns}" for item in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# ---- mosaics


def mosaic_source(picture: images.Picture, rows: pa.Table | None, *, inputs: dict[str, str], name: str) -> MosaicSource:
    """Cut a mosaic at the places of a catalog (ra and dec with a WCS, or x_px and y_px), or at its own detections."""
    rgb = images.render(picture)
    light = images.red_first(picture)
    detections = _detections_table(morphology.detect(light), picture, name)
    light = rgb if picture.stretched else light
    if rows is None:
        return MosaicSource(detections, inputs, [], rgb, light)
    rows = _with_pixels(rows, picture)
    bad = _outside(rows, rgb.shape)
    rows, rejected, _ = _without(rows, bad | _off_the_sky(rows))
    return MosaicSource(_with_sizes(rows, detections), inputs, rejected, rgb, light)


def _detections_table(found: dict[str, np.ndarray], picture: images.Picture, name: str) -> pa.Table:
    count = len(found["x_px"])
    width = max(4, len(str(count)))
    columns: dict[str, Any] = {"object_id": [f"{name}-{i:0{width}d}" for i in range(1, count + 1)]}
    columns |= {key: _nullable(value) for key, value in found.items()}
    wcs = picture.celestial_wcs()
    if wcs is not None and count:
        place = wcs.pixel_to_world(found["x_px"], found["y_px"]).icrs
        columns |= {"ra": place.ra.deg, "dec": place.dec.deg}
        columns["radius_arcsec"] = np.asarray(found["radius_px"]) * picture.pixel_arcsec
    table = pa.table(columns)
    fields = [schema.arrow_field(item.name).with_type(item.type) for item in table.schema]
    return normalize(table.cast(pa.schema(fields)), id_column=None, name=name)


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)  # NaN becomes NULL


def _with_pixels(rows: pa.Table, picture: images.Picture) -> pa.Table:
    _must_have_ids(rows)
    wcs = picture.celestial_wcs()
    if {"x_px", "y_px"} <= set(rows.column_names):
        rows = _as_double(_as_double(rows, "x_px", "the catalog"), "y_px", "the catalog")
        return rows if wcs is None else _with_positions(rows, wcs)
    if wcs is None:
        raise SchemaError(
            "the mosaic has no celestial WCS and the catalog no x_px, y_px: give one or the other, "
            "positions cannot be guessed"
        )
    x, y = _to_pixels(wcs, *(rows[name].to_numpy(zero_copy_only=False) for name in ("ra", "dec")))
    x_px, y_px = schema.arrow_field("x_px"), schema.arrow_field("y_px")
    return rows.append_column(x_px, _nullable(x)).append_column(y_px, _nullable(y))


def _to_pixels(wcs, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel positions counted from 0, NaN where there is no position or it has no place in the projection."""
    from astropy.coordinates import SkyCoord

    x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
    known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    if known.any():
        x[known], y[known] = wcs.world_to_pixel(SkyCoord(ra[known], dec[known], unit="deg", frame="icrs"))
    return x, y


def _with_positions(rows: pa.Table, wcs) -> pa.Table:
    """Give rows that have neither ra nor dec the position of their pixel."""
    x, y = (rows[name].to_numpy(zero_copy_only=False) for name in ("x_px", "y_px"))
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return rows
    place = wcs.pixel_to_world(x[known], y[known]).icrs
    neither = pc.and_(pc.is_null(rows["ra"]), pc.is_null(rows["dec"]))
    for name, degrees in (("ra", place.ra.deg), ("dec", place.dec.deg)):
        found = np.full(len(x), np.nan)
        found[known] = degrees
        column = pc.if_else(neither, pa.chunked_array([_nullable(found)]), rows[name])
        rows = rows.set_column(rows.column_names.index(name), rows.field(name), column)
    return rows


def _outside(rows: pa.Table, shape: tuple[int, ...]) -> dict[int, str]:
    bad = {}
    for row, (x, y) in enumerate(zip(rows["x_px"].to_pylist(), rows["y_px"].to_pylist(), strict=True)):
        if x is None or y is None or not (0 <= x < shape[1] and 0 <= y < shape[0]):
            bad[row] = "no position" if x is None or y is None else f"x {x:.0f}, y {y:.0f} is outside the mosaic"
    return bad


def _with_sizes(rows: pa.Table, detections: pa.Table) -> pa.Table:
    """Give catalog rows the measured columns of the detection at their place; NULL where there is none."""
    from scipy.spatial import cKDTree

    def pixels(table: pa.Table) -> np.ndarray:
        return np.stack([table["x_px"].to_numpy(), table["y_px"].to_numpy()], axis=1)

    if not (rows.num_rows and detections.num_rows):
        return rows
    distance, place = cKDTree(pixels(detections)).query(pixels(rows), distance_upper_bound=MATCH_PX)
    index = pa.array(place, mask=~np.isfinite(distance))
    for name in (*MEASURED, "radius_arcsec", "is_star", "is_artifact", "is_edge"):
        if name in detections.column_names and name not in rows.column_names:
            rows = rows.append_column(detections.field(name), detections[name].combine_chunks().take(index))
    return rows


# ---- vectors


def vector_source(
    table: Path, column: str, id_column: str | None, publication: Publication | None = None
) -> VectorSource:
    """Take the vectors of a list column; each is brought to unit length, rows without a usable one are rejected.

    They are in memory once, also when there are more of them than a table could hold beside them. Of a published table
    its other vectors are left out, and rows without any id are called after their position.
    """
    if publication is None:
        rows = _read(table, id_column, without=[column])
    else:
        names = exchange.column_names(table)
        others = published.other_columns(names, column)
        rows = _named(_read(table, id_column or _published_id(names), without=[column, *others]))
    _must_have_ids(rows)
    found = _matrix(exchange.column_parts(table, column), rows.num_rows, column)
    if publication is not None:
        published.check_length(publication, found.shape[1], column)
    lengths = np.sqrt(np.einsum("ij,ij->i", found, found, dtype=np.float64))
    useless = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0)).tolist()
    bad = {row: f"its vector has length {lengths[row]:g}, so no direction" for row in useless} | _off_the_sky(rows)
    rows, rejected, kept = _without(rows, bad)
    vectors = found[kept] if rejected else found
    np.divide(vectors, lengths[kept, None], out=vectors, casting="same_kind")
    return VectorSource(rows, {str(table): digest(table)}, rejected, vectors)


def _published_id(names: list[str]) -> str | None:
    """Return the id column of a published table that has none of the usual names."""
    by_name = {name.casefold(): name for name in names}
    if any(name in by_name for name in ID_NAMES):
        return None
    return next((by_name[name] for name in published.IDS if name in by_name), None)


def _named(rows: pa.Table) -> pa.Table:
    """Return rows with ids: those without any are called after their positions, which the table must have."""
    if "object_id" in rows.column_names:
        return rows
    places = zip(rows["ra"].to_pylist(), rows["dec"].to_pylist(), strict=True)
    ids = [None if ra is None or dec is None else position_name(ra, dec) for ra, dec in places]
    check_ids(ids, "the table has no ids, and its positions")
    return rows.add_column(0, schema.arrow_field("object_id"), pa.array(ids, pa.string()))


def position_name(ra: float, dec: float) -> str:
    """Return the name of a position as the IAU has it, cut and not rounded, from degrees ICRS.

    >>> position_name(172.47450, -0.07430)
    'J112953.88-000427.4'
    """
    time = math.floor(round(ra / 15 * 360_000, 3)) % (24 * 360_000)
    angle = math.floor(round(abs(dec) * 36_000, 3))
    hours, degrees = f"{time // 360_000:02d}{time // 6_000 % 60:02d}", f"{angle // 36_000:02d}{angle // 600 % 60:02d}"
    seconds, arcsec = f"{time % 6_000 / 100:05.2f}", f"{angle % 600 / 10:04.1f}"
    return f"J{hours}{seconds}{'-' if dec < 0 else '+'}{degrees}{arcsec}"


def _matrix(parts: Iterable[pa.Array], rows: int, name: str) -> np.ndarray:
    """Return a list column as `(rows, d) float32`; a row without a list is all NaN."""
    found, start = None, 0
    for part in parts:
        numbers = _numbers(part, name)
        if numbers is not None:
            found = np.full((rows, numbers.shape[1]), np.nan, np.float32) if found is None else found
            if numbers.shape[1] != found.shape[1]:
                lengths = sorted({numbers.shape[1], found.shape[1]})
                raise SchemaError(f"column '{name}' has vectors of lengths {lengths}, expected one length")
            found[start : start + len(part)][pc.is_valid(part).to_numpy(zero_copy_only=False)] = numbers
        start += len(part)
    if found is None:
        raise SchemaError(f"column '{name}' has no vectors: every row is empty; name the column that holds them")
    return found


def _numbers(part: pa.Array, name: str) -> np.ndarray | None:
    """Return the lists of one part that are not NULL as `(n, d) float32`; None when all are."""
    kind = part.type
    if not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)):
        raise SchemaError(f"column '{name}' is {kind}, expected a list of numbers in each row")
    there = pc.drop_null(part)
    lengths = pc.unique(pc.list_value_length(there)).to_pylist()
    if len(lengths) > 1:
        raise SchemaError(f"column '{name}' has vectors of lengths {sorted(lengths)[:5]}, expected one length")
    try:
        values = pc.cast(pc.list_flatten(there), pa.float32())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise SchemaError(f"column '{name}' is {kind}, expected a list of numbers in each row") from None
    return values.to_numpy(zero_copy_only=False).reshape(-1, lengths[0]) if lengths else None


def demo_source() -> MosaicSource:
    """Return the Hubble eXtreme Deep Field picture that scikit-image carries, with its sources detected.

    It has no WCS, so ra and dec stay NULL.
    """
    try:
        from skimage import data
    except ImportError:
        raise GalsearchError("the demo's picture comes with scikit-image: pip install 'galsearch[demo]'") from None
    pixels = data.hubble_deep_field()
    inputs = {"skimage.data.hubble_deep_field": hashlib.sha256(pixels.tobytes()).hexdigest()}
    picture = images.Picture(pixels.astype(np.float32) / 255, ("R", "G", "B"), name="xdf", stretched=True)
    return mosaic_source(picture, None, inputs=inputs, name="xdf")
