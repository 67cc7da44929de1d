"""About: where the galaxies come from, whom to credit, which models made the vectors, what the file is."""

from __future__ import annotations

import json

import pyarrow as pa
import streamlit as st
import widgets
from state import State

import galsearch

TITLE, ICON, ORDER = "About", ":material/info:", 9
SOFTWARE_CREDIT = (
    "galsearch, an embedded search engine for galaxies; built on DuckDB, Lance, ONNX Runtime, Astropy, SEP and "
    "Streamlit"
)
CARD_FIRST = ("id", "kind", "dim", "space", "license", "sha256")
MOST_CARD = 400  # characters of a value that is shown in a row


def needs(atlas: galsearch.Atlas) -> bool:
    """Every atlas says what it is."""
    return True


def show(state: State) -> None:
    """Draw the page."""
    atlas = state.atlas
    manifest = atlas.manifest
    st.header(widgets.plain(manifest.title), anchor=False)
    with st.container(horizontal=True, gap="large", key="about_numbers"):
        st.metric("Galaxies", f"{manifest.rows:,}", width="content")
        for name, space in manifest.embeddings.items():
            codes = ", stored as 8-bit codes" if space.get("codes") else ""
            st.metric(
                widgets.plain(f"{name.capitalize()} vectors"),
                f"{space['rows']:,}",
                help=f"{space['dim']} dimensions{codes}",
                width="content",
            )
        st.metric("Columns", f"{len(atlas.columns())}", width="content")
    credits(manifest.sources)
    models(atlas.models(), manifest.embeddings)
    beside_training(atlas)
    contents(state)
    history(manifest.provenance)
    with st.expander("Columns, with units and meaning", icon=":material/view_column:", key="about_columns"):
        widgets.column_list(atlas.columns(), height=420)
    identity(state)


def beside_training(atlas: galsearch.Atlas) -> None:
    """Say where the objects lie among what the models learned from, where their cards tell."""
    for name in atlas.manifest.embeddings:
        familiar = atlas.familiarity(by=name)
        if familiar is not None:
            told = ". ".join([f"{name.capitalize()} vectors {familiar}", *familiar.hints])
            st.caption(widgets.plain(told) + ".")


# ---- whom to credit


def credits(sources: list[dict]) -> None:
    """Draw whom to thank and cite, and offer it as text to copy."""
    st.header("Credits", anchor=False)
    if not sources:
        st.info(
            "This atlas does not say where its galaxies come from. Whoever builds it can: "
            "`galsearch build … --credits credits.json`.",
            icon=":material/help:",
        )
        return
    for source in sources:
        with st.container(border=True):
            license_text = source.get("license") or "license not stated"
            st.markdown(f"**{widgets.plain(source.get('title') or 'Untitled')}** · {widgets.plain(license_text)}")
            if source.get("acknowledgement"):
                st.markdown(widgets.plain(source["acknowledgement"]))
    bibtex = "\n\n".join(str(source["bibtex"]) for source in sources if source.get("bibtex"))
    with st.container(horizontal=True):
        if bibtex:
            st.download_button(
                "BibTeX",
                bibtex + "\n",
                file_name="galsearch.bib",
                mime="application/x-bibtex",
                icon=":material/download:",
                key="about_bibtex",
                on_click="ignore",
            )
        st.download_button(
            "Acknowledgements",
            acknowledgements(sources),
            file_name="acknowledgements.txt",
            mime="text/plain",
            icon=":material/download:",
            key="about_thanks",
            on_click="ignore",
        )
    with st.expander("Text to copy", icon=":material/content_copy:", key="about_copy"):
        st.code(acknowledgements(sources), language=None, wrap_lines=True)
        if bibtex:
            st.code(bibtex, language="bibtex", wrap_lines=True)


def acknowledgements(sources: list[dict]) -> str:
    """Return the sentences to put into a paper."""
    said = [str(source["acknowledgement"]) for source in sources if source.get("acknowledgement")]
    return "\n\n".join([*said, f"{SOFTWARE_CREDIT} (version {galsearch.__version__})."])


# ---- models


def models(cards: dict[str, dict], embeddings: dict[str, dict]) -> None:
    """Draw the cards of the models that travel along, and what made the vectors."""
    st.header("Models", anchor=False)
    for name, space in embeddings.items():
        by = widgets.plain(space["model"])
        st.markdown(f"The **{widgets.plain(name)}** vectors are by {by}" + where_from(space))
    if not cards:
        st.caption("No model travels with this atlas; it is asked in words where the same model is installed.")
    for name, card in cards.items():
        label = f"{name}: {card.get('id', 'without a name')} · {card.get('license') or 'license not stated'}"
        with st.expander(widgets.plain(label), icon=":material/neurology:", key=f"about_model_{name}"):
            show_card(card)


def where_from(space: dict) -> str:
    """Return what a manifest says of the vectors, as the end of a sentence."""
    if space.get("sha256") is None:
        return "; they came with their table, and no digest says which version made them."
    return (
        f", SHA-256 {widgets.code(str(space['sha256'])[:16] + '…')}, {space['dim']} dimensions, compared by "
        f"{widgets.plain(space['metric'])}."
    )


def show_card(card: dict) -> None:
    """Draw a model card: what is short as a table, the rest as it is."""
    short = {
        name: text
        for name in [*CARD_FIRST, *card]
        if name in card and len(text := plain_value(card[name])) <= MOST_CARD
    }
    rows = pa.table({"entry": list(short), "value": list(short.values())})
    st.dataframe(
        rows, hide_index=True, height="content", alt="The model card", column_config={"value": {"width": "large"}}
    )
    long = {name: value for name, value in card.items() if name not in short}
    if long:
        st.json(long, expanded=1)


def plain_value(value: object) -> str:
    """Return a value of a card as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---- what is in the file


def contents(state: State) -> None:
    """List the tables of the file with their rows."""
    st.header("In the file", anchor=False)
    found = state.sql(
        'SELECT table_name AS "table", estimated_size AS "rows", column_count AS "columns" FROM duckdb_tables() '
        "WHERE NOT internal ORDER BY table_name"
    )
    st.dataframe(found, hide_index=True, height="content", alt="Tables of the atlas", width=560)


def history(provenance: list[dict]) -> None:
    """List what was done to the atlas, last first."""
    st.header("Provenance", anchor=False)
    if not provenance:
        st.caption("Nothing is recorded.")
        return
    rows = [
        {
            "when": record.get("time"),
            "what": record.get("action"),
            "software": record.get("software"),
            "seconds": record.get("seconds"),
            "parameters": ", ".join(f"{name} {plain_value(value)}" for name, value in told(record).items()),
        }
        for record in reversed(provenance)
    ]
    st.dataframe(
        pa.Table.from_pylist(rows), hide_index=True, height="content", alt="What was done to the atlas, last first"
    )


def told(record: dict) -> dict:
    """Return the parameters of a step that say something, without where files lay on the maker's machine."""
    parameters = record.get("parameters") or {}
    private = ("from", "source", "table", "projector", "images", "mapping")
    return {
        name: value
        for name, value in parameters.items()
        if name not in private and value not in (None, False, "") and not isinstance(value, dict)
    }


def identity(state: State) -> None:
    """Say which file this is, and what reads it."""
    manifest = state.atlas.manifest
    st.header("Format", anchor=False)
    st.markdown(
        f"{widgets.code(manifest.format)} {widgets.plain(manifest.version)}, a {state.atlas.kind} made "
        f"{widgets.plain(manifest.created)} by "
        f"{widgets.plain(manifest.software)}; hash `{state.hash}`, which is in every link. Shown by galsearch "
        f"{galsearch.__version__}; how vectors are compared: {widgets.plain(state.atlas.compares_with)}."
    )
    if state.atlas.kind == "bundle":
        st.caption("Any DuckDB from 1.2 on reads this file and can search it, with no galsearch installed.")
