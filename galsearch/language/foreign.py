"""Whether words are in another language than English, which is all that the text encoders were trained on.

A hint, not a detector: other scripts, and a list of words that no English question has. What is not sure is English.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

SCRIPTS = {  # first word of the names of their letters -> what is written so
    "CJK": "Chinese",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
    "CYRILLIC": "Russian or another language in Cyrillic letters",
    "ARABIC": "Arabic or Persian",
    "HEBREW": "Hebrew",
    "DEVANAGARI": "Hindi",
    "BENGALI": "Bengali",
    "THAI": "Thai",
    "GREEK": "Greek",
    "ARMENIAN": "Armenian",
    "GEORGIAN": "Georgian",
    "TAMIL": "Tamil",
}
# words, without accents; of the sure ones one is enough, of the others it takes two
SURE = {
    "German": "galaxien spiralgalaxie spiralgalaxien balkenspirale balkenspiralgalaxie ringgalaxie zwerggalaxie ohne "
    "staubband spiralarme spiralarmen elliptische elliptischer verschmelzende wechselwirkende scheibengalaxie",
    "French": "avec spirale elliptique barree poussiere anneau lenticulaire irreguliere naine",
    "Spanish": "galaxia galaxias espiral espirales eliptica elipticas barrada anillo brazos polvo enana",
    "Italian": "galassia galassie barrata barrate ellittica ellittiche senza anello polvere braccia",
    "Portuguese": "galaxia com poeira bracos anel fusao sem braco",
    "Dutch": "sterrenstelsel sterrenstelsels melkwegstelsel spiraalstelsel spiraalstelsels zonder",
    "Polish": "galaktyka galaktyki spiralna eliptyczna poprzeczka pierscieniem",
    "Swedish": "galaxer spiralgalax spiralgalaxer utan",
    "Turkish": "galaksi sarmal galaksiler",
}
LIKELY = {
    "German": "galaxie und mit eine einer einem einen nicht balken scheibe kern rote roter blaue blauer helle spirale "
    "von spiralarm zwei keine kein seitenansicht",
    "French": "galaxie une et sans les des deux barre bras tranche noyau bleue rouge",
    "Spanish": "con sin una los las barra nucleo azul roja rojo y espiral",
    "Italian": "con una spirale barra e due nucleo rossa blu della",
    "Portuguese": "uma espiral galaxias barra azul vermelha eliptica e dois",
    "Dutch": "met een het balk en twee zonder",
    "Polish": "bez z i",
    "Swedish": "galax med och en",
    "Turkish": "ve bir",
}
ENGLISH = frozenset(
    (
        *("with", "without", "and", "the", "of", "that", "has", "have", "having", "is", "are", "like", "no", "not"),
        *("from", "galaxy", "galaxies", "ring", "barred"),
    )
)
MOST_LETTERS = 2_000
_MARKS = {name: {**dict.fromkeys(LIKELY[name].split(), 1), **dict.fromkeys(SURE[name].split(), 2)} for name in SURE}


def foreign_language(text: str) -> str | None:
    """Return which language the words are likely in when it is not English, as a person would name it, else None.

    >>> foreign_language("Spiralgalaxie ohne Balken"), foreign_language("spiral galaxy without a bar")
    ('German', None)
    """
    return _by_script(text[:MOST_LETTERS]) or _by_words(text[:MOST_LETTERS])


def _by_script(text: str) -> str | None:
    """Return what is written in the script that most letters are of; a few Greek letters are symbols."""
    letters = [unicodedata.name(sign, "LATIN").split()[0].partition("-")[0] for sign in text if sign.isalpha()]
    counts = Counter(letters)
    result = {name: count for name, count in counts.items() if name in SCRIPTS}
    if sum(result.values()) < 2 or 2 * sum(result.values()) < len(letters):
        return None
    if counts["HIRAGANA"] or counts["KATAKANA"]:
        return "Japanese"
    most = max(result, key=lambda name: (result[name], name))
    return None if most == "GREEK" and result[most] < 4 else SCRIPTS[most]


def _by_words(text: str) -> str | None:
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(sign))
    words = set(re.findall(r"[^\W\d_]+", plain))
    scores = {name: sum(marks.get(word, 0) for word in words) for name, marks in _MARKS.items()}
    best = max(scores.values())
    if best < 2 or best <= 2 * len(words & ENGLISH):
        return None
    return " or ".join(name for name, score in scores.items() if score == best)
