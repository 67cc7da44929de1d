"""A model with tools as a judge: sheets of many pictures, zooms and measured columns in place of one call a picture.

Hits are asked about as in `judge`: in the order of the search, only as long as another could still come among the
first k, again where a place is not settled. What differs is a question: a numbered sheet of up to `pictures` hits, in
an order drawn anew each time, with what was measured of them. The model may look closer, `looks` times a sheet at
most, and then has to judge all of it. Each turn of such a conversation is a question of its own to the journal and
the limit of cost, so that one that was stopped goes on where it was. Only pictures, numbers and the words of the
search are sent.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import GalsearchError
from galsearch.query import Query
from galsearch.remote import (
    OK,
    Journal,
    Reply,
    Request,
    ToolEndpoint,
    ask_all,
    known_models,
    ledger_line,
    picture_part,
)
from galsearch.remote import estimate as costs
from galsearch.rerank.judge import (
    ANSWER_TOKENS,
    FIELDS_CHARACTERS,
    HIGHEST,
    LOWEST,
    Board,
    Judge,
    JudgeOptions,
    Statements,
    judge_inputs,
    last_sentences,
    ordered,
    rerank_prompt,
)
from galsearch.rerank.order import Marks, Pool, Reranked
from galsearch.retrieval import Result
from galsearch.science import images

ZOOM, MEASURES, JUDGE = "zoom", "measures", "judge"
MOST_PICTURES = 36  # of a sheet; a tile of it is still as many pixels as most thumbnails have
MOST_ZOOMED, MOST_MEASURED = 4, 8
TILE_PX, ZOOM_PX = 160, 256
USUAL_PX = 512  # side of the picture whose tokens `prices` knows
ROW_TOKENS = 35  # of an answer, for each picture
TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    ZOOM: ("Enlarge pictures of the sheet, by their numbers, whole and their middle halves", {"numbers": list[int]}),
    MEASURES: ("All measured columns of objects of the sheet, by their numbers", {"numbers": list[int]}),
    JUDGE: (
        "Judge every object of the sheet: its number -> 1 to 10, and its number -> a few words; this ends your work",
        {"scores": dict[str, int], "notes": dict[str, str]},
    ),
}
SHOWN = (  # of what is measured, beside each sheet; the others are behind the tool
    *("axis_ratio", "concentration", "asymmetry", "color_gr", "color_br", "bar_strength", "arm_strength"),
    *("ring_contrast", "z", "mag_r"),
)


class AgentOptions(JudgeOptions, total=False):
    """The options of an `AgentJudge`, each as a keyword."""

    pictures: int
    looks: int


@dataclass(frozen=True)
class AgentJudge(Judge):
    """A model with tools and how it is asked which hits fit; the options of a `galsearch.Judge`, and two more.

    `pictures` is how many hits are on one sheet, 1 to 36, `looks` how often a model may zoom or read measures before it
    has to judge a sheet, 0 to 10.
    """

    way = "agent"
    pictures: int = 12
    looks: int = 3

    def check(self) -> AgentJudge:
        """Return it. Raises GalsearchError for numbers that cannot be."""
        for name, least, most in (("pictures", 1, MOST_PICTURES), ("looks", 0, 10)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise GalsearchError(f"{name} is {value!r:.40}, expected a whole number from {least} to {most}")
        return self


def estimate_agent(query: Query, *, hits: int, **options: Any) -> pa.Table:
    """Return what `Hits.estimate_rerank` says, of sheets: the answers are those about sheets, without any looks."""
    judge = AgentJudge.of({**options, "model": options.get("model") or known_models()[0]}).check()
    return costs(
        options.get("model"),
        what="answers",
        count=math.ceil(hits / judge.pictures) * judge.samples,
        prompt=judge.prompted(query) + "x" * 60 * judge.pictures,
        fields_characters=4 * FIELDS_CHARACTERS,
        answer_tokens=ROW_TOKENS * judge.pictures,
        price_in=judge.price_in,
        price_out=judge.price_out,
        pictures=_worth_of(_sheet([np.zeros((8, 8, 3), np.uint8)] * judge.pictures, TILE_PX)),
    )


def by_agent(
    pool: Pool,
    query: Query,
    marks: Marks,
    judge: AgentJudge,
    *,
    k: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Result, Reranked]:
    """Return the first k hits in the order that the judgments of a model with tools and the search give together."""
    started, prompt = time.perf_counter(), judge.prompted(query)
    numbers = _measures(pool.store.hits(pool.result.rows, None), pool.store.manifest)
    endpoint, parts = ToolEndpoint(judge.service(), {}, tools=TOOLS), [prompt, str(judge.pictures), str(judge.looks)]
    with judge_inputs(pool, judge, endpoint, parts, k=k, prefix="agent-") as inputs:
        board, ids, pictures = inputs.board, inputs.ids, inputs.pictures
        job = _Job(board, ids, pictures, numbers, prompt, judge, inputs.endpoint, inputs.journal)
        stated = job.statements(job.ask(progress))
    return ordered(pool, board, stated, marks, k=k, seconds=time.perf_counter() - started, by=judge.way)


def _measures(table: pa.Table, manifest: schema.Manifest) -> dict[str, np.ndarray]:
    """Return our measures by their own names, `(n,)`, NaN where missing; only numbers."""
    result = {}
    for name in schema.GALAXIES:
        column = manifest.measure_column(name)
        if column in table.column_names:
            kind = table.schema.field(column).type
            if pa.types.is_floating(kind) or pa.types.is_integer(kind):
                result[name] = np.array(table[column].to_pylist(), np.float64)  # None becomes NaN
    return result


# ---- a sheet and the conversation about it


@dataclass
class Talk:
    """A sheet of places in the search, in the order shown, and what was said of it so far."""

    key: str
    indices: list[int]
    seed: int
    turns: list[dict[str, Any]] = field(default_factory=list)
    pictures: float = 0.0  # worth of those in the turns
    characters: int = 0
    verdict: Reply | None = None
    sheet: bytes = b""  # made when first sent

    def add(self, reply: Reply, stated: str, picture: bytes | None) -> None:
        """Note that a tool was called, and what came of it; a picture follows as a message, as tools give text only."""
        values = reply.values or {}
        arguments = json.dumps(values["arguments"])
        function = {"name": values["tool"], "arguments": arguments}
        call = {"id": values["call"], "type": "function", "function": function}
        self.turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
        self.turns.append({"role": "tool", "tool_call_id": values["call"], "content": stated})
        self.characters += len(arguments) + len(stated)
        if picture is not None:
            self.turns.append({"role": "user", "content": [{"type": "text", "text": stated}, picture_part(picture)]})
            self.pictures += _worth_of(picture)
            self.characters += len(stated)

    def scores(self) -> list[tuple[int, int | None, str | None]]:
        """Return place, score and note of each object of the sheet; None for what is no whole number from 1 to 10."""
        values = self.verdict.values if self.verdict is not None and self.verdict.status == OK else None
        arguments = values["arguments"] if values else {"scores": {}, "notes": {}}
        result = []
        for number, index in enumerate(self.indices, start=1):
            score = arguments["scores"].get(str(number))
            good = score if score is not None and LOWEST <= score <= HIGHEST else None
            result.append((index, good, arguments["notes"].get(str(number))))
        return result


@dataclass
class _Job:
    """Everything that asking needs; `numbers` are measures `(n,)` by name, NaN where missing."""

    board: Board
    ids: list[str]
    pictures: Mapping[str, bytes]
    numbers: Mapping[str, np.ndarray]
    prompt: str
    judge: AgentJudge
    endpoint: ToolEndpoint
    journal: Journal
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys((ZOOM, MEASURES, JUDGE, "none"), 0))
    sheets: int = 0
    notes: dict[int, list[tuple[int, str]]] = field(default_factory=dict)

    def ask(self, progress: Callable[[int, int, str], None] | None) -> str | None:
        """Ask until the first k are settled; return why it stopped before, None where it did not."""
        most = self.judge.concurrency * self.judge.pictures
        while indices := self.board.next(most):
            talks = self._talks(indices)
            stopped = self._hold(talks)
            for talk in talks:
                self._take(talk, counts=stopped is None or talk.verdict is not None)
            if progress is not None:
                progress(int(self.board.tries.sum()), len(self.ids) * self.judge.samples, "asking")
            if stopped is not None:
                return stopped
        return None

    def _talks(self, indices: Sequence[int]) -> list[Talk]:
        """Return sheets of hits that follow one another in the search, each in an order drawn by what is on it."""
        talks = []
        for start in range(0, len(indices), self.judge.pictures):
            chosen = list(indices[start : start + self.judge.pictures])
            about = [[self.ids[index], int(self.board.tries[index])] for index in chosen]
            digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
            order = np.random.default_rng(int(digest[:16], 16)).permutation(len(chosen))
            seed = int(min(self.board.tries[chosen]))
            talks.append(Talk(digest[:24], [chosen[number] for number in order.tolist()], seed))
        self.sheets += len(talks)
        return talks

    def _hold(self, talks: list[Talk]) -> str | None:
        """Hold conversations until each has a verdict, or none can be had; return why it stopped before."""
        pending = talks
        for turn in range(self.judge.looks + 1):
            keys = {f"{talk.key}:{turn}": talk for talk in pending}
            outcome = ask_all(
                self.endpoint,
                list(keys),
                functools.partial(self._request, keys, turn),
                self.journal,
                max_cost=self.judge.max_cost,
                batch="off",
            )
            pending = [
                talk
                for key, talk in keys.items()
                if (reply := self.journal.replies.get(key)) is not None and self._goes_on(talk, reply)
            ]
            if outcome.stopped is not None:
                return outcome.stopped
            if not pending:
                return None
        return None

    def _request(self, talks: Mapping[str, Talk], turn: int, key: str) -> Request:
        talk = talks[key]
        talk.sheet = talk.sheet or _sheet([self._picture(index) for index in talk.indices], TILE_PX)
        return Request(
            key,
            self.prompt + "\n" + self._measured(talk, range(1, len(talk.indices) + 1), SHOWN),
            talk.sheet,
            seed=talk.seed,
            turns=tuple(talk.turns),
            must=JUDGE if turn == self.judge.looks else None,
            pictures=_worth_of(talk.sheet) + talk.pictures,
            more_characters=talk.characters + 4 * FIELDS_CHARACTERS,
        )

    def _goes_on(self, talk: Talk, reply: Reply) -> bool:
        """Note a reply in its conversation; say whether another question follows."""
        tool = reply.values["tool"] if reply.status == OK and reply.values else "none"
        self.calls[tool] += 1
        if tool not in (ZOOM, MEASURES):
            talk.verdict = reply
            return False
        assert reply.values is not None
        most = MOST_ZOOMED if tool == ZOOM else MOST_MEASURED
        wanted = [number for number in reply.values["arguments"]["numbers"] if 1 <= number <= len(talk.indices)]
        wanted = list(dict.fromkeys(wanted))[:most]
        if not wanted:
            talk.add(reply, f"none of these numbers is on the sheet, which has 1 to {len(talk.indices)}", None)
        elif tool == ZOOM:
            talk.add(reply, f"enlarged: {', '.join(map(str, wanted))}", self._enlarged(talk, wanted))
        else:
            talk.add(reply, self._measured(talk, wanted, tuple(self.numbers)), None)
        return True

    def _take(self, talk: Talk, *, counts: bool) -> None:
        for index, score, note in talk.scores() if counts else ():
            self.board.put(index, score)
            if score is not None and note:
                self.notes.setdefault(index, []).append((score, note))

    def _picture(self, index: int) -> np.ndarray:
        return images.decode_thumbnail(self.pictures[self.ids[index]])

    def _enlarged(self, talk: Talk, numbers: Sequence[int]) -> bytes:
        tiles = []
        for number in numbers:
            whole = images.square(self._picture(talk.indices[number - 1]))
            quarter = len(whole) // 4
            middle = whole[quarter : len(whole) - quarter, quarter : len(whole) - quarter]
            tiles += [(whole, f"{number}"), (middle, f"{number}, its middle")]
        return images.contact_sheet([("enlarged", tiles)], columns=2, tile_px=ZOOM_PX)

    def _measured(self, talk: Talk, numbers: Sequence[int] | range, names: Sequence[str]) -> str:
        """Return a table of numbers: a line an object, its number first."""
        known = [name for name in names if name in self.numbers]
        lines = [" | ".join(["number", *known])]
        for number in numbers:
            values = [self.numbers[name][talk.indices[number - 1]] for name in known]
            lines.append(" | ".join([str(number), *("-" if math.isnan(value) else f"{value:.3g}" for value in values)]))
        return "\n".join(lines)

    # ---- what comes of it

    def statements(self, stopped: str | None) -> Statements:
        """Return what there is to say of the judgments."""
        means, judge = self.board.means, self.judge
        explanations = [_nearest(self.notes.get(index, []), mean) for index, mean in enumerate(means)]
        calls, used = sum(self.calls.values()), int(self.board.tries.sum())
        lacking = used - sum(map(len, self.board.answers))
        sentences = [
            f"{judge.model} at {self.endpoint.host}: {calls} calls on {self.sheets} sheets of up to {judge.pictures} "
            f"pictures judged {int((self.board.tries > 0).sum())} of {len(self.ids)} hits, {used} judgments in all, "
            f"with {self.calls[ZOOM]} zooms and {self.calls[MEASURES]} looks at measures",
            f"one call a picture would have been {used} calls{self._one_by_one(used)}",
        ]
        if lacking:
            sentences.append(f"no scores: {lacking} of {used}; a hit without any score keeps its place")
        sentences += [*([stopped] if stopped else []), *last_sentences(self.journal)]
        return Statements(explanations, sentences, ledger_line(self.journal))

    def _one_by_one(self, count: int) -> str:
        """Return about what the same judgments cost with a call a picture, where the price is known."""
        judge = self.judge
        [row] = costs(
            judge.model,
            what="answers",
            count=count,
            prompt=rerank_prompt(),
            fields_characters=FIELDS_CHARACTERS,
            answer_tokens=ANSWER_TOKENS,
            price_in=judge.price_in,
            price_out=judge.price_out,
        ).to_pylist()
        return "" if row["usd"] is None else f", about {row['usd']:.4f} US dollars"


def _nearest(notes: list[tuple[int, str]], mean: float) -> str | None:
    """Return the note with the score that is nearest to the mean, of equally near ones the first."""
    return min(notes, key=lambda pair: abs(pair[0] - mean))[1] if notes else None


def _sheet(pictures: Sequence[np.ndarray], tile_px: int) -> bytes:
    """Return a PNG of pictures with their numbers, about as wide as it is high."""
    tiles = [(rgb, f"{number}") for number, rgb in enumerate(pictures, start=1)]
    columns = max(1, math.ceil(math.sqrt(len(tiles))))
    return images.contact_sheet([("objects by number", tiles)], columns=columns, tile_px=tile_px)


def _worth_of(picture: bytes) -> float:
    """Return how many pictures of usual size a PNG is worth, at least one."""
    width, height = (int.from_bytes(picture[start : start + 4]) for start in (16, 20))
    return max(1.0, width * height / USUAL_PX**2)
