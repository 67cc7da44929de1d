"""Views of a picture, made in batches with torch: what a survey changes, and not what the galaxy is.

Every function takes and returns (n, 3, s, s) float32 in 0..1 (channels R, G, B).
"""

import torch
from torch import Tensor
from torch.nn import functional

from export.prepare import MODEL_PX

ZOOM = (0.6, 1.45)  # 1 keeps the field of the stored cutout; below 1 the galaxy looks smaller
SHIFT = 0.06  # of the frame: cutouts are centered, detections a little less so
LOW_RESOLUTION = (12, 64)  # pixels across the frame before it is enlarged again: small, distant galaxies
GROUPS = 8  # blur and resolution are drawn per group of pictures, so that each is one batched call


def uniform(n: int, low: float, high: float) -> Tensor:
    """Draw n floats, shaped (n, 1, 1, 1)."""
    return torch.empty(n, 1, 1, 1).uniform_(low, high)


def geometry(pictures: Tensor, *, zoom: tuple[float, float] = ZOOM) -> Tensor:
    """Rotate by any angle, mirror, zoom, shift, and sample MODEL_PX pixels; outside the picture is black.

    Mirroring is allowed because no sentence names the sense of the spiral.
    """
    n = len(pictures)
    angle = torch.rand(n) * 2 * torch.pi
    scale = torch.exp(torch.empty(n).uniform_(*map(_log, zoom))) ** -1
    mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = torch.empty(n, 2).uniform_(-SHIFT, SHIFT)
    matrix = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1
    )
    grid = functional.affine_grid(matrix, [n, 3, MODEL_PX, MODEL_PX], align_corners=False)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _log(value: float) -> float:
    return float(torch.log(torch.tensor(value)))


def color(pictures: Tensor, *, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Change channel gains, gamma, brightness, black level; return the pictures and the change of log2(R/B), (n,).

    The change is handed on so that a sentence on color stays true of the view.
    """
    n = len(pictures)
    warm = torch.randn(n) * 0.35 * strength
    green = torch.randn(n) * 0.10 * strength
    gain = torch.stack([2 ** (warm / 2), 2**green, 2 ** (-warm / 2)], 1)[:, :, None, None]
    gain = gain * torch.exp(torch.randn(n, 1, 1, 1) * 0.25 * strength)
    gamma = torch.exp(torch.randn(n, 1, 1, 1) * 0.22 * strength)
    black = uniform(n, -0.02, 0.06) * strength
    luminance = pictures.mean(1, keepdim=True)
    stretched = pictures * (luminance + 0.02) ** (gamma - 1)  # one factor for R, G, B: gamma keeps their ratios
    return (stretched * gain + black).clamp(0, 1), warm


def degrade(pictures: Tensor, *, chance: float = 0.5) -> tuple[Tensor, Tensor]:
    """Lose resolution and add noise, each group its own amount; a share of 1 - chance stays as it is.

    The second is how many pixels the frame had when it was coarsest, (n,), so that no fine structure is asked of it.
    """
    parts, across = [], []
    for part in pictures.chunk(GROUPS):
        across.append(torch.full((len(part),), float(MODEL_PX)))
        if torch.rand(()) < chance:
            low, high = LOW_RESOLUTION
            size = int(torch.exp(torch.empty(()).uniform_(_log(low), _log(high))))
            across[-1][:] = size
            part = functional.interpolate(part, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
            part = part + torch.randn_like(part) * uniform(len(part), 0, 0.05)
            part = functional.interpolate(part, size=(MODEL_PX, MODEL_PX), mode="bicubic", align_corners=False)
        parts.append(part)
    noisy = torch.cat(parts)
    return (noisy + torch.randn_like(noisy) * uniform(len(noisy), 0, 0.03)).clamp(0, 1), torch.cat(across)


def central_light(pictures: Tensor) -> Tensor:
    """Return the mean light of the central eighth of the frame above the frame's dark level, (n,)."""
    low, high = MODEL_PX * 7 // 16, MODEL_PX * 9 // 16
    light = pictures.mean(1)
    dark = light.flatten(1).kthvalue(light[0].numel() // 10, dim=1).values
    return light[:, low:high, low:high].mean(dim=(1, 2)) - dark


def view(batch: Tensor, *, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Make one random view of uint8 (n, s, s, 3); return (n, 3, MODEL_PX, MODEL_PX) and the change of log2(R/B)."""
    pictures = geometry(batch.permute(0, 3, 1, 2).float() / 255)
    pictures, warmer = color(pictures, strength=strength)
    return degrade(pictures)[0], warmer
