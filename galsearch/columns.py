"""The roles of a table's columns: which one is the identifier, the position, the redshift, the file of the picture.

A role goes to the column that the user names, else to the one that its UCD, its name, its unit and its values speak
for. A user's column keeps its name; only where that name means something else in an atlas it is stored as
`<name>_in_table`. What was decided is in a `Summary`, so that it can be told.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats, schema
from galsearch.errors import QueryError, SchemaError
from galsearch.science import sky

ROLES = ("object_id", "ra", "dec", "z", "file", "spectrum_file", "x_px", "y_px")
MISSING = -9999.0  # the marker that survey tables write for "no value"; here missing is NULL

# Names are compared in lower case; the first that a table has wins. The comment says who uses them.
ID_NAMES = (
    *("object_id", "objid", "objectid", "obj_id", "source_id", "sourceid"),  # SDSS, HSC, Gaia, Euclid, WISE
    *("targetid", "target_id"),  # DESI
    *("coadd_object_id", "coadd_objects_id", "diaobjectid"),  # DES, Rubin
    *("id_str", "dr7objid", "dr8objid", "specobjid", "mangaid", "nsaid", "cataid", "ls_id"),  # Galaxy Zoo, NSA, GAMA
    *("main_id", "iauname", "iau_name", "designation", "id", "name", "object name"),  # SIMBAD, IAU, 2MASS, NED
)
NUMBERING = ("number", "label")  # of SExtractor and photutils: ids where every row has another
FILE_NAMES = ("file", "filename", "file_name", "path", "image", "file_path", "filepath", "image_path", "image_file")
POSITION_NAMES = (
    *(("ra", "dec"), ("ra_deg", "dec_deg"), ("radeg", "dedeg"), ("radeg", "decdeg")),  # CDS
    *(("ra_icrs", "de_icrs"), ("ra_icrs", "dec_icrs"), ("_ra_icrs", "_de_icrs"), ("_ra.icrs", "_de.icrs")),
    *(("raj2000", "dej2000"), ("raj2000", "decj2000"), ("ra_j2000", "dec_j2000"), ("_raj2000", "_dej2000")),
    *(("_ra", "_de"), ("target_ra", "target_dec"), ("right_ascension", "declination")),  # VizieR, DESI, Euclid
    *(("alpha_j2000", "delta_j2000"), ("alphawin_j2000", "deltawin_j2000"), ("alphapeak_j2000", "deltapeak_j2000")),
    *(("coord_ra", "coord_dec"), ("ramean", "decmean"), ("rastack", "decstack"), ("s_ra", "s_dec")),  # Rubin, PS1
    *(("plug_ra", "plug_dec"), ("ra_2000", "dec_2000"), ("ra2000", "dec2000"), ("alpha", "delta")),
)
POSITION_UCDS = (("pos.eq.ra", "pos.eq.dec"), ("pos_eq_ra", "pos_eq_dec"))
MAIN_UCDS = (("pos.eq.ra;meta.main", "pos.eq.dec;meta.main"), ("pos_eq_ra_main", "pos_eq_dec_main"))
REDSHIFT_NAMES = (
    *("redshift", "z_spec", "zspec", "specz", "spec_z", "spec_redshift", "redshift_spec", "z_best", "zbest"),
    *("z_helio", "zhelio", "z_cmb", "zcmb", "z_hel", "zsp", "z_sp", "zdist", "z_1"),
)
REDSHIFT_UCDS = ("src.redshift", "src.redshift;meta.main", "redshift_hc")
PHOTOMETRIC_UCDS = ("src.redshift.phot", "src.redshift.phot;meta.main")
PHOTOMETRIC_NAMES = (
    *("z_phot", "zphot", "photoz", "photo_z", "photz", "phot_z", "z_photo", "zphoto", "redshift_phot"),
    *("photoz_best", "phz_median", "z_phot_median", "z_phot_mean", "z_peak", "z_b", "z_ml"),
)
PIXEL_NAMES = (  # x, y, and where counting begins
    *(("x_px", "y_px", 0), ("xcentroid", "ycentroid", 0), ("x_centroid", "y_centroid", 0)),  # photutils
    *(("x_image", "y_image", 1), ("xwin_image", "ywin_image", 1), ("xpeak_image", "ypeak_image", 1)),  # SExtractor
    *(("x_fit", "y_fit", 0), ("xcen", "ycen", 0), ("x_pix", "y_pix", 0), ("xpix", "ypix", 0), ("x", "y", 0)),
)
DEGREES = ("", "deg", "degree", "degrees")
UNITS = {  # of angles: degrees in one of it
    **dict.fromkeys(DEGREES, 1.0),
    **dict.fromkeys(("rad", "radian", "radians"), float(np.degrees(1.0))),
    **dict.fromkeys(("h", "hr", "hour", "hours", "hourangle"), 15.0),
    **{"arcmin": 1 / 60, "arcsec": 1 / 3600},
}
HOURS = ("h", "hr", "hour", "hours", "hourangle")
DIMENSIONLESS = ("", "redshift")
PHOTOMETRIC_UNITS = ("mag", "nmgy", "nanomaggy", "jy", "mjy", "ujy", "njy")
BANDS = ("u", "g", "r", "i")
LEAST_BANDS = 3  # columns called like them, beside which z is the band
REDDEST = 12.0  # a median redshift above it is none
_NOT_POSITIONS = {
    "err",
    "error",
    "e",
    "sig",
    "sigma",
    "std",
    "var",
    "rms",
    "unc",
    "ivar",
    "pm",
    "offset",
    "cov",
    "corr",
}


@dataclass(frozen=True)
class Positions:
    """Positions that a table has: degrees ICRS, `(n,) float64`, NaN where missing.

    `columns` are where they come from, `notes` what was done to them or looks odd, `unreadable` the rows whose text is
    no position, with the reason. `converted` says that the values are not those of the columns.
    """

    ra: np.ndarray
    dec: np.ndarray
    columns: tuple[str, str]
    notes: tuple[str, ...] = ()
    unreadable: Mapping[int, str] = field(default_factory=dict)
    converted: bool = False


@dataclass(frozen=True)
class Redshift:
    """What is the redshift in a table: its column (None: there is none), why, and what a column called z is instead.

    `band` and `other` name a column called z that is not the redshift: the magnitude in the z band, or anything else.
    """

    column: str | None
    why: str = ""
    band: str | None = None
    other: str | None = None


@dataclass(frozen=True)
class Pixels:
    """Pixel positions that a table has, `(n,) float64` counted from 0, NaN where missing, and their columns."""

    x: np.ndarray
    y: np.ndarray
    columns: tuple[str, str]
    first: int
    certain: bool  # the user names them, or they are called x_px and y_px


@dataclass(frozen=True)
class Summary:
    """What was found in a table: the columns of each role (None: none), what is called otherwise now, what was noted.

    `renamed` maps a column of the table to its name in the atlas, `reasons` to why; `columns` are all of the table.
    """

    ids: str | None = None
    positions: tuple[str, str] | None = None
    redshift: str | None = None
    files: str | None = None
    pixels: tuple[str, str] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what to tell of it, a line each."""
        if not self.columns:
            return list(self.notes)
        where = f"in {', '.join(self.positions)}" if self.positions else None
        told = [f"ids: {self.ids}" if self.ids else "ids: from file names or positions"]
        told.append(f"positions: {where}" if where else f"no positions found; columns are: {', '.join(self.columns)}")
        told.append(f"redshift: {self.redshift}" if self.redshift else "redshift: none found")
        told += [f"pixel positions: {', '.join(self.pixels)}"] if self.pixels else []
        told += [f"pictures are named in: {self.files}"] if self.files else []
        told += [f"column {old!r} is called {new!r}: {self.reasons[old]}" for old, new in self.renamed.items()]
        return told + list(self.notes)


def parse_roles(texts: Iterable[str]) -> dict[str, str]:
    """Return {role: column} of texts such as "z=redshift" or "ra=RA_1,dec=DEC_1".

    Raises SchemaError for anything else.

    >>> parse_roles(["z=redshift", "ra=A,dec=D"])
    {'z': 'redshift', 'ra': 'A', 'dec': 'D'}
    """
    result = {}
    for part in [part for text in texts for part in text.split(",")]:
        role, sign, column = (each.strip() for each in part.partition("="))
        if not (sign and column):
            raise SchemaError(f"columns: {part!r} is not ROLE=COLUMN, such as z=redshift")
        result[role] = column
    return check_roles(result)


def check_roles(roles: Mapping[str, str]) -> dict[str, str]:
    """Return the roles; SchemaError for one that there is not."""
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise SchemaError(f"columns: there is no role {unknown[0]!r}; there are: {', '.join(ROLES)}")
    return dict(roles)


def named(table: pa.Table, given: Mapping[str, str], role: str, name: str) -> str | None:
    """Return the column that the user names for a role, None when none is named; SchemaError when it is not there."""
    column = given.get(role)
    if column is None or column in table.column_names:
        return column
    anyhow = [each for each in table.column_names if each.casefold() == column.casefold()]
    if len(anyhow) == 1:
        return anyhow[0]
    raise SchemaError(f"{name}: no column '{column}' for {role}; there are: {', '.join(table.column_names)}")


def _by_name(table: pa.Table) -> dict[str, str]:
    """Return the columns by lower-case name; of two that differ in case the one in lower case, else the first."""
    result = {column.casefold(): column for column in reversed(table.column_names)}
    return result | {column: column for column in table.column_names if column == column.casefold()}


def _ucd(item: pa.Field) -> str:
    return formats.facts_of(item)["ucd"].casefold().replace(" ", "")


def _unit(item: pa.Field) -> str:
    return formats.facts_of(item)["unit"].strip().casefold()


def is_number(kind: pa.DataType) -> bool:
    """Say whether a column holds numbers."""
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)


def _is_numeric(kind: pa.DataType) -> bool:
    return is_number(kind) or pa.types.is_null(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_time(kind)


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of numbers as `(n,) float64`, NaN where missing."""
    values = pc.fill_null(pc.cast(column, pa.float64(), safe=False), np.nan)
    result = np.array(values.to_numpy(), dtype=np.float64)
    result[(result == MISSING) | ~np.isfinite(result)] = np.nan
    return result


# ---- positions


@overload
def positions(table: pa.Table, given: Mapping[str, str], *, name: str, required: Literal[True]) -> Positions: ...


@overload
def positions(table: pa.Table, given: Mapping[str, str], *, name: str, required: bool = False) -> Positions | None: ...


def positions(table: pa.Table, given: Mapping[str, str], *, name: str, required: bool = False) -> Positions | None:
    """Return the positions of a table; None when it has none, or SchemaError where they are `required`.

    Tried are the columns that the user names (`given["ra"]`, `given["dec"]`), `ra` and `dec`, the UCDs of a main
    position, POSITION_NAMES, other UCDs of positions, and one pair of names such as `host_ra`, `host_dec`. Numbers win
    over sexagesimal text, which is read as `sky.parse_position` does, and that over columns without any value. Units
    of angle are converted, and right ascensions from -180 to 0 have 360 added. Raises SchemaError when columns that
    the user names are no positions.
    """
    requested = {axis: named(table, given, axis, name) for axis in ("ra", "dec")}
    refused: list[str] = []
    text: Positions | None = None
    empty: Positions | None = None
    for pair in _position_pairs(table, requested):
        why = [_no_angle(table.field(column), axis) for column, axis in zip(pair, ("ra", "dec"), strict=True)]
        if any(why):
            refused += filter(None, why)
        elif all(_is_numeric(table.field(column).type) for column in pair):
            degrees = _in_degrees(table, pair)
            if np.isfinite(degrees.ra).any() or np.isfinite(degrees.dec).any():
                return degrees
            empty = empty or degrees
        else:
            text = text or _sexagesimal(table, pair)
            refused += [] if text else [f"columns {', '.join(pair)} hold text that is no position"]
    result = text or empty
    if result is None and (required or any(requested.values())):
        raise SchemaError(
            f"{name}: no positions found{''.join(f'; {why}' for why in refused)}; expected right ascension and "
            "declination, ICRS, by name, UCD or unit: say which columns with ra and dec (--ra, --dec). There are: "
            f"{', '.join(table.column_names)}"
        )
    return result


def _position_pairs(table: pa.Table, requested: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Return pairs of columns that may be ra and dec, the likeliest first."""
    if requested["ra"] and requested["dec"]:
        return [(requested["ra"], requested["dec"])]
    by_name = _by_name(table)
    by_ucd = {_ucd(item): item.name for item in reversed(list(table.schema))}
    likely = [
        *_both(by_name, POSITION_NAMES[:1]),
        *_both(by_ucd, MAIN_UCDS),
        *_both(by_name, POSITION_NAMES[1:]),
        *_both(by_ucd, POSITION_UCDS),
        *_alike(by_name),
    ]
    pairs = [(requested["ra"] or ra, requested["dec"] or dec) for ra, dec in likely]
    pairs += [(ra, dec) for ra, dec in [_by_axis(by_name, by_ucd, requested)] if ra and dec]
    return [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]


def _both(known: Mapping[str, str], pairs: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    yield from ((known[ra], known[dec]) for ra, dec in pairs if ra in known and dec in known)


def _by_axis(
    known: Mapping[str, str], ucds: Mapping[str, str], requested: Mapping[str, str | None]
) -> list[str | None]:
    """Return the likeliest column of each axis by itself: `ra` beside a column that only its UCD calls dec."""
    result = []
    for index, axis in enumerate(("ra", "dec")):
        tried = [known.get(axis)] + [ucds.get(pair[index]) for pair in (*MAIN_UCDS, *POSITION_UCDS)]
        tried += [known.get(pair[index]) for pair in POSITION_NAMES]
        result.append(requested[axis] or next(filter(None, tried), None))
    return result


def _alike(by_name: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the one pair of names that differ as ra and dec do in one of their words; nothing when there are more."""
    result = []
    for name, column in by_name.items():
        words = re.split(r"([\W_]+)", name)
        if "ra" not in words or _NOT_POSITIONS & set(words):
            continue
        index = words.index("ra")
        for other in ("dec", "de"):
            twin = "".join([*words[:index], other, *words[index + 1 :]])
            result += [(column, by_name[twin])] if twin in by_name else []
    return result if len(result) == 1 else []


def _no_angle(item: pa.Field, axis: str) -> str | None:
    """Return why a column cannot be an angle, or None."""
    if _is_numeric(item.type):
        unit = _unit(item)
        known = unit in UNITS and not (axis == "dec" and unit in HOURS)
        return None if known else f"column {item.name} is in {unit}, expected a unit of angle"
    return None if _is_text(item.type) else f"column {item.name} is {item.type}, expected numbers or text"


def _in_degrees(table: pa.Table, pair: tuple[str, str]) -> Positions:
    """Return the positions in two columns of numbers."""
    units = [_unit(table.field(column)) for column in pair]
    ra, dec = (numbers(table[column]) * UNITS[unit] for column, unit in zip(pair, units, strict=True))
    notes = [
        f"{column} is converted from {unit} to degrees"
        for column, unit in zip(pair, units, strict=True)
        if UNITS[unit] != 1.0
    ]
    if not any(units):
        notes += _doubts(ra, dec, pair)
    below = (ra >= -180) & (ra < 0)
    if below.any():
        ra = np.where(below, ra + 360, ra)
        notes.append(f"360 is added to {below.sum()} right ascensions below 0 in {pair[0]}")
    ra = np.where(ra == 360, 0.0, ra)
    return Positions(ra, dec, pair, tuple(notes), converted=any(UNITS[unit] != 1.0 for unit in units))


def _doubts(ra: np.ndarray, dec: np.ndarray, pair: tuple[str, str]) -> list[str]:
    """Return what makes numbers without a unit look like radians or hours."""
    known = np.isfinite(ra) & np.isfinite(dec)
    if not known.any():
        return []
    if (np.abs(ra[known]) <= 2 * np.pi).all() and (np.abs(dec[known]) <= np.pi / 2).all():
        return [f"all of {', '.join(pair)} are within 2 pi and taken for degrees; if they are radians, give their unit"]
    if (ra[known] >= 0).all() and (ra[known] < 24).all():
        return [f"all of {pair[0]} are below 24 and taken for degrees; if they are hours, give their unit"]
    return []


def _sexagesimal(table: pa.Table, pair: tuple[str, str]) -> Positions | None:
    """Return the positions in two columns of text; None when most of them are none."""
    written = list(zip(*(table[column].to_pylist() for column in pair), strict=True))
    ra, dec = np.full(len(written), np.nan), np.full(len(written), np.nan)
    unreadable = {}
    for row, (first, second) in enumerate(written):
        if first is None or second is None or not (str(first).strip() and str(second).strip()):
            continue
        try:
            ra[row], dec[row] = sky.parse_position(f"{first}, {second}")
        except QueryError as error:
            unreadable[row] = f"row {row + 1}: {error}"
    if np.isfinite(ra).sum() <= len(unreadable):
        return None
    return Positions(
        ra, dec, pair, (f"{', '.join(pair)} are read as text, in degrees now",), unreadable, converted=True
    )


# ---- redshift


def redshift(table: pa.Table, given: Mapping[str, str], *, name: str, z_was: str | None = None) -> Redshift:
    """Return which column of numbers is the redshift.

    That is the one the user names, else `z` unless it is something else (the magnitude beside u, g, r, i, or in
    magnitudes by unit, UCD or value), else one with the UCD src.redshift, else one of REDSHIFT_NAMES, else a
    photometric one, which the reason says. `z_was` is what a column called z was when the atlas was built, "band" or
    "other": it is the same in rows that are added, whatever their values.
    """
    by_name = _by_name(table)
    z = by_name.get("z")
    requested = named(table, given, "z", name)
    kind = None if z is None or z == requested else z_was or _what_z_is(table, z, by_name)
    band, other = z if kind == "band" else None, z if kind == "other" else None
    if requested is not None:
        if not is_number(table.field(requested).type):
            raise SchemaError(
                f"{name}: column {requested} is {table.field(requested).type}, expected numbers for the redshift"
            )
        if (unit := _unit(table.field(requested))) not in DIMENSIONLESS:
            raise SchemaError(f"{name}: column {requested} is in {unit}, and a redshift has no unit; convert it before")
        return Redshift(requested, "as you say", band, z if kind == "redshift" else other)
    if kind == "redshift":
        return Redshift(z, "by its name")
    ucds = {item.name: _ucd(item) for item in table.schema if is_number(item.type) and _unit(item) in DIMENSIONLESS}
    tried = [(column, "by its UCD") for column, ucd in ucds.items() if ucd in REDSHIFT_UCDS]
    tried += [(by_name[each], "by its name") for each in REDSHIFT_NAMES if each in by_name]
    tried += [(column, "by its UCD, photometric") for column, ucd in ucds.items() if ucd in PHOTOMETRIC_UCDS]
    tried += [(by_name[each], "by its name, photometric") for each in PHOTOMETRIC_NAMES if each in by_name]
    column, why = next((each for each in tried if each[0] in ucds and each[0] != z), (None, ""))
    return Redshift(column, why, band, other)


def _what_z_is(table: pa.Table, z: str, by_name: Mapping[str, str]) -> str:
    """Return whether a column called z is the "redshift", the "band" or "other"."""
    item = table.field(z)
    unit, ucd = _unit(item), _ucd(item)
    if unit.startswith(PHOTOMETRIC_UNITS) or ucd.startswith("phot."):
        return "band"
    if not is_number(item.type) or unit not in DIMENSIONLESS or ucd.startswith("pos."):
        return "other"
    return "redshift" if ucd.startswith("src.redshift") else _by_companions(table, z, by_name)


def _by_companions(table: pa.Table, z: str, by_name: Mapping[str, str]) -> str:
    """Return what a column called z is by the columns beside it and by its values."""
    middle = _middle(table[z])
    beside = [by_name[band] for band in BANDS if band in by_name and is_number(table.field(by_name[band]).type)]
    if len(beside) >= LEAST_BANDS:
        magnitudes = [_middle(table[column]) for column in beside]
        alone = middle < 8 and min(magnitudes) > 10  # a redshift beside magnitudes in u, g, r and i only
        return "redshift" if alone else "band"
    in_space = {"x", "y"} <= set(by_name) and not {"ra", "dec"} <= set(by_name)
    return "other" if in_space or middle > REDDEST else "redshift"


def _middle(column: pa.ChunkedArray) -> float:
    known = numbers(column)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else np.nan


# ---- identifiers, files, pixels


def identifier(table: pa.Table, given: Mapping[str, str], *, name: str) -> str | None:
    """Return the column of the ids: the one the user names, else `object_id`, a main identifier by UCD, by ID_NAMES."""
    requested = named(table, given, "object_id", name)
    if requested is not None:
        return requested
    by_name = _by_name(table)
    main = [item.name for item in table.schema if _ucd(item) in ("meta.id;meta.main", "id_main")]
    tried = [by_name.get("object_id"), *(main if len(main) == 1 else []), *map(by_name.get, ID_NAMES)]
    result = next((each for each in tried if each and _may_name(table, each)), None)
    counted = (by_name[each] for each in NUMBERING if each in by_name and _may_name(table, by_name[each]))
    return result or next(
        (each for each in counted if pc.count_distinct(table[each], mode="all").as_py() == len(table)), None
    )


def picture_file(table: pa.Table, given: Mapping[str, str], *, name: str) -> str | None:
    """Return the column that names the files of the pictures."""
    by_name = _by_name(table)
    tried = [named(table, given, "file", name), *map(by_name.get, FILE_NAMES)]
    return next((each for each in tried if each and _may_name(table, each)), None)


def _may_name(table: pa.Table, column: str) -> bool:
    """Say whether a column has text or whole numbers in any row."""
    kind = table.field(column).type
    fits = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    return fits and (table[column].null_count < len(table) or not len(table))


def pixels(table: pa.Table, given: Mapping[str, str], *, name: str) -> Pixels | None:
    """Return the pixel positions of a table, None when it has none; columns that the user names are counted from 0."""
    given_x, given_y = (named(table, given, axis, name) for axis in ("x_px", "y_px"))
    by_name = _by_name(table)
    tried = [(x, y, first) for x, y, first in PIXEL_NAMES if x in by_name and y in by_name]
    tried = [(by_name[x], by_name[y], first) for x, y, first in tried]
    if given_x or given_y:
        if not (given_x and given_y):
            raise SchemaError(f"{name}: x_px and y_px go together, name both columns (--x, --y)")
        known = {(x, y): first for x, y, first in tried}
        tried = [(given_x, given_y, known.get((given_x, given_y), 0))]
    for x, y, first in tried:
        items = [table.field(column) for column in (x, y)]
        if all(is_number(item.type) and _unit(item).removesuffix("s") in ("", "pix", "pixel") for item in items):
            certain = bool(given_x) or (x.casefold(), y.casefold()) == PIXEL_NAMES[0][:2]
            return Pixels(numbers(table[x]) - first, numbers(table[y]) - first, (x, y), first, certain)
    if given_x:
        raise SchemaError(f"{name}: columns {given_x}, {given_y} are no pixel positions, expected numbers in pixels")
    return None


# ---- names


def free_names(names: Sequence[str], taken: Iterable[str], *, ending: str = schema.IN_TABLE) -> list[str]:
    """Return names for columns that neither those `taken` nor each other have, upper and lower case being one.

    >>> free_names(["a", "A", "z"], ["Z"])
    ['a', 'A_in_table', 'z_in_table']
    """
    return formats.free_names(names, [*taken], suffix=ending)


def clean_name(name: str, number: int) -> str:
    """Return a name without control characters, blanks at its ends and more than schema.MAX_NAME characters.

    `number` counts columns from 1 and names one without any name. A name of the parts of a batch loses its colon.

    >>> clean_name(" flux\\x00r ", 3)
    'flux_r'
    """
    kept = "".join(
        "_" if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") else each for each in name.strip()
    )
    kept = kept.strip()[: schema.MAX_NAME].strip() or f"column_{number}"
    return kept.replace(":", "_", 1) if kept.casefold().startswith("galsearch:") else kept
