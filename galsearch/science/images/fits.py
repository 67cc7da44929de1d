"""FITS pictures: which images of a file are light, and their pixels.

The module hides the habits of those who write FITS pictures; `fits_units` knows the layout of the file. Light is chosen
by an allow-list: what is called a weight, a mask, an uncertainty, a model or the like is never taken for a band unless
somebody names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from galsearch.science.bounded import bad
from galsearch.science.fits_units import Unit, image_values, scaling, scan
from galsearch.science.images.picture import Picture, band_wavelength

MOST_BANDS = 16
LIGHT = ("sci", "science", "image", "img", "data", "flux", "primary", "coadd", "signal", "compressed_image")
NOT_LIGHT = re.compile(
    r"errors?|err|stat|std|stdev|stddev|sigma|sig|unc|uncert(ainty)?|var|variance|ivar|invvar|inverse|rms|noise"
    r"|dq|mask|msk|maskbits|flags?|quality|qual|bad|badpix|bpm|pixmask"
    r"|wht|wgt|wt|weights?|wtmap|exp|expmap|exptime|exposure|nexp|time|samp|num|nobs|ncombine"
    r"|con|context|ctx|cov|coverage|footprint|area|psf|psfdepth|galdepth|depth|kernel"
    r"|wcscorr|wcsdvarr|d2imarr|hdrtab|asdf"
    r"|seg|segm|segmentation|segmap|models?|mod|blobmodel|resid|residuals?|res|chi2?|bkg|background|back|sky|skymodel"
)
ROLE_KEYS = ("EXTNAME", "DES_EXT", "IMTYPE", "HDUCLAS2")
_CHOICE = "name one with ext (--ext), or several with bands (--bands)"


def read_fits(content: bytes, name: str, *, ext: str | int | None, bands: Sequence[str] | None, values: int) -> Picture:
    """Return the light of a FITS file, at most `values` numbers of it; `ext` and `bands` say which.

    Raises SchemaError for a damaged file and where no image is light.
    """
    units = scan(content, name)
    chosen, names, notes = _choose(units, ext, bands, name)
    sizes = {unit.shape[-2:] for unit in chosen}
    if len(sizes) > 1:
        listed = ", ".join(str(size) for size in sorted(sizes))
        raise bad(name, f"its images have different sizes {listed}", "resample them to one grid or keep one a file")
    needed = sum(math.prod(unit.shape) for unit in chosen)
    if needed > values:
        raise bad(name, f"its pixels are {needed:,} values, and at most {values:,} are read", "cut it into tiles")
    planes = [_planes(content, unit, name, values) for unit in chosen]
    return replace(_stacked(units[0], chosen, planes, names, name), notes=tuple(notes))


# ---- which image is light


def _is_not_light(unit: Unit) -> bool:
    """Tell whether a name says that this is a weight, a mask, a model or the like."""
    words = [word for key in ROLE_KEYS for word in unit.words(key)]
    return any(NOT_LIGHT.fullmatch(word) or NOT_LIGHT.fullmatch(word.rstrip("0123456789")) for word in words)


def _light_rank(unit: Unit) -> int | None:
    """Return the place of its name in LIGHT, None where it does not say that it is light."""
    names = [words[0].rstrip("0123456789") for key in ROLE_KEYS if (words := unit.words(key))]
    ranks = [LIGHT.index(name) for name in names if name in LIGHT]
    return None if _is_not_light(unit) or not ranks else min(ranks)


def _band(unit: Unit) -> str | None:
    """Return the band that its own name or header says, None where none is known."""
    for key in ("FILTER", "BAND"):
        stated = str(unit.header.get(key, "")).strip()
        if stated and band_wavelength(stated) is not None:
            return stated
    name = str(unit.header.get("EXTNAME", "")).strip()
    parts = [name, *re.split(r"[^A-Za-z0-9]+", name)]
    return next((part for part in parts if part and band_wavelength(part) is not None), None)


def _choose(
    units: list[Unit], ext: str | int | None, bands: Sequence[str] | None, name: str
) -> tuple[list[Unit], list[str] | None, list[str]]:
    """Return the units to read, the names of their bands where somebody said them, and notes."""
    images = [unit for unit in units if unit.shape]
    if not images:
        kinds = ", ".join(str(unit.header.get("XTENSION", "primary header")) for unit in units)
        remedy = "give the table as the catalog, not as a picture"
        raise bad(name, f"the FITS file has no image (it has {kinds})", remedy)
    if ext is not None:
        return [_named_unit(units, ext, name)], _names(bands), []
    if bands is not None:
        named = [_unit_of_band(images, band) for band in bands]
        there = [unit for unit in named if unit is not None]
        if len(there) == len(named):
            return there, list(bands), []
        has_others = any(_band(unit) and not _is_not_light(unit) and len(unit.shape) == 2 for unit in images)
        if len(images) > 1 and (there or has_others):
            missing = [band for band, unit in zip(bands, named, strict=True) if unit is None]
            listed = ", ".join(unit.label if _is_not_light(unit) else _band(unit) or unit.label for unit in images)
            raise bad(name, f"it has no band {', '.join(missing)} (it has {listed})", "name those it has")
    banded, names = _banded(images)
    if banded and bands is None:
        return banded, names, []
    unit, notes = _first_light(images, name)
    return [unit], _names(bands), notes


def _names(bands: Sequence[str] | None) -> list[str] | None:
    return None if bands is None else list(bands)


def _listed(images: list[Unit]) -> str:
    return ", ".join(unit.label for unit in images)


def _named_unit(units: list[Unit], ext: str | int, name: str) -> Unit:
    """Return the unit that is called `ext`: a number from 0, a name, or a name with its version (SCI,2)."""
    stated, _, version = str(ext).strip().partition(",")
    if stated.isdecimal() and not version:
        result = units[int(stated)] if int(stated) < len(units) else None
    else:
        called = [unit for unit in units if str(unit.header.get("EXTNAME", "")).strip().casefold() == stated.casefold()]
        wanted = int(version) if version.strip().isdecimal() else 1
        result = next((unit for unit in called if unit.header.get("EXTVER", 1) == wanted), None)
        result = result or (called[0] if called and not version else None)
    if result is None or not result.shape:
        there = _listed([unit for unit in units if unit.shape])
        raise bad(name, f"it has no image {ext} (it has {there})", "name one of these with ext (--ext)")
    return result


def _unit_of_band(images: list[Unit], band: str) -> Unit | None:
    stated = band.strip().casefold()
    for unit in images:
        names = {str(unit.header.get(key, "")).strip().casefold() for key in ("EXTNAME", "FILTER", "BAND")}
        if (
            stated in names
            or (_band(unit) or "").casefold() == stated
            or (stated.isdecimal() and int(stated) == unit.number)
        ):
            return unit
    return None


def _banded(images: list[Unit]) -> tuple[list[Unit], list[str]]:
    """Return the units that are one band each and the bands, none where the file does not name two of one size."""
    light = [unit for unit in images if not _is_not_light(unit)]
    named = [(unit, band) for unit in light if len(unit.shape) == 2 and (band := _band(unit)) is not None]
    result, bands = [unit for unit, _ in named], [band for _, band in named]
    others = [unit for unit in light if unit not in result and _light_rank(unit) is not None]
    differ = len({band.casefold() for band in bands}) == len(bands)
    several = len(result) >= 2 and differ and len({unit.shape for unit in result}) == 1
    return (result, bands) if several and not others else ([], [])


def _first_light(images: list[Unit], name: str) -> tuple[Unit, list[str]]:
    """Return SCI or what else is called light, else the primary or the first image, and what was left out."""
    light = [unit for unit in images if not _is_not_light(unit)]
    if not light:
        raise bad(name, f"none of its images is light ({_listed(images)})", "take one all the same with ext (--ext)")
    ranked = sorted((u for u in light if _light_rank(u) is not None), key=lambda u: (_light_rank(u), u.number))
    unit = (ranked or light)[0]
    others = [other for other in light if other is not unit]
    if not others:
        return unit, []
    return unit, [f"took {unit.label} (number {unit.number}) and left out {_listed(others)}; {_CHOICE}"]


# ---- pixels


def _planes(content: bytes, unit: Unit, name: str, values: int) -> np.ndarray:
    """Return an image as (b, h, w) float32."""
    raw = image_values(content, unit, name, values)
    scale, zero, blank = scaling(unit, name)
    while raw.ndim > 2 and raw.shape[0] == 1:  # degenerate axes of radio images
        raw = raw[0]
    if raw.ndim == 2:
        raw = raw[None]
    elif raw.ndim == 3 and raw.shape[0] > MOST_BANDS and raw.shape[2] in (3, 4):
        raw = np.moveaxis(raw[:, :, :3], 2, 0)
    if raw.ndim != 3 or raw.shape[0] > MOST_BANDS:
        remedy = f"give 2-D images or (bands, height, width) of at most {MOST_BANDS} bands; collapse spectral cubes"
        raise bad(name, f"the FITS image has shape {raw.shape}", remedy)
    flux = np.empty(raw.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for plane, source in zip(flux, raw, strict=True):
            plane[...] = source if (scale, zero) == (1.0, 0.0) else source.astype(np.float64) * scale + zero
            if isinstance(blank, (int, float)):
                plane[source == blank] = np.nan
            plane[~np.isfinite(plane)] = np.nan
    return flux


def _stacked(
    primary: Unit, chosen: list[Unit], planes: list[np.ndarray], names: list[str] | None, name: str
) -> Picture:
    count = sum(map(len, planes))
    header = chosen[0].header
    if not any(key.startswith("CTYPE") for key in header) and not primary.shape:
        header = {**primary.header, **header}  # some writers leave the place on the sky in an empty primary header
    flux = np.ascontiguousarray(np.moveaxis(planes[0] if len(planes) == 1 else np.concatenate(planes), 0, 2))
    own: Sequence[str | None] = _band_names(chosen[0].header, count) if len(chosen) == 1 else [None] * count
    if own == [None]:
        own = _band_names(primary.header, 1)
    flux, bands = _with_names(flux, own, names, name)
    return Picture(flux, tuple(bands), name, header=header)


def _with_names(
    flux: np.ndarray, own: Sequence[str | None], names: list[str] | None, name: str
) -> tuple[np.ndarray, list[str]]:
    """Return the planes that are wanted by name; names that somebody gives to nameless planes are theirs in order."""
    bands = [band or f"band{number}" for number, band in enumerate(own, start=1)]
    if len(set(bands)) < len(bands):
        bands = [f"band{number}" for number in range(1, len(bands) + 1)]
    if names is None:
        return flux, bands
    requested = [
        next((i for i, band in enumerate(own) if (band or "").casefold() == n.casefold()), None) for n in names
    ]
    indices = [index for index in requested if index is not None]
    if len(indices) == len(names):
        return np.ascontiguousarray(flux[:, :, indices]), names
    if len(names) == len(bands) and not any(own):
        return flux, names
    raise bad(name, f"its bands are {', '.join(bands)}, and {', '.join(names)} are wanted", "name those it has")


def _band_names(header: dict[str, Any], count: int) -> Sequence[str | None]:
    """Return the band of each plane by header: BANDS 'grz', BAND0.., FILTER1.., FILTER, BAND."""
    together = str(header.get("BANDS", "")).replace(",", " ").strip()
    words = together.split() if " " in together else list(together)
    if len(words) == count:
        return words
    for key, first in (("BAND", 0), ("BAND", 1), ("FILTER", 0), ("FILTER", 1)):
        named = [str(header.get(f"{key}{first + step}", "")).strip() for step in range(count)]
        if count > 1 and all(named):
            return named
    result = next((str(header[key]).strip() for key in ("FILTER", "BAND") if str(header.get(key, "")).strip()), None)
    return [result] if count == 1 else [None] * count
