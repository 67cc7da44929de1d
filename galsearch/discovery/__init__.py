"""Discovery: which objects of an atlas are worth a look, and how many of them are expected to be nothing."""

from galsearch.discovery.anomalies import Anomalies, Anomaly, save_anomalies

__all__ = ["Anomalies", "Anomaly", "save_anomalies"]
