"""What a person asks for: sentences read into wants, cuts and rewordings; phrases compared with vectors.

Words in, plain data out; vectors in, numpy out. No engine: whoever calls brings the columns, the phrases and a function
that embeds words.
"""

from galsearch.language.attributes import Labeling, Refinement, contrast, label_vectors, read_labels, refinements
from galsearch.language.cuts import VAGUE, Offer
from galsearch.language.foreign import foreign_language
from galsearch.language.parser import Phrase, Understanding, rarity, understand
from galsearch.language.spelling import Rewording, type_in_words
from galsearch.language.unread import Unread

__all__ = [
    "VAGUE",
    "Labeling",
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
