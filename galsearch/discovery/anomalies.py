"""Anomaly detection in an atlas: odd objects among others, as a list with a false discovery rate and reasons.

Objects are judged by detectors that neither they nor the normals beside them were fitted on: known normals where there
are some, else the other folds of the objects themselves. Vectors are read in parts, so that memory does not grow with
them: beside what the detectors take (docs/discovery.md) it is 100 to 150 bytes an object, however long a vector is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats, notebook, schema
from galsearch.discovery.results import TableResult, placeless, with_catalog
from galsearch.errors import FormatError, GalsearchError, QueryError
from galsearch.progress import Progress, silent
from galsearch.query import Query
from galsearch.science import novelty, quality
from galsearch.science.images import decode_thumbnail
from galsearch.science.votes import check_seed, check_share
from galsearch.store import Rows, Store, put_rows

if TYPE_CHECKING:
    pass

TABLE = "anomalies"
ACTION = "anomalies"  # what provenance calls it
FOLDS = 5  # where no normals are known, each fifth is judged by the other four
REFERENCE = 5_000  # objects that detectors are fitted on; what more of them change is less than what the draw does
HELD_OUT = 20_000  # normals that scores are compared with; the least p-value is then 1 / 13,335
LEAST_NORMALS = 40  # of which a fifth is judged, a half fits and the rest, 16, is held out
BLOCK_ROWS = 8_192  # vectors read at a time
NEAREST = 3  # normals that are named beside an odd object
MOST_COLUMNS = 3  # measures that are named beside an odd object
MOST_BUDGET = 100_000
PICTURES_AT_ONCE = 1_000  # some 3 MB
NOT_OF_VECTORS = (*novelty.OF_COLUMNS, *novelty.OF_PICTURES)
TO_SIGMA = 1.4826  # of a normal distribution: its standard deviation over its median absolute deviation
FDR = 0.1
MEASURES = {  # what may make an object of a kind of data odd, beside its vector
    "image": (
        *("axis_ratio", "concentration", "asymmetry", "smoothness", "gini", "m20", "sersic_n", "color_gr", "color_br"),
        *("color_gradient", "bar_strength", "arm_strength", "ring_contrast", "companions"),
    ),
    "spectrum": tuple(name for name, column in schema.LINE_MEASURES.items() if column.type == "DOUBLE"),
}


@dataclass(frozen=True)
class Request:
    """What is looked for: how many, where, beside whom, by which detectors; see `Atlas.anomalies`."""

    budget: int = 50
    where: str | None = None
    near: tuple[float, float] | None = None
    radius_arcsec: float | None = None
    among: str | None = None
    normals: str | None = None
    labels: str | None = None
    by: str | None = None
    detectors: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    k: int = novelty.NEIGHBORS
    fdr: float | None = None
    seed: int = 0

    def check(self, *, pictures: bool) -> Request:
        """Return the request as it is carried out, with `pictures` or without. Raises QueryError for what cannot be."""
        whole = isinstance(self.budget, (int, np.integer)) and not isinstance(self.budget, bool)
        if not whole or not 1 <= self.budget <= MOST_BUDGET:
            raise QueryError(f"budget is {self.budget!r:.40}, expected how many to list, 1 to {MOST_BUDGET}")
        if self.fdr is not None:
            check_share(self.fdr, name="fdr")
        check_seed(self.seed)
        for name in ("among", "normals"):
            text = getattr(self, name)
            if text is not None and not (isinstance(text, str) and text.strip()):
                raise QueryError(f"{name} is {text!r:.40}, expected a SQL condition on the columns, or nothing")
        query = Query(where=self.where, near=self.near, radius_arcsec=self.radius_arcsec)
        return replace(
            self, near=query.near, radius_arcsec=query.radius_arcsec, detectors=self._chosen(pictures=pictures)
        )

    def _chosen(self, *, pictures: bool) -> tuple[str, ...]:
        """Return the names of the detectors: those that were named, else all that have what they need."""
        if self.detectors is None:
            ways = novelty.OF_VECTORS + (novelty.OF_CLASSES if self.labels is not None else ())
            return ways + (novelty.OF_COLUMNS if self.columns else ()) + (novelty.OF_PICTURES if pictures else ())
        names = tuple(dict.fromkeys(self.detectors))
        if not names:
            raise QueryError(f"no detector was named; name some of {', '.join(novelty.NAMES)}")
        for name in names:
            novelty.detector(name)
            if name in novelty.OF_CLASSES and self.labels is None:
                raise QueryError(f"detector {name} compares classes; name the column that has them with labels")
            if name in novelty.OF_COLUMNS and not self.columns:
                raise QueryError(f"detector {name} compares measured columns; name them with columns")
            if name in novelty.OF_PICTURES and not pictures:
                raise QueryError(f"detector {name} compares pictures, and there are none of what is embedded; drop it")
        return names + tuple(name for name in novelty.OF_COLUMNS if self.columns and name not in names)


@dataclass(frozen=True)
class Side:
    """A part of the objects, and what judges it: detectors, what they were fitted on, and a calibration.

    `tested` are positions among the objects that are listed, `reference` row indices of the atlas.
    """

    tested: np.ndarray
    reference: np.ndarray
    detectors: dict[str, novelty.Detector]
    calibration: novelty.Calibration


@dataclass(frozen=True)
class Anomaly:
    """An odd object: how odd, by which detectors, and what it is unlike.

    `surprise` is in nats, -log of the share of normals that are as odd, by detector, largest first; `score` is that of
    all of them together. `nearest` are the normals most like it, `residual` the length of what principal
    components of normals leave of its unit vector, `columns` the measures furthest from those of normals.
    """

    object_id: str
    score: float
    p_value: float
    q_value: float
    tier: str
    detector: str
    surprise: dict[str, float]
    nearest: tuple[str, ...]
    residual: float | None
    columns: tuple[str, ...]


class Anomalies(TableResult, Sequence[Anomaly]):
    """The oddest objects of an atlas, the least p-value first, then the highest score, then by object_id.

    `table` has a row for each: object_id, score, p_value, q_value, tier, the detector that is most surprised, the
    surprise of each detector (`nats_knn`, …), nearest, residual, odd_columns, then the columns of the catalog. `tested`
    counts the objects that were judged, `candidates` and `near_misses` those of that tier, listed or not; `normals` are
    those that p-values compare with. `p_values` and `q_values`, `(tested,) float64`, are of all that were judged, by
    object_id, NaN where a vector is not all numbers; p-values of normals are uniform. `least_q` is the least q-value
    that a list of this length can have with so many normals: above `fdr` no object can be a candidate, and a larger
    list, fewer objects or more normals are needed.
    """

    title = "anomalies"

    def __init__(self, store: Store, request: Request, embedding: str, judged: _Result, normals: int) -> None:
        self.request, self.embedding, self.normals = request, embedding, normals
        self.fdr = FDR if request.fdr is None else request.fdr
        self.detectors = judged.names
        self._store, self._judged = store, judged
        self.path, self.tested = store.path, len(judged.rows)
        self.p_values = judged.p_value
        self.q_values = novelty.q_values(judged.p_value)
        tiers = novelty.tiers(self.q_values, fdr=self.fdr)
        self.candidates = int((tiers == novelty.CANDIDATE).sum())
        self.near_misses = int((tiers == novelty.NEAR_MISS).sum())
        listed = judged.order[: request.budget]
        if request.fdr is not None:
            listed = listed[self.q_values[listed] <= request.fdr]
        self._listed = listed
        self.ids = store.ids(judged.rows[listed])
        self._why = judged.why(store, listed)
        self.table = self._table(tiers)

    @property
    def least_q(self) -> float:
        """The least q-value that so many objects can share, with so many tested and so many normals."""
        return min(1.0, self.tested / (self.normals + 1) / min(self.request.budget, self.tested))

    @property
    def false_discovery_rate(self) -> float | None:
        """The false discovery rate of the list as it is: the q-value of its last object; None for an empty one."""
        return float(self.q_values[self._listed].max()) if len(self._listed) else None

    def _table(self, tiers: np.ndarray) -> pa.Table:
        at, why = self._listed, self._why
        surprise = self._judged.surprise[at]
        columns: dict[str, tuple[pa.Array, str, str]] = {
            "object_id": (pa.array(self.ids, pa.string()), "meta.id;meta.main", "Object"),
            "score": (pa.array(self._judged.score[at]), "stat.value", "Surprise of all detectors together, in nats"),
            "p_value": (pa.array(self._judged.p_value[at]), "stat.probability", "Of a normal at least as odd"),
            "q_value": (pa.array(self.q_values[at]), "stat.probability", "False discovery rate down to here"),
            "tier": (pa.array(tiers[at].tolist(), pa.string()), "meta.code", "candidate, near-miss or normal"),
            "detector": (pa.array(why.detector, pa.string()), "meta.code", "Detector that is most surprised"),
            **{
                f"nats_{name}": (pa.array(values, from_pandas=True), "stat.value", f"Surprise of {name} alone, in nats")
                for name, values in zip(self.detectors, surprise.T, strict=True)
            },
            "nearest": (pa.array(why.nearest, pa.list_(pa.string())), "meta.id", "Normals that are most like it"),
            "residual": (pa.array(why.residual, pa.float64()), "stat.value", "What components of normals leave of it"),
            "odd_columns": (
                pa.array(why.columns, pa.list_(pa.string())),
                "meta.note",
                "Measures that are furthest off",
            ),
        }
        fields = [formats.describe(pa.field(n, v.type), ucd=u, description=d) for n, (v, u, d) in columns.items()]
        table = pa.Table.from_arrays([values for values, *_ in columns.values()], schema=pa.schema(fields))
        return with_catalog(table, self._store, self._judged.rows[at])

    def parameters(self) -> dict[str, Any]:
        """Return everything that decides the list, as provenance keeps it."""
        given = {name: value for name, value in asdict(self.request).items() if value not in (None, ())}
        counted = {"tested": self.tested, "normal_count": self.normals, "embedding": self.embedding}
        return {**given, "detectors": list(self.detectors), "columns": list(self.request.columns), **counted}

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Anomaly: ...

    @overload
    def __getitem__(self, index: slice) -> list[Anomaly]: ...

    def __getitem__(self, index: int | slice) -> Anomaly | list[Anomaly]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"anomaly {index} of {len(self)}")
        row = self.table.slice(index % len(self), 1).to_pylist()[0]
        pairs = [(name, row[f"nats_{name}"]) for name in self.detectors if row[f"nats_{name}"] is not None]
        return Anomaly(
            **{name: row[name] for name in ("object_id", "score", "p_value", "q_value", "tier", "detector")},
            surprise=dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0]))),
            nearest=tuple(row["nearest"]),
            residual=row["residual"],
            columns=tuple(row["odd_columns"]),
        )

    def __repr__(self) -> str:
        of = f"{len(self)} of {self.tested} objects by {self.embedding}"
        return f"<Anomalies: {of}; {self.candidates} candidates at a false discovery rate of {self.fdr:g}>"

    def _repr_html_(self) -> str:
        """Return the pictures of the oddest with ids and scores as HTML, as notebooks show them."""
        ids = self.ids[: notebook.MOST_SHOWN]
        try:
            pictures = self._store.thumbnails(ids)
        except GalsearchError:
            pictures = {}  # of an atlas that was closed meanwhile
        return notebook.gallery_html(repr(self), ids, self.table["score"].to_pylist()[: len(ids)], pictures)


@dataclass(frozen=True)
class _Why:
    """Reasons, one for each listed object."""

    detector: list[str]
    nearest: list[list[str]]
    residual: list[float | None]
    columns: list[list[str]]


@dataclass(frozen=True)
class _Result:
    """What the sides say of all tested objects: row indices by object_id, p-values, scores, surprise by detector."""

    rows: np.ndarray
    names: tuple[str, ...]
    p_value: np.ndarray
    score: np.ndarray
    surprise: np.ndarray
    raw: np.ndarray
    order: np.ndarray  # least p-value first, then highest score, then object_id
    sides: tuple[Side, ...]
    source: _Source

    def why(self, store: Store, listed: np.ndarray) -> _Why:
        """Return the reasons of some of them."""
        nearest: dict[int, list[str]] = {}
        columns: dict[int, list[str]] = {}
        for side in self.sides:
            ours = listed[np.isin(listed, side.tested)]
            if len(ours):
                nearest |= zip(ours.tolist(), self._nearest(store, side, ours), strict=True)
                columns |= zip(ours.tolist(), self.source.odd_columns(self.rows[ours], side.reference), strict=True)
        strongest = np.nan_to_num(self.surprise[listed], nan=-1).argmax(axis=1)
        left = self.names.index("reconstruction") if "reconstruction" in self.names else None
        return _Why(
            [self.names[index] for index in strongest.tolist()],
            [nearest[at] for at in listed.tolist()],
            [None] * len(listed) if left is None else self.raw[listed, left].tolist(),
            [columns[at] for at in listed.tolist()],
        )

    def _nearest(self, store: Store, side: Side, ours: np.ndarray) -> list[list[str]]:
        vectors = self.source.vectors(self.rows[ours]).astype(np.float64)
        fitted = novelty.NeighborDistance(1).fit(self.source.vectors(side.reference))
        near, _ = fitted.nearest(vectors, k=min(NEAREST, len(side.reference)))
        return [store.ids(side.reference[numbers]) for numbers in near]


class _Source:
    """Where the numbers of objects come from: vectors in an embedding, labels, measured columns."""

    def __init__(self, store: Store, embedding: str, request: Request) -> None:
        self.store, self.embedding = store, embedding
        self._columns = {name: _numbers(store, name) for name in request.columns}
        with_pictures = set(novelty.OF_PICTURES).intersection(request.detectors or ())
        count = store.manifest.rows if with_pictures else 0
        self._measured = np.zeros(count, bool)
        self._quality = np.full((count, len(quality.MEASURES)), np.nan, np.float32)
        self._labels = None if request.labels is None else _labels(store, request.labels)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of rows that all have one, `(n, d) float32`."""
        return self.store.vectors_of(self.embedding, rows)

    def labels(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the label of each row, None for none; None where no column of labels was named."""
        return None if self._labels is None else self._labels[rows]

    def input_of(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return what a detector compares of rows: their vectors, measured columns, or the quality of pictures."""
        if name in novelty.OF_COLUMNS:
            return np.stack([values[rows] for values in self._columns.values()], axis=1)
        return self.quality(rows) if name in novelty.OF_PICTURES else self.vectors(rows)

    def quality(self, rows: np.ndarray) -> np.ndarray:
        """Return the image quality of the stored picture of each row, `(n, 8)`, NaN for none; each is read once."""
        missing = np.unique(rows[~self._measured[rows]])
        for start in range(0, len(missing), PICTURES_AT_ONCE):
            part = missing[start : start + PICTURES_AT_ONCE]
            ids = self.store.ids(part)
            pictures = self.store.thumbnails(ids)
            for row, name in zip(part.tolist(), ids, strict=True):
                if name in pictures:
                    self._quality[row] = quality.measure(decode_thumbnail(pictures[name]))
        self._measured[missing] = True
        return self._quality[rows]

    def odd_columns(self, rows: np.ndarray, reference: np.ndarray) -> list[list[str]]:
        """Return the measures of each row that are furthest from the median of reference rows, the furthest first."""
        manifest = self.store.manifest
        measures = MEASURES[manifest.modality(self.embedding).name]
        known = set(self.store.describe()["column"].to_pylist())
        held = [name for name in map(manifest.measure_column, measures) if name is not None and name in known]
        names = list(dict.fromkeys([*self._columns, *held]))
        ours, theirs = (_table_of(self.store, at, names) for at in (rows, reference))
        sigma = TO_SIGMA * _median(np.abs(theirs - _median(theirs)))
        with np.errstate(invalid="ignore", divide="ignore"):
            off = (ours - _median(theirs)) / np.where(sigma > 0, sigma, np.nan)
        order = np.argsort(-np.nan_to_num(np.abs(off), nan=-1), axis=1, kind="stable")[:, :MOST_COLUMNS]
        return [
            [f"{names[at]} {ours[row, at]:.3g} ({off[row, at]:+.1f} sigma)" for at in best if np.isfinite(off[row, at])]
            for row, best in enumerate(order.tolist())
        ]


def _median(table: np.ndarray) -> np.ndarray:
    """Return the median of each column over what is there; NaN where nothing is."""
    empty = ~np.isfinite(table).any(axis=0)
    filled = np.where(empty, 0.0, table)
    return np.where(empty, np.nan, np.nanmedian(filled, axis=0)) if len(table) else np.full(table.shape[1], np.nan)


def _table_of(store: Store, rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return columns of rows as numbers, `(n, c) float64`, NaN for none; what is no number is NaN."""
    table = store.hits(rows, None)
    return np.stack([_as_numbers(table[name]) for name in names], axis=1) if names else np.empty((len(rows), 0))


def _as_numbers(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    if not any(kind(values.type) for kind in kinds):
        return np.full(len(values), np.nan)
    result = np.array(pc.cast(values, pa.float64(), safe=False).to_pylist(), np.float64)
    return np.where(np.isfinite(result), result, np.nan)


def _numbers(store: Store, name: str) -> np.ndarray:
    """Return a measured column by row. Raises QueryError for one that there is not, or that is no number."""
    values = store.by_row(name)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)):
        raise QueryError(f"'{name}' is {values.type}, and a detector compares numbers; name other columns")
    return _as_numbers(values)


def _labels(store: Store, name: str) -> np.ndarray:
    """Return a column of classes by row as texts, None for none; blank texts are none."""
    texts = pc.cast(store.by_row(name), pa.string()).to_pylist()
    return np.array([text if text is not None and text.strip() else None for text in texts], object)


# ---- looking for them


def find_anomalies(store: Store, request: Request, progress: Progress = silent) -> Anomalies:
    """Return the oddest objects that pass the filters of a request.

    Raises QueryError for an embedding or column that there is not, for conditions that are none, and for too few
    objects or normals to say what is ordinary.
    """
    embedding = store.manifest.embedding_named(request.by, path=store.path)
    is_image = store.manifest.modality(embedding).name == schema.MAIN
    request = request.check(pictures=is_image and store.holds("thumbnails"))
    population = _passing(store, embedding, request.among)
    normals = None if request.normals is None else _passing(store, embedding, _both(request.among, request.normals))
    tested = _passing(store, embedding, _both(request.among, request.where), request.near, request.radius_arcsec)
    if normals is not None:
        tested = tested[~np.isin(tested, normals)]
    if not len(tested):
        why = placeless(store, request.near)
        raise QueryError(f"no object with a vector in '{embedding}' is left to judge{why}; loosen where, near or among")
    _check_count(population if normals is None else normals, embedding, known=normals is not None)
    source = _Source(store, embedding, request)
    sides = []
    for side in _sides(source, request, population=population, normals=normals, tested=tested):
        sides.append(side)
        progress(len(sides), FOLDS if normals is None else 1, "fitting detectors")
    return Anomalies(store, request, embedding, *_judge(source, sides, tested, progress))


def _both(first: str | None, second: str | None) -> str | None:
    parts = [f"({part}\n)" for part in (first, second) if part is not None]
    return " AND ".join(parts) or None


def _passing(
    store: Store,
    embedding: str,
    where: str | None,
    near: tuple[float, float] | None = None,
    radius_arcsec: float | None = None,
) -> np.ndarray:
    """Return the rows that pass and have a vector, by object_id."""
    rows, _ = store.listed(store.condition(where, near, radius_arcsec), k=max(store.manifest.rows, 1))
    return rows[store.has_vector(embedding, rows)] if len(rows) else rows


def _check_count(rows: np.ndarray, embedding: str, *, known: bool) -> None:
    if len(rows) < LEAST_NORMALS:
        what, remedy = ("known normals", "normals") if known else ("objects to compare with", "among")
        raise QueryError(
            f"{len(rows)} {what} have a vector in '{embedding}', and at least {LEAST_NORMALS} are needed to say what "
            f"is ordinary; loosen {remedy}"
        )


def _sides(
    source: _Source, request: Request, *, population: np.ndarray, normals: np.ndarray | None, tested: np.ndarray
) -> Iterator[Side]:
    """Return who is judged by whom: all by the known normals, else each fold by the others."""
    if normals is not None:
        yield _fitted(source, request, np.arange(len(tested)), normals)
        return
    for inside, outside in novelty.folds(len(population), parts=FOLDS, seed=request.seed):
        ours = np.flatnonzero(np.isin(tested, population[inside]))
        if len(ours):
            yield _fitted(source, request, ours, population[outside])


def _fitted(source: _Source, request: Request, tested: np.ndarray, normals: np.ndarray) -> Side:
    """Return detectors fitted on up to half of the normals, calibrated on others."""
    first, second = novelty.split(len(normals), share=0.5, seed=request.seed)
    rng = np.random.default_rng(request.seed)
    reference = normals[np.sort(rng.permutation(first)[:REFERENCE])]
    held_out = normals[np.sort(rng.permutation(second)[:HELD_OUT])]
    detectors = {}
    for name in request.detectors or ():
        rows, labels = reference, None
        if name in novelty.OF_CLASSES:
            labels = source.labels(reference)
            assert labels is not None
            there = np.array([label is not None for label in labels])
            if not there.any():
                raise QueryError(
                    f"none of the {len(rows)} reference objects has a '{request.labels}'; name other labels"
                )
            rows, labels = reference[there], labels[there].astype(str)
        made = novelty.detector(name, k=request.k, seed=request.seed)
        detectors[name] = made.fit(source.input_of(name, rows), labels)
    scores = _scores(source, detectors, held_out)
    return Side(tested, reference, detectors, novelty.Calibration.fit(scores, seed=request.seed))


def _scores(source: _Source, detectors: dict[str, novelty.Detector], rows: np.ndarray) -> np.ndarray:
    """Return the scores of rows by each detector, `(n, j)`; vectors are read once for all of them."""
    vectors = source.vectors(rows)
    inputs = {name: source.input_of(name, rows) for name in detectors if name in NOT_OF_VECTORS}
    return np.stack([one.score(inputs.get(name, vectors)) for name, one in detectors.items()], axis=1)


def _judge(source: _Source, sides: Sequence[Side], tested: np.ndarray, progress: Progress) -> tuple[_Result, int]:
    """Return what the sides say of each tested row, and how many normals the fewest p-values compare with."""
    names = tuple(sides[0].detectors)
    raw, surprise = (np.full((len(tested), len(names)), np.nan, np.float32) for _ in range(2))
    p_value, score = (np.full(len(tested), np.nan) for _ in range(2))
    done, normals = 0, []
    for side in sides:
        for start in range(0, len(side.tested), BLOCK_ROWS):
            at = side.tested[start : start + BLOCK_ROWS]
            raw[at] = scores = _scores(source, side.detectors, tested[at])
            judged = side.calibration.judge(scores)
            surprise[at], p_value[at], score[at] = judged.surprise, judged.p_value, judged.score
            normals.append(judged.normals)
            done += len(at)
            progress(done, len(tested), "judging")
    if not np.isfinite(p_value).any():
        raise QueryError(f"no vector of '{source.embedding}' is all numbers, so none can be judged; embed them again")
    order = np.lexsort((np.arange(len(tested)), -np.nan_to_num(score, nan=-1), p_value))  # NaN comes last
    order = order[np.isfinite(p_value[order])]
    return _Result(tested, names, p_value, score, surprise, raw, order, tuple(sides), source), min(normals)


# ---- keeping them


def save_anomalies(anomalies: Anomalies) -> str:
    """Keep the p-values of all objects that were judged in the table `anomalies` of the atlas folder; return the run.

    `Atlas.saved_anomalies` reads them again and works out q-values and tiers for any false discovery rate. Raises
    GalsearchError for a bundle, for several atlases opened as one, and while another is writing the atlas.
    """
    store, judged = anomalies._store, anomalies._judged
    if not store.grows:
        raise GalsearchError(f"{store.path} is never changed: save the list of the folder, then bundle it again")
    parameters, created = anomalies.parameters(), schema.now()
    run = hashlib.sha256(json.dumps([parameters, created], sort_keys=True).encode()).hexdigest()[:16]
    count, listed = len(judged.order), len(anomalies)
    rows = judged.rows[judged.order]
    why, rest = anomalies._why, count - listed
    strongest = np.nan_to_num(judged.surprise[judged.order], nan=-1).argmax(axis=1)
    columns = {
        "run": pa.array([run] * count, pa.string()),
        "object_id": pa.array(store.ids(rows), pa.string()),
        "embedding": pa.array([anomalies.embedding] * count, pa.string()),
        "score": pa.array(judged.score[judged.order]),
        "p_value": pa.array(judged.p_value[judged.order]),
        "detector": pa.array([judged.names[index] for index in strongest.tolist()], pa.string()),
        "nearest": pa.array([*why.nearest, *[None] * rest], pa.list_(pa.string())),
        "odd_columns": pa.array([*why.columns, *[None] * rest], pa.list_(pa.string())),
        "created": pa.array([created] * count, pa.string()),
    }
    record = schema.provenance(ACTION, parameters={**parameters, "run": run})
    put_rows(store.path, {TABLE: Rows(pa.table(columns), ("run", "object_id"))}, record)
    return run


def saved_anomalies(store: Store, *, run: str | None = None, fdr: float = FDR, budget: int | None = None) -> pa.Table:
    """Return a saved list, the last unless `run` says, oddest first, with q-values and tiers worked out for `fdr`."""
    check_share(fdr, name="fdr")
    table = store.table(TABLE)
    _check_table(store, table)
    runs = [] if table is None else _runs(table)
    if table is None or not runs or run not in (None, *runs):
        known = (
            f"it has {', '.join(runs[-10:])}" if runs else "it has none yet; save one with `galsearch anomalies --save`"
        )
        raise QueryError(f"{store.path} has no saved anomalies{'' if run is None else f' of run {run!r:.40}'}, {known}")
    table = table.filter(pc.equal(table["run"], run or runs[-1]))
    table = table.sort_by([("p_value", "ascending"), ("score", "descending"), ("object_id", "ascending")])
    q = novelty.q_values(np.array(table["p_value"].to_pylist(), np.float64))
    table = table.add_column(5, "q_value", pa.array(q, from_pandas=True))
    table = table.add_column(6, "tier", pa.array(novelty.tiers(q, fdr=fdr).tolist(), pa.string()))
    return table if budget is None else table.slice(0, budget)


def _check_table(store: Store, table: pa.Table | None) -> None:
    """Raise FormatError where the table of an atlas has not the columns that it must have, or NULL in its keys."""
    if table is None:
        return
    missing = [column.name for column in schema.TABLES[TABLE] if column.name not in table.column_names]
    what = f"has no column '{missing[0]}'" if missing else ""
    if not missing and any(table[name].null_count for name in ("run", "object_id", "created", "p_value")):
        what = "has rows without a run, an object, a time or a p-value"
    if what:
        raise FormatError(f"{store.path}: table {TABLE} {what}; save the list again with `galsearch anomalies --save`")


def _runs(table: pa.Table) -> list[str]:
    """Return the runs that are saved, the last one last; of those of one second by name."""
    pairs = set(zip(table["created"].to_pylist(), table["run"].to_pylist(), strict=True))
    return [run for _, run in sorted(pairs)]
