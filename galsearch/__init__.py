"""galsearch: an embedded search engine for galaxies, asked in words, by example and in SQL.

>>> import galsearch
>>> atlas = galsearch.open("demo/xdf.duckdb")  # doctest: +SKIP
>>> atlas.search("edge-on disk with a dust lane", where="axis_ratio < 0.5", k=12)  # doctest: +SKIP

Importing this package loads no engine; each name is loaded at first use.
"""

from importlib import import_module
from importlib.metadata import version

from galsearch.errors import (
    BusyError,
    FormatError,
    GalsearchError,
    LimitError,
    ModelMismatchError,
    QueryError,
    RemoteError,
    SchemaError,
    UnknownIdError,
    VersionTooNewError,
    VersionTooOldError,
)

__version__ = version("galsearch")

_HOMES = {
    "Atlas": "atlas",
    "Galaxy": "hits",
    "Hit": "hits",
    "Hits": "hits",
    "contact_sheet": "hits",
    "PICTURE_FORMATS": "science.images",
    "PICTURE_SUFFIXES": "science.images",
    "Picture": "science.images",
    "color_map": "science.images",
    "decode_thumbnail": "science.images",
    "read_picture": "science.images",
    "DemarcationCurve": "science.lines",
    "SPECTRAL_LINES": "science.lines",
    "SpectralLine": "science.lines",
    "demarcation_curves": "science.lines",
    "Spectrum": "science.spectra",
    "read_spectra": "sources.spectra",
    "read_spectrum": "sources.spectra",
    "check": "atlas",
    "open": "atlas",
    "Limits": "workers",
    "Client": "quotas",
    "Quota": "quotas",
    "Turns": "quotas",
    "address_of": "quotas",
    "Query": "query",
    "Plan": "query",
    "as_command": "query_code",
    "as_python": "query_code",
    "as_sql": "query_code",
    "Term": "query",
    "Finding": "schema",
    "Candidate": "lookup",
    "Lookup": "lookup",
    "Offer": "language.cuts",
    "Refinement": "language.attributes",
    "Rewording": "language.spelling",
    "Understanding": "language.parser",
    "Unread": "language.unread",
    "Evaluation": "evaluation",
    "compare_rankings": "evaluation.paired",
    "evaluate": "evaluation",
    "ClassificationReport": "evaluation.classes",
    "ClassifierFigures": "evaluation.classes",
    "classification_report": "evaluation.classes",
    "evaluate_base": "evaluation.bases",
    "Classification": "knowledge.classify",
    "KnowledgeBase": "knowledge.members",
    "Votes": "knowledge.classify",
    "Voter": "knowledge.classify",
    "create_base": "knowledge.bases",
    "drop_base": "knowledge.bases",
    "TrainedProbe": "knowledge.probes",
    "promote_probe": "knowledge.probes",
    "train_probe": "knowledge.probes",
    "Anomalies": "discovery.anomalies",
    "Anomaly": "discovery.anomalies",
    "save_anomalies": "discovery.anomalies",
    "Duplicates": "discovery.duplicates",
    "DuplicateGroup": "discovery.duplicates",
    "DuplicateLink": "discovery.duplicates",
    "save_duplicates": "discovery.duplicates",
    "Agreement": "discovery.verdicts",
    "Merged": "discovery.verdicts",
    "QueryLog": "discovery.query_log",
    "SavedSearch": "discovery.alerts",
    "Searches": "discovery.alerts",
    "Verdict": "discovery.verdicts",
    "Verdicts": "discovery.verdicts",
    "reviewer": "discovery.verdicts",
    "Forecast": "discovery.watch.run",
    "WatchReport": "discovery.watch.report",
    "watch": "discovery.watch.run",
    "watch_forecast": "discovery.watch.run",
    "watch_report": "discovery.watch.run",
    "Against": "discovery.catalogs",
    "Identification": "discovery.identify",
    "Identifications": "discovery.identify",
    "save_identifications": "discovery.identify",
    "Captioned": "captions",
    "VLM": "captions.vlm",
    "caption": "captions",
    "caption_prompt": "captions.vlm",
    "estimate_captions": "captions.vlm",
    "Judge": "rerank.judge",
    "Reranked": "rerank",
    "rerank_prompt": "rerank.judge",
    "Report": "ingest",
    "Summary": "columns",
    "parse_roles": "columns",
    "notes_of": "formats",
    "add": "ingest",
    "build": "ingest",
    "bundle": "ingest",
    "delete": "ingest",
    "demo": "ingest",
    "measure": "ingest",
    "optimize": "ingest",
    "undelete": "ingest",
    "format_table": "formats",
    "table_bytes": "formats",
    "write_table": "formats",
    "parse_position": "science.sky",
    "printable": "escaping",
    "write_space": "space",
}

__all__ = [  # noqa: PLE0604  the names of _HOMES are resolved by __getattr__
    *sorted(_HOMES),
    "BusyError",
    "FormatError",
    "GalsearchError",
    "LimitError",
    "ModelMismatchError",
    "QueryError",
    "RemoteError",
    "SchemaError",
    "UnknownIdError",
    "VersionTooNewError",
    "VersionTooOldError",
    "__version__",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'galsearch' has no attribute '{name}'")
    return getattr(import_module(f"galsearch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
