"""Lists of odd objects as the page Anomalies has them: their tiers, what they are worth, those that an atlas keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import inside
import limits
import numpy as np
import pyarrow as pa
from state import State

import galsearch

TABLE = "anomalies"
MOST_LISTED = 200 if limits.PUBLIC else 1_000  # objects with reasons; p-values are of all that were judged
FIRST, CANDIDATES = "first", "candidates"
HALF = 0.5  # the rate that ends the near-misses
BINS = 20  # of the histogram of p-values
TIERS = {"candidate": "#d55e00", "near-miss": "#3a8fd0", "normal": "#888888"}  # differ for color-blind people too


@dataclass(frozen=True)
class Found:
    """A list, the oddest first: its rows with reasons, and the numbers of all that were judged.

    `normals` is None where it is not known, `least_q` the least q-value that a list of `len(table)` can have.
    `histogram` counts the p-values of all that were judged in BINS equal parts of 0 to 1.
    """

    key: tuple[Any, ...]
    table: pa.Table
    q_values: np.ndarray  # of all that were judged, ascending
    tested: int
    normals: int | None
    about: dict[str, Any]
    histogram: np.ndarray

    @property
    def least_q(self) -> float | None:
        """The least q-value that the longest list here can have; None where it is not known."""
        if self.normals is None or not len(self.table):
            return None
        return min(1.0, self.tested / (self.normals + 1) / len(self.table))

    def count(self, above: float, up_to: float) -> int:
        """Return how many q-values of all that were judged lie above one number and up to another."""
        return int(((self.q_values > above) & (self.q_values <= up_to)).sum())

    def listed(self, mode: str, n: int, fdr: float) -> pa.Table:
        """Return the rows of a list, with the tier that each has at a rate."""
        q = self.table["q_value"].to_numpy()
        last = int((q <= fdr).sum()) if mode == CANDIDATES else n
        rows = self.table.slice(0, last)
        at = rows.column_names.index("q_value") + 1
        return rows.add_column(at, "tier", pa.array([tier(value, fdr) for value in q[:last]], pa.string()))


def histogram_of(p_values: np.ndarray) -> np.ndarray:
    """Return how many p-values lie in each of BINS equal parts of 0 to 1; what has none is left out."""
    return np.histogram(p_values[np.isfinite(p_values)], bins=BINS, range=(0.0, 1.0))[0]


def tier(q: float, fdr: float) -> str | None:
    """Return what an object of a q-value is called at a rate; None without a q-value."""
    if math.isnan(q):
        return None
    return "candidate" if q <= fdr else "near-miss" if q <= HALF else "normal"


def worth(found: Found, rows: pa.Table, fdr: float) -> str:
    """Return what a list is worth, as text."""
    beside = "" if found.normals is None else f" beside {found.normals:,} normals"
    candidates, near = found.count(-1, fdr), found.count(fdr, HALF)
    convincing = f"{candidates:,} are candidates" if candidates > 1 else "1 is a candidate"
    said = f"{found.tested:,} objects were judged{beside}; "
    said += convincing if candidates else "none is a candidate"
    many = f"{near:,}" if near else "none"
    also = f"{many}{' more' if candidates and near else ''} {'are near-misses' if near > 1 else 'is a near-miss'}"
    said += f" at a false discovery rate of {fdr:g}, {also}."
    if candidates > len(found.table):
        said += f" Reasons are kept for the first {len(found.table):,}."
    least = found.least_q
    if not candidates and least is not None and least > fdr:
        said += (
            f" None could be: with so many judged beside so few normals no list of {len(found.table):,} has a rate "
            f"below {least:.2g}; list fewer objects of the search, or name more known normals."
        )
    if len(rows):
        rate = rows["q_value"][-1].as_py()
        if math.isfinite(rate):
            ordinary = rate * len(rows)
            share = f"{ordinary:{',.0f' if ordinary >= 10 else '.2g'}} ({100 * rate:.2g} %)"
            said += f" Of the {len(rows):,} listed up to {share} are expected to be ordinary."
    return said


# ---- lists that were kept


def saved_runs(state: State) -> list[dict[str, Any]]:
    """Return the lists that the atlas keeps, the last first, with what was asked where provenance says it."""
    return inside.kept_runs(state, TABLE, "anomalies", "embedding")


def read_saved(atlas: galsearch.Atlas, key: tuple[Any, ...], row: dict[str, Any]) -> Found:
    """Return a list that is kept; the columns of the catalog are those of today."""
    every = atlas.saved_anomalies(row["run"])
    p, q = (np.array(every[name].to_pylist(), np.float64) for name in ("p_value", "q_value"))
    normals = row["parameters"].get("normal_count")
    table = every.slice(0, MOST_LISTED).drop_columns(["run", "tier", "created", "embedding"])
    about = {"run": row["run"], "created": row["created"], "embedding": row["embedding"]}
    known = isinstance(normals, int) and not isinstance(normals, bool)
    return Found(key, table, np.sort(q[np.isfinite(q)]), len(every), normals if known else None, about, histogram_of(p))


def run_text(row: dict[str, Any]) -> str:
    """Return what a list is called."""
    return f"{row['created']} · {row['objects']:,} objects by {row['embedding']} · {row['run']}"


def said_of(asked: dict[str, Any]) -> str:
    """Return what a list was asked, as text."""
    parts = [f"{name}: {asked[name]}" for name in ("among", "normals", "where", "near", "labels") if asked.get(name)]
    detectors = asked.get("detectors")
    parts += [f"detectors: {', '.join(map(str, detectors))}"] if isinstance(detectors, list) else []
    return f"{'; '.join(parts)}." if parts else ""
