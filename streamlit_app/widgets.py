"""What pages are drawn with: the style, the title, failures, the gallery, an object's facts, tables, histograms."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import streamlit as st

import galsearch

HERE = Path(__file__).parent
MARK_SIGNS = {"true": "✓ true", "false": "✗ false", "uncertain": "? uncertain"}
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
    return "".join(f"\\{character}" if character in r"\`*_{}[]()#+-.!$:~<>|&" else character for character in text)


def code(text: str) -> str:
    """Return `text` as Markdown code, whatever signs it has."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


# ---- pictures


def gallery(
    tiles: Sequence[dict],
    on: dict[str, Callable[[], None]],
    *,
    key: str = "gallery",
    label: str,
    selected: str | None = None,
    chosen: Iterable[str] = (),
    line: int | None = None,
) -> None:
    """Draw tiles as `tile` makes them; `on` names callbacks for "picked", "alike", "chosen" and "marked".

    A callback finds what was sent with `sent`: an id, or for "marked" a list of {id, mark}, which the keys t, f and u
    send, with None where a mark is taken away.
    `line` is the place of the first tile that is not convincing. What has no callback is not offered.
    """
    _gallery(
        key=key,
        data={
            "tiles": list(tiles),
            "selected": selected,
            "chosen": list(chosen),
            "line": line,
            "label": label,
            "offers": list(on),
        },
        **{f"on_{event}_change": act for event, act in on.items()},
    )


def tile(galaxy: galsearch.Galaxy, picture: bytes | None, **more: Any) -> dict:
    """Return what the gallery draws of an object; `more` may be score, rank, copies, mark, alt."""
    about = {"id": galaxy.object_id, "alt": describe(galaxy), "src": None if picture is None else data_url(picture)}
    return about | {name: value for name, value in more.items() if value is not None}


def sent(event: str, *, key: str = "gallery") -> Any:
    """Return what the gallery sent with `event` in this run."""
    return st.session_state[key].get(event)


def describe(galaxy: galsearch.Galaxy) -> str:
    """Return an alternative text: the caption where the atlas has one, else what was measured."""
    caption = galaxy.columns.get("caption")
    if caption:
        return str(caption)
    said = [("axis_ratio", "axis ratio {:.2f}"), ("z", "redshift {:.3g}"), ("mag_r", "magnitude {:.1f} in r")]
    parts = [text.format(value) for name, text in said if isinstance(value := galaxy.columns.get(name), float)]
    return ", ".join([f"Picture of {galaxy.object_id}", *parts])


def rank(percentile: float) -> str:
    """Return how unusual a score is, such as "top 0.1 %"."""
    top = 100 - percentile
    return "top 0.1 %" if top < 0.1 else f"top {top:.2g} %" if top < 99.5 else "below all"


def data_url(picture: bytes) -> str:
    """Return a picture as text that a page can show without asking for a file."""
    kind = "png" if picture[:4] == b"\x89PNG" else "jpeg" if picture[:2] == b"\xff\xd8" else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


# ---- facts and tables


def facts(galaxy: galsearch.Galaxy, columns: pa.Table, *, form: str = "") -> None:
    """List every column of an object with its unit, as one column or, of the form "wide", as several."""
    known = {row["column"]: row for row in columns.to_pylist()}
    values = galaxy.columns.items()
    rows = [_fact(name, value, known.get(name, {})) for name, value in values if value is not None]
    empty = [name for name, value in values if value is None]
    st.html(f'<table class="galsearch-facts {form}"><tbody>{"".join(rows)}</tbody></table>')
    if empty:
        st.caption(plain(f"No value: {', '.join(empty)}"))


def _fact(name: str, value: Any, about: dict) -> str:
    unit, meaning = about.get("unit") or "", about.get("description") or ""
    return (
        f'<tr title="{escape(meaning)}"><th scope="row">{escape(name)}</th>'
        f"<td>{escape(shown(value))}{f' <i>{escape(unit)}</i>' if unit else ''}</td></tr>"
    )


def shown(value: Any) -> str:
    """Return a value for a person: five digits, positions to 0.01 arcsec, whole numbers whole."""
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


def column_list(columns: pa.Table, *, height: int = 260) -> None:
    """Show which columns a cut may use, with unit and meaning."""
    st.dataframe(
        columns.select(["column", "unit", "description", "type"]),
        hide_index=True,
        height=height,
        column_config={"description": st.column_config.TextColumn("description", width="large")},
        alt="Columns that the cut may use, with unit and meaning",
    )


def histogram(label: str, every: list[int], passing: list[int] | None) -> None:
    """Draw a small histogram of all rows, with those that pass in front; heights are square roots of counts."""
    most = max(*every, 1)
    bars = "".join(_bar(many, 0 if passing is None else passing[place], most) for place, many in enumerate(every))
    st.html(f'<div class="galsearch-histogram" role="img" aria-label="{escape(label)}">{bars}</div>')


def _bar(every: int, passing: int, most: int) -> str:
    whole, part = (100 * (many / most) ** 0.5 for many in (every, passing))
    return f'<span><i style="height:{whole:.0f}%"></i><b style="height:{part:.0f}%"></b></span>'
