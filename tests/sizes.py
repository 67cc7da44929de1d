"""The sizes at which galsearch changes its way, all in one place, lowered so that small data take the large way.

They are constants of many modules; nobody but a test has a reason to change them, and so they are patched, here only.
A constant that is renamed or gone fails every test that uses this.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from galsearch.store import Tuning

LOWERED = {
    "ingest": {"BATCH_ROWS": 5, "VECTOR_BATCH_ROWS": 11},  # batches of a build
    "store.index.cells": {
        "LEAST_ROWS": 12,
        "BLOCK_ROWS": 7,
        "SAMPLE_ROWS_PER_CELL": 3,
        "QUERIES": 12,
        "DEPTHS": (2, 8),
    },
    "store.index.vectors": {"BLOCK_ROWS": 6},
    "store.index.projection": {"BLOCK_ROWS": 6},
    "store.index.search": {"BLOCK_ROWS": 6},
    "store.index.kernel": {"WORTH": 1},
    "store.read.base": {
        "BaseStore.tuning": Tuning(
            exact_matches=3, spare=2, scan_bytes=1, held_rows=4, held_ids=4, few_ids=2, known_rows=3
        ),
        "BATCH_ROWS": 9,
    },
    "store.read.folder": {"BATCH_ROWS": 9},
    "store.write.bundle": {"BATCH_ROWS": 9, "MAP_SAMPLE": 5},
    "store.write.recluster": {"BATCH_ROWS": 9},
    "store.check": {"BATCH_ROWS": 9, "SAMPLE_QUERIES": 9},
    "store.write.lance_offsets": {"SAMPLE": 5},
    "store.index.fulltext": {"_FEW_TERMS": 1},
}


@contextmanager
def lowered(*, but: tuple[str, ...] = ()):
    """Lower every size inside the block, but those of the modules named."""
    with pytest.MonkeyPatch.context() as patch:
        for module, sizes in LOWERED.items():
            for name, value in ({} if module in but else sizes).items():
                patch.setattr(f"galsearch.{module}.{name}", value)
        yield
