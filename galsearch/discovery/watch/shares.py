"""How requests are shared among sources: Thompson sampling by what people found worth a look, never by a model's score.

Each source has a Beta posterior of its yield, the share of "yes" among its verdicts, from a uniform prior. Each request
goes to the source whose draw is the highest (Thompson 1933), after every source got its least share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from galsearch.discovery import verdicts
from galsearch.discovery.verdicts import Verdict

YES, NO, UNSURE = "yes", "no", "unsure"
COUNTS = {YES: 1, NO: -1}  # unsure, and a label in words of one's own, count for neither
SURE = 1.959964  # standard deviations of a normal distribution, for 95 %


def read_verdicts(path: Path | None) -> list[Verdict]:
    """Return the verdicts that stand in a file, or in a table of object_id, verdict, kind, by; none for no file.

    Of each person, object and kind it is the last that was not taken back. Raises SchemaError for a table that has no
    verdicts, FormatError for a damaged file.
    """
    if path is None or not path.exists():
        return []
    return verdicts.standing(verdicts.read_verdicts(path))


def decided(standing: Sequence[Verdict]) -> dict[str, str]:
    """Return what is decided of each object: what most people say, yes, no or unsure.

    Objects with as many yes as no, and those of which nobody is sure, are "unsure".
    """
    votes: dict[str, int] = {}
    for one in standing:
        votes[one.object_id] = votes.get(one.object_id, 0) + COUNTS.get(one.verdict, 0)
    return {name: YES if vote > 0 else NO if vote < 0 else UNSURE for name, vote in votes.items()}


def allocate(yields: Mapping[str, tuple[int, int]], count: int, *, least: float, seed: Sequence[int]) -> dict[str, int]:
    """Return how many of `count` requests each source gets: `yields` are (yes, no) by source.

    Each gets `least` of the count first, or an equal part where that is more than there is; the rest one by one by the
    highest of draws from Beta(1 + yes, 1 + no). The same seed gives the same shares.
    """
    names = sorted(yields)
    if not names or count <= 0:
        return dict.fromkeys(names, 0)
    floor = min(int(np.ceil(least * count)), count // len(names))
    result = dict.fromkeys(names, floor)
    rest = count - floor * len(names)
    rng = np.random.default_rng(list(seed))
    draws = np.stack([rng.beta(1 + yields[name][0], 1 + yields[name][1], rest) for name in names], axis=1)
    for at, won in zip(names, np.bincount(draws.argmax(axis=1), minlength=len(names)).tolist(), strict=True):
        result[at] += won
    return result


def wilson(yes: int, total: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share (Wilson 1927); None for nothing.

    >>> tuple(round(end, 3) for end in wilson(8, 10))
    (0.49, 0.943)
    """
    if not total:
        return None
    share, square = yes / total, SURE**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = SURE / (1 + square / total) * np.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return float(middle - half) if yes else 0.0, float(middle + half) if yes < total else 1.0  # exact at the ends
