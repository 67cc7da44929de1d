"""Identify: is it known? Objects looked up by position in catalogs on disk and, where one asks for it, in services."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import identifications
import inside
import jobs
import limits
import panel
import pyarrow as pa
import saving
import sketches
import streamlit as st
import widgets
from anomaly_lists import run_text as list_text
from anomaly_lists import saved_runs
from anomaly_reasons import galaxies_of, way
from choices import number_of, segmented, selected, take, turn_pages
from conditions import count
from identifications import STATES, Known
from state import PAGE_ROWS, State, current

import galsearch

TITLE, ICON, ORDER = "Identify", ":material/travel_explore:", 2.9
JOB = "identify"
MOST_OBJECTS = 5_000 if limits.PUBLIC else None
MOST_IDS = 20  # that the command below names one by one
MOST_FILES = 200
FIRST_N = 24
NEW, KEPT = "new", "kept"
PLACES = {NEW: "Look up", KEPT: "Kept with the atlas"}
RESULTS, FILTER, ODD, MARKED, ONE = "results", "filter", "anomalies", "marked", "object"
OBJECTS = {
    RESULTS: "Results",
    FILTER: "All that the filter keeps",
    ODD: "Odd objects",
    MARKED: "Collection",
    ONE: "The selected one",
}
KINDS = ("any", "galaxy", "lens", "merger", "pair", "group", "cluster", "quasar", "agn", "supernova", "star")
SERVICES = {"simbad": "SIMBAD", "ned": "NED"}
TABLES = (".csv", ".ecsv", ".tsv", ".fits", ".fit", ".fits.gz", ".vot", ".xml", ".parquet", ".duckdb", ".atlas")
ALL = "all"
FILES = (".csv", ".vot", ".fits", ".ecsv", ".parquet", ".json")
SHOWN = ("object_id", "state", "catalog", "name", "type", "separation_arcsec", "false_probability", "matches", "failed")


@dataclass(frozen=True)
class Asked:
    """What is looked up, where, as what."""

    ids: tuple[str, ...] | None
    where: str | None
    against: tuple[str, ...]
    services: tuple[str, ...] = ()
    kind: str = "any"
    radius_arcsec: float | None = None
    type_column: str | None = None
    kinds: tuple[str, ...] = ()
    service_urls: tuple[tuple[str, str], ...] = ()

    def options(self) -> dict[str, Any]:
        """Return the arguments of `Atlas.identify` beside the objects."""
        options = {"kind": self.kind, "against": list(self.against), "services": self.services, "kinds": self.kinds}
        options |= {"radius_arcsec": self.radius_arcsec, "type_column": self.type_column, "where": self.where}
        return options | {"service_urls": dict(self.service_urls)}


def needs(atlas: galsearch.Atlas) -> bool:
    """There must be positions to look up and a place that may be looked into, or a look that is kept."""
    if identifications.TABLE in inside.tables(atlas):
        return True
    return (not limits.PUBLIC or bool(configured())) and inside.has_positions(atlas)


def configured() -> dict[str, str]:
    """Return the catalogs that whoever runs the app offers, in GALSEARCH_CATALOGS: by name, PATH or PATH=KIND."""
    texts = [text.strip() for text in os.environ.get("GALSEARCH_CATALOGS", "").split(os.pathsep)]
    return {Path(text.partition("=")[0] if not Path(text).exists() else text).name: text for text in texts if text}


def show(state: State) -> None:
    """Draw the page."""
    try:
        runs = identifications.kept_runs(state)
    except galsearch.GalsearchError as error:  # a table that somebody bent: new looks can be taken all the same
        widgets.failure(error)
        runs = []
    can_look = (not limits.PUBLIC or bool(configured())) and inside.has_positions(state.atlas)
    places = [name for name, there in ((NEW, can_look), (KEPT, runs)) if there]
    place = state.param("from") if state.param("from") in places else next(iter(places), None)
    if len(places) > 1:
        segmented(state, "from", PLACES, place, label="Looks", label_visibility="collapsed")
    try:
        known = None if place is None else kept_look(state, runs) if place == KEPT else new_look(state)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    if known is not None:
        show_known(state, known)


# ---- what is asked


def new_look(state: State) -> Known | None:
    """Draw the settings and how far the work is; return the last look of this session."""
    st.caption(
        "Before an odd object is news, somebody may have listed it: objects are looked up by position in catalogs."
    )
    asked, objects = settings(state)
    job = jobs.of(JOB)
    running = job is not None and job.state == "running"
    if running:
        jobs.watch(JOB)
        st.caption("You may look at other pages meanwhile, or reload this one.")
    else:
        ready = asked is not None and bool(asked.against or asked.services) and objects > 0
        st.button(
            f"Look up {objects:,} {'object' if objects == 1 else 'objects'}",
            type="primary",
            icon=":material/travel_explore:",
            key="identify_start",
            disabled=not ready or not confirmed(asked),
            on_click=begin,
            args=(asked,),
        )
        if not ready and objects:
            st.caption("Choose a catalog to look into." if limits.PUBLIC else "Choose a catalog or a service.")
    told_problems(state, job)
    return latest(state, job)


def settings(state: State) -> tuple[Asked | None, int]:
    """Draw what is looked up, as what and where; return it with how many objects it is, None where it is nothing."""
    try:
        ids, where, many = choose_objects(state)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        ids, where, many = (), None, 0
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="identify_how"):
        kind = choose_kind(state)
        radius = choose_radius(state)
        type_column, kinds, urls = choose_types()
    against = choose_catalogs(state)
    services = () if limits.PUBLIC else choose_services(many)
    return Asked(ids, where, against, services, kind, radius, type_column, kinds, urls if services else ()), many


def choose_objects(state: State) -> tuple[tuple[str, ...] | None, str | None, int]:
    """Draw which objects are looked up; return their ids, else the condition on them, and how many they are."""
    odd = odd_lists(state)
    there = {RESULTS: True, FILTER: True, ODD: bool(odd), MARKED: True, ONE: state.selected is not None}
    options = {name: label for name, label in OBJECTS.items() if there[name]}
    of = state.param("of", RESULTS) if state.param("of", RESULTS) in options else RESULTS
    segmented(state, "of", options, of, label="Objects")
    if of == FILTER:
        where = kept_by_search(state)
        many = count(state, where)
        told_objects(f"{many:,} of {len(state.atlas):,} objects, by the filter and the cone of the page Search")
        return None, where, many
    ids = tuple(dict.fromkeys(ids_of(state, of, odd)))
    told = {
        RESULTS: "the results of the page Search",
        ODD: "the first of the list",
        MARKED: f"the collection “{state.collection}”",
        ONE: state.selected,
    }
    told_objects(f"{len(ids):,}: {told[of]}")
    return ids, None, len(ids)


def kept_by_search(state: State) -> str | None:
    """Return the filter and the cone of the page Search as one condition; None without either."""
    query, parts = state.query, []
    if query.where:
        state.passing()  # what is not one condition is refused here; counted once while it stays
        parts.append(f"({query.where}\n)")
    if query.near:
        ra, dec = query.near
        parts.append(f"separation_arcsec(ra, dec, {ra!r}, {dec!r}) <= {query.radius_arcsec!r}")
    return " AND ".join(parts) or None


def told_objects(text: str) -> None:
    st.caption(widgets.plain(text))


def ids_of(state: State, of: str, odd: dict[str, tuple[str, ...]]) -> tuple[str, ...] | list[str]:
    """Return the objects of a choice, those that the atlas has."""
    if of == ONE:
        return (state.selected,)
    if of == MARKED:
        return [name for name in state.sets.members(state.collection) if name in state.atlas]
    if of == RESULTS:
        return state.hits().ids
    names = list(odd)
    name = state.param("list") if state.param("list") in names else names[0]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="identify_odd"):
        if len(names) > 1:
            selected(state, "list", names, name, label="List", width=420)
        ids = odd[name]
        n = min(number_of(state.param("n"), FIRST_N), len(ids))
        key = f"identify_n_{n}_{len(ids)}"
        st.number_input("The first", 1, len(ids), n, key=key, width=160, on_change=take, args=("n", key, f"{FIRST_N}"))
    return [name for name in ids[:n] if name in state.atlas]


def odd_lists(state: State) -> dict[str, tuple[str, ...]]:
    """Return the ids of lists of odd objects by what they are called: that of this session, and those kept."""
    lists: dict[str, tuple[str, ...]] = {}
    found = st.session_state.get("anomalies_found")
    if found is not None and found.key[0] == inside.written(state.atlas) and len(found.table):
        lists["of the page Anomalies"] = tuple(found.table["object_id"].to_pylist())
    held, key = st.session_state.get("identify_lists"), inside.written(state.atlas)
    if held is None or held[0] != key:
        try:
            kept = {list_text(row): kept_ids(state, row["run"]) for row in saved_runs(state)[:20]}
        except galsearch.GalsearchError:  # what is wrong with them the page Anomalies says
            kept = {}
        held = st.session_state.identify_lists = (key, kept)
    return lists | held[1]


def kept_ids(state: State, run: str) -> tuple[str, ...]:
    """Return the first objects of a list that the atlas keeps."""
    with limits.turn():
        return tuple(state.atlas.saved_anomalies(run, budget=1_000)["object_id"].to_pylist())


def choose_kind(state: State) -> str:
    """Draw what the objects are taken for."""
    said = " ".join(state.param("kind", "any").split())[:60] or "any"
    options = list(KINDS) if said in KINDS else [*KINDS, said]
    key = f"identify_kind_{options.index(said)}"
    st.selectbox(
        "Taken for",
        options,
        options.index(said),
        key=key,
        width=180,
        accept_new_options=True,
        format_func=widgets.clean,
        help="What you take them for; with any, whatever lies within the radius counts.",
        on_change=take,
        args=("kind", key, "any"),
    )
    return said


def choose_radius(state: State) -> float | None:
    """Draw how far a match may lie."""
    try:
        said = float(state.param("radius"))
    except ValueError:
        said = None
    said = said if said is not None and 0 < said <= 3_600 else None
    key = f"identify_radius_{said}"
    st.number_input(
        "Radius (arcsec)",
        min_value=0.001,
        max_value=3_600.0,
        value=said,
        key=key,
        format="%g",
        step=None,
        width=180,
        placeholder="by the picture",
        help="Empty: 2 arcsec and two pixels of the object's picture, in quadrature. Proper motion is ignored.",
        on_change=take,
        args=("radius", key, ""),
    )
    return said


def choose_types() -> tuple[str | None, tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Draw what seldom needs to be said: which types count as the kind, and mirrors of services."""
    with st.popover("More", icon=":material/tune:", key="identify_more"):
        column = kept_text("type_column", "Column of the catalogs that says what a source is")
        more = kept_text("kinds", "More types that count as this kind, separated by commas")
        mirrors = "" if limits.PUBLIC else kept_text("urls", "Mirror of a service, such as simbad=https://…")
    pairs = [text.partition("=")[::2] for text in mirrors.split() if "=" in text]
    return column or None, tuple(one.strip() for one in more.split(",") if one.strip()), tuple(pairs)


def kept_text(name: str, label: str) -> str:
    """Draw a box whose text stays in this session; it is in no link."""
    key = f"identify_{name}"
    st.text_input(label, st.session_state.get(f"{key}_kept", ""), key=key, max_chars=500, on_change=keep, args=(key,))
    return st.session_state[key].strip()


def keep(key: str) -> None:
    """Keep what a widget holds when another page is drawn, which forgets it."""
    current().acted()
    current().problem = st.session_state.identify_problem = None
    st.session_state[f"{key}_kept"] = st.session_state[key]


def choose_catalogs(state: State) -> tuple[str, ...]:
    """Draw which catalogs on disk are looked into; a link never names one."""
    offered = configured()
    beside = {} if limits.PUBLIC else files_beside(state.atlas.path)
    names = list(dict.fromkeys([*offered, *beside]))
    chosen: list[str] = []
    if names:
        key = "identify_catalogs"
        first = st.session_state.get(f"{key}_kept", list(offered))
        chosen = st.multiselect(
            "Catalogs",
            names,
            [name for name in first if name in names],
            key=key,
            format_func=widgets.clean,
            placeholder="none yet",
            help="Tables, atlases and HATS catalogs" + ("." if limits.PUBLIC else " beside this atlas."),
            on_change=keep,
            args=(key,),
        )
    paths = [offered.get(name) or str(beside[name]) for name in chosen]
    if not limits.PUBLIC:
        key = "identify_paths"
        typed = st.text_area(
            "Other catalogs on this machine, a path on each line",
            st.session_state.get(f"{key}_kept", ""),
            key=key,
            height=68,
            max_chars=4_000,
            placeholder="catalogs/lenses.parquet\ncatalogs/stars.fits=star",
            help="A table (CSV, ECSV, FITS, VOTable, Parquet), another atlas, or a folder in HATS. PATH=KIND says what "
            "all of its rows are.",
            on_change=keep,
            args=(key,),
        )
        paths += [os.path.expanduser(line.strip()) for line in typed.splitlines() if line.strip()]  # noqa: PTH111  PATH=KIND
    return tuple(dict.fromkeys(paths))


def files_beside(atlas: Path) -> dict[str, Path]:
    """Return the tables and atlases beside an atlas by name, without itself in either form."""
    try:
        every = sorted(Path(os.fspath(atlas)).absolute().parent.iterdir())
    except OSError:
        return {}
    fit = [one for one in every if one.name.lower().endswith(TABLES) and one.stem != atlas.stem]
    return {one.name: one for one in fit[:MOST_FILES]}


def choose_services(many: int) -> tuple[str, ...]:
    """Draw which services are asked, and that one agrees to it: anew for each look."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="identify_services_row"):
        chosen = st.pills(
            "Services on the internet",
            list(SERVICES),
            selection_mode="multi",
            key="identify_services",
            format_func=SERVICES.get,
            help="Nothing is sent anywhere unless you choose one, and then nothing but positions.",
            on_change=acted,
        )
        catalogs = st.text_input(
            "VizieR catalogs",
            key="identify_vizier",
            max_chars=300,
            width=220,
            placeholder="V/147/sdss12",
            on_change=acted,
        )
    services = (*chosen, *(f"vizier:{name}" for name in catalogs.replace(",", " ").split()))
    if services:
        told = ", ".join(SERVICES.get(name, name) for name in services)
        st.checkbox(
            widgets.plain(f"Send the positions of {many:,} objects to {told}"), key="identify_agreed", on_change=acted
        )
    return services


def confirmed(asked: Asked | None) -> bool:
    """Say whether everything that leaves this machine was agreed to."""
    return asked is not None and (not asked.services or bool(st.session_state.get("identify_agreed")))


def acted() -> None:
    """Note that a widget caused this run."""
    current().acted()
    st.session_state.identify_problem = current().problem = None


# ---- the work


def begin(asked: Asked) -> None:
    """Start looking; services are agreed to once, for this look."""
    acted()
    state = current()
    agreed, st.session_state.identify_agreed = confirmed(asked), False
    many = len(asked.ids) if asked.ids is not None else count(state, asked.where)
    if asked.services and (limits.PUBLIC or not agreed):
        return
    if MOST_OBJECTS is not None and many > MOST_OBJECTS:
        st.session_state.identify_problem = (
            f"these are {many:,} objects, and at most {MOST_OBJECTS:,} are looked up here; narrow the filter, or run "
            "`galsearch identify` on your own machine"
        )
        return
    state.set_param("part", None)
    key = (inside.written(state.atlas), asked)
    jobs.start(JOB, "Looking objects up", partial(look, state.atlas, key, asked))


def look(atlas: galsearch.Atlas, key: tuple[Any, ...], asked: Asked, progress: jobs.Progress) -> Known:
    """Return what is known of the objects."""
    result = atlas.identify(asked.ids, progress=progress, **asked.options())
    return identifications.known_of(result, key)


def told_problems(state: State, job: jobs.Job | None) -> None:
    """Say why the last request was not carried out."""
    if job is not None and job.state == "failed":
        st.session_state.identify_problem = job.error
        jobs.forget(JOB)
    problem = st.session_state.get("identify_problem") or state.problem
    if problem:
        widgets.failure(problem)
    if job is not None and job.state == "stopped":
        st.warning("Stopped; what services answered by then is kept, and the next look goes on from there.")


def latest(state: State, job: jobs.Job | None) -> Known | None:
    """Return the last look at this atlas; one that failed or was stopped leaves the one before it."""
    if job is not None and job.state == "done":
        st.session_state.identify_known = job.result
    known = st.session_state.get("identify_known")
    return known if known is not None and known.key[0] == inside.written(state.atlas) else None


# ---- looks that the atlas keeps


def kept_look(state: State, runs: list[dict[str, Any]]) -> Known:
    """Draw the choice of a look that is kept; return it."""
    names = [row["run"] for row in runs]
    run = state.param("run") if state.param("run") in names else names[0]
    key = f"identify_run_{names.index(run)}"
    st.selectbox(
        "Look",
        names,
        names.index(run),
        format_func=lambda name: widgets.clean(identifications.run_text(runs[names.index(name)])),
        key=key,
        width=520,
        on_change=take,
        args=("run", key, names[0]),
    )
    st.caption(
        "Looks are kept with `galsearch identify --save`, in the atlas folder: here nothing is written. What is known "
        "today may be more than on that date."
    )
    held, key = st.session_state.get("identify_kept"), (inside.written(state.atlas), run)
    if held is None or held.key != key:
        with limits.turn():
            held = st.session_state.identify_kept = identifications.read_kept(state.atlas, key, runs[names.index(run)])
    return held


# ---- the answer


def show_known(state: State, known: Known) -> None:
    """Draw a look: how many are in each state, what failed, the objects, files."""
    st.header("Is it known?", anchor=False)
    taken = "" if known.kind == "any" else f", taken for {known.kind}"
    matched = sum(known.counts[name] for name in (identifications.KNOWN, identifications.OTHER))
    st.markdown(
        widgets.plain(
            f"{len(known.table):,} objects looked up {identifications.day(known.when)}{taken}: {matched:,} have a "
            f"match and {known.expected_by_chance:.2g} would have one by chance. Proper motion is ignored."
        )
    )
    told_sources(known)
    options = {ALL: f"all {len(known.table):,}"} | {name: f"{name} {many:,}" for name, many in known.counts.items()}
    chosen = state.param("state", ALL) if state.param("state", ALL) in options else ALL
    segmented(state, "state", options, chosen, label="State", label_visibility="collapsed")
    if chosen != ALL:
        st.caption(f"{chosen}: {STATES[chosen]}.")
    rows = known.rows(None if chosen == ALL else chosen)
    if len(rows):
        show_rows(state, known, rows)
        take_along(state, known, rows)
    else:
        st.info("None of them.")


def told_sources(known: Known) -> None:
    """Say what each source answered; what failed is said before anything else."""
    sources = identifications.sources_of(known)
    for name, _, failed, reason in sources:
        if failed:
            st.warning(
                widgets.plain(f"{name} did not answer for {failed:,} of {len(known.table):,} objects: {reason}"),
                icon=":material/cloud_off:",
            )
    unplaced = known.table["radius_arcsec"].null_count
    if unplaced:
        st.warning(f"{unplaced:,} objects have no position, and cannot be looked up.", icon=":material/location_off:")
    answered = [f"{name} ({many:,})" for name, many, _, _ in sources if many]
    versions = {} if known.sources is None else {row["source"]: row for row in known.sources.to_pylist()}
    kept = [
        f"{row['kept_answers']:,} answers of {name} were kept ones, the oldest of {row['oldest_answer']}"
        for name, row in versions.items()
        if row["kept_answers"]
    ]
    stated = [f"{name} is {row['version']}" for name, row in versions.items() if row["version"]]
    parts = [f"Answered: {', '.join(answered)}"] if answered else []
    if parts or kept or stated or known.notes:
        st.caption(widgets.plain(". ".join([*parts, *stated, *kept, *known.notes]) + "."))


def show_rows(state: State, known: Known, rows: pa.Table) -> None:
    """Draw one page of the objects, and what is known of the selected one beside them."""
    last = (len(rows) - 1) // PAGE_ROWS
    part = min(number_of(state.param("part"), 1) - 1, last)
    page = rows.slice(part * PAGE_ROWS, PAGE_ROWS)
    beside = state.selected is not None and known.of(state.selected) is not None
    with st.container(key="results"):
        left, right = st.columns([7, 3], gap="medium") if beside else (st.container(), None)
    with left:
        show_gallery(state, page)
        if last:
            turn_pages("identify", part, last)
    if right is not None:
        with right, st.container(key="panel"):
            show_one(state, known)


def show_gallery(state: State, page: pa.Table) -> None:
    """Draw objects as tiles with their state, the best match, and what failed."""
    ids = page["object_id"].to_pylist()
    galaxies = galaxies_of(state.atlas, ids)
    pictures = sketches.faces(state.atlas, [name for name in ids if name in galaxies])
    marked = state.sets.members(state.collection)
    tiles = [
        widgets.tile(
            galaxies[row["object_id"]],
            pictures.get(row["object_id"]),
            score=identifications.SHORT.get(row["state"], row["state"]),
            rank="" if row["separation_arcsec"] is None else f"{row['separation_arcsec']:.2f}″",
            note=widgets.clean(tile_note(row)),
            mark=marked.get(row["object_id"], {}).get("mark"),
        )
        for row in page.to_pylist()
        if row["object_id"] in galaxies
    ]
    widgets.gallery(
        tiles,
        {"picked": take_picked, "marked": take_marked},
        key="identify_gallery",
        label=f"{len(tiles)} objects with what is known of them",
        selected=state.selected,
    )
    if len(tiles) < len(ids):
        st.caption(f"{len(ids) - len(tiles)} of them are in this atlas no more.")


def tile_note(row: dict[str, Any]) -> str:
    """Return what stands below a tile: the name of the match, and how many sources did not answer."""
    failed = len(row["failed"] or ())
    parts = [row["name"] or row["catalog"] or ""]
    parts += [f"{failed} not checked"] if failed else []
    return " · ".join(filter(None, parts))


def take_picked() -> None:
    state, picked = current(), widgets.sent("picked", key="identify_gallery")
    state.select(None if picked == state.selected else picked)


def take_marked() -> None:
    current().mark_all(widgets.sent("marked", key="identify_gallery"))


def show_one(state: State, known: Known) -> None:
    """Draw what is known of the selected object, and the ways on."""
    object_id = state.selected
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.header(widgets.plain(object_id), anchor=False, width="content")
        st.button("Close", icon=":material/close:", type="tertiary", key="close", on_click=state.select, args=(None,))
    galaxy = galaxies_of(state.atlas, [object_id]).get(object_id)
    if galaxy is None:
        st.info("This object is not in the atlas any more.")
        return
    picture = sketches.faces(state.atlas, [object_id]).get(object_id)
    with st.container(horizontal=True, gap="small", key="identify_portrait"):
        widgets.image(picture, width_px=120, alt=widgets.describe(galaxy, picture))
        way(state, "object", "Open its page", icon=":material/open_in_full:", object=object_id)
    panel.mark_buttons(state, object_id)
    identifications.show_object(known, object_id)
    found = panel.links(galaxy)
    if found:
        st.markdown(" · ".join(f"[{name}]({address})" for name, address in found.items()))


# ---- taking it along


def take_along(state: State, known: Known, rows: pa.Table) -> None:
    """Draw the files of the objects and of all matches, the table, and the command that gives the same."""
    ids = rows["object_id"].to_pylist()
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center", key="identify_files"):
        st.button(
            f"Add these {len(ids):,} to “{widgets.plain(state.collection)}”",
            icon=":material/bookmark_add:",
            key="identify_add",
            on_click=take_add,
            args=(ids,),
        )
        for suffix in FILES[:3]:
            table_file(state, known, rows, suffix)
        with st.popover("More", icon=":material/download:", key="identify_formats"):
            for suffix in FILES[3:]:
                table_file(state, known, rows, suffix)
            if known.matches is not None:
                st.caption("All sources within the radius, a row each")
                for suffix in FILES[:2]:
                    table_file(state, known, known.matches, suffix, name="matches")
            st.caption("The columns are those of `galsearch identify`.")
    with st.expander("As a table", icon=":material/table_rows:", key="identify_table"):
        widgets.table(rows.select([*SHOWN]).slice(0, 1_000), None, most_px=420, name="Objects")
        if len(rows) > 1_000:
            st.caption(f"The first 1,000 of {len(rows):,}; the files have all.")
    if len(known.key) > 1 and isinstance(known.key[1], Asked):
        with st.expander("This look as a command", icon=":material/code:", key="identify_copies"):
            path = Path(state.atlas.path.name) if limits.PUBLIC else state.atlas.path
            st.code(as_command(known.key[1], path), language="bash", wrap_lines=True)
            st.caption("With `--save` an atlas folder keeps it, with its date.")


def take_add(ids: list[str]) -> None:
    state = current()
    if state.attempt(state.sets.add, state.collection, ids):
        st.toast(f"Added to “{widgets.plain(state.collection)}”", icon=":material/bookmark_added:")


def table_file(state: State, known: Known, rows: pa.Table, suffix: str, *, name: str = "identifications") -> None:
    """Draw the button of one format."""
    manifest = state.atlas.manifest
    meta = {"title": f"galsearch: {name}", "atlas": manifest.title, "sources": manifest.sources, "when": known.when}
    content = partial(galsearch.table_bytes, rows, suffix, meta=meta | known.about)
    saving.file_button(suffix, content, key=f"{name}{suffix}", name=name)


def as_command(asked: Asked, path: Path) -> str:
    """Return the command that looks up the same; with many ids those of a file are meant."""
    parts = ["galsearch", "identify", os.fspath(path), "--kind", asked.kind]
    for one in asked.against:
        parts += ["--against", Path(one).name if limits.PUBLIC else one]
    for one in asked.services:
        parts += ["--service", one]
    if asked.where is not None:
        parts += ["--where", asked.where]
    if asked.ids is not None:
        parts += [part for one in asked.ids[:MOST_IDS] for part in ("--id", one)]
    if asked.radius_arcsec is not None:
        parts += ["--radius-arcsec", f"{asked.radius_arcsec:g}"]
    parts += [] if asked.type_column is None else ["--type-column", asked.type_column]
    parts += ["--kinds", ",".join(asked.kinds)] if asked.kinds else []
    parts += [part for name, url in asked.service_urls for part in ("--service-url", f"{name}={url}")]
    more = 0 if asked.ids is None else len(asked.ids) - MOST_IDS
    return shlex.join(parts) + (f"  # and --id for each of {more:,} more" if more > 0 else "")
