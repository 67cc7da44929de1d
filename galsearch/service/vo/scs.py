"""Simple Cone Search 1.03: the objects within a radius of a position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from galsearch.errors import GalsearchError, QueryError
from galsearch.query import MAX_K, Query
from galsearch.service.answers import respond
from galsearch.service.params import Params
from galsearch.service.vo import votable

if TYPE_CHECKING:
    from galsearch.service.app import Service

ESSENTIAL = ("object_id", "ra", "dec")


def cone_search(service: Service, params: Params) -> Response:
    """Return the objects of a cone as VOTable; an error is one too, with the status 200 that its clients expect."""
    try:
        content = _content(service, params)
    except GalsearchError as error:
        return Response(votable.cone_error(str(error)), media_type=votable.MEDIA)
    return respond(params.request, content, votable.MEDIA)


def _content(service: Service, params: Params) -> bytes:
    ra, dec, radius = (_number(params, name) for name in ("ra", "dec", "sr"))
    if not 0 <= radius <= 180:
        raise QueryError(f"SR is {radius:g}, expected 0 to 180 degrees")
    most = params.whole("maxrec", service.settings.rows, most=min(service.settings.most_rows, MAX_K))
    with service.turn(params):
        query = Query(near=(ra, dec), radius_arcsec=radius * 3600, k=max(most, 1))
        hits = service.atlas.search(query)
        table = hits.table.drop_columns(["score"])
    rows = 0 if radius == 0 or most == 0 else table.num_rows
    if params.whole("verb", 2, least=1) == 1:
        table = table.select(ESSENTIAL)
    about = {**service.about(f"cone of {radius:g} deg"), "ra": f"{ra}", "dec": f"{dec}", "radius": f"{radius}"}
    overflow = rows > 0 and hits.plan.matches > rows
    return votable.document(votable.with_ucds(table.slice(0, rows), votable.OLD_UCDS), about, overflow=overflow)


def _number(params: Params, name: str) -> float:
    value = params.number(name)
    if value is None:
        raise QueryError(f"the parameter {name.upper()} is missing; a cone has RA, DEC and SR in degrees")
    return value
