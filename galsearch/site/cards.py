"""What a page shows of each galaxy: a card with its columns, caption and picture, and the columns that have sliders."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from galsearch.errors import SchemaError
from galsearch.progress import Progress
from galsearch.site.folder import Entry, Staging
from galsearch.site.vectors import slug
from galsearch.store.read.base import BaseStore

BATCH_ROWS = 2_048
MOST_ID = 20_000  # characters; an id is looked up by, so it is never cut
MOST_TEXT, MOST_CAPTION = 300, 1_000  # characters of a value and of a caption; what is longer is cut, and ends in "…"
MOST_SHOWN = 24  # columns of a card
MOST_LISTED = 200  # columns that site.json describes; all are in the files of facts
MOST_DESCRIPTION = 200
MOST_PICTURE = 128 << 10  # bytes of a thumbnail; a larger one is left out
MOST_SLIDERS = 8
BINS = 32
SAFE_WHOLE = 2**53  # beyond it a browser rounds whole numbers, so they are texts
OWN = ("object_id", "ra", "dec")  # of every card, whatever else is shown
SLIDERS = (
    "z", "mag_r", "mag_g", "mag_i", "radius_arcsec", "axis_ratio", "concentration", "color_gr", "color_br", "asymmetry",
    "sersic_n", "radius_px", "bar_strength", "d4000", "ew_halpha", "snr", "snr_spectrum",
)  # fmt: skip
NUMBERS = (
    "DOUBLE",
    "FLOAT",
    "BIGINT",
    "INTEGER",
    "SMALLINT",
    "TINYINT",
    "UBIGINT",
    "UINTEGER",
    "USMALLINT",
    "UTINYINT",
)
PICTURES = (b"RIFF", b"\xff\xd8\xff", b"\x89PNG")  # WebP, JPEG, PNG


def describe_columns(store: BaseStore) -> list[dict[str, Any]]:
    """Return name, type, unit, ucd, description and `shown` of the columns of `galaxies`, bounded."""
    known = store.describe().to_pylist()[:MOST_LISTED]
    shown = [row["column"] for row in known if row["column"] not in (*OWN, "file", "spectrum_file")][:MOST_SHOWN]
    return [
        {
            "name": row["column"],
            **{key: row[key][:MOST_DESCRIPTION] for key in ("type", "unit", "ucd", "description")},
            "shown": row["column"] in OWN or row["column"] in shown,
        }
        for row in known
    ]


def write_columns(staging: Staging, store: BaseStore, rows: np.ndarray, columns: list[dict[str, Any]]) -> None:
    """Give each numeric column its span, and those with sliders their histogram and their values in the site's order.

    Positions keep double precision. A column whose values are all missing, or all one, has no slider.
    """
    numeric = {each["name"]: each for each in columns if _is_number(each["type"])}
    sliders = 0
    names = [*("ra", "dec"), *(one for one in SLIDERS if one in numeric)]
    for name in dict.fromkeys([*names, *numeric]):
        if name not in numeric:
            continue
        values = _numbers(store.by_row(name))[rows]
        there = values[np.isfinite(values)]
        about: dict[str, Any] = {"min": None, "max": None, "histogram": None, "values": None}
        if len(there):
            about |= {"min": float(there.min()), "max": float(there.max())}
        if name in ("ra", "dec") and len(there):
            about |= {"values": staging.array(name, values, "<f8"), "values_type": "float64"}
        elif len(there) and about["min"] < about["max"] and sliders < MOST_SLIDERS and _spread(about):
            sliders += 1
            counts = np.histogram(there, BINS, (about["min"], about["max"]))[0].tolist()
            about |= {"values": staging.array(f"column-{slug(name)}", values, "<f4"), "values_type": "float32"}
            about |= {"histogram": counts}
        numeric[name] |= about
    for each in columns:
        each |= {key: each.get(key) for key in ("min", "max", "histogram", "values")}


def _is_number(kind: str) -> bool:
    return kind in NUMBERS or (kind.startswith("DECIMAL(") and kind.endswith(")"))


def _spread(about: dict[str, Any]) -> bool:
    """Say whether single precision tells the ends of a column apart, and holds them."""
    ends = np.array([about["min"], about["max"]])
    with np.errstate(over="ignore"):
        single = ends.astype(np.float32)
    return bool(np.isfinite(single).all() and single[0] < single[1])


def _numbers(column: pa.Array) -> np.ndarray:
    """Return a numeric column as float64, NaN where it is missing or not finite."""
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def write_cards(
    staging: Staging, store: BaseStore, rows: np.ndarray, columns: list[dict[str, Any]], progress: Progress
) -> dict[str, Any]:
    """Write a card for each of the rows, in that order; return the entries of cards and of where each begins."""
    shown = [each["name"] for each in columns if each["shown"]]
    captions = _captions(store)
    file, starts, dropped = staging.file("cards"), [0], 0
    for start in range(0, len(rows), BATCH_ROWS):
        progress(start, len(rows), "writing cards")
        part = rows[start : start + BATCH_ROWS]
        ids = store.ids(part)
        for name in ids:
            check_id(name)
        pictures = store.thumbnails(ids) if store.holds("thumbnails") else {}
        for values in _cards(store, part, shown):
            picture = pictures.get(values["object_id"], b"")
            dropped += bool(picture) and not _is_picture(picture)
            picture = picture if _is_picture(picture) else b""
            caption = captions.get(values["object_id"], values.get("caption"))
            text = json.dumps({**values, "caption": caption}, ensure_ascii=False).encode()
            file.write(len(text).to_bytes(4, "little") + text + picture)
            starts.append(file.bytes)
    kind = "uint32" if file.bytes < 2**32 else "float64"
    entry: Entry = staging.array("card-starts", np.array(starts), "<u4" if kind == "uint32" else "<f8")
    counts = {"cards_without_picture": dropped} if dropped else {}
    return {"cards": file.entry(), "card_starts": entry, "card_starts_type": kind, **counts}


def _is_picture(content: bytes) -> bool:
    return len(content) <= MOST_PICTURE and content.startswith(PICTURES)


def _cards(store: BaseStore, rows: np.ndarray, shown: list[str]) -> Iterator[dict[str, Any]]:
    table = store.hits(rows, None).drop_columns(["score"])
    if "score_in_table" in table.column_names:
        renamed = ["score" if name == "score_in_table" else name for name in table.column_names]
        table = table.rename_columns(renamed)
    for row in table.select([name for name in shown if name in table.column_names]).to_pylist():
        yield {name: plain(value) if name != "object_id" else value for name, value in row.items()}


def check_id(object_id: str | None) -> None:
    """Raise SchemaError for an id that is missing, or too long to be looked up by."""
    if not isinstance(object_id, str):
        raise SchemaError("a row of galaxies has no object_id; run `galsearch check`, and build the atlas again")
    if len(object_id) > MOST_ID:
        raise SchemaError(
            f"object_id {object_id[:40]!r}… has {len(object_id):,} characters, and a site takes {MOST_ID:,}; build the "
            "atlas with shorter ids"
        )


def plain(value: object, *, most: int = MOST_TEXT) -> Any:
    """Return a value as JSON has it: a number, a truth value, None, or a text of at most `most` characters."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if abs(value) < SAFE_WHOLE else str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _captions(store: BaseStore) -> dict[str, str]:
    """Return one caption of each object that has any, cut: the first by seed."""
    table = store.table("captions")
    if table is None or not {"object_id", "caption"} <= set(table.column_names):
        return {}
    rows = [row for row in table.select(["object_id", "caption"]).to_pylist() if row["caption"]]
    return {row["object_id"]: plain(row["caption"], most=MOST_CAPTION) for row in reversed(rows)}


def write_ids(staging: Staging, ids: list[str]) -> dict[str, Any]:
    """Write the ids with their rows, in blocks to be fetched one at a time; return the entries of blocks and index.

    They are in the order in which a browser compares texts, by UTF-16 code units. `blocks` are JSON arrays of
    [id, row] after one another; `index` is a JSON array of [first id, first byte, bytes] of each.
    """
    order = sorted(range(len(ids)), key=lambda row: ids[row].encode("utf-16-be"))
    blocks, index = staging.file("ids"), []
    for start in range(0, len(order), 1_000):
        block = [[ids[row], row] for row in order[start : start + 1_000]]
        text = json.dumps(block, ensure_ascii=False, separators=(",", ":")).encode()
        index.append([block[0][0], blocks.bytes, len(text)])
        blocks.write(text)
    entry: Entry = staging.put("ids-index", json.dumps(index, ensure_ascii=False).encode())
    return {"blocks": blocks.entry(), "index": entry}
