"""Words that a text model was never taught: where a query goes beyond the training of the model that answers it.

A text encoder gives every text a vector, also one whose words no training text had: "polar ring" lands beside "ring",
and ordinary rings score well. The card of a model says which words its training texts had (`taught_words`, as stems);
here a query is compared with them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from galsearch.language.negation import negations
from galsearch.language.spelling import ABBREVIATIONS, expansions
from galsearch.language.text import Edit, edited, plain, tokens
from galsearch.language.vocabulary import (
    ADVERBS,
    CAPTION_ATTRIBUTES,
    CLAUSE,
    COMPARED,
    FILLERS,
    JOINTS,
    LINKS,
    OBJECTS,
    OPINIONS,
    QUERY_ATTRIBUTES,
    REQUESTS,
    SEEN,
    SPECTRAL,
    TRAILING,
)

_SAME_THING = re.compile(  # words for what is measured: galsearch knows them for what the models were taught otherwise
    "|".join(rf"(?:{words})\w*" for words in (*QUERY_ATTRIBUTES.values(), *CAPTION_ATTRIBUTES.values()) if words)
)
_SPECTRAL = re.compile(SPECTRAL)
_WORD = re.compile(r"[a-z][a-z']*[a-z]|(?<=-)[a-z](?![a-z])|(?<![a-z])[a-z](?=-)")  # a letter alone is a type or a band


@functools.cache
def _stemmer():
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def stems(texts: Iterable[str]) -> frozenset[str]:
    """Return the stems (Snowball, English) of the words of texts, a hyphenated word taken apart.

    >>> sorted(stems(["Barred spirals", "ring-like galaxy"]))
    ['bar', 'galaxi', 'like', 'ring', 'spiral']
    """
    return frozenset(_stemmer().stemWords(_WORD.findall(" ".join(map(plain, texts)))))


@functools.cache
def _harmless() -> frozenset[str]:
    """Return the stems of words that ask for nothing that a model would have to be taught."""
    lists = (ADVERBS, CLAUSE, COMPARED, FILLERS, JOINTS, LINKS, OBJECTS, OPINIONS, REQUESTS, SEEN, TRAILING)
    return stems(word for words in lists for word in words)


def untaught(text: str, taught: frozenset[str], *, spectra: bool = False) -> tuple[str, ...]:
    """Return the words of a text, in order, that no training text had and that may change what it asks for.

    `taught` are stems. Left out are what the text does not want, numbers, types such as SBb, requests ("show me"),
    opinions ("beautiful"), words of filters ("brighter than"), and other words for what galsearch measures, such as
    "pinwheel" for a spiral; with `spectra` instead what only a spectrum shows. Abbreviations are read as what they
    stand for.

    >>> taught = stems(["ring galaxy", "spiral galaxy with a bar"])
    >>> untaught("show me a beautiful polar-ring galaxy without a polar cap", taught)
    ('polar-ring',)
    >>> untaught("barred pinwheel brighter than 17", taught)
    ()
    """
    spelled = [Edit(*one.span, one.meaning) for one in expansions(text) if one.words in ABBREVIATIONS]
    text = edited(text, spelled)
    low, known = plain(text), taught | _harmless()
    hidden = [span for one in negations(low) for span in (*one.spans, one.said)]
    hidden += [one.span for one in expansions(text)]  # types, such as SBb
    hidden += [match.span() for match in (_SPECTRAL if spectra else _SAME_THING).finditer(low)]

    def is_known(word: re.Match, offset: int) -> bool:
        start, end = word.start() + offset, word.end() + offset
        return any(first <= start and end <= last for first, last in hidden) or _stemmer().stemWord(word[0]) in known

    unknown = [
        token.text
        for token in tokens(low)
        if not all(is_known(word, token.start) for word in _WORD.finditer(token.text))
    ]
    return tuple(dict.fromkeys(unknown))


def beyond_training(words: Iterable[str]) -> tuple[str, ...]:
    """Return what to tell a person of such words; nothing where there are none."""
    named = " or ".join(f"'{word}'" for word in words)
    return (f"no text that the model learned from has {named}: hits answer the other words",) if named else ()
