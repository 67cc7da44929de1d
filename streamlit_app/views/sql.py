"""SQL: one SELECT over the atlas, with its macros explained, its tables listed, and the rows drawn."""

from __future__ import annotations

import hashlib

import limits
import pyarrow as pa
import saving
import sketches
import streamlit as st
import widgets
from drawing import quickplot
from state import PAGE_ROWS, State, current

import galsearch

TITLE, ICON, ORDER = "SQL", ":material/database:", 4
MACROS = {
    "embed('any words')": "the vector of words; needs the text model of the atlas",
    "concept('phrase')": "the vector of one of the phrases in `FROM concepts`; needs no model",
    "like_object('id')": "the vector of an object",
    "nearest(vector, k := 10, cut := true)": "table of `object_id, score`; `cut` is any condition on `galaxies`",
    "nearest_exact(vector, k := 10, cut := true)": "the same, comparing every vector",
    "cone(ra, dec, radius_arcsec)": "table of `object_id, separation_arcsec`, nearest first",
    "separation_arcsec(ra1, dec1, ra2, dec2)": "the angle between two positions in degrees",
}
OF_WORDS = ("embed('any words')", "concept('phrase')")  # macros of words
OF_AN_EMBEDDING = {
    "like_object_{}('id')": "the vector of an object's spectrum",
    "nearest_{}(vector, k := 10, cut := true)": "as `nearest`, of spectra",
}
OF_WORDS_FOR_IT = {
    "embed_{}('any words')": "the vector of words for spectra",
    "concept_{}('phrase')": "the vector of one of their phrases; needs no model",
}
OF_SPECTRA = "Spectra"
LIKE_FIRST = "Like the first object"
IN_WORDS = "Words and a join"
EXAMPLES = {
    IN_WORDS: "SELECT *\nFROM nearest(embed('edge-on galaxy'), k := 20)\nJOIN galaxies USING (object_id)\n"
    "ORDER BY score DESC",
    LIKE_FIRST: "FROM nearest(like_object((SELECT min(object_id) FROM galaxies)), k := 20)\nORDER BY score DESC",
    OF_SPECTRA: "SELECT object_id, z, frame, len(flux) AS pixels\nFROM spectra\nORDER BY object_id",
    "Summary of every column": "SUMMARIZE galaxies",
    "Columns": "FROM galsearch_columns",
    "Tables": "SELECT table_name, estimated_size, column_count FROM duckdb_tables() WHERE NOT internal",
}
ALONE = ("SUMMARIZE", "DESCRIBE", "EXPLAIN", "SHOW")  # statements that do not go into brackets, and give few rows


def needs(atlas: galsearch.Atlas) -> bool:
    """Every atlas takes SQL."""
    return True


def show(state: State) -> None:
    """Draw the page."""
    if "sql" not in st.session_state or st.session_state.get("sql_param") != state.param("sql"):
        st.session_state.sql = state.param("sql") or start(state)
        st.session_state.sql_param = state.param("sql")
    st.pills(
        "Examples", examples(state), key="sql_example", label_visibility="collapsed", on_change=take_example, wrap=False
    )
    editor, about = st.columns([7, 5], gap="medium")
    with editor:
        st.text_area("One SELECT, FROM, WITH or SUMMARIZE", key="sql", height=210, on_change=take_sql)
        with st.container(horizontal=True, gap="xsmall"):
            st.button("Run", type="primary", key="run", icon=":material/play_arrow:", on_click=take_sql)
            if state.query.terms or state.query.where or state.query.near:
                st.button("Use current search", key="take_search", on_click=take_search)
    with about, st.container(key="about"):
        explain(state)
    with st.container(key="answer"):
        show_answer(state)
    with st.expander("The current search as Python, command or SQL", icon=":material/code:", key="sql_copies"):
        saving.copies(state, state.query)


def start(state: State) -> str:
    """Return what stands in the box at first: a search by words where the atlas has words."""
    return example(state, IN_WORDS if "text" in state.atlas.models() else LIKE_FIRST)


def example(state: State, name: str) -> str:
    """Return the text of an example; its words are of spectra where these are what words are compared with."""
    spectra = sketches.of_spectra(state.atlas, None)
    return EXAMPLES[name].replace("edge-on galaxy", "emission-line galaxy") if spectra else EXAMPLES[name]


def examples(state: State) -> list[str]:
    """Return the examples that this atlas can answer."""
    left_out = () if sketches.knows_words(state.atlas) else (IN_WORDS,)
    also = () if sketches.embedding(state.atlas) else (OF_SPECTRA,)
    return [name for name in EXAMPLES if name not in (*left_out, *also)]


def macros_of(state: State) -> dict[str, str]:
    """Return the macros that this atlas has vectors for."""
    left_out = () if sketches.knows_words(state.atlas) else OF_WORDS
    name = sketches.embedding(state.atlas)
    known = {macro: meaning for macro, meaning in MACROS.items() if macro not in left_out}
    if name is None or not state.atlas.manifest.embeddings:
        return known
    worded = OF_WORDS_FOR_IT if state.atlas.manifest.knows_words(name) else {}
    return known | {macro.format(name): meaning for macro, meaning in (worded | OF_AN_EMBEDDING).items()}


def take_example() -> None:
    if st.session_state.sql_example:
        st.session_state.sql = example(current(), st.session_state.sql_example)
        st.session_state.sql_example = None
        take_sql()


def take_search() -> None:
    state = current()
    st.session_state.sql = galsearch.as_sql(state.query, state.atlas)
    take_sql()


def take_sql() -> None:
    current().set_param("sql", st.session_state.sql)
    st.session_state.sql_param = st.session_state.sql


# ---- what there is


def explain(state: State) -> None:
    """Draw the macros and, table by table, the columns."""
    macros, tables = st.tabs(["Macros", "Tables"], key="sql_about")
    macros.markdown("\n".join(f"- `{macro}`: {meaning}" for macro, meaning in macros_of(state).items()))
    with tables:
        known = schema(state.hash, state)
        name = st.selectbox(
            "Table", list(known), key="sql_table", format_func=lambda one: f"{one} ({known[one]:,} rows)"
        )
        st.dataframe(
            columns(state.hash, name, state), hide_index=True, height=200, alt=f"Columns of {widgets.clean(name)}"
        )


@st.cache_data(max_entries=8, show_spinner=False)
def schema(hash: str, _state: State) -> dict[str, int]:
    """Return the tables of the atlas with their rows, `galaxies` first."""
    found = _state.sql(
        "SELECT table_name AS name, estimated_size AS rows FROM duckdb_tables() WHERE NOT internal "
        "ORDER BY table_name <> 'galaxies', table_name"
    )
    return dict(zip(found["name"].to_pylist(), found["rows"].to_pylist(), strict=True))


@st.cache_data(max_entries=64, show_spinner=False)
def columns(hash: str, table: str, _state: State) -> pa.Table:
    """Return the columns of one table: name, type, unit, meaning."""
    said = "'" + table.replace("'", "''") + "'"
    return _state.sql(
        f"""SELECT c.column_name AS "column", c.data_type AS type, coalesce(g.unit, '') AS unit,
                   coalesce(g.description, '') AS description
        FROM duckdb_columns() c
        LEFT JOIN galsearch_columns g ON g."table" = c.table_name AND g."column" = c.column_name
        WHERE c.table_name = {said} AND NOT c.internal ORDER BY c.column_index"""
    )


# ---- the answer


def show_answer(state: State) -> None:
    """Draw the rows of the statement, and the ways to look at them; where it is refused, those of the one before."""
    try:
        table = answered(state, st.session_state.sql)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        table = earlier(state)
        if table is None:
            return
        st.warning("Rows of the previous statement:", icon=":material/history:")
    over = len(table) > limits.SQL_ROWS
    table = table.slice(0, limits.SQL_ROWS)
    if over:
        st.warning(
            f"Result truncated: it has more than {limits.SQL_ROWS:,} rows, and the first {limits.SQL_ROWS:,} are "
            "here. Add a condition, or aggregate; `galsearch sql` gives all of them.",
            icon=":material/content_cut:",
        )
    st.caption(f"{len(table):,} rows" + (f", the first {PAGE_ROWS} shown" if len(table) > PAGE_ROWS else ""))
    if not len(table):
        st.info("The query returned no rows. Relax its conditions.")
        return
    rows, plot = st.tabs(["Rows", "Plot"], key="sql_view")
    with rows:
        shown = table.slice(0, PAGE_ROWS)
        widgets.table(shown, pictures(shown, state))
        download(table)
    with plot:
        quickplot.show(table)


def answered(state: State, text: str) -> pa.Table:
    """Return the rows of a statement, asked again only when it changes."""
    key = (state.hash, hashlib.sha256(text.encode()).hexdigest())
    kept = st.session_state.get("sql_answer")
    if kept is None or kept[0] != key:
        st.session_state.sql_answer = kept = (key, distinct(run(state, text)))
    return kept[1]


def earlier(state: State) -> pa.Table | None:
    """Return the rows of the last statement that was answered on this atlas."""
    kept = st.session_state.get("sql_answer")
    return None if kept is None or kept[0][0] != state.hash else kept[1]


def run(state: State, text: str) -> pa.Table:
    """Return the rows of a statement, at most one more than are allowed."""
    most = limits.SQL_ROWS + 1
    if text.lstrip().upper().startswith(ALONE):
        return state.sql(text).slice(0, most)
    return state.sql(text.rstrip().rstrip(";"), most_rows=most)


def distinct(table: pa.Table) -> pa.Table:
    """Return `table` with a number behind names that a join brought twice; a table on screen needs one name each."""
    names = table.column_names
    return table.rename_columns(
        [name if name not in names[:place] else f"{name} ({place + 1})" for place, name in enumerate(names)]
    )


def download(table: pa.Table) -> None:
    """Draw the file of all rows."""
    st.download_button(
        f"CSV, {len(table):,} rows",
        data=lambda: galsearch.format_table(table, "csv"),
        file_name="galsearch.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def pictures(table: pa.Table, state: State) -> list[bytes | str | None] | None:
    """Return the picture of each row, or None where the rows name no objects."""
    if "object_id" not in table.column_names or not pa.types.is_string(table["object_id"].type):
        return None
    ids = table["object_id"].to_pylist()
    found = sketches.faces(state.atlas, [name for name in ids if name is not None])
    return [found.get(name) for name in ids] if found else None
