"""SIA 2: the pictures of an atlas, in the columns of ObsCore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from starlette.responses import Response

from galsearch.errors import QueryError
from galsearch.service.answers import respond
from galsearch.service.params import Params
from galsearch.service.vo import votable
from galsearch.service.vo.position import within

if TYPE_CHECKING:
    from galsearch.service.app import Service

WEBP = "image/webp"
MOST_POSITIONS = 100
UNKNOWN = ("band", "time", "pol", "fov", "spatres", "specrp", "exptime", "timeres", "facility", "instrument")
_TEXT, _NUMBER, _WHOLE = pa.string(), pa.float64(), pa.int64()
COLUMNS = (  # name, type, unit, UCD, utype; what is not known of a picture is null
    ("dataproduct_type", _TEXT, "", "meta.code.class", "ObsDataset.dataProductType"),
    ("calib_level", pa.int32(), "", "meta.code;obs.calib", "ObsDataset.calibLevel"),
    ("obs_collection", _TEXT, "", "meta.id", "DataID.collection"),
    ("obs_id", _TEXT, "", "meta.id", "DataID.observationID"),
    ("obs_publisher_did", _TEXT, "", "meta.ref.ivoid", "Curation.publisherDID"),
    ("access_url", _TEXT, "", "meta.ref.url", "Access.reference"),
    ("access_format", _TEXT, "", "meta.code.mime", "Access.format"),
    ("access_estsize", _WHOLE, "kbyte", "phys.size;meta.file", "Access.size"),
    ("target_name", _TEXT, "", "meta.id;src", "Target.name"),
    ("s_ra", _NUMBER, "deg", "pos.eq.ra", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C1"),
    ("s_dec", _NUMBER, "deg", "pos.eq.dec", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C2"),
    ("s_fov", _NUMBER, "deg", "phys.angSize;instr.fov", "Char.SpatialAxis.Coverage.Bounds.Extent.diameter"),
    ("s_region", _TEXT, "", "pos.outline;obs.field", "Char.SpatialAxis.Coverage.Support.Area"),
    ("s_resolution", _NUMBER, "arcsec", "pos.angResolution", "Char.SpatialAxis.Resolution.Refval.value"),
    ("s_xel1", _WHOLE, "", "meta.number", "Char.SpatialAxis.numBins1"),
    ("s_xel2", _WHOLE, "", "meta.number", "Char.SpatialAxis.numBins2"),
    ("t_min", _NUMBER, "d", "time.start;obs.exposure", "Char.TimeAxis.Coverage.Bounds.Limits.StartTime"),
    ("t_max", _NUMBER, "d", "time.end;obs.exposure", "Char.TimeAxis.Coverage.Bounds.Limits.StopTime"),
    ("t_exptime", _NUMBER, "s", "time.duration;obs.exposure", "Char.TimeAxis.Coverage.Support.Extent"),
    ("t_resolution", _NUMBER, "s", "time.resolution", "Char.TimeAxis.Resolution.Refval.value"),
    ("t_xel", _WHOLE, "", "meta.number", "Char.TimeAxis.numBins"),
    ("em_min", _NUMBER, "m", "em.wl;stat.min", "Char.SpectralAxis.Coverage.Bounds.Limits.LoLimit"),
    ("em_max", _NUMBER, "m", "em.wl;stat.max", "Char.SpectralAxis.Coverage.Bounds.Limits.HiLimit"),
    ("em_res_power", _NUMBER, "", "spect.resolution", "Char.SpectralAxis.Resolution.ResolPower.refVal"),
    ("em_xel", _WHOLE, "", "meta.number", "Char.SpectralAxis.numBins"),
    ("o_ucd", _TEXT, "", "meta.ucd", "Char.ObservableAxis.ucd"),
    ("pol_states", _TEXT, "", "meta.code;phys.polarization", "Char.PolarizationAxis.stateList"),
    ("pol_xel", _WHOLE, "", "meta.number", "Char.PolarizationAxis.numBins"),
    ("facility_name", _TEXT, "", "meta.id;instr.tel", "Provenance.ObsConfig.Facility.name"),
    ("instrument_name", _TEXT, "", "meta.id;instr", "Provenance.ObsConfig.Instrument.name"),
)


def query(service: Service, params: Params) -> Response:
    """Return the pictures that pass all parameters, each of which may have several values."""
    form = params.text("responseformat")
    if form and "votable" not in form.lower() and form.lower() not in ("text/xml", "application/xml"):
        raise QueryError(f"RESPONSEFORMAT is {form!r:.60}; SIA is answered as VOTable")
    most = params.whole("maxrec", service.settings.rows, most=service.settings.most_rows)
    holder = service.holder("thumbnails")
    where = _condition(service, params)
    rows: list[dict[str, Any]] = []
    if holder and where is not None:
        text = (
            f"SELECT object_id, ra, dec FROM galaxies WHERE ({where}) "
            f"AND object_id IN (SELECT object_id FROM {holder}) ORDER BY object_id LIMIT {most + 1}"
        )
        with service.turn(params, line="sql"):
            rows = service.atlas.sql(text).to_pylist()
    table = votable.table(COLUMNS, [_row(service, params, one) for one in rows[:most]], model="obscore")
    about = service.about("pictures")
    return respond(params.request, votable.document(table, about, overflow=len(rows) > most > 0), votable.MEDIA)


def _condition(service: Service, params: Params) -> str | None:
    """Return the condition on galaxies; None where a parameter asks for what is known of no picture."""
    if any(params.all(name) for name in UNKNOWN):
        return None
    fixed = {"collection": service.atlas.manifest.title, "dptype": "image", "format": WEBP}
    for name, value in fixed.items():
        if params.all(name) and value not in params.all(name):
            return None
    if params.all("calib") and not any(_covers(text, 3) for text in params.all("calib")):
        return None
    positions = params.all("pos")
    if len(positions) > MOST_POSITIONS:
        raise QueryError(f"POS is given {len(positions)} times, at most {MOST_POSITIONS} are taken")
    parts = [" OR ".join(map(within, positions))] if positions else []
    names = [one.removeprefix(publisher_did(service, "")) for one in params.all("id")]
    for given in (names, params.all("target")):
        if given:
            listed = ", ".join("'" + name.replace("'", "''") + "'" for name in given)
            parts.append(f"object_id IN ({listed})")
    return " AND ".join(f"({part})" for part in parts) or "true"


def _covers(text: str, value: int) -> bool:
    ends = text.split()
    return text.strip() == str(value) if len(ends) < 2 else ends[0] <= str(value) <= ends[1]


def publisher_did(service: Service, object_id: str) -> str:
    """Return the identifier of a picture in this service; of no registered authority."""
    return f"ivo://galsearch.invalid/{service.atlas.manifest.title.replace(' ', '-')}?{object_id}"


def _row(service: Service, params: Params, one: dict[str, Any]) -> dict[str, Any]:
    name = one["object_id"]
    return {
        "dataproduct_type": "image",
        "calib_level": 3,
        "obs_collection": service.atlas.manifest.title,
        "obs_id": name,
        "obs_publisher_did": publisher_did(service, name),
        "access_url": service.link(params, "thumbnail", name),
        "access_format": WEBP,
        "target_name": name,
        "s_ra": one["ra"],
        "s_dec": one["dec"],
        "o_ucd": "phot.flux",
    }
