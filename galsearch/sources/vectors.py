"""A table that already holds the vectors of its objects; there are no pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats, schema
from galsearch.columns import ID_NAMES
from galsearch.errors import SchemaError
from galsearch.sources import known_embeddings
from galsearch.sources.known_embeddings import Publication
from galsearch.sources.tables import (
    MEASURES,
    Batch,
    Catalog,
    Reading,
    Source,
    check_ids,
    digest,
    must_have_ids,
    off_the_sky,
    read_rows,
    without,
)
from galsearch.sources.workshop import Workshop


@dataclass
class VectorSource(Source):
    """A table that already holds the vectors, `(n, d) float32` of unit length; there are no pictures."""

    doing: ClassVar[str] = "embedding"
    vectors: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))

    @property
    def dim(self) -> int:
        """How long the vectors are."""
        return self.vectors.shape[1]

    def batches(
        self,
        ranges: Sequence[range],
        workshop: Workshop,
        *,
        model_input: Mapping[str, Any] | None = None,
        seen: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Batch]:
        """Yield each range of rows with their vectors; what has none was rejected when the table was read."""
        for rows in ranges:
            seen(rows.stop)
            yield Batch(self.table.slice(rows.start, len(rows)), self.vectors[rows.start : rows.stop], [])


def vector_source(table: Path, column: str, reading: Reading, publication: Publication | None = None) -> VectorSource:
    """Take the vectors of a list column; each is brought to unit length, rows without a usable one are rejected.

    They are in memory once, also when there are more of them than a table could hold beside them. Columns of numbers
    named by a pattern (`feat_*`), or by what `feat_0`, `feat_1`, … begin with (`feat`), are one vector in the order of
    their numbers. Of a published table its other vectors are left out, and rows without any id are called after their
    position.
    """
    names = formats.column_names(table, table_name=reading.table_name)
    parts = formats.vector_columns(names, column)
    if publication is None:
        rows = read_rows(table, reading, without=parts)
    else:
        others = known_embeddings.other_columns(names, column)
        if "object_id" not in reading.roles and (named := _published_id(names)):
            reading = replace(reading, roles={**reading.roles, "object_id": named})
        rows = _named(read_rows(table, reading, without=[column, *others]))
    must_have_ids(rows)
    given = formats.column_parts(table, column, table_name=reading.table_name)
    result = _matrix(given, rows.table.num_rows, column)
    if publication is not None:
        known_embeddings.check_length(publication, result.shape[1], column)
    lengths = np.sqrt(np.einsum("ij,ij->i", result, result, dtype=np.float64))
    useless = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0)).tolist()
    bad = {row: f"row {row + 1}: its vector has length {lengths[row]:g}, so no direction" for row in useless}
    kept_rows, rejected, kept = without(rows, bad | off_the_sky(rows.table))
    vectors = result[kept] if rejected else result
    np.divide(vectors, lengths[kept, None], out=vectors, casting="same_kind")
    inputs = {str(table): digest(table)}
    return VectorSource(kept_rows, inputs, rejected, vectors, measures=_measures_of(kept_rows), summary=rows.summary)


def _measures_of(table: pa.Table) -> dict[str, str]:
    """Return the measures of ours that a table brings along: by their names, with our own descriptions."""
    ours = {name: formats.facts_of(schema.arrow_field(name))["description"] for name in MEASURES}
    stated = {item.name: formats.facts_of(item)["description"] for item in table.schema}
    return {name: name for name, meaning in ours.items() if stated.get(name) == meaning}


def _published_id(names: list[str]) -> str | None:
    """Return the id column of a published table that has none of the usual names."""
    by_name = {name.casefold(): name for name in names}
    if any(name in by_name for name in ID_NAMES):
        return None
    return next((by_name[name] for name in known_embeddings.IDS if name in by_name), None)


def _named(rows: Catalog) -> Catalog:
    """Return rows with ids: those without any are called after their positions, which the table must have."""
    if "object_id" in rows.table.column_names:
        return rows
    indices = list(zip(rows.table["ra"].to_pylist(), rows.table["dec"].to_pylist(), strict=True))
    ids = [None if ra is None or dec is None else position_name(ra, dec) for ra, dec in indices]
    bad = {row: f"row {row + 1} has neither an id nor a position" for row, each in enumerate(ids) if each is None}
    if len(bad) == len(ids):
        must_have_ids(rows)
    check_ids(ids, "the table has no ids, and its positions")
    table = rows.table.add_column(0, schema.arrow_field("object_id"), pa.array(ids, pa.string()))
    return replace(rows, table=table, bad={**rows.bad, **bad})


def position_name(ra: float, dec: float) -> str:
    """Return the name of a position as the IAU has it, cut and not rounded, from degrees ICRS.

    >>> position_name(172.47450, -0.07430)
    'J112953.88-000427.4'
    """
    time = math.floor(round(ra / 15 * 360_000, 3)) % (24 * 360_000)
    angle = math.floor(round(abs(dec) * 36_000, 3))
    hours, degrees = f"{time // 360_000:02d}{time // 6_000 % 60:02d}", f"{angle // 36_000:02d}{angle // 600 % 60:02d}"
    seconds, arcsec = f"{time % 6_000 / 100:05.2f}", f"{angle % 600 / 10:04.1f}"
    return f"J{hours}{seconds}{'-' if dec < 0 else '+'}{degrees}{arcsec}"


def _matrix(parts: Iterable[pa.Array], rows: int, name: str) -> np.ndarray:
    """Return a list column as `(rows, d) float32`; a row without a list is all NaN."""
    result, start = None, 0
    for part in parts:
        numbers = _numbers(part, name)
        if numbers is not None:
            result = np.full((rows, numbers.shape[1]), np.nan, np.float32) if result is None else result
            if numbers.shape[1] != result.shape[1]:
                lengths = sorted({numbers.shape[1], result.shape[1]})
                raise SchemaError(f"column '{name}' has vectors of lengths {lengths}, expected one length")
            result[start : start + len(part)][pc.is_valid(part).to_numpy(zero_copy_only=False)] = numbers
        start += len(part)
    if result is None:
        raise SchemaError(f"column '{name}' has no vectors: every row is empty; name the column that holds them")
    return result


def _numbers(part: pa.Array, name: str) -> np.ndarray | None:
    """Return the lists of one part that are not NULL as `(n, d) float32`; None when all are."""
    kind = part.type
    if not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)):
        raise SchemaError(f"column '{name}' is {kind}, expected a list of numbers in each row")
    there = pc.drop_null(part)
    lengths = pc.unique(pc.list_value_length(there)).to_pylist()
    if len(lengths) > 1:
        raise SchemaError(f"column '{name}' has vectors of lengths {sorted(lengths)[:5]}, expected one length")
    try:
        values = pc.cast(pc.list_flatten(there), pa.float32())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise SchemaError(f"column '{name}' is {kind}, expected a list of numbers in each row") from None
    return values.to_numpy(zero_copy_only=False).reshape(-1, lengths[0]) if lengths else None
