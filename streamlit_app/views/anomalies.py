"""Anomalies: objects that are odd beside others, how much such a list is worth, and what is odd about each of them."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anomaly_lists
import anomaly_plots
import columns
import inside
import jobs
import limits
import numpy as np
import panel
import pyarrow as pa
import saving
import sketches
import streamlit as st
import widgets
from anomaly_lists import CANDIDATES, FIRST, MOST_LISTED, TABLE, Found
from anomaly_reasons import OF_CLASSES, OF_VECTORS, galaxies_of, show_why, way
from choices import number_of, segmented, selected, take, turn_pages
from conditions import condition_box
from links import MOST_WHERE, NOTHING, to_text
from state import PAGE_ROWS, State, current

import galsearch

TITLE, ICON, ORDER = "Anomalies", ":material/troubleshoot:", 2.8
JOB = "anomalies"
MOST_POPULATION = 20_000 if limits.PUBLIC else None  # some 20 seconds of work for one visitor
PIXELS_ROWS = 5_000  # of an atlas up to which pictures are decoded and measured unless said otherwise: 2 to 3 ms each
FIRST_N = 24
NEW, SAVED = "new", "saved"
SOURCES = {NEW: "New list", SAVED: "Saved lists"}
ALL, SEARCH = "all", "search"
LISTED = {ALL: "All of them", SEARCH: "What the search keeps"}
MODES = {FIRST: "The first", CANDIDATES: "Candidates only"}
RATES = (0.01, 0.05, 0.1, 0.2, 0.3)
FIRST_RATE = 0.1
ON, OFF = "on", "off"
FILES = (".csv", ".vot", ".fits", ".ecsv", ".parquet", ".json")


def needs(atlas: galsearch.Atlas) -> bool:
    """Objects are compared by vectors; lists that were kept are shown without."""
    return bool(atlas.manifest.embeddings) or TABLE in inside.tables(atlas)


class Asked(NamedTuple):
    """Whom to compare with whom; everything that decides p-values, and nothing else."""

    by: str
    among: str | None = None
    where: str | None = None
    near: tuple[float, float] | None = None
    radius_arcsec: float | None = None
    normals: str | None = None
    labels: str | None = None
    pixels: bool = True

    @property
    def detectors(self) -> tuple[str, ...] | None:
        """The detectors by name; None for all that have what they need."""
        return None if self.pixels else OF_VECTORS + (OF_CLASSES if self.labels else ())

    def options(self) -> dict[str, Any]:
        """Return the arguments of `Atlas.anomalies`."""
        given = {name: value for name, value in self._asdict().items() if name != "pixels" and value is not None}
        return given | ({} if self.detectors is None else {"detectors": self.detectors})


def show(state: State) -> None:
    """Draw the page."""
    try:
        runs = anomaly_lists.saved_runs(state)
    except galsearch.GalsearchError as error:  # a table that somebody bent: new lists can be made all the same
        widgets.failure(error)
        runs = []
    embeddings = sorted(state.atlas.manifest.embeddings, key=lambda name: name != state.atlas.manifest.main_embedding)
    sources = [name for name, there in ((NEW, embeddings), (SAVED, runs)) if there]
    source = state.param("source") if state.param("source") in sources else next(iter(sources), NEW)
    if len(sources) > 1:
        options = {name: SOURCES[name] for name in sources}
        segmented(state, "source", options, source, label="Lists", label_visibility="collapsed")
    if not sources:
        return
    try:
        found = saved_list(state, runs) if source == SAVED else new_list(state, embeddings)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    if found is not None:
        show_found(state, found)


# ---- what is asked


def new_list(state: State, embeddings: list[str]) -> Found | None:
    """Draw the settings and how far the work is; return the list that is there, of these settings or earlier ones."""
    st.caption(
        "What is unlike the others? Each object is compared with the rest, and a list says how many of it are expected "
        "to be ordinary. An odd object is a reason to look, not a result."
    )
    asked = settings(state, embeddings)
    job = jobs.of(JOB)
    running = job is not None and job.state == "running"
    if running:
        jobs.watch(JOB)
        st.caption("You may look at other pages meanwhile, or reload this one.")
    else:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="anomalies_run"):
            st.button(
                "Find odd objects",
                type="primary",
                icon=":material/play_arrow:",
                key="anomalies_start",
                on_click=begin,
                args=(asked,),
            )
            st.caption(
                f"At most {MOST_POPULATION:,} objects are compared here."
                if MOST_POPULATION
                else "Of thousands in seconds, of a million in minutes.",
                width="content",
            )
    told_problems(state, job)
    found = latest(state, job)
    if found is not None and found.key != key_of(state, asked) and not running:
        st.warning("The list is of the settings before; find odd objects again for these.", icon=":material/history:")
    return found


def told_problems(state: State, job: jobs.Job | None) -> None:
    """Say why the last request was not carried out."""
    if job is not None and job.state == "failed":
        st.session_state.anomalies_problem = job.error
        jobs.forget(JOB)
    problem = st.session_state.get("anomalies_problem") or state.problem
    if problem:
        widgets.failure(problem)
    if job is not None and job.state == "stopped":
        st.warning("Stopped; the list is as it was.", icon=":material/stop:")


def key_of(state: State, asked: Asked) -> tuple[Any, ...]:
    return inside.written(state.atlas), asked


def latest(state: State, job: jobs.Job | None) -> Found | None:
    """Return the last list of this atlas; one that failed or was stopped leaves the list before it."""
    if job is not None and job.state == "done":
        st.session_state.anomalies_found = job.result
    found = st.session_state.get("anomalies_found")
    return found if found is not None and found.key[0] == inside.written(state.atlas) else None


def settings(state: State, embeddings: list[str]) -> Asked:
    """Draw whom to compare with whom; what is chosen stands in the URL."""
    by = state.param("by") if state.param("by") in embeddings else embeddings[0]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="anomalies_settings"):
        if len(embeddings) > 1:
            selected(state, "by", embeddings, by, label="Compared by", width=180)
        listed = choose_listed(state)
        labels = choose_labels(state)
        pixels = choose_pixels(state, by)
    left, right = st.columns(2, gap="medium")
    with left:
        among = condition_box(
            state,
            "among",
            "Population (SQL)",
            empty="all objects",
            help="Those that are compared with each other: odd among barred spirals, say. Empty for all objects.",
        )
    with right:
        normals = condition_box(
            state,
            "normals",
            "Known normals (SQL)",
            empty="none are known",
            help="Objects of the population that are known to be ordinary: only they are compared with, and they are "
            "not listed. With some hundreds of them a low false discovery rate is possible.",
        )
    query = state.query
    kept = {"where": query.where, "near": query.near, "radius_arcsec": query.radius_arcsec} if listed == SEARCH else {}
    return Asked(by, among=among, normals=normals, labels=labels, pixels=pixels, **kept)


def choose_listed(state: State) -> str:
    """Draw which of the population are listed."""
    listed = state.param("listed", ALL) if state.param("listed", ALL) in LISTED else ALL
    query = state.query
    parts = [query.where] if query.where else []
    parts += [f"within {query.radius_arcsec:g} arcsec of {widgets.position(*query.near)}"] if query.near else []
    said = widgets.plain(" and ".join(parts)) or "all, as it has no filter and no cone now"
    about = f"Those of the population that are judged and listed. The page Search keeps: {said}."
    segmented(state, "listed", LISTED, listed, label="Listed", help=about)
    return listed


def choose_labels(state: State) -> str | None:
    """Draw the choice of a column of classes, where there is one."""
    names = [one.name for one in columns.choices(state.hash, state)]
    labels = state.param("labels") if state.param("labels") in names else None
    if names:
        selected(
            state,
            "labels",
            names,
            labels,
            label="Classes",
            width=180,
            placeholder="none",
            help="Adds detectors of what fits none of the classes.",
        )
    return labels


def choose_pixels(state: State, by: str) -> bool:
    """Draw whether stored pictures are measured, where they are what is compared."""
    small = len(state.atlas) <= PIXELS_ROWS
    if state.atlas.manifest.modality(by).name != "image":
        return True
    if limits.PUBLIC and not small:
        return False
    chosen = state.param("pixels", ON if small else OFF) == ON
    st.toggle(
        "Image quality",
        chosen,
        key=f"pixels_{chosen}",
        help="Also looks for artifacts in each stored picture, which takes 2 to 3 ms a picture.",
        on_change=take_pixels,
        args=(OFF if chosen else ON, ON if small else OFF),
    )
    return chosen


def take_pixels(value: str, first: str) -> None:
    current().set_param("pixels", None if value == first else value)


# ---- the work


def begin(asked: Asked) -> None:
    """Start looking, where the conditions are valid and the population is not too large for this place."""
    state = current()
    state.acted()
    state.problem = None
    st.session_state.anomalies_problem = None
    try:
        with limits.turn():
            for condition in (asked.normals, asked.where):
                state.atlas.count(condition)
            check_population(state.atlas.count(asked.among))
    except galsearch.GalsearchError as error:
        st.session_state.anomalies_problem = str(error)
        return
    state.set_param("part", None)
    jobs.start(JOB, "Looking for odd objects", partial(look, state.atlas, key_of(state, asked), asked))


def check_population(many: int) -> None:
    """Raise QueryError for more objects than a visitor may compare."""
    if MOST_POPULATION is not None and many > MOST_POPULATION:
        raise galsearch.QueryError(
            f"the population has {many:,} objects, and at most {MOST_POPULATION:,} are compared here; narrow it, or "
            "run `galsearch anomalies` on your own machine"
        )


def look(atlas: galsearch.Atlas, key: tuple[Any, ...], asked: Asked, progress: jobs.Progress) -> Found:
    """Return the oddest objects; of what judged them only the numbers are kept, as many sessions may keep some."""
    odd = atlas.anomalies(MOST_LISTED, **asked.options(), progress=progress)
    table = odd.table.drop_columns(["tier"])
    q = np.sort(odd.q_values[np.isfinite(odd.q_values)])
    about = {"embedding": odd.embedding, "detectors": list(odd.detectors), **asked.options()}
    histogram = anomaly_lists.histogram_of(odd.p_values)
    return Found(key, table, q, odd.tested, odd.normals, about, histogram)


# ---- lists that were kept


def saved_list(state: State, runs: list[dict[str, Any]]) -> Found | None:
    """Draw the choice of a list that is kept; return it."""
    names = [row["run"] for row in runs]
    run = state.param("run") if state.param("run") in names else names[0]
    row = runs[names.index(run)]
    key = f"anomalies_run_{names.index(run)}"
    st.selectbox(
        "List",
        names,
        names.index(run),
        format_func=lambda name: widgets.clean(anomaly_lists.run_text(runs[names.index(name)])),
        key=key,
        width=520,
        on_change=take,
        args=("run", key, names[0]),
    )
    st.caption(
        f"{widgets.plain(anomaly_lists.said_of(row['parameters']))} Lists are kept with `galsearch anomalies --save`, "
        "in the atlas folder: here nothing is written."
    )
    held, key = st.session_state.get("anomalies_saved"), (inside.written(state.atlas), run)
    if held is None or held.key != key:
        with limits.turn():
            held = st.session_state.anomalies_saved = anomaly_lists.read_saved(state.atlas, key, row)
    return held


# ---- the list


def show_found(state: State, found: Found) -> None:
    """Draw a list: what it is worth, where it ends, its objects."""
    fdr = next((rate for rate in RATES if f"{rate:g}" == state.param("fdr")), FIRST_RATE)
    mode = state.param("list", FIRST) if state.param("list", FIRST) in MODES else FIRST
    longest = len(found.table)
    n = min(number_of(state.param("n"), FIRST_N), longest)
    rows = found.listed(mode, n, fdr)
    st.header("Odd objects", anchor=False)
    st.markdown(widgets.plain(anomaly_lists.worth(found, rows, fdr)))
    if not longest:
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="anomalies_list"):
        segmented(state, "list", MODES, mode, label="List")
        key = f"anomalies_fdr_{fdr}"
        st.select_slider(
            "False discovery rate",
            RATES,
            fdr,
            key=key,
            width=200,
            help="Of a list of all candidates this share is expected to be ordinary.",
            on_change=take,
            args=("fdr", key, f"{FIRST_RATE:g}"),
        )
        if mode == FIRST and longest > 1:
            key = f"anomalies_n_{n}_{longest}"
            st.slider("How many", 1, longest, n, key=key, width=260, on_change=take, args=("n", key, f"{FIRST_N}"))
    anomaly_plots.show(state, found, len(rows), fdr)
    if len(rows):
        show_rows(state, found, rows)
        take_along(state, found, rows, fdr)


# ---- its objects


def show_rows(state: State, found: Found, rows: pa.Table) -> None:
    """Draw one page of the objects, and why the selected one is odd beside them."""
    last = (len(rows) - 1) // PAGE_ROWS
    part = min(number_of(state.param("part"), 1) - 1, last)
    page = rows.slice(part * PAGE_ROWS, PAGE_ROWS)
    ids = page["object_id"].to_pylist()
    every = rows["object_id"].to_pylist()
    with st.container(key="results"):
        left, right = st.columns([7, 3], gap="medium") if state.selected in every else (st.container(), None)
    with left:
        show_gallery(state, page, ids)
        if last:
            turn_pages("anomalies", part, last)
    if right is not None:
        with right, st.container(key="panel"):
            show_why(state, found, rows.slice(every.index(state.selected), 1))


def show_gallery(state: State, page: pa.Table, ids: list[str]) -> None:
    """Draw objects as tiles with tier, q-value and the detector that is most surprised."""
    galaxies = galaxies_of(state.atlas, ids)
    pictures = sketches.faces(state.atlas, [name for name in ids if name in galaxies])
    marked = state.sets.members(state.collection)
    tiles = [
        widgets.tile(
            galaxies[row["object_id"]],
            pictures.get(row["object_id"]),
            score=row["tier"],
            rank=f"q {row['q_value']:.2g}",
            note=widgets.clean(row["detector"]),
            mark=marked.get(row["object_id"], {}).get("mark"),
        )
        for row in page.select(["object_id", "tier", "q_value", "detector"]).to_pylist()
        if row["object_id"] in galaxies
    ]
    widgets.gallery(
        tiles,
        {"picked": take_picked, "marked": take_marked},
        key="anomalies_gallery",
        label=f"{len(tiles)} objects, the oddest first",
        selected=state.selected,
    )
    if len(tiles) < len(ids):
        st.caption(f"{len(ids) - len(tiles)} of the list are in this atlas no more.")


def take_picked() -> None:
    state, picked = current(), widgets.sent("picked", key="anomalies_gallery")
    state.select(None if picked == state.selected else picked)


def take_marked() -> None:
    current().mark_all(widgets.sent("marked", key="anomalies_gallery"))


# ---- taking it along


def take_along(state: State, found: Found, rows: pa.Table, fdr: float) -> None:
    """Draw what may be done with the list: a collection, a search, files, the same in Python and shell."""
    ids = rows["object_id"].to_pylist()
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center", key="anomalies_files"):
        st.button(
            f"Add these {len(ids):,} to “{widgets.plain(state.collection)}”",
            icon=":material/bookmark_add:",
            key="anomalies_add",
            on_click=take_add,
            args=(ids,),
        )
        where = where_of(ids)
        if where is not None:
            query = replace(NOTHING, where=where, k=len(ids))
            way(state, "search", "Open as a search", icon=":material/search:", query=to_text(query))
        for suffix in FILES[:3]:
            list_file(state, found, rows, fdr, suffix)
        with st.popover("More", icon=":material/download:", key="anomalies_formats"):
            for suffix in FILES[3:]:
                list_file(state, found, rows, fdr, suffix)
            st.caption("The columns are those of `galsearch anomalies`.")
    if found.key[-1:] and isinstance(found.key[-1], Asked):
        with st.expander("This list as a command", icon=":material/code:", key="anomalies_copies"):
            path = Path(state.atlas.path.name) if limits.PUBLIC else state.atlas.path
            st.code(as_command(found.key[-1], path, len(ids)), language="bash", wrap_lines=True)


def take_add(ids: list[str]) -> None:
    state = current()
    if state.attempt(state.sets.add, state.collection, ids):
        st.toast(f"Added to “{widgets.plain(state.collection)}”", icon=":material/bookmark_added:")


def where_of(ids: list[str]) -> str | None:
    """Return the condition that keeps these objects; None where a link cannot hold so many."""
    where = f"object_id IN ({', '.join(map(panel.literal, ids))})"
    return where if len(where) <= MOST_WHERE and len(ids) <= limits.MOST_K else None


def list_file(state: State, found: Found, rows: pa.Table, fdr: float, suffix: str) -> None:
    """Draw the button of one format."""
    manifest = state.atlas.manifest
    meta = {"title": "galsearch: anomalies", "atlas": manifest.title, "sources": manifest.sources}
    meta |= {"tested": found.tested, "normals": found.normals, "fdr": fdr, **found.about}
    content = partial(galsearch.table_bytes, rows, suffix, meta={k: v for k, v in meta.items() if v is not None})
    saving.file_button(suffix, content, key=f"anomalies{suffix}", name="anomalies")


def as_command(asked: Asked, path: Path, n: int) -> str:
    """Return the command that gives the same list."""
    parts = ["galsearch", "anomalies", str(path), "--budget", str(n)]
    for name, value in asked.options().items():
        flag = f"--{name.replace('_', '-')}"
        if name == "detectors":
            parts += [part for one in value for part in (flag, one)]
        else:
            parts += [flag, *map(repr, value)] if name == "near" else [flag, str(value)]
    return shlex.join(parts)
