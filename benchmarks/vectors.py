"""The made-up galaxies that searches are measured on: how hard they are, and how their columns follow the vectors.

No real embeddings may be shipped, and uniform noise or well-parted clusters would flatter every index. So vectors are
drawn around cluster centers of heavy-tailed sizes and spreads, in directions whose variances fall as a power law, which
gives an IVF_FLAT of 4 sqrt(n) cells a recall@10 of about .95 at 16 cells, .975 at 32 and .99 at 64. `python -m
benchmarks.vectors --rows 100000 --dim 128` prints that curve.

Queries are of two kinds that are never mixed: "like" are stored vectors disturbed; "words" lie off the distribution, as
text does: an offset shared by all of them (the modality gap) and a mixture of several cluster directions, so that their
neighbors are spread over many cells. Queries for tuning and those that are reported come from different seeds.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

BLOCK_ROWS = 32_768
CLUSTERS = 2_000
SIZE_EXPONENT = 1.0  # the j-th largest cluster holds a share that falls as 1/j
VARIANCE_EXPONENT = 0.8  # standard deviation of the j-th principal direction falls as j to minus this
SPREAD, SPREAD_TAIL = 1.0, 0.5  # median distance from the center, in lengths of a center; its log-normal width
FOLLOW_NOISE = 0.1  # of column c, in standard deviations of the clusters' positions
DISTURBED = 0.25  # length of what is added to a stored vector to make a "like" query
MIXED, OFF, ASTRAY = 6, 0.6, 0.5  # cluster directions in a "words" query; lengths of the offset and of the noise

KINDS = ("like", "words")
PURPOSES = ("tune", "report")
_MODEL, _LABELS, _VECTORS, _FACTS, _QUERIES = range(5)  # streams of random numbers


@dataclass(frozen=True)
class Spec:
    """Which data: everything about `rows` vectors of `dim` numbers follows from these three."""

    rows: int
    dim: int
    seed: int = 0

    def generator(self, *stream: int) -> np.random.Generator:
        """Return the random numbers of one stream, the same in every process."""
        return np.random.default_rng([self.seed, *stream])


@dataclass(frozen=True)
class Clusters:
    """The distribution: `centers` (clusters, d), `weights` and `radii` (clusters,), `axes` (d, d) scaled directions."""

    centers: np.ndarray
    weights: np.ndarray
    radii: np.ndarray
    axes: np.ndarray

    @property
    def positions(self) -> np.ndarray:
        """Where each cluster lies along the first principal direction, in standard deviations."""
        along = self.centers @ (self.axes[0] / np.linalg.norm(self.axes[0]))
        return along / along.std()


@functools.lru_cache(4)
def clusters(spec: Spec) -> Clusters:
    """Return the distribution of `spec`; it does not depend on the number of rows."""
    random = spec.generator(_MODEL)
    scales = np.arange(1, spec.dim + 1) ** -VARIANCE_EXPONENT
    turned = np.linalg.qr(random.normal(size=(spec.dim, spec.dim)))[0]
    axes = scales[:, None] / np.linalg.norm(scales) * turned
    weights = np.arange(1, CLUSTERS + 1) ** -SIZE_EXPONENT
    return Clusters(
        centers=unit(random.normal(size=(CLUSTERS, spec.dim)) @ axes),
        weights=weights / weights.sum(),
        radii=(SPREAD * np.exp(SPREAD_TAIL * random.normal(size=CLUSTERS))).astype(np.float32),
        axes=axes.astype(np.float32),
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the rows of `vectors` at unit length, float32."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


# ---- rows


def labels(spec: Spec) -> np.ndarray:
    """Return the cluster of each row, `(n,) int32`."""
    found = spec.generator(_LABELS).choice(CLUSTERS, size=spec.rows, p=clusters(spec).weights)
    return found.astype(np.int32)


def cut_columns(spec: Spec) -> dict[str, np.ndarray]:
    """Return u, independent of the vectors, and c, which follows them: ranks scaled to 0..1, `(n,) float64`.

    Being ranks, `u < s` and `c < s` each pass the share s of the rows to within one row.
    """
    random = spec.generator(_LABELS, 1)
    follows = clusters(spec).positions[labels(spec)] + FOLLOW_NOISE * random.normal(size=spec.rows)
    return {"u": _ranks(random.random(spec.rows)), "c": _ranks(follows)}


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = (np.arange(len(values)) + 0.5) / len(values)
    return ranks


def vector_blocks(spec: Spec) -> Iterator[np.ndarray]:
    """Yield all unit vectors in order of rows, `(BLOCK_ROWS or fewer, d) float32` at a time."""
    told, known = clusters(spec), labels(spec)
    for start in range(0, spec.rows, BLOCK_ROWS):
        mine = known[start : start + BLOCK_ROWS]
        drawn = spec.generator(_VECTORS, start).standard_normal((len(mine), spec.dim), dtype=np.float32)
        yield unit(told.centers[mine] + told.radii[mine, None] * (drawn @ told.axes))


def object_ids(rows: np.ndarray | range) -> list[str]:
    """Return the id of each row number, in an order of text that is the order of rows."""
    return [f"g{row:09d}" for row in rows]


def row_numbers(ids: list[str]) -> np.ndarray:
    """Return the row number of each id."""
    return np.array([int(object_id[1:]) for object_id in ids], dtype=np.int64)


def write(spec: Spec, table: Path, array: Path) -> None:
    """Write the rows as the Parquet file `table` (id, ra, dec, z, mag_r, u, c, v) and the vectors as .npy `array`.

    Vectors are never in memory all at once; of the columns u and c and the cluster numbers are.
    """
    cuts = cut_columns(spec)
    numbers = [(name, pa.float64()) for name in ("ra", "dec", "z", "mag_r", "u", "c")]
    kind = pa.schema([("id", pa.string()), *numbers, ("v", pa.list_(pa.float32()))])
    header = {"descr": "<f4", "fortran_order": False, "shape": (spec.rows, spec.dim)}
    plain = {"use_dictionary": False, "compression": {name: "zstd" for name in kind.names if name != "v"}}
    with array.open("wb") as file, parquet.ParquetWriter(table, kind, **plain) as writer:
        np.lib.format.write_array_header_1_0(file, header)
        for number, vectors in enumerate(vector_blocks(spec)):
            file.write(vectors.tobytes())
            writer.write_table(_rows(spec, number * BLOCK_ROWS, vectors, cuts).cast(kind))


def _rows(spec: Spec, start: int, vectors: np.ndarray, cuts: dict[str, np.ndarray]) -> pa.Table:
    count = len(vectors)
    random = spec.generator(_FACTS, start)
    offsets = pa.array(np.arange(0, (count + 1) * spec.dim, spec.dim, dtype=np.int32))
    return pa.table(
        {
            "id": object_ids(range(start, start + count)),
            "ra": random.uniform(0, 360, count),
            "dec": np.degrees(np.arcsin(random.uniform(-1, 1, count))),
            "z": random.gamma(2.0, 0.1, count),
            "mag_r": 22.5 - random.exponential(1.2, count),
            **{name: values[start : start + count] for name, values in cuts.items()},
            "v": pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())),
        }
    )


# ---- queries


def queries(spec: Spec, vectors: np.ndarray, count: int, *, kind: str, purpose: str) -> np.ndarray:
    """Return `count` unit query vectors, `(count, d) float32`, of one of KINDS, for one of PURPOSES.

    `vectors` are the stored ones, `(n, d)`, of which the "like" queries are disturbed copies.
    """
    random = spec.generator(_QUERIES, KINDS.index(kind), PURPOSES.index(purpose))
    noise = random.normal(size=(count, spec.dim)) / np.sqrt(spec.dim)
    if kind == "like":
        rows = np.sort(random.choice(len(vectors), size=count, replace=False))
        return unit(random.permutation(vectors[rows]) + DISTURBED * noise)
    told = clusters(spec)
    gap = unit(spec.generator(_QUERIES).normal(size=spec.dim))  # one and the same for both purposes
    named = told.centers[random.choice(CLUSTERS, size=(count, MIXED), p=told.weights)]
    shares = random.dirichlet(np.full(MIXED, 2.0), size=count)
    return unit(unit(np.einsum("qm,qmd->qd", shares, named)) + OFF * gap + ASTRAY * noise)


# ---- how hard they are


def main() -> None:
    """Print the recall@10 of faiss IVF_FLAT by cells visited, for both kinds of queries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    spec = Spec(**vars(parser.parse_args()))
    stored = np.concatenate(list(vector_blocks(spec)))
    for kind, curve in difficulty(spec, stored).items():
        print(f"{kind:6}", "  ".join(f"{probes} cells {recall:.3f}" for probes, recall in curve.items()))


def difficulty(spec: Spec, stored: np.ndarray, *, count: int = 400) -> dict[str, dict[int, float]]:
    """Return for each kind of tuning queries the recall@10 of an IVF_FLAT of 4 sqrt(n) cells, by cells visited."""
    import faiss

    from benchmarks.measure import nearest, recall

    index = faiss.index_factory(spec.dim, f"IVF{round(4 * spec.rows**0.5)},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical, index.cp.max_points_per_centroid = True, 64
    index.train(stored)
    index.add(stored)
    curves: dict[str, dict[int, float]] = {}
    for kind in KINDS:
        asked = queries(spec, stored, count, kind=kind, purpose="tune")
        best = nearest(stored, asked, k=10)
        curves[kind] = {}
        for index.nprobe in (4, 8, 16, 32, 64, 128, 256):
            curves[kind][index.nprobe] = recall(index.search(asked, 10)[1], best, k=10)
    return curves


if __name__ == "__main__":
    main()
