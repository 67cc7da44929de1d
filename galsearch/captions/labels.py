"""Reads catalog attributes into what can be said of a galaxy: which value of which column says what.

Mappings are TOML files of rules; those of EFIGI and of Galaxy Zoo are here, and a user may give one of their own:

    [[rule]]
    column = "T"                # of `galaxies`; an atlas without it is silent
    from = -6                   # numbers: from <= value <= to, either may be left out
    to = -4
    say = "kind: elliptical"    # an aspect and a value, as in docs/captioning.md
    [[rule]]
    column = "gz2_class"
    matches = "^SB"             # texts: a regular expression that is found in the value
    say = ["kind: spiral", "bar: strong"]
    also = [{column = "votes", from = 10}]   # further conditions, all of which must hold

The first rule that says something of an aspect wins. NULL says nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from galsearch.errors import SchemaError
from galsearch.language.templates import check_statements

OURS = ("efigi.toml", "galaxy_zoo.toml")
_KEYS = {"column", "from", "to", "matches", "say", "also"}


@dataclass(frozen=True)
class Test:
    """What must hold of one column: a range of numbers, inclusive, or a pattern that its text has."""

    column: str
    low: float | None = None
    high: float | None = None
    pattern: re.Pattern | None = None

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Say whether it holds of a row; never of NULL, nor of a text where a number is asked."""
        value = row.get(self.column)
        if value is None:
            return False
        if self.pattern is not None:
            return self.pattern.search(str(value)) is not None
        number = _number(value)
        if number is None:
            return False
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)


@dataclass(frozen=True)
class Rule:
    """What is said, as (aspect, value) pairs, where all tests hold."""

    tests: tuple[Test, ...]
    says: tuple[tuple[str, str], ...]


def read_rules(path: Path | None) -> tuple[list[Rule], bytes]:
    """Return the rules of a mapping file, or ours, and the bytes that they came from.

    Raises SchemaError for a file that is no mapping, naming the rule.
    """
    if path is None:
        contents = [resources.files("galsearch.captions").joinpath(name).read_bytes() for name in OURS]
        return [rule for name, one in zip(OURS, contents, strict=True) for rule in _parsed(one, name)], b"".join(
            contents
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read ({error}); a mapping is a TOML file of [[rule]] tables") from None
    return _parsed(content, str(path)), content


def say(row: Mapping[str, Any], rules: list[Rule]) -> dict[str, str]:
    """Return what the rules say of a row of `galaxies`: aspects and their values."""
    stated: dict[str, str] = {}
    for rule in rules:
        if all(test.holds(row) for test in rule.tests):
            for aspect, value in rule.says:
                stated.setdefault(aspect, value)
    return stated


def columns(rules: list[Rule]) -> list[str]:
    """Return the columns that the rules ask for, each once."""
    return list(dict.fromkeys(test.column for rule in rules for test in rule.tests))


def _parsed(content: bytes, name: str) -> list[Rule]:
    try:
        result = tomllib.loads(content.decode()).get("rule")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SchemaError(f"{name}: not a TOML file ({error}); a mapping is a list of [[rule]] tables") from None
    if not (isinstance(result, list) and result):
        raise SchemaError(f"{name}: has no [[rule]]; each needs column, say, and from, to or matches")
    return [_rule(one, f"{name}: rule {number}") for number, one in enumerate(result, start=1)]


def _rule(result: dict, where: str) -> Rule:
    unknown = set(result) - _KEYS
    if unknown:
        raise SchemaError(f"{where} has '{min(unknown)}', which is not one of {', '.join(sorted(_KEYS))}")
    stated = result.get("say")
    stated = [stated] if isinstance(stated, str) else stated
    if not (isinstance(stated, list) and stated and all(isinstance(one, str) and ":" in one for one in stated)):
        raise SchemaError(f'{where} says {stated!r:.60}; write say = "aspect: value", or a list of such')
    pairs = tuple((aspect.strip(), value.strip()) for aspect, _, value in (one.partition(":") for one in stated))
    try:
        check_statements(dict(pairs))
    except SchemaError as error:
        raise SchemaError(f"{where}: {error}") from None
    also = result.get("also", [])
    return Rule((_test(result, where), *(_test(one, where) for one in also)), pairs)


def _test(result: dict, where: str) -> Test:
    column, low, high, pattern = (result.get(key) for key in ("column", "from", "to", "matches"))
    if not isinstance(column, str):
        raise SchemaError(f'{where} names no column; write column = "name"')
    if (pattern is None) == (low is None and high is None):
        raise SchemaError(f"{where}: give from and to for a number, or matches for a text, and not both")
    for bound in (low, high):
        if bound is not None and _number(bound) is None:
            raise SchemaError(f"{where}: {bound!r} is not a number, and from and to must be")
    try:
        return Test(column, low, high, None if pattern is None else re.compile(pattern))
    except (re.error, TypeError) as error:
        raise SchemaError(f"{where}: matches = {pattern!r:.60} is no regular expression ({error})") from None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None
