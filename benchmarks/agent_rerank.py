"""What sheets of many pictures do to re-ranking, with a scripted judge of known error.

    python -m benchmarks.agent_rerank ATLAS -o docs/agent_rerank.json   # of `export.heldout FOLDER --split test`, built

The judge is no model: it is a server on loopback that speaks the protocol, looks up which objects a picture shows,
knows the truth about them, and errs as it is told to. So nothing here says how good any model is. It says how many
calls and tokens sheets save, and how much worse a judge may get on sheets before they cost nDCG. The pictures, the
searches, the protocol and the code that asks are the real ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import galsearch
from galsearch.evaluation.judged import judge
from galsearch.evaluation.targets import read_targets
from galsearch.rerank.agent import TILE_PX, USUAL_PX
from galsearch.rerank.judge import panels
from galsearch.science import images
from galsearch.science.metrics import ndcg_exp

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "agent_rerank.json"
TARGETS = ("merging (Galaxy Zoo)",)
WORDINGS = 2  # of each target
PICTURES = (4, 16, 36)
ZOOMED = (16,)  # sizes of sheets that are also tried with zooms
K, LOOKED_AT, DRAWS = 10, 100, 3
PRICE = {"price_in": 0.40, "price_out": 1.60}  # dollars per million tokens, those of a small model in 2026-11
PICTURE_TOKENS, CHARACTERS_A_TOKEN = 770, 3.0
GAP, TITLE_PX, LABEL_PX = 10, 34, 34  # of a contact sheet
HIGH, LOW = 8.0, 3.0  # what a judge without error says of what fits, and of what does not
UNSURE = (4, 7)  # scores that it looks at closer, where it may
PANEL_TOKENS_OUT, ROW_TOKENS_OUT, CALL_TOKENS_OUT = 90, 30, 25


@dataclass(frozen=True)
class Error:
    """How a scripted judge errs: by `noise` points (one sigma) on a picture alone, on a sheet of N by
    noise * sqrt(1 + crowd * (N - 1)); with a chance of `slip` it gives an object of a sheet the score of the next.
    A picture that it has zoomed into it judges as one alone.
    """

    name: str
    noise: float
    crowd: float
    slip: float


ERRORS = (
    Error("steady: sheets change nothing", 3.0, 0.0, 0.0),
    Error("crowded: twice the error at 16", 3.0, 0.2, 0.02),
    Error("careless: three times the error at 16", 3.0, 0.55, 0.10),
)


@dataclass
class ScriptedJudge:
    """A server on loopback that answers as the judge would; `truth` maps object_ids to relevance from 0 to 1.

    `known` says what it is shown, as `recognized` gives it. `calls`, `tokens_in` and `tokens_out` count.
    """

    truth: Mapping[str, float]
    known: Mapping[bytes, str]
    error: Error
    draw: int = 0
    looks: bool = False
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    def __enter__(self) -> ScriptedJudge:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def score(self, name: str, seed: str, noise: float) -> int:
        """Return what it says of one object, with so much noise."""
        exact = LOW + (HIGH - LOW) * self.truth.get(name, 0.0)
        return int(np.clip(round(exact + noise * _rng(seed).normal()), 1, 10))

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request."""
        first = body["messages"][0]["content"]
        png = _picture(first[1])
        seed = f"{self.draw}:{body.get('seed')}"
        if "tools" in body:
            message, tokens_out = self._by_sheet(body, png, seed)
        else:
            score = self.score(self.known[png], f"{seed}:{hashlib.sha256(png).hexdigest()}", self.error.noise)
            said = json.dumps({"explanation": "scripted", "score": score})
            message, tokens_out = {"role": "assistant", "content": said}, PANEL_TOKENS_OUT
        tokens_in = _tokens(body)
        with self._lock:
            self.calls, self.tokens_in = self.calls + 1, self.tokens_in + tokens_in
            self.tokens_out += tokens_out
        usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "x", "object": "chat.completion", "created": 1, "model": "scripted", "choices": [choice],
                "usage": usage}  # fmt: skip

    def _by_sheet(self, body: dict[str, Any], png: bytes, seed: str) -> tuple[dict[str, Any], int]:
        shown = [self.known[tile] for tile in tiles(png) if tile in self.known]
        draws = f"{seed}:{hashlib.sha256(png).hexdigest()}"
        crowd = self.error.noise * math.sqrt(1 + self.error.crowd * (len(shown) - 1))
        glance = [self.score(name, f"{draws}:{name}", crowd) for name in shown]
        slips = _rng(f"{draws}:slip").random(len(shown)) < self.error.slip
        scores = [glance[(at + 1) % len(glance)] if slips[at] else glance[at] for at in range(len(glance))]
        zoomed = _zoomed(body)
        if self.looks and not zoomed:
            unsure = [at + 1 for at, score in enumerate(scores) if UNSURE[0] <= score <= UNSURE[1]][:4]
            if unsure and body["tool_choice"] == "required":
                return _call("zoom", {"numbers": unsure}), CALL_TOKENS_OUT
        for number in zoomed:
            name = shown[number - 1]
            scores[number - 1] = self.score(name, f"{draws}:{name}:closer", self.error.noise)
        numbered = {str(at): score for at, score in enumerate(scores, start=1)}
        return _call("judge", {"scores": numbered, "notes": dict.fromkeys(numbered, "scripted")}), (
            ROW_TOKENS_OUT * len(scores)
        )


def recognized(pictures: Mapping[str, bytes]) -> dict[bytes, str]:
    """Return object_ids by what is sent of their pictures: two panels, and the tile of a sheet."""
    known = {}
    for name, thumbnail in pictures.items():
        rgb = images.decode_thumbnail(thumbnail)
        known[panels(rgb)] = name
        known[tiles(images.contact_sheet([("", [(rgb, "1")])], columns=1, tile_px=TILE_PX))[0]] = name
    return known


def tiles(png: bytes) -> list[bytes]:
    """Return the pixels of the tiles of a contact sheet of the size that sheets have, in order."""
    sheet = np.asarray(Image.open(BytesIO(png)).convert("RGB"))
    columns = (sheet.shape[1] - GAP) // (TILE_PX + GAP)
    rows = (sheet.shape[0] - GAP - TITLE_PX) // (TILE_PX + LABEL_PX + GAP)
    corners = [
        (GAP + TITLE_PX + row * (TILE_PX + LABEL_PX + GAP), GAP + column * (TILE_PX + GAP))
        for row in range(rows)
        for column in range(columns)
    ]
    return [sheet[top : top + TILE_PX, left : left + TILE_PX].tobytes() for top, left in corners]


def _rng(seed: str) -> np.random.Generator:
    return np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:16], 16))


def _picture(part: Mapping[str, Any]) -> bytes:
    import base64

    return base64.b64decode(part["image_url"]["url"].partition("base64,")[2])


def _zoomed(body: Mapping[str, Any]) -> list[int]:
    """Return the numbers that earlier turns of a conversation have zoomed into."""
    calls = [call for one in body["messages"] for call in one.get("tool_calls") or ()]
    return [number for call in calls for number in json.loads(call["function"]["arguments"])["numbers"]]


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}


def _tokens(body: Mapping[str, Any]) -> int:
    """Return how many tokens a request would be: its text, and its pictures by their area."""
    total = 0.0
    for message in body["messages"]:
        parts = message["content"] if isinstance(message["content"], list) else []
        for part in parts:
            if part["type"] == "text":
                total += len(part["text"]) / CHARACTERS_A_TOKEN
            else:
                width, height = Image.open(BytesIO(_picture(part))).size
                total += PICTURE_TOKENS * max(0.5, width * height / USUAL_PX**2)
        if isinstance(message["content"], str):
            total += len(message["content"]) / CHARACTERS_A_TOKEN
    return round(total)


def _handler(judge: ScriptedJudge) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = json.dumps(judge.answer(body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


# ---- measuring


@dataclass(frozen=True)
class Row:
    """What one way of asking gave: the means over draws and wordings."""

    target: str
    error: str
    way: str
    pictures: int
    samples: int
    looks: bool
    calls: float
    tokens_in: float
    usd: float
    before: float
    after: float
    spread: float  # standard deviation of the gain over draws


@dataclass(frozen=True)
class Case:
    """A target in an atlas: wordings, relevance by id of all candidates, and what their pictures look like."""

    atlas: galsearch.Atlas
    name: str
    queries: Sequence[str]
    candidates: str
    relevance: Mapping[str, float]
    known: Mapping[bytes, str]

    @classmethod
    def of(cls, atlas: galsearch.Atlas, name: str, *, n: int) -> Case:
        target = next(one for one in read_targets(None).targets if one.name == name)
        judged = judge(atlas._store, target)
        relevance = dict(zip(judged.ids, judged.relevance.tolist(), strict=True))
        queries = target.queries[:WORDINGS]
        shown = {one for words in queries for one in atlas.search(words, where=target.candidates, k=n).ids}
        known = recognized(atlas.thumbnails(sorted(shown)))
        return cls(atlas, name, queries, target.candidates, relevance, known)

    def measured(self, error: Error, way: Mapping[str, Any], *, draws: int, n: int) -> Row:
        """Return what one way of asking gives with one judge."""
        highest = max(self.relevance.values())
        truth = {one: value / highest for one, value in self.relevance.items()}
        told: list[tuple[float, ...]] = []
        for draw in range(draws):
            with ScriptedJudge(truth, self.known, error, draw=draw, looks=way.get("looks", 0) > 0) as scripted:
                pairs = [self._asked(words, scripted, way, n=n) for words in self.queries]
            usd = scripted.tokens_in * PRICE["price_in"] + scripted.tokens_out * PRICE["price_out"]
            cost = np.array([scripted.calls, scripted.tokens_in, usd / 1e6]) / len(self.queries)
            told.append((*cost, *np.mean(pairs, axis=0)))
        calls, tokens, usd, before, after = map(float, np.mean(told, axis=0))
        spread = float(np.std([one[4] - one[3] for one in told]))
        looks = way.get("looks", 0) > 0
        stated = (self.name, error.name, way["by"], way.get("pictures", 1), way["samples"], looks)
        return Row(*stated, calls, tokens, usd, before, after, spread)

    def _asked(self, words: str, scripted: ScriptedJudge, way: Mapping[str, Any], *, n: int) -> tuple[float, float]:
        """Return nDCG before and after one search is re-ranked."""
        hits = self.atlas.search(words, where=self.candidates, k=K)
        options = {name: value for name, value in way.items() if name != "by"}
        options |= {"model": "scripted", "base_url": scripted.url, "retries": 0, **PRICE}
        with tempfile.TemporaryDirectory() as answers:
            better = hits.rerank(way["by"], n=n, answers=answers, **options)
        every = list(self.relevance.values())
        before, after = (ndcg_exp([self.relevance[one] for one in ids], every, K) for ids in (hits.ids, better.ids))
        assert before is not None and after is not None  # as something is relevant
        return before, after


def ways(pictures: Sequence[int], samples: int) -> list[dict[str, Any]]:
    """Return the ways of asking by sheets that are compared."""
    sheets = [{"by": "agent", "samples": samples, "pictures": count, "looks": 0} for count in pictures]
    closer = [{"by": "agent", "samples": samples, "pictures": count, "looks": 1} for count in ZOOMED]
    return [*sheets, *closer]


def main(progress: Callable[[str], None] = lambda text: print(text, flush=True)) -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("-n", type=int, default=LOOKED_AT, help="hits that are looked at")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=None)
    options = parser.parse_args()
    rows = []
    with galsearch.open(options.atlas, device="cpu") as atlas:
        for name in options.targets:
            case = Case.of(atlas, name, n=options.n)
            single = (ERRORS[0], {"by": "vlm", "samples": options.samples})  # alone all judges err alike
            for error, way in (single, *product(ERRORS, ways(PICTURES, options.samples))):
                rows.append(case.measured(error, way, draws=options.draws, n=options.n))
                progress(_line(rows[-1]))
                if options.output is not None:
                    options.output.write_text(_record(options, rows))


def _record(options: argparse.Namespace, rows: Sequence[Row]) -> str:
    """Return what is measured so far as JSON."""
    about = {"draws": options.draws, "wordings": WORDINGS, "n": options.n, "k": K, "samples": options.samples}
    errors = [asdict(one) for one in ERRORS]
    return json.dumps({**about, "errors": errors, "rows": [_rounded(one) for one in rows]}, indent=1) + "\n"


def _line(row: Row) -> str:
    looks = " + zoom" if row.looks else ""
    return (
        f"{row.target:24s} {row.error[:8]:8s} {row.way}{looks} {row.pictures:2d}: {row.calls:6.1f} calls "
        f"{row.tokens_in:8.0f} tokens ${row.usd:.4f}  nDCG@{K} {row.before:.3f} -> {row.after:.3f} ± {row.spread:.3f}"
    )


def _rounded(row: Row) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(row).items()}


if __name__ == "__main__":
    main()
