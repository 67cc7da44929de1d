"""What a "no" reaches: English rules for the short sentences that people search with.

"without", "no" and "lacking" strike out the noun phrase that follows, up to a comma or a word that opens another
clause; "not" and "non-" strike out one property; either strikes out every member of a list that ends in "or". After
"without", "and" goes on ("without a bar and a ring"), after "no" and "not" it does not ("no bar and blue arms").
"absent" and "not visible" strike out what stands before them. Two negations cancel each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from galsearch.language.text import Edit, Token, tokens
from galsearch.language.vocabulary import (
    ADVERBS,
    AFTER_AND,
    ARTICLES,
    CLAUSE,
    FILLERS,
    GONE,
    JOINTS,
    LINKS,
    NEGATORS,
    NO_NEGATION,
    NOUNS,
    OBJECTS,
    PHRASES,
    PROPERTIES,
    SEEN,
    TRAILING,
    VERBS,
)

_LESS = re.compile(rf"(?:(?:{NOUNS})-?less|(?:{NOUNS})-free|no-(?:{NOUNS})s?)")
_NON = re.compile(rf"non-[^\W\d_][\w-]*|(?:non|un-?)(?:{PROPERTIES})")
_NOT_NON = ("non-thermal", "non-parametric", "non-linear", "non-trivial", "non-standard")
MOST_WORDS = 6  # of a thing; what is longer is no noun phrase
MOST_MEMBERS = 8
Member = Callable[[int], tuple[tuple[int, int] | None, int]]  # what a list has at a token: its span, where it ends


@dataclass(frozen=True)
class Negation:
    """What one negation strikes out: `spans` of its members, all of it as `said`, and the `edit` that takes it out."""

    spans: tuple[tuple[int, int], ...]
    said: tuple[int, int]
    edit: Edit


def negations(text: str, numbers: tuple[tuple[int, int], ...] = ()) -> list[Negation]:
    """Return the negations of a text that `plain` gave, in order.

    `numbers` are spans that stand for one property, such as "brighter than 17".
    """
    return _Sentence(text, numbers).read()


class _Sentence:
    """A text on its way from the first token to the last."""

    def __init__(self, text: str, numbers: tuple[tuple[int, int], ...]) -> None:
        self.tokens = _joined(tokens(text), numbers)
        self.words = [token.text for token in self.tokens]
        self.numbers = set(numbers)
        self.result: list[Negation] = []
        self.free = 0  # the first token that no negation has taken

    def read(self) -> list[Negation]:
        index = 0
        while index < len(self.tokens):
            index = max(self._at(index), index + 1)
        return self.result

    def _at(self, index: int) -> int:
        """Read what begins at a token; return where to go on, or the same place when nothing does."""
        skipped = self._phrase(index, NO_NEGATION)
        if skipped:
            return index + skipped
        if self._is_compound(index):
            return self._compound(index)
        kind, length = self._negator(index)
        if kind is None or self._is_number_mark(index) or self._ends(index, length, kind):
            return self._gone(index)
        return self._negated(index, index + length, kind)

    def _negated(self, index: int, begin: int, kind: str) -> int:
        """Read what follows a negator."""
        if kind == "property" and self._phrase(begin, SEEN):
            return self._struck_before(index, begin + 1)
        second, more = self._negator(self._past(begin, FILLERS))
        if second or self._is_compound(begin):
            return self._cancelled(index, begin, second, more)
        return self._struck(index, begin, kind)

    # ---- what negates

    def _phrase(self, index: int, phrases: tuple[str, ...]) -> int:
        """Return how many tokens the longest of the phrases that begins here has, 0 for none."""
        fits = (len(p.split()) for p in phrases if self.words[index : index + len(p.split())] == p.split())
        return max(fits, default=0)

    def _negator(self, index: int) -> tuple[str | None, int]:
        result = [(self._phrase(index, phrases), kind) for kind, phrases in NEGATORS.items()]
        length, kind = max(result, key=lambda item: item[0])
        return (kind, length) if length else (None, 0)

    def _is_compound(self, index: int) -> bool:
        word = self.words[index] if index < len(self.words) else ""
        return bool(_LESS.fullmatch(word) or _NON.fullmatch(word)) and word not in _NOT_NON

    def _is_number_mark(self, index: int) -> bool:
        """Say whether "no" is that of "Arp no. 87", or "minus" a sign."""
        after = [word for word in self.words[index + 1 : index + 3] if word != "."]
        digit = bool(after) and after[0][0].isdigit() and self._span(index + 1) not in self.numbers
        return self.words[index] in ("no", "minus") and digit

    def _ends(self, index: int, length: int, kind: str) -> bool:
        """Say whether nothing follows that could be struck out: "dust lane missing"."""
        after = index + length
        if kind == "property" or (after < len(self.words) and self.words[after] in (*FILLERS, *VERBS)):
            return False
        return after >= len(self.words) or self._stops(after)

    def _stops(self, index: int) -> bool:
        word = self.words[index]
        return word in CLAUSE or not (word[0].isalnum() or self._span(index) in self.numbers)

    def _span(self, index: int) -> tuple[int, int]:
        token = self.tokens[index] if index < len(self.tokens) else Token("", -1, -1)
        return token.start, token.end

    def _past(self, index: int, words: tuple[str, ...]) -> int:
        while index < len(self.words) and self.words[index] in words:
            index += 1
        return index

    # ---- what is struck out

    def _compound(self, index: int) -> int:
        """Take "non-barred", "unbarred", "barless", "bar-free": a prefix or a suffix is the negator."""
        token = self.tokens[index]
        word = token.text
        if {"or", "/"} & {*self.words[max(0, index - 1) : index], *self.words[index + 1 : index + 2]}:
            return index + 1  # "barred or unbarred": either will do, which is for the text model to say
        if _LESS.fullmatch(word):
            lead = 3 if word.startswith("no-") else 0
            tail = 0 if lead else 4 + word.endswith(("-less", "-free"))
        else:
            lead = 3 if word.startswith("non") else 2
            lead, tail = lead + (word[lead] == "-"), 0
        self._add([(token.start + lead, token.end - tail)], index, index + 1)
        return index + 1

    def _struck(self, index: int, begin: int, kind: str) -> int:
        """Take the members that follow a negator."""
        if kind == "property":
            verb = self._past(begin, VERBS)
            articles = self._past(verb, ARTICLES)
            kind, begin = ("thing", verb) if articles > begin else (kind, begin)
        if self.words[index] == "neither":
            begin = self._past(begin, ("of", "them", "these", "which"))
            kind = "thing" if self._past(begin, ARTICLES) > begin else "property"
        number = self._number_of(begin)
        if number:
            self._add([self._span(number)], index, number + 1)
            return number + 1
        member = self._property if kind == "property" else self._thing
        spans, after = self._members(begin, member, goes_on=kind == "chain" or self.words[index] == "neither")
        if not spans:
            return index
        self._add(spans, index, after)
        return after

    def _number_of(self, begin: int) -> int:
        """Return the place of the number in "no galaxies with z > 1", which is what is denied; 0 for none."""
        noun = self._past(begin, ARTICLES)
        after = self._past(noun + 1, (*LINKS, *ARTICLES, "at", "of", "than"))
        is_object = noun < len(self.words) and self.words[noun] in (*OBJECTS, "anything", "those", "ones", "everything")
        return after if is_object and self._span(after) in self.numbers else 0

    def _members(self, begin: int, member: Member, *, goes_on: bool) -> tuple[list[tuple[int, int]], int]:
        """Return the spans of a list's members and where it ends; commas join only where an "or" follows."""
        spans: list[tuple[int, int]] = []
        index = after = begin
        while len(spans) < MOST_MEMBERS:
            span, end = member(index)
            if span is None:
                break
            spans.append(span)
            after = end
            link = self._link(end, goes_on=goes_on, member=member)
            if link is None:
                break
            index = link
        return spans, after

    def _link(self, end: int, *, goes_on: bool, member: Member) -> int | None:
        """Return where the next member begins, None when the list ends here."""
        index = end
        comma = index < len(self.words) and self.words[index] == ","
        index += comma
        word = self.words[index] if index < len(self.words) else ""
        if word in ("or", "nor", "/") or (word == "and" and goes_on and self._continues(index + 1)):
            return index + 1
        return index if comma and self._or_follows(index, member) else None

    def _continues(self, index: int) -> bool:
        word = self.words[index] if index < len(self.words) else ""
        return bool(word) and word not in AFTER_AND and not word[0].isdigit() and self._negator(index)[0] is None

    def _or_follows(self, index: int, member: Member) -> bool:
        """Say whether members and commas lead to an "or": only then is a comma part of the list."""
        for _ in range(MOST_MEMBERS):
            span, end = member(index)
            if span is None:
                return False
            index = end + (end < len(self.words) and self.words[end] == ",")
            if index < len(self.words) and self.words[index] in ("or", "nor"):
                return True
            if index == end:
                return False
        return False

    def _thing(self, index: int) -> tuple[tuple[int, int] | None, int]:
        """Return the span of the noun phrase at a token, without fillers around it, and where it ends."""
        begin = self._past(index, FILLERS)
        end = begin
        while end < len(self.words) and end - begin < MOST_WORDS and not self._stops(end):
            if self._negator(end)[0] or (end > begin and self._span(end) in self.numbers):
                break
            end += 1
        last = end
        while last > begin and self.words[last - 1] in TRAILING:
            last -= 1
        if self.words[end : end + 2] == ["at", "all"]:
            end += 2
        return ((self.tokens[begin].start, self.tokens[last - 1].end), end) if last > begin else (None, index)

    def _property(self, index: int) -> tuple[tuple[int, int] | None, int]:
        """Return the span of a property with its adverbs, or of a place such as "in a cluster", and where it ends."""
        if index < len(self.words) and self.words[index] in ("in", "at", "near", "on", "from", "within"):
            span, end = self._thing(index + 1)
            return (None if span is None else (self.tokens[index].start, span[1])), end
        if index < len(self.words) and self.words[index] in ARTICLES:
            return self._thing(index)
        end = index
        while end < len(self.words) and (self.words[end] in ADVERBS or self.words[end].endswith("ly")):
            end += 1
        if end >= len(self.words) or self._stops(end):
            return None, index
        end += self._phrase(end, PHRASES) or 1
        return (self.tokens[index].start, self.tokens[end - 1].end), end

    # ---- what stands before

    def _gone(self, index: int) -> int:
        return self._struck_before(index, index + 1) if self.words[index] in GONE else index

    def _struck_before(self, index: int, after: int) -> int:
        """Take the noun phrase before "absent" or "not visible"."""
        end = index
        while end > self.free and self.words[end - 1] in (*LINKS, "appear", "appears", ":"):
            end -= 1
        begin = end
        while begin > self.free and end - begin < 3 and not self._stops(begin - 1):
            if self.words[begin - 1] in (*OBJECTS, *LINKS, *ARTICLES):
                break
            begin -= 1
        if begin == end:
            return index
        self._add([(self.tokens[begin].start, self.tokens[end - 1].end)], begin, after)
        return after

    def _cancelled(self, index: int, begin: int, second: str | None, more: int) -> int:
        """Take two negations out: what follows is wanted."""
        if second is None:  # "not non-barred": the prefix goes with the "not"
            token = self.tokens[begin]
            lead = next((len(p) for p in ("non-", "non", "un-", "un") if token.text.startswith(p)), 0)
            end = token.start + lead if lead else token.end
            self.result.append(Negation((), (self.tokens[index].start, end), Edit(self.tokens[index].start, end)))
            return begin + 1
        last = self._past(begin, FILLERS) + more
        by = "" if second == "property" else "with"
        end = self.tokens[last - 1].end if last <= len(self.tokens) else self.tokens[-1].end
        stated = self.tokens[index].start, end
        self.result.append(Negation((), stated, Edit(*stated, by)))
        self.free = last
        return last

    def _add(self, spans: list[tuple[int, int]], first: int, after: int) -> None:
        """Note what is struck out, and take what linked it to the words before; less where a noun still follows."""
        alone = after >= len(self.words) or self._stops(after)
        start, end = self.tokens[first].start, self.tokens[after - 1].end
        stated = start, end
        follows = self.words[after] if after < len(self.words) else ""
        if follows == "but" or (follows == "and" and first > self.free and self.words[first - 1] == "with"):
            end = self.tokens[after].end  # "with no bar and rings" is "with rings"
        if follows != "and" or end == stated[1]:
            while first > self.free and self.words[first - 1] in ((*LINKS, *ARTICLES) if alone else JOINTS):
                first -= 1
        self.result.append(Negation(tuple(spans), stated, Edit(self.tokens[first].start, end)))
        self.free = after


def _joined(result: list[Token], numbers: tuple[tuple[int, int], ...]) -> list[Token]:
    """Return the tokens with those inside each of the spans made one."""
    out: list[Token] = []
    spans = sorted(numbers, reverse=True)
    for token in result:
        while spans and spans[-1][1] <= token.start:
            spans.pop()
        if spans and spans[-1][0] <= token.start:
            if not out or out[-1].start != spans[-1][0]:
                out.append(Token("\0", *spans[-1]))
        else:
            out.append(token)
    return out
