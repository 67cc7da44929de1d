"""Bounded reading of files: bytes under limits, gzip and bzip2 inflated as far as they allow, one form of error.

What a stranger's file may cost is decided before anything is allocated. The only error is SchemaError: the file's name,
the reason and a remedy.
"""

from __future__ import annotations

import bz2
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

from galsearch.errors import SchemaError

WRAPPINGS = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2"}


@dataclass(frozen=True)
class Limits:
    """What a file may cost: `file_bytes` as it lies there and once inflated, `values` (numbers in memory) decoded.

    Beyond `free_values` and `free_bytes` a file may inflate `inflation`-fold: a small file never becomes much, and a
    large one may be as large as it honestly is.
    """

    values: int
    file_bytes: int
    inflation: int = 200
    free_values: int = 100_000_000
    free_bytes: int = 64 << 20

    def values_of(self, size: int) -> int:
        """Return how many values a file of `size` bytes may have."""
        return min(self.values, max(self.free_values, size * self.inflation))

    def bytes_of(self, size: int) -> int:
        """Return how many bytes a file of `size` bytes may inflate to."""
        return min(self.file_bytes, max(self.free_bytes, size * self.inflation))


def bad(name: str, reason: str, remedy: str) -> SchemaError:
    """Return the error for a file that cannot be used."""
    return SchemaError(f"{name}: {reason}; {remedy}")


def content_of(source: str | Path | bytes, name: str, limits: Limits, *, remedy: str) -> bytes:
    """Return the bytes of a file as they lie there; `remedy` is what to do where they are too many.

    Raises SchemaError for an empty file, one beyond the limits, and one that cannot be read or is no regular file.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
    else:
        content = _file_content(Path(source), name, limits)
    if not content:
        raise bad(name, "the file is empty (0 bytes)", "fetch it again")
    if len(content) > limits.file_bytes:
        raise bad(name, f"the file has more than {limits.file_bytes:,} bytes", remedy)
    return content


def _file_content(path: Path, name: str, limits: Limits) -> bytes:
    try:
        known = path.stat()
        if not stat.S_ISREG(known.st_mode):
            raise bad(name, "it is no regular file", "give a file")
        with path.open("rb") as file:  # `read` makes room for as much as it is told
            return file.read(min(known.st_size, limits.file_bytes) + 1)
    except OSError as error:
        raise bad(name, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    except ValueError as error:  # a NUL in a name
        raise bad(repr(name), f"cannot be read ({error})", "check the path") from error


def wrapping_of(content: bytes) -> str | None:
    """Return "gzip" or "bzip2" by the first bytes, None for anything else."""
    return next((kind for start, kind in WRAPPINGS.items() if content.startswith(start)), None)


def inflated(content: bytes, name: str, limits: Limits, *, remedy: str) -> bytes:
    """Return the content without its gzip or bzip2 wrapping, as far as the limits allow; one layer.

    `remedy` is what to do, once it is unpacked, where it is too large.
    """
    kind = wrapping_of(content)
    if kind is None:
        return content
    most = limits.bytes_of(len(content))
    new = (lambda: zlib.decompressobj(31)) if kind == "gzip" else bz2.BZ2Decompressor
    parts, size, rest = [], 0, content
    try:
        while rest:
            inflater = new()
            part = inflater.decompress(rest, most + 1 - size)
            parts.append(part)
            size += len(part)
            if size > most:
                break
            if not inflater.eof:
                raise EOFError("it ends too early")
            rest = inflater.unused_data.lstrip(b"\0")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        cut = "the file is cut short or damaged; fetch it again"
        raise bad(name, f"{kind} cannot unpack it ({error})", cut) from error
    if size > most:
        reason = f"it inflates to more than {most:,} bytes, {most // len(content):,} times its size"
        raise bad(name, reason, f"unpack it first, and {remedy}")
    return b"".join(parts)
