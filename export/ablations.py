"""What captions, text and data are worth: small alignments on frozen features, many seeds, one table.

Pictures are seen by the self-supervised tower alone (tower.pt, which has read no label), once; captions of the training
galaxies are written by `galsearch.captions` from measurements of the pixels or from the sets' labels. A run learns two
heads into one space by symmetric InfoNCE with a learned, clamped scale; equal and near-equal captions of a batch are no
negatives of each other, every draw takes another of a galaxy's captions, and the heads with the best validation
retrieval are kept. Ridge regression, CCA and a Procrustes rotation between the same features are the floors.

Run `python -m export.ablations` after `prepare`, `split` and `train_image`; it writes its part of docs/evaluation.md.
`--split validation` prints the figures of that part and writes nothing.
"""

import argparse
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.evaluate import BEGIN, DOCUMENT, END, TARGETS
from export.models import DIM, ImageTower, TextTower, load_minilm, load_tokenizer, minilm_folder, tokenize
from export.prepare import cache_folder
from galsearch.captions import labels, measurements
from galsearch.language import templates
from galsearch.science import detection, images

SETS = ("efigi", "gz1")
SEEDS = 3
PICTURES = 3000  # of the training part, drawn once
VERSIONS = 2  # captions of each kind for each galaxy
STEPS, BATCH, CHECK = 400, 256, 50
TUNED_STEPS, TUNED_BATCH = (
    80,
    128,
)  # of the runs that train the last layer of MiniLM, and of the frozen ones beside them
RATE, TUNED_RATE = 1e-3, 1e-4
SCALE, SCALES = 14.0, (5.0, 50.0)
SAME = 0.98  # cosine of two captions, as MiniLM has them, from which on neither is a negative of the other's picture
SIZES = (200, 500, 1000, 2000, 3000)
PENALTY = 10.0  # of ridge and CCA, on standardized features
KEPT = 64  # directions of CCA and of Procrustes
HIDDEN = {"heads": 512, "linear": 0}  # width of the hidden layer of either head
LAST = 5  # the layer of MiniLM that is tuned
THREADS = 2


@dataclass(frozen=True)
class Setting:
    """One way to train; what differs from the first line of the table is what that line is about."""

    captioner: str = "labels"
    long: bool = False
    pictures: int = PICTURES
    versions: int = VERSIONS
    head: str = "heads"
    tuned: bool = False
    steps: int = STEPS
    batch: int = BATCH


# ---- features, once


def measure_one(path: str) -> dict:
    """Return what galsearch measures of one picture."""
    return detection.measure(images.render(images.read_picture(path)))


def chosen_rows(folder: Path) -> tuple[list[dict], np.ndarray, np.ndarray]:
    """Return rows of SETS, their splits and their places: PICTURES for training and every held-out one."""
    splits = np.array(pq.read_table(folder / "splits.parquet", columns=["split"])["split"].to_pylist())
    rows = pq.read_table(folder / "objects.parquet").to_pylist()
    ours = np.array([row["set"] in SETS for row in rows])
    train = np.random.default_rng(0).permutation(np.flatnonzero(ours & (splits == "train")))[:PICTURES]
    held = np.flatnonzero(ours & np.isin(splits, ("validation", "test")))
    places = np.concatenate([train, held])
    return [rows[place] for place in places], splits[places], places


def captions_of(rows: list[dict], measured: list[dict], captioner: str) -> list[list[tuple[str, str]]]:
    """Return VERSIONS (text, one sentence) for each row; none where there is nothing to say."""
    if captioner == "labels":
        rules, _ = labels.read_rules(None)
        says = [labels.say(row, rules) for row in rows]
    else:
        says = [{}] * len(rows)
        for name in SETS:  # shares are of one survey, as they are in an atlas of one
            which = [index for index, row in enumerate(rows) if row["set"] == name]
            numbers = {key: [measured[index].get(key) for index in which] for key in measurements.COLUMNS}
            shares = measurements.Shares({key: np.array(values, float) for key, values in numbers.items()})
            for index in which:
                says[index] = measurements.say(measured[index], shares)
    found = []
    for row, said in zip(rows, says, strict=True):
        every = [templates.write(said, object_id=row["object_id"], seed=seed) for seed in range(VERSIONS)]
        found.append([(one.text, one.summary) for one in every if one is not None])
    return found


def image_features(folder: Path, places: np.ndarray, *, size: int = 512) -> Tensor:
    """Return standardized features (n, 512) of the self-supervised tower."""
    state = torch.load(folder / "tower.pt")
    tower = ImageTower(inner=state["stages.1.first.weight"].shape[0] / state["stages.1.second.weight"].shape[0])
    tower.load_state_dict(state)
    tower.eval()
    pixels = np.load(folder / "images64.npy", mmap_mode="r")
    parts = []
    with torch.inference_mode():
        for start in range(0, len(places), size):
            batch = torch.from_numpy(pixels[places[start : start + size]])
            parts.append(tower(batch.permute(0, 3, 1, 2).float() / 255))
    features = torch.cat(parts)
    train = features[:PICTURES]
    return (features - train.mean(dim=0)) / (train.std(dim=0) + 1e-6)


class Words:
    """MiniLM in two parts: everything up to its last layer, frozen, and that layer."""

    def __init__(self) -> None:
        self.tower, self.tokenizer = load_minilm().eval(), load_tokenizer(minilm_folder() / "tokenizer.json")

    def states(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return what goes into the last layer (n, length, 384) and the mask (n, length)."""
        ids, mask = tokenize(self.tokenizer, texts)
        tower = self.tower
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            x = tower.norm(tower.words(ids) + tower.positions.weight[: ids.shape[1]] + tower.kinds.weight[0])
            for layer in tower.layers[:LAST]:
                x = layer(x, _bias(mask))
        return x.float().clone(), mask

    def pooled(self, texts: list[str], *, size: int = 128) -> Tensor:
        """Return unit vectors (n, 384) of texts, in their order."""
        order = np.argsort([len(text) for text in texts], kind="stable")
        out = torch.empty(len(texts), 384)
        for start in range(0, len(texts), size):
            some = order[start : start + size]
            states, mask = self.states([texts[index] for index in some])
            with torch.inference_mode():
                out[torch.from_numpy(some)] = pool(self.tower.layers[LAST], states, mask)
        return out


def _bias(mask: Tensor) -> Tensor:
    return ((1 - mask.float()) * -10000.0)[:, None, None, :]


def pool(layer: nn.Module, states: Tensor, mask: Tensor) -> Tensor:
    """Return the unit masked mean (n, 384) of what a layer makes of states."""
    x = layer(states, _bias(mask)).float() * mask[:, :, None]
    return functional.normalize(x.sum(dim=1) / mask.sum(dim=1, keepdim=True), dim=1)


class Bench:
    """Everything that runs share: rows, picture features, captions and their vectors, and the queries."""

    def __init__(self, folder: Path, split: str) -> None:
        self.rows, self.splits, places = chosen_rows(folder)
        self.train = int((self.splits == "train").sum())
        self.features = image_features(folder, places)
        self.text = Words()
        with ProcessPoolExecutor(THREADS, mp_context=get_context("spawn")) as pool_of:
            measured = list(pool_of.map(measure_one, [row["path"] for row in self.rows[: self.train]], chunksize=64))
        self.captions, self.vectors = {}, {}
        for captioner in ("labels", "measurements"):
            self.captions[captioner] = captions_of(self.rows[: self.train], measured, captioner)
            for long in (False, True):
                texts = [one[0 if long else 1] for each in self.captions[captioner] for one in each]
                self.vectors[captioner, long] = self.text.pooled(texts)
        self.queries = [query for target in TARGETS for query in (target.query, *target.paraphrases)]
        self.query_vectors = self.text.pooled(self.queries)
        self.judged = {name: self._judged(name) for name in ("validation", split)}

    def _judged(self, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for every target its candidates of a split, as places, and which of them are relevant."""
        found = []
        for target in TARGETS:
            values = [
                target.relevance(row) if side == split else None
                for row, side in zip(self.rows, self.splits, strict=True)
            ]
            places = np.array([index for index, value in enumerate(values) if value is not None])
            found.append((places, np.array([values[index] == 1 for index in places])))
        return found

    def score(self, pictures: Tensor, queries: Tensor, split: str) -> tuple[float, float]:
        """Return mean average precision and mean AUROC over the targets, each the mean over its queries."""
        cosine = (pictures @ queries.T).numpy()
        precisions, areas, column = [], [], 0
        for target, (places, relevant) in zip(TARGETS, self.judged[split], strict=True):
            count = 1 + len(target.paraphrases)
            each = [ranked(cosine[places, column + turn], relevant) for turn in range(count)]
            precisions.append(np.mean([one[0] for one in each]))
            areas.append(np.mean([one[1] for one in each]))
            column += count
        return float(np.mean(precisions)), float(np.mean(areas))

    def pairs(self, setting: Setting) -> list[tuple[int, list[int]]]:
        """Return the training pictures of a setting that have captions, with the places of these among the vectors."""
        found, at = [], 0
        for number, each in enumerate(self.captions[setting.captioner]):
            if each and number < setting.pictures:
                found.append((number, list(range(at, at + len(each)))[: setting.versions]))
            at += len(each)
        return found


def ranked(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Return average precision and AUROC of a ranking."""
    hits = relevant[np.argsort(-scores, kind="stable")]
    precision = (np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()
    worse = np.cumsum(~hits[::-1])[::-1][hits].mean()
    return float(precision), float(worse / (~hits).sum())


# ---- runs


def infonce(pictures: Tensor, captions: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """Return symmetric InfoNCE of matching rows; where `same` (n, n) is true off the diagonal there is no negative."""
    logits = scale * pictures @ captions.T
    own = torch.eye(len(logits), dtype=torch.bool)
    logits = logits.masked_fill(same & ~own, -1e4)
    places = torch.arange(len(logits))
    return (functional.cross_entropy(logits, places) + functional.cross_entropy(logits.T, places)) / 2


def projection(size: int, hidden: int) -> nn.Module:
    """Return a map to DIM numbers, with one hidden layer or, where that has no width, without."""
    if not hidden:
        return nn.Linear(size, DIM)
    return nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, DIM))


class Heads(nn.Module):
    """Two projections and the scale; with `tuned`, also the last layer of MiniLM."""

    def __init__(self, features: int, layer: nn.Module | None, *, hidden: int) -> None:
        super().__init__()
        self.picture, self.text = (projection(size, hidden) for size in (features, 384))
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(SCALE))))
        self.layer = layer

    def both(self, pictures: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors (n, DIM) of either."""
        return functional.normalize(self.picture(pictures), dim=1), functional.normalize(self.text(texts), dim=1)


def learned(bench: Bench, setting: Setting, seed: int, split: str) -> tuple[float, float]:
    """Train the heads of one setting; return what `Bench.score` gives for the best by validation retrieval."""
    torch.manual_seed(seed)
    random, pairs = np.random.default_rng(seed), bench.pairs(setting)
    vectors = bench.vectors[setting.captioner, setting.long]
    texts = [one[0 if setting.long else 1] for each in bench.captions[setting.captioner] for one in each]
    layer = fresh_layer(bench.text.tower) if setting.tuned else None
    model = Heads(bench.features.shape[1], layer, hidden=HIDDEN[setting.head])
    groups = [{"params": [*model.picture.parameters(), *model.text.parameters(), model.log_scale], "lr": RATE}]
    groups += [{"params": layer.parameters(), "lr": TUNED_RATE}] if layer else []
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    steps = torch.optim.lr_scheduler.OneCycleLR(optimizer, [group["lr"] for group in groups], total_steps=setting.steps)
    best, kept = -1.0, (0.0, 0.0)
    for step in range(1, setting.steps + 1):
        model.train()
        drawn = random.choice(len(pairs), min(setting.batch, len(pairs)), replace=False)
        own = [pairs[index][1][int(random.integers(len(pairs[index][1])))] for index in drawn]
        given = vectors[own]
        same = given @ given.T > SAME
        if layer is not None:
            with torch.autocast("cpu", torch.bfloat16):
                given = pool(layer, *bench.text.states([texts[index] for index in own])).float()
        pictures, captions = model.both(bench.features[[pairs[index][0] for index in drawn]], given)
        loss = infonce(pictures, captions, same, model.log_scale.exp().clamp(*SCALES))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps.step()
        if step % CHECK == 0 or step == setting.steps:
            found, queries = embedded(model, bench)
            value = bench.score(found, queries, "validation")[0]
            if value > best:
                best, kept = value, bench.score(found, queries, split)
    return kept


def fresh_layer(tower: TextTower) -> nn.Module:
    """Return a copy of the last layer of MiniLM that can be trained."""
    layer = type(tower.layers[LAST])()
    layer.load_state_dict(tower.layers[LAST].state_dict())
    return layer


def embedded(model: Heads, bench: Bench) -> tuple[Tensor, Tensor]:
    """Return the vectors of all pictures and of the queries."""
    model.eval()
    with torch.inference_mode():
        queries = bench.query_vectors
        if model.layer is not None:
            queries = pool(model.layer, *bench.text.states(bench.queries))
        return model.both(bench.features, queries)


def floor(bench: Bench, setting: Setting, seed: int, split: str) -> tuple[float, float]:
    """Fit ridge, CCA or Procrustes on nine tenths of the pairs, drawn by the seed, and score it."""
    pairs = bench.pairs(setting)
    random = np.random.default_rng(seed)
    some = random.permutation(len(pairs))[: len(pairs) * 9 // 10]
    x = bench.features[[pairs[index][0] for index in some]].numpy().astype(np.float64)
    own = [pairs[index][1][int(random.integers(len(pairs[index][1])))] for index in some]
    text = bench.vectors[setting.captioner, setting.long][own].numpy().astype(np.float64)
    middle = text.mean(axis=0)
    to_x, to_y = FLOORS[setting.head](x, text - middle)
    sides = [bench.features.numpy() @ to_x, (bench.query_vectors.numpy() - middle) @ to_y]
    pictures, queries = (functional.normalize(torch.from_numpy(side), dim=1) for side in sides)
    return bench.score(pictures, queries, split)


def ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return matrices that take x and y to one space: x is regressed on y's."""
    return np.linalg.solve(x.T @ x + PENALTY * len(x) / 100 * np.eye(x.shape[1]), x.T @ y), np.eye(y.shape[1])


def cca(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the KEPT leading canonical directions of both sides, weighted by their correlations."""
    white_x, white_y = (_whitening(side) for side in (x, y))
    u, s, v = np.linalg.svd((x @ white_x).T @ (y @ white_y) / len(x), full_matrices=False)
    return white_x @ u[:, :KEPT] * s[:KEPT], white_y @ v[:KEPT].T


def procrustes(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the KEPT principal directions of both sides, those of x turned onto those of y by a rotation."""
    first, second = (np.linalg.svd(side, full_matrices=False)[2][:KEPT].T for side in (x, y))
    parts = [side @ basis / np.linalg.norm(side @ basis, axis=0) for side, basis in ((x, first), (y, second))]
    u, _, v = np.linalg.svd(parts[0].T @ parts[1])
    scales = [np.linalg.norm(side @ basis, axis=0) for side, basis in ((x, first), (y, second))]
    return first / scales[0] @ u @ v, second / scales[1]


def _whitening(side: np.ndarray) -> np.ndarray:
    """Return the inverse root of the covariance of centered rows, with a penalty."""
    covariance = side.T @ side / len(side)
    values, basis = np.linalg.eigh(
        covariance + PENALTY / 100 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    return basis / np.sqrt(values)


FLOORS = {"ridge": ridge, "CCA": cca, "Procrustes": procrustes}


# ---- the table


def settings() -> dict[str, list[tuple[str, Setting]]]:
    """Return the tables, each a title and its lines."""
    base = Setting()
    short = replace(base, steps=TUNED_STEPS, batch=TUNED_BATCH)
    return {
        "Long captions and one sentence, of labels and of measurements": [
            (
                f"{captioner}, {'whole caption' if long else 'one sentence'}",
                replace(base, captioner=captioner, long=long),
            )
            for captioner in ("labels", "measurements")
            for long in (False, True)
        ],
        "Captions for each galaxy": [("one", replace(base, versions=1)), (f"{VERSIONS}", base)],
        "Floors: linear maps between the same features (labels, one sentence)": [
            *((name, replace(base, head=name)) for name in FLOORS),
            ("linear heads, InfoNCE", replace(base, head="linear")),
            ("heads with a hidden layer, InfoNCE", base),
        ],
        f"Frozen and tuned text (labels, one sentence, {TUNED_STEPS} steps)": [
            ("MiniLM frozen", short),
            ("its last layer tuned", replace(short, tuned=True)),
        ],
        "Training pictures (labels, one sentence)": [(f"{size:,}", replace(base, pictures=size)) for size in SIZES],
    }


def measured_lines(bench: Bench, split: str, seeds: int) -> Iterable[str]:
    """Yield the Markdown of all tables; a setting that stands in two of them is run once."""
    known: dict[Setting, np.ndarray] = {}
    for title, lines in settings().items():
        yield f"### {title}\n"
        yield "| | pairs | mean AP | spread | mean AUROC | spread |\n|---|---|---|---|---|---|"
        for name, setting in lines:
            run = floor if setting.head in FLOORS else learned
            if setting not in known:
                known[setting] = np.array([run(bench, setting, seed, split) for seed in range(seeds)])
            mean, spread = known[setting].mean(axis=0), known[setting].std(axis=0, ddof=1)
            cells = [name, f"{len(bench.pairs(setting)):,}", f"{mean[0]:.3f}", f"{spread[0]:.3f}", f"{mean[1]:.3f}"]
            print(f"{title}: {' '.join(cells)}", file=sys.stderr, flush=True)
            yield f"| {' | '.join(cells)} | {spread[1]:.3f} |"
        yield ""


def section(bench: Bench, split: str, seeds: int) -> str:
    """Return this command's part of docs/evaluation.md."""
    chance = np.mean([relevant.mean() for _, relevant in bench.judged[split]])
    sizes = ", ".join(
        f"{target.definition} {len(relevant):,} ({relevant.sum()})"
        for target, (_, relevant) in zip(TARGETS, bench.judged[split], strict=True)
    )
    head = (
        "## What captions, text and data are worth\n\nWritten by `python -m export.ablations`; not of the shipped "
        "pair, but of small alignments on frozen features of the self-supervised tower, so that one thing differs at "
        f"a time. Mean and standard deviation over {seeds} seeds (of the floors, over {seeds} draws of nine tenths "
        "of the pairs). "
        f"AP and AUROC are means over {len(TARGETS)} targets and all their wordings, on the held-out fifth at natural "
        f"prevalence; chance has a mean AP of {chance:.3f} and an AUROC of 0.5. Candidates (relevant): {sizes}. "
        "The heads kept are the best on the validation tenth. Captions from labels say in words what the targets ask, "
        "those from measurements are of pixels alone."
    )
    return "\n".join([head, "", *measured_lines(bench, split, seeds)]).strip()


def put_section(text: str, path: Path) -> None:
    """Put a text between the markers of a document, at its end where there are none."""
    old = path.read_text()
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, after = old[: old.index(BEGIN)], old[old.index(END) :]
    path.write_text(f"{before}{BEGIN}\n{text}\n{after}")


def main() -> None:
    """Run every setting and print the tables; of the test part, put them into docs/evaluation.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    text = section(Bench(cache_folder(), arguments.split), arguments.split, arguments.seeds)
    print(text)
    if arguments.split == "test":
        put_section(text, DOCUMENT)


if __name__ == "__main__":
    main()
