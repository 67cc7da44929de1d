"""How much each part of a new order may count: chosen on validation objects, written to validated.json by a command.

`python -m benchmarks.rerank FOLDER --choose` chooses, and notes what that was worth there and with which models.
An attribute, or any question at all, that re-ranking did not help there has no weights, and its order stays.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from galsearch.rerank.views import SCALES

FILE = "validated.json"
ANY = "any"  # questions that ask for no attribute that is known here
FULL, HALF = 4.0, 10  # the weight of a probe of very many marks, and how many marks give half of it


@dataclass(frozen=True)
class Weights:
    """Weights of the looks by scale and of measures by attribute, and sentences on where they come from."""

    looks: dict[str, float]
    measures: dict[str, float]
    statements: list[str]

    @property
    def shown(self) -> dict[str, float]:
        """Those that are not 0, by names for a person."""
        named = {f"picture, {name}": weight for name, weight in self.looks.items()}
        named |= {f"measures of {name}": weight for name, weight in self.measures.items()}
        return {name: weight for name, weight in named.items() if weight}


def weights(names: Sequence[str], *, model: str | None) -> Weights:
    """Return the weights for a question that asks for the attributes `names`; of several, the mean of their weights.

    `model` is the sha256 of the atlas's image model; where it is not the one they were chosen with, all are 0.
    """
    chosen = read()
    if model != chosen["models"]["image"]["sha256"]:
        which = chosen["models"]["image"]["id"]
        stated = (
            f"weights were validated with {which}, which is not the model of this atlas, so they are left out: mark"
        )
        return Weights({}, {}, [f"{stated} a few examples to have an order judged"])
    entries = chosen["questions"]
    requested = list(names) or [ANY]
    result = {name: entries[name] for name in requested if name in entries}
    looks = {scale: sum(one["looks"].get(scale, 0.0) for one in result.values()) / len(requested) for scale in SCALES}
    measures = {name: one["measures"] / len(requested) for name, one in result.items() if name != ANY}
    return Weights(looks, measures, [_sentence(name, entries.get(name)) for name in requested])


def probe_weight(marks: int) -> float:
    """Return how much a probe of so many marks counts, in standard deviations of it against those of the search."""
    return FULL * marks / (marks + HALF)


@functools.cache
def read() -> dict:
    """Return what was chosen."""
    return json.loads(resources.files("galsearch.rerank").joinpath(FILE).read_text())


def _sentence(name: str, entry: dict | None) -> str:
    what = "questions of any other kind" if name == ANY else f"'{name}'"
    if entry is None:
        return f"{what}: no weights were validated, so nothing is changed for it"
    worth = f"nDCG@10 {entry['before']:.3f} before, {entry['after']:.3f} after"
    helps = any(entry["looks"].values()) or entry["measures"]
    tail = "" if helps else ": re-ranking did not help there, so nothing is changed for it"
    return f"{what}: weights chosen on {entry['n']} validation objects, {entry['relevant']} relevant, {worth}{tail}"
