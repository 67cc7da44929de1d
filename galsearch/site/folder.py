"""The folder of a static site: files named by their content, split under a host's limit, put in place without a gap.

Everything is written beside the folder first. Then the data files are moved in, which no older file has the name of;
replacing `site.json` is the commit; what only the site before needed is removed last. So a visitor, or whoever is
killed meanwhile, has the old site or the new one, and files of other people in the folder stay where they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from galsearch.atomic import PARTIAL, WriterLock
from galsearch.errors import FormatError, GalsearchError
from galsearch.store.write.disk import disk_errors

MANIFEST, DATA, ASSETS, PAGE = "site.json", "data", "assets", "index.html"
FORMAT, VERSION = "galsearch.site", "1.0"
OUR_DATA = re.compile(
    r"[a-z0-9_-]+-[0-9a-f]{12}\.(?:bin|duckdb)"
)  # what a site calls its files, and nobody else theirs
PIECE = 1 << 20
REMEDY = "free some space, or name a place that you may write to, then run the same command again"
MOST_MANIFEST = 64 << 20  # bytes of a site.json that is read to see whose it is

Entry = dict[str, Any]


class FileWriter:
    """A file of a site while it is written: its bytes go into parts of at most `most` bytes, one after the other."""

    def __init__(self, folder: Path, name: str, most: int) -> None:
        self._folder, self._name, self._most = folder, name, most
        self._parts: list[dict[str, Any]] = []
        self._open: Any = None
        self.bytes = 0

    def write(self, content: bytes | np.ndarray) -> None:
        """Add bytes."""
        left = np.frombuffer(content, np.uint8).data
        while left.nbytes:
            if self._open is None:
                self._path = self._folder / f"{self._name}.{len(self._parts)}"
                self._open, self._digest, self._held = self._path.open("wb"), hashlib.sha256(), 0
            piece = left[: min(PIECE, self._most - self._held)]
            self._open.write(piece)
            self._digest.update(piece)
            self._held += len(piece)
            self.bytes += len(piece)
            left = left[len(piece) :]
            if self._held == self._most:
                self._end_part()

    def _end_part(self) -> None:
        self._open.close()
        self._open = None
        self._parts.append(named(self._path, self._name, "bin", self._digest.hexdigest(), self._held))

    def close(self) -> None:
        """Close what is open; the file is not finished by it."""
        if self._open is not None:
            self._open.close()

    def entry(self) -> Entry:
        """Finish the file and return how site.json describes it; a file without a byte has no parts."""
        if self._open is not None:
            self._end_part()
        return {"parts": self._parts, "bytes": self.bytes}


def named(path: Path, name: str, suffix: str, digest: str, size: int) -> dict[str, Any]:
    """Give a finished file the name of its content; return the part of an entry that it is."""
    final = f"{name}-{digest[:12]}.{suffix}"
    path.replace(path.with_name(final))
    return {"path": f"{DATA}/{final}", "bytes": size, "sha256": digest}


class Staging:
    """The files of a site while it is written, in a folder beside it."""

    def __init__(self, folder: Path, most: int) -> None:
        self.data, self._most = folder / DATA, most
        self.data.mkdir(parents=True)
        self._writers: list[FileWriter] = []

    def file(self, name: str) -> FileWriter:
        """Begin a file."""
        self._writers.append(FileWriter(self.data, name, self._most))
        return self._writers[-1]

    def put(self, name: str, content: bytes | np.ndarray | Iterable[bytes | np.ndarray]) -> Entry:
        """Write a whole file from its bytes, or from pieces of them."""
        writer = self.file(name)
        for piece in (content,) if isinstance(content, bytes | np.ndarray) else content:
            writer.write(piece)
        return writer.entry()

    def array(self, name: str, values: np.ndarray, dtype: str) -> Entry:
        """Write numbers little-endian, by rows."""
        return self.put(name, np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8))

    def adopt(self, path: Path, name: str, suffix: str) -> Entry:
        """Take a file that lies in the data folder of this staging already, whole."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        part = named(path, name, suffix, digest, path.stat().st_size)
        return {"parts": [part], "bytes": part["bytes"]}

    def close(self) -> None:
        """Close every file."""
        for writer in self._writers:
            writer.close()


@contextmanager
def replacing_site(out: Path, *, most: int) -> Iterator[Staging]:
    """Give a staging for the site at `out`, and put what is in it in place when the block ends well.

    The block must have written `site.json`, index.html and the assets into the folder around `staging.data`. Raises
    GalsearchError where `out` holds something other than a site, another process writes it, or the disk is full.
    """
    check_target(out)
    out = out.resolve()
    aside = out.with_name(out.name + PARTIAL)
    with disk_errors(out, REMEDY), WriterLock(out):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            staging = Staging(aside, most)
            try:
                yield staging
            finally:
                staging.close()
            _commit(aside, out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def check_target(out: Path) -> None:
    """Raise GalsearchError unless `out` is a site, an empty folder, or a name in a folder that exists."""
    if not out.absolute().parent.is_dir():
        raise GalsearchError(f"{out.parent}: no such folder; make it first, or choose another place for the site")
    if out.is_symlink() and not out.exists():
        raise GalsearchError(f"{out} is a link to nothing; choose another place for the site")
    if not out.exists():
        return
    if not out.is_dir():
        raise GalsearchError(f"{out} is a file, and a site is written into a folder; choose another name")
    if any(out.iterdir()) and not is_site(out):
        raise GalsearchError(
            f"{out} holds files and is no site of galsearch (no {MANIFEST} of its format); a site is written into a "
            "folder of its own, choose another name or empty this one"
        )


def is_site(folder: Path) -> bool:
    """Say whether a folder has the manifest of a site."""
    try:
        return read_manifest(folder)["format"] == FORMAT
    except FormatError:
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the `site.json` of a site. Raises FormatError where there is none, or one of another format."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MOST_MANIFEST:
            raise ValueError("it is too long")
        stated = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{folder} is no site of galsearch ({MANIFEST}: {getattr(error, 'strerror', None) or error}); write one "
            "with `galsearch site ATLAS OUT`"
        ) from None
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise FormatError(f"{folder}: {MANIFEST} is not of the format {FORMAT}; write one with `galsearch site`")
    return stated


def _commit(aside: Path, out: Path) -> None:
    for path in _files(aside):
        _synced(path)
    if not out.exists():
        aside.rename(out)
        return
    last = [aside / MANIFEST, aside / PAGE]  # the commit, then the page that asks for it
    new = {path.relative_to(aside) for path in _files(aside)}
    old = _of_site(out)
    for path in [*(path for path in _files(aside) if path not in last), *last]:
        target = out / path.relative_to(aside)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    for name in old - new:
        (out / name).unlink(missing_ok=True)


def _of_site(out: Path) -> set[Path]:
    """Return the files of a folder that are a site's own, and are in the way when another takes its place."""
    data = [path for path in (out / DATA).glob("*") if OUR_DATA.fullmatch(path.name)]
    return {path.relative_to(out) for path in [*data, *_files(out / ASSETS)]}


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
