"""Results that are one table: as Arrow, pandas and astropy, and as a file that says where it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from galsearch import formats, schema
from galsearch.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Table


class TableResult(ABC):
    """A result with a `table` of objects of the atlas `_store`; `title` is what files of it are called."""

    title: ClassVar[str]
    table: pa.Table
    _store: Store

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return everything that decides the result, as provenance keeps it."""

    def to_arrow(self) -> pa.Table:
        """Return the table."""
        return self.table

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a pandas DataFrame; needs pandas."""
        return formats.to_pandas(self.table)

    def to_astropy(self) -> Table:
        """Return the table as an astropy Table with units; needs astropy."""
        return formats.to_astropy(self.table, meta=self.meta())

    def save(self, path: str | Path, *, quote_formulas: bool = False) -> Path:
        """Write the table in the format of the suffix, as `Hits.save` does; return the path."""
        formats.write_table(self.table, Path(path), meta=self.meta(), quote_formulas=quote_formulas)
        return Path(path)

    def meta(self) -> dict[str, Any]:
        """Return what a file of it says: title, atlas, sources and parameters."""
        manifest = self._store.manifest
        return {"title": self.title, "atlas": manifest.title, "sources": manifest.sources, **self.parameters()}


def placeless(store: Store, near: tuple[float, float] | None) -> str:
    """Return the clause of a message for who looks near a position where no object has one; "" otherwise."""
    if near is None or store.count("ra IS NOT NULL AND dec IS NOT NULL"):
        return ""
    return f", since none of the {store.manifest.rows} objects has a position"


def with_catalog(table: pa.Table, store: Store, rows: np.ndarray) -> pa.Table:
    """Return a table of objects with the columns of the catalog beside its own, which keep their names.

    `rows` are their row indices. A column of the catalog that is called like one of the table ends in `_in_table`.
    """
    catalog = store.hits(rows, None).drop_columns(["object_id", "score"])
    for item, column in zip(catalog.schema, catalog.columns, strict=True):
        name = item.name + schema.IN_TABLE if item.name in table.column_names else item.name
        table = table.append_column(item.with_name(name), column)
    return table
