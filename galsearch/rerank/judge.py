"""A vision model as a judge: which hits are worth asking about, what an answer is, and when the order is settled.

A picture is asked about up to `samples` times, each time with another seed, and answers from 1 to 10 are averaged. Hits
are asked about in the order of the search, and only as long as one more could still come among the first k if it were
given a 10; then those are asked about again whose place among the first k is not settled yet. An answer that is no
number from 1 to 10, a refusal and a failure are no scores: a hit without any keeps its place. Every answer is kept in a
journal beside the atlas, so that the same question is never paid twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, Self, TypedDict, TypeVar, Unpack

import numpy as np
import pyarrow as pa

from galsearch.captions.vlm import png
from galsearch.errors import GalsearchError, QueryError, SchemaError
from galsearch.query import Query
from galsearch.remote import (
    FAILED,
    MALFORMED,
    OK,
    REFUSED,
    Endpoint,
    Journal,
    Reply,
    Request,
    Service,
    ask_all,
    journal_path,
    known_models,
    ledger_line,
)
from galsearch.remote import estimate as costs
from galsearch.rerank.order import Marks, Pool, Reranked
from galsearch.retrieval import Result
from galsearch.science import images

JUDGED, JUDGE_PART = "judged", "score_judge"
PROMPTS, PLACEHOLDER = {"vlm": "rerank-1.md", "agent": "agent-rerank-1.md"}, "{question}"
FIELDS: dict[str, Any] = {"explanation": str, "score": int}
LOWEST, HIGHEST = 1, 10
MIDDLE = (LOWEST + HIGHEST) / 2
POINT = 0.5  # standard deviations of the search's score that a point of the judge's counts as much as; by intent, not
# measured: no vision model was at hand
LEAST_SPREAD = 0.5  # of answers about one picture, in points
SURE = 2.0  # standard errors between two means, from which on their order is taken to be settled
PANEL_PX = 256
FIELDS_CHARACTERS, ANSWER_TOKENS = 250, 90
_Points = TypeVar("_Points", float, np.ndarray)


class JudgeOptions(TypedDict, total=False):
    """The options of a `Judge`, each as a keyword."""

    model: str
    base_url: str | None
    key_env: str
    concurrency: int
    timeout_seconds: float
    retries: int
    max_tokens: int
    price_in: float | None
    price_out: float | None
    samples: int
    max_cost: float | None
    question: str | None
    prompt: str | Path | None
    answers: str | Path | None


@dataclass(frozen=True)
class Judge(Service):
    """A vision model and how it is asked which hits fit.

    The options of a `galsearch.VLM` that say where it is and what it costs: `model`, `base_url`, `key_env`,
    `concurrency`, `timeout_seconds`, `retries`, `max_tokens`, `price_in`, `price_out`. `samples` is how often a picture
    is asked about at most, `max_cost` stops before more US dollars are spent on this question and model. `question` is
    what to ask for, the words of the search unless said; `prompt` a text file to use instead of ours, with {question}
    in it. `answers` is the folder of the answers, beside the atlas unless said. Only prompt and pictures are sent.
    """

    way = "vlm"  # of re-ranking; of the class, and no option
    samples: int = 3
    max_cost: float | None = None
    question: str | None = None
    prompt: str | Path | None = None
    answers: str | Path | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the judge with these options; GalsearchError for one that there is not."""
        known = [item.name for item in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise GalsearchError(f"{unknown[0]!r} is no option of '{cls.way}'; there are {', '.join(known)}")
        if not options.get("model"):
            raise GalsearchError("a vision model needs to be named: give model=…, or --model")
        judge = cls(**options)
        if not isinstance(judge.samples, int) or judge.samples < 1:
            raise GalsearchError(f"samples is {judge.samples!r}, expected a whole number from 1")
        return judge

    def service(self) -> Service:
        """Return the part that the endpoint needs."""
        return Service(**{item.name: getattr(self, item.name) for item in fields(Service)})

    def question_for(self, query: Query) -> str:
        """Return the question in words: that which was given, or the words of the search."""
        parts = [term.text for term in query.terms if term.kind == "text" and term.weight > 0]
        unlike = [f"not {term.text}" for term in query.terms if term.kind == "text" and term.weight < 0]
        stated = self.question or "; ".join([*parts, *unlike])
        if not (parts or self.question):
            raise QueryError("the search has no words to ask a model about; give question=…, or --question")
        return " ".join(stated.split())

    def prompted(self, query: Query) -> str:
        """Return the whole prompt."""
        return rerank_prompt(self.prompt, by=self.way).replace(PLACEHOLDER, self.question_for(query))


def rerank_prompt(path: str | Path | None = None, *, by: str = "vlm") -> str:
    """Return the prompt that models are asked with: ours, or that of a file, which must hold {question}.

    `by` is "vlm", for one picture a call, or "agent", for sheets of them.
    """
    if by not in PROMPTS:
        raise QueryError(f"by is {by!r:.40}, which asks no model; use one of {', '.join(PROMPTS)}")
    if path is None:
        return resources.files("galsearch.prompts").joinpath(PROMPTS[by]).read_text()
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: cannot be read ({error}); a prompt is a text file") from None
    if PLACEHOLDER not in text:
        raise SchemaError(f"{path}: the prompt has no {PLACEHOLDER} where the words of the search go; put it in")
    return text


def estimate(query: Query, *, hits: int, **options: Unpack[JudgeOptions]) -> pa.Table:
    """Return what `Hits.estimate_rerank` says."""
    judge = Judge.of({**options, "model": options.get("model") or known_models()[0]})
    return costs(
        options.get("model"),
        what="answers",
        count=hits * judge.samples,
        prompt=judge.prompted(query),
        fields_characters=FIELDS_CHARACTERS,
        answer_tokens=ANSWER_TOKENS,
        price_in=judge.price_in,
        price_out=judge.price_out,
    )


# ---- what is asked


def panels(rgb: np.ndarray) -> bytes:
    """Return a PNG of a picture `(h, w, 3) uint8` beside its middle half, both PANEL_PX wide."""
    whole = images.square(rgb)
    quarter = len(whole) // 4
    middle = whole[quarter : len(whole) - quarter, quarter : len(whole) - quarter]
    return png(np.concatenate(list(images.model_input([whole, middle], PANEL_PX)), axis=1))


def _key(object_id: str, sample: int) -> str:
    return f"{sample}:{object_id}"


class Board:
    """Who was asked about how often, what was answered, and who is to be asked about next.

    `base (n,)` are the scores of the search, falling; `askable (n,) bool` says who has a picture. All places are those
    of the search. `means (n,)` are NaN without an answer.
    """

    def __init__(self, base: np.ndarray, askable: np.ndarray, *, k: int, samples: int) -> None:
        self._base, self._askable, self._k, self._samples = base, askable, k, samples
        self.tries = np.zeros(len(base), int)
        self.answers: list[list[int]] = [[] for _ in range(len(base))]

    @property
    def means(self) -> np.ndarray:
        """The mean answers, `(n,) float64`, NaN without any."""
        return np.array([np.mean(result) if result else np.nan for result in self.answers])

    @property
    def final(self) -> np.ndarray:
        """The scores with what the answers add, NaN without any."""
        return self._base + worth(self.means)

    def put(self, index: int, answer: int | None) -> None:
        """Note an answer, or that there was none."""
        self.tries[index] += 1
        if answer is not None:
            self.answers[index].append(answer)

    def next(self, count: int) -> list[int]:
        """Return up to `count` places to ask about now; none where the first k are settled."""
        return self._newcomers()[:count] or self._unsettled()[:count]

    def _newcomers(self) -> list[int]:
        """Return the places that nobody was asked about and that a 10 would bring among the first k."""
        fresh = np.flatnonzero((self.tries == 0) & self._askable)
        final = np.sort(self.final[np.isfinite(self.final)])[::-1]
        if len(final) < self._k:
            return fresh.tolist()
        return fresh[self._base[fresh] + worth(HIGHEST) >= final[self._k - 1]].tolist()

    def _unsettled(self) -> list[int]:
        """Return the places to ask about again: of two neighbors among the first k, or around it, that may change
        places, those with tries left."""
        final, margin = self.final, self._margins()
        order = np.flatnonzero(np.isfinite(final))
        order = order[np.argsort(-final[order], kind="stable")]
        top, rest = order[: self._k], order[self._k :]
        rivals = [*pairwise(top), *((top[-1], other) for other in rest)] if len(top) else []
        open_indices = {
            int(index)
            for pair in rivals
            if final[pair[0]] - final[pair[1]] < margin[pair[0]] + margin[pair[1]]
            for index in pair
            if self.tries[index] < self._samples
        }
        return sorted(open_indices, key=lambda index: (self.tries[index], index))

    def _margins(self) -> np.ndarray:
        """Return how far each final score may still move, `(n,)`: nothing where all tries are used up."""
        spreads = [np.var(result, ddof=1) for result in self.answers if len(result) > 1]
        spread = max(LEAST_SPREAD, float(np.sqrt(np.mean(spreads))) if spreads else LEAST_SPREAD)
        counts = np.maximum([len(result) for result in self.answers], 1)
        return np.where(self.tries < self._samples, SURE * POINT * spread / np.sqrt(counts), 0.0)


def worth(answer: _Points) -> _Points:
    """Return what an answer adds to a score, in standard deviations of ordinary objects."""
    return POINT * (answer - MIDDLE)


# ---- asking


def by_model(
    pool: Pool,
    query: Query,
    marks: Marks,
    judge: Judge,
    *,
    k: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Result, Reranked]:
    """Return the first k hits in the order that a vision model's answers and the search give together."""
    started, prompt = time.perf_counter(), judge.prompted(query)
    with judge_inputs(pool, judge, Endpoint(judge.service(), FIELDS), [prompt], k=k, prefix="rerank-") as inputs:
        job = _Job(inputs.board, inputs.ids, inputs.pictures, prompt, judge, inputs.endpoint, inputs.journal)
        stopped = job.ask(progress)
        stated = job.statements(stopped)
    return ordered(pool, inputs.board, stated, marks, k=k, seconds=time.perf_counter() - started)


_Endpoint = TypeVar("_Endpoint", bound=Endpoint)


@dataclass(frozen=True)
class JudgeInputs(Generic[_Endpoint]):
    """The hits of a pool with their pictures, and what a judge is asked with."""

    board: Board
    ids: list[str]
    pictures: Mapping[str, bytes]
    endpoint: _Endpoint
    journal: Journal


@contextlib.contextmanager
def judge_inputs(
    pool: Pool, judge: Judge, endpoint: _Endpoint, parts: Sequence[str], *, k: int, prefix: str
) -> Iterator[JudgeInputs[_Endpoint]]:
    """Open endpoint and journal for a pool; `parts` tell one journal of a model from another.

    Raises QueryError where no hit has a picture.
    """
    store = pool.store
    ids = store.ids(pool.result.rows)
    pictures = store.thumbnails(ids)
    if not pictures:
        raise QueryError(f"{store.path} has no pictures to show to a model; build it from pictures")
    askable = np.array([name in pictures for name in ids]) & np.isfinite(pool.base)
    board = Board(pool.base, askable, k=k, samples=judge.samples)
    whole = [judge.model, judge.base_url or "", *parts]
    endpoint.open()
    with (
        contextlib.closing(endpoint),
        Journal(journal_path(store.path, whole, prefix=prefix, folder=judge.answers)) as journal,
    ):
        yield JudgeInputs(board, ids, pictures, endpoint, journal)


@dataclass(frozen=True)
class Statements:
    """What the model said: explanations by place, sentences for the report, and the ledger."""

    explanations: list[str | None]
    sentences: list[str]
    cost: dict[str, Any]


@dataclass
class _Job:
    """Everything that asking needs."""

    board: Board
    ids: list[str]
    pictures: Mapping[str, bytes]
    prompt: str
    judge: Judge
    endpoint: Endpoint
    journal: Journal

    def ask(self, progress: Callable[[int, int, str], None] | None) -> str | None:
        """Ask until the first k are settled; return why it stopped before, None where it did not."""
        while indices := self.board.next(self.judge.concurrency):
            keys = {_key(self.ids[index], int(self.board.tries[index])): index for index in indices}
            outcome = ask_all(  # in no batches: what is asked next depends on the answers
                self.endpoint, list(keys), self._request, self.journal, max_cost=self.judge.max_cost, batch="off"
            )
            for key, index in keys.items():
                if key in self.journal.replies:
                    self.board.put(index, _number(self.journal.replies[key]))
                elif key in outcome.failures:
                    self.board.put(index, None)
            if progress is not None:
                progress(int(self.board.tries.sum()), self._most, "asking")
            if outcome.stopped is not None:
                return outcome.stopped
        return None

    @property
    def _most(self) -> int:
        return len(self.ids) * self.judge.samples

    def _request(self, key: str) -> Request:
        sample, _, name = key.partition(":")
        return Request(key, self.prompt, panels(images.decode_thumbnail(self.pictures[name])), seed=int(sample))

    def statements(self, stopped: str | None) -> Statements:
        """Return what there is to say of the answers."""
        replies = [
            [self.journal.replies.get(_key(name, sample)) for sample in range(int(tries))]
            for name, tries in zip(self.ids, self.board.tries, strict=True)
        ]
        explanations = [_nearest(result, mean) for result, mean in zip(replies, self.board.means, strict=True)]
        requested, used = int((self.board.tries > 0).sum()), int(self.board.tries.sum())
        first = (
            f"{self.judge.model} at {self.endpoint.host}: asked {used} times about {requested} of {len(self.ids)} hits"
        )
        settled = f"; no more answers could change the first hits, at most it would have been {self._most}"
        sentences = [first + ("" if stopped else settled), *_odd(replies), *([stopped] if stopped else [])]
        return Statements(explanations, [*sentences, *last_sentences(self.journal)], ledger_line(self.journal))


def last_sentences(journal: Journal) -> list[str]:
    """Return what is said of any model: what a point counts, and the cost."""
    dollars = ledger_line(journal)["cost_usd"]
    known = "not known, this model's price is not" if dollars is None else f"{dollars:.4f} US dollars"
    return [
        f"a point counts {POINT:g} standard deviations of the search's score; no validation has settled that, so "
        "mark a few examples to have the order judged",
        f"cost of this question so far: {known}; answers are kept in {journal.path}",
    ]


def _odd(replies: list[list[Reply | None]]) -> list[str]:
    """Return a sentence on the replies that are no scores; none where there are no such replies."""
    every = [reply for result in replies for reply in result]
    counts = {name: sum(reply is not None and reply.status == name for reply in every) for name in (REFUSED, MALFORMED)}
    counts["out of range"] = sum(reply is not None and reply.status == OK and _number(reply) is None for reply in every)
    counts[FAILED] = sum(reply is None for reply in every)
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return [f"no scores: {told}; a hit without any score keeps its place"] if told else []


def _number(reply: Reply) -> int | None:
    """Return the answer from 1 to 10 of a reply, None where it is no such answer."""
    score = reply.values["score"] if reply.status == OK and reply.values else None
    return score if score is not None and LOWEST <= score <= HIGHEST else None


def _nearest(replies: list[Reply | None], mean: float) -> str | None:
    """Return the explanation with the answer that is nearest to the mean, of equally near ones the first."""
    scored = [
        (abs(number - mean), reply.values)
        for reply in replies
        if reply and reply.values and (number := _number(reply)) is not None
    ]
    return min(scored, key=lambda pair: pair[0])[1]["explanation"] if scored else None


def ordered(
    pool: Pool, board: Board, stated: Statements, marks: Marks, *, k: int, seconds: float, by: str = "vlm"
) -> tuple[Result, Reranked]:
    """Return the first k by what answers and search say together; in the old order where marks find it no worse."""
    means = board.means
    known = np.isfinite(means)
    before = marks.right(pool, pool.base)
    after = marks.right(pool, np.where(known, board.final, pool.base))
    kept, sentences = not known.any(), list(stated.sentences)
    if kept:
        sentences.append("no hit has a score, so the order is that of the search")
    elif before is not None and after is not None:
        kept = after <= before
        end = "so the order is that of the search" if kept else "so the new order is taken"
        sentences.append(f"pairs of marks in the right order: {before:.0%} before, {after:.0%} after, {end}")
    weights = {"a point of the model": POINT}
    report = Reranked(by, kept, len(pool.base), weights, before, after, tuple(sentences), stated.cost, seconds)
    if kept:
        return pool.result[:k], report
    told = {
        JUDGE_PART: worth(means),
        JUDGED: means,
        "answers": np.array([len(result) for result in board.answers]),
        "explanation": np.array(stated.explanations, dtype=object),
    }
    return pool.ordered(board.final, told, k), report
