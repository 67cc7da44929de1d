"""The bundle, read: one DuckDB file that holds facts, vectors in cell order, pictures, models and macros."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from galsearch import schema
from galsearch.errors import FormatError
from galsearch.store.facts import Store, read_card, vectors
from galsearch.store.vectors import MapError, file_state


class BundleStore(Store):
    """An atlas in one file."""

    kind = "bundle"

    def __init__(self, path: Path) -> None:
        super().__init__(path, path)
        needed = {"galaxies", schema.COLUMNS_TABLE, "models"}
        needed |= {f"{part}_{name}" for name in self.manifest.embeddings for part in ("embedding", "cells")}
        absent = sorted(needed - self.tables)
        if absent:
            self.close()
            raise FormatError(f"{path}: table {absent[0]} is missing; the bundle is incomplete, bundle the atlas again")

    def has_thumbnails(self) -> bool:
        """Say whether there are pictures."""
        return "thumbnails" in self.tables

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

    def holders(self, embedding: str) -> str:
        return f"SELECT object_id, rowid AS place FROM embedding_{embedding}"

    def _place(self, file: str | None) -> Path:
        if self.manifest.extra.get(schema.MAP_STATE) != file_state(self.path):
            raise MapError("the file was changed since it was bundled")
        return self.path

    def _fetch(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        found = self.sandbox.arrow(
            f"SELECT embedding FROM embedding_{embedding} WHERE rowid IN (SELECT unnest($1::BIGINT[])) ORDER BY rowid",
            [rows.tolist()],
        )
        return vectors(found["embedding"])
