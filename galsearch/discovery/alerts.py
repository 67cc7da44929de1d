"""Saved searches with alerts: what passes a search now and did not when somebody last looked.

They are kept in an append-only file of their own, beside the atlas. Looking marks as seen only what was returned, and
only when it is told to, so that a run that ends before its result was read reports it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from galsearch import schema
from galsearch.discovery.journal import Journal, Row
from galsearch.errors import FormatError, QueryError
from galsearch.query import Query

FORMAT = "galsearch.searches"
MOST_NAME = 100
IDS_A_ROW = 200
SAVE, SEEN, DROP = "save", "seen", "drop"


@dataclass(frozen=True)
class SavedSearch:
    """A search under a name: the query, when it was saved, the least score that counts, and who was seen.

    `atlas` is the fingerprint of the atlas that it was saved on, `Atlas.fingerprint`; None where none was given. On the
    same one it returns the same.
    """

    name: str
    query: Query
    time: str
    least_score: float | None
    seen: frozenset[str]
    atlas: str | None = None


class Searches:
    """The saved searches of a file, or with `path` None of this object alone; a file that is not there is made.

    Raises FormatError for a file that is none of saved searches, or damaged.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._journal = Journal(path, kind=FORMAT)
        self.all()

    @property
    def path(self) -> Path | None:
        """Where they are kept; None for nowhere."""
        return self._journal.path

    def all(self) -> dict[str, SavedSearch]:
        """Return the searches by name, in the order in which they were saved."""
        return _played(self._journal.rows(), self._journal.name)

    def save(
        self,
        name: str,
        query: Query,
        atlas: Any = None,
        *,
        least_score: float | None = None,
        replace: bool = False,
    ) -> SavedSearch:
        """Keep a query under a name. Of `atlas` what passes now counts as seen.

        `least_score` is the cosine from which on a hit counts. With `replace` it takes the place of a search of that
        name, and what that one has seen is forgotten. Raises QueryError for a name that is none or is there already,
        for a query with a picture or spectrum file, which may be gone when it is asked again, and a score that is none.
        """
        if not isinstance(name, str) or not 1 <= len(name.strip()) <= MOST_NAME or not name.isprintable():
            raise QueryError(f"name is {name!r:.40}, expected 1 to {MOST_NAME} printable characters")
        name = name.strip()
        if any(term.is_file for term in query.terms):
            raise QueryError(
                "a search by a file cannot be saved: search by an object of the atlas, or by its embedding"
            )
        if least_score is not None and not -1 <= least_score <= 1:
            raise QueryError(f"least_score is {least_score!r:.40}, expected a cosine, -1 to 1")
        row: Row = {"what": SAVE, "name": name, "time": schema.now(), "query": query.to_json()}
        if least_score is not None:
            row["least_score"] = float(least_score)
        if atlas is not None:
            row["atlas"] = atlas.fingerprint
        ids = [] if atlas is None else _passing(atlas, query, least_score).ids

        def rows(there: list[Row]) -> list[Row]:
            if not replace and name in _played(there, self._journal.name):
                raise QueryError(
                    f"{self._journal.name} has a search {name!r:.60} already; choose another name, or replace it with "
                    "--replace (replace=True)"
                )
            return [row, *_seen_rows(name, ids)]

        self._journal.append(rows)
        return self.all()[name]

    def drop(self, name: str) -> None:
        """Forget a search. Raises QueryError where there is none of that name."""
        self.named(name)
        self._journal.append(lambda _: [{"what": DROP, "name": name, "time": schema.now()}])

    def new(self, atlas: Any, *, name: str | None = None) -> pa.Table:
        """Return hits of one search, or of all, that were not seen yet: search, object_id, score; nothing is marked.

        They are in the order of the searches, then of their hits. An object is new where it came into the atlas, or
        into what passes. `mark` marks them as seen.
        """
        chosen = [self.named(name)] if name is not None else list(self.all().values())
        rows = []
        for one in chosen:
            hits = _passing(atlas, one.query, one.least_score)
            scores = hits.scores if one.query.terms else [None] * len(hits)
            rows += [
                (one.name, object_id, score)
                for object_id, score in zip(hits.ids, scores, strict=True)
                if object_id not in one.seen
            ]
        names, ids, values = zip(*rows, strict=True) if rows else ((), (), ())
        fields = [pa.field("search", pa.string()), schema.arrow_field("object_id"), schema.hit_field("score")]
        columns = [pa.array(one, field.type) for one, field in zip((names, ids, values), fields, strict=True)]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))

    def mark(self, new: pa.Table) -> None:
        """Mark what `new` returned as seen; what is marked already changes nothing."""
        by_name: dict[str, list[str]] = {}
        for row in new.to_pylist():
            by_name.setdefault(row["search"], []).append(row["object_id"])

        def rows(there: list[Row]) -> Iterable[Row]:
            held = _played(there, self._journal.name)
            for name, ids in by_name.items():
                if name in held:
                    yield from _seen_rows(name, [one for one in ids if one not in held[name].seen])

        self._journal.append(rows)

    def named(self, name: str) -> SavedSearch:
        """Return the search of a name. Raises QueryError where there is none, naming those that there are."""
        held = self.all()
        if name not in held:
            raise QueryError(
                f"{self._journal.name} has no search {name!r:.60}, it has {', '.join(map(repr, held)) or 'none'}; save "
                "one with `galsearch search … --save-as NAME`"
            )
        return held[name]


def _passing(atlas: Any, query: Query, least_score: float | None) -> Any:
    hits = atlas.search(query)
    if least_score is None or not query.terms:
        return hits
    return hits[: sum(score >= least_score for score in hits.scores)]


def _seen_rows(name: str, ids: Sequence[str]) -> list[Row]:
    parts = range(0, len(ids), IDS_A_ROW)
    return [{"what": SEEN, "name": name, "time": schema.now(), "ids": list(ids[at : at + IDS_A_ROW])} for at in parts]


def _played(rows: Iterable[Row], path: str) -> dict[str, SavedSearch]:
    """Return the searches that the rows of a file come to."""
    held: dict[str, tuple[Row, Query, set[str]]] = {}
    acts: dict[str, Callable[[Row], Any]] = {
        SAVE: lambda row: held.update({row["name"]: (row, Query.from_json(row["query"]), set())}),
        SEEN: lambda row: held[row["name"]][2].update(map(str, row["ids"])) if row["name"] in held else None,
        DROP: lambda row: held.pop(row["name"], None),
    }
    try:
        for row in rows:
            acts[row["what"]](row)
        return {
            name: SavedSearch(
                name, query, str(row["time"]), row.get("least_score"), frozenset(seen), _text(row.get("atlas"))
            )
            for name, (row, query, seen) in held.items()
        }
    except (KeyError, TypeError, QueryError) as error:
        raise FormatError(
            f"{path} has a row that is no saved search ({error!s:.100}); restore it from a copy, or remove that row "
            "with an editor"
        ) from None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
