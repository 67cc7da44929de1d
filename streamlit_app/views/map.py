"""Map: the vectors laid out in a plane, any column against any other, and the sky; a part selected in one of them
is marked in all, and becomes a cut of the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import cuts
import limits
import numpy as np
import pyarrow as pa
import sketches
import streamlit as st
import widgets
from drawing import density, plot, sphere
from drawing.density import Axes, Window
from drawing.plot import Drawing, Frame
from inside import tables, written
from state import State, current

import galsearch

TITLE, ICON, ORDER = "Map", ":material/map:", 3
BINS, FEW_BINS = (280, 200), (140, 100)  # columns and rows; coarser where there are few objects to see
FEW = 5_000
MOST_POINTS = 200  # of the best hits
FACES = (8, 6)  # pictures across and up
SHOWN = 24  # of the selection
TRIM = 0.002  # of the objects on either side do not widen a plot
MARGIN = 0.04
RATIO = 1.4
NUMBERS = ("DOUBLE", "FLOAT", "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "HUGEINT", "DECIMAL")
BANDS = ("mag_u", "mag_g", "mag_r", "mag_i", "mag_z")
FIRST_AXES = (  # what is drawn at first: the first pair that the atlas has
    ("mag_r", "mag_g − mag_r"),
    ("mag_i", "mag_r − mag_i"),
    ("brightness", "color_br"),
    ("z", "mag_r"),
)
LOTZ = (
    -0.14,
    0.33,
)  # Gini = slope · M20 + this parts mergers, above, from others (Lotz et al. 2008, ApJ 672, 177, eq. 4)
PLANE, COLUMNS, SKY = "plane", "columns", "sky"


def needs(atlas: galsearch.Atlas) -> bool:
    """Every atlas has something to plot, or is told what is missing."""
    return True


class Layers(NamedTuple):
    """What is marked in every plot: SQL conditions on `galaxies`, and the best hits."""

    kept: str  # the cut and the selection
    hits: dict[str, str]  # object_id -> what is said of it
    faces: dict[str, bytes | str]


class Selection(NamedTuple):
    """A rectangle in one of the plots."""

    axes: Axes
    window: Window

    @property
    def sql(self) -> str:
        """The condition on `galaxies`."""
        return self.axes.cut(self.window)


def show(state: State) -> None:
    """Draw the page: all that it counts is one question in the line of visitors."""
    if st.session_state.pop("map_leaves", False):
        state.goto("search")
    if state.query.terms:
        state.hits()  # which waits for a turn of its own
    with limits.turn():
        draw(state)


def draw(state: State) -> None:
    """Draw what the page says and its plots."""
    plots = offered(state)
    if not plots and not has_plane(state):
        st.info("This atlas has no columns of numbers, no positions and no similarity map: nothing can be plotted.")
        return
    found = selection(state, plots)
    condition = state.condition()
    kept = condition if found is None else f"{condition} AND {found.sql}"
    summary(state, condition, found)
    layers = marked(state, kept)
    looked_at(state)
    left, right = st.columns(2, gap="medium")
    with left:
        plane_plot(state, plots, layers, found)
    with right:
        if COLUMNS in plots:
            columns_plot(state, plots[COLUMNS], layers, found)
    if SKY in plots:
        left, right = st.columns(2, gap="medium")
        with left:
            whole_sky(state, layers)
        with right:
            sky_plot(state, plots[SKY], layers, found)
    selected_pictures(state, found)


# ---- what there is to plot


def offered(state: State) -> dict[str, Axes]:
    """Return the plots with their axes that this atlas has something for."""
    found = {PLANE: plane_axes(state.atlas)} if has_plane(state) else {}
    if len(expressions(state.atlas)) > 1:
        found[COLUMNS], _ = column_axes(state)
    center = sky_center(written(state.atlas), state)
    return found | ({SKY: sky_axes(center)} if center is not None else {})


def has_plane(state: State) -> bool:
    """Say whether the atlas has a map of its vectors."""
    return plane_table(state.atlas) in tables(state.atlas)


def plane_table(atlas: galsearch.Atlas) -> str:
    """Return the table of the map of the main vectors, whether or not the atlas has it."""
    return f"map_{atlas.manifest.main_embedding}"


def plane_axes(atlas: galsearch.Atlas) -> Axes:
    """Return the axes of the map of the vectors; shares of the variance where it is of principal components."""
    about = atlas.manifest.embeddings[atlas.manifest.main_embedding].get("map", {})
    table = cuts.name(plane_table(atlas))
    if about.get("method") == "umap":
        return Axes(PLANE, "x", "y", "UMAP 1", "UMAP 2", table=table)
    shares = [f" ({share:.0%} of the variance)" for share in about.get("explained", ())]
    first, second = (
        f"{name} component{share}" for name, share in zip(("first", "second"), [*shares, "", ""], strict=False)
    )
    return Axes(PLANE, "x", "y", first, second, table=table)


def expressions(atlas: galsearch.Atlas) -> dict[str, str]:
    """Return what can be an axis, by its label: every column of numbers, and colors of neighboring bands."""
    columns = atlas.columns().to_pylist()
    names = [row["column"] for row in columns if row["type"].startswith(NUMBERS)]
    bands = [band for band in BANDS if band in names]
    colors = {f"{blue} − {red}": f"({cuts.name(blue)} - {cuts.name(red)})" for blue, red in pairwise(bands)}
    return {**{name: cuts.name(name) for name in names}, **colors}


def column_axes(state: State) -> tuple[Axes, tuple[str, str]]:
    """Return the axes of the two columns that the URL names, or of the first that fit, and the names of the two."""
    known = expressions(state.atlas)
    names = list(known)
    held = state.atlas.manifest.measure_column  # a user's column may have the name of a measure
    pairs = [tuple(held(name) or name for name in pair) for pair in FIRST_AXES]
    first = next((pair for pair in pairs if set(pair) <= set(names)), (names[0], names[1]))
    x, y = (state.param(axis, name) for axis, name in zip("xy", first, strict=True))
    x, y = x if x in known else first[0], y if y in known else first[1]
    said = state.param("log")
    units = {row["column"]: row["unit"] for row in state.atlas.columns().to_pylist()}
    labels = [f"{name} [{units[name]}]" if units.get(name) else name for name in (x, y)]
    logs = tuple(known[name] if axis in said else None for axis, name in (("x", x), ("y", y)))
    sides = [log_sql(known[name]) if log else known[name] for name, log in zip((x, y), logs, strict=True)]
    labels = [f"log {label}" if log else label for label, log in zip(labels, logs, strict=True)]
    return Axes(COLUMNS, *sides, *labels, logs=logs), (x, y)


def log_sql(sql: str) -> str:
    """Return the logarithm of an expression, NULL where it has none."""
    return f"log10(if({sql} > 0, {sql}, NULL))"


@st.cache_data(max_entries=16, show_spinner=False)
def sky_center(at: str, _state: State) -> float | None:
    """Return the mean direction of the objects in right ascension, 0 to 360; None where none has a position."""
    found = _state.atlas.sql(
        "SELECT count(ra) AS n, degrees(atan2(avg(sin(radians(ra))), avg(cos(radians(ra))))) AS center FROM galaxies"
    ).to_pylist()[0]
    return found["center"] % 360 if found["n"] else None


def sky_axes(center: float) -> Axes:
    """Return the axes of the sky about a right ascension; near it nothing is torn apart."""
    x = "ra" if 90 <= center <= 270 else f"(ra - 360 * round((ra - {center!r}) / 360))"
    return Axes(SKY, x, "dec", "right ascension [deg]", "declination [deg]", flip_x=True, turned=True)


# ---- the selection


def selection(state: State, plots: dict[str, Axes]) -> Selection | None:
    """Return the rectangle that the URL says; None where it is of a plot that is not there."""
    name, _, text = state.param("brush").partition(":")
    window = Window.of_text(text)
    return Selection(plots[name], window) if name in plots and window else None


def summary(state: State, condition: str, found: Selection | None) -> None:
    """Say what is marked, and offer to keep only that."""
    with st.container(horizontal=True, vertical_alignment="center", key="map_summary"):
        cut = f" · filter {widgets.code(state.query.where)}" if state.query.where else ""
        if found is None:
            passing = counted(written(state.atlas), condition, state)
            st.markdown(f"**{passing:,}** galaxies{cut} · drag over a plot to select a part of it", width="content")
            return
        inside = counted(written(state.atlas), f"{condition} AND {found.sql}", state)
        st.markdown(f"**{inside:,}** galaxies in the selection{cut}", width="content")
        see, keep = (partial(take, found.sql) for take in (see_selection, keep_selection))
        st.button("Show in Search", type="primary", icon=":material/search:", key="map_see", on_click=see)
        st.button("Filter to selection", icon=":material/filter_alt:", key="map_keep", on_click=keep)
        st.button("Zoom in", icon=":material/zoom_in:", key="map_zoom", on_click=zoom_in, args=(found,))
        st.button("Clear", type="tertiary", key="map_clear", on_click=take_brush, args=(None, None))
        with st.popover("SQL", icon=":material/database:", key="map_sql"):
            st.code(f"SELECT * FROM galaxies\nWHERE {condition} AND {found.sql}", language="sql", wrap_lines=True)


@st.cache_data(max_entries=256, show_spinner=False)
def counted(at: str, condition: str, _state: State) -> int:
    """Return how many objects pass a condition."""
    return _state.atlas.sql(f"SELECT count(*) AS n FROM galaxies WHERE {condition}\n")["n"][0].as_py()


def keep_selection(sql: str) -> None:
    """Make the selection a part of the filter."""
    current().add_cut(sql)
    current().set_param("brush", None)


def see_selection(sql: str) -> None:
    """Make the selection a part of the cut, and look at the search next."""
    keep_selection(sql)
    st.session_state.map_leaves = True


def zoom_in(found: Selection) -> None:
    """Draw only the selected part of its plot."""
    current().set_param(f"zoom_{found.axes.name}", found.window.text())
    current().set_param("brush", None)


def take_brush(axes: Axes | None, window: Window | None) -> None:
    """Select a part of a plot, or nothing."""
    current().set_param("brush", None if window is None else f"{axes.name}:{window.text()}")


def take_drawn(key: str, axes: Axes, frame: Frame) -> None:
    """Take the rectangle that a plot sent."""
    box = plot.sent(key, "brushed")
    take_brush(axes, None if box is None else frame.window_of(box))


def take_picked(key: str) -> None:
    """Look at the object that a plot sent."""
    current().select(plot.sent(key, "picked"))


def selected_pictures(state: State, found: Selection | None) -> None:
    """Draw the first of the selected objects; the best, where something is asked."""
    if found is None:
        return
    where = found.sql if state.query.where is None else f"({state.query.where}\n) AND {found.sql}"
    hits = state.atlas.search(replace(state.query, where=where, k=SHOWN))
    if not len(hits):
        st.info("Nothing lies in the selection. Draw it larger, or clear it.")
        return
    st.header("In the selection" + (", best first" if state.query.terms else ""), anchor=False)
    pictures = sketches.faces(state.atlas, hits.ids)
    widgets.gallery(
        [widgets.tile(hit, pictures.get(hit.object_id)) for hit in hits],
        {"picked": partial(take_tile, "map_gallery")},
        key="map_gallery",
        label="Objects in the selection",
        selected=state.selected,
    )


def take_tile(key: str) -> None:
    """Look at the object of a tile."""
    current().select(widgets.sent("picked", key=key))


def looked_at(state: State) -> None:
    """Draw the object that is looked at, with what can be done with it."""
    if state.selected is None or state.selected not in state.atlas:
        return
    galaxy = state.atlas[state.selected]
    picture = sketches.faces(state.atlas, [galaxy.object_id]).get(galaxy.object_id)
    with st.container(horizontal=True, vertical_alignment="center", border=True, gap="small", key="map_object"):
        if picture:
            widgets.image(picture, width_px=72, alt=widgets.describe(galaxy, picture))
        st.markdown(f"**{widgets.plain(galaxy.object_id)}**", width="content")
        if st.button("More like this", key="map_like", on_click=state.like, args=(galaxy.object_id,)):
            state.goto("search")
        if st.button("Open", key="map_open"):
            state.goto("object")
        st.button("Close", key="map_close", type="tertiary", on_click=state.select, args=(None,))


# ---- what is marked


def marked(state: State, kept: str) -> Layers:
    """Return what every plot marks."""
    if not state.query.terms:
        return Layers(kept, {}, {})
    hits = state.hits()[:MOST_POINTS]
    said = {
        hit.object_id: f"{place}. {hit.object_id}" + ("" if hit.score is None else f", score {hit.score:.3f}")
        for place, hit in enumerate(hits, start=1)
    }
    return Layers(kept, said, sketches.faces(state.atlas, hits[:60].ids))


@st.cache_data(max_entries=128, show_spinner=False)
def layer(at: str, axes: Axes, window: Window, condition: str, _state: State) -> str:
    """Return the density of what passes as a picture."""
    bins = BINS if len(_state.atlas) > FEW else FEW_BINS
    found = _state.atlas.sql(axes.counts_sql(window, bins, condition))
    i, j, n = (found[name].to_numpy() for name in ("i", "j", "n"))
    return density.picture(density.grid(i, j, n, bins), flip_x=axes.flip_x)


def layers_of(state: State, axes: Axes, window: Window, layers: Layers) -> list[dict[str, str]]:
    """Return the densities of all objects, and of those that are kept."""
    whole = layer(written(state.atlas), axes, window, "true", state)
    if layers.kept == "true":
        return [{"src": whole, "kind": "all"}]
    some = layer(written(state.atlas), axes, window, layers.kept, state)
    return [{"src": whole, "kind": "all muted"}, {"src": some, "kind": "some"}]


def points(state: State, axes: Axes, layers: Layers, at: Callable[[float, float], tuple[float, float] | None]) -> list:
    """Return the hits as points of a plot, the best drawn last; `at` says where, None is outside."""
    if not layers.hits:
        return []
    rows = state.atlas.sql(axes.places_sql(list(layers.hits))).to_pylist()
    places = {row["object_id"]: (row["x"], row["y"]) for row in rows if None not in (row["x"], row["y"])}
    drawn = []
    for name in reversed(layers.hits):
        place = at(*places[name]) if name in places else None
        if place is not None:
            picture = layers.faces.get(name)
            source = {"src": data} if (data := widgets.data_url(picture)) else {}
            drawn.append({"id": name, "label": layers.hits[name], "x": place[0], "y": place[1], **source})
    return drawn


def in_frame(frame: Frame, x: float, y: float) -> tuple[float, float] | None:
    """Return where numbers lie in the area; None where outside."""
    return frame.at(x, y) if frame.holds(x, y) else None


# ---- the plots


def plane_plot(state: State, plots: dict[str, Axes], layers: Layers, found: Selection | None) -> None:
    """Draw the map of the vectors: what looks alike lies together."""
    head("Similarity map", PLANE, state)
    if PLANE not in plots:
        st.info(
            "This atlas has no similarity map: it was made before there were such maps. "
            "`galsearch bundle` makes one when it writes the atlas anew.",
            icon=":material/scatter_plot:",
        )
        return
    axes = plots[PLANE]
    window = window_of(state, axes)
    with_images = sketches.has_images(state.atlas)
    thumbs = faces(state, axes, window, layers.kept) if with_images and state.param("pictures", "on") == "on" else []
    rectangle(state, axes, window, layers, found, label="Similarity map", thumbs=thumbs)
    if not with_images:
        return
    st.toggle(
        "Images",
        value=state.param("pictures", "on") == "on",
        key=f"map_pictures_{state.param('pictures', 'on')}",
        on_change=take_pictures,
        help="One for each part of the map.",
    )


def take_pictures() -> None:
    """Show or hide the pictures of the map."""
    now = current().param("pictures", "on")
    current().set_param("pictures", "off" if now == "on" else "on")


def faces(state: State, axes: Axes, window: Window, condition: str) -> list[dict]:
    """Return a picture for each part of the map: the object closest to the middle of the part."""
    rows = faces_in(written(state.atlas), axes, window, condition, state)
    pictures = state.atlas.thumbnails([row["id"] for row in rows])
    frame = Frame(window)
    return [
        {"src": source, "alt": "", "x": at[0], "y": at[1]}
        for row in rows
        if (source := widgets.data_url(pictures.get(row["id"]))) and (at := frame.at(row["x"], row["y"]))
    ]


@st.cache_data(max_entries=32, show_spinner=False)
def faces_in(at: str, axes: Axes, window: Window, condition: str, _state: State) -> list[dict]:
    """Return id, x and y of the object closest to the middle of each part of a window."""
    across, up = (window.x1 - window.x0) / FACES[0], (window.y1 - window.y0) / FACES[1]
    return _state.atlas.sql(
        f"SELECT best.id AS id, best.x AS x, best.y AS y FROM (SELECT min({{'away': away, 'id': object_id, 'x': x, "
        f"'y': y}}) AS best FROM (SELECT object_id, x, y, floor((x - {window.x0!r}) / {across!r}) AS i, "
        f"floor((y - {window.y0!r}) / {up!r}) AS j, pow((x - {window.x0!r}) / {across!r} - i - 0.5, 2) + "
        f"pow((y - {window.y0!r}) / {up!r} - j - 0.5, 2) AS away FROM {axes.table} "
        f"WHERE {axes.within(window)} AND ({axes.kept(condition)}\n)) GROUP BY i, j)"
    ).to_pylist()


def columns_plot(state: State, axes: Axes, layers: Layers, found: Selection | None) -> None:
    """Draw one column against another."""
    head("Scatter plot", COLUMNS, state)
    window = window_of(state, axes)
    lines = lotz_line(state, axes, window)
    rectangle(state, axes, window, layers, found, label=f"{axes.y_label} against {axes.x_label}", lines=lines)
    if lines:
        st.caption("Above the line lie most mergers, in the data of Lotz et al. (2008): G > −0.14 · M20 + 0.33.")
    names = list(expressions(state.atlas))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        for axis, name, log in zip("xy", column_axes(state)[1], axes.logs, strict=True):
            with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", width=260):
                key = f"map_{axis}_{name}"
                st.selectbox(
                    f"{axis} axis",
                    names,
                    index=names.index(name),
                    key=key,
                    on_change=take_column,
                    args=(axis, key),
                    width=180,
                )
                key = f"map_log_{axis}_{log is not None}"
                st.toggle("log", value=log is not None, key=key, on_change=take_log, args=(axis, axes))


def lotz_line(state: State, axes: Axes, window: Window) -> list[list[list[float]]] | None:
    """Return the line between mergers and others where Gini is plotted against M20, in parts of the area; else None."""
    held = state.atlas.manifest.measure_column
    if axes.logs != (None, None) or column_axes(state)[1] != tuple(held(one) or one for one in ("m20", "gini")):
        return None
    return straight_line(Frame(window), *LOTZ)


def straight_line(frame: Frame, slope: float, start: float) -> list[list[list[float]]] | None:
    """Return the part of y = slope · x + start that lies in a frame, in parts of the area; None where none does."""
    window = frame.window
    ends = sorted(((window.y0 - start) / slope, (window.y1 - start) / slope))
    left, right = max(window.x0, ends[0]), min(window.x1, ends[1])
    return [[list(frame.at(x, slope * x + start)) for x in (left, right)]] if left < right else None


def take_column(axis: str, key: str) -> None:
    """Plot another column."""
    current().set_param(axis, st.session_state[key])
    _forget_window()


def take_log(axis: str, axes: Axes) -> None:
    """Take the logarithm of an axis, or do not."""
    now = {name for name, log in zip("xy", axes.logs, strict=True) if log}
    current().set_param("log", "".join(sorted(now ^ {axis})) or None)
    _forget_window()


def _forget_window() -> None:
    """Drop what was said in the numbers of the axes of before."""
    current().set_param(f"zoom_{COLUMNS}", None)
    if current().param("brush").startswith(f"{COLUMNS}:"):
        current().set_param("brush", None)


def whole_sky(state: State, layers: Layers) -> None:
    """Draw the density on the whole sky in equal-area cells; what is drawn there is looked at more closely."""
    st.header("Whole sky", anchor=False)
    center = 180.0 if 90 <= sky_center(written(state.atlas), state) <= 270 else 0.0
    order = 5 if len(state.atlas) < 50_000 else 6
    sources = [
        (sky_layer(written(state.atlas), "true", order, center, state), "all" if layers.kept == "true" else "all muted")
    ]
    if layers.kept != "true":
        sources.append((sky_layer(written(state.atlas), layers.kept, order, center, state), "some"))
    key = "map_whole"
    axes = Axes(SKY, "ra", "dec", "", "")
    drawing = Drawing(
        f"Density of the objects on the sky, Mollweide projection about right ascension {center:g} degrees",
        ratio=2.0,
        layers=[{"src": source, "kind": kind} for source, kind in sources],
        lines=sphere.graticule(),
        points=points(state, axes, layers, partial(sphere.place, center=center)),
        selected=state.selected,
    )
    plot.draw(drawing, key=key, brushed=partial(take_sky, key, center), picked=partial(take_picked, key))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            f"Right ascension {center:g}° in the middle, growing to the left. HEALPix cells of "
            f"{sphere.width_deg(order):.1f}°. Drag to zoom.",
            width="content",
        )
        coverage(state, layers.kept)


@st.cache_data(max_entries=32, show_spinner=False)
def sky_layer(at: str, condition: str, order: int, center: float, _state: State) -> str:
    """Return the density on the sky as a picture."""
    cells, counts = sky_counts(_state, condition, order)
    held = np.zeros(12 * 4**order, np.int64)
    held[cells] = counts
    ra, dec, inside = sphere.sky_of_pixels(720, 360, center=center)
    shown = np.zeros(inside.shape, np.int64)
    shown[inside] = held[sphere.cell_of(ra, dec, order=order)]
    return density.picture(shown)


def sky_counts(state: State, condition: str, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells that hold an object, and how many."""
    found = state.atlas.sql(f"SELECT ra, dec FROM galaxies WHERE ({condition}) AND ra IS NOT NULL AND dec IS NOT NULL")
    cells = sphere.cell_of(found["ra"].to_numpy(), found["dec"].to_numpy(), order=order)
    return np.unique(cells, return_counts=True)


def coverage(state: State, condition: str) -> None:
    """Offer the cells that hold an object as a coverage map, which Aladin reads."""
    with st.popover("Coverage (MOC)", icon=":material/public:", key="map_moc"):
        sizes = {order: f"order {order}: cells of {60 * sphere.width_deg(order):.0f}′" for order in range(4, 11)}
        order = st.selectbox(
            "Cells", list(sizes), index=None, format_func=sizes.get, key="map_moc_order", on_change=state.acted
        )
        if order is None:
            st.caption(
                "The cells of the sky that hold at least one of the objects marked, for Aladin, TOPCAT or mocpy."
            )
            return
        cells, _ = sky_counts(state, condition, order)
        st.caption(f"{len(cells):,} cells, {len(cells) * sphere.width_deg(order) ** 2:,.2f} square degrees")
        st.download_button(
            "MOC, JSON",
            data=sphere.moc(cells, order=order),
            file_name="galsearch-moc.json",
            mime="application/json",
            icon=":material/download:",
            on_click="ignore",
        )


def take_sky(key: str, center: float) -> None:
    """Look closer at the part of the sky that was drawn."""
    box = plot.sent(key, "brushed")
    state = current()
    if box is None:
        state.set_param("zoom_sky", None)
        return
    middle = sky_center(written(state.atlas), state)
    window = sphere.window_of(box, center=center, about=180.0 if 90 <= middle <= 270 else middle)
    state.set_param("zoom_sky", window.text() if window else None)


def sky_plot(state: State, axes: Axes, layers: Layers, found: Selection | None) -> None:
    """Draw the sky where the objects are, true to scale in the middle."""
    head("Sky", SKY, state)
    window = window_of(state, axes)
    middle = (window.y0 + window.y1) / 2
    ratio = (window.x1 - window.x0) * np.cos(np.radians(middle)) / (window.y1 - window.y0)
    rectangle(
        state, axes, window, layers, found, label="The sky where the objects are", ratio=float(np.clip(ratio, 1.0, 2.0))
    )


def head(title: str, name: str, state: State) -> None:
    """Head a plot, with the way back from a part of it."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.header(title, anchor=False, width="content")
        if state.param(f"zoom_{name}"):
            st.button(
                "Zoom out",
                type="tertiary",
                icon=":material/zoom_out:",
                key=f"out_{name}",
                on_click=state.set_param,
                args=(f"zoom_{name}", None),
            )


def rectangle(
    state: State, axes: Axes, window: Window, layers: Layers, found: Selection | None, *, label: str, **more: object
) -> None:
    """Draw a plot with straight axes."""
    frame = Frame(window, axes.flip_x, 360.0 if axes.name == SKY else None)
    key = f"map_{axes.name}"
    here = found.window if found is not None and found.axes.name == axes.name else None
    drawing = Drawing(
        label,
        layers=layers_of(state, axes, window, layers),
        points=points(state, axes, layers, partial(in_frame, frame)),
        ticks=frame.ticks(),
        names={"x": axes.x_label, "y": axes.y_label},
        brush=None if here is None else frame.box(here),
        selected=state.selected,
        **more,
    )
    plot.draw(drawing, key=key, brushed=partial(take_drawn, key, axes, frame), picked=partial(take_picked, key))


# ---- windows


def window_of(state: State, axes: Axes) -> Window:
    """Return the part of a plot that the URL says, or all of it but stragglers."""
    said = Window.of_text(state.param(f"zoom_{axes.name}"))
    whole = said or extent(written(state.atlas), axes, state)
    return true_to_scale(whole) if axes.name == SKY else whole


@st.cache_data(max_entries=64, show_spinner=False)
def extent(at: str, axes: Axes, _state: State) -> Window:
    """Return where nearly all objects lie, with a margin."""
    x0, x1, y0, y1 = _range(_state.atlas.sql(axes.range_sql(TRIM)))
    return Window(*widened(x0, x1), *widened(y0, y1))


def _range(table: pa.Table) -> list[float]:
    """Return the four numbers of `Axes.range_sql`; those of an empty column are 0 and 1."""
    values = [column[0].as_py() for column in table.columns]
    return [float(at if value is None else value) for value, at in zip(values, (0, 1, 0, 1), strict=True)]


def widened(low: float, high: float) -> tuple[float, float]:
    """Return an interval with a margin; a single value gets one of its size."""
    more = MARGIN * (high - low) or max(abs(low), 1.0) / 2
    return low - more, high + more


def true_to_scale(window: Window) -> Window:
    """Return a window of the sky, widened so that a degree is as long across as up, in its middle."""
    y0, y1 = max(window.y0, -90.0), min(window.y1, 90.0)
    shrink = max(np.cos(np.radians((y0 + y1) / 2)), 0.05)
    wide, high = (window.x1 - window.x0) * shrink, y1 - y0
    if wide > RATIO * high:
        middle, half = (y0 + y1) / 2, wide / RATIO / 2
        y0, y1 = max(middle - half, -90.0), min(middle + half, 90.0)
    half = min(max(wide, RATIO * high) / shrink, 360.0) / 2
    middle = (window.x0 + window.x1) / 2
    return Window(float(middle - half), float(middle + half), float(y0), float(y1))
