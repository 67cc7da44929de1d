"""What a text about a galaxy answers in the decision tree of Galaxy Zoo: which words say what, how far a "no" reaches.

The tree is that of Galaxy Zoo DECaLS (Walmsley et al. 2022, MNRAS 509, 3966). A text is read without a model, by rules:

1. It is cut into sentences. What a heading names is not thereby said to exist, unless the words after it deny it.
2. Left out is what is said of other objects (neighbors, background, foreground), of galaxies in general, of what other
   data would show or these cannot, and of what will become of the galaxy. Of merging, what is said of neighbors counts,
   and what may have happened long ago does not.
3. Each phrase of `LEXICON` that occurs is a statement. A "no", "without", "lack of" before it in the same clause, or
   "is not visible", "is absent" after it, makes it a denial, which states the answer that the rule names for that, or
   none. A "no" reaches over all items of a list; it ends at a semicolon, a "but", a verb that draws a conclusion.
4. A hedge in the same clause ("possible", "hint of", "may", "faint") makes a statement weigh `HEDGED` of what it would,
   and a bar or a merger that is only hinted at is the weaker answer, a weak bar or a minor disturbance.
5. Contradictions: the answer whose statements weigh most in sum is that of the text, each answer counted once a
   sentence; of equal ones, that which was stated first. Sums below `ENOUGH` answer nothing.
6. A disk is taken not to be edge-on where the text speaks of its arms, its bar or the size of its bulge, and never of
   the view from the side.

Question and answer are spelled as in the tables of votes. A question that the text does not answer is None.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from galsearch.errors import QueryError
from galsearch.language.negation import clause_before, end_of_clause, is_denied


class Question(NamedTuple):
    """The answers that a question allows, and the earlier answers of which one leads to it; none for the first."""

    answers: tuple[str, ...]
    after: tuple[tuple[str, str], ...] = ()


SMOOTH, FEATURED, ARTIFACT = "smooth", "featured-or-disk", "artifact"
_FROM_ABOVE, _WITH_ARMS = (("disk-edge-on", "no"),), (("has-spiral-arms", "yes"),)

TREE: dict[str, Question] = {  # in the order in which they are asked
    "smooth-or-featured": Question((SMOOTH, FEATURED, ARTIFACT)),
    "how-rounded": Question(("round", "in-between", "cigar-shaped"), (("smooth-or-featured", SMOOTH),)),
    "disk-edge-on": Question(("yes", "no"), (("smooth-or-featured", FEATURED),)),
    "edge-on-bulge": Question(("boxy", "none", "rounded"), (("disk-edge-on", "yes"),)),
    "has-spiral-arms": Question(("yes", "no"), _FROM_ABOVE),
    "spiral-winding": Question(("tight", "medium", "loose"), _WITH_ARMS),
    "spiral-arm-count": Question(("1", "2", "3", "4", "more-than-4", "cant-tell"), _WITH_ARMS),
    "bar": Question(("strong", "weak", "no"), _FROM_ABOVE),
    "bulge-size": Question(("dominant", "large", "moderate", "small", "none"), _FROM_ABOVE),
    "merging": Question(
        ("none", "minor-disturbance", "major-disturbance", "merger"),
        (("smooth-or-featured", SMOOTH), ("smooth-or-featured", FEATURED)),
    ),
}
NEGATIVE = {"no", "none", SMOOTH, ARTIFACT}  # the answers that say there is no such thing


class Rule(NamedTuple):
    """A phrase (a regular expression on lower case) and the answer it states, as it stands, denied, and hedged.

    `denied` None: its denial answers nothing. `hedged` None: as it stands, only weaker.
    """

    question: str
    answer: str | None
    pattern: str
    weight: float = 1.0
    denied: str | None = None
    hedged: str | None = None


def _between(words: int) -> str:
    """Return the pattern of at most so many words between two others."""
    return rf"(?:[\s,/-]+[\w'-]+){{0,{words}}}?[\s,/-]+"


_ARMS = r"\bspiral[\s-]+(?:arms?|structures?|patterns?|features?|morphology|segments?|arcs?)\b|\barms\b"
_SPIRAL = r"\bspirals?\b(?! (?:arm|structure|pattern|feature|galaxies))"
_OUTLINE = (
    r"(?:shape|outline|isophote|profile|light|envelope|halo|contour|form\b|appearance|structure|component|distribution)"
)
_NO_GALAXY = rf"(?!\W+(?:{_OUTLINE}|disk|bulge|core|ring|region|nucleus|projection|aperture|morpholog\w+ in))"
_ELLIPTICAL = rf"\bellipticals?\b(?! galaxies){_NO_GALAXY}"
_ROUND = r"\b(?:circular(?:ly)?(?! (?:polari|velocit))|round(?:ed|er|ish|ness)?|spherical(?:ly)?)\b"
_SLIGHTLY = r"\b(?:slight(?:ly)?|mild(?:ly)?|modest(?:ly)?|moderate(?:ly)?|somewhat|gently)"
_VERY = r"\b(?:highly|very|strongly|extremely|significantly|markedly|strikingly|greatly)"
_STRONG = (
    r"\b(?:strong(?:ly)?|prominent(?:ly)?|clear(?:ly)?|obvious|well-defined|distinct|bright|large|long|pronounced|"
    r"luminous|significant)"
)
_WEAK = r"\b(?:weak(?:ly)?|small|short|faint|subtle|mild(?:ly)?|oval|slight(?:ly)?|nuclear|low-contrast)"
_LARGE = r"\b(?:large|prominent|substantial|significant|strong|sizeable|pronounced|massive)"

_OUTSTANDING = rf"(?:{_LARGE}|\b(?:bright|brighter|luminous|concentrated|well-defined|dominant))"

_KIND, _SHAPE, _VIEW = "smooth-or-featured", "how-rounded", "disk-edge-on"
LEXICON: tuple[Rule, ...] = (
    Rule(_KIND, SMOOTH, _ELLIPTICAL, 0.75, denied=FEATURED),
    Rule(_KIND, SMOOTH, r"\belliptical galaxies\b", 0.25, denied=FEATURED),  # more often a class than this galaxy
    Rule(_KIND, SMOOTH, r"\be[0-7]\b"),
    Rule(_KIND, SMOOTH, r"\bearly-type galax", 0.5),
    Rule(_KIND, SMOOTH, r"\bspheroid(?:al)? (?:galaxy|system)|\bdwarf spheroidal", 0.5),
    Rule(_KIND, SMOOTH, r"\bfeatureless|\bsmooth\b(?=.{0,40}(?:light|profile|morpholog|galaxy|object))", 0.25),
    Rule(_KIND, FEATURED, _SPIRAL),
    Rule(_KIND, None, _SPIRAL, 0.5, denied=SMOOTH),
    Rule(_KIND, FEATURED, r"\bspiral galaxies\b", 0.25, denied=SMOOTH),
    Rule(_KIND, FEATURED, _ARMS, 0.5, denied=SMOOTH),
    Rule(_KIND, FEATURED, r"\bdis[kc](?:[- ]like|y)?\b", denied=SMOOTH),
    Rule(_KIND, FEATURED, r"\blenticulars?\b|\bs0\b", 0.5),
    Rule(_KIND, FEATURED, r"\bedge-on\b|\bhighly inclined|\bbarred\b", 0.5),
    Rule(_KIND, FEATURED, r"\birregular\b|\bmagellanic", 0.75),
    Rule(_KIND, FEATURED, r"\b(?:merging|interacting|merger)\b", 0.5),
    Rule(_KIND, ARTIFACT, r"\bnot a galaxy\b|\b(?:is|as) an? (?:imaging |image |instrumental )?artifact"),
    Rule(_SHAPE, "round", _ROUND),
    Rule(_SHAPE, "round", r"\be[01]\b"),
    Rule(_SHAPE, "round", r"\bspheroid(?:al)?\b", 0.25),
    Rule(
        _SHAPE, "in-between", rf"{_SLIGHTLY} (?:\w+ )?(?:elongat\w+|elliptical|flatten\w+|oval|oblate|ellipticity)", 2.5
    ),
    Rule(_SHAPE, "in-between", r"\bovals?\b|\bovoid|\bellipsoidal|\boblate"),
    Rule(_SHAPE, "in-between", r"\be[2-5]\b"),
    Rule(_SHAPE, "in-between", rf"\belliptical\W+{_OUTLINE}", 0.25),
    Rule(_SHAPE, "in-between", r"\belongat\w+", 0.4),
    Rule(_SHAPE, "cigar-shaped", rf"{_VERY} (?:elongat\w+|flatten\w+)|\bcigar|\bspindle|\bneedle|\be[67]\b", 2),
    Rule(_VIEW, "yes", r"\bedge-on\b", 1.5, denied="no"),
    Rule(_VIEW, "yes", r"\b(?:high(?:ly)?|strong(?:ly)?|extreme(?:ly)?|large|steep(?:ly)?) (?:inclin|tilt)\w+", 0.75),
    Rule(_VIEW, "yes", r"\binclination\b.{0,30}\b(?:7[5-9]|8\d|90)\s*(?:°|deg)"),
    Rule(_VIEW, "no", r"\bface-on\b"),
    Rule(_VIEW, "no", rf"(?:{_SLIGHTLY}|\bintermediate|\blow) (?:inclin|tilt)\w+"),
    Rule(_VIEW, "no", r"\binclined\b|\binclination\b|\btilted\b", 0.25),
    Rule(_VIEW, "no", _ARMS, 0.25),
    Rule("edge-on-bulge", "rounded", rf"{_ROUND}[^,;]{{1,40}}\bbulge\b|\bbulge\b[^,;]{{0,30}}{_ROUND}"),
    # one that stands out and is not called boxy is round, if it is said twice
    Rule("edge-on-bulge", "rounded", rf"{_OUTSTANDING}{_between(3)}bulge\b|\bbulge[- ]dominat\w+", 0.25),
    Rule("edge-on-bulge", "rounded", rf"\b(?:spheroidal|oval|ellipsoidal|classical){_between(2)}bulge\b", 0.5),
    Rule("edge-on-bulge", "boxy", r"\bboxy|\bpeanut|\bx-shaped", 1.5),
    Rule("edge-on-bulge", "none", r"\bbulgeless|\bsuperthin|\bpure dis[kc]", 1.5),
    Rule("edge-on-bulge", None, r"\bbulge\b", 0.5, denied="none"),
    Rule("has-spiral-arms", "yes", _ARMS, denied="no"),
    Rule("has-spiral-arms", "yes", rf"{_SPIRAL}|\bspiral galaxies\b", 0.25, denied="no"),
    Rule("has-spiral-arms", "no", rf"\blenticulars?\b|\bs0\b|{_ELLIPTICAL}|\bfeatureless\b", 0.4),
    Rule("spiral-winding", "tight", r"\btight(?:ly)?[\s-]+(?:wound|wrapped|coiled|winding|spiral)", denied="loose"),
    Rule(
        "spiral-winding",
        "medium",
        rf"(?:{_SLIGHTLY}|\bintermediate|\bmedium)[\s-]+(?:tight(?:ly)?|loose(?:ly)?|open)?[\s-]*(?:wound|open|winding|pitch)",
        1.5,
    ),
    Rule(
        "spiral-winding",
        "loose",
        r"\bloose(?:ly)?[\s-]+(?:wound|wrapped|coiled|winding|spiral)|\bopen (?:spiral|arms?|winding|pattern)|"
        r"\bwide(?:ly)? open",
        denied="tight",
    ),
    Rule("spiral-arm-count", "1", rf"\b(?:one|single){_between(2)}arm(?:ed)?\b"),
    Rule("spiral-arm-count", "2", rf"\b(?:two|both|pair of|2){_between(4)}arm(?:s|ed)?\b", 2),
    Rule("spiral-arm-count", "2", r"\bgrand[- ]design", 0.25),
    Rule("spiral-arm-count", "3", rf"\b(?:three|3){_between(3)}arm(?:s|ed)\b"),
    Rule("spiral-arm-count", "4", rf"\b(?:four|4){_between(3)}arm(?:s|ed)\b"),
    Rule("spiral-arm-count", "more-than-4", rf"\b(?:five|six|many){_between(3)}arm(?:s|ed)\b"),
    Rule("spiral-arm-count", "cant-tell", rf"\b(?:multiple|several|multi){_between(3)}arm(?:s|ed)?\b", 0.5),
    Rule("spiral-arm-count", "cant-tell", r"\bfloccul\w+|\bpatchy\b.{0,30}arms?\b", 0.5),
    Rule("bar", "no", r"\bunbarred|\bnon-?barred|\bnot barred|\bbarless", 2),
    Rule("bar", "strong", r"\bsb(?:[a-d]{1,2}|m)\b|\bsb\(", 0.5, hedged="weak"),
    Rule("bar", "weak", r"\bsab(?:[a-d]{1,2}|m)\b|\bsab\(", 0.5),
    Rule("bar", "weak", rf"{_WEAK}{_between(2)}bar(?:red|s)?\b", 2.5, denied="no"),
    Rule("bar", "strong", rf"{_STRONG}{_between(2)}bar(?:red|s)?\b", denied="no", hedged="weak"),
    Rule("bar", "strong", r"\bbar(?:red|s)?\b(?! chart)", 0.5, denied="no", hedged="weak"),
    Rule("bulge-size", "dominant", r"\bbulge[- ]dominat\w+|\bbulge\b[^,;]{0,30}\bdominat\w+", 1.5),
    Rule(
        "bulge-size",
        "dominant",
        rf"\bdominant{_between(2)}bulge\b|\bdominat\w+ by (?:a|the|its){_between(4)}bulge",
        1.5,
    ),
    Rule("bulge-size", "large", rf"{_LARGE}{_between(3)}bulge\b", denied="small"),
    Rule("bulge-size", "moderate", rf"\b(?:moderate(?:ly)?|intermediate|medium){_between(3)}bulge\b", 1.5),
    Rule("bulge-size", "small", rf"\b(?:small|compact|weak|minor|tiny|modest|faint){_between(2)}bulge\b", 1.5),
    Rule("bulge-size", "none", r"\bbulgeless|\bpure dis[kc]", 2),
    Rule("bulge-size", None, r"\bbulge\b", 0.5, denied="none"),
    Rule("merging", "merger", r"\b(?:mergers?|merging|coalesc\w+)\b", denied="none", hedged="minor-disturbance"),
    Rule("merging", "merger", r"\b(?:interacting|interactions?)\b", 0.75, denied="none", hedged="minor-disturbance"),
    Rule(
        "merging",
        "merger",
        r"\b(?:tidal|bridges?|double nucle\w+|two nuclei)\b",
        0.75,
        denied="none",
        hedged="minor-disturbance",
    ),
    Rule("merging", "minor-disturbance", r"\bminor (?:merger|interaction)s?|\basymmetr\w+|\bwarp\w*", 0.75, "none"),
    Rule(
        "merging",
        "minor-disturbance",
        r"\blopsided\w*|\bshells?\b|\bslight(?:ly)? (?:disturb|distort)\w+",
        0.75,
        "none",
    ),
    Rule("merging", "minor-disturbance", r"\b(?:disturb|distort|perturb)\w*", 0.5, denied="none"),
    Rule(
        "merging", "major-disturbance", r"\b(?:severe(?:ly)?|heavily|violently) (?:disturb|distort)\w+", denied="none"
    ),
    Rule("merging", "none", r"\bundisturbed|\bunperturbed|\bisolated|\brelaxed|\bregular\b", 0.5),
    Rule("merging", "none", r"\bsymmetric(?:al)?\b|\bquiescent", 0.5),
)
HEDGED = 0.4  # of the weight
ENOUGH = {"how-rounded": 0.4, "edge-on-bulge": 0.5, "bulge-size": 0.5}
ENOUGH_ELSEWHERE = 0.2
LONGEST = 2000  # characters of a sentence: the time of reading one grows with their square

_DENIED_HEADING = re.compile(r"\W*(?:none|no|not|absent|there (?:is|are) no|lack\w*)\b")
_HEDGE = re.compile(
    r"\b(?:possibl[ey]|possibilit\w+|potential(?:ly)?|may|might|could|perhaps|hints?|hinting|suggestion|tentative(?:ly)?|"
    r"(?:cannot|can't) (?:be )?(?:\w+ )?(?:rule|exclude)\w*|ruled out|difficult|unclear|uncertain|ambiguous|"
    r"faint(?:ly)?|subtle|subtly|if (?:any|present)|whether|vague(?:ly)?|marginal(?:ly)?|indistinct|poorly|"
    r"not (?:well|clearly|sharply)[- ]\w+)\b"
)
_NOT_SEEN_HERE = re.compile(  # other data, these data, the future, and galaxies in general
    r"\bwill\b|\beventual|\bfollow-up|\bfurther (?:observ|analy|stud|investig)|\bfuture\b|\bhigh(?:er)?[- ]resolution|"
    r"\bdeeper\b|\bspectroscop|\bkinematic|\bwould (?:also )?(?:be|help|reveal|allow|require|clarify|confirm)|"
    r"\bto (?:confirm|determine|ascertain)\b|"
    r"\b(?:limit\w*|prevent\w*|hinder\w*|hamper\w*|preclude\w*|difficult to|impossible to|too low to)\b.*"
    r"\b(?:abilit|detect|discern|identif|analys|detail|determin|confirm|classif|resolv|assess|distinguish)|"
    r"\b(?:such|these|many|most|elliptical|spiral|lenticular|early-type|late-type|s0) galaxies "
    r"(?:are|have|can|may|often|typically|tend|form|generally|like)|\bgalaxies like this|\bare thought|\bin general\b|"
    r"\b(?:often|commonly|typically|frequently|usually) (?:found|associated|seen|observed|form)"
)
_LONG_AGO = re.compile(
    r"\b(?:past|ancient|earlier|previous|histor(?:y|ical)|formed|evolution\w*|assembl\w+|scenario|environments?)\b"
)
_OTHER = (
    r"background|foreground|companions?|neighbou?r\w*|nearby|surrounding|others?|satellites?|secondary|additional|field"
)
_OF_OTHERS = re.compile(
    rf"\b(?:{_OTHER}|smaller|fainter|distant|ancillary|unrelated)(?:[\s,/-]+[\w-]+){{0,3}}?[\s/-]+"
    rf"(?:objects?|galax(?:y|ies)|sources?|stars?|systems?|features?)\b|^\W*(?:{_OTHER}|environment)\b"
)
_OF_THIS = re.compile(
    r"\b(?:main|central|primary|target|dominant|principal)[\s-]+(?:[\w-]+\s+)?(?:galaxy|object|source|system|body)\b"
)
_HEADING = re.compile(r"[^:.]{1,60}:")
_BARE_HEADING = re.compile(r"[^:.;,]{1,60}$")
_OTHERS_HEADING = re.compile(rf"\b(?:{_OTHER}|surround\w*|ancillary|environment\w*)\b")
_BULLET = re.compile(r"\s*(?:[-•·–—]|(?P<number>\(?\w{1,2}[.)]))?\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"“(•])|;\s")
_SHORTENED = re.compile(r"\b(e\.g|i\.e|etc|approx|cf|vs)\.(?!\s+[A-Z])")
_PLAIN = str.maketrans({"‐": "-", "‑": "-", "–": " – ", "—": " — ", "’": "'", "\u202f": " ", "\u00a0": " "})


class Overlap(NamedTuple):
    """How a reading agrees with the truth; `precision` is None where nothing was said."""

    precision: float | None  # share of what is said that is true
    coverage: float  # share of the truth's questions that are answered at all
    path_overlap: float  # share of the truth's answers that are said


class Sentence(NamedTuple):
    """A sentence in lower case, and whether the heading above it says that it is about other objects."""

    words: str
    of_others: bool


class Statement(NamedTuple):
    """What one phrase answers (None: only that there is such a thing, or none), how surely, and in which sentence."""

    question: str
    answer: str | None
    weight: float
    positive: bool
    sentence: int


def read(text: str) -> dict[str, str | None]:
    """Return the answer of `text` to every question of `TREE`, None where it says nothing.

    Answers need not fit each other (a text may call an elliptical barred): `path` keeps those that do.

    >>> answers = read("A face-on spiral with two arms and no bar.")
    >>> answers["disk-edge-on"], answers["spiral-arm-count"], answers["bar"], answers["merging"]
    ('no', '2', 'no', None)
    """
    sums: dict[str, dict[str | None, float]] = {question: {} for question in TREE}
    for (question, answer, _), weight in _once_a_sentence(statements(text)).items():
        sums[question][answer] = sums[question].get(answer, 0.0) + weight
    answers = {question: _heaviest(question, sums[question]) for question in TREE}
    if answers[_VIEW] is None and any(answers[question] for question in ("has-spiral-arms", "bar", "bulge-size")):
        answers[_VIEW] = "no"
    return answers


def stated(text: str) -> dict[str, bool | None]:
    """Return for every question whether `text` says that there is such a thing; None where it says neither.

    The thing is features or a disk for the first question, a view from the side for the third, else what the question
    is named after; of answers, those in `NEGATIVE` deny it. Equal weights for both count as positive.

    >>> signs = stated("spiral without a bar")
    >>> signs["has-spiral-arms"], signs["bar"], signs["merging"]
    (True, False, None)
    """
    sums: dict[str, list[float]] = {question: [0.0, 0.0] for question in TREE}
    for each in statements(text):
        sums[each.question][each.positive] += each.weight
    return {
        question: None if max(sums[question]) < ENOUGH_ELSEWHERE else sums[question][True] >= sums[question][False]
        for question in TREE
    }


def path(answers: Mapping[str, str | None]) -> dict[str, str]:
    """Return those answers that lie on the way down the tree, in the order of the questions.

    A question is reached by the answer before it; what follows an unanswered one is left out. Raises QueryError for a
    question or an answer that the tree does not have.
    """
    _check(answers)
    taken: dict[str, str] = {}
    for question, (_, after) in TREE.items():
        reached = not after or any(taken.get(before) == answer for before, answer in after)
        if reached and (answer := answers.get(question)) is not None:
            taken[question] = answer
    return taken


def overlap(stated: Mapping[str, str | None], truth: Mapping[str, str | None]) -> Overlap:
    """Return how the path of `stated` agrees with that of `truth`, usually the volunteers'.

    `path_overlap` is the score that caption benchmarks on this tree publish: size of the intersection of the two
    paths over size of the truth's. It counts silence as an error; `precision` does not. Raises QueryError for a truth
    without an answer.
    """
    mine, true = path(stated), path(truth)
    if not true:
        raise QueryError("the truth answers no question of the tree; leave out galaxies that nobody classified")
    right = len(mine.items() & true.items())
    return Overlap(right / len(mine) if mine else None, len(mine.keys() & true.keys()) / len(true), right / len(true))


@functools.cache  # compiled when they are needed: a search from the command line needs none
def _rules() -> tuple[tuple[Rule, re.Pattern], ...]:
    return tuple((rule, re.compile(rule.pattern)) for rule in LEXICON)


def statements(text: str) -> Iterator[Statement]:
    """Yield what the phrases of `text` state, in the order of its sentences and, within one, of `LEXICON`."""
    for number, (words, of_others) in enumerate(sentences(text)):
        if _NOT_SEEN_HERE.search(words):
            continue
        long_ago = bool(_LONG_AGO.search(words))
        for rule, pattern in _rules():
            if of_others and rule.question != "merging":
                continue
            result = (_statement(rule, words, match, number) for match in pattern.finditer(words))
            yield from (each for each in result if each and not (long_ago and _merged(each)))


def sentences(text: str) -> Iterator[Sentence]:
    """Yield the sentences of a text, Markdown or plain, without bullets, emphasis and headings that stand alone."""
    plain = _SHORTENED.sub(lambda match: match[1].replace(".", ""), re.sub(r"[*_#`]+", "", text.translate(_PLAIN)))
    others: int | None = None  # indentation of a heading about other objects, while below it
    for line in filter(str.strip, plain.splitlines()):
        bullet = _BULLET.match(f" {line.strip()}")
        words = f" {line.strip()}"[bullet.end() :] if bullet else line.strip()
        number = bullet["number"] if bullet else None
        bare = _BARE_HEADING.match(words) if number else None
        heading, indent = _HEADING.match(words) or bare, len(line) - len(line.lstrip())
        if others is not None and (indent < others or (heading and indent == others) or (number or "")[:1].isdigit()):
            others = None
        if heading and _OTHERS_HEADING.search(heading.group().lower()):
            others = indent
        if not bare:
            parts = (part for whole in _SENTENCE_END.split(words) for part in _pieces(whole.lower()))
            yield from (Sentence(part, others is not None) for part in parts)


def _pieces(words: str) -> Iterator[str]:
    return (words[start : start + LONGEST] for start in range(0, len(words), LONGEST))


def _statement(rule: Rule, words: str, match: re.Match, sentence: int) -> Statement | None:
    left, right = words[: match.start()], words[match.end() :]
    heading = _HEADING.match(words)
    if heading and match.start() < heading.end():
        denied = rule.denied and _DENIED_HEADING.match(words[heading.end() :])
        return _stating(rule, rule.denied, rule.weight, sentence) if denied else None
    if rule.question != "merging" and _of_another(left):
        return None
    if is_denied(words, *match.span()):
        return _stating(rule, rule.denied, rule.weight, sentence, denied=True)
    if _HEDGE.search(clause_before(words, match.start())) or _HEDGE.search(_rest_of_clause(right)):
        return _stating(rule, rule.hedged or rule.answer, rule.weight * HEDGED, sentence)
    return _stating(rule, rule.answer, rule.weight, sentence)


def _merged(statement: Statement) -> bool:
    return statement.question == "merging" and statement.positive


def _stating(rule: Rule, answer: str | None, weight: float, sentence: int, *, denied: bool = False) -> Statement | None:
    if denied and answer is None and rule.answer in NEGATIVE:
        return None  # "not face-on" does not say edge-on
    positive = answer not in NEGATIVE if answer else not denied
    return Statement(rule.question, answer, weight, positive, sentence)


def _rest_of_clause(right: str) -> str:
    cut = end_of_clause(right, 1)
    return re.split(r"[,;]", right[: cut.end()] if cut else right[:60])[0]


def _of_another(left: str) -> bool:
    """Return whether the last object named is another than the central one."""
    others, this = ([match.end() for match in pattern.finditer(left)] for pattern in (_OF_OTHERS, _OF_THIS))
    return bool(others) and (not this or this[-1] < others[-1])


def _once_a_sentence(result: Iterator[Statement]) -> dict[tuple[str, str | None, int], float]:
    best: dict[tuple[str, str | None, int], float] = {}
    for each in result:
        if each.answer is not None or each.positive:
            key = each.question, each.answer, each.sentence
            best[key] = max(best.get(key, 0.0), each.weight)
    return best


def _heaviest(question: str, sums: Mapping[str | None, float]) -> str | None:
    there = sums.get(None, 0.0)  # said to be there, in whatever form
    sums = {answer: weight for answer, weight in sums.items() if answer and (answer != "none" or weight > there)}
    answer = max(sums, key=lambda each: round(sums[each], 9), default=None)  # the first of equal ones
    enough = ENOUGH.get(question, ENOUGH_ELSEWHERE)
    return answer if answer is not None and sums[answer] >= enough - 1e-9 else None


def _check(answers: Mapping[str, str | None]) -> None:
    for question, answer in answers.items():
        if question not in TREE:
            raise QueryError(f"{question!r} is no question of the tree; it asks {', '.join(TREE)}")
        if answer is not None and answer not in TREE[question].answers:
            allowed = ", ".join(TREE[question].answers)
            raise QueryError(f"{answer!r} is no answer to {question!r}; use one of {allowed}, or None")
