"""Asks many questions: how many at a time, for how much, and how nothing is paid twice.

Every answer goes into a journal on disk the moment it arrives; whoever runs the same job again asks only what the
journal does not have. A question is sent only where the most that it and all those under way can cost still fits under
the limit. On Ctrl-C no further question is sent, and those under way, which are paid already, are waited for once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import queue
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from galsearch import schema
from galsearch.errors import GalsearchError, RemoteError
from galsearch.progress import Progress
from galsearch.remote.llm.endpoint import FAILED, MALFORMED, REFUSED, Endpoint, Reply, Request
from galsearch.remote.llm.prices import UNKNOWN_PICTURE_TOKENS, Price, known_models, price_of
from galsearch.remote.ranges.client import address_of

BATCH_FROM = 1_000  # questions, from which on batches are asked for unless said otherwise
BATCH_LINES, BATCH_BYTES = 50_000, 150_000_000  # of one batch; the API takes 200 MB
CHARACTERS_A_TOKEN = 3.0  # of English; a little fewer than there are, so that tokens are not underestimated
MARGIN = 1.25  # on the tokens of a question, in what it can cost at most
POLL_SECONDS = 20.0
MODES = ("auto", "on", "off")


ANSWERS = ".answers"  # after the name of an atlas: the folder of the journals of its jobs


def journal_path(atlas: Path, parts: Sequence[str], *, prefix: str = "", folder: str | Path | None = None) -> Path:
    """Return where the journal of a job lies: beside the atlas, or in `folder`, named by what decides the answers.

    The folder is made. Raises GalsearchError where that cannot be.
    """
    requested = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    if folder is None and address_of(atlas) is not None:
        raise GalsearchError(f"{atlas}: nothing can be kept beside an address, and answers are paid for; give a folder")
    home = atlas.with_name(atlas.name + ANSWERS) if folder is None else Path(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GalsearchError(
            f"{home}: cannot be made ({error.strerror}), and answers are paid for; give another folder"
        ) from None
    return home / f"{prefix}{requested}.jsonl"


class Journal:
    """The answers of one job, on disk, one JSON line each; one process has it at a time.

    The first line has the id of the job. A torn last line, of a process that was killed, is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replies: dict[str, Reply] = {}
        self.costs: dict[str, float | None] = {}
        self.times: dict[str, str] = {}
        self.lost = 0.0  # dollars at most, of questions that may have been paid and were never answered
        self.failed = 0
        self.batches: dict[str, str | None] = {}  # tag -> id; None: it was about to be started
        self.run = ""
        self.started = ""

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._file = self.path.open("a+b")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                raise GalsearchError(
                    f"{self.path}: another galsearch is asking the same now; wait until it ends, then run this again"
                ) from None
            if self.path.exists() and os.fstat(self._file.fileno()).st_ino == self.path.stat().st_ino:
                break
            self._file.close()  # whoever had it has removed it meanwhile
        self._read()
        if not self.run:
            self._write({"run": uuid.uuid4().hex, "started": schema.now()})
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def remove(self) -> None:
        """Remove it: everything in it is elsewhere now."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    @property
    def spent(self) -> float:
        """US dollars that its answers cost, and that questions without an answer may have cost."""
        return sum(cost or 0.0 for cost in self.costs.values()) + self.lost

    def put(self, reply: Reply, cost_usd: float | None) -> None:
        """Keep an answer with its cost; of a failure only that it happened, and what it may have cost."""
        if reply.status == FAILED:
            self._write({"failed": reply.key, "lost": cost_usd or 0.0})
        else:
            self._write({"reply": asdict(reply), "cost_usd": cost_usd, "time": schema.now()})

    def put_batch(self, tag: str, batch: str | None, *, state: str = "started") -> None:
        """Note a batch that is about to be started (no id), has been, or is over (`state` "over")."""
        self._write({"batch": tag, "id": batch, "state": state})

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(line)

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise GalsearchError(
                    f"{self.path}: line {number} is damaged; the answers in this file are paid for: mend or remove "
                    "that line, or move the file away to ask everything again"
                ) from None

    def _take(self, line: dict) -> None:
        if "run" in line:
            self.run, self.started = line["run"], line["started"]
        elif "reply" in line:
            reply = Reply(**line["reply"])
            self.replies[reply.key], self.costs[reply.key] = reply, line["cost_usd"]
            self.times[reply.key] = line["time"]
        elif "failed" in line:
            self.failed += 1
            self.lost += line["lost"]
        elif line["state"] == "over":
            self.batches.pop(line["batch"], None)
        else:
            self.batches[line["batch"]] = line["id"]


@dataclass
class Outcome:
    """How asking ended: why it stopped too early (None: it did not), what failed and why, what else there is to say."""

    stopped: str | None = None
    failures: dict[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass
class _Job:
    """Everything that asking needs to know."""

    endpoint: Endpoint
    journal: Journal
    make: Callable[[str], Request]
    total: int
    price: Price | None
    max_cost: float | None
    progress: Progress
    outcome: Outcome = field(default_factory=Outcome)
    largest_in: float = 0.0  # tokens of a question, as the service counts them
    submitted: dict[str, list[str]] = field(default_factory=dict)  # tag of a batch of this run -> its keys

    def most(self, prompt: str, mode: str, *, pictures: float = 1.0, more_characters: int = 0) -> float:
        """Return the most that one question can cost."""
        if self.price is None:
            return 0.0
        about = tokens_of(prompt, self.price, pictures=pictures) + more_characters / CHARACTERS_A_TOKEN
        tokens = max(MARGIN * about, 1.05 * self.largest_in)
        return self.price.cost(tokens, self.endpoint.service.max_tokens, mode=mode)

    def take(self, reply: Reply, most: float, mode: str) -> None:
        """Keep a reply and count its cost."""
        cost = None
        if self.price is not None and reply.tokens_in is not None and reply.tokens_out is not None:
            self.largest_in = max(self.largest_in, reply.tokens_in)
            cost = self.price.cost(reply.tokens_in, reply.tokens_out, mode=mode)
        elif self.price is not None and reply.billed is not False:
            tries = 1 + self.endpoint.service.retries if reply.billed is None else 1
            cost = most * tries  # it does not say; what it can have cost counts
        self.journal.put(reply, cost)
        if reply.status == FAILED:
            self.outcome.failures[reply.key] = reply.said or ""
        self.progress(len(self.journal.replies), self.total, "asking")


def tokens_of(prompt: str, price: Price | None, *, pictures: float = 1.0) -> float:
    """Return how many tokens a question has, about, with one picture, or as much as several are worth."""
    picture = price.picture_tokens if price else UNKNOWN_PICTURE_TOKENS
    return len(prompt) / CHARACTERS_A_TOKEN + pictures * picture


def estimate(
    model: str | None,
    *,
    what: str,
    count: int,
    prompt: str,
    fields_characters: int,
    answer_tokens: int,
    price_in: float | None = None,
    price_out: float | None = None,
    batches: bool = False,
    pictures: float = 1.0,
) -> pa.Table:
    """Return what `count` answers would cost, before anything is sent: a row a model, cheapest first.

    The columns are model, `what` (the count), tokens_in, tokens_out, usd and, with `batches`, usd_batch. Without
    `model`, all models whose price is known; dollars are NULL for one whose price is not. Tokens are estimates, within
    a factor of two: of a prompt with one picture, or as much as `pictures` are worth, and the description of an
    answer's fields, and of answers with `answer_tokens`.
    """
    rows = []
    for name in [model] if model else known_models():
        price = price_of(name, price_in=price_in, price_out=price_out)
        tokens_in = round(count * (tokens_of(prompt, price, pictures=pictures) + fields_characters / 4))
        tokens_out = count * (answer_tokens + (price.thinking_tokens if price else 0))
        row = {"model": name, what: count, "tokens_in": tokens_in, "tokens_out": tokens_out}
        row["usd"] = price.cost(tokens_in, tokens_out) if price else None
        row["usd_batch"] = price.cost(tokens_in, tokens_out, mode="batch") if price else None
        rows.append(row)
    rows.sort(key=lambda each: (each["usd"] is None, each["usd"], each["model"]))
    numbers = {what: pa.int64(), "tokens_in": pa.int64(), "tokens_out": pa.int64(), "usd": pa.float64()}
    kinds = {"model": pa.string(), **numbers, **({"usd_batch": pa.float64()} if batches else {})}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items())))


def ask_all(
    endpoint: Endpoint,
    keys: Sequence[str],
    make: Callable[[str], Request],
    journal: Journal,
    *,
    max_cost: float | None = None,
    batch: str = "auto",
    poll_seconds: float = POLL_SECONDS,
    progress: Progress = lambda done, total, what: None,
) -> Outcome:
    """Ask every key that the journal has no answer for; answers are in the journal afterwards.

    `make` gives the question of a key, on this thread. `max_cost` is in US dollars and counts what the journal has
    spent; it needs a price. `batch` is "on", "off", or "auto": from 1,000 questions on; a server without a Batch API is
    asked one by one. Raises RemoteError when the service answers nothing any more; what was answered is kept.
    """
    service = endpoint.service
    price = price_of(service.model, price_in=service.price_in, price_out=service.price_out)
    _check(batch, max_cost, price, service.model)
    job = _Job(endpoint, journal, make, len(keys), price, max_cost, progress)
    pending = [key for key in keys if key not in journal.replies]
    asks_batches = batch == "on" or (batch == "auto" and len(pending) >= BATCH_FROM)
    if journal.batches or (pending and asks_batches):
        taken = _in_batches(job, pending, poll_seconds, goes_on=asks_batches)
        if not taken:
            job.outcome.note = f"{endpoint.host} has no Batch API; asked one by one"
        pending = [key for key in pending if key not in journal.replies and key not in job.outcome.failures]
    if pending and job.outcome.stopped is None:
        _one_by_one(job, pending)
    return job.outcome


def _check(batch: str, max_cost: float | None, price: Price | None, model: str) -> None:
    if batch not in MODES:
        raise GalsearchError(f"batch is '{batch}', which is not one of {', '.join(MODES)}")
    if max_cost is not None and not max_cost > 0:
        raise GalsearchError(f"max_cost is {max_cost}, and must be above 0 US dollars; leave it out for no limit")
    if max_cost is not None and price is None:
        raise GalsearchError(
            f"the price of '{model}' is not known, so that max_cost cannot be held; give its price per million tokens "
            "with price_in and price_out (--price-in, --price-out)"
        )


# ---- one by one


Answers = queue.SimpleQueue  # of (Reply or what was raised, the most that it can have cost or None)


def _one_by_one(job: _Job, pending: list[str]) -> None:
    answers: Answers = queue.SimpleQueue()
    under_way: list[float] = []  # the most that each can cost
    requests, failed_in_a_row = _Upcoming(job, pending), 0
    with _ctrl_c(answers):
        try:
            while _send(job, requests, answers, under_way) or under_way:
                reply = _next(job, answers, under_way)
                failed_in_a_row = failed_in_a_row + 1 if reply.status == FAILED else 0
                if failed_in_a_row >= max(3, job.endpoint.service.concurrency):
                    raise RemoteError(
                        f"{job.endpoint.host} failed {failed_in_a_row} times in a row, last with: {reply.said}; "
                        f"{len(job.journal.replies)} answers are kept, run the same command again to go on"
                    )
        except BaseException:
            _drain(job, answers, under_way)
            raise


class _Upcoming:
    """The questions that are still to be asked; made one at a time, because each holds a picture."""

    def __init__(self, job: _Job, keys: list[str]) -> None:
        self._made = (job.make(key) for key in keys)
        self.first = next(self._made, None)

    def move_on(self) -> None:
        """Make the next, which is the first then."""
        self.first = next(self._made, None)


def _send(job: _Job, requests: _Upcoming, answers: Answers, under_way: list[float]) -> bool:
    """Send as many questions as may be under way and as fit under the limit; say whether any was sent."""
    sent = False
    while (request := requests.first) is not None and len(under_way) < job.endpoint.service.concurrency:
        more = request.more_characters
        most = job.most(request.prompt, "direct", pictures=request.pictures, more_characters=more)
        if not _fits(job, sum(under_way) + most):
            if not under_way:
                job.outcome.stopped = _limit(job)
            break
        under_way.append(most)
        requests.move_on()
        threading.Thread(target=_answer, args=(job.endpoint, request, most, answers), daemon=True).start()
        sent = True
    return sent


def _answer(endpoint: Endpoint, request: Request, most: float, answers: Answers) -> None:
    try:
        answers.put((endpoint.ask(request), most))
    except BaseException as error:  # noqa: BLE001  whoever asked raises it, on the main thread
        answers.put((error, most))


def _next(job: _Job, answers: Answers, under_way: list[float], *, timeout: float | None = None) -> Reply:
    """Wait for the next reply and keep it; raise what was raised instead."""
    reply, most = answers.get(timeout=timeout)
    if most is not None:
        under_way.remove(most)
    if isinstance(reply, BaseException):
        raise reply
    job.take(reply, most, "direct")
    return reply


@contextlib.contextmanager
def _ctrl_c(answers: Answers) -> Iterator[None]:
    """Let Ctrl-C arrive among the answers: raised anywhere, it could lose one that was received and not kept yet."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: answers.put((KeyboardInterrupt(), None)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _drain(job: _Job, answers: Answers, under_way: list[float]) -> None:
    """Wait for what is under way, which is paid, and keep it; a second Ctrl-C gives it up."""
    until = time.monotonic() + job.endpoint.service.timeout_seconds
    while under_way and time.monotonic() < until:
        job.progress(len(job.journal.replies), job.total, f"stopping, waiting for {len(under_way)} answers")
        try:
            _next(job, answers, under_way, timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return
        except RemoteError:
            continue  # of the kind that stopped everything


def _fits(job: _Job, more: float) -> bool:
    return job.max_cost is None or job.journal.spent + more <= job.max_cost


def _limit(job: _Job) -> str:
    return (
        f"stopped at {job.journal.spent:.4f} of {job.max_cost:g} US dollars: the next answer could exceed the limit; "
        "raise max_cost (--max-cost) to go on"
    )


# ---- in batches


def _in_batches(job: _Job, pending: list[str], poll_seconds: float, *, goes_on: bool) -> bool:
    """Ask in batches until nothing is left that fits under the limit; False where the server has no Batch API."""
    _recover(job)
    _collect(job, pending, poll_seconds)
    while goes_on:
        left = [key for key in pending if key not in job.journal.replies and key not in job.outcome.failures]
        if not left:
            return True
        started, reserved = 0, 0.0
        for keys, lines, most in _chunks(job, left):
            if not keys or not _fits(job, reserved + most):
                break
            tag = f"{job.journal.run}-{_name(''.join(keys))}"[:60]
            job.journal.put_batch(tag, None)
            batch = job.endpoint.submit(lines, tag=tag)
            if batch is None:
                job.journal.put_batch(tag, None, state="over")
                return False
            job.journal.put_batch(tag, batch)
            job.submitted[tag] = keys
            started, reserved = started + 1, reserved + most
        if not started:
            job.outcome.stopped = _limit(job)
            return True
        _collect(job, pending, poll_seconds)
    return True


def _recover(job: _Job) -> None:
    """Find the batches that were about to be started when the last run ended."""
    for tag, batch in list(job.journal.batches.items()):
        if batch is None:
            result = job.endpoint.find_batch(tag)
            job.journal.put_batch(tag, result, state="started" if result else "over")


def _collect(job: _Job, keys: Sequence[str], poll_seconds: float) -> None:
    """Wait for the batches that are under way and take their answers."""
    names = {_name(key): key for key in keys}
    while started := {tag: batch for tag, batch in job.journal.batches.items() if batch is not None}:
        states = {tag: job.endpoint.state(batch) for tag, batch in started.items()}
        for tag, state in states.items():
            if state.done:
                _take_batch(job, tag, state.files, names)
                job.journal.put_batch(tag, None, state="over")
                if state.trouble and not state.files:
                    raise RemoteError(f"{job.endpoint.host} failed a batch: {state.trouble}; try --batch off")
        if job.journal.batches:
            answered = sum(state.answered for state in states.values() if not state.done)
            job.progress(len(job.journal.replies) + answered, job.total, "waiting for batches")
            time.sleep(poll_seconds)


def _take_batch(job: _Job, tag: str, files: Iterable[str], names: dict[str, str]) -> None:
    for file in files:
        for reply in job.endpoint.answers(file, names):
            if reply.key not in job.journal.replies:
                job.take(reply, job.most("", "batch"), "batch")
    for key in job.submitted.get(tag, ()):  # what has expired in the batch is asked again only by another run
        if key not in job.journal.replies:
            job.outcome.failures.setdefault(key, "the batch ended without an answer")


def _chunks(job: _Job, keys: list[str]) -> Iterable[tuple[list[str], list[str], float]]:
    """Yield the keys and lines of one batch after the other, and the most that it can cost; none beyond the limit."""
    chunk: list[str] = []
    lines: list[str] = []
    size, most = 0, 0.0
    for key in keys:
        request = job.make(key)
        line, cost = job.endpoint.line(request, _name(key)), job.most(request.prompt, "batch")
        full = len(chunk) == BATCH_LINES or size + len(line) > BATCH_BYTES
        if chunk and full:
            yield chunk, lines, most
            chunk, lines, size, most = [], [], 0, 0.0
        if not _fits(job, most + cost):
            break
        chunk.append(key)
        lines.append(line)
        size, most = size + len(line) + 1, most + cost
    yield chunk, lines, most


def _name(key: str) -> str:
    """Return the name of a key in a batch: short, and the same in every run."""
    return hashlib.sha256(key.encode()).hexdigest()[:40]


def ledger_line(journal: Journal) -> dict[str, Any]:
    """Return what the ledger says of a job: counts of answers by status, tokens and cost, None for no known price."""
    replies = list(journal.replies.values())
    known = [cost for cost in journal.costs.values() if cost is not None]
    return {
        "run": journal.run,
        "answers": len(replies),
        "refused": sum(reply.status == REFUSED for reply in replies),
        "malformed": sum(reply.status == MALFORMED for reply in replies),
        "failed": journal.failed,
        "tokens_in": sum(reply.tokens_in or 0 for reply in replies),
        "tokens_out": sum(reply.tokens_out or 0 for reply in replies),
        "cost_usd": sum(known) + journal.lost if len(known) == len(replies) and (known or journal.lost) else None,
        "started": journal.started,
    }
