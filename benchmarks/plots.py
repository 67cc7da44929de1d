"""The figures of docs/scale.md, drawn from docs/search.json and docs/scale.json: `python -m benchmarks.plots`.

Colors say whose an engine is (galsearch warm, others cool and gray), and every line is named at its side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.measure import frontier
from benchmarks.search import OUT, ROOT
from benchmarks.stages import COLUMNS, ENOUGH
from benchmarks.vectors import KINDS

FIGURES = ROOT / "docs" / "figures"
SCALE = ROOT / "docs" / "scale.json"
STYLES: dict[str, tuple[str, str, str]] = {  # engine: color, marker, line
    "galsearch-bundle": ("#c1272d", "o", "-"),
    "galsearch-folder": ("#f08a24", "s", "-"),
    "galsearch-compact": ("#e07a9c", "h", "-"),
    "galsearch-macro": ("#b8860b", "^", "--"),
    "faiss-ivf-flat": ("#1b4f9c", "o", "-"),
    "faiss-ivfpq-fastscan": ("#5b9bd5", "D", "--"),
    "faiss-hnsw": ("#2a9d8f", "v", "-"),
    "usearch": ("#76b7a2", "P", "--"),
    "lancedb": ("#7b4ea3", "X", "-"),
    "numpy": ("#444444", "*", ":"),
    "sqlite-vec": ("#999999", "h", ":"),
}
KIND_TITLES = {"like": "queries like stored vectors", "words": "queries like words"}
COLUMN_TITLES = {"u": "cut independent of the vectors", "c": "cut that follows the vectors"}
SMALLEST_DEFICIT = 1e-3  # of recall: an engine that misses less is drawn as missing this much
TEXT = {
    "svg.fonttype": "none",
    "svg.hashsalt": "galsearch",
    "font.size": 9,
    "axes.titlesize": 10,
    "font.family": "sans-serif",
}


def main() -> None:
    """Draw what there are results for; say what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", type=Path, default=OUT)
    parser.add_argument("--scale", type=Path, default=SCALE)
    parser.add_argument("--folder", type=Path, default=FIGURES)
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for source, drawings in ((args.search, SEARCH_DRAWINGS), (args.scale, SCALE_DRAWINGS)):
        found = json.loads(source.read_text())
        for name, draw in drawings.items():
            path = args.folder / f"{name}.{args.format}"
            _save(draw(found), path)
            print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update(TEXT)
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    when = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, dpi=110, metadata=when, bbox_inches="tight", facecolor="white")
    _pyplot().close(figure)


# ---- recall versus time


def recall_versus_time(found: dict) -> Any:
    """Draw a panel for each kind of query: what recall@10 an engine reaches in what time, without a cut."""
    figure, panels = _pyplot().subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for kind, panel in zip(KINDS, panels, strict=True):
        for name, lines in _lines(found, "unfiltered").items():
            mine = [p for p in lines if p["kind"] == kind and p["k"] == 10]
            _curve(panel, name, mine)
        _recall_axis(panel)
        panel.set(title=KIND_TITLES[kind], yscale="log")
        _plain_ticks(panel.yaxis)
    panels[0].set_ylabel("median milliseconds a query")
    _legend(figure, panels)
    _title(figure, found, "ten nearest, no cut; large marks: what the planner chooses by itself")
    return figure


def _curve(panel: Any, name: str, lines: list[dict]) -> None:
    color, marker, line = STYLES[name]
    told = frontier([p for p in lines if isinstance(p["effort"], int)])
    itself = [p for p in lines if p["effort"] is None]
    x, y = [_deficit(p["recall"]) for p in told], [p["median_ms"] for p in told]
    panel.plot(x, y, color=color, marker=marker, linestyle=line, markersize=4, label=name if told else None)
    large = {"markersize": 10, "markeredgecolor": "white", "linestyle": "none", "label": None if told else name}
    for point in itself:
        panel.plot(_deficit(point["recall"]), point["median_ms"], color=color, marker=marker, **large)


def _deficit(recall: float) -> float:
    return max(1 - recall, SMALLEST_DEFICIT)


def _recall_axis(panel: Any) -> None:
    """Show recall on a scale where .9, .99 and .999 are equally far apart."""
    ticks = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
    panel.set_xscale("log")
    panel.set_xlim(0.5, SMALLEST_DEFICIT * 0.8)
    panel.set_xticks([*(1 - tick for tick in ticks), SMALLEST_DEFICIT], [*(f"{t:g}" for t in ticks), "≥.999"])
    panel.minorticks_off()
    panel.set_xlabel("recall@10")
    panel.axvline(1 - ENOUGH, color="#bbbbbb", linewidth=0.8, zorder=0)
    panel.grid(axis="y", color="#eeeeee")


# ---- cuts


def cuts(found: dict) -> Any:
    """Draw a panel for each column and kind: the time under a cut by the share of the rows that pass."""
    figure, panels = _pyplot().subplots(2, 2, figsize=(11, 8), sharex=True, sharey=True, layout="constrained")
    for row, kind in zip(panels, KINDS, strict=True):
        for panel, column in zip(row, COLUMNS, strict=True):
            for name, lines in _lines(found, "filtered").items():
                _cut_curve(panel, name, [p for p in lines if (p["kind"], p["column"]) == (kind, column)])
            _share_axis(panel)
            panel.set_title(f"{COLUMN_TITLES[column]}\n{KIND_TITLES[kind]}")
    for panel in panels[:, 0]:
        panel.set_ylabel("median milliseconds a query")
    for panel in panels[1]:
        panel.set_xlabel("share of the rows that pass")
    _legend(figure, panels.ravel())
    text = f"ten nearest under a cut, at recall@10 of {ENOUGH:g} or more; hollow: recall is lower"
    _title(figure, found, text)
    return figure


def _cut_curve(panel: Any, name: str, lines: list[dict]) -> None:
    color, marker, line = STYLES[name]
    best = [_chosen([p for p in lines if p["share"] == share]) for share in sorted({p["share"] for p in lines})]
    best = [p for p in best if p is not None]
    panel.plot([p["share"] for p in best], [p["median_ms"] for p in best], color=color, linestyle=line, linewidth=1.3)
    for point in best:
        face = color if point["recall"] >= ENOUGH else "white"
        panel.plot(point["share"], point["median_ms"], color=color, marker=marker, markerfacecolor=face, markersize=5)
    panel.plot([], [], color=color, marker=marker, linestyle=line, label=name)


def _chosen(lines: list[dict]) -> dict | None:
    """Return the planner's own line, or else the quickest of enough recall, or else that of most recall."""
    itself = [p for p in lines if p["effort"] is None]
    enough = [p for p in lines if p["recall"] is not None and p["recall"] >= ENOUGH]
    known = [p for p in lines if p["recall"] is not None]
    if itself and itself[0]["recall"] is not None:
        return itself[0]
    if enough:
        return min(enough, key=lambda p: p["median_ms"])
    return max(known, key=lambda p: p["recall"], default=None)


def _share_axis(panel: Any) -> None:
    ticks = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0001)
    panel.set(xscale="log", yscale="log")
    panel.set_xlim(1.4, 0.00007)
    panel.set_xticks(ticks, ["100", "50", "10 %", "1 %", "0.1 %", "0.01 %"])
    panel.minorticks_off()
    _plain_ticks(panel.yaxis)
    panel.grid(axis="y", color="#eeeeee")


# ---- growth


def growth(found: dict) -> Any:
    """Draw how times, building and bytes grow with the rows, continued to the target by their fitted powers."""
    figure, panels = _pyplot().subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    for panel, (title, unit, scale, figures) in zip(panels, GROWTH, strict=True):
        for figure_name, (label, color, marker) in figures.items():
            _growth_curve(panel, found, figure_name, scale=scale, style=(label, color, marker))
        panel.set(title=title, xscale="log", yscale="log", xlabel="rows", ylabel=unit)
        _plain_ticks(panel.yaxis)
        panel.grid(color="#eeeeee")
        panel.legend(fontsize=8, frameon=False)
    target = found["target"]
    dims = f"{target['dim']} numbers a vector; dashed: continued to {target['rows'] / 1e6:.0f} million rows"
    figure.suptitle(dims, fontsize=10)
    return figure


GROWTH = (
    ("a search, warm", "median milliseconds", 1.0, {
        "bundle_words_ms": ("bundle, words", "#c1272d", "o"),
        "bundle_u0.01_ms": ("bundle, 1 % cut", "#c1272d", "^"),
        "folder_words_ms": ("folder, words", "#f08a24", "s"),
        "folder_u0.01_ms": ("folder, 1 % cut", "#f08a24", "v"),
    }),
    ("building", "seconds", 1.0, {
        "folder_build_s": ("folder", "#f08a24", "s"),
        "bundle_build_s": ("bundle from the folder", "#c1272d", "o"),
    }),
    ("memory and disk", "GB", 1e-9, {
        "bundle_bytes": ("bundle on disk", "#c1272d", "o"),
        "folder_build_peak_mib": ("memory of building the folder", "#f08a24", "s"),
        "bundle_build_peak_mib": ("memory of writing the bundle", "#1b4f9c", "D"),
        "bundle_search_peak_mib": ("memory of searches", "#2a9d8f", "v"),
    }),
)  # fmt: skip


def _growth_curve(panel: Any, found: dict, figure: str, *, scale: float, style: tuple[str, str, str]) -> None:
    label, color, marker = style
    scale *= 2**20 if figure.endswith("_mib") else 1
    mine = [p for p in found["points"] if p["dim"] == found["target"]["dim"]]
    rows, values = [p["rows"] for p in mine], [p[figure] * scale for p in mine]
    fit = next((f for f in found["fits"] if f["figure"] == figure), None)
    power = f" (power {fit['exponent']:.2f})" if fit else ""
    panel.plot(rows, values, color=color, marker=marker, markersize=5, label=label + power)
    if fit:
        ahead = [rows[-1], found["target"]["rows"]]
        panel.plot(ahead, [values[-1], fit["value"] * scale], color=color, linestyle="--", linewidth=0.9)


# ---- what they share


def _lines(found: dict, what: str) -> dict[str, list[dict]]:
    names = {name: f"{what}:{name}" for name in STYLES}
    return {name: found["stages"][stage]["lines"] for name, stage in names.items() if stage in found["stages"]}


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Any, panels: Iterable[Any]) -> None:
    known = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    figure.legend(known.values(), known.keys(), loc="outside right center", frameon=False)


def _title(figure: Any, found: dict, text: str) -> None:
    spec = found["spec"]
    figure.suptitle(
        f"{spec['rows']:,} × {spec['dim']}, {found['machine']['cores'].split()[0]} threads: {text}", fontsize=10
    )


SEARCH_DRAWINGS: dict[str, Callable[[dict], Any]] = {"search_recall": recall_versus_time, "search_cuts": cuts}
SCALE_DRAWINGS: dict[str, Callable[[dict], Any]] = {"search_scale": growth}


if __name__ == "__main__":
    main()
