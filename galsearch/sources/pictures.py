"""Pictures made ready for an atlas: decoded, rendered, measured and shrunk.

The job of a picture is a file, or pixels that were cut out of a mosaic; `craft` says what worker processes do with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from galsearch.errors import SchemaError
from galsearch.science import detection, images, morphology
from galsearch.sources.workshop import Craft, Job, Prepared, contents, plain

FORM = (*morphology.COLUMNS, "morphology_flag")  # of what lies in the center of a cutout; a detection has none
MEASURED = (
    *(name for name in detection.COLUMNS if not name.startswith("is_") and name not in ("x_px", "y_px")),
    *FORM,
)
THUMBNAILS = "thumbnails"


def job_of_file(source: Path | bytes, *, name: str, ext: str | int | None, bands: tuple[str, ...] | None) -> Job:
    """Return the job of a picture file; `ext` and `bands` as `images.read_picture` has them."""
    facts = {"name": name, "ext": ext, "bands": None if bands is None else list(bands)}
    if isinstance(source, Path):
        return Job(b"", {**facts, "path": str(source.absolute())})
    return Job(bytes(source), facts)


def job_of_pixels(rgb: np.ndarray, light: np.ndarray) -> Job:
    """Return the job of a cutout: how it looks `(h, w, 3) uint8`, and what is measured `(h, w[, b])`."""
    light = np.ascontiguousarray(light)
    facts = {"rgb": list(rgb.shape), "light": list(light.shape), "dtype": light.dtype.str}
    return Job(np.ascontiguousarray(rgb).tobytes() + light.tobytes(), facts)


@dataclass(frozen=True)
class Taken:
    """One accepted object: its picture `(h, w, 3) uint8`, the columns measured on it, and what is to be told of it."""

    picture: np.ndarray
    columns: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def take(job: Job, *, measure: str = "full") -> Taken:
    """Read, render and measure the picture of a job. SchemaError when it cannot be used."""
    return _take_pixels(job, measure) if "rgb" in job.facts else _take_file(job, measure)


def _take_file(job: Job, measure: str) -> Taken:
    facts, bands = job.facts, job.facts["bands"]
    source = Path(facts["path"]) if "path" in facts else job.content
    picture = images.read_picture(
        source, name=facts["name"], ext=facts["ext"], bands=None if bands is None else tuple(bands)
    )
    rgb = images.render(picture)
    measured: dict[str, Any] = {}
    if measure != "none":
        light = rgb if picture.stretched else images.red_first(picture)
        values = detection.measure(light, form=measure == "full")
        measured = {name: values[name] for name in MEASURED if name in values}
    radius = measured.get("radius_px")
    on_the_sky = _on_the_sky(picture, radius if isinstance(radius, float) else None)
    problem = picture.position_problem
    return Taken(rgb, {**measured, **on_the_sky}, [*picture.notes, *([f"no position: {problem}"] if problem else [])])


def _on_the_sky(picture: images.Picture, radius_px: float | None) -> dict[str, float]:
    """Return the position of the picture's center and the radius in arcsec, where the picture has a WCS."""
    height, width = picture.flux.shape[:2]
    position = picture.sky_position((width - 1) / 2, (height - 1) / 2)
    known = {}
    if position is not None:
        if not np.isfinite(position).all():
            raise SchemaError(
                f"{picture.name}: its WCS puts its center nowhere on the sky; mend it or remove its CTYPE"
            )
        known = {"ra": position[0], "dec": position[1]}
    scale = picture.pixel_arcsec
    return known if radius_px is None or scale is None else {**known, "radius_arcsec": radius_px * scale}


def _take_pixels(job: Job, measure: str) -> Taken:
    shape, split = tuple(job.facts["rgb"]), int(np.prod(job.facts["rgb"]))
    rgb = np.frombuffer(job.content, np.uint8, split).reshape(shape)
    light = np.frombuffer(job.content, job.facts["dtype"], offset=split).reshape(job.facts["light"])
    if measure != "full":  # all but the form is known from the mosaic
        return Taken(rgb, {})
    measured = detection.measure(light)
    return Taken(rgb, {name: measured[name] for name in FORM})


# ---- in worker processes


def craft(*, size_px: int, measure: str) -> Craft:
    """Return what is done with pictures: shrunk to squares of `size_px` for an encoder, measured at a level."""
    return Craft(prepared, ready, {"size_px": size_px, "measure": measure}, partial(_unpacked, size_px=size_px))


def ready(payload: bytes) -> tuple[dict, bytes]:
    """Load what is needed to prepare a picture, before the limits of a process hold."""
    noise = np.random.default_rng(0).integers(0, 20, (40, 40, 3)).astype(np.uint8)
    noise[15:25, 15:25] = 200
    detection.measure(images.render(images.read_picture(images.encode_thumbnail(noise))))
    return {}, b""


def prepared(payload: bytes, *, jobs: list[dict[str, Any]], size_px: int, measure: str) -> tuple[dict, bytes]:
    """Prepare pictures, as a task of a worker process (`workshop.Craft`)."""
    facts: list[dict[str, Any]] = []
    parts = []
    for job in contents(payload, jobs):
        try:
            taken = take(job, measure=measure)
            shrunk = images.model_input([taken.picture], size_px).tobytes()
            thumbnail = images.encode_thumbnail(taken.picture)
        except SchemaError as error:
            facts.append({"problem": str(error)})
            continue
        parts += [shrunk, thumbnail]
        facts.append({"columns": plain(taken.columns), "notes": taken.notes, "thumbnail": len(thumbnail)})
    return {"pictures": facts}, b"".join(parts)


def _unpacked(stated: dict, content: bytes, *, size_px: int) -> Iterator[Prepared]:
    start, shape = 0, (size_px, size_px, 3)
    for facts in stated["pictures"]:
        if "problem" in facts:
            yield Prepared(None, {}, problem=facts["problem"])
            continue
        split, end = start + int(np.prod(shape)), start + int(np.prod(shape)) + facts["thumbnail"]
        shrunk = np.frombuffer(content[start:split], np.uint8).reshape(shape)
        yield Prepared(shrunk, facts["columns"], facts["notes"], {THUMBNAILS: content[split:end]})
        start = end
