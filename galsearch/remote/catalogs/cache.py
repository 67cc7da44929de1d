"""Answers of catalog services on disk: what each has near a position, with the day and the version of the service.

One SQLite file. Only answers are kept, never failures; an old one, or one of another kind of question, is not used.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from galsearch.errors import GalsearchError
from galsearch.remote.catalogs.service import Source, linked

LAYOUT = 1  # of the file; another one is not read
MAX_AGE_DAYS = 30.0
AT_ONCE = 500  # keys looked up with one statement
_TABLE = (
    "CREATE TABLE IF NOT EXISTS answers "
    "(key TEXT PRIMARY KEY, answered TEXT NOT NULL, version TEXT, sources TEXT NOT NULL)"
)


@dataclass(frozen=True)
class Answer:
    """What a service has near one position, when it said so, and its version where it states one."""

    sources: tuple[Source, ...]
    answered: str
    version: str | None = None


def default_path() -> Path:
    """Return where answers are kept unless somebody says: in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "galsearch" / "catalogs.sqlite"


class Cache:
    """Kept answers by key; open one in each thread. `max_age_days` 0 uses none and keeps all."""

    def __init__(self, path: Path, *, max_age_days: float = MAX_AGE_DAYS) -> None:
        self.path, self.max_age_days = path, max_age_days
        self.trouble: str | None = None  # why answers are not kept

    def get(self, keys: Sequence[str]) -> dict[str, Answer]:
        """Return the answers that are there and young enough."""
        if not self.path.exists() or self.max_age_days <= 0:
            return {}
        oldest = (datetime.now(UTC) - timedelta(days=self.max_age_days)).strftime("%Y-%m-%dT%H:%M:%SZ")
        result: dict[str, Answer] = {}
        try:
            with closing(self._open()) as connection:
                for start in range(0, len(keys), AT_ONCE):
                    part = keys[start : start + AT_ONCE]
                    marks = ",".join("?" * len(part))
                    rows = connection.execute(
                        f"SELECT * FROM answers WHERE key IN ({marks}) AND answered >= ?", [*part, oldest]
                    )
                    result |= {key: _read(answered, version, text) for key, answered, version, text in rows}
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise GalsearchError(
                f"{self.path} is no readable cache of answers ({error}); remove it, or name another with --cache"
            ) from None
        return result

    def put(self, answers: dict[str, Answer]) -> None:
        """Keep answers, all or none. Where they cannot be kept, `trouble` says why; nothing else is lost."""
        rows = [(key, one.answered, one.version, json.dumps(one.sources)) for key, one in answers.items()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            self.trouble = f"answers are not kept in {self.path} ({error}); the next run asks for them again"

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30.0)
        try:
            layout = connection.execute("PRAGMA user_version").fetchone()[0]
            if layout not in (0, LAYOUT):
                raise sqlite3.DatabaseError(f"layout {layout}, this galsearch knows {LAYOUT}")
            if layout == 0:
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA user_version = {LAYOUT}")
        except BaseException:
            connection.close()
            raise
        return connection


def _read(answered: str, version: str | None, text: str) -> Answer:
    return Answer(tuple(linked(row[:4], *row[4:]) for row in json.loads(text)), answered, version)
