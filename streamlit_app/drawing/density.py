"""How many objects lie where: counted by DuckDB in bins, and drawn as a picture, so that no object leaves the atlas."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import cuts
import numpy as np
from PIL import Image

STEPS = 200  # of a rectangle's side, to which the numbers of its condition are rounded
FAINTEST = 0.3  # opacity of one object where the fullest bin is opaque


@dataclass(frozen=True)
class Window:
    """A rectangle of a plot, in the numbers of its axes."""

    x0: float
    x1: float
    y0: float
    y1: float

    def text(self) -> str:
        """Return it as a URL has it."""
        return ",".join(f"{value:.10g}" for value in (self.x0, self.x1, self.y0, self.y1))

    @classmethod
    def of_text(cls, text: str) -> Window | None:
        """Return what a URL says; None where that is no rectangle."""
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            return None
        if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
            return None
        x0, x1, y0, y1 = numbers
        return cls(x0, x1, y0, y1) if _can_be_drawn(x0, x1) and _can_be_drawn(y0, y1) else None


def _can_be_drawn(low: float, high: float) -> bool:
    """Say whether an interval can be divided into bins: neither upside down, nor without end, nor a single number."""
    size = max(abs(low), abs(high))
    return low < high and size < 1e30 and high - low > max(1e-12 * size, 1e-30)


@dataclass(frozen=True)
class Axes:
    """Two SQL expressions over a table: `galaxies`, or one that has an object_id beside them.

    `flip_x` is for right ascension, which grows to the left; `name` is what the URL calls the plot. `x` or `y` may be
    the logarithm of an expression, which is then in `logs`; where `x` is a right ascension that was moved to lie beside
    others, `turned` says so.
    """

    name: str
    x: str
    y: str
    x_label: str
    y_label: str
    table: str = "galaxies"
    flip_x: bool = False
    logs: tuple[str | None, str | None] = (None, None)
    turned: bool = False

    def within(self, window: Window) -> str:
        """Return the condition, on `table`, to lie in a window."""
        return f"{self.x} BETWEEN {window.x0!r} AND {window.x1!r} AND {self.y} BETWEEN {window.y0!r} AND {window.y1!r}"

    def cut(self, window: Window) -> str:
        """Return the condition on `galaxies` to lie in a window, in numbers that somebody can read."""
        across = (
            _turned_range(window.x0, window.x1) if self.turned else _range(self.x, self.logs[0], window.x0, window.x1)
        )
        inside = " AND ".join(filter(None, [across, _range(self.y, self.logs[1], window.y0, window.y1)]))
        return (
            inside if self.table == "galaxies" else f"object_id IN (SELECT object_id FROM {self.table} WHERE {inside})"
        )

    def kept(self, condition: str) -> str:
        """Return a condition on `galaxies` as one on `table`."""
        if self.table == "galaxies" or condition == "true":
            return condition
        return f"object_id IN (SELECT object_id FROM galaxies WHERE {condition}\n)"

    def counts_sql(self, window: Window, bins: tuple[int, int], condition: str) -> str:
        """Return a SELECT of column i from the left, row j from below and the number of objects n of each full bin."""
        across, up = bins
        return (
            f"SELECT least(floor(({self.x} - {window.x0!r}) * {across / (window.x1 - window.x0)!r}), {across - 1})::INT"
            f" AS i, least(floor(({self.y} - {window.y0!r}) * {up / (window.y1 - window.y0)!r}), {up - 1})::INT AS j, "
            f"count(*) AS n FROM {self.table} WHERE {self.within(window)} AND ({self.kept(condition)}\n) GROUP BY ALL"
        )

    def range_sql(self, share: float) -> str:
        """Return a SELECT of the quantiles `share` and 1 - `share` of both axes: x0, x1, y0, y1."""
        parts = [
            f"quantile_cont({axis}, {at!r}) FILTER (isfinite(({axis})::DOUBLE))"
            for axis in (self.x, self.y)
            for at in (share, 1 - share)
        ]
        return f"SELECT {', '.join(parts)} FROM {self.table}"

    def places_sql(self, ids: list[str]) -> str:
        """Return a SELECT of object_id, x and y of objects."""
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in ids)
        return f"SELECT object_id, {self.x} AS x, {self.y} AS y FROM {self.table} WHERE object_id IN ({listed})"


def _range(sql: str, log_of: str | None, low: float, high: float) -> str | None:
    """Return the condition of one axis; that of a logarithm is written for the number itself."""
    step = (high - low) / STEPS
    if log_of is None or not -300 < low < high < 300:
        return cuts.range_sql(sql, low, high, step=step)
    return cuts.range_sql(log_of, 10.0**low, 10.0**high, step=10.0**low * (10.0 ** min(step, 1) - 1))


def _turned_range(low: float, high: float) -> str | None:
    """Return the condition that a right ascension lies between two, which may lie on either side of 0."""
    if high - low >= 360:
        return None
    low, high, step = low % 360, high % 360, min((high - low) % 360 / STEPS, 1e-3)
    if low <= high:
        return cuts.range_sql("ra", low, high, step=step)
    return f"({cuts.range_sql('ra', low, None, step=step)} OR {cuts.range_sql('ra', None, high, step=step)})"


def grid(i: np.ndarray, j: np.ndarray, n: np.ndarray, bins: tuple[int, int]) -> np.ndarray:
    """Return counts as a picture lies, `(rows, columns) int64`: the first row is the upper one."""
    found = np.zeros((bins[1], bins[0]), np.int64)
    found[bins[1] - 1 - j, i] = n
    return found


def picture(counts: np.ndarray, *, flip_x: bool = False) -> str:
    """Return counts as a data URL of a PNG whose opacity grows with their logarithm; the page gives it its color."""
    shade = np.zeros(counts.shape)
    full = counts > 0
    if full.any():
        top = math.log1p(counts.max())
        shade[full] = FAINTEST + (1 - FAINTEST) * np.log1p(counts[full]) / top
    if flip_x:
        shade = shade[:, ::-1]
    file = io.BytesIO()
    opacity = Image.fromarray(np.rint(255 * shade).astype(np.uint8))
    Image.merge("LA", (Image.new("L", opacity.size), opacity)).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def ticks(low: float, high: float, *, about: int = 5) -> list[tuple[float, str]]:
    """Return round numbers between two, about so many, with their text."""
    if not high > low:
        return []
    power = 10.0 ** math.floor(math.log10((high - low) / about))
    step = next(size * power for size in (1, 2, 5, 10) if (high - low) / (size * power) <= about + 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(place * step, f"{place * step + 0.0:.{digits}f}") for place in range(first, last + 1)]
