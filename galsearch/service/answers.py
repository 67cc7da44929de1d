"""Answers: tables in every format, JSON, errors with their remedies, and what browsers and caches are told."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response

from galsearch import formats
from galsearch.errors import (
    BusyError,
    EngineError,
    FormatError,
    GalsearchError,
    LimitError,
    ModelMismatchError,
    QueryError,
    RemoteError,
    SchemaError,
    UnknownIdError,
)

STATUS: dict[type[GalsearchError], int] = {
    UnknownIdError: 404,
    LimitError: 422,
    EngineError: 422,
    QueryError: 400,
    SchemaError: 400,
    ModelMismatchError: 400,
    BusyError: 503,
    RemoteError: 400,
    FormatError: 500,
}
RETRY_SECONDS = "10"
MEDIA = {
    "json": ("application/json", ".json"),
    "csv": ("text/csv; charset=utf-8", ".csv"),
    "ecsv": ("text/csv; charset=utf-8; header=present", ".ecsv"),
    "votable": ("application/x-votable+xml", ".vot"),
    "fits": ("application/fits", ".fits"),
    "parquet": ("application/vnd.apache.parquet", ".parquet"),
    "reg": ("text/plain; charset=utf-8", ".reg"),
    "ajs": ("text/plain; charset=utf-8", ".ajs"),
    "bib": ("application/x-bibtex", ".bib"),
    "duckdb": ("application/vnd.duckdb", ".duckdb"),
}
ONLY_HITS = ("bib", "duckdb")  # formats of a search, not of any table
CACHED = "public, max-age=3600"


def status_of(error: GalsearchError) -> int:
    """Return the HTTP status of an error."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def error_json(status: int, message: str, kind: str) -> Response:
    """Return an error as JSON: what kind, and the message with its remedy."""
    headers = {"Retry-After": RETRY_SECONDS} if status == 503 else {}
    return Response(as_json({"error": {"type": kind, "message": message}}), status, headers, "application/json")


def as_json(value: Any) -> bytes:
    """Return a value as JSON without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def respond(request: Request, content: bytes, media: str, *, cache: str = "no-cache", name: str = "") -> Response:
    """Return content with its ETag, or 304 for who has it already; with a `name` it is a file to save."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": cache}
    if name:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known and request.method in ("GET", "HEAD"):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": cache})
    return Response(content, headers=headers, media_type=media)


def format_named(text: str | None, default: str, *, of_hits: bool = False) -> str:
    """Return the name of a format. Raises QueryError for one that there is not."""
    name = (text or default).strip().lower()
    name = {"vot": "votable", "pq": "parquet"}.get(name, name)
    known = [one for one in MEDIA if of_hits or one not in ONLY_HITS]
    if name not in known:
        raise QueryError(f"the format is {name!r:.40}; known are {', '.join(known)}")
    return name


def table_answer(request: Request, table: pa.Table, form: str, meta: dict[str, Any], *, name: str) -> Response:
    """Return a table in a format; what is no page of its own is a file called `name`."""
    media, suffix = MEDIA[form]
    content = formats.table_bytes(table, suffix, meta=meta, quote_formulas=form == "csv")
    return respond(request, content, media, name="" if form in ("json", "votable") else f"{name}{suffix}")
