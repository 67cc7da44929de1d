"""Judge words for spectra: AUROC of queries against what surveys measured; writes docs/spectra_words.json and the card.

Real tasks: test objects of `prepare_spectra`, which neither galspec-1 nor the projector saw, one spectrum an object
(the one of highest S/N), and truth by what the survey itself says: SDSS's fluxes, errors and equivalent widths of
lines, its classes, the types that Giraud et al. give for FORS2; rows "our measures" are by galsearch's own lines.
Where errors do not tell the two sides of a limit apart the spectrum is left out. Semi-synthetic tasks: redrock's
templates and the odd sky fibers, neither of which training saw. No paraphrase is a caption of training (checked), and
most use names and templates that no caption has. Intervals are 95 % bootstrap intervals over objects, of the mean over
paraphrases where there are several.

Baselines: random vectors in place of those of the text, and the mean vector of the training spectra of which the
statement is true (the prototype, which needs no words).

Run `python -m export.evaluate_spectra_words`; `--table` prints from the file that is there. `--left-out` trains a twin
of the projector without any caption that has a name of LEFT_OUT, and asks the twin with these names: names never seen.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.evaluate_spectra import NEAR, SEED
from export.prepare import cache_folder
from export.prepare_spectra import TEST_TEMPLATES, has_twin
from export.prepare_spectra_words import encoder, load, vectors
from export.spectra_synthetic import KINDS, draw, load_templates
from export.spectra_words import Statement, captions, facts, statements, truth
from export.to_onnx import SHIPPED, write_card
from export.train_spectra_words import CAPTIONS, TEXT_ID, WORDS_ID, project, train_text
from export.train_spectra_words import SEED as TRAINING_SEED
from galsearch.encode import Encoder
from galsearch.science.metrics import Ranked

RESULT = Path(__file__).resolve().parent.parent / "docs" / "spectra_words.json"
RESAMPLES = 2000
RANDOM = 200  # random vectors
EACH = 150  # semi-synthetic spectra of each kind
STRONG_OIII, HALPHA = 10.0, 3.0  # Angstrom at rest, as spectra_words has them
LEAST_SNR, SIGMA = 5.0, 2.0
AIM = 0.9
LEFT_OUT = {  # task -> names that the twin never sees, and queries with them
    "strong [O III]": (
        ("[oiii]", "[o iii] 5007", "oxygen", "5007"),
        ("strong [OIII] emission", "strong [O III] 5007", "strong oxygen emission"),
    ),
    "Hα emission": (("h alpha", "hα", "h-alpha"), ("H alpha emission", "Hα emission", "H-alpha in emission")),
    "broad lines": (("broad lines", "type 1"), ("broad lines", "type 1 AGN")),
}
DRAWN = ("kind", "outlier", "star_type")


@dataclass(frozen=True)
class Task:
    """One thing that is searched: the usual query, others that training did not have, and the statement behind it."""

    name: str
    statement: Statement
    query: str
    paraphrases: tuple[str, ...]
    denied: tuple[str, ...] = ()  # queries for what is not it; the truth is turned round
    aim: float | None = None


OIII = Task(
    "strong [O III]",
    (("oiii strong", True),),
    "strong [O III] emission",
    (
        *("remarkably strong [O III] λ5007", "very pronounced doubly ionised oxygen", "remarkably strong OIII 5008"),
        *(
            "galaxies whose [OIII] is very strong",
            "spectra dominated by the 5007 Å line",
            "high [O III] equivalent width please",
        ),
    ),
    aim=AIM,
)
HA = Task(
    "Hα emission",
    (("halpha", True),),
    "Hα emission",
    (
        *("a spectrum in which Balmer alpha emission can be seen", "H-α stands out", "Hα λ6563 in emission, please"),
        *("the H alpha line is in emission", "I want to see Halpha", "emission at 6563 Å"),
    ),
    (
        *(
            "no Hα emission",
            "Hα emission is not there",
            "a complete absence of Balmer alpha",
            "nothing of H-α to be seen",
        ),
        *("spectra that lack the H alpha line", "galaxies where Halpha does not appear"),
    ),
    aim=AIM,
)
BROAD = Task(
    "broad lines",
    (("broad", True),),
    "broad lines",
    (
        *("wide emission lines", "a broad line region", "a spectrum in which broadened Balmer lines can be seen"),
        *("broad hydrogen lines", "its permitted lines are broad", "type I AGN with broad lines"),
    ),
    (
        *("no broad lines", "wide emission lines are not there", "a complete absence of broad lines"),
        *(
            "only narrow lines, nothing broad",
            "certainly not a broad-line object",
            "nothing of a broad line region to be seen",
        ),
    ),
    aim=AIM,
)
QUASAR = Task(
    "quasar",
    (("quasar", True),),
    "quasar",
    ("looks like a QSO", "I want a quasi stellar radio source", "classified as unobscured quasar", "broadline QSO"),
    ("not a quasar", "certainly not a QSO", "rule out quasars", "everything but a type I AGN"),
)
STAR = Task(
    "star",
    (("star", True),),
    "star",
    ("looks like a star", "star in our Galaxy", "classified as star", "I want a stellar source"),
    ("not a star", "rule out stars", "certainly not a stellar spectrum"),
)
PASSIVE = Task(
    "passive galaxy",
    (("passive", True),),
    "passive galaxy",
    (
        "dead galaxy",
        "looks like a passively evolving galaxy",
        "I want a quiescent galaxy",
        "classified as inactive galaxy",
    ),
    ("not a passive galaxy", "certainly not a dead galaxy"),
)
EMISSION = Task(
    "emission lines",
    (("emission", True),),
    "emission lines",
    ("a spectrum in which emission lines can be seen", "emission features stand out", "ionised gas emission"),
    ("no emission lines", "emission lines are not there", "a complete absence of line emission", "nothing in emission"),
)
SYNTHETIC = (
    Task(
        "star-forming",
        (("star-forming", True),),
        "star-forming galaxy",
        (
            "galaxy forming stars",
            "looks like a starburst",
            "galaxy ionized by young stars",
            "classified as star forming galaxy",
        ),
        ("not star-forming", "certainly not a starburst"),
    ),
    Task(
        "Seyfert",
        (("seyfert", True),),
        "Seyfert galaxy",
        ("Seyfert nucleus", "looks like a Seyfert 2", "obscured AGN", "classified as type 2 AGN"),
        ("not a Seyfert", "rule out Seyfert galaxies"),
    ),
    Task(
        "LINER",
        (("liner", True),),
        "LINER",
        ("LINER nucleus", "looks like a LINER", "low-ionisation emission", "classified as LINER"),
        ("not a LINER", "rule out LINERs"),
    ),
    Task(
        "composite",
        (("composite", True),),
        "composite galaxy",
        (
            "AGN and starburst composite",
            "looks like a BPT composite",
            "classified as composite of AGN and star formation",
        ),
    ),
    PASSIVE,
    Task(
        "post-starburst",
        (("post-starburst", True),),
        "post-starburst galaxy",
        (
            *("galaxy after a starburst", "looks like an E+A galaxy", "a+k galaxy"),
            "quenched galaxy with hydrogen lines in absorption",
        ),
        ("not a post-starburst galaxy", "rule out E+A galaxies"),
    ),
    Task("quasar", QUASAR.statement, QUASAR.query, QUASAR.paraphrases, QUASAR.denied),
    Task("star", STAR.statement, STAR.query, STAR.paraphrases, STAR.denied),
    Task(
        "M star",
        (("M star", True),),
        "M star",
        ("looks like an M dwarf", "M-class star", "star with molecular bands", "classified as red dwarf"),
    ),
    Task(
        "white dwarf",
        (("white dwarf", True),),
        "white dwarf",
        ("degenerate dwarf", "looks like a white dwarf", "classified as WD"),
    ),
    Task(
        "double-peaked lines",
        (("double", True),),
        "double-peaked lines",
        ("lines with two peaks", "double-peaked narrow lines", "twin-peaked lines can be seen"),
    ),
    Task(
        "gravitational lens",
        (("lens", True),),
        "gravitational lens",
        ("galaxy-scale lens", "lines of a background source", "looks like a strong lens"),
    ),
)


# ---- what is true


def one_an_object(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return rows of test objects, of each the spectrum of highest S/N; one place on the sky is one object."""
    rows = np.flatnonzero(columns["split"] == "test")
    order = rows[np.argsort(-columns["sn_median"][rows], kind="stable")]
    order = order[np.sort(np.unique(columns["object"][order], return_index=True)[1])]
    ra, dec = (columns[key][order] for key in ("ra", "dec"))
    earlier = [has_twin(ra[: at + 1], dec[: at + 1], others=np.arange(at + 1) < at)[at] for at in range(1, len(order))]
    return np.sort(order[~np.array([False, *earlier])])


def line_truth(columns: dict[str, np.ndarray], line: str, least: float) -> np.ndarray:
    """Return 1 where SDSS has a line at S/N 5 and `least` Angstrom at rest, -1 where it is below by 2 sigma, else 0."""
    with np.errstate(all="ignore"):
        snr = columns[f"sdss_f_{line}"] / columns[f"sdss_e_{line}"]
        width = columns[f"sdss_ew_{line}"] / (1 + columns["z"])
        error = np.abs(width / snr)
        has = (columns[f"sdss_e_{line}"] > 0) & np.isfinite(width) & np.isfinite(error)
        there = has & (snr >= LEAST_SNR) & (width >= least)
        return np.where(there, 1, np.where(has & (width + SIGMA * error < least), -1, 0))


def class_truth(columns: dict[str, np.ndarray], yes: np.ndarray) -> np.ndarray:
    """Return 1 and -1 by the survey's class, 0 where there is none or the survey warns of the redshift."""
    known = np.isin(columns["cls"], ["GALAXY", "QSO", "STAR"]) & ~(columns["zwarning"] > 0)
    return np.where(known, np.where(yes, 1, -1), 0)


def real_truths(columns: dict[str, np.ndarray]) -> list[tuple[Task, str, np.ndarray]]:
    """Return the tasks on real spectra: each with what its truth is, and the truth of every spectrum."""
    cls, sub = columns["cls"], columns["subclass"]
    wide = (cls == "QSO") | np.array(["BROADLINE" in name for name in sub])
    sdss = columns["source"] != "FORS2 (RXJ0054-2823)"
    fors2 = np.isin(sub, ["emission", "absorption"])
    own = facts(columns)
    by_class = class_truth(columns, wide)
    return [
        (OIII, "SDSS: S/N 5, EW 10 Å", line_truth(columns, "oiii", STRONG_OIII)),
        (HA, "SDSS: S/N 5, EW 3 Å", line_truth(columns, "ha", HALPHA)),
        (BROAD, "class QSO or subclass BROADLINE", by_class),
        (BROAD, "the same, without FORS2", np.where(sdss, by_class, 0)),
        (QUASAR, "class QSO", class_truth(columns, cls == "QSO")),
        (STAR, "class STAR", class_truth(columns, cls == "STAR")),
        (PASSIVE, "FORS2: absorption, not emission", np.where(fors2, np.where(sub == "absorption", 1, -1), 0)),
        (EMISSION, "FORS2: emission, not absorption", np.where(fors2, np.where(sub == "emission", 1, -1), 0)),
        (OIII, "our measures (FORS2 and others too)", own["oiii strong"]),
        (HA, "our measures (FORS2 and others too)", own["halpha"]),
        (PASSIVE, "our measures and classes", own["passive"]),
    ]


# ---- figures


def auroc_with(scores: np.ndarray, value: np.ndarray) -> dict:
    """Return the mean AUROC over queries (q, n) with its interval, n and prevalence; `value` is 1, 0 or -1."""
    known = np.flatnonzero(value != 0)
    truths, some = value[known] == 1, scores[:, known]
    draws = np.random.default_rng(SEED).multinomial(len(known), np.full(len(known), 1 / len(known)), size=RESAMPLES)
    each = np.array([float(Ranked(row, truths).auroc()[0]) for row in some])
    spread = np.mean([Ranked(row, truths).auroc(draws) for row in some], axis=0)
    low, high = np.nanquantile(spread, [0.025, 0.975])
    figures = {"auroc": round(float(each.mean()), 4), "interval": [round(float(low), 4), round(float(high), 4)]}
    figures |= {"n": len(known), "true": int(truths.sum()), "prevalence": round(float(truths.mean()), 4)}
    return figures | ({"lowest": round(float(each.min()), 4), "queries": len(each)} if len(each) > 1 else {})


class Judge:
    """Figures of tasks on one set of spectra (n, d)."""

    def __init__(self, spectra: np.ndarray, prototypes: "Prototypes", texts: "Texts") -> None:
        self.spectra, self.prototypes, self.texts = spectra, prototypes, texts
        random = np.random.default_rng(SEED).normal(size=(RANDOM, spectra.shape[1]))
        self.random = random / np.linalg.norm(random, axis=1, keepdims=True)

    def __call__(self, task: Task, value: np.ndarray) -> dict:
        """Return the figures of one task by the truth (n,) of its statement."""
        result = {"query": task.query} | auroc_with(self._scores((task.query,)), value)
        result["paraphrases"] = auroc_with(self._scores(task.paraphrases), value)
        if task.denied:
            result["denied"] = {"query": task.denied[0]} | auroc_with(self._scores(task.denied[:1]), -value)
            result["denied paraphrases"] = auroc_with(self._scores(task.denied[1:]), -value)
        prototype = self.prototypes(task.statement)
        if prototype is not None:
            result["prototype"] = auroc_with((self.spectra @ prototype)[None], value)["auroc"]
        known = value != 0
        by_chance = [float(Ranked(self.spectra[known] @ row, value[known] == 1).auroc()[0]) for row in self.random]
        result["random vectors"] = [round(float(x), 4) for x in np.quantile(by_chance, [0.5, 0.025, 0.975])]
        return result

    def _scores(self, queries: tuple[str, ...]) -> np.ndarray:
        return self.texts(queries) @ self.spectra.T


class Texts:
    """Texts as the shipped models send them into the space of spectra: galtext-2, then the projector."""

    def __init__(self) -> None:
        self.text = Encoder.from_folder(SHIPPED / TEXT_ID, device="cpu", threads=1)
        self.words = Encoder.from_folder(SHIPPED / WORDS_ID, device="cpu", threads=1)

    def __call__(self, queries: tuple[str, ...]) -> np.ndarray:
        """Return unit vectors (q, d)."""
        return self.words.encode(list(self.text.encode(list(queries))))


class Prototypes:
    """Mean vectors of training spectra: real ones where ten are such, else semi-synthetic ones."""

    def __init__(self) -> None:
        real, drawn = load("real"), load("train")
        trained = real["split"] == "train"
        self.sets = [(real["vectors"][trained], facts({key: value[trained] for key, value in real.items()}))]
        self.sets.append((drawn["vectors"], facts(drawn)))

    def __call__(self, statement: Statement) -> np.ndarray | None:
        """Return the mean vector of the spectra of which a statement is true."""
        for spectra, known in self.sets:
            rows = truth([statement], known)[0] == 1
            if rows.sum() >= 10:
                return spectra[rows].mean(axis=0)
        return None


def synthetic_set() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return vectors (n, d) of semi-synthetic spectra that training did not see, and what they are by drawing."""
    path = cache_folder() / "spectra_words_test.npz"
    if not path.exists():
        templates = load_templates(TEST_TEMPLATES)
        parts = [draw(kind, EACH, templates=templates, seed=SEED + 7, z=NEAR, sky="test") for kind in KINDS]
        model = encoder()
        made = np.concatenate([vectors(model, part.flux, part.ivar) for part in parts])
        known = {key: np.concatenate([getattr(part, key) for part in parts]) for key in DRAWN}
        np.savez(path, vectors=made, **known)
    with np.load(path) as file:
        return file["vectors"], {key: file[key] for key in DRAWN}


def drawn_truth(task: Task, known: dict[str, np.ndarray]) -> np.ndarray:
    """Return 1 for spectra drawn as the task's kind, -1 for all others; spoiled spectra are left out."""
    kind, star = known["kind"], known["star_type"]
    fact = task.statement[0][0]
    names = {"seyfert": "seyfert", "liner": "liner", "quasar": "qso", "M star": "star", "white dwarf": "star"}
    yes = kind == names.get(fact, fact)
    if fact in ("M star", "white dwarf"):
        yes &= star == {"M star": "M", "white dwarf": "WD"}[fact]
    if fact == "double":
        yes = known["outlier"] == "double-peak"
    left_out = (kind == "outlier") & (known["outlier"] != "double-peak")
    left_out |= (known["outlier"] == "double-peak") & (fact != "double")
    if fact == "passive":
        left_out |= kind == "lens"  # a lens is an early type with lines behind it
    return np.where(left_out, 0, np.where(yes, 1, -1))


def check_held_out() -> int:
    """Raise where a paraphrase was a caption of training; return how many captions there were."""
    trained = {text.lower() for text, _ in captions(CAPTIONS, seed=TRAINING_SEED)}
    tasks = (OIII, HA, BROAD, QUASAR, STAR, PASSIVE, EMISSION, *SYNTHETIC)
    both = [text for task in tasks for text in task.paraphrases if text.lower() in trained]
    if both:
        raise SystemExit(f"training had {both}; ask with others")
    return len(trained)


def evaluate() -> dict:
    """Return all figures."""
    texts, prototypes = Texts(), Prototypes()
    real = load("real")
    rows = one_an_object(real)
    columns = {key: values[rows] for key, values in real.items()}
    judge, result = Judge(columns["vectors"], prototypes, texts), {"real": [], "semi-synthetic": []}
    for task, by, value in real_truths(columns):
        if min((value == 1).sum(), (value == -1).sum()) < 5:
            continue
        result["real"].append({"task": task.name, "truth": by, "aim": task.aim} | judge(task, value))
    spectra, known = synthetic_set()
    judge = Judge(spectra, prototypes, texts)
    for task in SYNTHETIC:
        value = drawn_truth(task, known)
        result["semi-synthetic"].append({"task": task.name, "truth": "by drawing"} | judge(task, value))
    card = json.loads((SHIPPED / WORDS_ID / "card.json").read_text())
    about = {"model": WORDS_ID, "sha256": card["sha256"], "real test objects": len(rows)}
    about |= {"captions of training": check_held_out(), "semi-synthetic of each kind": EACH}
    about |= {"templates": TEST_TEMPLATES, "sky": "test", "resamples": RESAMPLES}
    return {"about": about} | result


def left_out() -> list[dict]:
    """Return figures of a twin of the projector for names that none of its captions had, on the real tasks."""
    wanted, real = statements(), load("real")
    never = [name for names, _ in LEFT_OUT.values() for name in names]
    written = [
        (text, statement)
        for text, statement in captions(CAPTIONS, seed=TRAINING_SEED)
        if not any(name in text.lower() for name in never)
    ]
    targets = torch.from_numpy(np.load(cache_folder() / "spectra_words_directions.npy"))
    twin, rows = train_text(written, targets, wanted), one_an_object(real)
    columns, result = {key: values[rows] for key, values in real.items()}, []
    for task, by, value in real_truths(columns)[:3]:
        for query in LEFT_OUT[task.name][1]:
            scores = project(twin, [query]) @ columns["vectors"].T
            result.append({"task": task.name, "truth": by, "query": query} | auroc_with(scores, value))
    return result


def table(rows: list[dict]) -> str:
    """Return the Markdown table of one group of tasks."""
    head = ("query", "true if", "n (true)", "AUROC (95 %)", "paraphrases, lowest", "denied", "other denials, lowest")
    lines = ["| " + " | ".join((*head, "prototype", "random")) + " |", "|---" * (len(head) + 2) + "|"]
    for row in rows:
        cells = [row["query"], row["truth"], f"{row['n']} ({row['true']})", _with(row), _lowest(row["paraphrases"])]
        denied = row.get("denied")
        cells += [f"{denied['query']}: {_with(denied)}", _lowest(row["denied paraphrases"])] if denied else ["", ""]
        cells += [f"{row['prototype']:.3f}" if "prototype" in row else ""]
        cells += [f"{row['random vectors'][1]:.2f} to {row['random vectors'][2]:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _lowest(figures: dict) -> str:
    return f"{figures['auroc']:.3f}, {figures.get('lowest', figures['auroc']):.3f}"


def _with(figures: dict) -> str:
    return f"{figures['auroc']:.3f} ({figures['interval'][0]:.3f} to {figures['interval'][1]:.3f})"


def main() -> None:
    """Evaluate and write, or print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--table", action="store_true", help="print the tables from the file that is there")
    arguments.add_argument("--left-out", action="store_true", help="put figures of names never seen into the file")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.left_out:
        result = json.loads(RESULT.read_text()) | {"names never seen": left_out()}
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(json.dumps(result["names never seen"], indent=1, ensure_ascii=False))
        return
    result = json.loads(RESULT.read_text()) if options.table else evaluate()
    if not options.table:
        stated = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        result |= {key: stated[key] for key in ("names never seen",) if key in stated}
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        folder = SHIPPED / WORDS_ID
        chosen = [
            {key: row[key] for key in ("task", "query", "truth", "n", "true", "auroc", "interval")} | {"data": group}
            for group in ("real", "semi-synthetic")
            for row in result[group]
        ]
        write_card(folder, json.loads((folder / "card.json").read_text()) | {"evaluation": {"auroc": chosen}})
    print(table(result["real"]))
    print()
    print(table(result["semi-synthetic"]))


if __name__ == "__main__":
    main()
