"""Spectra in tables: one pixel a row, or one spectrum a row with its arrays in cells.

The module hides which column is what: by the caller's word, by the utypes of the IVOA's spectral model (McDowell et al.
2012, SpectralDM 1.1), by UCDs, or by names. Two candidates for one role are refused, and so is a wavelength without a
unit: nothing here is guessed from numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats
from galsearch.columns import is_number
from galsearch.science.bounded import bad
from galsearch.science.fits_units import Column, Unit
from galsearch.science.spectra import Spectrum
from galsearch.sources.spectra.assembly import Options, SpectrumFile, Stated, assemble

if TYPE_CHECKING:
    from galsearch.sources.spectra.fits_file import Fits

KIND, NESTED = "table", "table of spectra"
_SUFFIX = r"(?:_(?P<unit>angstrom|nm|um))?"
_WAVE = r"wave|wavelength|wavelengths|lambda|lam|wl|wvl|loglam|log_?wave|log_?lambda"
_FLUX = r"flux|flam|f_?lambda|flux_?density|f_?nu|spectrum"
NAMES = {  # role -> names that a column of it has, in lower case
    "wavelength": re.compile(
        rf"(?:wave|wavelength|wavelengths|lambda|lam|wl|wvl|loglam|log_?wave|log_?lambda){_SUFFIX}"
    ),
    "flux": re.compile(rf"(?:{_FLUX}){_SUFFIX}"),
    "error": re.compile(
        rf"err|errors?|(?:{_FLUX})_?(?:err|errors?|unc|uncertainty|sigma|stddev)|(?:e|err|error|sigma|d)_?(?:{_FLUX})"
        r"|sigma|unc|uncertainty|noise|stddev|stat_?error"
    ),
    "ivar": re.compile(rf"ivar|inv_?var|inverse_variance|(?:{_FLUX})_?ivar|ivar_(?:{_FLUX})"),
    "mask": re.compile(r"mask|pixel_?mask|and_?mask|dq|quality|qual|flags?|bad"),
}
UTYPES = {
    "wavelength": re.compile(r"(?:\w+:)?(?:spectrum\.)?data\.spectralaxis\.value", re.IGNORECASE),
    "flux": re.compile(r"(?:\w+:)?(?:spectrum\.)?data\.fluxaxis\.value", re.IGNORECASE),
    "error": re.compile(r"(?:\w+:)?(?:spectrum\.)?data\.fluxaxis\.accuracy\.staterror", re.IGNORECASE),
    "mask": re.compile(r"(?:\w+:)?(?:spectrum\.)?data\.fluxaxis\.quality", re.IGNORECASE),
}
UCDS = {
    "wavelength": re.compile(r"em\.wl(?:;.*)?", re.IGNORECASE),
    "flux": re.compile(r"phot\.(?:flux\.density|fluxdens|flux)(?:;.*)?|arith\.ratio;phot\.flux.*", re.IGNORECASE),
    "error": re.compile(r"stat\.error;phot\.(?:flux|fluxdens).*", re.IGNORECASE),
    "mask": re.compile(r"meta\.code\.qual.*", re.IGNORECASE),
}
IDS = re.compile(r"object_id|spec_?id|spec_?obj_?id|target_?id|source_?id|id|name", re.IGNORECASE)
REDSHIFTS = re.compile(r"z|redshift|z_?spec|z_?best", re.IGNORECASE)


@dataclass(frozen=True)
class TableColumn:
    """A column of any table: its name and what is said of it; `values(row)` is the whole column or one cell of arrays.

    `is_nested`: each cell holds an array.
    """

    name: str
    unit: str
    ucd: str
    utype: str
    is_nested: bool
    is_number: bool
    values: Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Columns:
    """A table as columns: how many rows, what the file says of its medium, the ids of its rows, their redshifts."""

    items: Sequence[TableColumn]
    rows: int
    source: str
    medium: str | None = None
    notes: tuple[str, ...] = ()

    def role(self, role: str, named: str | None) -> TableColumn | None:
        """Return the column of a role, the one the caller names, or else by utype, UCD and name; None without one.

        Raises SchemaError where there is no such column, or several may be meant.
        """
        if named is not None:
            return self._named(named, role)
        numbers = [item for item in self.items if item.is_number]
        for pattern, text in ((UTYPES.get(role), "utype"), (UCDS.get(role), "ucd"), (NAMES[role], "name")):
            fits = [item for item in numbers if pattern and pattern.fullmatch(getattr(item, text).strip().lower())]
            main = [item for item in fits if "meta.main" in item.ucd.lower()] or fits
            if len(main) > 1:
                listed = ", ".join(item.name for item in main[:6])
                raise bad(self.source, f"its {role} may be {listed}", f"name one with {role}={main[0].name!r}")
            if main:
                return main[0]
        texts = [item.name for item in self.items if not item.is_number and NAMES[role].fullmatch(item.name.casefold())]
        if texts and role in ("wavelength", "flux"):
            raise bad(self.source, f"column {texts[0]} does not hold numbers", "write it as numbers")
        return None

    def _named(self, name: str, role: str) -> TableColumn:
        exact = [item for item in self.items if item.name == name]
        result = exact or [item for item in self.items if item.name.casefold() == name.casefold()]
        if not result:
            listed = ", ".join(item.name for item in self.items[:20])
            raise bad(self.source, f"it has no column {name!r} (it has {listed})", f"name one of these as {role}")
        if not result[0].is_number:
            raise bad(self.source, f"column {name} does not hold numbers", f"name another as {role}")
        return result[0]


def of_fits(file: Fits, unit: Unit) -> Columns:
    """Return a binary table as columns."""

    def one(column: Column) -> TableColumn:
        is_nested = column.heap_kind != "" or (column.repeat > 1 and column.kind != "A")

        def values(row: int) -> np.ndarray:
            return file.row_values(unit, column, row) if is_nested else file.values(unit, column)

        facts = (column.unit, column.ucd, column.utype)
        return TableColumn(column.name, *facts, is_nested, column.is_number, values)

    vacuum, stated = file.keyword(unit, "VACUUM"), file.text(unit, "AIRORVAC").lower()[:3]
    medium = {"air": "air", "vac": "vacuum"}.get(stated)
    if isinstance(vacuum, bool):
        medium = "vacuum" if vacuum else "air"
    return Columns([one(column) for column in file.columns(unit).values()], file.rows(unit), file.source, medium)


def of_arrow(table: pa.Table, source: str) -> Columns:
    """Return a table in memory as columns."""

    def one(name: str) -> TableColumn:
        column, kind = table[name], table[name].type
        is_nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)

        def values(row: int) -> np.ndarray:
            cell = column[row].values if is_nested else column
            if cell is None:
                return np.zeros(0)
            cells = cell.combine_chunks() if isinstance(cell, pa.ChunkedArray) else cell
            if pa.types.is_string(cells.type) and cells.null_count < len(cells):
                return np.array(cells.to_pylist(), object)
            return np.asarray(pc.cast(cells, pa.float64()).to_numpy(zero_copy_only=False))

        facts = formats.facts_of(table.schema.field(name))
        inner = kind.value_type if is_nested else kind
        number = is_number(inner) or pa.types.is_boolean(inner) or column.null_count == len(column)
        return TableColumn(name, facts["unit"], facts["ucd"], "", is_nested, number, values)

    items = [one(name) for name in table.column_names]
    return Columns(items, table.num_rows, source, notes=tuple(formats.notes_of(table)))


def recognize(columns: Columns, options: Options) -> bool:
    """Tell whether a table has a wavelength and a flux."""
    return all(columns.role(role, getattr(options, role)) is not None for role in ("wavelength", "flux"))


def read(columns: Columns, options: Options, stem: str) -> SpectrumFile:
    """Return the spectrum of a table, or the spectra where its cells hold arrays.

    Raises SchemaError for a table without wavelength or flux.
    """
    roles = {
        role: columns.role(role, getattr(options, role)) for role in ("wavelength", "flux", "error", "ivar", "mask")
    }
    missing = [role for role in ("wavelength", "flux") if roles[role] is None]
    if missing:
        listed = ", ".join(item.name for item in columns.items[:20])
        remedy = f"name the columns with {' and '.join(f'{role}=' for role in missing)}, or give a file with spectra"
        raise bad(columns.source, f"it has no column of {' and '.join(missing)} (it has {listed})", remedy)
    if options.error is not None or options.ivar is not None:
        roles["ivar" if options.error is not None else "error"] = None
    elif roles["ivar"] is not None:
        roles["error"] = None
    flux = roles["flux"]
    is_nested = flux is not None and flux.is_nested
    ids = _ids(columns, stem) if is_nested else [stem]
    if is_nested and not columns.rows:
        raise bad(columns.source, "it has no rows", "give a table with spectra")

    def one(row: int) -> Spectrum:
        return assemble(_stated(columns, roles, row, ids[row]), options, columns.source)

    return SpectrumFile(NESTED if is_nested and columns.rows > 1 else KIND, ids, one, columns.source)


def _stated(columns: Columns, roles: dict[str, TableColumn | None], row: int, name: str) -> Stated:
    wavelength, flux, mask = roles["wavelength"], roles["flux"], roles["mask"]
    assert wavelength is not None and flux is not None  # `read` has looked
    optional = {role: None if (item := roles[role]) is None else item.values(row) for role in ("error", "ivar")}
    notes, masked = columns.notes, None
    if mask is not None:
        masked = np.nan_to_num(mask.values(row).astype(np.float64), nan=0.0) != 0
        if count := int(masked.sum()):
            notes += (f"{count:,} pixels with {mask.name} other than 0 have no weight",)
    z = _number(columns, REDSHIFTS, row) if flux.is_nested else None
    if flux.is_nested and not wavelength.is_nested:
        reason = f"{flux.name} holds arrays and {wavelength.name} does not"
        raise bad(columns.source, reason, "give both as arrays, or both with one pixel a row")
    return Stated(
        wavelength.values(row),
        flux.values(row),
        error=optional["error"],
        ivar=optional["ivar"],
        masked=masked,
        wavelength_unit=_unit_of(wavelength, "wavelength"),
        flux_unit=_unit_of(flux, "flux"),
        medium="air" if "obs.atmos" in wavelength.ucd.lower() else columns.medium,
        z=z,
        name=name,
        kind=KIND,
        notes=notes,
    )


def _unit_of(column: TableColumn, role: str) -> str | None:
    """Return the unit that the column has, or that its name ends in (`wavelength_nm`); None without one."""
    if column.unit.strip():
        return column.unit.strip()
    result = NAMES[role].fullmatch(column.name.casefold())
    return result.groupdict().get("unit") if result and role == "wavelength" else None


def _ids(columns: Columns, stem: str) -> list[str]:
    """Return an id for each row: a column of ids, without nulls and repetition, or else the file's name and the row."""
    if columns.rows == 1:
        return [stem]
    for item in columns.items:
        if not item.is_nested and IDS.fullmatch(item.name):
            values = [_as_id(value) for value in item.values(0).tolist()]
            if len(set(values)) == columns.rows and all(values):
                return values
    return [f"{stem}-{row}" for row in range(columns.rows)]


def _as_id(value: object) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else ""
    return "" if value is None else str(value)


def _number(columns: Columns, names: re.Pattern[str], row: int) -> float | None:
    for item in columns.items:
        if item.is_number and not item.is_nested and names.fullmatch(item.name):
            value = float(item.values(row)[row])
            return value if np.isfinite(value) and value > -1 else None
    return None
