"""SQL: one SELECT over the atlas, with its macros explained and its tables listed."""

from __future__ import annotations

import pyarrow as pa
import streamlit as st
import widgets

import galsearch

TITLE, ICON, ORDER = "SQL", ":material/database:", 2
ROWS = 60
MACROS = {
    "embed('any words')": "the vector of words; also `concept('phrase')` for the phrases in `FROM concepts`",
    "like_object('id')": "the vector of an object",
    "nearest(vector, k := 10, cut := true)": "table of `object_id, score`; `cut` is any condition on `galaxies`",
    "nearest_exact(vector, k := 10, cut := true)": "the same, comparing every vector",
    "cone(ra, dec, radius_arcsec)": "table of `object_id, separation_arcsec`, nearest first",
    "separation_arcsec(ra1, dec1, ra2, dec2)": "angle between two positions in degrees",
}
EXAMPLES = {
    "Words and a join": "SELECT *\nFROM nearest(embed('edge-on galaxy'), k := 20)\n"
    "JOIN galaxies USING (object_id)\nORDER BY score DESC",
    "Like the first object": "FROM nearest(like_object((SELECT min(object_id) FROM galaxies)), k := 20)\n"
    "ORDER BY score DESC",
    "Columns": "FROM galsearch_columns",
    "Tables": "SELECT table_name, estimated_size, column_count FROM duckdb_tables() WHERE NOT internal",
}


def show(atlas: galsearch.Atlas) -> None:
    """Draw the page."""
    if "sql" not in st.session_state:
        st.session_state.sql = st.query_params.get("sql", EXAMPLES["Words and a join"])
    st.pills("Examples", EXAMPLES, key="sql_example", label_visibility="collapsed", on_change=take_example, wrap=False)
    st.text_area("Statement", key="sql", height=150, label_visibility="collapsed")
    with st.container(horizontal=True, gap="xsmall"):
        st.button("Run", type="primary", key="run", icon=":material/play_arrow:")
        explain_macros()
        with st.popover("Columns of galaxies", key="sql_columns"):
            widgets.column_list(atlas.columns())
    st.query_params.from_dict({"sql": st.session_state.sql})
    try:
        table = distinct(atlas.sql(st.session_state.sql))
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    show_table(table, atlas)


def take_example() -> None:
    if st.session_state.sql_example:
        st.session_state.sql, st.session_state.sql_example = EXAMPLES[st.session_state.sql_example], None


def explain_macros() -> None:
    """List what the atlas adds to SQL."""
    with st.popover("Macros", key="macros"):
        st.markdown("\n".join(f"- `{macro}`: {meaning}" for macro, meaning in MACROS.items()))


def distinct(table: pa.Table) -> pa.Table:
    """Return `table` with a number behind names that a join brought twice; a table on screen needs one name each."""
    names = table.column_names
    return table.rename_columns(
        [name if name not in names[:place] else f"{name} ({place + 1})" for place, name in enumerate(names)]
    )


def show_table(table: pa.Table, atlas: galsearch.Atlas) -> None:
    """Draw the first rows, with pictures where there are ids, and offer all of them."""
    shown = table.slice(0, ROWS)
    more = f", the first {ROWS} shown" if len(table) > ROWS else ""
    st.caption(f"{len(table):,} rows{more}")
    if not len(table):
        st.info("The statement is right, and no row answers it. Loosen its conditions.")
        return
    widgets.table(shown, pictures(shown, atlas))
    st.download_button(
        f"CSV, {len(table):,} rows",
        data=lambda: galsearch.format_table(table, "csv"),
        file_name="galsearch.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def pictures(table: pa.Table, atlas: galsearch.Atlas) -> list[bytes | None] | None:
    """Return the picture of each row, or None where the rows name no objects."""
    if "object_id" not in table.column_names or not pa.types.is_string(table["object_id"].type):
        return None
    ids = table["object_id"].to_pylist()
    found = atlas.thumbnails([name for name in ids if name is not None])
    return [found.get(name) for name in ids] if found else None
