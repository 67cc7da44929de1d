"""The Atom feed of a watch (RFC 4287): an entry for each report, and one for each object when it is first listed."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from galsearch.escaping import printable

ATOM = "http://www.w3.org/2005/Atom"
MOST_ENTRIES = 200


def atom(title: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the feed of reports, the newest first."""
    ET.register_namespace("", ATOM)
    root = ET.Element(f"{{{ATOM}}}feed")
    named = hashlib.sha256(title.encode()).hexdigest()[:16]
    _add(root, "id", f"urn:galsearch:watch:{named}")
    _add(root, "title", title)
    _add(root, "updated", _time(reports[0]["created"]))
    _add(_add(root, "author", None), "name", "galsearch watch")
    entries = [entry for report in reports for entry in _entries(report)]
    for key, at, heading, text in entries[:MOST_ENTRIES]:
        entry = _add(root, "entry", None)
        _add(entry, "id", f"urn:galsearch:watch:{named}:{key}")
        _add(entry, "title", heading)
        _add(entry, "updated", _time(at))
        _add(entry, "summary", text)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _entries(report: Mapping[str, Any]) -> list[tuple[str, float, str, str]]:
    """Return the entries of a report: itself, then what is newly listed in it."""
    total, number = report["total"], report["number"]
    counts = ", ".join(f"{count} {name}" for name, count in total.items() if count)
    result = [(f"report:{number}", report["created"], f"Report {number}: {total['listed']} listed", counts)]
    new = None if report["changed"] is None else set(report["changed"]["newly_listed"])
    for one in report["queue"]:
        if new is None or one["object_id"] in new:
            key = hashlib.sha256(one["object_id"].encode()).hexdigest()[:24]
            text = f"p {one['p_value']:.2g}, {one['tier']}, {one['detector']}; {'; '.join(one['known'])}"
            result.append((f"object:{key}:{number}", report["created"], f"To look at: {one['object_id']}", text))
    return result


def _add(parent: ET.Element, name: str, text: str | None) -> ET.Element:
    child = ET.SubElement(parent, f"{{{ATOM}}}{name}")
    child.text = None if text is None else printable(text)
    return child


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
