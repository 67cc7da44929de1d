"""Rankings object by object, and paired tests between them: two systems of one run, or one system of two runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from galsearch import formats
from galsearch.errors import SchemaError
from galsearch.evaluation.judged import Judged
from galsearch.evaluation.resampling import Sets, draws, resampled
from galsearch.evaluation.systems import FIRST, IMAGE, RANDOM, TEXT, System
from galsearch.science.metrics import Ranked

K = 10
BOOTSTRAPS = 1000
NOT_RANKED = (RANDOM, IMAGE, FIRST)  # chance, rankings that each lack their query, and what TEXT has already
COLUMNS = (
    ("target", pa.string(), "What is looked for"),
    ("system", pa.string(), "What ranked"),
    ("query", pa.string(), "Words that it was asked with; empty for a baseline without words"),
    ("rank", pa.int64(), "Rank from 1; equal scores have the same, that of the first of them"),
    ("object_id", pa.string(), "Candidate"),
    ("score", pa.float64(), "What it was ranked by"),
    ("relevance", pa.float64(), "How relevant it is; 0 for not"),
)
COMPARED = (
    ("target", pa.string(), "What is looked for"),
    ("system", pa.string(), "What ranked"),
    ("against", pa.string(), "What it is compared with"),
    ("n", pa.int64(), "Candidates that both ranked"),
    ("relevant", pa.int64(), "Relevant ones of them"),
    ("ndcg_exp_10", pa.float64(), "nDCG@10 of the system, mean over its queries"),
    ("ndcg_exp_10_against", pa.float64(), "The same of the other"),
    ("difference", pa.float64(), "The first minus the second"),
    ("low", pa.float64(), "Lower end of its bootstrap 95 % interval, both on the same draws of candidates"),
    ("high", pa.float64(), "Upper end"),
    ("p_value", pa.float64(), "Two-sided, of no difference: how often such draws are on the other side of 0"),
)


@dataclass
class _Rankings:
    """The rankings of one system for one target: ids in order, relevance `(n,)`, scores `(queries, n)`."""

    ids: list[str]
    relevance: np.ndarray
    scores: np.ndarray


def ranking_rows(judged: Judged, systems: Sequence[System]) -> Iterator[pa.Table]:
    """Yield the rankings of each query as a table, best first, equal scores by object_id."""
    ids, relevance = np.array(judged.ids, dtype=object), judged.relevance.astype(float)
    for system in systems:
        if system.name in NOT_RANKED or system.left_out is not None:
            continue
        for words, ranking in zip(system.queries, system.rankings, strict=True):
            scores = np.asarray(ranking.scores, float)
            order = np.lexsort((ids, -scores))
            best_first = -scores[order]
            columns = [
                *([judged.target.name] * len(ids), [system.name] * len(ids), [words] * len(ids)),
                *(1 + np.searchsorted(best_first, best_first), ids[order], scores[order], relevance[order]),
            ]
            yield pa.Table.from_arrays(
                [pa.array(values, kind) for values, (_, kind, _) in zip(columns, COLUMNS, strict=True)],
                schema=_schema(COLUMNS),
            )


def all_rankings(tables: Sequence[pa.Table]) -> pa.Table:
    """Return rankings put together."""
    return pa.concat_tables(tables) if tables else _schema(COLUMNS).empty_table()


def compare_rankings(
    rankings: pa.Table | str | Path, other: pa.Table | str | Path | None = None, *, against: str = TEXT, seed: int = 0
) -> pa.Table:
    """Return paired differences of nDCG@10: of two runs by system, or without `other` of each system and `against`.

    `rankings` and `other` are what `Evaluation.rankings` returns, or files of it. The mean over the queries of each is
    compared on the candidates that both have, drawn anew 1,000 times, relevant and other ones apart, the same draws for
    both: what is hard for both cancels out, so that a difference can be sure where both intervals are wide. Rows are
    for each target, then system, in the order of `rankings`; systems that only one has are left out.

    Raises SchemaError for a table that is none of rankings, or where an object has another relevance in the other.
    """
    first = _read(rankings)
    second = first if other is None else _read(other)
    rows = []
    for (target, system), ours in first.items():
        name = against if other is None else system
        theirs = second.get((target, name))
        if theirs is not None and not (other is None and system == against):
            called = name if other is None else f"{system} of the other run"
            rows.append(
                {"target": target, "system": system, "against": called, **_compared(ours, theirs, target, seed)}
            )
    return pa.Table.from_pylist(rows, schema=_schema(COMPARED))


def _compared(ours: _Rankings, theirs: _Rankings, target: str, seed: int) -> dict[str, float | int | None]:
    ids, left, right = np.intersect1d(np.array(ours.ids), np.array(theirs.ids), return_indices=True)
    relevance = ours.relevance[left]
    differing = ids[relevance != theirs.relevance[right]]
    if len(differing):
        raise SchemaError(
            f"target '{target}': object '{differing[0]}' has another relevance in the other run; compare runs of the "
            "same targets file on the same labels"
        )
    relevant = relevance > 0
    counts: dict[str, float | int | None] = {"n": len(ids), "relevant": int(relevant.sum())}
    if not relevant.any() or relevant.all():
        return counts
    rankings = [
        [Ranked(scores, relevance) for scores in one.scores[:, kept]] for one, kept in ((ours, left), (theirs, right))
    ]
    point = [float(np.mean([ranking.ndcg_exp(K)[0] for ranking in several])) for several in rankings]
    whole = Sets(int(relevant.sum()), int((~relevant).sum()))
    blocks = []
    for drawn in draws(relevant, whole, rounds=BOOTSTRAPS, pick=resampled, seed=seed):
        flat = drawn[:, 0, :]
        means = [np.mean([ranking.ndcg_exp(K, flat) for ranking in several], axis=0) for several in rankings]
        blocks.append(means[0] - means[1])
    values = np.concatenate(blocks)
    low, high = np.quantile(values, [0.025, 0.975]).tolist()
    beyond = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return counts | {
        "ndcg_exp_10": point[0],
        "ndcg_exp_10_against": point[1],
        "difference": point[0] - point[1],
        "low": low,
        "high": high,
        "p_value": min(1.0, 2 * (1 + beyond) / (1 + len(values))),
    }


def _read(rankings: pa.Table | str | Path) -> dict[tuple[str, str], _Rankings]:
    """Return the rankings of a table by target and system."""
    name = "rankings" if isinstance(rankings, pa.Table) else str(rankings)
    table = rankings if isinstance(rankings, pa.Table) else formats.read_table(rankings, text=("object_id", "query"))
    lacking = [column for column, _, _ in COLUMNS if column not in table.column_names and column != "rank"]
    if lacking:
        raise SchemaError(f"{name}: has no column {lacking[0]}, so it holds no rankings; write one with --rankings")
    columns = {column: table[column].to_pylist() for column in table.column_names}
    parts: dict[tuple[str, str], dict[str, dict[str, tuple[float, float]]]] = {}
    rows = zip(*(columns[key] for key in ("target", "system", "query", "object_id", "score", "relevance")), strict=True)
    try:
        for target, system, query, object_id, score, relevance in rows:
            known = parts.setdefault((target, system), {}).setdefault(query or "", {})
            known[object_id] = float(score), float(relevance)
    except (TypeError, ValueError):
        raise SchemaError(f"{name}: a score or relevance is missing or no number; write it again") from None
    return {key: _arrays(queries, name) for key, queries in parts.items()}


def _arrays(queries: dict[str, dict[str, tuple[float, float]]], name: str) -> _Rankings:
    each = list(queries.values())
    ids = sorted(each[0])
    if any(sorted(known) != ids for known in each):
        raise SchemaError(f"{name}: the queries of a target do not rank the same objects; write it again, whole")
    values = np.array([[known[one] for one in ids] for known in each])
    return _Rankings(ids, values[0, :, 1], values[:, :, 0])


def _schema(columns: Sequence[tuple[str, pa.DataType, str]]) -> pa.Schema:
    return pa.schema([formats.describe(pa.field(name, kind), description=about) for name, kind, about in columns])
