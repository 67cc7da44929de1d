"""The Store protocol: what every reader of an atlas offers, whether a folder, a bundle, or several atlases as one.

Rows are known by their index in the order of the atlas, `(n,) int64`; object_ids are text. Vectors are `(n, d)
float32` of unit length, scores `(n,) float32` cosines. What `condition` returns is only for the store that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.query import Plan
from galsearch.science.ranking import Scorer

Condition = Any


@dataclass(frozen=True)
class Matches:
    """The objects that have a word of what was query_kind, best first, ties by row.

    `rows (n,) int64` are rowids of `galaxies`, `scores (n,) float32` their BM25. `attainable` is the score of an object
    that would hold every word asked as well as any object holds it; a word that none has counts as if one object of
    average length had it, so that matching the only word that is known is not matching the whole question.
    """

    rows: np.ndarray
    scores: np.ndarray
    attainable: float


class Store(Protocol):
    """An open atlas, read-only."""

    path: Path
    manifest: schema.Manifest
    kind: str
    grows: bool

    @property
    def parts(self) -> Sequence[Store]:
        """The atlases that are query_kind: this one, or several."""

    @property
    def elsewhere(self) -> bool:
        """Whether it is read over a network, where each byte counts."""

    @property
    def in_memory(self) -> bool:
        """Whether the columns of all objects are kept in memory."""

    def close(self) -> None:
        """Release the files; queries of other threads end with an error."""

    # ---- rows

    def describe(self) -> pa.Table:
        """Return the public columns of `galaxies`: column, type, unit, ucd, description, in table order."""

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return the row indices of `ids` that there are, in that order."""

    def ids(self, rows: np.ndarray) -> list[str]:
        """Return the object_ids of rows, in that order."""

    def rows(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of `galaxies` for `ids`, in that order; ids that are not there are left out."""

    def hits(self, rows: np.ndarray, scores: np.ndarray | None) -> pa.Table:
        """Return object_id, score and every other column of rows, in that order."""

    def has(self, object_id: str) -> bool:
        """Say whether there is such an object."""

    def similar_ids(self, object_id: str, *, n: int) -> list[str]:
        """Return up to `n` ids that differ from one in few letters, the most alike first."""

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Return ra, dec of rows in degrees ICRS, `(n, 2) float64`, NaN where unknown."""

    # ---- filters

    def condition(self, where: str | None, near: tuple[float, float] | None, radius_arcsec: float | None) -> Condition:
        """Return the filter of a query, checked. Raises QueryError for SQL that is no condition on the columns."""

    def columns_of(self, condition: str) -> set[str]:
        """Return the names of columns that stand in a condition, there or not."""

    def count(self, condition: Condition) -> int:
        """Return how many objects pass."""

    def listed(self, condition: Condition, *, k: int) -> tuple[np.ndarray, int]:
        """Return the first k rows that pass, by object_id, and how many pass in all."""

    def select(self, columns: Sequence[str], condition: Condition) -> pa.Table:
        """Return object_id and `columns` of the objects that pass, by object_id."""

    def by_row(self, column: str) -> pa.Array:
        """Return the values of one column of `galaxies`, by row index. Raises QueryError where there is no such one."""

    def labeled_rows(self, base: str, version: int) -> pa.Table:
        """Return row, label and value of the members of a knowledge base that the atlas has, by row index."""

    def rows_with(self, table: str, columns: Sequence[str]) -> pa.Table:
        """Return row and `columns` of the rows of a table about objects that the atlas has, by row index."""

    def duplicate_groups(self) -> np.ndarray | None:
        """Return the group of duplicates of each row by the run saved last, `(n,) int64`, -1 for none; None without."""

    def between(self, low: float, high: float, condition: Condition) -> pa.Table:
        """Return row, object_id, ra, dec of the objects in a band of declinations that pass, by object_id."""

    # ---- words

    def words(self, text: str, condition: Condition) -> Matches:
        """Return the rows that have a word of `text` in their names or captions, by BM25, best first."""

    def rows_named(self, text: str, *, most: int) -> np.ndarray:
        """Return up to `most` rows of objects that hold all words of `text`, in any column."""

    def terms_of(self, text: str) -> set[str]:
        """Return the terms of a text, as the full-text index counts them."""

    def caption_terms(self) -> list[tuple[int, str, int]]:
        """Return (row, term, how often) of all captions; several captions of an object count as one text."""

    # ---- vectors

    def nearest(
        self,
        scorer: Scorer,
        *,
        k: int,
        embedding: str,
        condition: Condition = None,
        among: np.ndarray | None = None,
        exclude: Sequence[str] = (),
        exact: bool = False,
        probes: int | None = None,
        recall: float | None = None,
        query_kind: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray, Plan]:
        """Return rows and scores of the best objects that pass, best first; equal scores are ordered by object_id.

        `among` are the row indices that are looked at, ascending; there is either a condition or these.
        """

    def has_vector(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        """Say which rows have a vector, `(n,) bool`."""

    def scores(self, embedding: str, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        """Return the scores of rows; NaN for objects without a vector."""

    def vectors_of(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of rows that all have one."""

    def embeddings(self, embedding: str, ids: Sequence[str]) -> np.ndarray:
        """Return the vectors of `ids`, in that order; all must have one."""

    def reference_scores(self, embedding: str, scorer: Scorer) -> np.ndarray:
        """Return the scores of the reference sample, ascending."""

    def threshold(self, embedding: str, query_kind: str | None) -> float | None:
        """Return the threshold under which nothing is convincing; None where it was not measured for such queries."""

    # ---- what travels along

    def table(self, name: str) -> pa.Table | None:
        """Return all rows of a table beside `galaxies`, such as "captions"; None where there is none."""

    def holds(self, table: str) -> bool:
        """Say whether there are rows for objects in `table`, "thumbnails" or "spectra"."""

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures (WebP) of `ids`; ids without one are absent."""

    def ids_with(self, table: str) -> set[str]:
        """Return the object_ids that have a row in `table`, "thumbnails" or "spectra"."""

    def spectra(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of the table `spectra` for `ids`, in that order; ids without one are absent."""

    def models(self) -> list[str]:
        """Return the names of the models that travel along."""

    def card(self, name: str) -> dict[str, Any] | None:
        """Return the card of a model; None where there is none."""

    def model(self, name: str) -> tuple[dict[str, Any], bytes, bytes | None] | None:
        """Return (card, ONNX bytes, tokenizer bytes) of a model; None where there is none."""

    def sql(
        self, text: str, *, embed: Callable[[str, str], np.ndarray], tables: Mapping[str, pa.Table] | None = None
    ) -> pa.Table:
        """Run one SELECT with every table and macro of the atlas, and `embed('words')`, in the sandbox.

        `embed` takes an embedding and words: `embed_spectrum('words')` is of the embedding of that name. `tables` are
        those that the statement may name beside the atlas's own.
        """
