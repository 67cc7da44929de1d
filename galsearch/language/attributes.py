"""What vectors say of phrases: how to refine an answer, which of a set of labels fits, which of two ends is nearer.

Vectors are unit vectors of one space, `(n, d) float32`; scores are cosines.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from galsearch.errors import ModelMismatchError, QueryError, SchemaError
from galsearch.query import Term

if TYPE_CHECKING:
    import yaml

    Node = yaml.ScalarNode | yaml.SequenceNode | yaml.MappingNode  # in the stubs what they share has no id

Embed = Callable[[list[str]], np.ndarray]
# Where a model's card has none: of 0.05 to 0.3 what makes the truth likeliest, for the first shipped pair, four labels
# and EFIGI's validation galaxies; tests/test_language.py holds it against what is right on the test fifth.
TEMPERATURE = 1 / 8
LEAST = 0.5  # probability: more likely than all the other labels together
TYPE_ENDS = ("late-type", "elliptical")
SAME_DIRECTION = 0.6  # cosine of two attribute directions above which they are one for a person
SMALLEST = 1e-9
RELATED, LEAST_SHARED = 0.3, 1.0  # cosine of a phrase with a query, and standard deviations, from which a hit shares it
SCALAR, SEQUENCE, MAPPING = "scalar", "sequence", "mapping"  # what YAML calls its kinds of nodes
TAGS = {"seq", "map", "str", "int", "float", "bool", "null", "timestamp", "value"}  # what YAML makes of plain text
MOST_BYTES = 1_000_000  # of a label file


# ---- refining


@dataclass(frozen=True)
class Refinement:
    """A way to go on: `more` or `less` (`sign`) of what a phrase says, and how strong that attribute is in the hits.

    For "more", `strength` is by how many standard deviations of the reference the half of the hits that has most of it
    differs from the other half; for "less", by how many the hits lie above the reference. `by` is the embedding that
    the phrase is compared in, None for the main one.
    """

    sign: str
    phrase: str
    strength: float
    by: str | None = None

    def __str__(self) -> str:
        return f"{self.sign}: {self.phrase}"

    def term(self, weight: float = 0.5) -> Term:
        """Return the term to add to the query; `weight` is above 0, and "less" makes it negative."""
        return Term("text", self.phrase, weight if self.sign == "more" else -weight, self.by)


def refinements(
    hits: np.ndarray,
    reference: np.ndarray,
    phrases: Sequence[str],
    vectors: np.ndarray,
    *,
    n: int = 3,
    query: np.ndarray | None = None,
) -> list[Refinement]:
    """Return up to `n` phrases to have more of, then up to `n` to have less of, strongest first.

    `hits (k, d)` are the vectors found, `reference (b, d)` those of ordinary galaxies, `vectors (p, d)` those of the
    phrases, `query (d,)` that of the query. The direction of a phrase is what its vector has beside the mean of all
    phrases; scores along it are counted in standard deviations of the reference. "more" are the phrases that divide
    the hits most, between the half that has most of it and the other; "less" those by which the hits are above the
    reference most. A phrase that is nearly the query, or nearly one chosen before, is left out. Equal strengths are
    ordered by phrase. Fewer than 2 hits, 2 reference rows or 2 phrases give none.
    """
    if min(len(hits), len(reference), len(phrases)) < 2:
        return []
    directions = _directions(vectors, around=vectors)
    usual = reference.astype(np.float64) @ directions.T
    spread = np.maximum(usual.std(axis=0), SMALLEST)
    scores = (hits.astype(np.float64) @ directions.T - usual.mean(axis=0)) / spread
    ranked = np.sort(scores, axis=0)
    half = len(hits) // 2
    divides = ranked[-half:].mean(axis=0) - ranked[:half].mean(axis=0)
    usable = np.linalg.norm(directions, axis=1) > SMALLEST
    if query is not None:
        usable &= directions @ _directions(query[None], around=vectors)[0] < SAME_DIRECTION
    chosen = _distinct(divides, directions, phrases, usable, n)
    usable[chosen] = False
    less = _distinct(scores.mean(axis=0), directions, phrases, usable & (scores.mean(axis=0) > 0), n)
    return [
        *(Refinement("more", phrases[one], float(divides[one])) for one in chosen),
        *(Refinement("less", phrases[one], float(scores[:, one].mean())) for one in less),
    ]


def shared_phrases(
    hits: np.ndarray,
    reference: np.ndarray,
    phrases: Sequence[str],
    vectors: np.ndarray,
    *,
    query: np.ndarray,
    n: int = 2,
) -> list[tuple[str, ...]]:
    """Return for each hit up to `n` phrases that it has in common with the query, strongest first.

    The arguments are as for `refinements`. A phrase is shared where its direction is related to that of the query (a
    cosine of RELATED or more) and the hit lies LEAST_SHARED standard deviations of the reference or more along it; the
    product of both is its strength. Phrases that say the same are there once, equal strengths ordered by phrase.
    """
    if min(len(reference), len(phrases)) < 2:
        return [()] * len(hits)
    directions = _directions(vectors, around=vectors)
    usual = reference.astype(np.float64) @ directions.T
    spread = np.maximum(usual.std(axis=0), SMALLEST)
    scores = (hits.astype(np.float64) @ directions.T - usual.mean(axis=0)) / spread
    related = directions @ _directions(query[None], around=vectors)[0]
    usable = (related >= RELATED) & (scores >= LEAST_SHARED)
    return [
        tuple(phrases[one] for one in _distinct(row * related, directions, phrases, there, n))
        for row, there in zip(scores, usable, strict=True)
    ]


def _directions(vectors: np.ndarray, *, around: np.ndarray) -> np.ndarray:
    """Return what each vector has beside the mean of others, at unit length, or zero where that is nothing."""
    own = vectors.astype(np.float64) - around.astype(np.float64).mean(axis=0)
    length = np.linalg.norm(own, axis=1, keepdims=True)
    return np.where(length > SMALLEST, own / np.maximum(length, SMALLEST), 0.0)


def _distinct(
    strength: np.ndarray, directions: np.ndarray, phrases: Sequence[str], usable: np.ndarray, n: int
) -> list[int]:
    """Return the places of the n strongest that are usable and point nowhere alike."""
    order = sorted(
        np.flatnonzero(usable).tolist(), key=lambda index: (-round(float(strength[index]), 9), phrases[index])
    )
    chosen: list[int] = []
    for index in order:
        if len(chosen) == n or strength[index] <= SMALLEST:
            break
        if not any(abs(directions[index] @ directions[other]) > SAME_DIRECTION for other in chosen):
            chosen.append(index)
    return chosen


OPPOSITES = (("red", "blue"), ("edge", "face"), ("bright", "faint"), ("large", "small"), ("round", "elongated"))
NO_ATTRIBUTE = frozenset(("and", "for", "from", "galaxies", "galaxy", "its", "like", "object", "the", "very", "with"))
LEAST_STEM = 3  # letters that "bar" and "barred" share


def contradicts(refinement: Refinement, wanted: Sequence[str], unwanted: Sequence[str]) -> bool:
    """Say whether a refinement takes back what was asked: less of what is wanted, more of what is not or its opposite.

    `wanted` and `unwanted` are the texts of the query. Texts are compared by the questions of Galaxy Zoo that they
    answer, by their words, and by a few opposites that pictures have.

    >>> contradicts(Refinement("more", "face-on spiral", 1.0), ["edge-on galaxy"], [])
    True
    >>> contradicts(Refinement("less", "bright star", 1.0), ["edge-on galaxy"], [])
    False
    """
    phrase = refinement.phrase
    if refinement.sign == "less":
        return not _describing(phrase) or any(_agree(phrase, text) for text in wanted)
    return any(_agree(phrase, text) for text in unwanted) or any(_oppose(phrase, text) for text in wanted)


def _agree(one: str, other: str) -> bool:
    """Say whether two texts share a word that describes, or the answer to a question."""
    first, second = _stated(one), _stated(other)
    if any(sign is not None and sign == second[question] for question, sign in first.items()):
        return True
    return any(_same_stem(word, also) for word in _describing(one) for also in _describing(other))


def _oppose(one: str, other: str) -> bool:
    """Say whether two texts answer a question differently, or have words of which one is the other's opposite."""
    first, second = _stated(one), _stated(other)
    if any(sign is not None and second[question] == (not sign) for question, sign in first.items()):
        return True
    words, others = _describing(one), _describing(other)
    pairs = [*OPPOSITES, *(pair[::-1] for pair in OPPOSITES)]
    return any(word in words and opposite in others for word, opposite in pairs)


@functools.lru_cache(4096)  # each of many phrases is compared with each of many
def _stated(text: str) -> Mapping[str, bool | None]:
    from galsearch.language.decision_tree import (
        stated,  # its hundreds of patterns are compiled, and few questions need them
    )

    return stated(text)


@functools.lru_cache(4096)
def _describing(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]{3,}", text.lower())) - NO_ATTRIBUTE


def _same_stem(one: str, other: str) -> bool:
    return min(len(one), len(other)) >= LEAST_STEM and (one.startswith(other) or other.startswith(one))


# ---- labels


@dataclass(frozen=True)
class Label:
    """A name, the phrases that describe it, and the cosine under which it does not count (None: none)."""

    name: str
    phrases: tuple[str, ...]
    threshold: float | None = None


@dataclass(frozen=True)
class Labeling:
    """The labels of n vectors: `label` is None where nothing convinces; the rest are those of the best label anyway.

    `probability`, `margin` (to the second probability, 1 label: to 0) and `score` (the cosine) are `(n,) float64`,
    `probabilities (n, l) float64` in the order of `names`.
    """

    names: tuple[str, ...]
    label: list[str | None]
    best: list[str]
    probability: np.ndarray
    margin: np.ndarray
    score: np.ndarray
    probabilities: np.ndarray


def read_labels(path: str | Path) -> tuple[Label, ...]:
    """Return the labels of a YAML file: `label: phrase`, `label: [phrases]`, or `label: {phrases, threshold}`.

    Every label and phrase is text, as written: `no` is a label, not false. Raises SchemaError with the line for
    anything else, fewer than two labels, or one that occurs twice.
    """
    path = Path(path)
    root = _composed(path)
    if root is None or root.id != MAPPING:
        raise SchemaError(f"{path}: expected lines of `label: phrase`, as a YAML mapping")
    labels = tuple(_label(path, key, value) for key, value in root.value)
    names = [label.name for label in labels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SchemaError(f"{path}: label {twice[0]!r:.60} occurs twice; give every label once, with a list of phrases")
    if len(labels) < 2:
        raise SchemaError(f"{path}: {len(labels)} label, expected at least two to choose between")
    return labels


def _composed(path: Path) -> Node | None:
    """Return the document as nodes: text as written, with the lines of everything, and no "no" made false."""
    import yaml  # comes with astropy

    try:
        content = path.read_bytes()
    except OSError as error:
        raise SchemaError(f"{path}: {error.strerror or error}; give a YAML file of labels and phrases") from None
    if len(content) > MOST_BYTES:
        raise SchemaError(f"{path}: {len(content)} bytes, at most {MOST_BYTES} are read; this is no file of labels")
    try:
        return yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader)  # type: ignore[return-value]  # see Node
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        stated = " ".join(str(error).split())
        raise SchemaError(f"{path}: not valid YAML ({stated:.160}); write lines of `label: phrase`") from None


def _label(path: Path, key: Node, value: Node) -> Label:
    name = _text(path, key, "a label")
    if value.tag.rpartition(":")[2] not in TAGS:
        raise SchemaError(f"{_at(path, value)}: label {name!r:.60} has the tag {value.tag!r:.80}; write plain text")
    threshold = None
    if value.id == MAPPING:
        parts = {_text(path, part, "a key"): node for part, node in value.value}
        unknown = sorted(set(parts) - {"phrases", "threshold"})
        if unknown or "phrases" not in parts:
            stated = f"has {unknown[0]!r:.40}" if unknown else "has no phrases"
            raise SchemaError(f"{_at(path, value)}: label {name!r:.60} {stated}; a label takes phrases and threshold")
        threshold = _threshold(path, name, parts["threshold"]) if "threshold" in parts else None
        value = parts["phrases"]
    nodes = value.value if value.id == SEQUENCE else [value]
    if not nodes:
        raise SchemaError(f"{_at(path, value)}: label {name!r:.60} has no phrase; give at least one")
    return Label(name, tuple(_text(path, node, f"a phrase of {name!r:.60}") for node in nodes), threshold)


def _text(path: Path, node: Node, what: str) -> str:
    is_null = node.id == SCALAR and node.tag.endswith(":null")
    if node.id != SCALAR or is_null or not node.value.strip():
        kind = "nothing" if node.id == SCALAR else "a list or mapping"
        raise SchemaError(f"{_at(path, node)}: {what} is {kind}, expected words")
    return node.value.strip()


def _threshold(path: Path, name: str, node: Node) -> float:
    try:
        value = float(node.value)
    except (TypeError, ValueError):
        value = np.nan
    if not -1 <= value <= 1:
        raise SchemaError(
            f"{_at(path, node)}: threshold of {name!r:.60} is {node.value!s:.40}, expected a cosine from -1 to 1"
        )
    return value


def _at(path: Path, node: Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"


def label_vectors(
    vectors: np.ndarray,
    labels: Sequence[Label],
    embed: Embed,
    *,
    card: Mapping | None = None,
    least: float = LEAST,
) -> Labeling:
    """Return which label fits each vector, or None where nothing convinces.

    A label's vector is the mean of those of its phrases, at unit length; probabilities are the softmax of the cosines
    over the `temperature` of the text model's card, TEMPERATURE where it has none. They say which of these labels is
    likelier, not that one of them is right, so a label has to reach the probability `least` and the threshold it may
    have; otherwise it is None. Equally likely ones go to the first. Raises QueryError for a `least` outside 0 to 1,
    ModelMismatchError for vectors of another length.
    """
    if not 0 <= least <= 1:
        raise QueryError(f"least is {least!r}, expected a probability from 0 to 1, such as 0.5")
    ends = _label_directions(labels, embed)
    _check_dim(vectors, ends)
    scores = vectors.astype(np.float64) @ ends.T
    raised = scores / temperature_of(card)
    odds = np.exp(raised - raised.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    rows, best = np.arange(len(scores)), probabilities.argmax(axis=1)
    ordered = np.sort(np.pad(probabilities, ((0, 0), (1, 0))), axis=1)
    thresholds = np.array([-1.0 if label.threshold is None else label.threshold for label in labels])
    score, probability = scores[rows, best], probabilities[rows, best]
    convinces = (probability >= least) & (score >= thresholds[best])
    names = tuple(label.name for label in labels)
    result = [names[index] for index in best.tolist()]
    given = [name if fits else None for name, fits in zip(result, convinces.tolist(), strict=True)]
    return Labeling(names, given, result, probability, ordered[:, -1] - ordered[:, -2], score, probabilities)


def temperature_of(card: Mapping | None) -> float:
    """Return the temperature on a model's card, TEMPERATURE where it has none. Raises ModelMismatchError for no number
    above 0."""
    stated = (card or {}).get("temperature", TEMPERATURE)
    if not isinstance(stated, (int, float)) or isinstance(stated, bool) or not 0 < stated < np.inf:
        raise ModelMismatchError(f"the model's card has temperature {stated!r:.40}, expected a number above 0")
    return float(stated)


def _label_directions(labels: Sequence[Label], embed: Embed) -> np.ndarray:
    phrases = [phrase for label in labels for phrase in label.phrases]
    owner = np.repeat(np.arange(len(labels)), [len(label.phrases) for label in labels])
    embedded = np.asarray(embed(phrases), np.float64)
    sums = np.zeros((len(labels), embedded.shape[1]))
    np.add.at(sums, owner, embedded)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    if (length < SMALLEST).any():
        name = labels[int(np.flatnonzero(length < SMALLEST)[0])].name
        raise QueryError(f"the phrases of label {name!r:.60} cancel out; leave one of them out")
    return sums / length


def contrast(vectors: np.ndarray, embed: Embed, *, ends: tuple[str, str] = TYPE_ENDS) -> np.ndarray:
    """Return the cosine with the first phrase minus that with the second, `(n,) float64`.

    With the ends that are there it orders galaxies by type: higher is later.
    """
    first, second = np.asarray(embed(list(ends)), np.float64)
    _check_dim(vectors, first[None])
    return vectors.astype(np.float64) @ (first - second)


def _check_dim(vectors: np.ndarray, others: np.ndarray) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != others.shape[1]:
        raise ModelMismatchError(
            f"the vectors have shape {vectors.shape} and the phrases {others.shape[1]} dimensions; embed both with the "
            "models of one space"
        )
