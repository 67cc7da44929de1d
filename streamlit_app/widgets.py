"""What pages are drawn with: the style, the title, failures, the gallery, an object's facts, tables, histograms."""

from __future__ import annotations

import base64
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import limits
import pyarrow as pa
import streamlit as st

import galsearch

HERE = Path(__file__).parent
MOST_SHOWN = 2_000  # characters of one text of an atlas or a URL
MARKDOWN = frozenset(r"\`*_{}[]()#+-.!$:~<>|&=^\"'@")
JOINER = "\u2060"  # a word joiner: shows nothing, takes no room, and keeps the signs beside it from being one
# What Markdown as Streamlit has it turns into something else after escapes are read: emoji codes, addresses, arrows.
LIVE = re.compile(r":(?=[\w+-]+:)|https?(?=:)|www(?=\.)|@(?=[\w-])|(?<!\S)[<>~-](?=[-=>]+(?!\S))", re.IGNORECASE)
PATHS = re.compile(r"(?<![\w.:/~-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:'\"`,;()<>|]+[/\\])+(?=[^\s/\\])")
HEAD_PX, ROW_PX = 36, 35  # of a table as Streamlit draws it
DEGREES_DIGITS = 6  # of a position in degrees: 0.004 arcsec
MARK_SIGNS = {"true": "✓ yes", "false": "✗ no", "uncertain": "? unsure"}
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
    head = f'<div class="galsearch-title"><h1>{html(name)}</h1><span>{html(about)}</span></div>'
    st.html(head, width="content")


def failure(error: Exception | str) -> None:
    """Show what went wrong, in the words of the error: value, rule, remedy; in a public place without paths."""
    st.error(plain(public(str(error))), icon=":material/error:")


# ---- texts of an atlas or a URL: titles, ids, captions, names of columns; none of them is ever markup


def clean(text: object) -> str:
    """Return a text on one line that can be shown: no control or direction signs, no half characters, not endless."""
    short = str(text)[: MOST_SHOWN + 1].encode(errors="replace").decode()
    kept = "".join(" " if sign.isspace() else sign for sign in short if sign.isspace() or _is_shown(sign))
    tidy = " ".join(kept.split())
    return tidy if len(tidy) <= MOST_SHOWN else f"{tidy[:MOST_SHOWN]}…"


def _is_shown(sign: str) -> bool:
    kind = unicodedata.category(sign)
    return kind not in ("Cc", "Cs") and unicodedata.bidirectional(sign) not in _DIRECTIONS


_DIRECTIONS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


def plain(text: object) -> str:
    """Return `text` so that Streamlit's Markdown, in labels too, shows it as it is."""
    apart = LIVE.sub(lambda found: found[0] + JOINER, clean(text))
    return "".join(f"\\{sign}" if sign in MARKDOWN else sign for sign in apart)


def code(text: object) -> str:
    """Return `text` as Markdown code, whatever signs it has."""
    shown = clean(text)
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{shown or ' '}{space}{fence}"


def html(text: object) -> str:
    """Return `text` so that HTML shows it as it is."""
    return escape(clean(text))


def public(text: str) -> str:
    """Return a message as it may be shown here: in a public place only the last part of a path on the server."""
    return PATHS.sub("", text) if limits.PUBLIC else text


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


def tile(galaxy: galsearch.Galaxy, picture: bytes | str | None, **more: Any) -> dict:
    """Return what the gallery draws of an object; `more` may be score, rank, copies, why, mark, alt."""
    about = {"id": galaxy.object_id, "alt": describe(galaxy, picture), "src": data_url(picture)}
    return about | {name: value for name, value in more.items() if value is not None}


def sent(event: str, *, key: str = "gallery") -> Any:
    """Return what the gallery sent with `event` in this run."""
    return st.session_state[key].get(event)


def describe(galaxy: galsearch.Galaxy, picture: bytes | str | None = None) -> str:
    """Return an alternative text: the caption where the atlas has one, else what was measured; of a sketch its kind."""
    kind = "Spectrum" if isinstance(picture, str) else "Image"
    caption = galaxy.columns.get("caption")
    if caption and kind == "Image":
        return clean(caption)
    said = [("axis_ratio", "axis ratio {:.2f}"), ("z", "redshift {:.3g}"), ("mag_r", "magnitude {:.1f} in r")]
    parts = [text.format(value) for name, text in said if isinstance(value := galaxy.columns.get(name), float)]
    return ", ".join([f"{kind} of {clean(galaxy.object_id)}", *parts])


def rank(percentile: float) -> str:
    """Return how unusual a score is, such as "best 0.1 % of this atlas"."""
    best = 100 - percentile
    return f"best {max(best, 0.1):.2g} % of this atlas" if best < 99.5 else "below all others"


def data_url(picture: bytes | str | None) -> str | None:
    """Return an image as text that a page can show without asking for a file; the browser decodes it.

    None where there is none, or its first bytes are not of PNG, JPEG or WebP. A str is a sketch of our own, and such a
    text already.
    """
    if isinstance(picture, str):
        return picture
    kind = None if picture is None else image_kind(picture)
    return None if kind is None else f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def image_kind(picture: bytes) -> str | None:
    """Return "png", "jpeg" or "webp" by the first bytes; None for everything else."""
    if picture[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if picture[:3] == b"\xff\xd8\xff":
        return "jpeg"
    return "webp" if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP" else None


def image(picture: bytes | str | None, *, alt: str, width_px: int | None = None) -> None:
    """Show an image that somebody else made; nothing here decodes it, st.image would."""
    source = data_url(picture)
    wide = "" if width_px is None else f' style="width:{width_px}px"'
    kind = "galsearch-image" if source else "galsearch-image none"
    shown = f'<img src="{source}" alt="{html(alt)}">' if source else "<span>no image</span>"
    st.html(f'<div class="{kind}"{wide}>{shown}</div>', width="stretch" if width_px is None else "content")


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
    place = is_position(name, about.get("ucd") or "")
    return (
        f'<tr title="{html(meaning)}"><th scope="row">{html(name)}</th>'
        f"<td>{html(shown(value, place=place))}{f' <i>{html(unit)}</i>' if unit else ''}</td></tr>"
    )


def bars(rows: list[tuple[str, float]], *, form: str = "+.3f") -> None:
    """Draw (name, value) as a table with a bar for each value, written in `form`."""
    most = max((abs(value) for _, value in rows), default=0) or 1.0
    drawn = "".join(_line(name, value, 100 * abs(value) / most, form) for name, value in rows)
    st.html(f'<table class="galsearch-bars"><tbody>{drawn}</tbody></table>')


def _line(name: str, value: float, share: float, form: str) -> str:
    kind = "less" if value < 0 else "more"
    written = f"{value:{form}}".replace("-", "−")
    return (
        f'<tr><th scope="row">{html(name)}</th><td class="bar"><span class="{kind}" style="width:{share:.0f}%">'
        f"</span></td><td>{written}</td></tr>"
    )


def is_position(name: str, ucd: str) -> bool:
    """Say whether a column is a right ascension or a declination in degrees."""
    return name in ("ra", "dec") or ucd.startswith("pos.eq")


def shown(value: Any, *, place: bool = False) -> str:
    """Return a value for a person: five digits, a position to 0.004 arcsec, whole numbers whole."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isfinite(value):
        if place:
            return f"{value:.{DEGREES_DIGITS}f}"
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.5g}"
    return str(value)


def position(ra: float, dec: float) -> str:
    """Return a position in degrees, to 0.004 arcsec; `galsearch.parse_position` reads it."""
    return f"{ra:.{DEGREES_DIGITS}f} {dec:+.{DEGREES_DIGITS}f}"


def table(
    rows: pa.Table,
    pictures: list[bytes | str | None] | None,
    *,
    most_px: int | None = None,
    name: str = "",
    **more: Any,
) -> None:
    """Draw rows with units in the heads and, where there is any, an image before each; `more` is of st.dataframe.

    A table that would be higher than `most_px` scrolls by itself. `name` tells it from others of a page, for those
    who hear it.
    """
    heads = {field.name: _head(field) for field in rows.schema}
    alt = f"{name}: {len(rows)} rows of {len(heads)} columns" if name else f"{len(rows)} rows of {len(heads)} columns"
    if pictures is not None and any(pictures):
        rows = rows.add_column(0, "(image)", pa.array([data_url(one) for one in pictures], pa.string()))
        heads["(image)"] = st.column_config.ImageColumn("image")
        more["row_height"] = 48
    high = most_px is not None and HEAD_PX + len(rows) * more.get("row_height", ROW_PX) > most_px
    st.dataframe(rows, hide_index=True, height=most_px if high else "content", column_config=heads, alt=alt, **more)


def _head(field: pa.Field) -> Any:
    """Return how a column is headed and its numbers are written."""
    unit = (field.metadata or {}).get(b"unit", b"").decode(errors="replace")
    label = clean(f"{field.name} [{unit}]" if unit else field.name)
    if pa.types.is_floating(field.type):
        ucd = (field.metadata or {}).get(b"ucd", b"").decode(errors="replace")
        digits = f"%.{DEGREES_DIGITS}f" if is_position(field.name, ucd) else "%.6g"
        return st.column_config.NumberColumn(label, format=digits)
    return st.column_config.TextColumn(label) if pa.types.is_string(field.type) else st.column_config.Column(label)


def column_list(columns: pa.Table, *, height: int = 260) -> None:
    """Show which columns a filter may use, with unit and meaning."""
    st.dataframe(
        columns.select(["column", "unit", "description", "type"]),
        hide_index=True,
        height=height,
        column_config={"description": st.column_config.TextColumn("description", width="large")},
        alt="Columns that a filter may use, with unit and meaning",
    )


def histogram(label: str, every: list[int], passing: list[int] | None) -> None:
    """Draw a small histogram of all rows, with those that pass in front; heights are square roots of counts."""
    most = max(*every, 1)
    bars = "".join(_bar(many, 0 if passing is None else passing[place], most) for place, many in enumerate(every))
    st.html(f'<div class="galsearch-histogram" role="img" aria-label="{html(label)}">{bars}</div>')


def _bar(every: int, passing: int, most: int) -> str:
    whole, part = (100 * (many / most) ** 0.5 for many in (every, passing))
    return f'<span><i style="height:{whole:.0f}%"></i><b style="height:{part:.0f}%"></b></span>'
