"""The addresses of the service: what answers at each, how its errors are written, and what its parameters are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.responses import Response

from galsearch.service import data
from galsearch.service.params import Params
from galsearch.service.vo import pictures, scs, spectra, tap, vosi

if TYPE_CHECKING:
    from galsearch.service.app import Service

GET, POST, BOTH = ("GET",), ("POST",), ("GET", "POST")


@dataclass(frozen=True)
class Address:
    """An address: `errors` are written as "json", "votable", "cone" or "text"; `params` are its parameters in words."""

    path: str
    methods: tuple[str, ...]
    handler: Callable[[Service, Params], Response]
    about: str
    params: dict[str, str] = field(default_factory=dict)
    errors: str = "json"
    is_quick: bool = False


_FORMAT = {"format": "json, csv, ecsv, votable, fits, parquet, reg or ajs"}
_QUERY = {
    "query": "the JSON of a query, as a permalink has it; instead of what follows",
    "text": "words; may be repeated",
    "minus": "words that it is not; may be repeated",
    "like": "object_id of an example; may be repeated",
    "by": "embedding to compare in",
    "where": "condition in SQL",
    "near": "center of a cone: ra dec",
    "radius_arcsec": "radius of the cone",
    "k": "how many results",
    "distinct": "true: without duplicates",
    "exact": "true: compare all",
    "hybrid": "rank or sum: words match names and captions too",
    "recall": "share of the best to be found",
}
_SEARCH = {
    **_QUERY,
    "hints": "true: say what of the words cannot be heeded",
    "format": "json, csv, ecsv, votable, fits, parquet, reg, ajs, bib or duckdb",
}
_TAP = {
    "QUERY": "the query in ADQL",
    "LANG": "ADQL",
    "MAXREC": "most rows",
    "RESPONSEFORMAT": "votable, csv, ecsv, fits, json or parquet",
    "UPLOAD": "name,param:part",
}

_LABEL = {"labels": "lines of label: phrase", "where": "condition in SQL", "k": "how many objects", **_FORMAT}
_CLASSIFY = {"base": "knowledge base or column", "id": "object_id; may be repeated", "k": "neighbors"}
_CROSSMATCH = {
    "radius_arcsec": "radius",
    "mode": "best or all",
    "where": "condition in SQL",
    "ra": "column",
    "dec": "column",
    "keep_unmatched": "true: rows without a match too",
    **_FORMAT,
}
_ANOMALIES = {
    "run": "a kept list",
    "live": "true: work it out now",
    "budget": "how many",
    "fdr": "false discovery rate",
    "where": "condition in SQL",
    "among": "condition on those compared with",
    **_FORMAT,
}
_VERDICTS = {
    "object_id": "object",
    "verdict": "yes, no, unsure or label",
    "kind": "judged for",
    "label": "label",
    "note": "note",
    "by": "who",
    **_FORMAT,
}
_CONE = {"RA": "deg", "DEC": "deg", "SR": "deg", "VERB": "1 to 3", "MAXREC": "rows"}
_SIA = {"POS": "CIRCLE, RANGE or POLYGON", "ID": "publisher's id", "MAXREC": "rows"}
_SSA = {"REQUEST": "queryData", "POS": "ra,dec", "SIZE": "deg", "BAND": "m", "FORMAT": "votable or fits"}
_JOB = {"WAIT": "seconds", "PHASE": "RUN or ABORT"}
_SHEET = {"ids": "object_ids with commas", **_QUERY}
_EVERY = ("GET", "POST", "DELETE")

ADDRESSES = (
    Address("/health", GET, data.health, "Whether the service runs", is_quick=True),
    Address("/info", GET, data.info, "What the atlas is, and what the service allows"),
    Address("/columns", GET, data.columns, "Columns for filters", {"all": "true: of all tables", **_FORMAT}),
    Address("/search", BOTH, data.search, "Search; also by image=@FILE or spectrum=@FILE", _SEARCH),
    Address("/object/{object_id:path}", GET, data.one, "One object", _FORMAT),
    Address("/thumbnail/{object_id:path}", GET, data.thumbnail, "Its picture, WebP"),
    Address("/spectrum/{object_id:path}", GET, data.spectrum, "Its spectrum", _FORMAT),
    Address("/contact-sheet", BOTH, data.contact_sheet, "Pictures of results or of ids, PNG", _SHEET),
    Address("/sql", BOTH, data.sql, "One SELECT", {"sql": "the statement", "rows": "most rows", **_FORMAT}),
    Address("/crossmatch", POST, data.crossmatch, "Objects near the rows of a table: table=@FILE", _CROSSMATCH),
    Address("/label", POST, data.label, "Labels by words alone", _LABEL),
    Address("/classify", BOTH, data.classify, "Votes of known neighbors", _CLASSIFY),
    Address("/anomalies", GET, data.anomalies, "The oddest objects", _ANOMALIES),
    Address("/verdicts", BOTH, data.verdicts, "Verdicts, for who has the token", _VERDICTS),
    Address("/scs", BOTH, scs.cone_search, "Simple Cone Search", _CONE, "cone"),
    Address("/sia2/query", BOTH, pictures.query, "Pictures (SIA 2)", _SIA, "votable"),
    Address("/ssa", BOTH, spectra.query, "Spectra (SSA)", _SSA, "votable"),
    Address("/tap/sync", BOTH, tap.sync, "TAP, at once", _TAP, "votable"),
    Address("/tap/async", BOTH, tap.jobs, "TAP, as a job", {**_TAP, "PHASE": "RUN"}, "votable"),
    Address("/tap/async/{job}", _EVERY, tap.job, "A job", _JOB, "text"),
    Address("/tap/async/{job}/results/result", GET, tap.result, "Its result", errors="text"),
    Address("/tap/async/{job}/{part}", BOTH, tap.job_part, "A part of a job", errors="text"),
    Address("/tap/tables", GET, tap.tables, "Tables and columns (VOSI)", errors="votable"),
    Address("/tap/examples", GET, vosi.examples, "Examples of queries (DALI)"),
    Address("/tap/capabilities", GET, vosi.tap_capabilities, "Capabilities of TAP (VOSI)"),
    Address("/tap/availability", GET, vosi.availability, "Availability (VOSI)"),
    Address("/capabilities", GET, vosi.capabilities, "Capabilities of all protocols (VOSI)"),
    Address("/availability", GET, vosi.availability, "Availability (VOSI)"),
    Address("/registry", GET, vosi.registry, "A record to hand in to a registry"),
)
