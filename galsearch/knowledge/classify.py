"""Classification and regression by votes of the nearest labeled objects: who voted, how, and what comes of it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import pyarrow as pa

from galsearch import formats, notebook
from galsearch.errors import GalsearchError, QueryError
from galsearch.knowledge.heldout import Electorate, Neighbors, check_k
from galsearch.knowledge.members import CLASS, KnowledgeBase, Members
from galsearch.progress import Progress, silent
from galsearch.science import votes
from galsearch.science.votes import Calibration, Spread

if TYPE_CHECKING:
    import pandas as pd

VOTES = "votes"  # the method that counts them
FAR, SPLIT, NO_VECTOR = "far", "split", "without a vector"
LINE_RATIOS = ("log_nii_halpha", "log_oiii_hbeta")  # of voters whose lines were measured: their point on a BPT diagram
AUDIT_SIGMAS = 3.0  # of the error of a vote, by which a number of a base must differ from it to be listed


@dataclass(frozen=True)
class Way:
    """How votes are counted: `k` neighbors, weighted by `weight` with the length `tau`; when none is given a label."""

    k: int = 3
    weight: str = "exp"
    tau: float = 1.0
    least: float = 0.5
    max_distance: float | None = None


class Probed(NamedTuple):
    """What a probe says of objects: its name, and the probability of each class, `(n, c)`, NaN without a vector."""

    name: str
    probabilities: np.ndarray


class Voter(NamedTuple):
    """A neighbor that voted: its id, its distance from 0 to 2, how much it counted, its label or number."""

    object_id: str
    distance: float
    weight: float
    label: str | float


class Votes:
    """The votes on one object, nearest voter first: what they say, and who they are.

    `label` is the class, None where there is no honest answer; `reason` then says "far" (the nearest voter is further
    than `max_distance`), "split" (no class is as probable as `least`, or two are equally so) or "without a vector".
    `best` is the most probable class in any case, `probability` its own, `probabilities` those of all, `support` how
    many of the voters have it. In a base of numbers `value` and its `uncertainty`, one sigma, stand in their place,
    None where far. Iterating gives each `Voter`; `neighbors` is a table of them with the columns of the catalog that
    the base shows.
    """

    def __init__(self, of: Classification, index: int) -> None:
        self._of, self._index = of, index

    @property
    def object_id(self) -> str | None:
        """The object that was classified; None for a file or a vector."""
        return self._of.ids[self._index]

    @property
    def of(self) -> str:
        """What was classified: the object_id, the name of a file, or "vector 0" for an array."""
        return self._of.names[self._index]

    @property
    def base(self) -> KnowledgeBase:
        """The base whose members voted."""
        return self._of.base

    @property
    def label(self) -> str | None:
        """The class; None where the voters are far or split, and in a base of numbers."""
        return self._of.table["label"][self._index].as_py() if self._is_class else None

    @property
    def best(self) -> str | None:
        """The most probable class, convincing or not."""
        return self._of.table["best"][self._index].as_py() if self._is_class else None

    @property
    def probability(self) -> float | None:
        """The probability of the most probable class; None in a base of numbers."""
        return self._of.table["probability"][self._index].as_py() if self._is_class else None

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of each class, the most probable first."""
        result = dict(zip(self._of.classes, self._of.probabilities[self._index].tolist(), strict=True))
        return dict(sorted(result.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def weights(self) -> dict[str, float]:
        """The sum of weights that voted for each class with a vote, the largest first."""
        result: dict[str, float] = {}
        for voter in self:
            result[str(voter.label)] = result.get(str(voter.label), 0.0) + voter.weight
        return dict(sorted(result.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def value(self) -> float | None:
        """The weighted mean of the voters' numbers; None where they are far, and in a base of classes."""
        return None if self._is_class else self._of.table["value"][self._index].as_py()

    @property
    def uncertainty(self) -> float | None:
        """The error of the value, one sigma; None where a single voter was not calibrated."""
        return None if self._is_class else self._of.table["uncertainty"][self._index].as_py()

    @property
    def support(self) -> int:
        """How many voters have the best class; in a base of numbers how many there are."""
        return self._of.table["support"][self._index].as_py()

    @property
    def distance(self) -> float | None:
        """The distance of the nearest voter, 0 to 2; None for an object without a vector."""
        return self._of.table["distance"][self._index].as_py()

    @property
    def reason(self) -> str | None:
        """Why there is no label: "far", "split" or "without a vector"; None where there is one."""
        return self._of.table["reason"][self._index].as_py()

    @property
    def calibrated(self) -> bool:
        """Whether held-out members say how votes become probabilities; else they are shares of the votes."""
        return self._of.calibrated

    @property
    def method(self) -> str:
        """What gave the probabilities: "votes", or a probe, such as "probe 2"."""
        return self._of.method

    @functools.cached_property
    def neighbors(self) -> pa.Table:
        """The voters as a table: object_id, distance, weight, label or value, and columns of the catalog."""
        return self._of.voters([self._index]).remove_column(0)

    def to_pandas(self) -> pd.DataFrame:
        """Return the voters as a pandas DataFrame; needs pandas."""
        return formats.to_pandas(self.neighbors)

    def __len__(self) -> int:
        return int(np.isfinite(self._of.neighbors.distance[self._index]).sum())

    def __iter__(self) -> Iterator[Voter]:
        names = self._of.voter_ids(self._index)
        distance, weight = self._of.neighbors.distance[self._index], self._of.weight[self._index]
        numbers = self._of.neighbors.members[self._index]
        for name, number, at, counts in zip(names, numbers, distance, weight, strict=False):  # where there are fewer
            yield Voter(name, float(at), float(counts), self._of.members.label_of(int(number)))

    def __repr__(self) -> str:
        of = f"{self.of!r}: "
        if not self._is_class:
            value = "None" if self.value is None else f"{self.value:.4g} ± {self.uncertainty or float('nan'):.2g}"
            return f"<Votes {of}{value}, {len(self)} voters of {self.base.name}>"
        if self.best is None:
            return f"<Votes {of}None ({self.reason})>"
        stated = repr(self.label) if self.label is not None else f"None ({self.reason}; best {self.best!r})"
        return (
            f"<Votes {of}{stated}, p {self.probability:.2f}, {self.support} of {len(self)} voters of {self.base.name}>"
        )

    def _repr_html_(self) -> str:
        """Return the pictures of the voters with their ids and distances as HTML, as notebooks show them."""
        voters = list(self)[: notebook.MOST_SHOWN]
        ids = [voter.object_id for voter in voters]
        return notebook.gallery_html(repr(self), ids, [voter.distance for voter in voters], self._of.pictures(ids))

    @property
    def _is_class(self) -> bool:
        return self._of.base.kind == CLASS


class Classification(Sequence[Votes]):
    """The votes on several objects, in their order.

    `table` has a row for each: object_id, NULL for what is no object; `of`, what it is called (the object_id, the name
    of a file, "vector 0" for an array that comes first); then label, best and probability, or value and uncertainty,
    then support, distance of the nearest voter, reason, and the ids of the voters. `voters()` has a row for each vote.
    Columns of the catalog are read when they are first asked for, so ask before the atlas is closed.
    """

    def __init__(
        self,
        electorate: Electorate,
        ids: Sequence[str | None],
        neighbors: Neighbors,
        way: Way,
        *,
        names: Sequence[str],
        prevalence: float | Mapping[str, float] | None = None,
        columns: Sequence[str] = (),
        probe: Probed | None = None,
    ) -> None:
        self.ids, self.names, self.neighbors = list(ids), list(names), neighbors
        self.base: KnowledgeBase = electorate.base
        self.members: Members = electorate.members
        self.classes = self.members.classes
        self.weight = votes.weights(neighbors.distance, weight=way.weight, tau=way.tau)
        self.probabilities = np.empty((len(self.ids), 0))
        self._electorate, self._columns, self._probe = electorate, tuple(columns), probe
        fit = None if probe is not None else electorate.fit(k=way.k, weight=way.weight, tau=way.tau)
        self.calibrated = probe is not None or fit is not None
        self.method = VOTES if probe is None else probe.name
        limit = electorate.far() if way.max_distance is None else way.max_distance
        self.far = neighbors.distance[:, 0] > (np.inf if limit is None else limit)
        numbers = self._counted(fit, way, prevalence) if self.base.kind == CLASS else self._averaged(fit)
        self.table = _table(
            {
                "object_id": pa.array(self.ids, pa.string()),
                "of": pa.array(self.names, pa.string()),
                **numbers,
                "distance": pa.array(neighbors.distance[:, 0], mask=np.isnan(neighbors.distance[:, 0])),
                "reason": self._reasons(numbers),
                "neighbors": pa.array([self.voter_ids(row) for row in range(len(self.ids))], pa.list_(pa.string())),
            }
        )

    def _counted(self, fit: Calibration | Spread | None, way: Way, prevalence: Any) -> dict[str, pa.Array]:
        """Return the columns of a vote on classes."""
        codes = self.members.codes[self.neighbors.members]
        priors = self.members.priors
        result = self._shares(fit, codes) if self._probe is None else self._probe.probabilities
        wanted = wanted_prevalence(self.base, self.members, prevalence)
        self.probabilities = result if wanted is None else votes.at_prevalence(result, priors, wanted)
        known = np.isfinite(self.probabilities).all(axis=1)
        best = np.where(known, np.nan_to_num(self.probabilities).argmax(axis=1), -1)
        winner = np.where(known & ~self.far, votes.winners(np.nan_to_num(self.probabilities), least=way.least), -1)
        support = ((codes == best[:, None]) & np.isfinite(self.neighbors.distance)).sum(axis=1)
        return {
            "label": self._labels(winner),
            "best": self._labels(best),
            "probability": pa.array(self.probabilities.max(axis=1, initial=0.0), mask=~known),
            "support": pa.array(support),
        }

    def _shares(self, fit: Calibration | Spread | None, codes: np.ndarray) -> np.ndarray:
        """Return the probability of each class by votes, or their shares where no fit says what those are worth."""
        cast = votes.class_votes(self.weight, codes, len(self.classes))
        return fit.probabilities(cast, self.members.priors) if isinstance(fit, Calibration) else votes.shares(cast)

    def _averaged(self, fit: Calibration | Spread | None) -> dict[str, pa.Array]:
        """Return the columns of a vote on numbers."""
        mean, spread = votes.mean_and_spread(self.weight, self.members.values[self.neighbors.members])
        error = fit.uncertainty(spread) if isinstance(fit, Spread) else spread
        return {
            "value": pa.array(mean, mask=self.far | np.isnan(mean)),
            "uncertainty": pa.array(error, mask=self.far | np.isnan(mean) | np.isnan(error)),
            "support": pa.array(np.isfinite(self.neighbors.distance).sum(axis=1)),
        }

    def _labels(self, codes: np.ndarray) -> pa.Array:
        names = pa.array(self.classes, pa.string())
        return names.take(pa.array(np.where(codes < 0, 0, codes), mask=codes < 0))

    def _reasons(self, numbers: dict[str, pa.Array]) -> pa.Array:
        none = numbers["label" if self.base.kind == CLASS else "value"].is_null().to_numpy(zero_copy_only=False)
        why = np.where(self.far, FAR, SPLIT)
        why = np.where(np.isnan(self.neighbors.distance[:, 0]), NO_VECTOR, why)
        return pa.array(why, pa.string(), mask=~none)

    def voter_ids(self, row: int) -> list[str]:
        """Return the ids of the voters on one object, nearest first."""
        there = np.isfinite(self.neighbors.distance[row])
        return self._electorate.store.ids(self.members.rows[self.neighbors.members[row][there]])

    def voters(self, which: Sequence[int] | None = None) -> pa.Table:
        """Return a row for each vote on the objects `which`, all unless given, nearest first.

        The columns are `of` (what was classified, as in `table`), object_id of the voter, its distance, weight, label
        or value, and the columns of the catalog that the base shows.
        """
        chosen = np.arange(len(self)) if which is None else np.asarray(which, np.int64)
        row, rank = np.nonzero(np.isfinite(self.neighbors.distance[chosen]))
        row = chosen[row]
        numbers = self.neighbors.members[row, rank]
        store, labels = self._electorate.store, self._labels(self.members.codes[numbers]) if self.classes else None
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            "of": pa.array([self.names[index] for index in row.tolist()], pa.string()),
            "object_id": pa.array(store.ids(self.members.rows[numbers]), pa.string()),
            "distance": pa.array(self.neighbors.distance[row, rank]),
            "weight": pa.array(self.weight[row, rank]),
            **({"label": labels} if self.classes else {"value": pa.array(self.members.values[numbers])}),
        }
        table = _table(columns)
        if self._columns:
            shown = store.hits(self.members.rows[numbers], None).select(list(self._columns))
            for item, column in zip(shown.schema, shown.columns, strict=True):
                name = item.name if item.name not in table.column_names else f"{item.name}_in_table"
                table = table.append_column(item.with_name(name), column)
        return table

    def pictures(self, ids: list[str]) -> dict[str, bytes]:
        """Return small pictures by id; none of an atlas that was closed meanwhile."""
        try:
            return self._electorate.store.thumbnails(ids)
        except GalsearchError:
            return {}

    def to_arrow(self) -> pa.Table:
        """Return the table."""
        return self.table

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a pandas DataFrame; needs pandas."""
        return formats.to_pandas(self.table)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Votes: ...

    @overload
    def __getitem__(self, index: slice) -> list[Votes]: ...

    def __getitem__(self, index: int | slice) -> Votes | list[Votes]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"object {index} of {len(self)}")
        return Votes(self, index % len(self))

    def __repr__(self) -> str:
        none = self.table["reason"].null_count
        return f"<{len(self)} objects voted on by {self.base.name}, {len(self) - none} without an answer>"


def classify(
    electorate: Electorate,
    ids: Sequence[str | None],
    vectors: np.ndarray,
    way: Way,
    *,
    names: Sequence[str],
    prevalence: float | Mapping[str, float] | None = None,
    exact: bool = False,
    columns: Sequence[str] = (),
    probe: Probed | None = None,
    progress: Progress = silent,
) -> Classification:
    """Return the votes on unit vectors `(n, d)`, told by their `names`; an object of `ids` does not vote on itself.

    With a probe its probabilities count, and the neighbors are those that it is like.
    """
    check_way(way)
    wanted_prevalence(electorate.base, electorate.members, prevalence)
    _check_voters(electorate, ids, way.k)
    neighbors = electorate.neighbors(vectors, ids, k=way.k, exact=exact, progress=progress, what="classifying")
    return Classification(
        electorate, ids, neighbors, way, names=names, prevalence=prevalence, columns=columns, probe=probe
    )


def columns_shown(electorate: Electorate) -> tuple[str, ...]:
    """Return the columns of the catalog shown of voters: those of the base, and line ratios where the atlas has them.

    The ratios are NULL below S/N 3 of either line.
    """
    store = electorate.store
    there = store.describe()["column"].to_pylist()
    ratios = [store.manifest.measure_column(name) for name in LINE_RATIOS]
    ratios = [name for name in ratios if name in there]
    return tuple(dict.fromkeys([*electorate.base.columns, *(name for name in ratios if name is not None)]))


def check_way(way: Way) -> None:
    """Raise QueryError unless votes can be counted so."""
    votes.check_weight(way.weight, way.tau)
    if not _is_number(way.least) or not 0 <= way.least <= 1:
        raise QueryError(f"least is {way.least!r:.40}, expected a probability, 0 to 1")
    if way.max_distance is not None and (not _is_number(way.max_distance) or not way.max_distance >= 0):
        raise QueryError(f"max_distance is {way.max_distance!r:.40}, expected a distance from 0 on (2 is opposite)")


def _check_voters(electorate: Electorate, ids: Sequence[str | None], k: int) -> None:
    """Raise QueryError where k is more than the members that can vote on one of the objects."""
    voters = len(electorate.members.rows)
    check_k(k, voters=voters, base=electorate.base)
    if k == voters:
        own = electorate.store.rows_of([name for name in ids if name is not None])
        if np.isin(own, electorate.members.rows).any():
            check_k(k, voters=voters - 1, base=electorate.base)


def wanted_prevalence(
    base: KnowledgeBase, members: Members, prevalence: float | Mapping[str, float] | None
) -> np.ndarray | None:
    """Return how frequent each class is where it is asked, `(c,)`; None where nothing is said.

    A number is the prevalence of the target of the base, or each label has its own; classes that are not named share
    the rest as they do in the base. Raises QueryError for what is no such thing.
    """
    if prevalence is None:
        return None
    if base.kind != CLASS:
        raise QueryError("prevalence is of a class, and this base votes on numbers; leave it out")
    if not isinstance(prevalence, Mapping):
        if base.target is None:
            raise QueryError(
                f"prevalence is {prevalence!r:.40} of no class, as base '{base.name}' has no target; give each label "
                f"its own, such as {{'{members.classes[0]}': 0.1}}"
            )
        prevalence = {base.target: prevalence}
    for label, share in prevalence.items():
        if label not in members.classes:
            raise QueryError(f"prevalence names {label!r:.40}, which is none of {', '.join(members.classes)[:200]}")
        if not _is_number(share) or not 0 <= share <= 1:
            raise QueryError(f"prevalence of {label!r:.40} is {share!r:.40}, expected a share, 0 to 1")
    return _completed(members, prevalence)


def _completed(members: Members, prevalence: Mapping[str, float]) -> np.ndarray:
    """Return a prevalence for every class; those not named share the rest as in the base."""
    named = np.array([label in prevalence for label in members.classes])
    result = np.array([prevalence.get(label, 0.0) for label in members.classes], np.float64)
    rest = 1 - result.sum()
    if rest < -1e-9 or (named.all() and rest > 1e-9):
        raise QueryError(f"the prevalences add up to {result.sum():.6g}, and they must be 1 in all")
    others = np.where(named, 0.0, members.priors)
    return result + (max(rest, 0.0) * others / others.sum() if others.any() else 0.0)


def audit(
    electorate: Electorate, *, k: int = 10, weight: str = "exp", tau: float = 1.0, exact: bool, progress: Progress
) -> pa.Table:
    """Return the members that disagree with all of their k nearest others, the likeliest mistakes first.

    See `Atlas.audit`.
    """
    check_way(Way(k, weight, tau))
    members = electorate.members
    check_k(k, voters=len(members.rows) - 1, base=electorate.base)
    every = np.arange(len(members.rows))
    near = electorate.leave_one_out(every, k=k, exact=exact, progress=progress, what="auditing")
    counts = votes.weights(near.distance, weight=weight, tau=tau)
    ids = pa.array(electorate.store.ids(members.rows), pa.string())
    distance = near.distance[:, 0]
    if electorate.base.kind == CLASS:
        names = pa.array(members.classes, pa.string())
        cast = votes.shares(votes.class_votes(counts, members.codes[near.members], len(members.classes)))
        other, share = cast.argmax(axis=1), cast.max(axis=1)
        odd = (members.codes[near.members] != members.codes[:, None]).all(axis=1)
        columns = {"label": names.take(pa.array(members.codes)), "neighbors_say": names.take(pa.array(other))}
        ranked = pa.table({"object_id": ids, **columns, "share": share, "distance": distance})
        order = [("share", "descending"), ("distance", "ascending"), ("object_id", "ascending")]
    else:
        mean, spread = votes.mean_and_spread(counts, members.values[near.members])
        fit = electorate.fit(k=k, weight=weight, tau=tau)
        error = fit.uncertainty(spread) if isinstance(fit, Spread) else spread
        sigmas = np.abs(members.values - mean) / np.where(error > 0, error, np.nan)
        odd = sigmas > AUDIT_SIGMAS
        columns = {"value": pa.array(members.values), "neighbors_say": pa.array(mean), "uncertainty": pa.array(error)}
        ranked = pa.table({"object_id": ids, **columns, "sigmas": sigmas, "distance": distance})
        order = [("sigmas", "descending"), ("distance", "ascending"), ("object_id", "ascending")]
    return _table(dict(zip(ranked.column_names, ranked.columns, strict=True))).filter(pa.array(odd)).sort_by(order)


_ABOUT = {  # column of a result -> UCD, meaning
    "object_id": ("meta.id;meta.main", "Object"),
    "of": ("meta.id", "What was voted on: object_id, name of a file, or number of a vector from 0"),
    "label": ("meta.code.class", "Class; NULL where voters are far or split"),
    "best": ("meta.code.class", "Most probable class, convincing or not"),
    "probability": ("stat.probability", "Of the most probable class"),
    "value": ("stat.value", "Number"),
    "uncertainty": ("stat.error", "One sigma"),
    "support": ("meta.number", "Voters that have the best class; of numbers, all voters"),
    "distance": ("stat.value", "Euclidean distance between unit vectors, 0 to 2; of the nearest voter"),
    "weight": ("stat.weight", "How much a voter counted"),
    "reason": ("meta.note", "Why there is no answer: far, split or without a vector"),
    "neighbors": ("meta.id", "Objects that voted, nearest first"),
    "neighbors_say": ("stat.value", "What the nearest others vote for"),
    "share": ("stat.value", "Part of their votes that says so"),
    "sigmas": ("stat.value", "Difference over the error of the vote"),
}


def _table(columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Return a table whose columns say what they are."""
    fields = []
    for name, values in columns.items():
        ucd, description = _ABOUT[name]
        fields.append(formats.describe(pa.field(name, values.type), ucd=ucd, description=description))
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
