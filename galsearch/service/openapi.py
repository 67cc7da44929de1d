"""The description of the service: as OpenAPI, and as a page of its own that loads nothing from anywhere."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

import galsearch
from galsearch.service.answers import as_json, respond
from galsearch.service.params import Params

if TYPE_CHECKING:
    from galsearch.service.addresses import Address
    from galsearch.service.app import Service

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "td{vertical-align:top;padding:.2em .8em}"
)


def document(service: Service, params: Params) -> Response:
    """Return the description as OpenAPI 3.1."""
    from galsearch.service.addresses import ADDRESSES

    paths = {re.sub(r":path\}", "}", one.path): _operations(one) for one in ADDRESSES}
    stated = {
        "openapi": "3.1.0",
        "info": {"title": service.atlas.manifest.title, "version": galsearch.__version__},
        "servers": [{"url": service.base(params)}],
        "paths": paths,
    }
    return respond(params.request, as_json(stated), "application/json")


def _operations(address: Address) -> dict[str, Any]:
    inside = re.findall(r"\{(\w+)(?::path)?\}", address.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in inside]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in address.params.items()
    ]
    answers = {"200": {"description": "the answer"}, "400": {"description": "what is wrong, with the remedy"}}
    return {
        method.lower(): {"summary": address.about, "parameters": parameters, "responses": answers}
        for method in address.methods
    }


def page(service: Service, params: Params) -> Response:
    """Return the page: every address with its parameters."""
    from galsearch.service.addresses import ADDRESSES

    base, title = service.base(params), service.atlas.manifest.title
    rows = "".join(
        f"<tr><td>{' '.join(one.methods)}</td><td><code>{escape(one.path.replace(':path', ''))}</code></td>"
        f"<td>{escape(one.about)}{_listed(one)}</td></tr>"
        for one in ADDRESSES
    )
    served = f"{len(service.atlas):,} galaxies, served by galsearch {galsearch.__version__}."
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    where = f"TAP: <code>{escape(base)}/tap</code>, cone search: <code>{escape(base)}/scs</code>."
    body = f"<h1>{escape(title)}</h1><p>{served} {where}</p><table>{rows}</table></html>"
    return respond(params.request, (head + body).encode(), "text/html; charset=utf-8")


def _listed(address: Address) -> str:
    if not address.params:
        return ""
    rows = "".join(f"<li><code>{escape(name)}</code> {escape(text)}</li>" for name, text in address.params.items())
    return f"<ul>{rows}</ul>"
