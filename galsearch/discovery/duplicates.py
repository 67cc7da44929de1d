"""Duplicates in an atlas: groups of objects that are one, each link with its grounds, and keeping them.

Pairs are found by an index: positions by a tree on the sphere, hashes of pictures by cells, equal vectors by a tree in
a few directions. Those of pictures are then compared aligned. Vectors are read in blocks; memory is some 900 bytes an
object while hashes are compared and some 500 otherwise, however long a vector is (docs/discovery.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import notebook, schema
from galsearch.discovery.results import TableResult, with_catalog
from galsearch.errors import FormatError, GalsearchError, QueryError, SchemaError
from galsearch.progress import Progress, silent
from galsearch.query import Query
from galsearch.science import duplicates, fingerprints
from galsearch.science.images import decode_thumbnail, model_input
from galsearch.science.sky import separation_arcsec
from galsearch.science.votes import check_seed
from galsearch.store import Rows, Store, put_rows

if TYPE_CHECKING:
    pass

TABLE, HASHES = "duplicates", "picture_hashes"
ACTION = "duplicates"  # what provenance calls it
POSITION, PICTURE, VECTOR = GROUNDS = ("position", "picture", "vector")
NEAREST = 5  # hashes of others that a picture is compared with
LEAST_LIKE = 0.45  # cosine of whitened hashes, below which pictures are not compared: 1 in 1,000 copies lies below
RADIUS_PX = 3.0  # of the source pictures: what the center of one galaxy moves by from catalog to catalog
LEAST_RADIUS_ARCSEC, MOST_RADIUS_ARCSEC = 0.1, 3600.0
BLOCK_ROWS = 8_192  # vectors read at a time
PICTURES_AT_ONCE = 1_000  # some 3 MB
PAIRS_AT_ONCE = 256  # some 100 MB
VIEWS_KEPT = 4_096  # pictures as they are compared, 50 kB each
SPARE = 1e-4  # of a distance in single precision
SMALLEST = 1e-12
MEASURED = ("confidence", "separation_arcsec", "hash_distance", "cosine", "correlation")


@dataclass(frozen=True)
class DuplicatesRequest:
    """What is looked for: on which grounds, where, within which radius; see `Atlas.duplicates`."""

    by: str | None = None
    where: str | None = None
    radius_arcsec: float | None = None
    seed: int = 0

    def check(self) -> DuplicatesRequest:
        """Return the request as it is carried out. Raises QueryError for what cannot be."""
        if self.by is not None and self.by not in GROUNDS:
            raise QueryError(f"by is {self.by!r:.40}, expected one of {', '.join(GROUNDS)}, or nothing for all")
        check_seed(self.seed)
        radius = self.radius_arcsec
        number = isinstance(radius, (int, float, np.number)) and not isinstance(radius, bool)
        if radius is not None and not (number and 0 <= radius <= MOST_RADIUS_ARCSEC):
            raise QueryError(
                f"radius_arcsec is {radius!r:.40}, expected how far apart one object may lie, 0 to "
                f"{MOST_RADIUS_ARCSEC:g} arcsec"
            )
        Query(where=self.where)
        return self


@dataclass(frozen=True)
class DuplicateLink:
    """Why an object is taken for another one: `grounds` are position, picture, vector, or several of them.

    `confidence` is that of all grounds together. Each number is None where one of the two has nothing to compare;
    `correlation` is that of the pictures when aligned, None where that was not needed.
    """

    object_id: str
    linked_to: str
    grounds: tuple[str, ...]
    confidence: float
    separation_arcsec: float | None
    hash_distance: float | None
    cosine: float | None
    correlation: float | None


@dataclass(frozen=True)
class DuplicateGroup:
    """Objects that are one: `kept` stands for them, `links` say why each other one is in it."""

    kept: str
    ids: tuple[str, ...]
    links: tuple[DuplicateLink, ...]


@dataclass(frozen=True)
class _Links:
    """Links between rows, ascending and each once; the confidence of each ground is NaN where it does not link them."""

    first: np.ndarray
    second: np.ndarray
    by_ground: np.ndarray
    correlation: np.ndarray

    @property
    def pairs(self) -> duplicates.Pairs:
        """Them with their confidence."""
        return duplicates.Pairs(self.first, self.second, self.confidence)

    @property
    def confidence(self) -> np.ndarray:
        """That of all grounds together, as if they were independent."""
        return 1 - np.prod(1 - np.nan_to_num(self.by_ground), axis=1)

    def take(self, at: np.ndarray) -> _Links:
        return _Links(self.first[at], self.second[at], self.by_ground[at], self.correlation[at])


class Duplicates(TableResult, Sequence[DuplicateGroup]):
    """Groups of objects that are one, the largest first, then by the id of the object that is kept.

    `table` has a row for each member, the kept one first: group_id, object_id, is_kept, linked_to, grounds, confidence,
    separation_arcsec, hash_distance, cosine, correlation, then the columns of the catalog. Kept is the one with
    most to compare (position, picture, vector), then the one whose stored picture takes most bytes, which blurred and
    recompressed copies do not, then the least object_id.
    `compared` counts the objects that have what a ground needs, `not_compared` those that have not, by ground;
    `unreadable` those whose stored picture is damaged; `candidates` the pairs of pictures that were aligned.
    `radius_arcsec` is the one that was used, and `radius_from` says where it comes from.
    """

    title = "duplicates"

    def __init__(self, search: _Search, links: _Links, labels: np.ndarray) -> None:
        self.request, self._store, self.path = search.request, search.store, search.store.path
        self.radius_arcsec, self.radius_from = search.radius_arcsec, search.radius_from
        self.objects, self.grounds = len(search.rows), search.grounds
        self.compared = {name: int(there.sum()) for name, there in search.there.items()}
        self.not_compared = {name: self.objects - self.compared.get(name, 0) for name in search.wanted}
        self.unreadable, self.candidates = search.unreadable, search.candidates
        self._search = search
        self.table, self._sizes = _table(search, links, labels)

    @property
    def redundant(self) -> int:
        """How many objects are left out when each group is collapsed to the one that is kept."""
        return len(self.table) - len(self)

    def parameters(self) -> dict[str, Any]:
        """Return everything that decides the groups, as provenance keeps it."""
        given = {name: value for name, value in asdict(self.request).items() if value is not None}
        judge = {"method": fingerprints.METHOD, "least": fingerprints.Judge().least}
        stated = {"radius_arcsec": self.radius_arcsec, "grounds": list(self.grounds), "compared": self.compared}
        return {**given, **stated, **(judge if PICTURE in self.grounds else {})}

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> DuplicateGroup: ...

    @overload
    def __getitem__(self, index: slice) -> list[DuplicateGroup]: ...

    def __getitem__(self, index: int | slice) -> DuplicateGroup | list[DuplicateGroup]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"group {index} of {len(self)}")
        index %= len(self)
        start = int(self._sizes[:index].sum())
        names = ("object_id", "linked_to", "grounds", *MEASURED)
        rows = self.table.select(names).slice(start, int(self._sizes[index])).to_pylist()
        links = (DuplicateLink(**{**row, "grounds": tuple(row["grounds"])}) for row in rows[1:])
        return DuplicateGroup(rows[0]["object_id"], tuple(row["object_id"] for row in rows), tuple(links))

    def __repr__(self) -> str:
        return f"<Duplicates: {len(self.table)} of {self.objects} objects in {len(self)} group{'s' * (len(self) != 1)}>"

    def _repr_html_(self) -> str:
        """Return the pictures of the first members with ids as HTML, as notebooks show them."""
        ids = self.table["object_id"].to_pylist()[: notebook.MOST_SHOWN]
        try:
            pictures = self._store.thumbnails(ids)
        except GalsearchError:
            pictures = {}  # of an atlas that was closed meanwhile
        return notebook.gallery_html(repr(self), ids, self.table["confidence"].to_pylist()[: len(ids)], pictures)


# ---- looking for them


def find_duplicates(store: Store, request: DuplicatesRequest, progress: Progress = silent) -> Duplicates:
    """Return the groups of objects that are one, among those that pass the filters of a request.

    Raises QueryError for grounds that the atlas has nothing for, bad conditions, and a radius or an embedding within
    which everything is a duplicate.
    """
    search = _Search(store, request.check(), progress)
    links = search.links()
    labels = duplicates.group(links.pairs, search.sky_of_groups(), search.radius_arcsec)
    return Duplicates(search, links, labels)


class _Search:
    """The objects that pass, by object_id, what there is of each, and the pairs of them that are one."""

    def __init__(self, store: Store, request: DuplicatesRequest, progress: Progress) -> None:
        self.store, self.request, self.progress = store, request, progress
        condition = store.condition(request.where, None, None)
        self.rows, _ = store.listed(condition, k=max(store.manifest.rows, 1))
        if not len(self.rows):
            raise QueryError("no object is left to compare; loosen where")
        self.sky = np.stack([_by_row(store, name)[self.rows] for name in ("ra", "dec")], axis=1)
        self.pixels = _in_one_picture(store)[self.rows]
        self.radius_arcsec, self.radius_from = _radius(store, request.radius_arcsec)
        names = sorted(store.manifest.embeddings, key=lambda name: (name != store.manifest.main_embedding, name))
        self.has_vectors = {name: store.has_vector(name, self.rows) for name in names}
        self.has_vector = np.any([np.zeros(len(self.rows), bool), *self.has_vectors.values()], axis=0)
        self.hashes = np.zeros((len(self.rows), fingerprints.HASH_BYTES), np.int8)
        self.has_hash = np.zeros(len(self.rows), bool)
        self.unreadable = self.candidates = 0
        self.views = _Views(self)
        self.grounds = self._grounds()
        if store.holds("thumbnails"):
            self._read_hashes(make=PICTURE in self.grounds)
        there = {POSITION: np.isfinite(self.sky).all(axis=1), PICTURE: self.has_hash, VECTOR: self.has_vector}
        self.there = {name: there[name] for name in self.grounds}

    def _grounds(self) -> tuple[str, ...]:
        """Return the grounds that are asked for and that the atlas has something for."""
        has = {
            POSITION: bool(np.isfinite(self.sky).all(axis=1).any()),
            PICTURE: self.store.holds("thumbnails"),
            VECTOR: bool(self.has_vector.any()),
        }
        self.wanted = wanted = GROUNDS if self.request.by is None else (self.request.by,)
        if not any(has[name] for name in wanted):
            raise QueryError(
                f"none of the {len(self.rows)} objects has a {' or a '.join(wanted)} to compare; loosen where, or "
                "choose other grounds with by"
            )
        return tuple(name for name in wanted if has[name])

    def sky_of_groups(self) -> np.ndarray:
        """Return the positions that keep objects apart, `(n, 2)`; NaN where pictures or vectors alone decide."""
        decides = self.request.by in (None, POSITION)
        return self.sky if decides else np.full_like(self.sky, np.nan)

    # ---- hashes

    def _read_hashes(self, *, make: bool) -> None:
        """Read the hashes that are kept, and `make` the others from stored pictures."""
        kept = self.store.rows_with(HASHES, ("method", "hash"))
        if kept.num_rows:
            right = pc.and_(
                pc.equal(kept["method"], fingerprints.METHOD),
                pc.equal(pc.binary_length(kept["hash"]), fingerprints.HASH_BYTES),
            )
            kept = kept.filter(right)
            where = np.full(self.store.manifest.rows, -1, np.int64)
            where[self.rows] = np.arange(len(self.rows))
            at = where[kept["row"].to_numpy()]
            values = np.frombuffer(b"".join(kept["hash"].to_pylist()), np.int8).reshape(-1, fingerprints.HASH_BYTES)
            self.hashes[at[at >= 0]] = values[at >= 0]
            self.has_hash[at[at >= 0]] = True
        if make:
            self._make_hashes(np.flatnonzero(~self.has_hash))

    def _make_hashes(self, missing: np.ndarray) -> None:
        for start in range(0, len(missing), PICTURES_AT_ONCE):
            at, pictures = self.pictures(missing[start : start + PICTURES_AT_ONCE])
            if len(at):
                self.hashes[at] = fingerprints.hashes(pictures)
                self.has_hash[at] = True
            self.progress(min(start + PICTURES_AT_ONCE, len(missing)), len(missing), "hashing pictures")

    def pictures(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return those of some objects that have a picture that can be read, and the pictures `(n, 64, 64, 3)`."""
        ids = self.store.ids(self.rows[at])
        stored = self.store.thumbnails(ids)
        there, pixels = [], []
        for one, name in zip(at.tolist(), ids, strict=True):
            if name not in stored:
                continue
            try:
                pixels.append(decode_thumbnail(stored[name]))
            except SchemaError:
                self.unreadable += 1
                continue
            there.append(one)
        return np.array(there, np.int64), model_input(pixels, fingerprints.SIDE)

    # ---- links

    def links(self) -> _Links:
        """Return the pairs that are one on some ground, less those that positions keep apart."""
        parts = [
            part(column)
            for column, (name, part) in enumerate(
                {POSITION: self._by_position, PICTURE: self._by_picture, VECTOR: self._by_vector}.items()
            )
            if name in self.grounds
        ]
        links = _merged(len(self.rows), parts)
        if self.request.by not in (None, POSITION):
            return links
        return links.take(np.flatnonzero(~self._apart(links.first, links.second)))

    def _apart(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Say which pairs lie further apart than one object may, on the sky or in the one picture that all are of."""
        on_sky = separation_arcsec(*self.sky[first].T, *self.sky[second].T)
        in_picture = np.hypot(*(self.pixels[first] - self.pixels[second]).T)
        return (on_sky > self.radius_arcsec) | (in_picture > RADIUS_PX)

    def _by_position(self, column: int) -> _Links:
        self.progress(0, 1, "comparing positions")
        pairs = duplicates.close_pairs(self.sky, self.radius_arcsec)
        chance = duplicates.chance_alignment(self.sky, pairs, self.radius_arcsec)
        self.progress(1, 1, "comparing positions")
        return _on_ground(pairs, 1 - chance, column)

    def _by_picture(self, column: int) -> _Links:
        """Return the pairs whose pictures fit; of those that positions keep apart none is looked at."""
        ours = np.flatnonzero(self.has_hash)
        if len(ours) < 2:
            return _nothing(column)
        self.progress(0, 1, "comparing hashes")
        sample = np.random.default_rng(self.request.seed).permutation(ours)[: duplicates.SAMPLE_ROWS]
        whitened = fingerprints.Whitening.fit(self.hashes[np.sort(sample)]).of(self.hashes[ours])
        pairs = duplicates.nearest_pairs(whitened, k=NEAREST, least=LEAST_LIKE, seed=self.request.seed)
        self.progress(1, 1, "comparing hashes")
        first, second = ours[pairs.first], ours[pairs.second]
        if self.request.by is None:
            apart = self._apart(first, second)
            first, second = first[~apart], second[~apart]
        self.candidates = len(first)
        confidence, correlation = self._aligned(first, second)
        one = np.flatnonzero(confidence >= fingerprints.Judge().least)
        pairs = duplicates.Pairs(first[one], second[one], confidence[one])
        return _on_ground(pairs, confidence[one], column, correlation[one])

    def _aligned(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the confidence and the correlation of pairs of pictures; NaN where one cannot be read."""
        confidence, correlation = (np.full(len(first), np.nan) for _ in range(2))
        for start in range(0, len(first), PAIRS_AT_ONCE):
            at = np.arange(start, min(start + PAIRS_AT_ONCE, len(first)))
            at, one, other = self.views.of(at, first[at], second[at])
            if len(at):
                alignment = fingerprints.align(one, other)
                confidence[at] = fingerprints.Judge().confidence(alignment)
                correlation[at] = alignment.correlations[:, 0]
            self.progress(min(start + PAIRS_AT_ONCE, len(first)), len(first), "comparing pictures")
        return confidence, correlation

    def _by_vector(self, column: int) -> _Links:
        """Return the pairs whose vectors are equal in some embedding."""
        parts = [self._equal(name, column) for name, has in self.has_vectors.items() if has.sum() > 1]
        return _merged(len(self.rows), parts) if parts else _nothing(column)

    def _equal(self, embedding: str, column: int) -> _Links:
        """Return the pairs of equal vectors; of pictures only where one of the two is not there to be compared."""
        ours = np.flatnonzero(self.has_vectors[embedding])
        flat = self._flat(embedding, ours)
        whole = np.isfinite(flat).all(axis=1)  # a file of somebody else's may hold what is no number
        ours, flat = ours[whole], flat[whole]
        pairs = duplicates.equal_pairs(flat, float(np.sqrt(2 - 2 * duplicates.SAME_COSINE)) + SPARE)
        first, second = ours[pairs.first], ours[pairs.second]
        if PICTURE in self.grounds and self.store.manifest.modality(embedding).name == schema.MAIN:
            both = self.has_hash[first] & self.has_hash[second]
            first, second = first[~both], second[~both]
        cosine = self._cosines(embedding, first, second)
        same = np.flatnonzero(cosine >= duplicates.SAME_COSINE)
        # the least cosine that counts is worth a half: that is no probability, but it puts links in order
        share = np.clip((1 - cosine[same]) / (1 - duplicates.SAME_COSINE), 0, 1)
        return _on_ground(duplicates.Pairs(first[same], second[same], cosine[same]), 1 - share / 2, column)

    def _flat(self, embedding: str, ours: np.ndarray) -> np.ndarray:
        """Return vectors in the few directions in which they differ most, `(n, 4) float32`, read block by block."""
        sample = np.random.default_rng(self.request.seed).permutation(ours)[: duplicates.SAMPLE_ROWS]
        some = self._vectors(embedding, np.sort(sample))
        axes = duplicates.directions(some[np.isfinite(some).all(axis=1)])
        flat = np.empty((len(ours), axes.shape[1]), np.float32)
        for start in range(0, len(ours), BLOCK_ROWS):
            flat[start : start + BLOCK_ROWS] = self._vectors(embedding, ours[start : start + BLOCK_ROWS]) @ axes
            self.progress(min(start + BLOCK_ROWS, len(ours)), len(ours), "comparing vectors")
        return flat

    def _vectors(self, embedding: str, at: np.ndarray) -> np.ndarray:
        return self.store.vectors_of(embedding, self.rows[at])

    def cosines(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the cosine of pairs in the first embedding in which both have a vector; NaN where there is none."""
        result = np.full(len(first), np.nan)
        for name in self.has_vectors:
            left = np.flatnonzero(np.isnan(result))
            result[left] = self._cosines(name, first[left], second[left])
        return result

    def _cosines(self, embedding: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        result, has = np.full(len(first), np.nan), self.has_vectors[embedding]
        both = np.flatnonzero(has[first] & has[second])
        for start in range(0, len(both), BLOCK_ROWS):
            at = both[start : start + BLOCK_ROWS]
            one, other = (self._vectors(embedding, each[at]).astype(np.float64) for each in (first, second))
            size = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            result[at] = (one * other).sum(axis=1) / np.maximum(size, SMALLEST)
        return result


class _Views:
    """Pictures as they are compared, the last ones kept."""

    def __init__(self, search: _Search) -> None:
        self._search = search
        self._kept: dict[int, fingerprints.Views] = {}

    def of(
        self, at: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, fingerprints.Views, fingerprints.Views]:
        """Return those of `at` whose pairs of pictures can both be read, and the views of either side."""
        wanted = np.unique(np.concatenate([first, second]))
        if len(self._kept) + len(wanted) > VIEWS_KEPT:
            self._kept = {row: view for row, view in self._kept.items() if row in set(wanted.tolist())}
        there, pictures = self._search.pictures(wanted[[row not in self._kept for row in wanted.tolist()]])
        if len(there):
            views = fingerprints.Views.of(pictures)
            self._kept |= {row: views.take(np.array([n])) for n, row in enumerate(there.tolist())}
        good = np.array(
            [a in self._kept and b in self._kept for a, b in zip(first.tolist(), second.tolist(), strict=True)]
        )
        if not good.any():
            nothing = fingerprints.Views.of(np.empty((0, fingerprints.SIDE, fingerprints.SIDE, 3), np.uint8))
            return at[:0], nothing, nothing
        one, other = (
            fingerprints.Views.joined([self._kept[row] for row in side[good].tolist()]) for side in (first, second)
        )
        return at[good], one, other


def _by_row(store: Store, name: str) -> np.ndarray:
    """Return a column of numbers by row, NaN for none."""
    values = pc.cast(store.by_row(name), pa.float64())
    return np.array(values.to_numpy(zero_copy_only=False), np.float64)


def _in_one_picture(store: Store) -> np.ndarray:
    """Return the pixel positions `(n, 2)` by row where all objects are of one mosaic, else NaN.

    Objects of cutouts have a file each, and their pixels are counted in it; a mosaic that was added to may be another.
    """
    known = set(store.describe()["column"].to_pylist())
    actions = [record.get("action") for record in store.manifest.provenance]
    if not {"x_px", "y_px"} <= known or "file" in known or "add" in actions or len(store.parts) > 1:
        return np.full((store.manifest.rows, 2), np.nan)
    return np.stack([_by_row(store, name) for name in ("x_px", "y_px")], axis=1)


def _radius(store: Store, given: float | None) -> tuple[float, str]:
    """Return the radius within which positions are one, and where it comes from."""
    if given is not None:
        return float(given), "as given"
    known = set(store.describe()["column"].to_pylist())
    if {"radius_px", "radius_arcsec"} <= known:
        size_px, size = (_by_row(store, name) for name in ("radius_px", "radius_arcsec"))
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = size / size_px
        scale = scale[np.isfinite(scale) & (scale > 0)]
        if len(scale):
            middle = float(np.median(scale))
            radius = min(max(RADIUS_PX * middle, LEAST_RADIUS_ARCSEC), duplicates.SAME_ARCSEC)
            return radius, f"from the image scale, {middle:.3g} arcsec a pixel"
    return duplicates.SAME_ARCSEC, "as no image scale is known"


def _on_ground(
    pairs: duplicates.Pairs, confidence: np.ndarray, column: int, correlation: np.ndarray | None = None
) -> _Links:
    by_ground = np.full((len(pairs.first), len(GROUNDS)), np.nan)
    by_ground[:, column] = confidence
    nothing = np.full(len(pairs.first), np.nan)
    return _Links(pairs.first, pairs.second, by_ground, nothing if correlation is None else correlation)


def _nothing(column: int) -> _Links:
    none = np.empty(0, np.int64)
    return _on_ground(duplicates.Pairs(none, none, np.empty(0)), np.empty(0), column)


def _merged(count: int, parts: Sequence[_Links]) -> _Links:
    """Return links of several grounds as one list, ascending, each pair once."""
    first, second = (np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "second"))
    key, at = np.unique(first * count + second, return_inverse=True)
    by_ground, correlation = np.full((len(key), len(GROUNDS)), np.nan), np.full(len(key), np.nan)
    start = 0
    for part in parts:
        ours = at[start : start + len(part.first)]
        start += len(part.first)
        by_ground[ours] = np.fmax(by_ground[ours], part.by_ground)
        correlation[ours] = np.fmax(correlation[ours], part.correlation)
    return _Links(key // max(count, 1), key % max(count, 1), by_ground, correlation)


# ---- the table


def _table(search: _Search, links: _Links, labels: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """Return the table of the members of all groups, and how many each has."""
    members = np.flatnonzero(labels >= 0)
    inside = links.take(np.flatnonzero((labels[links.first] == labels[links.second]) & (labels[links.first] >= 0)))
    kept = _kept(search, members, labels)
    link = duplicates.tree(inside.pairs, len(search.rows), kept)
    sizes = np.bincount(labels[members]) if len(members) else np.empty(0, np.int64)
    order = kept[np.lexsort((kept, -sizes[labels[kept]]))] if len(kept) else kept
    rank = np.zeros(len(sizes), np.int64)
    rank[labels[order]] = np.arange(len(order))
    is_kept = np.zeros(len(search.rows), bool)
    is_kept[kept] = True
    members = members[np.lexsort((members, ~is_kept[members], rank[labels[members]]))]
    ids = search.store.ids(search.rows[members])
    columns = {
        "group_id": pa.array(rank[labels[members]]),
        "object_id": pa.array(ids, pa.string()),
        "is_kept": pa.array(is_kept[members]),
        **_reasons(search, inside, link[members], members, dict(zip(members.tolist(), ids, strict=True))),
    }
    about = {column.name: column for column in schema.TABLES[TABLE]}
    fields = [schema.described(about[name]) for name in columns]
    table = pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))
    return with_catalog(table, search.store, search.rows[members]), sizes[labels[order]]


def _kept(search: _Search, members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the row of each group that stands for it."""
    grounds = (np.isfinite(search.sky).all(axis=1), search.has_hash, search.has_vector)
    much = sum(there[members].astype(np.int64) for there in grounds)
    size = np.zeros(len(members), np.int64)
    for start in range(0, len(members) if search.store.holds("thumbnails") else 0, PICTURES_AT_ONCE):
        ids = search.store.ids(search.rows[members[start : start + PICTURES_AT_ONCE]])
        stored = search.store.thumbnails(ids)
        size[start : start + len(ids)] = [len(stored.get(name, b"")) for name in ids]
    order = members[np.lexsort((members, -size, -much, labels[members]))]
    return order[np.r_[True, np.diff(labels[order]) != 0]] if len(order) else order


def _reasons(
    search: _Search, links: _Links, link: np.ndarray, members: np.ndarray, ids: dict[int, str]
) -> dict[str, pa.Array]:
    """Return the columns on why each member is in its group; NULL for the one that is kept."""
    chosen = np.flatnonzero(link >= 0)
    taken = links.take(link[chosen])
    other = np.where(taken.first == members[chosen], taken.second, taken.first)
    distance = np.where(
        search.has_hash[taken.first] & search.has_hash[taken.second],
        fingerprints.hash_distance(search.hashes[taken.first], search.hashes[taken.second]),
        np.nan,
    )
    values = {
        "confidence": taken.confidence,
        "separation_arcsec": separation_arcsec(*search.sky[taken.first].T, *search.sky[taken.second].T),
        "hash_distance": distance,
        "cosine": search.cosines(taken.first, taken.second),
        "correlation": taken.correlation,
    }
    linked: list[str | None] = [None] * len(members)
    grounds: list[list[str] | None] = [None] * len(members)
    for at, row, each in zip(chosen.tolist(), other.tolist(), np.isfinite(taken.by_ground).tolist(), strict=True):
        linked[at] = ids[row]
        grounds[at] = [name for name, there in zip(GROUNDS, each, strict=True) if there]
    spread = {name: np.full(len(members), np.nan) for name in values}
    for name, numbers in values.items():
        spread[name][chosen] = numbers
    return {
        "linked_to": pa.array(linked, pa.string()),
        "grounds": pa.array(grounds, pa.list_(pa.string())),
        **{name: pa.array(numbers, pa.float64(), from_pandas=True) for name, numbers in spread.items()},
    }


# ---- keeping them


def save_duplicates(result: Duplicates) -> str:
    """Keep groups in the table `duplicates` of the atlas folder, and hashes in `picture_hashes`; return the run.

    `Atlas.saved_duplicates` reads the groups again, `distinct` of a search collapses those of the last run, and the
    hashes are not made again. Raises GalsearchError for a bundle, for several atlases opened as one, and while another
    is writing the atlas.
    """
    store = result._store
    if not store.grows:
        raise GalsearchError(f"{store.path} is never changed: save the duplicates of the folder, then bundle it again")
    parameters, created = result.parameters(), schema.now()
    run = hashlib.sha256(json.dumps([parameters, created], sort_keys=True).encode()).hexdigest()[:16]
    names = [column.name for column in schema.TABLES[TABLE] if column.name not in ("run", "created")]
    kept = pa.table({name: result.table[name] for name in names})
    kept = kept.append_column("run", pa.array([run] * len(kept), pa.string()))
    kept = kept.append_column("created", pa.array([created] * len(kept), pa.string()))
    tables = {TABLE: Rows(kept, ("run", "object_id")), HASHES: Rows(_hash_rows(result._search), ("object_id",))}
    put_rows(store.path, tables, schema.provenance(ACTION, parameters={**parameters, "run": run}))
    return run


def _hash_rows(search: _Search) -> pa.Table:
    at = np.flatnonzero(search.has_hash)
    return pa.table(
        {
            "object_id": pa.array(search.store.ids(search.rows[at]), pa.string()),
            "method": pa.array([fingerprints.METHOD] * len(at), pa.string()),
            "hash": pa.array([each.tobytes() for each in search.hashes[at]], pa.binary()),
        }
    )


def saved_duplicates(store: Store, *, run: str | None = None) -> pa.Table:
    """Return the groups of a saved run, the last unless `run` says, in their order, the kept member first."""
    table = store.table(TABLE)
    runs = [] if table is None else store.manifest.runs(ACTION)
    missing = [] if table is None else [c.name for c in schema.TABLES[TABLE] if c.name not in table.column_names]
    if missing:
        raise FormatError(
            f"{store.path}: table {TABLE} has no column '{missing[0]}'; save the groups again with "
            "`galsearch duplicates --save`"
        )
    if table is None or not runs or run not in (None, *runs):
        known = (
            f"it has {', '.join(runs[-10:])}"
            if runs
            else "it has none yet; save some with `galsearch duplicates --save`"
        )
        raise QueryError(
            f"{store.path} has no saved duplicates{'' if run is None else f' of run {run!r:.40}'}, {known}"
        )
    table = table.filter(pc.equal(table["run"], run or runs[-1]))
    return table.sort_by([("group_id", "ascending"), ("is_kept", "descending"), ("object_id", "ascending")])
