"""The spectrum encoder: patches by a strided convolution, a small Transformer, the mean of its tokens, line windows."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.spectra_synthetic import GRID, LINES

PATCH, STRIDE = 15, 5  # pixels: neighbors share ten, so each pixel lies in three patches
MERGE = 2  # neighboring patches that become one token: attention over 104 tokens instead of 208, for 300 spectra/s
WIDTH, DEPTH, HEADS = 96, 3, 4
STEM = 48
DIM = 128
CONTINUUM = 81  # pixels of the running mean that lines are measured against, 0.065 dex
CHANNELS = 4
TOKEN_PIXELS = STRIDE * MERGE
TOKENS = ((GRID.count - PATCH) // STRIDE + 1) // MERGE
TINY = 1e-30


def robust_mean(values: Tensor, good: Tensor) -> Tensor:
    """Return the mean of (n, p) values >= 0 over good pixels, values above three times it counted as that, (n, 1)."""
    count = good.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (values * good).sum(dim=1, keepdim=True) / count
    for _ in range(3):
        mean = (torch.minimum(values, 3 * mean) * good).sum(dim=1, keepdim=True) / count
    return mean.clamp(min=TINY)  # an exporter drops so small an addend


def features(flux: Tensor, ivar: Tensor) -> tuple[Tensor, Tensor]:
    """Return channels (n, CHANNELS, p) and the weight of each pixel (n, p), from 0 (no data) to 1.

    Channels: flux over its robust mean size, and the distance to a running mean in units of that mean (what an
    equivalent width sees) and of the error (what a detection sees), all by asinh, so that bright lines are kept; last
    the log of the S/N. Any positive scale of the flux gives the same numbers.
    """
    good = (ivar > 0).to(flux.dtype)
    flux = torch.where(ivar > 0, flux, torch.zeros_like(flux))
    inverse = torch.sqrt(ivar)
    relative = inverse / robust_mean(inverse, good)
    weight = relative**2 / (relative**2 + 1)  # a pixel with a tiny error counts twice the usual one at most
    size = robust_mean(flux.abs(), good)
    scaled = flux / size
    error = (1 / (inverse * size + 1e-3)).clamp(max=1e3)
    bounded = scaled.clamp(-5, 5) * weight  # one bright line must not lift the mean around it
    near, count = (running_mean(values) for values in (bounded, weight))
    mean = near / (count + 1e-3)
    excess = (scaled - mean) * good
    channels = [
        torch.asinh(2 * scaled) * good,
        torch.asinh(4 * excess / (mean.abs() + 0.2)),
        torch.asinh(excess / (error + 0.02) / 2),
        torch.log1p(1 / (error + 0.01)) * good / 2,
    ]
    return torch.stack(channels, dim=1), weight


def running_mean(values: Tensor) -> Tensor:
    """Return the mean of CONTINUUM pixels around each of (n, p), zeros beyond the ends."""
    return functional.avg_pool1d(values[:, None], CONTINUUM, 1, CONTINUUM // 2)[:, 0]


def token_coverage(weight: Tensor) -> Tensor:
    """Return the mean weight of the pixels of each token, (n, TOKENS)."""
    return functional.avg_pool1d(weight[:, None], TOKEN_PIXELS, TOKEN_PIXELS)[:, 0, :TOKENS]


class Attention(nn.Module):
    """One pre-norm Transformer layer."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.join, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Take and return (n, tokens, width); `bias` (n, 1, 1, tokens) is added to what is attended to."""
        n, length, width = x.shape
        query, key, value = self.join(self.first(x)).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class SpectrumEncoder(nn.Module):
    """The Transformer: flux and ivar (n, GRID.count) float32 in, unit vectors (n, DIM) out."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv1d(CHANNELS + 1, STEM, PATCH, STRIDE)
        self.merge = nn.Conv1d(STEM, WIDTH, MERGE, MERGE)
        self.positions = nn.Parameter(torch.randn(1, TOKENS, WIDTH) * 0.02)
        self.layers = nn.ModuleList(Attention() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.project = nn.Sequential(nn.Linear(WIDTH, 192), nn.GELU(), nn.Linear(192, DIM))
        self.decode = nn.Linear(WIDTH, TOKEN_PIXELS)  # of masked pixels; not in the shipped graph

    def tokens(self, channels: Tensor, weight: Tensor, present: Tensor, *, window: Tensor | None = None) -> Tensor:
        """Return (n, t, WIDTH) of channels (n, CHANNELS, p), weight (n, p); t is TOKENS or what `window` (n, t) picks.

        `present` (n, TOKENS) is 0 for tokens without data, to which nothing attends. To leave those out by a window
        changes nothing in the others and saves half of the work in training.
        """
        x = torch.cat([channels, weight[:, None]], dim=1)
        x = self.merge(functional.gelu(self.patches(x))).transpose(1, 2) + self.positions
        if window is not None:
            x = x.gather(1, window[:, :, None].expand(-1, -1, x.shape[2]))
            present = present.gather(1, window)
        bias = ((present - 1) * 1e4)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, bias)
        return self.norm(x)

    def mean(self, tokens: Tensor, covered: Tensor) -> Tensor:
        """Return the mean (n, WIDTH) of tokens (n, t, WIDTH), each by how much data it has (n, t)."""
        covered = covered + 1e-6  # without any data all count alike
        return (tokens * covered[:, :, None]).sum(dim=1) / covered.sum(dim=1, keepdim=True)

    def pool(self, tokens: Tensor, covered: Tensor) -> Tensor:
        """Return unit vectors (n, DIM) of the mean of tokens."""
        return functional.normalize(self.project(self.mean(tokens, covered)), dim=1)

    def forward(self, flux: Tensor, ivar: Tensor) -> Tensor:
        """Return unit vectors (n, DIM)."""
        channels, weight = features(flux, ivar)
        covered = token_coverage(weight)
        return self.pool(self.tokens(channels, weight, (covered > 0).to(weight.dtype)), covered)


ABSORPTION = (3934.8, 3969.6, 4305.6, 5176.6, 5269.0, 5895.6, 2799.1, 1908.7, 1549.5)  # and the broad lines of quasars
BESIDE = (-2, -1, 0, 1, 2)  # pixels around the middle of each line that the head sees one by one
BIN = 25  # pixels of a bin of the shape and of its largest and least excess


def line_columns() -> list[int]:
    """Return the pixels of GRID about known lines, each once, in order."""
    centers = np.array([center for group in LINES.values() for center in group] + list(ABSORPTION))
    middle = np.rint((np.log10(centers) - GRID.start) / GRID.step).astype(int)
    return sorted({int(column) for column in (middle[:, None] + np.array(BESIDE)).ravel()})


WINDOWS = 2 * len(line_columns()) + 4 * (GRID.count // BIN)


def windows(channels: Tensor, weight: Tensor) -> Tensor:
    """Return what is seen about known lines and in bins, (n, WINDOWS), of channels and weights (see features).

    Excess over the continuum at each pixel about a line, in units of the continuum and of the error; in bins of BIN
    pixels the mean flux, the share of data, and the largest and least excess in units of the error, which show lines
    where none is expected.
    """
    columns = torch.tensor(line_columns(), device=channels.device)
    sharp = channels[:, 1:3].index_select(2, columns).flatten(1)
    shape, share = (functional.avg_pool1d(x, BIN, BIN) for x in (channels[:, :1], weight[:, None]))
    most, least = (functional.max_pool1d(sign * channels[:, 2:3], BIN, BIN) for sign in (1, -1))
    return torch.cat([sharp, torch.cat([shape, share, most, least], dim=2).flatten(1)], dim=1)


class Head(nn.Module):
    """Unit vectors (n, DIM) of the mean token and the windows (n, WIDTH + WINDOWS)."""

    def __init__(self) -> None:
        super().__init__()
        self.middle: Tensor
        self.spread: Tensor
        self.register_buffer("middle", torch.zeros(WIDTH + WINDOWS))
        self.register_buffer("spread", torch.ones(WIDTH + WINDOWS))
        self.layers = nn.Sequential(
            nn.Dropout(0.1),
            nn.Linear(WIDTH + WINDOWS, 384),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(384, 256),
            nn.GELU(),
            nn.Linear(256, DIM),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return unit vectors (n, DIM)."""
        return functional.normalize(self.layers(((x - self.middle) / self.spread).clamp(-6, 6)), dim=1)


class ShippedEncoder(nn.Module):
    """The shipped graph: flux and ivar (n, GRID.count) float32 in, unit vectors (n, DIM) out."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = SpectrumEncoder(), Head()

    def inputs(self, flux: Tensor, ivar: Tensor) -> Tensor:
        """Return what the head takes, (n, WIDTH + WINDOWS)."""
        channels, weight = features(flux, ivar)
        covered = token_coverage(weight)
        tokens = self.trunk.tokens(channels, weight, (covered > 0).to(weight.dtype))
        return torch.cat([self.trunk.mean(tokens, covered), windows(channels, weight)], dim=1)

    def forward(self, flux: Tensor, ivar: Tensor) -> Tensor:
        """Return unit vectors (n, DIM)."""
        return self.head(self.inputs(flux, ivar))


class Convolutions(nn.Module):
    """A 1-D CNN in the role of GalSpecNet (Wu et al. 2024): four convolutions with pooling, unit vectors (n, DIM)."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (CHANNELS + 1, 32, 48, 64, 96)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Conv1d(before, after, 5, padding=2), nn.BatchNorm1d(after), nn.ReLU(), nn.MaxPool1d(3)]
        self.layers = nn.Sequential(*layers)
        last = 96 * (GRID.count // 81)
        self.project = nn.Sequential(nn.Flatten(), nn.Linear(last, 192), nn.ReLU(), nn.Linear(192, DIM))

    def forward(self, flux: Tensor, ivar: Tensor) -> Tensor:
        """Return unit vectors (n, DIM)."""
        channels, weight = features(flux, ivar)
        x = self.layers(torch.cat([channels, weight[:, None]], dim=1))
        return functional.normalize(self.project(x), dim=1)
