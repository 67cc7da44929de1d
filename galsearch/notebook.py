"""HTML of galaxies and hits for notebooks: small pictures beside what is known of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

MOST_SHOWN = 24
_TILE = "display:inline-block;margin:4px;width:112px;font:12px sans-serif;text-align:center;overflow-wrap:anywhere"


def gallery_html(title: str, ids: Sequence[str], scores: Sequence[float | None], pictures: Mapping[str, bytes]) -> str:
    """Return a title and a tile for each object: its picture (WebP), id and score. Every text is escaped."""
    tiles = []
    for object_id, score in zip(ids, scores, strict=True):
        stated = "" if score is None else f"<br>{score:.3f}"
        tiles.append(
            f'<div style="{_TILE}">{_picture(object_id, pictures.get(object_id))}<br>{escape(object_id)}{stated}</div>'
        )
    return f"<div><p>{escape(title)}</p>{''.join(tiles)}</div>"


def object_html(columns: Mapping[str, Any], picture: bytes | None) -> str:
    """Return one object's picture (WebP) and columns as a table. Every text is escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(_text(value))}</td></tr>"
        for name, value in columns.items()
    )
    return f"<div>{_picture(str(columns.get('object_id')), picture)}<table>{rows}</table></div>"


def _picture(object_id: str, content: bytes | None) -> str:
    if content is None:
        return "<i>no picture</i>"
    data = base64.b64encode(content).decode()
    return f'<img alt="{escape(object_id)}" width="96" src="data:image/webp;base64,{data}">'


def _text(value: Any) -> str:
    return "" if value is None else str(value)
