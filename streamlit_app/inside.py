"""What an atlas has inside beside `galaxies`, and what tells one state of it from another."""

from __future__ import annotations

from typing import Any

import streamlit as st
from state import State, fingerprint

import galsearch


def tables(atlas: galsearch.Atlas) -> set[str]:
    """Return the names of the atlas's tables; looked up again when something was written into it."""
    return _tables(written(atlas), atlas)


def written(atlas: galsearch.Atlas) -> str:
    """Return what changes with every write to the atlas: the key under which anything found in it is remembered."""
    steps = atlas.manifest.provenance
    return f"{fingerprint(atlas)} {len(steps)} {steps[-1].get('time') if steps else ''}"


def parameters_of(atlas: galsearch.Atlas, action: str, run: str) -> dict[str, Any]:
    """Return what a run that the atlas keeps was asked with, by its provenance; {} where it does not say."""
    for step in atlas.manifest.provenance:
        stated = step.get("parameters")
        if step.get("action") == action and isinstance(stated, dict) and stated.get("run") == run:
            return stated
    return {}


@st.cache_data(max_entries=16, show_spinner=False)
def _tables(written: str, _atlas: galsearch.Atlas) -> set[str]:
    found = _atlas.sql("SELECT table_name FROM duckdb_tables() WHERE NOT internal")
    return set(found["table_name"].to_pylist())


def has_positions(atlas: galsearch.Atlas) -> bool:
    """Say whether any object has a position."""
    return _placed(written(atlas), atlas)


@st.cache_data(max_entries=16, show_spinner=False)
def _placed(written: str, _atlas: galsearch.Atlas) -> bool:
    columns = _atlas.columns()["column"].to_pylist()
    if not {"ra", "dec"} <= set(columns):
        return False
    return len(_atlas.sql('SELECT 1 FROM galaxies WHERE ra IS NOT NULL AND "dec" IS NOT NULL LIMIT 1')) > 0


def has_bases(atlas: galsearch.Atlas) -> bool:
    """Say whether the atlas has knowledge bases."""
    return "knowledge_bases" in tables(atlas)


def kept_runs(state: State, table: str, action: str, said: str) -> list[dict[str, Any]]:
    """Return the runs of a table that the atlas keeps, the last first, with their number of objects and a column.

    `parameters` is what provenance says that a run was asked with.
    """
    if table not in tables(state.atlas):
        return []
    rows = state.sql(
        f"SELECT run, max(created) AS created, max({said}) AS {said}, count(*) AS objects "
        f"FROM {table} WHERE run IS NOT NULL GROUP BY run ORDER BY created DESC, run DESC"
    ).to_pylist()
    return [row | {"parameters": parameters_of(state.atlas, action, row["run"])} for row in rows]
