"""The vocabulary: words of galaxies, and words that deny, for queries, captions and longer descriptions.

What people type, what captions say and what a vision model writes differ, and so do the words that deny something in
them; here they stand side by side. What reads them is `negation` (queries), `clauses` (captions) and `decision_tree`
(descriptions); the full-text index has its own few, because they are part of the format (docs/format.md).
"""

from __future__ import annotations

# ---- words of galaxies

CAPTION_ATTRIBUTES: dict[str, str] = {  # stored name of an attribute -> how captions call it
    "spiral arms": r"(?:spiral )?arms?|spiral (?:structure|features?|pattern)s?",
    "bar": r"bars?|barred",
    "bulge": r"bulges?",
    "inner ring": r"inner rings?",
    "outer ring": r"outer rings?",
    "ring": r"rings?|ringed",
    "dust": r"dust(?:y)?(?: lanes?)?",
    "star-forming knots": r"(?:star[- ]forming|bright|blue) (?:knots?|regions?|clumps?)|knots?|clumps?",
    "merger": r"mergers?|merging|interactions?|interacting",
    "tidal features": r"tidal (?:tails?|features?|streams?|debris|distortions?)",
    "companion": r"companions?",
    "disk": r"dis[ck]s?",
    "lens": r"(?:gravitational )?(?:lens(?:ing)?|lensed arcs?)",
    "asymmetry": r"asymmetr\w+",
}
QUERY_ATTRIBUTES = {  # what is measured -> how queries call it; nothing where only a denial asks for it
    "spiral": r"\bspirals?\b|\b(?:spiral|winding) arms?\b|\bpinwheel|\bgrand design|\barms\b",
    "elliptical": (
        r"\bellipticals?\b|\bspheroid|\bearly[- ]type\b|\be-type\b|\bfeatureless\b|\bred and dead\b|"
        r"\bsmooth (?:round|ball)"
    ),
    "edge-on": (
        r"\bedge[- ]?on\b|\bfrom (?:the|its) (?:side|edge)\b|\bneedle|\bspindle|\bhighly inclined\b|\bvery flat\b|"
        r"\binclination of 90\b"
    ),
    "face-on": r"\bface[- ]?on\b|\bfrom above\b|\bpole[- ]on\b|\bnot tilted\b|\bfaces? the observer\b",
    "barred": r"\bbar(?:red|s)?\b",
    "unbarred": r"",
    "ring": r"(?<!einstein )\bring(?:s|ed)?\b|\bring-shaped\b|\bencircled\b",
    "irregular": r"\birregulars?\b|\bshapeless\b|\bmagellanic\b|\bchaotic\b|\bragged\b",
    "dusty": r"\bdust(?:y|s)?\b",
    "flocculent": r"\bfloccul|\bpatchy\b|\bfluffy\b|\bwoolly\b|\bfragmented\b",
    "merging": r"\bmerg(?:er|ers|ing|ed)\b|\binteract|\bcollid|\bcollision|\btidal\b|\btorn apart\b|\btwo nuclei\b",
    "lens": r"\blens(?:es|ed|ing)?\b|\barcs?\b|\beinstein\b",
}

# ---- words that deny

# Longest first. "thing": a noun phrase follows; "chain": and its "and" goes on; "property": one word follows.
NEGATORS = {
    "thing": ("little or no", "few or no", "little to no", "no", "w/o a", "nor", "neither", "never"),
    "chain": (
        *("without", "w/o", "sans", "lacking", "lacks", "lack of", "lack", "devoid of", "free of", "free from"),
        *("absence of", "except for", "except", "excluding", "excludes", "exclude", "avoiding", "avoid", "minus"),
        *("other than", "apart from", "rather than", "instead of", "as opposed to", "anything but", "everything but"),
        *("missing", "unlike"),
    ),
    "property": (
        *("does not", "do not", "did not", "doesn't", "don't", "didn't", "can not", "cannot", "can't"),
        *("not", "isn't", "aren't", "wasn't", "weren't", "hasn't", "haven't", "non"),
    ),
}
NO_NEGATION = (  # begin with a negator and deny nothing
    *("not only", "not just", "not merely", "not necessarily", "not sure", "no doubt", "without doubt", "no matter"),
    *("without a doubt", "without question", "no idea", "missing link", "minus sign"),
)
VERBS = (  # between "not" and a thing: "does not have a bar", "not showing arms"
    *("have", "has", "having", "show", "showing", "contain", "containing", "display", "displaying", "host", "hosting"),
    *("possess", "include", "including", "exhibit", "exhibiting", "want", "need", "see", "seeing", "with", "like"),
)
ARTICLES = ("a", "an", "the", "any")
FILLERS = (
    *(*ARTICLES, "of", "visible", "obvious", "clear", "apparent", "discernible", "evident", "detectable"),
    *(
        "evidence",
        "sign",
        "signs",
        "hint",
        "hints",
        "trace",
        "traces",
        "indication",
        "indications",
        "kind",
        "sort",
        "me",
        "us",
    ),
)
TRAILING = (*("visible", "seen", "present", "detected", "apparent", "whatsoever", "there", "at", "all", "either"),)
ADVERBS = ("very", "too", "so", "quite", "really", "that", "particularly")
LINKS = (  # what joins a negation to the words before it, and goes with it
    *("and", "or", "but", "yet", "though", "although", "while", "with", "that", "which", "who", "where", "there"),
    *("is", "are", "was", "were", "be", "being", "does", "do", "did", "has", "have", "having", "it", "they", ","),
)
JOINTS = ("and", "or", "but", ",")
CLAUSE = (  # words that end a noun phrase
    *("but", "yet", "though", "although", "however", "with", "without", "which", "that", "who", "whose", "while"),
    *("whereas", "in", "at", "near", "around", "on", "from", "by", "plus", "has", "have", "having", "is", "are", "was"),
    *("were", "be", "seen", "viewed", "showing", "show", "shows", "containing", "between", "under", "over"),
    *("above", "below", "since", "because", "if", "when", "where", "for", "as", "to", "only", "also", "like"),
    *("then", "please", "just", "and", "or", "nor"),
)
AFTER_AND = ("with", "has", "have", "is", "are", "showing", "two", "three", "four", "many", "several", "multiple")
GONE = ("absent", "missing", "lacking", "invisible", "undetected")
SEEN = ("visible", "present", "seen", "detected", "apparent", "evident", "discernible", "detectable", "resolved")
OBJECTS = ("galaxy", "galaxies", "object", "objects", "source", "sources", "system", "systems")
PHRASES = (  # properties of several words
    *("star forming", "grand design", "early type", "late type", "edge on", "face on", "low surface brightness"),
    *("gas poor", "gas rich", "metal poor", "metal rich", "tightly wound", "loosely wound", "star like", "disk like"),
)
NOUNS = "bar|arm|bulge|dust|ring|dis[ck]|companion|jet|tail|halo|gas|lane|knot|nucleus|lens"
PROPERTIES = (
    "barred|spiral|interacting|merging|merger|active|elliptical|star-?forming|dis[ck]y|edge-on|face-on|ringed|dusty|"
    "lensed|irregular|symmetric|disturbed|warped|perturbed|obscured|peculiar"
)
CAPTION_NEGATORS = (
    r"\b(?:no|not|non|nor|neither|never|none|nothing|without|cannot|nowhere|lack(?:s|ed|ing)?|devoid|absen(?:t|ce|ts)|"
    r"missing|free (?:of|from)|rather than|instead of|unlike|except|hardly|barely|little(?: to no)?|"
    r"fail(?:s|ed|ing)? to|rul(?:es?|ed|ing) out|exclud(?:es?|ed|ing)|un(?:barred|disturbed|ringed|resolved|seen|"
    r"detected|likely|clear|perturbed)|(?:bar|bulge|arm|ring|dust|feature|disk|disc|companion|structure)[- ]?less|"
    r"(?:dust|bar|bulge|ring)[- ]free)\b|n['’]t\b|\bnon-\w+"
)
DESCRIPTION_NEGATORS = (
    r"\b(?:no(?!\w)(?! (?:longer|doubt))|not(?! (?:only|just|necessarily|rule|exclude))|\w+n't|"
    r"cannot(?! (?:rule|exclude|be ruled))|without|lack(?:s|ing|ed)?|absen(?:ce|t)|devoid|free (?:of|from)|neither|nor|"
    r"never|none|non|rather than|instead of|as opposed to|rul(?:es?|ing) out|argu(?:es?|ing) against|exclud(?:es?|ing)|"
    r"unlike(?:ly)?|little(?: to no)?|minimal|fails? to|(?:distinguish|differentiat)\w+ (?:\w+ )?from|disfavou?rs?|"
    r"insufficient)\b"
)
