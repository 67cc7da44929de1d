"""What pages are drawn with: the style, the title, failures, the gallery, an object's panel, the list of columns."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import streamlit as st

import galsearch

HERE = Path(__file__).parent
_gallery = st.components.v2.component(
    "galsearch_gallery",
    html='<ul class="grid" role="list"></ul>',
    css=(HERE / "gallery.css").read_text(),
    js=(HERE / "gallery.js").read_text(),
)


def style() -> None:
    """Put in the few rules that the theme cannot say."""
    st.html(f"<style>{(HERE / 'app.css').read_text()}</style>")


def title(name: str, about: str) -> None:
    """Head the app with a name and one line about it."""
    head = f'<div class="galsearch-title"><h1>{escape(name)}</h1><span>{escape(about)}</span></div>'
    st.html(head, width="content")


def failure(error: Exception | str) -> None:
    """Show what went wrong, in the words of the error: value, rule, remedy."""
    st.error(plain(str(error)), icon=":material/error:")


def plain(text: str) -> str:
    """Return `text` so that Streamlit's Markdown shows it as it is."""
    return "".join(f"\\{character}" if character in r"\`*_{}[]()#+-.!$:~<>|" else character for character in text)


def gallery(
    hits: galsearch.Hits, *, selected: str | None, picked: Callable[[], None], alike: Callable[[], None]
) -> None:
    """Draw one page of hits as tiles; the callbacks find the id with `sent("picked")` or `sent("alike")`."""
    pictures = hits.thumbnails()
    tiles = [
        {
            "id": hit.object_id,
            "score": "" if hit.score is None else f"{hit.score:.3f}",
            "alt": describe(hit),
            "src": data_url(pictures[hit.object_id]) if hit.object_id in pictures else None,
        }
        for hit in hits
    ]
    _gallery(
        key="gallery",
        data={"tiles": tiles, "selected": selected, "label": f"{len(tiles)} galaxies, best first"},
        on_picked_change=picked,
        on_alike_change=alike,
    )


def sent(event: str) -> str | None:
    """Return the id that the gallery sent with `event` in this run."""
    return st.session_state.gallery.get(event)


def describe(galaxy: galsearch.Galaxy) -> str:
    """Return an alternative text: the caption where the atlas has one, else the measured shape."""
    caption = galaxy.columns.get("caption")
    if caption:
        return str(caption)
    ratio = galaxy.columns.get("axis_ratio")
    shape = "" if ratio is None else f", axis ratio {ratio:.2f}"
    return f"Picture of {galaxy.object_id}{shape}"


def data_url(picture: bytes) -> str:
    """Return a picture as text that a page can show without asking for a file."""
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}"


def facts(galaxy: galsearch.Galaxy, columns: pa.Table) -> None:
    """List every column of an object with its unit; the meaning shows when pointed at."""
    known = {row["column"]: row for row in columns.to_pylist()}
    rows = [_fact(name, value, known.get(name, {})) for name, value in galaxy.columns.items() if value is not None]
    empty = [name for name, value in galaxy.columns.items() if value is None]
    st.html(f'<table class="galsearch-facts"><tbody>{"".join(rows)}</tbody></table>')
    if empty:
        st.caption(plain(f"No value: {', '.join(empty)}"))


def _fact(name: str, value: Any, about: dict) -> str:
    unit, meaning = about.get("unit", ""), about.get("description", "")
    return (
        f'<tr title="{escape(meaning)}"><th scope="row">{escape(name)}</th>'
        f"<td>{escape(shown(value))}{f' <i>{escape(unit)}</i>' if unit else ''}</td></tr>"
    )


def shown(value: Any) -> str:
    """Return a value for a person: five digits, but positions to 0.01 arcsec and whole numbers whole."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return str(value)


def table(rows: pa.Table, pictures: list[bytes | None] | None, **select: Any) -> None:
    """Draw rows with units in the heads and, where given, a picture before each; `select` goes to st.dataframe."""
    units = {field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in rows.schema}
    heads: dict = {name: f"{name} [{unit}]" for name, unit in units.items() if unit}
    alt = f"{len(rows)} rows of {len(units)} columns"
    if pictures is not None:
        shown = [None if picture is None else data_url(picture) for picture in pictures]
        rows = rows.add_column(0, "(picture)", pa.array(shown, pa.string()))
        heads["(picture)"] = st.column_config.ImageColumn("picture")
        select["row_height"] = 48
    st.dataframe(rows, hide_index=True, height="content", column_config=heads, alt=alt, **select)


def column_list(columns: pa.Table) -> None:
    """Show which columns a cut may use, with unit and meaning."""
    st.dataframe(
        columns.select(["column", "unit", "description", "type"]),
        hide_index=True,
        height=260,
        column_config={"description": st.column_config.TextColumn("description", width="large")},
        alt="Columns that the cut may use, with unit and meaning",
    )
