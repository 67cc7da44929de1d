"""The bundle, read: one DuckDB file that holds facts, vectors in cell order, pictures, models and macros."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from galsearch import schema
from galsearch.errors import FormatError
from galsearch.store import macros
from galsearch.store.facts import BATCH_ROWS, Ask, Found, Store, complete, read_card, vectors


class BundleStore(Store):
    """An atlas in one file."""

    kind = "bundle"

    def __init__(self, path: Path) -> None:
        super().__init__(path, path)
        self._centroids: dict[str, np.ndarray] = {}
        needed = {"galaxies", schema.COLUMNS_TABLE, "models"}
        needed |= {f"{part}_{name}" for name in self.manifest.embeddings for part in ("embedding", "cells")}
        absent = sorted(needed - self.tables)
        if absent:
            self.close()
            raise FormatError(f"{path}: table {absent[0]} is missing; the bundle is incomplete, bundle the atlas again")

    def embeddings(self, embedding: str, ids: Sequence[str]) -> np.ndarray:
        """Return the stored unit vectors of `ids`, `(n, d) float32`, in that order; all ids must have one."""
        found = self.sandbox.arrow(
            f"SELECT object_id, embedding FROM embedding_{self._name(embedding)} "
            "WHERE object_id IN (SELECT unnest($1::VARCHAR[]))",
            [list(ids)],
        )
        return self._vectors_of(ids, found)

    def fact_tables(self) -> set[str]:
        """Return the tables that hold facts, not vectors, pictures, models or the store's own bookkeeping."""
        own = {schema.MANIFEST_TABLE, "thumbnails", "models"}
        return {name for name in self.tables if not name.startswith(("embedding_", "cells_"))} - own

    def has_thumbnails(self) -> bool:
        """Say whether there are pictures."""
        return "thumbnails" in self.tables

    def sample(self, embedding: str, places: np.ndarray) -> np.ndarray:
        """Return the vectors at the row numbers `places`."""
        found = self.sandbox.arrow(
            f"SELECT embedding FROM embedding_{self._name(embedding)} "
            "WHERE rowid IN (SELECT unnest($1)) ORDER BY rowid",
            [places.tolist()],
        )
        return vectors(found["embedding"])

    def embedding_batches(self, embedding: str) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield (ids, vectors) of every row, in stored order."""
        statement = f"SELECT object_id, embedding FROM embedding_{self._name(embedding)}"
        for batch in self.sandbox.batches(statement, BATCH_ROWS):
            yield batch["object_id"].to_pylist(), vectors(batch["embedding"])

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures (WebP bytes) of `ids`; ids without one are absent."""
        if not self.has_thumbnails():
            return {}
        return dict(
            self.sandbox.rows(
                "SELECT object_id, image FROM thumbnails WHERE object_id IN (SELECT unnest($1::VARCHAR[]))",
                [list(ids)],
            )
        )

    def models(self) -> list[str]:
        """Return the names of the models that travel with the atlas."""
        return [name for (name,) in self.sandbox.rows("SELECT name FROM models ORDER BY name")]

    def model(self, name: str) -> tuple[dict, bytes, bytes | None] | None:
        """Return (card, ONNX bytes, tokenizer bytes) of a model, or None when the bundle has none by that name."""
        found = self.sandbox.rows("SELECT card, onnx, tokenizer FROM models WHERE name = $1", [name])
        if not found:
            return None
        card, onnx, tokenizer = found[0]
        if card is None or onnx is None:
            raise FormatError(f"{self.path}: model '{name}' has no card or no graph; bundle the atlas again")
        return read_card(card, f"{self.path}: model '{name}'"), onnx, tokenizer

    def _name(self, embedding: str) -> str:
        self._space(embedding)
        return embedding

    def holders(self, embedding: str) -> str:
        return f"SELECT object_id FROM embedding_{embedding}"

    def _cells(self, embedding: str) -> int:
        return len(self.centroids(embedding))

    def centroids(self, embedding: str) -> np.ndarray:
        """Return the centroids `(cells, d) float32`, read once."""
        if embedding not in self._centroids:
            found = self.sandbox.arrow(f"SELECT centroid FROM cells_{embedding} ORDER BY cell")
            self._centroids[embedding] = vectors(found["centroid"])
        return self._centroids[embedding]

    def _exact(self, ask: Ask) -> Found:
        ids, found = self._best(ask, self._cut(ask), [])
        return ids, found, ask.matches

    def _ivf(self, ask: Ask, probes: int) -> Found:
        centroids = self.centroids(ask.embedding)
        visited = np.argpartition(-(centroids @ ask.query), probes - 1)[:probes].tolist()
        rows = f"SELECT coalesce(sum(rows), 0)::BIGINT FROM cells_{ask.embedding} WHERE cell IN (SELECT unnest($1))"
        scanned = self.sandbox.rows(rows, [visited])[0][0]
        in_cells = "cell IN (SELECT unnest($3::INTEGER[]))"
        ids, found = self._best(ask, [in_cells, *self._cut(ask)], [visited])
        return ids, found, scanned

    def _cut(self, ask: Ask) -> list[str]:
        key = macros.row_key(self._space(ask.embedding))
        return [f"{key} IN (SELECT {key} FROM galaxies WHERE {ask.condition})"] if ask.condition else []

    def _best(self, ask: Ask, cuts: list[str], parameters: list) -> tuple[list[str], np.ndarray]:
        statement = (
            f"SELECT object_id, embedding FROM embedding_{ask.embedding} WHERE {' AND '.join(cuts) or 'true'} "
            f"ORDER BY array_inner_product(embedding, $1::FLOAT[{len(ask.query)}]) DESC, object_id LIMIT $2"
        )

        run = functools.partial(self.sandbox.ask, said="where") if ask.condition else self.sandbox.arrow

        def fetch(size: int) -> tuple[list[str], np.ndarray]:
            found = run(statement, [ask.query.tolist(), size, *parameters])
            return found["object_id"].to_pylist(), vectors(found["embedding"])

        return complete(fetch, ask)
