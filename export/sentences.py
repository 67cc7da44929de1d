"""Statements on a galaxy and the sentences that say them.

A statement is one to three literals (facet, wanted). Its truth follows Kleene: false if any literal is false, true
if all are true, else unknown. A sentence is one wording of a statement.
"""

import re

import numpy as np

from export.facets import FACETS, INDEX, NAMES

Literal = tuple[str, bool]
Statement = tuple[Literal, ...]
HEADS = tuple(name for name in NAMES if FACETS[name].heads)
FOCUS = ("barred", "strong_bar", "merger", "lens", "ring")  # hard to see or rare: drawn more often
FOCUSED = 0.25  # share of the literals that are of FOCUS

# Pairs that people ask for; half of the two-literal statements are drawn from these.
COMMON: tuple[Statement, ...] = (
    (("spiral", True), ("barred", True)),
    (("spiral", True), ("barred", False)),
    (("red", True), ("elliptical", True)),
    (("blue", True), ("spiral", True)),
    (("red", True), ("spiral", True)),
    (("blue", True), ("elliptical", True)),
    (("blue", True), ("irregular", True)),
    (("face_on", True), ("spiral", True)),
    (("edge_on", True), ("spiral", True)),
    (("edge_on", True), ("dust_lane", True)),
    (("disk", True), ("edge_on", True)),
    (("face_on", True), ("barred", True)),
    (("round", True), ("elliptical", True)),
    (("elongated", True), ("elliptical", True)),
    (("spiral", True), ("ring", True)),
    (("spiral", True), ("ring", False)),
    (("spiral", True), ("merger", False)),
    (("disk", True), ("arms", False)),
    (("spiral", True), ("companion", True)),
    (("blue", True), ("barred", False)),
    (("barred", True), ("ring", True)),
    (("red", True), ("edge_on", True)),
    (("blue", True), ("edge_on", True)),
    (("red", True), ("round", True)),
    (("lenticular", True), ("barred", True)),
    (("spiral", True), ("flocculent", True)),
    (("spiral", True), ("large_bulge", True)),
    (("spiral", True), ("bulgeless", True)),
    (("spiral", True), ("strong_arms", True)),
    (("smooth", True), ("round", True)),
    (("elliptical", True), ("lens", True)),
    (("elliptical", True), ("disk", False)),
)


def statement_truth(table: np.ndarray, statement: Statement) -> np.ndarray:
    """Return Kleene's conjunction of the literals for every row, (n,) int8 in -1, 0, +1."""
    columns = [table[:, INDEX[name]] * (1 if wanted else -1) for name, wanted in statement]
    return np.minimum.reduce(columns)


def can_negate(name: str) -> bool:
    """Say whether a facet has wordings for its absence."""
    facet = FACETS[name]
    return bool(facet.not_adjectives or facet.not_phrases or facet.heads)


def draw_literal(random: np.random.Generator, *, heads_only: bool = False) -> Literal:
    """Draw a facet and whether it is wanted (one in four wants it absent, where there are words for that)."""
    names = HEADS if heads_only else FOCUS if random.random() < FOCUSED else NAMES
    name = names[int(random.integers(len(names)))]
    return name, not (can_negate(name) and random.random() < 0.25)


def draw_statement(random: np.random.Generator) -> Statement:
    """Draw a statement of one to three literals on different facets, in canonical (facet) order."""
    kind = random.random()
    if kind < 0.45:
        return (draw_literal(random),)
    if kind < 0.70:
        return canonical(COMMON[int(random.integers(len(COMMON)))])
    count = 2 if kind < 0.92 else 3
    literals = dict([draw_literal(random, heads_only=True)])
    while len(literals) < count:
        literals |= dict([draw_literal(random)])
    return canonical(tuple(literals.items()))


def canonical(statement: Statement) -> Statement:
    """Return the literals in the order of FACETS, each once."""
    return tuple(sorted(set(statement), key=lambda literal: INDEX[literal[0]]))


FRAMES = (
    "{}",
    "{}",
    "{}",
    "{}",
    "a {}",
    "an image of a {}",
    "picture of a {}",
    "this is a {}",
    "a galaxy image: {}",
    "it is a {}",
)
PLURAL_FRAMES = (
    "{}",
    "{}",
    "show me {}",
    "find {}",
    "images of {}",
    "search for {}",
    "I am looking for {}",
    "list all {}",
    "examples of {}",
)
PLAIN_HEADS = (("galaxy", "galaxies"), ("galaxy", "galaxies"), ("object", "objects"), ("system", "systems"))


def choose(random: np.random.Generator, options: tuple) -> object:
    """Draw one of the options."""
    return options[int(random.integers(len(options)))]


def word(statement: Statement, random: np.random.Generator) -> str:
    """Write one sentence for a statement: a word alone, a noun phrase, or a request, in random wording."""
    if len(statement) == 1 and statement[0][1] and FACETS[statement[0][0]].words and random.random() < 0.3:
        return str(choose(random, FACETS[statement[0][0]].words))
    order = [statement[number] for number in random.permutation(len(statement))]
    candidates = [literal for literal in order if literal[1] and FACETS[literal[0]].heads]
    head_literal = candidates[0] if candidates and random.random() < 0.8 else None
    plural = random.random() < 0.4
    head = choose(random, FACETS[head_literal[0]].heads if head_literal else PLAIN_HEADS)[1 if plural else 0]
    before, after = modifiers([literal for literal in order if literal != head_literal], random)
    text = " ".join([*before, head, *join_phrases(after, plural=plural)])
    frame = str(choose(random, PLURAL_FRAMES if plural else FRAMES)).format(text)
    return re.sub(r"\ba (?=[aeio]|un)", "an ", frame)


def modifiers(literals: list[Literal], random: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return adjectives to put before and phrases to put after the noun, one wording per literal."""
    before, after = [], []
    for name, wanted in literals:
        facet = FACETS[name]
        adjectives, phrases = (facet.adjectives, facet.phrases) if wanted else (facet.not_adjectives, facet.not_phrases)
        if not adjectives and not phrases:
            verb = "is" if wanted else "is not"
            phrases = tuple(f"that {verb} a {singular}" for singular, _ in facet.heads)
        use_adjective = bool(adjectives) and (not phrases or random.random() < 0.5)
        (before if use_adjective else after).append(str(choose(random, adjectives if use_adjective else phrases)))
    return before, after


def join_phrases(phrases: list[str], *, plural: bool) -> list[str]:
    """Join what follows the noun with 'and', with verbs that agree."""
    joined = " and ".join(phrases)
    if plural:
        joined = (
            joined.replace("that is ", "that are ")
            .replace("that has ", "that have ")
            .replace("that looks ", "that look ")
        )
    return [joined] if joined else []
