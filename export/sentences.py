"""What is true of a galaxy, and the sentences that say so.

A facet is one yes-or-no property ("barred"). Each object has a truth per facet: +1 true, -1 false, 0 unknown
(not labeled, or too near the border to say). A statement is one to three literals (facet, wanted), its truth
follows Kleene: false if any literal is false, true if all are true, else unknown. A sentence is one wording of
a statement; the same wording never stands for two statements.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Literal = tuple[str, bool]
Statement = tuple[Literal, ...]


@dataclass(frozen=True)
class Facet:
    """Wordings of one property: heads stand alone as (singular, plural) nouns, adjectives go before, phrases after."""

    heads: tuple[tuple[str, str], ...] = ()
    adjectives: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    not_adjectives: tuple[str, ...] = ()
    not_phrases: tuple[str, ...] = ()
    words: tuple[str, ...] = ()  # what people type alone


FACETS: dict[str, Facet] = {
    "spiral": Facet(
        heads=(("spiral galaxy", "spiral galaxies"), ("spiral", "spirals"), ("spiral-type galaxy", "spiral-type galaxies")),
        adjectives=("spiral",),
        phrases=("of spiral type", "with spiral structure", "classified as a spiral", "with a spiral pattern"),
        not_adjectives=("non-spiral",),
        not_phrases=("that is not a spiral", "without spiral structure", "not of spiral type", "with no spiral pattern"),
        words=("spiral", "spirals", "spiral structure"),
    ),
    "elliptical": Facet(
        heads=(("elliptical galaxy", "elliptical galaxies"), ("elliptical", "ellipticals"), ("spheroidal galaxy", "spheroidal galaxies")),
        adjectives=("elliptical", "spheroidal"),
        phrases=("of elliptical type", "classified as elliptical", "of Hubble type E", "that is a featureless ellipsoid"),
        not_adjectives=("non-elliptical",),
        not_phrases=("that is not elliptical", "not of elliptical type", "which is no elliptical"),
        words=("elliptical", "ellipticals", "E galaxy", "spheroid"),
    ),
    "lenticular": Facet(
        heads=(("lenticular galaxy", "lenticular galaxies"), ("S0 galaxy", "S0 galaxies"), ("lenticular", "lenticulars")),
        adjectives=("lenticular", "S0"),
        phrases=("of lenticular type", "of type S0", "with a disk but no spiral arms"),
        not_phrases=("that is not lenticular", "not of type S0"),
        words=("lenticular", "S0", "lenticulars"),
    ),
    "irregular": Facet(
        heads=(
            ("irregular galaxy", "irregular galaxies"), ("dwarf irregular galaxy", "dwarf irregular galaxies"),
            ("Magellanic irregular", "Magellanic irregulars"), ("irregular", "irregulars"),
        ),
        adjectives=("irregular", "irregularly shaped", "amorphous"),
        phrases=("of irregular type", "with an irregular shape", "without any regular structure", "of irregular morphology"),
        not_adjectives=("regular",),
        not_phrases=("that is not irregular", "not of irregular type", "with a regular shape"),
        words=("irregular", "irregulars", "Im", "dwarf irregular"),
    ),
    "disk": Facet(
        heads=(("disk galaxy", "disk galaxies"), ("disk", "disks"), ("disc galaxy", "disc galaxies")),
        phrases=("with a disk", "with a stellar disk", "dominated by a disk"),
        not_adjectives=("diskless",),
        not_phrases=("without a disk", "with no disk"),
        words=("disk", "disc", "disks"),
    ),
    "early_type": Facet(
        heads=(("early-type galaxy", "early-type galaxies"), ("early type", "early types")),
        adjectives=("early-type",), phrases=("of early type",), not_phrases=("that is not early-type",), words=("early-type",),
    ),
    "late_type": Facet(
        heads=(("late-type galaxy", "late-type galaxies"), ("late-type spiral", "late-type spirals")),
        adjectives=("late-type",), phrases=("of late type",), not_phrases=("that is not late-type",), words=("late-type",),
    ),
    "sa": Facet(heads=(("Sa galaxy", "Sa galaxies"), ("Sa spiral", "Sa spirals")), phrases=("of Hubble type Sa",), words=("Sa",)),
    "sb": Facet(heads=(("Sb galaxy", "Sb galaxies"), ("Sb spiral", "Sb spirals")), phrases=("of Hubble type Sb",), words=("Sb",)),
    "sc": Facet(heads=(("Sc galaxy", "Sc galaxies"), ("Sc spiral", "Sc spirals")), phrases=("of Hubble type Sc",), words=("Sc",)),
    "sd": Facet(heads=(("Sd galaxy", "Sd galaxies"), ("Sd spiral", "Sd spirals")), phrases=("of Hubble type Sd",), words=("Sd",)),
    "smooth": Facet(
        adjectives=("smooth", "featureless"),
        phrases=("with a smooth light profile", "without any features", "with no visible structure", "that is smooth and featureless"),
        not_adjectives=("structured", "featured"),
        not_phrases=("with visible structure", "with features", "that is not smooth"),
        words=("smooth", "featureless"),
    ),
    "edge_on": Facet(
        heads=(("edge-on galaxy", "edge-on galaxies"), ("edge-on disk", "edge-on disks")),
        adjectives=("edge-on", "highly inclined"),
        phrases=("seen edge-on", "viewed from the side", "seen exactly from the side", "in edge-on orientation"),
        not_phrases=("not seen edge-on", "that is not edge-on"),
        words=("edge-on", "edge on", "seen from the side", "needle-like disk", "thin edge-on disk"),
    ),
    "face_on": Facet(
        heads=(("face-on galaxy", "face-on galaxies"), ("face-on disk", "face-on disks")),
        adjectives=("face-on", "pole-on"),
        phrases=("seen face-on", "viewed from above", "in face-on orientation", "seen from its pole"),
        not_phrases=("not seen face-on", "that is not face-on"),
        words=("face-on", "face on", "seen from above"),
    ),
    "elongated": Facet(
        adjectives=("elongated", "flattened", "thin", "cigar-shaped"),
        phrases=("with an elongated shape", "that is very flattened", "with a small axis ratio", "stretched along one axis"),
        not_phrases=("that is not elongated",),
        words=("elongated", "flat", "thin", "cigar shape", "needle"),
    ),
    "round": Facet(
        adjectives=("round", "circular"),
        phrases=("with a round shape", "that looks round", "with an axis ratio near one", "of circular outline"),
        not_phrases=("that is not round",),
        words=("round", "circular"),
    ),
    "barred": Facet(
        heads=(("barred galaxy", "barred galaxies"),),
        adjectives=("barred",),
        phrases=("with a bar", "with a central bar", "that has a bar", "hosting a stellar bar", "with a bar across the center"),
        not_adjectives=("unbarred", "non-barred", "bar-less"),
        not_phrases=("without a bar", "with no bar", "that has no bar", "lacking a bar", "without any central bar", "showing no sign of a bar"),
        words=("bar", "barred", "stellar bar"),
    ),
    "strong_bar": Facet(
        adjectives=("strongly barred",),
        phrases=("with a strong bar", "with a long bar", "with a prominent bar", "dominated by a long bar"),
        not_phrases=("without a strong bar",),
        words=("strong bar", "long bar"),
    ),
    "ring": Facet(
        heads=(("ring galaxy", "ring galaxies"), ("ringed galaxy", "ringed galaxies")),
        adjectives=("ringed",),
        phrases=("with a ring", "that has a ring", "surrounded by a ring", "showing a ring of stars", "with a ring around the center"),
        not_adjectives=("ringless",),
        not_phrases=("without a ring", "with no ring", "lacking a ring", "that has no ring", "without rings"),
        words=("ring", "rings", "ringed"),
    ),
    "inner_ring": Facet(phrases=("with an inner ring", "that has an inner ring"), not_phrases=("without an inner ring",), words=("inner ring",)),
    "outer_ring": Facet(
        phrases=("with an outer ring", "with a faint outer ring", "with an outer pseudo-ring"),
        not_phrases=("without an outer ring",), words=("outer ring", "pseudo-ring"),
    ),
    "arms": Facet(
        phrases=("with spiral arms", "that has spiral arms", "showing arms", "with visible arms"),
        not_adjectives=("armless",),
        not_phrases=("without spiral arms", "with no spiral arms", "that has no arms", "lacking arms"),
        words=("spiral arms", "arms"),
    ),
    "strong_arms": Facet(
        adjectives=("grand-design",),
        phrases=("with strong spiral arms", "with prominent arms", "with well-defined arms", "with bright arms"),
        not_phrases=("without strong spiral arms", "with weak arms or none"),
        words=("grand design", "strong arms", "grand-design spiral"),
    ),
    "tight": Facet(
        adjectives=("tightly wound",), phrases=("with tightly wound arms", "with tight arms"), words=("tightly wound", "tightly wound spiral"),
    ),
    "loose": Facet(
        adjectives=("loosely wound",), phrases=("with loosely wound arms", "with open arms"), words=("loosely wound", "open spiral arms"),
    ),
    "two_arms": Facet(
        adjectives=("two-armed",), phrases=("with two spiral arms", "with two arms"), not_phrases=("without exactly two arms",), words=("two arms",),
    ),
    "flocculent": Facet(
        adjectives=("flocculent", "patchy"),
        phrases=("with flocculent structure", "with patchy arms", "with a clumpy, patchy disk"),
        not_phrases=("without flocculent structure", "that is not flocculent"),
        words=("flocculent", "patchy"),
    ),
    "knots": Facet(
        adjectives=("star-forming", "clumpy"),
        phrases=("with star-forming regions", "with bright knots", "with giant H II regions", "with hot spots"),
        not_phrases=("without star-forming regions", "without bright knots"),
        words=("star formation", "starburst", "star-forming knots", "clumpy"),
    ),
    "dusty": Facet(
        adjectives=("dusty",),
        phrases=("with dust", "with visible dust", "obscured by dust", "showing dark dust"),
        not_adjectives=("dust-free", "dustless"),
        not_phrases=("without dust", "with no visible dust", "free of dust"),
        words=("dust", "dusty"),
    ),
    "dust_lane": Facet(
        phrases=("with a dust lane", "crossed by a dust lane", "with a dark lane along its disk", "split by a dark dust lane"),
        not_phrases=("without a dust lane", "with no dust lane"),
        words=("dust lane", "dark dust lane"),
    ),
    "large_bulge": Facet(
        adjectives=("bulge-dominated",),
        phrases=("with a large bulge", "with a prominent bulge", "with a dominant central bulge"),
        not_phrases=("without a large bulge", "with a small bulge or none"),
        words=("bulge", "large bulge", "bulge-dominated"),
    ),
    "bulgeless": Facet(
        adjectives=("bulgeless", "pure-disk"),
        phrases=("without a bulge", "with no bulge", "lacking a bulge"),
        not_phrases=("with a bulge", "that has a bulge"),
        words=("bulgeless", "no bulge"),
    ),
    "perturbed": Facet(
        adjectives=("asymmetric", "disturbed", "lopsided", "distorted"),
        phrases=("with a disturbed shape", "with asymmetric arms or disk", "that looks distorted", "with a lopsided disk"),
        not_adjectives=("symmetric", "undisturbed"),
        not_phrases=("with a symmetric shape", "that is undisturbed"),
        words=("asymmetric", "disturbed", "lopsided", "peculiar"),
    ),
    "merger": Facet(
        heads=(
            ("galaxy merger", "merging galaxies"), ("merger", "mergers"), ("pair of merging galaxies", "merging galaxies"),
            ("interacting galaxy", "interacting galaxies"), ("colliding galaxy", "colliding galaxies"),
        ),
        adjectives=("merging", "interacting", "colliding"),
        phrases=("in a merger", "merging with another galaxy", "in collision with a neighbor", "during an interaction", "with tidal tails"),
        not_adjectives=("isolated",),
        not_phrases=("that is not merging", "without any interaction", "not in a merger"),
        words=("merger", "merging", "mergers", "interaction", "collision", "two galaxies merging", "tidal tails"),
    ),
    "companion": Facet(
        phrases=("with a companion", "with a close neighbor", "next to another galaxy", "with a satellite galaxy nearby"),
        not_phrases=("without a companion", "with no close neighbor"),
        words=("companion", "close pair", "galaxy pair"),
    ),
    "star": Facet(
        phrases=("with a bright star in front", "contaminated by a foreground star", "next to a bright star"),
        not_phrases=("without stars in front", "free of foreground stars"),
        words=("foreground star",),
    ),
    "lens": Facet(
        heads=(("gravitational lens", "gravitational lenses"), ("lensing galaxy", "lensing galaxies"), ("strong lens", "strong lenses")),
        adjectives=("lensing",),
        phrases=("with lensed arcs", "with a blue arc around it", "acting as a gravitational lens", "with an Einstein ring"),
        not_phrases=("that is not a gravitational lens", "without lensed arcs"),
        words=("gravitational lens", "lensed arc", "Einstein ring", "strong lensing", "arcs around a galaxy"),
    ),
    "red": Facet(
        adjectives=("red", "reddish", "red-colored"),
        phrases=("with a red color", "of red color", "that is red"),
        not_phrases=("that is not red",),
        words=("red", "red galaxy", "reddish"),
    ),
    "blue": Facet(
        adjectives=("blue", "bluish", "blue-colored"),
        phrases=("with a blue color", "of blue color", "that is blue"),
        not_phrases=("that is not blue",),
        words=("blue", "blue galaxy", "bluish"),
    ),
    "bright": Facet(
        adjectives=("bright", "luminous"), phrases=("with high surface brightness", "with a bright center"), words=("bright", "bright center"),
    ),
    "faint": Facet(
        adjectives=("faint", "dim", "low-surface-brightness"),
        phrases=("with low surface brightness", "that is barely visible"),
        words=("faint", "dim", "low surface brightness"),
    ),
}  # fmt: skip
NAMES = tuple(FACETS)
INDEX = {name: number for number, name in enumerate(NAMES)}
HEADS = tuple(name for name in NAMES if FACETS[name].heads)

# Pairs that people ask for; half of the two-literal statements are drawn from these.
COMMON: tuple[Statement, ...] = (
    (("spiral", True), ("barred", True)), (("spiral", True), ("barred", False)), (("red", True), ("elliptical", True)),
    (("blue", True), ("spiral", True)), (("red", True), ("spiral", True)), (("blue", True), ("elliptical", True)),
    (("blue", True), ("irregular", True)), (("face_on", True), ("spiral", True)), (("edge_on", True), ("spiral", True)),
    (("edge_on", True), ("dust_lane", True)), (("disk", True), ("edge_on", True)), (("face_on", True), ("barred", True)),
    (("round", True), ("elliptical", True)), (("elongated", True), ("elliptical", True)), (("spiral", True), ("ring", True)),
    (("spiral", True), ("ring", False)), (("spiral", True), ("merger", False)), (("disk", True), ("arms", False)),
    (("spiral", True), ("companion", True)), (("blue", True), ("barred", False)), (("barred", True), ("ring", True)),
    (("red", True), ("edge_on", True)), (("blue", True), ("edge_on", True)), (("red", True), ("round", True)),
    (("lenticular", True), ("barred", True)), (("spiral", True), ("flocculent", True)), (("spiral", True), ("large_bulge", True)),
    (("spiral", True), ("bulgeless", True)), (("spiral", True), ("strong_arms", True)), (("smooth", True), ("round", True)),
)  # fmt: skip


UNDEFINED = {  # EFIGI writes -1 where an attribute means nothing, as the arms of an edge-on disk
    "Bulge_to_Total", "Arm_Strength", "Arm_Curvature", "Bar_Length", "Inner_Ring", "Outer_Ring", "Pseudo_Ring", "Dust_Dispersion",
}  # fmt: skip


def _number(row: dict, name: str) -> float | None:
    """Return a column as a float, None where it is empty or undefined."""
    value = row.get(name)
    if value is None:
        return None
    number = float(value)
    return None if number < 0 and name in UNDEFINED else number


def grade(value: float | None, true_from: float, false_to: float) -> int:
    """Return +1 at or above true_from, -1 at or below false_to, 0 between and where unknown."""
    if value is None:
        return 0
    return 1 if value >= true_from else -1 if value <= false_to else 0


def truth_of(row: dict) -> dict[str, int]:
    """Return the truth of every facet that the labels and measurements of one object settle."""
    truth = measured_truth(row)
    reader = {"efigi": efigi_truth, "gz1": gz1_truth, "phys449": gz2_truth, "spacewarps": lens_truth, "esahubble": esa_truth}
    truth |= {name: sign for name, sign in reader[row["set"]](row).items() if sign} if row["set"] in reader else {}
    if row["set"] != "esahubble" and row["set"] != "spacewarps":
        truth.setdefault("lens", -1)
    return {name: sign for name, sign in truth.items() if sign}


def measured_truth(row: dict) -> dict[str, int]:
    """Return what the pixels alone settle, for labeled and unlabeled pictures alike.

    0.33: below it 93 % of the training galaxies of Galaxy Zoo 1 are called edge-on; above 0.6, 2 %. Color and
    brightness are settled per view (augmentation changes them), see `view_truth`.
    """
    ratio = _number(row, "m_axis_ratio")
    if ratio is None:
        return {}
    truth = {"elongated": grade(1 - ratio, 0.55, 0.42), "round": grade(ratio, 0.82, 0.65)}
    truth["edge_on"] = 1 if ratio < 0.33 else -1 if ratio > 0.6 else 0
    truth["face_on"] = -1 if ratio < 0.5 else 0
    truth["elliptical"] = -1 if ratio < 0.3 else 0
    return truth


def view_truth(red: np.ndarray, peak: np.ndarray) -> dict[str, np.ndarray]:
    """Return color and brightness facets of views: red is log2(R/B), peak the central light in 0..1; NaN is unknown."""
    return {
        "red": np.where(red > 0.65, 1, np.where(red < 0.3, -1, 0)),
        "blue": np.where(red < -0.1, 1, np.where(red > 0.25, -1, 0)),
        "bright": np.where(peak > 0.6, 1, np.where(peak < 0.45, -1, 0)),
        "faint": np.where(peak < 0.25, 1, np.where(peak > 0.4, -1, 0)),
    }


def efigi_truth(row: dict) -> dict[str, int]:
    """Read the EFIGI attributes (0, .25, .5, .75, 1); .25 ('barely') leaves most facets unknown."""
    stage, tilt = _number(row, "T"), _number(row, "Inclination")
    if stage is None or tilt is None:
        return {}
    ratio = _number(row, "m_axis_ratio")
    elliptical = stage <= -4 or stage == 11
    truth = class_truth(stage)
    if elliptical:
        truth |= {"edge_on": -1, "face_on": 0}
    else:
        truth["edge_on"] = 1 if tilt == 1 else 1 if tilt == 0.75 and (ratio or 1) < 0.33 else -1 if tilt <= 0.5 else 0
        truth["face_on"] = 1 if tilt == 0 or (tilt == 0.25 and (ratio or 0) > 0.75) else -1 if tilt >= 0.5 else 0
    bar, arms, dust = _number(row, "Bar_Length"), _number(row, "Arm_Strength"), _number(row, "Visible_Dust")
    truth |= {"barred": grade(bar, 0.5, 0), "strong_bar": grade(bar, 0.75, 0.25)}
    truth |= {"arms": grade(arms, 0.25, 0), "strong_arms": grade(arms, 0.5, 0.1)}
    truth |= {"dusty": grade(dust, 0.5, 0), "dust_lane": grade(dust, 0.5, 0) if tilt >= 0.75 else grade(dust, 2, 0.25)}
    rings = [_number(row, name) for name in ("Inner_Ring", "Outer_Ring", "Pseudo_Ring")]
    known = [value for value in rings if value is not None]
    truth["ring"] = grade(max(known), 0.5, 0) if known and (max(known) >= 0.5 or len(known) == 3) else 0
    truth["inner_ring"] = grade(rings[0], 0.5, 0)
    outer = [value for value in rings[1:] if value is not None]
    truth["outer_ring"] = grade(max(outer), 0.5, 0) if outer else 0
    curve = _number(row, "Arm_Curvature")
    truth |= {"tight": grade(curve, 0.75, 0.25), "loose": grade(None if curve is None else 1 - curve, 0.75, 0.25)}
    bulge = _number(row, "Bulge_to_Total")
    truth |= {"large_bulge": grade(bulge, 0.75, 0.25), "bulgeless": grade(None if bulge is None else 1 - bulge, 1, 0.5)}
    truth |= {"flocculent": grade(_number(row, "Flocculence"), 0.75, 0.25), "knots": grade(_number(row, "Hot_Spots"), 0.5, 0)}
    truth |= {"perturbed": grade(_number(row, "Perturbation"), 0.5, 0), "star": grade(_number(row, "Contamination"), 0.75, 0)}
    truth["companion"] = grade(_number(row, "Multiplicity"), 0.5, 0)
    if truth["perturbed"] == -1 and truth["companion"] == -1:
        truth["merger"] = -1
    return truth


def class_truth(stage: float) -> dict[str, int]:
    """Return the class facets of an EFIGI T-type (-6 cE, -5 E, -3..-1 S0, 0 S0/a, 1 Sa ... 9 Sm, 10 Im, 11 dE)."""
    elliptical = stage <= -4 or stage == 11
    truth = {"elliptical": 1 if elliptical else 0 if stage == -3 else -1}
    truth["spiral"] = 1 if 1 <= stage <= 8 else 0 if stage in (0, 9) else -1
    truth["lenticular"] = 1 if -3 <= stage <= -1 else 0 if stage in (0, -4) else -1
    truth["irregular"] = 1 if stage == 10 else 0 if stage in (9, 11) else -1
    truth["disk"] = 1 if -2 <= stage <= 9 else 0 if stage in (-3, 10) else -1
    truth["early_type"] = 1 if stage <= 0 else 0 if stage in (1, 2, 11) else -1
    truth["late_type"] = 1 if 5 <= stage <= 9 else 0 if stage in (3, 4, 10) else -1
    truth["smooth"] = 1 if stage <= -3 or stage == 11 else -1 if 1 <= stage <= 10 else 0
    for name, center in (("sa", 1), ("sb", 3), ("sc", 5), ("sd", 7)):
        truth[name] = 1 if stage == center else -1 if abs(stage - center) >= 3 else 0
    return truth


def gz1_truth(row: dict) -> dict[str, int]:
    """Read the Galaxy Zoo 1 class, then the Galaxy Zoo 2 string where there is one."""
    ratio = _number(row, "m_axis_ratio")
    label = row["gz1_class"]
    truth = {
        "elliptical": {"elliptical": 1, "merger": 0, "dont_know": 0}.get(label, -1),
        "spiral": {"spiral_cw": 1, "spiral_acw": 1, "elliptical": -1}.get(label, 0),
        "edge_on": {"edge_on": 1, "merger": 0, "dont_know": 0}.get(label, -1),
        "merger": {"merger": 1, "dont_know": 0}.get(label, -1),
        "smooth": {"elliptical": 1, "spiral_cw": -1, "spiral_acw": -1}.get(label, 0),
        "arms": {"spiral_cw": 1, "spiral_acw": 1, "elliptical": -1}.get(label, 0),
        "disk": {"spiral_cw": 1, "spiral_acw": 1, "edge_on": 1}.get(label, 0),
        "irregular": {"elliptical": -1, "edge_on": -1, "spiral_cw": -1, "spiral_acw": -1}.get(label, 0),
    }
    if truth["merger"] == 1:
        truth |= {"companion": 1, "perturbed": 1}
    if label.startswith("spiral_"):
        truth["face_on"] = 0 if ratio is None else grade(ratio, 0.75, 0.5)
    return truth | {name: sign for name, sign in gz2_truth(row).items() if truth.get(name, 0) == 0 and sign}


def gz2_truth(row: dict) -> dict[str, int]:
    """Read a Galaxy Zoo 2 class string such as 'SBc2m(r)' (Willett et al. 2013, appendix) and the reference lists."""
    string = row.get("gz2_class")
    if not string:
        return {}
    odd = string[string.find("(") + 1] if "(" in string else ""
    flags = (row.get("gz2_flags") or "").split("|")
    truth = {"merger": 1 if odd == "m" else -1, "ring": 1 if odd == "r" or "ring" in flags else -1}
    if odd == "u":
        truth |= {"dust_lane": 1, "dusty": 1}
    if odd == "d":
        truth["perturbed"] = 1
    body = string.split("(")[0]
    if body.startswith("E"):
        shape = {"r": {"round": 1}, "c": {"elongated": 1}}.get(body[1:2], {})
        return truth | {"elliptical": 1, "smooth": 1, "spiral": -1, "arms": -1, "edge_on": -1 if body != "Ec" else 0} | shape
    truth |= {"elliptical": -1, "smooth": -1}
    if body.startswith("Se"):
        return truth | {"edge_on": 1, "face_on": -1, "disk": 1, "bulgeless": 1 if body == "Sen" else -1}
    if body.startswith("S"):
        return truth | spiral_string_truth(body)
    return truth


def spiral_string_truth(body: str) -> dict[str, int]:
    """Read the disk part of a Galaxy Zoo 2 string: B a bar, a-d the bulge, number and winding of arms if any."""
    truth = {"edge_on": -1, "disk": 1, "barred": 1 if body.startswith("SB") else -1}
    rest = body.removeprefix("SB").removeprefix("S")
    truth["large_bulge"] = {"a": 1, "c": -1, "d": -1}.get(rest[:1], 0)
    truth["bulgeless"] = {"d": 1, "a": -1, "b": -1}.get(rest[:1], 0)
    number, winding = rest[1:2], rest[2:3]
    has_arms = bool(number)
    truth |= {"spiral": 1 if has_arms else 0, "arms": 1 if has_arms else -1}
    if number in tuple("1234+"):
        truth["two_arms"] = 1 if number == "2" else -1
    truth["tight"] = {"t": 1, "l": -1}.get(winding, 0)
    truth["loose"] = {"l": 1, "t": -1}.get(winding, 0)
    return truth


def lens_truth(row: dict) -> dict[str, int]:
    """Read the Space Warps grade: 2 and above likely, 1 and below not; the rest is unknown."""
    return {"lens": grade(float(row["grade_0_3"]), 2.0, 1.0), "merger": -1, "spiral": 0}


def esa_truth(row: dict) -> dict[str, int]:
    """Read the ESA/Hubble folder where there is only one; the folders are noisy, so nothing is taken as false but its opposite."""
    label = row["classes"]
    if label == "spiral":
        return {"spiral": 1, "elliptical": -1, "disk": 1}
    if label == "elliptical":
        return {"elliptical": 1, "spiral": -1, "smooth": 1}
    return {"irregular": 1} if label == "irregular" else {}


def truth_table(rows: Iterable[dict]) -> np.ndarray:
    """Return the truth of every facet of every row, (n, len(NAMES)) int8; color and brightness stay 0."""
    rows = list(rows)
    table = np.zeros((len(rows), len(NAMES)), np.int8)
    for number, row in enumerate(rows):
        for name, sign in truth_of(row).items():
            table[number, INDEX[name]] = sign
    return table


def statement_truth(table: np.ndarray, statement: Statement) -> np.ndarray:
    """Return Kleene's conjunction of the literals for every row, (n,) int8 in -1, 0, +1."""
    columns = [table[:, INDEX[name]] * (1 if wanted else -1) for name, wanted in statement]
    return np.minimum.reduce(columns)


def can_negate(name: str) -> bool:
    """Say whether a facet has wordings for its absence."""
    facet = FACETS[name]
    return bool(facet.not_adjectives or facet.not_phrases or facet.heads)


def draw_literal(random: np.random.Generator, *, heads_only: bool = False) -> Literal:
    """Draw a facet and whether it is wanted (one in four wants it absent, where there are words for that)."""
    names = HEADS if heads_only else NAMES
    name = names[int(random.integers(len(names)))]
    return name, not (can_negate(name) and random.random() < 0.25)


def draw_statement(random: np.random.Generator) -> Statement:
    """Draw a statement of one to three literals on different facets, in canonical (facet) order."""
    kind = random.random()
    if kind < 0.45:
        return (draw_literal(random),)
    if kind < 0.70:
        return canonical(COMMON[int(random.integers(len(COMMON)))])
    count = 2 if kind < 0.92 else 3
    literals = dict([draw_literal(random, heads_only=True)])
    while len(literals) < count:
        literals |= dict([draw_literal(random)])
    return canonical(tuple(literals.items()))


def canonical(statement: Statement) -> Statement:
    """Return the literals in the order of FACETS, each once."""
    return tuple(sorted(set(statement), key=lambda literal: INDEX[literal[0]]))


FRAMES = ("{}", "{}", "{}", "{}", "a {}", "an image of a {}", "picture of a {}", "this is a {}", "a galaxy image: {}", "it is a {}")
PLURAL_FRAMES = ("{}", "{}", "show me {}", "find {}", "images of {}", "search for {}", "I am looking for {}", "list all {}", "examples of {}")
PLAIN_HEADS = (("galaxy", "galaxies"), ("galaxy", "galaxies"), ("object", "objects"), ("system", "systems"))


def choose(random: np.random.Generator, options: tuple) -> object:
    """Draw one of the options."""
    return options[int(random.integers(len(options)))]


def word(statement: Statement, random: np.random.Generator) -> str:
    """Write one sentence for a statement: a word alone, a noun phrase, or a request, in random wording."""
    if len(statement) == 1 and statement[0][1] and FACETS[statement[0][0]].words and random.random() < 0.3:
        return str(choose(random, FACETS[statement[0][0]].words))
    order = [statement[number] for number in random.permutation(len(statement))]
    candidates = [literal for literal in order if literal[1] and FACETS[literal[0]].heads]
    head_literal = candidates[0] if candidates and random.random() < 0.8 else None
    plural = random.random() < 0.4
    head = choose(random, FACETS[head_literal[0]].heads if head_literal else PLAIN_HEADS)[1 if plural else 0]
    before, after = modifiers([literal for literal in order if literal != head_literal], random)
    text = " ".join([*before, head, *join_phrases(after, plural)])
    frame = str(choose(random, PLURAL_FRAMES if plural else FRAMES)).format(text)
    frame = frame.replace(" a e", " an e").replace(" a i", " an i").replace(" a a", " an a").replace(" a o", " an o").replace(" a u", " an u")
    return ("an " + frame[2:]) if frame[:3] in ("a e", "a i", "a a", "a o", "a u") else frame


def modifiers(literals: list[Literal], random: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return adjectives to put before and phrases to put after the noun, one wording per literal."""
    before, after = [], []
    for name, wanted in literals:
        facet = FACETS[name]
        adjectives, phrases = (facet.adjectives, facet.phrases) if wanted else (facet.not_adjectives, facet.not_phrases)
        if not adjectives and not phrases:
            verb = "is" if wanted else "is not"
            phrases = tuple(f"that {verb} a {singular}" for singular, _ in facet.heads)
        use_adjective = bool(adjectives) and (not phrases or random.random() < 0.5)
        (before if use_adjective else after).append(str(choose(random, adjectives if use_adjective else phrases)))
    return before, after


def join_phrases(phrases: list[str], plural: bool) -> list[str]:
    """Join what follows the noun with 'and', with verbs that agree."""
    joined = " and ".join(phrases)
    if plural:
        joined = joined.replace("that is ", "that are ").replace("that has ", "that have ").replace("that looks ", "that look ")
    return [joined] if joined else []
