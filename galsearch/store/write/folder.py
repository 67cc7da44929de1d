"""Writing the folder: batches that survive an interruption, then one commit.

Lance tables are appended to first; a new `galaxies.duckdb`, written aside, names their versions, and renaming that one
file commits everything. Rows that a killed writer left behind in Lance belong to no committed version and are rolled
back by the next writer.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from galsearch import schema
from galsearch.atomic import WriterLock, remove_partial
from galsearch.errors import GalsearchError, SchemaError
from galsearch.store.index import cells
from galsearch.store.index.projection import write_map
from galsearch.store.index.vectors import Held
from galsearch.store.read.base import vectors as as_array
from galsearch.store.read.folder import FACTS, FILES, LANCE, MODELS, VERSIONS, FolderStore, is_folder_atlas
from galsearch.store.sql import macros
from galsearch.store.sql.sandbox import identifier, quoted, short
from galsearch.store.write.disk import disk_errors, exchange, writing
from galsearch.store.write.index_tables import (
    STALE_SHARE,
    create_table,
    fixed_size_list,
    phrases,
    tables_of,
    write_manifest,
    write_thresholds,
    write_words,
)
from galsearch.store.write.lance_offsets import file_digests, write_pages
from galsearch.store.write.recluster import recluster, rolled_back, rows_of
from galsearch.store.write.upsert import changed_facts

__all__ = ["Staging", "is_folder_atlas", "staged"]
_STAGED = "galsearch:"
REMEDY = "free some space or choose another folder, then run the same command again: it goes on where it stopped"


def staged(name: str) -> str:
    """Return the column of a batch that holds the vectors of an embedding or the pictures; no input's column has it."""
    return f"{_STAGED}{name}"


class Batches:
    """Finished batches of work in progress beside an atlas, as any process that works for its writer may add to them.

    `plan` is everything that decides the result. A batch is there whole or not at all, and made again is the same.
    """

    def __init__(self, path: Path, plan: dict) -> None:
        self.path = path
        self.folder = path.with_name(path.name + ".partial")
        self.plan = plan

    def done(self) -> set[int]:
        """Return the numbers of the batches that are finished."""
        return {int(item.stem) for item in (self.folder / "batches").glob("*.arrow")}

    def put(self, number: int, table: pa.Table, rejected: list[dict]) -> None:
        """Keep a finished batch: its rows, and what was left out as {object_id, file, reason}.

        Raises GalsearchError where the work in progress is another by now.
        """
        target = self._batch(number)
        partial = target.with_suffix(f".{uuid.uuid4().hex}.partial")  # another may be making the same
        kept = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), b"rejected": json.dumps(rejected).encode()}
        )
        with disk_errors(self.path, REMEDY):
            with pa.OSFile(str(partial), "wb") as sink, pyarrow.ipc.new_file(sink, kept.schema) as writer:
                writer.write_table(kept)
            if not self._is_planned():
                partial.unlink()
                raise GalsearchError(f"{self.folder} is of another build by now; what was made for this one is dropped")
            partial.replace(target)

    def _is_planned(self) -> bool:
        saved = self.folder / "plan.json"
        return saved.exists() and saved.read_text() == json.dumps(self.plan, sort_keys=True)

    def batches(self) -> Iterator[pa.Table]:
        """Yield the finished batches in order."""
        for number in sorted(self.done()):
            with pa.memory_map(str(self._batch(number))) as source:
                yield pyarrow.ipc.open_file(source).read_all()

    def rejected(self) -> list[dict]:
        """Return what was left out of all finished batches."""
        return [item for table in self.batches() for item in json.loads(table.schema.metadata[b"rejected"])]

    def _batch(self, number: int) -> Path:
        return self.folder / "batches" / f"{number:06d}.arrow"


class Staging(Batches):
    """Work in progress beside an atlas: finished batches that survive an interruption, and the lock of the one writer.

    An interrupted run is resumed only under the same plan, any other starts afresh. Use as a context manager; it stays
    on disk unless committed or discarded.
    """

    def __enter__(self) -> Staging:
        with disk_errors(self.path, REMEDY):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(self.path).__enter__()
        try:
            with disk_errors(self.path, REMEDY):
                self.folder.mkdir(exist_ok=True)
                self._resume()
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()

    def _resume(self) -> None:
        if not self._is_planned():
            shutil.rmtree(self.folder / "batches", ignore_errors=True)
            (self.folder / "plan.json").write_text(json.dumps(self.plan, sort_keys=True))
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        old = self.folder / "old"
        if old.exists() and not self.path.exists():
            old.replace(self.path)  # killed between the two renames of a replacement
        (self.folder / "batches").mkdir(exist_ok=True)
        for left in (self.folder / "batches").glob("*.partial"):
            left.unlink(missing_ok=True)  # of who was killed

    def discard(self) -> None:
        """Remove everything that is staged."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(
        self,
        manifest: schema.Manifest,
        record: dict,
        *,
        models: dict[str, Path],
        phrases: Mapping[str, pa.Table],
        rejected: list[dict],
    ) -> None:
        """Turn the batches into a new atlas, replacing one that is there only when all went well.

        `models` maps a name to the folder that is copied in, `phrases` the name of a table to embedded phrases;
        `rejected` is what was left out before batching.
        """
        out = self.folder / "out"
        with disk_errors(self.path, REMEDY):
            shutil.rmtree(out, ignore_errors=True)
            (out / LANCE).mkdir(parents=True)
            for name, folder in models.items():
                shutil.copytree(folder, out / MODELS / name)
            connection = writing(out / FACTS)
            try:
                connection.execute(f"ATTACH {quoted(out / FACTS)} AS facts")
                connection.execute("USE facts")
                self._fill(connection, out, manifest, record, phrases=phrases, rejected=rejected)
                connection.execute("CHECKPOINT facts")
            finally:
                connection.close()
            if manifest.rows > cells.LEAST_ROWS:
                recluster(out, None)
            FolderStore(out).close()
            self._replace_atlas(out)

    def _fill(self, connection, out: Path, manifest, record, *, phrases, rejected) -> None:
        none = np.empty((0, manifest.embeddings[manifest.main_embedding]["dim"]), np.float32)
        empty = pa.table({"phrase": pa.array([], pa.string()), "embedding": fixed_size_list(none)})
        for name, table in {schema.PHRASES: empty, **phrases}.items():
            create_table(connection, name, table)
        create_table(connection, "rejected", _rejected_table(rejected + self.rejected()))
        self._append(connection, out, manifest, record, {}, create=True)
        for statement in macros.facts_macros():
            connection.execute(statement)

    def _replace_atlas(self, out: Path) -> None:
        old = self.folder / "old"
        shutil.rmtree(old, ignore_errors=True)
        if not (self.path.exists() and exchange(out, self.path)):
            if self.path.exists():
                self.path.replace(old)
            out.replace(self.path)
        self.discard()

    def append(
        self,
        record: dict,
        *,
        rejected: list[dict],
        embeddings: dict[str, dict] | None = None,
        models: dict[str, Path] | None = None,
        phrases: Mapping[str, pa.Table] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Add the batches to the atlas that is there; readers see it before or after, never between.

        Rows of objects that are there fill what is NULL in them. `embeddings` are those that the atlas had none of, as
        the manifest describes them, `models` the folders that are copied in with them, `phrases` their tables of
        embedded phrases. `extra` are entries of the manifest that are other now.
        """
        facts, partial = self.path / FACTS, self.path / (FACTS + ".partial")
        store = FolderStore(self.path)
        manifest = store.manifest
        store.close()
        if manifest.rows != self.plan.get("to", manifest.rows):
            raise GalsearchError(f"{self.path}: another galsearch has added to it meanwhile; run this again")
        manifest.embeddings = {**manifest.embeddings, **(embeddings or {})}
        manifest.extra = {**manifest.extra, **(extra or {})}
        with disk_errors(self.path, REMEDY):
            for name, folder in (models or {}).items():
                shutil.copytree(folder, self.path / MODELS / name, dirs_exist_ok=True)
            try:
                remove_partial(partial)
                shutil.copyfile(facts, partial)
                connection = duckdb.connect(partial)
                try:
                    _insert(connection, "rejected", _rejected_table(rejected + self.rejected()))
                    for name, table in (phrases or {}).items():
                        connection.execute(f'DROP TABLE IF EXISTS "{name}"')
                        create_table(connection, name, table)
                    self._append(connection, self.path, manifest, record, manifest.extra[VERSIONS], create=False)
                    connection.execute("CHECKPOINT")
                finally:
                    connection.close()
                partial.replace(facts)
            finally:
                remove_partial(partial)
            if self.unindexed() > STALE_SHARE:
                recluster(self.path, schema.provenance("optimize", parameters={"after": record["action"]}))
        self.discard()

    def update(self, record: dict) -> None:
        """Put the columns of the batches into the rows that are there by their object_id, all at once.

        Columns that are not there are made, values that are there are replaced by those that are not NULL.
        """
        parts = [table.select([n for n in table.column_names if not n.startswith(_STAGED)]) for table in self.batches()]
        rows = _one_row_each(pa.concat_tables(parts, promote_options="permissive"))
        store = FolderStore(self.path)
        manifest = store.manifest
        store.close()
        with disk_errors(self.path, REMEDY), changed_facts(self.path) as connection:
            _add_columns(connection, rows)
            _describe(connection, rows.schema, (), create=False)
            _fill(connection, rows, wins="incoming")
            self._append_listed(connection)
            write_manifest(connection, manifest, record)
        self.discard()

    def unindexed(self) -> float:
        """Return the share of the rows that lie in no cell and are compared one by one; 0 while there are few rows."""
        store = FolderStore(self.path)
        try:
            late = [store.unindexed(name) for name in store.manifest.embeddings]
            return max(late, default=0) / store.manifest.rows if store.manifest.rows > cells.LEAST_ROWS else 0.0
        finally:
            store.close()

    def recluster(self, record: dict) -> None:
        """Put all rows of the atlas in the order of cells fitted to them; readers see it before or after."""
        with disk_errors(self.path, REMEDY):
            recluster(self.path, record)
        self.discard()

    def _append(self, connection, out: Path, manifest, record, versions: dict[str, int], *, create: bool) -> None:
        """Write the batches' rows to DuckDB, their vectors and pictures to Lance, and the manifest."""
        columns = self._append_galaxies(connection, create=create)  # first: refused columns leave Lance alone
        self._append_listed(connection)
        _describe(connection, columns, manifest.embeddings, create=create)
        versions, changed = dict(versions), self._staged_tables()
        for name in changed:
            versions[name], first = self._append_lance(out, name, versions.get(name))
            self._map_rows(connection, name, first)
        spaces = dict(manifest.embeddings)
        for name, space in manifest.embeddings.items():
            if name not in changed:
                continue
            write_pages(connection, out, name, versions[name], space["dim"])
            spaces[name] = {**space, **rows_of(connection, name)}
            if spaces[name]["rows"] <= cells.LEAST_ROWS:  # more of them are settled, which measures it too
                table = lance.dataset(str(out / LANCE / f"{name}.lance"), version=versions[name])
                every = table.take(list(range(table.count_rows())))  # as `folder` reads it, not by a scan
                held = Held(as_array(every["embedding"]))
                write_thresholds(connection, name, held, phrases(connection, manifest, name), seed=0)
                spaces[name][schema.PROJECTION] = write_map(connection, name, held, every["object_id"])
        write_words(connection)
        rows = connection.execute("SELECT count(*) FROM galaxies").fetchall()[0][0]
        files = file_digests(out, versions, manifest.extra.get(FILES, {}))
        extra = {**manifest.extra, VERSIONS: versions, FILES: files}
        write_manifest(connection, manifest, record, rows=rows, embeddings=spaces, extra=extra)

    def _staged_tables(self) -> list[str]:
        """Return the Lance tables that the batches have rows of."""
        names = [name for table in self.batches() for name in table.column_names if name.startswith(_STAGED)]
        tables = [name.removeprefix(_STAGED) for name in dict.fromkeys(names)]
        return [name for name in tables if name not in schema.LISTED]

    def _append_listed(self, connection) -> None:
        """Add rows to tables of facts of which an object has several; the objects have none there yet."""
        for name in schema.LISTED:
            batches = [table for table in self.batches() if staged(name) in table.column_names]
            if not batches:
                continue
            rows = pa.concat_tables([_unlisted(table, name) for table in batches])
            if name in tables_of(connection):
                _insert(connection, name, rows)
            else:
                create_table(connection, name, rows)

    def _append_lance(self, out: Path, name: str, version: int | None) -> tuple[int, int]:
        """Append a column of the batches to its Lance table; return the version written and the first row number."""
        column = staged(name)
        parts = [table.select(["object_id", column]) for table in self.batches() if column in table.column_names]
        parts = [_lance_rows(part, name) for part in parts]
        uri = str(out / LANCE / f"{name}.lance")
        first, mode = rolled_back(uri, version), "create" if version is None else "append"
        dataset = lance.write_dataset(pa.concat_tables(parts).replace_schema_metadata(None), uri, mode=mode)
        return dataset.version, first

    def _map_rows(self, connection, name: str, first: int) -> None:
        column = staged(name)
        ids = [i for table in self.batches() if column in table.column_names for i in table["object_id"].to_pylist()]
        rows = pa.table(
            {
                "object_id": pa.array(ids, pa.string()),
                "row": pa.array(range(first, first + len(ids)), pa.int64()),
            }
        )
        connection.execute(f"CREATE TABLE IF NOT EXISTS rows_{name} (object_id VARCHAR, row BIGINT)")
        _insert(connection, f"rows_{name}", rows)

    def _append_galaxies(self, connection, *, create: bool) -> pa.Schema:
        parts = []
        for table in self.batches():
            parts.append(table.select([name for name in table.column_names if not name.startswith(_STAGED)]))
        rows = _one_row_each(pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({}))
        if create:
            create_table(connection, "galaxies", rows)
        else:
            _add_columns(connection, rows)
            there = _are_there(connection, rows)
            _fill(connection, rows.filter(there), wins="galaxies")
            _insert(connection, "galaxies", rows.filter(pc.invert(there)))
        return rows.schema


def _lance_rows(part: pa.Table, name: str) -> pa.Table:
    """Return object_id and what a batch has for a Lance table as the columns of that table."""
    column = part.column(staged(name)).combine_chunks()
    columns = schema.kept_columns(name) if name in schema.KEPT else {"embedding": column.type}
    values = column.flatten() if pa.types.is_struct(column.type) else [column]
    return pa.table([part["object_id"], *values], names=["object_id", *columns])


def _unlisted(part: pa.Table, name: str) -> pa.Table:
    """Return a row for each item of the lists that a batch has for a table of facts."""
    column = part.column(staged(name)).combine_chunks()
    ids = part["object_id"].combine_chunks().take(pc.list_parent_indices(column))
    items = pc.list_flatten(column)
    names = [item.name for item in items.type]
    return pa.table([ids, *items.flatten()], names=["object_id", *names])


def _one_row_each(rows: pa.Table) -> pa.Table:
    """Return one row an object: the first, in which a later row of the same object fills what is NULL."""
    first = pc.index_in(rows["object_id"], value_set=pc.unique(rows["object_id"])) if rows.num_rows else None
    if first is None or pc.count_distinct(rows["object_id"]).as_py() == rows.num_rows:
        return rows
    indices = first.to_numpy()
    _, kept = np.unique(indices, return_index=True)
    later = np.setdiff1d(np.arange(rows.num_rows), kept)
    result, others = rows.take(kept), rows.take(later)
    match = pc.index_in(result["object_id"], value_set=others["object_id"].combine_chunks())
    for index, item in enumerate(result.schema):
        result = result.set_column(index, item, pc.coalesce(result[item.name], others[item.name].take(match)))
    return result


def _add_columns(connection, rows: pa.Table) -> None:
    """Make room for the columns of `rows`; SchemaError for one that has another type or unit in the atlas."""
    known = _types(connection, "galaxies")
    connection.register("incoming", rows)
    for name, kind in _types(connection, "incoming").values():
        there = known.get(name.casefold())
        if there is None:
            connection.execute(f"ALTER TABLE galaxies ADD COLUMN {identifier(name)} {kind}")
        else:
            _check_values(connection, name, kind, there[1])
            _check_unit(connection, there[0], _meaning(rows.schema.field(name))[0])
    connection.unregister("incoming")


def _are_there(connection, rows: pa.Table) -> pa.ChunkedArray:
    """Say which rows are of objects that the atlas has."""
    connection.register("incoming", rows.select(["object_id"]))
    known = connection.sql("SELECT object_id FROM incoming SEMI JOIN galaxies USING (object_id)").to_arrow_table()
    connection.unregister("incoming")
    return pc.is_in(rows["object_id"], value_set=known["object_id"].combine_chunks())


def _fill(connection, rows: pa.Table, *, wins: str) -> None:
    """Put columns into the rows of objects that are there; where both have a value, "incoming" or "galaxies" wins."""
    values = [identifier(name) for name in rows.column_names if name != "object_id"]
    other = "galaxies" if wins == "incoming" else "incoming"
    assigned = ", ".join(f"{name} = coalesce({wins}.{name}, {other}.{name})" for name in values)
    if assigned and rows.num_rows:
        connection.register("incoming", rows)
        connection.execute(
            f"UPDATE galaxies SET {assigned} FROM incoming WHERE galaxies.object_id = incoming.object_id"
        )
        connection.unregister("incoming")


def _types(connection, table: str) -> dict[str, tuple[str, str]]:
    """Return (name, type) of the columns by folded name."""
    result = connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()
    return {name.casefold(): (name, kind) for name, kind in result}


def _check_values(connection, name: str, kind: str, there: str) -> None:
    """Raise SchemaError unless every value comes back the same from the type of the atlas; floats may lose digits."""
    if kind == there or (kind, there) == ("DOUBLE", "FLOAT"):
        return
    changed = connection.execute(
        f"SELECT {identifier(name)} FROM incoming WHERE {identifier(name)} IS NOT NULL AND "
        f"TRY_CAST(TRY_CAST({identifier(name)} AS {there}) AS {kind}) IS DISTINCT FROM {identifier(name)} LIMIT 1"
    ).fetchall()
    if changed:
        raise SchemaError(
            f"column '{name}' is {there} in the atlas, which cannot hold {changed[0][0]!r}; "
            "convert it (types are in `galsearch info`) or rename it"
        )


def _check_unit(connection, name: str, unit: str) -> None:
    result = connection.execute(
        f'SELECT unit FROM {schema.COLUMNS_TABLE} WHERE "table" = \'galaxies\' AND "column" = $1', [name]
    ).fetchall()
    if unit and result and result[0][0] not in ("", unit):
        raise SchemaError(
            f"column '{name}' is in {unit} here and in {result[0][0]} in the atlas; convert it first, or rename it"
        )


def _insert(connection, table: str, rows: pa.Table) -> None:
    connection.register("incoming", rows)
    try:
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
    except duckdb.ConversionException as error:
        raise SchemaError(
            f"a column cannot be added to {table}: {short(error)}; "
            "give it the type it has in the atlas (`galsearch info`)"
        ) from None
    finally:
        connection.unregister("incoming")


def _describe(connection, described: pa.Schema, embeddings: Iterable[str], *, create: bool) -> None:
    """Record unit, UCD and meaning of the columns of `galaxies`; those already described are left as they are."""
    rows = [("galaxies", item.name, *_meaning(item)) for item in described]
    if create:
        rows += schema.table_columns(embeddings)
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {schema.COLUMNS_TABLE} "
        '("table" VARCHAR, "column" VARCHAR, unit VARCHAR, ucd VARCHAR, description VARCHAR)'
    )
    names = ("table", "column", "unit", "ucd", "description")
    once = {row[:2]: row for row in reversed(rows)}  # the first counts
    columns = zip(*reversed(once.values()), strict=True)
    connection.register("incoming", pa.table(dict(zip(names, map(list, columns), strict=True))))
    connection.execute(
        f"INSERT INTO {schema.COLUMNS_TABLE} SELECT * FROM incoming ANTI JOIN {schema.COLUMNS_TABLE} "
        'USING ("table", "column")'
    )
    connection.unregister("incoming")


def _meaning(item: pa.Field) -> tuple[str, str, str]:
    """Return (unit, ucd, description) as the field has them: what is ours says so, and nothing else is by its name."""
    stated = item.metadata or {}
    return tuple(stated.get(key, b"").decode() for key in (b"unit", b"ucd", b"description"))


def _rejected_table(rejected: list[dict]) -> pa.Table:
    kind = pa.schema([("object_id", pa.string()), ("file", pa.string()), ("reason", pa.string())])
    return pa.Table.from_pylist(rejected, schema=kind)
