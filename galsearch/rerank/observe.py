"""What can be found out about a few hundred objects of an atlas: vectors, looks at their pictures, measures.

Objects are compared with a sample of the atlas, the same one every time; it is looked at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.encode import Encoder
from galsearch.errors import QueryError
from galsearch.query import Term
from galsearch.rerank.arcs import arc_contrast
from galsearch.rerank.attributes import ARC
from galsearch.rerank.views import look
from galsearch.science import images
from galsearch.store import Store

SAMPLE = 256  # ordinary objects; on one core, 700 crops of them are encoded a second


class Objects:
    """Objects side by side: unit vectors `(n, d)`, and measures `(n,)` by name, NaN where missing.

    `look(scale)` gives their vectors `(n, d) float32` at a scale of SCALES, which are made when first asked for by
    `looking`. An object without a picture has its own vector at every scale: looking again tells nothing.
    """

    def __init__(
        self, vectors: np.ndarray, measures: dict[str, np.ndarray], looking: Callable[[str], np.ndarray]
    ) -> None:
        self.vectors, self.measures = vectors, measures
        self._looking = looking
        self._looks: dict[str, np.ndarray] = {}  # by scale

    def __len__(self) -> int:
        return len(self.vectors)

    def look(self, scale: str) -> np.ndarray:
        """Return their vectors at a scale."""
        if scale not in self._looks:
            self._looks[scale] = self._looking(scale)
        return self._looks[scale]

    def take(self, indices: np.ndarray | slice) -> Objects:
        """Return some of them."""
        measures = {name: values[indices] for name, values in self.measures.items()}
        return Objects(self.vectors[indices], measures, lambda scale: self.look(scale)[indices])

    @classmethod
    def joined(cls, parts: Sequence[Objects]) -> Objects:
        """Return the objects of all parts, one after the other, with the measures that the first has."""
        measures = {
            name: np.concatenate([one.measures.get(name, np.full(len(one), np.nan)) for one in parts])
            for name in parts[0].measures
        }
        vectors = np.concatenate([one.vectors for one in parts])
        return cls(vectors, measures, lambda scale: np.concatenate([one.look(scale) for one in parts]))


class Observer:
    """Looks at objects of one atlas; `encoder` gives its image encoder when it is first needed."""

    def __init__(self, store: Store, encoder: Callable[[], Encoder]) -> None:
        self._store, self._encoder = store, encoder
        result = store.manifest.embedding_of("image")
        if result is None:
            raise QueryError(f"{store.path} has no embedding of images, so nothing can be looked at again")
        self.embedding = result

    @functools.cached_property
    def has_pictures(self) -> bool:
        """Whether any object of the sample has a picture."""
        return bool(self._store.thumbnails(self._store.ids(self._sample_rows)))

    @functools.cached_property
    def sample(self) -> Objects:
        """Up to SAMPLE objects of the atlas, drawn evenly, that have a vector."""
        return self.rows(self._sample_rows)

    @functools.cached_property
    def _sample_rows(self) -> np.ndarray:
        total = self._store.manifest.rows
        rows = np.sort(np.random.default_rng(0).choice(total, size=min(SAMPLE, total), replace=False))
        return rows[self._store.has_vector(self.embedding, rows)]

    def rows(self, rows: np.ndarray) -> Objects:
        """Return what is known of row numbers that all have a vector."""
        ids, vectors = self._store.ids(rows), self._store.vectors_of(self.embedding, rows)
        result = self._store.thumbnails(ids) if len(ids) else {}
        there = [index for index, name in enumerate(ids) if name in result]
        pictures = [images.square(images.decode_thumbnail(result[ids[index]])) for index in there]
        return self._seen(vectors, there, pictures, _numbers(self._store.hits(rows, None), self._store.manifest))

    def terms(self, terms: Iterable[Term]) -> Objects:
        """Return what is known of objects, pictures and vectors; those that are not of the atlas have no columns."""
        return Objects.joined([self.sample.take(slice(0, 0)), *map(self._term, terms)])

    def _term(self, term: Term) -> Objects:
        if term.kind == "object":
            rows = self._store.rows_of([term.text])
            if not len(rows):
                raise QueryError(f"no object '{term.value}' in {self._store.path} to take for a marked example")
            self._store.embeddings(self.embedding, [term.text])  # says so where it has no vector
            return self.rows(rows)
        if term.kind == "image":
            picture = images.square(images.render(images.read_picture(Path(term.text))))
            return self._seen(self._encoder().encode([picture]), [0], [picture], {})
        vector = np.asarray(term.value, np.float32)[None]
        dim = self._store.manifest.embeddings[self.embedding]["dim"]
        if vector.shape[1] != dim:
            raise QueryError(f"a marked vector has {vector.shape[1]} numbers, those of {self._store.path} have {dim}")
        return self._seen(vector / max(float(np.linalg.norm(vector)), 1e-9), [], [], {})

    def _seen(
        self, vectors: np.ndarray, there: list[int], pictures: list[np.ndarray], measures: dict[str, np.ndarray]
    ) -> Objects:
        """Return objects of which those at the places `there` have pictures."""

        def looking(scale: str) -> np.ndarray:
            seen = vectors.copy()
            if there:
                seen[there] = look(self._encoder(), pictures, scale)
            return seen

        arcs = np.full(len(vectors), np.nan)
        arcs[there] = [arc_contrast(one) for one in pictures]
        return Objects(vectors, {**measures, ARC: arcs}, looking)


def _numbers(table: pa.Table, manifest: schema.Manifest) -> dict[str, np.ndarray]:
    """Return our measures of a table of hits as numbers by their own names, NaN where missing."""
    columns = {name: manifest.measure_column(name) for name in schema.GALAXIES}
    columns = {name: column for name, column in columns.items() if column in table.column_names}
    kinds = {name: table.schema.field(column).type for name, column in columns.items()}
    numeric = [name for name, kind in kinds.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
    return {name: np.array(table[columns[name]].to_pylist(), np.float64) for name in numeric}  # None becomes NaN
