"""A query as code that asks the same: Python, a command, SQL."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from galsearch.query import Query, Term
from galsearch.retrieval import scorers_of
from galsearch.store.sql.macros import EXACT_ROWS

if TYPE_CHECKING:
    from galsearch.atlas import Atlas


def as_python(query: Query, path: str | Path | Sequence[str | Path]) -> str:
    """Return Python that asks the same of the atlas at `path`, or of several as one."""
    opened = str(path) if isinstance(path, str | Path) else [str(one) for one in path]
    lines = ["import galsearch", "", f"atlas = galsearch.open({opened!r})"]
    if any(term.kind == "embedding" for term in query.terms):
        return "\n".join(
            [*lines, f"query = galsearch.Query.from_json({query.to_json()!r})", "hits = atlas.search(query)", ""]
        )
    options = _python_options(query)
    if not query.terms or _is_plain(query):
        stated = ", ".join([*map(_python_value, query.terms), *options])
        return "\n".join([*lines, f"hits = atlas.search({stated})", ""])
    terms = [f"    {_python_term(term)}," for term in query.terms]
    stated = "".join(f", {option}" for option in options)
    return "\n".join([*lines, "terms = (", *terms, ")", f"hits = atlas.search(galsearch.Query(terms{stated}))", ""])


def _is_plain(query: Query) -> bool:
    """Say whether a query is one thing to be like, which `search` takes as it is."""
    (first, *others) = query.terms
    return (
        not others
        and first.weight == 1
        and query.combine == "mean"
        and first.kind in ("text", "object")
        and not first.by
    )


def _python_value(term: Term) -> str:
    return repr(term.value) if term.kind == "text" else f"atlas[{term.value!r}]"


def _python_term(term: Term) -> str:
    by = "" if term.by is None else f", by={term.by!r}"
    return f'galsearch.Term("{term.kind}", {term.value!r}, {term.weight:g}{by})'


def _python_options(query: Query) -> list[str]:
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


def as_command(query: Query, path: str | Path) -> str:
    """Return the command that asks the same, or a comment that says why there is none."""
    embeddings = _command_embeddings(query)
    if embeddings is None or any(
        term.kind == "embedding" or (term.kind != "text" and term.weight != 1) for term in query.terms
    ):
        return "# A command cannot hold a vector, a weighted object or several embeddings; use Python.\n"
    parts = ["galsearch", "search", str(path)]
    for number, term in enumerate(query.terms):
        parts += _command_term(term, first=number == 0)
    parts += embeddings
    if query.where:
        parts += ["--where", query.where]
    if query.near is not None:
        parts += ["--near", *map(str, query.near), "--radius-arcsec", f"{query.radius_arcsec:g}"]
    parts += ["--closest"] if query.combine == "max" else []
    parts += ["--distinct"] if query.distinct and query.terms else []
    for name in ("hybrid", "recall", "probes"):
        parts += [f"--{name}", str(value)] if (value := getattr(query, name)) is not None else []
    return shlex.join([*parts, "-k", str(query.k), *(["--exact"] if query.exact else [])]) + "\n"


def _command_embeddings(query: Query) -> list[str] | None:
    """Return the options that name the embeddings of a query; None where a command has none for them."""
    words = {term.by for term in query.terms if term.kind == "text"}
    examples = {term.by for term in query.terms if term.kind != "text"}
    if max(len(words), len(examples)) > 1 or (words == {None} and examples - {None}):
        return None
    by, words_by = next(iter(examples or words), None), next(iter(words), None)
    options = ["--by", by] if by else []
    return [*options, *(["--words-by", words_by] if words_by and words_by != by else [])]


def _command_term(term: Term, *, first: bool) -> list[str]:
    value = term.text
    if term.kind != "text":
        return ["--like" if term.kind == "object" else f"--{term.kind}", value]
    if first and term.weight == 1 and not value.startswith("-") and not any(map(str.isdigit, value)):
        return [value]  # words with a digit may be a name or a position, which the command would open instead
    weight = "" if abs(term.weight) == 1 and not re.match(r"\s*[-+\d.]", value) else f"{abs(term.weight):g}:"
    return ["--minus" if term.weight < 0 else "--plus", f"{weight}{value}"]


def as_sql(query: Query, atlas: Atlas) -> str:
    """Return SQL for `atlas.sql`; sums are written as the numbers of their vector, which any DuckDB takes.

    What SQL cannot say stands in a comment. Raises QueryError for terms that cannot be embedded.
    """
    cut = _cut(query)
    if not query.terms:
        where = f"WHERE {cut}\n" if cut else ""
        return f"SELECT * FROM galaxies\n{where}ORDER BY object_id LIMIT {query.k}\n"
    if len(atlas._store.parts) > 1:
        return "-- SQL asks one atlas, and several are open as one; use Python.\n"
    if query.combine == "max":
        return "-- SQL has no 'closest of several'; use Python, or one statement for each of them.\n"
    spaces = {atlas._embedding(term) for term in query.terms}
    if len(spaces) > 1:
        return "-- SQL does not fuse several embeddings; use Python, or one statement for each of them.\n"
    embedding = spaces.pop()
    suffix = "" if embedding == atlas.manifest.main_embedding else f"_{embedding}"
    exact = query.exact or (len(atlas) <= EXACT_ROWS and query.probes is None)  # as the planner decides it
    macro = f"nearest_exact{suffix}" if exact else f"nearest{suffix}"
    probes = "" if exact or query.probes is None else f", probes := {query.probes}"
    arguments = f"k := {query.k}{probes}" + (f", cut := {cut}" if cut else "")
    notes = ["-- SQL does not collapse duplicates.\n"] if query.distinct else []
    notes += (
        ["-- SQL takes probes, a number of cells, not a recall.\n"] if query.recall is not None and not exact else []
    )
    notes += (
        ["-- SQL does not let the words match names and captions here; see matching_words.\n"] if query.hybrid else []
    )
    return (
        f"{''.join(notes)}SELECT * FROM {macro}({_vector(query, atlas, suffix)}, {arguments})\n"
        "JOIN galaxies USING (object_id)\nORDER BY score DESC, object_id\n"
    )


def _cut(query: Query) -> str:
    parts = [f"({query.where}\n)" if "--" in query.where else f"({query.where})"] if query.where else []
    if query.near is not None:
        ra, dec = query.near
        parts.append(f"separation_arcsec(ra, dec, {ra!r}, {dec!r}) <= {query.radius_arcsec:g}")
    parts += [f"object_id <> {_quoted(term.value)}" for term in query.terms if term.kind == "object"]
    return " AND ".join(parts)


def _vector(query: Query, atlas: Atlas, suffix: str) -> str:
    first, *others = query.terms
    if not others and first.kind in ("text", "object") and first.weight > 0:
        return f"{'embed' if first.kind == 'text' else 'like_object'}{suffix}({_quoted(first.value)})"
    (scorer,) = scorers_of(query, atlas._embed_term).values()
    return "[" + ", ".join(f"{value:.7g}" for value in scorer.vector) + "]"


def _quoted(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"


__all__ = ["as_command", "as_python", "as_sql"]
