"""Re-rank: the best hits of the search looked at again, here for nothing or by a vision model for money."""

from __future__ import annotations

from functools import partial
from typing import Any

import jobs
import limits
import sketches
import streamlit as st
import vision
import widgets
from state import State, current, fingerprint

import galsearch

TITLE, ICON, ORDER = "Re-rank", ":material/swap_vert:", 7.5
JOB = "rerank"
DEPTHS = (50, 100, 200)
SHOWN = 24
FIRST = 60  # objects that are looked at for a picture
HERE, MODEL = "local", "vision model"
ABOUT = {
    HERE: "The images are compared again, whole and in parts, with the measured columns that the query names. Where "
    "that is no better, the order stays. Free, nothing is sent.",
    MODEL: "A model behind an OpenAI-compatible address says from 1 to 10 how well each image fits. It may cost money.",
}


def needs(atlas: galsearch.Atlas) -> bool:
    """Pictures are what is looked at again."""
    return has_pictures(fingerprint(atlas), atlas)


@st.cache_data(max_entries=8, show_spinner=False)
def has_pictures(hash: str, _atlas: galsearch.Atlas) -> bool:
    """Say whether one of the first objects has one; where there are spectra too, some have none."""
    return bool(_atlas.thumbnails(_atlas.search(k=FIRST).ids))


def show(state: State) -> None:
    """Draw the page."""
    if not state.query.terms:
        st.info(
            "Search for something first: a list without a query has no ranking to improve.", icon=":material/search:"
        )
        if st.button("Search", key="rerank_search", type="primary"):
            state.goto("search")
        return
    job = jobs.of(JOB)
    if job is not None and job.state == "running":
        jobs.watch(JOB)
        st.caption("You may look at other pages meanwhile, or reload this one.")
        return
    if state.problem:
        widgets.failure(state.problem)
    outcome(job)
    hits = state.hits()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        ways = [HERE] if limits.PUBLIC else [HERE, MODEL]
        way = st.segmented_control("Method", ways, default=HERE, required=True, key="rerank_way", on_change=state.acted)
        depth = st.segmented_control(
            "Re-rank top", DEPTHS, default=DEPTHS[0], required=True, key="rerank_depth", on_change=state.acted
        )
        marks = marked(state)
    st.caption(ABOUT[way])
    if limits.PUBLIC:
        st.caption("A vision model can be asked on your own machine only: this place takes no keys.")
    if way == HERE:
        st.button(
            "Re-rank",
            type="primary",
            icon=":material/visibility:",
            key="rerank_start",
            on_click=begin,
            args=(hits, depth, marks),
        )
    else:
        by_model(state, hits, depth, marks)
    result(state, job)


def marked(state: State) -> dict[str, list[str]]:
    """Draw which marks count as examples; return them as positives and negatives."""
    usable = {name: of_set(state, name) for name in state.sets.all()}
    usable = {name: marks for name, marks in usable.items() if any(marks.values())}
    if not usable:
        return {}
    name = st.selectbox(
        "Examples from the collection",
        list(usable),
        index=None,
        placeholder="none",
        key="rerank_set",
        width=260,
        on_change=state.acted,
        help="Objects marked yes are wanted, those marked no are not; two or more of each are needed.",
    )
    return usable.get(name, {})


def of_set(state: State, name: str) -> dict[str, list[str]]:
    """Return the marks of a collection whose objects this atlas has."""
    members = {key: member for key, member in state.sets.members(name).items() if key in state.atlas}
    by_mark = {"positives": "true", "negatives": "false"}
    return {
        side: [key for key, member in members.items() if member.get("mark") == mark] for side, mark in by_mark.items()
    }


def begin(hits: galsearch.Hits, depth: int, marks: dict[str, list[str]]) -> None:
    """Start looking again, here."""
    jobs.start(JOB, "Re-ranking", partial(look, hits, {"n": depth, **marks}))


def look(hits: galsearch.Hits, asked: dict[str, Any], progress: jobs.Progress) -> galsearch.Hits:
    """Return the hits in the order of a second look."""
    return hits.rerank("local", **asked, progress=progress)


def by_model(state: State, hits: galsearch.Hits, depth: int, marks: dict[str, list[str]]) -> None:
    """Draw what asking a vision model needs, what it would cost, and the button that sends."""
    settings = vision.form(state, "rerank", partial(estimate, hits, depth), "answers")
    with st.expander("What is sent with each image", icon=":material/visibility:", key="rerank_prompt"):
        st.code(galsearch.rerank_prompt(), language=None, wrap_lines=True)
    st.button(
        "Start",
        type="primary",
        icon=":material/send:",
        key="rerank_send",
        disabled=settings is None,
        on_click=begin_model,
        args=(hits, {"n": depth, **marks}, settings),
    )


def estimate(hits: galsearch.Hits, depth: int, **asking: Any) -> Any:
    """Return what it would cost at most."""
    return hits.estimate_rerank(n=depth, **asking)


def begin_model(hits: galsearch.Hits, asked: dict[str, Any], settings: dict[str, Any]) -> None:
    """Start asking a vision model; the key goes into the job and nowhere else."""
    jobs.start(JOB, "Asking the model", partial(ask, hits, asked, settings, st.session_state.rerank_key))


def ask(
    hits: galsearch.Hits, asked: dict[str, Any], settings: dict[str, Any], key: str, progress: jobs.Progress
) -> galsearch.Hits:
    """Return the hits in the order of a vision model."""
    with vision.held(key) as variable:
        return hits.rerank("vlm", **asked, **settings, key_env=variable, progress=progress)


# ---- what came of it


def outcome(job: jobs.Job | None) -> None:
    """Say how the last look ended, where it ended badly."""
    if job is not None and job.state == "failed":
        widgets.failure(job.error)
    elif job is not None and job.state == "stopped":
        st.warning(
            "Stopped, the order is unchanged. Answers that were paid for are kept beside the atlas.",
            icon=":material/stop:",
        )


def result(state: State, job: jobs.Job | None) -> None:
    """Draw the new order beside the one before, for the question that is asked now."""
    if job is None or job.state != "done" or job.result.query != state.query:
        return
    found = job.result
    done = found.reranked
    st.header("The order is unchanged" if done.kept else "New order", anchor=False)
    st.markdown("  \n".join(widgets.plain(line) for line in str(done).splitlines()))
    before = {name: place for place, name in enumerate(state.hits().ids, start=1)}
    pictures = sketches.faces(state.atlas, found[:SHOWN].ids)
    tiles = [
        widgets.tile(hit, pictures.get(hit.object_id), score=moved(place, before.get(hit.object_id)))
        for place, hit in enumerate(found[:SHOWN], start=1)
    ]
    widgets.gallery(
        tiles, {"picked": take_picked}, key="rerank_gallery", label="Hits, best first", selected=state.selected
    )
    st.download_button(
        f"CSV, {len(found):,} rows",
        data=partial(found.format, "csv"),
        file_name="reranked.csv",
        mime="text/csv",
        icon=":material/download:",
        key="rerank_csv",
        on_click="ignore",
    )


def moved(now: int, before: int | None) -> str:
    """Return where a hit was before."""
    if before is None:
        return "new"
    return "=" if before == now else f"{'↑' if before > now else '↓'} from {before}"


def take_picked() -> None:
    """Look at the object of a tile."""
    current().select(widgets.sent("picked", key="rerank_gallery"))
