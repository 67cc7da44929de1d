"""Where the items of a watch come from, and fetching one: a file, a member of an archive, a cut-out."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from galsearch import columns as roles
from galsearch import formats
from galsearch.discovery.watch.jobs import EMPTY as EMPTY_STATE
from galsearch.discovery.watch.jobs import FAILED, FETCHED, OUTSIDE, REJECTED, WAITING, Fetched, Item
from galsearch.discovery.watch.plan import SourcePlan
from galsearch.errors import GalsearchError
from galsearch.remote.cutouts import EMPTY, PICTURE, Answer, Client, Wanted, judged
from galsearch.remote.cutouts import OUTSIDE as OFF
from galsearch.sources.files import Archive, Folder, is_archive
from galsearch.store import open_store

Entry = tuple[str, float | None, float | None, dict[str, Any]]  # item, ra, dec, columns of its table
STATE_OF = {PICTURE: FETCHED, OFF: OUTSIDE, EMPTY: EMPTY_STATE}


class Intake:
    """One source that is open: its items, and how each is fetched. `fetch` may be called from any thread."""

    def __init__(self, plan: SourcePlan, *, seed: int = 0) -> None:
        self.plan, self._seed = plan, seed
        self._files: Folder | Archive | None = None
        self._lock = threading.Lock()  # an archive is read by one thread at a time

    def entries(self) -> Iterator[Entry]:
        """Yield all items of the source as it is now. Raises GalsearchError where it cannot be read."""
        if self.plan.kind in ("folder", "archive"):
            for name in self._opened().names:
                yield name, None, None, {}
        elif self.plan.kind == "sky":
            yield from self._of_the_sky()
        else:
            yield from self._of_a_table()

    def fetch(self, item: Item, client: Client, folder: Path, there: Path | None = None) -> Fetched:
        """Fetch an item and put its picture into `folder`, named by its object; never raises for a bad one.

        `there` is the picture of a run that was killed before it was recorded, which is taken instead.
        """
        try:
            if there is not None:
                answer = judged(there.read_bytes(), name=item.item)
            elif self.plan.service is not None:
                answer = self._cut(item, client)
            else:
                answer = self._read(item)
        except (GalsearchError, OSError) as error:
            return Fetched(item, REJECTED, str(error)[:300])
        if answer.status != PICTURE:
            if answer.passing and (client.stop.is_set() or not answer.requests):
                return Fetched(item, WAITING, answer.reason, answer.requests, tried=False)
            state = STATE_OF.get(answer.status, FAILED if answer.passing else REJECTED)
            return Fetched(item, state, answer.reason, answer.requests)
        if there is None:
            try:
                write_picture(folder / f"{stem_of(item.object_id)}{answer.suffix}", answer.content)
            except OSError as error:
                why = f"its picture cannot be written ({error.strerror or error})"
                return Fetched(item, WAITING, why, answer.requests, tried=False, unwritten=True)
        digest = hashlib.sha256(answer.content).hexdigest()
        return Fetched(item, FETCHED, None, answer.requests, answer.suffix, digest, len(answer.content))

    def _cut(self, item: Item, client: Client) -> Answer:
        assert self.plan.service is not None
        wanted = Wanted(float(item.ra or 0.0), float(item.dec or 0.0), self.plan.pixels, self.plan.arcsec_per_pixel)
        return self.plan.service.cut(client, wanted.check())

    def _read(self, item: Item) -> Answer:
        """Return a file or a member of an archive, which another try would not make better."""
        files = self._opened()
        if item.item not in self._known:
            return Answer("gone", reason="the file is not there any more")
        with self._lock:
            content = files.read(item.item)
        answer = judged(
            content.read_bytes() if isinstance(content, Path) else content, name=PurePosixPath(item.item).name
        )
        if answer.status not in STATE_OF:
            return Answer(answer.status, reason=answer.reason, passing=False)
        suffix = files.kind.suffix_of(item.item)
        return Answer(answer.status, answer.content, suffix, answer.reason)

    def _opened(self) -> Folder | Archive:
        with self._lock:
            if self._files is None:
                path = self.plan.path
                assert path is not None
                if not path.exists():
                    raise GalsearchError(f"source '{self.plan.name}': {path}: no such file or folder; mend path")
                self._files = (
                    Archive(path) if is_archive(path) else Folder(path)
                )  # empty is fine: it is looked into again
                self._known = set(self._files.names)
            return self._files

    def _of_the_sky(self) -> Iterator[Entry]:
        region, count = self.plan.region, self.plan.count or 0
        assert region is not None
        for start in range(0, count, 4096):
            for at, (ra, dec) in enumerate(
                region.draw(start, min(start + 4096, count), seed=seeded(self.plan, self._seed)), start
            ):
                yield f"{at:08d}", float(ra), float(dec), {}

    def _of_a_table(self) -> Iterator[Entry]:
        table, name = read_catalog(self.plan), f"source '{self.plan.name}'"
        positions = roles.positions(table, {}, name=name, required=True)
        column = self.plan.id_column or roles.identifier(table, {}, name=name)
        if column is not None and column not in table.column_names:
            raise GalsearchError(f"{name}: no column '{column}' in {self.plan.table}; mend id_column")
        ids = (
            table[column].cast(pa.string()).to_pylist()
            if column
            else [f"row-{row + 1:08d}" for row in range(len(table))]
        )
        facts = {each: _plain(table[each]).to_pylist() for each in self.plan.columns}
        good = np.isfinite(positions.ra) & np.isfinite(positions.dec)
        for row in range(len(table)):
            if ids[row] is None or not good[row]:
                continue
            kept = {each: values[row] for each, values in facts.items() if values[row] is not None}
            yield ids[row], float(positions.ra[row]), float(positions.dec[row]), kept


def seeded(plan: SourcePlan, seed: int) -> int:
    """Return the seed of a source's random positions: that of the plan, the source's name mixed in."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{plan.name}".encode()).digest()[:4], "big")


def column_types(plans: Sequence[SourcePlan]) -> dict[str, pa.DataType]:
    """Return the columns that the sources' tables give to the atlas: numbers are double, everything else text.

    Raises GalsearchError for a column that is not there, or is a number in one table and text in another.
    """
    result: dict[str, pa.DataType] = {}
    for plan in plans:
        if plan.kind != "cutouts" or not plan.columns:
            continue
        try:
            table = read_catalog(plan)
        except (GalsearchError, OSError):
            continue  # nothing comes from it in this run, which says why
        for name in plan.columns:
            if name not in table.column_names:
                raise GalsearchError(
                    f"source '{plan.name}': no column '{name}' in {plan.table}; there are "
                    f"{', '.join(table.column_names)}"
                )
            kind = _plain(table[name]).type
            if result.setdefault(name, kind) != kind:
                raise GalsearchError(
                    f"source '{plan.name}': column '{name}' is {kind} here and {result[name]} in another source; "
                    "rename one of them"
                )
    return result


def read_catalog(plan: SourcePlan) -> pa.Table:
    """Return the rows of a source's table, or of an atlas, that pass its condition, positions and ids included."""
    assert plan.table is not None
    if plan.table.suffix in (".atlas", ".duckdb"):
        store = open_store(plan.table)
        try:
            names = list(dict.fromkeys(["ra", "dec", *plan.columns]))
            return store.select(names, store.condition(plan.where, None, None))
        finally:
            store.close()
    if not plan.table.exists():
        raise GalsearchError(f"source '{plan.name}': {plan.table}: no such file; mend table")
    table = formats.read_table(plan.table)
    return table if plan.where is None else _passing(table, plan.where, f"source '{plan.name}'")


def _passing(table: pa.Table, where: str, name: str) -> pa.Table:
    """Return the rows of a table for which a SQL condition is true, in order; files and network are locked out."""
    numbered = table.append_column("row_of_the_table", pa.array(range(len(table)), pa.int64()))
    connection = duckdb.connect(config={"enable_external_access": "false", "threads": "1"})
    try:
        connection.register("catalog", numbered)
        connection.execute("CREATE TABLE rows AS SELECT * FROM catalog")
        connection.execute("SET lock_configuration = true")
        chosen = connection.execute(
            f"SELECT row_of_the_table FROM rows WHERE ({where}\n) ORDER BY row_of_the_table"
        ).fetchnumpy()["row_of_the_table"]
    except duckdb.Error as error:
        first = str(error).splitlines()[0][:200]
        raise GalsearchError(f"{name}: where = {where!r:.80} is no condition on the table: {first}; mend it") from None
    finally:
        connection.close()
    return table.take(pa.array(np.asarray(chosen)))


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as doubles where it has numbers, else as text."""
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    kind = pa.float64() if any(each(values.type) for each in numeric) else pa.string()
    return values.cast(kind, safe=False)


def stem_of(object_id: str) -> str:
    """Return what the picture of an object is called, without suffix: the same whatever its number is."""
    return hashlib.sha256(object_id.encode()).hexdigest()[:32]


def write_picture(path: Path, content: bytes) -> None:
    """Write a picture, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
