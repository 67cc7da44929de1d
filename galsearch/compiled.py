"""Shared libraries: functions in C that were compiled when galsearch was installed, where a compiler was there."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
Int, Pointer = ctypes.c_int64, ctypes.c_void_p


def load(
    path: Path,
    version: int,
    functions: Mapping[str, Sequence[type]],
    *,
    version_function: str,
    returning_nothing: Sequence[str] = (),
) -> ctypes.CDLL | None:
    """Return a library; None where it was not compiled, lacks a function, or is of another version than ours.

    `functions` are the types of each one's arguments. All return an Int but those `returning_nothing`.
    """
    try:
        library = ctypes.CDLL(str(path))
        known = getattr(library, version_function)
        known.restype = Int
        if known() != version:
            return None
        for name, arguments in functions.items():
            function = getattr(library, name)
            function.argtypes, function.restype = list(arguments), None if name in returning_nothing else Int
    except (OSError, AttributeError):
        return None
    return library
