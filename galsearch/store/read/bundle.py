"""The bundle, read: one DuckDB file that holds facts, vectors in cell order, pictures, models and macros."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import FormatError
from galsearch.store.files import Content
from galsearch.store.index.vectors import Chain, Coded, MapError, Vectors, decoded, file_state, numbers
from galsearch.store.read.base import (
    BATCH_ROWS,
    MOST_PICTURE_BYTES,
    BaseStore,
    Stored,
    check_model_name,
    read_card,
    vectors,
)
from galsearch.store.read.spectra import SPECTRA, by_ids, checked_spectra, no_spectra
from galsearch.store.sql.macros import OURS, bundle_macros, vector_table, vote_macros


class BundleStore(BaseStore):
    """An atlas in one file, on this machine or, as `content`, elsewhere."""

    kind = "bundle"

    def __init__(self, path: Path, content: Content | None = None) -> None:
        super().__init__(path, content or path)
        self._counts: dict[str, int] = {}
        try:
            self._check_tables()
        except FormatError:
            self.close()
            raise

    def _check_tables(self) -> None:
        """Raise FormatError unless the tables are there and the vectors are coded in a way that is known."""
        needed = {"galaxies", schema.COLUMNS_TABLE, "models"}
        for name, space in self.manifest.embeddings.items():
            if self._codes(name) not in (None, schema.RESIDUAL_CODES):
                raise FormatError(
                    f"{self.path}: its '{name}' vectors are coded as {self._codes(name)!r:.40}, and this "
                    f"{schema.software()} reads {schema.RESIDUAL_CODES!r}; `pip install --upgrade galsearch`"
                )
            needed |= {vector_table(name, space), f"cells_{name}"}
        absent = sorted(needed - self.tables)
        if absent:
            raise FormatError(
                f"{self.path}: table {absent[0]} is missing; the bundle is incomplete, bundle the atlas again"
            )

    def holds(self, table: str) -> bool:
        """Say whether there are rows for objects in `table`, "thumbnails" or "spectra"."""
        return table in self.tables

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures (WebP bytes) of `ids`; ids without one are absent."""
        if not self.holds("thumbnails"):
            return {}
        return dict(
            self.sandbox.rows(
                "SELECT object_id, image FROM thumbnails WHERE object_id IN (SELECT unnest($1::VARCHAR[])) "
                f"AND octet_length(image) <= {MOST_PICTURE_BYTES}",
                [list(ids)],
            )
        )

    def spectra(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of the table `spectra` for `ids`, in that order; ids without one are absent."""
        if not self.holds(SPECTRA):
            return no_spectra()
        names = ", ".join(no_spectra().column_names)
        result = self.sandbox.arrow(
            f"SELECT {names} FROM {SPECTRA} WHERE object_id IN (SELECT unnest($1::VARCHAR[]))", [list(ids)]
        )
        return by_ids(checked_spectra(result, self.path), ids)

    def models(self) -> list[str]:
        """Return the names of the models that travel with the atlas."""
        names = [name for (name,) in self.sandbox.rows("SELECT name FROM models ORDER BY name")]
        return [check_model_name(name, self.path) for name in names]

    def card(self, name: str) -> dict | None:
        """Return the card of a model, without reading the model; None when the bundle has none by that name."""
        cards = self.sandbox.rows("SELECT card FROM models WHERE name = $1", [name])
        return None if not cards else read_card(cards[0][0] or "", f"{self.path}: model '{name}'")

    def model(self, name: str) -> tuple[dict, bytes, bytes | None] | None:
        """Return (card, ONNX bytes, tokenizer bytes) of a model, or None when the bundle has none by that name."""
        result = self.sandbox.rows("SELECT card, onnx, tokenizer FROM models WHERE name = $1", [name])
        if not result:
            return None
        card, onnx, tokenizer = result[0]
        if card is None or onnx is None:
            raise FormatError(f"{self.path}: model '{name}' has no card or no graph; bundle the atlas again")
        return read_card(card, f"{self.path}: model '{name}'"), onnx, tokenizer

    def holders(self, embedding: str) -> str:
        kept = embedding in schema.KEPT
        table = embedding if kept else vector_table(embedding, self.manifest.embeddings[embedding])
        return f"SELECT object_id, rowid AS place FROM {table}"

    def vector_count(self, embedding: str) -> int:
        space = self._space(embedding)
        if embedding not in self._counts:
            self._counts[embedding] = self.sandbox.rows(f"SELECT count(*) FROM {vector_table(embedding, space)}")[0][0]
        return self._counts[embedding]

    def _definitions(self) -> list[str]:
        spaces = self.manifest.embeddings
        vector_macros = bundle_macros(spaces, temp=OURS) + vote_macros(spaces, self.tables, temp=OURS)
        return super()._definitions() + vector_macros

    def _codes(self, embedding: str) -> str | None:
        """Return how vectors are coded; None where they are stored as floats."""
        return self.manifest.embeddings[embedding].get(schema.CODES)

    def _parts(self, embedding: str) -> dict[str, tuple[int, type]]:
        dim = self._space(embedding)["dim"]
        coded = {f"codes_{embedding}": (dim, np.int8), f"weights_{embedding}": (2, np.float32)}
        parts = coded if self._codes(embedding) else super()._parts(embedding)
        return {**parts, f"cells_{embedding}": (dim, np.float32)}

    def _mapped_vectors(self, embedding: str) -> Vectors:
        if not self._codes(embedding):
            return super()._mapped_vectors(embedding)
        known = self.cells(embedding)
        cells = (known.centroids, known.starts) if known else self._read_centroids(embedding)
        codes = self._mapped(f"codes_{embedding}", self._space(embedding)["dim"], dtype=np.int8)
        weights = self._mapped(f"weights_{embedding}", 2)
        if isinstance(codes, Chain) or isinstance(weights, Chain):
            raise MapError("codes lie in several files")
        return Coded(codes, weights, *cells)

    def _map_file(self, file: str | None) -> Content:
        if file is not None:
            raise MapError("vectors of a bundle lie in the bundle")
        if self.manifest.extra.get(schema.MAP_STATE) != file_state(self._file):
            raise MapError("the file was changed since it was bundled")
        return self._file

    def codes(self, embedding: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return codes `(n, d) int8` and weights `(n, 2) float32` of coded vectors at sorted row numbers."""
        result = self._numbered(embedding, "code, weights", rows)
        return vectors(result["code"], dtype=np.int8), vectors(result["weights"])

    def _fetch(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        if not self._codes(embedding):
            return vectors(self._numbered(embedding, "embedding", rows)["embedding"])
        # each row says itself which cell it is in: whoever changed the file may have changed the order
        result = self._numbered(embedding, "code, weights, centroid", rows, f"LEFT JOIN cells_{embedding} USING (cell)")
        codes = vectors(result["code"], dtype=np.int8)
        return decoded(codes, vectors(result["weights"]), vectors(result["centroid"]))

    def stored(self, embedding: str) -> Iterator[Stored]:
        table = vector_table(embedding, self._space(embedding))
        columns = "code, weights" if self._codes(embedding) else "embedding"
        statement = f"SELECT object_id, cell::BIGINT AS cell, {columns} FROM {table}"
        centroids = self._read_centroids(embedding)[0] if self._codes(embedding) else None
        for batch in self.sandbox.batches(statement, BATCH_ROWS):
            result = pa.Table.from_batches([batch])
            cell = numbers(result, "cell")
            if centroids is None:
                yield Stored(batch["object_id"], vectors(result["embedding"]), cell)
                continue
            if len(cell) and not 0 <= cell.min() <= cell.max() < len(centroids):
                raise self._damaged_index(embedding, "a vector lies in a cell that there is not")
            codes = vectors(result["code"], dtype=np.int8)
            yield Stored(batch["object_id"], decoded(codes, vectors(result["weights"]), centroids[cell]), cell)

    def _numbered(self, embedding: str, columns: str, rows: np.ndarray, joined: str = "") -> pa.Table:
        """Return columns of the vectors at sorted row numbers."""
        table = vector_table(embedding, self.manifest.embeddings[embedding])
        result = self.sandbox.arrow(
            f"SELECT {columns} FROM {table} v {joined} WHERE v.rowid IN (SELECT unnest($1::BIGINT[])) ORDER BY v.rowid",
            [rows.tolist()],
        )
        if result.num_rows != len(rows):
            raise FormatError(f"{self.path}: rows of {table} were changed one by one; bundle the atlas again")
        return result
