"""One plot on a page: density in layers, hits as points, a rectangle that a person draws; what it sends back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from drawing.density import Window, ticks

HERE = Path(__file__).parent
HOW = "Drag to select; with keys: arrows move the selection, with Shift they size it, Enter takes it, Escape drops it."
_plot = st.components.v2.component(
    "galsearch_plot",
    html='<div class="plot"><div class="name y"></div><div class="axis y" aria-hidden="true"></div>'
    '<div class="area" tabindex="0" role="group"></div>'
    '<div class="axis x" aria-hidden="true"></div><div class="name x"></div></div>',
    css=(HERE / "plot.css").read_text(),
    js=(HERE / "plot.js").read_text(),
)


@dataclass(frozen=True)
class Frame:
    """A window of a plot, and how its numbers lie in the area: from 0 to 1, y from above."""

    window: Window
    flip_x: bool = False
    wrap: float | None = None  # what the numbers of the x axis are shown modulo

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where numbers of the axes lie."""
        across = (x - self.window.x0) / (self.window.x1 - self.window.x0)
        up = (y - self.window.y0) / (self.window.y1 - self.window.y0)
        return (1 - across if self.flip_x else across), 1 - up

    def holds(self, x: float, y: float) -> bool:
        """Say whether numbers of the axes lie in the area."""
        return self.window.x0 <= x <= self.window.x1 and self.window.y0 <= y <= self.window.y1

    def box(self, window: Window) -> dict[str, float]:
        """Return a window as a rectangle of the area."""
        (xa, ya), (xb, yb) = self.at(window.x0, window.y1), self.at(window.x1, window.y0)
        return {"x0": min(xa, xb), "x1": max(xa, xb), "y0": ya, "y1": yb}

    def window_of(self, box: dict[str, float]) -> Window:
        """Return a rectangle of the area in the numbers of the axes."""
        wide, high = self.window.x1 - self.window.x0, self.window.y1 - self.window.y0
        left, right = (1 - box["x1"], 1 - box["x0"]) if self.flip_x else (box["x0"], box["x1"])
        return Window(
            self.window.x0 + left * wide,
            self.window.x0 + right * wide,
            self.window.y0 + (1 - box["y1"]) * high,
            self.window.y0 + (1 - box["y0"]) * high,
        )

    def ticks(self) -> dict[str, list[dict[str, Any]]]:
        """Return where the numbers of both axes stand."""
        across = [
            {"at": self.at(value, self.window.y0)[0], "text": self._text(value, text)}
            for value, text in ticks(self.window.x0, self.window.x1)
        ]
        up = [
            {"at": self.at(self.window.x0, value)[1], "text": text}
            for value, text in ticks(self.window.y0, self.window.y1)
        ]
        return {"x": across, "y": up}

    def _text(self, value: float, text: str) -> str:
        digits = len(text.partition(".")[2])
        return text if self.wrap is None else f"{value % self.wrap:.{digits}f}"


@dataclass
class Drawing:
    """What a plot shows, everything in parts of the area: layers {src, kind}, points {id, label, x, y, src}."""

    label: str
    ratio: float = 1.4
    layers: list[dict[str, str]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    thumbs: list[dict[str, Any]] = field(default_factory=list)
    lines: list[list[list[float]]] | None = None
    ticks: dict[str, list[dict[str, Any]]] | None = None
    names: dict[str, str] | None = None
    brush: dict[str, float] | None = None
    selected: str | None = None


def draw(
    drawing: Drawing, *, key: str, brushed: Callable[[], None] | None = None, picked: Callable[[], None] | None = None
) -> None:
    """Draw it; callbacks find with `sent` what was "brushed" (a rectangle of the area or None) or "picked" (an id)."""
    _plot(
        key=key,
        data={**vars(drawing), "label": f"{drawing.label}. {HOW}"},
        on_brushed_change=brushed or _nothing,
        on_picked_change=picked or _nothing,
    )


def sent(key: str, event: str) -> Any:
    """Return what a plot sent with `event` in this run."""
    return st.session_state[key].get(event)


def _nothing() -> None:
    """Take no notice."""
