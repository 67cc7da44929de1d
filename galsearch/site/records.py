"""What a static site has of spectra, of knowledge bases, of projections and of where the data come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from galsearch import citations
from galsearch.escaping import printable
from galsearch.knowledge.classify import Way
from galsearch.knowledge.members import CLASS, KnowledgeBase, list_bases, read_members
from galsearch.progress import Progress
from galsearch.science.lines import SPECTRAL_LINES
from galsearch.site.cards import plain
from galsearch.site.folder import Entry, Staging
from galsearch.site.vectors import slug
from galsearch.store import each_spectrum
from galsearch.store.index.vectors import numbers
from galsearch.store.read.base import BaseStore

SPECTRA_ROWS = 512
MOST_SOURCE = 4_000  # characters of a text about a source
MOST_ENTRIES = 50  # of the provenance, the last ones
CALIBRATED_UNIT = "1e-17 erg / (s cm2 Angstrom)"
LABEL_TYPES = {"int16": "<i2", "int32": "<i4"}


def write_spectra(staging: Staging, store: BaseStore, rows: np.ndarray, progress: Progress) -> dict[str, Any] | None:
    """Write the spectra of the rows, in that order, and where each begins; None where the atlas has none.

    A record is the length of a JSON text (uint32), that text, flux and error `(n,) float32` each, NaN for no data.
    An object without a spectrum has no bytes.
    """
    if not store.holds("spectra"):
        return None
    file, starts = staging.file("spectra"), [0]
    for start in range(0, len(rows), SPECTRA_ROWS):
        progress(start, len(rows), "writing spectra")
        ids = store.ids(rows[start : start + SPECTRA_ROWS])
        there = {row["object_id"]: row for row in each_spectrum(store.spectra(ids))}
        for name in ids:
            if name in there:
                file.write(_spectrum(there[name]))
            starts.append(file.bytes)
    kind = "uint32" if file.bytes < 2**32 else "float64"
    entry: Entry = staging.array("spectra-starts", np.array(starts), "<u4" if kind == "uint32" else "<f8")
    return {"blob": file.entry(), "starts": entry, "starts_type": kind}


def _spectrum(row: Mapping[str, Any]) -> bytes:
    ivar = row["ivar"].astype(np.float64)
    is_there = ivar > 0
    flux = np.where(is_there, row["flux"], np.nan).astype("<f4")
    error = np.full(len(ivar), np.nan)
    error[is_there] = 1 / np.sqrt(ivar[is_there])
    about = {
        "log_wavelength_start": plain(row["log_wavelength_start"]),
        "log_wavelength_step": plain(row["log_wavelength_step"]),
        "n": len(flux),
        "z": plain(row.get("z")),
        "frame": plain(row["frame"]),
        "unit": CALIBRATED_UNIT if row.get("is_calibrated") else printable(row.get("flux_unit") or "")[:80],
        "kind": printable(row.get("kind") or "")[:80],
    }
    text = json.dumps(about).encode()
    return len(text).to_bytes(4, "little") + text + flux.tobytes() + error.astype("<f4").tobytes()


def lines() -> list[dict[str, Any]]:
    """Return the lines that a plot of a spectrum marks: names and vacuum wavelengths at rest."""
    return [{"name": line.name, "wavelength_angstrom": line.wavelength_angstrom} for line in SPECTRAL_LINES]


def write_bases(staging: Staging, store: BaseStore, site_row: np.ndarray) -> list[dict[str, Any]]:
    """Write the last version of each knowledge base; `site_row (n,)` is the site's row of each row of the store."""
    last = {base.name: base for base in list_bases(store)}
    return [_base(staging, store, base, site_row, number) for number, base in enumerate(last.values())]


def _base(staging: Staging, store: BaseStore, base: KnowledgeBase, site_row: np.ndarray, number: int) -> dict[str, Any]:
    members, way, stem = read_members(store, base), Way(), f"base-{number}"
    about: dict[str, Any] = {
        "name": base.name,
        "version": base.version,
        "kind": base.kind,
        "target": base.label_column,
        "drawn_to": {"class": base.target, "share": base.share} if base.target else None,
        "space": base.embedding,
        "k": way.k,
        "weight": way.weight,
        "tau": way.tau,
        "least": way.least,
        "calibration": base.calibration,
        "columns": list(base.columns),
        "rows": len(members.rows),
        "members": staging.array(f"{stem}-members", site_row[members.rows], "<u4"),
    }
    if base.kind == CLASS:
        kind = "int16" if len(members.classes) < 2**15 else "int32"
        codes = staging.array(f"{stem}-labels", members.codes, LABEL_TYPES[kind])
        return {**about, "labels": list(members.classes), "label_codes": codes, "label_codes_type": kind}
    return {**about, "values": staging.array(f"{stem}-values", members.values, "<f8")}


def write_maps(staging: Staging, store: BaseStore, rows: np.ndarray) -> dict[str, Entry]:
    """Write the projection of each embedding that has one: x and y of each row, NaN for none."""
    maps = {}
    for name in store.manifest.embeddings:
        if f"map_{name}" not in store.tables:
            continue
        table = store.rows_with(f"map_{name}", ("x", "y"))
        points = np.full((len(rows), 2), np.nan, np.float32)
        points[numbers(table, "row")] = np.stack([table[axis].to_numpy() for axis in ("x", "y")], axis=1)
        maps[name] = staging.array(f"map-{slug(name)}", points[rows], "<f4")
    return maps


def credits(store: BaseStore, cards: Iterable[dict]) -> dict[str, Any]:
    """Return sources, citation and provenance, bounded, without anything of the machine that made the atlas."""
    sources = [
        {key: printable(source.get(key) or "", lines=True)[:MOST_SOURCE] for key in _SOURCE}
        for source in store.manifest.sources[:MOST_ENTRIES]
    ]
    kept = ("action", "time", "software")
    provenance = [
        {key: printable(entry.get(key) or "")[:200] for key in kept}
        for entry in store.manifest.provenance[-MOST_ENTRIES:]
    ]
    citation = {"bibtex": citations.bibtex(sources), "acknowledgements": citations.acknowledgements(sources, cards)}
    return {"sources": sources, "citation": citation, "provenance": provenance}


_SOURCE = ("title", "license", "acknowledgement", "bibtex")
