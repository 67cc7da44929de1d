"""The one door through which SQL text reaches DuckDB: read-only, no files, no network, locked settings, a time limit.

A user's `where` comes from a text box. It is checked to be a single expression before it is put into a statement, and
the connection that runs it could not write or read a file even if that check had a hole.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from galsearch.errors import EngineError, FormatError, GalsearchError, LimitError, QueryError
from galsearch.escaping import is_text

if TYPE_CHECKING:
    from galsearch.store.files import Content
    from galsearch.store.sql.served import Served
    from galsearch.store.sql.visitors import Visits

TIME_LIMIT_SECONDS = 60.0
OWN_LIMIT_SECONDS = 1_800.0  # for statements of our own, which read a whole table at most
CLOSING_SECONDS = 2.0  # for a thread to leave a connection that is closed under it
LOOK_SECONDS = 0.5  # between looks for what has run longer
MAX_WHERE = 100_000  # characters; parsing takes time that grows with the square of the terms, and has no limit
NAME = "atlas"  # what the file is called inside; its macros name tables without it
_FROM_THE_START: dict[str, str | bool | int | float | list[str]] = {
    "autoload_known_extensions": "false",  # DuckDB would fetch one for a file of another database
    "autoinstall_known_extensions": "false",
    "home_directory": "/",  # DuckDB says to whoever asks where it keeps things, and where it was refused to look
}
_SETTINGS = {
    "allow_persistent_secrets": "false",
    "temp_directory": "''",  # what does not fit into memory is refused: reading leaves no file anywhere
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}
_WHOLE_ROW_GROUPS = "storage_block_prefetch"  # what DuckDB reads of a remote file for one row: 20 times what is needed
_USER_ERRORS = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.InvalidInputException,
    duckdb.PermissionException,
    duckdb.SyntaxException,
    duckdb.TransactionException,
    duckdb.TypeMismatchException,
    duckdb.NotImplementedException,
    duckdb.ConstraintException,
)
NO_TEXT = (UnicodeDecodeError, pa.ArrowInvalid)  # DuckDB believes a file that its text is UTF-8


class Sandbox:
    """A locked, read-only DuckDB connection to one file; every thread works on a cursor of its own.

    The file is at `path`, or where that is no place on this machine, `content`, which DuckDB then reads through Python.
    """

    def __init__(self, path: Path, content: Content | None = None) -> None:
        self.path = path
        self.visits: Visits | None = None  # where the SQL of visitors runs instead of here
        self._connection, self._served = _connect(path, content)
        self._cursors: dict[int, duckdb.DuckDBPyConnection] = {}  # by thread
        self._prepared: set[int] = set()  # threads whose cursor sees the tables outside the file
        self._defined: dict[int, set[str]] = {}  # statements that ran for the cursors of threads
        self._lock = threading.Lock()
        self._embeds: set[str] = set()
        self.closed = False
        self.watch: Callable[[], None] = lambda: None  # raises when what lies below was changed meanwhile
        # DuckDB complains of what is alive when Python ends, so what nobody closed is closed then
        self._release = weakref.finalize(self, _close, self._connection, self._cursors, self._embeds)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return this thread's cursor."""
        thread = threading.get_ident()
        if thread not in self._cursors:
            with self._lock:  # not while it is closed
                self.check_open()
                self._cursors[thread] = self._connection.cursor()
                self._cursors[thread].execute(f"USE {NAME}")
        return self._cursors[thread]

    def catalog(self) -> duckdb.DuckDBPyConnection:
        """Return a cursor that sees nothing of the file but by its full name, so that nothing there hides ours."""
        self.check_open()
        return self._connection.cursor()

    def check_open(self) -> None:
        """Raise GalsearchError once it was closed."""
        if self.closed:
            raise GalsearchError(f"{self.path} was closed; open the atlas again")

    @contextlib.contextmanager
    def _running(self, cursor: duckdb.DuckDBPyConnection | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Have a cursor for one of our own statements: what fails, unless text does, is the file's fault."""
        self.check_open()
        try:
            cursor = cursor or self.cursor()
            with stoppable(), _limited(cursor, OWN_LIMIT_SECONDS):
                yield cursor
        except duckdb.InterruptException:
            self.check_open()
            raise FormatError(f"{self.path}: reading it was stopped after {OWN_LIMIT_SECONDS:g} s") from None
        except (duckdb.Error, *NO_TEXT) as error:
            self.check_open()
            self.watch()
            self._raise_cause(error)
            if "cannot encode str as UTF-8" in str(error):  # an id that somebody asked for
                raise QueryError("the text is not valid Unicode; check the encoding of the terminal") from None
            raise damaged(self.path, error) from None
        self.watch()

    def register_embed(self, name: str, embed: Callable[[str], list[float]], dim: int) -> None:
        """Make `name('words')` a SQL function that returns FLOAT[dim]; a second call changes nothing."""
        with self._lock:
            if name not in self._embeds:
                kind = self._connection.array_type("FLOAT", dim)
                self._connection.create_function(name, embed, ["VARCHAR"], kind)
                self._embeds.add(name)

    def register_tables(self, tables: dict[str, object]) -> None:
        """Make Arrow-readable `tables` visible to this thread's cursor."""
        thread = threading.get_ident()
        if thread not in self._prepared:
            with self._running() as cursor:
                for name, table in tables.items():
                    cursor.register(name, table)
            self._prepared.add(thread)

    @contextlib.contextmanager
    def beside(self, tables: Mapping[str, pa.Table]) -> Iterator[None]:
        """Let statements of this thread in the block name these tables too."""
        cursor = self.cursor()
        try:
            for name, table in tables.items():
                try:
                    cursor.register(name, table)
                except duckdb.Error as error:
                    raise QueryError(f"the table {name} cannot be asked in SQL: {_first_lines(error)}") from None
            yield
        finally:
            for name in tables:
                with contextlib.suppress(duckdb.Error):  # one that was not registered, or a closed connection
                    cursor.unregister(name)

    def define(self, statements: list[str]) -> None:
        """Run statements that create temporary macros for this thread's cursor, if they did not run for it before."""
        known = self._defined.setdefault(threading.get_ident(), set())
        for statement in statements:
            if statement not in known:
                with self._running() as cursor:
                    cursor.execute(statement)
                known.add(statement)

    def close(self) -> None:
        """Close the file; the sandbox cannot be used afterwards. What other threads ask of it is stopped."""
        with self._lock:
            self.closed = True
            cursors = list(self._cursors.values())
        for cursor in cursors:
            with contextlib.suppress(duckdb.Error):
                cursor.interrupt()
        self._release()

    def batches(self, statement: str, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one of our own statements in Arrow batches, in bounded memory."""
        with contextlib.closing(self.catalog()) as cursor, self._running(cursor):  # others may be asked meanwhile
            cursor.execute(f"USE {NAME}")
            for batch in cursor.sql(statement).to_arrow_reader(rows):
                batch.validate(full=True)
                yield batch

    def arrow(self, statement: str, parameters: list | None = None) -> pa.Table:
        """Run one of our own statements and return its rows; a failure means that the file is damaged."""
        with self._running() as cursor:
            return _table(cursor, statement, parameters)

    def rows(self, statement: str, parameters: list | None = None) -> list[tuple]:
        """Like `arrow`, as Python tuples; quicker for a few rows."""
        with self._running() as cursor:
            return cursor.execute(statement, parameters or []).fetchall()

    def select(self, statement: str, parameters: list | None = None, *, title: str) -> pa.Table:
        """Run a statement that holds a user's text `title`; what the user got wrong becomes a QueryError.

        The statement is interrupted after TIME_LIMIT_SECONDS.
        """
        if self.visits is not None:
            return self.visits.select(statement, parameters, title=title)
        return self.select_here(statement, parameters, title=title)

    def select_here(self, statement: str, parameters: list | None = None, *, title: str) -> pa.Table:
        """Like `select`, in this process whoever asks: for what `title` names and holds no text, such as a cone."""
        with self.running(title) as cursor:
            result = _table(cursor, statement, parameters)
        self.watch()
        return result

    @contextlib.contextmanager
    def running(self, title: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor for a statement that holds a user's text `title`, and name what goes wrong in the block."""
        self.check_open()
        try:
            cursor = self.cursor()
            with stoppable(), _limited(cursor, TIME_LIMIT_SECONDS):
                yield cursor
        except duckdb.InterruptException:
            self.check_open()
            raise LimitError(
                f"{title}: stopped after {TIME_LIMIT_SECONDS:g} s; add a cut or a LIMIT so that less is read"
            ) from None
        except duckdb.OutOfMemoryException:
            self.check_open()
            raise LimitError(
                f"{title}: takes more memory than there is for it; ask for less: a tighter condition, or a LIMIT"
            ) from None
        except _USER_ERRORS as error:
            self.check_open()
            self._raise_cause(error)
            raise QueryError(f"{title}: {_first_lines(error)}") from None
        except duckdb.InternalException as error:
            self.check_open()
            self.watch()
            self._raise_cause(error)
            raise EngineError(
                f"{title}: the SQL engine failed at it by an error of its own ({_first_lines(error)}); write it in "
                "another way, and see with `galsearch check` whether the file is whole"
            ) from None
        except (duckdb.Error, *NO_TEXT) as error:
            self.check_open()
            self.watch()
            self._raise_cause(error)
            raise damaged(self.path, error) from None
        except OSError as error:  # what DuckDB raises while Arrow reads its rows
            self.check_open()
            if "INTERRUPT" in str(error):
                raise LimitError(f"{title}: stopped after {TIME_LIMIT_SECONDS:g} s; add a cut or a LIMIT") from None
            self._raise_cause(error)
            raise QueryError(f"{title}: {_first_lines(error)}") from None

    def _raise_cause(self, error: Exception) -> None:
        """Raise what kept DuckDB from reading the file, where that was the reason of an error of its own."""
        cause = None if self._served is None else self._served.cause(error)
        if cause is not None:
            raise cause from None

    def check_select(self, text: str) -> None:
        """Raise QueryError unless `text` is exactly one SELECT (or FROM, WITH, VALUES, DESCRIBE) statement."""
        if not is_text(text):
            raise QueryError("sql: the text is not valid Unicode; check the encoding of the terminal")
        try:
            statements = self.cursor().extract_statements(text)
        except duckdb.Error as error:
            raise QueryError(f"sql: {_first_lines(error)}") from None
        kinds = [statement.type.name for statement in statements]
        if kinds not in (["SELECT"], ["EXPLAIN"]):
            raise QueryError(
                f"sql: got {' and '.join(kinds) or 'nothing'}, expected one SELECT statement; "
                "an atlas is read-only, change it with `galsearch add`"
            )

    def check_condition(self, where: str) -> None:
        """Raise QueryError unless `where` is one boolean expression, with nothing before or after it."""
        if self.visits is not None:
            return self.visits.check_condition(where)
        if len(where) > MAX_WHERE:
            raise QueryError(
                f"where has {len(where)} characters, at most {MAX_WHERE} are taken; "
                "use object_id IN (SELECT …) or a range instead of a long list"
            )
        if _is_enclosed(where):
            return None
        statements = self._parse(where)
        self._parse(where, between=("CASE WHEN", "THEN true END"))  # fails where it closes our bracket first
        if len(statements) != 1 or _around(statements[0]) != self._bare:
            raise QueryError(
                f'where is {shortened(where)}, expected one SQL condition such as "z < 0.1 AND mag_r < 17"; '
                "use sql() for whole statements"
            )
        # the tree does not hold everything: a named window may follow the bracket, but nothing but a condition AND
        self.select(f"SELECT count(*) FROM galaxies WHERE ({where}\n) AND false", title=f"where {shortened(where)}")
        return None

    def condition_tree(self, where: str) -> list[dict]:
        """Return the syntax trees of the statements that a condition in a SELECT turns out to be."""
        return self._parse(where)

    def select_tree(self, text: str) -> list[dict]:
        """Return the syntax trees of a statement that `check_select` has passed; of an EXPLAIN, of what it explains."""
        return self._tree(_EXPLAIN.sub("", text, count=1), title="sql")

    @functools.cached_property
    def _bare(self) -> dict:
        """The syntax tree around a condition that is alone."""
        return _around(self._parse("true")[0])

    def _parse(self, where: str, *, between: tuple[str, str] = ("(", ")")) -> list[dict]:
        """Return the syntax trees of the statements that `SELECT (where)`, or between others, turns out to be."""
        text = f"SELECT {between[0]} {where}\n{between[1]}"
        return self._tree(text, title=f"where is {shortened(where)}", expected="; expected one SQL condition")

    def _tree(self, text: str, *, title: str, expected: str = "") -> list[dict]:
        result = self.select("SELECT json_serialize_sql($1::VARCHAR) AS tree", [text], title=title)
        try:
            parsed = json.loads(result["tree"][0].as_py())
        except RecursionError:
            raise QueryError(f"{title}: nested too deeply; write it with fewer brackets") from None
        if parsed["error"]:
            raise QueryError(f"{title}: {parsed['error_message'][:200]}{expected}")
        return parsed["statements"]


def _table(cursor: duckdb.DuckDBPyConnection, statement: str, parameters: list | None) -> pa.Table:
    """Return the rows of a statement. Raises pa.ArrowInvalid where their text is not UTF-8."""
    result = cursor.sql(statement, params=parameters or []).to_arrow_table()
    result.validate(full=True)
    return result


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C be KeyboardInterrupt in the block, whatever DuckDB makes of it: a RuntimeError while it works."""
    try:
        yield
    except RuntimeError as error:
        if type(error) is not RuntimeError or str(error) != "Query interrupted":
            raise
        raise KeyboardInterrupt from None


_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?", re.IGNORECASE)
_PLAIN = re.compile(r"""(?:[\w\s.,<>=!+*/%:|&^~\[\]()-]|'[^']*'|"[^"]*")*""", re.ASCII)
_LITERAL = re.compile(r"""'[^']*'|"[^"]*\"""")
_WITH_QUOTE = re.compile(r"""[\w&]'|--|/\*""", re.ASCII)  # E'..', U&'..' and comments are read otherwise


def _is_enclosed(where: str) -> bool:
    """Say whether brackets around `where` certainly enclose it: nothing in it can close them or end the statement.

    Then DuckDB can only take it for an expression, or refuse it; what is not sure is left to the parser.
    """
    if not _PLAIN.fullmatch(where) or _WITH_QUOTE.search(where):
        return False
    depth = 0
    for sign in _LITERAL.sub("", where):
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            return False
    return depth == 0


def _around(statement: dict) -> dict:
    """Return a syntax tree without the one expression that it selects: what a condition must leave untouched."""
    node = statement["node"]
    selected = len(node.get("select_list", []))
    return {**statement, "node": {**node, "select_list": selected}}


def shortened(text: str) -> str:
    """Return text quoted for a message, at most 200 characters of it."""
    return repr(text if len(text) <= 200 else text[:199] + "…")


def short(error: BaseException) -> str:
    """Return what an engine title, in one line of bounded length."""
    return " ".join(str(error).split())[:160]


class _Watch:
    """One thread that interrupts what runs too long: starting or waking one for each question costs more than most.

    So it looks around by itself, every LOOK_SECONDS, and sleeps in between.
    """

    def __init__(self) -> None:
        self._due: dict[object, tuple[float, duckdb.DuckDBPyConnection]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def __call__(self, cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
        ticket = object()
        with self._lock:
            self._due[ticket] = time.monotonic() + seconds, cursor
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, daemon=True, name="galsearch time limit")
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._due.pop(ticket, None)

    def _run(self) -> None:
        while True:
            time.sleep(min(LOOK_SECONDS, TIME_LIMIT_SECONDS / 10))
            with self._lock:
                late = [cursor for due, cursor in self._due.values() if due <= time.monotonic()]
            for cursor in late:
                cursor.interrupt()


_limited = _Watch()


def _close(
    connection: duckdb.DuckDBPyConnection, cursors: dict[int, duckdb.DuckDBPyConnection], functions: set[str]
) -> None:
    for cursor in cursors.values():
        _close_when_free(cursor)
    cursors.clear()
    for name in functions:
        connection.remove_function(name)
    _close_when_free(connection)


def _close_when_free(connection: duckdb.DuckDBPyConnection) -> None:
    """Close a connection that another thread may be inside of: it is interrupted until it has left."""
    until = time.monotonic() + CLOSING_SECONDS
    while True:
        try:
            connection.close()
            return
        except duckdb.Error:
            if time.monotonic() > until:
                return  # whoever holds it closes it by letting go of it
        connection.interrupt()
        time.sleep(0.002)


def _connect(path: Path, content: Content | None) -> tuple[duckdb.DuckDBPyConnection, Served | None]:
    """Return a connection of its own to the file: opened by name, two atlases would share functions and settings."""
    connection = duckdb.connect(":memory:", config=_FROM_THE_START)
    served = None
    try:
        named = quoted(path)
        if content is not None:
            from galsearch.store.sql.served import ADDRESS, Served

            served, named = Served(content, connection), f"'{ADDRESS}'"
            with contextlib.suppress(duckdb.CatalogException):  # a DuckDB that reads block by block in any case
                connection.execute(f"SET {_WHOLE_ROW_GROUPS} = 'never'")
        connection.execute(f"ATTACH {named} AS {NAME} (TYPE duckdb, READ_ONLY)")
        for name, value in _SETTINGS.items():
            connection.execute(f"SET {name} = {value}")
    except (duckdb.Error, *NO_TEXT) as error:  # what it complains of may be no text either
        connection.close()
        cause = None if served is None else served.cause(error)
        raise cause or damaged(path, error) from None
    return connection, served


def use(settings: dict[str, str], *, seconds: float) -> None:
    """Let every sandbox that this process opens from now on have more settings and another time limit; for workers."""
    global TIME_LIMIT_SECONDS  # noqa: PLW0603  of a process that does nothing else
    TIME_LIMIT_SECONDS = seconds
    before = {name: value for name, value in _SETTINGS.items() if name not in settings}
    _SETTINGS.clear()
    _SETTINGS.update({**settings, **before})  # the last of ours locks them


def quoted(path: Path) -> str:
    """Return a path as a SQL string."""
    return "'" + str(path).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return the name of a table or column as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def damaged(path: Path, error: Exception) -> FormatError:
    """Return the FormatError for a DuckDB failure that our own statement cannot have caused."""
    reason = _first_lines(error).replace(str(path), f"{path}")
    return FormatError(
        f"{path}: cannot be read as a galsearch atlas ({reason}); the file is damaged, incomplete or "
        "not an atlas: copy it again from its source, or rebuild it"
    )


def _first_lines(error: Exception) -> str:
    """Return what DuckDB said without the caret drawing, and without a stack trace, which names our folders."""
    text = str(error).split("\n\nLINE ")[0].split("Stack Trace:")[0]
    return " ".join(text.split())[:400]
