"""Self-supervised training of the image tower: two views of a galaxy agree, views of different galaxies do not.

SimCLR's loss (Chen et al. 2020) on every picture outside validation and test, labels unused.
Run `python -m export.train_image --minutes 20`; writes tower.pt into the cache folder.
"""

import argparse
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.augment import view
from export.models import ImageTower
from export.prepare import cache_folder

SEED = 1
THREADS = 2
BATCH = 256  # 510 negatives a view; a larger batch means fewer steps in the time there is
TEMPERATURE = 0.2  # galaxies are alike: a lower one would push near-identical ellipticals apart
RATE = 2e-3  # AdamW peak
WARM_UP = 100  # steps


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """Return the NT-Xent loss of two (n, d) sets of projections, row i of one matching row i of the other."""
    both = functional.normalize(torch.cat([first, second]).float(), dim=1)
    similarity = both @ both.T / TEMPERATURE
    similarity.fill_diagonal_(-1e4)
    n = len(first)
    partner = torch.arange(2 * n).roll(n)
    return functional.cross_entropy(similarity, partner)


def batches(rows: np.ndarray, *, seed: int):
    """Yield sorted row numbers in random batches, epoch after epoch."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(rows)
        for start in range(0, len(order) - BATCH + 1, BATCH):
            yield np.sort(order[start : start + BATCH])


def main() -> None:
    """Train for a given number of minutes with a linear decay to zero."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=20)
    minutes = arguments.parse_args().minutes
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    folder = cache_folder()
    pixels = torch.from_numpy(np.load(folder / "images96.npy"))
    split = np.array(pq.read_table(folder / "splits.parquet", columns=["split"])["split"].to_pylist())
    tower = ImageTower().to(memory_format=torch.channels_last)
    head = nn.Sequential(nn.Linear(tower.features, 512), nn.ReLU(), nn.Linear(512, 128))
    weights = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.02, betas=(0.9, 0.98))
    start, losses = time.time(), []
    for step, rows in enumerate(batches(np.flatnonzero(split == "train"), seed=SEED)):
        done = (time.time() - start) / 60 / minutes
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * (1 - done)
        batch = pixels[torch.from_numpy(rows)]
        views = torch.cat([view(batch)[0], view(batch)[0]]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            projected = head(tower(views))
        loss = contrast(*projected.chunk(2))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 50 == 0:
            rate = (step + 1) * BATCH / (time.time() - start)
            print(
                f"step {step} loss {np.mean(losses[-50:]):.3f} {rate:.0f} galaxies/s {done:.0%}",
                file=sys.stderr,
                flush=True,
            )
        if step % 200 == 199:
            torch.save(tower.state_dict(), folder / "tower.pt")
    torch.save(tower.state_dict(), folder / "tower.pt")


if __name__ == "__main__":
    main()
