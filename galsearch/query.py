"""What was asked, as plain data: terms with weights, cuts, and how hard to look.

A `Query` knows nothing of engines. It travels as JSON, which is what a permalink, a log line or a test case holds.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import numpy as np

from galsearch import schema
from galsearch.errors import QueryError
from galsearch.science.ranking import FUSE
from galsearch.science.sky import check_position

KINDS = ("text", "object", *(one.term_kind for one in schema.MODALITIES.values()), "embedding")
OF_FILES = tuple(one.term_kind for one in schema.MODALITIES.values())  # kinds of terms whose value is a path
COMBINE = ("mean", "max")
MAX_K = 100_000  # more rows than this are a table, not an answer: that is what sql() is for


@dataclass(frozen=True)
class Term:
    """One thing to look like: `kind` says how `value` is read, `weight` how much it counts (negative: unlike it).

    `text` holds words, `object` an object_id, `image` and `spectrum` the path of a file, `embedding` a tuple of d
    floats. `by` is the embedding that it is compared in; None: that of its kind of data, else the atlas's main one.
    """

    kind: str
    value: str | tuple[float, ...]
    weight: float = 1.0
    by: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise QueryError(f"term kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if not isinstance(self.value, tuple if self.kind == "embedding" else str):
            raise QueryError(f"{self.kind} term is {self.value!r:.80}, expected text, or numbers for an embedding")
        if not _is_number(self.weight) or not math.isfinite(self.weight) or self.weight == 0:
            raise QueryError(f"weight of {self.label} is {self.weight!r}, expected a finite number other than 0")
        object.__setattr__(self, "weight", float(self.weight))
        if not (self.by is None or (isinstance(self.by, str) and self.by)):
            raise QueryError(
                f"by of the {self.kind} term is {self.by!r:.80}, expected the name of an embedding, or nothing"
            )
        if self.kind == "text" and not self.text.strip():
            raise QueryError("the text is empty; say what to look for, or leave the words out to list by SQL alone")

    @property
    def text(self) -> str:
        """The value of a term that is no embedding: words, an object_id or the path of a file."""
        return str(self.value)

    @property
    def is_file(self) -> bool:
        """Whether the value is the path of a file of ours, which no stranger's link may name."""
        return self.kind in OF_FILES

    @property
    def label(self) -> str:
        """The term as a person would name it."""
        named = "embedding" if self.kind == "embedding" else f"{self.kind} {self.value!r}"
        return named if self.by is None else f"{named} by {self.by}"


class QueryOptions(TypedDict, total=False):
    """What a `Query` has beside its terms, each as a keyword."""

    where: str | None
    near: tuple[float, float] | None
    radius_arcsec: float | None
    k: int
    exact: bool
    probes: int | None
    recall: float | None
    combine: str
    distinct: bool
    hybrid: str | None


@dataclass(frozen=True)
class Query:
    """A whole question. No terms means: list what passes the cuts, ordered by object_id.

    `near` is (ra, dec) in degrees ICRS and needs `radius_arcsec`, which is inclusive. `probes` is how many cells of
    the index to visit (None: chosen by the planner for the wished `recall`), `exact` visits all of them. `combine`
    says how several terms add up: "mean" of their vectors by weight, or "max", like the closest of them. `distinct`
    leaves out duplicates of objects found before. `hybrid` lets words match captions and names too: "rank" fuses the
    two rankings, "sum" adds calibrated scores.
    """

    terms: tuple[Term, ...] = ()
    where: str | None = None
    near: tuple[float, float] | None = None
    radius_arcsec: float | None = None
    k: int = 12
    exact: bool = False
    probes: int | None = None
    recall: float | None = None
    combine: str = "mean"
    distinct: bool = False
    hybrid: str | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.k) or not 1 <= self.k <= MAX_K:
            raise QueryError(f"k is {self.k!r}, expected a whole number from 1 to {MAX_K}")
        object.__setattr__(self, "k", int(self.k))
        self._check_probes()
        if self.where is not None and not (isinstance(self.where, str) and self.where.strip()):
            raise QueryError(f'where is {self.where!r}, expected a SQL condition such as "z < 0.1", or nothing')
        self._check_cone()

    def _check_probes(self) -> None:
        if self.combine not in COMBINE:
            raise QueryError(f"combine is {self.combine!r}, expected one of {', '.join(COMBINE)}")
        if self.hybrid is not None and self.hybrid not in FUSE:
            raise QueryError(f"hybrid is {self.hybrid!r}, expected nothing or one of {', '.join(FUSE)}")
        if self.recall is not None and not (_is_number(self.recall) and 0 < self.recall <= 1):
            raise QueryError(f"recall is {self.recall!r}, expected a share above 0, up to 1, such as 0.99")
        if self.probes is None:
            return
        if not _is_whole(self.probes) or self.probes < 1:
            raise QueryError(
                f"probes is {self.probes!r}, expected a whole number from 1, or nothing to let the planner choose"
            )
        object.__setattr__(self, "probes", int(self.probes))

    def _check_cone(self) -> None:
        if (self.near is None) != (self.radius_arcsec is None):
            given, absent = ("near", "radius_arcsec") if self.near is not None else ("radius_arcsec", "near")
            raise QueryError(f"{given} needs {absent}: a cone on the sky has a center in degrees and a radius")
        if self.near is None:
            return
        near = tuple(self.near) if isinstance(self.near, (tuple, list, np.ndarray)) else ()
        if len(near) != 2 or not all(_is_number(part) for part in near):
            raise QueryError(f"near is {self.near!r}, expected (ra, dec): two numbers, degrees ICRS")
        ra, dec = check_position(*near)
        object.__setattr__(self, "near", (float(ra), float(dec)))
        radius = self.radius_arcsec
        if not (_is_number(radius) and radius is not None and 0 <= radius <= 180 * 3600):  # false for NaN too
            raise QueryError(f"radius_arcsec is {radius!r}, expected 0 to 648000 (180 degrees)")
        object.__setattr__(self, "radius_arcsec", float(radius))

    def to_json(self) -> str:
        """Return the query as JSON; `Query.from_json` gives back an equal one."""
        return json.dumps({**asdict(self), "terms": [_stated(term) for term in self.terms]})

    @classmethod
    def from_json(cls, text: str) -> Query:
        """Rebuild a query; QueryError when the text is not one."""
        try:
            values = json.loads(text)
            terms = tuple(Term(t["kind"], _value(t["value"]), t["weight"], t.get("by")) for t in values.pop("terms"))
            return cls(terms=terms, **values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise QueryError(f"this is not a saved query ({error}); write it with Query.to_json()") from None

    def formula(self) -> str:
        """Return the terms as a sum, such as `text 'spiral' - 0.5 text 'bar'`."""
        parts = []
        for term in self.terms:
            size = abs(term.weight)
            sign = "-" if term.weight < 0 else "+"
            parts.append(f"{sign} {'' if size == 1 else f'{size:g} '}{term.label}")
        joined = " ".join(parts).removeprefix("+ ")
        return f"the closest of {joined}" if self.combine == "max" and len(parts) > 1 else joined


def _stated(term: Term) -> dict[str, Any]:
    """Return a term as it is saved; `by` only where it says something, as older versions do not know it."""
    return {key: value for key, value in asdict(term).items() if key != "by" or value is not None}


def _value(value: str | list[float]) -> str | tuple[float, ...]:
    return value if isinstance(value, str) else tuple(float(part) for part in value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


@dataclass
class Plan:
    """How a search was answered.

    `path` is "exact", "ivf" or "list" (no terms); `matches` counts the objects that pass the cuts; `rows_scanned`
    the vectors compared; `exact` is True when no better row can exist.
    """

    path: str
    matches: int
    rows_scanned: int
    exact: bool
    cells_probed: int | None = None
    cells: int | None = None
    provider: str | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        cells = f", {self.cells_probed} of {self.cells} cells" if self.path == "ivf" else ""
        stages = ", ".join(f"{name} {value:.1f} ms" for name, value in self.milliseconds.items())
        kind = "exact" if self.exact else "approximate"
        return f"{self.path}: {self.matches} matches{cells}, {self.rows_scanned} rows scanned, {kind}; {stages}"
