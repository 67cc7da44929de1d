"""Sentences that are true of no galaxy: what the text encoder learns to put where no picture is.

Those to train on are put together from the lists of foils.toml; those to judge by, HELD_OUT, are whole phrases from
other domains. None of them names anything in the sky.
"""

import tomllib
from pathlib import Path

import numpy as np

LISTS: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("foils.toml").read_text())
HELD_OUT = tuple(LISTS["held_out"])
FRAMES = ["{}", "{}", "{}", "a photo of a {}", "picture of a {}", "show me a {}", "the {}", "find a {}", "{}s"]
KEYS = list("abcdefghijklmnopqrstuvwxyz 0123456789")


def draw_foil(random: np.random.Generator) -> str:
    """Return a sentence that is true of no galaxy."""

    def one(options: list[str]) -> str:
        return options[int(random.integers(len(options)))]

    kind = random.random()
    if kind < 0.12:
        return one(LISTS["whole"])
    if kind < 0.16:
        return "".join(random.choice(KEYS, int(random.integers(4, 20))))
    thing = one(LISTS["things"])
    if random.random() < 0.4:
        thing = f"{one(LISTS['qualities'])} {thing}"
    text = one(FRAMES).format(thing)
    if random.random() < 0.35:
        text = f"{text} {one(LISTS['deeds' if random.random() < 0.5 else 'places'])}"
    return f"{text} and {one(LISTS['things'])}" if random.random() < 0.1 else text
