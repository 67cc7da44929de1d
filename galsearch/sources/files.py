"""Picture or spectrum files in a folder or an archive: which there are, which are passed over, the content of each.

The module hides suffixes, hidden and linked files, tar and zip with their bounds. Nothing is ever unpacked to disk, so
that a name in an archive is a name and no path. What is passed over is listed, with a reason that is the same for all
of a kind.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import struct
import tarfile
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO, Protocol

from galsearch.errors import SchemaError
from galsearch.escaping import is_text
from galsearch.science import images
from galsearch.science.bounded import Limits
from galsearch.sources.spectra import SPECTRUM

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2")
MOST_MEMBERS = 1_000_000
LEAST_CAP = 1 << 30  # bytes that any archive may inflate to; a larger one `images.PICTURE.inflation` times its size
_DAMAGED = (
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    struct.error,
    tarfile.TarError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class FileKind:
    """What is looked for: how it is called, the suffixes of its files, what to tell of them, the bounds of one."""

    noun: str
    plural: str
    suffixes: tuple[str, ...]
    told: str
    limits: Limits

    def suffix_of(self, name: str) -> str:
        """Return the suffix of a file's name as it stands there, '' where it has none of the kind."""
        length = max((len(suffix) for suffix in self.suffixes if name.lower().endswith(suffix)), default=0)
        return name[len(name) - length :]

    def stem(self, path: PurePath) -> str:
        """Return the file's name without its suffix."""
        return path.name.removesuffix(self.suffix_of(path.name))

    def passed_over(self, name: str) -> str | None:
        """Return why a file is passed over, by its name; None for one of the kind."""
        if not is_text(name):
            return "a name that is not UTF-8; rename the file"
        parts = PurePosixPath(name).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            return "a hidden file"
        if parts[-1].lower().endswith(self.suffixes):
            return None
        suffix = PurePosixPath(name).suffix.lower()
        return f"{suffix or 'no suffix'} is not among {self.told}"


PICTURES = FileKind(
    "picture",
    "pictures",
    images.PICTURE_SUFFIXES,
    ".jpg .jpeg .png .webp .tif .tiff .npy .fits .fit .fts (also .gz, .bz2 or .fz)",
    images.PICTURE,
)
_TABLES = (".ecsv", ".csv", ".tsv", ".txt", ".dat", ".tbl", ".vot", ".xml", ".parquet", ".pq")
SPECTRA = FileKind(
    "spectrum",
    "spectra",
    tuple(each + packed for each in (".fits", ".fit", ".fts", *_TABLES) for packed in ("", ".gz", ".bz2")),
    f".fits .fit .fts {' '.join(_TABLES)} (also .gz or .bz2)",
    SPECTRUM,
)


class Files(Protocol):
    """Where files are by name."""

    def read(self, name: str) -> Path | bytes:
        """Return what readers take for a name."""


@dataclass
class Folder:
    """The files of a kind below a folder, by their paths in it with /, sorted.

    Linked files are read; linked folders are not entered, they may lead anywhere and back.
    """

    path: Path
    kind: FileKind = PICTURES
    leave_out: frozenset[Path] = frozenset()
    names: list[str] = field(default_factory=list)
    passed_over: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for here, folders, files in os.walk(self.path):
            below = Path(here).relative_to(self.path)
            for name in sorted(folders):
                if name.startswith("."):
                    folders.remove(name)
                    self.passed_over.append(((below / name).as_posix(), "a hidden folder"))
                elif (Path(here) / name).is_symlink():
                    self.passed_over.append(((below / name).as_posix(), "a linked folder, which is not entered"))
            for name in files:
                if (Path(here) / name).resolve() not in self.leave_out:
                    self._sort(below / name)
        self.names.sort()
        self.passed_over.sort()

    def _sort(self, below: Path) -> None:
        reason = self.kind.passed_over(below.as_posix())
        if reason is None and not (self.path / below).is_file():
            reason = "no regular file, or a link to nothing"
        if reason is None:
            self.names.append(below.as_posix())
        else:
            self.passed_over.append((below.as_posix(), reason))

    def read(self, name: str) -> Path:
        """Return what readers take for a name."""
        return self.path / name

    def digest(self) -> str:
        """Return a digest of names, sizes and times: enough to see that a folder changed, without reading it twice."""
        stats = [(name, (self.path / name).stat()) for name in self.names]
        lines = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_archive(path: Path) -> bool:
    """Tell by its name whether a file is an archive of cutouts."""
    return path.name.lower().endswith(ARCHIVES)


class Archive:
    """The files of a kind in a tar or zip archive, by their names, in its order; `read` is quick in that order.

    Raises SchemaError for an archive that is damaged or inflates beyond its bounds. Links and devices are passed over,
    and so are names that lead out of the archive; of files with one name the last counts, as unpacking would have it.
    """

    def __init__(self, path: Path, kind: FileKind = PICTURES) -> None:
        self.path, self.kind = path, kind
        self.passed_over: list[tuple[str, str]] = []
        self._members: dict[str, Any] = {}
        file = path.open("rb")  # held as long as the archive is
        weakref.finalize(self, file.close)
        try:
            is_zip = path.name.lower().endswith(".zip")
            self._archive: Any = zipfile.ZipFile(file) if is_zip else _open_tar(path, file)
            for number, (member, name, problem) in enumerate(self._listed()):
                if number == MOST_MEMBERS:
                    raise SchemaError(f"{path}: more than {MOST_MEMBERS:,} files; split it")
                self._sort(member, name, problem)
        except _DAMAGED as error:
            raise _damaged(path, error) from error
        self.names = list(self._members)

    def _listed(self) -> Iterator[tuple[Any, str, str | None]]:
        if isinstance(self._archive, zipfile.ZipFile):
            for info in self._archive.infolist():
                if not info.is_dir():
                    yield info, info.filename, "encrypted" if info.flag_bits & 1 else None
            return
        for member in self._archive:
            self._archive.members = []  # or tarfile keeps them all, and looks through them
            if not member.isdir():
                yield member, member.name, None if member.isreg() and not member.issparse() else "no regular file"

    def _sort(self, member: Any, name: str, problem: str | None) -> None:
        name = name.removeprefix("./")
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or not parts:
            problem = "its name leads out of the archive"
        problem = problem or self.kind.passed_over(name)
        if problem is None and name in self._members:
            problem = "another file of the same name follows"
            self._members.pop(name)
            self._members[name] = member
        elif problem is None:
            self._members[name] = member
            return
        self.passed_over.append((name, problem))

    def read(self, name: str) -> bytes:
        """Return the content of a file, which the bounds of its kind hold for; SchemaError where it is damaged."""
        member, most = self._members[name], self.kind.limits.file_bytes
        try:
            file = (
                self._archive.open(member) if isinstance(member, zipfile.ZipInfo) else self._archive.extractfile(member)
            )
            if isinstance(member, zipfile.ZipInfo):
                most = self.kind.limits.bytes_of(member.compress_size)
            with file:
                content = file.read(most + 1)
        except _DAMAGED as error:
            raise SchemaError(
                f"{PurePosixPath(name).name}: cannot be read from the archive ({error}); pack it again"
            ) from error
        if len(content) > most:
            raise SchemaError(
                f"{PurePosixPath(name).name}: it inflates to more than {most:,} bytes; cut it into smaller ones"
            )
        return content

    def digest(self) -> str:
        """Return the sha256 of the archive."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(path: Path, error: Exception) -> SchemaError:
    return SchemaError(f"{path}: the archive is damaged ({' '.join(str(error).split())}); pack it again")


def _open_tar(path: Path, file: BinaryIO) -> tarfile.TarFile:
    size, name = path.stat().st_size, path.name.lower()
    if name.endswith(".tar"):
        return tarfile.open(fileobj=file, mode="r:")
    inner = gzip.GzipFile(fileobj=file) if name.endswith((".gz", ".tgz")) else bz2.BZ2File(file)
    return tarfile.open(fileobj=_Bounded(inner, max(LEAST_CAP, size * images.PICTURE.inflation)), mode="r:")


class _Bounded(io.RawIOBase):
    """A file that ends with an error where more than `most` bytes of it are asked for."""

    def __init__(self, inner: Any, most: int) -> None:
        super().__init__()
        self._inner, self._most = inner, most

    def read(self, size: int = -1) -> bytes:
        self._check(self._inner.tell() + (self._most + 1 if size < 0 else min(size, images.PICTURE.file_bytes)))
        return self._inner.read(min(size, images.PICTURE.file_bytes + 1))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise ValueError("only from the start")
        self._check(offset)
        return self._inner.seek(offset)

    def tell(self) -> int:
        return self._inner.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._inner.close()
        super().close()

    def _check(self, offset: int) -> None:
        if offset > self._most:
            raise OSError(f"it inflates to more than {self._most:,} bytes")


def open_files(path: Path, kind: FileKind = PICTURES, *, leave_out: frozenset[Path] = frozenset()) -> Folder | Archive:
    """Return the files of a kind in a folder, all but those in `leave_out` (resolved paths), or in an archive.

    Raises SchemaError where there is none.
    """
    files = Archive(path, kind) if is_archive(path) else Folder(path, kind, leave_out)
    if not files.names:
        kinds = Counter(reason for _, reason in files.passed_over).most_common(5)
        there = "; ".join(f"{count:,} x {reason}" for reason, count in kinds)
        raise SchemaError(
            f"{path}: no {kind.plural} inside; galsearch reads {kind.told}{there and f'; passed over: {there}'}"
        )
    return files
