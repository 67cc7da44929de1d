"""The report of a watch: numbers with their denominators, null results, yields, health, what changed; never a claim.

What was listed is a reason to look. The report says what was not checked, and what of what was requested never came.
"""

from __future__ import annotations

import base64
import html
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from galsearch.atlas import Atlas
from galsearch.discovery.verdicts import Verdict
from galsearch.discovery.watch import feed
from galsearch.discovery.watch.identify import KNOWN, NO_MATCH, NOT_CHECKED
from galsearch.discovery.watch.jobs import Jobs
from galsearch.discovery.watch.plan import Plan
from galsearch.discovery.watch.shares import decided, wilson
from galsearch.errors import RemoteError
from galsearch.escaping import printable
from galsearch.remote.cutouts import Client, host_of

FOLDER = "reports"
SHOWN = 60  # thumbnails
EVENTS = 40
HOOK_TRIES = 20
UNFINISHED = "unfinished"  # kind of an event: why a run did less than the plan says
COUNTED = (
    *("items", "requested", "answered", "empty", "out of footprint", "failed", "duplicate", "rejected"),
    *("added", "scored", "listed", "waiting", "requests"),
)
NOT_CHECKED_AT_ALL = (
    "Near-duplicates: only equal files and positions within same_arcsec were taken for the same; another picture "
    "of the "
    "same object without a position, or one that was compressed again, counts as new.",
    "Identification: only the tables and services that the plan names were looked into.",
)
MEANING = (
    "Objects are listed because their vectors or pictures are odd beside the others of this atlas. Most of what "
    "is listed "
    "is artifacts, blends and ordinary galaxies seen badly. A list is a reason to look; nothing in it is claimed to be "
    "new or real before people have judged it."
)


@dataclass(frozen=True)
class WatchReport:
    """What a run left behind: the report's files, its numbers, and how the webhook went (None: there is none)."""

    html: Path
    markdown: Path
    feed: Path
    numbers: dict[str, Any]
    webhook: str | None

    @property
    def unfinished(self) -> list[str]:
        """Why the last run did less than the plan says: a full disk, a host or source that did not answer."""
        return self.numbers["unfinished"]

    def lines(self) -> list[str]:
        """Return what to tell, a line each."""
        total = self.numbers["total"]
        shown = [name for name in COUNTED[1:] if total[name] or name in ("requested", "added")]
        told = [f"{_many(total['items'], 'item')}: {', '.join(f'{total[name]} {name}' for name in shown)}"]
        told += [f"report: {self.html}"]
        unscored = total["added"] - total["scored"]
        told += [f"not scored: {_many(unscored, 'object')}"] if unscored else []
        told += [f"not done: {text}" for text in self.unfinished]
        return told + ([f"webhook: {self.webhook}"] if self.webhook else [])


def write(plan: Plan, jobs: Jobs, atlas: Atlas | None, verdicts: Sequence[Verdict]) -> WatchReport:
    """Write the report as HTML, Markdown and an entry of the feed, then call the webhook, which never loses it."""
    before = jobs.rows("SELECT number, numbers FROM reports ORDER BY number DESC LIMIT 1")
    numbers = numbers_of(plan, jobs, verdicts)
    numbers["number"] = before[0][0] + 1 if before else 1
    numbers["changed"] = _changed(numbers, json.loads(before[0][1])) if before else None
    folder = plan.workspace / FOLDER
    folder.mkdir(exist_ok=True)
    stem = f"{numbers['number']:05d}"
    pictures = _pictures(atlas, numbers["queue"])
    texts = {
        folder / f"{stem}.html": as_html(numbers, pictures),
        folder / f"{stem}.md": as_markdown(numbers),
    }
    with jobs.changing() as connection:
        state = None if plan.webhook is None else "waiting"
        row = [numbers["number"], numbers["created"], json.dumps(numbers), state]
        connection.execute("INSERT INTO reports VALUES (?, ?, ?, ?, 0, NULL)", row)
    for path, text in {**texts, **{folder / f"latest{path.suffix}": text for path, text in texts.items()}}.items():
        _replace(path, text)
    reports = [json.loads(row[0]) for row in jobs.rows("SELECT numbers FROM reports ORDER BY number DESC LIMIT 50")]
    _replace(folder / "feed.xml", feed.atom(plan.title, reports))
    hook = None if plan.webhook is None else send(plan, jobs)
    paths = list(texts)
    return WatchReport(paths[0], paths[1], folder / "feed.xml", numbers, hook)


def send(plan: Plan, jobs: Jobs) -> str:
    """Send the reports that were not taken yet; return how that went. The address is never told, only its host."""
    assert plan.webhook is not None
    host, told = host_of(plan.webhook), f"every report was sent to {host_of(plan.webhook)}"
    rows = jobs.rows(
        "SELECT number, numbers FROM reports WHERE hook = 'waiting' AND tries < ? ORDER BY number", [HOOK_TRIES]
    )
    with Client(timeout_seconds=min(plan.timeout_seconds, 30.0)) as client:
        for number, numbers in rows:
            try:
                client.post_json(plan.webhook, hook_message(json.loads(numbers)))
                state, error = "sent", None
            except RemoteError as failure:
                state, error = "waiting", str(failure)
                told = f"report {number} was not taken by {host} ({failure}); the next run tries again"
            with jobs.changing() as connection:
                connection.execute(
                    "UPDATE reports SET hook = ?, tries = tries + 1, hook_error = ? WHERE number = ?",
                    [state, error, number],
                )
            if error is not None:
                break
    return told


def hook_message(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON that a webhook gets: the numbers of a report with what is listed, without pictures."""
    kept = (
        "title",
        "number",
        "created_text",
        "unfinished",
        "total",
        "sources",
        "reasons",
        "queue",
        "identified",
        "changed",
    )
    return {"format": "galsearch-watch-report", "version": 1, **{name: numbers.get(name) for name in kept}}


# ---- numbers


def numbers_of(plan: Plan, jobs: Jobs, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return everything that the report says."""
    created = time.time()
    judged = verified(jobs, verdicts)
    sources = _sources(plan, jobs, judged)
    total = {name: sum(one[name] for one in sources.values()) for name in COUNTED}
    return {
        "title": plan.title,
        "created": created,
        "created_text": when(created),
        "run": jobs.value("SELECT max(number) FROM runs") or 0,
        "sources": sources,
        "total": total,
        "reasons": _reasons(jobs),
        "judged": {name: sum(one[name] for one in judged.values()) for name in ("yes", "no", "unsure")},
        "scorings": _scorings(jobs),
        "queue": _queue(jobs, verdicts),
        "identified": _identified(plan, jobs),
        "unfinished": [
            row[0]
            for row in jobs.rows(
                "SELECT text FROM events WHERE kind = ? AND run = (SELECT max(number) FROM runs) ORDER BY happened",
                [UNFINISHED],
            )
        ],
        "not_checked": [*_left_open(jobs, total), *NOT_CHECKED_AT_ALL],
        "health": _health(plan, jobs),
        "null_results": _null_results(plan, jobs, sources, total),
    }


def verified(jobs: Jobs, verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """Return how many objects of each source people decided to be worth it (yes), not (no), or are unsure of."""
    decisions = decided(verdicts)
    rows = (
        jobs.rows(
            "SELECT object_id, source FROM items WHERE object_id IN (SELECT unnest(?::VARCHAR[]))", [list(decisions)]
        )
        if decisions
        else []
    )
    result: dict[str, dict[str, int]] = {}
    for name, source in rows:
        result.setdefault(source, {"yes": 0, "no": 0, "unsure": 0})[decisions[name]] += 1
    return result


def facts_of(text: str | None) -> dict[str, Any]:
    """Return the columns of an item's table that are kept with it."""
    return json.loads(text) if text else {}


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _sources(plan: Plan, jobs: Jobs, judged: Mapping[str, dict[str, int]]) -> dict[str, dict[str, Any]]:
    tried = dict(jobs.rows("SELECT source, count(*) FROM items WHERE attempts > 0 GROUP BY source"))
    sent = dict(jobs.rows("SELECT source, sum(requests)::BIGINT FROM items GROUP BY source"))
    listed = dict(
        jobs.rows("SELECT source, count(DISTINCT object_id) FROM queue JOIN items USING (object_id) GROUP BY source")
    )
    result = {}
    for name, states in jobs.counts().items():
        source = plan.source(name)
        votes = judged.get(name, {"yes": 0, "no": 0, "unsure": 0})
        sure = votes["yes"] + votes["no"]
        requested = tried.get(name, 0)
        unanswered = states["failed"]
        result[name] = {
            "kind": source.kind if source else "not in the plan any more",
            "host": host_of(source.service.base_url) if source and source.service else None,
            "items": sum(states.values()),
            "requested": requested,
            "answered": requested - unanswered,
            **{
                state: states[state]
                for state in ("empty", "out of footprint", "failed", "duplicate", "rejected", "waiting")
            },
            "fetched": states["fetched"],
            "added": states["added"] + states["scored"],
            "scored": states["scored"],
            "listed": listed.get(name, 0),
            "requests": sent.get(name) or 0,
            **votes,
            "yield": votes["yes"] / sure if sure else None,
            "interval": wilson(votes["yes"], sure),
        }
    return result


def _left_open(jobs: Jobs, total: Mapping[str, int]) -> list[str]:
    """Return in words what the watch does not know yet, with its number: what waits, failed or was not scored."""
    positions = jobs.value("SELECT count(*) FROM items WHERE state = 'waiting' AND ra IS NOT NULL")
    placeless = jobs.value("SELECT count(*) FROM items WHERE state IN ('added', 'scored') AND ra IS NULL")
    fetched, unscored = (
        jobs.value("SELECT count(*) FROM items WHERE state = 'fetched'"),
        total["added"] - total["scored"],
    )
    told = {
        f"{_many(total['waiting'], 'item')} not requested or not answered yet, {positions} of them positions: what "
        "is there is not known.": total["waiting"],
        f"{_many(total['failed'], 'item')} failed: what is there is not known.": total["failed"],
        f"{_many(fetched, 'picture')} fetched and not in the atlas yet.": fetched,
        f"{_many(unscored, 'object')} in the atlas and not scored: nobody knows whether they are odd.": unscored,
        f"{_many(placeless, 'object')} without a position: not looked up, nor compared by position.": placeless,
    }
    return [text for text, count in told.items() if count]


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _reasons(jobs: Jobs) -> list[dict[str, Any]]:
    """Return why items did not get into the atlas, by state, without the numbers that differ from item to item."""
    rows = jobs.rows(
        "SELECT source, state, regexp_replace(coalesce(reason, ''), '[0-9][0-9.]*', '…', 'g') AS why, count(*), "
        "min(item) FROM items WHERE state IN ('empty', 'out of footprint', 'failed', 'rejected', 'duplicate') "
        "GROUP BY ALL ORDER BY count(*) DESC, source, state, why LIMIT 60"
    )
    return [dict(zip(("source", "state", "reason", "count", "such_as"), row, strict=True)) for row in rows]


def _scorings(jobs: Jobs) -> list[dict[str, Any]]:
    rows = jobs.rows("SELECT run, tested, candidates, created FROM scorings WHERE state = 'done' ORDER BY created, run")
    return [dict(zip(("run", "tested", "candidates", "created"), row, strict=True)) for row in rows]


def _queue(jobs: Jobs, verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return what is listed and not decided, the least p-value first."""
    decisions = decided(verdicts)
    rows = jobs.rows(
        "SELECT object_id, first(source), min(p_value), first(q.q_value ORDER BY p_value), first(q.tier ORDER BY "
        "p_value), "
        'first(q.detector ORDER BY p_value), first(q.reasons ORDER BY p_value), first(ra), first("dec"), min(listed) '
        "FROM queue AS q JOIN items USING (object_id) GROUP BY object_id ORDER BY min(p_value), max(score) DESC, "
        "object_id"
    )
    names = ("object_id", "source", "p_value", "q_value", "tier", "detector", "reasons", "ra", "dec", "listed")
    known: dict[str, list[str]] = {}
    for name, against, state, label, apart, why in jobs.rows(
        "SELECT object_id, against, state, label, separation_arcsec, reason FROM identifications ORDER BY "
        "object_id, against"
    ):
        text = {KNOWN: f"known by {against}", NO_MATCH: f"not found in {against}"}.get(
            state, f"not checked in {against}"
        )
        text += f" as {label}" if label else ""
        text += f", {apart:.2f} arcsec away" if apart is not None else ""
        known.setdefault(name, []).append(text + (f" ({why})" if why else ""))
    result = []
    for row in rows:
        one = dict(zip(names, row, strict=True))
        if decisions.get(one["object_id"], "unsure") == "unsure":
            result.append({**one, "known": known.get(one["object_id"], ["not checked: no table to look into"])})
    return result


def _identified(plan: Plan, jobs: Jobs) -> dict[str, dict[str, int]]:
    listed = jobs.value("SELECT count(DISTINCT object_id) FROM queue")
    result = {}
    for against in plan.against:
        states = dict(
            jobs.rows("SELECT state, count(*) FROM identifications WHERE against = ? GROUP BY state", [against.name])
        )
        counts = {state: states.get(state, 0) for state in (KNOWN, NO_MATCH, NOT_CHECKED)}
        counts[NOT_CHECKED] += listed - sum(counts.values())
        result[against.name] = {"listed": listed, **counts}
    return result


def _health(plan: Plan, jobs: Jobs) -> dict[str, Any]:
    usage = shutil.disk_usage(plan.workspace)
    hosts = [
        {"host": host, "run": run, "counts": json.loads(counts), "last_success": last, "last_error": error}
        for host, run, counts, last, error in jobs.rows(
            "SELECT host, run, counts, max(last_success) OVER (PARTITION BY host), last_error FROM hosts "
            "QUALIFY row_number() OVER (PARTITION BY host ORDER BY run DESC) = 1 ORDER BY host"
        )
    ]
    runs = jobs.rows("SELECT number, started, ended, how FROM runs ORDER BY number DESC LIMIT 10")
    events = jobs.rows(f"SELECT happened, run, kind, text FROM events ORDER BY happened DESC LIMIT {EVENTS}")
    return {
        "free_bytes": usage.free,
        "workspace_bytes": size_of(plan.workspace),
        "hosts": hosts,
        "runs": [dict(zip(("number", "started", "ended", "how"), row, strict=True)) for row in runs],
        "events": [dict(zip(("at", "run", "kind", "text"), row, strict=True)) for row in events],
    }


def _null_results(
    plan: Plan, jobs: Jobs, sources: Mapping[str, Mapping[str, Any]], total: Mapping[str, int]
) -> list[str]:
    """Return what was looked for and not there, in words."""
    told = []
    for name, one in sources.items():
        if one["requested"] and not one["added"]:
            told.append(f"{name}: of {one['requested']} requested items none is in the atlas.")
        elif one["scored"] and not one["listed"]:
            told.append(f"{name}: of {one['scored']} scored objects none is listed.")
        if one["listed"] and not (one["yes"] or one["no"]):
            told.append(f"{name}: {one['listed']} listed, none judged by people yet; its yield is not known.")
        elif one["no"] and not one["yes"]:
            told.append(f"{name}: {one['no']} judged, none of them a yes.")
    for scoring in _scorings(jobs):
        if not scoring["candidates"]:
            told.append(
                f"List {scoring['run']}: of {scoring['tested']} objects none is a candidate: no list of them is "
                f"expected "
                f"to hold at most {100 * plan.fdr:g} % ordinary ones."
            )
    if not total["requested"]:
        told.append("Nothing was requested yet.")
    return told


def _changed(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is different from the last report: counts, what is newly listed, sources that came or went."""
    listed = {one["object_id"] for one in before["queue"]}
    return {
        "since": before["created_text"],
        "counts": {name: now["total"][name] - before["total"].get(name, 0) for name in COUNTED},
        "newly_listed": [one["object_id"] for one in now["queue"] if one["object_id"] not in listed],
        "judged": {name: now["judged"][name] - before["judged"].get(name, 0) for name in now["judged"]},
        "sources": sorted(set(now["sources"]) ^ set(before["sources"])),
    }


# ---- texts


def when(seconds: float | None) -> str:
    """Return a time in UTC, or "never"."""
    return "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.1f} %)" if whole else "")


def _yield(one: Mapping[str, Any]) -> str:
    if one["interval"] is None:
        return "not known"
    low, high = one["interval"]
    return f"{one['yes']} of {one['yes'] + one['no']}, {one['yield']:.2f} [{low:.2f}, {high:.2f}]"


def tables(numbers: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return the tables of a report: title, head, rows of texts that are not escaped yet."""
    sources = numbers["sources"]
    all_rows = {**sources, "all": numbers["total"]}
    counts = [[name, *(str(one[column]) for column in COUNTED)] for name, one in all_rows.items()]
    shares = [
        [
            name,
            _share(one["answered"], one["requested"]),
            _share(one["added"], one["answered"]),
            _share(one["scored"], one["added"]),
            _share(one["listed"], one["scored"]),
        ]
        for name, one in all_rows.items()
    ]
    yields = [
        [name, str(one["listed"]), str(one["yes"]), str(one["no"]), str(one["unsure"]), _yield(one)]
        for name, one in sources.items()
    ]
    reasons = [
        [str(one[key]) for key in ("source", "state", "reason", "count", "such_as")] for one in numbers["reasons"]
    ]
    known = [
        [name, str(one["listed"]), *(str(one[state]) for state in (KNOWN, NO_MATCH, NOT_CHECKED))]
        for name, one in numbers["identified"].items()
    ]
    health = numbers["health"]
    hosts = [
        [one["host"], ", ".join(f"{key}: {count}" for key, count in one["counts"].items()), when(one["last_success"]),
         one["last_error"] or "none"]
        for one in health["hosts"]
    ]  # fmt: skip
    runs = [
        [str(one["number"]), when(one["started"]), when(one["ended"]) if one["ended"] else "killed, or still runs",
         one["how"] or ""]
        for one in health["runs"]
    ]  # fmt: skip
    events = [[when(one["at"]), str(one["run"]), one["kind"], one["text"]] for one in health["events"]]
    result = [
        ("Counts", ["source", *COUNTED], counts),
        (
            "Shares",
            ["source", "answered of requested", "added of answered", "scored of added", "listed of scored"],
            shares,
        ),
        (
            "Yields, by what people decided",
            ["source", "listed", "yes", "no", "unsure", "yes of decided [95 %]"],
            yields,
        ),
        ("Why items are not in the atlas", ["source", "state", "reason", "items", "such as"], reasons),
        ("Is it known?", ["table", "listed", KNOWN, NO_MATCH, NOT_CHECKED], known),
        ("Hosts", ["host", "answers by status", "last success", "last error"], hosts),
        ("Runs", ["run", "started", "ended", "why it ended"], runs),
        ("Events", ["time", "run", "kind", "text"], events),
    ]
    return [(title, head, rows) for title, head, rows in result if rows]


def _summary(numbers: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the parts of a report that are lists of sentences."""
    health, changed = numbers["health"], numbers["changed"]
    if changed is None:
        told = ["This is the first report."]
    else:
        parts = [f"{name} {count:+d}" for name, count in changed["counts"].items() if count]
        told = [f"Since {changed['since']}: {', '.join(parts) or 'no count has changed'}."]
        told += [f"Newly listed: {', '.join(changed['newly_listed'])}."] if changed["newly_listed"] else []
        votes = [f"{name} {count:+d}" for name, count in changed["judged"].items() if count]
        told += [f"Judged by people: {', '.join(votes)}."] if votes else []
        told += [f"Sources that came or went: {', '.join(changed['sources'])}."] if changed["sources"] else []
    disk = f"{health['free_bytes'] / 1e9:.1f} GB free, the workspace takes {health['workspace_bytes'] / 1e6:.1f} MB"
    return [
        *([("Not done", numbers["unfinished"])] if numbers["unfinished"] else []),
        ("What changed", told),
        ("Null results", numbers["null_results"] or ["None."]),
        ("Not checked", numbers["not_checked"]),
        ("Disk", [f"{disk}."]),
    ]


def as_markdown(numbers: Mapping[str, Any]) -> str:
    """Return the report as Markdown; texts of others cannot make markup."""
    parts = [f"# {_md(numbers['title'])}", f"Report {numbers['number']}, {numbers['created_text']}.", MEANING]
    for title, lines in _summary(numbers):
        parts += [f"## {title}", "\n".join(f"- {_md(line)}" for line in lines)]
    head = ["object", "source", "p", "q", "tier", "detector", "measures", "is it known?"]
    parts += [f"## To look at: {len(numbers['queue'])}"]
    if numbers["queue"]:
        parts += [_md_table(head, [_looked(one) for one in numbers["queue"][:SHOWN]])]
    for title, names, rows in tables(numbers):
        parts += [f"## {title}", _md_table(names, rows)]
    return "\n\n".join(parts) + "\n"


def _looked(one: Mapping[str, Any]) -> list[str]:
    return [
        one["object_id"],
        one["source"],
        f"{one['p_value']:.2g}",
        "" if one["q_value"] is None else f"{one['q_value']:.2g}",
        one["tier"] or "",
        one["detector"] or "",
        one["reasons"] or "",
        "; ".join(one["known"]),
    ]


def _md_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_md(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md(text: object) -> str:
    """Return text in which nothing is markup or a link in Markdown or HTML."""
    plain = printable(text)
    escaped = "".join(f"\\{one}" if one in "\\`*_[]#|~!" else one for one in plain)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", ":\u2060//")


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1f24;
  background: #fff } h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse }
th, td { border-bottom: 1px solid #d5dae0; padding: .25rem .6rem; text-align: left; vertical-align: top }
.wide { overflow-x: auto }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem }
figure { margin: 0 } img { width: 100%; image-rendering: auto; background: #000 } figcaption { font-size: .8rem;
  overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { background: #14171a; color: #e3e6ea } th, td { border-color: #3a4149 } }
"""


def as_html(numbers: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Return the report as one HTML file without scripts that loads nothing from anywhere."""
    parts = [f"<h1>{_e(numbers['title'])}</h1>", f"<p>Report {numbers['number']}, {_e(numbers['created_text'])}.</p>"]
    parts += [f"<p>{_e(MEANING)}</p>"]
    for title, lines in _summary(numbers):
        parts += [f"<h2>{_e(title)}</h2>", "<ul>", *(f"<li>{_e(line)}</li>" for line in lines), "</ul>"]
    queue = numbers["queue"]
    shown = f", the first {SHOWN} are shown" if len(queue) > SHOWN else ""
    parts += [f"<h2>To look at: {len(queue)}{shown}</h2>", '<div class="grid">']
    parts += [_figure(one, pictures.get(one["object_id"])) for one in queue[:SHOWN]]
    parts += ["</div>"]
    for title, head, rows in tables(numbers):
        heads = "".join(f'<th scope="col">{_e(cell)}</th>' for cell in head)
        lines = ["<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        parts += [f"<h2>{_e(title)}</h2>", f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>']
        parts += [*lines, "</tbody></table></div>"]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head_part = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{_e(numbers["title"])}</title>'
        f"<style>{STYLE}</style></head><body><main>"
    )
    return head_part + "\n".join(parts) + "</main></body></html>\n"


def _figure(one: Mapping[str, Any], picture: bytes | None) -> str:
    text = _looked(one)
    name = _e(one["object_id"])
    image = "<p>no picture is stored</p>"
    if picture is not None:
        kind = "webp" if picture[8:12] == b"WEBP" else "jpeg"
        image = f'<img alt="{name}" src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">'
    position = "" if one["ra"] is None else f"<br>{one['ra']:.5f} {one['dec']:+.5f}"
    caption = f"<b>{name}</b>{position}<br>p {_e(text[2])}, q {_e(text[3])}, {_e(text[4])}, {_e(text[5])}"
    return f"<figure>{image}<figcaption>{caption}<br>{_e(text[6])}<br>{_e(text[7])}</figcaption></figure>"


def _e(text: object) -> str:
    return html.escape(printable(text))


def _pictures(atlas: Atlas | None, queue: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    return {} if atlas is None or not queue else atlas.thumbnails([one["object_id"] for one in queue[:SHOWN]])


def _replace(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
