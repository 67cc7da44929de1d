"""Discovery: which objects of an atlas are worth a look, and how many of them are expected to be nothing."""

from galsearch.discovery.anomalies import Anomalies, Anomaly, save_anomalies
from galsearch.discovery.duplicates import DuplicateGroup, DuplicateLink, Duplicates, save_duplicates

__all__ = ["Anomalies", "Anomaly", "DuplicateGroup", "DuplicateLink", "Duplicates", "save_anomalies", "save_duplicates"]
