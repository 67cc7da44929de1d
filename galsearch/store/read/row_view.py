"""A view of some rows of an atlas, as what writes bundles reads a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import schema
from galsearch.errors import FormatError
from galsearch.store.index.vectors import Held, Vectors
from galsearch.store.read.base import BaseStore
from galsearch.store.sql.macros import ROW_ALIGNED

# a part of the members of a base would be another base, a part of the p-values another false discovery rate, and a part
# of the duplicates would be kept by objects that are not there
OF_ALL = ("knowledge_bases", "knowledge_labels", "probes", "anomalies", "duplicates")
WHOLE = (
    schema.PHRASES,
    schema.COLUMNS_TABLE,
    "adaptations",
)  # tables that are not about objects, but that every reader needs


class RowView:
    """Some rows of an open atlas, in the order given, as `write_bundle` reads a store."""

    def __init__(self, store: BaseStore, rows: np.ndarray, title: str) -> None:
        self._store, self._rows = store, np.asarray(rows, np.int64)
        self._ids = store.id_column(self._rows).cast(pa.string())
        if self._ids.null_count:
            raise FormatError(
                f"{store.path}: {self._ids.null_count} of the {len(rows)} objects have no object_id, and a part is "
                "gathered by ids; see `galsearch check`, and rebuild the atlas from its source"
            )
        self.path, self.tables = store.path, store.tables
        self.sandbox = _Sandbox(store, self._ids)
        self._vector_rows = {name: store.vector_rows(name, self._rows) for name in store.manifest.embeddings}
        self.manifest = replace(
            store.manifest,
            title=title,
            rows=len(rows),
            embeddings={
                name: {key: value for key, value in space.items() if key not in (schema.CODES, ROW_ALIGNED)}
                | {"rows": int((self._vector_rows[name] >= 0).sum())}
                for name, space in store.manifest.embeddings.items()
                if (self._vector_rows[name] >= 0).any()
            },
        )

    def vectors(self, embedding: str) -> Vectors:
        """Return the vectors of the rows that have one."""
        indices = self._vector_rows[embedding]
        return Held(self._store.vectors(embedding).take(indices[indices >= 0]))

    def object_rows(self, embedding: str, vector_rows: np.ndarray) -> np.ndarray:
        """Return the rows, counted here, of vector_rows among the vectors."""
        return np.flatnonzero(self._vector_rows[embedding] >= 0)[vector_rows]

    def cells(self, embedding: str) -> None:
        """Return no index: that of all rows is not one for these."""

    def id_column(self, rows: np.ndarray) -> pa.ChunkedArray | pa.Array:
        """Return the object_ids of rows, counted here."""
        return self._ids.take(pa.array(rows))

    def fact_tables(self) -> set[str]:
        """Return the tables that are about objects, and those that every reader needs."""
        there = self._store.fact_tables()
        return {
            name
            for name in there
            if name in WHOLE
            or name.startswith(f"{schema.PHRASES}_")
            or (name not in OF_ALL and "object_id" in self.sandbox.columns(f'FROM "{name}"'))
        }

    def holds(self, table: str) -> bool:
        """Say whether there are rows for objects in `table`, "thumbnails" or "spectra"."""
        return self._store.holds(table)

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures of `ids`; those without one are absent."""
        return self._store.thumbnails(ids)

    def spectra(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of the table `spectra` for `ids`, in that order; ids without one are absent."""
        return self._store.spectra(ids)

    def models(self) -> list[str]:
        """Return the names of the models that travel along."""
        return self._store.models()

    def model(self, name: str) -> tuple[dict, bytes, bytes | None] | None:
        """Return (card, ONNX bytes, tokenizer bytes) of a model."""
        return self._store.model(name)


class _Sandbox:
    """The facts of an atlas, of which every row that is about an object is about one of `ids`."""

    def __init__(self, store: BaseStore, ids: pa.Array | pa.ChunkedArray) -> None:
        self._inner, self._ids = store.sandbox, ids
        self.cursor = store.sandbox.cursor

    def columns(self, statement: str) -> list[str]:
        """Return the names of the columns that a statement gives."""
        return self._inner.arrow(f"SELECT * FROM ({statement}) LIMIT 0").column_names

    def arrow(self, statement: str) -> pa.Table:
        """Run a statement; of rows with an object_id only ours come back, in our order."""
        if "object_id" not in self.columns(statement):
            return self._inner.arrow(statement)
        ours = "object_id IN (SELECT unnest($1::VARCHAR[]))"
        result = self._inner.arrow(f"SELECT * FROM ({statement}) WHERE {ours}", [self._ids.to_pylist()])
        index = pc.index_in(result["object_id"].cast(pa.string()), value_set=self._ids)
        return result.take(pc.sort_indices(pa.table({"place": index}), sort_keys=[("place", "ascending")]))
