"""What an atlas brings to an understanding: its numeric columns, its phrases, its vectors, its tables of results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from galsearch import formats
from galsearch.errors import QueryError
from galsearch.language.attributes import (
    Embed,
    Refinement,
    contradicts,
    contrast,
    label_vectors,
    read_labels,
    refinements,
    shared_phrases,
)
from galsearch.language.parser import Understanding, about_spectra, hints_without_columns, understand
from galsearch.query import Term
from galsearch.schema import MODALITIES
from galsearch.store import Store

MOST_COMPARED, LONGEST_COMPARED = 100, 1_000  # texts of a query, and characters of each
REFERENCE_ROWS = 2_048  # ordinary galaxies that hits are compared with, a sample that is the same every time
BATCH_ROWS = 50_000
SPARE = 12  # refinements of each sign beyond those wished for, in the place of those that contradict the query
_NUMERIC = re.compile(r"U?(?:TINY|SMALL|BIG|HUGE)?INT(?:EGER)?|INTEGER|FLOAT|DOUBLE|DECIMAL.*")


def _field(name: str, kind: pa.DataType, ucd: str, description: str) -> pa.Field:
    return formats.describe(pa.field(name, kind), unit="", ucd=ucd, description=description)


LABELS = (
    _field("object_id", pa.string(), "meta.id;meta.main", "Object"),
    _field("label", pa.string(), "meta.code.class", "Label that fits; NULL where none is convincing"),
    _field("best", pa.string(), "meta.code.class", "Most likely label, convincing or not; NULL without a vector"),
    _field("probability", pa.float64(), "stat.probability", "Of the most likely label, among those of the file"),
    _field("margin", pa.float64(), "stat.probability", "Its probability minus that of the next label"),
    _field("score", pa.float64(), "stat.value", "Cosine similarity to the phrases of the most likely label"),
)
CONTRAST = (
    LABELS[0],
    _field("contrast", pa.float64(), "stat.value", "Cosine with the first phrase minus that with the second"),
)


def read(store: Store, words: str) -> Understanding:
    """Return the reading of words for an atlas."""
    rows = store.describe().to_pylist()
    numeric = [row for row in rows if _NUMERIC.fullmatch(row["type"])]
    columns, ucds = ({row["column"]: row[what] for row in numeric} for what in ("unit", "ucd"))
    tables = [_phrase_table(store, name) for name in store.manifest.embeddings]
    known = [phrase for table in tables if table is not None for phrase in table["phrase"].to_pylist()]
    return understand(words, columns, known, ucds=ucds)


def hints(store: Store, words: str, *, by: str | None = None) -> tuple[str, ...]:
    """Return what to tell a person of words unasked; columns are read only where there is a number."""
    told = read(store, words).hints if any(map(str.isdigit, words)) else hints_without_columns(words)
    manifest = store.manifest
    compared, spectra = by or manifest.main_embedding, manifest.embedding_of(MODALITIES["spectrum"].name)
    if spectra is None or compared == spectra or not manifest.knows_words(spectra):
        return told
    stated = about_spectra(words)
    if stated is None:
        return told
    return (*told, f"'{stated}' speaks of spectra, and is compared with pictures here; search by '{spectra}' instead")


def phrases(store: Store, embedding: str) -> tuple[list[str], np.ndarray]:
    """Return the phrases of an embedding that the atlas knows and their vectors `(p, d) float32`; none without any."""
    result = _phrase_table(store, embedding)
    if result is None or not result.num_rows:
        return [], np.empty((0, 0), np.float32)
    result = result.sort_by("phrase")
    return result["phrase"].to_pylist(), np.array(result["embedding"].to_pylist(), np.float32)


def _phrase_table(store: Store, embedding: str) -> pa.Table | None:
    name = store.manifest.phrases_of(embedding)
    return None if name is None else store.table(name)


def refine(
    store: Store, rows: np.ndarray, embedding: str, query: np.ndarray, *, n: int, terms: Sequence[Term] = ()
) -> list[Refinement]:
    """Return how to refine an answer of these rows to a query vector in an embedding, without what contradicts it."""
    known, vectors = phrases(store, embedding)
    if not known or vectors.shape[1] != len(query):
        return []
    result = refinements(
        _vectors(store, embedding, rows)[1],
        _reference(store, embedding),
        known,
        vectors,
        n=n + SPARE,
        query=query,
    )
    wanted, unwanted = _sides(terms)
    by = None if embedding == store.manifest.main_embedding else embedding
    kept = [replace(one, by=by) for one in result if not contradicts(one, wanted, unwanted)]
    return [one for sign in ("more", "less") for one in [each for each in kept if each.sign == sign][:n]]


def shared(store: Store, rows: np.ndarray, embedding: str, query: np.ndarray, *, n: int) -> list[tuple[str, ...]]:
    """Return for each of these rows the phrases of an embedding that it has in common with a query vector."""
    known, vectors = phrases(store, embedding)
    result: list[tuple[str, ...]] = [()] * len(rows)
    if not known or vectors.shape[1] != len(query) or not len(rows):
        return result
    there, hits = _vectors(store, embedding, rows)
    told = shared_phrases(hits, _reference(store, embedding), known, vectors, query=query, n=n)
    for index, stated in zip(np.flatnonzero(there).tolist(), told, strict=True):
        result[index] = stated
    return result


def _reference(store: Store, embedding: str) -> np.ndarray:
    """Return the vectors of ordinary galaxies of an atlas, the same sample every time."""
    rng = np.random.default_rng(0)
    total = store.manifest.rows
    return _vectors(store, embedding, np.sort(rng.choice(total, size=min(REFERENCE_ROWS, total), replace=False)))[1]


def _sides(terms: Sequence[Term]) -> tuple[list[str], list[str]]:
    """Return the texts that terms ask for, and those that they ask to be away from, negations read."""
    wanted: list[str] = []
    unwanted: list[str] = []
    for term in terms:
        if term.kind == "text":
            read_as = understand(term.text, {})
            sides = (wanted, unwanted) if term.weight > 0 else (unwanted, wanted)
            sides[0].append(read_as.wanted.text)
            sides[1].extend(map(str, read_as.unwanted))
    return _compared(wanted), _compared(unwanted)


def _compared(texts: list[str]) -> list[str]:
    """Return what refinements are compared with: whoever sends thousands of phrases does not wait for all of them."""
    return [text[:LONGEST_COMPARED] for text in dict.fromkeys(texts)][:MOST_COMPARED]


def label(
    store: Store,
    path: str | Path,
    embed: Embed,
    *,
    embedding: str,
    card: Mapping,
    where: str | None,
    k: int | None,
    least: float,
) -> pa.Table:
    """Return what `Atlas.label` says."""
    labels = read_labels(path)
    parts = []
    for ids, there, vectors in _batches(store, embedding, where, k):
        result = label_vectors(vectors, labels, embed, card=card, least=least)
        values = (result.label, result.best, result.probability.tolist(), result.margin.tolist(), result.score.tolist())
        parts.append(_table(LABELS, ids, there, values))
    return pa.concat_tables(parts)


def order(
    store: Store, ends: tuple[str, str], embed: Embed, *, embedding: str, where: str | None, k: int | None
) -> pa.Table:
    """Return what `Atlas.contrast` says."""
    parts = []
    for ids, there, vectors in _batches(store, embedding, where, k):
        parts.append(_table(CONTRAST, ids, there, (contrast(vectors, embed, ends=ends).tolist(),)))
    return pa.concat_tables(parts)


def _table(fields: tuple[pa.Field, ...], ids: list[str], there: np.ndarray, values: tuple[list, ...]) -> pa.Table:
    """Return a row for every id, NULL where it has no vector."""
    columns = [pa.array(ids, pa.string())]
    index = pa.array(np.where(there, np.cumsum(there) - 1, 0), mask=~there)
    for item, result in zip(fields[1:], values, strict=True):
        columns.append(pa.array(result, item.type).take(index) if result else pa.nulls(len(ids), item.type))
    return pa.table(columns, schema=pa.schema(fields))


def _batches(
    store: Store, embedding: str, where: str | None, k: int | None
) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """Yield ids, which of them have a vector, and those vectors, for the objects that pass, by object_id."""
    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
        raise QueryError(f"k is {k!r}, expected a whole number from 1, or nothing for every object")
    rows, _ = store.listed(store.condition(where, None, None), k=k or max(store.manifest.rows, 1))
    for start in range(0, max(len(rows), 1), BATCH_ROWS):
        batch = rows[start : start + BATCH_ROWS]
        there, vectors = _vectors(store, embedding, batch)
        yield store.ids(batch), there, vectors


def _vectors(store: Store, embedding: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which row numbers have a vector, and those vectors `(m, d) float32`."""
    there = store.has_vector(embedding, rows)
    return there, store.vectors_of(embedding, rows[there])
