"""ADQL as SQL of DuckDB: names of tables, functions, geometry; and which parts the index of vectors is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlglot import exp

from galsearch.adql import geometry
from galsearch.adql.dialect import Raw, parsed, written
from galsearch.errors import QueryError
from galsearch.escaping import is_text

SCHEMA = "galsearch"  # of the tables of the atlas
UPLOADS = "tap_upload"
SIMILARITY, LIKE = "gs_similarity", "gs_like"
MOST_SEARCHES = 4  # of one query by the index
GALAXIES, KEY = "galaxies", "object_id"
_SHAPES = ("POINT", "CIRCLE", "BOX", "POLYGON", "CENTROID")
_PREDICATES = {"CONTAINS": geometry.contains, "INTERSECTS": geometry.intersects}
_PLAIN = {"ROUND": "round", "LOG10": "log10", "TRUNCATE": "trunc", "RAND": "random"}


@dataclass(frozen=True)
class Search:
    """What the index is asked for: the `k` objects that pass `where` most like words or an object, as table `name`."""

    name: str
    kind: str
    value: str
    by: str | None
    where: str | None
    k: int


@dataclass(frozen=True)
class Translation:
    """A query as SQL of DuckDB, which names the tables in `beside` and what the `searches` give.

    `origins` says of columns of the answer which "table.column" they are unchanged.
    """

    sql: str
    beside: tuple[str, ...]
    searches: tuple[Search, ...]
    origins: Mapping[str, str]


@dataclass(frozen=True)
class Known:
    """What may be named: columns by table of the atlas, tables beside it by "schema.table", embeddings with words."""

    tables: Mapping[str, Sequence[str]]
    beside: Mapping[str, str]
    beside_columns: Mapping[str, Sequence[str]]
    embeddings: Mapping[str, str]
    main: str | None

    def columns(self, table: str) -> Sequence[str]:
        """Return the columns of a table by its name inside."""
        return self.tables.get(table) or self.beside_columns.get(table) or ()


def task(payload: bytes, *, text: str, known: dict, most: int) -> tuple[dict, bytes]:
    """Translate, as a task of a worker process: a parser in Python takes what time it takes."""
    return asdict(translate(text, Known(**known), most=most)), b""


def of_facts(facts: Mapping) -> Translation:
    """Return the translation that a worker sent."""
    searches = tuple(Search(**one) for one in facts["searches"])
    return Translation(str(facts["sql"]), tuple(facts["beside"]), searches, dict(facts["origins"]))


def translate(text: str, known: Known, *, most: int) -> Translation:
    """Return ADQL as SQL that gives at most `most` + 1 rows. Raises QueryError for what is no query over `known`."""
    if not is_text(text) or "\0" in text:
        raise QueryError("the query is not valid Unicode text; check its encoding")
    try:
        return _Translator(parsed(text), known).translation(most)
    except RecursionError:
        raise QueryError("the query is nested too deeply; write it with fewer brackets") from None


class _Translator:
    def __init__(self, tree: Any, known: Known) -> None:
        self.tree, self.known = tree, known
        self.beside: dict[str, None] = {}
        self.searches: list[Search] = []
        self.common = {one.alias.lower() for one in tree.find_all(exp.CTE)}

    def translation(self, most: int) -> Translation:
        for table in list(self.tree.find_all(exp.Table)):
            self._name_table(table)
        for column in list(self.tree.find_all(exp.Column)):
            for part in ("db", "catalog"):
                column.set(part, None)
        for select in list(self.tree.find_all(exp.Select)):
            self._check_select(select)
        _name_columns(self.tree)
        origins = self._origins()
        for select in list(self.tree.find_all(exp.Select)):
            self._plan(select)
        self.tree = self._functions(self.tree)
        _bound(self.tree, most)
        return Translation(written(self.tree), tuple(self.beside), tuple(self.searches), origins)

    # ---- tables

    def _name_table(self, table: exp.Table) -> None:
        """Give a table its name inside, and let its own name stand as its alias."""
        if not isinstance(table.this, exp.Identifier):
            raise QueryError(f"FROM names {written(table)[:60]}, and ADQL has no functions that give tables")
        name, group = table.name, table.db.lower()
        if not group and name.lower() in self.common:
            return
        full = f"{group}.{name}".lower() if group and group != SCHEMA else name.lower()
        inside = self.known.beside.get(full)
        own = {one.lower(): one for one in self.known.tables}
        if table.catalog or (inside is None and full not in own):
            there = ", ".join([*self.known.tables, *self.known.beside])
            raise QueryError(f"there is no table '{_full(table)[:80]}'; there are: {there[:600]}")
        if inside is not None:
            self.beside[inside] = None
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(name, quoted=True)))
        table.set("db", None)
        table.set("this", exp.to_identifier(inside or own[full], quoted=True))

    def _check_select(self, select: exp.Select) -> None:
        if not select.expressions:
            raise QueryError("SELECT names no columns; write those, or *")
        for clause in ("into", "locks", "pivots", "sample", "qualify", "windows", "laterals", "connect", "distribute"):
            if select.args.get(clause):
                raise QueryError(f"ADQL has no {clause.upper()}")

    def _origins(self) -> dict[str, str]:
        """Return where columns come from unchanged, of a select whose FROM names tables."""
        select = self.tree
        start = select.args.get("from_") if isinstance(select, exp.Select) else None
        if start is None:
            return {}
        sources = [start.this, *(one.this for one in select.args.get("joins") or [])]
        tables = {one.alias_or_name.lower(): one.name for one in sources if isinstance(one, exp.Table)}
        origins: dict[str, str] = {}
        for one in select.expressions:
            column = one.this if isinstance(one, exp.Alias) else one
            if isinstance(column, exp.Star) or (isinstance(column, exp.Column) and isinstance(column.this, exp.Star)):
                chosen = [tables.get(column.table.lower(), "")] if isinstance(column, exp.Column) else tables.values()
                every = [(name, table) for table in chosen for name in self.known.columns(table)]
                origins = {name: f"{table}.{name}" for name, table in reversed(every)} | origins
            elif isinstance(column, exp.Column):
                table = self._home(column, tables)
                if table is not None:
                    origins[one.alias_or_name] = f"{table}.{column.name}"
        return origins

    def _home(self, column: exp.Column, tables: Mapping[str, str]) -> str | None:
        """Return the table that a column is of."""
        if column.table:
            return tables.get(column.table.lower())
        name = column.name.lower()
        return next((one for one in tables.values() if name in map(str.lower, self.known.columns(one))), None)

    # ---- similarity

    def _plan(self, select: exp.Select) -> None:
        """Let the index answer a TOP query over the galaxies that is ordered by a similarity, downward."""
        call = self._ordering(select)
        top = _number(select.args.get("limit"))
        if call is None or top is None or len(self.searches) >= MOST_SEARCHES:
            return
        table = select.args["from_"].this
        k = top + (_number(select.args.get("offset")) or 0)
        if not 1 <= k <= 100_000:
            return
        name = f"gs_search_{len(self.searches)}"
        kind, value, by = self._term_of(call)
        self.searches.append(Search(name, kind, value, by, self._condition(select), k))
        if any(isinstance(one, exp.Star) for one in select.expressions):
            every = [exp.Column(this=exp.Star(), table=exp.to_identifier(table.alias_or_name, quoted=True))
                     if isinstance(one, exp.Star) else one for one in select.expressions]  # fmt: skip
            select.set("expressions", every)
        on = f'"{name}".gs_id = {_quoted(table.alias_or_name)}."{KEY}"'
        joined = exp.Join(this=exp.to_table(name, dialect="duckdb"), kind="INNER", on=Raw(this=on))
        select.set("joins", [joined])
        select.set("where", None)
        calls = list(select.find_all(exp.Anonymous))
        same = [one for one in calls if one == call and one.find_ancestor(exp.Select) is select]
        for one in same:
            one.replace(Raw(this=f'"{name}".gs_score'))
        last = exp.Ordered(this=Raw(this=f'{_quoted(table.alias_or_name)}."{KEY}"'), desc=False)
        select.args["order"].append("expressions", last)

    def _ordering(self, select: exp.Select) -> exp.Anonymous | None:
        """Return the similarity that a plain select over the galaxies is ordered by first, downward."""
        order, start = select.args.get("order"), select.args.get("from_")
        others = ("joins", "group", "having", "distinct", "with_")
        if order is None or start is None or GALAXIES in self.common or any(select.args.get(one) for one in others):
            return None
        table, first = start.this, order.expressions[0]
        if not isinstance(table, exp.Table) or table.name != GALAXIES or not first.args.get("desc"):
            return None
        named = {one.alias.lower(): one.this for one in select.expressions if isinstance(one, exp.Alias)}
        key = first.this
        if isinstance(key, exp.Column) and not key.table and key.name.lower() in named:
            key = named[key.name.lower()]
        where = select.args.get("where")
        nested = where is not None and (
            where.find(exp.Query) or any(map(_is_similarity, where.find_all(exp.Anonymous)))
        )
        return key if _is_similarity(key) and not nested and len(order.expressions) == 1 else None

    def _condition(self, select: exp.Select) -> str | None:
        """Return what a select asks of its rows as a condition on the columns of galaxies alone."""
        where = select.args.get("where")
        if where is None:
            return None
        alone = exp.Paren(this=where.this.copy())
        for column in alone.find_all(exp.Column):
            column.set("table", None)
        return written(self._functions(alone))

    def _term_of(self, call: exp.Anonymous) -> tuple[str, str, str]:
        """Return the kind of term, its value and the embedding that a similarity is about."""
        name, given = call.name.lower(), call.expressions
        texts = [one.this for one in given if isinstance(one, exp.Literal) and one.is_string]
        if len(texts) != len(given) or len(texts) not in (1, 2):
            example = f"{SIMILARITY}('ring galaxy')" if name == SIMILARITY else f"{LIKE}('object_id')"
            raise QueryError(
                f"{name} takes a text that is written out, such as {example}, and the name of an embedding"
            )
        by = texts[1] if len(texts) == 2 else self.known.main or ""
        if by not in self.known.embeddings:
            there = ", ".join(self.known.embeddings) or "none"
            raise QueryError(f"{name} is of the embedding {by!r:.60}, there are: {there}")
        if name == SIMILARITY and not self.known.embeddings[by]:
            raise QueryError(f"words cannot be compared in the embedding {by!r:.60}; use {LIKE}('object_id')")
        if not texts[0].strip():
            raise QueryError(f"the text of {name} is empty")
        return ("text" if name == SIMILARITY else "object"), texts[0], by

    def _scored(self, call: exp.Anonymous) -> str:
        """Return a similarity as a value of the row that it stands in."""
        kind, value, by = self._term_of(call)
        select: Any = call.find_ancestor(exp.Select)
        alias = self._object(select)
        vector = self.known.embeddings[by] if kind == "text" else ""
        suffix = "" if by == self.known.main else f"_{by}"
        literal = "'" + value.replace("'", "''") + "'"
        query = f"{vector}({literal})" if kind == "text" else f"like_object{suffix}({literal})"
        scored = f"list_dot_product(CAST(gs_vectors.embedding AS FLOAT[]), CAST({query} AS FLOAT[]))"
        return f'SELECT {scored} FROM "embedding_{by}" gs_vectors WHERE gs_vectors."{KEY}" = {alias}."{KEY}"'

    def _object(self, select: Any) -> str:
        """Return the name of the table in a select whose objects a similarity is about."""
        start = None if select is None else select.args.get("from_")
        tables = [] if start is None else [start.this, *(one.this for one in select.args.get("joins") or [])]
        plain = [one for one in tables if isinstance(one, exp.Table)]
        mine = [one for one in plain if one.name == GALAXIES]
        mine += [one for one in plain if KEY in self.known.tables.get(one.name, ())]
        if not mine:
            raise QueryError(f"{SIMILARITY} and {LIKE} stand in a SELECT whose FROM names {GALAXIES}")
        return _quoted(mine[0].alias_or_name)

    # ---- functions

    def _functions(self, tree: Any) -> Any:
        """Replace what ADQL calls otherwise than DuckDB, from the inside out."""
        _flag_comparisons(tree)
        for node in reversed(list(tree.walk(bfs=True))):
            made = self._replaced(node)
            if made is not None:
                if node is tree:
                    return Raw(this=made)
                node.replace(Raw(this=made))
        return tree

    def _replaced(self, node: Any) -> str | None:
        if not isinstance(node, exp.Anonymous):
            return None
        name = node.name.upper()
        if name in _PLAIN:
            return f"{_PLAIN[name]}({', '.join(map(written, node.expressions))})"
        if name in _SHAPES:
            outer = node.parent.name.upper() if isinstance(node.parent, exp.Anonymous) else ""
            return None if outer in _TAKES_SHAPES else geometry.value(_shape(node))
        if _is_similarity(node):
            return self._scored(node)
        made = _VALUES.get(name)
        return None if made is None else made(node)


def _flag_comparisons(tree: Any) -> None:
    """Turn CONTAINS(…) = 1, which is how ADQL writes a condition, into the condition itself."""
    for node in list(tree.find_all(exp.EQ)):
        for call, number in ((node.this, node.expression), (node.expression, node.this)):
            is_call = isinstance(call, exp.Anonymous) and call.name.upper() in _PREDICATES
            if is_call and isinstance(number, exp.Literal) and number.this in ("0", "1"):
                call.set("is_condition", True)
                if node.parent is not None:
                    node.replace(call if number.this == "1" else exp.Not(this=call))
                break


def _predicate(node: exp.Anonymous) -> str:
    first, second = _arguments(node, 2)
    condition = _PREDICATES[node.name.upper()](_shape(first), _shape(second))
    return condition if node.args.get("is_condition") else f"CAST(({condition}) AS INTEGER)"


def _distance(node: exp.Anonymous) -> str:
    given = node.expressions
    if len(given) == 4:
        numbers = [written(one) for one in given]
        return geometry.separation(geometry.Point(*numbers[:2]), geometry.Point(*numbers[2:]))
    first, second = (_point(one) for one in _arguments(node, 2))
    return geometry.separation(first, second)


def _coordinate(node: exp.Anonymous) -> str:
    point = _point(_arguments(node, 1)[0])
    return point.ra if node.name.upper() == "COORD1" else point.dec


def _area(node: exp.Anonymous) -> str:
    return geometry.area(_shape(_arguments(node, 1)[0]))


def _square(node: exp.Anonymous) -> str:
    return f"pow({written(_arguments(node, 1)[0])}, 2)"


def _frame(node: exp.Anonymous) -> str:
    _shape(_arguments(node, 1)[0])
    return "'ICRS'"


_VALUES: dict[str, Callable[[exp.Anonymous], str]] = {
    **dict.fromkeys(_PREDICATES, _predicate),
    "DISTANCE": _distance,
    "COORD1": _coordinate,
    "COORD2": _coordinate,
    "COORDSYS": _frame,
    "AREA": _area,
    "SQUARE": _square,
}
_TAKES_SHAPES = {*_PREDICATES, *_SHAPES, "DISTANCE", "COORD1", "COORD2", "COORDSYS", "AREA"}


def _arguments(node: exp.Anonymous, count: int) -> list[Any]:
    if len(node.expressions) != count:
        given = len(node.expressions)
        raise QueryError(f"{node.name.upper()} has {given} arguments, expected {count}")
    return node.expressions


def _shape(node: Any) -> geometry.Shape:
    """Return the shape that a call makes; the name of a frame in front of its numbers is ICRS or empty."""
    name = node.name.upper() if isinstance(node, exp.Anonymous) else ""
    if name not in _SHAPES:
        made = written(node)[:60]
        raise QueryError(f"{made} is no geometry; write POINT(ra, dec), CIRCLE(…), BOX(…) or POLYGON(…)")
    given = list(node.expressions)
    if name == "CENTROID":
        return geometry.center(_shape(_arguments(node, 1)[0]))
    if given and isinstance(given[0], exp.Literal) and given[0].is_string:
        frame = given.pop(0).this.strip().upper()
        if frame not in ("", "ICRS", "ICRS GEOCENTER", "ICRS BARYCENTER", "UNKNOWNFRAME"):
            raise QueryError(f"the frame of {name} is {frame!r:.40}; all positions here are ICRS")
    points, numbers = _read(name, given)
    return _MADE[name](name, points, numbers)


def _read(name: str, given: list[Any]) -> tuple[list[geometry.Point], list[str]]:
    """Return the points in front, written as POINT(…) or as pairs of numbers, and the numbers after them."""
    points: list[geometry.Point] = []
    while given and isinstance(given[0], exp.Anonymous) and given[0].name.upper() in ("POINT", "CENTROID"):
        points.append(_point(given.pop(0)))
    numbers = [written(one) for one in given]
    count = {"POINT": 1, "CIRCLE": 1, "BOX": 1}.get(name, len(numbers) // 2)
    if not points or name == "POINT":
        while len(points) < count and len(numbers) >= 2:
            points.append(geometry.Point(numbers.pop(0), numbers.pop(0)))
    return points, numbers


def _made(name: str, points: list[geometry.Point], numbers: list[str]) -> geometry.Shape:
    sizes = {"POINT": 0, "CIRCLE": 1, "BOX": 2}
    if len(points) != 1 or len(numbers) != sizes[name]:
        wanted = {"POINT": "ra, dec", "CIRCLE": "a center and a radius", "BOX": "a center, a width and a height"}[name]
        raise QueryError(f"{name} takes {wanted}, in degrees")
    if name == "POINT":
        return points[0]
    return geometry.Circle(points[0], numbers[0]) if name == "CIRCLE" else geometry.Box(points[0], *numbers)


def _polygon(name: str, points: list[geometry.Point], numbers: list[str]) -> geometry.Shape:
    if len(points) < 3 or numbers:
        raise QueryError("POLYGON takes three corners or more, each as two numbers in degrees or as POINT(ra, dec)")
    return geometry.Polygon(tuple(points))


_MADE: dict[str, Callable[[str, list[geometry.Point], list[str]], geometry.Shape]] = {
    **dict.fromkeys(("POINT", "CIRCLE", "BOX"), _made),
    "POLYGON": _polygon,
}


def _point(node: Any) -> geometry.Point:
    shape = _shape(node)
    if not isinstance(shape, geometry.Point):
        raise QueryError(f"{written(node)[:60]} is no point; write POINT(ra, dec)")
    return shape


def _is_similarity(node: Any) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() in (SIMILARITY, LIKE)


def _number(node: Any | None) -> int | None:
    """Return the number of a TOP or an OFFSET, None for none; what is no number cannot be bounded."""
    if node is None:
        return None
    stated = node.expression
    if not (isinstance(stated, exp.Literal) and not stated.is_string and stated.this.isdecimal()):
        raise QueryError(f"{written(node)[:60].strip()}: expected a whole number")
    return int(stated.this)


def _bound(tree: exp.Query, most: int) -> None:
    """Let the query give one row more than is wanted, at most, so that it is known whether there are more."""
    top = _number(tree.args.get("limit"))
    if top is None or top > most:
        tree.set("limit", exp.Limit(expression=exp.Literal.number(most + 1)))


def _name_columns(tree: exp.Query) -> None:
    """Name the columns of the answer that have no name."""
    select = tree
    while isinstance(select, (exp.SetOperation, exp.Subquery)):
        select = select.this
    if not isinstance(select, exp.Select):
        return
    used = {one.alias_or_name.lower() for one in select.expressions if one.alias_or_name}
    for number, one in enumerate(select.expressions, start=1):
        if isinstance(one, (exp.Alias, exp.Column, exp.Star)):
            continue
        base = (
            one.name.lower() if isinstance(one, exp.Anonymous) else one.key if isinstance(one, exp.Func) else "column"
        )
        name = base if base not in used and base != "column" else f"{base}_{number}"
        used.add(name)
        one.replace(exp.alias_(one.copy(), name, quoted=True))


def _full(table: exp.Table) -> str:
    return ".".join(filter(None, (table.catalog, table.db, table.name)))


@functools.cache
def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
