"""Train the spectrum encoder: masked spans are reconstructed, views of one source agree, kinds keep together.

A batch has two views of semi-synthetic sources, which differ in redshift, S/N, instrument and noise, and two augmented
views of real training spectra, whose labels are not used. A quarter of each view is masked in contiguous spans (single
patches would leak: each pixel lies in three); a linear decoder gives masked pixels back, its error weighted by ivar.
InfoNCE asks each view for the other one of its source, with a share of the answer for views of the same kind; two small
heads, thrown away afterwards, read the kind and the line ratios: a weak supervision by semi-synthetic labels alone.

Run `python -m export.train_spectra --minutes 25`; reads what prepare_spectra wrote, continues from spectra.pt where
there is one (`--anew` does not), keeps the best by validation in spectra_best.pt. `--model supervised` and
`--model cnn` train the two baselines by the kinds alone, without masks, pairs of views or real spectra.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.prepare import cache_folder
from export.spectra_models import DIM, TOKEN_PIXELS, TOKENS, Convolutions, SpectrumEncoder, features, token_coverage
from export.spectra_synthetic import GRID, KINDS
from export.train_align import Clock, say, settings, write_run_card

SEED = 4
WORKERS = 2  # threads, each with a batch of its own on one core: they meet once a step, not in every operation
SOURCES = 64  # semi-synthetic in a batch, two views each
REAL = 12  # real in a batch, two views each
RATE = 1.5e-3  # AdamW peak
TEMPERATURE = 0.1
SAME_KIND = 0.35  # of the answer of InfoNCE goes to views of the same kind, the rest to the same source
MASKED = 0.25  # of the pixels
SPANS = 6  # that make up what is masked, each about 44 pixels
WEIGHTS = {"same": 1.0, "masked": 0.5, "kind": 0.5, "ratios": 0.3}
CHECK = 120  # steps between two looks at the validation set
LOOKS = 100  # sources of each kind in a look
TARGETS = 3  # log [N II]/Halpha, log [O III]/Hbeta, log width of Halpha


class Views:
    """The semi-synthetic views of one set: flux and error (sources, views, p) float16, and what is known of sources."""

    def __init__(self, folder: Path, name: str) -> None:
        self.flux = np.load(folder / f"spectra_{name}_flux.npy")
        self.error = np.load(folder / f"spectra_{name}_error.npy")
        with np.load(folder / f"spectra_{name}.npz") as known:
            self.kind = np.searchsorted(np.array(sorted(KINDS)), known["kind"])
            with np.errstate(all="ignore"):
                width = np.log10(known["ew_ha"])
            self.targets = np.stack([known["log_nii_ha"], known["log_oiii_hb"], width], axis=1).astype(np.float32)
        self.targets[~np.isfinite(self.targets[:, 0])] = np.nan

    def of(self, rows: np.ndarray, views: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return flux and ivar (n, p) float32 of one view of each row."""
        flux, error = (torch.from_numpy(array[rows, views].astype(np.float32)) for array in (self.flux, self.error))
        return flux, error**2


class Real:
    """Real training spectra, unlabeled, in augmented views."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "spectra_real.npz") as file:
            rows = file["split"] == "train"
            flux, ivar = file["flux"][rows], file["ivar"][rows]
        size = np.array([np.mean(np.abs(row[good])) for row, good in zip(flux, ivar > 0, strict=True)])[:, None]
        self.flux, self.ivar = (torch.from_numpy(x.astype(np.float32)) for x in (flux / size, ivar * size**2))

    def views(self, rows: np.ndarray, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return a view of each: other slope, more noise, less coverage, a pixel to the side."""
        flux, ivar, n = self.flux[rows].clone(), self.ivar[rows].clone(), len(rows)
        x = torch.linspace(-1, 1, flux.shape[1])
        slope, bend = (torch.from_numpy(random.normal(0, s, (n, 1)).astype(np.float32)) for s in (0.12, 0.06))
        curve = torch.exp(slope * x + bend * x**2)
        flux, ivar = flux * curve, ivar / curve**2
        more = torch.from_numpy(
            10 ** random.uniform(-2, 0.7, (n, 1)).astype(np.float32)
        )  # variance, over the one there
        sigma = torch.where(ivar > 0, 1 / torch.sqrt(ivar.clamp(min=1e-20)), torch.zeros(()))
        flux = flux + torch.randn(flux.shape) * sigma * torch.sqrt(more)
        ivar = ivar / (1 + more)
        for row in range(n):
            seen = np.flatnonzero(ivar[row].numpy() > 0)
            first, last = np.quantile(seen, [random.uniform(0, 0.2), 1 - random.uniform(0, 0.2)]).astype(int)
            ivar[row, :first] = 0
            ivar[row, last:] = 0
        side = int(random.integers(-1, 2))
        return torch.roll(flux, side, 1), torch.roll(ivar, side, 1)


def spans(n: int, random: np.random.Generator) -> Tensor:
    """Return masks (n, p): 1 in SPANS spans that together hold MASKED of the pixels, where they do not overlap."""
    length = int(MASKED * GRID.count / SPANS)
    starts = random.integers(-length // 2, GRID.count - length // 2, (n, SPANS))
    pixels = np.arange(GRID.count)
    inside = (pixels >= starts[:, :, None]) & (pixels < starts[:, :, None] + length)
    return torch.from_numpy(inside.any(axis=1).astype(np.float32))


def same_loss(first: Tensor, second: Tensor, kind: Tensor) -> Tensor:
    """Return InfoNCE of two sets of unit vectors (n, d), whose row i belong together; kind -1 has no others of it."""
    logits = first @ second.T / TEMPERATURE
    alike = ((kind[:, None] == kind) & (kind[:, None] >= 0)).float()
    alike = alike / alike.sum(dim=1, keepdim=True).clamp(min=1)
    share = SAME_KIND * (kind >= 0).float()[:, None]
    answer = (1 - share) * torch.eye(len(first)) + share * alike
    return (functional.cross_entropy(logits, answer) + functional.cross_entropy(logits.T, answer)) / 2


def data_window(present: Tensor) -> Tensor:
    """Return which tokens to keep (n, t): t in a row that hold all data of each spectrum, t the longest there is."""
    positions = torch.arange(TOKENS)
    first = present.argmax(dim=1)
    last = (present * positions).argmax(dim=1)
    length = int((last - first).max()) + 1
    return torch.minimum(first, torch.tensor(TOKENS - length))[:, None] + torch.arange(length)


def masked_loss(guess: Tensor, channels: Tensor, weight: Tensor, window: Tensor) -> Tensor:
    """Return the error of the pixels of the first channel by their weight (n, p), errors beyond 1 linear."""
    shape = (len(weight), TOKENS, TOKEN_PIXELS)
    kept = window[:, :, None].expand(-1, -1, TOKEN_PIXELS)
    count = TOKENS * TOKEN_PIXELS
    target, weight = (x[:, :count].reshape(shape).gather(1, kept) for x in (channels[:, 0], weight))
    error = functional.smooth_l1_loss(guess, target, reduction="none")
    return (error * weight).sum() / weight.sum().clamp(min=1)


class Training:
    """The network, its heads, their optimizer and their running average."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.encoder = Convolutions() if model == "cnn" else SpectrumEncoder()
        self.workers = ThreadPoolExecutor(WORKERS, initializer=lambda: torch.set_num_threads(1))
        self.kind, self.ratios = nn.Linear(DIM, len(KINDS)), nn.Linear(DIM, TARGETS)
        weights = [*self.encoder.parameters(), *self.kind.parameters(), *self.ratios.parameters()]
        self.optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.03, betas=(0.9, 0.98))
        smooth = torch.optim.swa_utils.get_ema_multi_avg_fn(0.95 if model == "cnn" else 0.99)
        self.average = torch.optim.swa_utils.AveragedModel(self.encoder, multi_avg_fn=smooth, use_buffers=True)

    def state(self) -> dict:
        """Return everything that is needed to continue."""
        names = ("encoder", "kind", "ratios", "optimizer", "average")
        return {name: getattr(self, name).state_dict() for name in names}

    def load(self, state: dict) -> None:
        """Continue from a state."""
        for name, values in state.items():
            getattr(self, name).load_state_dict(values)

    def step(self, train: Views, real: Real, random: np.random.Generator, *, rate: float) -> dict[str, float]:
        """Draw a batch, move everything at a share of its peak rate, return the losses."""
        self.encoder.train()
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * rate
        seeds = random.integers(2**31, size=WORKERS)
        parts = list(self.workers.map(lambda seed: self._gradients(train, real, np.random.default_rng(seed)), seeds))
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for weight, *each in zip(weights, *(gradients for _, gradients in parts), strict=True):
            known = [gradient for gradient in each if gradient is not None]
            weight.grad = torch.stack(known).mean(dim=0) if known else None
        nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.encoder)
        return {name: float(np.mean([losses[name] for losses, _ in parts])) for name in parts[0][0]}

    def _gradients(self, train: Views, real: Real, random: np.random.Generator) -> tuple[dict[str, float], tuple]:
        """Return the losses of a batch and the gradient of every weight."""
        losses = self._labels(train, random) if self.model != "spectra" else self._pairs(train, real, random)
        total = sum((WEIGHTS[name] * loss for name, loss in losses.items()), torch.zeros(()))
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
        return {name: float(loss.detach()) for name, loss in losses.items()}, gradients

    def _pairs(self, train: Views, real: Real, random: np.random.Generator) -> dict[str, Tensor]:
        rows = np.sort(random.choice(len(train.kind), SOURCES, replace=False))
        views = np.argsort(random.random((SOURCES, train.flux.shape[1])), axis=1)[:, :2]
        some = random.choice(len(real.flux), REAL, replace=False)
        parts = [train.of(rows, views[:, 0]), real.views(some, random)]
        parts += [train.of(rows, views[:, 1]), real.views(some, random)]
        flux, ivar = (torch.cat([part[column] for part in parts]) for column in (0, 1))
        channels, weight = features(flux, ivar)
        mask = spans(len(flux), random)
        seen = weight * (1 - mask)
        present = (token_coverage(weight) > 0).float()
        window = data_window(present)
        tokens = self.encoder.tokens(channels * (1 - mask)[:, None], seen, present, window=window)
        vectors = self.encoder.pool(tokens, token_coverage(seen).gather(1, window))
        first, second = vectors.chunk(2)
        kind = torch.from_numpy(train.kind[rows])
        unknown = torch.full((REAL,), -1)
        same = same_loss(first[:SOURCES], second[:SOURCES], kind) + 0.2 * same_loss(
            first[SOURCES:], second[SOURCES:], unknown
        )
        both = torch.cat([first[:SOURCES], second[:SOURCES]])
        heads = self._heads(both, train, np.concatenate([rows, rows]))
        return {
            "same": same,
            "masked": masked_loss(self.encoder.decode(tokens), channels, weight * mask, window),
        } | heads

    def _labels(self, train: Views, random: np.random.Generator) -> dict[str, Tensor]:
        rows = random.choice(len(train.kind), 2 * SOURCES, replace=False)
        flux, ivar = train.of(rows, random.integers(train.flux.shape[1], size=len(rows)))
        return self._heads(vectors_of(self.encoder, flux, ivar), train, rows)

    def _heads(self, vectors: Tensor, train: Views, rows: np.ndarray) -> dict[str, Tensor]:
        kind = functional.cross_entropy(8 * self.kind(vectors), torch.from_numpy(train.kind[rows]))
        targets = torch.from_numpy(train.targets[rows])
        known = ~torch.isnan(targets)
        error = functional.smooth_l1_loss(4 * self.ratios(vectors), torch.nan_to_num(targets), reduction="none")
        return {"kind": kind, "ratios": error[known].mean()}


def vectors_of(encoder: nn.Module, flux: Tensor, ivar: Tensor) -> Tensor:
    """Return unit vectors; of the Transformer without computing tokens that have no data."""
    if isinstance(encoder, Convolutions):
        return encoder(flux, ivar)
    channels, weight = features(flux, ivar)
    covered = token_coverage(weight)
    present = (covered > 0).float()
    window = data_window(present)
    return encoder.pool(encoder.tokens(channels, weight, present, window=window), covered.gather(1, window))


def embed(encoder: nn.Module, flux: Tensor, ivar: Tensor, *, batch: int = 256) -> np.ndarray:
    """Return unit vectors of spectra (n, p) in evaluation mode."""
    encoder.eval()
    with torch.inference_mode():
        starts = range(0, len(flux), batch)
        parts = [vectors_of(encoder, flux[at : at + batch], ivar[at : at + batch]).numpy() for at in starts]
    return np.concatenate(parts)


def votes(similarity: np.ndarray, kind: np.ndarray, *, k: int = 3) -> np.ndarray:
    """Return the kind (q,) that wins the votes of the k nearest of (q, m) similarities, weighing e to -distance."""
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    cosine = np.take_along_axis(similarity, nearest, axis=1)
    weight = np.exp(-np.sqrt(np.maximum(2 - 2 * cosine, 0)))
    total = np.zeros((len(similarity), int(kind.max()) + 1))
    np.add.at(total, (np.arange(len(total))[:, None], kind[nearest]), weight)
    return total.argmax(axis=1)


def macro_f1(truth: np.ndarray, guess: np.ndarray) -> float:
    """Return the mean over kinds of F1."""
    hits = [(np.sum((truth == kind) & (guess == kind)), kind) for kind in np.unique(truth)]
    return float(np.mean([2 * hit / (np.sum(truth == kind) + np.sum(guess == kind)) for hit, kind in hits]))


def look(encoder: nn.Module, held: Views) -> dict[str, float]:
    """Return on validation sources: macro-F1 of votes by other sources, and how often another view's source is first.

    `shared` is the share of ten neighbors that two views of a source have in common.
    """
    rows = np.concatenate([np.flatnonzero(held.kind == kind)[:LOOKS] for kind in range(len(KINDS))])
    known, query = (embed(encoder, *held.of(rows, np.full(len(rows), view))) for view in (0, 1))
    similarity, own = query @ known.T, known @ known.T
    same = float(np.mean(similarity.argmax(axis=1) == np.arange(len(rows))))
    np.fill_diagonal(similarity, -2)
    np.fill_diagonal(own, -2)
    first, second = (np.argsort(-values, axis=1)[:, :10] for values in (similarity, own))
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(first, second, strict=True)])
    f1 = macro_f1(held.kind[rows], votes(similarity, held.kind[rows]))
    return {"f1": f1, "same": same, "shared": float(shared), "mean": float(np.mean([f1, same, shared]))}


def main() -> None:
    """Train for a given number of minutes with a linear decay to zero; keep the best by validation."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--minutes", type=float, default=25)
    arguments.add_argument("--model", choices=("spectra", "supervised", "cnn"), default="spectra")
    arguments.add_argument("--anew", action="store_true", help="do not continue from the state that is there")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    folder, clock = cache_folder(), Clock()
    train, held, real = Views(folder, "train"), Views(folder, "validation"), Real(folder)
    training, path = Training(options.model), folder / f"{options.model}.pt"
    if path.exists() and not options.anew:
        training.load(torch.load(path))
    random = np.random.default_rng([SEED, int(time.time())])
    losses, curve, best, measure = [], [], -1.0, "mean" if options.model == "spectra" else "f1"
    while (done := clock() / options.minutes) < 1:
        losses.append(training.step(train, real, random, rate=min(1.0, (len(losses) + 1) / 60) * (1 - done)))
        if len(losses) % CHECK and done < 0.995:
            continue
        result = look(training.average.module, held)
        recent = {name: float(np.mean([loss[name] for loss in losses[-CHECK:]])) for name in losses[-1]}
        curve.append({"step": len(losses), "minutes": clock(), "loss": recent} | result)
        say(
            " ".join(f"{name} {value:.3f}" for values in (recent, result) for name, value in values.items())
            + f" {len(losses)} {done:.0%}"
        )
        torch.save(training.state(), path)
        if result[measure] > best:
            best = result[measure]
            torch.save(training.average.module.state_dict(), folder / f"{options.model}_best.pt")
    say(f"best {best:.4f}")
    card = {
        "settings": settings(globals()),
        "weights": WEIGHTS,
        "data": {"sources": len(train.kind), "real": len(real.flux)},
    }
    write_run_card(folder, options.model, card | {"steps": len(losses), "minutes": options.minutes, "curve": curve})


if __name__ == "__main__":
    main()
