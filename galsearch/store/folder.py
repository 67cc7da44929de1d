"""The folder: facts in `galaxies.duckdb`, vectors and pictures in Lance tables that are only ever appended to.

`galaxies.duckdb` names the Lance versions that belong to it, so renaming that one file commits everything: rows that
a killed writer left behind in Lance belong to no committed version and are rolled back by the next writer.
`vectors.lance` is a LanceDB database; LanceDB itself opens it.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.ipc

from galsearch import schema
from galsearch.errors import FormatError, GalsearchError, SchemaError
from galsearch.store import cells, macros
from galsearch.store.bundle import create_table, read_card, write_manifest
from galsearch.store.facts import Ask, Found, Store, complete, cosines, settled, vectors
from galsearch.store.sandbox import quoted

FACTS = "galaxies.duckdb"
LANCE = "vectors.lance"
MODELS = "models"
THUMBNAILS = "thumbnails"
VERSIONS = schema.LANCE_VERSIONS
BATCH_ROWS = 8_192
OVERFETCH = 2.0
MOST_FETCHED = 50_000
_STAGED = "galsearch:"


class FolderStore(Store):
    """An atlas in a folder."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        if not (path / FACTS).is_file():
            raise FormatError(
                f"{path}: no {FACTS} inside, so this folder is not an atlas (or its build was interrupted: "
                "run the same `galsearch build` again and it goes on)"
            )
        super().__init__(path, path / FACTS)
        try:
            self._lance = self._open_all()
        except BaseException:
            self.close()
            raise

    def _open_all(self) -> dict[str, lance.LanceDataset]:
        versions = self.manifest.extra.get(VERSIONS)
        if not isinstance(versions, dict):
            raise FormatError(f"{self.path}: the manifest has no {VERSIONS}; copy the folder again, or rebuild it")
        absent = sorted({"galaxies", schema.COLUMNS_TABLE} - self.tables) or sorted(
            f"rows_{name}" for name in versions if f"rows_{name}" not in self.tables
        )
        if absent:
            raise FormatError(f"{self.path}: table {absent[0]} is missing; copy the folder again, or rebuild it")
        unnamed = sorted(set(self.manifest.embeddings) - set(versions))
        if unnamed:
            raise FormatError(f"{self.path}: the manifest names no Lance version for '{unnamed[0]}'; rebuild the atlas")
        return {name: self._open_lance(name, version) for name, version in versions.items()}

    def _open_lance(self, name: str, version: int) -> lance.LanceDataset:
        with self._reading(name, f"version {version}"):
            return lance.dataset(str(self.path / LANCE / f"{name}.lance"), version=version)

    @contextmanager
    def _reading(self, name: str, what: str = "rows") -> Iterator[None]:
        """Say in words what Lance raises on damaged files; on some it panics, which is no Exception."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, (ValueError, OSError, RuntimeError)) and type(error).__name__ != "PanicException":
                raise
            raise FormatError(
                f"{self.path}: {what} of {LANCE}/{name}.lance cannot be read ({_short(error)}); "
                "copy the whole folder again, or rebuild the atlas"
            ) from None

    def fact_tables(self) -> set[str]:
        """Return the tables that hold facts, not the store's own bookkeeping."""
        return {name for name in self.tables if not name.startswith("rows_")} - {schema.MANIFEST_TABLE}

    def embeddings(self, embedding: str, ids: Sequence[str]) -> np.ndarray:
        """Return the stored unit vectors of `ids`, `(n, d) float32`, in that order; all ids must have one."""
        self._space(embedding)
        return self._vectors_of(ids, self._take(embedding, self._places(embedding, ids)))

    def embedding_batches(self, embedding: str) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield (ids, vectors) of every row, in stored order."""
        names = ["object_id", "embedding"]
        with self._reading(embedding):
            for batch in self._lance[embedding].to_batches(columns=names, batch_size=BATCH_ROWS):
                yield batch["object_id"].to_pylist(), vectors(batch["embedding"])

    def sample(self, embedding: str, places: np.ndarray) -> np.ndarray:
        """Return the vectors stored at the row numbers `places`."""
        return vectors(self._take(embedding, places.tolist())["embedding"])

    def has_thumbnails(self) -> bool:
        """Say whether there are pictures."""
        return THUMBNAILS in self._lance

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures (WebP bytes) of `ids`; ids without one are absent."""
        if not self.has_thumbnails():
            return {}
        found = self._take(THUMBNAILS, self._places(THUMBNAILS, ids))
        return dict(zip(found["object_id"].to_pylist(), found["image"].to_pylist(), strict=True))

    def models(self) -> list[str]:
        """Return the names of the models that travel with the atlas."""
        return sorted(item.parent.name for item in (self.path / MODELS).glob("*/card.json"))

    def model(self, name: str) -> tuple[dict, bytes, bytes | None] | None:
        """Return (card, ONNX bytes, tokenizer bytes) of a model, or None when the atlas has none by that name."""
        folder = self.path / MODELS / name
        if not (folder / "card.json").is_file():
            return None
        tokenizer = folder / "tokenizer.json"
        if not (folder / "model.onnx").is_file():
            raise FormatError(f"{folder}: model.onnx is missing; copy the whole atlas again")
        return (
            read_card((folder / "card.json").read_bytes(), str(folder)),
            (folder / "model.onnx").read_bytes(),
            tokenizer.read_bytes() if tokenizer.is_file() else None,
        )

    def corrupt_tables(self) -> list[str]:
        """Read every value of every table and return the messages of those that cannot be read."""
        bad = []
        for name in sorted(self.tables):
            try:
                self.sandbox.rows(f'SELECT bit_xor(hash(t)) FROM "{name}" t')
            except FormatError as error:
                bad.append(f"table {name}: {error}")
        for name, dataset in self._lance.items():
            try:
                with self._reading(name):
                    for _ in dataset.to_batches(batch_size=BATCH_ROWS):
                        pass
            except FormatError as error:
                bad.append(str(error))
        return bad

    def _places(self, table: str, ids: Sequence[str]) -> list[int]:
        found = self.sandbox.rows(
            f"SELECT row FROM rows_{table} WHERE object_id IN (SELECT unnest($1::VARCHAR[])) ORDER BY row",
            [list(ids)],
        )
        return [row for (row,) in found]

    def _take(self, table: str, places: list[int]) -> pa.Table:
        if not places:
            return self._lance[table].schema.empty_table()
        with self._reading(table):
            return self._lance[table].take(places)

    def holders(self, embedding: str) -> str:
        return f"SELECT object_id FROM rows_{embedding}"

    def _cells(self, embedding: str) -> int:
        indexes = [index for index in self._lance[embedding].describe_indices() if "embedding" in index.field_names]
        return cells.cell_count(self._space(embedding)["rows"]) if indexes else 0

    def _exact(self, ask: Ask) -> Found:
        if ask.condition is None:
            return *complete(lambda size: self._scan(ask, size, use_index=False), ask), ask.matches
        places = self._matching(ask)
        ids: list[str] = []
        best = np.empty((0, len(ask.query)), dtype=np.float32)
        for start in range(0, len(places), BATCH_ROWS):
            part = self._take(ask.embedding, places[start : start + BATCH_ROWS])
            ids, best = _keep_best(ids + part["object_id"].to_pylist(), [best, vectors(part["embedding"])], ask)
        return ids, best, len(places)

    def _matching(self, ask: Ask) -> list[int]:
        found = self.sandbox.ask(
            f"SELECT row FROM rows_{ask.embedding} "
            f"WHERE object_id IN (SELECT object_id FROM galaxies WHERE {ask.condition}) ORDER BY row",
            said="where",
        )
        return found["row"].to_pylist()

    def _ivf(self, ask: Ask, probes: int) -> Found:
        """Ask Lance's index; under a cut, ask for more rows and keep those that pass, until enough do."""
        rows = self._space(ask.embedding)["rows"]
        scanned = rows * probes // self._cells(ask.embedding)
        if ask.condition is None:
            return *complete(lambda size: self._scan(ask, size, probes=probes), ask), scanned
        passing = set(self._passing(ask.condition))
        fetch = int(ask.wanted * rows / ask.matches * OVERFETCH) + ask.wanted
        while fetch <= MOST_FETCHED:
            ids, found = self._scan(ask, fetch, probes=probes)
            kept = [place for place, object_id in enumerate(ids) if object_id in passing]
            enough = len(kept) >= ask.wanted and settled(cosines(found[kept], ask.query), ask.wanted)
            if enough or len(ids) < fetch:
                return [ids[place] for place in kept], found[kept], scanned
            fetch *= 4
        return [], np.empty((0, len(ask.query))), scanned  # too many to sift: the planner compares the matches

    def _passing(self, condition: str) -> list[str]:
        found = self.sandbox.ask(f"SELECT object_id FROM galaxies WHERE {condition}", said="where")
        return found["object_id"].to_pylist()

    def _scan(
        self, ask: Ask, wanted: int, *, probes: int | None = None, use_index: bool = True
    ) -> tuple[list[str], np.ndarray]:
        """Return the `wanted` rows that Lance ranks first; fewer only when it has no more."""
        asked = {"column": "embedding", "q": ask.query, "k": wanted, "metric": "cosine", "use_index": use_index}
        if probes:
            asked["nprobes"] = probes
        with self._reading(ask.embedding):
            found = self._lance[ask.embedding].to_table(nearest=asked, columns=["object_id", "embedding", "_distance"])
        return found["object_id"].to_pylist(), vectors(found["embedding"])

    def _register(self, embed: Callable[[str], np.ndarray]) -> None:
        super()._register(embed)
        spaces = self.manifest.embeddings
        tables = {f"embedding_{name}": self._lance[name] for name in spaces}
        self.sandbox.register_tables(tables, macros.folder_macros({name: s["dim"] for name, s in spaces.items()}))


def _keep_best(ids: list[str], parts: list[np.ndarray], ask: Ask) -> tuple[list[str], np.ndarray]:
    found = np.concatenate(parts)
    order = np.lexsort((np.array(ids, dtype=object), -cosines(found, ask.query)))[: ask.wanted]
    return [ids[place] for place in order], found[order]


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]


# ---- writing


def is_folder_atlas(path: Path) -> bool:
    """Say whether `path` is the folder of an atlas, a damaged one included, or an empty folder."""
    return path.is_dir() and ((path / FACTS).is_file() or not any(path.iterdir()))


def staged(name: str) -> str:
    """Return the column of a batch that holds the vectors of an embedding or the pictures; no input's column has it."""
    return f"{_STAGED}{name}"


class Staging:
    """Work in progress beside an atlas: finished batches that survive an interruption, and the lock of the one writer.

    `plan` is everything that decides the result; an interrupted run is resumed only under the same plan, any other
    starts afresh. Use as a context manager; it stays on disk unless committed or discarded.
    """

    def __init__(self, path: Path, plan: dict) -> None:
        self.path = path
        self.folder = path.with_name(path.name + ".partial")
        self.plan = plan

    def __enter__(self) -> Staging:
        with _disk_errors(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise GalsearchError(
                f"{self.path}: another galsearch is writing this atlas now; wait until it ends, then run this again"
            ) from None
        try:
            with _disk_errors(self.path):
                self._resume()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _resume(self) -> None:
        saved = self.folder / "plan.json"
        text = json.dumps(self.plan, sort_keys=True)
        if not (saved.exists() and saved.read_text() == text):
            shutil.rmtree(self.folder / "batches", ignore_errors=True)
            saved.write_text(text)
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        old = self.folder / "old"
        if old.exists() and not self.path.exists():
            old.replace(self.path)  # killed between the two renames of a replacement
        (self.folder / "batches").mkdir(exist_ok=True)

    def done(self) -> set[int]:
        """Return the numbers of the batches that are finished."""
        return {int(item.stem) for item in (self.folder / "batches").glob("*.arrow")}

    def put(self, number: int, table: pa.Table, rejected: list[dict]) -> None:
        """Keep a finished batch: its rows, and what was left out as {object_id, file, reason}."""
        target = self._batch(number)
        partial = target.with_suffix(".partial")
        kept = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), b"rejected": json.dumps(rejected).encode()}
        )
        with _disk_errors(self.path):
            with pa.OSFile(str(partial), "wb") as sink, pyarrow.ipc.new_file(sink, kept.schema) as writer:
                writer.write_table(kept)
            partial.replace(target)

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

    def discard(self) -> None:
        """Remove everything that is staged."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(
        self,
        manifest: schema.Manifest,
        record: dict,
        *,
        models: dict[str, Path],
        concepts: pa.Table | None,
        rejected: list[dict],
    ) -> None:
        """Turn the batches into a new atlas, replacing one that is there only when all went well.

        `models` maps a name to the folder that is copied in; `rejected` is what was left out before batching.
        """
        out = self.folder / "out"
        with _disk_errors(self.path):
            shutil.rmtree(out, ignore_errors=True)
            (out / LANCE).mkdir(parents=True)
            for name, folder in models.items():
                shutil.copytree(folder, out / MODELS / name)
            connection = duckdb.connect()
            try:
                connection.execute(f"ATTACH {quoted(out / FACTS)} AS facts")
                connection.execute("USE facts")
                self._fill(connection, out, manifest, record, concepts=concepts, rejected=rejected)
                connection.execute("CHECKPOINT facts")
            finally:
                connection.close()
            FolderStore(out).close()
            self._put_in_place(out)

    def _fill(self, connection, out: Path, manifest, record, *, concepts, rejected) -> None:
        empty = pa.table({"phrase": pa.array([], pa.string()), "embedding": pa.array([], pa.list_(pa.float32()))})
        create_table(connection, "concepts", empty if concepts is None else concepts)
        create_table(connection, "rejected", _rejected_table(rejected + self.rejected()))
        self._append(connection, out, manifest, record, {}, create=True)
        for statement in macros.facts_macros():
            connection.execute(statement)

    def _put_in_place(self, out: Path) -> None:
        old = self.folder / "old"
        shutil.rmtree(old, ignore_errors=True)
        if self.path.exists():
            self.path.replace(old)
        out.replace(self.path)
        self.discard()

    def append(self, record: dict, *, rejected: list[dict]) -> None:
        """Add the batches to the atlas that is there; readers see it before or after, never between."""
        facts, partial = self.path / FACTS, self.path / (FACTS + ".partial")
        store = FolderStore(self.path)
        manifest = store.manifest
        store.close()
        if manifest.rows != self.plan.get("to", manifest.rows):
            raise GalsearchError(f"{self.path}: another galsearch has added to it meanwhile; run this again")
        with _disk_errors(self.path):
            try:
                shutil.copyfile(facts, partial)
                connection = duckdb.connect(partial)
                try:
                    _insert(connection, "rejected", _rejected_table(rejected + self.rejected()))
                    self._append(connection, self.path, manifest, record, manifest.extra[VERSIONS], create=False)
                    connection.execute("CHECKPOINT")
                finally:
                    connection.close()
                partial.replace(facts)
            finally:
                partial.unlink(missing_ok=True)
        self.discard()

    def _append(self, connection, out: Path, manifest, record, versions: dict[str, int], *, create: bool) -> None:
        """Write the batches' rows to DuckDB, their vectors and pictures to Lance, and the manifest."""
        columns = self._append_galaxies(connection, create=create)  # first: refused columns leave Lance alone
        _describe(connection, columns, manifest.embeddings, create=create)
        stored = {**manifest.embeddings, **({THUMBNAILS: {}} if self._has_thumbnails() else {})}
        versions = dict(versions)
        for name in stored:
            versions[name], first = self._append_lance(out, name, versions.get(name))
            self._map_rows(connection, name, first)
        spaces = {
            name: {**space, "rows": connection.execute(f"SELECT count(*) FROM rows_{name}").fetchall()[0][0]}
            for name, space in manifest.embeddings.items()
        }
        rows = connection.execute("SELECT count(*) FROM galaxies").fetchall()[0][0]
        extra = {**manifest.extra, VERSIONS: versions}
        write_manifest(connection, manifest, record, rows=rows, embeddings=spaces, extra=extra)

    def _has_thumbnails(self) -> bool:
        return any(staged(THUMBNAILS) in table.column_names for table in self.batches())

    def _append_lance(self, out: Path, name: str, version: int | None) -> tuple[int, int]:
        """Append a column of the batches to its Lance table; return the version written and the first row number."""
        column = staged(name)
        parts = [table.select(["object_id", column]) for table in self.batches() if column in table.column_names]
        target = "image" if name == THUMBNAILS else "embedding"
        parts = [part.rename_columns(["object_id", target]) for part in parts]
        uri = str(out / LANCE / f"{name}.lance")
        if version is None:
            dataset = lance.write_dataset(pa.concat_tables(parts).replace_schema_metadata(None), uri, mode="create")
            first = 0
        else:
            first = _rolled_back(uri, version)
            dataset = lance.write_dataset(pa.concat_tables(parts).replace_schema_metadata(None), uri, mode="append")
        if target == "embedding":
            dataset = _indexed(dataset)
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
        rows = pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({})
        if create:
            create_table(connection, "galaxies", rows)
        else:
            _add_columns(connection, rows)
            _insert(connection, "galaxies", rows)
        return rows.schema


def _rolled_back(uri: str, version: int) -> int:
    """Return the row count of the committed version, making it the latest if a killed writer left more."""
    dataset = lance.dataset(uri, version=version)
    if dataset.latest_version != version:
        dataset.restore()
    return dataset.count_rows()


def _indexed(dataset: lance.LanceDataset) -> lance.LanceDataset:
    """Build the IVF index once there are enough rows for one; rows added later are compared one by one until then."""
    if dataset.count_rows() > macros.EXACT_ROWS and not dataset.describe_indices():
        count = cells.cell_count(dataset.count_rows())
        dataset.create_index("embedding", "IVF_FLAT", metric="cosine", num_partitions=count)
    return dataset


def _add_columns(connection, rows: pa.Table) -> None:
    """Make room for the columns of `rows`; SchemaError for one that has another type or unit in the atlas."""
    known = _types(connection, "galaxies")
    connection.register("incoming", rows)
    for name, kind in _types(connection, "incoming").values():
        there = known.get(name.casefold())
        if there is None:
            connection.execute(f"ALTER TABLE galaxies ADD COLUMN {_quoted(name)} {kind}")
        else:
            _check_values(connection, name, kind, there[1])
            _check_unit(connection, there[0], _meaning(rows.schema.field(name))[0])
    connection.unregister("incoming")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _types(connection, table: str) -> dict[str, tuple[str, str]]:
    """Return (name, type) of the columns by folded name."""
    found = connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()
    return {name.casefold(): (name, kind) for name, kind in found}


def _check_values(connection, name: str, kind: str, there: str) -> None:
    """Raise SchemaError unless every value comes back the same from the type of the atlas; floats may lose digits."""
    if kind == there or (kind, there) == ("DOUBLE", "FLOAT"):
        return
    changed = connection.execute(
        f"SELECT {_quoted(name)} FROM incoming WHERE {_quoted(name)} IS NOT NULL AND "
        f"TRY_CAST(TRY_CAST({_quoted(name)} AS {there}) AS {kind}) IS DISTINCT FROM {_quoted(name)} LIMIT 1"
    ).fetchall()
    if changed:
        raise SchemaError(
            f"column '{name}' is {there} in the atlas, which cannot hold {changed[0][0]!r}; "
            "convert it (types are in `galsearch info`) or rename it"
        )


def _check_unit(connection, name: str, unit: str) -> None:
    found = connection.execute(
        f'SELECT unit FROM {schema.COLUMNS_TABLE} WHERE "table" = \'galaxies\' AND "column" = $1', [name]
    ).fetchall()
    if unit and found and found[0][0] not in ("", unit):
        raise SchemaError(
            f"column '{name}' is in {unit} here and in {found[0][0]} in the atlas; convert it first, or rename it"
        )


def _insert(connection, table: str, rows: pa.Table) -> None:
    connection.register("incoming", rows)
    try:
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
    except duckdb.ConversionException as error:
        raise SchemaError(
            f"a column cannot be added to {table}: {_short(error)}; "
            "give it the type it has in the atlas (`galsearch info`)"
        ) from None
    finally:
        connection.unregister("incoming")


def _describe(connection, columns: pa.Schema, embeddings: Iterable[str], *, create: bool) -> None:
    """Record unit, UCD and meaning of the columns of `galaxies`; those already described are left as they are."""
    rows = [("galaxies", item.name, *_meaning(item)) for item in columns]
    if create:
        rows += schema.table_columns(embeddings)
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {schema.COLUMNS_TABLE} "
        '("table" VARCHAR, "column" VARCHAR, unit VARCHAR, ucd VARCHAR, description VARCHAR)'
    )
    connection.executemany(
        f"INSERT INTO {schema.COLUMNS_TABLE} SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (FROM {schema.COLUMNS_TABLE} "
        'WHERE "table" = $1 AND "column" = $2)',
        rows,
    )


def _meaning(item: pa.Field) -> tuple[str, str, str]:
    """Return (unit, ucd, description): what the input said, else what the schema knows by that name, else empty."""
    said = item.metadata or {}
    known = schema.GALAXIES.get(item.name)
    fallback = (known.unit, known.ucd, known.description) if known else ("", "", "")
    keys = (b"unit", b"ucd", b"description")
    return tuple(said.get(key, b"").decode() or other for key, other in zip(keys, fallback, strict=True))


def _rejected_table(rejected: list[dict]) -> pa.Table:
    kind = pa.schema([("object_id", pa.string()), ("file", pa.string()), ("reason", pa.string())])
    return pa.Table.from_pylist(rejected, schema=kind)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.FatalException, OSError) as error:
        raise GalsearchError(
            f"{path}: could not be written ({_short(error)}); free some space or choose another folder, then run the "
            "same command again: it goes on where it stopped. Nothing that was there has changed"
        ) from None
