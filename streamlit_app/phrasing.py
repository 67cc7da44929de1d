"""A query and its answer in words for a person."""

from __future__ import annotations

import galsearch


def formula(query: galsearch.Query) -> str:
    """Return the terms as a sum for a person, such as `spiral galaxy − 0.5 bar + like xdf-0012`."""
    parts = []
    for term in query.terms:
        sign = "−" if term.weight < 0 else "+"
        size = abs(term.weight)
        parts.append(f"{sign} {'' if size == 1 else f'{size:g} × '}{name(term)}")
    return " ".join(parts).removeprefix("+ ")


def name(term: galsearch.Term) -> str:
    """Return a term as a person would call it."""
    if term.kind == "object":
        return f"like {term.value}" if term.by is None else f"like the {term.by} of {term.value}"
    return term.value if term.kind == "text" else f"your {term.by or 'image'}"


def plan(hits: galsearch.Hits) -> str:
    """Return in one line how the answer was found."""
    how = hits.plan
    if how.path == "list":
        return f"listed by object_id from {how.matches:,} that pass"
    cells = f" in {how.cells_probed:,} of {how.cells:,} cells" if how.path == "ivf" else ""
    parts = [
        f"{how.rows_scanned:,} of {how.matches:,} vectors compared{cells}",
        "exact" if how.exact else "approximate",
    ]
    return " · ".join(parts)


def stages(hits: galsearch.Hits, *, pictures_ms: float | None = None) -> str:
    """Return how long each stage of the answer took, and what encoded the question."""
    how = hits.plan
    times = dict(how.milliseconds) | ({} if pictures_ms is None else {"pictures": pictures_ms})
    where = (how.provider or "").removesuffix("ExecutionProvider")
    said = [f"{name} {value:.1f} ms" for name, value in times.items()]
    return " · ".join([*said, *([f"encoder on {where}"] if where and hits.query.terms else [])])
