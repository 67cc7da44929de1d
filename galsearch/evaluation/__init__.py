"""How well an atlas finds what it is asked for: targets whose truth is SQL, queries and baselines judged alike.

A target is a name, queries in words, and two conditions on the columns of the atlas: who is a candidate, and who of
them is relevant. All candidates are scored once per query; everything else, the folds, the draws of the bootstrap and
the candidate sets of another prevalence, is a matter of which of these scores count how often.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from galsearch import formats, schema
from galsearch.atlas import Atlas
from galsearch.atlas import open as open_atlas
from galsearch.errors import GalsearchError, QueryError, SchemaError
from galsearch.evaluation import figures, resampling, systems
from galsearch.evaluation.figures import best_of, measured, query_rows
from galsearch.evaluation.judged import Judged, UnfitTargetError, judge
from galsearch.evaluation.paired import all_rankings, ranking_rows
from galsearch.evaluation.sheets import write_sheets
from galsearch.evaluation.systems import (
    CENTROID,
    FIRST,
    IMAGE,
    PROBE,
    RANDOM,
    TEXT,
    WORDS,
    baselines,
    text_systems,
)
from galsearch.evaluation.targets import Targets, read_targets
from galsearch.science.metrics import fold_of
from galsearch.store import Rows, put_rows

TABLE = "evaluations"
MEASURES = "1"  # changes with every change of what a figure means
BASIC = ("target", "asked_prevalence", "system", "n", "relevant", "ndcg_exp_10", "ndcg_exp_10_low", "ndcg_exp_10_high")
SHOWN = (*BASIC, "ndcg_exp_10_worst", "ndcg_lin_10", "precision_10", "lift_10", "recall_100", "recall_100_ceiling")
MARKDOWN = (
    *("target", "prevalence", "n (relevant)", "text: mean of its queries [95 %]", "first query [95 %]", "worst query"),
    *("random", "image (text over it)", "centroid", "captions BM25", "linear probe", "recall@100", "AUROC"),
)
_ARROW = {"VARCHAR": pa.string(), "DOUBLE": pa.float64(), "BIGINT": pa.int64()}


@dataclass
class Evaluation:
    """Figures by target, system and prevalence, and what they were made with.

    `table` has the columns of the table `evaluations`; `queries` a row for each query of each target; `left_out` says
    which targets the atlas cannot answer, and why; `best` what the first and the worst query of a target found, as
    (words, ids, scores, relevances); `config` everything that decides the figures. `ranked` are the rankings
    themselves, of which `rankings` makes a table.
    """

    table: pa.Table
    queries: list[dict]
    left_out: dict[str, str]
    config: dict
    best: dict[str, list[tuple[str, list[str], list[float], list[float]]]] = field(default_factory=dict)
    ranked: list[tuple[Judged, list[systems.System]]] = field(default_factory=list, repr=False)

    def rankings(self) -> pa.Table:
        """Return who ranked where: target, system, query, rank, object_id, score, relevance, a row an object and query.

        Of the text and the baselines that rank all candidates; not of chance, nor of examples, which leave themselves
        out. `galsearch.compare_rankings` compares them with those of another run, or with each other.
        """
        return all_rankings([table for judged, several in self.ranked for table in ranking_rows(judged, several)])

    def to_json(self) -> str:
        """Return everything as JSON."""
        rows = [{key: value for key, value in row.items() if value is not None} for row in self.table.to_pylist()]
        parts = {"config": self.config, "left_out": self.left_out, "results": rows, "queries": self.queries}
        return json.dumps(parts, indent=1, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        """Return nDCG@10 as a Markdown table: a line per target and prevalence, a column per system."""
        lines = ["| " + " | ".join(MARKDOWN) + " |", "|" + "---|" * len(MARKDOWN)]
        by_set: dict[tuple, dict[str, dict]] = {}
        for row in self.table.to_pylist():
            by_set.setdefault((row["target"], row["asked_prevalence"]), {})[row["system"]] = row
        for (target, requested), result in by_set.items():
            lines.append("| " + " | ".join(_markdown_cells(target, requested, result)) + " |")
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write everything as .json, a summary as .md, or the table in another format of `galsearch.write_table`."""
        path = Path(path)
        written = {".json": self.to_json, ".md": self.to_markdown}.get(path.suffix.lower())
        if written is None:
            formats.write_table(self.table, path, meta={"title": "galsearch evaluation", **self.config})
            return path
        try:
            path.write_text(written())
        except OSError as error:
            raise GalsearchError(f"{path}: cannot be written ({error.strerror}); name an existing folder") from None
        return path

    def shown(self) -> pa.Table:
        """Return the columns that fit a screen."""
        return self.table.select([*SHOWN, "auroc"])


def _markdown_cells(target: str, requested: float | None, result: dict[str, dict]) -> list[str]:
    """Return the cells of a line of `Evaluation.to_markdown`."""

    def cell(system: str, key: str = "ndcg_exp_10") -> str:
        value = result.get(system, {}).get(key)
        return "" if value is None else f"{value:.3f}"

    text, image = result[TEXT], result.get(IMAGE, {}).get("ndcg_exp_10")
    lift = f" ({text['ndcg_exp_10'] / image:.1f}×)" if image else ""
    share = f"{100 * text['prevalence']:.2g} %" + (" as it is" if requested is None else "")
    return [
        *(target, share, f"{text['n']} ({text['relevant']})"),
        f"**{cell(TEXT)}** [{cell(TEXT, 'ndcg_exp_10_low')}, {cell(TEXT, 'ndcg_exp_10_high')}]",
        f"{cell(FIRST)} [{cell(FIRST, 'ndcg_exp_10_low')}, {cell(FIRST, 'ndcg_exp_10_high')}]",
        *(cell(TEXT, "ndcg_exp_10_worst") or cell(TEXT), cell(RANDOM), cell(IMAGE) + lift, cell(CENTROID)),
        *(
            cell(WORDS),
            cell(PROBE),
            f"{text['recall_100']:.2f} of {text['recall_100_ceiling']:.2f}",
            cell(TEXT, "auroc"),
        ),
    ]


def evaluate(
    atlas: Atlas | str | Path,
    *,
    targets: str | Path | None = None,
    where: str | None = None,
    folds: int = 10,
    seed: int = 0,
    sheet: str | Path | None = None,
    store: bool = False,
    device: str = "auto",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Evaluation:
    """Judge how well an atlas finds the targets of a TOML file in words, beside baselines on the same candidates.

    Without `targets`, those that ship for EFIGI and Galaxy Zoo columns; of these, the ones whose columns the atlas has
    not, or that nothing there is relevant to, are left out and named, whereas those of your own file are a SchemaError.
    `where` is one more SQL condition on the candidates, such as a held-out part. `folds` are by a digest of the
    object_id and the seed; the centroid and the linear probe score only objects of folds that they were not made from.
    `sheet` is a folder for a PNG per target, `store=True` appends the table to the atlas folder as `evaluations`.
    `progress(done, total, what)` is called before each target and each step of it; what it raises ends the evaluation,
    and nothing is stored.

    Raises SchemaError for a targets file that is not one, QueryError for a bad cut, naming the target.
    """
    if not isinstance(folds, int) or isinstance(folds, bool) or folds < 2:
        raise QueryError(f"folds is {folds!r}, expected a whole number from 2")
    read = read_targets(targets)
    opened = nullcontext(atlas) if isinstance(atlas, Atlas) else open_atlas(atlas, device=device)
    with opened as there:
        if store and not there._store.grows:
            raise GalsearchError(
                f"{there.path} is a {there.kind}, and only a folder is written to: evaluate the folder, then bundle it"
            )
        result = _evaluate(there, read, lenient=targets is None, where=where, folds=folds, seed=seed, progress=progress)
        if sheet is not None:
            write_sheets(there, result, Path(sheet))
        if store:
            progress(len(read.targets), len(read.targets), "storing the figures")
            rows = Rows(result.table, ("run", "target", "system", "asked_prevalence"))
            put_rows(there.path, {TABLE: rows}, schema.provenance("evaluate", parameters=result.config))
        return result


def _config(atlas: Atlas, read: Targets, *, where: str | None, folds: int, seed: int) -> dict:
    """Return what decides the figures, with its digest, and where and when they were made."""
    atlas.embed("galaxy")  # an atlas that cannot be asked in words says so before anything is judged
    main = atlas.manifest.main_embedding
    assert main is not None  # it is what words were just embedded into
    text = atlas._words_of(main).card
    models = {"image": atlas.manifest.embeddings[main]["sha256"], "text": text["sha256"]}
    decisive = {
        "measures": MEASURES,
        "targets": [asdict(target) for target in read.targets],
        "folds": folds,
        "seed": seed,
        "where": where,
        "draws": [
            *(figures.BOOTSTRAPS, figures.SET_BOOTSTRAPS, figures.SETS_ROUNDS),
            *(resampling.MOST_SETS, systems.MOST_EXAMPLES),
        ],
        "models": models,
    }
    return {
        "config_sha256": _digest(decisive),
        "targets": {"title": read.title, "version": read.version, "sha256": read.sha256},
        **{key: decisive[key] for key in ("measures", "folds", "seed", "where", "models")},
        "atlas": {"title": atlas.manifest.title, "rows": atlas.manifest.rows, "created": atlas.manifest.created},
        "software": schema.software(),
        "revision": schema.revision(),
        "created": schema.now(),
    }


def _evaluate(
    atlas: Atlas,
    read: Targets,
    *,
    lenient: bool,
    where: str | None,
    folds: int,
    seed: int,
    progress: Callable[[int, int, str], None],
) -> Evaluation:
    config = _config(atlas, read, where=where, folds=folds, seed=seed)
    rows, queries, best, left_out, ranked = [], [], {}, {}, []
    for index, target in enumerate(read.targets):
        tell = partial(progress, index, len(read.targets))
        tell(f"{target.name}: candidates")
        try:
            judged = judge(atlas._store, target, where)
        except UnfitTargetError as reason:
            if not lenient:
                raise SchemaError(f"target '{target.name}': {reason}") from None
            left_out[target.name] = str(reason)
            continue
        fold = fold_of(judged.ids, folds, seed)
        tell(f"{target.name}: queries in words")
        several = [*text_systems(atlas, judged)]
        tell(f"{target.name}: baselines")
        several += baselines(atlas._store, judged, fold, seed)
        tell(f"{target.name}: intervals")
        rows += [{"target": target.name, **row} for row in measured(judged, several, fold, seed)]
        queries += query_rows(judged, several[0])
        best[target.name] = best_of(judged, several[0])
        ranked.append((judged, several))
    if not rows:
        stated = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise SchemaError(
            f"{atlas.path}: none of the targets of '{read.title}' fits this atlas ({stated}); give --targets"
        )
    return Evaluation(_table(rows, config), queries, left_out, config, best, ranked)


def _table(rows: list[dict], config: dict) -> pa.Table:
    made = {
        "run": _digest([config["config_sha256"], config["created"]]),
        "config_sha256": config["config_sha256"],
        "models": json.dumps(config["models"]),
        "software": " ".join(filter(None, (config["software"], config["revision"]))),
        "created": config["created"],
    }
    fields = [
        formats.describe(pa.field(c.name, _ARROW[c.type]), ucd=c.ucd, description=c.description)
        for c in schema.TABLES[TABLE]
    ]
    return pa.Table.from_pylist([{**row, **made} for row in rows], schema=pa.schema(fields))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
