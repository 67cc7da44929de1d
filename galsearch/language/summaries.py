"""Short summaries of descriptions: one sentence of what a text affirms, and which attributes it denies.

A text is cut into sentences and these into clauses, at commas, semicolons, dashes and joining words. A clause with a
word that denies goes, and so does a list that such a word begins ("no bar, ring or arms"). What is left is cut wherever
it would still hold one. Better a short summary than a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from galsearch.language.negation import compound, is_denied, negator
from galsearch.language.text import plain, tokens
from galsearch.language.vocabulary import CAPTION_ATTRIBUTES

MOST_WORDS = 45  # of a summary
_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-Z(])|\n+")
_JOINTS = re.compile(
    r"\s*(?:[;:()]|,| [–—-]{1,2} )\s*(?:(?:and|which)\s+)?|"
    r"\s+(?=(?:but|while|although|though|whereas|yet|however|without|lacking|with|showing|suggesting|indicating)\b)",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"^\s*(?:[-*+•]|\d+[.)]|#+)\s+|[*_`#]+", re.MULTILINE)
_HEADING = re.compile(r"^\s*(?:#+ .*|\*\*[^*\n]+:?\*\*:?|[^.\n]{1,60}:)\s*$", re.MULTILINE)
_NAME = re.compile(r"^[A-Z][\w /&-]{0,40}: (?=[A-Z])")  # of what a line is about
_LEADING = re.compile(r"^(?:(?:and|but|or|nor|yet|so|also|however|though|although|while)\b[\s,]*)+", re.IGNORECASE)
_STARTS_ANEW = re.compile(
    r"(?:but|while|although|though|whereas|yet|however|with|showing|suggesting|indicating|it|this|there|its|the)\b",
    re.I,
)
_OR = re.compile(r"^(?:or|nor)\b|\b(?:or|nor)\b", re.IGNORECASE)
_ADJECTIVE = re.compile(r"less$|^un|^non-|[- ]free$")
_JOINED = re.compile(r", (with|showing|suggesting|indicating|while|although|though|whereas)\b")
_SUPPOSED = re.compile(
    r"\b(?:may|might|could|would|will|if|whether|possibl[ey]|potential(?:ly)?|further|future|deeper|difficult|hinder\w*|"
    r"limit\w*|obscures?|prevent\w*|hint\w*|ambiguous|uncertain|(?:high|low)er?[- ]resolution|typical(?:ly)?)\b",
    re.IGNORECASE,
)
KEPT, DENIED, DOUBTFUL = "kept", "denied", "doubtful"


def summary(text: str) -> str | None:
    """Return one sentence that says what a text affirms, at most `MOST_WORDS` words; None where it affirms nothing.

    It is that sentence of the text which names most attributes once its denials are gone, the first of equal ones; one
    that says what may be, or what other data would show, only where there is no other.

    >>> summary("A face-on spiral galaxy with two arms, but no bar. It is blue.")
    'A face-on spiral galaxy with two arms.'
    """
    result = [kept for sentence in sentences(text) if (kept := affirmed(sentence)) is not None]
    return max(result, key=lambda kept: (_SUPPOSED.search(kept) is None, min(_attributes(kept), 4)), default=None)


def negatives(text: str) -> tuple[str, ...]:
    """Return the attributes that a text denies, by their stored names, ordered by name.

    >>> negatives("No bar or ring is visible in the disk. It has spiral arms.")
    ('bar', 'ring')
    """
    result = {name for sentence in sentences(text) for name in _denied(plain(sentence))}
    return tuple(sorted(result - ({"ring"} if result & {"inner ring", "outer ring"} else set())))


def _denied(sentence: str) -> Iterator[str]:
    """Yield the attributes that a sentence denies: those it names, and those that are part of a word ("unbarred")."""
    parts = [(token.text, compound(token.text)) for token in tokens(sentence)]
    denied = [word[part[0] : len(word) - part[1]] for word, part in parts if part]
    for name, pattern in CAPTION_ATTRIBUTES.items():
        named = re.finditer(rf"\b(?:{pattern})\b", sentence)
        if any(re.fullmatch(pattern, one) for one in denied) or any(is_denied(sentence, *one.span()) for one in named):
            yield name


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, plain or Markdown, without headings and emphasis.

    Lines that do not end like a sentence are headings where there are others that do.
    """
    lines = [line.strip() for line in _MARKUP.sub("", _HEADING.sub("", text)).splitlines() if re.search(r"\w", line)]
    ended = [line for line in lines if line.endswith((".", "!", "?", ";", ")"))]
    parts = [part for line in ended or lines for part in _SENTENCES.split(line) if re.search(r"\w", part)]
    return [_NAME.sub("", part.strip()) for part in parts]


def affirmed(sentence: str) -> str | None:
    """Return a sentence without its clauses that deny something, as a sentence; None where nothing is left of it."""
    if negator(sentence) is None:
        return _as_sentence(sentence)
    clauses = _clauses(sentence)
    kept = [clause for clause, state in clauses if state == KEPT]
    if not kept or (clauses[0][1] != KEPT and not _stands_alone(kept[0])):
        return None
    kept = [re.sub(r"^(?:but|yet|however)\s+", "", clause, flags=re.IGNORECASE) for clause in kept]
    result = _as_sentence(_JOINED.sub(r" \1", ", ".join(kept)))
    return result if result is None or negator(result) is None else None


def _clauses(sentence: str) -> list[tuple[str, str]]:
    """Return the clauses of a sentence, and of each whether it is kept, denied, or may belong to what is denied."""
    parts = [part for part in (piece.strip() for piece in _JOINTS.split(sentence)) if part and re.search(r"\w", part)]
    result: list[tuple[str, str]] = []
    for index, part in enumerate(parts):
        after_denial = bool(result) and result[-1][1] != KEPT
        if negator(part) is not None:
            state = DENIED
            if result and _ADJECTIVE.search(negator(part) or ""):  # "a smooth, featureless core": the noun is gone
                result[-1] = (result[-1][0], DOUBTFUL)
        elif not after_denial or _STARTS_ANEW.match(part):
            state = KEPT
        else:
            listed = result[-1][1] == DENIED and any(_OR.search(other) for other in parts[index:])
            state = DENIED if listed else DOUBTFUL
        result.append((part, state))
    return result


def _stands_alone(clause: str) -> bool:
    """Say whether a clause is a sentence without what stood before it."""
    return (
        re.match(r"(?:(?:and|but|yet|while|though|although)\s+)?(?:it|this|the|its|there|an?)\b", clause, re.I)
        is not None
    )


def _as_sentence(text: str) -> str | None:
    words = _LEADING.sub("", text.strip(" \t,;:.–—-")).split()
    if len(words) < 2:
        return None
    cut = " ".join(words[:MOST_WORDS]).rstrip(",;: ")
    return f"{cut[0].upper()}{cut[1:]}."


def _attributes(text: str) -> int:
    lowered = text.lower()
    named = sum(re.search(rf"\b(?:{pattern})\b", lowered) is not None for pattern in CAPTION_ATTRIBUTES.values())
    return named + bool(re.search(r"\b(?:galaxy|spiral|elliptical|lenticular|irregular)\b", lowered))
