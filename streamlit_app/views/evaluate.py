"""Evaluate: how well words find what is labeled; the runs that the atlas keeps, and a run of one's own."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import inside
import jobs
import limits
import pyarrow as pa
import pyarrow.compute as pc
import sketches
import streamlit as st
import widgets
from state import State, current

import galsearch

TITLE, ICON, ORDER = "Evaluate", ":material/analytics:", 6
JOB, TABLE = "evaluate", "evaluations"
MEASURES = {  # label -> (column, whether it has an interval, where the axis ends)
    "nDCG@10": ("ndcg_exp_10", True),
    "AUROC": ("auroc", True),
    "Precision@10": ("precision_10", False),
    "Recall@100": ("recall_100", False),
}
FIRST_SYSTEMS = ("text", "random", "image", "linear probe")
SHOWN = (
    *("target", "system", "n", "relevant", "queries", "ndcg_exp_10", "ndcg_exp_10_low", "ndcg_exp_10_high"),
    *("ndcg_exp_10_worst", "precision_10", "lift_10", "recall_100", "recall_100_ceiling", "auroc", "worst_query"),
)
AS_IT_IS = "as it is"
COLORS = {  # that differ for color-blind people too, on light and dark ground
    **{"text": "#d55e00", "this run": "#d55e00", "random": "#888888", "image": "#3a8fd0", "linear probe": "#009e73"},
    **{"the other run": "#3a8fd0", "first query": "#e69f00", "centroid": "#56b4e9", "captions BM25": "#cc79a7"},
}
OTHER = "#999999"
SHAPES = ["circle", "triangle-up", "square", "diamond", "cross", "triangle-down"]
PICTURES = 12
ROW_PX = 34  # of a target in the chart


def needs(atlas: galsearch.Atlas) -> bool:
    """Atlases that keep runs have this page everywhere; on one's own machine a run can be made of those with words."""
    return TABLE in inside.tables(atlas) or (not limits.PUBLIC and sketches.describes_images(atlas))


def show(state: State) -> None:
    """Draw the page."""
    runs = runs_of(state)
    fresh = jobs.of(JOB).result if jobs.of(JOB) and jobs.of(JOB).state == "done" else None
    if not runs and fresh is None:
        st.info(
            "No evaluation is stored in this atlas. One says how well words find what is labeled, beside chance and "
            "other ways of asking: `galsearch evaluate ATLAS --store`, then bundle it again"
            + ("." if limits.PUBLIC else "; or run it here."),
            icon=":material/analytics:",
        )
    if fresh is not None:
        st.header("Results of this run", anchor=False)
        figures(state, fresh.evaluation.table, None, key="fresh")
        sheets(fresh)
    elif runs:
        kept_runs(state, runs)
    if not limits.PUBLIC:
        own_run(state, opened=not runs)


def runs_of(state: State) -> list[dict[str, Any]]:
    """Return the runs that the atlas keeps, last first."""
    if TABLE not in inside.tables(state.atlas):
        return []
    return state.sql(
        "SELECT run, max(created) AS created, max(software) AS software, count(DISTINCT target) AS targets, "
        f"max(config_sha256) AS config FROM {TABLE} GROUP BY run ORDER BY created DESC, run"
    ).to_pylist()


# ---- the runs that are kept


def kept_runs(state: State, runs: list[dict[str, Any]]) -> None:
    """Draw one of the runs, and another beside it where asked."""
    named = {run["run"]: f"{run['created']} · {run['targets']} targets · {run['config'][:8]}" for run in runs}
    said, other = state.param("run", runs[0]["run"]), state.param("beside")
    said = said if said in named else runs[0]["run"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Run",
            list(named),
            index=list(named).index(said),
            format_func=named.get,
            width=420,
            key=f"run_{said}",
            on_change=take,
            args=("run", f"run_{said}"),
        )
        others = [run for run in named if run != said]
        if others:
            st.selectbox(
                "Compared with",
                others,
                index=others.index(other) if other in others else None,
                width=420,
                format_func=named.get,
                key=f"beside_{said}",
                placeholder="no other run",
                on_change=take,
                args=("beside", f"beside_{said}"),
            )
    table = rows_of(state, said)
    beside = rows_of(state, other) if other in others else None
    same = next(run for run in runs if run["run"] == said)
    if beside is not None and next(run for run in runs if run["run"] == other)["config"] != same["config"]:
        st.caption("The two runs differ in targets, seed, filter or models: their figures may not be of the same sets.")
    figures(state, table, beside, key="kept")
    found_now(state, table)


def rows_of(state: State, run: str) -> pa.Table:
    """Return the figures of a run; its id comes from the atlas, and is only hexadecimal."""
    name = "".join(sign for sign in run if sign.isalnum())
    return state.sql(f"SELECT * FROM {TABLE} WHERE run = '{name}' ORDER BY target, system, asked_prevalence")


def take(name: str, key: str) -> None:
    """Take what was chosen into the URL."""
    value = st.session_state[key]
    current().set_param(name, None if value is None else str(value))


# ---- figures


def figures(state: State, table: pa.Table, beside: pa.Table | None, *, key: str) -> None:
    """Draw the figures of a run as a plot and as a table."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        measure = chosen(state, "measure", list(MEASURES), key=key, label="Figure")
        shares = prevalences(table)
        share = chosen(state, "share", shares, key=key, label="Prevalence")
    rows = at_prevalence(table, share)
    column, interval = MEASURES[measure]
    systems = list(dict.fromkeys([name for name in FIRST_SYSTEMS if name in rows["system"].to_pylist()]))
    every = list(dict.fromkeys([*systems, *rows["system"].to_pylist()]))
    if beside is None:
        picked = st.pills(
            "Systems", every, selection_mode="multi", default=systems, key=f"systems_{key}", on_change=state.acted
        )
        points = points_of(rows, picked, column, interval=interval)
    else:
        points = points_of(rows, ["text"], column, interval=interval, named="this run")
        points += points_of(at_prevalence(beside, share), ["text"], column, interval=interval, named="the other run")
    if points:
        st.altair_chart(chart(points, measure), width="stretch", alt=in_words(points, measure))
        st.caption(
            "Lines are bootstrap 95 % intervals where the figure has one; “text” is the mean over all wordings of a "
            "target, “random” is chance. n and the relevant ones stand in the table: compare only sets of one size."
        )
    else:
        st.info("Choose a system to see its figures.")
    with st.expander("Figures as a table", icon=":material/table:", key=f"figures_{key}"):
        shown = rows.select([name for name in SHOWN if name in rows.column_names])
        st.dataframe(shown, hide_index=True, alt="Figures of the evaluation", height=420)
        st.download_button(
            f"CSV, {rows.num_rows:,} rows",
            partial(galsearch.format_table, table, "csv"),
            file_name="evaluation.csv",
            mime="text/csv",
            icon=":material/download:",
            key=f"csv_{key}",
            on_click="ignore",
        )


def chosen(state: State, name: str, options: list[str], *, key: str, label: str) -> str:
    """Draw a choice that stands in the URL; return what is chosen."""
    said = state.param(name, options[0])
    said = said if said in options else options[0]
    st.segmented_control(
        label,
        options,
        default=said,
        required=True,
        key=f"{name}_{key}_{said}",
        on_change=take,
        args=(name, f"{name}_{key}_{said}"),
    )
    return said


def prevalences(table: pa.Table) -> list[str]:
    """Return the prevalences that were drawn to, as text, that of the atlas first."""
    drawn = sorted({value for value in table["asked_prevalence"].to_pylist() if value is not None}, reverse=True)
    return [AS_IT_IS, *(f"{100 * value:g} %" for value in drawn)]


def at_prevalence(table: pa.Table, share: str) -> pa.Table:
    """Return the rows of one prevalence."""
    asked = table["asked_prevalence"]
    if share == AS_IT_IS:
        return table.filter(pc.is_null(asked))
    return table.filter([value is not None and f"{100 * value:g} %" == share for value in asked.to_pylist()])


def points_of(
    rows: pa.Table, systems: list[str], column: str, *, interval: bool, named: str | None = None
) -> list[dict[str, Any]]:
    """Return the points to plot: target, system, value, and the ends of its interval where it has one."""
    found = []
    for row in rows.to_pylist():
        if row["system"] not in systems or row[column] is None:
            continue
        low, high = (row.get(f"{column}_{end}") if interval else None for end in ("low", "high"))
        found.append(
            {
                "target": row["target"],
                "system": named or row["system"],
                "value": row[column],
                "low": row[column] if low is None else low,
                "high": row[column] if high is None else high,
                "n": row["n"],
                "relevant": row["relevant"],
            }
        )
    return found


def chart(points: list[dict[str, Any]], measure: str) -> alt.LayerChart:
    """Return dots with their intervals: a line a target, the best found in words first."""
    order = [
        row["target"] for row in sorted(points, key=lambda row: -row["value"]) if row["system"] in ("text", "this run")
    ]
    order = list(dict.fromkeys([*order, *(row["target"] for row in points)]))
    there = {row["system"] for row in points}
    systems = [name for name in COLORS if name in there] + sorted(there - set(COLORS))
    colors = alt.Scale(domain=systems, range=[COLORS.get(name, OTHER) for name in systems])
    shapes = alt.Scale(domain=systems, range=(SHAPES * len(systems))[: len(systems)])
    legend = alt.Legend(title=None, orient="top", columns=4)
    base = alt.Chart(alt.Data(values=points)).encode(
        y=alt.Y("target:N", sort=order, title=None, axis=alt.Axis(labelLimit=260, grid=True)),
        yOffset=alt.YOffset("system:N", sort=systems),
        color=alt.Color("system:N", scale=colors, legend=legend),
        tooltip=[
            "target:N",
            "system:N",
            alt.Tooltip("value:Q", format=".3f"),
            alt.Tooltip("low:Q", format=".3f"),
            alt.Tooltip("high:Q", format=".3f"),
            "n:Q",
            "relevant:Q",
        ],
    )
    lines = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=measure, scale=alt.Scale(domain=[0, 1])), x2="high:Q"
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("value:Q", title=measure), shape=alt.Shape("system:N", scale=shapes, legend=legend)
    )
    return (lines + dots).properties(height=60 + ROW_PX * len(order))


def in_words(points: list[dict[str, Any]], measure: str) -> str:
    """Return the plot as text."""
    said = [f"{row['target']} by {row['system']} {row['value']:.2f}" for row in points[:12]]
    return f"{measure} by target and system: {'; '.join(said)}{'; and more' if len(points) > 12 else ''}"


def found_now(state: State, table: pa.Table) -> None:
    """Draw what the wording that did worst finds today; what it was judged by is not kept with the figures."""
    worst = {
        row["target"]: row["worst_query"] for row in table.to_pylist() if row["system"] == "text" and row["worst_query"]
    }
    if not worst:
        return
    st.header("Images", anchor=False)
    names = list(worst)
    said = state.param("target", names[0]) if state.param("target", names[0]) in worst else names[0]
    st.selectbox(
        "Target",
        names,
        index=names.index(said),
        key=f"target_{said}",
        on_change=take,
        width=320,
        args=("target", f"target_{said}"),
    )
    hits = state.atlas.search(worst[said], k=PICTURES)
    st.caption(f"First for the wording that did worst, “{widgets.plain(worst[said])}”:")
    pictures = sketches.faces(state.atlas, hits.ids)
    tiles = [widgets.tile(hit, pictures.get(hit.object_id), score=f"{hit.score:.3f}") for hit in hits]
    widgets.gallery(
        tiles,
        {"picked": take_picked},
        key="evaluate_gallery",
        label=f"Found for {widgets.clean(worst[said])}",
        selected=state.selected,
    )
    if state.selected in hits.ids and st.button("Open the object", key="evaluate_open", icon=":material/open_in_full:"):
        state.goto("object")


def take_picked() -> None:
    """Look at the object of a tile."""
    current().select(widgets.sent("picked", key="evaluate_gallery"))


# ---- a run of one's own


class Measured:
    """What a run here gave: figures, and a picture sheet a target."""

    def __init__(self, evaluation: galsearch.Evaluation, sheets: dict[str, bytes]) -> None:
        self.evaluation, self.sheets = evaluation, sheets


def own_run(state: State, *, opened: bool) -> None:
    """Draw what a run of one's own needs, or how far it is."""
    job = jobs.of(JOB)
    if job is not None and job.state == "running":
        jobs.watch(JOB)
        st.caption("You may look at other pages meanwhile, or reload this one.")
        return
    if state.problem:
        widgets.failure(state.problem)
    if job is not None and job.state == "failed":
        widgets.failure(job.error)
    if job is not None and job.state == "stopped":
        st.warning("Stopped. Nothing was stored.", icon=":material/stop:")
    with st.expander("Run evaluation", icon=":material/speed:", expanded=opened, key="evaluate_own"):
        st.caption(
            "Judges all candidates by exact comparison, in seconds for thousands and minutes for millions of them. "
            "The targets that ship are for EFIGI, Galaxy Zoo and Space Warps columns; others come from a TOML file."
        )
        upload = st.file_uploader(
            "Custom targets (optional)", type=["toml"], key="evaluate_targets", on_change=state.acted
        )
        keep = False
        if state.query.where:
            st.caption(f"Candidates are only those that pass the filter {widgets.code(state.query.where)}.")
        if state.atlas.kind == "folder":
            keep = st.toggle("Store the figures in the atlas", key="evaluate_keep", on_change=state.acted)
        st.button(
            "Run",
            type="primary",
            icon=":material/play_arrow:",
            key="evaluate_start",
            on_click=begin,
            args=(None if upload is None else upload.getvalue(), keep),
        )


def begin(targets: bytes | None, keep: bool) -> None:  # noqa: FBT001  Streamlit passes positions
    """Start a run."""
    state = current()
    jobs.start(JOB, "Evaluating", partial(measure, state.atlas.path, targets, state.query.where, keep=keep))


def measure(path: Path, targets: bytes | None, where: str | None, progress: jobs.Progress, *, keep: bool) -> Measured:
    """Run an evaluation on a handle of its own; nothing stays on disk but what is kept in the atlas."""
    folder = Path(tempfile.mkdtemp(prefix="galsearch-"))
    try:
        if targets is not None:
            (folder / "targets.toml").write_bytes(targets)
        found = galsearch.evaluate(
            path,
            targets=folder / "targets.toml" if targets is not None else None,
            where=where,
            sheet=folder / "sheets",
            store=keep,
            progress=progress,
        )
        pictures = {sheet.stem: sheet.read_bytes() for sheet in sorted((folder / "sheets").glob("*.png"))}
        return Measured(found, pictures)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sheets(measured: Measured) -> None:
    """Draw a picture sheet: what the first and the worst wording found, relevant objects in a green frame."""
    if measured.evaluation.left_out:
        with st.expander(f"{len(measured.evaluation.left_out)} targets left out", key="evaluate_left_out"):
            st.markdown(
                "\n".join(
                    f"- {widgets.plain(n)}: {widgets.plain(why)}" for n, why in measured.evaluation.left_out.items()
                )
            )
    if not measured.sheets:
        return
    st.header("Images", anchor=False)
    name = st.selectbox("Target", list(measured.sheets), key="evaluate_sheet", width=320, on_change=current().acted)
    st.image(
        measured.sheets[name],
        width="stretch",
        alt=f"What the first and the worst wording of {name} found; relevant objects have a green frame",
    )
