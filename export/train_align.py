"""Align pictures with statements: each picture near what is true of it, far from what is false.

The text side is here a small tower over literals (facet, wanted) instead of words, so that a step costs
the picture only; train_text.py then teaches MiniLM to put every wording of a statement where this tower puts it.
The loss is InfoNCE both ways, every picture with all statements that are true of it: whatever is true of a picture, or
not known of it, is no negative, so near-identical statements never push each other away. Some columns are asked within
one survey, or among the pictures of which the rest of the statement is true (bars among spirals), so that neither the
survey nor the easy half of a statement is enough. A head that is thrown away afterwards reads EFIGI's grades.

Run `python -m export.train_align --minutes 25`; reads tower.pt and what synthetic.py wrote, writes align.pt (the best
by validation retrieval) and its run card into the cache folder.
"""

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.augment import central_light, color, degrade, geometry
from export.facets import INDEX, NAMES
from export.lenses import is_host
from export.models import DIM, INNER, ImageEncoder, ImageTower, narrowed
from export.prepare import cache_folder
from export.sentences import Statement, draw_statement, statement_truth
from export.truth import grades, truth_table, view_truth

SEED = 2
THREADS = 2
BATCH, ARCS, PAIRS = 256, 20, 10  # pictures a step; of them semi-synthetic lenses, as many hosts as they are, and pairs
STATEMENTS = 192  # a step; the tower over literals costs nothing, more statements only smooth the gradient
RATE, SLOW = 1.5e-3, 0.5  # AdamW peak for the heads; the pre-trained tower moves at half of it
SCALE = 12.0  # of the cosine when training begins; learned
SCALES = (8.0, 32.0)  # and clamped: beyond, single labels that are wrong weigh too much
GRADED = 0.5  # weight of the loss on EFIGI's grades
CONTEXT = 0.5  # share of the statements that are asked within one survey or among what else fits
SURVEYS = ("efigi", "gz1", "spacewarps")
CHECK, PATIENCE = 100, 8  # steps between looks at the validation tenth; looks without a gain before the end
FINE = ("barred", "strong_bar", "ring", "inner_ring", "two_arms", "tight", "loose", "flocculent", "lens", "dust_lane")
FINE_PX = 24.0  # a view that had fewer pixels across shows nothing of FINE
HIDDEN = (  # what arcs may change, so that a host's label is not the lens's
    *("merger", "companion", "ring", "inner_ring", "outer_ring", "round", "elongated", "smooth", "arms", "perturbed"),
    *("star", "irregular", "knots", "blue", "red"),
)
LABELED = 0.85  # share of a batch from sets with labels; the rest knows only what its pixels say
RARE = 3.0  # weight of a picture of a rare kind (merger, ring, lens, irregular, barred) in the draw


class StatementTower(nn.Module):
    """Statements to unit vectors: the literals' vectors and their pairwise products, summed, through an MLP."""

    def __init__(self, hidden: int = 256) -> None:
        super().__init__()
        self.literals = nn.Embedding(2 * len(NAMES) + 1, hidden, padding_idx=2 * len(NAMES))
        self.mix = nn.Sequential(nn.Linear(2 * hidden, 512), nn.GELU(), nn.Linear(512, DIM))

    def forward(self, literals: Tensor) -> Tensor:
        """Take int64 (n, 3) literal numbers (padded), return unit (n, DIM)."""
        vectors = self.literals(literals)
        total = vectors.sum(dim=1)
        pairs = (total**2 - (vectors**2).sum(dim=1)) / 2
        return functional.normalize(self.mix(torch.cat([total, pairs], dim=1)), dim=1)


def literal_numbers(statements: list[Statement]) -> Tensor:
    """Return (n, 3) int64: 2 * facet + (1 if wanted), padded with the last number."""
    table = torch.full((len(statements), 3), 2 * len(NAMES), dtype=torch.int64)
    for row, statement in enumerate(statements):
        for column, (name, wanted) in enumerate(statement):
            table[row, column] = 2 * INDEX[name] + int(wanted)
    return table


def truth_matrix(table: np.ndarray, statements: list[Statement]) -> Tensor:
    """Return (n pictures, n statements) float32 of -1, 0, +1."""
    columns = [statement_truth(table, statement) for statement in statements]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))


def rank_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over true (row, column) pairs of -log of its share against all false ones of that column.

    Columns are weighted alike however many true pairs they have; call with transposed arguments for the other way.
    """
    false = torch.logsumexp(logits.masked_fill(truth >= 0, -1e4), dim=0, keepdim=True)
    surprise = functional.softplus(false - logits)
    true = (truth > 0) & (false > -1e3)
    per_column = (surprise * true).sum(dim=0) / true.sum(dim=0).clamp(min=1)
    return per_column[true.any(dim=0)].mean()


def draw_weights(table: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Return the probability of each training picture to be drawn, (n,)."""
    unlabeled = sets == "galaxy10"
    rare = np.zeros(len(table), bool)
    for name in ("merger", "ring", "lens", "irregular", "barred", "dust_lane", "companion"):
        rare |= table[:, INDEX[name]] > 0
    weight = np.where(rare, RARE, 1.0)
    if unlabeled.any():
        weight[unlabeled] *= (1 - LABELED) / weight[unlabeled].sum()
        weight[~unlabeled] *= LABELED / weight[~unlabeled].sum()
    return weight / weight.sum()


def view_facts(table: np.ndarray, red: np.ndarray, warmer: Tensor, peak: Tensor) -> np.ndarray:
    """Return the truth table of augmented views: labels, plus color and brightness as this view shows them."""
    facts = table.copy()
    for name, values in view_truth(red + warmer.numpy(), peak.numpy()).items():
        facts[:, INDEX[name]] = np.where(np.isnan(red), 0, values)
    return facts


WATCHED: tuple[Statement, ...] = (
    (("spiral", True),),
    (("elliptical", True),),
    (("edge_on", True),),
    (("face_on", True),),
    (("ring", True),),
    (("merger", True),),
    (("spiral", True), ("barred", True)),
    (("spiral", True), ("barred", False)),
    (("irregular", True),),
    (("dust_lane", True),),
    (("lens", True),),
)


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Return the mean over relevant rows of the precision at their rank."""
    hits = relevant[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def asked_among(statement: Statement, table: np.ndarray) -> np.ndarray:
    """Return the truth of a statement's last literal where the others hold, 0 elsewhere, (n,)."""
    truth = statement_truth(table, statement)
    if len(statement) > 1:
        truth = np.where(statement_truth(table, statement[:-1]) > 0, truth, 0)
    return truth


class Judge:
    """Retrieval on the validation tenth: the average precision of WATCHED and of semi-synthetic lenses."""

    def __init__(self, folder: Path) -> None:
        held = Pictures(folder, "validation", file="images64.npy", synthetic=False)
        self.pixels, self.table, self.sets = np.array(held.pixels[held.places]), held.table, held.sets
        self.arcs = np.load(folder / "held_arcs64.npy")

    def __call__(self, encoder: ImageEncoder, tower: StatementTower) -> dict[str, float]:
        """Return the average precision of each, and "mean"; as train_text calls it with any function for `tower`."""
        encoder.eval()
        with torch.inference_mode():
            pictures = torch.cat([encoder(torch.from_numpy(part)) for part in (self.pixels, self.arcs)]).numpy()
            vectors = tower(literal_numbers(list(WATCHED))).numpy()
        return self.of(pictures, dict(zip(WATCHED, vectors, strict=True)))

    def of(self, pictures: np.ndarray, vectors: dict[Statement, np.ndarray]) -> dict[str, float]:
        """Return the same for vectors of the pictures, then of the arcs, and of the statements."""
        known, arcs = pictures[: len(self.table)], pictures[len(self.table) :]
        found = {}
        for statement, vector in vectors.items():
            truth = asked_among(statement, self.table)
            name = "+".join(("" if wanted else "no ") + name for name, wanted in statement)
            found[name] = average_precision((known @ vector)[truth != 0], truth[truth != 0] > 0)
        survey = np.isin(self.sets, ("efigi", "gz1", "phys449"))
        scores = np.concatenate([known[survey], arcs]) @ vectors[(("lens", True),)]
        found["arcs"] = average_precision(scores, np.arange(len(scores)) >= survey.sum())
        return found | {"mean": float(np.mean(list(found.values())))}


class Pictures:
    """The pictures of one split and what is known of them; of the training split, also what was drawn into them."""

    def __init__(self, folder: Path, split: str, *, file: str, synthetic: bool) -> None:
        splits = pq.read_table(folder / "splits.parquet", columns=["split"])["split"].to_pylist()
        every = pq.read_table(folder / "objects.parquet").to_pylist()
        self.places = np.flatnonzero(np.array(splits) == split)
        rows = [every[place] for place in self.places]
        self.pixels = np.load(folder / file, mmap_mode="r")
        self.table, self.grades = truth_table(rows), grades(rows)
        self.red = np.array([row["m_red"] for row in rows], dtype=np.float32)
        self.sets = np.array([row["set"] for row in rows])
        self.weights = draw_weights(self.table, self.sets)
        if synthetic:
            self._add_synthetic(folder, rows)

    def _add_synthetic(self, folder: Path, rows: list[dict]) -> None:
        """Read the semi-synthetic pictures and say what is true of them."""
        drawn = pq.read_table(folder / "synthetic.parquet", columns=["kind", "of"]).to_pylist()
        self.drawn = np.load(folder / "synthetic96.npy", mmap_mode="r")
        number = {place: index for index, place in enumerate(self.places.tolist())}
        self.hosts = np.array([number[row["of"]] for row in drawn])
        self.is_arc = np.array([row["kind"] == "lens" for row in drawn])
        assert all(is_host(rows[host]) for host in np.unique(self.hosts[self.is_arc]))
        self.drawn_table = np.zeros((len(drawn), len(NAMES)), np.int8)
        self.drawn_table[self.is_arc] = self.table[self.hosts[self.is_arc]]
        self.drawn_table[:, [INDEX[name] for name in HIDDEN]] = 0
        self.drawn_table[:, INDEX["lens"]] = np.where(self.is_arc, 1, -1)
        for name in ("merger", "companion"):
            self.drawn_table[~self.is_arc, INDEX[name]] = 1

    def draw(self, random: np.random.Generator) -> tuple[Tensor, np.ndarray, np.ndarray, Tensor]:
        """Return augmented views (BATCH, 3, s, s), their truth table, their sets and their grades."""
        arcs = random.choice(np.flatnonzero(self.is_arc), ARCS, replace=False)
        pairs = random.choice(np.flatnonzero(~self.is_arc), PAIRS, replace=False)
        made = np.sort(np.concatenate([arcs, pairs]))
        real = random.choice(len(self.places), BATCH - 2 * ARCS - PAIRS, replace=False, p=self.weights)
        real = np.sort(np.concatenate([real, self.hosts[arcs]]))
        order = random.permutation(BATCH)  # degrade() goes by groups, and no group may be all arcs
        pixels = np.concatenate([self.pixels[self.places[real]], self.drawn[made]])[order]
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        table = np.concatenate([self.table[real], self.drawn_table[made]])[order]
        red = np.concatenate([self.red[real], np.full(len(made), np.nan, np.float32)])[order]
        sets = np.concatenate([self.sets[real], np.full(len(made), "gz1", self.sets.dtype)])[order]
        marks = np.concatenate([self.grades[real], np.full((len(made), self.grades.shape[1]), np.nan, np.float32)])
        clean, warmer = color(geometry(batch))
        views, across = degrade(clean)
        facts = view_facts(table, red, warmer, central_light(clean))
        facts[np.ix_(across.numpy() < FINE_PX, [INDEX[name] for name in FINE])] = 0
        return views.contiguous(memory_format=torch.channels_last), facts, sets, torch.from_numpy(marks[order])


def in_context(
    truth: np.ndarray, facts: np.ndarray, sets: np.ndarray, statements: list[Statement], random: np.random.Generator
) -> np.ndarray:
    """Return truth (n, m) with some columns asked among fewer pictures, the others being unknown there.

    Half of the columns of one literal are asked within one survey; half of the others, about one of their literals
    among the pictures of which the rest is true.
    """
    truth = truth.copy()
    for column, statement in enumerate(statements):
        if random.random() >= CONTEXT:
            continue
        if len(statement) == 1:
            truth[sets != SURVEYS[int(random.integers(len(SURVEYS)))], column] = 0
        else:
            spot = int(random.integers(len(statement)))
            rest = statement[:spot] + statement[spot + 1 :]
            truth[statement_truth(facts, rest) <= 0, column] = 0
    return truth


def grade_loss(guessed: Tensor, marks: Tensor) -> Tensor:
    """Return the mean squared error over the grades that are known."""
    known = ~torch.isnan(marks)
    return ((guessed - torch.nan_to_num(marks)) ** 2)[known].mean() if known.any() else guessed.sum() * 0


def begin(folder: Path, *, resume: bool) -> tuple[ImageEncoder, StatementTower]:
    """Return both towers as align.pt has them, or fresh ones around the self-supervised tower.pt.

    A tower that was trained with all channels is narrowed first.
    """
    encoder, statement_tower = ImageEncoder(ImageTower()), StatementTower()
    if resume:
        saved = torch.load(folder / "align.pt")
        state, statements = saved["encoder"], saved["statements"]
        statement_tower.load_state_dict(statements)
        encoder.project.load_state_dict({k.removeprefix("project."): v for k, v in state.items() if "project." in k})
        state = {k.removeprefix("tower."): v for k, v in state.items() if k.startswith("tower.")}
    else:
        state = torch.load(folder / "tower.pt")
    if state["stages.1.first.weight"].shape != encoder.tower.stages[1].first.weight.shape:
        wide = ImageTower(inner=1.0)
        wide.load_state_dict(state)
        encoder.tower = narrowed(wide)
    else:
        encoder.tower.load_state_dict(state)
    return encoder.to(memory_format=torch.channels_last), statement_tower


def save(folder: Path, encoder: ImageEncoder, statement_tower: StatementTower, *, scale: float) -> None:
    """Write align.pt."""
    saved = {"encoder": encoder.state_dict(), "statements": statement_tower.state_dict(), "scale": scale}
    torch.save(saved, folder / "align.pt")


def write_run_card(folder: Path, name: str, card: dict) -> None:
    """Write runs/NAME-TIME.json: settings, seed, data, curve and what was kept, one file a run."""
    made = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    (folder / "runs").mkdir(exist_ok=True)
    text = json.dumps({"run": name, "ended": made, "torch": torch.__version__} | card, indent=1)
    (folder / "runs" / f"{name}-{made}.json").write_text(text + "\n")


def say(text: str) -> None:
    """Print to stderr at once."""
    print(text, file=sys.stderr, flush=True)


def settings(module: dict) -> dict:
    """Return the numbers and words in capitals of a module, as a run card has them."""
    return {name: value for name, value in module.items() if name.isupper() and isinstance(value, int | float | tuple)}


class Clock:
    """Minutes of training: wall time without the gaps in which the process was suspended."""

    def __init__(self) -> None:
        self.last, self.seconds = time.monotonic(), 0.0

    def __call__(self) -> float:
        """Return the minutes since the start; a gap of more than 20 s between two calls counts as none."""
        now = time.monotonic()
        self.seconds += now - self.last if now - self.last < 20 else 0
        self.last = now
        return self.seconds / 60


class Aligning:
    """Everything that a step changes: both towers, the scale, the head of the grades, their optimizer and average."""

    def __init__(self, encoder: ImageEncoder, statements: StatementTower, *, graded: int) -> None:
        self.encoder, self.statements = encoder, statements
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(SCALE))))
        self.marks = nn.Linear(encoder.tower.features, graded)
        heads = [*encoder.project.parameters(), *statements.parameters(), *self.marks.parameters(), self.log_scale]
        groups = [{"params": heads, "peak": RATE}, {"params": encoder.tower.parameters(), "peak": RATE * SLOW}]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=0.02, betas=(0.9, 0.98))
        smooth = torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
        self.average = torch.optim.swa_utils.AveragedModel(encoder, multi_avg_fn=smooth, use_buffers=True)

    def step(self, train: "Pictures", random: np.random.Generator, *, rate: float) -> float:
        """Draw a batch, move everything at a share of its peak rate, and return the loss."""
        self.encoder.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        views, facts, sets, marks = train.draw(random)
        statements = list({draw_statement(random) for _ in range(STATEMENTS)})
        truth = truth_matrix(facts, statements)
        asked = torch.from_numpy(in_context(truth.numpy(), facts, sets, statements, random))
        with torch.autocast("cpu", torch.bfloat16):
            features = self.encoder.tower(views)
            embeddings = self.encoder.project(features)
            guessed = self.marks(features)
        embeddings = functional.normalize(embeddings.float(), dim=1)
        logits = self.scale() * embeddings @ self.statements(literal_numbers(statements)).T
        loss = rank_loss(logits, asked) + rank_loss(logits.T, truth.T)
        total = loss + GRADED * grade_loss(guessed.float(), marks)
        self.optimizer.zero_grad()
        total.backward()
        weights = [*self.encoder.parameters(), *self.statements.parameters()]
        nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.encoder)
        return float(loss.detach())

    def scale(self) -> Tensor:
        """Return the learned scale of the cosine, within its bounds."""
        return self.log_scale.exp().clamp(*SCALES)


def train_on(aligning: Aligning, train: "Pictures", judge: Judge, folder: Path, *, minutes: float) -> dict:
    """Train with a linear decay to zero, keep the best by validation retrieval, return the curve for the run card."""
    random, clock, losses, curve, best, kept = np.random.default_rng(SEED), Clock(), [], [], -1.0, 0
    while (done := clock() / minutes) < 1:
        step = len(losses)
        losses.append(aligning.step(train, random, rate=min(1.0, (step + 1) / 100) * (1 - done)))
        if (step + 1) % CHECK and done < 0.999:
            continue
        found = judge(aligning.average.module, aligning.statements)
        rate, scale = len(losses) * BATCH / clock.seconds, float(aligning.scale().detach())
        curve.append({"step": step + 1, "loss": float(np.mean(losses[-CHECK:])), "scale": scale, **found})
        parts = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        say(f"step {step + 1} loss {curve[-1]['loss']:.3f} scale {scale:.1f} {rate:.0f} views/s {done:.0%}: {parts}")
        if found["mean"] > best:
            best, kept = found["mean"], step + 1
            save(folder, aligning.average.module, aligning.statements, scale=scale)
        elif len(curve) > PATIENCE and best not in [look["mean"] for look in curve[-PATIENCE:]]:
            break
    return {"steps": len(losses), "seconds": round(clock.seconds), "kept_step": kept, "curve": curve}


def main() -> None:
    """Train for a given number of minutes, or until validation retrieval gains nothing more."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--minutes", type=float, default=25)
    arguments.add_argument("--resume", action="store_true", help="start from align.pt instead of tower.pt")
    options = arguments.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    folder = cache_folder()
    train = Pictures(folder, "train", file="images96.npy", synthetic=True)
    judge = Judge(folder)
    aligning = Aligning(*begin(folder, resume=options.resume), graded=train.grades.shape[1])
    before = judge(aligning.encoder, aligning.statements)
    say(", ".join(f"{name} {value:.3f}" for name, value in before.items()))
    card = train_on(aligning, train, judge, folder, minutes=options.minutes)
    data = {"pictures": len(train.places), "arcs": int(train.is_arc.sum()), "pairs": int((~train.is_arc).sum())}
    card = {"settings": settings(globals()) | {"INNER": INNER}, "data": data, "before": before} | card
    write_run_card(folder, "align", card | {"resumed": options.resume})


if __name__ == "__main__":
    main()
