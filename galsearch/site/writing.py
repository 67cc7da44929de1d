"""A static site of an atlas: the folder that any web server can show, with the data that its page reads by range."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from galsearch import schema
from galsearch.errors import GalsearchError
from galsearch.escaping import printable
from galsearch.progress import Progress, silent
from galsearch.site import cards, models, records, vectors
from galsearch.site.folder import FORMAT, MANIFEST, PAGE, VERSION, Staging, replacing_site
from galsearch.store import open_store
from galsearch.store.index.cells import LEAST_ROWS, LIKE, WORDS
from galsearch.store.read.base import BaseStore
from galsearch.store.read.base import vectors as as_array
from galsearch.store.write.site_tables import write_facts

MOST_FILE_MB = 24.0  # Cloudflare Pages refuses files over 25 MB
LEAST_FILE_MB = 0.5  # an almost empty DuckDB file has half of that
MOST_PHRASES, MOST_PHRASE = 500, 200  # phrases that a page offers, and their characters
FRONT_END = Path(__file__).with_name("assets")  # built from `web/`, by `make web` or when the wheel is built
MISSING_FRONT_END = (
    "the page of a site is not built in this checkout ({folder}); build it with `make web`, which brings a Node by pip "
    "(galsearch[web]), or install galsearch from a wheel, which has it"
)


def write_site(
    path: str | Path,
    out: str | Path,
    *,
    title: str | None = None,
    encoders: bool = True,
    bundle_url: str | None = None,
    max_file_mb: float = MOST_FILE_MB,
    cells_from: int = LEAST_ROWS,
    seed: int = 0,
    progress: Progress = silent,
) -> Path:
    """Write the atlas `path` as a static site into the folder `out`, and return it.

    Any web server can show it, and visitors search it in their browsers: in words, by example, with SQL filters. An
    `out` that is a site already is replaced without a gap, and other people's files in it stay. `title` is another one
    than the atlas's. Without `encoders` no model goes along: visitors ask by example phrases, by objects and filters.
    `bundle_url` is where the atlas itself can be fetched. Files have at most `max_file_mb` megabytes (10^6 bytes).
    Embeddings with more than `cells_from` vectors are divided into cells, by `seed`, of which a visitor fetches some.
    Nothing is sent anywhere.

    Raises GalsearchError where the page is not built, `out` holds something else, or the disk is full: what was there
    before is as it was.
    """
    path, out = Path(path), Path(out)
    most = _checked_limit(max_file_mb)
    front = front_end()
    url = checked_url(bundle_url)
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise GalsearchError(f"{out} lies in the atlas {path}; write the site into a folder outside of it")
    store = open_store(path)
    try:
        with replacing_site(out, most=most) as staging:
            folder = staging.data.parent
            shutil.copytree(front, folder, dirs_exist_ok=True)
            (folder / ".nojekyll").touch()  # else GitHub Pages leaves out what begins with an underscore
            manifest = _filled(
                staging, store, title=title, encoders=encoders, cells_from=cells_from, most=most, seed=seed,
                progress=progress,
            )  # fmt: skip
            manifest["bundle"] = _bundle(path, url)
            text = json.dumps(_finite(manifest), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            (folder / MANIFEST).write_text(text, encoding="utf-8")
    finally:
        store.close()
    progress(1, 1, "written")
    return out


def _finite(value: Any) -> Any:
    """Return a value with None for each number that JSON has not, such as the NaN of a damaged table."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def front_end() -> Path:
    """Return the folder of the built page. Raises GalsearchError, with the remedy, where it is not built."""
    if not (FRONT_END / PAGE).is_file():
        raise GalsearchError(MISSING_FRONT_END.format(folder=FRONT_END))
    return FRONT_END


def _checked_limit(max_file_mb: float) -> int:
    if isinstance(max_file_mb, bool) or not LEAST_FILE_MB <= max_file_mb <= 4_000:
        raise GalsearchError(
            f"max_file_mb is {max_file_mb!r:.40}; a file of a site has {LEAST_FILE_MB} to 4000 MB, hosts take 25 or 100"
        )
    return int(max_file_mb * 1e6)


def checked_url(url: str | None) -> str | None:
    """Return where a bundle can be fetched. Raises GalsearchError unless it is http(s), or relative to the page."""
    if url is None:
        return None
    parts = urlsplit(url)
    relative = not parts.scheme and not parts.netloc and not url.startswith("/")
    if not (relative or (parts.scheme in ("http", "https") and parts.netloc)) or re.search(
        r"[\s<>\"'\\\x00-\x1f]", url
    ):
        raise GalsearchError(
            f"bundle_url is {url!r:.120}; give an address that begins with https:// or http://, or a path from the page"
        )
    return url


def _filled(
    staging: Staging,
    store: BaseStore,
    *,
    title: str | None,
    encoders: bool,
    cells_from: int,
    most: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write every data file; return the manifest."""
    stated = store.manifest
    spaces = sorted(stated.embeddings, key=lambda name: name != stated.main_embedding)
    phrases = {name: _phrases(store, name) for name in spaces}
    arranged: list[vectors.Arranged] = []
    for name in spaces:
        progress(0, 1, f"arranging {name} vectors")
        words = phrases[name][1] if name in phrases and phrases[name][0] else None
        arranged.append(vectors.arrange(store, name, cells_from=cells_from, words=words, seed=seed))
    rows = _row_order(store, arranged[0].rows if arranged else np.empty(0, np.int64))
    site_row = np.empty(len(rows), np.int64)
    site_row[rows] = np.arange(len(rows))
    columns = cards.describe_columns(store)
    cards.write_columns(staging, store, rows, columns)
    model_cards = [model[0] for name in store.models() if (model := store.model(name)) is not None]
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "title": printable(" ".join((title or stated.title).split()))[:200],
        "rows": len(rows),
        "created": schema.now(),
        "software": schema.software(),
        **records.credits(store, model_cards),
        "spaces": [_space(staging, store, each, site_row, progress) for each in arranged],
        "chips": {name: vectors.write_chips(staging, name, *known) for name, known in phrases.items() if known[0]},
        **cards.write_cards(staging, store, rows, columns, progress),
        "columns": columns,
        "maps": records.write_maps(staging, store, rows),
        "facts": _facts(staging, store, rows, most, progress),
        "ids": cards.write_ids(staging, store.ids(rows)),
        **_encoders(staging, store, phrases, wanted=encoders, progress=progress),
        "spectra": records.write_spectra(staging, store, rows, progress),
        "lines": records.lines(),
        "knowledge": records.write_bases(staging, store, site_row),
    }
    return manifest


def _row_order(store: BaseStore, first: np.ndarray) -> np.ndarray:
    """Return the rows of the store in the site's order: those of the main embedding's vectors, then the others."""
    return np.concatenate([first, np.setdiff1d(np.arange(store.objects), first)]).astype(np.int64)


def _phrases(store: BaseStore, name: str) -> tuple[list[str], np.ndarray]:
    """Return the phrases whose vectors an atlas has for an embedding, and those, `(p, d) float32`."""
    table, dim = store.manifest.phrases_of(name), store.manifest.embeddings[name]["dim"]
    held = store.table(table) if table is not None else None
    if held is None or not held.num_rows:
        return [], np.empty((0, dim), np.float32)
    held = held.sort_by("phrase")
    held_vectors, phrases = as_array(held["embedding"]), held["phrase"].to_pylist()
    if held_vectors.shape[1] != dim:
        return [], held_vectors[:0]
    kept = [index for index, phrase in enumerate(phrases) if phrase and len(phrase) <= MOST_PHRASE][:MOST_PHRASES]
    return [phrases[index] for index in kept], held_vectors[kept]


def _space(
    staging: Staging, store: BaseStore, arranged: vectors.Arranged, site_row: np.ndarray, progress: Progress
) -> dict[str, Any]:
    name = arranged.name
    entry = store.manifest.embeddings[name]
    return {
        "name": name,
        "modality": store.manifest.modality(name).name,
        "frame": entry.get("frame"),
        "model": entry.get("model"),
        "dim": entry["dim"],
        "rows": len(arranged.order),
        **vectors.write_vectors(staging, arranged, site_row, progress),
        "thresholds": {"words": store.threshold(name, WORDS), "like": store.threshold(name, LIKE)},
        "words": "text" if store.manifest.knows_words(name) else None,
    }


def _facts(staging: Staging, store: BaseStore, rows: np.ndarray, most: int, progress: Progress) -> dict[str, Any]:
    progress(0, 1, "writing facts")
    written = write_facts(store, staging.data, rows, most=most)
    files = [
        {
            "file": staging.adopt(one.path, "facts", "duckdb"),
            "first_row": one.first_row,
            "rows": one.rows,
            "tables": one.tables,
        }
        for one in written
    ]
    tables = dict.fromkeys(name for one in written for name in one.tables)
    return {"files": files, "tables": list(tables)}


def _encoders(
    staging: Staging,
    store: BaseStore,
    phrases: dict[str, tuple[list[str], np.ndarray]],
    *,
    wanted: bool,
    progress: Progress,
) -> dict[str, Any]:
    if not wanted:
        return {"text_encoder": None, "image_encoder": None, "encoders_left_out": {}}
    progress(0, 1, "writing models")
    known = phrases[store.manifest.main_embedding][0] if store.manifest.main_embedding else []
    return models.write_encoders(staging, store, known)


def _bundle(path: Path, url: str | None) -> dict[str, Any]:
    """Return what a page says of the atlas itself: its name, and of a file size and digest."""
    about: dict[str, Any] = {"name": printable(path.name), "url": url, "bytes": None, "sha256": None}
    if path.is_file():
        with path.open("rb") as file:
            about |= {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return about
