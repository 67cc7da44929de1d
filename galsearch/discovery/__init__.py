"""Discovery: which objects of an atlas are worth a look, how many of them are expected to be nothing, what is known."""

from galsearch.discovery.anomalies import Anomalies, Anomaly, save_anomalies
from galsearch.discovery.catalogs import Against
from galsearch.discovery.duplicates import DuplicateGroup, DuplicateLink, Duplicates, save_duplicates
from galsearch.discovery.identify import Identification, Identifications, save_identifications

__all__ = [
    "Against",
    "Anomalies",
    "Anomaly",
    "DuplicateGroup",
    "DuplicateLink",
    "Duplicates",
    "Identification",
    "Identifications",
    "save_anomalies",
    "save_duplicates",
    "save_identifications",
]
