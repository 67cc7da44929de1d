"""A plot of one line as a picture, for eyes that see no web page: a spectrum with the names of its lines."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from galsearch.errors import SchemaError

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 46, 46
PAPER, INK, AXIS, NAMED = (255, 255, 255), (30, 60, 120), (90, 90, 90), (170, 60, 30)
CLIPPED = (0.5, 99.5)  # percentiles of the values, beyond which single pixels may leave the plot
ROWS_OF_NAMES = 3
LETTERS = str.maketrans(  # that the font does not have
    {"α": " alpha", "β": " beta", "γ": " gamma", "δ": " delta", "Å": "Angstrom", "²": "2", "λ": "lambda"}
)


def line_plot(
    x: np.ndarray,
    y: np.ndarray,
    *,
    title: str,
    x_title: str,
    y_title: str,
    names: Sequence[tuple[float, str]] = (),
) -> bytes:
    """Return a PNG of `y (n,)` over rising `x (n,)`; NaN interrupts the line.

    Where several points fall on one column of pixels, all between the least and the most of them is drawn, so that no
    narrow line is lost. `names` are positions on x that are marked, most important first: those without room are left
    out. Raises SchemaError where there are not two finite points.
    """
    from PIL import Image, ImageDraw

    good = np.isfinite(x) & np.isfinite(y)
    if np.count_nonzero(good) < 2 or not x[good][-1] > x[good][0]:
        raise SchemaError(f"{title}: there are no two points to draw")
    low, high = _limits(y[good])
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    across = _Axis(float(x[good][0]), float(x[good][-1]), LEFT, WIDTH - RIGHT)
    up = _Axis(low, high, HEIGHT - BOTTOM, TOP)
    _draw_axes(pen, across, up, x_title.translate(LETTERS), y_title.translate(LETTERS))
    _draw_names(pen, across, [(value, name.translate(LETTERS)) for value, name in names])
    _draw_line(pen, across, up, x, np.where(good, y, np.nan))
    pen.text((LEFT, 4), title, fill=(0, 0, 0), font=_font(14))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


class _Axis:
    """Values to pixels along one direction."""

    def __init__(self, low: float, high: float, first_px: int, last_px: int) -> None:
        self.low, self.high = low, high
        self._first, self._scale = first_px, (last_px - first_px) / (high - low)

    def px(self, value: float) -> float:
        return self._first + (value - self.low) * self._scale

    def ticks(self) -> list[float]:
        """Return about six round values inside."""
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(values, CLIPPED))
    high = max(high, float(np.sort(values)[-min(3, len(values))]))  # an emission line is few pixels, and more than one
    margin = 0.06 * (high - low) or max(abs(high), 1.0)
    return low - margin, high + margin


def _draw_axes(pen, across: _Axis, up: _Axis, x_title: str, y_title: str) -> None:
    pen.rectangle((LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM), outline=AXIS)
    for value in across.ticks():
        pen.line((across.px(value), HEIGHT - BOTTOM, across.px(value), HEIGHT - BOTTOM + 5), fill=AXIS)
        pen.text((across.px(value), HEIGHT - BOTTOM + 7), f"{value:g}", fill=AXIS, font=_font(12), anchor="ma")
    for value in up.ticks():
        pen.line((LEFT - 5, up.px(value), LEFT, up.px(value)), fill=AXIS)
        pen.text((LEFT - 8, up.px(value)), f"{value:.4g}", fill=AXIS, font=_font(12), anchor="rm")
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4), x_title, fill=AXIS, font=_font(12), anchor="md")
    pen.text((4, 24), y_title, fill=AXIS, font=_font(12))


def _draw_names(pen, across: _Axis, names: Sequence[tuple[float, str]]) -> None:
    taken: list[tuple[float, float, int]] = []
    for value, name in names:
        at, half = across.px(value), pen.textlength(name, font=_font(11)) / 2 + 2
        if not across.low < value < across.high:
            continue
        free = [
            row
            for row in range(ROWS_OF_NAMES)
            if all(at + half < left or at - half > right or row != other for left, right, other in taken)
        ]
        if free:
            taken.append((at - half, at + half, free[0]))
            pen.line((at, TOP + 1, at, HEIGHT - BOTTOM - 1), fill=(235, 215, 205))
            pen.text((at, TOP + 2 + 13 * free[0]), name, fill=NAMED, font=_font(11), anchor="ma")


def _draw_line(pen, across: _Axis, up: _Axis, x: np.ndarray, y: np.ndarray) -> None:
    columns = np.round([across.px(value) for value in x]).astype(int)
    before: tuple[int, float] | None = None
    for column in np.unique(columns):
        values = y[columns == column]
        if np.isnan(values).any():
            values = values[np.isfinite(values)]
            before = None if not len(values) else before
        if not len(values):
            continue
        ends = [min(max(up.px(value), TOP), HEIGHT - BOTTOM) for value in (values[0], values.min(), values.max())]
        if before is not None:
            pen.line((*before, column, ends[0]), fill=INK)
        pen.line((column, ends[1], column, ends[2]), fill=INK)
        before = (int(column), min(max(up.px(float(values[-1])), TOP), HEIGHT - BOTTOM))


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)
