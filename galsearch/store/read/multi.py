"""Several atlases asked as one: their rows are numbered through, and each answers for its own part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import schema
from galsearch.errors import ModelMismatchError, QueryError
from galsearch.query import Plan
from galsearch.science.ranking import Scorer
from galsearch.store.index.fulltext import Matches
from galsearch.store.read.base import BaseStore
from galsearch.store.read.spectra import by_ids

ATLAS = "atlas"  # the column that says which atlas a hit is from


class MultiStore:
    """Open atlases whose vectors come from one model; what `Store` is to one atlas."""

    kind = "set"
    grows = False

    def __init__(self, stores: Sequence[BaseStore]) -> None:
        self.parts: Sequence[BaseStore] = list(stores)
        self._names = [store.path.name for store in self.parts]
        self._first = np.cumsum([0, *(store.manifest.rows for store in self.parts)])
        _check_models(self.parts)
        self.path = Path(" + ".join(f"{store.path}" for store in self.parts))
        self.manifest = _manifest(self.parts)
        self.elsewhere = any(store.elsewhere for store in self.parts)
        self.in_memory = all(store.in_memory for store in self.parts)

    def close(self) -> None:
        """Release the files."""
        for store in self.parts:
            store.close()

    # ---- rows

    def _split(self, rows: np.ndarray) -> list[tuple[BaseStore, np.ndarray, np.ndarray]]:
        """Return for each atlas the places in `rows` that are its own, and their numbers there."""
        home = np.searchsorted(self._first, rows, side="right") - 1
        indices = [np.flatnonzero(home == number) for number in range(len(self.parts))]
        return [
            (store, at, rows[at] - self._first[n])
            for n, (store, at) in enumerate(zip(self.parts, indices, strict=True))
        ]

    def _gather(self, rows: np.ndarray, part: Callable[[BaseStore, np.ndarray], np.ndarray]) -> np.ndarray:
        pieces = [(at, part(store, own)) for store, at, own in self._split(rows)]
        out = np.concatenate([values for _, values in pieces])
        return out[np.argsort(np.concatenate([at for at, _ in pieces]), kind="stable")]

    def ids(self, rows: np.ndarray) -> list[str]:
        """Return the object_ids of row numbers, in that order."""
        names = [""] * len(rows)
        for store, at, own in self._split(rows):
            for index, name in zip(at.tolist(), store.ids(own), strict=True):
                names[index] = name
        return names

    def hits(self, rows: np.ndarray, scores: np.ndarray | None) -> pa.Table:
        """Return object_id, score, atlas and every other column of row numbers, in that order; absent ones are NULL."""
        parts = []
        for number, (store, at, own) in enumerate(self._split(rows)):
            result = store.hits(own, None if scores is None else scores[at])
            parts.append(result.add_column(2, ATLAS, pa.array([self._names[number]] * len(at), pa.string())))
        indices = np.concatenate([at for _, at, _ in self._split(rows)])
        table = pa.concat_tables(parts, promote_options="permissive")
        return table.take(pa.array(np.argsort(indices, kind="stable")))

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return the row numbers of `ids` that there are, each in the first atlas that has it."""
        return np.array([row for row in map(self._row_of, ids) if row is not None], np.int64)

    def _row_of(self, object_id: str) -> int | None:
        for store, first in zip(self.parts, self._first, strict=False):  # _first ends with the number of all rows
            rows = store.rows_of([object_id])
            if len(rows):
                return first + rows[0]
        return None

    def rows(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of `galaxies` for `ids`, in that order; ids that are not there are left out."""
        result = self.hits(self.rows_of(ids), None)
        return result.remove_column(result.column_names.index("score"))

    def has(self, object_id: str) -> bool:
        """Say whether there is such an object."""
        return self._row_of(object_id) is not None

    def similar_ids(self, object_id: str, *, n: int) -> list[str]:
        """Return up to `n` ids that differ from one in few letters, by atlas."""
        return list(dict.fromkeys(name for store in self.parts for name in store.similar_ids(object_id, n=n)))[:n]

    def listed(self, condition: Sequence[str | None], *, k: int) -> tuple[np.ndarray, int]:
        """Return the numbers of the first k rows that pass, by object_id, and how many pass in all."""
        result = [store.listed(part, k=k) for store, part in zip(self.parts, condition, strict=True)]
        rows = np.concatenate([rows + first for (rows, _), first in zip(result, self._first, strict=False)])
        order = np.argsort(np.array(self.ids(rows), dtype=object), kind="stable")[:k]
        return rows[order], sum(matches for _, matches in result)

    def describe(self) -> pa.Table:
        """Return the columns that every atlas has, so that one `where` fits them all."""
        tables = [store.describe() for store in self.parts]
        common = set.intersection(*(set(table["column"].to_pylist()) for table in tables))
        return tables[0].filter(pa.array([name in common for name in tables[0]["column"].to_pylist()]))

    def columns_of(self, condition: str) -> set[str]:
        """Return the names of columns that stand in a condition."""
        return self.parts[0].columns_of(condition)

    def table(self, name: str) -> pa.Table | None:
        """Return the table of the first atlas that has it: what atlases of one model share, such as phrases."""
        return next((result for store in self.parts if (result := store.table(name)) is not None), None)

    def select(self, columns: Sequence[str], condition: Sequence[str | None]) -> pa.Table:
        """Return object_id and `columns` of the objects of all atlases that pass, by object_id."""
        parts = [store.select(columns, part) for store, part in zip(self.parts, condition, strict=True)]
        return pa.concat_tables(parts, promote_options="permissive").sort_by("object_id")

    def by_row(self, column: str) -> pa.Array:
        """Return the values of one column that every atlas has, by row number."""
        return pa.concat_arrays([store.by_row(column) for store in self.parts])

    def labeled_rows(self, base: str, version: int) -> pa.Table:
        """Refuse: a base belongs to one atlas."""
        raise QueryError(f"knowledge base '{base}' belongs to one atlas, and {len(self.parts)} are open as one")

    def rows_with(self, table: str, columns: Sequence[str]) -> pa.Table:
        """Return row and `columns` of the rows of a table in each part, by row index."""
        parts = [store.rows_with(table, columns) for store in self.parts]
        shifted = [
            part.set_column(0, "row", pc.add(part["row"], first))
            for part, first in zip(parts, self._first, strict=False)
            if part.num_rows
        ]
        return pa.concat_tables(shifted) if shifted else parts[0]

    def duplicate_groups(self) -> np.ndarray | None:
        """Return the group of each row by the run saved last in its part, `(n,) int64`, -1 for none; None without."""
        parts = [store.duplicate_groups() for store in self.parts]
        if all(part is None for part in parts):
            return None
        result, first = np.full(self.manifest.rows, -1, np.int64), 0
        for start, part in zip(self._first, parts, strict=False):
            if part is not None:
                result[start : start + len(part)] = np.where(part >= 0, part + first, -1)
                first += int(part.max(initial=-1)) + 1
        return result

    def between(self, low: float, high: float, condition: Sequence[str | None]) -> pa.Table:
        """Return row, object_id, ra and dec of the objects in a band of declinations that pass, by object_id."""
        parts = []
        for store, first, part in zip(self.parts, self._first, condition, strict=False):
            result = store.between(low, high, part)
            rows = pa.array(result["row"].to_numpy() + first, result["row"].type)
            parts.append(result.set_column(0, "row", rows))
        return pa.concat_tables(parts).sort_by("object_id")

    def caption_terms(self) -> list[tuple[int, str, int]]:
        """Return nothing: how rare a term is differs from atlas to atlas."""
        return []

    def terms_of(self, text: str) -> set[str]:
        """Return the terms of a text, as the full-text index counts them."""
        return self.parts[0].terms_of(text)

    def holds(self, table: str) -> bool:
        """Say whether there are rows for objects in `table`, "thumbnails" or "spectra"."""
        return any(store.holds(table) for store in self.parts)

    def ids_with(self, table: str) -> set[str]:
        """Return the object_ids that have a row in `table`, "thumbnails" or "spectra"."""
        return set().union(*(store.ids_with(table) for store in self.parts))

    # ---- questions

    def condition(self, where, near, radius_arcsec) -> list[str | None]:
        """Return the condition of each atlas."""
        return [store.condition(where, near, radius_arcsec) for store in self.parts]

    def count(self, condition: Sequence[str | None]) -> int:
        """Return how many objects pass."""
        return sum(store.count(part) for store, part in zip(self.parts, condition, strict=True))

    def nearest(self, scorer: Scorer, *, k: int, condition=None, **options) -> tuple[np.ndarray, np.ndarray, Plan]:
        """Return the best of all atlases, best first; equal scores are ordered by object_id, then by atlas."""
        parts = condition or [None] * len(self.parts)
        result = [
            store.nearest(scorer, k=k, condition=part, **options) for store, part in zip(self.parts, parts, strict=True)
        ]
        rows = np.concatenate([rows + first for (rows, _, _), first in zip(result, self._first, strict=False)])
        scores = np.concatenate([scores for _, scores, _ in result])
        order = np.lexsort((rows, np.array(self.ids(rows), dtype=object), -scores))[:k]
        return rows[order], scores[order], _plan([plan for _, _, plan in result])

    def words(self, text: str, condition: Sequence[str | None]) -> Matches:
        """Return the rows that have words of `text` and their scores, best first."""
        result = [store.words(text, part) for store, part in zip(self.parts, condition, strict=True)]
        rows = np.concatenate([one.rows + first for one, first in zip(result, self._first, strict=False)])
        scores = np.concatenate([one.scores for one in result])
        order = np.lexsort((rows, -scores))
        return Matches(rows[order], scores[order], max(one.attainable for one in result))

    def rows_named(self, text: str, *, most: int) -> np.ndarray:
        """Return up to `most` row numbers of objects of each atlas that `text` may name."""
        result = [store.rows_named(text, most=most) for store in self.parts]
        return np.concatenate([rows + first for rows, first in zip(result, self._first, strict=False)])

    def has_vector(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        """Say which row numbers have a vector, `(n,) bool`."""
        return self._gather(rows, lambda store, own: store.has_vector(embedding, own))

    def scores(self, embedding: str, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        """Return the scores of row numbers; NaN without a vector."""
        return self._gather(rows, lambda store, own: store.scores(embedding, scorer, own))

    def reference_scores(self, embedding: str, scorer: Scorer) -> np.ndarray:
        """Return the scores of a sample of all atlases, ascending."""
        return np.sort(np.concatenate([store.reference_scores(embedding, scorer) for store in self.parts]))

    def threshold(self, embedding: str, query_kind: str | None) -> float | None:
        """Return the score under which nothing is convincing in any of the atlases."""
        lines = [line for store in self.parts if (line := store.threshold(embedding, query_kind)) is not None]
        return min(lines, default=None)

    def vectors_of(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of row numbers, `(n, d) float32`."""
        return self._gather(rows, lambda store, own: store.vectors_of(embedding, own))

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Return ra, dec of row numbers, `(n, 2) float64`, NaN where unknown."""
        return self._gather(rows, lambda store, own: store.positions(own))

    def embeddings(self, embedding: str, ids: Sequence[str]) -> np.ndarray:
        """Return the stored unit vectors of `ids`, each from the first atlas that has it."""
        homes = [next(store for store in self.parts if store.has(name)) for name in ids]
        return np.concatenate([store.embeddings(embedding, [name]) for store, name in zip(homes, ids, strict=True)])

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures of `ids`; those without one are absent."""
        result: dict[str, bytes] = {}
        for store in self.parts:
            result = {**store.thumbnails([name for name in ids if name not in result]), **result}
        return result

    def spectra(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of the table `spectra` for `ids`, each from the first atlas that has it."""
        parts, left = [], list(ids)
        for store in self.parts:
            parts.append(store.spectra(left))
            known = set(parts[-1]["object_id"].to_pylist())
            left = [name for name in left if name not in known]
        return by_ids(pa.concat_tables(parts), ids)

    def models(self) -> list[str]:
        """Return the kinds of models that travel with the first atlas that has any."""
        return next((names for store in self.parts if (names := store.models())), [])

    def card(self, name: str) -> dict | None:
        """Return the card of the model of the first atlas that has it."""
        return next((result for store in self.parts if (result := store.card(name))), None)

    def model(self, name: str) -> tuple[dict, bytes, bytes | None] | None:
        """Return the model of the first atlas that has it."""
        return next((result for store in self.parts if (result := store.model(name))), None)

    def sql(
        self, text: str, *, embed: Callable[[str, str], np.ndarray], tables: Mapping[str, pa.Table] | None = None
    ) -> pa.Table:
        """Refuse: each atlas is a database of its own."""
        raise QueryError(f"sql() asks one atlas, and {len(self.parts)} are open as one; open the one to ask")


def _check_models(stores: Sequence[BaseStore]) -> None:
    """Raise ModelMismatchError unless all vectors come from one model."""
    for name in {name for store in stores for name in store.manifest.embeddings}:
        spaces = [(store.path, store.manifest.embeddings.get(name)) for store in stores]
        keys = ("model", "sha256", "dim")
        (path, one), *others = [(at, space and {key: space.get(key) for key in keys}) for at, space in spaces]
        for other, space in others:
            if space != one:
                raise ModelMismatchError(
                    f"{path} holds '{name}' vectors of {one and one['model']}, {other} of {space and space['model']}: "
                    "only atlases of one model can be asked as one; rebuild one of them with the other's model"
                )


def _manifest(stores: Sequence[BaseStore]) -> schema.Manifest:
    manifests = [store.manifest for store in stores]
    rows = {name: sum(m.embeddings[name]["rows"] for m in manifests) for name in manifests[0].embeddings}
    return schema.Manifest(
        title=" + ".join(manifest.title for manifest in manifests),
        rows=sum(manifest.rows for manifest in manifests),
        embeddings={name: {**space, "rows": rows[name]} for name, space in manifests[0].embeddings.items()},
        sources=[source for manifest in manifests for source in manifest.sources],
        provenance=[record for manifest in manifests for record in manifest.provenance],
        extra=_measures(manifests),
    )


def _measures(manifests: Sequence[schema.Manifest]) -> dict[str, dict[str, str]]:
    """Return the manifest's entry of the measures that all atlases have in columns of one name."""
    if all(schema.MEASURES_KEY not in manifest.extra for manifest in manifests):
        return {}  # atlases before format 1.1
    columns = {name: {manifest.measure_column(name) for manifest in manifests} for name in schema.GALAXIES}
    known = {name: one.pop() for name, one in columns.items() if len(one) == 1}
    return {schema.MEASURES_KEY: {name: column for name, column in known.items() if column is not None}}


def _plan(plans: Sequence[Plan]) -> Plan:
    """Return what several plans come to."""
    cells = [plan for plan in plans if plan.path == "ivf"]
    stages = {name: sum(plan.milliseconds.get(name, 0.0) for plan in plans) for name in plans[0].milliseconds}
    return Plan(
        "ivf" if cells else "exact",
        sum(plan.matches for plan in plans),
        sum(plan.rows_scanned for plan in plans),
        all(plan.exact for plan in plans),
        sum(plan.cells_probed or 0 for plan in cells) if cells else None,
        sum(plan.cells or 0 for plan in cells) if cells else None,
        milliseconds=stages,
    )
