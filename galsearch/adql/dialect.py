"""The syntax of ADQL 2.1 as a dialect of sqlglot, and the trees of texts in it."""

from __future__ import annotations

from sqlglot import exp, parser, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError

from galsearch.errors import QueryError

MOST_CHARACTERS = 50_000
MOST_BRACKETS = 100  # nested; the parser calls itself for each
OWN = (  # functions that ADQL gives another meaning than other dialects, so they are read as plain calls
    "AREA", "BOX", "CENTROID", "CIRCLE", "CONTAINS", "COORD1", "COORD2", "COORDSYS", "DISTANCE", "INTERSECTS", "POINT",
    "LOG10", "POLYGON", "RAND", "REGION", "ROUND", "SQUARE", "TRUNCATE",
)  # fmt: skip


class Adql(Dialect):
    """ADQL: TOP, no null first, LOG is natural, geometry as plain calls."""

    NULL_ORDERING = "nulls_are_last"
    LOG_BASE_FIRST = None

    class Tokenizer(tokens.Tokenizer):
        """Words of ADQL."""

        KEYWORDS = {**tokens.Tokenizer.KEYWORDS, "TOP": tokens.TokenType.TOP}  # noqa: RUF012
        COMMENTS = ["--"]  # noqa: RUF012

    class Parser(parser.Parser):
        """Functions of ADQL."""

        LOG_DEFAULTS_TO_LN = True
        FUNCTIONS = {  # noqa: RUF012
            name: make for name, make in parser.Parser.FUNCTIONS.items() if name not in OWN
        }


class Raw(exp.Expression):
    """SQL of DuckDB that is final."""

    arg_types = {"this": True}  # noqa: RUF012


class Generator(DuckDB.Generator):  # type: ignore[misc, valid-type]
    """Writes trees as SQL of DuckDB."""

    TRANSFORMS = {**DuckDB.Generator.TRANSFORMS, Raw: lambda self, node: f"({node.this})"}  # noqa: RUF012


def parsed(text: str) -> exp.Query:
    """Return the tree of one query. Raises QueryError for anything else, with where it goes wrong."""
    if len(text) > MOST_CHARACTERS:
        raise QueryError(f"the query has {len(text):,} characters, at most {MOST_CHARACTERS:,} are read")
    if _depth(text) > MOST_BRACKETS:
        raise QueryError(f"the query has brackets nested more than {MOST_BRACKETS} deep; write it with fewer")
    try:
        trees = [tree for tree in Adql().parse(text.rstrip().removesuffix(";")) if tree is not None]
    except SqlglotError as error:
        raise QueryError(f"this is no ADQL: {_first(error)}") from None
    except RecursionError:
        raise QueryError("the query is nested too deeply; write it with fewer brackets") from None
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        kinds = " and ".join(tree.key.upper() for tree in trees) or "nothing"
        raise QueryError(f"got {kinds}, expected one SELECT")
    return trees[0]


def written(node: exp.Expression) -> str:
    """Return a tree as SQL of DuckDB."""
    return Generator(dialect=DuckDB(), comments=False).generate(node, copy=True)


def _depth(text: str) -> int:
    deep = most = 0
    for sign in text:
        deep += (sign == "(") - (sign == ")")
        most = max(most, deep)
    return most


def _first(error: SqlglotError) -> str:
    """Return what the parser says without the colors of a terminal."""
    stated = (getattr(error, "errors", None) or [{}])[0]
    if "description" in stated:
        where = f"line {stated['line']}, column {stated['col']}" if stated.get("line") else "its end"
        return f"{stated['description'].rstrip('.')}, at {where}, near {str(stated.get('highlight') or '')[:60]!r}"
    return " ".join(str(error).split())[:200]
