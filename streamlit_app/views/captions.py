"""Captions: which ones the atlas has and what they cost; writing new ones, with the price told before."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import inside
import jobs
import limits
import links
import sketches
import streamlit as st
import vision
import widgets
from state import State, current

import galsearch

TITLE, ICON, ORDER = "Captions", ":material/notes:", 7
JOB = "captions"
SAMPLE = 8
WRITERS = {
    "measurements": ("From measurements", "Rules on measured columns: free, offline; no one has looked at the galaxy."),
    "labels": ("From labels", "Rules on catalog columns of EFIGI and Galaxy Zoo: free, offline."),
    "vlm": (
        "By a vision model",
        "A model behind an OpenAI-compatible address is shown each image. It may cost money.",
    ),
}


def needs(atlas: galsearch.Atlas) -> bool:
    """Atlases with captions have this page everywhere; on one's own machine they can be written, of images."""
    return "captions" in inside.tables(atlas) or (not limits.PUBLIC and sketches.describes_images(atlas))


def show(state: State) -> None:
    """Draw the page."""
    there = "captions" in inside.tables(state.atlas)
    if there:
        kinds(state)
        examples(state)
    else:
        st.info(
            "This atlas has no captions. With them, words match what is said of a galaxy too (search option “Match "
            "names and captions too”).",
            icon=":material/notes:",
        )
    st.header("Write captions", anchor=False)
    if limits.PUBLIC:
        st.info(
            "Captions are not written here: this place is public and read-only, and takes no keys. On your own "
            "machine: `galsearch caption mine.atlas`, or `galsearch app mine.atlas`.",
            icon=":material/lock:",
        )
    elif state.atlas.kind != "folder":
        st.info(
            "This is a bundle, and a bundle is never changed. Open the folder that it was made from "
            "(`galsearch app name.atlas`), write captions there, then bundle it again.",
            icon=":material/lock:",
        )
    else:
        writing(state)


# ---- the captions that are there


def kinds(state: State) -> None:
    """List who wrote captions, when, and what they cost."""
    st.header("Captions of this atlas", anchor=False)
    rows = state.sql(
        "SELECT model, count(*) FILTER (status = 'ok') AS captions, count(DISTINCT object_id) AS galaxies, "
        "count(*) FILTER (status = 'refused') AS refused, count(*) FILTER (status = 'malformed') AS malformed, "
        "min(created) AS first, max(created) AS last, sum(cost_usd) AS cost_usd FROM captions "
        "GROUP BY model ORDER BY captions DESC, model"
    )
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        alt="Who wrote captions, how many, when, and what they cost",
        column_config={"cost_usd": st.column_config.NumberColumn("cost [USD]", format="%.4f")},
    )
    if "caption_costs" in inside.tables(state.atlas):
        with st.expander("What was paid, job by job", icon=":material/payments:", key="captions_costs"):
            paid = state.sql("SELECT * EXCLUDE (prompt_sha256, run) FROM caption_costs ORDER BY started DESC, model")
            st.dataframe(paid, hide_index=True, height="content", alt="Jobs of asking a service, with their costs")


def examples(state: State) -> None:
    """Draw some galaxies with what is said of them, of one writer."""
    writers = state.sql("SELECT DISTINCT model FROM captions WHERE status = 'ok' ORDER BY model")["model"].to_pylist()
    if not writers:
        return
    said = state.param("model", writers[0]) if state.param("model", writers[0]) in writers else writers[0]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Captions by",
            writers,
            index=writers.index(said),
            key=f"captions_by_{said}",
            width=320,
            on_change=take_model,
            args=(f"captions_by_{said}",),
        )
        st.button("Others", icon=":material/shuffle:", key="captions_more", on_click=shuffle)
    name, turn = said.replace("'", "''"), links.whole(state.param("turn"), default=0)
    rows = state.sql(
        f"SELECT object_id, caption, summary, negatives FROM captions WHERE model = '{name}' AND status = 'ok' "
        f"ORDER BY hash(object_id || '{turn}'), object_id, seed LIMIT {SAMPLE}"
    ).to_pylist()
    pictures = state.atlas.thumbnails([row["object_id"] for row in rows])
    for place, row in enumerate(rows):
        with st.container(
            horizontal=True,
            vertical_alignment="center",
            gap="small",
            wrap=False,
            key=f"caption_{place}_{turn}",
        ):
            picture = pictures.get(row["object_id"])
            if picture:
                widgets.image(picture, width_px=88, alt=f"Image of {row['object_id']}")
            absent = f"  \n*Absent: {widgets.plain(', '.join(row['negatives']))}*" if row["negatives"] else ""
            st.markdown(f"**{widgets.plain(row['object_id'])}**  \n{widgets.plain(row['caption'])}{absent}")


def take_model(key: str) -> None:
    """Show the captions of another writer."""
    current().set_param("model", st.session_state[key])


def shuffle() -> None:
    """Show other galaxies."""
    current().set_param("turn", str(links.whole(current().param("turn"), default=0) + 1))


# ---- writing


def writing(state: State) -> None:
    """Draw who could write and what it costs; or how far it is, and what came of it."""
    job = jobs.of(JOB)
    if job is not None and job.state == "running":
        jobs.watch(JOB)
        return
    outcome(job)
    by = st.segmented_control(
        "Source",
        list(WRITERS),
        default="measurements",
        required=True,
        format_func=lambda name: WRITERS[name][0],
        key="captions_writer",
        on_change=state.acted,
    )
    st.caption(WRITERS[by][1])
    copies = st.number_input("Captions per galaxy", 1, 10, key="captions_copies", width=260, on_change=state.acted)
    where = state.query.where
    passing = state.passing()  # where it cannot be counted, the page says so, and offers nothing
    cut = f"that pass {widgets.code(where)}" if where else "of the atlas; a filter of the search would leave some out"
    st.caption(f"For the {passing:,} galaxies {cut}.")
    if by == "vlm":
        by_model(state, where, copies)
    else:
        st.button(
            f"Write {passing * copies:,} captions",
            type="primary",
            icon=":material/edit:",
            key="captions_write",
            on_click=begin,
            args=(partial(plain_captions, state.atlas.path, by, where, copies),),
        )


def outcome(job: jobs.Job | None) -> None:
    """Say what came of the last job."""
    if job is None:
        return
    if job.state == "failed":
        widgets.failure(job.error)
    elif job.state == "stopped":
        st.warning(
            "Stopped. What was answered is kept beside the atlas: start the same again, and nothing is paid for twice.",
            icon=":material/stop:",
        )
    elif job.state == "done":
        done = job.result
        cost = (
            "at an unknown cost"
            if done.cost_usd is None
            else f"for {done.cost_usd:.4f} US dollars"
            if done.cost_usd
            else "free"
        )
        rest = ", ".join(f"{name}: {count}" for name, count in done.counts.items())
        st.success(
            widgets.plain(f"{done.captions:,} captions by {done.model}, {cost}. {rest} {done.note}"),
            icon=":material/check:",
        )


def plain_captions(path: Path, by: str, where: str | None, copies: int, progress: jobs.Progress) -> galsearch.Captioned:
    """Write captions by rules."""
    return galsearch.caption(path, by=by, where=where, copies=copies, progress=progress)


def begin(work: object) -> None:
    """Start writing."""
    jobs.start(JOB, "Writing captions", work)


def by_model(state: State, where: str | None, copies: int) -> None:
    """Draw what asking a vision model needs, what it would cost, and the button that sends."""
    asked = {"where": where, "copies": copies}
    settings = vision.form(
        state, "captions", partial(galsearch.estimate_captions, state.atlas.path, **asked), "captions"
    )
    with st.expander("What is sent with each image", icon=":material/visibility:", key="captions_prompt"):
        st.code(galsearch.caption_prompt(), language=None, wrap_lines=True)
    st.button(
        "Start",
        type="primary",
        icon=":material/send:",
        key="captions_start",
        disabled=settings is None,
        on_click=begin_model,
        args=(state.atlas.path, settings, asked),
    )


def begin_model(path: Path, settings: dict, asked: dict) -> None:
    """Start asking a vision model; the key goes into the job and nowhere else."""
    begin(partial(model_captions, path, settings, asked, st.session_state.captions_key))


def model_captions(path: Path, settings: dict, asked: dict, key: str, progress: jobs.Progress) -> galsearch.Captioned:
    """Ask a vision model for captions."""
    with vision.held(key) as variable:
        vlm = galsearch.VLM(**settings, key_env=variable)
        return galsearch.caption(path, by="vlm", **asked, vlm=vlm, progress=progress)
