"""Captions of spectra: what measured lines and classes say of a spectrum, and the sentences that say it.

A fact is true (1), false (-1) or unknown (0) of each spectrum, by the limits below on what `galsearch.science.lines`
measures and on the class. A statement joins facts, some denied; a caption is a statement in words. Nothing is said of a
line that is not covered, or whose error does not tell the two sides of a limit apart.

Words and templates of `HELD_OUT` are never trained on: evaluate_spectra_words asks with them.

    >>> caption((("oiii strong", True), ("quasar", False)), np.random.default_rng(0))  # doctest: +SKIP
    'strong [O III] emission, not a quasar'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from galsearch.language.vocabulary import NEGATORS

Literal = tuple[str, bool]  # a fact, and whether it is said to be so
Statement = tuple[Literal, ...]
Columns = Mapping[str, np.ndarray]

# ---- limits

SIGMA = 2.0  # standard errors that what is said not to be there must stay below a limit
LEAST_SNR = 5.0  # of a line that is said to be there
PRESENT = {  # equivalent width at rest in Angstrom from which a line is there
    "oii": 3.0, "hbeta": 2.0, "oiii": 2.0, "oi": 1.0, "nii": 2.0, "sii": 2.0,
    "halpha": 3.0,  # below it stars ionize what gas there is: Cid Fernandes et al. 2011 (MNRAS 413, 1687)
}  # fmt: skip
STRONG = {"oii": 10.0, "hbeta": 5.0, "oiii": 10.0, "oi": 3.0, "halpha": 20.0, "nii": 10.0, "sii": 10.0}  # and strong
WEAKEST = 0.5  # Angstrom, of a line that is called weak
BROAD_KMS = 1000.0  # FWHM of permitted lines from which a spectrum is of type 1: Weedman 1977 (ARA&A 15, 69)
HDELTA_YOUNG, OII_NONE, HALPHA_NONE = 5.0, 2.5, 3.0  # post-starburst by Goto 2007 (MNRAS 381, 187): Angstrom
HDELTA_STRONG, HDELTA_WEAK = 4.0, 1.5  # of Hδ in absorption
D4000_OLD, D4000_YOUNG = 1.55, 1.35  # either side of the dip between galaxies: Kauffmann et al. 2003 (MNRAS 341, 33)
MGB_STRONG, MGB_WEAK = 3.0, 1.0  # Angstrom in absorption
CAHK_STRONG, CAHK_WEAK = 12.0, 5.0

LINE_FACTS = tuple(PRESENT)
HOT, SOLAR = ("B", "A"), ("F", "G", "K")
KIND_FACTS = (
    *("quasar", "star", "galaxy", "M star", "white dwarf", "hot star", "solar-type star", "star-forming", "composite"),
    *("seyfert", "liner", "agn", "passive", "post-starburst", "lens"),
)
FEATURE_FACTS = ("emission", "emission strong", "broad", "mgii broad", "balmer absorption", "old", "metals", "double")
FACTS = (*(f"{line}{how}" for line in LINE_FACTS for how in ("", " strong", " weak")), *FEATURE_FACTS, *KIND_FACTS)


def three_valued(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Return 1 where true, -1 where false, 0 where neither, as int8."""
    return np.where(true, 1, np.where(false, -1, 0)).astype(np.int8)


def facts(columns: Columns) -> dict[str, np.ndarray]:
    """Return every fact of FACTS of n spectra, (n,) int8.

    `columns` are those of `prepare_spectra_words`: measures, `covers_*`, and `kind` (semi-synthetic) or `cls` and
    `subclass` (real).
    """
    with np.errstate(invalid="ignore"):
        result = _kinds(columns)
        for line in LINE_FACTS:
            result |= _line(columns, line, broad=result["broad"])
        result |= _continuum(columns) | _emission(columns, result)
        passive = _passive(columns, result)
        result |= passive | _post_starburst(columns, result | passive)
    if "outlier" in columns:  # what is wrong with these is not said in words
        spoiled = np.isin(columns["outlier"], ["broken", "wrong-z", "glitch"])
        result = {name: np.where(spoiled, 0, values).astype(np.int8) for name, values in result.items()}
    return {name: result[name] for name in FACTS}


def _line(columns: Columns, line: str, *, broad: np.ndarray) -> dict[str, np.ndarray]:
    """Return whether a line is there, strong, weak; the broad part of Balmer lines counts."""
    width, error = columns[f"ew_{line}"], columns[f"error_ew_{line}"]
    wide = columns.get(f"ew_{line}_broad")
    total = width if wide is None else np.where(np.isfinite(wide), np.nan_to_num(width) + wide, width)
    sees = columns[f"covers_{line}"] & np.isfinite(total) & np.isfinite(error)
    sure = sees & (total > LEAST_SNR * error)
    there = three_valued(sure & (total >= PRESENT[line]), sees & (total + SIGMA * error < PRESENT[line]))
    strong = three_valued(sure & (total >= STRONG[line]), sees & (total + SIGMA * error < STRONG[line]))
    faint = sees & (total > 3 * error) & (total > WEAKEST) & (strong == -1) & (broad != 1)
    return {line: there, f"{line} strong": strong, f"{line} weak": three_valued(faint, strong == 1)}


def _kinds(columns: Columns) -> dict[str, np.ndarray]:
    if "kind" in columns:
        return _drawn_kinds(columns)
    cls, sub = columns["cls"], columns["subclass"]
    sure = ~(columns["zwarning"] > 0)
    known = np.isin(cls, ["GALAXY", "QSO", "STAR"]) & sure
    is_ = {"quasar": cls == "QSO", "star": cls == "STAR", "galaxy": cls == "GALAXY"}
    result = {name: three_valued(known & yes, known & ~yes) for name, yes in is_.items()}
    letter = np.array([name[:1] for name in sub])
    dwarf = np.array([name.startswith("WD") for name in sub])
    star, typed = known & (cls == "STAR"), sub != ""
    types = {"M star": letter == "M", "white dwarf": dwarf, "hot star": np.isin(letter, HOT)}
    types["solar-type star"] = np.isin(letter, SOLAR)
    result |= {name: three_valued(star & typed & yes, known & ~(star & (yes | ~typed))) for name, yes in types.items()}
    wide = np.array(["BROADLINE" in name for name in sub])
    balmer = (columns["balmer_fwhm_kms"] > BROAD_KMS) & (
        np.isfinite(columns["ew_halpha_broad"]) | np.isfinite(columns["ew_hbeta_broad"])
    )
    broad = is_["quasar"] | wide | balmer
    result["broad"] = three_valued(known & broad, known & ~broad)
    result |= _bpt(columns, known & (cls == "GALAXY") & ~broad, known & (cls != "GALAXY"))
    nothing = np.zeros(len(cls), np.int8)
    return result | {"lens": nothing, "double": nothing, "mgii broad": _mgii(columns, result["quasar"])}


def _drawn_kinds(columns: Columns) -> dict[str, np.ndarray]:
    """Return what is known of semi-synthetic spectra by drawing; a lens is an early type with lines behind it."""
    kind, outlier, star = columns["kind"], columns["outlier"], columns["star_type"]
    double = outlier == "double-peak"
    is_ = {"quasar": kind == "qso", "star": kind == "star"}
    is_["galaxy"] = ~is_["quasar"] & ~is_["star"]
    is_ |= {"M star": star == "M", "white dwarf": star == "WD", "hot star": np.isin(star, HOT)}
    is_ |= {"solar-type star": np.isin(star, SOLAR), "broad": is_["quasar"], "lens": kind == "lens"}
    is_["double"] = double
    result = {name: three_valued(yes, ~yes) for name, yes in is_.items()}
    doubtful = np.isin(kind, ["lens", "outlier"])
    for name in ("star-forming", "composite", "seyfert", "liner"):
        result[name] = three_valued(kind == name, ~doubtful & (kind != name))
    active = np.isin(kind, ["seyfert", "liner", "qso"])
    result["agn"] = three_valued(active, ~active & ~doubtful & (kind != "composite"))
    return result | {"mgii broad": _mgii(columns, result["quasar"])}


def _mgii(columns: Columns, quasar: np.ndarray) -> np.ndarray:
    wide = np.isfinite(columns["mgii_fwhm_kms"])
    return three_valued(columns["covers_mgii"] & (wide | (quasar == 1)), columns["covers_mgii"] & (quasar == -1))


def _bpt(columns: Columns, galaxies: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    """Return the BPT class of galaxies whose four lines are measured, by the regions of spectra_synthetic."""
    from export.spectra_synthetic import bpt_kind

    x, y = columns["log_nii_halpha"], columns["log_oiii_hbeta"]
    known = galaxies & np.isfinite(x) & np.isfinite(y)
    kind = bpt_kind(x, y)
    names = ("star-forming", "composite", "seyfert", "liner")
    result = {name: three_valued(known & (kind == name), (known & (kind != name)) | others) for name in names}
    active = known & np.isin(kind, ["seyfert", "liner"])
    quasar = columns["cls"] == "QSO"
    stars = others & ~quasar
    result["agn"] = three_valued(active | (others & quasar), (known & (kind == "star-forming")) | stars)
    return result


def _continuum(columns: Columns) -> dict[str, np.ndarray]:
    """Return what the continuum shows: Balmer absorption, an old population, metals."""
    hdelta, error = columns["hdelta_a"], columns["error_hdelta_a"]
    sees = columns["covers_hdelta"] & (error < 1.5)
    absorbs = three_valued(sees & (hdelta > HDELTA_STRONG), sees & (hdelta < HDELTA_WEAK))
    bounds = {
        "old": ("d4000", "d4000", D4000_OLD, D4000_YOUNG),
        "metals": ("mg_b", "mgb", MGB_STRONG, MGB_WEAK),
    }
    result = {"balmer absorption": absorbs}
    for name, (column, at, high, low) in bounds.items():
        values, seen = columns[column], columns[f"covers_{at}"]
        result[name] = three_valued(seen & (values > high), seen & (values < low))
    return result


def _emission(columns: Columns, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return whether any line is in emission, and strongly; FORS2's own reading counts where it is there."""
    there = np.stack([known[line] for line in LINE_FACTS])
    strong = np.stack([known[f"{line} strong"] for line in LINE_FACTS])
    bright = np.stack([known[line] for line in ("oii", "oiii", "halpha")])
    none = (there.max(axis=0) < 1) & ((bright == -1).sum(axis=0) >= 2) & (known["broad"] != 1)
    sub = columns.get("subclass", np.full(there.shape[1], ""))
    any_line = (there.max(axis=0) == 1) | (known["broad"] == 1) | (sub == "emission")
    faint = (strong.max(axis=0) < 1) & (bright.max(axis=0) < 1) & (none | (sub == "absorption"))
    return {
        "emission": three_valued(
            any_line & (sub != "absorption"), (none & (sub != "emission")) | (sub == "absorption")
        ),
        "emission strong": three_valued((strong.max(axis=0) == 1) | (known["broad"] == 1), faint),
    }


def _passive(columns: Columns, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return whether a galaxy is passive: an old population, no line from young stars or an AGN."""
    quiet = (known["emission"] == -1) & (known["old"] == 1) & (known["galaxy"] == 1)
    quiet |= (columns.get("subclass", np.full(len(quiet), "")) == "absorption") & (known["old"] >= 0)
    busy = (known["emission strong"] == 1) | (known["old"] == -1) | (known["galaxy"] == -1)
    busy |= (known["emission"] == 1) & (known["halpha"] >= 0)
    if "kind" in columns:
        quiet &= np.isin(columns["kind"], ["passive"])
        busy &= columns["kind"] != "lens"
        quiet |= columns["kind"] == "passive"
    return {"passive": three_valued(quiet, busy)}


def _post_starburst(columns: Columns, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return whether a galaxy is post-starburst: Hδ absorbs, neither Hα nor [O II] emits (Goto 2007)."""
    hdelta, error = columns["hdelta_a"], columns["error_hdelta_a"]
    limits = {"oii": OII_NONE, "halpha": HALPHA_NONE}
    sees = np.array([columns[f"covers_{line}"] for line in limits])
    over = np.array([columns[f"ew_{line}"] - limit for line, limit in limits.items()])
    doubt = SIGMA * np.array([columns[f"error_ew_{line}"] for line in limits])
    low, high = ((sees & (sign * over > doubt)).any(axis=0) for sign in (-1, 1))
    none = low & ~high & (known["emission"] < 1)
    young = columns["covers_hdelta"] & (hdelta > HDELTA_YOUNG) & (error < 1.5)
    is_it = young & none & (known["galaxy"] == 1)
    plain = columns["covers_hdelta"] & (hdelta + SIGMA * error < HDELTA_YOUNG)
    is_not = plain | high | (known["galaxy"] == -1) | (known["emission strong"] == 1)
    if "kind" in columns:
        is_it, is_not = columns["kind"] == "post-starburst", ~np.isin(columns["kind"], ["post-starburst", "outlier"])
    return {"post-starburst": three_valued(is_it, is_not)}


def truth(statements: list[Statement], known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what each statement is of each spectrum, (m, n) int8: false if a part is false, else unknown if one is."""
    parts = [np.stack([known[name] * (1 if wanted else -1) for name, wanted in one]) for one in statements]
    return np.stack([part.min(axis=0) for part in parts]).astype(np.int8)


# ---- words


@dataclass(frozen=True)
class Words:
    """Names of one fact: those that are trained on, and those that are held out."""

    train: tuple[str, ...]
    held_out: tuple[str, ...] = ()


LINE_WORDS = {
    "oii": Words(
        ("[O II]", "[OII]", "OII", "O II", "[O II] 3727", "[OII]3727", "ionized oxygen [O II]", "oxygen II"),
        ("[O II] λ3727", "singly ionised oxygen", "3727 doublet"),
    ),
    "hbeta": Words(
        ("Hβ", "H beta", "H-beta", "Hbeta", "Hb", "H beta 4861", "hydrogen beta", "Balmer Hβ"),
        ("Balmer beta", "H-β", "Hβ λ4861"),
    ),
    "oiii": Words(
        (
            *("[O III]", "[OIII]", "OIII", "O III", "[O III] 5007", "[OIII]5007", "[OIII] 4959,5007", "oxygen III"),
            *("doubly ionized oxygen", "oxygen", "[O III] 5007 and 4959", "O3"),
        ),
        ("[O III] λ5007", "doubly ionised oxygen", "OIII 5008", "5007 Å"),
    ),
    "oi": Words(("[O I]", "[OI]", "O I", "OI", "[O I] 6300", "[OI]6300"), ("[O I] λ6300", "neutral oxygen")),
    "halpha": Words(
        ("Hα", "H alpha", "H-alpha", "Halpha", "Ha", "H alpha 6563", "hydrogen alpha", "Balmer Hα", "HA"),
        ("Balmer alpha", "H-α", "Hα λ6563", "6563 Å"),
    ),
    "nii": Words(
        ("[N II]", "[NII]", "NII", "N II", "[N II] 6583", "[NII]6584", "ionized nitrogen", "nitrogen"),
        ("[N II] λ6583", "ionised nitrogen"),
    ),
    "sii": Words(
        ("[S II]", "[SII]", "SII", "S II", "[S II] 6716,6731", "[SII]6717", "ionized sulfur", "sulfur"),
        ("[S II] λ6716", "ionised sulphur"),
    ),
}
FEATURE_WORDS = {  # noun phrases: what a spectrum has
    "emission": Words(
        (
            *("emission lines", "emission", "nebular emission", "line emission", "nebular lines", "an emission line"),
            *("lines in emission", "ionized gas", "gas emission", "emission from ionized gas"),
        ),
        ("emission features", "ionised gas emission", "lines that emit"),
    ),
    "broad": Words(
        (
            *("broad lines", "broad emission lines", "broad Balmer lines", "broad permitted lines", "a broad line"),
            *("broad Hα", "broad H alpha", "broad Hβ", "broad H beta", "very broad lines", "broad-line emission"),
            *("lines thousands of km/s wide", "a broad component"),
        ),
        ("wide emission lines", "a broad line region", "broad hydrogen lines", "broadened Balmer lines"),
    ),
    "mgii broad": Words(
        ("broad Mg II", "Mg II emission", "MgII", "Mg II 2799", "broad MgII emission", "magnesium II emission"),
        ("Mg II λ2798", "ionised magnesium emission"),
    ),
    "balmer absorption": Words(
        (
            *(
                "Balmer absorption",
                "Hδ absorption",
                "H delta absorption",
                "Balmer absorption lines",
                "Hdelta absorption",
            ),
            *("Balmer lines in absorption", "deep Balmer lines", "A-star absorption lines", "hydrogen absorption"),
        ),
        ("absorption in the Balmer series", "H-delta in absorption", "hydrogen lines in absorption"),
    ),
    "old": Words(
        (
            *("a 4000 Å break", "4000 Angstrom break", "D4000", "an old stellar population", "old stars"),
            *("a large D4000", "a red continuum with a 4000 A break", "a Balmer break and old stars"),
        ),
        ("a break at 4000 Å", "evolved stars", "high Dn4000"),
    ),
    "metals": Words(
        (
            *("Mg b absorption", "Mgb", "metal absorption lines", "magnesium absorption", "Na D and Mg b absorption"),
            *("stellar metal lines", "Mg absorption"),
        ),
        ("magnesium triplet absorption", "absorption by metals"),
    ),
    "double": Words(
        (
            *("double-peaked lines", "double-peaked emission lines", "double peaked lines", "split emission lines"),
            *("double-peaked [O III]", "two velocity components", "doubled lines", "double peaks"),
        ),
        ("lines with two peaks", "double-peaked narrow lines", "twin-peaked lines"),
    ),
}
KIND_WORDS = {  # what a spectrum is of: noun phrases without an article
    "quasar": Words(
        (
            *("quasar", "QSO", "broad-line quasar", "quasi-stellar object", "type 1 quasar", "broad line quasar"),
            *("luminous quasar", "quasar with broad lines", "broad-line AGN", "type 1 AGN", "Seyfert 1", "blazar"),
        ),
        ("broadline QSO", "type I AGN", "quasi stellar radio source", "unobscured quasar"),
    ),
    "star": Words(
        ("star", "stellar spectrum", "Milky Way star", "Galactic star", "foreground star", "single star"),
        ("star in our Galaxy", "stellar source", "ordinary star"),
    ),
    "galaxy": Words(("galaxy", "galaxy spectrum", "normal galaxy"), ("host galaxy", "galaxy at some redshift")),
    "M star": Words(
        (
            "M star",
            "M dwarf",
            "M-type star",
            "red dwarf",
            "cool star",
            "M giant",
            "late-type star",
            "star with TiO bands",
        ),
        ("M-class star", "dwarf of type M", "star with molecular bands"),
    ),
    "white dwarf": Words(("white dwarf", "WD", "DA white dwarf", "white dwarf star"), ("degenerate dwarf",)),
    "hot star": Words(
        ("A star", "B star", "hot star", "A-type star", "early-type star", "blue star", "A0 star", "OB star"),
        ("star of spectral type A", "hot blue star"),
    ),
    "solar-type star": Words(
        ("G star", "F star", "K star", "solar-type star", "sun-like star", "G dwarf", "F-type star", "K giant"),
        ("star like the Sun", "star of spectral type G"),
    ),
    "star-forming": Words(
        (
            *(
                "star-forming galaxy",
                "star forming galaxy",
                "starburst",
                "starburst galaxy",
                "H II galaxy",
                "SF galaxy",
            ),
            *("galaxy with ongoing star formation", "actively star-forming galaxy", "HII region spectrum"),
        ),
        ("galaxy forming stars", "starbursting galaxy", "galaxy ionized by young stars"),
    ),
    "composite": Words(
        ("composite galaxy", "composite of AGN and star formation", "BPT composite", "transition object"),
        ("AGN and starburst composite", "composite spectrum of both AGN and star formation"),
    ),
    "seyfert": Words(
        (
            *("Seyfert", "Seyfert galaxy", "Seyfert 2", "Seyfert 2 galaxy", "type 2 AGN", "narrow-line AGN", "Sy2"),
            *("type 2 Seyfert", "high-ionization AGN", "type 2 quasar"),
        ),
        ("Seyfert nucleus", "obscured AGN", "Seyfert II"),
    ),
    "liner": Words(
        (
            *("LINER", "LINER galaxy", "low-ionization nuclear emission region", "low-ionization galaxy", "LINERs"),
            *("low ionization nuclear emission-line region", "liner", "LIER"),
        ),
        ("LINER nucleus", "low-ionisation emission", "weak AGN of LINER type"),
    ),
    "agn": Words(
        ("AGN", "active galactic nucleus", "active galaxy", "active nucleus", "AGN host"),
        ("galaxy with an accreting black hole", "active galactic nuclei"),
    ),
    "passive": Words(
        (
            *(
                "passive galaxy",
                "quiescent galaxy",
                "early-type galaxy",
                "red and dead galaxy",
                "elliptical galaxy spectrum",
            ),
            *("passive", "quenched galaxy", "old galaxy", "luminous red galaxy", "LRG", "absorption-line galaxy"),
            *("galaxy without star formation", "retired galaxy"),
        ),
        ("dead galaxy", "inactive galaxy", "passively evolving galaxy", "galaxy with an old spectrum and no lines"),
    ),
    "post-starburst": Words(
        (
            *("post-starburst", "post-starburst galaxy", "E+A galaxy", "K+A galaxy", "poststarburst", "PSB galaxy"),
            *("passive galaxy with Balmer absorption", "recently quenched galaxy", "k+a", "E+A"),
        ),
        ("galaxy after a starburst", "post starburst", "a+k galaxy"),
    ),
    "lens": Words(
        (
            *("gravitational lens", "strong lens", "lens candidate", "galaxy with emission lines at a second redshift"),
            *("lensing galaxy", "two redshifts in one spectrum", "background emission lines"),
        ),
        ("lines of a background source", "galaxy-scale lens", "spectroscopic lens"),
    ),
}
LINES_AS = ("{} emission", "{}", "{} emission line", "{} line", "{} in emission", "{} emission lines")
HAS = (
    *("{}", "with {}", "has {}", "shows {}", "showing {}", "{} present", "{} detected", "visible {}", "clear {}"),
    *("there is {}", "{} is visible", "{} is present", "{} appears", "containing {}", "that has {}", "displays {}"),
    *("in which there is {}", "obvious {}", "a spectrum that contains {}", "{} is found", "find {}", "search for {}"),
)
STRONG_AS = (
    *("strong {}", "very strong {}", "bright {}", "prominent {}", "intense {}", "powerful {}", "strongest {}"),
    *("extreme {}", "dominated by {}", "with strong {}", "large equivalent width of {}", "high {} equivalent width"),
    *("outstanding {}", "exceptionally strong {}", "unusually bright {}"),
)
WEAK_AS = (
    "weak {}",
    "faint {}",
    "very weak {}",
    "little {}",
    "low {} equivalent width",
    "only weak {}",
    "with weak {}",
)
LACKS = (
    *(f"{word} {{}}" for kind in ("thing", "chain") for word in NEGATORS[kind] if word != "w/o a"),
    *("{} absent", "no sign of {}", "does not have {}", "does not show {}", "{} not detected", "no detectable {}"),
    *("not showing {}", "there is no {}", "{}-free", "{} missing", "{} is absent", "{} is missing", "zero {}"),
    *("{} not seen", "no trace of {}", "doesn't have {}", "with no {}", "where there is no {}", "no visible {}"),
    *("{} does not occur", "{} is lacking", "not any {}", "reject {}", "leave out {}", "cannot see {}"),
)
IS = (
    *("{}", "a {}", "{} spectrum", "spectrum of a {}", "{}s", "show me {}s", "find a {}", "this is a {}", "typical {}"),
    *("it is a {}", "objects that are {}s", "spectra of {}s", "bright {}", "{} at low redshift"),
    *("resembles a {}", "could be a {}", "give me {}s", "search for {}s", "all {}s", "{} candidates", "any {}"),
    *("an object that is a {}", "identified as a {}", "please show {}s", "most likely a {}", "{} seen in a spectrum"),
)
IS_NOT = (
    *("not a {}", "no {}", "anything but a {}", "is not a {}", "excluding {}s", "non-{}", "not {}", "without {}s"),
    *("no {}s", "this is no {}", "isn't a {}", "exclude {}s", "other than a {}", "objects that are not {}s"),
    *("definitely no {}", "must not be a {}", "cannot be a {}", "reject {}s", "leave out {}s", "avoid {}s"),
)
AROUND = (
    "{}",
    "{}",
    "{}",
    "galaxy with {}",
    "galaxies with {}",
    "spectrum with {}",
    "spectra showing {}",
    "objects with {}",
)
JOINTS = ("{} with {}", "{} and {}", "{}, {}", "{} but {}", "{} that has {}")
HELD_OUT = {  # templates that are never trained on, in the same order of uses
    "has": ("a spectrum in which {} can be seen", "{} stands out"),
    "strong": ("remarkably strong {}", "very pronounced {}", "{} of great strength"),
    "weak": ("barely any {}", "hardly visible {}"),
    "lacks": ("{} is not there", "a complete absence of {}", "nothing of {} to be seen"),
    "is": ("looks like a {}", "I want a {}", "classified as {}"),
    "is not": ("rule out {}s", "certainly not a {}"),
}
TRAINED = {"has": HAS, "strong": STRONG_AS, "weak": WEAK_AS, "lacks": LACKS, "is": IS, "is not": IS_NOT}
EXTRA: dict[Statement, tuple[str, ...]] = {  # whole sentences beside those that templates make
    (("emission strong", True),): (
        *("strong emission lines", "emission-line galaxy"),
        *("very strong lines", "extreme emission line galaxy"),
    ),
    (("old", False),): ("young stellar population", "young stars", "blue continuum", "blue galaxy", "a small D4000"),
    (("emission", True), ("broad", False)): (
        *("narrow emission lines", "narrow lines", "narrow-line galaxy"),
        *("only narrow lines", "no broad lines but emission"),
    ),
}  # fmt: skip


def names(fact: str, *, held_out: bool = False, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the names of a fact without its strength, those trained on or those held out, less `without`."""
    stem = fact.removesuffix(" strong").removesuffix(" weak")
    words = (LINE_WORDS | FEATURE_WORDS | KIND_WORDS)[stem]
    chosen = words.held_out if held_out else tuple(name for name in words.train if name not in without)
    return chosen or words.train


def use_of(literal: Literal) -> str:
    """Return which templates say a fact: has, strong, weak, lacks, is, is not."""
    fact, wanted = literal
    if fact in KIND_WORDS:
        return "is" if wanted else "is not"
    how = fact.rpartition(" ")[2]
    return "lacks" if not wanted else how if how in ("strong", "weak") else "has"


def phrase(
    literal: Literal,
    random: np.random.Generator,
    *,
    held_out_names: bool = False,
    held_out_templates: bool = False,
    without: tuple[str, ...] = (),
) -> str:
    """Return one fact in words drawn at random; a strength that is denied is said as "no strong …"."""
    fact, wanted = literal
    name = str(random.choice(names(fact, held_out=held_out_names, without=without)))
    stem, use = fact.removesuffix(" strong").removesuffix(" weak"), use_of(literal)
    if stem in LINE_WORDS:
        name = str(random.choice(LINES_AS)).format(name)
    if not wanted and fact.endswith((" strong", " weak")):
        name = f"{fact.rpartition(' ')[2]} {name}"
    template = str(random.choice((HELD_OUT if held_out_templates else TRAINED)[use]))
    if "{}s" in template:
        return template.replace("{}s", "{}").format(plural(name))
    return template.format(_bare(name) if "a {}" in template or use != "has" else name)


def plural(name: str) -> str:
    """Return the plural of a noun phrase.

    >>> plural("passive galaxy"), plural("gravitational lens"), plural("host galaxy with lines")
    ('passive galaxies', 'gravitational lenses', 'host galaxies with lines')
    """
    noun, link, rest = name, "", ""
    for word in (" with ", " of ", " without ", " in ", " forming ", " ionized ", " at ", " after ", " like "):
        if word in noun:
            noun, link, rest = (noun.partition(word)[0], word, noun.partition(word)[2] + link + rest)
    ending = "" if noun.endswith(("lines", "LINERs", "shifts", "nuclei")) else "s"
    if noun.endswith("y"):
        noun, ending = noun[:-1], "ies"
    elif noun.endswith(("lens", "sh")):
        ending = "es"
    return f"{noun}{ending}{link}{rest}"


def _bare(name: str) -> str:
    """Return a name without its article: "no a broad line" is no English."""
    return name.removeprefix("a ").removeprefix("an ")


def caption(statement: Statement, random: np.random.Generator, **how: object) -> str:
    """Return a statement in words drawn at random; `how` is that of `phrase`."""
    parts = [phrase(literal, random, **how) for literal in statement]  # type: ignore[arg-type]
    text = parts[0]
    for part in parts[1:]:
        text = str(random.choice(JOINTS)).format(text, part.removeprefix("with ").removeprefix("has "))
    is_whole = statement[0][0] in KIND_WORDS or use_of(statement[0]) == "lacks"
    is_whole |= text.startswith(("with", "has", "show"))
    text = text if is_whole else str(random.choice(AROUND)).format(text)
    return text.lower() if random.random() < 0.25 else text


SAID_ALONE = tuple(name for name in FACTS if name != "galaxy" and not name.startswith("oi "))
PAIRS: tuple[Statement, ...] = (  # of what is asked for together
    (("passive", True), ("oii", False)),
    (("emission", True), ("broad", False)),
    (("passive", True), ("emission", False)),
    (("quasar", True), ("oiii strong", True)),
    (("quasar", False), ("broad", False)),
    (("star-forming", True), ("oiii strong", True)),
    (("star-forming", True), ("halpha strong", True)),
    (("seyfert", True), ("oiii strong", True)),
    (("oiii strong", True), ("hbeta", True)),
    (("oiii strong", True), ("broad", False)),
    (("oiii strong", True), ("quasar", False)),
    (("halpha strong", True), ("nii", True)),
    (("halpha", True), ("oiii", False)),
    (("nii", True), ("oiii", False)),
    (("oii", True), ("old", True)),
    (("halpha", False), ("balmer absorption", True)),
    (("emission", False), ("balmer absorption", True)),
    (("emission", False), ("old", True)),
    (("emission", True), ("old", False)),
    (("old", True), ("metals", True)),
    (("star", False), ("emission", True)),
    (("agn", True), ("quasar", False)),
    (("liner", True), ("star-forming", False)),
    (("galaxy", True), ("emission strong", True)),
    (("galaxy", True), ("emission", False)),
    (("galaxy", True), ("broad", True)),
)


def statements() -> list[Statement]:
    """Return every statement that captions are written of: each fact, each fact denied, and the pairs."""
    single: list[Statement] = [((fact, True),) for fact in SAID_ALONE]
    denied: list[Statement] = [((fact, False),) for fact in SAID_ALONE if not fact.endswith(" weak")]
    return single + denied + list(PAIRS)


def captions(
    count: int,
    *,
    seed: int,
    held_out_names: bool = False,
    held_out_templates: bool = False,
    without: tuple[str, ...] = (),
) -> list[tuple[str, Statement]]:
    """Return `count` captions of each statement at most, each once, with what they say."""
    random, result = np.random.default_rng(seed), {}
    how = {"held_out_names": held_out_names, "held_out_templates": held_out_templates, "without": without}
    for statement in statements():
        for _ in range(count):
            result.setdefault(caption(statement, random, **how), statement)
    if not held_out_names and not held_out_templates:
        result |= {text: statement for statement, texts in EXTRA.items() for text in texts}
    return list(result.items())
