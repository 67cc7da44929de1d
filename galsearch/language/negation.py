"""Negation: which words deny, and how far each of them reaches, in queries, in descriptions and in SQL.

Every place that has to tell "with a bar" from "without a bar" does so here, by the words of `vocabulary`:

- Queries (`negations`), the short sentences that people search with. "without", "no" and "lacking" strike out the noun
  phrase that follows, up to a comma or a word that opens another clause; "not" and "non-" strike out one property;
  either strikes out every member of a list that ends in "or". After "without", "and" goes on ("without a bar and a
  ring"), after "no" and "not" it does not ("no bar and blue arms"). "absent" and "not visible" strike out what stands
  before them. Two negations cancel each other.
- The full-text index (`removals`): the same as regular expressions that DuckDB runs, so that a bundle asks alike.
- Descriptions (`is_denied`), what captions and vision models write. Their sentences are whole, so that a "no" reaches
  over all items of a list and to the end of its clause: a semicolon, a "but", a verb that draws a conclusion.
- Summaries (`negator`), which have to be free of every such word, whatever it reaches.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from galsearch.language.text import Edit, Token, edited, plain, tokens
from galsearch.language.vocabulary import (
    ADVERBS,
    AFTER_AND,
    ARTICLES,
    CLAUSE,
    DESCRIBED,
    DOUBTS,
    EXCEPTIONS,
    FILLERS,
    GONE,
    JOINTS,
    LINKS,
    NEGATORS,
    NO_NEGATION,
    NO_PREFIX,
    NOUNS,
    OBJECTS,
    PHRASES,
    PLAIN_TO_SEE,
    PROPERTIES,
    SEEN,
    TRAILING,
    VERBS,
)

MOST_WORDS = 6  # of a thing; what is longer is no noun phrase
MOST_MEMBERS = 8
NUMBER = "\0"  # the text of a token that stands for a number and its unit
KINDS = {phrase: kind for kind, phrases in (*NEGATORS.items(), ("chain", EXCEPTIONS)) for phrase in phrases}
Member = Callable[[int], tuple[tuple[int, int] | None, int]]  # what a list has at a token: its span, where it ends


def _any_of(phrases: Iterable[str]) -> str:
    """Return the pattern of one of some phrases, themselves plain words or patterns, the longest first."""
    return "|".join(phrase.replace(" ", r"\s+") for phrase in sorted(phrases, key=len, reverse=True))


_PREFIX = rf"(?:non-(?!(?:{_any_of(NO_PREFIX)})(?!\w))[^\W\d_][\w-]*|(?:non|un-?)(?:{PROPERTIES}))"
_LESS = rf"(?:(?:{NOUNS})-?less|(?:{NOUNS})-free|no-(?:{NOUNS})s?)"
_NEGATOR = rf"(?<![\w-])(?:{_any_of(KINDS)})(?![\w-])"
_compiled = functools.cache(re.compile)  # when they are needed: a search by words needs few of them


def compound(word: str) -> tuple[int, int] | None:
    """Return how many letters at the start and at the end of a word deny the rest of it; None where none do.

    >>> compound("unbarred"), compound("dust-free"), compound("non-thermal")
    ((2, 0), (0, 5), None)
    """
    if _compiled(_LESS).fullmatch(word):
        return (3, 0) if word.startswith("no-") else (0, 4 + word.endswith(("-less", "-free")))
    if _compiled(_PREFIX).fullmatch(word):
        lead = 3 if word.startswith("non") else 2
        return lead + (word[lead] == "-"), 0
    return None


# ---- queries


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
        self.text = text
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
        """Return the kind of the negator at a token, and how many tokens it has; None and 0 where there is none."""
        token = self.tokens[index] if index < len(self.tokens) else None
        match = None if token is None or token.text == NUMBER else _compiled(_NEGATOR).match(self.text, token.start)
        if match is None:
            return None, 0
        return KINDS[" ".join(match[0].split())], sum(each.start < match.end() for each in self.tokens[index:])

    def _is_compound(self, index: int) -> bool:
        return bool(index < len(self.words) and compound(self.words[index]))

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
        is_word = word[0].isalnum() or len(word) > 1  # of signs only the name of a line, "[o iii]", is longer
        return word in CLAUSE or not (is_word or self._span(index) in self.numbers)

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
        if {"or", "/"} & {*self.words[max(0, index - 1) : index], *self.words[index + 1 : index + 2]}:
            return index + 1  # "barred or unbarred": either will do, which is for the text model to say
        lead, tail = compound(token.text) or (0, 0)
        self._add([(token.start + lead, token.end - tail)], index, index + 1)
        return index + 1

    def _struck(self, index: int, begin: int, kind: str) -> int:
        """Take the members that follow a negator."""
        if kind == "property":
            verb = self._past(begin, VERBS)
            kind, begin = ("thing", verb) if self._past(verb, ARTICLES) > begin else (kind, begin)
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
                out.append(Token(NUMBER, *spans[-1]))
        else:
            out.append(token)
    return out


def affirmed(text: str) -> str:
    """Return a text without what it strikes out, for counting its words; "unbarred" stays, being a word of its own.

    >>> affirmed("unbarred spirals excluding mergers")
    'unbarred spirals'
    """
    result = negations(plain(text))
    return edited(text, (one.edit for one in result if not text[slice(*one.said)].isalpha()))


# ---- queries as SQL

_GAP = r"[\s-]+"
_WORD = r"[a-z]+(?:-[a-z]+)*"  # negators are English, and [a-z] is ten times quicker than all letters
_MORE = r"(?:[ \t-]+[a-z0-9]+(?:-[a-z0-9]+)*)"  # of a thing, which does not go on in the next line


@functools.cache
def removals() -> tuple[tuple[str, str], ...]:
    """Return patterns, and what takes the place of each, that take out of a text what `negations` strikes out of it.

    They are for an engine without look-around (RE2, which is DuckDB's), one after the other, on lower case with plain
    hyphens and quotes. What is left is good for counting its words: "or" becomes "|", "nor" "|/" and "and" "&", and
    ";" stands before what ends a noun phrase.
    """
    kinds = {kind: [phrase for phrase in KINDS if KINDS[phrase] == kind] for kind in NEGATORS}
    kinds["thing"].remove("neither")  # a property may follow: "neither barred nor ringed spiral"
    kinds["property"] += ["neither", "neither of them"]
    no_thing, no_chain, no_property = (_after_signs(kinds[kind]) for kind in ("thing", "chain", "property"))
    negator = _after_signs(KINDS)
    ends = {*CLAUSE, *(phrase.split()[0] for phrase in KINDS)} - {"and", "or", "nor"}
    filled = rf"(?:{_GAP}(?:{_any_of(FILLERS)}))*"
    thing = rf"{filled}{_GAP}{_WORD}{_MORE}{{0,{MOST_WORDS - 1}}}"
    one = rf"(?:{_GAP}(?:{_any_of(ADVERBS)}|[a-z]+ly))*{_GAP}(?:{_any_of(PHRASES)}|{_WORD})"
    verbs, articles = rf"(?:{_GAP};?(?:{_any_of(VERBS)}))+", rf"(?:{_GAP}(?:{_any_of(ARTICLES)}))+"
    noun = rf"(?:{verbs}(?:{articles})?|{articles}){_listed(thing, '|')}"
    location = rf"{_GAP};(?:in|at|near|on|from){thing}"
    before = rf"{_WORD}{_MORE}?(?:{_GAP};?(?:is|are|was|were|appears?))?"
    return (
        (rf"\bnon-({_any_of(NO_PREFIX)})\b", r"non\1"),
        (rf"\b(?:{_any_of(NO_NEGATION)})\b", " "),
        (r"([a-z]{2})/([a-z])", r"\1 or \2"),
        (rf"\band(\s+(?:{_any_of(AFTER_AND)}))\b", r";\1"),
        (r"\band\b", "&"),
        (r"\bor\b", "|"),
        (r"\bnor\b", "|/"),
        (rf"(^|[^a-z-])({_any_of(ends)})\b", r"\1;\2"),
        (rf"{negator}{_GAP}(?:non|un)-?({PROPERTIES})\b", r"\1"),  # two cancel each other
        (rf"{negator}{filled}{_GAP};?{negator}", " "),
        (rf"{before}{_GAP};?{no_property}{_GAP};?(?:{_any_of(SEEN)})\b", " "),
        (no_chain + _listed(thing, "|&"), " "),
        (rf"{no_property}(?:{noun}|{location}|{_listed(one, '|')})", " "),
        (rf"(?:{no_thing}|\|/){_listed(thing, '|')}", " "),
        (rf"{before}{_GAP};?(?:{_any_of(GONE)})\b", " "),
        (rf"\b(?:{NOUNS})-(?:less|free)\b", " "),
    )


def _after_signs(phrases: Iterable[str]) -> str:
    """Return the pattern of one of some phrases in whose inside ";" may stand."""
    return rf"\b(?:{_any_of(phrases)})\b".replace(r"\s+or\s+", r"\s+\|\s+").replace(r"\s+", r"\s+;?")


def _listed(member: str, links: str) -> str:
    """Return the pattern of one or more members, of which a comma joins only those before a link."""
    return rf"{member}(?:(?:\s*,{member})*\s*,?\s*[{links}]/?{member})*"


# ---- descriptions

_IN_DESCRIPTIONS = (*(phrase for phrases in NEGATORS.values() for phrase in phrases), *DESCRIBED)
_DENYING = rf"(?<![\w-])(?:(?P<no>{_any_of(NO_NEGATION)})|{_any_of(_IN_DESCRIPTIONS)})(?![\w-])"
_END_OF_CLAUSE = (
    r"[;:)]|\((?!(?:eg|e\.g\.|such as|like|including) )| [–—] |"
    r"\b(?:but|however|although|though|while|whereas|yet|except|consistent|which|because|since|supports?|favou?rs?|"
    r"points? to|due to|despite|given|reveals?|instead(?! of)|if|resembl\w*|reminiscent)\b|"
    r"(?<!would )(?<!might )(?<!could )(?<!typically )\b(?:suggests?|indicates?|impl(?:y|ies))\b|"
    r"(?<!that )\b(?:may|might|could)\b|"
    r",\s+(?:and )?(?:with|it|this|there|its|the|typical|characteristic|both|all|as|"
    r"(?!lacking|merging|interacting|star-forming|ring )[a-z]+ing) "
)
_SOMEWHERE = (  # "no dust within the bar" denies the dust
    r"\b(?:within|in|inside|across|crossing|along|through|throughout|around|surrounding|from|over|on|beyond|outside) "
    r"(?:the|its|this)(?:\W+[\w'-]+){0,3}\W*$"
)
_DENIED_AFTER = (
    r"(?:(?!\b(?:is|are|was|were|has|have|appears?|shows?|suggests?|indicates?|but|with|which|that|no)\b)[^;:()]){0,90}"
    r"\b(?:(?:(?:is|are|was|were|can|could|appears?|seems?|do|does|did)\s?)?(?:not|n't|cannot)(?: \w+){0,3}? "
    rf"(?:{_any_of((*SEEN, *PLAIN_TO_SEE))})|"
    rf"(?:is|are|can be|appears?|seems?) (?:\w+ )?(?:{_any_of(GONE)}|unlikely|ruled out))\b"
    r"|\W*(?:none|absent)\b"
)
_PART_BEFORE = r"(?<![\w-])(?:non|un)-?$"
_PART_AFTER = r"-?(?:less|free)(?![\w-])"
_FAR = 120  # letters after a thing within which it may be called absent


def end_of_clause(text: str, start: int = 0) -> re.Match | None:
    """Return the first word or sign of a description, in lower case, that ends a clause."""
    return _compiled(_END_OF_CLAUSE).search(text, start)


@functools.lru_cache(64)  # of one place it is asked whether it is denied, and whether it is only hinted at
def clause_before(sentence: str, start: int) -> str:
    """Return what stands before a place in its clause; nothing where that only says where in another thing it is."""
    left = sentence[:start]
    clause = left[max((cut.start() for cut in _compiled(_END_OF_CLAUSE).finditer(left)), default=0) :]
    return "" if _compiled(_SOMEWHERE).search(clause) else clause


def is_denied(sentence: str, start: int, end: int) -> bool:
    """Say whether a description, in lower case and by `plain`, denies what stands from `start` to `end`.

    >>> text = "no rings or bars are seen in the disk; the arms are strong."
    >>> [is_denied(text, text.index(word), text.index(word) + len(word)) for word in ("bars", "disk", "arms")]
    [True, False, False]
    """
    clause = clause_before(sentence, start)
    if _compiled(_PART_BEFORE).search(clause) or _compiled(_PART_AFTER).match(sentence, end):
        return True
    if any(match["no"] is None for match in _compiled(_DENYING).finditer(clause)):
        return True
    return _compiled(_DENIED_AFTER).match(sentence, end, end + _FAR) is not None


# ---- summaries

_ANY = rf"(?<![\w-])(?:{_any_of((*KINDS, *DESCRIBED, *DOUBTS, *GONE))}|non(?=-)|{_PREFIX}|{_LESS})(?!\w)|n't\b"


def negator(text: str) -> str | None:
    """Return the first word of a text that denies anything at all, in lower case; None where there is none.

    >>> negator("A face-on spiral without a bar."), negator("A face-on spiral.")
    ('without', None)
    """
    match = _compiled(_ANY).search(plain(text))
    return match.group() if match else None
