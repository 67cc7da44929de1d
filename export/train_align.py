"""Align pictures with statements: each picture near what is true of it, far from what is false.

The text side is here a small tower over literals (facet, wanted) instead of words, so that a step costs
the picture only; train_text.py then teaches MiniLM to put every wording of a statement where this tower puts it.
Run `python -m export.train_align --minutes 25`; reads tower.pt, writes align.pt into the cache folder.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.augment import central_light, color, degrade, geometry
from export.facets import INDEX, NAMES
from export.models import DIM, ImageEncoder, ImageTower
from export.prepare import cache_folder
from export.sentences import Statement, draw_statement, statement_truth
from export.truth import truth_table, view_truth

SEED = 2
THREADS = 2
BATCH = 256
STATEMENTS = 192  # a step; the tower over literals costs nothing, more statements only smooth the gradient
RATE, SLOW = 1.5e-3, 0.5  # AdamW peak for the heads; the pre-trained tower moves at half of it
SCALE = 12.0  # of the cosine, fixed: sentences and pictures then share one sense of "near"
LABELED = 0.75  # share of a batch from sets with labels; the rest knows only what its pixels say
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


def validate(encoder: ImageEncoder, tower: StatementTower, pixels: np.ndarray, table: np.ndarray) -> str:
    """Return the average precision of WATCHED on the validation tenth, against its prevalence, as one line."""
    encoder.eval()
    with torch.inference_mode():
        pictures = encoder(torch.from_numpy(pixels)).numpy()
        vectors = tower(literal_numbers(list(WATCHED))).numpy()
    parts = []
    for statement, vector in zip(WATCHED, vectors, strict=True):
        truth = statement_truth(table, statement)
        known = truth != 0
        name = "+".join(("" if wanted else "no ") + name for name, wanted in statement)
        precision = average_precision((pictures @ vector)[known], truth[known] > 0)
        parts.append(f"{name} {precision:.2f} ({(truth[known] > 0).mean():.2f})")
    return ", ".join(parts)


class Pictures:
    """The pictures of one split and what is known of them."""

    def __init__(self, folder: Path, split: str, *, file: str) -> None:
        splits = pq.read_table(folder / "splits.parquet", columns=["split"])["split"].to_pylist()
        rows = pq.read_table(folder / "objects.parquet").to_pylist()
        self.places = np.flatnonzero(np.array(splits) == split)
        rows = [rows[place] for place in self.places]
        self.pixels = np.load(folder / file, mmap_mode="r")
        self.table = truth_table(rows)
        self.red = np.array([row["m_red"] for row in rows], dtype=np.float32)
        self.weights = draw_weights(self.table, np.array([row["set"] for row in rows]))

    def draw(self, random: np.random.Generator) -> tuple[Tensor, np.ndarray]:
        """Return a batch of augmented views (BATCH, 3, s, s) and their truth table."""
        chosen = np.sort(random.choice(len(self.places), BATCH, replace=False, p=self.weights))
        batch = torch.from_numpy(self.pixels[self.places[chosen]])
        clean, warmer = color(geometry(batch.permute(0, 3, 1, 2).float() / 255))
        facts = view_facts(self.table[chosen], self.red[chosen], warmer, central_light(clean))
        return degrade(clean).contiguous(memory_format=torch.channels_last), facts


def begin(folder: Path, *, resume: bool) -> tuple[ImageEncoder, StatementTower]:
    """Return both towers as align.pt has them, or fresh ones around the self-supervised tower.pt."""
    encoder, statement_tower = ImageEncoder(ImageTower()), StatementTower()
    if resume:
        saved = torch.load(folder / "align.pt")
        encoder.load_state_dict(saved["encoder"])
        statement_tower.load_state_dict(saved["statements"])
    else:
        encoder.tower.load_state_dict(torch.load(folder / "tower.pt"))
    return encoder.to(memory_format=torch.channels_last), statement_tower


def save(folder: Path, encoder: ImageEncoder, statement_tower: StatementTower) -> None:
    """Write align.pt."""
    torch.save({"encoder": encoder.state_dict(), "statements": statement_tower.state_dict()}, folder / "align.pt")


def say(text: str) -> None:
    """Print to stderr at once."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Train for a given number of minutes with a linear decay to zero."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=25)
    arguments.add_argument("--resume", action="store_true", help="start from align.pt instead of tower.pt")
    options = arguments.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    folder = cache_folder()
    train, held = (Pictures(folder, "train", file="images96.npy"), Pictures(folder, "validation", file="images64.npy"))
    held_pixels = held.pixels[held.places]
    encoder, statement_tower = begin(folder, resume=options.resume)
    heads = [*encoder.project.parameters(), *statement_tower.parameters()]
    groups = [{"params": heads, "peak": RATE}, {"params": encoder.tower.parameters(), "peak": RATE * SLOW}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=0.02, betas=(0.9, 0.98))
    smooth = torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    average = torch.optim.swa_utils.AveragedModel(encoder, multi_avg_fn=smooth, use_buffers=True)

    start, losses, step = time.time(), [], 0
    while (done := (time.time() - start) / 60 / options.minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(1.0, (step + 1) / 100) * (1 - done)
        views, facts = train.draw(random)
        statements = list({draw_statement(random) for _ in range(STATEMENTS)})
        truth = truth_matrix(facts, statements)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = encoder.embed(views)
        logits = SCALE * embeddings @ statement_tower(literal_numbers(statements)).T
        loss = rank_loss(logits, truth) + rank_loss(logits.T, truth.T)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*encoder.parameters(), *statement_tower.parameters()], 1.0)
        optimizer.step()
        average.update_parameters(encoder)
        losses.append(float(loss.detach()))
        if step % 50 == 0:
            rate = (step + 1) * BATCH / (time.time() - start)
            say(f"step {step} loss {np.mean(losses[-50:]):.3f} {rate:.0f} views/s {done:.0%}")
        step += 1
        if step % 400 == 0:
            save(folder, average.module, statement_tower)
            say(validate(average.module, statement_tower, held_pixels, held.table))
    save(folder, average.module, statement_tower)
    say(validate(average.module, statement_tower, held_pixels, held.table))


if __name__ == "__main__":
    main()
