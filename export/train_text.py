"""Teach MiniLM the sentences: every wording goes where the statement tower puts its statement, and ranks pictures so.

The picture side stays as train_align.py left it. Word embeddings are frozen and the rate is low, so that
words no template uses keep their neighbors. Sentences that are true of no galaxy go to the null direction: the unit
vector whose largest cosine with a training picture is least. The best by validation retrieval is kept.
Run `python -m export.train_text --minutes 15`; reads align.pt, writes text.pt and its run card into the cache folder.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.foils import draw_foil
from export.models import ImageEncoder, TextEncoder, load_minilm, load_tokenizer, minilm_folder, tokenize
from export.prepare import cache_folder
from export.sentences import Statement, can_negate, draw_statement, word
from export.train_align import (
    SCALE,
    WATCHED,
    Clock,
    Judge,
    Pictures,
    StatementTower,
    begin,
    in_context,
    literal_numbers,
    rank_loss,
    say,
    settings,
    truth_matrix,
    view_facts,
    write_run_card,
)

SEED = 3
THREADS = 2
STATEMENTS = 48  # a step, each in WORDINGS sentences: paraphrases meet in one batch
WORDINGS = 2
FOILS = 12  # sentences a step that are true of no galaxy
PICTURES = 512  # a step, embedded once beforehand
RATE_HEAD, RATE_TOWER = 1e-3, 1e-4  # MiniLM moves ten times slower than its new projector
CONTRAST = 20.0  # scale of the cosine between sentences and statements
PAIRS = 0.3  # share of a batch that is a statement together with its opposite ("with a bar", "without a bar")
CHECK, WATCHED_WORDINGS = 100, 6  # steps between looks at the validation tenth, and sentences for each statement there
NULL_SCALE, NULL_STEPS = 30.0, 300  # how sharply the largest cosine counts, and steps of descent to the null direction


def embed_pictures(encoder: ImageEncoder, pixels: np.ndarray) -> Tensor:
    """Return unit vectors (n, DIM) of uint8 (n, s, s, 3)."""
    encoder.eval()
    with torch.inference_mode():
        parts = [encoder(torch.from_numpy(pixels[start : start + 512])) for start in range(0, len(pixels), 512)]
    return torch.cat(parts).clone()


def picture_facts(folder: Path, train: Pictures) -> np.ndarray:
    """Return the truth table of the pictures as they are, color and brightness included."""
    peaks = pq.read_table(folder / "objects.parquet", columns=["m_peak"])["m_peak"].to_numpy()[train.places]
    return view_facts(train.table, train.red, torch.zeros(len(train.red)), torch.from_numpy(peaks))


def null_direction(pictures: Tensor) -> Tensor:
    """Return the unit vector (DIM,) whose largest cosine with a picture is least, by descent on its soft maximum."""
    vector = nn.Parameter(-pictures.mean(dim=0))
    optimizer = torch.optim.Adam([vector], lr=0.02)
    for _ in range(NULL_STEPS):
        cosine = pictures @ functional.normalize(vector, dim=0)
        loss = torch.logsumexp(NULL_SCALE * cosine, dim=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return functional.normalize(vector.detach(), dim=0)


def draw_batch(random: np.random.Generator) -> list[Statement]:
    """Return STATEMENTS different statements, a share of them next to one whose literal is turned round."""
    chosen: dict = {}
    while len(chosen) < STATEMENTS:
        statement = draw_statement(random)
        chosen[statement] = None
        if random.random() < PAIRS:
            place = int(random.integers(len(statement)))
            turned = tuple((name, wanted != (spot == place)) for spot, (name, wanted) in enumerate(statement))
            if all(wanted or can_negate(name) for name, wanted in turned):
                chosen[turned] = None
    return list(chosen)[:STATEMENTS]


def sentence_loss(sentences: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of unit sentences (m * WORDINGS, d) on statements (m, d): near one's own, and nearest to it."""
    owner = torch.arange(len(targets)).repeat_interleave(WORDINGS)
    cosine = sentences @ targets.T
    near = 1 - cosine.gather(1, owner[:, None]).mean()
    return 4 * near + 0.5 * functional.cross_entropy(CONTRAST * cosine, owner)


class Gallery:
    """The training pictures as the frozen encoder sees them, with what is known of them."""

    def __init__(self, folder: Path, encoder: ImageEncoder) -> None:
        train = Pictures(folder, "train", file="images64.npy", synthetic=True)
        drawn = functional.interpolate(
            torch.from_numpy(np.array(train.drawn)).permute(0, 3, 1, 2).float(),
            size=train.pixels.shape[1:3],
            mode="bicubic",
            antialias=True,
        )
        drawn = drawn.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        parts = [embed_pictures(encoder, pixels) for pixels in (train.pixels[train.places], drawn)]
        self.pictures = torch.cat(parts)
        self.table = np.concatenate([picture_facts(folder, train), train.drawn_table])
        self.sets = np.concatenate([train.sets, np.full(len(drawn), "gz1", train.sets.dtype)])
        made = np.where(train.is_arc, 0.08 / train.is_arc.sum(), 0.04 / (~train.is_arc).sum())
        self.weights = np.concatenate([0.88 * train.weights, made])
        self.real = len(train.places)

    def draw(self, random: np.random.Generator) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Return PICTURES vectors, their truth table and their sets."""
        chosen = random.choice(len(self.table), PICTURES, p=self.weights)
        return self.pictures[chosen], self.table[chosen], self.sets[chosen]


def watched_sentences() -> tuple[list[str], np.ndarray]:
    """Return WATCHED_WORDINGS sentences for each statement of WATCHED, always the same, and which each belongs to."""
    random = np.random.default_rng(SEED)
    texts = [word(statement, random) for statement in WATCHED for _ in range(WATCHED_WORDINGS)]
    return texts, np.repeat(np.arange(len(WATCHED)), WATCHED_WORDINGS)


def judged(judge: Judge, pictures: np.ndarray, embed: Callable[[list[str]], np.ndarray]) -> dict[str, float]:
    """Return the average precision of every statement of WATCHED, the mean over its sentences, and their mean."""
    texts, owner = watched_sentences()
    vectors = embed(texts)
    each = [
        judge.of(pictures, {s: vectors[owner == number][turn] for number, s in enumerate(WATCHED)})
        for turn in range(WATCHED_WORDINGS)
    ]
    return {name: float(np.mean([found[name] for found in each])) for name in each[0]}


class Reading:
    """The text encoder, its tokenizer and optimizer, and one step."""

    def __init__(self, model: TextEncoder, statements: StatementTower, null: Tensor, *, scale: float) -> None:
        self.model, self.statements, self.null, self.scale = model, statements, null, scale
        model.tower.words.weight.requires_grad_(False)
        self.tokenizer = load_tokenizer(minilm_folder() / "tokenizer.json")
        self.moving = [weights for weights in model.tower.parameters() if weights.requires_grad]
        heads = {"params": model.project.parameters(), "peak": RATE_HEAD}
        groups = [heads, {"params": self.moving, "peak": RATE_TOWER}]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE_HEAD, weight_decay=0.01, betas=(0.9, 0.98))

    def embed(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors (n, DIM)."""
        with torch.inference_mode():
            return self.model(*tokenize(self.tokenizer, texts)).numpy()

    def step(self, gallery: Gallery, random: np.random.Generator, *, rate: float) -> tuple[float, float, float]:
        """Move at a share of the peak rates; return loss and cosines to statements and to the null direction."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        statements = draw_batch(random)
        texts = [word(statement, random) for statement in statements for _ in range(WORDINGS)]
        with torch.no_grad():
            targets = self.statements(literal_numbers(statements))
        with torch.autocast("cpu", torch.bfloat16):
            every = self.model(*tokenize(self.tokenizer, texts + [draw_foil(random) for _ in range(FOILS)])).float()
        sentences, foils = every[: len(texts)], every[len(texts) :]
        pictures, facts, sets = gallery.draw(random)
        truth = truth_matrix(facts, statements).numpy()
        asked = torch.from_numpy(in_context(truth, facts, sets, statements, random))
        ranked = rank_loss(self.scale * pictures @ sentences[::WORDINGS].T, asked)
        null = (foils @ self.null).mean()
        loss = sentence_loss(sentences, targets) + 0.3 * ranked + 2 * (1 - null)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.moving, 1.0)
        self.optimizer.step()
        cosine = (sentences.detach() * targets.repeat_interleave(WORDINGS, 0)).sum(dim=1).mean()
        return float(loss.detach()), float(cosine), float(null.detach())


def train_on(
    reading: Reading, gallery: Gallery, judge: Judge, held: np.ndarray, folder: Path, *, minutes: float
) -> dict:
    """Train with a linear decay to zero, keep the best by validation retrieval, return the curve for the run card."""
    random, clock, losses, curve, best, kept = np.random.default_rng(SEED), Clock(), [], [], -1.0, 0
    while (done := clock() / minutes) < 1:
        step = len(losses)
        losses.append(reading.step(gallery, random, rate=min(1.0, (step + 1) / 100) * (1 - done)))
        if (step + 1) % CHECK and done < 0.995:
            continue
        found = judged(judge, held, reading.embed)
        mean = np.mean(losses[-CHECK:], axis=0)
        curve.append({"step": step + 1, **dict(zip(("loss", "cosine", "null"), mean.tolist(), strict=True)), **found})
        parts = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        say(f"step {step + 1} loss {mean[0]:.3f} cosine {mean[1]:.3f}, foils to null {mean[2]:.3f} {done:.0%}: {parts}")
        if found["mean"] > best or (done > 0.9 and found["mean"] > best - 0.003):  # later is calmer, and as good
            best, kept = max(best, found["mean"]), step + 1
            torch.save(reading.model.state_dict(), folder / "text.pt")
    return {"steps": len(losses), "seconds": round(clock.seconds), "kept_step": kept, "curve": curve}


def main() -> None:
    """Train for a given number of minutes."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--minutes", type=float, default=15)
    arguments.add_argument("--resume", action="store_true", help="start from text.pt instead of the published weights")
    options = arguments.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    folder = cache_folder()
    encoder, statement_tower = begin(folder, resume=True)
    scale = torch.load(folder / "align.pt").get("scale", SCALE)
    gallery, judge = Gallery(folder, encoder), Judge(folder)
    held = torch.cat([embed_pictures(encoder, pixels) for pixels in (judge.pixels, judge.arcs)]).numpy()
    null = null_direction(gallery.pictures[: gallery.real])
    largest = float((gallery.pictures @ null).max())
    say(f"null direction: largest cosine with a training picture {largest:.3f}")
    model = TextEncoder(load_minilm())
    if options.resume:
        model.load_state_dict(torch.load(folder / "text.pt"))
    reading = Reading(model, statement_tower.eval(), null, scale=scale)
    before = judged(judge, held, reading.embed)
    say(", ".join(f"{name} {value:.3f}" for name, value in before.items()))
    card = train_on(reading, gallery, judge, held, folder, minutes=options.minutes)
    card = {"settings": settings(globals()), "before": before, "null_largest_cosine": largest} | card
    write_run_card(folder, "text", card | {"resumed": options.resume})


if __name__ == "__main__":
    main()
