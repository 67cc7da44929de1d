"""Targets of an evaluation: a name, queries in words, and two SQL conditions on the columns of the atlas."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from galsearch.errors import SchemaError

SHIPPED = "efigi-gz.toml"
PREVALENCES = (0.26, 0.10, 0.02, 0.001)


@dataclass(frozen=True)
class Target:
    """What is looked for: words, who is a candidate, and who is relevant how much.

    `grades` are (relevance, SQL condition) pairs, the highest that holds counts; a candidate of which none holds, NULL
    included, is not relevant.
    """

    name: str
    queries: tuple[str, ...]
    candidates: str
    grades: tuple[tuple[float, str], ...]
    prevalences: tuple[float, ...] = PREVALENCES
    note: str = ""


@dataclass(frozen=True)
class Targets:
    """A file of targets: its version, title and digest."""

    version: str
    title: str
    sha256: str
    targets: tuple[Target, ...]


def read_targets(path: str | Path | None = None) -> Targets:
    """Return the targets of a TOML file, or those that ship; SchemaError when the file is not one.

    The file has `version`, `title`, perhaps `prevalences` and a table `queries` of named lists, and for each
    `[[target]]` a `name`, `queries` (a list of words, or the name of a list), `candidates` and `relevant`: SQL
    conditions, where `relevant` may also be a table `{1 = "…", 2 = "…"}` of a condition for each relevance.
    """
    source = resources.files("galsearch").joinpath("targets", SHIPPED) if path is None else Path(path)
    try:
        content = source.read_bytes()
        given = tomllib.loads(content.decode())
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read ({error.strerror}); give a TOML file of targets") from None
    except ValueError as error:  # of TOML and of UTF-8
        raise SchemaError(
            f"{path}: is not TOML ({error}); see the file that ships, galsearch/targets/{SHIPPED}"
        ) from None
    entries = given.get("target")
    if not isinstance(entries, list) or not entries:
        raise SchemaError(f"{path}: has no [[target]]; each needs name, queries, candidates and relevant")
    result = tuple(_target(entry, given, str(path)) for entry in entries)
    twice = [target.name for number, target in enumerate(result) if target.name in {t.name for t in result[:number]}]
    if twice:
        raise SchemaError(f"{path}: target '{twice[0]}' stands there twice; give each its own name")
    title, version = str(given.get("title", source.name)), str(given.get("version", ""))
    return Targets(version, title, hashlib.sha256(content).hexdigest(), result)


def _target(entry: Any, given: dict, path: str) -> Target:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise SchemaError(f'{path}: a [[target]] has no name; give each one, such as name = "spiral"')
    stated = f"{path}: target '{name}'"
    known = {"name", "queries", "candidates", "relevant", "prevalences", "note"}
    if set(entry) - known:
        raise SchemaError(
            f"{stated}: unknown key {sorted(set(entry) - known)[0]!r}; known are {', '.join(sorted(known))}"
        )
    prevalences = entry.get("prevalences", given.get("prevalences", list(PREVALENCES)))
    if not isinstance(prevalences, list) or not all(isinstance(p, float) and 0 < p < 1 for p in prevalences):
        raise SchemaError(f"{stated}: prevalences is {prevalences!r}, expected a list of shares between 0 and 1")
    candidates, grades = entry.get("candidates"), dict(_grades(entry.get("relevant"), stated))
    for condition in (candidates, *grades.values()):
        if not isinstance(condition, str) or not condition.strip():
            raise SchemaError(f"{stated}: {condition!r} is no SQL condition; candidates and relevant need one each")
    queries, ascending = _queries(entry, given, stated), tuple(sorted(grades.items()))
    return Target(name, queries, candidates, ascending, tuple(prevalences), str(entry.get("note", "")))


def _queries(entry: dict, given: dict, stated: str) -> tuple[str, ...]:
    queries = entry.get("queries")
    if isinstance(queries, str):
        lists = given.get("queries")
        lists = lists if isinstance(lists, dict) else {}
        if queries not in lists:
            raise SchemaError(f"{stated}: no list of queries '{queries}'; there are: {', '.join(lists) or 'none'}")
        queries = lists[queries]
    if not isinstance(queries, list) or not queries or not all(isinstance(q, str) and q.strip() for q in queries):
        raise SchemaError(f"{stated}: queries is {queries!r:.80}, expected a list of one or more texts")
    if len(set(queries)) < len(queries):
        raise SchemaError(f"{stated}: a query stands there twice, which would count it double; give each once")
    return tuple(queries)


def _grades(relevant: Any, stated: str) -> Iterator[tuple[float, str]]:
    if not isinstance(relevant, dict):
        yield 1.0, relevant
        return
    for key, condition in relevant.items():
        try:
            grade = float(key)
        except ValueError:
            grade = 0.0
        if not 0 < grade <= 10:
            raise SchemaError(f"{stated}: relevance {key!r} is no number above 0, up to 10")
        yield grade, condition
