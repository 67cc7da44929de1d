"""Votes of known neighbors on a page: which base, how votes are counted, and an answer in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import inside
import limits
import streamlit as st
import widgets
from state import State

import galsearch

DEPTHS = (1, 3, 5, 10, 20, 50)  # numbers of voters for which a base keeps how votes become probabilities
FIRST_DEPTH = 3
WEIGHTS = {
    "exp": "e^(−distance)",
    "uniform": "each the same",
    "inverse": "1 / distance",
    "gaussian": "Gaussian of the distance",
    "rank": "1 / rank",
}
VOTES, PROBE = "votes", "probe"
METHODS = {VOTES: "Votes", PROBE: "Probe"}
MOST_OBJECTS = 60 if limits.PUBLIC else 1_000  # that are classified at once


class Way(NamedTuple):
    """A version of a base and how its votes are counted; `prevalence` is that of its target, None for the base's.

    Of the method "probe" probabilities are those of its probe that is in use, and voters only show what it is like.
    """

    base: str
    version: int
    k: int = FIRST_DEPTH
    weight: str = "exp"
    prevalence: float | None = None
    method: str = VOTES


def bases(state: State) -> list[dict[str, Any]]:
    """Return the bases of the atlas, each version, the last version of a name before the others."""
    rows = state.atlas.bases().to_pylist() if inside.has_bases(state.atlas) else []
    return sorted(rows, key=lambda row: (row["base"], -row["version"]))


def named(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Return what a base is called; its version where there are several."""
    several = sum(row["base"] == other["base"] for other in rows) > 1
    return widgets.clean(f"{row['base']}, version {row['version']}" if several else row["base"])


def depths(row: dict[str, Any]) -> list[int]:
    """Return the numbers of voters that may be chosen: fewer than the members, as none votes on itself."""
    return [k for k in DEPTHS if k < row["rows"]] or [1]


def first_depth(row: dict[str, Any]) -> int:
    """Return the number of voters unless another is chosen."""
    return min(FIRST_DEPTH, depths(row)[-1])


def has_probe(state: State, row: dict[str, Any]) -> bool:
    """Say whether a probe of a base is in use. Raises GalsearchError where the atlas's probes are damaged."""
    if row["kind"] != "class" or "probes" not in inside.tables(state.atlas):
        return False
    return _in_use(inside.written(state.atlas), row["base"], state.atlas)


@st.cache_data(max_entries=64, show_spinner=False)
def _in_use(written: str, base: str, _atlas: galsearch.Atlas) -> bool:
    return any(one.promoted is not None for one in _atlas.probes(base))


def classify(state: State, ids: Sequence[str], way: Way) -> galsearch.Classification:
    """Return the votes on objects, in this session's turn among all visitors; kept while nothing of it changes."""
    key = (inside.written(state.atlas), way, tuple(ids))
    held = st.session_state.get("classified")
    if held is None or held[0] != key:
        options = way._asdict()
        del options["base"]
        with limits.turn(), st.spinner("Classifying"):
            held = (key, state.atlas.classify(list(ids), way.base, **options))
        st.session_state.classified = held
    return held[1]


# ---- in words


def answer(votes: galsearch.Votes) -> str:
    """Return what the votes on an object say, as text."""
    if votes.base.kind != "class":
        if votes.value is None:
            return f"no value: {why_not(votes)}"
        error = "" if votes.uncertainty is None else f" ± {votes.uncertainty:.2g}"
        return f"{widgets.clean(votes.base.label_column)} {votes.value:.4g}{error}"
    return widgets.clean(votes.label) if votes.label is not None else f"no label: {why_not(votes)}"


def why_not(votes: galsearch.Votes) -> str:
    """Return why an object was given no label, as text."""
    return {
        "far": f"the nearest voter, at {votes.distance or 0:.3f}, is farther than 99 % of the members are from theirs",
        "split": f"no class is probable enough, {widgets.clean(votes.best)} the most with {votes.probability or 0:.2f}",
        "without a vector": f"it has no {widgets.clean(votes.base.embedding)} to compare",
    }.get(votes.reason or "", "")


def counted(votes: galsearch.Votes) -> str:
    """Return how the answer came about, as text."""
    if not len(votes):
        return ""
    if votes.method != VOTES:
        share = f"{votes.support} of the {len(votes)} nearest members have its label"
        parts = [f"by {votes.method}, trained on members of the base", share, f"the nearest at {votes.distance:.3f}"]
        parts = parts if votes.probability is None else [f"probability {votes.probability:.3f}", *parts]
        return "; ".join(parts)
    voters = f"{votes.support} of {len(votes)} voters" if votes.base.kind == "class" else f"{len(votes)} voters"
    parts = [voters, f"the nearest at a distance of {votes.distance:.3f} (0 to 2)"]
    if votes.probability is not None:
        kind = "calibrated on members left out in turn" if votes.calibrated else "a share of the votes, not calibrated"
        parts.insert(0, f"probability {votes.probability:.3f}, {kind}")
    return "; ".join(parts)


def summary(result: galsearch.Classification) -> str:
    """Return how many objects were given each label, and why others were not, as text."""
    table = result.to_arrow()
    labels = Counter(table["label"].drop_null().to_pylist()) if "label" in table.column_names else Counter()
    parts = [f"{count} {widgets.clean(label)}" for label, count in labels.most_common()]
    parts += [
        f"{count} without an answer ({reason})"
        for reason, count in Counter(table["reason"].drop_null().to_pylist()).items()
    ]
    shown = parts[:8] + ([f"{len(parts) - 8} more kinds of answer"] if len(parts) > 8 else [])
    return f"{len(result)} object{'s' * (len(result) != 1)}" + (f": {', '.join(shown)}" if shown else "")
