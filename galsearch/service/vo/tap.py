"""TAP 1.1: queries in ADQL, at once or as jobs, with tables of one's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa
from starlette.responses import RedirectResponse, Response

from galsearch import formats
from galsearch.errors import GalsearchError, QueryError, SchemaError
from galsearch.quotas import Client
from galsearch.remote.fetch import fetch
from galsearch.service.answers import MEDIA, RETRY_SECONDS, status_of
from galsearch.service.params import Params
from galsearch.service.vo import tap_schema, uws, votable
from galsearch.service.vo.uws import Job

if TYPE_CHECKING:
    from galsearch.service.app import Service

FORMATS = {  # what may be asked for -> format, media type of the answer
    **dict.fromkeys(("votable", "votable/td", votable.MEDIA, "text/xml", "application/xml"), "votable"),
    f"{votable.MEDIA};serialization=tabledata": "votable",
    **dict.fromkeys(("csv", "text/csv", "text/csv;header=present"), "csv"),
    **dict.fromkeys(("fits", "application/fits"), "fits"),
    **dict.fromkeys(("json", "application/json"), "json"),
    **dict.fromkeys(("ecsv",), "ecsv"),
    **dict.fromkeys(("parquet", "application/vnd.apache.parquet", "application/x-parquet"), "parquet"),
}
LANGUAGES = ("ADQL", "ADQL-2.0", "ADQL-2.1")
MOST_UPLOADS = 10
_NAME = re.compile(r"[A-Za-z_]\w{0,60}", re.ASCII)
Reader = Callable[[str], tuple[str, bytes]]


def sync(service: Service, params: Params) -> Response:
    """Answer a query at once."""
    _check_request(params.values)
    content, media = answer(service, params.client(service.settings.proxies), params.values, _sent(params))
    return Response(content, media_type=media, headers={"Cache-Control": "no-cache"})


def answer(service: Service, client: Client, values: dict[str, list[str]], read: Reader) -> tuple[bytes, str]:
    """Return the answer to a query and its media type; the same for one at once and for a job."""
    text = _last(values, "query")
    if not text:
        raise QueryError("the parameter QUERY is missing; give a query in ADQL")
    language = (_last(values, "lang") or "ADQL").strip().upper()
    if language not in LANGUAGES:
        raise QueryError(f"LANG is {language!r:.40}; known are {', '.join(LANGUAGES)}")
    form = _format(values)
    most = _most(values, service.settings.rows, service.settings.most_rows)
    with service.turn_of(client, line="sql"):
        tables = {**service.tap_schema, **_uploads(service, values, read)}
        table, overflow = service.atlas.adql(text, tables=tables, most=most)
    overflow = overflow and most > 0
    about = {**service.about("TAP"), "query": text}
    if form == "votable":
        return votable.document(table, about, overflow=overflow), votable.MEDIA
    status = {"status": "OVERFLOW"} if overflow else {}
    return formats.table_bytes(table, MEDIA[form][1], meta={**about, **status}), MEDIA[form][0]


def _check_request(values: dict[str, list[str]]) -> None:
    request = _last(values, "request")
    if request and request.lower() not in ("doquery",):
        raise QueryError(f"REQUEST is {request!r:.40}, expected doQuery; capabilities are at capabilities")


def _format(values: dict[str, list[str]]) -> str:
    stated = _last(values, "responseformat") or _last(values, "format") or "votable"
    name = FORMATS.get(re.sub(r"\s", "", stated).lower())
    if name is None:
        raise QueryError(f"RESPONSEFORMAT is {stated!r:.60}; known are votable, csv, ecsv, fits, json and parquet")
    return name


def _most(values: dict[str, list[str]], default: int, most: int) -> int:
    stated = (_last(values, "maxrec") or str(default)).strip()
    if not (stated.isascii() and stated.isdecimal()) or len(stated) > 18:
        raise QueryError(f"MAXREC is {stated!r:.40}, expected a whole number from 0")
    return min(int(stated), most)


def _last(values: dict[str, list[str]], name: str) -> str | None:
    given = [value for value in values.get(name, []) if value.strip()]
    return given[-1] if given else None


# ---- tables that are sent


def _sent(params: Params) -> Reader:
    def read(name: str) -> tuple[str, bytes]:
        if name not in params.files:
            raise QueryError(f"UPLOAD names param:{name[:60]}, and no such part was sent")
        return params.files[name]

    return read


def _uploads(service: Service, values: dict[str, list[str]], read: Reader) -> dict[str, pa.Table]:
    """Return the tables that UPLOAD names."""
    tables: dict[str, pa.Table] = {}
    for one in [part for value in values.get("upload", []) for part in value.split(";") if part.strip()]:
        name, _, where = one.partition(",")
        name, where = name.strip(), where.strip()
        name = name.removeprefix("TAP_UPLOAD.").removeprefix("tap_upload.")
        if not _NAME.fullmatch(name) or f"tap_upload.{name.lower()}" in tables:
            raise QueryError(f"UPLOAD names a table {name!r:.60}, expected letters, digits and _, each name once")
        if len(tables) >= MOST_UPLOADS:
            raise QueryError(f"UPLOAD names more than {MOST_UPLOADS} tables")
        tables[f"tap_upload.{name.lower()}"] = _read(service, name, _content(service, where, read))
    return tables


def _content(service: Service, where: str, read: Reader) -> bytes:
    """Return a table that was sent along, or that lies at an address; a public service asks no local network."""
    if where.lower().startswith("param:"):
        return read(where[6:].strip().lower())[1]
    settings = service.settings
    return fetch(where, most_bytes=settings.upload_bytes, seconds=settings.limits.seconds, local=not settings.public)


def _read(service: Service, name: str, content: bytes) -> pa.Table:
    try:
        table = service.atlas.read_table(content, name="upload.vot")
    except SchemaError as error:
        raise SchemaError(str(error).replace("upload.vot", f"the upload {name}")) from None
    if table.num_rows > service.settings.most_rows:
        raise QueryError(f"the upload {name} has {table.num_rows:,} rows; {service.settings.most_rows:,} are taken")
    return table


# ---- jobs


def work(service: Service, job: Job) -> tuple[bytes, str]:
    """Return the result of a job."""

    def read(name: str) -> tuple[str, bytes]:
        if name not in job.uploads:
            raise QueryError(f"UPLOAD names param:{name[:60]}, and no such part was sent")
        return name, service.jobs.upload(job, name)

    _check_request(job.values)
    return answer(service, Client(job.session, job.address), job.values, read)


def jobs(service: Service, params: Params) -> Response:
    """List jobs, or make one. Their names are nobody's business, so that a public service lists none."""
    url = f"{service.base(params)}/tap/async"
    if params.request.method == "GET":
        known = [] if service.settings.public else service.jobs.all()
        phases = [phase.upper() for phase in params.all("phase")]
        known = [job for job in known if not phases or job.phase in phases]
        last = params.whole("last", len(known))
        return Response(uws.list_xml(known[:last], url), media_type="text/xml")
    client = params.client(service.settings.proxies)
    kept = {name: values for name, values in params.values.items() if name not in ("phase", "action")}
    sent = {name: content for name, (_, content) in params.files.items()}
    job = service.jobs.create(kept, sent, client.session, client.address)
    if (params.text("phase") or "").upper() == "RUN":
        service.jobs.run(job)
    return RedirectResponse(f"{url}/{job.id}", 303)


def job(service: Service, params: Params) -> Response:
    """Show a job, or delete it."""
    url = f"{service.base(params)}/tap/async"
    one = service.jobs.get(params.request.path_params["job"])
    deleted = params.request.method == "DELETE" or (params.text("action") or "").upper() == "DELETE"
    if deleted:
        service.jobs.delete(one)
        return RedirectResponse(url, 303)
    if params.request.method == "POST":
        return _posted(service, params, one, f"{url}/{one.id}")
    seconds = params.text("wait")
    if seconds is not None:
        endless = seconds.strip() == "-1"
        service.jobs.wait(one, uws.LONGEST_WAIT if endless else params.number("wait") or 0, params.text("phase"))
    return _shown(service, one, f"{url}/{one.id}")


def _shown(service: Service, one: Job, url: str) -> Response:
    return Response(
        uws.job_xml(one, url, service.settings.limits.seconds),
        media_type="text/xml",
        headers={"Cache-Control": "no-store"},
    )


def _posted(service: Service, params: Params, one: Job, url: str) -> Response:
    """Do what a POST to a job asks for: run or abort it, set its end, change parameters."""
    phase, end = (params.text("phase") or "").upper(), params.text("destruction")
    if phase == "RUN":
        service.jobs.run(one)
    elif phase == "ABORT":
        service.jobs.abort(one)
    elif phase:
        raise QueryError(f"PHASE is {phase!r:.40}, expected RUN or ABORT")
    elif end:
        service.jobs.set_destruction(one, end)
    else:
        fixed = ("phase", "action", "destruction", "executionduration")  # the last is the service's own limit
        changed = {name: values for name, values in params.values.items() if name not in fixed}
        if changed:
            service.jobs.set_parameters(one, changed)
    return RedirectResponse(url, 303)


def job_part(service: Service, params: Params) -> Response:
    """Show or set a part of a job: phase, destruction, parameters, results and the rest."""
    part = params.request.path_params["part"]
    one = service.jobs.get(params.request.path_params["job"])
    url = f"{service.base(params)}/tap/async/{one.id}"
    if params.request.method == "POST":
        return _posted(service, params, one, url)
    plain = {
        "phase": lambda: one.phase,
        "quote": lambda: "",
        "executionduration": lambda: f"{service.settings.limits.seconds:.0f}",
        "destruction": lambda: one.destruction,
        "owner": lambda: "",
    }
    documents = {"parameters": lambda: uws.parameters_xml(one), "results": lambda: uws.results_xml(one, url)}
    headers = {"Cache-Control": "no-store"}
    if part in plain:
        return Response(plain[part](), media_type="text/plain", headers=headers)
    if part in documents:
        return Response(documents[part](), media_type="text/xml", headers=headers)
    if part == "error":
        if one.phase != uws.ERROR:
            return Response(
                status_code=404, content=f"the job is {one.phase} and has no error", media_type="text/plain"
            )
        return Response(votable.error(one.message), media_type=votable.MEDIA, headers=headers)
    return Response(f"a job has no {part[:40]}", 404, media_type="text/plain")


def result(service: Service, params: Params) -> Response:
    """Return the result of a job."""
    one = service.jobs.get(params.request.path_params["job"])
    return Response(service.jobs.result(one), media_type=one.media)


def tables(service: Service, params: Params) -> Response:
    """Return the tables and their columns, or those of one table."""
    agent = params.request.headers.get("user-agent", "").lower()
    is_esa = not agent or "astroquery" in agent  # which names itself in POST only
    made = tap_schema.document_of_esa if is_esa else tap_schema.document
    return Response(made(service.published), media_type="text/xml")


def error_response(error: GalsearchError) -> Response:
    """Return an error as VOTable with its status."""
    status = status_of(error)
    headers = {"Retry-After": RETRY_SECONDS} if status == 503 else {}
    return Response(votable.error(str(error)), status, headers, votable.MEDIA)
