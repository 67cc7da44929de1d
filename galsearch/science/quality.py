"""Image quality of a picture: what a detector or a pipeline does wrong and a galaxy does not, as a few numbers.

They are ratios or shares, so that neither brightness nor size of a picture counts; none has a threshold. What is
ordinary is for others to learn from ordinary pictures of the same survey (`science/novelty`).
"""

from __future__ import annotations

import numpy as np

MEASURES = (
    "empty_share",  # of pixels that are as dark as can be in every band
    "spike",  # largest step to all four neighbors over the picture's own spread of such steps
    "many_spikes",  # the same for the thousandth strongest
    "column_step",  # largest change of the mean from one column to the next, over their spread
    "row_step",
    "border_step",  # difference of the brightest and the darkest of the four borders, over the spread of the border
    "band_mismatch",  # 1 - least correlation of two bands
    "band_shift",  # the same for fine structure alone
)
DARK = 2.0  # of 255: as dark as can be, with what compression adds
LEAST_SPREAD = 0.5  # of 255: below it steps are those of rounding
BORDER_PX = 3


def measure(pixels: np.ndarray) -> np.ndarray:
    """Return the `MEASURES` of a picture `(h, w, 3) uint8`, `(8,) float64`; NaN for one below 8 pixels a side."""
    if min(pixels.shape[:2]) < 8:
        return np.full(len(MEASURES), np.nan)
    bands = np.ascontiguousarray(np.moveaxis(pixels, 2, 0), np.float32)  # plane by plane, which is three times as quick
    gray = bands.sum(axis=0) / np.float32(len(bands))
    spikes = _spikes(gray).ravel()
    ranks = (len(spikes) // 2, int(0.999 * len(spikes)), len(spikes) - 1)
    middle, thousandth, largest = np.partition(spikes, ranks)[list(ranks)].tolist()
    spread = max(middle, LEAST_SPREAD)
    fine = bands - _smoothed(bands)
    result = (
        float((bands.max(axis=0) <= DARK).mean()),
        float(np.log(max(largest, LEAST_SPREAD) / spread)),
        float(np.log(max(thousandth, LEAST_SPREAD) / spread)),
        _largest_step(gray.mean(axis=0, dtype=np.float64)),
        _largest_step(gray.mean(axis=1, dtype=np.float64)),
        _border_step(gray),
        _mismatch(bands),
        _mismatch(fine),
    )
    return np.array(result)


def _spikes(gray: np.ndarray) -> np.ndarray:
    """Return by how much each inner pixel differs from all of its four neighbors at least, above 0 or not at all."""
    down, across = np.abs(np.diff(gray, axis=0)), np.abs(np.diff(gray, axis=1))
    return np.minimum(
        np.minimum(down[:-1, 1:-1], down[1:, 1:-1]),
        np.minimum(across[1:-1, :-1], across[1:-1, 1:]),
    )


def _smoothed(bands: np.ndarray) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    return uniform_filter(bands, size=(1, 5, 5))


def _largest_step(means: np.ndarray) -> float:
    steps = np.abs(np.diff(means))
    return float(np.log(max(steps.max(), LEAST_SPREAD) / max(float(np.median(steps)), LEAST_SPREAD)))


def _border_step(gray: np.ndarray) -> float:
    sides = [gray[:BORDER_PX], gray[-BORDER_PX:], gray[:, :BORDER_PX], gray[:, -BORDER_PX:]]
    medians = [float(np.median(side)) for side in sides]
    spread = max(float(np.median([np.std(side) for side in sides])), LEAST_SPREAD)
    return float(np.log1p((max(medians) - min(medians)) / spread))


def _mismatch(bands: np.ndarray) -> float:
    """Return 1 less the least correlation of two planes of `(b, h, w)`; NaN where one of them is constant."""
    flat = bands.reshape(len(bands), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    products = flat @ flat.T
    lengths = np.sqrt(np.diag(products))
    if not (lengths > LEAST_SPREAD).all():
        return float("nan")
    return float(1 - (products / lengths[:, None] / lengths).min())
