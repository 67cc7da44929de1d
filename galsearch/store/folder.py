"""The folder, read: facts in `galaxies.duckdb`, vectors and pictures in Lance tables beside it.

`galaxies.duckdb` names the versions of the Lance tables that belong to it, and they are opened at those versions: what
a writer has appended since is not seen until it renames its new `galaxies.duckdb` into place. `vectors.lance` is a
LanceDB database; LanceDB itself opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import FormatError
from galsearch.store import cells, macros
from galsearch.store.facts import (
    BATCH_ROWS,
    SCORE_ERROR,
    TIES,
    Ask,
    Found,
    Store,
    complete,
    cosines,
    read_card,
    settled,
    vectors,
)

FACTS = "galaxies.duckdb"
LANCE = "vectors.lance"
MODELS = "models"
THUMBNAILS = "thumbnails"
VERSIONS = schema.LANCE_VERSIONS
OVERFETCH = 2.0  # rows asked of Lance for each that is expected to match


class FolderStore(Store):
    """An atlas in a folder."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        if not (path / FACTS).is_file():
            raise FormatError(
                f"{path}: no {FACTS} inside, so this folder is not an atlas (or its build was interrupted: "
                "run the same `galsearch build` again and it goes on)"
            )
        super().__init__(path, path / FACTS)
        try:
            self._lance = self._open_all()
        except BaseException:
            self.close()
            raise

    def _open_all(self) -> dict[str, lance.LanceDataset]:
        versions = self.manifest.extra.get(VERSIONS)
        if not isinstance(versions, dict):
            raise FormatError(f"{self.path}: the manifest has no {VERSIONS}; copy the folder again, or rebuild it")
        absent = sorted({"galaxies", schema.COLUMNS_TABLE} - self.tables) or sorted(
            f"rows_{name}" for name in versions if f"rows_{name}" not in self.tables
        )
        if absent:
            raise FormatError(f"{self.path}: table {absent[0]} is missing; copy the folder again, or rebuild it")
        unnamed = sorted(set(self.manifest.embeddings) - set(versions))
        if unnamed:
            raise FormatError(f"{self.path}: the manifest names no Lance version for '{unnamed[0]}'; rebuild the atlas")
        return {name: self._open_lance(name, version) for name, version in versions.items()}

    def _open_lance(self, name: str, version: int) -> lance.LanceDataset:
        with self._reading(name, f"version {version}"):
            return lance.dataset(str(self.path / LANCE / f"{name}.lance"), version=version)

    @contextmanager
    def _reading(self, name: str, what: str = "rows") -> Iterator[None]:
        """Say in words what Lance raises on damaged files; on some it panics, which is no Exception."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, (ValueError, OSError, RuntimeError)) and type(error).__name__ != "PanicException":
                raise
            raise FormatError(
                f"{self.path}: {what} of {LANCE}/{name}.lance cannot be read ({short(error)}); "
                "copy the whole folder again, or rebuild the atlas"
            ) from None

    def fact_tables(self) -> set[str]:
        """Return the tables that hold facts, not the store's own bookkeeping."""
        return {name for name in self.tables if not name.startswith("rows_")} - {schema.MANIFEST_TABLE}

    def embeddings(self, embedding: str, ids: Sequence[str]) -> np.ndarray:
        """Return the stored unit vectors of `ids`, `(n, d) float32`, in that order; all ids must have one."""
        self._space(embedding)
        return self._vectors_of(ids, self._take(embedding, self._places(embedding, ids)))

    def embedding_batches(self, embedding: str) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield (ids, vectors) of every row, in stored order."""
        names = ["object_id", "embedding"]
        with self._reading(embedding):
            for batch in self._lance[embedding].to_batches(columns=names, batch_size=BATCH_ROWS):
                yield batch["object_id"].to_pylist(), vectors(batch["embedding"])

    def sample(self, embedding: str, places: np.ndarray) -> np.ndarray:
        """Return the vectors stored at the row numbers `places`."""
        return vectors(self._take(embedding, places.tolist())["embedding"])

    def has_thumbnails(self) -> bool:
        """Say whether there are pictures."""
        return THUMBNAILS in self._lance

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures (WebP bytes) of `ids`; ids without one are absent."""
        if not self.has_thumbnails():
            return {}
        found = self._take(THUMBNAILS, self._places(THUMBNAILS, ids))
        return dict(zip(found["object_id"].to_pylist(), found["image"].to_pylist(), strict=True))

    def models(self) -> list[str]:
        """Return the names of the models that travel with the atlas."""
        return sorted(item.parent.name for item in (self.path / MODELS).glob("*/card.json"))

    def model(self, name: str) -> tuple[dict, bytes, bytes | None] | None:
        """Return (card, ONNX bytes, tokenizer bytes) of a model, or None when the atlas has none by that name."""
        folder = self.path / MODELS / name
        if not (folder / "card.json").is_file():
            return None
        tokenizer = folder / "tokenizer.json"
        if not (folder / "model.onnx").is_file():
            raise FormatError(f"{folder}: model.onnx is missing; copy the whole atlas again")
        return (
            read_card((folder / "card.json").read_bytes(), str(folder)),
            (folder / "model.onnx").read_bytes(),
            tokenizer.read_bytes() if tokenizer.is_file() else None,
        )

    def corrupt_tables(self) -> list[str]:
        """Read every value of every table and return the messages of those that cannot be read."""
        bad = super().corrupt_tables()
        for name, dataset in self._lance.items():
            try:
                with self._reading(name):
                    for _ in dataset.to_batches(batch_size=BATCH_ROWS):
                        pass
            except FormatError as error:
                bad.append(str(error))
        return bad

    def _places(self, table: str, ids: Sequence[str]) -> list[int]:
        found = self.sandbox.rows(
            f"SELECT row FROM rows_{table} WHERE object_id IN (SELECT unnest($1::VARCHAR[])) ORDER BY row",
            [list(ids)],
        )
        return [row for (row,) in found]

    def _take(self, table: str, places: list[int]) -> pa.Table:
        if not places:
            return self._lance[table].schema.empty_table()
        with self._reading(table):
            return self._lance[table].take(places)

    def holders(self, embedding: str) -> str:
        return f"SELECT object_id FROM rows_{embedding}"

    def _cells(self, embedding: str) -> int:
        indexes = [index for index in self._lance[embedding].describe_indices() if "embedding" in index.field_names]
        return cells.cell_count(self._space(embedding)["rows"]) if indexes else 0

    def _exact(self, ask: Ask) -> Found:
        if ask.condition is None:
            return *complete(lambda size: self._scan(ask, size, use_index=False), ask), ask.matches
        return self._sift(ask) if ask.matches > macros.EXACT_ROWS else self._compare_matches(ask)

    def _compare_matches(self, ask: Ask) -> Found:
        """Take the vectors of the few objects that match, and compare those."""
        places = self._matching(ask)
        ids: list[str] = []
        best = np.empty((0, len(ask.query)), dtype=np.float32)
        for start in range(0, len(places), BATCH_ROWS):
            part = self._take(ask.embedding, places[start : start + BATCH_ROWS])
            ids, best = _keep_best(ids + part["object_id"].to_pylist(), [best, vectors(part["embedding"])], ask)
        return ids, best, len(places)

    def _sift(self, ask: Ask) -> Found:
        """Let Lance rank all rows, and keep those that match, until the wanted ones and their ties are among them."""
        rows = self._space(ask.embedding)["rows"]
        fetch = int(ask.wanted * rows / ask.matches * OVERFETCH) + TIES
        while True:
            ids, distances = self._ranked(ask, min(fetch, rows))
            passing = self._passing_of(ids, ask.condition)
            kept = [place for place, object_id in enumerate(ids) if object_id in passing]
            if fetch >= rows or (len(kept) > ask.wanted and settled(-distances[kept], ask.wanted)):
                last = distances[kept[min(ask.wanted, len(kept)) - 1]] + SCORE_ERROR
                best = [ids[place] for place in kept if distances[place] <= last]
                return best, self.embeddings(ask.embedding, best), rows
            fetch *= 4

    def _passing_of(self, ids: list[str], condition: str) -> set[str]:
        statement = f"SELECT object_id FROM galaxies WHERE object_id IN (SELECT unnest($1::VARCHAR[])) AND {condition}"
        return set(self.sandbox.ask(statement, [ids], said="where")["object_id"].to_pylist())

    def _ranked(self, ask: Ask, wanted: int) -> tuple[list[str], np.ndarray]:
        """Return ids and distances of the nearest rows, all of them compared: every cell where there is an index."""
        asked = {"column": "embedding", "q": ask.query, "k": wanted, "metric": "cosine"}
        asked["nprobes"] = max(1, self._cells(ask.embedding))
        with self._reading(ask.embedding):
            found = self._lance[ask.embedding].to_table(nearest=asked, columns=["object_id", "_distance"])
        return found["object_id"].to_pylist(), found["_distance"].to_numpy()

    def _matching(self, ask: Ask) -> list[int]:
        found = self.sandbox.ask(
            f"SELECT row FROM rows_{ask.embedding} "
            f"WHERE object_id IN (SELECT object_id FROM galaxies WHERE {ask.condition}) ORDER BY row",
            said="where",
        )
        return found["row"].to_pylist()

    def _cells_serve(self, ask: Ask) -> bool:
        """Only without a cut: Lance ranks before we filter, and where the cut follows the vectors it probes in vain."""
        return ask.condition is None

    def _ivf(self, ask: Ask, probes: int) -> Found:
        scanned = self._space(ask.embedding)["rows"] * probes // self._cells(ask.embedding)
        return *complete(lambda size: self._scan(ask, size, probes=probes), ask), scanned

    def _scan(
        self, ask: Ask, wanted: int, *, probes: int | None = None, use_index: bool = True
    ) -> tuple[list[str], np.ndarray]:
        """Return the `wanted` rows that Lance ranks first; fewer only when it has no more."""
        asked = {"column": "embedding", "q": ask.query, "k": wanted, "metric": "cosine", "use_index": use_index}
        if probes:
            asked["nprobes"] = probes
        with self._reading(ask.embedding):
            found = self._lance[ask.embedding].to_table(nearest=asked, columns=["object_id", "embedding", "_distance"])
        return found["object_id"].to_pylist(), vectors(found["embedding"])

    def _register(self, embed: Callable[[str], np.ndarray]) -> None:
        super()._register(embed)
        spaces = self.manifest.embeddings
        tables = {f"embedding_{name}": self._lance[name] for name in spaces}
        self.sandbox.register_tables(tables, macros.folder_macros(spaces))


def _keep_best(ids: list[str], parts: list[np.ndarray], ask: Ask) -> tuple[list[str], np.ndarray]:
    found = np.concatenate(parts)
    order = np.lexsort((np.array(ids, dtype=object), -cosines(found, ask.query)))[: ask.wanted]
    return [ids[place] for place in order], found[order]


def short(error: BaseException) -> str:
    """Return what an engine said, in one line of bounded length."""
    return " ".join(str(error).split())[:160]


def is_folder_atlas(path: Path) -> bool:
    """Say whether `path` is the folder of an atlas, a damaged one included, or an empty folder."""
    return path.is_dir() and ((path / FACTS).is_file() or not any(path.iterdir()))
