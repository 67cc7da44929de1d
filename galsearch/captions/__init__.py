"""Captions of an atlas's galaxies: who writes them, and how they get into the atlas.

Captioners behind one function: `measurements` (measured columns, free), `labels` (catalog attributes), `table` (texts
that somebody has), `vlm` (a vision model behind an endpoint). Each gives rows of the table `captions`; they are put
there in one commit, which also indexes their words.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from galsearch import formats, schema
from galsearch.captions import labels, measurements
from galsearch.errors import GalsearchError, SchemaError
from galsearch.language import summaries, templates
from galsearch.language.negation import negator
from galsearch.progress import Progress, silent
from galsearch.store import Rows, Store, open_store, put_rows

if TYPE_CHECKING:
    from galsearch.captions.vlm import VLM

CAPTIONERS = ("measurements", "labels", "table", "vlm")
TABLE, LEDGER = "captions", "caption_costs"
OK = "ok"
RULES_VERSION = 1  # of `measurements` and `labels`, in the name of their model
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("object_id", "caption", "summary")),
        ("negatives", pa.list_(pa.string())),
        *((name, pa.string()) for name in ("model", "prompt_sha256")),
        ("seed", pa.int64()),
        *((name, pa.string()) for name in ("status", "reply")),
        ("cost_usd", pa.float64()),
        ("created", pa.string()),
    ]
)


@dataclass(frozen=True)
class Captioned:
    """What captioning did: how many captions were written, for how many objects nothing could be said.

    `counts` has how many answers were refused, malformed or failed (of a service), or how many rows of a table name no
    object. `cost_usd` is what the answers cost, None where that is not known; `note` says what the caller should know.
    """

    path: Path
    model: str
    captions: int
    silent: int
    seconds: float
    cost_usd: float | None = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    note: str = ""


def caption(
    path: str | Path,
    *,
    by: str = "measurements",
    where: str | None = None,
    copies: int = 1,
    seed: int = 0,
    append: bool = False,
    mapping: str | Path | None = None,
    table: str | Path | None = None,
    id_column: str = "object_id",
    caption_column: str = "caption",
    model: str | None = None,
    vlm: VLM | None = None,
    progress: Progress = silent,
) -> Captioned:
    """Write captions of the galaxies of the atlas folder `path` and report how many.

    `by` is "measurements" (from measured columns, no person involved, free), "labels" (from catalog attributes, by the
    rules for EFIGI and Galaxy Zoo, or those of the TOML file `mapping`), "table" (texts of a CSV, ECSV, Parquet, FITS
    or VOTable `table`, joined by `id_column`; `model` names who wrote them) or "vlm" (a vision model, see `VLM`).

    `where` is a SQL condition on the galaxies. `copies` captions an object differ in their wording, by the seeds
    `seed`, `seed` + 1, …; the same seed gives the same words. Captions of the same object and model are replaced;
    with `append` only those of the same seed. Each has the whole text, a summary in one sentence without negations,
    and the attributes that it says are absent.

    Interrupted or failed, it changes nothing in the atlas; what a service has answered is kept beside the atlas and
    not paid for again. Raises GalsearchError for a bundle or an atlas that another is writing.
    """
    path, started = Path(path), time.perf_counter()
    if by not in CAPTIONERS:
        raise GalsearchError(f"by is '{by}', which is no captioner; use one of {', '.join(CAPTIONERS)}")
    if copies < 1:
        raise GalsearchError(f"copies is {copies}; write at least one caption an object")
    store = open_store(path)
    try:
        _must_be_folder(store, path)
        seeds = range(seed, seed + copies)
        if by == "vlm":
            from galsearch.captions.vlm import ask

            if vlm is None:
                raise GalsearchError("a vision model needs to be named: give vlm=galsearch.VLM(model=…), or --model")
            return ask(store, vlm, where=where, seeds=seeds, append=append, progress=progress)
        if by == "table":
            result = _from_table(store, table, (id_column, caption_column), model=model)
        else:
            result = _from_columns(store, by, _path(mapping), where=where, seeds=seeds, progress=progress)
    finally:
        store.close()
    parameters = {"by": by, "model": result.model, "where": where, "copies": copies, "seed": seed, "append": append}
    record = schema.provenance(
        "caption", parameters=parameters, inputs=result.inputs, seconds=time.perf_counter() - started
    )
    put(path, result.rows, record, append=append)
    seconds = time.perf_counter() - started
    return Captioned(path, result.model, len(result.rows), result.silent, seconds, counts=result.counts)


def put(path: Path, rows: list[dict], record: dict, *, append: bool, ledger: list[dict] | None = None) -> None:
    """Put rows of `captions` into the atlas, and of the ledger, in one commit; without any rows nothing changes."""
    tables = {}
    if rows:
        key = ("object_id", "model", "seed") if append else ("object_id", "model")
        tables[TABLE] = Rows(pa.Table.from_pylist(rows, schema=_SCHEMA), key)
    if ledger:
        tables[LEDGER] = Rows(pa.Table.from_pylist(ledger), ("run",))
    if tables:
        put_rows(path, tables, record)


def row(
    object_id: str,
    *,
    model: str,
    sha256: str,
    seed: int,
    text: str | None,
    summary: str | None = None,
    negatives: Iterable[str] = (),
    status: str = OK,
    reply: str | None = None,
    cost_usd: float | None = 0.0,
    created: str | None = None,
) -> dict:
    """Return a row of `captions`. The summary must be free of negations."""
    if summary is not None and negator(summary) is not None:
        raise GalsearchError(f"the summary {summary!r:.80} has a negation; say it in negatives")
    return {
        "object_id": object_id,
        "caption": text,
        "summary": summary,
        "negatives": sorted(set(negatives)),
        "model": model,
        "prompt_sha256": sha256,
        "seed": seed,
        "status": status,
        "reply": reply,
        "cost_usd": cost_usd,
        "created": created or schema.now(),
    }


def galaxies(store: Store, where: str | None, names: Iterable[str]) -> pa.Table:
    """Return object_id and those of the columns that the atlas has, of the galaxies that pass, by object_id."""
    there = {name.casefold(): name for name in store.describe()["column"].to_pylist()}
    wanted = [there[name.casefold()] for name in names if name.casefold() in there]
    return store.select(wanted, store.condition(where, None, None))


def _measured(store: Store, where: str | None) -> pa.Table:
    """Return object_id and our measures by their own names, whatever their columns are called in the atlas."""
    columns = {store.manifest.measure_column(name): name for name in measurements.COLUMNS}
    table = galaxies(store, where, [column for column in columns if column is not None])
    return table.rename_columns([columns.get(column, column) for column in table.column_names])


@dataclass(frozen=True)
class _Captions:
    """Rows to write, who wrote them, how many objects gave none, digests of the inputs."""

    rows: list[dict]
    model: str
    silent: int
    inputs: dict[str, str]
    counts: dict[str, int] = field(default_factory=dict)


def _must_be_folder(store: Store, path: Path) -> None:
    if not store.grows:
        raise GalsearchError(
            f"{path} is a bundle, and a bundle is never changed: caption the folder, then bundle it again"
        )


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


# ---- from columns


def _from_columns(
    store: Store, by: str, mapping: Path | None, *, where: str | None, seeds: range, progress: Progress
) -> _Captions:
    if by == "labels":
        rules, content = labels.read_rules(mapping)
        table = galaxies(store, where, labels.columns(rules))
        says = (labels.say(each, rules) for each in table.to_pylist())
        inputs = {str(mapping): hashlib.sha256(content).hexdigest()} if mapping else {}
        sha256 = _digest(content, "language/templates.py")
    else:
        table = _measured(store, where)
        shares = measurements.Shares(_numbers(_measured(store, None)))
        says = (measurements.say(each, shares) for each in table.to_pylist())
        inputs, sha256 = {}, _digest(b"", "language/templates.py", "captions/measurements.py")
    model, rows, silent, created = f"{by}-{RULES_VERSION}", [], 0, schema.now()
    for done, (object_id, stated) in enumerate(zip(table["object_id"].to_pylist(), says, strict=True), start=1):
        result = [templates.write(stated, object_id=object_id, seed=seed) for seed in seeds]
        silent += result[0] is None
        rows += [
            row(
                object_id,
                model=model,
                sha256=sha256,
                seed=seed,
                text=one.text,
                summary=one.summary,
                negatives=one.negatives,
                created=created,
            )
            for seed, one in zip(seeds, result, strict=True)
            if one is not None
        ]
        if done % 1000 == 0 or done == table.num_rows:
            progress(done, table.num_rows, "writing captions")
    return _Captions(rows, model, silent, inputs)


def _numbers(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the columns of numbers of what is no star and no artifact, NaN where missing."""
    rows = [each for each in table.to_pylist() if not (each.get("is_star") or each.get("is_artifact"))]
    names = [item.name for item in table.schema if pa.types.is_floating(item.type) or pa.types.is_integer(item.type)]
    return {name: np.array([_or_nan(each[name]) for each in rows], np.float64) for name in names}


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _digest(content: bytes, *modules: str) -> str:
    """Return the digest of what decides the words: rules that were read, and the modules that hold the others."""
    digest = hashlib.sha256(content)
    for name in modules:
        digest.update(resources.files("galsearch").joinpath(name).read_bytes())
    return digest.hexdigest()


# ---- from a table


def _from_table(store: Store, table: str | Path | None, columns: tuple[str, str], *, model: str | None) -> _Captions:
    if table is None:
        raise GalsearchError("captions by table need a table: give table= (--table) with ids and captions")
    path = Path(table)
    result = formats.read_table(path, text=columns)
    for name in columns:
        if name not in result.column_names:
            raise SchemaError(
                f"{path}: no column '{name}', it has {', '.join(result.column_names[:20])}; name the columns with "
                "id_column and caption_column (--id-column, --caption-column)"
            )
    known = set(galaxies(store, None, ())["object_id"].to_pylist())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    rows: list[dict] = []
    number: Counter[tuple[str, str]] = Counter()
    unknown = silent = 0
    for each in result.to_pylist():
        object_id, text = _text(each[columns[0]]), _text(each[columns[1]])
        unknown += object_id not in known
        if object_id is None or object_id not in known or not text:
            silent += object_id in known
            continue
        who = model or _text(each.get("model")) or path.stem
        short = _summary(text, _text(each.get("summary")))
        rows.append(
            row(
                object_id,
                model=who,
                sha256=sha256,
                seed=number[object_id, who],
                text=text,
                summary=short,
                negatives=summaries.negatives(text),
            )
        )
        number[object_id, who] += 1
    named = model or next((each["model"] for each in rows), path.stem)
    counts = {"rows of the table that name no object": unknown} if unknown else {}
    return _Captions(rows, named, silent, {str(path): sha256}, counts)


def _summary(text: str, told: str | None) -> str | None:
    """Return the summary that somebody wrote, where it denies nothing, else what can be said of it, or of the text."""
    return told if told and negator(told) is None else summaries.summary(told or text)


def _text(value: Any) -> str | None:
    return None if value is None else str(value).strip() or None
