"""Search with and without cuts against other engines: `python -m benchmarks.search --rows 1000000 --dim 256`.

Every stage (data, truth, a build, one engine asked without or with cuts) is a process of its own, so that engines share
neither memory nor threads, and leaves its result in the cache: a run that was interrupted goes on, and `--again TEXT`
measures anew what has TEXT in its name (`--again galsearch` after a change to galsearch). A fixed piece of arithmetic
is timed beside each stage (`pace_ms`): where it differs between two engines the machine was busy, and their ratio is
not to be trusted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import time_at_recall
from benchmarks.peers import ENGINES, OURS, PEERS, Place
from benchmarks.stages import ENOUGH, SHARES, Settings, run_stage
from benchmarks.vectors import KINDS, Spec

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "search.json"
CACHE = ROOT / "demo" / "bench"
EQUAL_RECALLS = (0.976, 0.98, 0.99)
MEASURE = "faiss-ivf-flat"  # against which equal recall is compared
SLOW_MS = 20.0  # from here on LanceDB called directly counts as slow
STEADY = 1.25  # paces that differ by more are reported
BARS_FROM_ROWS = 100_000  # a smaller run is no measure of the bars
PACKAGES = ("galsearch", "numpy", "duckdb", "pylance", "lancedb", "faiss-cpu", "usearch", "sqlite-vec")


def main() -> None:
    """Measure, print and write; or run the one stage that a parent process asks for."""
    args = _arguments()
    spec = Spec(args.rows, args.dim, args.seed)
    place = place_of(spec, args.cache)
    settings = Settings(args.queries, args.queries_under_cut, args.seconds, tuple(args.shares))
    if args.stage:
        measure.use_few_cores()
        keep_stage(place, settings, args.stage)
        return
    forget(place, args.again)
    found = measure_all(place, settings, names=stages(args.peers))
    found["left_out"] = {name: ENGINES[name].needs for name in args.peers if not ENGINES[name].is_there()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(as_json(found))
    print("\n".join(report(found)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [peer.name for peer in PEERS]
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", nargs="*", choices=names, default=names, help="besides galsearch; all of them")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--cache", type=Path, default=CACHE, help="for data, indexes and the results of stages")
    parser.add_argument("--again", nargs="*", metavar="TEXT", help="stages to repeat, by a part of the name")
    parser.add_argument("--queries", type=int, default=Settings.queries)
    parser.add_argument("--queries-under-cut", type=int, default=Settings.queries_under_cut)
    parser.add_argument("--seconds", type=float, default=Settings.seconds, help="of a line of the result, at most")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the rows that pass a cut")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    return parser.parse_args()


def place_of(spec: Spec, cache: Path) -> Place:
    """Return where in the cache the data of `spec` lie."""
    return Place(spec, cache.resolve() / f"{spec.rows}x{spec.dim}-{spec.seed}")


# ---- running stages


def stages(peers: Sequence[str]) -> list[str]:
    """Return the names of all stages, in order, for galsearch and those of `peers` that are installed."""
    ours = [engine.name for engine in OURS]
    there = [*ours, *(name for name in peers if ENGINES[name].is_there())]
    built = [name for name in there if name != "galsearch-macro"]  # it comes with the bundle
    asked = [f"{what}:{name}" for what in ("unfiltered", "filtered") for name in there]
    firsts = [f"first:{name}" for name in ours[:2]]
    return ["data", "truth", *(f"build:{name}" for name in built), *asked, *firsts]


def measure_all(place: Place, settings: Settings, *, names: Sequence[str]) -> dict:
    """Run every stage whose result is not there yet; return all results with what is derived from them."""
    results = {name: stage_result(place, settings, name) for name in names}
    return {
        "spec": asdict(place.spec),
        "settings": asdict(settings),
        "machine": machine(),
        "stages": results,
        "summary": summary(results),
    }


def stage_result(place: Place, settings: Settings, name: str) -> dict:
    """Return the kept result of a stage, or that of running it in a process of its own."""
    path = _result(place, name)
    if not path.exists():
        print(f"{place.root.name}: {name}", file=sys.stderr, flush=True)
        subprocess.run(_command(place, settings, name), check=True, env=measure.few_threads(), cwd=ROOT)
    return json.loads(path.read_text())


def _command(place: Place, settings: Settings, name: str) -> list[str]:
    place.root.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"stage": name, "cache": place.root.parent, **asdict(place.spec), **asdict(settings)}
    command = [sys.executable, "-m", "benchmarks.search"]
    for option, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        command += [f"--{option.replace('_', '-')}", *map(str, values)]
    return command


def _result(place: Place, name: str) -> Path:
    return place.root / "results" / f"{name.replace(':', '.')}.json"


def keep_stage(place: Place, settings: Settings, name: str) -> None:
    """Run a stage in this process and keep its result."""
    path = _result(place, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(as_json(run_stage(place, settings, name)))
    partial.replace(path)


def forget(place: Place, texts: Sequence[str] | None) -> None:
    """Remove the results of stages that have one of `texts` in their names; of all of them when there are no texts."""
    for path in (place.root / "results").glob("*.json") if texts is not None else ():
        if not texts or any(text.replace(":", ".") in path.name for text in texts):
            path.unlink()


def machine() -> dict[str, str]:
    """Return what the figures depend on: processor, threads, versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    cores = f"{measure.THREADS} of {len(os.sched_getaffinity(0))} cores"
    return {"processor": processor, "cores": cores, "python": platform.python_version(), **_versions()}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def as_json(found: dict) -> str:
    """Return JSON with a line for each record of measurements, so that two runs can be compared line by line."""
    return _json(found, "") + "\n"


def _json(value: Any, indent: str) -> str:
    flat = not isinstance(value, (dict, list)) or not any(isinstance(part, (dict, list)) for part in _parts(value))
    if flat:
        return json.dumps(value)
    inner = indent + " "
    if isinstance(value, dict):
        lines = (f"{inner}{json.dumps(key)}: {_json(part, inner)}" for key, part in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _json(part, inner) for part in value) + f"\n{indent}]"


def _parts(value: dict | list) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value)


# ---- what follows from the results


def summary(results: dict[str, dict]) -> dict:
    """Return times at equal recall, the choice of the planner, cuts side by side, and the bars with their values."""
    plain = _by_engine(results, "unfiltered")
    found = {
        "equal_recall": list(equal_recall(plain)),
        "as_asked": list(as_asked(plain)),
        "cuts": list(side_by_side(_by_engine(results, "filtered"))),
    }
    return {**found, "bars": list(bars(found, results)), "unsteady": unsteady(results)}


def _by_engine(results: dict[str, dict], what: str) -> dict[str, list[dict]]:
    parts = {name.partition(":")[2]: found["lines"] for name, found in results.items() if name.startswith(what)}
    return {name: [line for line in lines if line["recall"] is not None] for name, lines in parts.items()}


def _curve(lines: list[dict], kind: str, *, k: int = 10) -> list[dict]:
    return [line for line in lines if line["kind"] == kind and line["k"] == k]


def equal_recall(plain: dict[str, list[dict]]) -> Iterator[dict]:
    """Yield for each engine the milliseconds at each of EQUAL_RECALLS and the ratio to IVF_FLAT of faiss."""
    for kind in KINDS:
        for wanted in EQUAL_RECALLS:
            base = time_at_recall(_curve(plain.get(MEASURE, []), kind), wanted)
            for name, lines in plain.items():
                spent = time_at_recall(_curve(lines, kind), wanted)
                yield {
                    "kind": kind,
                    "recall": wanted,
                    "engine": name,
                    "ms": _short(spent),
                    "ratio": _ratio(spent, base),
                }


def as_asked(plain: dict[str, list[dict]]) -> Iterator[dict]:
    """Yield what galsearch does when it is told no cells, against IVF_FLAT of faiss at the recall it then has."""
    for kind in KINDS:
        for name, lines in plain.items():
            for line in _curve(lines, kind):
                if name.startswith("galsearch") and not isinstance(line["effort"], int):
                    base = time_at_recall(_curve(plain.get(MEASURE, []), kind), line["recall"])
                    kept = {key: line[key] for key in ("effort", "recall", "median_ms", "p95_ms")}
                    yield {"kind": kind, "engine": name, **kept, "ratio": _ratio(line["median_ms"], base)}


def side_by_side(cut: dict[str, list[dict]]) -> Iterator[dict]:
    """Yield for each cut and form of an atlas its time, those of the peers at a recall of ENOUGH, and their ratios.

    `best_ms` is the quicker of numpy on the subset and faiss IVF_FLAT with a selector; `lancedb_ms` that of LanceDB
    called directly at its first effort of enough recall, or at its last one.
    """
    for name in ("galsearch-folder", "galsearch-bundle"):
        for line in cut.get(name, []):
            if line["effort"] is not None:
                continue
            numpy, faiss = (_enough(cut.get(peer, []), line) for peer in ("numpy", MEASURE))
            direct = _enough(cut.get("lancedb", []), line) or _last(cut.get("lancedb", []), line)
            peers = [found["median_ms"] for found in (numpy, faiss) if found]
            best = min(peers, default=None)
            kept = ("kind", "column", "share", "recall", "median_ms", "p95_ms", "short", "paths")
            yield {
                "engine": name,
                **{key: line[key] for key in kept if key in line},
                "best_ms": _short(best),
                "ratio": _ratio(line["median_ms"], best),
                "lancedb_ms": _short(direct and direct["median_ms"]),
                "lancedb_ratio": _ratio(direct and direct["median_ms"], line["median_ms"]),
            }


def _same_cut(lines: list[dict], line: dict) -> list[dict]:
    return [other for other in lines if all(other[key] == line[key] for key in ("kind", "column", "share"))]


def _enough(lines: list[dict], line: dict) -> dict | None:
    found = [other for other in _same_cut(lines, line) if other["recall"] >= ENOUGH]
    return min(found, key=lambda other: other["median_ms"], default=None)


def _last(lines: list[dict], line: dict) -> dict | None:
    return max(_same_cut(lines, line), key=lambda other: other["recall"], default=None)


def bars(found: dict, results: dict[str, dict]) -> Iterator[dict]:
    """Yield each bar with its value and limit; `met` is None where what it needs was not measured."""
    asked = [line for line in found["as_asked"] if line["engine"] == "galsearch-bundle" and line["effort"] is None]
    yield _bar("recall@10, bundle, no cut", _worst(asked, "recall", min), ENOUGH, at_least=True)
    yield _bar("bundle to faiss IVF_FLAT at its recall", _worst(asked, "ratio", max), 1.5)
    macro = [row for row in found["equal_recall"] if row["engine"] == "galsearch-macro" and row["recall"] == ENOUGH]
    yield _bar(f"macro to faiss IVF_FLAT at {ENOUGH}", _worst(macro, "ratio", max), 8.0)
    cold = results.get("first:galsearch-bundle", {})
    yield _bar("cold open and first answer, bundle, ms", cold.get("cold", {}).get("total_ms"), 150.0)
    cuts = found["cuts"]
    yield _bar("recall@10 under cuts", _worst(cuts, "recall", min), ENOUGH, at_least=True)
    yield _bar("answers of fewer than min(k, matches) rows", sum(row["short"] for row in cuts) if cuts else None, 0)
    yield _bar("cut to the better of numpy and faiss", _worst(cuts, "ratio", max), 1.3)
    slow = [row for row in cuts if (row["lancedb_ms"] or 0) >= SLOW_MS]
    text = f"LanceDB directly to galsearch, where it takes {SLOW_MS:g} ms or more"
    yield _bar(text, _worst(slow, "lancedb_ratio", min), 5.0, at_least=True)
    memory = cold.get("memory", {}).get("all", {})
    yield _bar("peak memory of searches, bundle, MiB", memory.get("peak_mib"), 500.0)
    yield _bar("bundle written in seconds", results.get("build:galsearch-bundle", {}).get("seconds"), 60.0)


def _bar(text: str, value: float | None, limit: float, *, at_least: bool = False) -> dict:
    met = None if value is None else bool(value >= limit if at_least else value <= limit)
    return {"bar": text, "value": value, "limit": limit, "rule": "at least" if at_least else "at most", "met": met}


def _worst(rows: list[dict], key: str, choose: Any) -> float | None:
    return choose((row[key] for row in rows if row[key] is not None), default=None)


def unsteady(results: dict[str, dict]) -> list[str]:
    """Return the stages during which the machine was slower than it can be, by more than STEADY."""
    paces = {name: max(found["pace_ms"]) for name, found in results.items()}
    usual = min(paces.values())
    return [f"{name}: {pace / usual:.2f}" for name, pace in paces.items() if pace > STEADY * usual]


def _ratio(spent: float | None, base: float | None) -> float | None:
    return None if spent is None or base is None else round(spent / base, 3)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


# ---- words


def report(found: dict) -> Iterator[str]:
    """Yield what was found as lines of text."""
    spec = found["spec"]
    yield f"{spec['rows']:,} x {spec['dim']}; {found['machine']['processor']}, {found['machine']['cores']}"
    yield from _builds(found["stages"])
    yield "no cut, k = 10: recall / median ms by effort"
    for name, lines in _by_engine(found["stages"], "unfiltered").items():
        for kind in KINDS:
            said = (f"{_effort(p)} {p['recall']:.3f}/{p['median_ms']:.2f}" for p in _curve(lines, kind))
            yield f"  {name:22} {kind:6} {'  '.join(said)}"
    yield f"times to {MEASURE} at equal recall"
    for row in found["summary"]["equal_recall"]:
        if row["ratio"] is not None and row["recall"] == ENOUGH:
            yield f"  {row['engine']:22} {row['kind']:6} at {row['recall']:g}: {row['ms']:.2f} ms, {row['ratio']:.2f}"
    yield "under cuts, as the planner chooses"
    yield from map(_cut_line, found["summary"]["cuts"])
    yield from _bar_lines(found["summary"], spec["rows"])


def _builds(results: dict[str, dict]) -> Iterator[str]:
    for name, stage in results.items():
        if name.startswith("build:"):
            size = f"{stage['bytes'] / 1e6:9.1f} MB on disk"
            yield f"  {name:28} {stage['seconds']:8.1f} s  {stage['peak_mib']:8.0f} MiB  {size}"


def _effort(line: dict) -> str:
    return "-" if line["effort"] is None else f"{line['effort']:g}"


def _cut_line(row: dict) -> str:
    cut = f"{row['engine']:17} {row['kind']:6} {row['column']} {row['share']:7.2%}"
    ours = f"recall {row['recall']:.3f}  {row['median_ms']:8.2f} ms  short {row['short']}"
    peers = f"best {_number(row['best_ms'])} x{_number(row['ratio'])}  lancedb {_number(row['lancedb_ms'])}"
    return f"  {cut}  {ours}  {peers} x{_number(row['lancedb_ratio'])}  {row.get('paths', '')}"


def _bar_lines(derived: dict, rows: int) -> Iterator[str]:
    if rows < BARS_FROM_ROWS:
        yield f"the bars are for {BARS_FROM_ROWS:,} rows and more: with fewer, a fixed cost is most of each question"
        return
    yield "bars"
    for bar in derived["bars"]:
        met = {True: "met", False: "MISSED", None: "not measured"}[bar["met"]]
        yield f"  {bar['bar']}: {_number(bar['value'])} ({bar['rule']} {bar['limit']:g}): {met}"
    slow = derived["unsteady"]
    if slow:
        yield f"the machine was busy during {len(slow)} stages, so ratios are worth little: {', '.join(slow[:4])} …"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    main()
