"""Creating and dropping knowledge bases: a SELECT of object_id and label becomes members that no longer change."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import schema
from galsearch.errors import GalsearchError, QueryError
from galsearch.knowledge.heldout import Electorate
from galsearch.knowledge.labels import read_labels
from galsearch.knowledge.members import (
    BASES,
    CLASS,
    KINDS,
    LABELS,
    NUMBER,
    PROBES,
    KnowledgeBase,
    Members,
    are_labels,
    check_classes,
    find_base,
    kind_of,
    list_bases,
    members_of,
    with_vector,
)
from galsearch.knowledge.templates import select_of
from galsearch.progress import Progress, silent
from galsearch.science.votes import check_seed, check_share, drawn_to_share
from galsearch.store import Rows, Store, drop_rows, open_store, put_rows

ID = "object_id"
CREATED = "kb create"  # what provenance calls it
_NAME = re.compile(r"[A-Za-z][\w-]{0,62}", re.ASCII)


def create_base(
    path: str | Path,
    name: str,
    select: str | None = None,
    *,
    template: str | None = None,
    table: pa.Table | str | Path | None = None,
    label: str | None = None,
    radius_arcsec: float | None = None,
    target: str | None = None,
    share: float | None = None,
    kind: str | None = None,
    by: str | None = None,
    columns: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> KnowledgeBase:
    """Create a version of the knowledge base `name` in the atlas folder `path` from a SELECT of object_id and label.

    Instead of the SELECT, `template` names one of ours ("liner", "activity", "gas", "whan", "type"), which brings its
    target; or `table` is an Arrow table or a file of labels (CSV, ECSV, FITS, VOTable, Parquet) in the column `label`,
    matched by its object_id, or with `radius_arcsec` by position, the closest object counting. Rows of it that match
    none are left out.

    The SELECT runs as in `Atlas.sql` and is kept; its rows become the members now, so that a version never changes. A
    name gets the next version each time, also after one was dropped. Text labels are classes, numbers are numbers to be
    voted on; `kind` ("class" or "number") says otherwise. `target` is a class, and `share` the part of the members that
    it is drawn to: the side in excess is sub-sampled with `seed`. `by` is the embedding in which neighbors are looked
    for, the main one unless given; objects without a vector in it are left out. `columns` are those of the catalog
    shown of voters.

    Up to 1,000 members are then left out in turn to learn how votes become probabilities. Interrupted or failed, it
    changes nothing. Raises QueryError for a SELECT that gives no base: an unknown column, NULL or blank labels, an
    object twice or unknown, a single class, more than 1,000 classes, labels of more than 200 characters, a target that
    is no label, no member at all; GalsearchError for a bundle or an atlas that another is writing.
    """
    path, started = Path(path), time.perf_counter()
    _check_source(select, template, table, label=label, radius_arcsec=radius_arcsec)
    _check_options(name, kind=kind, target=target, share=share)
    check_seed(seed)
    store = open_store(path)
    try:
        must_be_folder(store, path, "create the base in the folder")
        _check_columns(store, columns)
        embedding = store.manifest.embedding_named(by, path=path)
        if template is not None:
            select, of_template = select_of(store, template)
            target = target or of_template
        if table is not None:
            select, rows_of_labels = read_labels(store, table, label, radius_arcsec)
        else:
            assert select is not None  # as was checked
            rows_of_labels = store.sql(select, embed=_no_words)
        kind, label_column, members, left_out = _members(store, rows_of_labels, embedding, kind=kind, target=target)
        if target is not None and share is not None:
            is_target = members.codes == members.classes.index(target)
            members = members.at(drawn_to_share(is_target, share, seed=seed))
        last = _last_version(store, name)
        base = KnowledgeBase(name, last + 1, embedding, kind, len(members.rows), label_column, target, share, select)
        base = replace(base, columns=tuple(columns), seed=int(seed), created=schema.now(), left_out=left_out)
        base = replace(base, counts=members.counts)
        base = replace(base, calibration=Electorate(store, base, members).calibrate(progress))
        ids = store.ids(members.rows)
    finally:
        store.close()
    parameters = {key: value for key, value in base.to_row().items() if key not in ("calibration", "software")}
    record = schema.provenance(CREATED, parameters=parameters, seconds=time.perf_counter() - started)
    key = ("base", "version")
    rows = {BASES: _base_rows([base]), LABELS: _label_rows(base, members, ids)}
    put_rows(path, {table: Rows(content, key, new=True) for table, content in rows.items()}, record)
    return base


def drop_base(path: str | Path, name: str, *, version: int | None = None) -> int:
    """Drop a version of a knowledge base of the atlas folder `path`, or all of them; return how many.

    With the last version its probes go, so that a later base of that name does not find them in use.
    Raises QueryError for a base or version that there is not, GalsearchError for a bundle.
    """
    path = Path(path)
    store = open_store(path)
    try:
        must_be_folder(store, path, "drop the base from the folder")
        known = [one.version for one in list_bases(store) if one.name == name]
        if find_base(store, name, version=version) is None:
            raise QueryError(no_base(store, name))
    finally:
        store.close()
    key: dict[str, str | int] = {"base": name, **({} if version is None else {"version": version})}
    gone = version is None or known == [version]
    if gone:
        key = {"base": name}
    drop_rows(
        path, (BASES, LABELS, *((PROBES,) if gone else ())), key, schema.provenance("kb drop", parameters=dict(key))
    )
    return 1 if version is not None else len(known)


def _last_version(store: Store, name: str) -> int:
    """Return the last version that a base ever had, dropped ones too; 0 for none."""
    made = [one["parameters"] for one in store.manifest.provenance if one.get("action") == CREATED]
    versions = [one.version for one in list_bases(store) if one.name == name]
    return max([*versions, *(one["version"] for one in made if one.get("base") == name)], default=0)


def no_base(store: Store, name: str) -> str:
    """Return the message for a base that there is not."""
    known = ", ".join(dict.fromkeys(one.name for one in list_bases(store))) or "none yet"
    return f"{store.path} has no knowledge base '{name}', it has: {known}; make one with `galsearch kb create`"


def _check_options(name: str, *, kind: str | None, target: str | None, share: float | None) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise QueryError(
            f"a base cannot be called {name!r:.60}; give it a letter, then letters, digits, _ or -, 63 at most"
        )
    if kind is not None and kind not in KINDS:
        raise QueryError(f"kind is {kind!r:.40}, expected one of {', '.join(KINDS)}")
    if target is not None and kind == NUMBER:
        raise QueryError(f"target is {target!r:.40}, and a base of numbers has no classes; leave one of them out")
    if share is None:
        return
    if target is None:
        raise QueryError(f"share is {share!r:.40} of no class; say which with target")
    check_share(share)


def must_be_folder(store: Store, path: Path, what: str) -> None:
    """Raise GalsearchError, saying what to do, for a bundle."""
    if not store.grows:
        raise GalsearchError(f"{path} is a bundle, and a bundle is never changed: {what}, then bundle it again")


def _check_columns(store: Store, columns: Sequence[str]) -> None:
    known = store.describe()["column"].to_pylist()
    unknown = [name for name in columns if name not in known]
    if unknown:
        raise QueryError(f"{store.path} has no column '{unknown[0]}' to show, it has {', '.join(known[:40])}")


def _no_words(embedding: str, words: str) -> np.ndarray:
    raise QueryError("embed() has no encoder while a base is created; take concept('…') or like_object('…')")


def _check_source(
    select: str | None,
    template: str | None,
    table: pa.Table | str | Path | None,
    *,
    label: str | None,
    radius_arcsec: float | None,
) -> None:
    """Raise QueryError unless labels come from one source, and what is said of a table is said of one."""
    sources = {"select (--from)": select, "template": template, "table": table}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise QueryError(f"{' and '.join(given) or 'nothing'} says who is labeled; give one of {', '.join(sources)}")
    if table is None and (label is not None or radius_arcsec is not None):
        what = "label" if label is not None else "radius_arcsec"
        raise QueryError(f"{what} is said of a table of labels, and none is given; name it with table")


def _members(
    store: Store, table: pa.Table, embedding: str, *, kind: str | None, target: str | None
) -> tuple[str, str, Members, int]:
    """Return the kind of labels, their column, who has them, and how many were left out for want of a vector."""
    label = _label_column(table)
    _check_rows(store, table, label)
    given = kind_of(table.schema.field(label).type, label)
    kind = kind or (CLASS if target is not None else given)
    if kind == NUMBER and given == CLASS:
        raise QueryError(f"'{label}' is text, and text cannot be averaged; leave kind out, or CAST it to DOUBLE")
    rows = store.rows_of(table[ID].to_pylist())
    order = np.argsort(rows, kind="stable")
    every = members_of(rows[order], table[label].take(pa.array(order)), kind)
    members = with_vector(store, embedding, every)
    left_out = len(every.rows) - len(members.rows)
    if not len(members.rows):
        raise QueryError(f"none of the {left_out} labeled objects has a vector in '{embedding}', so none could vote")
    if kind == CLASS:
        _check_target(members.classes, label, target)
    return kind, label, members, left_out


def _label_column(table: pa.Table) -> str:
    """Return the column of labels, the one beside object_id."""
    others = [name for name in table.column_names if name != ID]
    if len(table.column_names) != 2 or len(others) != 1:
        raise QueryError(
            f"the SELECT gives {', '.join(table.column_names)[:200]}, expected two columns: object_id and a label, as "
            "in SELECT object_id, subclass AS label FROM galaxies WHERE subclass IS NOT NULL"
        )
    return others[0]


def _check_rows(store: Store, table: pa.Table, label: str) -> None:
    """Raise QueryError unless each row names another object of the atlas, and has a label."""
    if not table.num_rows:
        raise QueryError("the SELECT gives no row, and a base needs members; loosen its WHERE")
    ids = table[ID] if table[ID].type == pa.string() else None
    if ids is None or ids.null_count:
        raise QueryError(f"object_id is {table[ID].type} with {table[ID].null_count} NULLs, expected texts, none NULL")
    labels = table[label]
    bad = len(labels) - pc.sum(are_labels(labels)).as_py()
    if bad:
        what, remedy = "NULL", f"{label} IS NOT NULL"
        if bad > labels.null_count:  # the rest is no label either
            floating = pa.types.is_floating(labels.type)
            what = "NULL, infinite or NaN" if floating else "NULL or blank"
            remedy = f"isfinite({label})" if floating else f"regexp_matches({label}, '\\S')"
        raise QueryError(f"{bad} of {len(labels)} labels are {what}; add WHERE {remedy}")
    distinct = pc.count_distinct(ids).as_py()
    if distinct < len(ids):
        raise QueryError(f"{len(ids) - distinct} objects come more than once, and each has one label; use any_value()")
    known = len(store.rows_of(ids.to_pylist()))
    if known < len(ids):
        unknown = len(ids) - known
        raise QueryError(f"{unknown} of {len(ids)} objects are not in galaxies; JOIN galaxies USING (object_id)")


def _check_target(classes: tuple[str, ...], label: str, target: str | None) -> None:
    if target is not None and target not in classes:
        raise QueryError(f"target {target!r:.40} is not among the labels: {', '.join(classes)[:200]}")
    if len(classes) == 1:
        raise QueryError(f"every label is {classes[0]!r:.40}, and a vote needs two classes; select others beside it")
    check_classes(classes, label)


def _base_rows(bases: Sequence[KnowledgeBase]) -> pa.Table:
    return pa.Table.from_pylist([base.to_row() for base in bases], schema=schema.arrow_schema(BASES))


def _label_rows(base: KnowledgeBase, members: Members, ids: list[str]) -> pa.Table:
    """Return the rows of `knowledge_labels` of a base."""
    count = len(ids)
    classes = pa.array(members.classes, pa.string())
    labels = classes.take(pa.array(members.codes)) if members.classes else pa.nulls(count, pa.string())
    values = pa.nulls(count, pa.float64()) if members.classes else pa.array(members.values)
    columns = [pa.array([base.name] * count), pa.array([base.version] * count), pa.array(ids), labels, values]
    return pa.table(columns, schema=schema.arrow_schema(LABELS))
