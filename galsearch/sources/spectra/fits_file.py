"""A FITS file as the readers of spectra see it: units by name, columns by name, arrays scaled."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from galsearch.science.bounded import bad
from galsearch.science.fits_units import (
    Column,
    Unit,
    array_shape,
    column_values,
    columns_of,
    image_values,
    list_values,
    row_count,
    scaling,
    scan,
)


class Fits:
    """The units of a FITS file, their columns and arrays, by the names that people give them."""

    def __init__(self, content: bytes, source: str, values: int) -> None:
        self.content, self.source, self._values = content, source, values
        self._columns: dict[int, dict[str, Column]] = {}
        self.units = scan(content, source)

    @cached_property
    def primary(self) -> dict[str, Any]:
        return self.units[0].header

    def keyword(self, unit: Unit, key: str) -> Any:
        """Return the value of a keyword of a unit, or else of the primary header."""
        value = unit.header.get(key)
        return self.primary.get(key) if value is None else value

    def text(self, unit: Unit, *keys: str) -> str:
        """Return the first text of these keywords that is not empty."""
        texts = (str(self.keyword(unit, key) or "").strip() for key in keys)
        return next((text for text in texts if text), "")

    def named(self, name: str | int) -> Unit | None:
        """Return the unit of this name or number; None where there is none."""
        wanted = str(name).strip().casefold()
        for unit in self.units:
            if str(unit.header.get("EXTNAME", "")).strip().casefold() == wanted:
                return unit
        return self.units[int(wanted)] if wanted.isdecimal() and int(wanted) < len(self.units) else None

    def chosen(self, hdu: str | int) -> Unit:
        """Return the unit that the caller names. Raises SchemaError where there is none."""
        unit = self.named(hdu)
        if unit is None:
            listed = ", ".join(each.label for each in self.units[:20])
            raise bad(self.source, f"it has no HDU {hdu} (it has {listed})", "name one of these with hdu")
        return unit

    def columns(self, unit: Unit) -> dict[str, Column]:
        """Return the columns of a table by their names in lower case, {} for an image."""
        if unit.number not in self._columns:
            columns = columns_of(unit, self.source)
            self._columns[unit.number] = {column.name.casefold(): column for column in columns}
        return self._columns[unit.number]

    def rows(self, unit: Unit) -> int:
        """Return how many rows a table has."""
        return row_count(unit)

    def values(self, unit: Unit, column: Column) -> np.ndarray:
        """Return a column, (rows,) or (rows, repeat)."""
        return column_values(self.content, unit, column, self.source)

    def row_values(self, unit: Unit, column: Column, row: int) -> np.ndarray:
        """Return the array that one row of a column of arrays has, (n,)."""
        if column.heap_kind:
            return list_values(self.content, unit, column, row, self.source)
        return np.atleast_1d(self.values(unit, column)[row])

    def number(self, unit: Unit, columns: dict[str, Column], name: str, row: int = 0) -> float | None:
        """Return a number of one row, None where the column is missing or the value is not finite."""
        column = columns.get(name)
        if column is None or not column.is_number or column.heap_kind or column.repeat != 1 or row >= row_count(unit):
            return None
        value = float(self.values(unit, column)[row])
        return value if np.isfinite(value) else None

    def array(self, unit: Unit, *, row: int | None = None) -> np.ndarray:
        """Return an image as float64, scaled, NaN for what is blank; of a row of its first axis where one is named."""
        raw = image_values(self.content, unit, self.source, self._values)
        raw = raw if row is None else raw[row]
        if raw.size > self._values:
            reason = f"{unit.label} has {raw.size:,} values, and at most {self._values:,} are read"
            raise bad(self.source, reason, "cut spectra out of it first")
        scale, zero, blank = scaling(unit, self.source)
        values = raw.astype(np.float64) * scale + zero
        if isinstance(blank, (int, float)):
            values[raw == blank] = np.nan
        return values

    def shape(self, unit: Unit) -> tuple[int, ...]:
        """Return the shape of an image, also of one axis; () for a table or no data."""
        return array_shape(unit)
