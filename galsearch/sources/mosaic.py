"""One large picture: its objects are cut out where a catalog says, or where sources are detected."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import images, morphology, schema
from galsearch.errors import GalsearchError, SchemaError
from galsearch.sources.tables import (
    FORM,
    MEASURED,
    Source,
    Taken,
    as_double,
    must_have_ids,
    normalize,
    off_the_sky,
    without,
)

MATCH_PX = 4.0  # a catalog position takes the size of the detection within this many pixels
DEFAULT_RADIUS_PX = 8.0


@dataclass
class MosaicSource(Source):
    """Objects cut out of one picture, at a scale that follows their size; `light` is what is measured in a cutout."""

    rgb: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))
    light: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8))

    def take(self, row: int) -> Taken:
        """Cut out the picture of a row and measure the form of the galaxy in it."""
        known = self.table.slice(row, 1).to_pylist()[0]
        x, y, radius, ratio = (known.get(name) for name in ("x_px", "y_px", "radius_px", "axis_ratio"))
        size = min(morphology.cutout_size(radius or DEFAULT_RADIUS_PX, ratio or 1.0), max(self.rgb.shape))
        measured = morphology.measure(images.cutout(self.light, x, y, size))
        return Taken(images.cutout(self.rgb, x, y, size), {name: measured[name] for name in FORM})


def mosaic_source(picture: images.Picture, rows: pa.Table | None, *, inputs: dict[str, str], name: str) -> MosaicSource:
    """Cut a mosaic at the places of a catalog (ra and dec with a WCS, or x_px and y_px), or at its own detections."""
    rgb = images.render(picture)
    light = images.red_first(picture)
    detections = _detections_table(morphology.detect(light), picture, name)
    light = rgb if picture.stretched else light
    if rows is None:
        return MosaicSource(detections, inputs, [], rgb, light)
    rows = _with_pixels(rows, picture)
    bad = _outside(rows, rgb.shape)
    rows, rejected, _ = without(rows, bad | off_the_sky(rows))
    return MosaicSource(_with_sizes(rows, detections), inputs, rejected, rgb, light)


def _detections_table(found: dict[str, np.ndarray], picture: images.Picture, name: str) -> pa.Table:
    count = len(found["x_px"])
    width = max(4, len(str(count)))
    columns: dict[str, Any] = {"object_id": [f"{name}-{i:0{width}d}" for i in range(1, count + 1)]}
    columns |= {key: _nullable(value) for key, value in found.items()}
    wcs = picture.celestial_wcs()
    if wcs is not None and count:
        place = wcs.pixel_to_world(found["x_px"], found["y_px"]).icrs
        columns |= {"ra": place.ra.deg, "dec": place.dec.deg}
        columns["radius_arcsec"] = np.asarray(found["radius_px"]) * picture.pixel_arcsec
    table = pa.table(columns)
    fields = [schema.arrow_field(item.name).with_type(item.type) for item in table.schema]
    return normalize(table.cast(pa.schema(fields)), id_column=None, name=name)


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)  # NaN becomes NULL


def _with_pixels(rows: pa.Table, picture: images.Picture) -> pa.Table:
    must_have_ids(rows)
    wcs = picture.celestial_wcs()
    if {"x_px", "y_px"} <= set(rows.column_names):
        rows = as_double(as_double(rows, "x_px", "the catalog"), "y_px", "the catalog")
        return rows if wcs is None else _with_positions(rows, wcs)
    if wcs is None:
        raise SchemaError(
            "the mosaic has no celestial WCS and the catalog no x_px, y_px: give one or the other, "
            "positions cannot be guessed"
        )
    x, y = _to_pixels(wcs, *(rows[name].to_numpy(zero_copy_only=False) for name in ("ra", "dec")))
    x_px, y_px = schema.arrow_field("x_px"), schema.arrow_field("y_px")
    return rows.append_column(x_px, _nullable(x)).append_column(y_px, _nullable(y))


def _to_pixels(wcs, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel positions counted from 0, NaN where there is no position or it has no place in the projection."""
    from astropy.coordinates import SkyCoord

    x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
    known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    if known.any():
        x[known], y[known] = wcs.world_to_pixel(SkyCoord(ra[known], dec[known], unit="deg", frame="icrs"))
    return x, y


def _with_positions(rows: pa.Table, wcs) -> pa.Table:
    """Give rows that have neither ra nor dec the position of their pixel."""
    x, y = (rows[name].to_numpy(zero_copy_only=False) for name in ("x_px", "y_px"))
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return rows
    place = wcs.pixel_to_world(x[known], y[known]).icrs
    neither = pc.and_(pc.is_null(rows["ra"]), pc.is_null(rows["dec"]))
    for name, degrees in (("ra", place.ra.deg), ("dec", place.dec.deg)):
        found = np.full(len(x), np.nan)
        found[known] = degrees
        column = pc.if_else(neither, pa.chunked_array([_nullable(found)]), rows[name])
        rows = rows.set_column(rows.column_names.index(name), rows.field(name), column)
    return rows


def _outside(rows: pa.Table, shape: tuple[int, ...]) -> dict[int, str]:
    bad = {}
    for row, (x, y) in enumerate(zip(rows["x_px"].to_pylist(), rows["y_px"].to_pylist(), strict=True)):
        if x is None or y is None or not (0 <= x < shape[1] and 0 <= y < shape[0]):
            bad[row] = "no position" if x is None or y is None else f"x {x:.0f}, y {y:.0f} is outside the mosaic"
    return bad


def _with_sizes(rows: pa.Table, detections: pa.Table) -> pa.Table:
    """Give catalog rows the measured columns of the detection at their place; NULL where there is none."""
    from scipy.spatial import cKDTree

    def pixels(table: pa.Table) -> np.ndarray:
        return np.stack([table["x_px"].to_numpy(), table["y_px"].to_numpy()], axis=1)

    if not (rows.num_rows and detections.num_rows):
        return rows
    distance, place = cKDTree(pixels(detections)).query(pixels(rows), distance_upper_bound=MATCH_PX)
    index = pa.array(place, mask=~np.isfinite(distance))
    for name in (*MEASURED, "radius_arcsec", "is_star", "is_artifact", "is_edge"):
        if name in detections.column_names and name not in rows.column_names:
            rows = rows.append_column(detections.field(name), detections[name].combine_chunks().take(index))
    return rows


def demo_source() -> MosaicSource:
    """Return the Hubble eXtreme Deep Field picture that scikit-image carries, with its sources detected.

    It has no WCS, so ra and dec stay NULL.
    """
    try:
        from skimage import data
    except ImportError:
        raise GalsearchError("the demo's picture comes with scikit-image: pip install 'galsearch[demo]'") from None
    pixels = data.hubble_deep_field()
    inputs = {"skimage.data.hubble_deep_field": hashlib.sha256(pixels.tobytes()).hexdigest()}
    picture = images.Picture(pixels.astype(np.float32) / 255, ("R", "G", "B"), name="xdf", stretched=True)
    return mosaic_source(picture, None, inputs=inputs, name="xdf")
