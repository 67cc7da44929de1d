"""Judge the spectrum encoder and what it must beat, on the same objects; write docs/spectra_evaluation.json.

Semi-synthetic tasks draw knowledge bases and queries from the redrock templates and the odd sky fibers, neither of
which training saw. Real tasks ask for test objects among training objects (prepare_spectra splits by object); the 40
epochs of SDSS-RM017 are test objects all. Votes are those of the three nearest, each weighing e to minus its distance
between unit vectors. Intervals are 95 % bootstrap intervals over queries.

The encoder is run by torch, to which its graph is equal within 1e-6 (spectra_to_onnx). "Transformer alone" is the mean
of tokens without line windows and head, "supervised encoder" the same network with a head that learned kinds alone.

Run `python -m export.evaluate_spectra`; `--development` judges on the training templates, other seeds and training
objects alone, which is what choices are made by. `--table` prints the table of docs/spectra.md from the file.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.fft import dct
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from export.prepare import cache_folder
from export.prepare_spectra import RM017, TEST_TEMPLATES, TRAIN_TEMPLATES, split_of
from export.spectra_models import WIDTH, Convolutions, ShippedEncoder
from export.spectra_synthetic import (
    GRID,
    KINDS,
    LINES,
    Drawn,
    draw,
    joined,
    load_templates,
    observe,
    sources,
)
from export.spectra_to_onnx import SPECTRUM_ID, SPEED_THREADS, load_encoder, speed
from export.to_onnx import SHIPPED, write_card
from export.train_align import say
from export.train_spectra import Views, embed, macro_f1, votes
from export.train_spectra_head import head_inputs
from galsearch.science.metrics import auroc, bootstrap_interval

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "docs" / "spectra_evaluation.json"
SEED = 900
KNOWN, QUERIES = 300, 150  # semi-synthetic spectra of each kind in a knowledge base, and to ask with for each S/N
SNR = {"2-30": (2.0, 30.0), "20": (20.0, 20.0), "5": (5.0, 5.0)}
NEAR, FAR = (0.0, 0.35), (0.0, 0.7)  # redshifts where H alpha is in sight, and all
RESAMPLES = 1000
K, NEIGHBORS = 3, 10
FITTED_ON = 6000  # training views that PCA and the scales of indices are fitted on
COMPONENTS, WAVES = 32, 64
THREE = {"star-forming": 0, "seyfert": 1, "liner": 1, "passive": 2, "post-starburst": 2}  # composites are left out
DISTRACTORS = 1000  # semi-synthetic quasars around the epochs of SDSS-RM017
LEAST_SNR = 5.0  # of real galaxies whose neighbors are compared

Rows = tuple[np.ndarray, np.ndarray]  # flux and ivar, each (n, p)


# ---- representations: flux and ivar to vectors (n, d) of unit length


def unit(values: np.ndarray) -> np.ndarray:
    """Return rows of unit length."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def filled(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Return flux over its median size, with straight lines across gaps and level ends, (n, p)."""
    pixels, result = np.arange(flux.shape[1]), np.zeros(flux.shape)
    for row, (values, good) in enumerate(zip(flux, ivar > 0, strict=True)):
        if good.any():
            size = max(float(np.median(np.abs(values[good]))), 1e-30)
            result[row] = np.interp(pixels, pixels[good], np.clip(values[good] / size, -5, 30))
    return result


def line_indices(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Return asinh of the widths of lines over their sides, the 4000 Å break and ten colors, NaN where not covered."""
    wavelength, columns = GRID.wavelength_angstrom, []
    flux, good = filled(flux, ivar), ivar > 0

    def mean(inside: np.ndarray) -> np.ndarray:
        number = good[:, inside].sum(axis=1)
        with np.errstate(all="ignore"):
            return np.where(number > 0.5 * inside.sum(), (flux * good)[:, inside].sum(axis=1) / number, np.nan)

    extra = {
        "caii": (3951.0,),
        "g": (4304.0,),
        "mgb": (5176.0,),
        "nad": (5892.0,),
        "mgii": (2799.0,),
        "ciii": (1908.7,),
    }
    for center in (at for group in (LINES | extra).values() for at in group):
        x = (wavelength / center - 1) * 299_792
        core, sides = mean(np.abs(x) < 500), mean((np.abs(x) > 1200) & (np.abs(x) < 4000))
        columns.append(np.arcsinh(3 * (core - sides) / (np.abs(sides) + 0.1)))
    broken = mean((wavelength > 4000) & (wavelength < 4100)), mean((wavelength > 3850) & (wavelength < 3950))
    columns.append(np.arcsinh(broken[0] / (np.abs(broken[1]) + 0.1)))
    edges = np.linspace(0, GRID.count, 13).astype(int)
    columns += [np.arcsinh(mean(np.isin(np.arange(GRID.count), np.arange(*ends)))) for ends in pairwise(edges)]
    return np.stack(columns, axis=1)


class Representations:
    """Every way of making vectors that is compared, by name; those that need it are fitted on training views."""

    def __init__(self, folder: Path) -> None:
        self.kept: dict[bytes, torch.Tensor] = {}
        self.network = load_encoder()
        views = Views(folder, "train")
        random = np.random.default_rng(SEED)
        rows = np.sort(random.choice(len(views.kind), FITTED_ON, replace=False))
        flux, ivar = (part.numpy() for part in views.of(rows, random.integers(views.flux.shape[1], size=FITTED_ON)))
        self.pca = PCA(COMPONENTS, random_state=0).fit(filled(flux, ivar))
        indices = line_indices(flux, ivar)
        self.middle, self.spread = np.nanmedian(indices, axis=0), np.nanstd(indices, axis=0) + 1e-6
        self.ways: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
            "encoder": self._head(folder / "spectra_head.pt"),
            "Transformer alone": self._transformer,
            "supervised encoder": self._head(folder / "supervised_best.pt"),
            "PCA": lambda flux, ivar: unit(self.pca.transform(filled(flux, ivar))),
            "line indices": self._indices,
            "DCT": lambda flux, ivar: unit(dct(filled(flux, ivar) - 1, norm="ortho")[:, :WAVES]),
            "1-D CNN": self._convolutions,
        }

    def __call__(self, name: str, rows: Rows) -> np.ndarray:
        """Return vectors (n, d) of flux and ivar."""
        return self.ways[name](*(np.asarray(part, np.float32) for part in rows))

    def _shared(self, flux: np.ndarray, ivar: np.ndarray) -> torch.Tensor:
        """Return the inputs of all heads, made once for each set: the heads stand on one Transformer."""
        key = hashlib.sha256(flux.tobytes() + ivar.tobytes()).digest()
        if key not in self.kept:
            self.kept[key] = head_inputs(self.network, torch.from_numpy(flux), torch.from_numpy(ivar))
        return self.kept[key]

    def _head(self, path: Path) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        network = ShippedEncoder().eval()
        network.load_state_dict(torch.load(path))

        def vectors(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return network.head(self._shared(flux, ivar)).numpy()

        return vectors

    def _transformer(self, flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            mean = self._shared(flux, ivar)[:, :WIDTH]
            return torch.nn.functional.normalize(self.network.trunk.project(mean), dim=1).numpy()

    def _convolutions(self, flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
        network = Convolutions()
        network.load_state_dict(torch.load(cache_folder() / "cnn_best.pt"))
        return embed(network, torch.from_numpy(flux), torch.from_numpy(ivar))

    def _indices(self, flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
        scaled = (line_indices(flux, ivar) - self.middle) / self.spread
        return unit(np.clip(np.nan_to_num(scaled), -4, 4))


def masked_cosine(query: Rows, known: Rows) -> np.ndarray:
    """Return the cosine (q, m) of flux over the pixels that both have: the raw spectra compared."""
    (first, seen), (second, covered) = (
        (filled(*rows) * (rows[1] > 0), (rows[1] > 0).astype(float)) for rows in (query, known)
    )
    size = np.sqrt((first**2 @ covered.T) * (seen @ (second**2).T))
    return first @ second.T / np.maximum(size, 1e-9)


# ---- statistics


def interval(statistic: Callable[[np.ndarray], float], n: int) -> list[float]:
    """Return a value and its 95 % bootstrap interval over n queries; `statistic` takes row numbers."""
    random = np.random.default_rng(SEED)
    drawn = [statistic(random.integers(0, n, n)) for _ in range(RESAMPLES)]
    return [round(float(x), 4) for x in (statistic(np.arange(n)), *np.nanquantile(drawn, [0.025, 0.975]))]


def f1(truth: np.ndarray, guess: np.ndarray) -> float:
    """Return F1 of booleans."""
    return 2 * np.sum(truth & guess) / max(np.sum(truth) + np.sum(guess), 1)


def precision(truth: np.ndarray, guess: np.ndarray) -> float:
    """Return the share of true ones among those guessed."""
    return float(np.sum(truth & guess) / max(np.sum(guess), 1))


def balanced_accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    """Return the mean share of each class that is guessed."""
    return float(np.mean([np.mean(guess[truth == one] == one) for one in np.unique(truth)]))


# ---- semi-synthetic tasks


class Synthetic:
    """Knowledge bases and queries of every kind, from templates and sky that training did not use."""

    def __init__(self, *, templates: str, sky: str) -> None:
        self.known = {z: self._draw(KNOWN, templates, sky, z=z, snr=SNR["2-30"], seed=SEED) for z in (NEAR, FAR)}
        self.query = {
            (z, name): self._draw(QUERIES, templates, sky, z=z, snr=snr, seed=SEED + 10 + number)
            for z in (NEAR, FAR)
            for number, (name, snr) in enumerate(SNR.items())
        }

    @staticmethod
    def _draw(count: int, templates: str, sky: str, *, z: tuple, snr: tuple, seed: int) -> Drawn:
        chosen = load_templates(templates)
        seed = seed + (100 if z == FAR else 0)
        return joined([draw(kind, count, templates=chosen, seed=seed, snr=snr, z=z, sky=sky) for kind in KINDS])


def balanced(kind: np.ndarray, target: str) -> np.ndarray:
    """Return rows, half of them of the target kind and half of all other kinds alike, those drawn first."""
    wanted = np.flatnonzero(kind == target)
    share = -(-len(wanted) // (len(KINDS) - 1))
    others = np.concatenate([np.flatnonzero(kind == other)[:share] for other in KINDS if other != target])
    return np.concatenate([wanted, others[: len(wanted)]])


TARGETS = {"liner": NEAR, "lens": FAR, "outlier": FAR}


def synthetic_tasks(sets: Synthetic, vectors: Callable[[Drawn], np.ndarray]) -> dict:
    """Return F1 of the three targets, precision of star-forming ones and macro-F1 of ten kinds, for each S/N.

    `vectors` gives the vectors of a set.
    """
    result: dict[str, dict] = {}
    for name in SNR:
        scores = {}
        for target, z in TARGETS.items():
            known, query = sets.known[z], sets.query[z, name]
            some, ask = balanced(known.kind, target), balanced(query.kind, target)
            similarity = vectors(query)[ask] @ vectors(known)[some].T
            guess = votes(similarity, (known.kind[some] == target).astype(int), k=K) == 1
            truth = query.kind[ask] == target
            scores[target] = interval(lambda rows, t=truth, g=guess: f1(t[rows], g[rows]), len(ask))
        known, query = sets.known[NEAR], sets.query[NEAR, name]
        scores["star-forming precision"] = _star_forming(known, query, vectors)
        for label, z in (("ten kinds", FAR), ("ten kinds, z < 0.35", NEAR)):
            known, query = sets.known[z], sets.query[z, name]
            numbers = [np.searchsorted(np.array(sorted(KINDS)), drawn.kind) for drawn in (known, query)]
            guess = votes(vectors(query) @ vectors(known).T, numbers[0], k=K)
            scores[label] = interval(lambda rows, t=numbers[1], g=guess: macro_f1(t[rows], g[rows]), len(guess))
        result[name] = scores
    return result


def _three(drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of star-forming, active and normal galaxies, as many of each, and which of the three they are."""
    rows, classes = [], []
    for number in range(3):
        kinds = [kind for kind in THREE if THREE[kind] == number]
        count = (drawn.kind == KINDS[0]).sum() // len(kinds)
        rows += [np.flatnonzero(drawn.kind == kind)[:count] for kind in kinds]
        classes += [np.full(count, number) for _ in kinds]
    return np.concatenate(rows), np.concatenate(classes)


def _star_forming(known: Drawn, query: Drawn, vectors: Callable[[Drawn], np.ndarray]) -> list[float]:
    (some, have), (ask, truth) = _three(known), _three(query)
    guess = votes(vectors(query)[ask] @ vectors(known)[some].T, have, k=K)
    return interval(lambda rows: precision(truth[rows] == 0, guess[rows] == 0), len(ask))


def forest_tasks(sets: Synthetic, vectors: Callable[[Drawn], np.ndarray]) -> dict:
    """Return the same of a random forest that learns each knowledge base from `vectors`, without neighbors."""
    result: dict[str, dict] = {name: {} for name in SNR}
    for target, z in TARGETS.items():
        known = sets.known[z]
        some = balanced(known.kind, target)
        forest = RandomForestClassifier(300, n_jobs=1, random_state=0)
        forest.fit(vectors(known)[some], known.kind[some] == target)
        for name in SNR:
            query = sets.query[z, name]
            ask = balanced(query.kind, target)
            guess, truth = forest.predict(vectors(query)[ask]), query.kind[ask] == target
            result[name][target] = interval(lambda rows, t=truth, g=guess: f1(t[rows], g[rows]), len(ask))
    some, have = _three(sets.known[NEAR])
    forest = RandomForestClassifier(300, n_jobs=1, random_state=0).fit(vectors(sets.known[NEAR])[some], have)
    for name in SNR:
        ask, truth = _three(sets.query[NEAR, name])
        guess = forest.predict(vectors(sets.query[NEAR, name])[ask])
        result[name]["star-forming precision"] = interval(
            lambda rows, t=truth, g=guess: precision(t[rows] == 0, g[rows] == 0), len(ask)
        )
    return result


# ---- real tasks


class Real:
    """Real spectra with a class, known ones and those asked with; in development both are training objects."""

    def __init__(self, folder: Path, *, development: bool) -> None:
        with np.load(folder / "spectra_real.npz") as file:
            self.columns = {key: file[key] for key in file.files}
        split = self.columns["split"].copy()
        if development:
            again = np.array([split_of("development " + str(name)) for name in self.columns["object"]])
            split = np.where(split == "train", again, "none")
        labeled = np.isin(self.columns["cls"], ["GALAXY", "QSO", "STAR"]) & (self.columns["source"] != RM017)
        labeled &= np.isfinite(self.columns["z"])
        self.known, self.query = (np.flatnonzero(labeled & (split == name)) for name in ("train", "test"))
        self.epochs = np.flatnonzero(self.columns["source"] == RM017)

    def __getitem__(self, key: str) -> np.ndarray:
        return self.columns[key]

    def rows(self, index: np.ndarray) -> Rows:
        """Return flux and ivar of some."""
        return self["flux"][index], self["ivar"][index]


def real_tasks(real: Real, similar: Callable[[Rows, Rows], np.ndarray]) -> dict:
    """Return macro-F1 of three classes, of FORS2's two, and AUROC of stars and quasars as outliers.

    `similar` gives similarities (q, m) of queries and known ones.
    """
    similarity = similar(real.rows(real.query), real.rows(real.known))
    classes = np.searchsorted(np.array(["GALAXY", "QSO", "STAR"]), real["cls"])
    have, truth = classes[real.known], classes[real.query]
    guess = votes(similarity, have, k=K)
    result: dict = {"classes": interval(lambda rows: macro_f1(truth[rows], guess[rows]), len(truth))}
    source, from_source = real["source"][real.query], real["source"][real.known]
    sure = np.flatnonzero(real["zwarning"][real.query] <= 0)
    result["classes, no redshift warning"] = interval(
        lambda rows: macro_f1(truth[sure[rows]], guess[sure[rows]]), len(sure)
    )
    result["classes by source"] = {}
    for name in np.unique(source):
        asked = np.flatnonzero(source == name)
        if len(np.unique(truth[asked])) < 2 or len(asked) < 20:
            continue
        other = np.flatnonzero(from_source != name)
        elsewhere = votes(similarity[np.ix_(asked, other)], have[other], k=K)
        result["classes by source"][str(name)] = {
            "spectra": len(asked),
            "all known": interval(lambda rows, a=asked: macro_f1(truth[a][rows], guess[a][rows]), len(asked)),
            "known from other sources": interval(
                lambda rows, a=asked, g=elsewhere: macro_f1(truth[a][rows], g[rows]), len(asked)
            ),
        }
    result |= _emission(real, similarity) | _outliers(real, similarity, truth, have)
    return result


def _emission(real: Real, similarity: np.ndarray) -> dict:
    sides = [np.isin(real["subclass"][rows], ["emission", "absorption"]) for rows in (real.query, real.known)]
    truth, have = (
        real["subclass"][rows][side] == "emission" for rows, side in zip((real.query, real.known), sides, strict=True)
    )
    guess = votes(similarity[np.ix_(*sides)], have.astype(int), k=K) == 1
    return {"FORS2 emission": interval(lambda rows: balanced_accuracy(truth[rows], guess[rows]), len(truth))}


def _outliers(real: Real, similarity: np.ndarray, truth: np.ndarray, have: np.ndarray) -> dict:
    among = np.sort(similarity[:, have == 0], axis=1)[:, -NEIGHBORS:]
    score = -among.mean(axis=1)
    source = real["source"][real.query]
    result = {"outliers": interval(lambda rows: auroc(score[rows], truth[rows] > 0) or np.nan, len(truth))}
    for name in ("StarDustAI (eBOSS plate 10000)", "GaSNet-III examples"):
        rows_of = np.flatnonzero(source == name)
        result[f"outliers, {name}"] = interval(
            lambda rows, a=rows_of: auroc(score[a[rows]], truth[a[rows]] > 0) or np.nan, len(rows_of)
        )
    return result


def noisier(rows: Rows, snr: float, sn_median: np.ndarray, *, seed: int) -> Rows:
    """Return spectra with noise added until their median S/N per SDSS pixel is `snr`; fainter ones stay."""
    random = np.random.default_rng(seed)
    factor = np.maximum(sn_median / snr, 1.0)[:, None]
    flux, ivar = rows
    with np.errstate(all="ignore"):
        sigma = np.where(ivar > 0, 1 / np.sqrt(ivar), 0)
    return flux + random.standard_normal(flux.shape) * sigma * np.sqrt(factor**2 - 1), ivar / factor**2


def one_quasar(real: Real, similar: Callable[[Rows, Rows], np.ndarray], *, templates: str, sky: str) -> list[float]:
    """Return the mean precision at ten: epochs of SDSS-RM017 at S/N 3 among semi-synthetic quasars of z 0.3 to 0.6."""
    epochs = noisier(real.rows(real.epochs), 3.0, real["sn_median"][real.epochs], seed=SEED)
    crowd = draw(
        "qso", DISTRACTORS, templates=load_templates(templates), seed=SEED + 50, snr=(3, 3), z=(0.3, 0.6), sky=sky,
        instruments=("boss",),
    )  # fmt: skip
    library = tuple(np.concatenate(parts) for parts in zip(epochs, (crowd.flux, crowd.ivar), strict=True))
    similarity = similar(epochs, library)
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBORS]
    hits = np.mean(nearest < len(real.epochs), axis=1)
    return [round(float(x), 4) for x in (hits.mean(), *bootstrap_interval(hits, seed=SEED))]


# ---- what redshift and noise change


GALAXIES = 12  # of each of five kinds at each of three redshifts

CHANGES = {  # name -> (z and S/N of the first observation, z and S/N of the second)
    "z + 0.05": (0.0, 20.0, 0.05, 20.0),
    "z + 0.2": (0.0, 20.0, 0.2, 20.0),
    "S/N 20 to 10": (0.0, 20.0, 0.0, 10.0),
    "S/N 20 to 5": (0.0, 20.0, 0.0, 5.0),
    "noise alone": (0.0, 20.0, 0.0, 20.0),
}


def neighbor_changes(sets: Synthetic, similar: Callable[[Rows, Rows], np.ndarray], *, templates: str, sky: str) -> dict:
    """Return the share of ten neighbors that two observations of a galaxy have in common, semi-synthetic galaxies.

    The library is that of the wide redshift range. "noise alone": same redshift and S/N, other noise; the other changes
    keep the noise of the observed frame.
    """
    library = sets.known[FAR]
    galaxies = np.flatnonzero(~np.isin(library.kind, ["qso", "star", "outlier"]))
    known = library.flux[galaxies], library.ivar[galaxies]
    chosen, result = load_templates(templates), {}
    for name, (z_first, snr_first, z_second, snr_second) in CHANGES.items():
        shares = []
        for number, kind in enumerate(("star-forming", "seyfert", "liner", "passive", "post-starburst")):
            for part, z in enumerate((0.1, 0.25, 0.4)):
                given = sources(kind, GALAXIES, templates=chosen, seed=SEED + 7 * number + part)
                seed = SEED + number + 10 * part
                lists = []
                for more, snr, other in ((z_first, snr_first, 0), (z_second, snr_second, name == "noise alone")):
                    seen = observe(
                        given, seed=seed + 1000 * int(other), snr=(snr, snr), z=(z + more, z + more), sky=sky,
                        instruments=("boss",), z_error=0.0,
                    )  # fmt: skip
                    order = np.argsort(-similar((seen.flux, seen.ivar), known), axis=1, kind="stable")
                    lists.append(order[:, :NEIGHBORS])
                shares += [len(set(a) & set(b)) / NEIGHBORS for a, b in zip(*lists, strict=True)]
        result[name] = [round(float(x), 4) for x in (np.mean(shares), *bootstrap_interval(shares, seed=SEED))]
    return result


def real_changes(real: Real, similar: Callable[[Rows, Rows], np.ndarray]) -> dict:
    """Return the same of real galaxies of S/N above 5 among real known galaxies: moved by 0.05 in z, and noisier.

    A galaxy at z + 0.05 shows the same rest-frame pixels with the same noise, less those that leave the instrument's
    range at the red end.
    """
    galaxies = real.known[real["cls"][real.known] == "GALAXY"]
    bright = (real["cls"][real.query] == "GALAXY") & (real["sn_median"][real.query] > LEAST_SNR)
    rows = real.query[bright]
    flux, ivar = real.rows(rows)
    steps = np.rint(np.log10((1 + real["z"][rows] + 0.05) / (1 + real["z"][rows])) / GRID.step).astype(int)
    moved = ivar.copy()
    for row, step in enumerate(steps):
        last = np.flatnonzero(ivar[row] > 0)[-1]
        moved[row, last - step + 1 :] = 0
    half = noisier((flux, ivar), 0.5, np.ones(len(rows)), seed=SEED)  # half of the S/N that each has
    known, result = real.rows(galaxies), {"galaxies": len(rows), "known": len(galaxies)}
    first = np.argsort(-similar((flux, ivar), known), axis=1, kind="stable")[:, :NEIGHBORS]
    for name, changed in (("z + 0.05", (flux, moved)), ("half the S/N", half)):
        second = np.argsort(-similar(changed, known), axis=1, kind="stable")[:, :NEIGHBORS]
        shares = [len(set(a) & set(b)) / NEIGHBORS for a, b in zip(first, second, strict=True)]
        result[name] = [round(float(x), 4) for x in (np.mean(shares), *bootstrap_interval(shares, seed=SEED))]
    return result


# ---- all together


class Similar:
    """Cosines of the vectors of queries and known spectra; those of what is known are made once."""

    def __init__(self, make: Callable[[Rows], np.ndarray]) -> None:
        self.make = make
        self.kept: dict[int, tuple[Rows, np.ndarray]] = {}

    def __call__(self, query: Rows, known: Rows) -> np.ndarray:
        """Return similarities (q, m)."""
        if id(known) not in self.kept:
            self.kept[id(known)] = known, self.make(known)
        return self.make(query) @ self.kept[id(known)][1].T


class Cached:
    """Vectors of sets that are asked for again, by identity."""

    def __init__(self, make: Callable[[Rows], np.ndarray]) -> None:
        self.make, self.kept = make, {}

    def __call__(self, drawn: Drawn) -> np.ndarray:
        """Return the vectors of a drawn set."""
        if id(drawn) not in self.kept:
            self.kept[id(drawn)] = self.make((drawn.flux, drawn.ivar))
        return self.kept[id(drawn)]


def evaluate(*, development: bool, only: str | None = None) -> dict:
    """Return all figures, by representation; of one alone where `only` names it."""
    folder = cache_folder()
    templates, sky = (TRAIN_TEMPLATES, "train") if development else (TEST_TEMPLATES, "test")
    ways, real = Representations(folder), Real(folder, development=development)
    sets, result = Synthetic(templates=templates, sky=sky), {}
    say(f"real: {len(real.known)} known, {len(real.query)} queries")
    for name in [only] if only else ways.ways:
        similar = Similar(lambda rows, name=name: ways(name, rows))
        vectors = Cached(lambda rows, name=name: ways(name, rows))
        figures: dict = {"semi-synthetic": synthetic_tasks(sets, vectors), "real": real_tasks(real, similar)}
        figures["one quasar"] = one_quasar(real, similar, templates=templates, sky=sky)
        figures["shared neighbors"] = neighbor_changes(sets, similar, templates=templates, sky=sky)
        figures["shared neighbors, real"] = real_changes(real, similar)
        result[name] = figures
        say(f"{name}: {json.dumps(figures['semi-synthetic']['2-30'])}")
        say(f"{figures['one quasar']} {figures['shared neighbors']}")
    if only:
        return {"figures": result}
    result["raw cosine"] = {
        "real": real_tasks(real, masked_cosine),
        "one quasar": one_quasar(real, masked_cosine, templates=templates, sky=sky),
        "shared neighbors, real": real_changes(real, masked_cosine),
    }
    simple = Cached(lambda rows: np.concatenate([ways("PCA", rows), ways("line indices", rows)], axis=1))
    result["random forest"] = {"semi-synthetic": forest_tasks(sets, simple)}
    result["encoder"]["real, logistic regression"] = _probe(real, lambda rows: ways("encoder", rows))
    about = {
        "templates": templates,
        "sky": sky,
        "knowledge base, of each kind": KNOWN,
        "queries, of each kind and S/N": QUERIES,
        "real known": len(real.known),
        "real queries": len(real.query),
        "spectra per second": round(speed(SHIPPED / SPECTRUM_ID / "model.onnx")),
        "threads": SPEED_THREADS,
        "sha256": json.loads((SHIPPED / SPECTRUM_ID / "card.json").read_text())["sha256"],
    }
    return {"about": about, "figures": result}


def evaluate_real() -> dict:
    """Return the file's figures with those of real tasks anew."""
    folder, stated = cache_folder(), json.loads(RESULT.read_text())
    ways, real = Representations(folder), Real(folder, development=False)
    say(f"real: {len(real.known)} known, {len(real.query)} queries")
    for name in [*ways.ways, "raw cosine"]:
        similar = masked_cosine if name == "raw cosine" else Similar(lambda rows, name=name: ways(name, rows))
        anew = {"real": real_tasks(real, similar), "shared neighbors, real": real_changes(real, similar)}
        stated["figures"][name] |= anew
    stated["figures"]["encoder"]["real, logistic regression"] = _probe(real, lambda rows: ways("encoder", rows))
    stated["about"] |= {"real known": len(real.known), "real queries": len(real.query)}
    return stated


def _probe(real: Real, vectors: Callable[[Rows], np.ndarray]) -> dict:
    """Return macro-F1 of the classes and accuracy of FORS2's two by logistic regression on the known ones."""
    known, query = (vectors(real.rows(rows)) for rows in (real.known, real.query))
    model = LogisticRegression(C=30, max_iter=2000, class_weight="balanced").fit(known, real["cls"][real.known])
    guess, truth = model.predict(query), real["cls"][real.query]
    sides = [np.isin(real["subclass"][rows], ["emission", "absorption"]) for rows in (real.known, real.query)]
    lines = LogisticRegression(C=30, max_iter=2000, class_weight="balanced")
    lines.fit(known[sides[0]], real["subclass"][real.known][sides[0]])
    kind, have = lines.predict(query[sides[1]]), real["subclass"][real.query][sides[1]]
    return {
        "classes": interval(lambda rows: macro_f1(truth[rows], guess[rows]), len(truth)),
        "FORS2 emission": interval(lambda rows: balanced_accuracy(have[rows], kind[rows]), len(have)),
    }


def table(result: dict) -> str:
    """Return the Markdown table of docs/spectra.md."""
    figures = result["figures"]
    tasks: list[tuple[str, tuple[str, ...], float | None]] = [
        ("LINER F1, S/N 2-30", ("semi-synthetic", "2-30", "liner"), 0.91),
        ("LINER F1, S/N 20", ("semi-synthetic", "20", "liner"), None),
        ("LINER F1, S/N 5", ("semi-synthetic", "5", "liner"), None),
        ("lens F1, S/N 2-30", ("semi-synthetic", "2-30", "lens"), 0.97),
        ("lens F1, S/N 20", ("semi-synthetic", "20", "lens"), None),
        ("lens F1, S/N 5", ("semi-synthetic", "5", "lens"), None),
        ("outlier F1, S/N 2-30", ("semi-synthetic", "2-30", "outlier"), 0.905),
        ("outlier F1, S/N 20", ("semi-synthetic", "20", "outlier"), None),
        ("outlier F1, S/N 5", ("semi-synthetic", "5", "outlier"), None),
        ("star-forming precision, S/N 2-30", ("semi-synthetic", "2-30", "star-forming precision"), 0.94),
        ("ten kinds macro-F1, S/N 2-30", ("semi-synthetic", "2-30", "ten kinds"), None),
        ("ten neighbors shared, z + 0.05", ("shared neighbors", "z + 0.05"), 0.7),
        ("ten neighbors shared, other noise alone", ("shared neighbors", "noise alone"), None),
        ("ten neighbors shared, S/N 20 to 5", ("shared neighbors", "S/N 20 to 5"), None),
        ("real: GALAXY/QSO/STAR macro-F1", ("real", "classes"), 0.92),
        ("real: FORS2 emission, balanced accuracy", ("real", "FORS2 emission"), 0.9),
        ("real: stars and quasars as outliers, AUROC", ("real", "outliers"), 0.95),
        ("real: SDSS-RM017 at S/N 3, precision at 10", ("one quasar",), 0.85),
        ("real: ten neighbors shared, z + 0.05", ("shared neighbors, real", "z + 0.05"), 0.7),
    ]
    names = list(figures)
    lines = ["| task | aim | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for label, path, aim in tasks:
        cells = []
        for name in names:
            value = figures[name]
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            bounds = f" ({value[1]:.3f} to {value[2]:.3f})" if value and name == "encoder" else ""
            cells.append("" if value is None else f"{value[0]:.3f}{bounds}")
        lines.append(f"| {label} | {'' if aim is None else aim} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Evaluate and write, or print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--development", action="store_true", help="judge on training templates and objects alone")
    arguments.add_argument("--table", action="store_true", help="print the table from the file that is there")
    arguments.add_argument("--only", help="judge one way, such as '1-D CNN', and put it into the file that is there")
    arguments.add_argument("--real", action="store_true", help="judge real tasks anew, the rest is as the file has it")
    options = arguments.parse_args()
    if options.table:
        print(table(json.loads(RESULT.read_text())))
        return
    torch.set_num_threads(1)
    result = evaluate_real() if options.real else evaluate(development=options.development, only=options.only)
    if options.only and not options.development:
        stated = json.loads(RESULT.read_text())
        result = stated | {"figures": stated["figures"] | result["figures"]}
    if options.development:
        print(table(result))
        return
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    folder = SHIPPED / SPECTRUM_ID
    card = json.loads((folder / "card.json").read_text())
    chosen = {key: result["figures"]["encoder"][key] for key in ("semi-synthetic", "one quasar", "shared neighbors")}
    write_card(folder, card | {"evaluation": chosen | {"real": result["figures"]["encoder"]["real"]}})


if __name__ == "__main__":
    main()
