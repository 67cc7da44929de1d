"""VOSI: what the service can do, whether it is there, and a record to hand in to a registry."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.responses import Response

import galsearch
from galsearch.adql.translate import LIKE, SIMILARITY
from galsearch.service.params import Params
from galsearch.service.vo.votable import attribute, xml_text

if TYPE_CHECKING:
    from galsearch.service.app import Service

XML = "text/xml"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMES = (
    'xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" xmlns:vr="http://www.ivoa.net/xml/VOResource/v1.0" '
    'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" xmlns:tr="http://www.ivoa.net/xml/TAPRegExt/v1.0" '
    'xmlns:cs="http://www.ivoa.net/xml/ConeSearch/v1.0" xmlns:sia="http://www.ivoa.net/xml/SIA/v1.1" '
    'xmlns:ssap="http://www.ivoa.net/xml/SSA/v1.1" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
GEOMETRY = (
    "POINT", "CIRCLE", "BOX", "POLYGON", "CONTAINS", "INTERSECTS", "DISTANCE", "COORD1", "COORD2", "AREA", "CENTROID",
)  # fmt: skip
EXAMPLES = (
    (
        "cone",
        "Galaxies of a cone",
        "SELECT TOP 100 object_id, ra, dec FROM galsearch.galaxies "
        "WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 180.0, 0.0, 1.0))",
    ),
    (
        "words",
        "Galaxies most like words",
        "SELECT TOP 20 object_id, gs_similarity('spiral galaxy') AS score FROM galsearch.galaxies ORDER BY score DESC",
    ),
)
STANDARD = "ivo://ivoa.net/std"


def availability(service: Service, params: Params) -> Response:
    """Say that the service is there."""
    since = service.started.strftime("%Y-%m-%dT%H:%M:%SZ")
    inside = f"<vosi:available>true</vosi:available><vosi:upSince>{since}</vosi:upSince>"
    names = 'xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0"'
    return Response(f"{_HEAD}<vosi:availability {names}>{inside}</vosi:availability>\n", media_type=XML)


def tap_capabilities(service: Service, params: Params) -> Response:
    """Return the capabilities of TAP."""
    base = f"{service.base(params)}/tap"
    examples = f'<capability standardID="{STANDARD}/DALI#examples">{_interface(f"{base}/examples")}</capability>'
    return _document(_tap(service, base) + _vosi(base, tables=True) + examples)


def capabilities(service: Service, params: Params) -> Response:
    """Return the capabilities of all protocols."""
    base = service.base(params)
    return _document(_every(service, base) + _vosi(base, tables=False))


def _document(inside: str) -> Response:
    return Response(f"{_HEAD}<vosi:capabilities {_NAMES}>{inside}</vosi:capabilities>\n", media_type=XML)


def _every(service: Service, base: str) -> str:
    parts = _tap(service, f"{base}/tap") + _cone(service, base)
    return parts + _pictures(base) + _spectra(service, base)


def _interface(url: str, *, kind: str = "vs:ParamHTTP", version: str = "", use: str = "full", role: str = "std") -> str:
    stated = f" version={attribute(version)}" if version else ""
    roles = f' role="{role}"' if role else ""
    return f'<interface xsi:type="{kind}"{roles}{stated}><accessURL use="{use}">{xml_text(url)}</accessURL></interface>'


def _vosi(base: str, *, tables: bool) -> str:
    names = ("capabilities", "availability", *(("tables",) if tables else ()))
    return "".join(
        f'<capability standardID="{STANDARD}/VOSI#{name}">{_interface(f"{base}/{name}")}</capability>' for name in names
    )


def _tap(service: Service, base: str) -> str:
    settings = service.settings
    features = "".join(f"<feature><form>{name}</form></feature>" for name in GEOMETRY)
    own = "".join(
        f"<feature><form>{name}({arguments}) -&gt; REAL</form><description>{about}</description></feature>"
        for name, argument, about in (
            (SIMILARITY, "words", "Cosine of an object with words; orders a TOP query by the index"),
            (LIKE, "object_id", "Cosine of an object with another object; orders a TOP query by the index"),
        )
        for arguments in (f"{argument} VARCHAR", f"{argument} VARCHAR, embedding VARCHAR")
    )
    text = "".join(f"<feature><form>{name}</form></feature>" for name in ("LOWER", "UPPER", "ILIKE"))
    other = {
        "adqlgeo": features,
        "string": text,
        "sets": "".join(f"<feature><form>{name}</form></feature>" for name in ("UNION", "EXCEPT", "INTERSECT")),
        "common-table": "<feature><form>WITH</form></feature>",
        "type": "<feature><form>CAST</form></feature>",
        "offset": "<feature><form>OFFSET</form></feature>",
    }
    listed = f'<languageFeatures type="{STANDARD}/TAPRegExt#features-udf">{own}</languageFeatures>' + "".join(
        f'<languageFeatures type="{STANDARD}/TAPRegExt#features-adql{"geo" if name == "adqlgeo" else "-" + name}">'
        f"{inside}</languageFeatures>"
        for name, inside in other.items()
    )
    versions = "".join(f'<version ivo-id="{STANDARD}/ADQL#v{number}">{number}</version>' for number in ("2.0", "2.1"))
    output = "".join(
        f"<outputFormat><mime>{mime}</mime><alias>{alias}</alias></outputFormat>"
        for mime, alias in (
            ("application/x-votable+xml", "votable"),
            ("text/csv", "csv"),
            ("application/fits", "fits"),
            ("application/vnd.apache.parquet", "parquet"),
            ("application/json", "json"),
        )
    )
    return (
        f'<capability standardID="{STANDARD}/TAP" xsi:type="tr:TableAccess">'
        f"{_interface(base, version='1.1', use='base')}"
        f"<language><name>ADQL</name>{versions}<description>ADQL 2.1</description>{listed}</language>"
        f'{output}<uploadMethod ivo-id="{STANDARD}/TAPRegExt#upload-inline"/>'
        f'<uploadMethod ivo-id="{STANDARD}/TAPRegExt#upload-http"/>'
        f'<uploadMethod ivo-id="{STANDARD}/TAPRegExt#upload-https"/>'
        "<retentionPeriod><default>604800</default><hard>2592000</hard></retentionPeriod>"
        f"<executionDuration><default>{settings.limits.seconds:.0f}</default>"
        f"<hard>{settings.limits.seconds:.0f}</hard></executionDuration>"
        f'<outputLimit><default unit="row">{settings.rows}</default><hard unit="row">{settings.most_rows}</hard>'
        f'</outputLimit><uploadLimit><hard unit="byte">{settings.upload_bytes}</hard></uploadLimit></capability>'
    )


def _cone(service: Service, base: str) -> str:
    return (
        f'<capability standardID="{STANDARD}/ConeSearch" xsi:type="cs:ConeSearch">'
        f"{_interface(f'{base}/scs?', use='base')}<maxSR>180</maxSR><maxRecords>{service.settings.rows}</maxRecords>"
        "<verbosity>true</verbosity><testQuery><ra>180</ra><dec>0</dec><sr>0.1</sr></testQuery></capability>"
    )


def _pictures(base: str) -> str:
    url = _interface(f"{base}/sia2/query", version="2.0")
    return f'<capability standardID="{STANDARD}/SIA#query-2.0">{url}</capability>'


def _spectra(service: Service, base: str) -> str:
    return (
        f'<capability standardID="{STANDARD}/SSA" xsi:type="ssap:SimpleSpectralAccess">'
        f"{_interface(f'{base}/ssa?', version='1.1', use='base')}<complianceLevel>query</complianceLevel>"
        "<dataSource>survey</dataSource><creationType>archival</creationType><supportedFrame>ICRS</supportedFrame>"
        f"<maxSearchRadius>180</maxSearchRadius><maxRecords>{service.settings.rows}</maxRecords>"
        f"<defaultMaxRecords>{service.settings.rows}</defaultMaxRecords><maxAperture>180</maxAperture></capability>"
    )


def examples(service: Service, params: Params) -> Response:
    """Return examples of queries as DALI has them."""
    parts = "".join(
        f'<div typeof="example" id="{name}" resource="#{name}"><h2 property="name">{title}</h2>'
        f'<pre property="query">{xml_text(text)}</pre></div>'
        for name, title, text in EXAMPLES
    )
    return Response(
        '<?xml version="1.0" encoding="UTF-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><head><title>Examples</title>'
        f'</head><body vocab="http://www.ivoa.net/rdf/examples#">{parts}</body></html>\n',
        media_type="application/xhtml+xml",
    )


def registry(service: Service, params: Params) -> Response:
    """Return a record of the service, to be completed with publisher and identifier, and handed in to a registry."""
    manifest, base = service.atlas.manifest, service.base(params)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    short = re.sub(r"\s+", " ", manifest.title)[:16]
    about = f"{len(service.atlas):,} galaxies, searched in words, by example and by position"
    name = re.sub(r"[^a-z0-9]+", "-", manifest.title.lower()).strip("-") or "galaxies"
    sources = "; ".join(str(one.get("title")) for one in manifest.sources if one.get("title"))
    inside = (
        f"<title>{xml_text(manifest.title)}</title><shortName>{xml_text(short)}</shortName>"
        f"<identifier>ivo://example.invalid/{name}</identifier>"
        "<curation><publisher>TO BE COMPLETED</publisher><creator><name>TO BE COMPLETED</name></creator>"
        "<contact><name>TO BE COMPLETED</name><email>TO@BE.COMPLETED</email></contact></curation>"
        f"<content><subject>galaxies</subject><description>{xml_text(about)}"
        f". Sources: {xml_text(sources) or 'none stated'}. Served by galsearch {galsearch.__version__}.</description>"
        f"<referenceURL>{xml_text(base)}/docs</referenceURL><type>Catalog</type></content>"
        f"{_every(service, base)}{_vosi(f'{base}/tap', tables=True)}"
    )
    return Response(
        f'{_HEAD}<ri:Resource xmlns:ri="http://www.ivoa.net/xml/RegistryInterface/v1.0" {_NAMES} '
        f'xsi:type="vs:CatalogService" status="active" created="{now}" updated="{now}">{inside}</ri:Resource>\n',
        media_type=XML,
    )
