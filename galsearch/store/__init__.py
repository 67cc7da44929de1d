"""An atlas on disk: facts in DuckDB, vectors in Lance or in the same DuckDB file. The only door to both engines.

Reading creates nothing. Writing goes aside and is renamed when complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from galsearch.errors import FormatError, QueryError
from galsearch.escaping import check_path
from galsearch.store.files import Content
from galsearch.store.index.kernel import description as comparing
from galsearch.store.index.search import Tuning
from galsearch.store.interface import Store
from galsearch.store.read.base import BaseStore
from galsearch.store.read.bundle import BundleStore
from galsearch.store.read.spectra import each_row as each_spectrum
from galsearch.workers import Limits, Pool, ShownByName

ELSEWHERE = Tuning(held_rows=0, held_ids=0)  # no column is read as a whole for the sake of a few rows

__all__ = [
    "Batches",
    "Rows",
    "Staging",
    "Store",
    "Tuning",
    "compact",
    "comparing",
    "delete_rows",
    "drop_rows",
    "each_spectrum",
    "fixed_size_list",
    "is_folder_atlas",
    "open_for_visitors",
    "open_store",
    "open_stores",
    "put_rows",
    "restore_rows",
    "staged",
    "write_bundle",
]


def open_store(path: Path | Content, *, tuning: Tuning | None = None) -> BaseStore:
    """Open the atlas at `path`: a folder `name.atlas` or a bundle `name.duckdb`; `tuning` is how it is read.

    A bundle that lies elsewhere is given as what reads it, and closed with the store. Raises FormatError when there is
    nothing, or nothing that is an atlas.
    """
    if isinstance(path, Path):
        store = _opened(path)
        store.tuning = tuning or store.tuning
    else:
        store = BundleStore(path.path, path)
        store.tuning = tuning or ELSEWHERE
    return store


def _opened(path: Path) -> BaseStore:
    check_path(path)
    if path.is_dir():
        from galsearch.store.read.folder import FolderStore

        return FolderStore(path)
    if str(path).startswith(("http:/", "https:/")):
        raise FormatError(
            f"{path}: this is done with an atlas on this machine, and not behind an address; download the file first"
        )
    if not path.exists():
        raise FormatError(
            f"{path}: no such file or folder; an atlas is a folder 'name.atlas' or a file 'name.duckdb', "
            "make one with `galsearch build` or try `galsearch demo`"
        )
    if path.stat().st_size == 0:
        raise FormatError(f"{path}: the file is empty; copy the bundle again from its source")
    return BundleStore(path)


def open_stores(paths: Sequence[Path | Content], *, tuning: Tuning | None = None) -> Store:
    """Open one atlas, or several as one. Raises QueryError for none."""
    if not paths:
        raise QueryError("no atlas was named; give the path of one, or a list of paths")
    if len(paths) == 1:
        return open_store(paths[0], tuning=tuning)
    from galsearch.store.read.multi import MultiStore

    stores: list[BaseStore] = []
    try:
        for path in paths:
            stores.append(open_store(path, tuning=tuning))
        return MultiStore(stores)
    except BaseException:
        for store in stores:
            store.close()
        raise


def open_for_visitors(paths: Sequence[Path], limits: Limits) -> tuple[Store, Pool]:
    """Open atlases whose conditions and SQL come from strangers; also return the worker processes that run it.

    Messages then name a path without its folder. Close the store and the pool.
    """
    from galsearch.store.sql.visitors import guard

    store = open_stores([ShownByName(path.absolute()) for path in paths])
    try:
        return store, guard([part for part in store.parts if isinstance(part, BaseStore)], limits)
    except BaseException:
        store.close()
        raise


def __getattr__(name: str):
    """Load what writes at first use: Lance takes a third of a second, and a reader of bundles needs none of it."""
    from galsearch.store.write import bundle, folder, index_tables, tombstones, upsert

    homes = {"write_bundle": bundle, "fixed_size_list": index_tables, "Rows": upsert}
    homes |= dict.fromkeys(("put_rows", "drop_rows"), upsert)
    homes |= dict.fromkeys(("delete_rows", "restore_rows", "compact"), tombstones)
    homes |= dict.fromkeys(("Batches", "Staging", "is_folder_atlas", "staged"), folder)
    if name not in homes:
        raise AttributeError(name)
    return getattr(homes[name], name)
