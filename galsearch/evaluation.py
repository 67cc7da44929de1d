"""How well an atlas finds what it is asked for: targets whose truth is SQL, queries and baselines judged alike.

A target is a name, queries in words, and two conditions on the columns of the atlas: who is a candidate, and who of
them is relevant. All candidates are scored once per query; everything else, the folds, the draws of the bootstrap and
the candidate sets of another prevalence, is a matter of which of these scores count how often.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from galsearch import formats, schema
from galsearch.atlas import Atlas
from galsearch.atlas import open as open_atlas
from galsearch.errors import GalsearchError, QueryError, SchemaError
from galsearch.query import Scorer
from galsearch.science import images
from galsearch.science.metrics import Ranked, bootstrap_interval, recall_ceiling
from galsearch.store import Rows, Store, put_rows
from galsearch.store.index.fulltext import K1, B, terms_sql

K, RECALL_K = 10, 100
TABLE = "evaluations"
SHIPPED = "efigi-gz.toml"
PREVALENCES = (0.26, 0.10, 0.02, 0.001)
LEAST_RELEVANT = 2  # of a candidate set drawn to a prevalence; with fewer there is no such set
BOOTSTRAPS = 1000  # draws of all candidates
SET_BOOTSTRAPS = 400  # draws of the candidates, from each of which up to MOST_SETS sets of a prevalence are taken
SETS_ROUNDS = 20  # shuffles of the candidates from which the sets of the estimate are taken
MOST_SETS = 5
MOST_EXAMPLES = 100  # relevant objects that are queries by example
DRAWN_VALUES = 4_000_000  # counts held at a time, 16 MB
PENALTIES = 10.0 ** np.arange(-5, 3)  # of the linear probe, as shares of the mean eigenvalue
MEASURES = "1"  # changes with every change of what a figure means
TEXT, FIRST, RANDOM, IMAGE, CENTROID, WORDS, PROBE = (
    *("text", "first query", "random", "image", "centroid", "captions BM25", "linear probe"),
)
MARK_RGB, MARK_SHARE = (70, 220, 110), 24  # the frame of a relevant picture: its color, and its part of the side
BASIC = ("target", "asked_prevalence", "system", "n", "relevant", "ndcg_exp_10", "ndcg_exp_10_low", "ndcg_exp_10_high")
SHOWN = (*BASIC, "ndcg_exp_10_worst", "ndcg_lin_10", "precision_10", "lift_10", "recall_100", "recall_100_ceiling")
MARKDOWN = (
    *("target", "prevalence", "n (relevant)", "text: mean of its queries [95 %]", "first query [95 %]", "worst query"),
    *("random", "image (text over it)", "centroid", "captions BM25", "linear probe", "recall@100", "AUROC"),
)
_ARROW = {"VARCHAR": pa.string(), "DOUBLE": pa.float64(), "BIGINT": pa.int64()}


@dataclass(frozen=True)
class Target:
    """What is looked for: words, who is a candidate, and who is relevant how much.

    `grades` are (relevance, SQL condition) pairs, the highest that holds counts; a candidate of which none holds, NULL
    included, is not relevant.
    """

    name: str
    queries: tuple[str, ...]
    candidates: str
    grades: tuple[tuple[float, str], ...]
    prevalences: tuple[float, ...] = PREVALENCES
    note: str = ""


@dataclass(frozen=True)
class Targets:
    """A file of targets: its version, title and digest."""

    version: str
    title: str
    sha256: str
    targets: tuple[Target, ...]


@dataclass
class Evaluation:
    """Figures by target, system and prevalence, and what they were made with.

    `table` has the columns of the table `evaluations`; `queries` a row for each query of each target; `left_out` says
    which targets the atlas cannot answer, and why; `best` what the first and the worst query of a target found, as
    (words, ids, scores, relevances); `config` everything that decides the figures.
    """

    table: pa.Table
    queries: list[dict]
    left_out: dict[str, str]
    config: dict
    best: dict[str, list[tuple[str, list[str], list[float], list[float]]]] = field(default_factory=dict)

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
        for (target, asked), found in by_set.items():
            lines.append("| " + " | ".join(_markdown_cells(target, asked, found)) + " |")
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


def _markdown_cells(target: str, asked: float | None, found: dict[str, dict]) -> list[str]:
    """Return the cells of a line of `Evaluation.to_markdown`."""

    def cell(system: str, key: str = "ndcg_exp_10") -> str:
        value = found.get(system, {}).get(key)
        return "" if value is None else f"{value:.3f}"

    text, image = found[TEXT], found.get(IMAGE, {}).get("ndcg_exp_10")
    lift = f" ({text['ndcg_exp_10'] / image:.1f}×)" if image else ""
    share = f"{100 * text['prevalence']:.2g} %" + (" as it is" if asked is None else "")
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
        if store and there.kind != "folder":
            raise GalsearchError(
                f"{there.path} is a {there.kind}, and only a folder is written to: evaluate the folder, then bundle it"
            )
        found = _evaluate(there, read, lenient=targets is None, where=where, folds=folds, seed=seed, progress=progress)
        if sheet is not None:
            write_sheets(there, found, Path(sheet))
        if store:
            progress(len(read.targets), len(read.targets), "storing the figures")
            rows = Rows(found.table, ("run", "target", "system", "asked_prevalence"))
            put_rows(there.path, {TABLE: rows}, schema.provenance("evaluate", parameters=found.config))
        return found


def _config(atlas: Atlas, read: Targets, *, where: str | None, folds: int, seed: int) -> dict:
    """Return what decides the figures, with its digest, and where and when they were made."""
    atlas.embed("galaxy")  # an atlas that cannot be asked in words says so before anything is judged
    text = atlas._encoder("text").card
    models = {"image": atlas.manifest.embeddings[schema.IMAGE]["sha256"], "text": text["sha256"]}
    decisive = {
        "measures": MEASURES,
        "targets": [asdict(target) for target in read.targets],
        "folds": folds,
        "seed": seed,
        "where": where,
        "draws": [BOOTSTRAPS, SET_BOOTSTRAPS, SETS_ROUNDS, MOST_SETS, MOST_EXAMPLES],
        "models": models,
    }
    return {
        "config_sha256": _digest(decisive),
        "targets": {"title": read.title, "version": read.version, "sha256": read.sha256},
        **{key: decisive[key] for key in ("measures", "folds", "seed", "where", "models")},
        "atlas": {"title": atlas.manifest.title, "rows": atlas.manifest.rows, "created": atlas.manifest.created},
        "software": schema.software(),
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
    rows, queries, best, left_out = [], [], {}, {}
    for place, target in enumerate(read.targets):
        tell = partial(progress, place, len(read.targets))
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
        systems = [*_text_systems(atlas, judged)]
        tell(f"{target.name}: baselines")
        systems += _baselines(atlas._store, judged, fold, seed)
        tell(f"{target.name}: intervals")
        rows += [{"target": target.name, **row} for row in _measured(judged, systems, fold, seed)]
        queries += _query_rows(judged, systems[0])
        best[target.name] = _best(judged, systems[0])
    if not rows:
        said = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise SchemaError(
            f"{atlas.path}: none of the targets of '{read.title}' fits this atlas ({said}); give --targets"
        )
    return Evaluation(_table(rows, config), queries, left_out, config, best)


def _table(rows: list[dict], config: dict) -> pa.Table:
    made = {
        "run": _digest([config["config_sha256"], config["created"]]),
        "config_sha256": config["config_sha256"],
        "models": json.dumps(config["models"]),
        "software": config["software"],
        "created": config["created"],
    }
    fields = [
        formats.describe(pa.field(c.name, _ARROW[c.type]), ucd=c.ucd, description=c.description)
        for c in schema.TABLES[TABLE]
    ]
    return pa.Table.from_pylist([{**row, **made} for row in rows], schema=pa.schema(fields))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# ---- targets


def read_targets(path: str | Path | None = None) -> Targets:
    """Return the targets of a TOML file, or those that ship; SchemaError when the file is not one.

    The file has `version`, `title`, perhaps `prevalences` and a table `queries` of named lists, and for each
    `[[target]]` a `name`, `queries` (a list of words, or the name of a list), `candidates` and `relevant`: SQL
    conditions, where `relevant` may also be a table `{1 = "…", 2 = "…"}` of a condition for each relevance.
    """
    source = resources.files("galsearch").joinpath("targets", SHIPPED) if path is None else Path(path)
    try:
        content = source.read_bytes()
        given = tomllib.loads(content.decode())
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read ({error.strerror}); give a TOML file of targets") from None
    except ValueError as error:  # of TOML and of UTF-8
        raise SchemaError(
            f"{path}: is not TOML ({error}); see the file that ships, galsearch/targets/{SHIPPED}"
        ) from None
    entries = given.get("target")
    if not isinstance(entries, list) or not entries:
        raise SchemaError(f"{path}: has no [[target]]; each needs name, queries, candidates and relevant")
    found = tuple(_target(entry, given, str(path)) for entry in entries)
    twice = [target.name for number, target in enumerate(found) if target.name in {t.name for t in found[:number]}]
    if twice:
        raise SchemaError(f"{path}: target '{twice[0]}' stands there twice; give each its own name")
    title, version = str(given.get("title", source.name)), str(given.get("version", ""))
    return Targets(version, title, hashlib.sha256(content).hexdigest(), found)


def _target(entry: Any, given: dict, path: str) -> Target:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise SchemaError(f'{path}: a [[target]] has no name; give each one, such as name = "spiral"')
    said = f"{path}: target '{name}'"
    known = {"name", "queries", "candidates", "relevant", "prevalences", "note"}
    if set(entry) - known:
        raise SchemaError(
            f"{said}: unknown key {sorted(set(entry) - known)[0]!r}; known are {', '.join(sorted(known))}"
        )
    prevalences = entry.get("prevalences", given.get("prevalences", list(PREVALENCES)))
    if not isinstance(prevalences, list) or not all(isinstance(p, float) and 0 < p < 1 for p in prevalences):
        raise SchemaError(f"{said}: prevalences is {prevalences!r}, expected a list of shares between 0 and 1")
    conditions = {"candidates": entry.get("candidates"), **dict(_grades(entry.get("relevant"), said))}
    for condition in conditions.values():
        if not isinstance(condition, str) or not condition.strip():
            raise SchemaError(f"{said}: {condition!r} is no SQL condition; candidates and relevant need one each")
    candidates = conditions.pop("candidates")
    grades = tuple(sorted(conditions.items()))
    return Target(
        name, _queries(entry, given, said), candidates, grades, tuple(prevalences), str(entry.get("note", ""))
    )


def _queries(entry: dict, given: dict, said: str) -> tuple[str, ...]:
    queries = entry.get("queries")
    if isinstance(queries, str):
        lists = given.get("queries")
        lists = lists if isinstance(lists, dict) else {}
        if queries not in lists:
            raise SchemaError(f"{said}: no list of queries '{queries}'; there are: {', '.join(lists) or 'none'}")
        queries = lists[queries]
    if not isinstance(queries, list) or not queries or not all(isinstance(q, str) and q.strip() for q in queries):
        raise SchemaError(f"{said}: queries is {queries!r:.80}, expected a list of one or more texts")
    if len(set(queries)) < len(queries):
        raise SchemaError(f"{said}: a query stands there twice, which would count it double; give each once")
    return tuple(queries)


def _grades(relevant: Any, said: str) -> Iterator[tuple[float, str]]:
    if not isinstance(relevant, dict):
        yield 1.0, relevant
        return
    for key, condition in relevant.items():
        try:
            grade = float(key)
        except ValueError:
            grade = 0.0
        if not 0 < grade <= 10:
            raise SchemaError(f"{said}: relevance {key!r} is no number above 0, up to 10")
        yield grade, condition


# ---- candidates


class UnfitTargetError(GalsearchError):
    """A target that this atlas cannot be asked: the message says why."""


@dataclass
class Judged:
    """The candidates of a target by object_id: row numbers, ids, relevances `(n,)`, unit vectors `(n, d) float32`."""

    target: Target
    rows: np.ndarray
    ids: list[str]
    relevance: np.ndarray
    vectors: np.ndarray

    @property
    def relevant(self) -> np.ndarray:
        """Which candidates are relevant at all, `(n,) bool`."""
        return self.relevance > 0


def judge(store: Store, target: Target, where: str | None = None) -> Judged:
    """Return the candidates of a target; those without a vector are left out.

    Raises UnfitTargetError where a column is missing, nothing passes, nothing is relevant or everything is, and
    QueryError naming the target for anything but one SQL condition.
    """
    rows = _passing(store, target, target.candidates)
    if where is not None:
        rows = rows[np.isin(rows, _passing(store, target, where))]
    if not len(rows):
        cut = "" if where is None else f" and {where!r}"
        raise UnfitTargetError(f"no object passes its candidates, {target.candidates!r}{cut}; loosen the condition")
    relevance = np.zeros(len(rows))
    for grade, condition in target.grades:  # ascending, so that the highest that holds stays
        relevance[np.isin(rows, _passing(store, target, condition))] = grade
    dim = store.manifest.embeddings[schema.IMAGE]["dim"]
    there = np.isfinite(store.scores(schema.IMAGE, Scorer(np.eye(1, dim, dtype=np.float32)[0]), rows))
    rows, relevance = rows[there], relevance[there]
    for wanted, what in ((relevance > 0, "relevant"), (relevance == 0, "not relevant")):
        if not wanted.any():
            conditions = " or ".join(repr(condition) for _, condition in target.grades)
            raise UnfitTargetError(
                f"none of its {len(rows)} candidates is {what} by {conditions}; a ranking needs both kinds"
            )
    return Judged(target, rows, store.ids(rows), relevance, store.vectors_of(schema.IMAGE, rows))


def _passing(store: Store, target: Target, condition: str) -> np.ndarray:
    """Return the row numbers of the objects that pass one condition, by object_id."""
    try:
        return store.list(store.condition(condition, None, None), k=max(store.manifest.rows, 1))[0]
    except QueryError as error:
        missing = ", ".join(sorted(_missing(store, condition)))
        if missing:
            raise UnfitTargetError(f"the atlas has no column {missing}; `galsearch info` lists those it has") from None
        raise QueryError(f"target '{target.name}', condition {condition!r}: {error}") from None


def _missing(store: Store, condition: str) -> set[str]:
    """Return the columns that a condition names and the atlas has not; none where it cannot be parsed."""
    known = {name.casefold() for name in store.describe()["column"].to_pylist()}
    sandbox = (store.stores[0] if store.kind == "set" else store).sandbox
    tree = json.loads(sandbox.rows("SELECT json_serialize_sql($1::VARCHAR)", [f"SELECT ({condition}\n)"])[0][0])
    return {name for name in _named(tree) if name.casefold() not in known}


def _named(tree: Any) -> Iterator[str]:
    if isinstance(tree, list):
        for part in tree:
            yield from _named(part)
    elif isinstance(tree, dict):
        if tree.get("class") == "COLUMN_REF":
            yield tree["column_names"][-1]
        yield from _named(list(tree.values()))


def fold_of(ids: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Return the fold of each id, `(n,)` from 0: by its SHA-256 with the seed, whatever else is there."""
    digests = (hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8] for name in ids)
    return np.array([int.from_bytes(digest, "big") % folds for digest in digests], np.int64)


# ---- systems


@dataclass
class System:
    """What ranks the candidates: one or more rankings, by the words or object that each of them was asked with.

    `left_out` is the candidate that a ranking must not find, because it is the query.
    """

    name: str
    rankings: list[Ranked]
    asked: list[str]
    left_out: list[int] | None = None


def _text_systems(atlas: Atlas, judged: Judged) -> list[System]:
    asked = list(judged.target.queries)
    rankings = [Ranked(Scorer(atlas.embed(words)).exact(judged.vectors), judged.relevance) for words in asked]
    return [System(TEXT, rankings, asked), System(FIRST, rankings[:1], asked[:1])]


def _baselines(store: Store, judged: Judged, fold: np.ndarray, seed: int) -> Iterator[System]:
    """Yield the systems that words are compared with; one that cannot be made for these candidates is not there."""
    yield System(RANDOM, [Ranked(np.zeros(len(judged.rows)), judged.relevance)], [""])
    if judged.relevant.sum() > 1:
        yield _by_example(judged, seed)
    for name, scored in ((CENTROID, centroid_scores), (PROBE, probe_scores)):
        scores = scored(judged.vectors, judged.relevant, fold)
        if scores is not None:
            yield System(name, [Ranked(scores, judged.relevance)], [""])
    words = caption_scores(store, judged.rows, judged.target.queries)
    if words is not None:
        yield System(WORDS, [Ranked(scores, judged.relevance) for scores in words], list(judged.target.queries))


def _by_example(judged: Judged, seed: int) -> System:
    """Return the rankings by likeness to relevant objects, at most MOST_EXAMPLES, each leaving its query out."""
    relevant = np.flatnonzero(judged.relevant)
    chosen = np.random.default_rng(seed).permutation(relevant)[:MOST_EXAMPLES].tolist()
    rankings = [Ranked(Scorer(judged.vectors[one]).exact(judged.vectors), judged.relevance) for one in chosen]
    return System(IMAGE, rankings, [judged.ids[one] for one in chosen], chosen)


def centroid_scores(vectors: np.ndarray, relevant: np.ndarray, fold: np.ndarray) -> np.ndarray | None:
    """Return the cosine of each vector with the mean of the relevant ones of all other folds, `(n,) float64`.

    None where the folds but one leave nothing relevant.
    """
    scores = np.empty(len(vectors))
    for number in np.unique(fold):
        held = fold == number
        made_from = vectors[relevant & ~held].astype(float)
        if not len(made_from):
            return None
        mean = made_from.mean(axis=0)
        scores[held] = vectors[held] @ (mean / max(np.linalg.norm(mean), 1e-12))
    return scores


def probe_scores(vectors: np.ndarray, relevant: np.ndarray, fold: np.ndarray) -> np.ndarray | None:
    """Return what a linear probe fitted on all other folds says of each vector, `(n,) float64`.

    Ridge regression of ±1 on the centered vectors, both classes weighing the same. The penalty is the one of PENALTIES
    with the least generalized cross-validation error on those other folds (Golub, Heath and Wahba 1979, Technometrics
    21, 215), so that no object has a part in what scores it. None where they lack a class.
    """
    scores = np.empty(len(vectors))
    for number in np.unique(fold):
        held = fold == number
        labels = relevant[~held]
        if labels.all() or not labels.any():
            return None
        scores[held] = _fitted(vectors[~held].astype(float), labels)(vectors[held].astype(float))
    return scores


def _fitted(vectors: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    center = weights @ vectors
    root = np.sqrt(weights)[:, None]
    design, wanted = root * (vectors - center), root[:, 0] * np.where(labels, 1.0, -1.0)
    values, basis = np.linalg.eigh(design.T @ design)
    values = np.maximum(values, 0)
    projected = basis.T @ (design.T @ wanted)
    best, least = np.zeros(len(center)), np.inf
    for penalty in PENALTIES * values.mean():
        solved = projected / (values + penalty)
        residual = wanted - design @ (basis @ solved)
        freedom = 1 - (values / (values + penalty)).sum() / len(labels)
        error = residual @ residual / max(freedom, 1e-9) ** 2
        if error < least:
            best, least = basis @ solved, error
    return lambda rows: (rows - center) @ best


def caption_scores(store: Store, rows: np.ndarray, queries: Sequence[str]) -> list[np.ndarray] | None:
    """Return the BM25 of the captions of row numbers for each query, `(n,) float64`; None where nothing has a caption.

    Captions alone, not names or other columns, which may hold the very labels that relevance is read from; otherwise as
    `galsearch.store.index.fulltext`. Several captions of an object count as one text.
    """
    if store.kind == "set" or "captions" not in store.tables:
        return None
    said = f"SELECT object_id, unnest({terms_sql('caption')}) AS term FROM captions WHERE caption IS NOT NULL"
    counted = store.sandbox.rows(
        f"SELECT g.rowid, term, count(*)::BIGINT FROM ({said}) JOIN galaxies g USING (object_id) GROUP BY ALL"
    )
    lengths, holders = _spread(counted)
    if not lengths:
        return None
    mean, place = sum(lengths.values()) / len(lengths), {row: number for number, row in enumerate(rows.tolist())}
    found = []
    for query in queries:
        terms = set(store.sandbox.rows(f"SELECT {terms_sql('$1::VARCHAR')}", [query])[0][0])
        scores = np.zeros(len(rows))
        for term in sorted(terms & holders.keys()):
            worth = np.log(1 + (len(lengths) - len(holders[term]) + 0.5) / (len(holders[term]) + 0.5))
            for row, times in holders[term].items():
                if row in place:
                    long = K1 * (1 - B + B * lengths[row] / mean)
                    scores[place[row]] += worth * times * (K1 + 1) / (times + long)
        found.append(scores)
    return found


def _spread(counted: list[tuple[int, str, int]]) -> tuple[dict[int, int], dict[str, dict[int, int]]]:
    """Return how many terms each row has, and which rows have a term how often."""
    lengths: dict[int, int] = {}
    holders: dict[str, dict[int, int]] = {}
    for row, term, times in counted:
        lengths[row] = lengths.get(row, 0) + times
        holders.setdefault(term, {})[row] = times
    return lengths, holders


# ---- measuring


Pick = Callable[[np.random.Generator, int, int], np.ndarray]


def _resampled(rng: np.random.Generator, members: int, rounds: int) -> np.ndarray:
    """Return `(rounds, members)` places drawn with replacement: a bootstrap."""
    return rng.integers(0, members, (rounds, members))


def _shuffled(rng: np.random.Generator, members: int, rounds: int) -> np.ndarray:
    """Return `(rounds, members)` places, each round all of them in another order."""
    return rng.permuted(np.broadcast_to(np.arange(members), (rounds, members)), axis=1)


@dataclass(frozen=True)
class Sets:
    """Candidate sets of one make: how many relevant and other candidates each has, and how many are taken at once."""

    relevant: int
    others: int
    each: int = 1


def matched_sets(relevant: int, others: int, prevalence: float) -> Sets | None:
    """Return the largest sets of a prevalence that so many candidates give, the side in excess being sub-sampled.

    None where they would have fewer than LEAST_RELEVANT relevant ones, or no others.
    """
    if relevant / (relevant + others) > prevalence:
        keep = Sets(round(others * prevalence / (1 - prevalence)), others)
        times = relevant / max(keep.relevant, 1)
    else:
        keep = Sets(relevant, round(relevant * (1 - prevalence) / prevalence))
        times = others / max(keep.others, 1)
    if keep.relevant < LEAST_RELEVANT or not keep.others:
        return None
    return replace(keep, each=min(MOST_SETS, int(np.ceil(times))))


def draws(relevant: np.ndarray, sets: Sets, *, rounds: int, pick: Pick, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks `(rounds, each, n) int32` of how often each candidate is in a set, `rounds` in all.

    A round picks relevant and other candidates apart, so that the prevalence stays; its sets are stretches of what was
    picked, as far apart as they can be.
    """
    rng, n = np.random.default_rng(seed), len(relevant)
    sides = ((np.flatnonzero(relevant), sets.relevant), (np.flatnonzero(~relevant), sets.others))
    block = max(1, DRAWN_VALUES // (n * sets.each))
    for start in range(0, rounds, block):
        count = min(block, rounds - start)
        out = np.zeros(count * sets.each * n, np.int32)
        for members, wanted in sides:
            steps = (np.arange(sets.each) * len(members) // sets.each)[:, None] + np.arange(wanted)
            chosen = members[pick(rng, len(members), count)][:, steps % len(members)]
            set_number = np.arange(count * sets.each)[:, None]
            flat = (set_number * n + chosen.reshape(count * sets.each, wanted)).ravel()
            out += np.bincount(flat, minlength=len(out)).astype(np.int32)
        yield out.reshape(count, sets.each, n)


MEASURED: dict[str, Callable[[Ranked, np.ndarray], np.ndarray]] = {
    "ndcg_exp_10": lambda ranking, drawn: ranking.ndcg_exp(K, drawn),
    "ndcg_lin_10": lambda ranking, drawn: ranking.ndcg_lin(K, drawn),
    "precision_10": lambda ranking, drawn: ranking.precision(K, drawn),
    "recall_100": lambda ranking, drawn: ranking.recall(RECALL_K, drawn),
    "auroc": lambda ranking, drawn: ranking.auroc(drawn),
}
Values = dict[tuple[str, str], np.ndarray]  # (system, measure) -> (rankings, rounds), each the mean over a round's sets


def _measured(judged: Judged, systems: list[System], fold: np.ndarray, seed: int) -> Iterator[dict]:
    """Yield a row for each system and prevalence: all candidates first, then the sets of each prevalence."""
    whole = Sets(int(judged.relevant.sum()), int((~judged.relevant).sum()))
    every = np.ones((1, 1, len(judged.rows)), np.int32)
    point = _values(systems, [every], dict.fromkeys(names(systems), tuple(MEASURED)))
    wanted = {name: ("ndcg_exp_10", "auroc") if name in (TEXT, FIRST) else ("ndcg_exp_10",) for name in names(systems)}
    drawn = draws(judged.relevant, whole, rounds=BOOTSTRAPS, pick=_resampled, seed=seed)
    boots = _values(_resampling(systems), drawn, wanted)
    for system in systems:
        yield _row(system, whole, None, point, boots, seed=seed) | _folds(judged, system, fold)
    for prevalence in judged.target.prevalences:
        sets = matched_sets(whole.relevant, whole.others, prevalence)
        if sets is None:
            continue
        measures = tuple(name for name in MEASURED if name != "auroc")  # which does not depend on the prevalence
        drawn = draws(judged.relevant, sets, rounds=SETS_ROUNDS, pick=_shuffled, seed=seed)
        point = _values(systems, drawn, dict.fromkeys(names(systems), measures))
        drawn = draws(judged.relevant, sets, rounds=SET_BOOTSTRAPS, pick=_resampled, seed=seed)
        boots = _values(_resampling(systems), drawn, dict.fromkeys(names(systems), ("ndcg_exp_10",)))
        for system in systems:
            yield _row(system, sets, prevalence, point, boots, seed=seed)


def names(systems: Sequence[System]) -> list[str]:
    """Return the names of systems."""
    return [system.name for system in systems]


def _resampling(systems: Sequence[System]) -> list[System]:
    """Return the systems whose interval is a bootstrap over candidates: chance needs none, examples are drawn."""
    return [system for system in systems if system.name != RANDOM and system.left_out is None]


def _values(systems: Sequence[System], blocks: Iterable[np.ndarray], wanted: dict[str, tuple[str, ...]]) -> Values:
    """Return the wanted measures of systems on every block of draws."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for block in blocks:
        for system in systems:
            for name in wanted[system.name]:
                found.setdefault((system.name, name), []).append(_means(system, MEASURED[name], block))
    return {key: np.concatenate(parts, axis=1) for key, parts in found.items()}


def _means(system: System, measure: Callable, block: np.ndarray) -> np.ndarray:
    """Return a measure of draws `(rounds, each, n)` by ranking and round, the mean over the sets of the round."""
    flat = block.reshape(-1, block.shape[-1])
    values = [_of(system, number, measure, flat) for number in range(len(system.rankings))]
    return np.array(values).reshape(len(values), *block.shape[:2]).mean(axis=2)


def _of(system: System, number: int, measure: Callable, drawn: np.ndarray) -> np.ndarray:
    if system.left_out is None:
        return measure(system.rankings[number], drawn)
    one = system.left_out[number]
    kept = drawn[:, one].copy()
    drawn[:, one] = 0
    values = measure(system.rankings[number], drawn)
    drawn[:, one] = kept
    return values


def _row(system: System, sets: Sets, asked: float | None, point: Values, boots: Values, *, seed: int) -> dict:
    """Return the figures of a system on candidate sets: means over sets, then over rankings, and their intervals."""
    mean = {name: float(values.mean()) for (whose, name), values in point.items() if whose == system.name}
    each, prevalence = point[system.name, "ndcg_exp_10"].mean(axis=1), sets.relevant / (sets.relevant + sets.others)
    row = mean | {
        "system": system.name,
        "asked_prevalence": asked,
        "prevalence": prevalence,
        "n": sets.relevant + sets.others,
        "relevant": sets.relevant,
        "queries": len(system.rankings),
        "lift_10": mean["precision_10"] / prevalence,
        "recall_100_ceiling": recall_ceiling(sets.relevant, RECALL_K),
    }
    for (whose, name), values in boots.items():
        if whose == system.name:
            low, high = np.nanquantile(values.mean(axis=0), [0.025, 0.975]).tolist()
            row |= {f"{name}_low": low, f"{name}_high": high}
    if system.left_out is not None:
        low, high = bootstrap_interval(each, seed=seed) or (None, None)
        row |= {"ndcg_exp_10_low": low, "ndcg_exp_10_high": high}
    elif len(each) > 1:
        row |= {"ndcg_exp_10_worst": float(each.min()), "worst_query": system.asked[int(each.argmin())]}
    return row


def _folds(judged: Judged, system: System, fold: np.ndarray) -> dict:
    """Return nDCG@10 within each fold, as mean and standard deviation over the folds that have a relevant object."""
    if system.left_out is not None:
        return {}
    held = [fold == number for number in np.unique(fold[judged.relevant])]
    drawn = np.array(held).astype(np.int32)[:, None, :]
    values = _means(system, MEASURED["ndcg_exp_10"], drawn).mean(axis=0)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"folds": len(values), "fold_mean": float(values.mean()), "fold_std": spread}


def _query_rows(judged: Judged, system: System) -> list[dict]:
    """Return the figures of each query on all candidates."""
    every = np.ones((1, len(judged.rows)), np.int32)
    return [
        {"target": judged.target.name, "query": words}
        | {name: float(measure(ranking, every)[0]) for name, measure in MEASURED.items()}
        for words, ranking in zip(system.asked, system.rankings, strict=True)
    ]


# ---- pictures


def _best(judged: Judged, system: System) -> list[tuple[str, list[str], list[float], list[float]]]:
    """Return what the first and the worst query find: words, then ids, scores and relevances of the first ranks."""
    worst = int(np.argmin([ranking.ndcg_exp(K)[0] for ranking in system.rankings]))
    found = []
    for number in sorted({0, worst}):
        ranking = system.rankings[number]
        top = ranking.order[:K]
        scores = ranking.scores[top].tolist()
        found.append((system.asked[number], [judged.ids[i] for i in top], scores, judged.relevance[top].tolist()))
    return found


def write_sheets(atlas: Atlas, found: Evaluation, folder: Path) -> list[Path]:
    """Write a PNG per target: the first ranks of its first and its worst query, relevant ones in a green frame."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GalsearchError(f"{folder}: cannot be made ({error.strerror}); name a folder for the sheets") from None
    paths = []
    for target, answers in found.best.items():
        sections = []
        for words, ids, scores, relevances in answers:
            pictures = atlas.thumbnails(ids)
            hits = sum(relevance > 0 for relevance in relevances)
            tiles = [
                (_marked(images.decode_thumbnail(pictures[name]), relevance), _label(name, score, relevance))
                for name, score, relevance in zip(ids, scores, relevances, strict=True)
                if name in pictures
            ]
            sections.append((f"{target}: “{words}”, {hits} of the first {len(ids)} relevant", tiles))
        path = folder / f"{_file_name(target)}.png"
        path.write_bytes(images.contact_sheet(sections, columns=5))
        paths.append(path)
    return paths


def _marked(rgb: np.ndarray, relevance: float) -> np.ndarray:
    """Return the central square of a picture, in a frame where it is relevant."""
    if relevance <= 0:
        return rgb
    out = images.square(rgb).copy()
    wide = max(1, round(len(out) / MARK_SHARE))
    for edge in (out[:wide], out[-wide:], out[:, :wide], out[:, -wide:]):
        edge[...] = MARK_RGB
    return out


def _label(name: str, score: float, relevance: float) -> str:
    return f"{'relevant' if relevance > 0 else 'not'}  {score:.2f}\n{name}"


def _file_name(target: str) -> str:
    return "-".join("".join(sign if sign.isalnum() else " " for sign in target).split()) or "target"
