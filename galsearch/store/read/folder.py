"""The folder, read: facts in `galaxies.duckdb`, vectors and pictures in Lance tables beside it.

`galaxies.duckdb` names the versions of the Lance tables that belong to it, and they are opened at those versions: what
a writer has appended since is not seen until it renames its new `galaxies.duckdb` into place. `vectors.lance` is a
LanceDB database; LanceDB itself opens it.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import FormatError
from galsearch.store.files import DELETED_FILE, check_folder, file_digest, inside, state_of
from galsearch.store.index.vectors import MapError
from galsearch.store.read.base import (
    BATCH_ROWS,
    MOST_PICTURE_BYTES,
    BaseStore,
    Stored,
    check_model_name,
    read_card,
    vectors,
)
from galsearch.store.read.spectra import SPECTRA, by_ids, checked_spectra, no_spectra
from galsearch.store.sql import macros
from galsearch.store.sql.sandbox import short

FACTS = "galaxies.duckdb"
LANCE = "vectors.lance"
MODELS = "models"
THUMBNAILS = "thumbnails"
VERIFIED_BYTES = 1 << 28  # of a Lance table whose digests are compared before it is read, some .2 s
VECTORS = ["object_id", "embedding"]  # the columns of a table of vectors
VERSIONS = schema.LANCE_VERSIONS
FILES = schema.FILE_DIGESTS


class FolderStore(BaseStore):
    """An atlas in a folder."""

    kind = "folder"
    grows = True

    def __init__(self, path: Path) -> None:
        if not (path / FACTS).is_file():
            raise FormatError(
                f"{path}: no {FACTS} inside, so this folder is not an atlas (or its build was interrupted: "
                "run the same `galsearch build` again and it goes on)"
            )
        check_folder(path)
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
        for name, version in versions.items():
            if name not in self.manifest.embeddings and name not in schema.KEPT:
                raise FormatError(f"{self.path}: version of a Lance table {name!r:.40} that is none; rebuild the atlas")
            if type(version) is not int or not 0 < version < 1 << 63:
                raise FormatError(f"{self.path}: version {version!r:.40} of {name} is none; rebuild the atlas")
        files = self.manifest.extra.get(FILES, {})
        if not (isinstance(files, dict) and all(type(digest) is int for digest in files.values())):
            raise FormatError(f"{self.path}: manifest entry '{FILES}' is no list of digests; copy the folder again")
        self._check_deleted()
        self._data: dict[str, list[tuple[Path, tuple[int, int]]]] = {}
        self._verified: set[str] = set()
        return {name: self._open_lance(name, version) for name, version in versions.items()}

    def _check_deleted(self) -> None:
        """Raise FormatError unless the manifest says of deletions what writers and the check rely on."""
        entries = self.manifest.extra.get(schema.DELETED, [])
        for entry in entries if isinstance(entries, list) else [None]:
            stated = entry if isinstance(entry, dict) else {}
            if not DELETED_FILE.fullmatch(str(stated.get("file"))) or type(stated.get("objects")) is not int:
                raise FormatError(
                    f"{self.path}: manifest entry '{schema.DELETED}' is no list of deletions; copy the folder again"
                )

    def _open_lance(self, name: str, version: int) -> lance.LanceDataset:
        """Open a table at a version, after a look at what it says of itself and of its files."""
        home = self.path / LANCE / f"{name}.lance"
        with self._reading(name, f"version {version}"):
            table = lance.dataset(str(home), version=version)
            files = [file for part in table.get_fragments() for file in part.data_files()]
            kinds = {field.name: field.type for field in table.schema}
            rows = table.count_rows()
        if any(getattr(file, "base_id", None) is not None for file in files):
            raise FormatError(f"{home}: has data outside the atlas; copy the whole folder again, or rebuild the atlas")
        paths = [inside(self.path, f"{LANCE}/{name}.lance/data/{file.path}") for file in files]
        wanted = {"object_id": pa.string(), **self._columns_of(name)}
        if any(kinds.get(column) != kind for column, kind in wanted.items()):
            raise FormatError(f"{home}: its columns are {kinds}, expected {wanted}; rebuild it")
        if rows > self._catalog.rows[f"rows_{name}"]:
            raise FormatError(
                f"{self.path}: {name}.lance has {rows} rows and rows_{name} names "
                f"{self._catalog.rows[f'rows_{name}']} of them; copy the folder again, or rebuild it"
            )
        self._data[name] = [(path, state) for path in paths if (state := _state(path)) is not None]
        return table

    def _columns_of(self, name: str) -> dict[str, pa.DataType]:
        """Return the columns of a Lance table beside object_id."""
        if name in schema.KEPT:
            return schema.kept_columns(name)
        return {"embedding": pa.list_(pa.float32(), self.manifest.embeddings[name]["dim"])}

    def _check_data(self, name: str) -> None:
        """Raise FormatError when a data file of a Lance table was changed since the atlas was opened."""
        for path, state in self._data[name]:
            if _state(path) not in (state, None):  # gone: Lance says so, and goes on where it has it open
                raise FormatError(f"{path}: was changed while it was open; open the atlas again")

    def _verify(self, name: str) -> None:
        """Raise FormatError where the files of a Lance table are not those of the manifest; once, before they are read.

        Lance asks for as much memory as a damaged file says, and ends the process where there is less. Large files,
        whose digests take longer than the reading, are left to `check`.
        """
        if name in self._verified or sum(size for _, (size, _) in self._data[name]) > VERIFIED_BYTES:
            return
        for path, _ in self._data[name]:
            if changed := self._changed(path):
                raise FormatError(f"{changed}; copy the whole folder again, or rebuild the atlas")
        self._verified.add(name)

    @contextmanager
    def _reading(self, name: str, what: str = "rows") -> Iterator[None]:
        """Say in words what Lance raises on damaged files; on some it panics, which is no Exception."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, (ValueError, OSError, RuntimeError)) and type(error).__name__ != "PanicException":
                raise
            self.sandbox.check_open()
            raise FormatError(
                f"{self.path}: {what} of {LANCE}/{name}.lance cannot be read ({short(error)}); "
                "copy the whole folder again, or rebuild the atlas"
            ) from None

    def holds(self, table: str) -> bool:
        """Say whether there are rows for objects in `table`, "thumbnails" or "spectra"."""
        return table in self._lance

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures (WebP bytes) of `ids`; ids without one are absent."""
        if not self.holds(THUMBNAILS):
            return {}
        result = self._take(THUMBNAILS, self._vector_rows(THUMBNAILS, ids))
        pictures = zip(result["object_id"].to_pylist(), result["image"].to_pylist(), strict=True)
        return {name: image for name, image in pictures if image is not None and len(image) <= MOST_PICTURE_BYTES}

    def spectra(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of the table `spectra` for `ids`, in that order; ids without one are absent."""
        if not self.holds(SPECTRA):
            return no_spectra()
        return by_ids(checked_spectra(self._take(SPECTRA, self._vector_rows(SPECTRA, ids)), self.path), ids)

    def models(self) -> list[str]:
        """Return the names of the models that travel with the atlas."""
        names = sorted(item.parent.name for item in (self.path / MODELS).glob("*/card.json"))
        return [check_model_name(name, self.path) for name in names if self._belongs(name)]

    def _belongs(self, model: str) -> bool:
        """Say whether a model is part of the atlas: one of another kind of data is copied before its vectors commit."""
        manifest = self.manifest
        is_main = model == schema.MAIN or manifest.main_embedding is None
        return is_main or manifest.embedding_of_model(model) is not None

    def model(self, name: str) -> tuple[dict, bytes, bytes | None] | None:
        """Return (card, ONNX bytes, tokenizer bytes) of a model, or None when the atlas has none by that name."""
        folder = inside(self.path, f"{MODELS}/{name}")
        if not inside(self.path, f"{MODELS}/{name}/card.json").is_file():
            return None
        tokenizer = inside(self.path, f"{MODELS}/{name}/tokenizer.json")
        if not inside(self.path, f"{MODELS}/{name}/model.onnx").is_file():
            raise FormatError(f"{folder}: model.onnx is missing; copy the whole atlas again")
        if changed := self._changed(folder / "card.json"):
            raise FormatError(f"{changed}; copy the whole atlas again")
        return (
            read_card((folder / "card.json").read_bytes(), str(folder)),
            (folder / "model.onnx").read_bytes(),
            tokenizer.read_bytes() if tokenizer.is_file() else None,
        )

    def corrupt_tables(self) -> list[str]:
        """Read every value of every table and return the messages of those that cannot be read."""
        bad = super().corrupt_tables()
        for name in self._lance:
            try:
                for _ in self._scan(name):
                    pass
            except FormatError as error:
                bad.append(str(error))
        files = [name for name in self.manifest.extra.get(FILES, {}) if name.startswith(LANCE)]
        return bad + [stated for name in sorted(files) if (stated := self._changed(inside(self.path, name)))]

    def _changed(self, file: Path) -> str | None:
        """Return what is wrong with a file whose digest the manifest has; None when nothing is, or it has none."""
        stated = self.manifest.extra.get(FILES, {}).get(file.relative_to(self.path).as_posix())
        if not file.is_file():
            return f"{file}: missing"
        return (
            None if stated is None or file_digest(file) == stated else f"{file}: its digest is not that of the manifest"
        )

    def lance_rows(self, table: str, ids: Sequence[str]) -> np.ndarray:
        """Return the row numbers of a Lance table that objects have there, ascending."""
        return np.array(self._vector_rows(table, ids), np.int64)

    def lance_table(self, table: str, indices: list[int]) -> pa.Table:
        """Return rows of a Lance table by their numbers, in that order."""
        return self._take(table, indices)

    def lance_count(self, table: str) -> int:
        """Return how many rows a Lance table has."""
        return self._counts[table]

    def _vector_rows(self, table: str, ids: Sequence[str]) -> list[int]:
        result = self.sandbox.rows(
            f"SELECT row FROM rows_{table} WHERE object_id IN (SELECT unnest($1::VARCHAR[])) ORDER BY row",
            [list(ids)],
        )
        return [row for (row,) in result]

    def _take(self, table: str, indices: list[int]) -> pa.Table:
        if not indices:
            return self._lance[table].schema.empty_table()
        if not 0 <= min(indices) <= max(indices) < self._counts[table]:
            raise FormatError(f"{self.path}: rows_{table} names rows that {table}.lance has not; copy the folder again")
        self._verify(table)
        with self._reading(table):
            result = self._lance[table].take(indices)
            result.validate(full=True)  # text that is not UTF-8 for one
        self._check_data(table)
        return result

    def holders(self, embedding: str) -> str:
        return f"SELECT object_id, row AS place FROM rows_{embedding}"

    def vector_count(self, embedding: str) -> int:
        self._space(embedding)
        return self._counts[embedding]

    @functools.cached_property
    def _counts(self) -> dict[str, int]:
        return {name: table.count_rows() for name, table in self._lance.items()}

    def _map_file(self, file: str | None) -> Path:
        if file is None:
            raise MapError("numbers of a folder lie in its Lance files")
        return inside(self.path, file)

    def _fetch(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        self._verify(embedding)
        with self._reading(embedding):
            result = vectors(self._lance[embedding].take(rows.tolist(), columns=["embedding"])["embedding"])
        self._check_data(embedding)
        return result

    def stored(self, embedding: str) -> Iterator[Stored]:
        self._space(embedding)
        for batch in self._scan(embedding, VECTORS):
            yield Stored(batch["object_id"], vectors(batch["embedding"]))

    def _scan(self, name: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield all rows of a Lance table, in order.

        They are taken by their numbers, which is as quick. What Lance says of a damaged file in the midst of a scan of
        its own goes through Arrow's C interface, and ends the process where there is a zero byte in it.
        """
        self._verify(name)
        for start in range(0, self._counts[name], BATCH_ROWS):
            with self._reading(name):
                stop = min(start + BATCH_ROWS, self._counts[name])
                result = self._lance[name].take(list(range(start, stop)), columns=columns)
                result.validate(full=True)  # text that is not UTF-8, for one
            yield from result.combine_chunks().to_batches()

    def _register(self, embed: Callable[[str, str], np.ndarray]) -> None:
        super()._register(embed)
        spaces = self.manifest.embeddings
        tables: dict[str, object] = {f"embedding_{name}": _Scanned(weakref.ref(self), name) for name in spaces}
        if self.holds(SPECTRA):
            tables[SPECTRA] = _Scanned(weakref.ref(self), SPECTRA)
        self.sandbox.register_tables(tables)
        self.sandbox.define(macros.folder_macros(spaces) + macros.vote_macros(spaces, self.tables, temp=macros.OURS))


@dataclass(frozen=True)
class _Scanned:
    """A Lance table of a folder as DuckDB reads it: anew for each statement.

    DuckDB holds it, and would keep alive what it holds.
    """

    store: weakref.ref[FolderStore]
    name: str

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        store = self.store()
        if store is None:  # nobody asks any more
            raise FormatError("the atlas was closed")
        kind = pa.schema([("object_id", pa.string()), *store._columns_of(self.name).items()])
        result = store._scan(self.name, kind.names)
        return pa.RecordBatchReader.from_batches(kind, (batch.cast(kind) for batch in result)).__arrow_c_stream__(
            requested_schema
        )


def _state(path: Path) -> tuple[int, int] | None:
    """Return size and time of change of a file; None when it is not there."""
    try:
        result = path.stat()
    except FileNotFoundError:
        return None
    return state_of(result)


def is_folder_atlas(path: Path) -> bool:
    """Say whether `path` is the folder of an atlas, a damaged one included, or an empty folder."""
    return path.is_dir() and ((path / FACTS).is_file() or not any(path.iterdir()))
