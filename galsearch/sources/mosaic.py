"""One large picture: its objects are cut out where a catalog says, or where sources are detected."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import schema
from galsearch.errors import GalsearchError, SchemaError
from galsearch.science import detection, images
from galsearch.sources.pictures import job_of_pixels
from galsearch.sources.tables import (
    MEASURES,
    Catalog,
    Source,
    must_have_ids,
    off_the_sky,
    own_table,
    without,
)
from galsearch.sources.workshop import Job

MATCH_PX = 4.0  # a catalog position takes the size of the detection within this many pixels
DEFAULT_RADIUS_PX = 8.0


@dataclass
class MosaicSource(Source):
    """Objects cut out of one picture, at a scale that follows their size; `light` is what is measured in a cutout."""

    rgb: np.ndarray = field(kw_only=True)
    light: np.ndarray = field(kw_only=True)

    def job(self, row: int) -> Job:
        """Cut out the picture of a row, at a scale that follows its size."""
        known = self.table.slice(row, 1).to_pylist()[0]
        x, y = known["x_px"], known["y_px"]
        radius, ratio = self._size(known, "radius_px"), self._size(known, "axis_ratio")
        size = min(detection.cutout_size(radius or DEFAULT_RADIUS_PX, ratio or 1.0), max(self.rgb.shape))
        return job_of_pixels(images.cutout(self.rgb, x, y, size), images.cutout(self.light, x, y, size))

    def _size(self, known: dict[str, Any], name: str) -> float | None:
        """Return what the catalog says of a size by that name, else what the detection has; None where neither does."""
        stated = (known.get(name), known.get(self.measures[name]))
        return next((each for each in stated if isinstance(each, (int, float)) and each > 0), None)


def mosaic_source(picture: images.Picture, rows: Catalog | None, *, inputs: dict[str, str], name: str) -> MosaicSource:
    """Cut a mosaic at the places of a catalog (ra and dec with a WCS, or x_px and y_px), or at its own detections."""
    rgb = images.render(picture)
    light = images.red_first(picture)
    detections = _detections_table(detection.detect(light), picture, name)
    light = rgb if picture.stretched else light
    problem = picture.position_problem
    noted = Counter([*picture.notes, *([f"no positions: {problem}"] if problem else [])])
    if rows is None:
        return MosaicSource(detections, inputs, [], rgb=rgb, light=light, picture_notes=noted)
    rows = _with_pixels(rows, picture)
    bad = _outside(rows.table, rgb.shape) | off_the_sky(rows.table)
    table, rejected, _ = without(rows, bad)
    table = _with_sizes(table, detections, rows.measures)
    return MosaicSource(
        table,
        inputs,
        rejected,
        rgb=rgb,
        light=light,
        measures=rows.measures,
        summary=rows.summary,
        picture_notes=noted,
    )


def _detections_table(result: dict[str, np.ndarray], picture: images.Picture, name: str) -> pa.Table:
    count = len(result["x_px"])
    width = max(4, len(str(count)))
    columns: dict[str, Any] = {"object_id": [f"{name}-{i:0{width}d}" for i in range(1, count + 1)]}
    columns |= {key: _nullable(value) for key, value in result.items()}
    if picture.celestial_wcs() is not None and count:
        sky = picture.sky_positions(result["x_px"], result["y_px"])
        columns |= {} if sky is None else {"ra": _nullable(sky[0]), "dec": _nullable(sky[1])}
        columns["radius_arcsec"] = np.asarray(result["radius_px"]) * picture.pixel_arcsec
    table = pa.table(columns)
    fields = [schema.arrow_field(item.name).with_type(item.type) for item in table.schema]
    return own_table(table.cast(pa.schema(fields)))


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)  # NaN becomes NULL


def _with_pixels(rows: Catalog, picture: images.Picture) -> Catalog:
    """Return the catalog with x_px and y_px: from its pixel columns, or from its positions where there is a WCS."""
    must_have_ids(rows)
    problem, pixels = picture.position_problem, rows.pixels
    has_pixels = picture.celestial_wcs() is not None and problem is None
    ra, dec = (rows.table[name].to_numpy(zero_copy_only=False) for name in ("ra", "dec"))
    on_the_sky = has_pixels and bool((np.isfinite(ra) & np.isfinite(dec)).any())
    if pixels is not None and (pixels.certain or not on_the_sky):
        table = _placed(rows.table, pixels.x, pixels.y)
        note = f"pixels are counted from {pixels.first} in {', '.join(pixels.columns)}, from 0 in x_px, y_px"
        summary = replace(rows.summary, pixels=pixels.columns, notes=(*rows.summary.notes, note))
        return replace(rows, table=_with_positions(table, picture) if has_pixels else table, summary=summary)
    at = picture.pixel_positions(ra, dec) if on_the_sky else None
    if at is None:
        lacking = "the catalog has no positions" if has_pixels else "the mosaic has no celestial WCS"
        lacking = f"the mosaic has no positions ({problem})" if problem else lacking
        raise SchemaError(
            f"{rows.name}: {lacking} and no pixel positions were found (x_px, y_px from 0; x, y; xcentroid, ycentroid; "
            "X_IMAGE, Y_IMAGE from 1): name the columns with --x and --y, or with --ra and --dec beside a WCS. There "
            f"are: {', '.join(rows.summary.columns)}"
        )
    return replace(rows, table=_placed(rows.table, *at))


def _placed(table: pa.Table, x: np.ndarray, y: np.ndarray) -> pa.Table:
    """Return the table with our x_px and y_px in the place of columns called so."""
    for name, values in (("x_px", x), ("y_px", y)):
        table = table.drop_columns([each for each in table.column_names if each.casefold() == name])
        table = table.append_column(schema.arrow_field(name), _nullable(values))
    return table


def _with_positions(rows: pa.Table, picture: images.Picture) -> pa.Table:
    """Give rows that have neither ra nor dec the position of their pixel."""
    x, y = (rows[name].to_numpy(zero_copy_only=False) for name in ("x_px", "y_px"))
    known = np.isfinite(x) & np.isfinite(y)
    sky = picture.sky_positions(x[known], y[known]) if known.any() else None
    if sky is None:
        return rows
    neither = pc.and_(pc.is_null(rows["ra"]), pc.is_null(rows["dec"]))
    for name, degrees in zip(("ra", "dec"), sky, strict=True):
        result = np.full(len(x), np.nan)
        result[known] = degrees
        column = pc.if_else(neither, pa.chunked_array([_nullable(result)]), rows[name])
        rows = rows.set_column(rows.column_names.index(name), rows.field(name), column)
    return rows


def _outside(rows: pa.Table, shape: tuple[int, ...]) -> dict[int, str]:
    bad = {}
    for row, (x, y) in enumerate(zip(rows["x_px"].to_pylist(), rows["y_px"].to_pylist(), strict=True)):
        if x is None or y is None or not (-0.5 <= x < shape[1] - 0.5 and -0.5 <= y < shape[0] - 0.5):
            where = "no position" if x is None or y is None else f"x {x:.0f}, y {y:.0f} is outside the mosaic"
            bad[row] = f"row {row + 1}: {where}"
    return bad


def _with_sizes(rows: pa.Table, detections: pa.Table, measures: Mapping[str, str]) -> pa.Table:
    """Give catalog rows the measured columns of the detection at their place; NULL where there is none."""
    from scipy.spatial import cKDTree

    def pixels(table: pa.Table) -> np.ndarray:
        return np.stack([table["x_px"].to_numpy(), table["y_px"].to_numpy()], axis=1)

    if not (rows.num_rows and detections.num_rows):
        return rows
    distance, position_index = cKDTree(pixels(detections)).query(pixels(rows), distance_upper_bound=MATCH_PX)
    nearest = pa.array(position_index, mask=~np.isfinite(distance))
    for name in MEASURES:
        if name in detections.column_names:
            field = detections.field(name).with_name(measures[name])
            rows = rows.append_column(field, detections[name].combine_chunks().take(nearest))
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
