"""The JSON part: search, objects, pictures, spectra, SQL, cross-matches, labels, classes, anomalies, verdicts."""

from __future__ import annotations

import hmac
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from starlette.responses import Response

import galsearch
from galsearch import formats
from galsearch.atlas import Atlas
from galsearch.errors import GalsearchError, QueryError, SchemaError
from galsearch.permalinks import from_permalink, to_permalink
from galsearch.query import Query, Term
from galsearch.science.sky import parse_position
from galsearch.service.answers import CACHED, MEDIA, as_json, error_json, format_named, respond, table_answer
from galsearch.service.params import Params

if TYPE_CHECKING:
    from galsearch.service.app import Service

SHEET_PICTURES = 60
MOST_IDS = 1_000
ANOMALIES = 1_000


def health(service: Service, params: Params) -> Response:
    """Say that the service runs, and with what."""
    return respond(params.request, as_json({"status": "ok", "objects": len(service.atlas)}), "application/json")


def info(service: Service, params: Params) -> Response:
    """Return what the atlas says of itself, and what the service allows."""
    manifest, settings = service.atlas.manifest, service.settings
    stated = {
        "title": manifest.title,
        "objects": len(service.atlas),
        "software": f"galsearch {galsearch.__version__}",
        "embeddings": {
            name: {
                "rows": space["rows"],
                "dim": space["dim"],
                "model": space["model"],
                "words": manifest.knows_words(name),
            }
            for name, space in manifest.embeddings.items()
        },
        "main_embedding": manifest.main_embedding,
        "sources": manifest.sources,
        "acknowledgements": service.atlas.acknowledgements(),
        "bases": service.atlas.bases().to_pylist(),
        "limits": {
            "k": settings.most_k,
            "rows": settings.most_rows,
            "upload_bytes": settings.upload_bytes,
            "seconds": settings.limits.seconds,
            "actions_per_minute": settings.quota.per_minute,
        },
        "links": {
            name: f"{service.base(params)}/{name}" for name in ("docs", "openapi.json", "tap", "scs", "registry")
        },
    }
    return respond(params.request, json.dumps(stated, default=str).encode(), "application/json")


def columns(service: Service, params: Params) -> Response:
    """Return the columns that filters and SQL may name."""
    every = service.atlas.tables() if params.flag("all") else service.atlas.columns()
    form = format_named(params.text("format"), "json")
    return table_answer(params.request, every, form, service.about("columns"), name="columns")


# ---- search


def query_of(service: Service, params: Params) -> Query:
    """Return the query that a request states: a permalink's JSON, or one parameter for each part of it."""
    text = params.text("query") or (params.body if "terms" in params.stated else None)
    query = from_permalink(text) if text else _query_of_parts(service.atlas, params)
    if any(term.is_file for term in query.terms):
        raise QueryError(
            "the query names a file of another machine; send the picture or spectrum itself as image=@FILE"
        )
    query = replace(query, terms=(*query.terms, *_sent_terms(service, params)))
    if query.k > service.settings.most_k:
        raise QueryError(f"k is {query.k:,}, at most {service.settings.most_k:,} are given here; ask for fewer")
    return query


def _query_of_parts(atlas: Atlas, params: Params) -> Query:
    by = params.text("by")
    terms = [Term("text", text, by=by) for text in (*params.all("text"), *params.all("q"))]
    terms += [Term("text", text, -1.0, by) for text in params.all("minus")]
    terms += [Term("object", name, by=by) for name in params.all("like")]
    options: dict[str, Any] = {"k": params.whole("k", 24, least=1), "where": params.text("where")}
    if params.text("near") or params.text("ra"):
        near = params.text("near") or f"{params.needed('ra')} {params.needed('dec')}"
        options |= {"near": parse_position(near), "radius_arcsec": params.number("radius_arcsec")}
    for name in ("exact", "distinct"):
        options[name] = params.flag(name)
    for name in ("combine", "hybrid"):
        if params.text(name):
            options[name] = params.text(name)
    if params.text("probes"):
        options["probes"] = params.whole("probes", 1, least=1)
    return Query(terms=tuple(terms), recall=params.number("recall"), **options)


def _sent_terms(service: Service, params: Params) -> list[Term]:
    """Return the terms of a picture and of a spectrum that were sent along, as vectors."""
    atlas, terms = service.atlas, []
    if "image" in params.files:
        name, content = params.files["image"]
        with tempfile.TemporaryDirectory(prefix="galsearch-") as folder:
            path = Path(folder) / f"picture{Path(name).suffix.lower()[:10]}"
            path.write_bytes(content)
            by = atlas.manifest.embedding_of("image")
            terms.append(Term("embedding", _numbers(atlas.embed(path, by=by)), by=by))
    if "spectrum" in params.files:
        name, content = params.files["spectrum"]
        spectrum = atlas.read_spectrum(content, name=Path(name).name, **_redshift(params))
        by = atlas.manifest.embedding_of("spectrum")
        terms.append(Term("embedding", _numbers(atlas.embed(spectrum)), by=by))
    return terms


def _redshift(params: Params) -> Any:
    z = params.number("z")
    return {} if z is None else {"z": z}


def _numbers(vector: np.ndarray) -> tuple[float, ...]:
    return tuple(np.asarray(vector, float).tolist())


def search(service: Service, params: Params) -> Response:
    """Return the results of a query in any format, or to be saved as an atlas of their own."""
    form = format_named(params.text("format"), "json", of_hits=True)
    with service.turn(params):
        query = query_of(service, params)
        hits = service.atlas.search(query)
        if form != "json":
            media, suffix = MEDIA[form]
            if form == "csv":
                meta: dict[str, Any] = {}
                content = formats.table_bytes(hits.table, suffix, meta=meta, quote_formulas=True)
            else:
                content = hits.to_bytes(suffix)
            return respond(params.request, content, media, name="" if form == "votable" else f"galaxies{suffix}")
        plan = asdict(hits.plan)
        meta = {
            "title": service.atlas.manifest.title,
            "query": json.loads(query.to_json()),
            "permalink": to_permalink(query),
            "matches": hits.plan.matches,
            "plan": {name: plan[name] for name in plan if name != "milliseconds"},
            "convincing": hits.convincing,
            "untaught": list(hits.untaught),
        }
        if params.flag("hints"):
            words = [term.text for term in query.terms if term.kind == "text" and term.weight > 0]
            meta["hints"] = list(service.atlas.hints(" ".join(words))) if words else []
        content = formats.table_bytes(hits.table, ".json", meta=meta)
    return respond(params.request, content, "application/json")


# ---- one object


def one(service: Service, params: Params) -> Response:
    """Return the columns of an object, and where its picture and spectrum are."""
    name = params.request.path_params["object_id"]
    with service.turn(params):
        table = service.atlas.rows([name])
        form = format_named(params.text("format"), "json")
        if form != "json":
            return table_answer(params.request, table, form, service.about(name), name="galaxy")
        content = json.loads(formats.table_bytes(table, ".json"))["rows"][0]
        has = {"thumbnail": bool(service.atlas.thumbnails([name])), "spectrum": bool(service.atlas.spectra([name]))}
    links = {kind: service.link(params, kind, name) for kind, there in has.items() if there}
    return respond(params.request, as_json({"object": content, "links": links}), "application/json")


def thumbnail(service: Service, params: Params) -> Response:
    """Return the picture of an object as WebP."""
    name = params.request.path_params["object_id"]
    with service.turn(params):
        picture = service.atlas.thumbnails([name]).get(name)
        if picture is None:
            service.atlas[name]  # raises for an object that there is not
            return error_json(404, f"object '{name}' has no picture", "UnknownIdError")
    if picture[:4] != b"RIFF" or picture[8:12] != b"WEBP":
        raise GalsearchError(f"the picture of '{name}' is no WebP; check the atlas with `galsearch check`")
    return respond(params.request, picture, "image/webp", cache=CACHED)


def contact_sheet(service: Service, params: Params) -> Response:
    """Return one PNG of the pictures of results, or of the objects in `ids`, with their names."""
    with service.turn(params), tempfile.TemporaryDirectory(prefix="galsearch-") as folder:
        ids = [name for value in params.all("ids") for name in value.split(",")]
        if ids:
            query = Query(where=_among(ids), k=min(len(ids), SHEET_PICTURES))
        else:
            query = query_of(service, params)
            query = replace(query, k=min(query.k, SHEET_PICTURES))
        title = params.text("title") or query.formula() or "galaxies"
        path = galsearch.contact_sheet({title[:200]: service.atlas.search(query)}, Path(folder) / "sheet.png")
        return respond(params.request, path.read_bytes(), "image/png")


def _among(ids: list[str]) -> str:
    if len(ids) > SHEET_PICTURES:
        raise QueryError(f"{len(ids):,} ids, at most {SHEET_PICTURES} pictures are put on a sheet")
    return "object_id IN ({})".format(", ".join("'" + name.replace("'", "''") + "'" for name in ids))


def spectrum_table(spectrum: galsearch.Spectrum) -> pa.Table:
    """Return wavelength, flux and ivar of a spectrum with units."""
    unit = "10**-10 W.m**-3" if spectrum.is_calibrated else ""
    fields = [
        formats.describe(pa.field("wavelength", pa.float64()), unit="0.1nm", ucd="em.wl", description="In vacuum"),
        formats.describe(pa.field("flux", pa.float32()), unit=unit, ucd="phot.flux.density;em.wl"),
        formats.describe(pa.field("ivar", pa.float32()), ucd="stat.weight", description="Inverse variance; 0: no data"),
    ]
    arrays = (spectrum.wavelength_angstrom, spectrum.flux, spectrum.ivar)
    return pa.table([pa.array(a, f.type) for a, f in zip(arrays, fields, strict=True)], schema=pa.schema(fields))


def spectrum(service: Service, params: Params) -> Response:
    """Return the spectrum of an object: its wavelengths in vacuum, flux and inverse variance."""
    name = params.request.path_params["object_id"]
    with service.turn(params):
        stored = service.atlas.spectra([name]).get(name)
        if stored is None:
            service.atlas[name]
            return error_json(404, f"object '{name}' has no spectrum", "UnknownIdError")
    table = spectrum_table(stored)
    form = format_named(params.text("format"), "json")
    about = {"object_id": name, "z": stored.z, "frame": stored.frame, "is_calibrated": stored.is_calibrated}
    if form == "json":
        arrays = {one: table[one].to_pylist() for one in table.column_names}
        return respond(params.request, as_json({**about, **arrays}), "application/json")
    return table_answer(params.request, table, form, {**service.about(f"spectrum of {name}"), **about}, name="spectrum")


# ---- tables


def sql(service: Service, params: Params) -> Response:
    """Return the rows of one SELECT."""
    text = params.text("sql") or params.text("q") or params.body
    if not text.strip():
        raise QueryError("there is no statement; give one SELECT as sql=…")
    form = format_named(params.text("format"), "json")
    rows = params.whole("rows", service.settings.rows, least=1, most=service.settings.most_rows)
    with service.turn(params, line="sql"):
        table = service.atlas.sql(text)
        names = formats.free_names(table.column_names, suffix="_also")
        table = table.rename_columns(names)
        status = {"status": "OVERFLOW"} if table.num_rows > rows else {"status": "OK"}
        return table_answer(
            params.request, table.slice(0, rows), form, {**service.about("sql"), "sql": text, **status}, name="rows"
        )


def crossmatch(service: Service, params: Params) -> Response:
    """Return the rows of a table that was sent, with the objects within a radius of them."""
    sent = params.files.get("table") or params.files.get("body")
    if sent is None:
        raise SchemaError("no table was sent; send one as table=@catalog.fits with radius_arcsec")
    radius = params.number("radius_arcsec")
    if radius is None:
        raise QueryError("the parameter RADIUS_ARCSEC is missing; give it")
    form = format_named(params.text("format"), "json")
    options: dict[str, Any] = {name: params.text(name) for name in ("where", "ra", "dec")}
    with service.turn(params, line="sql"):
        table = service.atlas.read_table(sent[1], name=Path(sent[0]).name if "." in sent[0] else "table.vot")
        if table.num_rows > service.settings.most_rows:
            raise QueryError(f"the table has {table.num_rows:,} rows, at most {service.settings.most_rows:,} are taken")
        result = service.atlas.crossmatch(
            table,
            radius_arcsec=radius,
            mode=params.text("mode") or "best",
            keep_unmatched=params.flag("keep_unmatched"),
            **options,
        )
        return table_answer(params.request, result, form, service.about("crossmatch"), name="matches")


def label(service: Service, params: Params) -> Response:
    """Return which of some labels fits each object that passes, by words alone."""
    text = params.text("labels") or params.body
    if "labels" in params.files:
        text = params.files["labels"][1].decode(errors="replace")
    if not text.strip():
        raise SchemaError("there are no labels; send lines of `label: phrase` as labels=…")
    form = format_named(params.text("format"), "json")
    k = params.whole("k", service.settings.rows, least=1, most=service.settings.most_rows)
    with service.turn(params), tempfile.TemporaryDirectory(prefix="galsearch-") as folder:
        path = Path(folder) / "labels.yaml"
        path.write_text(text)
        try:
            table = service.atlas.label(path, by=params.text("by"), where=params.text("where"), k=k)
        except SchemaError as error:
            raise SchemaError(str(error).replace(str(path), "labels")) from None
        return table_answer(params.request, table, form, service.about("labels"), name="labels")


def classify(service: Service, params: Params) -> Response:
    """Return what the known neighbors of objects vote for."""
    base, ids = params.needed("base"), params.all("id")
    if not 1 <= len(ids) <= MOST_IDS:
        raise QueryError(f"{len(ids):,} ids, expected 1 to {MOST_IDS:,} as id=…")
    with service.turn(params):
        result = service.atlas.classify(ids, base, k=params.whole("k", 3, least=1, most=100))
        answers = [
            {
                "object_id": votes.object_id,
                "label": votes.label,
                "best": votes.best,
                "probability": votes.probability,
                "value": votes.value,
                "uncertainty": votes.uncertainty,
                "support": votes.support,
                "distance": votes.distance,
                "reason": votes.reason,
                "voters": [voter._asdict() for voter in votes],
            }
            for votes in result
        ]
    return respond(params.request, json.dumps({"base": base, "votes": answers}).encode(), "application/json")


def anomalies(service: Service, params: Params) -> Response:
    """Return the list of the oddest objects that was kept, or with `live` one that is worked out now."""
    budget = params.whole("budget", 50, least=1, most=ANOMALIES)
    form = format_named(params.text("format"), "json")
    fdr = params.number("fdr")
    with service.turn(params, line="sql"):
        if params.flag("live"):
            listed = service.atlas.anomalies(
                budget, where=params.text("where"), among=params.text("among"), by=params.text("by"), fdr=fdr
            )
            table = listed.to_arrow()
        else:
            table = service.atlas.saved_anomalies(params.text("run"), fdr=0.1 if fdr is None else fdr, budget=budget)
        return table_answer(params.request, table, form, service.about("anomalies"), name="anomalies")


# ---- verdicts


def verdicts(service: Service, params: Params) -> Response:
    """Return the verdicts of the service's file, or add one; only for who knows the token."""
    refused = _refused(service, params)
    if refused is not None:
        return refused
    kept = service.verdicts()
    if params.request.method == "POST":
        verdict = kept.add(
            params.needed("object_id"),
            params.needed("verdict"),
            kind=params.needed("kind"),
            blind=params.flag("blind"),
            label=params.text("label"),
            note=params.text("note"),
            by=params.text("by") or "service",
        )
        return respond(params.request, as_json(verdict.to_row()), "application/json")
    form = format_named(params.text("format"), "json")
    media, suffix = MEDIA[form]
    content = kept.to_bytes(suffix, kind=params.text("kind"), history=params.flag("history"))
    return respond(params.request, content, media, cache="no-store")


def _refused(service: Service, params: Params) -> Response | None:
    token = service.settings.token
    if service.settings.verdicts is None or not token:
        return error_json(
            404, "this service keeps no verdicts; start it with --verdicts FILE and a token", "QueryError"
        )
    scheme, _, given = params.request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        response = error_json(401, "verdicts need the token of the service: Authorization: Bearer TOKEN", "QueryError")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    return None
