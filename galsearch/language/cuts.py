"""Numbers and vague words in a sentence as SQL conditions on the columns that an atlas has. They are offered, no more.

Only parsed numbers and names of the given columns enter the SQL: nothing of the text does. A condition is offered only
where the atlas has its column and the unit fits. What vague words mean is decided in one table, VAGUE.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from galsearch import schema
from galsearch.language.text import Edit, edited, plain, tokens

HUBBLE = 70.0  # km/s/Mpc; z = H0 d / c, good to 3 % below z = 0.05
LIGHT_KM_S = 299_792.458
ANGLES = {"arcsec": 1.0, "arcmin": 60.0, "deg": 3600.0, "mas": 1e-3}
UNITS = {  # as people write them -> unit
    r"arc-?\s?sec(?:ond)?s?|\"|''": "arcsec",
    r"arc-?\s?min(?:ute)?s?|'": "arcmin",
    r"deg(?:ree)?s?|°": "deg",
    r"px|pix(?:el)?s?": "pixel",
    r"(?:ab\s)?mag(?:nitude)?s?|(?:th|st|nd|rd)[\s-]magnitude": "mag",
    r"kpc|kiloparsecs?": "kpc",
    r"mpc|megaparsecs?": "Mpc",
    r"km/s|km\ss-1|kms": "km/s",
    r"m_?sun|m_?sol|sol(?:ar)?\s?mass(?:es)?|m☉|m⊙": "solMass",
}
_UNIT = "|".join(sorted(UNITS, key=len, reverse=True))
_DECIMAL = r"(?:[0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})"
_NUMBER = (
    rf"[+-]?(?:(?:{_DECIMAL}\s?[x*]\s?)?10\^[+-]?[0-9]{{1,2}}|[1-9][0-9]{{0,2}}(?:,[0-9]{{3}}){{1,4}}(?!\.?[0-9])"
    rf"|{_DECIMAL}(?:e[+-]?[0-9]{{1,3}})?)(?![0-9])(?!,[0-9])(?!\.[0-9])"
)
_POWER = re.compile(rf"([+-]?(?:{_DECIMAL})?)\s?[x*]?\s?10\^([+-]?[0-9]+)")


def _value(name: str) -> str:
    """Return the pattern of a number with its unit, as two named groups."""
    return rf"(?P<{name}>{_NUMBER})(?:\s{{0,2}}(?P<{name}_unit>{_UNIT}))?(?![\w/]|\s?%)"


OPERATORS = {
    "<": "below|under|less than|lower than|smaller than|fewer than|beneath|<",
    "<=": "up to|out to|at most|no more than|not more than|no higher than|no larger than|no greater than|not exceeding|"
    "not above|not over|not greater than|less than or equal to|smaller than or equal to|lower than or equal to|"
    "<=|=<|≤|⩽",
    ">": "above|over|greater than|more than|higher than|larger than|beyond|past|exceeding|>",
    ">=": "at least|no less than|not less than|no lower than|no smaller than|not below|not under|"
    "greater than or equal to|larger than or equal to|higher than or equal to|>=|=>|≥|⩾",
    "=": "==|=|equal to|equals|of",
    "~": "of about|of around|of roughly|~|≈|≃|about|around|roughly|approximately|close to|near|circa",
}
_SIGN = {word: sign for sign, words in OPERATORS.items() for word in words.split("|")}


def _any_of(words: Iterable[str]) -> str:
    """Return the pattern of one of the operators, the longest first; "of" may lead to one of several words."""
    each = sorted(words, key=len, reverse=True)
    return "(?:of\\s)?(?:" + "|".join(re.escape(one) + (r"\b" if one[-1].isalpha() else "") for one in each) + ")"


_OPERATOR = _any_of(_SIGN)
_BOUND = _any_of(word for word, sign in _SIGN.items() if sign not in "=~")
ALL_OPERATORS, ANY_UNIT = _OPERATOR, _UNIT
_SYMBOL = "<=|>=|=<|=>|≤|≥|⩽|⩾|<|>"
_ALSO = (  # the other bound of the same quantity
    rf"(?:\s{{0,3}}(?P<joint>,\s?(?:and|but|or)|and|but|or|,|&)\s{{0,3}}(?P<also>{_BOUND})\s{{0,3}}{_value('two')})?"
)
_SPREAD = re.compile(rf"\s?(?:±|\+/-|\+-)\s?{_value('half')}")
FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
DENIED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_IS = r"(?:\s+(?:is|are|be|being|value|values|range|in the range|in|lies|lying|ranging))*"
_LEAD = re.compile(
    r"(?:(?:^|(?<=[\s,(]))(?:at|with|and|but|having|in|of|an?|the|that|is|are|which|whose|where|for)\s+|,\s*)+$"
)


@dataclass(frozen=True)
class Offer:
    """A condition that some words may mean: `sql` on the columns of the atlas, for the `words` at `span`.

    `rest` is the text that remains when it is accepted: without the words, or with them where they also say what the
    galaxy looks like (`seen`). `reason` says how the words were read, or why a vague one has this value.
    """

    sql: str
    words: str
    span: tuple[int, int]
    column: str
    reason: str
    rest: str = ""
    seen: bool = False
    negated: bool = False


@dataclass(frozen=True)
class Quantity:
    """Something that columns hold: `words` for it, names that its column has in catalogs, the unit that it is in."""

    name: str
    words: str
    columns: tuple[str, ...]
    units: tuple[str, ...] = ("",)


REDSHIFT_UCD = "src.redshift"
REDSHIFT_NAMES = (
    *("z", "redshift", "z_spec", "zspec", "specz", "spec_z", "z_phot", "zphot", "photo_z", "photoz", "z_best"),
)
BAND_NEIGHBORS = {"g", "r", "i"}  # columns beside which "z" is the band
BRIGHTEST = 0.0  # apparent magnitude of a galaxy; a smaller number is an absolute one
FARTHEST = 15.0  # redshift; a larger number is that of a magnitude
QUANTITIES = (
    Quantity("redshift", r"(?:photometric\s|spectroscopic\s)?redshifts?|z", REDSHIFT_NAMES),
    Quantity("axis ratio", r"axis[\s_-]ratios?|b/a", ("axis_ratio", "b_a", "ba", "axisratio")),
    Quantity("ellipticity", r"ellipticit(?:y|ies)", ("ellipticity", "ell")),
    Quantity("concentration", r"concentrations?(?:\sindex)?", ("concentration",)),
    Quantity("signal to noise", r"s/n|snr|signal[\s-]to[\s-]noise(?:\sratio)?", ("snr", "s_n", "sn")),
    Quantity("declination", r"dec|declinations?", ("dec", "dej2000", "de"), ("deg",)),
    Quantity("right ascension", r"ra|right ascensions?", ("ra", "raj2000"), ("deg",)),
    Quantity(
        "size",
        r"(?:angular\s|half-light\s|effective\s)?(?:radius|radii|sizes?)|r50|r_e|re(?=\s?[<>=])",
        ("radius_arcsec", "r50", "r_e", "re", "petror50_r", "radius_px"),
        ("arcsec", "arcmin", "deg", "pixel"),
    ),
    Quantity("physical size", r"(?:physical\s)?(?:radius|radii|sizes?)", ("radius_kpc", "r50_kpc"), ("kpc",)),
    Quantity(
        "diameter", r"(?:angular\s)?diameters?", ("radius_arcsec", "r50", "r_e", "re"), ("arcsec", "arcmin", "deg")
    ),
    Quantity(
        "mass", r"(?:stellar\s|total\s)?mass(?:es)?", ("mass", "stellar_mass", "mstar"), ("solMass", "Msun", "M_sun")
    ),
    Quantity(
        "log mass",
        r"log(?:10)?[\s(]*(?:m\*|m_\*|(?:stellar\s)?mass|m)(?:/m_?sun)?\)?",
        ("log_mass", "logmass", "log_stellar_mass", "lgm_tot_p50", "mass", "stellar_mass", "mstar"),
        ("", "dex", "dex(solMass)", "solMass", "Msun", "M_sun"),
    ),
    Quantity("distance", r"distances?", REDSHIFT_NAMES, ("",)),
    Quantity("velocity", r"(?:recession(?:al)?\s)?velocit(?:y|ies)|cz", REDSHIFT_NAMES, ("",)),
    Quantity("T-type", r"t[\s-]types?|hubble stages?", ("t_type", "ttype", "t", "hubble_stage")),
)
BANDS = "ugrizyjhkbv"
COLORS = {
    "g-r": ("color_gr", "g_r"),
    "b-r": ("color_br", "b_r"),
    "u-r": ("color_ur", "u_r"),
    "g-i": ("color_gi", "g_i"),
}
LIMITS = {"at least": ">=", "at most": "<=", "up to": "<=", "over": ">", "under": "<", "within": "<="}
COMPARATIVES = {  # word -> (quantity, operator); the unit decides between sizes
    "brighter": ("magnitude", "<"),
    "fainter": ("magnitude", ">"),
    "dimmer": ("magnitude", ">"),
    **dict.fromkeys(("larger", "bigger", "wider", "longer", "greater", "more"), ("size", ">")),
    **dict.fromkeys(("smaller", "tinier", "narrower", "less"), ("size", "<")),
    "rounder": ("axis ratio", ">"),
    **dict.fromkeys(("flatter", "thinner", "more elongated", "more inclined"), ("axis ratio", "<")),
    **dict.fromkeys(("closer", "nearer"), ("distance", "<")),
    **dict.fromkeys(("farther", "further", "more distant"), ("distance", ">")),
    **dict.fromkeys(("more massive", "heavier"), ("mass", ">")),
    **dict.fromkeys(("less massive", "lighter"), ("mass", "<")),
}
_ACROSS = r"(?P<across>\s+(?:across|wide|long|in diameter|in size|in radius|in extent))"


@dataclass(frozen=True)
class Vague:
    """What a vague word is taken to mean, and why; `seen` where the word also says what the galaxy looks like."""

    words: str
    quantity: str
    operator: str
    value: float
    reason: str
    seen: bool = False
    upper: float | None = None


VAGUE = (
    Vague("nearby|local universe", "redshift", "<", 0.05, "1 arcsec is less than 1 kpc, so arms and bars are resolved"),
    Vague("low[ -]redshifts?|low[ -]z", "redshift", "<", 0.1, "the reach of the SDSS main galaxy sample"),
    Vague(
        "intermediate[ -]redshifts?",
        "redshift",
        "between",
        0.2,
        "between the main samples of SDSS and z = 1",
        upper=1.0,
    ),
    Vague(
        "high[ -]redshifts?|high[ -]z|distant|far away",
        "redshift",
        ">",
        1.0,
        "light from more than half the age of the universe ago",
    ),
    Vague("very high[ -]redshifts?|very distant|cosmic dawn", "redshift", ">", 6.0, "before the end of reionization"),
    Vague(
        "cosmic noon",
        "redshift",
        "between",
        1.5,
        "around the peak of cosmic star formation at z = 1.9 (Madau & Dickinson 2014)",
        upper=2.5,
    ),
    Vague(
        "bright",
        "magnitude",
        "<",
        17.77,
        "the limit in r of the SDSS main galaxy sample (Strauss et al. 2002)",
        seen=True,
    ),
    Vague(
        "faint",
        "magnitude",
        ">",
        19.5,
        "the limit in r of the SDSS luminous red galaxies (Eisenstein et al. 2001)",
        seen=True,
    ),
    Vague("big|large", "size", ">", 10.0, "arcsec of half-light radius: details are many times the seeing", seen=True),
    Vague(
        "small|tiny",
        "size",
        "<",
        2.0,
        "arcsec of half-light radius: hardly more than the seeing of SDSS, 1.3 arcsec",
        seen=True,
    ),
    Vague("face[ -]on", "axis ratio", ">", 0.8, "a disk of thickness 0.2 tilted by less than 38 degrees", seen=True),
    Vague("edge[ -]on", "axis ratio", "<", 0.35, "a disk of thickness 0.2 tilted by more than 73 degrees", seen=True),
    Vague("round", "axis ratio", ">", 0.85, "Hubble's E0 and E1: 10 (1 - b/a) rounds to 0 or 1", seen=True),
    Vague(
        "elongated|flattened", "axis ratio", "<", 0.5, "Hubble's E5 and flatter: 10 (1 - b/a) is 5 or more", seen=True
    ),
    Vague("massive", "mass", ">", 5e10, "solar masses: the knee of the stellar mass function (Baldry et al. 2012)"),
    Vague("dwarf|dwarfs", "mass", "<", 3e9, "solar masses: the Large Magellanic Cloud and less", seen=True),
    Vague("northern", "declination", ">", 0.0, "north of the celestial equator"),
    Vague("southern", "declination", "<", 0.0, "south of the celestial equator"),
)
PARTS = frozenset(  # what an adjective may belong to instead of the galaxy
    (
        *("bar", "arm", "bulge", "ring", "nucleus", "core", "halo", "tail", "stream", "companion"),
        *("neighbor", "satellite", "lane", "dust", "star", "knot", "clump", "region", "spot", "center", "arc", "lump"),
        *("jet", "shell", "magellanic", "quasar", "nova", "supernova", "scale", "pair", "group", "cluster", "point"),
        *(
            "background",
            "foreground",
            "feature",
            "structure",
            "bridge",
            "loop",
            "edge",
            "envelope",
            "spheroid",
            "hole",
            "one",
        ),
    )
)
OBJECTS = ("galaxy", "galaxies", "spiral", "spirals", "elliptical", "ellipticals", "lenticular", "lenticulars")
_STOPS = (
    *(*",;.:()", "with", "without", "and", "or", "but", "that", "which", "in", "at", "near", "no", "not", "of", "on"),
)
MOST_RESULTS, MOST_OFFERS = 200, 20  # more is no question that a person asks


@functools.cache
def _vague_words() -> re.Pattern:
    return re.compile("|".join(rf"(?P<v{n}>(?<![\w-])(?:{v.words})(?![\w-]))" for n, v in enumerate(VAGUE)))


def offers(text: str, columns: Mapping[str, str] | Columns) -> tuple[Offer, ...]:
    """Return the conditions that a text may mean, in order of its words; columns are numeric, name -> unit.

    Where readings overlap the longest is kept; of many the first MOST_OFFERS. `negated` is not decided here: it takes
    the whole sentence.
    """
    low, known = plain(text), columns if isinstance(columns, Columns) else Columns(columns)
    result = [*_numeric(low, known), *_vague(low, known)]
    kept: list[Offer] = []
    for one in sorted(result[:MOST_RESULTS], key=lambda one: (-(one.span[1] - one.span[0]), one.span)):
        if not any(one.span[0] < other.span[1] and other.span[0] < one.span[1] for other in kept):
            kept.append(replace(one, words=text[slice(*one.span)]))
    first = _alternatives(low, sorted(kept, key=lambda one: one.span))[:MOST_OFFERS]
    return tuple(replace(one, rest=remaining(text, [one])) for one in first)


def _alternatives(text: str, result: list[Offer]) -> list[Offer]:
    """Return offers in the order of the text, those with nothing but "or" between them as one: either is enough."""
    joined: list[Offer] = []
    for one in result:
        last = joined[-1] if joined else None
        if last and last.seen == one.seen and re.fullmatch(r"\s*,?\s*or\s+", text[last.span[1] : one.span[0]]):
            reason = last.reason if one.reason in last.reason else f"{last.reason}; {one.reason}"
            words, sql = f"{last.words} or {one.words}", f"({last.sql} OR {one.sql})"
            joined[-1] = replace(last, sql=sql, words=words, span=(last.span[0], one.span[1]), reason=reason)
        else:
            joined.append(one)
    return joined


def remaining(text: str, accepted: list[Offer]) -> str:
    """Return the text without the words of the accepted offers and what linked them; words that are `seen` stay."""
    return edited(text, edits_of(text, accepted))


def edits_of(text: str, accepted: list[Offer]) -> list[Edit]:
    """Return what takes the words of accepted offers out of the text."""
    return [Edit(_lead(text, one), one.span[1]) for one in accepted if not one.seen]


def _lead(text: str, offer: Offer) -> int:
    """Return where the words that lead to an offer begin: "at", "with a" before a number."""
    start = offer.span[0]
    if not any(letter.isdigit() for letter in offer.words):
        return start
    before = plain(text)[max(0, start - 60) : start]
    result = _LEAD.search(before)
    return start - len(result[0]) if result else start


class Columns:
    """The columns that there are, by the quantities that they hold; `ucds` says of some what they are (name -> UCD)."""

    def __init__(self, columns: Mapping[str, str], ucds: Mapping[str, str] | None = None) -> None:
        self.units = {name: unit or "" for name, unit in columns.items()}
        self._ucds = {name: ucd or "" for name, ucd in (ucds or {}).items()}
        self._by_name = {name.casefold(): name for name in reversed(list(columns))}

    def of(self, quantity: Quantity) -> str | None:
        """Return the column that holds a quantity, in a unit that is understood; None when there is none."""
        return next((name for name in self.named(quantity) if self._fits(name, quantity)), None)

    def named(self, quantity: Quantity) -> list[str]:
        """Return the columns that hold a quantity in any unit: those that it is usually called, the best first."""
        result = [self._by_name[name] for name in quantity.columns if name in self._by_name]
        return self._redshifts(result) if quantity.columns[0] == REDSHIFT_NAMES[0] else result

    def _redshifts(self, named: list[str]) -> list[str]:
        """Return the columns of redshift: those said to be one, then by name; the z band of "u, g, r, i, z" is none."""
        stated = [name for name, ucd in self._ucds.items() if ucd.startswith(REDSHIFT_UCD) and name in self.units]
        usual = [name for name in named if not self._ucds.get(name) or name in stated]
        if self._by_name.keys() >= BAND_NEIGHBORS:
            stated, usual = ([name for name in some if name.casefold() != "z"] for some in (stated, usual))
        return list(dict.fromkeys([*(name for name in usual if name in stated), *stated, *usual]))

    def _fits(self, name: str, quantity: Quantity) -> bool:
        return self.units[name] in quantity.units or (quantity.units == ("",) and self.units[name] in ("", "1"))

    def magnitude(self, band: str | None) -> str | None:
        """Return the magnitude column of a band; without one that of r, or the only one that there is."""
        names = (f"mag_{band}", f"{band}mag", f"{band}_mag", f"mag{band}", f"petromag_{band}", f"modelmag_{band}")
        if band is not None:
            usual = (self._by_name[name] for name in names if name in self._by_name)
            return next((name for name in (*usual, self._by_name.get(band)) if name and self._is_band(name)), None)
        every = [name for name in self.units if re.fullmatch(rf"mag_?[{BANDS}]|[{BANDS}]_?mag", name.casefold())]
        return self.magnitude("r") or (every[0] if len(every) == 1 else None)

    def _is_band(self, name: str) -> bool:
        """Say whether a column is a magnitude: by its name; where that is one letter, by its UCD or its neighbors."""
        stated = self._ucds.get(name, "")
        return len(name) > 1 or stated.startswith("phot.mag") or (not stated and self._by_name.keys() >= BAND_NEIGHBORS)

    def color(self, name: str) -> str | None:
        """Return the column of a color such as "g-r"."""
        return next((self._by_name[one] for one in COLORS[name] if one in self._by_name), None)


# ---- numbers


def number(text: str) -> float | None:
    """Return the number that a text of the pattern is; None when it is too large for a float.

    >>> number("5 x 10^9"), number("3,000"), number("1e400")
    (5000000000.0, 3000.0, None)
    """
    result = _POWER.fullmatch(text)
    if result:
        factor, power = result.groups()
        value = float(factor + "1" if factor in ("", "+", "-") else factor) * 10.0 ** int(power)
    else:
        value = float(text.replace(",", ""))
    return value if abs(value) < 1e300 else None


def literal(value: float) -> str:
    """Return a number as SQL reads it, to twelve digits."""
    short = float(f"{value:.12g}")
    return str(int(short)) if short == int(short) and abs(short) < 1e15 else repr(short)


def quoted(column: str) -> str:
    """Return a column's name as SQL reads it; names that every atlas shares need no quotes."""
    return column if column in schema.GALAXIES else '"' + column.replace('"', '""') + '"'


@dataclass(frozen=True)
class _Measure:
    """A column to compare with, as one sentence names it: the words, and how a number with a unit is converted."""

    words: str
    column: str
    quantity: str
    unit: str


def _measures(columns: Columns) -> Iterator[_Measure]:
    """Yield what a number can be compared with, by the words for it."""
    for quantity in QUANTITIES:
        column = columns.of(quantity)
        if column is not None:
            yield _Measure(quantity.words, column, quantity.name, columns.units[column])
        elif quantity.name == "ellipticity" and (column := columns.of(_by_name("axis ratio"))) is not None:
            yield _Measure(quantity.words, column, quantity.name + " from axis ratio", "")
    for band in (*BANDS, None):
        column = columns.magnitude(band)
        if column is not None:
            yield _Measure(_magnitude_words(band), column, "magnitude", "mag")
    for color in COLORS:
        if (column := columns.color(color)) is not None:
            yield _Measure(re.escape(color).replace(r"\-", r"\s?-\s?"), column, "color", "mag")
    for name, unit in columns.units.items():
        if not re.search(r"\w", name):
            continue
        yield _Measure(re.escape(plain(name)).replace("_", r"[\s_]"), name, "column", unit)


def _by_name(name: str) -> Quantity:
    return next(quantity for quantity in QUANTITIES if quantity.name == name)


def _magnitude_words(band: str | None) -> str:
    if band is None:
        return r"(?:apparent\s)?(?:magnitudes?|mags?)"
    single = "" if band in "z" else rf"|{band}(?=\s?(?:{_SYMBOL}|=|~|between|from)\s?)"
    return (
        rf"{band}[\s-]?(?:band\s?)?(?:magnitudes?|mags?)|{band}-band|mag(?:nitudes?)?[\s_]{band}"
        rf"|(?:magnitudes?|mags?) in (?:the )?{band}(?:[\s-]band)?{single}"
    )


@functools.lru_cache(512)
def _patterns(words: str) -> tuple[re.Pattern, ...]:
    """Return the patterns of a quantity compared with a number, after one, and between two."""
    named, to = rf"(?<![\w/-])(?:{words})(?![\w])", r"\s?(?:-|to|\.\.+)\s?"
    between = rf"{named}{_IS}\s{{1,3}}(?:between|from)\s{_value('low')}\s?(?:and|to|-)\s?{_value('high')}"
    spread = rf"{named}{_IS}\s{{0,3}}(?:=|~|of)?\s{{0,3}}{_value('low')}{to}{_value('high')}"
    bracket = rf"{named}{_IS}\s{{0,3}}=?\s?[\[(]\s?{_value('low')}\s?(?:,|-|to|\.\.+)\s?{_value('high')}\s?[\])]"
    equals = r"\s{0,3}(?:=|of)?\s{0,3}"
    led = rf"(?<![\w-])(?P<operator>{_OPERATOR})\s{{1,3}}(?:an?\s|the\s)?{named}{equals}{_value('one')}{_ALSO}"
    compared = rf"{named}{_IS}\s{{0,3}}(?P<operator>{_OPERATOR})?\s{{0,3}}{_value('one')}{_ALSO}"
    after = rf"(?<![\w<>=-])(?P<operator>{_BOUND})\s{{0,3}}{_value('one')}\s(?:in\s(?:the\s)?)?{named}"
    after += rf"(?!\s{{0,3}}(?:{_OPERATOR}|[0-9]))"
    before = (
        rf"(?<![\w.]){_value('low')}\s?(?P<first>{_SYMBOL})\s?{named}(?:\s?(?P<second>{_SYMBOL})\s?{_value('high')})?"
    )
    range_of = rf"between\s{_value('low')}\s(?:and|to)\s{_value('high')}\s(?:in\s(?:the\s)?)?{named}"
    repeated = rf"between\s{named}{equals}{_value('low')}\s(?:and|to)\s(?:{named}{equals})?{_value('high')}"
    every = (compared, led, after, before, between, spread, bracket, range_of, repeated)
    return tuple(re.compile(pattern) for pattern in every)


def _numeric(text: str, columns: Columns) -> Iterator[Offer]:
    if not any(letter.isdigit() for letter in text):
        return
    for measure in _measures(columns):
        if not re.search(measure.words, text):  # a pattern takes milliseconds to compile
            continue
        compared, led, after, before, *between = _patterns(measure.words)
        for pattern in between:
            for result in pattern.finditer(text):
                yield from _offer_between(result, measure)
        for result in (*compared.finditer(text), *led.finditer(text)):
            yield from _offer_compared(result, measure)
        for result in after.finditer(text):
            if _begins_a_clause(text, result.start()):  # in "M_r < -21 spirals" the number is not that of spirals
                yield from _offer_compared(result, measure)
        for result in before.finditer(text):
            yield from _offer_before(result, measure)
    yield from _comparatives(text, columns)


def _begins_a_clause(text: str, start: int) -> bool:
    before = tokens(text[max(0, start - 40) : start])[-1:]
    return not before or before[0].text in _STOPS or before[0].text in OBJECTS


def _offer_between(result: re.Match, measure: _Measure) -> Iterator[Offer]:
    unit = result["high_unit"] or result["low_unit"]
    low = _converted(result["low"], result["low_unit"] or unit, measure)
    high = _converted(result["high"], unit, measure)
    if low is None or high is None:
        return
    yield _offer(result.span(), measure, f"BETWEEN {literal(min(low, high))} AND {literal(max(low, high))}")


def _offer_compared(result: re.Match, measure: _Measure) -> Iterator[Offer]:
    sign = _sign(result["operator"]) if result["operator"] else "="
    spread = _SPREAD.match(result.string, result.end())
    if spread and sign in "=~":
        yield from _offer_around(result, measure, spread)
        return
    if sign == "=" and not result["operator"] and measure.quantity not in ("redshift", "magnitude", "T-type"):
        return
    stated = result.groupdict()
    whole = result.span()
    alone = whole[0], result.start("joint") if stated.get("joint") else whole[1]
    text = result.string
    first = list(_one((whole[0], len(text[: alone[1]].rstrip())), measure, sign, stated["one"], stated["one_unit"]))
    second: list[Offer] = []
    counts = stated.get("two") and stated["two"].isdigit() and _is_of_a_part(text, result)  # "and less than 3 arms"
    if stated.get("also") and sign not in "=~" and not counts:
        second = list(
            _one(whole, measure, _sign(stated["also"]), stated["two"], stated["two_unit"] or stated["one_unit"])
        )
        if first and not stated["one_unit"]:  # "larger than 10 and below 20 arcmin": the unit is that of both
            first = list(_one(first[0].span, measure, sign, stated["one"], stated["two_unit"])) or first
    yield from [_joined(first[0], second[0], stated["joint"])] if first and second else first


def _offer_around(result: re.Match, measure: _Measure, spread: re.Match) -> Iterator[Offer]:
    """Offer what lies within the tolerance that was said: "z = 0.02 +/- 0.01"."""
    center, half = number(result["one"]), number(spread["half"])
    if center is None or half is None:
        return
    unit = spread["half_unit"] or result["one_unit"]
    low, high = (_converted(repr(edge), unit, measure) for edge in (center - abs(half), center + abs(half)))
    if low is not None and high is not None:
        condition = f"BETWEEN {literal(_rounded(min(low, high)))} AND {literal(_rounded(max(low, high)))}"
        yield _offer((result.start(), spread.end()), measure, condition)


def _joined(first: Offer, second: Offer, joint: str) -> Offer:
    """Return two bounds of one quantity as one offer: "redshift > 0.02 and < 0.03"."""
    if joint.endswith("or"):
        return replace(second, sql=f"({first.sql} OR {second.sql})")
    return replace(second, sql=f"{first.sql} AND {second.sql}")


def _sign(operator: str) -> str:
    return _SIGN.get(operator) or _SIGN[operator[2:].strip()]  # "of at least"


def _one(span: tuple[int, int], measure: _Measure, sign: str, stated: str, unit: str | None) -> Iterator[Offer]:
    value = _converted(stated, unit, measure)
    if value is None:
        return
    if sign in ("=", "~"):
        edges = _around(stated, sign, measure)
        low, high = (None, None) if edges is None else (_converted(edge, unit, measure) for edge in edges)
        if low is not None and high is not None:
            yield _offer(span, measure, f"BETWEEN {literal(min(low, high))} AND {literal(max(low, high))}")
        return
    sign = FLIPPED[sign] if measure.quantity == "ellipticity from axis ratio" else sign
    yield _offer(span, measure, f"{sign} {literal(value)}")


def _offer_before(result: re.Match, measure: _Measure) -> Iterator[Offer]:
    signs = [FLIPPED[_sign(result["first"])], *([_sign(result["second"])] if result["second"] else [])]
    stated = [(result["low"], result["low_unit"]), (result["high"], result["high_unit"])][: len(signs)]
    parts = [list(_one(result.span(), measure, sign, *one)) for sign, one in zip(signs, stated, strict=True)]
    if all(parts):
        first = parts[0][0]
        yield replace(first, sql=" AND ".join(part[0].sql for part in parts))


def _offer(span: tuple[int, int], measure: _Measure, condition: str) -> Offer:
    reasons = {
        "distance": f"Hubble's law with H0 = {HUBBLE:g} km/s/Mpc",
        "velocity": "z = v / c",
        "diameter": "half of the diameter, as half-light radius",
        "ellipticity from axis ratio": "axis ratio is 1 - ellipticity",
    }
    sql = f"{quoted(measure.column)} {condition}"
    return Offer(sql, "", span, measure.column, reasons.get(measure.quantity, f"{measure.column} as said"))


def _around(stated: str, sign: str, measure: _Measure) -> tuple[str, str] | None:
    """Return the ends of what rounds to the number said; of 10 % or half a magnitude where it was called about."""
    try:
        value = Decimal(stated.replace(",", ""))
    except InvalidOperation:
        result = number(stated)
        return None if result is None else (repr(result * 0.9), repr(result * 1.1))
    half = Decimal(1).scaleb(int(value.as_tuple().exponent)) / 2
    if sign == "~":
        half = max(half, Decimal("0.5") if measure.quantity == "magnitude" else abs(value) / 10)
    return str(value - half), str(value + half)


def _converted(stated: str, unit: str | None, measure: _Measure) -> float | None:
    """Return a number in the unit of the column; None where the unit does not fit or the number is no float."""
    value = number(stated) if re.fullmatch(_NUMBER, stated) else float(stated)
    if value is None:
        return None
    given = next((name for pattern, name in UNITS.items() if unit and re.fullmatch(pattern, unit)), None)
    convert = {"distance": _distance, "velocity": _velocity, "mass": _mass, "log mass": _log_mass}.get(measure.quantity)
    if convert is not None:
        return convert(value, given, measure)
    if measure.quantity == "ellipticity from axis ratio":
        return 1 - value if given is None else None
    if (measure.quantity == "redshift" and value > FARTHEST) or (measure.quantity == "magnitude" and value < BRIGHTEST):
        return None
    if given in ANGLES and measure.unit in ANGLES:
        value *= ANGLES[given] / ANGLES[measure.unit]
    elif given is not None and given != measure.unit:
        return None
    return value / 2 if measure.quantity == "diameter" else value


def _rounded(value: float) -> float:
    """Return a converted number to four digits: nobody says more."""
    return float(f"{value:.4g}")


def _distance(value: float, given: str | None, measure: _Measure) -> float | None:
    """Return the redshift at so many Mpc, None above 400, where Hubble's law is off by 10 %."""
    return _rounded(value * HUBBLE / LIGHT_KM_S) if given == "Mpc" and 0 <= value <= 400 else None


def _velocity(value: float, given: str | None, measure: _Measure) -> float | None:
    return _rounded(value / LIGHT_KM_S) if given == "km/s" and 0 <= value <= 30_000 else None


def _mass(value: float, given: str | None, measure: _Measure) -> float | None:
    return value if given in (None, "solMass") and value >= 1e4 else None


def _log_mass(value: float, given: str | None, measure: _Measure) -> float | None:
    if given is not None or not 0 < value < 20:
        return None
    return _rounded(10.0**value) if "sun" in measure.unit.casefold() or measure.unit == "solMass" else value


# ---- comparisons: "brighter than 17 in r"


@functools.cache
def _comparative() -> re.Pattern:
    words = "|".join(sorted(COMPARATIVES, key=len, reverse=True))
    word = rf"(?P<no>(?:no|not)\s+)?(?:(?P<word>{words})\s+than|(?P<limit>{'|'.join(LIMITS)}))\s+(?:about\s+)?"
    name = rf"redshift|z|magnitude|mag|(?:mag[\s_])?[{BANDS}](?:[\s-]band)?(?:\smag(?:nitude)?)?"
    band = rf"\s+in\s+(?:the\s+)?(?P<band>[{BANDS}])(?:[\s-]band)?(?![\w-])"
    later = rf"(?=\s+(?:and|but|or)\s+(?:{words})\s+than\s+{_NUMBER}\s{{0,2}}(?P<later_unit>{_UNIT})(?![\w/]))?"
    return re.compile(rf"(?<![\w-]){word}(?:(?P<name>{name})\s?=?\s?)?{_value('one')}(?:{band})?{_ACROSS}?{later}")


def _comparatives(text: str, columns: Columns) -> Iterator[Offer]:
    for result in _comparative().finditer(text):
        if result["word"]:
            quantity, sign = COMPARATIVES[result["word"]]
        else:  # "at least 10 arcsec across", "within 50 Mpc"
            quantity, sign = "distance" if result["limit"] == "within" else "size", LIMITS[result["limit"]]
        sign = DENIED[sign] if result["no"] else sign
        measure = _compared_with(result, quantity, columns)
        if measure is not None and not _after_a_part(text, result.start()):
            yield from _one(result.span(), measure, sign, result["one"], result["one_unit"] or result["later_unit"])


def _compared_with(result: re.Match, quantity: str, columns: Columns) -> _Measure | None:
    """Return the column that a comparative means; None where the words around it mean another, or none is there."""
    unit, name = result["one_unit"] or result["later_unit"], result["name"]
    if quantity == "magnitude":
        in_name = re.search(rf"(?:^|[\s_])([{BANDS}])(?:[\s-]|$)", name or "")
        column = columns.magnitude(result["band"] or (in_name[1] if in_name else None))
        return _Measure("", column, "magnitude", "mag") if column and name not in ("redshift", "z") else None
    if result["band"]:
        return None
    if quantity == "size":
        return _size(result, unit, name, columns)
    if quantity == "distance" and result["word"] and name in ("redshift", "z"):
        quantity = "redshift"
    elif name is not None or (quantity == "axis ratio" and unit):
        return None
    column = columns.of(_by_name(quantity))
    return _Measure("", column, quantity, columns.units[column]) if column else None


def _size(result: re.Match, unit: str | None, name: str | None, columns: Columns) -> _Measure | None:
    """Return the column of sizes in the unit said; without a unit "larger than 10" says too little."""
    if name is not None or unit is None:
        return None
    if result["word"] in (None, "more", "less", "greater") and not result["across"]:
        return None
    across = (result["across"] or "").strip() in ("across", "wide", "long", "in diameter", "in extent")
    physical = re.fullmatch(r"kpc|kiloparsecs?", unit)
    quantity = _by_name("physical size" if physical else "size")
    column = columns.of(quantity)
    if column is None:
        return None
    return _Measure("", column, "diameter" if across else quantity.name, columns.units[column])


# ---- vague words


def _vague(text: str, columns: Columns) -> Iterator[Offer]:
    for result in _vague_words().finditer(text):
        assert result.lastgroup is not None  # each of the words is a group, by its number
        entry = VAGUE[int(result.lastgroup[1:])]
        column = _vague_column(entry, columns)
        if column is None or _is_of_a_part(text, result):
            continue
        unit, factor = columns.units[column], 1.0
        if entry.quantity == "size":
            if unit not in ANGLES:
                continue
            factor = 1 / ANGLES[unit]
        stated = literal(entry.value * factor)
        condition = (
            f"{entry.operator} {stated}" if entry.upper is None else f"BETWEEN {stated} AND {literal(entry.upper)}"
        )
        yield Offer(f"{quoted(column)} {condition}", "", result.span(), column, entry.reason, seen=entry.seen)


def _vague_column(entry: Vague, columns: Columns) -> str | None:
    return columns.magnitude("r") if entry.quantity == "magnitude" else columns.of(_by_name(entry.quantity))


def _is_of_a_part(text: str, result: re.Match) -> bool:
    """Say whether an adjective belongs to a bar, a companion or the like, not to the galaxy."""
    for token in tokens(text[result.end() : result.end() + 80])[:4]:
        if token.text in _STOPS or token.text in OBJECTS:
            break
        if token.text in PARTS or token.text.removesuffix("s") in PARTS:
            return True
    return _after_a_part(text, result.start())


def _after_a_part(text: str, start: int) -> bool:
    before = tokens(text[max(0, start - 40) : start])[-1:]
    last = before[0].text if before else ""
    return last in PARTS or last.removesuffix("s") in PARTS or last in ("more", "less", "too")
