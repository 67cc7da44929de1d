"""SSA 1.1: the spectra of an atlas, as a list with the addresses of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from starlette.responses import Response

from galsearch.errors import QueryError
from galsearch.science.sky import parse_position
from galsearch.service.answers import respond
from galsearch.service.params import Params
from galsearch.service.vo import votable
from galsearch.service.vo.pictures import publisher_did
from galsearch.service.vo.position import cone, numbers

if TYPE_CHECKING:
    from galsearch.service.app import Service

ROWS, MOST_ROWS = 1_000, 10_000
READ_AT_ONCE = 200
VOTABLE, FITS = votable.MEDIA, "application/fits"
METERS = 1e-10  # in an Angstrom
_TEXT, _NUMBER, _WHOLE = pa.string(), pa.float64(), pa.int64()
COLUMNS = (  # name, type, unit, UCD, utype
    ("access_url", _TEXT, "", "meta.ref.url", "Access.Reference"),
    ("access_format", _TEXT, "", "meta.code.mime", "Access.Format"),
    ("access_estsize", _WHOLE, "kbyte", "phys.size;meta.file", "Access.Size"),
    ("datamodel", _TEXT, "", "", "Dataset.DataModel"),
    ("datalength", _WHOLE, "", "meta.number", "Dataset.Length"),
    ("datatype", _TEXT, "", "", "Dataset.Type"),
    ("title", _TEXT, "", "meta.title;meta.dataset", "DataID.Title"),
    ("collection", _TEXT, "", "meta.id", "DataID.Collection"),
    ("creator", _TEXT, "", "", "DataID.Creator"),
    ("pub_did", _TEXT, "", "meta.ref.ivoid", "Curation.PublisherDID"),
    ("publisher", _TEXT, "", "meta.curation", "Curation.Publisher"),
    ("target_name", _TEXT, "", "meta.id;src", "Target.Name"),
    ("redshift", _NUMBER, "", "src.redshift", "Target.Redshift"),
    ("location", pa.list_(pa.float64(), 2), "deg", "pos.eq", "Char.SpatialAxis.Coverage.Location.Value"),
    ("aperture", _NUMBER, "deg", "instr.fov", "Char.SpatialAxis.Coverage.Bounds.Extent"),
    ("time_location", _NUMBER, "d", "time.epoch", "Char.TimeAxis.Coverage.Location.Value"),
    ("time_extent", _NUMBER, "s", "time.duration", "Char.TimeAxis.Coverage.Bounds.Extent"),
    ("spectral_location", _NUMBER, "m", "instr.bandpass", "Char.SpectralAxis.Coverage.Location.Value"),
    ("spectral_extent", _NUMBER, "m", "instr.bandwidth", "Char.SpectralAxis.Coverage.Bounds.Extent"),
    ("spectral_start", _NUMBER, "m", "em;stat.min", "Char.SpectralAxis.Coverage.Bounds.Start"),
    ("spectral_stop", _NUMBER, "m", "em;stat.max", "Char.SpectralAxis.Coverage.Bounds.Stop"),
    ("flux_ucd", _TEXT, "", "meta.ucd", "Char.FluxAxis.Ucd"),
    ("spectral_ucd", _TEXT, "", "meta.ucd", "Char.SpectralAxis.Ucd"),
)


def query(service: Service, params: Params) -> Response:
    """Return the spectra that pass all parameters."""
    if (params.text("request") or "queryData").lower() != "querydata":
        raise QueryError(f"REQUEST is {params.text('request')!r:.40}, expected queryData")
    wanted = (params.text("format") or "all").lower()
    media = [kind for kind in (VOTABLE, FITS) if _is_wanted(kind, wanted)]
    most = params.whole("maxrec", params.whole("top", ROWS, most=MOST_ROWS), most=MOST_ROWS)
    rows: list[dict[str, Any]] = []
    holder, where = service.holder("spectra"), _condition(service, params)
    if holder and media and where is not None:
        text = (
            f"SELECT object_id, ra, dec FROM galaxies WHERE ({where}) "
            f"AND object_id IN (SELECT object_id FROM {holder}) ORDER BY object_id LIMIT {most + 1}"
        )
        with service.turn(params, line="sql"):
            listed = service.atlas.sql(text).to_pylist()
            rows = _described(service, params, listed[:most])
            overflow = len(listed) > most > 0
    else:
        overflow = False
    several = [_row(service, params, one, kind) for one in rows for kind in media]
    return respond(
        params.request,
        votable.document(votable.table(COLUMNS, several, model="ssa"), service.about("spectra"), overflow=overflow),
        votable.MEDIA,
    )


def _is_wanted(kind: str, wanted: str) -> bool:
    names = {VOTABLE: ("votable", "xml"), FITS: ("fits",)}[kind]
    parts = [part.strip() for part in wanted.split(",")]
    return any(part in ("all", "native") or kind == part or any(name in part for name in names) for part in parts)


def _condition(service: Service, params: Params) -> str | None:
    """Return the condition on galaxies; None where a parameter asks for what is known of no spectrum."""
    if params.text("time") or params.text("spatres") or params.text("specrp"):
        return None
    if params.all("collection") and service.atlas.manifest.title not in params.all("collection"):
        return None
    parts = []
    position = params.text("pos")
    if position:
        where, _, frame = position.partition(";")
        if frame.strip().upper() not in ("", "ICRS"):
            raise QueryError(f"POS has the frame {frame!r:.40}; all positions here are ICRS")
        ra, dec = numbers(where, "POS", count=2) if _plain(where) else parse_position(where)
        parts.append(cone(ra, dec, (params.number("size", 0.1) or 0.1) / 2))
    if params.text("targetname"):
        name = params.needed("targetname").replace("'", "''")
        parts.append(f"object_id = '{name}'")
    if params.text("pubdid"):
        name = params.needed("pubdid").removeprefix(publisher_did(service, "")).replace("'", "''")
        parts.append(f"object_id = '{name}'")
    return " AND ".join(parts) or "true"


def _plain(text: str) -> bool:
    return "," in text and ":" not in text


def _described(service: Service, params: Params, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with what is known of their spectra, those that overlap the BAND."""
    band = _band(params.text("band"))
    kept = []
    for start in range(0, len(rows), READ_AT_ONCE):
        part = rows[start : start + READ_AT_ONCE]
        spectra = service.atlas.spectra([row["object_id"] for row in part])
        for row in part:
            spectrum = spectra.get(row["object_id"])
            if spectrum is None:
                continue
            low, high = (float(spectrum.wavelength_angstrom[end]) * METERS for end in (0, -1))
            if band is None or (low <= band[1] and high >= band[0]):
                kept.append({**row, "low": low, "high": high, "pixels": len(spectrum.flux), "z": spectrum.z})
    return kept


def _band(text: str | None) -> tuple[float, float] | None:
    """Return the ends of a BAND in meters: one number or two with a slash, either of which may be left out."""
    if not text:
        return None
    first, slash, last = text.partition(";")[0].partition("/")
    low = numbers(first, "BAND", count=1)[0] if first.strip() else 0.0
    high = numbers(last, "BAND", count=1)[0] if last.strip() else (1e9 if slash else low)
    return low, high


def _row(service: Service, params: Params, one: dict[str, Any], media: str) -> dict[str, Any]:
    name, title = one["object_id"], service.atlas.manifest.title
    form = "fits" if media == FITS else "votable"
    return {
        "access_url": f"{service.link(params, 'spectrum', name)}?format={form}",
        "access_format": media,
        "datamodel": "Spectrum-1.0",
        "datalength": one["pixels"],
        "datatype": "Spectrum",
        "title": f"{title}: spectrum of {name}",
        "collection": title,
        "pub_did": publisher_did(service, name),
        "publisher": "galsearch",
        "target_name": name,
        "redshift": one["z"],
        "location": None if one["ra"] is None else [one["ra"], one["dec"]],
        "spectral_location": (one["low"] + one["high"]) / 2,
        "spectral_extent": one["high"] - one["low"],
        "spectral_start": one["low"],
        "spectral_stop": one["high"],
        "flux_ucd": "phot.flux.density;em.wl",
        "spectral_ucd": "em.wl",
    }
