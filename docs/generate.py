"""Write the generated parts of the documents from the code: columns, tables, macros, command line, API, figures.

`python docs/generate.py` rewrites them; `--check` only says which are stale, and then exits 1. What lies between
`<!-- generated: NAME -->` and `<!-- end: NAME -->` is replaced, everything else in a document is written by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import galsearch
from galsearch import columns as roles_of_columns
from galsearch import schema
from galsearch.science import morphology
from galsearch.store.sql import macros

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import features  # noqa: E402

LEFT_OUT = ("relevance",)  # of the evaluation in the README: docs/evaluation.md has it
SEARCH = ("search.json", "python -m benchmarks.search --rows 1000000 --dim 256")  # and what writes it
WIDE = ("search_1024.json", "python -m benchmarks.search --rows 200000 --dim 1024 --out docs/search_1024.json")
APPS = tuple(
    (name, f"python -m benchmarks.app {atlas} > docs/{name}")
    for name, atlas in {"app.json": "demo/xdf.duckdb", "app_1m.json": "MILLION.duckdb --seconds 0"}.items()
)
RERANKING = ("reranking.json", "python -m benchmarks.rerank FOLDER -o docs/reranking.json")
AGENTS = ("agent_rerank.json", "python -m benchmarks.agent_rerank FOLDER/test.atlas -o docs/agent_rerank.json")
MORPHOLOGY = ("morphology.json", "python -m benchmarks.morphology")
LINES = ("lines.json", "python -m benchmarks.lines")
PICTURES = ("build.json", "python -m benchmarks.build")
VOTES = ("votes.json", "python -m benchmarks.votes FOLDER/test.atlas")
FAMILIAR = ("familiar.json", "python -m export.familiar")
BEYOND = ("beyond.json", "python -m benchmarks.beyond ATLAS ...")
LEARNING = ("learning.json", "python -m benchmarks.learning FOLDER")
WATCH = ("watch.json", "python -m benchmarks.watch")
INJECTION = ("injection.json", "python -m benchmarks.injection")
ANOMALIES = ("anomalies.json", "python -m benchmarks.anomalies FOLDER")
DUPLICATES = ("duplicates.json", "python -m benchmarks.duplicates FOLDER")
IDENTIFY = ("identify.json", "python -m benchmarks.identify")
REMOTE = ("remote.json", "python -m benchmarks.remote")
SWEEP = ("sweep.json", "python -m benchmarks.sweep")
SCALE = ("scale.json", "python -m benchmarks.scale --rows 100000 1000000 5000000")
MACRO = re.compile(r"MACRO\s+(\w+)\(([^)]*)\)(\s+AS TABLE)?")


def main() -> int:
    """Write or check the documents; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when a document is stale")
    stale = [path for path, text in documents() if not path.exists() or path.read_text() != text]
    if parser.parse_args().check:
        wrong = [f"{path.relative_to(ROOT)} is stale: run `make docs`" for path in stale]
        wrong += [f"docs/features.toml: {problem}" for problem in features.problems()]
        print(*wrong, sep="\n", end="\n" * bool(wrong), file=sys.stderr)
        print(features.counts(features.read()["row"]))
        return int(bool(wrong))
    for path, text in documents():
        path.write_text(text)
    print(f"{len(stale)} documents changed" if stale else "every document was current")
    return 0


def documents() -> Iterable[tuple[Path, str]]:
    """Yield each document that has generated parts, with the text it should have."""
    parts: dict[str, Callable[[], str]] = {
        "columns": columns,
        "tables": tables,
        "roles": roles,
        "engine_names": engine_names,
        "manifest": manifest,
        "macros": macro_signatures,
        "commands": commands,
        "api": api,
        "errors": errors,
        "models": models,
        "evaluation": evaluation,
        "latency": latency,
        "bars": bars,
        "builds": builds,
        "pictures": pictures,
        "recall": equal_recall,
        "cuts": cuts,
        "recall_1024": lambda: f"{_measured_on(_measured(*WIDE))}\n\n{equal_recall(WIDE)}",
        "cuts_1024": lambda: cuts(WIDE),
        "growth": growth,
        "extrapolation": extrapolation,
        "app": app,
        "service": service,
        "reranking": reranking,
        "agent_rerank": agent_rerank,
        "morphology": morphology_truth,
        "morphology_speed": morphology_speed,
        "morphology_columns": morphology_columns,
        "lines_columns": lines_columns,
        "lines_fluxes": lines_fluxes,
        "lines_classes": lines_classes,
        "lines_broad": lambda: _records(_measured(*LINES)["broad"]),
        "lines_decrement": lambda: _records(_measured(*LINES)["decrement"]),
        "lines_bright": lambda: _records(_measured(*LINES)["bright"]),
        "lines_repeats": lambda: _records(_measured(*LINES)["repeats"]),
        "lines_speed": lines_speed,
        "sweep": sweep,
        "votes_accuracy": votes_accuracy,
        "votes_sweep": votes_sweep,
        "votes_speed": votes_speed,
        "anomalies_auroc": anomalies_auroc,
        "anomalies_rates": anomalies_rates,
        "anomalies_speed": anomalies_speed,
        "duplicates_recall": duplicates_recall,
        "duplicates_speed": duplicates_speed,
        "beyond": beyond,
        "familiar": familiar,
        "learning": learning,
        "learning_speed": learning_speed,
        "watch_kills": watch_kills,
        "injection": injection,
        "remote": remote,
        "identify_speed": identify_speed,
        "identify_chance": identify_chance,
        "features": features.page,
        "comparison": features.comparison,
    }
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if path.exists() and "<!-- generated: " in path.read_text():
            yield path, filled(path.read_text(), parts)


def filled(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """Return `text` with every marked part replaced; KeyError for a marker that no function fills."""

    def replaced(match: re.Match) -> str:
        name = match["name"]
        return f"<!-- generated: {name} -->\n\n{parts[name]().strip()}\n\n<!-- end: {name} -->"

    return re.sub(r"<!-- generated: (?P<name>\w+) -->\n.*?<!-- end: (?P=name) -->", replaced, text, flags=re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [tuple(head), tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


# ---- the format


def columns() -> str:
    """Return the well-known columns of `galaxies`."""
    rows = ((f"`{c.name}`", c.type, c.unit, f"`{c.ucd}`", c.description) for c in schema.GALAXIES.values())
    return table(("column", "type", "unit", "UCD", "meaning"), rows)


def roles() -> str:
    """Return the names of columns that intake knows, by role."""

    def listed(names: Iterable[object]) -> str:
        return ", ".join(f"`{name}`" for name in names)

    pairs = [f"{ra}`/`{dec}" for ra, dec in roles_of_columns.POSITION_NAMES]
    pixels = [f"{x}`/`{y}" for x, y, _ in roles_of_columns.PIXEL_NAMES]
    rows = (
        ("ids", listed((*roles_of_columns.ID_NAMES, *roles_of_columns.NUMBERING))),
        ("positions", listed(pairs)),
        ("redshift", listed(("z", *roles_of_columns.REDSHIFT_NAMES))),
        ("photometric redshift, where there is no other", listed(roles_of_columns.PHOTOMETRIC_NAMES)),
        ("file of the picture", listed(roles_of_columns.FILE_NAMES)),
        ("pixels", listed(pixels)),
    )
    return table(("role", "names, the first that is there wins"), rows)


def engine_names() -> str:
    """Return the names that no column of a user's table keeps, and why."""
    rows = ((f"`{name}`", f"`{name}{schema.IN_TABLE}`", why) for name, why in schema.ENGINE_NAMES.items())
    return table(("name", "stored as", "what it is"), rows)


def tables() -> str:
    """Return the columns of every other table."""
    rows = (
        (f"`{name}`", f"`{c.name}`", c.type, c.description) for name, columns in schema.TABLES.items() for c in columns
    )
    return table(("table", "column", "type", "meaning"), rows)


def manifest() -> str:
    """Return the keys of the manifest that must be there, and the version that this code writes."""
    keys = ", ".join(f"`{key}`" for key in schema.REQUIRED_KEYS)
    version = ".".join(map(str, schema.FORMAT_VERSION))
    return f"Format `{schema.FORMAT}`, version `{version}`. Keys: {keys}."


def macro_signatures() -> str:
    """Return the macros of a bundle with image vectors: name, parameters with defaults, and what kind each is."""
    spaces: dict[str, dict] = {"image": {"dim": 256}}
    statements = macros.facts_macros() + macros.bundle_macros(spaces) + macros.vote_macros(spaces, set(schema.TABLES))
    found = [MACRO.search(text) for text in statements]
    rows = ((f"`{m[1]}({' '.join(m[2].split())})`", "table" if m[3] else "value") for m in found)
    return table(("macro", "gives a"), rows)


# ---- the command line


def commands() -> str:
    """Return every verb with its usage, arguments and options, as `galsearch VERB --help` says them."""
    from typer.main import get_command

    from galsearch import cli

    group = get_command(cli.app)
    parts = [_paragraph(group.help)]
    for name, command in sorted(_named(group.commands), key=lambda pair: pair[0]):
        parts += [f"## galsearch {name}", _paragraph(command.help), f"```\n{_usage(name, command)}\n```"]
        visible = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
        if visible:
            parts.append(table(("argument or option", "meaning", "default"), map(_parameter, visible)))
    return "\n\n".join(parts)


def _named(commands: dict, before: str = "") -> Iterator[tuple[str, object]]:
    """Yield each command with what is typed for it; those of a group, such as kb, with its name before theirs."""
    for name, command in commands.items():
        if hasattr(command, "commands"):
            yield from _named(command.commands, f"{before}{name} ")
        else:
            yield before + name, command


def _usage(name: str, command) -> str:
    arguments = [_metavar(p) for p in command.params if p.param_type_name == "argument"]
    return " ".join(["galsearch", name, "[OPTIONS]", *arguments])


def _metavar(parameter) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _parameter(parameter) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`", parameter.help or "", _default(parameter)
    flag = parameter.is_flag
    names = "`, `".join(parameter.opts)
    value = "" if flag else f" {parameter.metavar or parameter.name.upper()}"
    return f"`{names}{value}`", parameter.help or "", "" if flag else _default(parameter)


def _default(parameter) -> str:
    shown = isinstance(parameter.default, (int, float, str, Path)) and not isinstance(parameter.default, bool)
    return f"`{parameter.default}`" if shown and str(parameter.default) else ""


def _paragraph(text: str | None) -> str:
    return inspect.cleandoc(text or "").strip()


# ---- the Python surface


def api() -> str:
    """Return every public function, constant and class with its signature and docstring, in alphabetical order."""
    public = [name for name in galsearch.__all__ if not name.startswith("__")]
    classes = {name: getattr(galsearch, name) for name in public if inspect.isclass(getattr(galsearch, name))}
    others = {name: getattr(galsearch, name) for name in public if name not in classes}
    functions = {name: value for name, value in others.items() if callable(value)}
    parts = ["## Functions"]
    for name, function in sorted(functions.items()):
        parts += [f"### galsearch.{name}", _code(name, function), _doc(function)]
    parts.append("## Constants")
    parts += [f"`galsearch.{name}` = `{value!r}`" for name, value in sorted(others.items()) if name not in functions]
    parts.append("## Classes")
    for name, kind in sorted(classes.items()):
        if not issubclass(kind, Exception):
            parts += _class(name, kind)
    return "\n\n".join(parts)


def _class(name: str, kind: type) -> list[str]:
    parts = [f"### galsearch.{name}", *([_code(name, kind)] if dataclasses.is_dataclass(kind) else []), _doc(kind)]
    ours = [base for base in kind.__mro__ if base.__module__.startswith("galsearch.")]
    known = {member: value for base in reversed(ours) for member, value in vars(base).items()}
    for member, value in known.items():
        if member.startswith("_"):
            continue
        if isinstance(value, property):
            parts += [f"`{name}.{member}`: {_doc(value.fget)}"]
        elif isinstance(value, (staticmethod, classmethod)) or inspect.isfunction(value):
            function = getattr(value, "__func__", value)
            parts += [_code(f"{name}.{member}", function), _doc(function)]
    return parts


def _code(name: str, function: Callable) -> str:
    return f"```py\n{signature(name, function)}\n```"


def signature(name: str, function: Callable) -> str:
    """Return a signature as text, the same under every version of Python; long ones over several lines."""
    described = inspect.signature(function)
    shown, starred = [], False
    for parameter in described.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
        starred |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        shown.append(_shown(parameter))
    gives = described.return_annotation
    arrow = "" if gives is inspect.Signature.empty else f" -> {_annotation(gives)}"
    line = f"{name}({', '.join(shown)}){arrow}"
    return line if len(line) <= 100 else f"{name}(\n    " + ",\n    ".join(shown) + f",\n){arrow}"


def _shown(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        value = parameter.default
        text += f" = {getattr(value, '__name__', None) or repr(value)}"
    return text


def _annotation(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _doc(thing: object) -> str:
    text = inspect.getdoc(thing) or ""
    return "" if text.startswith(f"{getattr(thing, '__name__', '')}(") else text  # a dataclass without words of its own


def errors() -> str:
    """Return the tree of errors, as errors.py draws it."""
    from galsearch import errors as module

    lines = inspect.getdoc(module).splitlines()
    tree = [line for line in lines if line.strip().startswith(("GalsearchError", "├", "│", "└"))]
    return "```\n" + inspect.cleandoc("\n".join(tree)) + "\n```"


# ---- figures


def cards() -> list[dict]:
    """Return the cards of the models that ship, in the order of their folders."""
    return [json.loads(path.read_text()) for path in sorted((ROOT / "onnx_models").glob("*/card.json"))]


def votes_accuracy() -> str:
    """Return how often votes of three neighbors and probes are right, beside logistic regression."""
    found = _measured(*VOTES).get("accuracy", [])
    head = (
        "task",
        "objects",
        "votes of 3",
        "probe",
        "logistic regression",
        "probe less votes",
        "probe less regression",
        "balanced: votes",
        "balanced: probe",
    )
    rows = (
        (
            *(row["task"], row["objects"]),
            *(_with_interval(row[name]["accuracy"]) for name in ("votes of 3", "probe", "logistic regression")),
            *(_with_interval(row[f"probe minus {name}"]) for name in ("votes of 3", "logistic regression")),
            *(_with_interval(row[name]["balanced"]) for name in ("votes of 3", "probe")),
        )
        for row in found
    )
    answers = "; ".join(
        f"{row['task'].split(':')[0]}: {row['answered']:.0%} answered, "
        f"{row['mean probability where answered']:.3f} claimed, {_with_interval(row['accuracy where answered'])} right"
        for row in found
    )
    sure = "; ".join(
        f"{row['task'].split(':')[0]}: {row['mean probability of probe']:.3f} claimed, "
        f"{row['probe']['accuracy'][0]:.3f} right"
        for row in found
    )
    other = next(row["across surveys"] for row in found if "across surveys" in row)
    parts = ", ".join(f"{right} of {all_} {name}" for name, (right, all_) in other["of each class"].items())
    return (
        f"{table(head, rows)}\n\nWhere votes give a label, the mean probability beside how often it is right: "
        f"{answers}. The same of the probe: {sure}.\n\nThe probe of those Galaxy Zoo 1 objects (SDSS), asked about the "
        f"{other['objects']} Galaxy10 DECaLS samples of the same three classes, another survey: "
        f"{_with_interval(other['accuracy'])} right, {other['mean probability']:.3f} claimed ({parts})."
    )


def votes_sweep() -> str:
    """Return F1 and precision at a prevalence by share of the target and number of neighbors."""
    rows = [row for row in _measured(*VOTES).get("sweep", {}).get("rows", []) if row["weight"] == "exp"]
    ks = sorted({row["k"] for row in rows})
    by_share: dict[float, dict[int, dict]] = {}
    for row in rows:
        by_share.setdefault(row["share"], {})[row["k"]] = row

    def cell(row: dict | None) -> str:
        if row is None:
            return ""
        if row["precision_there"] is None:
            return "0; none is called so"
        there = f"{row['precision_there']:.2f} [{row['precision_there_low']:.2f}, {row['precision_there_high']:.2f}]"
        return f"{_with_interval([row[name] for name in ('f1', 'f1_low', 'f1_high')], 2)}; {there}"

    lines = (
        (f"{100 * share:.2g} % of {next(iter(known.values()))['members']}", *(cell(known.get(k)) for k in ks))
        for share, known in by_share.items()
    )
    tested = f"{rows[0]['tested']} objects classified, {rows[0]['targets']} of them edge-on." if rows else ""
    return f"{table(('target among the voters', *(f'k = {k}' for k in ks)), lines)}\n\n{tested}"


def votes_speed() -> str:
    """Return how long one vote takes against a large base."""
    found = _measured(*VOTES)
    head = (
        "members",
        "dimensions",
        "vectors",
        "comparing all, ms",
        "by cells, ms",
        "recall of cells",
        "first vote, s",
        "load",
        "arithmetic, ms",
    )
    rows = (
        (
            *(f"{row['rows']:,}", row["dim"], row.get("vectors", "random")),
            *(" / ".join(f"{value:g}" for value in row[how]) for how in ("exact_ms", "cells_ms")),
            *(row["recall_of_cells"], row["first_seconds"], row["load"], row["pace_ms"]),
        )
        for row in found.get("speed", [])
    )
    note = "Milliseconds are the least, the median and the 95th percentile of 50 votes, voters' rows read."
    return f"{table(head, rows)}\n\n{note}"


def anomalies_auroc() -> str:
    """Return how well odd galaxies stand out by each detector, and what was chosen beforehand."""
    found = _measured(*ANOMALIES)
    shown = ("knn", "mahalanobis", "isolation_forest", "reconstruction", "mahalanobis_relative", "columns", "pixels")
    rows = (
        (
            row["task"],
            f"{row['normals']} + {row['odd']}",
            f"{100 * row['prevalence']:.2g} %",
            "" if row["bar"] is None else f"{row['bar']:.2f}",
            f"**{_with_interval([row['auroc']['ensemble'][name] for name in ('auroc', 'low', 'high')])}**",
            f"{row['best_single']} {row['ensemble_minus_best']:+.3f}",
            *(f"{row['auroc'][name]['auroc']:.3f}" if name in row["auroc"] else "" for name in shown),
        )
        for row in found["tasks"]
    )
    head = ("odd among ordinary", "n", "prevalence", "aim", "AUROC of the ensemble", "less the best single", *shown)
    chosen = found["chosen"]
    best = chosen["validation_auroc"][chosen["name"]]
    stated = (
        f"Chosen on the validation part: {', '.join(f'`{name}`' for name in chosen['detectors'])}, by the "
        f"{chosen['rule']}, with a mean AUROC of {best:.3f} there. {found['pictures']} pictures, "
        f"encoder {found['model']}."
    )
    return f"{table(head, rows)}\n\n{stated}"


def anomalies_rates() -> str:
    """Return the false positive rates and false discovery rates that were measured."""
    found = _measured(*ANOMALIES)
    rows = (
        (
            row["task"],
            _with_error(row["false_positive_rate"]["ensemble"]),
            *(f"{_with_error(mix['fdr'])}; {mix['recall']:.2f}" for mix in row["discoveries"]),
        )
        for row in found["tasks"]
    )
    shares = (f"{100 * mix['share']:g} % odd: rate; listed" for mix in found["tasks"][0]["discoveries"])
    folds = found["folds"]
    stated = (
        f"`atlas.anomalies` on {folds['normals']} ordinary galaxies alone, none of them named as normal: p ≤ 0.05 for "
        f"{folds['false_positive_rate']:.3f} ± {folds['error']:.3f}, {folds['candidates']} candidates."
    )
    return f"{table(('ordinary galaxies', 'p ≤ 0.05', *shares), rows)}\n\n{stated}"


def anomalies_speed() -> str:
    """Return how long lists took, and the memory that they took."""
    found = _measured(*ANOMALIES)
    rows = (
        (f"{row['rows']:,} × {row['dim']}", row["seconds"], row["memory_mb"], row["load"], row["pace_ms"])
        for row in found.get("speed", [])
    )
    head = ("vectors", "seconds, four detectors", "memory beyond the open atlas, MiB", "load", "arithmetic, ms")
    pictures = found["list_of_pictures"]
    stated = f"With `pixels`, {pictures['tested']} pictures took {pictures['seconds']} s."
    return f"{table(head, rows)}\n\n{stated} `python -m benchmarks.anomalies --rows 100000`"


def duplicates_recall() -> str:
    """Return how many copies of each kind are found, and what else is taken for one."""
    found = _measured(*DUPLICATES)["test"]
    rows = [
        (
            row["kind"],
            f"{row['found']} of {row['copies']}",
            _share(row["recall"]),
            f"{row['pairs'] - row['found']} of {row['pairs']}",
            _share(row["precision"]),
            *(f"{row['imagehash'][name]:.3f}" for name in ("phash", "dhash")),
        )
        for row in found["kinds"]
    ]
    single = found["all_single"]
    rows.append(
        (
            "all kinds but the last",
            "",
            f"**{_share(single['recall'])}**",
            "",
            f"**{_share(single['precision'])}**",
            "",
            "",
        )
    )
    head = ("copy", "found", "recall", "wrong pairs", "precision", "imagehash phash", "imagehash dhash")
    stated = (
        f"{found['objects']} objects and {found['neighbors']} pairs of neighbors. imagehash, 256 bits, is given the "
        "threshold that is best for its recall at a precision of 0.999 on these very pairs."
    )
    return f"{table(head, rows)}\n\n{stated}"


def duplicates_speed() -> str:
    """Return how long synthetic objects took, beside comparing all pairs."""
    rows = (
        (
            f"{row['rows']:,} × {row['dim']}",
            row["atlas"]["seconds"],
            row["hashes"]["seconds"],
            f"**{row['seconds']}**",
            f"{row['atlas']['memory_mb']} / {row['hashes']['memory_mb']}",
            f"{row['hashes']['recall']:.3f}",
            f"{row['imagehash_pairs_hours']:,.0f} h ({row['imagehash_pairs_hours'] * 3600 / row['seconds']:,.0f}×)",
            f"{row['numpy_pairs_hours']:.2g} h ({row['numpy_pairs_hours'] * 3600 / row['seconds']:.2g}×)",
            f"{row['hash_ms']:.1f} / {row['align_ms']:.1f}",
            row["load"],
        )
        for row in _measured(*DUPLICATES).get("speed", [])
    )
    head = (
        *(
            "synthetic objects",
            "positions and vectors, s",
            "hashes, s",
            "together, s",
            "memory, MiB",
            "copies' hashes found",
        ),
        *("imagehash, all pairs", "64-bit hashes in numpy, all pairs", "ms to hash / to align", "load"),
    )
    stated = (
        "Positions, vectors and hashes are synthetic, one in a hundred a copy; all pairs are extrapolated from a part. "
        "Pictures come on top: each that has no hash yet is read and hashed once, and each pair of near hashes that "
        "positions do not settle is aligned, at the cost that stands there. "
        "`python -m benchmarks.duplicates --rows 1000000`"
    )
    return f"{table(head, rows)}\n\n{stated}"


def _share(values: dict[str, float]) -> str:
    return _with_interval([values[name] for name in ("value", "low", "high")], 4)


def familiar() -> str:
    """Return how sets of pictures compare with what the image model learned from."""
    found = _measured(*FAMILIAR)
    rows = [(one["set"], f"{one['pictures']:,}", one["median"], one["rare"]) for one in found["sets"]]
    head = ("pictures", "number", "percentile of the median one", "share below percentile 5")
    return f"{table(head, rows)}\n\n`python -m export.familiar`, {found['model']}"


def beyond() -> str:
    """Return how many searches for what the model was never taught, and for what it was, end with a convincing hit."""
    found = _measured(*BEYOND)
    rows = [
        (
            f"{atlas['atlas']}, {atlas['objects']:,} galaxies",
            {"untaught": "never taught", "taught": "taught"}[name],
            str(atlas[name]["concepts"]),
            _with_interval(atlas[name]["convincing"]),
            _with_interval(atlas[name]["by_scores_alone"]),
        )
        for atlas in found["atlases"]
        for name in ("untaught", "taught")
    ]
    head = ("atlas", "concepts that the model was", "number", "end with a convincing hit", "by scores alone")
    return f"{table(head, rows)}\n\n`python -m benchmarks.beyond ATLAS ...`; intervals are Wilson's, 95 %."


def agent_rerank() -> str:
    """Return what sheets do to calls, cost and nDCG with scripted judges, a table for each target."""
    found = _measured(*AGENTS)
    noise = found["errors"][0]["noise"]
    judges = "; ".join(
        f"*{error['name'].split(':')[0]}*: on a sheet of N its error is √(1 + {error['crowd']:g} (N − 1)) times that, "
        f"and {error['slip']:.0%} of the pictures get the score of the next"
        for error in found["errors"]
    )
    about = (
        f"All judges say 8 ± {noise:g} of what fits and 3 ± {noise:g} of what does not, in whole points, of a picture "
        f"alone or one they have zoomed into. {judges}. {found['n']} hits are looked at for the first {found['k']}, "
        f"{found['samples']} judgment each; means over {found['draws']} draws of the errors and {found['wordings']} "
        "wordings, ± is the standard deviation of the gain over draws."
    )
    parts = [about]
    for target in dict.fromkeys(row["target"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["target"] == target]
        parts.append(f"**{target}**, nDCG@{found['k']} of the search {rows[0]['before']:.3f}:")
        parts.append(table(_AGENTS_HEAD, map(_agents_row, rows)))
    return "\n\n".join(parts)


_AGENTS_HEAD = ("judge", "pictures a call", "calls", "tokens in", "US dollars", "nDCG@10 after")


def _agents_row(row: dict) -> tuple[object, ...]:
    single = row["way"] == "vlm"
    count = "1 (`--by vlm`)" if single else f"{row['pictures']}{', zooms' if row['looks'] else ''}"
    judge = "any" if single else row["error"].split(":")[0]
    after = f"{row['after']:.3f} ± {row['spread']:.3f}"
    return judge, count, f"{row['calls']:.0f}", f"{row['tokens_in']:,.0f}", f"{row['usd']:.4f}", after


def learning() -> str:
    """Return what lists come to after some verdicts, in several orders, and without any."""
    found = _measured(*LEARNING)
    steps = [step["verdicts"] for step in found["orders"]["queue"]]
    empty = [""] * (len(steps) - 1)
    rows = [(f"no verdict: {name}", _with_interval(value), *empty, "") for name, value in found["no_feedback"].items()]
    for name, order in found["orders"].items():
        values = (_with_interval(step["held_out"]) for step in order)
        rows.append((f"{name} order", *values, f"{order[-1]['mergers_judged'][0]:g}"))
    rows.append(("all labels of the first part", *empty, _with_interval(found["all_labels"]), ""))
    head = ("precision@50 on objects that nobody may judge", *(f"{step} verdicts" for step in steps), "mergers judged")
    return f"{table(head, rows)}\n\n{_learning_told(found)}"


def _learning_told(found: dict) -> str:
    last, (first, second) = found["orders"]["queue"][-1], found["parts"]
    ours, plain = last["held_out"][0], {name: value[0] for name, value in found["no_feedback"].items()}
    times = ", ".join(f"{ours / value:.1f} times that of {name} ({value:.2f})" for name, value in plain.items())
    return (
        f"Medians of {found['reviewers']} simulated reviewers with 95 % bootstrap intervals; "
        f"{100 * found['noise']:.0f} % of their verdicts are wrong. {first[0]:,} ordinary galaxies and {first[1]} "
        f"mergers "
        f"may be judged, {second[0]:,} and {second[1]} are listed, so {found['most_possible']:.2f} is the most that is "
        f"possible. With 50 verdicts in the order of the queue it is {times}, and "
        f"{100 * ours / found['all_labels'][0]:.0f} % of what all labels of the first part give. AUROC then is "
        f"{_with_interval(last['auroc'])}, and the sum of predicted interest over the true number of mergers "
        f"{_with_interval(last['expected_over_true'])}. Among those of the first part that were not judged the "
        f"precision is {_with_interval(last['not_judged'])}, after {last['mergers_judged'][0]:g} of its {first[1]} "
        f"mergers were taken out of it by judging. Encoder {found['model']}."
    )


def learning_speed() -> str:
    """Return how long verdicts take to order an atlas."""
    speed = _measured(*LEARNING)["speed"]
    names = {
        "rank_s": "ranking, s",
        "queue_s": "queue of 20, s",
        "first_rank_s": "first ranking, s",
        "add_ms": "keeping a verdict, ms",
        "load": "load",
        "pace_ms": "arithmetic, ms",
    }
    row = (f"{speed['rows']:,} × {speed['dim']}", *(speed[name] for name in names))
    return f"{table(('vectors', *names.values()), [row])}\n\n`python -m benchmarks.learning --rows {speed['rows']}`"


def watch_kills() -> str:
    """Return how a watch that was killed again and again went."""
    found = _measured(*WATCH)
    head = (
        "pictures",
        "kills",
        "each in the atlas once",
        "decisions lost",
        "verdicts lost",
        "pictures a second",
        "load",
    )
    once = "yes" if found["exactly_once"] and not found["check_found"] and not found["unscored"] else "**no**"
    lost = f"{found['verdicts_written'] - found['verdicts_counted']} of {found['verdicts_written']}"
    row = (found["images"], found["killed"], once, found["decisions_lost"], lost, found["images_per_s"], found["load"])
    stated = f"{found['pictures']}, measured {found['measure']}, {found['machine']}; restarts and scoring included."
    command = f"python -m benchmarks.watch --images {found['images']} --kills {found['killed']}"
    return f"{table(head, [row])}\n\n{stated} `{command}`"


def injection() -> str:
    """Return the share of injected objects that were listed, by kind and contrast."""
    found = _measured(*INJECTION)
    contrasts = sorted({row["contrast"] for row in found["rows"]})
    kinds = list(dict.fromkeys(row["kind"] for row in found["rows"]))
    shares = {(row["kind"], row["contrast"]): row for row in found["rows"]}

    def cell(kind: str, contrast: float) -> str:
        row = shares[kind, contrast]
        low, high = row["interval"]
        return f"{row['share']:.2f} [{low:.2f}, {high:.2f}]; {row['share_at_fdr']:.2f}"

    rows = ((f"{contrast:g}", *(cell(kind, contrast) for kind in kinds)) for contrast in contrasts)
    first = found["rows"][0]
    stated = (
        f"Of {found['each']} injected beside {found['normals']} others: the share among the {found['budget']} that are "
        f"listed, with its 95 % interval; and the share that is a candidate at a false discovery rate of "
        f"{found['fdr']:g}. Chance alone lists {first['by_chance']:.2f}. Contrast is the peak of what is injected over "
        f"the brightest 0.1 % of its host; 0 is a control. Encoder {found['model']}. `{INJECTION[1]}`"
    )
    return f"{table(('contrast', *kinds), rows)}\n\n{stated}"


def identify_speed() -> str:
    """Return how long looking objects up takes beside astropy's matching."""
    found = _measured(*IDENTIFY)
    rows = (
        (
            f"`{row['method']}`",
            f"{row['seconds']:.2f}",
            f"{row['ratio']:.2f} [{row['ratios'][0]:.2f}, {row['ratios'][1]:.2f}]",
            row["memory_mib"],
        )
        for row in found["methods"]
    )
    head = (
        "",
        "seconds of the processor",
        "over `search_around_sky`, of 3 turns [least, most]",
        "memory beyond the input, MiB",
    )
    told = f"{found['objects']:,} objects, {found['positions']:,} positions, within {found['radius_arcsec']:g}″"
    return f"{table(head, rows)}\n\n{told}; {found['matched']:,} objects have a match by all four. {found['machine']}."


def remote() -> str:
    """Return how long answers of a bundle behind a slow line take, and how much they read."""
    result = _measured(*REMOTE)
    asked, line = result["bars"], result["line"]
    names = ("first_seconds", "first_mb", "next_seconds", "next_mb", "recall")
    rows = [
        (form, way, *(_over(values[name], asked.get(name)) for name in names))
        for form, ways in result["forms"].items()
        for way, values in ways.items()
        if way != "mb"
    ]
    head = ("bundle", "asked by", "first answer, s", "MB", "next, s", "MB", "recall@12")
    sizes = ", ".join(f"{form} {ways['mb']:,.0f} MB" for form, ways in result["forms"].items())
    return (
        f"{_measured_on(result)} Files: {sizes}. The line waits {line['delay_ms']:g} ms before each answer and carries "
        f"{line['mbits']:g} Mbit/s. Asked for are {asked['first_seconds']:g} s and {asked['first_mb']:g} MB for the "
        f"first answer, {asked['next_seconds']:g} s for the next (medians); **bold** misses.\n\n{table(head, rows)}"
    )


def _over(value: float, most: float | None) -> str:
    return f"**{_figure(value)}**" if most is not None and value > most else _figure(value)


def identify_chance() -> str:
    """Return how many random positions had a match, and how many should have."""
    rows = (
        (
            row["place"],
            f"{row['radius_arcsec']:g}″",
            f"{row['predicted']:,.1f}",
            f"{row['measured']:,} [{row['low']:,.0f}, {row['high']:,.0f}]",
            f"{row['measured'] / row['predicted']:.2f}",
        )
        for row in _measured(*IDENTIFY)["chance"]
    )
    return table(("100,000 random positions", "radius", "predicted", "measured [95 %]", "ratio"), rows)


def _with_error(values: dict[str, float]) -> str:
    return f"{values['mean']:.3f} ± {values['error']:.3f}"


def _with_interval(values: list[float], digits: int = 3) -> str:
    return f"{values[0]:.{digits}f} [{values[1]:.{digits}f}, {values[2]:.{digits}f}]"


def models() -> str:
    """Return a line for each model that ships: what it takes, what it gives, its size and its license."""
    sizes = {path.parent.name: path.stat().st_size for path in (ROOT / "onnx_models").glob("*/model.onnx")}
    rows = (
        (f"`{c['id']}`", c["kind"], c["dim"], f"{sizes.get(c['id'], 0) / 1e6:.1f} MB", c.get("license", ""), _sets(c))
        for c in cards()
    )
    return table(("model", "takes", "dimensions", "size", "license", "trained on (rows)"), rows)


def _sets(card: dict) -> str:
    sets = card.get("training", {}).get("sets", [])
    return ", ".join(f"{item['name']} ({item['rows']:,})" if item["rows"] else item["name"] for item in sets)


def evaluation() -> str:
    """Return the evaluation rows that the cards hold; encoders that were judged together share one table."""
    by_rows: dict[str, list[str]] = {}
    for card in cards():
        if isinstance(card.get("evaluation"), list):  # that of spectra has its own page
            by_rows.setdefault(json.dumps(card["evaluation"]), []).append(f"`{card['id']}`")
    parts = []
    for rows, names in by_rows.items():
        shown = [{key: value for key, value in row.items() if key not in LEFT_OUT} for row in json.loads(rows)]
        parts.append(f"{' and '.join(names)}:\n\n{_records(shown)}")
    if (ROOT / "docs" / "evaluation.md").exists():
        parts.append("[docs/evaluation.md](docs/evaluation.md) says what counts as relevant, and has more tables.")
    if any(card["kind"] == "spectrum" for card in cards()):
        parts.append(
            "How the encoder of spectra does, beside eight other ways: [docs/spectra.md](docs/spectra.md#the-encoder)."
        )
    return "\n\n".join(parts) or "No model with measured figures ships yet."


def latency() -> str:
    """Return what `make bench` wrote to docs/latency.json: each question beside doing the same by hand."""
    path = ROOT / "docs" / "latency.json"
    if not path.exists():
        return "Not measured yet: `make bench` prints latency and writes docs/latency.json."
    found = json.loads(path.read_text())
    head = ("question", "median, ms", "p95, ms", "by hand, ms", "ratio")
    keys = ("question", "median_ms", "p95_ms", "peer_median_ms", "ratio")
    rows = ([row["question"], *(_figure(row[key]) for key in keys[1:])] for row in found["rows"])
    how = (
        "By hand is the same encoder and numpy over vectors in memory, which gives ids alone; for the command line, a "
        "process that imports DuckDB and ONNX Runtime and does nothing."
    )
    return f"{found['galaxies']:,} galaxies; {found['machine']}. {how}\n\n{table(head, rows)}"


def service() -> str:
    """Return what `python -m benchmarks.service` wrote to docs/service.json."""
    path = ROOT / "docs" / "service.json"
    if not path.exists():
        return "Not measured yet: `python -m benchmarks.service --rows 1000000 --out docs/service.json` does."
    found = json.loads(path.read_text())
    heads = {"answers": "answers", "errors": "errors", "median_ms": "median, ms", "p95_ms": "p95, ms"}
    heads |= {"most_ms": "slowest, ms", "cpu_ms": "processor, ms"}
    keys = [key for key in heads if key != "cpu_ms" or any(key in row for row in found["asks"].values())]
    head = ("asked", *(heads[key] for key in keys))
    rows = ([name, *(f"{row.get(key, 0):,}" for key in keys)] for name, row in found["asks"].items())
    of = f"{found['clients']} clients for {found['seconds']:.0f} s, {found['rows']:,} galaxies; {found['machine']}"
    how = f"{of}; the load average was {found['load_before']:.1f} before it began."
    return f"{how}\n\n{table(head, rows)}"


def bars() -> str:
    """Return what docs/search.json was measured on, and every bar with its value."""
    found = _measured(*SEARCH)
    said = {True: "met", False: "**missed**", None: "not measured"}
    rows = (
        (bar["bar"], _figure(bar["value"]), f"{bar['rule']} {bar['limit']:g}", said[bar["met"]])
        for bar in found["summary"]["bars"]
    )
    return f"{_measured_on(found)}\n\n{table(('bar', 'value', 'asked', ''), rows)}{_unsteady(found)}"


def _measured_on(found: dict) -> str:
    spec, machine = found["spec"], found["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine.items() if k not in ("processor", "cores"))
    return f"{spec['rows']:,} × {spec['dim']} on {machine['processor']}, {machine['cores']}; {versions}."


def _unsteady(found: dict) -> str:
    stages = found["summary"]["unsteady"]
    if not stages:
        return ""
    worst = max(float(text.rpartition(" ")[2]) for text in stages)
    return (
        f"\n\nThe machine was busy with other work during {len(stages)} of {len(found['stages'])} stages (up to "
        f"{worst:.1f} times slower at a fixed piece of arithmetic), so that these ratios are rough."
    )


def builds() -> str:
    """Return what it took each engine to build its index."""
    stages = _measured(*SEARCH)["stages"]
    rows = (
        (name.partition(":")[2], *(_known(value) for value in (s["seconds"], s["peak_mib"], s["bytes"] / 1e6)))
        for name, s in stages.items()
        if name.startswith("build:")
    )
    return table(("engine", "seconds", "peak memory, MiB", "on disk, MB"), rows)


def _known(value: float) -> str:
    """Return a number for a table; a build that was there from before has no seconds and no peak."""
    return "–" if math.isnan(value) else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def equal_recall(source: tuple[str, str] = SEARCH) -> str:
    """Return the times of every engine at equal recall, each with its ratio to IVF_FLAT of faiss."""
    found = _measured(*source)["summary"]["equal_recall"]
    heads = list(dict.fromkeys((row["kind"], row["recall"]) for row in found))
    by_engine: dict[str, dict] = {}
    for row in found:
        by_engine.setdefault(row["engine"], {})[row["kind"], row["recall"]] = row
    rows = ((name, *(_time_and_ratio(known.get(head)) for head in heads)) for name, known in by_engine.items())
    return table(("engine", *(f"{kind}, {recall:g}" for kind, recall in heads)), rows)


def _time_and_ratio(row: dict | None) -> str:
    if row is None or row["ms"] is None:
        return "–"
    return f"{row['ms']:.2f} ms" + (f" ({row['ratio']:.2f})" if row["ratio"] is not None else "")


def cuts(source: tuple[str, str] = SEARCH) -> str:
    """Return the bundle and the folder under every cut, beside the better of numpy and faiss, and LanceDB."""
    found = _measured(*source)["summary"]["cuts"]
    by_cut: dict[tuple, dict] = {}
    for row in found:
        by_cut.setdefault((row["kind"], row["column"], row["share"]), {})[row["engine"]] = row
    head = ("queries", "cut", "passes", "bundle", "folder", "numpy or faiss", "LanceDB")
    return table(head, ((kind, column, f"{share:.4g}", *_cut_cells(f)) for (kind, column, share), f in by_cut.items()))


def _cut_cells(forms: dict[str, dict]) -> tuple[str, ...]:
    ours = [forms.get(f"galsearch-{form}") for form in ("bundle", "folder")]
    peer = next(row for row in ours if row)
    said = [f"{row['median_ms']:.2f} ms, {row['recall']:.3f}" if row else "–" for row in ours]
    times = (peer["best_ms"], peer["lancedb_ms"])
    return *said, *("–" if spent is None else f"{spent:.2f} ms" for spent in times)


def growth() -> str:
    """Return the figures of every size that was built."""
    found = _measured(*SCALE)
    points = found["points"]
    figures = [name for name in points[-1] if name not in ("rows", "dim")]
    head = ("figure", *(f"{p['rows']:,} × {p['dim']}" for p in points))
    return table(head, ((_figure_name(name), *(_figure(p.get(name)) for p in points)) for name in figures))


def extrapolation() -> str:
    """Return the powers of the rows by which figures grow, and where that leads."""
    found = _measured(*SCALE)
    target = found["target"]
    head = ("figure", "power, all sizes", "power, two largest", f"at {target['rows']:,} × {target['dim']}")
    rows = (
        (_figure_name(f["figure"]), f"{f['exponent_all']:.2f}", f"{f['exponent']:.2f}", _range(f))
        for f in found["fits"]
    )
    return table(head, rows)


def morphology_columns() -> str:
    """Return the columns of a galaxy's form, and what the bits of their flag mean."""
    names = (*morphology.COLUMNS, "morphology_flag")
    found = [schema.GALAXIES[name] for name in names]
    return table(("column", "unit", "meaning"), ((f"`{c.name}`", c.unit, c.description) for c in found))


def sweep() -> str:
    """Return what became of the test data of other packages."""
    kinds = ("files", "table", "picture", "refused", "failed")
    rows = [(f"{row['package']} {row['version']}", *(row[k] for k in kinds)) for row in _measured(*SWEEP)["packages"]]
    total = ("all", *(sum(row[place] for row in rows) for place in range(1, len(kinds) + 1)))
    return table(("test data of", "files", "read as a table", "read as a picture", "refused", "failed"), [*rows, total])


def app() -> str:
    """Return how long the app takes, for one person and for many."""
    rows, machines = [], []
    for source in APPS:
        found = _measured(*source)
        machines.append(found["machine"])
        crowd = found.get("crowd")
        many = (
            f"{crowd['answer_s']['median']} s ({crowd['answer_s']['p95']} s), {crowd['errors']} errors"
            if crowd
            else "–"
        )
        one = (f"{found[name]['median']} s ({found[name]['max']} s)" for name in ("first_page_s", "question_s"))
        rows.append((f"{found['rows']:,}", *one, many, f"{found['server_mib']['most']:,} MiB"))
    head = ("objects", "first page: median (longest)", "question", "of 20 visitors: median (95 %)", "memory, most")
    return f"{table(head, rows)}\n\n{machines[0]}."


def reranking() -> str:
    """Return what a new order was worth for every target, without marks and with them."""
    found = _measured(*RERANKING)
    fewest = min(r["looked_at"] for r in found["rows"])
    seen: dict[tuple, str] = {}
    different = []  # rows that say something else than the one with fewer hits looked at
    for r in found["rows"]:
        said = f"{r['local']:.3f}"
        if r["looked_at"] == fewest or seen[r["target"], r["prevalence"]] != said:
            different.append(r)
        seen[r["target"], r["prevalence"]] = said
    rows = (
        (
            r["target"],
            "as it is" if r["prevalence"] is None else f"{r['prevalence']:.1%}",
            f"{r['n']:,} ({r['relevant']})",
            r["looked_at"],
            f"{r['before']:.3f} [{r['before_low']:.3f}, {r['before_high']:.3f}]",
            f"{r['local']:.3f} [{r['local_low']:.3f}, {r['local_high']:.3f}]",
            f"[{r['gain_low']:+.3f}, {r['gain_high']:+.3f}]",
            *(_taught(r["marks"].get(count)) for count in ("5", "20")),
            f"{r['ceiling']:.3f}",
        )
        for r in different
    )
    head = (
        "target",
        "prevalence",
        "n (relevant)",
        "looked at",
        "before",
        "after",
        "gain",
        "5+5 marks",
        "20+20",
        "most",
    )
    models = " and ".join(f"`{model['id']}`" for model in found["models"].values())
    return f"With {models}.\n\n{table(head, rows)}"


def _taught(figures: dict | None) -> str:
    if figures is None:
        return "–"
    gained = f"[{figures['gain_low']:+.3f}, {figures['gain_high']:+.3f}]"
    return f"{figures['before']:.3f} → {figures['after']:.3f} {gained}"


def pictures() -> str:
    """Return how many pictures a second become galaxies of an atlas."""
    found = _measured(*PICTURES)
    head = ("cutouts", "`--measure`", "galaxies/s", "version before", "ratio", "peak memory, MiB", "before")
    keys = ("now_per_s", "before_per_s", "ratio", "now_mib", "before_mib")
    rows = (
        (f"{row['pictures']:,} of {row['pixels']} px", row["measure"], *(_figure(row.get(key)) for key in keys))
        for row in found["rows"]
    )
    alone = f"The encoder alone takes {found['encoder_per_s']:,.0f} pictures/s that are decoded and shrunk already."
    return f"{found['machine']}. {alone}\n\n{table(head, rows)}"


def morphology_truth() -> str:
    """Return how well each column tells apart what people labeled."""
    rows = (
        (f"`{r['column']}`", r["tells apart"], _interval(r), r["positives"], r["negatives"], r["NULL"])
        for r in _measured(*MORPHOLOGY)["truth"]
    )
    return table(("column", "tells apart", "AUROC (95 %)", "with", "without", "NULL"), rows)


def _interval(row: dict) -> str:
    return f"{row['AUROC']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def morphology_speed() -> str:
    """Return how many galaxies are measured in a second."""
    found = _measured(*MORPHOLOGY)
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    return f"{_records(found['speed'])}\n\n{machine}."


def lines_columns() -> str:
    """Return the columns of `galaxies` that the lines of a spectrum give."""
    found = schema.LINE_MEASURES.values()
    rows = ((f"`{c.name}`", c.type, c.unit, f"`{c.ucd}`", c.description) for c in found)
    return table(("column", "type", "unit", "UCD", "meaning"), rows)


def lines_fluxes() -> str:
    """Return how fluxes and equivalent widths agree with those of SDSS, by line."""
    rows = (
        (
            r["line"],
            r["source"],
            f"{r['n']} ({r['objects']})",
            f"{r['flux ratio']:.3f} ({r['low']:.3f} to {r['high']:.3f})",
            f"{r['ew ratio']:.3f}",
            f"{r['pull']:+.2f}",
            f"{r['pull scatter']:.2f}",
        )
        for r in _measured(*LINES)["fluxes"]
    )
    head = ("line", "source", "spectra (objects)", "flux, ours / SDSS (95 %)", "width", "difference / error", "scatter")
    return table(head, rows)


def lines_classes() -> str:
    """Return how many spectra have which pair of BPT classes."""
    rows = ((r["SDSS"], r["ours"], r["n"]) for r in _measured(*LINES)["classes"])
    return table(("by the fluxes of SDSS", "by ours", "spectra"), rows)


def lines_speed() -> str:
    """Return how many spectra are measured in a second."""
    found = _measured(*LINES)
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    return f"{_records(found['speed'])}\n\n{machine}."


def _range(fit: dict) -> str:
    low, high = sorted((fit["value_all"], fit["value"]))
    return f"{low:,.3g} to {high:,.3g}" if low else "0"


def _figure_name(name: str) -> str:
    units = {"ms": "ms", "s": "s", "mib": "MiB", "bytes": "bytes", "recall": ""}
    words, _, unit = name.rpartition("_")
    return f"{words.replace('_', ' ')}, {units[unit]}" if units.get(unit) else name.replace("_", " ")


def _measured(name: str, command: str) -> dict:
    path = ROOT / "docs" / name
    if not path.exists():
        raise SystemExit(f"docs/{name} is missing, from which a document is written: run `{command}`")
    return json.loads(path.read_text())


def _records(rows: list[dict]) -> str:
    head = list(dict.fromkeys(key for row in rows for key in row))
    return table([key.replace("_", " ") for key in head], ([_figure(row.get(key)) for key in head] for row in rows))


def _figure(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"
    return ", ".join(_figure(item) for item in value) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
