"""What is known of objects, as the pages Identify and Object have it: a look at catalogs, and those an atlas keeps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import inside
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st
import widgets
from panel import literal
from state import State

import galsearch

TABLE = "identifications"
KNOWN, OTHER, ABSENT, NOT_CHECKED = "known of this kind", "known of another kind", "not found", "not checked"
STATES = {  # state -> what it means
    KNOWN: "a source within the radius is of the kind that they are taken for",
    OTHER: "there are sources within the radius, and none is of that kind",
    ABSENT: "every source answered, and none has anything there",
    NOT_CHECKED: "a source did not answer, or the object has no position",
}
SHORT = {KNOWN: "known", OTHER: "another kind", ABSENT: "not found", NOT_CHECKED: "not checked"}  # below a picture
MOST_KEPT = 5  # looks of an object that its page shows


@dataclass(frozen=True)
class Known:
    """A look at catalogs: a row an object, all matches, what each source answered.

    `matches` and `sources` are None of one that the atlas keeps, which has the best match of each object alone.
    """

    key: tuple[Any, ...]
    kind: str
    when: str
    table: pa.Table
    matches: pa.Table | None = None
    sources: pa.Table | None = None
    notes: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many objects are in each state."""
        there = Counter(self.table["state"].to_pylist())
        return {state: there[state] for state in STATES}

    @property
    def expected_by_chance(self) -> float:
        """How many of the objects would have a match if they lay anywhere else."""
        return float(pc.sum(self.table["chance_probability"]).as_py() or 0.0)

    def rows(self, state: str | None) -> pa.Table:
        """Return the rows of one state, or all."""
        return self.table if state is None else self.table.filter(pc.equal(self.table["state"], state))

    def of(self, object_id: str) -> dict[str, Any] | None:
        """Return the row of an object, None where it was not looked up."""
        found = self.table.filter(pc.equal(self.table["object_id"], object_id)).to_pylist()
        return found[0] if found else None

    def matches_of(self, object_id: str) -> pa.Table | None:
        """Return all sources within the radius of an object, the best first; None where they are not kept."""
        if self.matches is None:
            return None
        return self.matches.filter(pc.equal(self.matches["object_id"], object_id)).drop_columns(["object_id"])


def known_of(result: galsearch.Identifications, key: tuple[Any, ...]) -> Known:
    """Return a look that was just taken; in a public place its errors hold no path."""
    return Known(
        key,
        result.kind,
        datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        _public(result.table),
        result.matches,
        _public(result.sources),
        tuple(map(widgets.public, result.notes)),
        result.parameters(),
    )


def _public(table: pa.Table) -> pa.Table:
    """Return a table whose errors are as they may be shown here."""
    for name in ("failed", "error"):
        if name in table.column_names:
            at = table.column_names.index(name)
            texts = [_shown(one) for one in table[name].to_pylist()]
            table = table.set_column(at, table.schema.field(at), pa.array(texts, table.schema.field(at).type))
    return table


def _shown(text: Any) -> Any:
    if isinstance(text, list):
        return [_shown(one) for one in text]
    return text if text is None else widgets.public(text)


# ---- looks that an atlas keeps


def kept_runs(state: State) -> list[dict[str, Any]]:
    """Return the looks that the atlas keeps, the last first, with what was asked where provenance says it."""
    return inside.kept_runs(state, TABLE, "identify", "kind")


def read_kept(atlas: galsearch.Atlas, key: tuple[Any, ...], row: dict[str, Any]) -> Known:
    """Return a look that is kept."""
    table = _public(atlas.saved_identifications(row["run"])).drop_columns(["run", "created"])
    return Known(key, str(row["kind"]), str(row["created"]), table, about=row["parameters"])


def day(when: str) -> str:
    """Return a time as a person reads it: to the minute; a text that is no time as it is.

    >>> day("2026-12-01T04:08:25Z")
    'on 2026-12-01 at 04:08 UTC'
    """
    date, sign, clock = when.partition("T")
    return f"on {date} at {clock[:5]} UTC" if sign and len(date) == 10 and clock.endswith("Z") else when


def run_text(row: dict[str, Any]) -> str:
    """Return what a look that is kept is called."""
    return f"{day(str(row['created']))} · {row['objects']:,} objects as {row['kind']} · {row['run']}"


def sources_of(known: Known) -> list[tuple[str, int, int, str | None]]:
    """Return (source, how many it answered for, how many not, the commonest reason) of each source."""
    answered = Counter(name for names in known.table["checked"].to_pylist() for name in names or ())
    failures: dict[str, Counter[str]] = {}
    for failed in known.table["failed"].to_pylist():
        for text in failed or ():
            name, sign, reason = text.partition(": ")
            failures.setdefault(name if sign else "", Counter())[reason if sign else text] += 1
    failures.pop("", None)  # an object without a position is the fault of no source
    names = [*answered, *(name for name in failures if name not in answered)]
    told = []
    for name in names:
        reasons = failures.get(name, Counter())
        told.append((name, answered[name], reasons.total(), reasons.most_common(1)[0][0] if reasons else None))
    return told


# ---- one object


def looks_at(state: State, object_id: str) -> list[Known]:
    """Return the looks that know something of an object: that of this session, then those that the atlas keeps."""
    held = st.session_state.get("identify_known")
    mine = [held] if held is not None and held.key[0] == inside.written(state.atlas) and held.of(object_id) else []
    if TABLE not in inside.tables(state.atlas):
        return mine
    rows = state.sql(
        f"SELECT * FROM {TABLE} WHERE object_id = {literal(object_id)} ORDER BY created DESC, run LIMIT {MOST_KEPT}"
    )
    every = (rows.slice(at, 1) for at in range(len(rows)))
    return mine + [
        Known((), str(row["kind"][0]), str(row["created"][0]), _public(row.drop_columns(["run", "created"])))
        for row in every
    ]


def show_object(known: Known, object_id: str) -> None:
    """Draw what is known of an object: its state, its matches, who was asked and who failed."""
    row = known.of(object_id)
    if row is None:
        return
    st.markdown(f"**{widgets.plain(str(row['state']))}**{_as(known.kind)}")
    st.caption(widgets.plain(best_match(row)))
    matches = known.matches_of(object_id)
    if matches is not None and len(matches) > 1:
        shown = ["catalog", "name", "type", "separation_arcsec", "false_probability", "reference"]
        there = [name for name in shown if matches[name].null_count < len(matches)]
        widgets.table(matches.select(there).slice(0, 60), None, most_px=300, name="Sources within the radius")
    for failed in row["failed"] or ():
        st.caption(f":material/warning: Not checked: {widgets.plain(failed)}")
    checked = ", ".join(row["checked"] or ())
    st.caption(widgets.plain(f"Looked up {day(known.when)}{f' in {checked}' if checked else ''}."))


def _as(kind: str) -> str:
    return "" if kind == "any" else f" ({widgets.plain(kind)})"


def best_match(row: dict[str, Any]) -> str:
    """Return the best match of an object as text, else why there is none."""
    if row["catalog"] is None:
        return STATES[NOT_CHECKED] if row["state"] == NOT_CHECKED else STATES[ABSENT]
    name = f"{row['name']} in " if row["name"] else ""
    parts = [f"{name}{row['catalog']}", f"{row['separation_arcsec']:.2f} arcsec away"]
    parts += [f"type {row['type']}"] if row["type"] else []
    parts += [f"by chance with a probability of {row['false_probability']:.2g}"]
    more = row["matches"] - 1
    return "; ".join(parts) + (f"; {more} more within the radius" if more > 0 else "")
