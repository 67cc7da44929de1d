"""A SQL condition as conditions on single columns joined by AND, so that sliders and choices can read and change it.

The text is the truth. What is not recognized is left exactly as it was typed.
"""

from __future__ import annotations

import math
import re

PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
WORDS_OF_SQL = (  # that DuckDB takes for no column unless they stand in quotes
    "all analyze and anti any array as asc asof asymmetric at authorization binary both by case cast check "
    "collate collation column columns concurrently constraint create cross default deferrable desc describe distinct "
    "do else end except false fetch for foreign freeze from full generated glob group having ilike in initially inner "
    "intersect into is isnull join lambda lateral leading left like limit map natural not notnull null offset on only "
    "or order outer overlaps pivot pivot_longer pivot_wider placing positional primary qualify references returning "
    "right select semi show similar some struct summarize symmetric table tablesample then to trailing true try_cast "
    "tuple union unique unpack unpivot user using variadic verbose when where window with"
)
RESERVED = frozenset((*WORDS_OF_SQL.split(), "analyze".replace("z", "s")))  # DuckDB takes either spelling
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\w+|\s+|.""", re.DOTALL)
_NAME = r"""(?:"((?:[^"]|"")+)"|([A-Za-z_]\w*))"""
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_BETWEEN = re.compile(rf"{_NAME}\s+BETWEEN\s+{_NUMBER}\s+AND\s+{_NUMBER}", re.IGNORECASE)
_BOUND = re.compile(rf"{_NAME}\s*(<=|>=|<|>)\s*{_NUMBER}")
_STRING = r"'(?:[^']|'')*'"
_IN = re.compile(rf"{_NAME}\s+IN\s*\(\s*({_STRING}(?:\s*,\s*{_STRING})*)\s*\)", re.IGNORECASE)
_IS = re.compile(rf"(NOT\s+)?{_NAME}", re.IGNORECASE)


def clauses(where: str | None) -> list[str]:
    """Return the parts of a condition that are joined by AND; one part where OR stands in the way."""
    if not where or not where.strip():
        return []
    parts, part, depth, between = [], "", 0, 0
    for token in _TOKEN.findall(where):
        word = token.upper()
        if depth == 0 and word == "OR":
            return [where.strip()]
        depth += (token in "([" or word == "CASE") - (token in ")]" or word == "END")
        between += depth == 0 and word == "BETWEEN"
        if depth == 0 and word == "AND" and not between:
            parts.append(part.strip())
            part = ""
            continue
        between -= depth == 0 and word == "AND"
        part += token
    return [*parts, part.strip()]


def joined(parts: list[str]) -> str | None:
    """Return parts joined by AND, None for none; a part that AND would tear apart gets brackets."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return " AND ".join(part if len(clauses(part)) == 1 and not _torn(part) else f"({part}\n)" for part in parts)


def _torn(part: str) -> bool:
    depth, words = 0, []
    for token in _TOKEN.findall(part):
        depth += (token == "(") - (token == ")")
        words += [token.upper()] if depth == 0 else []
    return "OR" in words or any(word.startswith("--") for word in words)


def added(where: str | None, sql: str) -> str | None:
    """Return the condition with one more; one that is there already is not added twice."""
    parts = clauses(where)
    return joined([*parts, *(part for part in clauses(sql) if part not in parts)])


def name(column: str) -> str:
    """Return a column's name as SQL takes it."""
    plain = PLAIN_NAME.fullmatch(column) and column not in RESERVED
    return column if plain else '"' + column.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a text as SQL takes it."""
    return "'" + value.replace("'", "''") + "'"


# ---- ranges


def range_of(where: str | None, column: str) -> tuple[float | None, float | None]:
    """Return the bounds (lowest, highest) that the condition sets on a column, None for no bound."""
    said = [found for part in clauses(where) if (found := _bounds(part)) and _same(found[0], column)]
    lows = [low for _, low, _ in said if low is not None]
    highs = [high for _, _, high in said if high is not None]
    return max(lows, default=None), min(highs, default=None)


def with_range(
    where: str | None, column: str, low: float | None, high: float | None, *, step: float | None = None
) -> str | None:
    """Return the condition with these bounds on a column in place of its own, rounded to a part of `step`."""
    kept = [part for part in clauses(where) if not _same((_bounds(part) or ("",))[0], column)]
    said = range_sql(name(column), low, high, step=step)
    return joined([*kept, said] if said else kept)


def range_sql(sql: str, low: float | None, high: float | None, *, step: float | None = None) -> str | None:
    """Return the condition that an expression lies between two numbers, either of which may be None; None for both.

    Numbers are rounded to the decimals of `step`, which somebody can read, and is exact without one.
    """
    low, high = (None if end is None else number(end, step=step) for end in (low, high))
    if low is not None and high is not None:
        return f"{sql} BETWEEN {low} AND {high}"
    if low is None and high is None:
        return None
    return f"{sql} >= {low}" if high is None else f"{sql} <= {high}"


def number(value: float, *, step: float | None = None) -> str:
    """Return a number as SQL takes it, with the decimals that a step has, at least those of a hundredth of it."""
    if step is not None:
        value = round(value, digits_of(step))
        if abs(value) >= 1e7:
            return f"{value:.12g}"
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def digits_of(step: float) -> int:
    """Return how many decimals tell numbers apart that differ by a step; below 0 for steps of tens and more."""
    return 1 - math.floor(math.log10(step)) if step > 0 and math.isfinite(step) else 15


def _bounds(part: str) -> tuple[str, float | None, float | None] | None:
    found = _BETWEEN.fullmatch(part)
    if found:
        return _named(found, 1), float(found[3]), float(found[4])
    found = _BOUND.fullmatch(part)
    if not found:
        return None
    value = float(found[4])
    return (_named(found, 1), value, None) if found[3].startswith(">") else (_named(found, 1), None, value)


def _same(one: str, other: str) -> bool:
    """Say whether two names are of one column: DuckDB does not tell upper from lower case."""
    return one.casefold() == other.casefold()


def _named(found: re.Match, group: int) -> str:
    return found[group + 1] if found[group] is None else found[group].replace('""', '"')


# ---- values


def values_of(where: str | None, column: str) -> list[str | bool]:
    """Return which values of a column the condition keeps; [] for all."""
    for part in clauses(where):
        found = _values(part)
        if found and _same(found[0], column):
            return found[1]
    return []


def with_values(where: str | None, column: str, values: list[str | bool]) -> str | None:
    """Return the condition with these values of a column kept in place of its own; none, or both truths, keeps all."""
    kept = [part for part in clauses(where) if not _same((_values(part) or ("",))[0], column)]
    truths = [value for value in values if isinstance(value, bool)]
    if len(truths) == 1:
        kept.append(name(column) if truths[0] else f"NOT {name(column)}")
    elif values and not truths:
        kept.append(f"{name(column)} IN ({', '.join(text(value) for value in values)})")
    return joined(kept)


def _values(part: str) -> tuple[str, list[str | bool]] | None:
    found = _IN.fullmatch(part)
    if found:
        return _named(found, 1), [one[1:-1].replace("''", "'") for one in re.findall(_STRING, found[3])]
    found = _IS.fullmatch(part)
    return (_named(found, 2), [not found[1]]) if found else None


def without(where: str | None, column: str) -> str | None:
    """Return the condition without what it recognizably says of one column."""
    return with_range(with_values(where, column, []), column, None, None)
