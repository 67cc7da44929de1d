"""The vocabulary: words of galaxies, and words that deny, for queries, captions and longer descriptions.

What people type, what captions say and what a vision model writes differ; here their words stand side by side.
`negation` alone reads those that deny. A few in it deny in a query ("galaxies except irregulars") and affirm in a
description ("smooth except for a bar"), or the other way around, and stand apart.
"""

from __future__ import annotations

# ---- words of galaxies

BAR = r"bar(?:s|red)?"  # what captions and queries call alike
RING = r"(?<!einstein )ring(?:s|ed)?"
DUST = r"dust(?:y|s)?(?: lanes?)?"
MERGER = r"merg(?:ers?|ing|ed)|interact(?:s|ed|ing|ions?)?"
CAPTION_ATTRIBUTES: dict[str, str] = {  # stored name of an attribute -> how captions call it
    "spiral arms": r"(?:spiral )?arms?|spiral (?:structure|features?|pattern)s?",
    "bar": BAR,
    "bulge": r"bulges?",
    "inner ring": r"inner rings?",
    "outer ring": r"outer rings?",
    "ring": RING,
    "dust": DUST,
    "star-forming knots": r"(?:star[- ]forming|bright|blue) (?:knots?|regions?|clumps?)|knots?|clumps?",
    "merger": MERGER,
    "tidal features": r"tidal (?:tails?|features?|streams?|debris|distortions?)",
    "companion": r"companions?",
    "disk": r"dis[ck]s?",
    "lens": r"(?:gravitational )?(?:lens(?:ing)?|lensed arcs?)|einstein rings?",
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
    "barred": rf"\b{BAR}\b",
    "unbarred": r"",
    "ring": rf"\b{RING}\b|\bencircled\b",
    "irregular": r"\birregulars?\b|\bshapeless\b|\bmagellanic\b|\bchaotic\b|\bragged\b",
    "dusty": rf"\b{DUST}\b",
    "flocculent": r"\bfloccul|\bpatchy\b|\bfluffy\b|\bwoolly\b|\bfragmented\b",
    "merging": rf"\b(?:{MERGER})\b|\bcollid|\bcollision|\btidal\b|\btorn apart\b|\btwo nuclei\b",
    "lens": r"\blens(?:es|ed|ing)?\b|\barcs?\b|\beinstein\b",
}

# Words of a query that ask for nothing to be seen in a picture or a spectrum.
REQUESTS = (
    *("show", "find", "search", "look", "looking", "give", "get", "list", "display", "fetch", "want", "need"),
    *("select", "image", "images", "picture", "pictures", "photo", "photograph", "view", "example", "examples"),
    *("sample", "case", "candidate", "candidates", "i", "am", "you", "we", "can", "could", "would", "should"),
    *("please", "my", "our", "all", "some", "every", "each", "more", "most", "less", "few", "many", "several", "one"),
    *("ones", "other", "another", "multiple", "this", "these", "those", "them", "their", "its", "there", "here"),
    *("what", "whether", "how", "much", "such", "similar", "type", "types", "kind", "kinds", "sort", "class"),
    *("classified", "called", "known", "seen", "appear", "appearing", "appearance", "looks", "morphology", "shape"),
    *("feature", "features", "structure", "thing"),
)
OPINIONS = (
    *("beautiful", "pretty", "nice", "lovely", "gorgeous", "stunning", "spectacular", "amazing", "cool", "great"),
    *("best", "good", "perfect", "typical", "classic", "textbook", "clear", "obvious", "evident", "definite"),
    *("famous", "normal", "ordinary", "regular", "prominent", "striking", "interesting", "pure", "true", "real"),
    *("genuine", "likely", "probable", "possible", "extremely", "highly", "fairly", "rather", "slightly", "somewhat"),
    *("mostly", "almost"),
)
COMPARED = (  # with a number, or as a filter
    *("bright", "brighter", "brightest", "faint", "fainter", "faintest", "near", "nearer", "nearby", "close"),
    *("closer", "far", "farther", "further", "distant", "large", "larger", "largest", "big", "bigger", "small"),
    *("smaller", "high", "higher", "low", "lower", "red", "redder", "blue", "bluer", "massive", "than", "least"),
    *("most", "up", "within", "redshift", "redshifts", "magnitude", "magnitudes", "mag", "size", "radius", "diameter"),
    *("arcsec", "arcseconds", "arcmin", "arcminutes", "degree", "degrees", "color", "distance", "signal"),
    *("noise", "snr", "band", "axis", "ratio", "ra", "dec", "mpc", "kpc", "pixel", "pixels", "half", "light", "equal"),
    *("about", "around"),
)

# What only a spectrum shows: lines by their names, what they are called together, and classes that they decide.
SPECTRAL = (
    r"(?:emission|absorption|broad|narrow|forbidden|balmer|spectral)[- ]lines?|\bbalmer\b|\[(?:o|n|s|ne|fe) ?[iv]+\]|"
    r"\bh[- ]?(?:alpha|beta|gamma|delta|[αβγδ])|\b(?:lyman|ly)[- ]?(?:alpha|α)|\bca h ?(?:\+|and|&) ?k\b|"
    r"\b(?:mg b|na d|mg ii|c iv|d4000)\b|\b4000[- ](?:angstrom|å|a)\b|\bline ratios?\b|\bspectr(?:um|a|al)\b|"
    r"\bseyferts?\b|\bliners?\b|\bquasars?\b|\bqsos?\b|\bpost-?starbursts?\b|\be\+a\b|\bk\+a\b|"
    r"\bdouble[- ]peaked\b|\btype[- ][12] agns?\b|\bcontinuum\b"
)

# ---- words that deny

# "thing": a noun phrase follows; "chain": and its "and" goes on; "property": one word follows.
NEGATORS = {
    "thing": (
        *("little or no", "few or no", "little to no", "no", "w/o a", "nor", "neither", "never"),
        *("hardly any", "barely any", "scarcely any"),
    ),
    "chain": (
        *("without", "w/o", "sans", "lacking", "lacks", "lacked", "lack of", "lack", "devoid of", "devoid"),
        *("free of", "free from", "absence of", "excluding", "excludes", "exclude", "excluded", "avoiding", "avoid"),
        *("minus", "rather than", "instead of", "as opposed to", "missing", "unlike"),
    ),
    "property": (
        *("does not", "do not", "did not", "doesn't", "don't", "didn't", "can not", "cannot", "can't", "couldn't"),
        *("not", "no longer", "isn't", "aren't", "wasn't", "weren't", "hasn't", "haven't", "hadn't", "won't"),
        *("wouldn't", "shouldn't", "non"),
    ),
}
EXCEPTIONS = (  # deny in a query, like a "chain"; a description names after them what there is
    *("except for", "except", "other than", "apart from", "anything but", "everything but"),
)
DESCRIBED = (  # regular expressions of what denies in a description; in a query "a little dust" may be wanted
    *("none", "nothing", "nowhere", "little", "minimal", "insufficient", "absence", "absent", "unlikely"),
    *("rul(?:es?|ing) out", "argu(?:es?|ing) against", "fail(?:s|ed|ing)? to", "disfavou?r(?:s|ed|ing)?"),
    *(r"(?:distinguish|differentiat)\w+ (?:\w+ )?from",),
)
DOUBTS = (  # regular expressions of what a summary does without, beside all of the above
    *("hardly", "barely", "ruled out", "featureless", "structureless", r"(?:feature|structure)[- ]less"),
    *("un(?:resolved|seen|clear)", r"(?:bar|bulge|arm|ring|dust|dis[ck]|companion)[- ](?:less|free)"),
)
NO_NEGATION = (  # begin with a negator and deny nothing
    *("not only", "not just", "not merely", "not necessarily", "not sure", "no doubt", "without doubt", "no matter"),
    *("without a doubt", "without question", "no idea", "missing link", "minus sign"),
    *("cannot rule out", "can not rule out", "can't rule out", "not rule out", "cannot be ruled out"),
    *("not be ruled out", "not ruled out", "cannot exclude", "cannot be excluded", "not exclude", "not be excluded"),
    *("not excluded",),
)
NO_PREFIX = ("thermal", "parametric", "linear", "trivial", "standard")  # after "non-" part of a name
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
SEEN = (
    *("visible", "present", "seen", "detected", "apparent", "evident", "discernible", "detectable", "resolved"),
    *("discerned", "distinguishable", "distinguished", "identifiable", "identified", "observed", "noticeable"),
    *("recognizable", "recognized", "found", "confirmed", "traced"),
)
PLAIN_TO_SEE = (  # regular expressions of what a description says for it: there, "not prominent" is not there
    *("obvious", "clear", "prominent", "distinct", "pronounced", "exhibited"),
    r"(?:discern|detect|resolv|distinguish|identif|recogni[sz])\w+",
)
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
