"""Fitting the words of a model to one atlas by verdicts: learned on half of them, judged on the other, kept, undone.

The vectors of the atlas stay as they are; what changes is where the vector of a query text points. A verdict's half is
by a digest of its object_id, so that what judges one adaptation never trains a later one. An adaptation comes into use
only where it ranks the judging half better than what was in use before, with an interval that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import FormatError, GalsearchError, ModelMismatchError, QueryError
from galsearch.progress import Progress, silent
from galsearch.science.adaptation import LEAST_MARKS, Correction, Marks, chosen_strength, fit, judge
from galsearch.science.metrics import fold_of
from galsearch.science.votes import check_seed
from galsearch.store import Store, open_store

if TYPE_CHECKING:
    from galsearch.discovery.verdicts import Verdicts

TABLE, ADAPTED, CHOSEN = "adaptations", "adapt", "adapt --use"
HALVES, SPLIT_SEED = 2, 0  # the half that trains and the one that judges are the same for ever
Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Adaptation:
    """A correction of text vectors, with what the judging half of the verdicts said of it.

    `kinds` are those of the verdicts and `texts` what was searched for each; `gain` is the mean AUROC over kinds less
    that of what was in use before (`against`), with a bootstrap interval of 95 %. The AUROC is that among objects that
    people judged, who are no random sample. `kept` is the least cosine of another phrase of the atlas with itself
    corrected. `promoted` is None for one that was never in use, and highest for the one that is.
    """

    adaptation: int
    embedding: str
    model_sha256: str
    words_sha256: str
    kinds: tuple[str, ...]
    texts: tuple[str, ...]
    gates: np.ndarray
    shifts: np.ndarray
    strength: float
    trained: int
    tested: int
    auroc_before: float
    auroc: float
    against: str
    gain: float
    gain_low: float
    gain_high: float
    kept: float
    promoted: int | None
    sha256: str
    seed: int
    software: str
    created: str

    @property
    def correction(self) -> Correction:
        """What it does with vectors of text."""
        return Correction(self.gates, self.shifts)

    @property
    def is_better(self) -> bool:
        """Whether the whole interval of the gain is above 0."""
        return self.gain_low > 0

    def __str__(self) -> str:
        texts = ", ".join(f"{text!r}" for text in self.texts)
        return (
            f"adaptation {self.adaptation} to {texts}: learned from {self.trained} objects; AUROC on {self.tested} "
            f"others {self.auroc:.3f}, {self.gain:+.3f} [{self.gain_low:+.3f}, {self.gain_high:+.3f}] "
            f"against {self.against}; "
            f"other phrases keep a cosine of {self.kept:.3f} or more"
        )

    def to_row(self) -> dict[str, Any]:
        """Return it as a row of the table `adaptations`."""
        row = {column.name: getattr(self, column.name) for column in schema.TABLES[TABLE]}
        return row | {name: np.ravel(row[name]).tolist() for name in ("gates", "shifts")}

    @classmethod
    def from_row(cls, row: Mapping[str, Any], *, path: str) -> Adaptation:
        """Return the one that a row is; FormatError, naming `path`, where it is none or was changed."""
        k = len(row["kinds"] or ())
        gates, shifts = (np.array(row[name] or (), np.float64) for name in ("gates", "shifts"))
        whole = k > 0 and len(row["texts"] or ()) == k and len(gates) == len(shifts) > 0 and len(gates) % k == 0
        missing = None in [value for name, value in row.items() if name != "promoted"]
        if missing or not whole or not (np.isfinite(gates).all() and np.isfinite(shifts).all()):
            raise FormatError(f"{path}: table {TABLE} has a row that describes no adaptation; undo it, and adapt again")
        read = {"gates": gates.reshape(k, -1), "shifts": shifts.reshape(k, -1)}
        result = cls(**{**row, **read, "kinds": tuple(row["kinds"]), "texts": tuple(row["texts"])})
        if result.correction.sha256 != result.sha256:
            raise FormatError(
                f"{path}: the numbers of adaptation {result.adaptation} are not those of its digest; undo it"
            )
        return result


def adaptations(store: Store) -> list[Adaptation]:
    """Return every adaptation that an atlas holds, by number."""
    table = store.table(TABLE)
    rows = [] if table is None else table.to_pylist()
    return sorted((Adaptation.from_row(row, path=f"{store.path}") for row in rows), key=lambda one: one.adaptation)


def in_use(store: Store, embedding: str, words_sha256: str) -> Adaptation | None:
    """Return the adaptation of words that are compared in an embedding; None for none.

    Of several atlases opened as one it is the one that all of them have; where they differ, none.

    Raises ModelMismatchError for one that was learned with another text model or other vectors.
    """
    if len(store.parts) > 1:
        each = [in_use(part, embedding, words_sha256) for part in store.parts]
        shared = len({None if one is None else one.sha256 for one in each}) == 1
        return each[0] if shared else None
    promoted = [one for one in adaptations(store) if one.embedding == embedding and one.promoted is not None]
    if not promoted:
        return None
    result = max(promoted, key=lambda one: (one.promoted or 0, one.adaptation))
    space = store.manifest.embeddings[embedding]
    if (result.model_sha256, result.words_sha256) != (str(space.get("sha256")), words_sha256):
        raise ModelMismatchError(
            f"adaptation {result.adaptation} of {store.path} was learned with other models; `galsearch adapt --undo` "
            "takes it out of use, and adapt again"
        )
    if result.gates.shape[1] != int(space["dim"]):
        raise FormatError(
            f"{store.path}: adaptation {result.adaptation} is of vectors of {result.gates.shape[1]} numbers, and those "
            f"of '{embedding}' have {space['dim']}; undo it with `galsearch adapt --undo`"
        )
    return result


def learn(
    store: Store,
    embed: Embed,
    verdicts: Verdicts,
    *,
    embedding: str,
    words_sha256: str,
    guards: np.ndarray,
    texts: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Adaptation:
    """Return a new adaptation; `embed` gives the vectors of texts as the model makes them, without any correction.

    `guards` `(g, d)` are vectors of phrases that are to stay where they are.
    Each kind of the verdicts with enough of them counts, and stands for the text that `texts` says, or its own name.
    Raises QueryError where no kind has enough verdicts, and where no correction does better even on the training half.
    """
    check_seed(seed)
    wanted = _texts(verdicts, texts)
    halves = {
        kind: _halves(store, embedding, verdicts, kind, vector) for kind, vector in _embedded(embed, wanted).items()
    }
    usable = [kind for kind, parts in halves.items() if min(part.fewest for part in parts) >= LEAST_MARKS]
    if not usable:
        raise QueryError(_too_few(halves))
    training, judging = ([halves[kind][half] for kind in usable] for half in range(HALVES))
    progress(0, 3, "choosing how much to learn")
    strength = chosen_strength(training, seed=seed)
    if strength is None:
        raise QueryError(
            "no correction ranks the verdicts better than the words do as they are, so there is nothing to adapt; "
            "judge more objects that the words rank wrongly"
        )
    progress(1, 3, "learning")
    correction = fit(training, guards, strength=strength)
    progress(2, 3, "judging")
    before = in_use(store, embedding, words_sha256)
    plain = np.stack([one.text for one in judging])
    then = plain if before is None else before.correction(plain)
    gain = judge(judging, list(then), list(correction(plain)), seed=seed)
    progress(3, 3, "judging")
    every = adaptations(store)
    return Adaptation(
        adaptation=max((one.adaptation for one in every), default=0) + 1,
        embedding=embedding,
        model_sha256=str(store.manifest.embeddings[embedding].get("sha256")),
        words_sha256=words_sha256,
        kinds=tuple(usable),
        texts=tuple(wanted[kind] for kind in usable),
        gates=correction.gates,
        shifts=correction.shifts,
        strength=strength,
        trained=sum(len(one.wanted) for one in training),
        tested=sum(len(one.wanted) for one in judging),
        auroc_before=gain.before,
        auroc=gain.after,
        against="the words as they are" if before is None else f"adaptation {before.adaptation}",
        gain=gain.gain,
        gain_low=gain.low,
        gain_high=gain.high,
        kept=_kept(correction, guards, plain),
        promoted=_next(every) if gain.low > 0 else None,
        sha256=correction.sha256,
        seed=seed,
        software=schema.software(),
        created=schema.now(),
    )


def save_adaptation(path: str | Path, adaptation: Adaptation) -> None:
    """Keep an adaptation in the atlas folder `path`; it comes into use if it is better than what was before.

    Raises GalsearchError for a bundle and while another is writing the atlas.
    """
    _folder(path).close()
    names = ("adaptation", "embedding", "kinds", "texts", "strength", "seed", "sha256", "promoted")
    parameters = {name: getattr(adaptation, name) for name in names}
    record = schema.provenance(ADAPTED, parameters=parameters)
    _put(path, [adaptation], record, new=True)


def use_adaptation(path: str | Path, adaptation: int | None) -> None:
    """Bring an adaptation of the atlas folder `path` into use, whatever it gained; None brings the plain words back.

    Raises QueryError for one that there is not, GalsearchError for a bundle.
    """
    store = _folder(path)
    try:
        every = adaptations(store)
    finally:
        store.close()
    chosen = [one for one in every if one.adaptation == adaptation]
    if adaptation is not None and not chosen:
        there = ", ".join(str(one.adaptation) for one in every) or "none; make one with `galsearch adapt`"
        raise QueryError(f"{path} has no adaptation {adaptation!r:.20}, it has {there}")
    changed = [replace(one, promoted=_next(every)) for one in chosen] or [replace(one, promoted=None) for one in every]
    if changed:
        record = schema.provenance(CHOSEN, parameters={"adaptation": adaptation})
        _put(path, changed, record)


# ---- verdicts as marks


def _texts(verdicts: Verdicts, stated: Mapping[str, str] | None) -> dict[str, str]:
    """Return the text that each kind stands for; QueryError for a kind of which there is no verdict."""
    for kind in stated or {}:
        verdicts.check_kind(kind)
    return {kind: (stated or {}).get(kind, kind) for kind in verdicts.kinds()}


def _embedded(embed: Embed, texts: Mapping[str, str]) -> dict[str, np.ndarray]:
    return dict(zip(texts, embed(list(texts.values())), strict=True)) if texts else {}


def _halves(store: Store, embedding: str, verdicts: Verdicts, kind: str, text: np.ndarray) -> tuple[Marks, ...]:
    """Return the marks of a kind that train, and those that judge; objects on whom people disagree evenly are none."""
    from galsearch.discovery.learning import judged

    known = judged(store, embedding, verdicts.current(kind))
    rows, wanted = (part[known.wanted != 0.5] for part in (known.rows, known.wanted))
    vectors = store.vectors_of(embedding, rows) if len(rows) else np.empty((0, len(text)), np.float32)
    marks = Marks(text, vectors, wanted > 0.5)
    half = fold_of(store.ids(rows), HALVES, SPLIT_SEED)
    return tuple(marks.part(half == number) for number in range(HALVES))


def _too_few(halves: Mapping[str, Sequence[Marks]]) -> str:
    needed = f"of each kind, {LEAST_MARKS} with yes and {LEAST_MARKS} with no must fall to each half"
    if not halves:
        return f"there are no verdicts; judge objects first with `galsearch review` ({needed})"
    stated = "; ".join(
        f"{kind!r:.60}: yes {' and '.join(str(int(part.wanted.sum())) for part in parts)}, "
        f"no {' and '.join(str(int((~part.wanted).sum())) for part in parts)}"
        for kind, parts in list(halves.items())[:3]
    )
    return f"there are too few verdicts ({stated}): {needed}, some 25 each in all; judge more with `galsearch review`"


def _kept(correction: Correction, guards: np.ndarray, texts: np.ndarray) -> float:
    """Return the least cosine of a phrase with itself corrected, of those that mean something else than the texts."""
    others = guards[(guards @ texts.T).max(axis=1) < 0.5] if len(guards) else guards
    return float((others * correction(others)).sum(axis=1).min()) if len(others) else 1.0


# ---- keeping


def _folder(path: str | Path) -> Store:
    store = open_store(Path(path))
    if not store.grows:
        store.close()
        raise GalsearchError(f"{path} is never changed: adapt the folder, then bundle it again")
    return store


def _next(every: Sequence[Adaptation]) -> int:
    return max((one.promoted or 0 for one in every), default=0) + 1


def _put(path: str | Path, rows: Sequence[Adaptation], record: dict, *, new: bool = False) -> None:
    from galsearch.store import Rows, put_rows  # only here: what writes loads far more than a search needs

    table = pa.Table.from_pylist([one.to_row() for one in rows], schema=schema.arrow_schema(TABLE))
    put_rows(Path(path), {TABLE: Rows(table, ("adaptation",), new=new)}, record)
