"""Progress of a long task: the function that is told of it, and the one that tells nobody."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]  # how many are done, of how many, and what is being done


def silent(done: int, total: int, what: str) -> None:
    """Report progress to nobody."""
