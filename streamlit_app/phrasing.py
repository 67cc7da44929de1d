"""A query in other words: as a formula, and as Python, shell and SQL to copy."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import numpy as np

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
        return f"like {term.value}"
    return term.value if term.kind == "text" else "your image"


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


def as_python(query: galsearch.Query, path: Path) -> str:
    """Return Python that asks the same."""
    lines = ["import galsearch", "", f'atlas = galsearch.open("{path}")']
    if any(term.kind == "embedding" for term in query.terms):
        text = query.to_json()
        return "\n".join([*lines, f"query = galsearch.Query.from_json({text!r})", "hits = atlas.search(query)", ""])
    options = _options(query)
    plain = len(query.terms) == 1 and query.terms[0].weight == 1 and query.combine == "mean"
    single = query.terms[0] if plain else None
    if single or not query.terms:
        what = "" if single is None else _python_value(single)
        asked = ", ".join([what, *options] if what else options)
        return "\n".join([*lines, f"hits = atlas.search({asked})", ""])
    terms = [f'    galsearch.Term("{t.kind}", {t.value!r}, {t.weight:g}),' for t in query.terms]
    asked = "".join(f", {option}" for option in options)
    return "\n".join([*lines, "terms = (", *terms, ")", f"hits = atlas.search(galsearch.Query(terms{asked}))", ""])


def _python_value(term: galsearch.Term) -> str:
    return repr(term.value) if term.kind == "text" else f"atlas[{term.value!r}]"


def _options(query: galsearch.Query) -> list[str]:
    options = [f"where={query.where!r}"] if query.where else []
    if query.near is not None:
        options.append(f"near={query.near}, radius_arcsec={query.radius_arcsec:g}")
    if query.distinct and query.terms:
        options.append("distinct=True")
    options += [
        f"{name}={value!r}" for name in ("hybrid", "recall", "probes") if (value := getattr(query, name)) is not None
    ]
    if query.combine != "mean":
        options.append(f"combine={query.combine!r}")
    return [*options, f"k={query.k}", *(["exact=True"] if query.exact else [])]


def as_shell(query: galsearch.Query, path: Path) -> str:
    """Return the command that asks the same, or a comment that says why there is none."""
    if any(term.kind == "embedding" or (term.kind == "object" and term.weight != 1) for term in query.terms):
        return "# A command cannot hold an uploaded image or a weighted object; use Python.\n"
    parts = ["galsearch", "search", str(path)]
    for place, term in enumerate(query.terms):
        parts += _shell_term(term, first=place == 0)
    if query.where:
        parts += ["--where", query.where]
    if query.near is not None:
        parts += ["--near", *map(str, query.near), "--radius-arcsec", f"{query.radius_arcsec:g}"]
    parts += ["--closest"] if query.combine == "max" else []
    parts += ["--distinct"] if query.distinct and query.terms else []
    parts += ["--hybrid"] if query.hybrid else []
    return shlex.join([*parts, "-k", str(query.k), *(["--exact"] if query.exact else [])]) + "\n"


def _shell_term(term: galsearch.Term, *, first: bool) -> list[str]:
    if term.kind == "object":
        return ["--like", term.value]
    if first and term.weight == 1 and not term.value.startswith("-"):
        return [term.value]
    weight = "" if abs(term.weight) == 1 else f"{abs(term.weight):g}:"
    return ["--minus" if term.weight < 0 else "--plus", f"{weight}{term.value}"]


def as_sql(query: galsearch.Query, atlas: galsearch.Atlas) -> str:
    """Return SQL for `atlas.sql`; sums are written as the numbers of their vector, which any DuckDB takes."""
    cut = _cut(query)
    if not query.terms:
        where = f"WHERE {cut}\n" if cut else ""
        return f"SELECT * FROM galaxies\n{where}ORDER BY object_id LIMIT {query.k}\n"
    if query.combine == "max":
        return "-- SQL has no 'closest of several'; use Python, or one statement for each of them.\n"
    arguments = f"k := {query.k}" + (f", cut := {cut}" if cut else "")
    note = "-- SQL does not collapse duplicates.\n" if query.distinct else ""
    return (
        f"{note}SELECT * FROM nearest({_vector(query, atlas)}, {arguments})\n"
        "JOIN galaxies USING (object_id)\nORDER BY score DESC, object_id\n"
    )


def _cut(query: galsearch.Query) -> str:
    parts = [f"({query.where}\n)" if "--" in query.where else f"({query.where})"] if query.where else []
    if query.near is not None:
        ra, dec = query.near
        parts.append(f"separation_arcsec(ra, dec, {ra!r}, {dec!r}) <= {query.radius_arcsec:g}")
    parts += [f"object_id <> {_quoted(term.value)}" for term in query.terms if term.kind == "object"]
    return " AND ".join(parts)


def _vector(query: galsearch.Query, atlas: galsearch.Atlas) -> str:
    if len(query.terms) == 1 and query.terms[0].kind != "embedding" and query.terms[0].weight > 0:
        term = query.terms[0]
        return f"{'embed' if term.kind == 'text' else 'like_object'}({_quoted(term.value)})"
    total = np.sum([term.weight * _embedded(term, atlas) for term in query.terms], axis=0)
    unit = total / math.sqrt(float(total @ total))
    return "[" + ", ".join(f"{value:.7g}" for value in unit) + "]"


def _embedded(term: galsearch.Term, atlas: galsearch.Atlas) -> np.ndarray:
    if term.kind == "embedding":
        what: object = np.asarray(term.value)
    else:
        what = term.value if term.kind == "text" else atlas[term.value]
    return atlas.embed(what).astype(np.float64)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
