"""Knowledge: objects classified by votes of known neighbors, and why: who voted, their lines, their spectra."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import bpt_panel
import inside
import limits
import panel
import pyarrow as pa
import saving
import sketches
import spectrum_panel
import streamlit as st
import voting
import widgets
from state import MOST_PARAM, PAGE_ROWS, State, current
from voting import Way

import galsearch

TITLE, ICON, ORDER = "Knowledge", ":material/how_to_vote:", 2.7
RESULTS, COLLECTION, IDS = "results", "collection", "ids"
SOURCES = {RESULTS: "Results of the search", COLLECTION: "A collection", IDS: "IDs or names"}
MOST_LOOKUPS = 20  # lines of typed text that are no ids and may be names
TABLE_PX = 440  # of the answers: a look at why should be close
VOTERS = 10  # that are drawn; the table has all
MOST_CLASSES = 8  # with a bar
FILES = (".csv", ".vot", ".fits", ".ecsv", ".parquet", ".json")
LISTED = {  # column of a base -> how it is headed
    "base": "base", "version": "version", "embedding": "embedding", "kind": "kind", "target": "target",
    "share": "share of target", "rows": "members", "calibrated": "calibrated", "created": "made", "sql": "query",
}  # fmt: skip
ABOUT_VOTERS = ("object_id", "distance", "weight", "label", "value")
HOW_TO = """
This atlas has no knowledge base yet. One is made of objects whose class is known, on the command line, in the atlas
folder; a bundle takes it along:

```
galsearch kb create mine.atlas activity --from "SELECT object_id, bpt_class FROM galaxies WHERE bpt_class IS NOT NULL"
galsearch bundle mine.atlas mine.duckdb
```

Its members then vote on other objects, here, in Python and on the command line.
"""


def needs(atlas: galsearch.Atlas) -> bool:
    """Atlases with bases have this page everywhere; on one's own machine it says how to make one."""
    return inside.has_bases(atlas) or (not limits.PUBLIC and atlas.manifest.main_embedding is not None)


def show(state: State) -> None:
    """Draw the page."""
    rows = voting.bases(state)
    if not rows:
        st.header("Knowledge bases", anchor=False)
        st.info(HOW_TO, icon=":material/how_to_vote:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="knowledge_way"):
        row = choose_base(state, rows)
        way = choose_way(state, row)
    ids = choose_objects(state)
    list_bases(rows)
    if not ids:
        return
    try:
        result = voting.classify(state, ids, way)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    selected = state.selected if state.selected in ids else ids[0]
    show_answers(state, result, selected)
    show_why(state, result[ids.index(selected)], selected, ids)


# ---- which base, and how its votes are counted


def list_bases(rows: list[dict[str, Any]]) -> None:
    """List the bases of the atlas."""
    count = len(rows)
    with st.expander(f"{count} knowledge base{'s' * (count != 1)}", icon=":material/list:", key="knowledge_bases"):
        columns = {head: [row[name] for row in rows] for name, head in LISTED.items()}
        texts = {
            head: list(map(widgets.clean, values)) for head, values in columns.items() if head in ("base", "query")
        }
        st.dataframe(
            pa.table({**columns, **texts}),
            hide_index=True,
            alt=f"{count} knowledge bases",
            placeholder="–",
            column_config={"query": st.column_config.TextColumn(width="large")},
        )
        st.caption(
            "Bases are made and dropped on the command line, in the atlas folder, with `galsearch kb create` and "
            "`galsearch kb drop`: here nothing is written. Each version keeps its members as they were."
        )


def choose_base(state: State, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Draw the choice of a base; return it: that of the URL, else the first."""
    options = [(row["base"], row["version"]) for row in rows]
    row = chosen_base(state, rows)
    key = f"base_{options.index((row['base'], row['version']))}"
    st.selectbox(
        "Knowledge base",
        range(len(rows)),
        index=rows.index(row),
        format_func=lambda number: voting.named(rows[number], rows),
        key=key,
        width=240,
        on_change=take_base,
        args=(key, options),
    )
    return row


def chosen_base(state: State, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the base and version that the URL names, its last version unless that is named, else the first base."""
    name, version = state.param("base"), state.param("version")
    of_name = [row for row in rows if row["base"] == name] or rows[:1]
    return next((row for row in of_name if str(row["version"]) == version), of_name[0])


def take_base(key: str, options: list[tuple[str, int]]) -> None:
    """Vote by another base; a prevalence was of the target of this one."""
    state = current()
    name, version = options[st.session_state[key]]
    last = max(other for of, other in options if of == name)
    state.set_param("base", name)
    state.set_param("version", None if version == last else str(version))
    state.set_param("prevalence", None)
    state.set_param("method", None)


def choose_way(state: State, row: dict[str, Any]) -> Way:
    """Draw how votes are counted; what is chosen stands in the URL."""
    method = choose_method(state, row)
    depths = voting.depths(row)
    k = next((one for one in depths if str(one) == state.param("k")), voting.first_depth(row))
    weight = state.param("weight") if state.param("weight") in voting.WEIGHTS else "exp"
    key = f"k_{k}_{len(depths)}"
    st.selectbox("Voters", depths, depths.index(k), key=key, width=110, on_change=take, args=("k", key, ""))
    if method == voting.VOTES:
        choose_weight(weight)
    return Way(row["base"], row["version"], k, weight, choose_prevalence(state, row), method)


def choose_method(state: State, row: dict[str, Any]) -> str:
    """Draw whether votes or the probe decide, of a base with a probe in use."""
    try:
        there = voting.has_probe(state, row)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        there = False
    if not there:
        return voting.VOTES
    method = state.param("method") if state.param("method") in voting.METHODS else voting.VOTES
    key = f"method_{method}"
    st.segmented_control(
        "Decided by",
        list(voting.METHODS),
        default=method,
        required=True,
        format_func=voting.METHODS.get,
        key=key,
        help="A probe was trained on the members. Those who are listed then are the nearest of them, and do not vote.",
        on_change=take,
        args=("method", key, voting.VOTES),
    )
    return method


def choose_weight(weight: str) -> None:
    """Draw how a vote is weighted."""
    key = f"weight_{weight}"
    weights = list(voting.WEIGHTS)
    st.selectbox(
        "Weight of a vote",
        weights,
        weights.index(weight),
        format_func=voting.WEIGHTS.get,
        key=key,
        width=220,
        on_change=take,
        args=("weight", key, "exp"),
    )


def choose_prevalence(state: State, row: dict[str, Any]) -> float | None:
    """Draw how frequent the target is among the objects, of a base that has one; None for as in the base."""
    if row["target"] is None or row["kind"] != "class":
        return None
    share = share_of(state.param("prevalence"))
    key = f"prevalence_{share}"
    st.number_input(
        f"Prevalence of {widgets.plain(row['target'])}",
        0.0,
        1.0,
        share,
        0.01,
        "%.4g",
        key=key,
        width=220,
        placeholder="as in the base",
        help="How frequent it is among the objects that are classified; probabilities are corrected to it.",
        on_change=take,
        args=("prevalence", key, ""),
    )
    return share


def share_of(text: str) -> float | None:
    """Return the share that a URL says; None for none."""
    with contextlib.suppress(ValueError):
        share = float(text[:30])
        return share if math.isfinite(share) and 0 <= share <= 1 else None
    return None


def take(name: str, key: str, first: str) -> None:
    """Take what was chosen into the URL; what is so at the start is not said."""
    value = st.session_state[key]
    current().set_param(name, None if value is None or str(value) == first else f"{value}")


# ---- which objects


def choose_objects(state: State) -> list[str]:
    """Draw the choice of objects; return their ids, of this atlas, each once, as many as may be classified."""
    source = state.param("of", RESULTS) if state.param("of", RESULTS) in SOURCES else RESULTS
    key = f"of_{source}"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="knowledge_objects"):
        st.segmented_control(
            "Objects to classify",
            list(SOURCES),
            default=source,
            required=True,
            format_func=SOURCES.get,
            key=key,
            on_change=take,
            args=("of", key, RESULTS),
        )
        ids = {RESULTS: of_results, COLLECTION: of_collection, IDS: of_text}[source](state)
    if len(ids) > voting.MOST_OBJECTS:
        st.caption(f"The first {voting.MOST_OBJECTS:,} of {len(ids):,} are classified.")
    return ids[: voting.MOST_OBJECTS]


def of_results(state: State) -> list[str]:
    """Return the objects of the results, in their order; of a query that is refused, those of the one before."""
    try:
        ids = state.hits().ids
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        earlier = state.earlier()
        ids = [] if earlier is None else earlier.ids
    if not ids:
        st.info("The search has no results: change it on the page Search, or choose other objects.")
    return list(dict.fromkeys(ids))


def of_collection(state: State) -> list[str]:
    """Draw the choice of a collection; return its members that this atlas has."""
    names = list(dict.fromkeys([*state.sets.all(), state.collection]))
    st.session_state.knowledge_collection = state.collection
    st.selectbox("Collection", names, key="knowledge_collection", width=240, on_change=take_collection)
    members = list(state.sets.members(state.collection))
    ids = [name for name in members if name in state.atlas]
    if not ids:
        st.info(f"“{widgets.plain(state.collection)}” has no object of this atlas; mark some on the page Search.")
    return ids


def take_collection() -> None:
    state = current()
    state.acted()
    state.collection = st.session_state.knowledge_collection


def of_text(state: State) -> list[str]:
    """Draw the box for ids and names; return the objects that they name, and say which name none."""
    text = state.param("ids")
    if st.session_state.get("knowledge_text_shown") != text or "knowledge_text" not in st.session_state:
        st.session_state.knowledge_text = st.session_state.knowledge_text_shown = text
    st.text_area(
        "IDs or names, one on each line",
        key="knowledge_text",
        height=100,
        max_chars=MOST_PARAM,
        width=420,
        on_change=take_text,
    )
    ids, unknown = named(state, text)
    if unknown:
        several = ", ".join(map(widgets.code, unknown[:5])) + (" …" if len(unknown) > 5 else "")
        st.warning(f"{len(unknown)} of the lines name no object of this atlas: {several}", icon=":material/help:")
    elif not ids:
        st.info("Enter the ID or the name of an object.")
    return ids


def take_text() -> None:
    current().set_param("ids", st.session_state.knowledge_text.strip())


def named(state: State, text: str) -> tuple[list[str], list[str]]:
    """Return the objects that lines name, each once, and the lines that name none.

    A line is an id, several ids with commas between them, or a name.
    """
    ids: dict[str, None] = {}
    unknown = []
    for line in dict.fromkeys(filter(None, map(str.strip, text.splitlines()[: 2 * voting.MOST_OBJECTS]))):
        parts = [part.strip() for part in line.split(",") if part.strip()]
        if line in state.atlas:
            ids[line] = None
        elif parts and all(part in state.atlas for part in parts):
            ids |= dict.fromkeys(parts)
        else:
            unknown.append(line)
    names = {line: object_named(state, line) for line in unknown[:MOST_LOOKUPS]}
    ids |= {object_id: None for object_id in names.values() if object_id is not None}
    return list(ids), [line for line in unknown if names.get(line) is None]


def object_named(state: State, text: str) -> str | None:
    """Return the one object that a name or a position means; None for none or several."""
    with contextlib.suppress(galsearch.GalsearchError), limits.turn():
        ids = state.atlas.lookup(text).ids
        return ids[0] if len(ids) == 1 else None
    return None


# ---- the answers


def show_answers(state: State, result: galsearch.Classification, selected: str) -> None:
    """Draw what the votes say of each object, sortable, and the files of it."""
    st.header("Answers", anchor=False)
    st.markdown(widgets.plain(voting.summary(result)))
    ids = result.ids
    pictures = sketches.faces(state.atlas, ids) if len(ids) <= PAGE_ROWS else {}
    select = {"on_select": partial(take_row, ids), "selection_mode": "single-row", "key": "answers"}
    with st.container(key="knowledge_answers"):
        widgets.table(
            answers(result), [pictures.get(name) for name in ids], most_px=TABLE_PX, placeholder="–", **select
        )
    with st.container(horizontal=True, gap="xsmall", key="knowledge_files"):
        for suffix in FILES[:3]:
            answer_file(state, result, suffix)
        with st.popover("More", icon=":material/download:", key="knowledge_formats"):
            for suffix in FILES[3:]:
                answer_file(state, result, suffix)
            st.caption("The columns are those of `galsearch classify`, with the ids of the voters.")


def answers(result: galsearch.Classification) -> pa.Table:
    """Return the answers as they are listed, without the ids of voters; reasons only where one has no answer."""
    table = result.to_arrow().drop_columns(["object_id", "neighbors"]).rename_columns({"of": "object_id"})
    if table["reason"].null_count == len(table):  # nobody was left without an answer
        return table.drop_columns([name for name in ("best", "reason") if name in table.column_names])
    return table


def take_row(ids: list[str]) -> None:
    rows = st.session_state.answers.selection.rows
    current().select(ids[rows[0]] if rows else None)


def answer_file(state: State, result: galsearch.Classification, suffix: str) -> None:
    """Draw the button of one format."""
    meta = {
        "title": f"galsearch: votes of {widgets.clean(result.base.name)}, version {result.base.version}",
        "atlas": state.atlas.manifest.title,
        "sources": state.atlas.manifest.sources,
    }
    content = partial(galsearch.table_bytes, result.to_arrow(), suffix, meta=meta)
    saving.file_button(suffix, content, key=f"knowledge{suffix}", name="classes")


# ---- why


def show_why(state: State, votes: galsearch.Votes, object_id: str, ids: Sequence[str]) -> None:
    """Draw why an object was given its label, or none: its voters, their lines and spectra beside its own."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="knowledge_why"):
        key = f"why_{object_id}"
        st.selectbox(
            "Why",
            ids,
            list(ids).index(object_id),
            key=key,
            format_func=widgets.clean,
            width=320,
            on_change=take_why,
            args=(key,),
        )
        if "object" in state.pages and st.button("Open the object", icon=":material/open_in_full:", key="why_open"):
            state.select(object_id)
            state.goto("object")
    st.header(f"{widgets.plain(object_id)}: {widgets.plain(voting.answer(votes))}", anchor=False)
    voters = votes.neighbors
    if not len(votes):
        return
    st.markdown(widgets.plain(voting.counted(votes)))
    labels = {voter.object_id: label_of(voter) for voter in votes}
    marked = bpt_panel.points(state, [object_id, *labels], labels)
    left, right = st.columns([5, 6], gap="large") if marked else (st.container(width=640), None)
    with left:
        show_shares(votes)
    spectrum = spectrum_panel.of(state, object_id)
    beside = [] if spectrum is None else show_spectrum(state, object_id, spectrum, list(labels))
    if right is not None:
        with right:
            bpt_panel.show(
                state, marked, name=object_id, beside=beside or list(labels), without=1 + len(labels) - len(marked)
            )
    show_voters(state, votes, voters, object_id, spectrum)


def take_why(key: str) -> None:
    current().select(st.session_state[key])


def label_of(voter: galsearch.Voter) -> str:
    """Return what a voter voted for, as text."""
    return widgets.clean(voter.label) if isinstance(voter.label, str) else f"{voter.label:.5g}"


def show_shares(votes: galsearch.Votes) -> None:
    """Draw the probability of each class, or what each voter has in a base of numbers."""
    if votes.base.kind == "class":
        widgets.bars(list(votes.probabilities.items())[:MOST_CLASSES], form=".3f")
        rest = len(votes.probabilities) - MOST_CLASSES
        st.caption("Probability of each class" + (f"; {rest} less probable ones are left out" if rest > 0 else ""))
    else:
        widgets.bars([(voter.object_id, float(voter.label)) for voter in votes][:VOTERS], form=".4g")
        st.caption(f"{widgets.plain(votes.base.label_column)} of the voters, the nearest first")


def show_spectrum(state: State, object_id: str, spectrum: galsearch.Spectrum, voters: list[str]) -> list[str]:
    """Draw the spectrum of the object with those of its voters over it; return whose are drawn."""
    st.header("Spectrum and those of its voters", anchor=False)
    plot = st.container()
    held = state.atlas.spectra(voters)
    there = [name for name in voters if name in held]
    beside = spectrum_panel.choose_beside(state, there, key=f"voters_{object_id}") if there else {}
    with plot:
        spectrum_panel.show(state, object_id, spectrum, beside)
    return list(beside)


def show_voters(
    state: State, votes: galsearch.Votes, table: pa.Table, object_id: str, spectrum: galsearch.Spectrum | None
) -> None:
    """Draw the voters, nearest first, each with its image or its spectrum, its vote and its columns; all as a table."""
    st.header("Who voted", anchor=False)
    rows = table.to_pylist()
    ids = [row["object_id"] for row in rows[:VOTERS]]
    held = state.atlas.spectra(ids) if sketches.embedding(state.atlas) is not None else {}
    pictures = state.atlas.thumbnails(ids)
    for number, row in enumerate(rows[:VOTERS]):
        name = row["object_id"]
        with st.container(key=f"voter_{number}"):
            drawn, about = (
                st.columns([6, 4], gap="small", vertical_alignment="center") if held else (None, st.container())
            )
            if drawn is not None:
                with drawn:
                    spectrum_panel.sketch(name, held.get(name), object_id, spectrum)
            with about:
                show_voter(state, row, pictures.get(name))
    if held:
        st.caption("Gray is the spectrum of the object itself; both are divided by their medians.")
    with st.expander(f"All {len(rows)} votes as a table", icon=":material/table:", key="knowledge_votes"):
        widgets.table(table, None, most_px=TABLE_PX, placeholder="–")
        saving.file_button(
            ".csv",
            partial(
                galsearch.table_bytes, table, ".csv", meta={"title": f"galsearch: votes on {widgets.clean(object_id)}"}
            ),
            key="votes.csv",
            name="votes",
        )


def show_voter(state: State, row: dict[str, Any], picture: bytes | None) -> None:
    """Draw the way to the page of a voter, its image where there is one, its vote, its columns and line ratios."""
    with st.container(horizontal=True, gap="small", vertical_alignment="center", wrap=False):
        if picture is not None:
            widgets.image(picture, width_px=72, alt=f"Image of {widgets.clean(row['object_id'])}")
        with st.container(gap="xxsmall"):
            panel.link(state, row["object_id"])
            label = row["label"] if "label" in row else f"{row['value']:.5g}"
            st.markdown(
                f"**{widgets.plain(label)}** · distance {row['distance']:.3f} · weight {row['weight']:.3f}",
            )
            columns = [
                f"{name} {widgets.shown(value)}"
                for name, value in row.items()
                if name not in ABOUT_VOTERS and value is not None
            ]
            if columns:
                st.caption(widgets.plain(" · ".join(columns)))
