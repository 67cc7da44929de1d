"""Taking results along: as files, to other programs, and as the same query in Python, shell or SQL."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import limits
import streamlit as st
import widgets
from state import State

import galsearch

FIRST = {  # suffix -> (what it is called, its media type)
    ".csv": ("CSV", "text/csv"),
    ".vot": ("VOTable", "application/x-votable+xml"),
    ".fits": ("FITS", "application/fits"),
}
MORE = {
    ".ecsv": ("ECSV", "text/plain"),
    ".parquet": ("Parquet", "application/vnd.apache.parquet"),
    ".json": ("JSON", "application/json"),
    ".reg": ("DS9 regions", "text/plain"),
    ".ajs": ("Aladin script", "text/plain"),
    ".bib": ("BibTeX of the data", "application/x-bibtex"),
    ".duckdb": ("Subset atlas (.duckdb)", "application/octet-stream"),
}
ON_THE_SKY = (".reg", ".ajs")
BIBTEX, SUBSET = ".bib", ".duckdb"


def show(hits: galsearch.Hits) -> None:
    """Draw the files that the answer may be taken along in, and what to say of its sources."""
    with st.container(horizontal=True, gap="xsmall", key="saving"):
        for suffix in FIRST:
            button(hits, suffix)
        with st.popover("More", icon=":material/download:", key="more_formats"):
            for suffix in MORE:
                if suffix not in ON_THE_SKY or placed(hits):
                    button(hits, suffix)
            if not limits.PUBLIC:
                st.button("Send to TOPCAT or Aladin", icon=":material/share:", key="samp", on_click=send, args=(hits,))
            st.caption("Suggested acknowledgement")
            st.code(hits.acknowledgements(), language=None, wrap_lines=True)


def button(hits: galsearch.Hits, suffix: str) -> None:
    """Draw the button of one format for hits."""
    file_button(suffix, partial(hits.to_bytes, suffix), key=f"save_{suffix[1:]}")


def file_button(suffix: str, content: Callable[[], bytes], *, key: str, name: str = "galsearch") -> None:
    """Draw the button of one format; its file is made when it is pressed."""
    label, mime = {**FIRST, **MORE}[suffix]
    st.download_button(
        label,
        data=content,
        file_name=f"{name}{suffix}",
        mime=mime,
        icon=":material/download:",
        key=key,
        on_click="ignore",
    )


def send(hits: galsearch.Hits) -> None:
    """Send the rows to the programs of this desktop; say who has them, or why nobody has."""
    try:
        st.toast(f"Sent to {widgets.plain(', '.join(hits.send()))}", icon=":material/check:")
    except galsearch.GalsearchError as error:
        st.toast(widgets.plain(widgets.public(str(error))), icon=":material/error:", duration="long")


def placed(hits: galsearch.Hits) -> bool:
    """Say whether any hit has a position."""
    return "ra" in hits.table.column_names and hits.table["ra"].null_count < len(hits)


def copies(state: State, query: galsearch.Query) -> None:
    """Draw the question as Python, as a command and as SQL, to copy."""
    path = Path(state.atlas.path.name) if limits.PUBLIC else state.atlas.path
    python, shell, sql = st.tabs(["Python", "Command", "SQL"])
    python.code(galsearch.as_python(query, path), language="python", wrap_lines=True)
    shell.code(galsearch.as_command(query, path), language="bash", wrap_lines=True)
    sql.code(galsearch.as_sql(query, state.atlas), language="sql", wrap_lines=True)
    sql.caption("Run it on the page SQL, with `atlas.sql(…)` or with `galsearch sql`.")
