"""Captions by a vision model: what it is asked, what its answers become, and what they will cost.

Answers are asked for in three fields (`FIELDS`). What refuses or is not such an answer is stored as that, without a
caption; what was never answered is not stored. The answers of a job lie in a journal beside the atlas until they are
in it.
"""

from __future__ import annotations

import hashlib
import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import schema
from galsearch.captions import OK, TABLE, Captioned, galaxies, put, row
from galsearch.errors import GalsearchError, SchemaError
from galsearch.language import summaries
from galsearch.language.negation import negator
from galsearch.progress import Progress
from galsearch.remote import (
    MALFORMED,
    REFUSED,
    Endpoint,
    Journal,
    Reply,
    Request,
    Service,
    ask_all,
    estimate,
    journal_path,
    ledger_line,
)
from galsearch.science import images
from galsearch.store import open_store

if TYPE_CHECKING:
    from galsearch.store import Store

PROMPT = "caption-1.md"
FIELDS: dict[str, Any] = {"description": str, "summary": str, "absent": list[str]}
FIELDS_CHARACTERS = 400  # of the fields, which are sent along with the prompt
ANSWER_TOKENS = 230  # of a description in a few sentences, a summary and a list
PICTURE_PX = 512  # the largest picture that is sent


@dataclass(frozen=True)
class VLM(Service):
    """A vision model and how to ask it for captions.

    `model` is its name; `base_url` an OpenAI-compatible endpoint (None: OpenAI's), whose key is read from the
    environment variable `key_env`. `prompt` is a text file to use instead of ours. Pictures are the atlas's
    thumbnails, or those of the folder `images` under the name that the column `file` has. `max_cost` stops before more
    US dollars are spent on this model and prompt; `price_in` and `price_out`, per million tokens, are needed for it
    where the price of the model is not known. `batch` is "auto" (from 1,000 captions on), "on" or "off"; a server
    without a Batch API is asked `concurrency` at a time. What the atlas has from this model and prompt is not asked
    for again unless `again`. Nothing but prompt and pictures is sent.
    """

    prompt: str | Path | None = None
    images: str | Path | None = None
    max_cost: float | None = None
    batch: str = "auto"
    again: bool = False
    poll_seconds: float = 20.0

    def service(self) -> Service:
        """Return the part that the endpoint needs."""
        return Service(**{item.name: getattr(self, item.name) for item in fields(Service)})


def caption_prompt(path: str | Path | None = None) -> str:
    """Return the prompt that vision models are asked with: ours, or that of a file."""
    if path is None:
        return resources.files("galsearch.prompts").joinpath(PROMPT).read_text()
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: cannot be read ({error}); a prompt is a text file") from None
    if not text.strip():
        raise SchemaError(f"{path}: the prompt is empty; see ours with --show-prompt")
    return text


def estimate_captions(
    path: str | Path,
    *,
    where: str | None = None,
    copies: int = 1,
    prompt: str | Path | None = None,
    model: str | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
) -> pa.Table:
    """Return what captions by vision models would cost, before anything is sent: a row a model, cheapest first.

    The columns are model, captions, tokens_in, tokens_out, usd and usd_batch. Without `model`, all models whose price
    is known; for one whose price is not, dollars are NULL. Tokens are estimates, within a factor of two.
    """
    store = open_store(Path(path))
    try:
        count = len(_with_pictures(store, galaxies(store, where, ()), None)) * copies
    finally:
        store.close()
    return estimate(
        model,
        what="captions",
        count=count,
        prompt=caption_prompt(prompt),
        fields_characters=FIELDS_CHARACTERS,
        answer_tokens=ANSWER_TOKENS,
        price_in=price_in,
        price_out=price_out,
        batches=True,
    )


def ask(store: Store, vlm: VLM, *, where: str | None, seeds: range, append: bool, progress: Progress) -> Captioned:
    """Ask for captions of the galaxies that pass, and put them into the atlas."""
    started, path = time.perf_counter(), store.path
    prompt = caption_prompt(vlm.prompt)
    sha256 = hashlib.sha256(prompt.encode()).hexdigest()
    table = galaxies(store, where, ("file",))
    ids = _with_pictures(store, table, vlm.images)
    there = _there(store, vlm.model, sha256)
    keys = [_key(name, seed) for name in ids for seed in seeds if vlm.again or (name, seed) not in there]
    endpoint = Endpoint(vlm.service(), FIELDS).open()
    try:
        with Journal(journal_path(path, [vlm.model, vlm.base_url or "", sha256, str(vlm.images)])) as journal:
            take = _Pictures(store, table, vlm.images)
            outcome = ask_all(
                endpoint,
                keys,
                lambda key: _request(key, prompt, take),
                journal,
                max_cost=vlm.max_cost,
                batch=vlm.batch,
                poll_seconds=vlm.poll_seconds,
                progress=progress,
            )
            rows = _rows(journal, keys, vlm.model, sha256)
            kept = [] if append else _beside(there, rows, seeds)
            requested = {"model": vlm.model, "service": endpoint.host, "prompt_sha256": sha256}
            parameters = {**requested, "where": where, "copies": len(seeds), "seed": seeds.start, "append": append}
            if journal.replies or journal.failed:
                seconds = time.perf_counter() - started
                parameters |= {"by": "vlm", "run": journal.run}
                record = schema.provenance("caption", parameters=parameters, seconds=seconds)
                ledger = {**ledger_line(journal), **requested, "ended": schema.now()}
                put(path, [*rows, *kept], record, append=append, ledger=[ledger])
            if outcome.stopped is None:
                journal.remove()
            cost = ledger_line(journal)["cost_usd"]
    finally:
        endpoint.close()
    counts = {name: sum(each["status"] == name for each in rows) for name in (REFUSED, MALFORMED)}
    counts = {name: count for name, count in {**counts, "failed": len(outcome.failures)}.items() if count}
    reasons = sorted(set(outcome.failures.values()))[:1]
    note = "; ".join(filter(None, [outcome.stopped, outcome.note, *(f"failed with: {why}" for why in reasons)]))
    return Captioned(
        path,
        vlm.model,
        sum(each["status"] == OK for each in rows),
        table.num_rows - len(ids),
        time.perf_counter() - started,
        cost,
        counts,
        note,
    )


# ---- what is asked


def _key(object_id: str, seed: int) -> str:
    return f"{seed}:{object_id}"


def _parts(key: str) -> tuple[str, int]:
    seed, _, object_id = key.partition(":")
    return object_id, int(seed)


def _request(key: str, prompt: str, take: _Pictures) -> Request:
    object_id, seed = _parts(key)
    return Request(key, prompt, take(object_id), seed=seed)


class _Pictures:
    """The picture of an object as PNG, which every server reads: a thumbnail, or a file in a folder."""

    def __init__(self, store: Store, table: pa.Table, folder: str | Path | None) -> None:
        self._store = store
        self._files = _files(table, folder)

    def __call__(self, object_id: str) -> bytes:
        if object_id in self._files:
            whole = images.render(images.read_picture(self._files[object_id]))
            content = images.encode_thumbnail(whole, size_px=PICTURE_PX)
        else:
            content = self._store.thumbnails([object_id])[object_id]
        return png(images.decode_thumbnail(content))


def _files(table: pa.Table, folder: str | Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    if "file" not in table.column_names:
        raise GalsearchError("the atlas has no column 'file' to find pictures in a folder by; leave images out")
    named = zip(table["object_id"].to_pylist(), table["file"].to_pylist(), strict=True)
    indices = {name: Path(folder) / Path(file).name for name, file in named if file}
    return {name: index for name, index in indices.items() if index.is_file()}


def _with_pictures(store: Store, table: pa.Table, folder: str | Path | None) -> list[str]:
    """Return the objects of a table that have a picture, in its order."""
    if not store.holds("thumbnails"):
        have = set(_files(table, folder))
    else:
        have = store.ids_with("thumbnails") | set(_files(table, folder))
    if not have:
        raise GalsearchError(f"{store.path} has no pictures to show to a model; build it from pictures, or give images")
    return [name for name in table["object_id"].to_pylist() if name in have]


def png(rgb: np.ndarray) -> bytes:
    """Return a picture `(h, w, 3) uint8` as PNG."""
    height, width, _ = rgb.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = rgb.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


# ---- what comes of it


def _there(store: Store, model: str, sha256: str) -> dict[tuple[str, int], dict]:
    """Return the rows that the atlas has from a model and a prompt, by object and seed."""
    table = store.table(TABLE)
    if table is None:
        return {}
    ours = table.filter((pc.field("model") == model) & (pc.field("prompt_sha256") == sha256))
    return {(each["object_id"], each["seed"]): each for each in ours.to_pylist()}


def _rows(journal: Journal, keys: Iterable[str], model: str, sha256: str) -> list[dict]:
    """Return the rows of the answers that the journal has for these questions."""
    answered = [journal.replies[key] for key in keys if key in journal.replies]
    return [
        _row(reply, model, sha256, cost_usd=journal.costs[reply.key], created=journal.times[reply.key])
        for reply in answered
    ]


def _row(reply: Reply, model: str, sha256: str, **about: Any) -> dict:
    object_id, seed = _parts(reply.key)
    about |= {"model": model, "sha256": sha256, "seed": seed}
    values = reply.values
    if values is None:  # the status is not OK
        return row(object_id, text=None, status=reply.status, reply=reply.said, **about)
    text, told = values["description"].strip(), values["summary"].strip()
    short = told if told and negator(told) is None else summaries.summary(told) or summaries.summary(text)
    absent = {" ".join(name.lower().split()) for name in values["absent"] if name.strip()}
    return row(object_id, text=text, summary=short, negatives=absent, **about)


def _beside(there: dict[tuple[str, int], dict], rows: list[dict], seeds: range) -> list[dict]:
    """Return the rows that stay although their object gets new ones: those of the other seeds that were asked for."""
    new = {(each["object_id"], each["seed"]) for each in rows}
    touched = {name for name, _ in new}
    return [each for key, each in there.items() if key[0] in touched and key[1] in seeds and key not in new]


__all__ = ["VLM", "ask", "caption_prompt", "estimate_captions", "png"]
