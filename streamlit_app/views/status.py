"""Status: what an unattended watch has come to; it only looks, and never writes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import limits
import pyarrow as pa
import sketches
import streamlit as st
import widgets
from anomaly_reasons import galaxies_of, way
from links import MOST_WHERE, NOTHING, to_text
from panel import literal
from state import PAGE_ROWS, State, current

import galsearch

TITLE, ICON, ORDER = "Status", ":material/monitoring:", 5.7
WATCHED = "GALSEARCH_WATCH"  # environment variable: the plan or the workspace that is shown
RECORDS = "watch.duckdb"
HEADINGS = {  # title of a table of the report -> (heading here, what it says)
    "Counts": ("Items by state", "Each item in one state; requests are those that were recorded."),
    "Shares": ("Shares", None),
    "Yields, by what people decided": ("Yields", "Only what people decided counts; intervals are Wilson's of 95 %."),
    "Why items are not in the atlas": ("Why items are not in the atlas", None),
    "Is it known?": ("Is it known?", None),
    "Hosts": ("Hosts", None),
    "Runs": ("Runs", None),
    "Events": ("Events", None),
}
MOST_REPORT_BYTES = 20_000_000
REPORT_PX = 700
LISTED = ("object_id", "source", "p_value", "tier", "detector", "reasons", "known")
_report = st.components.v2.component(
    "galsearch_report", html='<div class="report"></div>', js=(widgets.HERE / "report.js").read_text()
)


def needs(atlas: galsearch.Atlas) -> bool:
    """On one's own machine always; in a public place where whoever runs it names a watch."""
    return not limits.PUBLIC or bool(os.environ.get(WATCHED))


def show(state: State) -> None:
    """Draw the page."""
    path = choose(state)
    if path is None:
        st.info(
            "A watch takes pictures in unattended, by a plan: `galsearch watch plan.toml`. Name its plan or its "
            "workspace above to see what it has come to.",
            icon=":material/monitoring:",
        )
        return
    try:
        status = status_of(path)
    except (galsearch.GalsearchError, OSError) as error:
        widgets.failure(error)
        return
    show_run(status)
    show_totals(status)
    show_queue(state, status)
    show_tables(status)
    show_report(status)


def choose(state: State) -> Path | None:
    """Draw the box for a plan or a workspace; return what is to be shown. A link never names a file."""
    first = os.environ.get(WATCHED) or around(state.atlas.path)
    if limits.PUBLIC:
        return Path(first)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="status_head"):
        text = st.text_input(
            "Plan or workspace of a watch, on this machine",
            st.session_state.get("status_path_kept", first),
            key="status_path",
            max_chars=1_000,
            width=520,
            placeholder="plan.toml or north.watch",
            on_change=take_path,
        ).strip()
        st.button("Look again", icon=":material/refresh:", key="status_again", on_click=state.acted)
    return Path(text).expanduser() if text else None


def take_path() -> None:
    """Keep the path when another page is drawn, which forgets it."""
    current().acted()
    st.session_state.status_path_kept = st.session_state.status_path


def around(atlas: Path) -> str:
    """Return the workspace that an atlas lies in, "" where it lies in none."""
    folder = Path(os.fspath(atlas)).absolute().parent
    return str(folder) if (folder / RECORDS).is_file() else ""


def status_of(path: Path) -> galsearch.WatchStatus:
    """Return the status, read again only when the records, the plan or the last report have changed."""
    held = st.session_state.get("status_held")
    if held is None or held[0] != path or stamps(held[1]) != held[2]:
        with limits.turn():
            status = galsearch.watch_status(path)
        held = st.session_state.status_held = (path, status, stamps(status))
    return held[1]


def stamps(status: galsearch.WatchStatus) -> list[int | None]:
    """Return when the files of a watch were changed."""
    work = status.workspace
    files = (status.plan, work / RECORDS, work / f"{RECORDS}.wal", work / "reports" / "latest.html")
    return [None if one is None else stamp(one) for one in files]


def stamp(path: Path) -> int | None:
    """Return when a file was changed, None for one that is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


# ---- what it has come to


def show_run(status: galsearch.WatchStatus) -> None:
    """Say what is watched, and whether a run is under way."""
    numbers = status.numbers
    st.header(widgets.plain(numbers["title"]), anchor=False)
    runs = numbers["health"]["runs"]
    if not runs:
        st.caption("No run has begun yet.")
        return
    last = runs[0]
    if status.unended:
        told = f"Run {last['number']} began {when(last['started'])} and has not ended: it is under way, or was killed."
    else:
        told = f"Run {last['number']} ended {when(last['ended'])}: {last['how']}."
    told += f" The records changed {ago(time.time() - status.changed)}."
    if status.plan is None and not limits.PUBLIC:
        told += " No plan beside this workspace names it, so what only a plan says is not shown."
    st.markdown(widgets.plain(told))


def show_totals(status: galsearch.WatchStatus) -> None:
    """Draw the numbers of all sources together, of verdicts, and of the disk."""
    numbers = status.numbers
    total, judged, health = numbers["total"], numbers["judged"], numbers["health"]
    shown = {
        "Items": f"{total['items']:,}",
        "In the atlas": f"{total['added']:,}",
        "Scored": f"{total['scored']:,}",
        "To look at": f"{len(status.queue):,}",
        "Judged": f"{judged['yes']:,} yes, {judged['no']:,} no, {judged['unsure']:,} unsure",
        "Failed": f"{total['failed']:,}",
        "Disk": f"{health['workspace_bytes'] / 1e6:,.1f} MB, {health['free_bytes'] / 1e9:,.1f} GB free",
    }
    cells = "".join(
        f"<div><dt>{widgets.html(name)}</dt><dd>{widgets.html(text)}</dd></div>" for name, text in shown.items()
    )
    st.html(f'<dl class="galsearch-totals">{cells}</dl>')
    for text in numbers["null_results"]:
        st.caption(widgets.plain(widgets.public(text)))


def show_queue(state: State, status: galsearch.WatchStatus) -> None:
    """Draw what is listed and not decided, with the way to judge it where this is the atlas of the watch."""
    queue = status.queue
    st.header("To look at", anchor=False)
    if not queue:
        st.caption("Nothing is listed that people have not decided on.")
        return
    st.caption(
        f"{len(queue):,} objects are odd beside the others and not decided on. That is a reason to look, not a result."
    )
    if is_of(state.atlas, status.atlas):
        show_pictures(state, queue[:PAGE_ROWS])
        where = f"object_id IN ({', '.join(literal(one['object_id']) for one in queue)})"
        if len(where) <= MOST_WHERE:
            query = to_text(galsearch.Query(where=where, k=NOTHING.k, distinct=NOTHING.distinct))
            way(state, "review", "Judge them on the page Review", icon=":material/gavel:", query=query)
        else:
            way(state, "review", "Judge objects on the page Review", icon=":material/gavel:")
    else:
        rows = [{name: text_of(one[name]) for name in LISTED} for one in queue[:1_000]]
        widgets.table(pa.Table.from_pylist(rows), None, most_px=320, name="To look at")
        if not limits.PUBLIC:
            st.caption(
                f"They are in another atlas than this one. Judge them with "
                f"{widgets.code(f'galsearch review start {os.fspath(status.atlas)}')}."
            )


def show_pictures(state: State, queue: list[dict[str, Any]]) -> None:
    """Draw the first of what is listed as tiles."""
    ids = [one["object_id"] for one in queue]
    galaxies = galaxies_of(state.atlas, ids)
    pictures = sketches.faces(state.atlas, [name for name in ids if name in galaxies])
    tiles = [
        widgets.tile(
            galaxies[one["object_id"]],
            pictures.get(one["object_id"]),
            score=one["tier"],
            rank=f"p {one['p_value']:.2g}",
            note=widgets.clean(one["known"][0] if one["known"] else ""),
        )
        for one in queue
        if one["object_id"] in galaxies
    ]
    widgets.gallery(
        tiles, {"picked": take_picked}, key="status_gallery", label=f"{len(tiles)} objects to look at, the oddest first"
    )
    if state.selected in galaxies:
        way(state, "object", f"Open the page of {state.selected}", icon=":material/open_in_full:")


def take_picked() -> None:
    current().select(widgets.sent("picked", key="status_gallery"))


def is_of(atlas: galsearch.Atlas, watched: Path) -> bool:
    """Say whether an atlas is the one that a watch fills."""
    try:
        return Path(os.fspath(atlas.path)).resolve() == watched.resolve()
    except OSError:
        return False


def text_of(value: Any) -> str:
    """Return a cell of a table as text, in a public place without paths."""
    if isinstance(value, list):
        return "; ".join(map(text_of, value))
    return widgets.clean(widgets.public("" if value is None else widgets.shown(value)))


def show_tables(status: galsearch.WatchStatus) -> None:
    """Draw the tables of the report as they are now."""
    for title, table in status.tables.items():
        heading, about = HEADINGS.get(title, (title, None))
        st.header(heading, anchor=False)
        if about:
            st.caption(about)
        rows = [{name: text_of(cell) for name, cell in row.items()} for row in table.to_pylist()]
        widgets.table(pa.Table.from_pylist(rows), None, most_px=380, name=heading)
    st.header("Not checked", anchor=False)
    st.markdown("\n".join(f"- {widgets.plain(text)}" for text in status.numbers["not_checked"]))


def show_report(status: galsearch.WatchStatus) -> None:
    """Draw the last report in a frame that runs nothing and loads nothing, with its file to take along."""
    if limits.PUBLIC:
        return  # its texts are for whoever runs the watch
    st.header("The last report", anchor=False)
    if status.report is None:
        st.caption("There is none yet; a run writes one when it ends.")
        return
    if status.report.stat().st_size > MOST_REPORT_BYTES:
        st.caption(
            widgets.plain(f"It is larger than {MOST_REPORT_BYTES // 10**6} MB: open {status.report} in a browser.")
        )
        return
    text = status.report.read_text("utf-8", errors="replace")
    written = when(status.report.stat().st_mtime)
    st.caption(widgets.plain(f"Written {written}: {status.report}"))
    st.download_button(
        "Report (HTML)",
        text,
        file_name="report.html",
        mime="text/html",
        icon=":material/download:",
        key="status_report_file",
        on_click="ignore",
    )
    if st.toggle("Show it here", key="status_report", on_change=current().acted):
        _report(key="status_frame", data={"html": text, "title": "The last report", "height": REPORT_PX})


def when(seconds: float | None) -> str:
    """Return a time in UTC to the minute."""
    return "never" if seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def ago(seconds: float) -> str:
    """Return how long ago something was.

    >>> ago(40), ago(200), ago(7300), ago(200_000)
    ('40 s ago', '3 min ago', '2 h ago', '2 days ago')
    """
    for unit, name, most in ((1, "s", 90), (60, "min", 90), (3600, "h", 48)):
        if seconds < most * unit:
            return f"{max(seconds, 0) / unit:.0f} {name} ago"
    return f"{seconds / 86400:.0f} days ago"
