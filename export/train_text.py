"""Teach MiniLM the sentences: every wording goes where the statement tower puts its statement, and ranks pictures so.

The picture side stays as train_align.py left it. Word embeddings are frozen and the rate is low, so that
words no template uses keep their neighbors.
Run `python -m export.train_text --minutes 15`; reads align.pt, writes text.pt into the cache folder.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.models import ImageEncoder, TextEncoder, load_minilm, load_tokenizer, minilm_folder, tokenize
from export.prepare import cache_folder
from export.sentences import can_negate, draw_statement, word
from export.train_align import SCALE, Pictures, begin, literal_numbers, rank_loss, say, truth_matrix, view_facts

SEED = 3
THREADS = 2
STATEMENTS = 48  # a step, each in WORDINGS sentences: paraphrases meet in one batch
WORDINGS = 2
PICTURES = 512  # a step, embedded once beforehand
RATE_HEAD, RATE_TOWER = 1e-3, 1e-4  # MiniLM moves ten times slower than its new projector
CONTRAST = 20.0  # scale of the cosine between sentences and statements
PAIRS = 0.3  # share of a batch that is a statement together with its opposite ("with a bar", "without a bar")


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


def draw_batch(random: np.random.Generator) -> list:
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


def main() -> None:
    """Train for a given number of minutes with a linear decay to zero."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=15)
    arguments.add_argument("--resume", action="store_true", help="start from text.pt instead of the published weights")
    options = arguments.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    folder = cache_folder()
    encoder, statement_tower = begin(folder, resume=True)
    train = Pictures(folder, "train", file="images64.npy")
    pictures, table = embed_pictures(encoder, train.pixels[train.places]), picture_facts(folder, train)

    model = TextEncoder(load_minilm())
    if options.resume:
        model.load_state_dict(torch.load(folder / "text.pt"))
    model.tower.words.weight.requires_grad_(False)
    tokenizer = load_tokenizer(minilm_folder() / "tokenizer.json")
    moving = [weights for weights in model.tower.parameters() if weights.requires_grad]
    groups = [{"params": model.project.parameters(), "peak": RATE_HEAD}, {"params": moving, "peak": RATE_TOWER}]
    optimizer = torch.optim.AdamW(groups, lr=RATE_HEAD, weight_decay=0.01, betas=(0.9, 0.98))
    start, losses, step = time.time(), [], 0
    while (done := (time.time() - start) / 60 / options.minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(1.0, (step + 1) / 100) * (1 - done)
        statements = draw_batch(random)
        texts = [word(statement, random) for statement in statements for _ in range(WORDINGS)]
        with torch.no_grad():
            targets = statement_tower(literal_numbers(statements))
        with torch.autocast("cpu", torch.bfloat16):
            sentences = model(*tokenize(tokenizer, texts)).float()
        chosen = random.choice(len(table), PICTURES, p=train.weights)
        logits = SCALE * pictures[chosen] @ sentences[::WORDINGS].T
        loss = sentence_loss(sentences, targets) + 0.3 * rank_loss(logits, truth_matrix(table[chosen], statements))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        cosine = (sentences.detach() * targets.repeat_interleave(WORDINGS, 0)).sum(dim=1).mean()
        losses.append([float(loss.detach()), float(cosine)])
        if step % 50 == 0:
            mean = np.mean(losses[-50:], axis=0)
            say(f"step {step} loss {mean[0]:.3f} cosine to statement {mean[1]:.3f} {done:.0%}")
        step += 1
        if step % 500 == 0:
            torch.save(model.state_dict(), folder / "text.pt")
    torch.save(model.state_dict(), folder / "text.pt")


if __name__ == "__main__":
    main()
