"""A sentence as it was understood: what is wanted and what is not, cuts and rewordings on offer. Nothing is applied.

The person who asked accepts what fits; `Understanding.query` then makes the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from galsearch.errors import QueryError
from galsearch.language.cuts import DENIED, Columns, Offer, edits_of, offers
from galsearch.language.foreign import foreign_language
from galsearch.language.negation import Negation, negations
from galsearch.language.spelling import Rewording, expansions, slips
from galsearch.language.text import Edit, edited, plain
from galsearch.language.unread import Unread, unread
from galsearch.language.vocabulary import ADVERBS, ARTICLES, OBJECTS, SPECTRAL
from galsearch.query import Query, Term

RARE = (  # words -> how many galaxies are so: a score cannot say that one of them is here
    (
        r"einstein[\s-](?:rings?|cross(?:es)?)|(?:gravitational|strong)(?:ly)?[\s-](?:lens\w*|arcs?)|"
        r"lensed (?:gala\w+|quasars?|arcs?)",
        "strong lenses are about one in a thousand massive galaxies (Treu 2010, ARA&A 48, 87)",
    ),
    (r"polar[\s-]rings?", "polar rings are about one in two hundred lenticulars (Whitmore et al. 1990, AJ 100, 1489)"),
)
_RARE = tuple((re.compile(rf"(?<![\w-])(?:{words})(?![\w-])"), reason) for words, reason in RARE)
_SPECTRAL = re.compile(SPECTRAL, re.IGNORECASE)


def rarity(text: str) -> str | None:
    """Return how rare what a text asks for is, in a sentence for a person, where it is so rare that hits mislead.

    >>> rarity("Einstein ring around a red galaxy").partition(" (")[0]
    'strong lenses are about one in a thousand massive galaxies'
    """
    low = plain(text)
    return next((reason for pattern, reason in _RARE if pattern.search(low)), None)


def about_spectra(text: str) -> str | None:
    """Return the first words of a text that speak of what only a spectrum shows, as they stand there.

    >>> about_spectra("red galaxies with strong Balmer absorption")
    'Balmer'
    """
    match = _SPECTRAL.search(text)
    return None if match is None else match.group().strip()


@dataclass(frozen=True)
class Phrase:
    """Words of a sentence, and where they stand in it: (start, end) pairs, the end not inclusive."""

    text: str
    spans: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Understanding:
    """How a sentence was read. `str()` of it says so in lines for a person.

    `wanted` and `unwanted` are phrases with their places in `text`; the search may look for the one and away from the
    others, or take the sentence whole. `offers` are conditions in SQL that the words may mean, each with the `sql`, the
    `words` it came from, its `reason` and the `rest` of the text; `expansions` are abbreviations and types with their
    meaning; `spelling` are likely slips with what was meant. None of them is applied until `query` is given it.
    `unread` are numbers that no column of the atlas can answer, each with its `words` and `reason`: a search by the
    sentence does not heed them. `language` names the likely language of the words where it is not English, `rarity`
    says how rare the galaxies are that they ask for, where the best hits may well be none of them.
    """

    text: str
    wanted: Phrase
    unwanted: tuple[Phrase, ...]
    offers: tuple[Offer, ...]
    expansions: tuple[Rewording, ...]
    spelling: tuple[Rewording, ...]
    negations: tuple[Negation, ...] = field(repr=False, default=())
    unread: tuple[Unread, ...] = ()
    language: str | None = None
    rarity: str | None = None

    def query(
        self, *accepted: Offer | Rewording, unlike: float | None = None, where: str | None = None, **options: Any
    ) -> Query:
        """Return the question with what was accepted of `offers`, `expansions` and `spelling`.

        Accepted offers are joined to `where` by AND, and their words leave the text unless they are `seen`. Without
        `unlike` the sentence stays whole, negations included; with it the wanted words are searched, and each of the
        unwanted ones is a term of weight -`unlike`. Where no words remain, the question lists what passes the cuts.
        The other options are those of `Atlas.search`. Raises QueryError for something that this reading did not offer,
        and where unwanted words are all there is to search by.
        """
        known = (*self.offers, *self.expansions, *self.spelling)
        for one in accepted:
            if one not in known:
                raise QueryError(
                    f"{one!r:.80} is no offer of this reading; take it from its offers, expansions or spelling"
                )
        if unlike is not None and not (isinstance(unlike, (int, float)) and unlike > 0):
            raise QueryError(f"unlike is {unlike!r}, expected a weight above 0, such as 0.5, or nothing")
        cuts = [one for one in accepted if isinstance(one, Offer)]
        parts = [*([] if where is None else [f"({where}\n)"]), *(one.sql for one in cuts)]  # it may end in a comment
        condition = where if not cuts else " AND ".join(parts)
        return Query(self._terms(accepted, cuts, unlike), where=condition, **options)

    def _terms(self, accepted: tuple, cuts: list[Offer], unlike: float | None) -> tuple[Term, ...]:
        edits = edits_of(self.text, cuts)
        edits += [Edit(*one.span, one.meaning) for one in accepted if isinstance(one, Rewording)]
        if unlike is None:
            text = edited(self.text, edits)
            return (Term("text", text),) if text else ()
        wanted = edited(self.text, [*edits, *(one.edit for one in self.negations)])
        struck = [span for phrase in self.unwanted for span in phrase.spans]
        away = [edited(self.text, edits, start=start, end=end) for start, end in struck]
        if not wanted and away and not cuts:
            raise QueryError(f"{self.text!r:.80} says only what is not wanted; add what to look for")
        terms = [Term("text", wanted)] if wanted else []
        return (*terms, *(Term("text", text, -unlike) for text in away if text and wanted))

    def __str__(self) -> str:
        lines = [f"wanted: {self.wanted}" if self.wanted.text else "wanted: nothing that a picture shows"]
        if self.unwanted:
            lines.append(f"not wanted: {', '.join(map(str, self.unwanted))}")
        lines += [f"offered cut: {one.sql}   ({one.words!r}: {one.reason})" for one in self.offers]
        lines += [f"{one.words} stands for: {one.meaning}" for one in self.expansions]
        lines += [f"did you mean {one.meaning!r} by {one.words!r}?" for one in self.spelling]
        return "\n".join([*lines, *self.hints])

    @property
    def hints(self) -> tuple[str, ...]:
        """What to tell a person even unasked: another language, numbers without a column, a rare kind of galaxy."""
        return (*map(str, self.unread), *_warnings(self.language, self.rarity))


def hints_without_columns(text: str) -> tuple[str, ...]:
    """Return the `hints` of a text that has no numbers, which take no column: quick."""
    return _warnings(foreign_language(text), rarity(text))


def _warnings(language: str | None, rare: str | None) -> tuple[str, ...]:
    stated = [f"the words look {language}, and only English is understood; ask in English"] if language else []
    return (*stated, *([f"{rare}: the best hits may well be none, look at the pictures"] if rare else []))


def understand(
    text: str, columns: Mapping[str, str], vocabulary: Iterable[str] = (), *, ucds: Mapping[str, str] | None = None
) -> Understanding:
    """Read a sentence, for an atlas with these numeric columns (name -> unit, "" for none) and phrases.

    `ucds` (name -> UCD, "" where there is none) say which columns are redshifts; without them it is their names.

    Reading never fails on what is in the sentence: what is not understood stays words. Raises QueryError when there is
    none.

    >>> reading = understand("nearby spiral without a bar", {"z": ""})
    >>> reading.wanted.text, reading.unwanted[0].text, reading.offers[0].sql
    ('nearby spiral', 'bar', 'z < 0.05')
    """
    if not isinstance(text, str) or not text.strip():
        raise QueryError(f"the text is {text!r:.40}, expected words; say what to look for")
    known = Columns(columns, ucds)
    offered = read = offers(text, known)
    result = negations(plain(text), tuple(one.span for one in offered if not one.seen))
    offered = tuple(one for offer in offered if (one := _under(text, offer, result)) is not None)
    cuts = {one.span for one in offered if not one.seen}
    struck = [span for one in result for span in one.spans if not any(_within(span, cut) for cut in cuts)]
    meant = tuple(one for one in expansions(text) if not any(_within(one.span, cut) for cut in cuts))
    compounds = [one.said for one in result if " " not in text[slice(*one.said)]]  # "bulgeless" is no slip
    taken = [*(one.span for one in meant), *cuts, *compounds]
    edits = [one.edit for one in result]
    answered: tuple[Offer | Rewording, ...] = (*read, *meant)
    return Understanding(
        text,
        Phrase(edited(text, edits), _between(text, edits)),
        tuple(Phrase(text[start:end], ((start, end),)) for start, end in struck),
        offered,
        meant,
        slips(text, vocabulary, taken),
        tuple(result),
        unread(text, known, [one.span for one in answered if any(map(str.isdigit, one.words))]),
        foreign_language(text),
        rarity(text),
    )


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _under(text: str, offer: Offer, result: Iterable[Negation]) -> Offer | None:
    """Return an offer as the negations around it leave it: denied, or as it is.

    None where it is part of something not wanted: who does not want face-on spirals has not asked for edge-on ones.
    """
    for one in result:
        for span in one.spans:
            if _within(offer.span, span):
                around = f"{text[span[0] : offer.span[0]]} {text[offer.span[1] : span[1]]}".casefold().split()
                if not set(around) <= {*ADVERBS, *ARTICLES, *OBJECTS}:
                    return None
                grown = one.said if len(one.spans) == 1 else offer.span
                denied = replace(offer, sql=_denied(offer.sql), words=text[slice(*grown)], span=grown, negated=True)
                rest = text.strip() if offer.seen else edited(text, [*edits_of(text, [denied]), one.edit])
                return replace(denied, rest=rest)
    return offer


def _denied(sql: str) -> str:
    """Return the condition that is true where `sql` is false; both are NULL where the column is."""
    single = re.fullmatch(r"(.+) (<|<=|>|>=) (\S+)", sql)
    if single is None or " AND " in sql or " OR " in sql:
        return f"NOT ({sql})"
    return f"{single[1]} {DENIED[single[2]]} {single[3]}"


def _between(text: str, edits: list[Edit]) -> tuple[tuple[int, int], ...]:
    """Return the spans of a text that edits leave, without blanks and commas around them."""
    spans, index = [], 0
    for edit in [*sorted(edits, key=lambda one: one.start), Edit(len(text), len(text))]:
        piece = text[index : edit.start]
        kept = piece.strip(" ,;")
        if kept:
            start = index + piece.index(kept)
            spans.append((start, start + len(kept)))
        index = max(index, edit.end)
    return tuple(spans)
