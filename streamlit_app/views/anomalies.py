"""Anomalies: objects that are odd beside others, how much such a list is worth, and what is odd about each of them."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import columns
import cuts
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
from links import FIRST_K, MOST_WHERE, NOTHING, to_text
from state import PAGE_ROWS, State, current

import galsearch

TITLE, ICON, ORDER = "Anomalies", ":material/troubleshoot:", 2.8
JOB, TABLE = "anomalies", "anomalies"
MOST_LISTED = 200 if limits.PUBLIC else 1_000  # objects with reasons; p-values are of all that were judged
MOST_POPULATION = 20_000 if limits.PUBLIC else None  # some 20 seconds of work for one visitor
PIXELS_ROWS = 5_000  # of an atlas up to which pictures are decoded and measured unless said otherwise: 2 to 3 ms each
FIRST_N = 24
NEW, SAVED = "new", "saved"
SOURCES = {NEW: "New list", SAVED: "Saved lists"}
ALL, SEARCH = "all", "search"
LISTED = {ALL: "All of them", SEARCH: "What the search keeps"}
FIRST, CANDIDATES = "first", "candidates"
MODES = {FIRST: "The first", CANDIDATES: "Candidates only"}
RATES = (0.01, 0.05, 0.1, 0.2, 0.3)
FIRST_RATE, HALF = 0.1, 0.5  # HALF ends the near-misses
TIERS = {"candidate": "#d55e00", "near-miss": "#3a8fd0", "normal": "#888888"}  # differ for color-blind people too
ON, OFF = "on", "off"
OF_VECTORS = ("knn", "mahalanobis", "isolation_forest", "reconstruction")
OF_CLASSES = ("mahalanobis_classes", "mahalanobis_relative", "softmax", "energy")
DETECTORS = {  # name -> what it sees
    "knn": "far from all neighbors",
    "mahalanobis": "far from the mean",
    "isolation_forest": "few cuts set it apart",
    "reconstruction": "not made of usual parts",
    "mahalanobis_classes": "far from every class",
    "mahalanobis_relative": "farther from classes than from the mean",
    "softmax": "no class is probable",
    "energy": "little evidence of any class",
    "columns": "unusual measures",
    "pixels": "image quality",
}
FILES = (".csv", ".vot", ".fits", ".ecsv", ".parquet", ".json")
CURVE_PX = 260
NEAR_PX, PORTRAIT_PX = 76, 120  # pictures of a normal and of the object


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


@dataclass(frozen=True)
class Found:
    """A list, the oddest first: its rows with reasons, and the numbers of all that were judged.

    `normals` is None where it is not known, `least_q` the least q-value that a list of `len(table)` can have.
    """

    key: tuple[Any, ...]
    table: pa.Table
    q_values: np.ndarray  # of all that were judged, ascending
    tested: int
    normals: int | None
    about: dict[str, Any]

    @property
    def least_q(self) -> float | None:
        """The least q-value that the longest list here can have; None where it is not known."""
        if self.normals is None or not len(self.table):
            return None
        return min(1.0, self.tested / (self.normals + 1) / len(self.table))

    def count(self, above: float, up_to: float) -> int:
        """Return how many q-values of all that were judged lie above one number and up to another."""
        return int(((self.q_values > above) & (self.q_values <= up_to)).sum())

    def listed(self, mode: str, n: int, fdr: float) -> pa.Table:
        """Return the rows of a list, with the tier that each has at a rate."""
        q = self.table["q_value"].to_numpy()
        last = int((q <= fdr).sum()) if mode == CANDIDATES else n
        rows = self.table.slice(0, last)
        at = rows.column_names.index("q_value") + 1
        return rows.add_column(at, "tier", pa.array([tier(value, fdr) for value in q[:last]], pa.string()))


def tier(q: float, fdr: float) -> str | None:
    """Return what an object of a q-value is called at a rate; None without a q-value."""
    if math.isnan(q):
        return None
    return "candidate" if q <= fdr else "near-miss" if q <= HALF else "normal"


def show(state: State) -> None:
    """Draw the page."""
    try:
        runs = saved_runs(state)
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


def segmented(state: State, name: str, options: dict[str, str], said: str, *, label: str, **more: Any) -> None:
    """Draw a choice of a few that stands in the URL."""
    key = f"anomalies_{name}_{said}"
    st.segmented_control(
        label,
        list(options),
        default=said,
        required=True,
        format_func=options.get,
        key=key,
        on_change=take,
        args=(name, key, next(iter(options))),
        **more,
    )


def selected(
    state: State, name: str, options: list[str], said: str | None, *, label: str, width: int, **more: Any
) -> None:
    """Draw a choice of names that stands in the URL."""
    place = None if said is None else options.index(said)
    key = f"anomalies_{name}_{place}"
    first = options[0] if "placeholder" not in more else ""
    st.selectbox(
        label,
        options,
        place,
        format_func=widgets.clean,
        key=key,
        width=width,
        on_change=take,
        args=(name, key, first),
        **more,
    )


def take(name: str, key: str, first: str) -> None:
    """Take what was chosen into the URL; what is so at the start is not said. The list begins at its first page."""
    value, state = st.session_state[key], current()
    state.set_param(name, None if value is None or str(value) == first else str(value))
    state.set_param("part", None)
    st.session_state.anomalies_problem = state.problem = None


# ---- conditions


def condition_box(state: State, name: str, label: str, *, empty: str, help: str) -> str | None:
    """Draw a box for a condition, how many objects pass it, and what it may use; return the last valid one."""
    said, key = state.param(name), f"anomalies_{name}"
    if st.session_state.get(f"{key}_shown") != said or key not in st.session_state:
        st.session_state[key] = st.session_state[f"{key}_shown"] = said
        st.session_state[f"{key}_problem"] = None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", key=f"{key}_box"):
        st.text_input(
            label,
            key=key,
            max_chars=MOST_WHERE,
            help=help,
            placeholder=empty,
            on_change=take_condition,
            args=(name, key),
        )
        with st.popover("Columns", key=f"{key}_columns"):
            widgets.column_list(columns.every(state.hash, state))
        choices = columns.choices(state.hash, state)
        if choices:
            with st.popover("Values", key=f"{key}_values"):
                for number, choice in enumerate(choices):
                    value_pills(name, f"{key}_{number}", choice, said or None)
    problem = st.session_state[f"{key}_problem"]
    if problem:
        widgets.failure(problem)
        st.caption(f"What counts is {widgets.code(said)}." if said else "What counts is the box empty.")
    elif said:
        st.caption(passing_text(state, said))
    return said or None


def value_pills(name: str, key: str, choice: columns.Choice, condition: str | None) -> None:
    """Draw the values of a column, those that the condition keeps chosen."""
    values, taken = dict(choice.values), cuts.values_of(condition, choice.name)
    st.session_state[key] = [value for value in values if value in taken]
    st.pills(
        widgets.plain(choice.name),
        list(values),
        selection_mode="multi",
        key=key,
        format_func=lambda value: widgets.plain(f"{value} · {values[value]:,}"),
        on_change=take_values,
        args=(name, key, choice.name),
    )


def take_values(name: str, key: str, column: str) -> None:
    """Keep only these values of a column; the box is filled anew."""
    state = current()
    state.set_param(name, cuts.with_values(state.param(name) or None, column, list(st.session_state[key])))
    st.session_state.anomalies_problem = None


def take_condition(name: str, key: str) -> None:
    """Take a condition into the URL; one that is not valid leaves the one before."""
    state, text = current(), st.session_state[key].strip()
    state.acted()
    try:
        count(state, text)
    except galsearch.GalsearchError as error:
        st.session_state[f"{key}_problem"] = str(error)
        return
    state.set_param(name, text)
    st.session_state[f"{key}_shown"], st.session_state[f"{key}_problem"] = text, None
    st.session_state.anomalies_problem = None


def count(state: State, condition: str | None) -> int:
    """Return how many objects pass a condition, in this session's turn; counted once while it stays."""
    if not condition:
        return len(state.atlas)
    held, key = st.session_state.setdefault("anomalies_counts", {}), (inside.written(state.atlas), condition)
    if key not in held:
        with limits.turn():
            many = state.atlas.count(condition)
        if len(held) > 20:
            held.clear()
        held[key] = many
    return held[key]


def passing_text(state: State, condition: str) -> str:
    """Return how many objects pass; why they were not counted, where they were not."""
    try:
        return f"{count(state, condition):,} of {len(state.atlas):,} objects pass"
    except galsearch.GalsearchError as error:
        return f"Not counted: {widgets.plain(widgets.public(str(error)))}"


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
    return Found(key, table, q, odd.tested, odd.normals, about)


# ---- lists that were kept


def saved_runs(state: State) -> list[dict[str, Any]]:
    """Return the lists that the atlas keeps, the last first, with what was asked where provenance says it."""
    if TABLE not in inside.tables(state.atlas):
        return []
    rows = state.sql(
        "SELECT run, max(created) AS created, max(embedding) AS embedding, count(*) AS objects "
        f"FROM {TABLE} GROUP BY run ORDER BY created DESC, run DESC"
    ).to_pylist()
    return [row | {"asked": asked_of(state.atlas, row["run"])} for row in rows if row["run"] is not None]


def asked_of(atlas: galsearch.Atlas, run: str) -> dict[str, Any]:
    """Return the parameters of a list that is kept; {} where they are not known."""
    for step in atlas.manifest.provenance:
        said = step.get("parameters")
        if step.get("action") == "anomalies" and isinstance(said, dict) and said.get("run") == run:
            return said
    return {}


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
        format_func=lambda name: widgets.clean(run_text(runs[names.index(name)])),
        key=key,
        width=520,
        on_change=take,
        args=("run", key, names[0]),
    )
    st.caption(
        f"{widgets.plain(said_of(row['asked']))} Lists are kept with `galsearch anomalies --save`, in the atlas "
        "folder: here nothing is written."
    )
    held, key = st.session_state.get("anomalies_saved"), (inside.written(state.atlas), run)
    if held is None or held.key != key:
        with limits.turn():
            held = st.session_state.anomalies_saved = read_saved(state.atlas, key, row)
    return held


def read_saved(atlas: galsearch.Atlas, key: tuple[Any, ...], row: dict[str, Any]) -> Found:
    """Return a list that is kept; the columns of the catalog are those of today."""
    every = atlas.saved_anomalies(row["run"])
    q = np.array(every["q_value"].to_pylist(), np.float64)
    normals = row["asked"].get("normal_count")
    table = every.slice(0, MOST_LISTED).drop_columns(["run", "tier", "created", "embedding"])
    about = {"run": row["run"], "created": row["created"], "embedding": row["embedding"]}
    known = isinstance(normals, int) and not isinstance(normals, bool)
    return Found(key, table, np.sort(q[np.isfinite(q)]), len(every), normals if known else None, about)


def run_text(row: dict[str, Any]) -> str:
    """Return what a list is called."""
    return f"{row['created']} · {row['objects']:,} objects by {row['embedding']} · {row['run']}"


def said_of(asked: dict[str, Any]) -> str:
    """Return what a list was asked, as text."""
    parts = [f"{name}: {asked[name]}" for name in ("among", "normals", "where", "near", "labels") if asked.get(name)]
    detectors = asked.get("detectors")
    parts += [f"detectors: {', '.join(map(str, detectors))}"] if isinstance(detectors, list) else []
    return f"{'; '.join(parts)}." if parts else ""


# ---- the list


def show_found(state: State, found: Found) -> None:
    """Draw a list: what it is worth, where it ends, its objects."""
    fdr = next((rate for rate in RATES if f"{rate:g}" == state.param("fdr")), FIRST_RATE)
    mode = state.param("list", FIRST) if state.param("list", FIRST) in MODES else FIRST
    longest = len(found.table)
    n = min(number_of(state.param("n"), FIRST_N), longest)
    rows = found.listed(mode, n, fdr)
    st.header("Odd objects", anchor=False)
    st.markdown(widgets.plain(worth(found, rows, fdr)))
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
    show_curve(state, found, len(rows), fdr)
    if len(rows):
        show_rows(state, found, rows)
        take_along(state, found, rows, fdr)


def number_of(text: str, default: int) -> int:
    """Return a whole number from 1 of a URL."""
    known = text.isascii() and text.isdecimal() and len(text) < 7 and int(text) > 0
    return int(text) if known else default


def worth(found: Found, rows: pa.Table, fdr: float) -> str:
    """Return what a list is worth, as text."""
    beside = "" if found.normals is None else f" beside {found.normals:,} normals"
    candidates, near = found.count(-1, fdr), found.count(fdr, HALF)
    convincing = f"{candidates:,} are candidates" if candidates > 1 else "1 is a candidate"
    said = f"{found.tested:,} objects were judged{beside}; "
    said += convincing if candidates else "none is a candidate"
    many = f"{near:,}" if near else "none"
    also = f"{many}{' more' if candidates and near else ''} {'are near-misses' if near > 1 else 'is a near-miss'}"
    said += f" at a false discovery rate of {fdr:g}, {also}."
    if candidates > len(found.table):
        said += f" Reasons are kept for the first {len(found.table):,}."
    least = found.least_q
    if not candidates and least is not None and least > fdr:
        said += (
            f" None could be: with so many judged beside so few normals no list of {len(found.table):,} has a rate "
            f"below {least:.2g}; list fewer objects of the search, or name more known normals."
        )
    if len(rows):
        rate = rows["q_value"][-1].as_py()
        if math.isfinite(rate):
            ordinary = rate * len(rows)
            share = f"{ordinary:{',.0f' if ordinary >= 10 else '.2g'}} ({100 * rate:.2g} %)"
            said += f" Of the {len(rows):,} listed up to {share} are expected to be ordinary."
    return said


def show_curve(state: State, found: Found, n: int, fdr: float) -> None:
    """Draw the false discovery rate down to each place of the list; a click ends the list there."""
    q = found.table["q_value"].to_numpy()
    key = f"anomalies_curve_{abs(hash(found.key))}_{fdr:g}"
    st.altair_chart(
        curve(q, n, fdr),
        width="stretch",
        key=key,
        on_select=partial(take_place, key),
        selection_mode="place",
        alt=f"False discovery rate by length of the list: {in_words(q)}",
    )
    st.caption(
        "False discovery rate of the list down to each place: the share of it that is expected to be ordinary. Click "
        "on a place to end the list there."
    )


def take_place(key: str) -> None:
    """End the list at the place that was clicked."""
    picked = st.session_state[key].selection.get("place") or []
    if picked and "place" in picked[0]:
        state = current()
        state.set_param("n", str(int(picked[0]["place"])))
        state.set_param("list", None)
        state.set_param("part", None)


def curve(q: np.ndarray, n: int, fdr: float) -> alt.LayerChart:
    """Return the operating curve of a list, its end and the two rates marked."""
    place = np.arange(1, len(q) + 1)
    rows = [
        {"place": int(at), "q": float(value), "expected": float(at * value), "tier": tier(value, fdr)}
        for at, value in zip(place, q, strict=True)
        if math.isfinite(value)
    ]
    log = len(q) > 50
    x = alt.X(
        "place:Q",
        title="Length of the list",
        scale=alt.Scale(type="log" if log else "linear", domain=[1, max(len(q), 2)], nice=False),
        axis=alt.Axis(format="d", tickCount=6),
    )
    y = alt.Y("q:Q", title="False discovery rate", scale=alt.Scale(domain=[0, 1]))
    click = alt.selection_point(name="place", fields=["place"], on="click", nearest=True, empty=False)
    base = alt.Chart(alt.Data(values=rows))
    line = base.mark_line(interpolate="step-before", color="#888888", opacity=0.6).encode(x=x, y=y)
    dots = (
        base.mark_point(filled=True, size=46, opacity=0.9)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "tier:N",
                scale=alt.Scale(domain=list(TIERS), range=list(TIERS.values())),
                legend=alt.Legend(title=None, orient="top"),
            ),
            tooltip=[
                alt.Tooltip("place:Q", title="first"),
                alt.Tooltip("q:Q", title="false discovery rate", format=".3g"),
                alt.Tooltip("expected:Q", title="expected to be ordinary", format=".2g"),
            ],
        )
        .add_params(click)
    )
    ends = alt.Chart(alt.Data(values=[{"q": fdr}, {"q": HALF}])).mark_rule(strokeDash=[4, 4], color="#888888")
    here = alt.Chart(alt.Data(values=[{"place": max(n, 1)}] if n else [])).mark_rule(color="#d55e00", strokeWidth=1.5)
    return alt.layer(line, ends.encode(y=y), here.encode(x=x), dots).properties(height=CURVE_PX)


def in_words(q: np.ndarray) -> str:
    """Return the operating curve as text."""
    places = [at for at in (1, 10, 24, 100, 1_000) if at <= len(q)]
    return "; ".join(f"{q[at - 1]:.2g} for the first {at:,}" for at in places)


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
            turn_pages(part, last)
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


def galaxies_of(atlas: galsearch.Atlas, ids: list[str]) -> dict[str, galsearch.Galaxy]:
    """Return objects by id; those of a list that was kept may be gone."""
    there = [name for name in ids if name in atlas]
    return {row["object_id"]: galsearch.Galaxy(row, atlas) for row in atlas.rows(there).to_pylist()} if there else {}


def take_picked() -> None:
    state, picked = current(), widgets.sent("picked", key="anomalies_gallery")
    state.select(None if picked == state.selected else picked)


def take_marked() -> None:
    current().mark_all(widgets.sent("marked", key="anomalies_gallery"))


def turn_pages(part: int, last: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="center"):
        st.button("Previous", key="anomalies_previous", disabled=part == 0, on_click=turn_to, args=(part,))
        st.caption(f"page {part + 1} of {last + 1}", width="content")
        st.button("Next", key="anomalies_next", disabled=part == last, on_click=turn_to, args=(part + 2,))


def turn_to(part: int) -> None:
    current().set_param("part", None if part == 1 else str(part))


def show_why(state: State, found: Found, row: pa.Table) -> None:
    """Draw what is odd about an object: who is surprised, measures, and the normals most like it."""
    said = row.to_pylist()[0]
    object_id = said["object_id"]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.header(widgets.plain(object_id), anchor=False, width="content")
        st.button("Close", icon=":material/close:", type="tertiary", key="close", on_click=state.select, args=(None,))
    galaxy = galaxies_of(state.atlas, [object_id]).get(object_id)
    if galaxy is None:
        st.info("This object is not in the atlas any more.")
        return
    nearest = [name for name in said["nearest"] or [] if isinstance(name, str) and name in state.atlas]
    pictures = sketches.faces(state.atlas, [object_id, *nearest])
    with st.container(horizontal=True, gap="small", wrap=False, key="anomalies_portrait"):
        picture = pictures.get(object_id)
        widgets.image(picture, width_px=PORTRAIT_PX, alt=widgets.describe(galaxy, picture))
        with st.container(gap="xsmall"):
            ways_on(state, object_id, found.about.get("embedding"))
    panel.mark_buttons(state, object_id)
    st.caption(f"{said['tier']} · q {said['q_value']:.2g} · p {said['p_value']:.2g}")
    show_surprise(said)
    if said["odd_columns"]:
        st.markdown("**Measures furthest from those of normals**")
        st.markdown("\n".join(f"- {widgets.plain(text)}" for text in said["odd_columns"]))
    if nearest:
        st.markdown("**Normals most like it**")
        show_nearest(state, nearest, pictures)
    elif said["nearest"] is None:
        st.caption("Reasons were kept for the first objects of the list alone.")


def ways_on(state: State, object_id: str, by: str | None) -> None:
    """Draw the ways on from an object: its page, a search by it."""
    way(state, "object", "Open its page", icon=":material/open_in_full:", object=object_id)
    term = state.like_term(object_id, by=by)
    query = replace(state.query, terms=(term,), k=FIRST_K)
    way(state, "search", "More like this", icon=":material/search:", query=to_text(query))


def way(state: State, page: str, label: str, *, icon: str, **said: str) -> None:
    """Draw a link to another page that says something else there; this page stays as it is, for the way back."""
    if page in state.pages:
        link = state.link(page) | said | {"atlas": state.hash}
        link.pop("page", None)
        st.page_link(state.pages[page], label=label, icon=icon, query_params=link, width="content")


def show_surprise(said: dict[str, Any]) -> None:
    """Draw how surprised each detector is, the most surprised first."""
    nats = [
        (name.removeprefix("nats_"), value)
        for name, value in said.items()
        if name.startswith("nats_") and name.removeprefix("nats_") in DETECTORS and value is not None
    ]
    if not nats:
        meaning = DETECTORS.get(said["detector"])
        st.markdown(f"Oddest by **{widgets.plain(said['detector'])}**" + (f": {meaning}" if meaning else ""))
        return
    st.markdown("**Surprise by detector**")
    nats.sort(key=lambda pair: -pair[1])
    widgets.bars([(DETECTORS[name], value) for name, value in nats], form=".1f")
    st.caption("In nats: −log of the share of normals that are as odd. 3 is one in twenty, 7 one in a thousand.")


def show_nearest(state: State, nearest: list[str], pictures: dict[str, bytes | str]) -> None:
    """Draw the normals that are most like an object, each with the way to its page."""
    with st.container(horizontal=True, gap="small", key="anomalies_nearest"):
        for number, name in enumerate(nearest):
            with st.container(width=110, gap="xxsmall", key=f"anomalies_normal_{number}"):
                widgets.image(pictures.get(name), width_px=NEAR_PX, alt=f"Normal: {widgets.clean(name)}")
                panel.link(state, name)


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
