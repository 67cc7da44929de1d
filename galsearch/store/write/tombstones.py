"""Deleting rows of a folder: tombstones until it is compacted, and a file beside from which they can come back.

Lance marks vectors, pictures and spectra as deleted in new versions of its tables, without writing them again. A new
`galaxies.duckdb` without the rows, written aside, names those versions, and renaming it commits everything, as every
other writing does. What was deleted lies in `deleted-N.duckdb`, which no reader opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import lance
import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.atomic import WriterLock, replacing
from galsearch.errors import FormatError, GalsearchError, UnknownIdError
from galsearch.store.files import DELETED_FILE, checked_aside, file_digest
from galsearch.store.index import cells
from galsearch.store.read.base import BATCH_ROWS
from galsearch.store.read.folder import FACTS, FILES, LANCE, VERSIONS, FolderStore
from galsearch.store.sql.sandbox import identifier, quoted
from galsearch.store.write.disk import disk_errors, writing
from galsearch.store.write.index_tables import STALE_SHARE, tables_of, write_manifest, write_words
from galsearch.store.write.lance_offsets import file_digests, write_pages
from galsearch.store.write.recluster import KEEP, clean, recluster, rolled_back, rows_of
from galsearch.store.write.upsert import REMEDY, changed_facts

NAMED_AT_ONCE = 1_000  # ids in one statement for Lance
STAYS = ("rejected",)  # tables with an object_id that are not about objects of the atlas
BASES, LABELS = "knowledge_bases", "knowledge_labels"
IN_LANCE = "lance_"  # before the name of a Lance table, in the file of what was deleted


def delete_rows(path: Path, ids: Sequence[str], record: dict) -> int:
    """Delete objects from the folder `path` with all that is kept of them; return how many are left.

    Readers see the atlas before or after. `record` joins the provenance. Raises UnknownIdError for an id that is not
    there, GalsearchError where no object would be left, another writes the atlas or the disk is full.
    """
    ids = list(dict.fromkeys(ids))
    with disk_errors(path, REMEDY), WriterLock(path):
        store = FolderStore(path)
        try:
            there = set(store.ids(store.rows_of(ids)))
            if lost := [name for name in ids if name not in there]:
                raise UnknownIdError(f"no object '{lost[0]}' in {path}; nothing was deleted, check the ids")
            left = store.manifest.rows - len(ids)
            if left < 1:
                raise GalsearchError(f"{path}: these are all of its {store.manifest.rows} objects; remove the folder")
            indices = {name: store.lance_rows(name, ids) for name in store.manifest.extra[VERSIONS]}
            entry = _keep_aside(store, ids, indices)
            versions = {name: _bury(store, name, rows) for name, rows in indices.items()}
            starts = {name: known.starts for name in store.manifest.embeddings if (known := store.cells(name))}
        finally:
            store.close()
        manifest = store.manifest
        manifest.extra = {**manifest.extra, schema.DELETED: [*manifest.extra.get(schema.DELETED, []), entry]}
        with changed_facts(path) as connection:
            for name in set(indices) & set(starts):
                _shrink_cells(connection, name, starts[name], indices[name])
            _take_out(connection, ids)
            _commit(connection, path, manifest, versions, record)
        if left > cells.LEAST_ROWS and _is_stale(path, versions):
            recluster(path, schema.provenance("optimize", parameters={"after": "delete"}))
    return left


def restore_rows(path: Path, record: dict) -> int:
    """Bring back what was deleted last from the folder `path`; return how many objects came back.

    They stand behind the others, as added ones do. Rows of lists and knowledge bases that were made anew since stay
    out. Raises GalsearchError where nothing is left to bring back, or an object of that id was added since.
    """
    with disk_errors(path, REMEDY), WriterLock(path):
        store = FolderStore(path)
        try:
            manifest = store.manifest
            entries = manifest.extra.get(schema.DELETED, [])
            if not entries:
                raise GalsearchError(
                    f"{path}: nothing is left to bring back; optimize removes for good what was deleted"
                )
            aside = checked_aside(path, entries[-1])
            with _open_aside(aside) as source:
                ids = [name for (name,) in source.execute("SELECT object_id FROM galaxies").fetchall()]
                if again := store.ids(store.rows_of(ids))[:1]:
                    raise GalsearchError(f"{path}: '{again[0]}' was added again since; delete it first, or leave it so")
                versions = {name: _dig_up(store, source, name) for name in manifest.extra[VERSIONS]}
        finally:
            store.close()
        manifest.extra = {**manifest.extra, schema.DELETED: entries[:-1]}
        with changed_facts(path) as connection:
            connection.execute(f"ATTACH {quoted(aside)} AS aside (READ_ONLY)")
            for name, (_, first) in versions.items():
                _number_again(connection, name, first)
            _put_back(connection)
            connection.execute("DETACH aside")
            _commit(connection, path, manifest, {name: version for name, (version, _) in versions.items()}, record)
        aside.unlink(missing_ok=True)
    return len(ids)


def compact(path: Path, record: dict) -> int:
    """Remove for good what was deleted from the folder `path`; return how many objects that were.

    Data files that readers may still have open stay until the next time that is KEEP later.
    """
    with disk_errors(path, REMEDY), WriterLock(path):
        store = FolderStore(path)
        try:
            manifest = store.manifest
            entries = manifest.extra.get(schema.DELETED, [])
            versions = dict(manifest.extra[VERSIONS])
            if entries:
                versions = {name: _written_again(store, name) for name in versions}
        finally:
            store.close()
        if entries:
            manifest.extra = {key: value for key, value in manifest.extra.items() if key != schema.DELETED}
            with changed_facts(path) as connection:
                _commit(connection, path, manifest, versions, record)
        clean(path, versions, KEEP)
        for aside in _asides(path):
            aside.unlink(missing_ok=True)
    return sum(entry["objects"] for entry in entries)


# ---- what is kept aside


def _asides(path: Path) -> list[Path]:
    return [file for file in path.iterdir() if DELETED_FILE.fullmatch(file.name)]


def _keep_aside(store: FolderStore, ids: list[str], indices: dict[str, np.ndarray]) -> dict:
    """Write what is deleted beside the atlas; return what the manifest says of it. Files of no deletion are removed."""
    entries = store.manifest.extra.get(schema.DELETED, [])
    for file in _asides(store.path):
        if file.name not in {entry["file"] for entry in entries}:
            file.unlink()  # of a writer that was killed before its commit
    number = 1 + max((int(re.findall(r"\d+", entry["file"])[0]) for entry in entries), default=0)
    file = store.path / f"deleted-{number}.duckdb"
    with replacing(file) as partial:
        connection = writing(partial)
        try:
            connection.execute(f"ATTACH {quoted(store.path / FACTS)} AS facts (READ_ONLY)")
            connection.execute(f"ATTACH {quoted(partial)} AS aside")
            connection.execute("USE aside")
            _copy_facts(connection, ids)
            for name, rows in indices.items():
                _copy_lance(connection, store, name, rows)
            connection.execute("CHECKPOINT aside")
        finally:
            connection.close()
    return {"file": file.name, "objects": len(ids), "time": schema.now(), "crc32": file_digest(file)}


def _copy_facts(connection: duckdb.DuckDBPyConnection, ids: list[str]) -> None:
    _name(connection, ids)
    for table in _tables_of_objects(connection, "facts"):
        connection.execute(
            f"CREATE TABLE {identifier(table)} AS SELECT t.* FROM facts.{identifier(table)} t "
            "WHERE EXISTS (SELECT 1 FROM buried b WHERE b.object_id = t.object_id) ORDER BY t.rowid"
        )
    named = "SELECT 1 FROM duckdb_tables() WHERE database_name = 'facts' AND table_name = $1"
    if connection.execute(named, [BASES]).fetchall():
        connection.execute(f"CREATE TABLE {BASES} AS SELECT * FROM facts.{BASES}")
    connection.execute("DROP TABLE buried")


def _copy_lance(connection: duckdb.DuckDBPyConnection, store: FolderStore, name: str, rows: np.ndarray) -> None:
    for start in range(0, max(len(rows), 1), BATCH_ROWS):
        connection.register("incoming", store.lance_table(name, rows[start : start + BATCH_ROWS].tolist()))
        verb = f"INSERT INTO {IN_LANCE}{name}" if start else f"CREATE TABLE {IN_LANCE}{name} AS"
        connection.execute(f"{verb} SELECT * FROM incoming")
        connection.unregister("incoming")


def _open_aside(file: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(file, read_only=True)


# ---- Lance


def _bury(store: FolderStore, name: str, rows: np.ndarray) -> int:
    """Mark rows of a Lance table as deleted, in a new version; return its number."""
    version, uri = store.manifest.extra[VERSIONS][name], str(store.path / LANCE / f"{name}.lance")
    if not len(rows):
        return version
    rolled_back(uri, version)
    dataset, before = lance.dataset(uri), store.lance_count(name)
    names = store.lance_table(name, rows.tolist())["object_id"].to_pylist()
    for start in range(0, len(names), NAMED_AT_ONCE):
        listed = ", ".join(quoted(one) for one in names[start : start + NAMED_AT_ONCE])
        dataset.delete(f"object_id IN ({listed})")
    if dataset.count_rows() != before - len(rows):
        raise FormatError(
            f"{uri}: {len(rows)} rows were to go, and {before - dataset.count_rows()} went; rebuild the atlas"
        )
    return dataset.version


def _dig_up(store: FolderStore, source: duckdb.DuckDBPyConnection, name: str) -> tuple[int, int]:
    """Append the rows that were deleted of a Lance table; return the version written and the first row number."""
    version, uri = store.manifest.extra[VERSIONS][name], str(store.path / LANCE / f"{name}.lance")
    if f"{IN_LANCE}{name}" not in tables_of(source):  # a table that there was not yet
        return version, store.lance_count(name)
    kind = lance.dataset(uri, version=version).schema
    rows = source.sql(f"SELECT * FROM {IN_LANCE}{name}").to_arrow_table().select(kind.names).cast(kind)
    if not rows.num_rows:
        return version, store.lance_count(name)
    first = rolled_back(uri, version)
    return lance.write_dataset(rows, uri, mode="append").version, first


def _written_again(store: FolderStore, name: str) -> int:
    """Write a Lance table without its deleted rows where it has any; return the version that is to be committed."""
    version, uri = store.manifest.extra[VERSIONS][name], str(store.path / LANCE / f"{name}.lance")
    dataset = lance.dataset(uri, version=version)
    if not any(part.num_deletions for part in dataset.get_fragments()):
        return version
    rolled_back(uri, version)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, store.lance_count(name), BATCH_ROWS):
            stop = min(start + BATCH_ROWS, store.lance_count(name))
            yield from store.lance_table(name, list(range(start, stop))).combine_chunks().to_batches()

    reader = pa.RecordBatchReader.from_batches(dataset.schema, batches())
    return lance.write_dataset(reader, uri, mode="overwrite", max_rows_per_group=BATCH_ROWS).version


def _is_stale(path: Path, versions: dict[str, int]) -> bool:
    """Say whether so much of a table is deleted that reading it is slower than it needs to be."""
    for name, version in versions.items():
        parts = lance.dataset(str(path / LANCE / f"{name}.lance"), version=version).get_fragments()
        gone, rows = sum(part.num_deletions for part in parts), sum(part.physical_rows for part in parts)
        if gone > STALE_SHARE * rows:
            return True
    return False


# ---- the facts


def _name(connection: duckdb.DuckDBPyConnection, ids: list[str]) -> None:
    connection.register("incoming", pa.table({"object_id": pa.array(ids, pa.string())}))
    connection.execute("CREATE TEMP TABLE buried AS SELECT * FROM incoming")
    connection.unregister("incoming")


def _tables_of_objects(connection: duckdb.DuckDBPyConnection, database: str) -> list[str]:
    """Return the tables whose rows are about objects, by name; not those that number the rows of Lance."""
    result = connection.execute(
        "SELECT table_name FROM duckdb_columns() WHERE database_name = $1 AND schema_name = 'main' "
        "AND column_name = 'object_id' AND NOT starts_with(table_name, 'rows_') "
        f"AND NOT starts_with(table_name, '{IN_LANCE}') ORDER BY table_name",
        [database],
    ).fetchall()
    return [name for (name,) in result if name not in STAYS]


def _own_name(connection: duckdb.DuckDBPyConnection) -> str:
    return connection.execute("SELECT current_database()").fetchall()[0][0]


def _take_out(connection: duckdb.DuckDBPyConnection, ids: list[str]) -> None:
    """Take objects out of every table that is about objects; tables are written anew, since rows are numbered."""
    _name(connection, ids)
    gone = "EXISTS (SELECT 1 FROM buried b WHERE b.object_id = t.object_id)"
    for table in _tables_of_objects(connection, _own_name(connection)):
        _write_again(connection, table, f"SELECT t.* FROM {identifier(table)} t WHERE NOT {gone} ORDER BY t.rowid")
    for table in [name for name in tables_of(connection) if name.startswith("rows_")]:
        kept = f"SELECT object_id, row_number() OVER (ORDER BY row) - 1 AS row FROM {table} t WHERE NOT {gone}"
        _write_again(connection, table, f"{kept} ORDER BY row")
    _count_members(connection)
    connection.execute("DROP TABLE buried")


def _write_again(connection: duckdb.DuckDBPyConnection, table: str, select: str) -> None:
    connection.execute(f"CREATE TEMP TABLE kept AS {select}")
    connection.execute(f"DROP TABLE {identifier(table)}")
    connection.execute(f"CREATE TABLE {identifier(table)} AS SELECT * FROM kept")
    connection.execute("DROP TABLE kept")


def _count_members(connection: duckdb.DuckDBPyConnection) -> None:
    """Let knowledge bases say how many members they have; one without any is dropped."""
    if not {BASES, LABELS} <= set(tables_of(connection)):
        return
    held = f"(SELECT count(*) FROM {LABELS} l WHERE l.base = b.base AND l.version = b.version)"
    _write_again(
        connection, BASES, f"SELECT b.* REPLACE ({held} AS rows) FROM {BASES} b WHERE {held} > 0 ORDER BY b.rowid"
    )


def _shrink_cells(connection: duckdb.DuckDBPyConnection, name: str, starts: np.ndarray, rows: np.ndarray) -> None:
    """Let the cells of an index say that they hold fewer rows; rows that are in no cell yet are in none."""
    cell = np.searchsorted(starts, rows[rows < starts[-1]], side="right") - 1
    fewer = np.diff(starts) - np.bincount(cell, minlength=len(starts) - 1)
    connection.register("incoming", pa.table({"cell": np.arange(len(fewer)), "held": fewer}))
    _write_again(
        connection,
        f"cells_{name}",
        f"SELECT c.* REPLACE (i.held AS rows) FROM cells_{name} c JOIN incoming i ON i.cell = c.cell ORDER BY c.cell",
    )
    connection.unregister("incoming")


def _number_again(connection: duckdb.DuckDBPyConnection, name: str, first: int) -> None:
    """Say in which rows of a Lance table the objects lie that were appended to it from `first` on."""
    there = "SELECT 1 FROM duckdb_tables() WHERE database_name = 'aside' AND table_name = $1"
    if connection.execute(there, [f"{IN_LANCE}{name}"]).fetchall():
        connection.execute(
            f"INSERT INTO rows_{name} SELECT object_id, {first} + row_number() OVER (ORDER BY rowid) - 1 "
            f"FROM aside.{IN_LANCE}{name} ORDER BY rowid"
        )


def _put_back(connection: duckdb.DuckDBPyConnection) -> None:
    """Insert the facts that were deleted; of lists and bases that were made anew since, nothing."""
    known = set(tables_of(connection))
    if BASES in known:
        connection.execute(
            f"INSERT INTO {BASES} BY NAME SELECT * FROM aside.{BASES} a WHERE a.rows = (SELECT count(*) FROM "
            f"aside.{LABELS} l WHERE l.base = a.base AND l.version = a.version) "
            f"AND NOT EXISTS (SELECT 1 FROM {BASES} b WHERE b.base = a.base AND b.version = a.version)"
        )
    for table in _tables_of_objects(connection, "aside"):
        if table not in known:
            continue
        columns = _columns(connection, "aside", table)
        rest = ""
        if table == LABELS:
            rest = (
                f" WHERE EXISTS (SELECT 1 FROM {BASES} b JOIN aside.{BASES} a USING (base, version, created) "
                "WHERE b.base = t.base AND b.version = t.version)"
            )
        elif {"run", "created"} <= columns & _columns(connection, _own_name(connection), table):
            same = f"SELECT 1 FROM {identifier(table)} o WHERE o.run = t.run AND o.created <> t.created"
            rest = f" WHERE NOT EXISTS ({same})"
        connection.execute(
            f"INSERT INTO {identifier(table)} BY NAME "
            f"SELECT t.* FROM aside.{identifier(table)} t{rest} ORDER BY t.rowid"
        )
    _count_members(connection)


def _columns(connection: duckdb.DuckDBPyConnection, database: str, table: str) -> set[str]:
    select = "SELECT column_name FROM duckdb_columns() WHERE database_name = $1 AND table_name = $2"
    return {name for (name,) in connection.execute(select, [database, table]).fetchall()}


def _commit(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    manifest: schema.Manifest,
    versions: dict[str, int],
    record: dict,
) -> None:
    """Note what follows from the rows that are there now, and the versions of Lance that belong to them."""
    spaces = {}
    for name, space in manifest.embeddings.items():
        write_pages(connection, path, name, versions[name], space["dim"])
        spaces[name] = {**space, **rows_of(connection, name)}
    write_words(connection)
    rows = connection.execute("SELECT count(*) FROM galaxies").fetchall()[0][0]
    extra = {**manifest.extra, VERSIONS: versions}
    extra[FILES] = file_digests(path, versions, manifest.extra.get(FILES, {}))
    write_manifest(connection, manifest, record, rows=rows, embeddings=spaces, extra=extra)
