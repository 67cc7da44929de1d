"""Named sets of objects with marks and notes: where they are kept, and in which format.

They lie in a JSON file beside the atlas, never in it, so that a bundle can be replaced or sent without them. Where
nothing may be written they live in the session, to be downloaded and loaded again.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import galsearch

try:
    import fcntl
except ImportError:  # Windows: two apps at once may lose a mark of each other
    fcntl = None

FORMAT, VERSION = "galsearch.collections", 1
MARKS = ("true", "false", "uncertain")  # as the file has them
MARK_NAMES = {"true": "yes", "false": "no", "uncertain": "unsure"}  # as a person reads them, here and in exports
FIRST_NAME = "Marked"
MOST_SETS, MOST_MEMBERS, MOST_TEXT, MOST_BYTES = 200, 20_000, 2_000, 20_000_000
MOST_NAME = 60  # characters
_lock = threading.RLock()


class Sets:
    """The sets of one atlas: name -> {note, created, members: {object_id: {mark, note, time}}}.

    `path` is their file, None to keep them in this object alone. Every change reads the file again under a lock and
    writes it whole, so that two sessions, or two apps, lose nothing of each other.
    """

    def __init__(self, path: Path | None, atlas: str) -> None:
        self.path = path
        self._atlas = atlas
        self._held: dict[str, dict] = {}
        self._seen: tuple[int, int] | None = None

    @property
    def kept(self) -> bool:
        """Whether they are written to a file."""
        return self.path is not None

    def all(self) -> dict[str, dict]:
        """Return the sets as they are now, by name; do not change them."""
        if self.path is not None:
            with _lock:
                self._read()
        return self._held

    def members(self, name: str) -> dict[str, dict]:
        """Return the members of a set in the order they came in; {} for a set that is not there."""
        return self.all().get(name, {}).get("members", {})

    def create(self, name: str, note: str = "") -> None:
        """Make an empty set; one that is there gets the note."""
        self._change(lambda held: _set(held, name).update(note=_short(note)))

    def note(self, name: str, object_id: str, text: str) -> None:
        """Write a note on a member, which becomes one if it was none."""
        self._change(lambda held: _member(_set(held, name), object_id).update(note=_short(text)))

    def mark(self, name: str, object_ids: list[str], mark: str | None) -> None:
        """Mark objects as one of MARKS, or take the mark away; they become members."""
        if mark is not None and mark not in MARKS:
            raise galsearch.QueryError(f"the mark is {mark!r:.40}, expected one of {', '.join(MARKS)}, or nothing")

        def change(held: dict) -> None:
            for object_id in object_ids:
                _member(_set(held, name), object_id).update(mark=mark, time=_now())

        self._change(change)

    def add(self, name: str, object_ids: list[str]) -> None:
        """Put objects into a set; those that are in it stay as they are."""
        self._change(lambda held: [_member(_set(held, name), one) for one in object_ids])

    def drop(self, name: str, object_id: str) -> None:
        """Take an object out of a set."""
        self._change(lambda held: held.get(name, {}).get("members", {}).pop(object_id, None))

    def delete(self, name: str) -> None:
        """Delete a set."""
        self._change(lambda held: held.pop(name, None))

    def rename(self, old: str, new: str) -> None:
        """Call a set something else; QueryError where another has that name."""

        def change(held: dict) -> None:
            if new in held:
                raise galsearch.QueryError(f"there is a set called {new!r:.60} already; choose another name")
            renamed = {_name(new) if name == old else name: value for name, value in held.items()}
            held.clear()
            held.update(renamed)

        self._change(change)

    def to_json(self) -> str:
        """Return all sets as the text of their file."""
        whole = {"format": FORMAT, "version": VERSION, "atlas": self._atlas, "sets": self.all()}
        return json.dumps(whole, ensure_ascii=False, indent=1)

    def merge(self, text: str) -> int:
        """Add the sets of another such file, its marks replacing those here; return how many sets it has."""
        others = parse(text, "the file")

        def change(held: dict) -> None:
            for name, other in others.items():
                mine = _set(held, name)
                mine["note"] = other["note"] or mine["note"]
                for object_id, member in other["members"].items():
                    _member(mine, object_id).update(member)

        self._change(change)
        return len(others)

    def _change(self, change: Callable[[dict], object]) -> None:
        with _lock, self._file_lock():
            if self.path is not None:
                self._read()
            held = json.loads(json.dumps(self._held))
            change(held)
            _check(held)
            self._held = held
            if self.path is not None:
                self._write()

    def _read(self) -> None:
        try:
            about = self.path.stat()
        except FileNotFoundError:
            self._held, self._seen = {}, None
            return
        seen = (about.st_mtime_ns, about.st_size)
        if seen != self._seen:
            self._held, self._seen = parse(self.path.read_text(encoding="utf-8"), str(self.path)), seen

    def _write(self) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            whole = {"format": FORMAT, "version": VERSION, "atlas": self._atlas, "sets": self._held}
            json.dump(whole, file, ensure_ascii=False, indent=1)
        Path(name).chmod(0o644)
        Path(name).replace(self.path)
        about = self.path.stat()
        self._seen = (about.st_mtime_ns, about.st_size)

    @contextlib.contextmanager
    def _file_lock(self) -> Iterator[None]:
        """Keep other processes from changing the file; its folder is locked, which leaves nothing behind."""
        if self.path is None or fcntl is None:
            yield
            return
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def beside(atlas: Path) -> Path:
    """Return where the sets of an atlas are kept: xdf.duckdb and xdf.atlas have xdf.collections.json."""
    return atlas.with_suffix(".collections.json")


def parse(text: str, said: str) -> dict[str, dict]:
    """Return the sets of a file's text; FormatError when it is not one of ours."""
    try:
        whole = json.loads(text)
        if whole["format"] != FORMAT or whole["version"] > VERSION:
            raise ValueError(f"format {whole['format']!r:.40} {whole['version']!r:.10}")
        sets = {_name(name): _parsed(value) for name, value in whole["sets"].items()}
        _check(sets)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise galsearch.FormatError(
            f"{said}: not a file of collections that this version reads ({error!s:.120}); "
            "move it away, or take the file that an app has written"
        ) from None
    return sets


def _parsed(value: dict) -> dict:
    members = {
        str(object_id): {
            "mark": member["mark"] if member.get("mark") in MARKS else None,
            "note": _short(member.get("note") or ""),
            "time": str(member.get("time") or _now())[:40],
        }
        for object_id, member in value["members"].items()
    }
    created = str(value.get("created") or _now())[:40]
    return {"note": _short(value.get("note") or ""), "created": created, "members": members}


def _set(held: dict, name: str) -> dict:
    return held.setdefault(_name(name), {"note": "", "created": _now(), "members": {}})


def _member(one: dict, object_id: str) -> dict:
    return one["members"].setdefault(object_id, {"mark": None, "note": "", "time": _now()})


def _name(name: str) -> str:
    tidy = " ".join(str(name).encode(errors="replace").decode().replace("\0", "").split())
    if not 1 <= len(tidy) <= MOST_NAME:
        raise galsearch.QueryError(f"the name has {len(tidy)} characters, expected 1 to {MOST_NAME}; write another")
    return tidy


def _check(held: dict) -> None:
    most = max((len(one["members"]) for one in held.values()), default=0)
    if len(held) > MOST_SETS or most > MOST_MEMBERS:
        raise galsearch.QueryError(
            f"{len(held)} sets, the largest of {most}; at most {MOST_SETS} sets of {MOST_MEMBERS} objects are kept"
        )


def _short(text: str) -> str:
    return str(text).encode(errors="replace").decode().replace("\0", "").strip()[:MOST_TEXT]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
