"""Train the head of the spectrum encoder on what its Transformer gives, which stays as it is: many steps in minutes.

The mean token of spectra_best.pt and the line windows of each training view are computed once; then a small network
learns by the losses of train_spectra, except for the masks, with batches ten times as large.
Run `python -m export.train_spectra_head --minutes 5`; writes spectra_head.pt and, trained by the kinds alone, the
baseline supervised_best.pt; the best by validation of each.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.prepare import cache_folder
from export.spectra_models import DIM, WIDTH, WINDOWS, Head, ShippedEncoder, features, token_coverage, windows
from export.spectra_synthetic import KINDS
from export.train_align import Clock, say, settings, write_run_card
from export.train_spectra import TARGETS, WEIGHTS, Real, Views, data_window, macro_f1, same_loss, votes

SEED = 6
SOURCES, REAL = 768, 96  # in a batch, two views each
REAL_VIEWS = 6
RATE = 2e-3
CHECK = 60
LOOKS = 100  # sources of each kind in a look


def head_inputs(network: ShippedEncoder, flux: Tensor, ivar: Tensor, *, batch: int = 256) -> Tensor:
    """Return the inputs of the head for spectra (n, p), without computing tokens that have no data."""
    parts = []
    with torch.inference_mode():
        for at in range(0, len(flux), batch):
            channels, weight = features(flux[at : at + batch], ivar[at : at + batch])
            covered = token_coverage(weight)
            present = (covered > 0).float()
            window = data_window(present)
            tokens = network.trunk.tokens(channels, weight, present, window=window)
            mean = network.trunk.mean(tokens, covered.gather(1, window))
            parts.append(torch.cat([mean, windows(channels, weight)], dim=1))
    return torch.cat(parts).clone()


class Inputs:
    """Inputs of the head for views of training sources, real training spectra and validation sources."""

    def __init__(self, network: ShippedEncoder, *, sources: int, views: int) -> None:
        folder, random = cache_folder(), np.random.default_rng(SEED)
        train, held, real = Views(folder, "train"), Views(folder, "validation"), Real(folder)
        rows = np.sort(random.choice(len(train.kind), sources, replace=False))
        self.kind, self.targets = torch.from_numpy(train.kind[rows]), torch.from_numpy(train.targets[rows])
        self.train = torch.stack(
            [head_inputs(network, *train.of(rows, np.full(len(rows), view))) for view in range(views)], dim=1
        )
        every = np.arange(len(real.flux))
        self.real = torch.stack([head_inputs(network, *real.views(every, random)) for _ in range(REAL_VIEWS)], dim=1)
        looks = np.concatenate([np.flatnonzero(held.kind == kind)[:LOOKS] for kind in range(len(KINDS))])
        self.held_kind = held.kind[looks]
        self.held = [head_inputs(network, *held.of(looks, np.full(len(looks), view))) for view in (0, 1)]


def two_views(values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return two different views of rows of (n, views, d)."""
    order = torch.rand(len(rows), values.shape[1]).argsort(dim=1)
    return values[rows, order[:, 0]], values[rows, order[:, 1]]


def losses(head: Head, heads: nn.ModuleDict, data: Inputs, *, pairs: str) -> dict[str, Tensor]:
    """Return the losses of one batch; with `pairs` "none" those of the kinds and ratios alone."""
    rows = torch.randperm(len(data.kind))[:SOURCES]
    vectors = head(torch.cat(two_views(data.train, rows)))
    kind, targets = data.kind[rows].repeat(2), data.targets[rows].repeat(2, 1)
    known = ~torch.isnan(targets)
    error = functional.smooth_l1_loss(4 * heads["ratios"](vectors), torch.nan_to_num(targets), reduction="none")
    result = {"kind": functional.cross_entropy(8 * heads["kind"](vectors), kind), "ratios": error[known].mean()}
    if pairs == "none":
        return result
    some = torch.randperm(len(data.real))[:REAL]
    first, second = head(torch.cat(two_views(data.real, some))).chunk(2)
    real = same_loss(first, second, torch.full((REAL,), -1))
    return result | {"same": same_loss(*vectors.chunk(2), data.kind[rows]) + 0.2 * real}


def look(head: Head, data: Inputs) -> dict[str, float]:
    """Return what train_spectra.look does, of the head."""
    head.eval()
    with torch.inference_mode():
        known, query = (head(values).numpy() for values in data.held)
    head.train()
    similarity, own = query @ known.T, known @ known.T
    same = float(np.mean(similarity.argmax(axis=1) == np.arange(len(known))))
    np.fill_diagonal(similarity, -2)
    np.fill_diagonal(own, -2)
    first, second = (np.argsort(-values, axis=1)[:, :10] for values in (similarity, own))
    shared = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(first, second, strict=True)]))
    f1 = macro_f1(data.held_kind, votes(similarity, data.held_kind))
    return {"f1": f1, "same": same, "shared": shared, "mean": float(np.mean([f1, same, shared]))}


def train(data: Inputs, *, minutes: float, pairs: str) -> tuple[Head, list[dict]]:
    """Return the best head by validation and its curve."""
    head, heads = Head(), nn.ModuleDict({"kind": nn.Linear(DIM, len(KINDS)), "ratios": nn.Linear(DIM, TARGETS)})
    flat = data.train.reshape(-1, WIDTH + WINDOWS)
    head.middle.copy_(flat.mean(dim=0))
    head.spread.copy_(flat.std(dim=0) + 1e-2)
    weights = [*head.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.05)
    smooth = torch.optim.swa_utils.get_ema_multi_avg_fn(0.98)
    average = torch.optim.swa_utils.AveragedModel(head, multi_avg_fn=smooth)
    clock, step, best, kept, curve = Clock(), 0, -1.0, head.state_dict(), []
    while (done := clock() / minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 30) * (1 - done)
        parts = losses(head, heads, data, pairs=pairs)
        optimizer.zero_grad()
        sum((WEIGHTS[name] * loss for name, loss in parts.items()), torch.zeros(())).backward()
        optimizer.step()
        average.update_parameters(head)
        step += 1
        if step % CHECK and done < 0.99:
            continue
        result = look(average.module, data)
        curve.append({"step": step} | {name: float(loss.detach()) for name, loss in parts.items()} | result)
        say(f"{step} {done:.0%} " + " ".join(f"{name} {value:.3f}" for name, value in curve[-1].items()))
        score = result["f1"] if pairs == "none" else result["f1"] * 2 / 3 + result["mean"] / 3
        if score > best:
            best, kept = score, {name: value.clone() for name, value in average.module.state_dict().items()}
    head.load_state_dict(kept)
    return head.eval(), curve


def main() -> None:
    """Compute the inputs once, train the shipped head and the supervised one."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--minutes", type=float, default=5, help="of each of the two heads")
    arguments.add_argument("--sources", type=int, default=10_000, help="semi-synthetic, of those that are prepared")
    arguments.add_argument("--views", type=int, default=3, help="of each source")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    folder, network = cache_folder(), ShippedEncoder().eval()
    network.trunk.load_state_dict(torch.load(folder / "spectra_best.pt"))
    data = Inputs(network, sources=options.sources, views=options.views)
    for name, pairs in (("spectra_head", "both"), ("supervised_best", "none")):
        network.head, curve = train(data, minutes=options.minutes, pairs=pairs)
        torch.save(network.state_dict(), folder / f"{name}.pt")
        card = {"settings": settings(globals()), "sources": options.sources, "views": options.views, "curve": curve}
        write_run_card(folder, name, card)


if __name__ == "__main__":
    main()
