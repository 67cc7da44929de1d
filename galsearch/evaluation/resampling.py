"""Bootstrap draws, and candidate sets of another prevalence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

LEAST_RELEVANT = 2  # of a candidate set drawn to a prevalence; with fewer there is no such set
MOST_SETS = 5
DRAWN_VALUES = 4_000_000  # counts held at a time, 16 MB
Pick = Callable[[np.random.Generator, int, int], np.ndarray]


def resampled(rng: np.random.Generator, members: int, rounds: int) -> np.ndarray:
    """Return `(rounds, members)` places drawn with replacement: a bootstrap."""
    return rng.integers(0, members, (rounds, members))


def shuffled(rng: np.random.Generator, members: int, rounds: int) -> np.ndarray:
    """Return `(rounds, members)` places, each round all of them in another order."""
    return rng.permuted(np.broadcast_to(np.arange(members), (rounds, members)), axis=1)


@dataclass(frozen=True)
class Sets:
    """Candidate sets of one make: how many relevant and other candidates each has, and how many are taken at once."""

    relevant: int
    others: int
    each: int = 1


def matched_sets(relevant: int, others: int, prevalence: float) -> Sets | None:
    """Return the largest sets of a prevalence that so many candidates give, the side in excess being sub-sampled.

    None where they would have fewer than LEAST_RELEVANT relevant ones, or no others.
    """
    if relevant / (relevant + others) > prevalence:
        keep = Sets(round(others * prevalence / (1 - prevalence)), others)
        times = relevant / max(keep.relevant, 1)
    else:
        keep = Sets(relevant, round(relevant * (1 - prevalence) / prevalence))
        times = others / max(keep.others, 1)
    if keep.relevant < LEAST_RELEVANT or not keep.others:
        return None
    return replace(keep, each=min(MOST_SETS, int(np.ceil(times))))


def draws(relevant: np.ndarray, sets: Sets, *, rounds: int, pick: Pick, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks `(rounds, each, n) int32` of how often each candidate is in a set, `rounds` in all.

    A round picks relevant and other candidates apart, so that the prevalence stays; its sets are stretches of what was
    picked, as far apart as they can be.
    """
    rng, n = np.random.default_rng(seed), len(relevant)
    sides = ((np.flatnonzero(relevant), sets.relevant), (np.flatnonzero(~relevant), sets.others))
    block = max(1, DRAWN_VALUES // (n * sets.each))
    for start in range(0, rounds, block):
        count = min(block, rounds - start)
        out = np.zeros(count * sets.each * n, np.int32)
        for members, wanted in sides:
            steps = (np.arange(sets.each) * len(members) // sets.each)[:, None] + np.arange(wanted)
            chosen = members[pick(rng, len(members), count)][:, steps % len(members)]
            set_number = np.arange(count * sets.each)[:, None]
            flat = (set_number * n + chosen.reshape(count * sets.each, wanted)).ravel()
            out += np.bincount(flat, minlength=len(out)).astype(np.int32)
        yield out.reshape(count, sets.each, n)
