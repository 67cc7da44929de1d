"""What is true of a galaxy: from the labels of its set and the measurement of its picture.

Each object has a truth per facet: +1 true, -1 false, 0 unknown (not labeled, or too near the border to say).
"""

from collections.abc import Iterable

import numpy as np

from export.facets import INDEX, NAMES

UNDEFINED = {  # EFIGI writes -1 where an attribute means nothing, as the arms of an edge-on disk
    "Bulge_to_Total",
    "Arm_Strength",
    "Arm_Curvature",
    "Bar_Length",
    "Inner_Ring",
    "Outer_Ring",
    "Pseudo_Ring",
    "Dust_Dispersion",
}


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
    reader = {
        "efigi": efigi_truth,
        "gz1": gz1_truth,
        "phys449": gz2_truth,
        "spacewarps": lens_truth,
        "esahubble": esa_truth,
    }
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
    if truth["edge_on"] == 1:
        truth["spiral"] = min(truth["spiral"], 0)  # a spiral by type, but who asks for spirals wants to see arms
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
    truth |= {
        "flocculent": grade(_number(row, "Flocculence"), 0.75, 0.25),
        "knots": grade(_number(row, "Hot_Spots"), 0.5, 0),
    }
    truth |= {
        "perturbed": grade(_number(row, "Perturbation"), 0.5, 0),
        "star": grade(_number(row, "Contamination"), 0.75, 0),
    }
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
        return (
            truth
            | {"elliptical": 1, "smooth": 1, "spiral": -1, "arms": -1, "edge_on": -1 if body != "Ec" else 0}
            | shape
        )
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
    """Read the ESA/Hubble folder where there is only one; they are noisy, so only the opposite class is false."""
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


GRADED = (
    *("Bulge_to_Total", "Arm_Strength", "Arm_Curvature", "Bar_Length", "Inner_Ring", "Outer_Ring", "Pseudo_Ring"),
    *("Perturbation", "Visible_Dust", "Flocculence", "Hot_Spots", "Inclination", "Multiplicity"),
)


def grades(rows: Iterable[dict]) -> np.ndarray:
    """Return EFIGI's grades of GRADED (0 to 1) and a tenth of the T-type, (n, 14) float32, NaN where there is none."""
    rows = list(rows)
    table = np.full((len(rows), len(GRADED) + 1), np.nan, np.float32)
    for number, row in enumerate(rows):
        if row["set"] == "efigi" and row["T"] is not None:
            found = [_number(row, name) for name in GRADED]
            table[number] = [np.nan if value is None else value for value in (*found, float(row["T"]) / 10)]
    return table
