"""How a picture is shown: which bands, between which levels, stretched and enlarged how. Pixels in, pixels out."""

from __future__ import annotations

import io
import os
from pathlib import Path

import limits
import numpy as np

import galsearch

STRETCHES = ("linear", "square root", "asinh", "logarithm")
SCALES = (2, 4, 8, 12, 16)
MOST_PIXELS = 1024  # of a side, once enlarged
# of files that may be picked: browsers know the last part of a suffix alone
UPLOADS = sorted({f".{suffix.rpartition('.')[2]}" for suffix in galsearch.PICTURE_SUFFIXES})


def stretched(pixels: np.ndarray, *, stretch: str, low: float, high: float, invert: bool = False) -> np.ndarray:
    """Return `pixels`, `(h, w[, 3])` of any numbers, as `uint8` of the same shape.

    `low` and `high` are percentiles of all finite pixels, which become black and white, the same for all bands so
    that colors stay; missing pixels are black.
    """
    finite = pixels[np.isfinite(pixels)]
    black, white = np.percentile(finite, [low, high]) if len(finite) else (0.0, 1.0)
    scaled = np.clip((pixels.astype(np.float64) - black) / ((white - black) or 1.0), 0, 1)  # in any unit of flux
    level = np.where(np.isfinite(pixels), scaled, 0.0)
    bent = {
        "linear": level,
        "square root": np.sqrt(level),
        "asinh": np.arcsinh(10 * level) / np.arcsinh(10),
        "logarithm": np.log1p(1000 * level) / np.log1p(1000),
    }[stretch]
    return np.rint(255 * (1 - bent if invert else bent)).astype(np.uint8)


def in_colors(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return numbers `(h, w)` as a picture from blue over white to red, and the numbers of pure blue and pure red.

    The ends are the 2nd and 98th percentile; a pixel without a number is dark gray, and without any all are.
    """
    known = np.isfinite(values)
    low, high = np.percentile(values[known], [2, 98]).tolist() if known.any() else (0.0, 1.0)
    level = np.clip((np.where(known, values, low) - low) / ((high - low) or 1.0), 0, 1)[..., None]
    blue, white, red = (np.array(color, np.float64) for color in ((40, 80, 220), (245, 245, 245), (210, 40, 40)))
    shown = np.where(level < 0.5, blue + (white - blue) * 2 * level, white + (red - white) * (2 * level - 1))
    return np.rint(np.where(known[..., None], shown, 50)).astype(np.uint8), low, high


def enlarged(pixels: np.ndarray, scale: int, *, smooth: bool) -> bytes:
    """Return a `uint8` picture as PNG, each pixel `scale` wide, or as wide as MOST_PIXELS allow; larger ones shrink."""
    from PIL import Image

    image = Image.fromarray(pixels)
    times = max(1, min(scale, MOST_PIXELS // max(image.size)))
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BOX)
    file = io.BytesIO()
    image.resize((image.width * times, image.height * times), how).save(file, format="PNG")
    return file.getvalue()


def thumbnail_bands(picture: bytes) -> dict[str, np.ndarray]:
    """Return the bands of a small picture by name, `(h, w) uint8` each; GalsearchError where it is none."""
    pixels = galsearch.decode_thumbnail(picture)
    return dict(zip(("red", "green", "blue"), np.moveaxis(pixels, 2, 0), strict=True))


def original_file(name: str | None) -> Path | None:
    """Return the picture file that an object came from, None where it is not at hand.

    It is looked for in the folder of the environment variable GALSEARCH_PICTURES and nowhere else: a name in a bundle
    that somebody sent must not make us read other files.
    """
    folder = os.environ.get("GALSEARCH_PICTURES")
    return _inside(Path(folder), name) if folder else None


def source_file(atlas: galsearch.Atlas, name: str | None) -> Path | None:
    """Return the picture file that an object came from, for `Atlas.render` alone; None where it is not at hand.

    It is looked for in the folders that the atlas was made of, as its provenance has them, and in GALSEARCH_PICTURES.
    They may be the words of a stranger: nothing is read there but pictures, in a worker, and only to be seen on this
    machine. Where two folders have a file of that name, which is meant is not known, and it is none of them.
    """
    if limits.PUBLIC:
        return None
    steps = [step for step in atlas.manifest.provenance if step.get("action") in ("build", "add")]
    stated = [step["parameters"].get("source") for step in steps if isinstance(step.get("parameters"), dict)]
    folders = {one for one in (*stated, os.environ.get("GALSEARCH_PICTURES")) if isinstance(one, str) and one}
    found = {path for folder in folders if (path := _inside(Path(folder), name)) is not None}
    return next(iter(found)) if len(found) == 1 else None


def _inside(folder: Path, name: str | None) -> Path | None:
    """Return the picture file of a name in a folder, None where there is none; never one outside of it."""
    if not name or "\0" in f"{folder}{name}" or not str(name).lower().endswith(galsearch.PICTURE_SUFFIXES):
        return None
    try:
        path, home = (folder / str(name)).resolve(), folder.resolve()
        return path if path.is_relative_to(home) and path.is_file() else None
    except OSError:  # a name that is too long, a folder that may not be looked into
        return None


def original_bands(path: Path) -> tuple[dict[str, np.ndarray], bool]:
    """Return the bands of a picture file by name, red first, `(h, w) float32` each, and whether it is for the eye.

    FITS is turned so that its first row, the southern one by custom, is the lowest. GalsearchError where it cannot be
    read, as at intake.
    """
    picture = galsearch.read_picture(path)
    is_fits = picture.header is not None
    return {name: plane[::-1] if is_fits else plane for name, plane in picture.planes.items()}, picture.stretched
