"""Puts the best hits of a search into a better order, or says that it cannot.

What one vector of a whole frame does not say is looked at again: parts of the picture (`views`), what was measured
and is asked for (`attributes`, `arcs`), examples that somebody marked (`probe`); `local` puts these together. Or a
vision model is asked, one picture a call (`judge`) or sheets of them with tools to look closer (`agent`). What they
say is added to the score of the search, everything in standard deviations of ordinary objects of the atlas. How much
each may say was settled beforehand on validation objects (`validated`); marks are held against that, and where they,
or the validation, find the new order no better, the old one stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import pyarrow as pa

from galsearch.errors import QueryError
from galsearch.query import Query, Term
from galsearch.rerank.agent import AgentJudge, AgentOptions, by_agent, estimate_agent
from galsearch.rerank.judge import Judge, by_model
from galsearch.rerank.judge import estimate as estimate_judge
from galsearch.rerank.local import by_sight
from galsearch.rerank.observe import Observer
from galsearch.rerank.order import Marks, Pool, Reranked
from galsearch.retrieval import Result
from galsearch.store import Store

WAYS = ("local", "vlm", "agent")


def rerank(
    store: Store,
    observer: Observer,
    query: Query,
    result: Result,
    *,
    by: str,
    k: int,
    marks: tuple[tuple[Term, ...], tuple[Term, ...]],
    progress: Callable[[int, int, str], None] | None = None,
    **options: Unpack[AgentOptions],
) -> tuple[Result, Reranked]:
    """Return the first k of an answer in a better order, and what was done; as `Hits.rerank` says."""
    if by not in WAYS:
        raise QueryError(f"by is {by!r}, which is no way to re-rank; use one of {', '.join(WAYS)}")
    pool, marked = Pool.of(store, query, result), Marks(*marks)
    if by == "local":
        if options:
            raise QueryError(f"{next(iter(options))} is an option of 'vlm' and 'agent', not of 'local'; leave it out")
        return by_sight(pool, observer, query, marked, k=k, progress=progress)
    if by == AgentJudge.way:
        return by_agent(pool, query, marked, AgentJudge.of(options).check(), k=k, progress=progress)
    return by_model(pool, query, marked, Judge.of(options), k=k, progress=progress)


def estimate(query: Query, *, by: str, hits: int, **options: Unpack[AgentOptions]) -> pa.Table:
    """Return what a model would cost; as `Hits.estimate_rerank` says."""
    if by not in WAYS[1:]:
        raise QueryError(f"by is {by!r:.40}, which costs nothing; estimate one of {', '.join(WAYS[1:])}")
    stated: dict[str, Any] = {**options}
    return (estimate_agent if by == AgentJudge.way else estimate_judge)(query, hits=hits, **stated)


__all__ = ["AgentJudge", "AgentOptions", "Judge", "Reranked", "estimate", "rerank"]
