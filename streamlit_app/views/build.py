"""Build: pictures and a table become an atlas of one's own, while one watches; its bundle is there to keep."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jobs
import limits
import pyarrow as pa
import rendering
import sketches
import streamlit as st
import widgets
from state import State, current

import galsearch

TITLE, ICON, ORDER = "Build", ":material/construction:", 8
JOB = "build"
TABLES = ["csv", "ecsv", "parquet", "fits", "fit", "vot", "xml"]
PREVIEW = 12
UPLOAD, FOLDER = "Drop images here", "A folder on this machine"
COMMAND = (
    "galsearch build mine.atlas --images cutouts/ --table catalog.fits\n"
    "galsearch bundle mine.atlas mine.duckdb\n"
    "galsearch app mine.duckdb"
)


@dataclass
class Built:
    """An atlas that was built here: its bundle, what landed in it, and the folder that goes when the session does."""

    bundle: Path
    report: galsearch.Report
    folder: Path

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def needs(atlas: galsearch.Atlas) -> bool:
    """Anybody may have galaxies of their own."""
    return True


def show(state: State) -> None:
    """Draw the page."""
    st.header("An atlas of your own galaxies", anchor=False)
    if limits.PUBLIC:
        st.info(
            "Nothing is built here: this place is public, small and read-only. On your own machine it takes two "
            "commands and no key; a thousand images take about a minute.",
            icon=":material/lock:",
        )
        st.code(COMMAND, language="bash")
        return
    job = jobs.of(JOB)
    if job is not None and job.state == "running":
        jobs.watch(JOB)
        st.caption(
            "You may look at other pages meanwhile, or reload this one. What is finished is kept when you stop and "
            "start again."
        )
        return
    if job is not None and job.state == "failed":
        widgets.failure(job.error)
    if job is not None and job.state == "stopped":
        st.warning("Stopped. Nothing was changed.", icon=":material/stop:")
    if job is not None and job.state == "done":
        finished(job.result)
        return
    ask()


# ---- what is asked


def ask() -> None:
    """Draw what a build needs."""
    way = st.segmented_control(
        "Images", [UPLOAD, FOLDER], default=UPLOAD, required=True, key="build_way", on_change=acted
    )
    if way == UPLOAD:
        pictures = st.file_uploader(
            f"Cutouts, one galaxy each: {galsearch.PICTURE_FORMATS}",
            type=rendering.UPLOADS,
            accept_multiple_files=True,
            key="build_pictures",
            on_change=acted,
        )
        source = None
    else:
        pictures = []
        source = st.text_input(
            "Folder of cutouts, or one large image", key="build_folder", placeholder="survey/cutouts", on_change=acted
        ).strip()
    table = st.file_uploader(
        "Table, if there is one: CSV, ECSV, Parquet, FITS or VOTable; joined by file name or id, all columns are kept",
        type=TABLES,
        key="build_table",
        on_change=acted,
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        title = st.text_input("Title", "My galaxies", key="build_title", width=260, on_change=acted).strip()
        keep = st.text_input(
            "Save as (optional)",
            key="build_keep",
            placeholder="mine.atlas",
            width=360,
            on_change=acted,
            help="A folder name.atlas, which can grow; its bundle is written beside it.",
        ).strip()
    count = len(pictures) if way == UPLOAD else None
    ready = bool(pictures) if way == UPLOAD else bool(source)
    if way == UPLOAD and pictures:
        st.caption(f"{count:,} images, {sum(picture.size for picture in pictures) / 1e6:.1f} MB")
    st.button(
        "Build",
        type="primary",
        icon=":material/construction:",
        key="build_start",
        disabled=not ready,
        on_click=begin,
        args=({"pictures": pictures, "source": source, "table": table, "title": title or "My galaxies", "keep": keep},),
    )
    with st.expander("The same from the command line", icon=":material/terminal:", key="build_command"):
        st.code(COMMAND, language="bash")


def acted() -> None:
    """Note that a widget caused this run."""
    current().acted()


def begin(asked: dict[str, Any]) -> None:
    """Start the build."""
    jobs.start(JOB, "Building", partial(build, asked))


# ---- the work


def build(asked: dict[str, Any], progress: jobs.Progress) -> Built:
    """Put uploads into a folder, build an atlas of them, and bundle it."""
    folder = Path(tempfile.mkdtemp(prefix="galsearch-"))
    try:
        source = Path(asked["source"]) if asked["source"] else put(asked["pictures"], folder / "pictures")
        if not source.exists():
            raise galsearch.SchemaError(f"{source}: no such folder or image on this machine; write its whole path")
        table = put([asked["table"]], folder / "table") / safe(asked["table"].name) if asked["table"] else None
        atlas = Path(asked["keep"]) if asked["keep"] else folder / "mine.atlas"
        is_mosaic = source.is_file() and source.suffix.lower() in galsearch.PICTURE_SUFFIXES
        pictures = {"mosaic" if is_mosaic else "images": source}
        report = galsearch.build(atlas, **pictures, table=table, title=asked["title"], progress=progress)
        bundle = galsearch.bundle(atlas, atlas.with_suffix(".duckdb"), progress=progress)
        return Built(bundle, report, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def put(files: Sequence[Any], folder: Path) -> Path:
    """Write uploads into a folder; of two with one name the later one gets a number."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = folder / safe(file.name)
        number = 2
        while path.exists():
            path = folder / f"{number}-{safe(file.name)}"
            number += 1
        path.write_bytes(file.getvalue())
    return folder


def safe(name: str) -> str:
    """Return the last part of a file's name, as a name that leads nowhere else."""
    return Path(name.replace("\\", "/")).name.lstrip(".") or "file"


# ---- what came of it


def finished(built: Built) -> None:
    """Say what landed, show it, and offer the bundle."""
    report = built.report
    st.success(f"{report.rows:,} galaxies, in {report.seconds:.1f} s", icon=":material/check:")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            f"Bundle, {built.bundle.stat().st_size / 1e6:.1f} MB",
            data=built.bundle.read_bytes,
            file_name=built.bundle.name,
            mime="application/vnd.duckdb",
            type="primary",
            icon=":material/download:",
            key="build_download",
            on_click="ignore",
        )
        st.button("Open it here", icon=":material/open_in_new:", key="build_open", on_click=open_here, args=(built,))
        st.button("Build another", type="tertiary", key="build_again", on_click=again)
    where = built.bundle.name if built.folder in built.bundle.parents else built.bundle
    st.caption(f"Open it later: {widgets.code(f'galsearch app {where}')}")
    preview(built)
    if report.rejected:
        st.header(f"{len(report.rejected):,} left out", anchor=False)
        rows = pa.Table.from_pylist(report.rejected[:500])
        st.dataframe(rows, hide_index=True, alt="Images that were left out, with the reason", height="content")


def preview(built: Built) -> None:
    """Draw the first galaxies of the new atlas."""
    with galsearch.open(built.bundle) as atlas:
        hits = atlas.search(k=PREVIEW)
        pictures = sketches.faces(atlas, hits.ids)
        tiles = [widgets.tile(hit, pictures.get(hit.object_id)) for hit in hits]
    widgets.gallery(tiles, {}, key="build_gallery", label="The first galaxies of the new atlas")


def open_here(built: Built) -> None:
    """Let this session look at the new atlas; it stays as long as the session does."""
    acted()
    st.session_state.opened, st.session_state.opened_built = str(built.bundle), built


def again() -> None:
    """Ask for another build."""
    acted()
    jobs.forget(JOB)
