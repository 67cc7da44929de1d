"""A spectrum on a page: in which frame and how smooth it is shown, its plot with others over it, its files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import saving
import sketches
import streamlit as st
import widgets
from drawing import spectrum as drawing
from state import State, current

import galsearch

SMOOTHING = (1, 3, 5, 9, 15, 31)
ON, OFF = "on", "off"
FILES = (".csv", ".fits", ".vot", ".ecsv", ".parquet")
UNITS = {"wavelength_angstrom": "Angstrom", "flux": "1e-17 erg / (s cm2 Angstrom)", "ivar": ""}
MOST_NOTES = 6
SKETCH = (760, 125)  # pixels of the spectrum of a neighbor


class View(NamedTuple):
    """How spectra are shown; `window` are two wavelengths in the frame, None for all that the first one has."""

    frame: str
    smooth: int
    lines: bool
    errors: bool
    window: tuple[float, float] | None

    def of(self, spectrum: galsearch.Spectrum) -> galsearch.Spectrum | None:
        """Return a spectrum as it is shown; None where nothing of it lies in the window."""
        shown = drawing.smoothed(drawing.in_frame(spectrum, self.frame), self.smooth)
        return shown if self.window is None else drawing.within(shown, *self.window)


def of(state: State, object_id: str) -> galsearch.Spectrum | None:
    """Return the spectrum of an object; None without one, and no file is opened where the atlas has none at all."""
    if sketches.embedding(state.atlas) is None:
        return None
    return state.atlas.spectra([object_id]).get(object_id)


def show(state: State, name: str, spectrum: galsearch.Spectrum, beside: Mapping[str, galsearch.Spectrum]) -> None:
    """Draw a spectrum with its controls, the spectra of `beside` over it."""
    frame = st.container(key="spectrum")
    view = controls(state, spectrum)
    main = view.of(spectrum)
    if main is None:
        frame.info("Nothing of this spectrum lies in the range.")
        return
    # one whose redshift is not known is in the other frame, and would lie beside its lines
    others = {
        widgets.clean(other): shown
        for other, one in beside.items()
        if view.frame in drawing.frames(one) and (shown := view.of(one)) is not None
    }
    label = widgets.clean(name)
    with frame:
        st.altair_chart(
            drawing.chart(label, main, others, lines=view.lines, band=view.errors),
            width="stretch",
            alt=drawing.in_words(label, main, others),
        )
        st.caption(about(spectrum, main, lines=view.lines))


def about(spectrum: galsearch.Spectrum, main: galsearch.Spectrum, *, lines: bool) -> str:
    """Return in Markdown what a reader of the plot must know."""
    z, snr = spectrum.z, spectrum.median_snr
    unknown = "redshift not known" + ("" if spectrum.frame == drawing.REST else ", so lines are not marked")
    parts = [unknown if z is None else f"z = {z:.5g}"]
    parts += [] if snr is None else [f"median S/N {snr:.3g} in a pixel"]
    parts.append(f"{len(main):,} pixels" + (", each point the mean of some" if len(main) > drawing.MOST_POINTS else ""))
    parts += ["errors estimated from the scatter of neighbors"] if spectrum.ivar_is_estimated else []
    parts += [spectrum.kind] if spectrum.kind else []
    told = " · ".join(map(widgets.plain, parts))
    marks = (
        ". Dashes are where lines lie at this redshift, whether they are seen or not."
        if lines and z is not None
        else ""
    )
    return told + marks


# ---- others beside it


def choose_beside(state: State, ids: Sequence[str], *, key: str) -> dict[str, galsearch.Spectrum]:
    """Draw which objects to draw over a spectrum, the first of them unless chosen; return their spectra."""
    offered = list(ids[: len(drawing.BESIDE)])
    chosen = st.pills(
        "Over it, scaled to its median",
        offered,
        selection_mode="multi",
        default=offered[:1],
        key=f"{key}_{'_'.join(offered)}",
        format_func=widgets.plain,
        on_change=state.acted,
    )
    return state.atlas.spectra(chosen) if chosen else {}


def sketch(object_id: str, spectrum: galsearch.Spectrum | None, before: str, behind: galsearch.Spectrum | None) -> None:
    """Draw the spectrum of an object small, before that of another."""
    source = None if spectrum is None else drawing.sketch(spectrum, behind, size=SKETCH)
    also = "" if behind is None else f" before that of {widgets.clean(before)}"
    widgets.image(source, alt=f"Spectrum of {widgets.clean(object_id)}{also}")


# ---- how it is shown


def controls(state: State, spectrum: galsearch.Spectrum) -> View:
    """Draw the controls; what they are set to stands in the URL."""
    frames = drawing.frames(spectrum)
    frame = state.param("frame") if state.param("frame") in frames else frames[0]
    smooth = next((one for one in SMOOTHING if str(one) == state.param("smooth")), SMOOTHING[0])
    lines, errors = (state.param(name, ON) != OFF for name in ("lines", "errors"))
    with st.container(horizontal=True, vertical_alignment="bottom", key="spectrum_controls"):
        if len(frames) > 1:
            key = f"frame_{frame}"
            label = "Frame"
            st.segmented_control(
                label, frames, default=frame, required=True, key=key, on_change=take_frame, args=(key,)
            )
        key = f"smooth_{smooth}"
        st.select_slider(
            "Smoothing (pixels)", SMOOTHING, smooth, key=key, width=170, on_change=take, args=("smooth", key)
        )
        window = range_slider(state, spectrum, frame)
        if spectrum.z is not None or spectrum.frame == drawing.REST:
            st.toggle("Lines", lines, key=f"lines_{lines}", on_change=take_switch, args=("lines", lines))
        st.toggle("Errors", errors, key=f"errors_{errors}", on_change=take_switch, args=("errors", errors))
    return View(frame, smooth, lines, errors, window)


def range_slider(state: State, spectrum: galsearch.Spectrum, frame: str) -> tuple[float, float] | None:
    """Draw the choice of a range of wavelengths; return it, None for all of them."""
    ends = drawing.in_frame(spectrum, frame).wavelength_angstrom[[0, -1]]
    low, high = math.floor(ends[0]), math.ceil(ends[1])
    window = window_of(state.param("range"), low, high)
    key = f"range_{frame}_{low}_{high}_{window}"
    step = max((high - low) // 500, 1)
    st.slider(
        "Range (Å)",
        low,
        high,
        window or (low, high),
        step,
        key=key,
        width=260,
        on_change=take_range,
        args=(key, low, high),
    )
    return window


def window_of(text: str, low: int, high: int) -> tuple[int, int] | None:
    """Return the range that a URL says; None for none, or one that is not a part of the spectrum."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() and len(part) <= 9 for part in parts):
        return None
    first, last = max(int(parts[0]), low), min(int(parts[1]), high)
    return (first, last) if first < last and (first, last) != (low, high) else None


def take(name: str, key: str) -> None:
    """Take what was chosen into the URL."""
    current().set_param(name, str(st.session_state[key]))


def take_frame(key: str) -> None:
    """Show the other frame, all of it: the range was in this one."""
    take("frame", key)
    current().set_param("range", None)


def take_switch(name: str, was: bool) -> None:  # noqa: FBT001  Streamlit passes positions
    """Turn a switch."""
    current().set_param(name, OFF if was else None)


def take_range(key: str, low: int, high: int) -> None:
    """Show a range of wavelengths; all of them where it is the whole."""
    first, last = st.session_state[key]
    current().set_param("range", None if (first, last) == (low, high) else f"{first},{last}")


# ---- files


def files(name: str, spectrum: galsearch.Spectrum) -> None:
    """Draw the files that a spectrum may be taken along in, with all its pixels."""
    with st.popover("Spectrum as a file", icon=":material/download:", key="spectrum_files"):
        for suffix in FILES:
            content = partial(as_file, name, spectrum, suffix)
            saving.file_button(suffix, content, key=f"spectrum{suffix}", name="spectrum")
        st.caption(f"As it is stored: vacuum wavelengths in the {spectrum.frame} frame; ivar 0 is no data.")


def as_file(name: str, spectrum: galsearch.Spectrum, suffix: str) -> bytes:
    """Return a spectrum as a file of a table."""
    arrays = {column: getattr(spectrum, column) for column in UNITS}
    units = UNITS | {"flux": UNITS["flux"] if spectrum.is_calibrated else ""}
    fields = [pa.field(column, pa.float64(), metadata={"unit": unit}) for column, unit in units.items()]
    table = pa.table([pa.array(values) for values in arrays.values()], schema=pa.schema(fields))
    z = "not known" if spectrum.z is None else f"{spectrum.z:.6g}"
    title = f"galsearch: spectrum of {widgets.clean(name)}, vacuum, {spectrum.frame} frame, redshift {z}"
    return galsearch.table_bytes(table, suffix, meta={"title": title})
