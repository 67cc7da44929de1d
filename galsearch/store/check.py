"""What can be wrong with the files of an atlas, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from galsearch import schema
from galsearch.errors import FormatError, SchemaError
from galsearch.schema import Finding
from galsearch.science.ranking import Scorer
from galsearch.science.spectra import from_stored
from galsearch.store.files import checked_aside
from galsearch.store.index.cells import LIKE
from galsearch.store.index.vectors import Vectors
from galsearch.store.interface import Store
from galsearch.store.read.base import BATCH_ROWS, BaseStore
from galsearch.store.read.spectra import SPECTRA, SPECTRA_ROWS, each_row
from galsearch.store.sql.macros import ROW_ALIGNED, vector_table

NORM_TOLERANCE = 1e-3
VERBS = {"identifications": "identify"}  # that make the tables which are not called so
SAMPLE_QUERIES = 64
LEAST_RECALL = 0.95


def verify(store: Store, *, seed: int = 0) -> Iterator[Finding]:
    """Yield one finding for each thing looked at, the good ones too; reads each of its atlases once."""
    for part in store.parts:
        if isinstance(part, BaseStore):
            yield from _verify(part, seed)


def _verify(store: BaseStore, seed: int) -> Iterator[Finding]:
    broken = store.corrupt_tables()
    yield Finding.of("blocks", "every block can be read", "; ".join(broken), _COPY, ok=not broken)
    if broken:
        return  # what follows would only say the same again
    rows = _rows(store)
    yield rows
    yield _ids(store)
    yield _positions(store)
    known = {schema.PHRASES, *map(store.manifest.phrases_of, store.manifest.embeddings)} - {None}
    for name in sorted(store.tables.intersection(known)):
        yield _phrases(store, name)
    if {"knowledge_bases", "knowledge_labels"} & store.tables:
        yield _bases(store)
    yield from (_kept_rows(store, name) for name in FAULTS if name in store.tables)
    if "thumbnails" in store.tables:  # of a bundle
        yield _pictures(store)
    if store.holds("spectra"):
        yield _spectra(store)
    if store.manifest.extra.get(schema.DELETED):
        yield _deleted(store)
    for name in store.manifest.embeddings:
        findings = list(_vectors(store, name))
        yield from findings
        if findings[0].ok:
            findings.append(_pairs(store, name))
            yield findings[-1]
        if f"cells_{name}" in store.tables:
            findings.append(_cells(store, name))
            yield findings[-1]
        if store.manifest.embeddings[name].get(ROW_ALIGNED):
            yield _aligned(store, name)
        if f"map_{name}" in store.tables:
            yield _projection(store, name)
        if rows.ok and all(finding.ok for finding in findings):  # the sample is drawn by row number
            yield _recall(store, name, seed)


def _rows(store: BaseStore) -> Finding:
    result = store.sandbox.rows("SELECT count(*) FROM galaxies")[0][0]
    stated = store.manifest.rows
    return Finding.of(
        "rows", f"{result} objects", f"{result} objects, the manifest says {stated}", _REBUILD, ok=result == stated
    )


def _ids(store: BaseStore) -> Finding:
    twice = store.sandbox.rows(
        "SELECT object_id FROM galaxies GROUP BY object_id HAVING count(*) > 1 OR object_id IS NULL LIMIT 3"
    )
    return Finding.of("object_id", "ids are unique", f"ids are missing or repeated: {twice}", _REBUILD, ok=not twice)


def _positions(store: BaseStore) -> Finding:
    outside = store.sandbox.rows(
        "SELECT count(*) FROM galaxies WHERE ra < 0 OR ra >= 360 OR abs(dec) > 90 OR (ra IS NULL) <> (dec IS NULL)"
    )[0][0]
    remedy = "give ra and dec in degrees ICRS, both or neither, and rebuild"
    return Finding.of(
        "positions", "ra and dec are in range", f"{outside} positions are not on the sky", remedy, ok=not outside
    )


def _phrases(store: BaseStore, table: str) -> Finding:
    """Look at the vectors of a table of phrases, by which `concept('…')` searches."""
    wrong, twice = store.sandbox.rows(
        "SELECT count(*) FILTER (phrase IS NULL OR coalesce(NOT abs(sqrt(list_sum(squares)) - 1) <= $1, true) "
        "OR list_count(squares) <> len(squares)), count(phrase) - count(DISTINCT phrase) "
        f"FROM (SELECT phrase, [x * x FOR x IN CAST(embedding AS DOUBLE[])] AS squares FROM {table})",
        [NORM_TOLERANCE],
    )[0]
    message = f"{wrong} phrases have no vector of unit length, {twice} are there twice"
    return Finding.of(table, "phrases have vectors of unit length", message, _REBUILD, ok=not wrong + twice)


def _bases(store: BaseStore) -> Finding:
    """Compare the members of knowledge bases with what the bases say of them."""
    remedy = "create the base again with `galsearch kb create`, and drop this version"
    if not {"knowledge_bases", "knowledge_labels"} <= store.tables:
        return Finding("knowledge bases", False, "there are bases without labels, or labels without bases", remedy)
    wrong = store.sandbox.rows(
        "WITH held AS (SELECT base, version, count(*) AS members, count(DISTINCT object_id) AS objects, "
        "count(label) AS labels, count(value) FILTER (isfinite(value)) AS numbers, "
        "count(*) FILTER (object_id IN (SELECT object_id FROM galaxies)) AS there FROM knowledge_labels GROUP BY ALL) "
        "SELECT coalesce(b.base, h.base) AS base, coalesce(b.version, h.version) AS version "
        "FROM knowledge_bases b FULL JOIN held h ON b.base = h.base AND b.version = h.version "
        "WHERE NOT coalesce(b.rows = h.members AND h.objects = h.members AND h.there = h.members "
        "AND CASE b.kind WHEN 'class' THEN h.labels = h.members AND h.numbers = 0 "
        "WHEN 'number' THEN h.numbers = h.members AND h.labels = 0 ELSE false END "
        "AND list_contains($1, b.embedding), false) ORDER BY ALL LIMIT 3",
        [list(store.manifest.embeddings)],
    )
    message = f"members differ from what these bases say: {wrong}"
    return Finding.of("knowledge bases", "every base has its members", message, remedy, ok=not wrong)


_THERE = "object_id IN (SELECT object_id FROM galaxies)"
_NO_OBJECT = ("objects that are not in galaxies", f"SELECT count(*) FROM {{table}} WHERE NOT coalesce({_THERE}, false)")
_PART = "coalesce({} BETWEEN 0 AND 1, {} IS NULL)"  # of a probability that may be missing


def _twice(*key: str) -> tuple[str, str]:
    """Return the fault of two rows of one key."""
    names = ", ".join(key)
    return f"rows of one {' and '.join(key)}", (
        f"SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM {{table}} GROUP BY {names})"
    )


# What may be wrong in tables of results: what to call such rows, and the statement that counts them.
FAULTS: dict[str, tuple[tuple[str, str], ...]] = {
    "anomalies": (
        _NO_OBJECT,
        _twice("run", "object_id"),
        (
            "p-values that are none",
            "SELECT count(*) FROM {table} WHERE NOT coalesce(p_value > 0 AND p_value <= 1, false)",
        ),
        (
            "embeddings that there are not",
            "SELECT count(*) FROM {table} WHERE NOT coalesce(list_contains({embeddings}, embedding), false)",
        ),
    ),
    "duplicates": (
        _NO_OBJECT,
        _twice("run", "object_id"),
        (
            "groups without two members and one that is kept",
            "SELECT count(*) FROM (SELECT run FROM {table} GROUP BY run, group_id HAVING count(*) < 2 "
            "OR count(*) FILTER (is_kept) <> 1)",
        ),
        (
            "links to no member of the group",
            "SELECT count(*) FROM {table} d WHERE is_kept IS DISTINCT FROM (linked_to IS NULL) "
            "OR (linked_to IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {table} o WHERE o.run = d.run "
            "AND o.group_id = d.group_id AND o.object_id = d.linked_to AND o.object_id <> d.object_id))",
        ),
        ("confidences that are none", f"SELECT count(*) FROM {{table}} WHERE NOT {_PART.format(*['confidence'] * 2)}"),
    ),
    "picture_hashes": (
        _NO_OBJECT,
        _twice("object_id", "method"),
        (
            "hashes of another length than those of their method",
            "SELECT count(*) FROM {table} WHERE method IS NULL OR hash IS NULL OR "
            + " OR ".join(
                f"(method = '{name}' AND octet_length(hash) <> {n})" for name, n in schema.HASH_BYTES.items()
            ),
        ),
    ),
    "identifications": (
        _NO_OBJECT,
        _twice("run", "object_id"),
        (
            "states that are none",
            "SELECT count(*) FROM {table} WHERE NOT coalesce(list_contains({states}, state), false)",
        ),
        (
            "states that differ from the number of matches",
            "SELECT count(*) FROM {table} WHERE NOT coalesce(matches >= 0 "
            "AND (matches > 0) = starts_with(state, 'known'), false)",
        ),
        (
            "probabilities that are none",
            f"SELECT count(*) FROM {{table}} WHERE NOT {_PART.format(*['false_probability'] * 2)} "
            f"OR NOT {_PART.format(*['chance_probability'] * 2)}",
        ),
    ),
    "adaptations": (
        _twice("adaptation"),
        (
            "adaptations of vectors of another embedding, model or length",
            "SELECT count(*) FROM {table} WHERE NOT coalesce(list_contains({vectors}, embedding || ' ' || model_sha256 "
            "|| ' ' || (len(gates) / len(kinds))::VARCHAR), false)",
        ),
        (
            "adaptations whose numbers do not fit their kinds",
            "SELECT count(*) FROM {table} WHERE NOT coalesce(len(kinds) > 0 AND len(texts) = len(kinds) "
            "AND len(gates) = len(shifts) "
            "AND len([x FOR x IN list_concat(gates, shifts) IF NOT coalesce(isfinite(x), false)]) = 0, false)",
        ),
    ),
    "probes": (
        _twice("base", "probe"),
        (
            "probes of no base",
            "SELECT count(*) FROM {table} WHERE NOT coalesce(base IN (SELECT base FROM {bases}), false)",
        ),
        (
            "probes of vectors of another embedding, model or length",
            "SELECT count(*) FROM {table} WHERE NOT coalesce(list_contains({vectors}, embedding || ' ' || model_sha256 "
            "|| ' ' || (len(weights) / len(classes))::VARCHAR), false)",
        ),
        (
            "probes whose numbers do not fit their classes",
            "SELECT count(*) FROM {table} WHERE NOT coalesce(len(classes) > 1 "
            "AND len(list_distinct(classes)) = len(classes) "
            "AND len(intercept) = len(classes) AND len(confusion) = len(classes) * len(classes) "
            "AND list_sum(confusion) = tested AND len(weights) % len(classes) = 0 "
            "AND len([x FOR x IN list_concat(weights, intercept) IF NOT coalesce(isfinite(x), false)]) = 0 "
            "AND list_min(confusion) >= 0, false)",
        ),
    ),
}
MENDED_BY = {
    "adaptations": "undo it with `galsearch adapt --undo`, and adapt again",
    "probes": "train it again with `galsearch kb train`",
    "picture_hashes": "build the atlas again, and keep its duplicates with `galsearch duplicates --save`",
}


def _kept_rows(store: BaseStore, table: str) -> Finding:
    """Look for rows of a table of results that do not fit the atlas, or each other."""
    spaces = store.manifest.embeddings
    vectors = [f"{name} {space.get('sha256')} {float(space['dim'])}" for name, space in spaces.items()]
    texts = {
        "table": table,
        "bases": "knowledge_bases" if "knowledge_bases" in store.tables else "(SELECT NULL AS base)",
        "states": _listed(schema.STATES),
        "embeddings": _listed(spaces),
        "vectors": _listed(vectors),
    }
    wrong = []
    for what, statement in FAULTS[table]:
        if count := store.sandbox.rows(statement.format(**texts))[0][0]:
            wrong.append(f"{count} {what}")
    remedy = MENDED_BY.get(
        table, f"list them again with `galsearch {VERBS.get(table, table)} --save`, and use that run"
    )
    return Finding.of(table, "its rows fit the atlas", "; ".join(wrong), remedy, ok=not wrong)


def _listed(texts: Iterable[str]) -> str:
    """Return texts as a list in SQL."""
    quoted = ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
    return f"[{quoted}]"


def _pictures(store: BaseStore) -> Finding:
    """Look for rows of small pictures that hold none: who has no picture has no row."""
    empty = store.sandbox.rows("SELECT count(*) FROM thumbnails WHERE image IS NULL OR object_id IS NULL")[0][0]
    message = f"{empty} rows of pictures hold no picture or no object_id"
    return Finding.of("thumbnails", "every row of pictures holds one", message, _REBUILD, ok=not empty)


def _spectra(store: BaseStore) -> Finding:
    """Read every spectrum: flux and ivar of one length, on a grid, finite, with data."""
    ids, wrong = sorted(store.ids_with("spectra")), 0
    for start in range(0, len(ids), SPECTRA_ROWS):
        try:
            rows = store.spectra(ids[start : start + SPECTRA_ROWS])
        except FormatError as error:
            return Finding(SPECTRA, False, str(error), _REBUILD)
        wrong += sum(not _is_spectrum(row) for row in each_row(rows))
    message = f"{wrong} of {len(ids)} spectra are none"
    return Finding.of(SPECTRA, f"{len(ids)} spectra", message, _REBUILD, ok=not wrong)


def _deleted(store: BaseStore) -> Finding:
    """Look at the files of deleted objects: each must be there as it was written, to be brought back."""
    entries = store.manifest.extra[schema.DELETED]
    wrong, objects = [], 0
    for entry in entries if isinstance(entries, list) else [None]:
        try:
            checked_aside(store.path, entry)
            objects += entry["objects"] if entry else 0
        except FormatError as error:
            wrong.append(str(error))
    remedy = "remove them for good with `galsearch optimize`"
    good = f"{objects} deleted objects can be brought back"
    return Finding.of("deleted", good, "; ".join(wrong), remedy, ok=not wrong)


def _is_spectrum(row: dict[str, Any]) -> bool:
    try:
        return bool(from_stored(row).ivar.any())
    except (SchemaError, TypeError, OverflowError, FloatingPointError):
        return False


def _vectors(store: BaseStore, name: str) -> Iterator[Finding]:
    space = store.manifest.embeddings[name]
    rows = store.sandbox.rows(f"SELECT count(*) FROM ({store.holders(name)})")[0][0]
    agreed = rows == space["rows"]
    message = f"{rows} vectors, the manifest says {space['rows']}"
    yield Finding.of(f"{name} vectors", f"{rows} vectors of {space['dim']}", message, _REBUILD, ok=agreed)
    if not agreed:
        return
    worst = worst_length(store.vectors(name))
    message = f"a vector's length differs from 1 by {worst:.3g}"
    yield Finding.of(f"{name} norms", "vectors have unit length", message, _REBUILD, ok=worst <= NORM_TOLERANCE)
    alone = store.sandbox.rows(
        f"SELECT count(*) FROM ({store.holders(name)}) WHERE object_id NOT IN (SELECT object_id FROM galaxies)"
    )[0][0]
    yield Finding.of(f"{name} ids", "every vector has its object", f"{alone} vectors have none", _REBUILD, ok=not alone)
    bad, unused = store.map_faults(name)
    good = f"not used, the engine is asked ({'; '.join(unused)})" if unused else "the map of the vectors fits the file"
    message = f"{bad} runs of numbers do not have the digest that was noted"
    yield Finding.of(f"{name} map", good, message, _COPY, ok=not bad)


def _pairs(store: BaseStore, name: str) -> Finding:
    """Compare the objects, vectors and cells that answers are made of with those that are stored together."""
    bad = done = 0
    try:
        known = store.cells(name)
        for ids, vectors, cell in store.stored(name):
            indices = np.arange(done, done + len(ids))
            done += len(ids)
            ours, result = store.id_column(store.object_rows(name, indices)), store.vectors(name).take(indices)
            wrong = np.array([one != other for one, other in zip(ours.to_pylist(), ids.to_pylist(), strict=True)], bool)
            wrong |= (np.ascontiguousarray(result).view(np.uint32) != vectors.view(np.uint32)).any(axis=1)
            if known is not None and cell is not None:
                wrong |= np.searchsorted(known.starts, indices, side="right") - 1 != cell
            bad += int(wrong.sum())
        message = f"{bad} vectors are found under another object or in another cell than they are stored with"
    except FormatError as error:
        bad, message = bad or 1, str(error)
    return Finding.of(f"{name} pairs", "vectors are found under their objects", message, _REBUILD, ok=not bad)


def worst_length(vectors: Vectors) -> float:
    """Return how far the length of a vector is from 1 at most; infinity where one is not finite."""
    worst = 0.0
    for start in range(0, vectors.rows, BATCH_ROWS):
        stop = min(start + BATCH_ROWS, vectors.rows)
        lengths = np.linalg.norm(vectors.take(np.arange(start, stop)).astype(np.float64), axis=1)
        vectors.done(start, stop)
        worst = max(worst, float(np.max(np.abs(np.nan_to_num(lengths, nan=np.inf) - 1), initial=0)))
    return worst


def _cells(store: BaseStore, name: str) -> Finding:
    """Compare the index with the rows: a cell that is not listed is one whose galaxies plain SQL never finds."""
    if store.kind == "bundle":
        table = vector_table(name, store.manifest.embeddings[name])
        differing = store.sandbox.rows(
            f"SELECT count(*) FROM (SELECT cell, count(*) AS held FROM {table} GROUP BY cell) "
            f"FULL JOIN cells_{name} USING (cell) WHERE coalesce(held, 0) <> coalesce(rows, 0)"
        )[0][0]
    else:  # rows that were added since lie in no cell, and are compared one by one
        listed = store.sandbox.rows(f"SELECT coalesce(sum(rows), 0) FROM cells_{name}")[0][0]
        differing = int(listed > store.manifest.embeddings[name]["rows"])
    message = f"{differing} cells do not hold the rows that the index says"
    try:
        store.cells(name)
    except FormatError as error:
        message, differing = str(error), differing or 1
    return Finding.of(f"{name} cells", "the index lists every row", message, _REBUILD, ok=not differing)


def _aligned(store: BaseStore, name: str) -> Finding:
    differing = store.sandbox.rows(
        f"SELECT count(*) FROM ({store.holders(name)}) h LEFT JOIN galaxies g ON g.rowid = h.place "
        "WHERE g.object_id IS DISTINCT FROM h.object_id"
    )[0][0]
    message = f"{differing} vectors are not those of the rows of galaxies at their place, the manifest says all are"
    return Finding.of(f"{name} order", "galaxies and vectors are in one order", message, _REBUILD, ok=not differing)


def _projection(store: BaseStore, name: str) -> Finding:
    """Look at the map of the vectors: one finite place for each object on it, and how many are not on it yet."""
    placed, ids, wrong = store.sandbox.rows(
        "SELECT count(*), count(DISTINCT object_id), count(*) FILTER (NOT coalesce(isfinite(x) AND isfinite(y), false) "
        f"OR object_id NOT IN (SELECT object_id FROM ({store.holders(name)}))) FROM map_{name}"
    )[0]
    late = store.manifest.embeddings[name]["rows"] - placed
    good = f"{placed} vectors have their place in the plane"
    good += f", {late} that were added since have none until `galsearch optimize` or `bundle`" if late else ""
    bad = f"{wrong + placed - ids} places are not numbers, are of no vector or are there twice"
    return Finding.of(f"{name} plane", good, bad, _REBUILD, ok=not wrong and placed == ids and late >= 0)


def _recall(store: BaseStore, name: str, seed: int) -> Finding:
    """Compare the index with exact search on stored vectors, each disturbed a little so that it is no member."""
    generator = np.random.default_rng(seed)
    rows = store.manifest.embeddings[name]["rows"]
    indices = np.sort(generator.choice(rows, size=min(SAMPLE_QUERIES, rows), replace=False))
    queries = store.vectors(name).take(indices)
    queries = queries + generator.normal(scale=0.3 / np.sqrt(queries.shape[1]), size=queries.shape)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    shares, approximate = [], False
    for query in queries:
        quick, _, plan = store.nearest(Scorer(query), k=10, embedding=name, query_kind=LIKE)
        true, _, _ = store.nearest(Scorer(query), k=10, embedding=name, exact=True)
        approximate |= not plan.exact
        shares.append(len(set(quick.tolist()) & set(true.tolist())) / max(1, len(true)))
    recall = float(np.mean(shares)) if shares else 1.0
    kind = "the index" if approximate else "exact search (too few rows to need the index)"
    message = f"recall@10 of {kind} is {recall:.3f} on {len(shares)} queries"
    return Finding.of(
        f"{name} recall", message, message, "search with more probes, or rebuild", ok=recall >= LEAST_RECALL
    )


_COPY = "copy it again from its source"
_REBUILD = f"rebuild it with `galsearch build` (format {'.'.join(map(str, schema.FORMAT_VERSION))})"
