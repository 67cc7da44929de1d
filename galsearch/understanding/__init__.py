"""What a person asks for: sentences read into wants, cuts and rewordings; phrases compared with vectors.

Words in, plain data out; vectors in, numpy out. No engine: whoever calls brings the columns, the phrases and a function
that embeds words.
"""

from galsearch.understanding.attributes import (
    Labeling,
    Refinement,
    contrast,
    label_vectors,
    read_labels,
    refinements,
)
from galsearch.understanding.cuts import VAGUE, Offer
from galsearch.understanding.language import foreign_language
from galsearch.understanding.lookup import Candidate, Lookup
from galsearch.understanding.reading import Phrase, Understanding, rarity, understand
from galsearch.understanding.unread import Unread
from galsearch.understanding.words import Rewording, type_in_words

__all__ = [
    "VAGUE",
    "Candidate",
    "Labeling",
    "Lookup",
    "Offer",
    "Phrase",
    "Refinement",
    "Rewording",
    "Understanding",
    "Unread",
    "contrast",
    "foreign_language",
    "label_vectors",
    "rarity",
    "read_labels",
    "refinements",
    "type_in_words",
    "understand",
]
