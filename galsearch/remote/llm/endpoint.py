"""Asks a vision model behind an OpenAI-compatible endpoint: the `openai` package, and what can come back from it.

A question is words and a picture; the answer is to be a JSON object of known fields. What is asked for is sent as a
schema, but servers exist that ignore it, and models refuse, so that an answer is one of OK, REFUSED or MALFORMED, and
never mended. No answer at all (FAILED) says nothing about the picture.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from galsearch.errors import GalsearchError, RemoteError

if TYPE_CHECKING:
    import openai
    import pydantic

OK, REFUSED, MALFORMED, FAILED = "ok", "refused", "malformed", "failed"
FATAL = {401: "the key is not accepted", 403: "this key may not use it", 404: "there is no such model or address"}
NO_BATCHES = {400, 404, 405, 501}  # what servers without a Batch API say when a file is sent to them
COMPLETIONS: Final = "/v1/chat/completions"
MOST_KEPT = 4000  # characters of an answer that is kept as it came
MOST_ANSWER_BYTES = 8 << 20  # of one answer; what is longer is cut, and so is none
MOST_FILE_BYTES = 512 << 20  # of the answers of a batch
MOST_TOKENS = 100_000_000  # that a service may say an answer took


@dataclass(frozen=True)
class Service:
    """A model, where it is, and how to ask it.

    `base_url` None is OpenAI's own; a local server needs no key. The key is read from the environment variable
    `key_env`, and kept nowhere. `retries` are those of one question, with growing pauses; `max_tokens` bounds an
    answer; `price_in`, `price_out` are US dollars per million tokens.
    """

    model: str
    base_url: str | None = None
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout_seconds: float = 120.0
    retries: int = 5
    max_tokens: int = 1500
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.max_tokens < 1 or self.retries < 0 or not self.timeout_seconds > 0:
            raise GalsearchError(
                f"concurrency {self.concurrency}, max_tokens {self.max_tokens}, retries {self.retries}, "
                f"timeout_seconds {self.timeout_seconds}: all must be above 0 (retries may be 0)"
            )


@dataclass(frozen=True)
class Request:
    """One question: a key of the caller's, words, a picture with its media type, and a seed.

    `turns` are the messages of a conversation after that, `must` the tool that has to be called now, of a ToolEndpoint.
    `pictures` is how many pictures of about 500 px all that is sent is worth, and `more_characters` the length of what
    is written in `turns`: for what it can cost.
    """

    key: str
    prompt: str
    picture: bytes
    media_type: str = "image/png"
    seed: int = 0
    turns: tuple[dict[str, Any], ...] = ()
    must: str | None = None
    pictures: float = 1.0
    more_characters: int = 0


@dataclass(frozen=True)
class Reply:
    """What came back: `values` where the status is OK, else None; `said` is what was answered instead, or the error.

    `tokens_in` and `tokens_out` are the service's own counts, None where it does not say. `billed` is False where
    nothing can have been paid, None where that is not known.
    """

    key: str
    status: str
    values: dict[str, Any] | None = None
    said: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    billed: bool | None = True


@dataclass(frozen=True)
class BatchState:
    """How far a batch is: done or not, questions answered, and the files of answers and of errors."""

    done: bool
    answered: int
    files: tuple[str, ...] = ()
    trouble: str | None = None


@dataclass
class Endpoint:
    """A service that answers with an object of `fields` (name -> type); the client is made at the first question."""

    service: Service
    fields: dict[str, Any]
    _client: openai.OpenAI = field(init=False, repr=False)  # this and the next are made by `open`
    _shape: type[pydantic.BaseModel] = field(init=False, repr=False)

    def open(self) -> Endpoint:
        """Make the client. Raises GalsearchError where the package or the key is missing."""
        library, service = _library(), self.service
        key = os.environ.get(service.key_env)
        if not key and service.base_url is None:
            raise GalsearchError(
                f"no key: set the environment variable {service.key_env}, name another with --key-env, or give "
                "--base-url of a server that needs none"
            )
        self._client = library.OpenAI(
            api_key=key or "none",
            base_url=service.base_url,
            timeout=service.timeout_seconds,
            max_retries=service.retries,
            default_headers={"Accept-Encoding": "identity"},  # what is unpacked here could become any size
            http_client=_bounded_client(library, service.timeout_seconds),
        )
        self._shape = _shape(self.fields)
        return self

    def close(self) -> None:
        """Close the connections; questions under way end with an error."""
        self._client.close()

    @property
    def host(self) -> str:
        """Where questions go, without path and credentials."""
        parts = urlsplit(str(self._client.base_url))
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    # ---- one by one

    def ask(self, request: Request) -> Reply:
        """Return the reply to one question. Raises RemoteError where no question can be answered (key, model)."""
        library = _library()
        try:
            raw = self._send(request)
        except library.APIStatusError as error:
            self._refuse(error)
            return Reply(request.key, FAILED, said=_short(error), billed=False)
        except library.APITimeoutError as error:
            return Reply(request.key, FAILED, said=_short(error), billed=None)
        except library.APIConnectionError as error:
            return Reply(request.key, FAILED, said=_short(error.__cause__ or error), billed=False)
        return self._read(request.key, raw.text)

    def _send(self, request: Request) -> Any:
        # parse() of the answer itself would raise on a malformed one, and lose what was paid for it
        return self._client.chat.completions.with_raw_response.parse(**self._body(request), response_format=self._shape)

    def _refuse(self, error: openai.APIStatusError) -> None:
        if 300 <= error.status_code < 400:  # followed, it would carry the key and the pictures to another server
            index = urlsplit(error.response.headers.get("location", ""))
            raise RemoteError(
                f"{self.host} answers {error.status_code} and points to {index.hostname or 'another index'}, which is "
                "not followed; if you trust it, give it as --base-url"
            ) from None
        if error.status_code in FATAL:
            raise RemoteError(
                f"{self.host} answers {error.status_code} for model '{self.service.model}': "
                f"{FATAL[error.status_code]} ({_short(error)}); check --model, --base-url and {self.service.key_env}"
            ) from None

    def _body(self, request: Request) -> dict[str, Any]:
        content = [{"type": "text", "text": request.prompt}, picture_part(request.picture, request.media_type)]
        ours = self.host.endswith("api.openai.com")  # its newer models refuse the older name, other servers the newer
        return {
            "model": self.service.model,
            "messages": [{"role": "user", "content": content}, *request.turns],
            "max_completion_tokens" if ours else "max_tokens": self.service.max_tokens,
            "seed": request.seed,
        }

    def _read(self, key: str, text: str) -> Reply:
        """Return the reply that the body of an answer holds."""
        try:
            body = json.loads(text)
            usage = body.get("usage") or {}
            tokens = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
        except (ValueError, AttributeError, RecursionError):
            return Reply(key, FAILED, said=f"no answer but {text[:200]!r}", billed=None)
        if isinstance(body.get("error"), dict):
            return Reply(key, FAILED, said=str(body["error"].get("message"))[:500], billed=None)
        status, values, stated = self._content(body)
        return Reply(key, status, values, stated, *tokens)

    def _content(self, body: dict) -> tuple[str, dict | None, str | None]:
        import pydantic

        try:
            choice = body["choices"][0]
            message = choice["message"]
            stated = message.get("content") or ""
            refusal = message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError):
            return MALFORMED, None, json.dumps(body)[:MOST_KEPT]
        if refusal or choice.get("finish_reason") == "content_filter":
            return REFUSED, None, str(refusal or "stopped by the content filter")[:MOST_KEPT]
        try:
            values = self._shape.model_validate_json(stated).model_dump()
            blank = any(isinstance(value, str) and not value.strip() for value in values.values())
            return (MALFORMED, None, stated[:MOST_KEPT]) if blank else (OK, values, None)
        except (pydantic.ValidationError, TypeError, RecursionError):
            cut = (
                f"[cut off after {self.service.max_tokens} tokens] " if choice.get("finish_reason") == "length" else ""
            )
            return MALFORMED, None, f"{cut}{stated}"[:MOST_KEPT]

    # ---- in batches

    def line(self, request: Request, name: str) -> str:
        """Return the line of a batch that asks one question under a name of at most 64 characters."""
        schema = {"name": "answer", "strict": True, "schema": self._shape.model_json_schema()}
        body = {**self._body(request), "response_format": {"type": "json_schema", "json_schema": schema}}
        return json.dumps({"custom_id": name, "method": "POST", "url": COMPLETIONS, "body": body})

    def submit(self, lines: Iterable[str], *, tag: str) -> str | None:
        """Start a batch of lines and return its id; None where the server has no Batch API. `tag` finds it again."""
        library = _library()
        content = ("questions.jsonl", "\n".join(lines).encode() + b"\n", "application/jsonl")
        try:
            sent = self._client.files.create(file=content, purpose="batch")
            if not getattr(sent, "id", None):  # a page of some other server
                return None
            made = self._client.batches.create(
                input_file_id=sent.id, endpoint=COMPLETIONS, completion_window="24h", metadata={"galsearch": tag}
            )
        except library.APIStatusError as error:
            if error.status_code in NO_BATCHES:
                return None
            self._refuse(error)
            raise RemoteError(f"{self.host} takes no batch ({_short(error)}); try --batch off") from None
        except library.APIConnectionError as error:
            raise RemoteError(f"{self.host} cannot be reached ({_short(error)}); run the same command again") from None
        if not isinstance(getattr(made, "id", None), str):
            raise RemoteError(f"{self.host} took a batch and gave it no id; try --batch off")
        return made.id

    def find_batch(self, tag: str) -> str | None:
        """Return the id of the batch with a tag, of those that were started last; None when there is none."""
        library = _library()
        try:
            result = self._client.batches.list(limit=100)
            return next((one.id for one in result.data if (one.metadata or {}).get("galsearch") == tag), None)
        except (library.OpenAIError, AttributeError, TypeError):  # the latter of an odd answer
            return None

    def state(self, batch: str) -> BatchState:
        """Return how far a batch is. Raises RemoteError when the server does not say."""
        library = _library()
        try:
            result = self._client.batches.retrieve(batch)
        except library.OpenAIError as error:
            raise RemoteError(
                f"{self.host} does not say how far batch {batch} is ({_short(error)}); run the same command again, it "
                "goes on waiting"
            ) from None
        try:
            return _state_of(result)
        except (AttributeError, TypeError):
            raise RemoteError(f"{self.host} says something odd of batch {batch}; run the same command again") from None

    def answers(self, file: str, keys: dict[str, str]) -> Iterator[Reply]:
        """Yield the replies in a file of a batch; `keys` maps the names of its lines to the callers' keys."""
        library = _library()
        try:
            text = self._client.files.content(file).text
        except library.OpenAIError as error:
            raise RemoteError(
                f"{self.host} does not give the answers of a batch ({_short(error)}); run the same command again"
            ) from None
        for line in filter(str.strip, text.splitlines()):
            try:
                result = json.loads(line)
                key, response = keys.get(result.get("custom_id")), result.get("response") or {}
                failed = response.get("status_code", 500) >= 400 or result.get("error")
            except (ValueError, AttributeError, TypeError, RecursionError):
                continue  # it answers nothing, so that its question stays open
            if key is None:
                continue
            if failed:
                stated = json.dumps(result.get("error") or response.get("body"))[:500]
                yield Reply(key, FAILED, said=stated, billed=False)
            else:
                yield self._read(key, json.dumps(response.get("body")))


@dataclass
class ToolEndpoint(Endpoint):
    """A service that answers by calling one of `tools`: name -> what it is for, and its arguments (name -> type).

    `values` of a reply are the `tool`, its `arguments`, and the `call` by which a next message names it. Of several
    calls in one answer the first counts.
    """

    tools: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    _shapes: dict[str, type[pydantic.BaseModel]] = field(init=False, repr=False)

    def open(self) -> ToolEndpoint:
        """Make the client. Raises GalsearchError where the package or the key is missing."""
        super().open()
        self._shapes = {name: _shape(fields) for name, (_, fields) in self.tools.items()}
        return self

    def _send(self, request: Request) -> Any:
        choice: Any = "required"
        if request.must is not None:
            choice = {"type": "function", "function": {"name": request.must}}
        return self._client.chat.completions.with_raw_response.create(
            **self._body(request), tools=self._stated(), tool_choice=choice
        )

    def _stated(self) -> Any:
        return [
            {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}
            for name, (about, _) in self.tools.items()
            for parameters in [self._shapes[name].model_json_schema()]
        ]

    def _content(self, body: dict) -> tuple[str, dict | None, str | None]:
        import pydantic

        try:
            choice = body["choices"][0]
            message = choice["message"]
            calls = message.get("tool_calls") or []
        except (KeyError, IndexError, TypeError, AttributeError):
            return MALFORMED, None, json.dumps(body)[:MOST_KEPT]
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            return REFUSED, None, str(message.get("refusal") or "stopped by the content filter")[:MOST_KEPT]
        try:
            name, stated = calls[0]["function"]["name"], calls[0]["function"]["arguments"]
            arguments = self._shapes[name].model_validate_json(stated).model_dump()
            return OK, {"tool": name, "arguments": arguments, "call": str(calls[0]["id"])[:200]}, None
        except (pydantic.ValidationError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return MALFORMED, None, json.dumps(message)[:MOST_KEPT]


def picture_part(picture: bytes, media_type: str = "image/png") -> dict[str, Any]:
    """Return a picture as a part of a message."""
    url = f"data:{media_type};base64,{base64.b64encode(picture).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _library() -> ModuleType:
    try:
        import openai
    except ImportError:
        raise GalsearchError("asking a vision model needs the openai package: pip install 'galsearch[vlm]'") from None
    return openai


def _state_of(result: Any) -> BatchState:
    """Return how far a batch is, from what the service says of it."""
    done = result.status in ("completed", "failed", "expired", "cancelled")
    files = tuple(name for name in (result.output_file_id, result.error_file_id) if name)
    errors = result.errors.data if result.errors and result.errors.data else []
    trouble = "; ".join(str(error.message) for error in errors[:3]) or None
    if result.status == "failed" and trouble is None:
        trouble = "the server does not say why"
    return BatchState(done, result.request_counts.completed if result.request_counts else 0, files, trouble)


def _tokens(stated: Any) -> int | None:
    """Return a count of tokens that can be one, else None."""
    return stated if isinstance(stated, int) and not isinstance(stated, bool) and 0 <= stated <= MOST_TOKENS else None


def _bounded_client(library: ModuleType, seconds: float) -> Any:
    """Return an HTTP client that follows no redirect and reads no answer beyond its size and its time.

    The time limits of the client itself are for each read; a server that sends a byte now and then would never end.
    """
    import httpx2

    class Bounded(httpx2.SyncByteStream):
        def __init__(self, inner: Any, most: int) -> None:
            self._inner, self._left, self._end = inner, most, time.monotonic() + seconds

        def __iter__(self) -> Iterator[bytes]:
            for part in self._inner:
                if time.monotonic() > self._end:
                    raise httpx2.ReadTimeout(f"the answer was not complete after {seconds:g} s")
                yield part[: self._left]
                self._left -= len(part)
                if self._left <= 0:
                    return

        def close(self) -> None:
            self._inner.close()

    def bound(response: Any) -> None:
        most = MOST_FILE_BYTES if "/files/" in response.request.url.path else MOST_ANSWER_BYTES
        response.headers.pop("Content-Encoding", None)
        response.stream = Bounded(response.stream, most)

    hooks = {"response": [bound]}
    return library.DefaultHttpxClient(follow_redirects=False, timeout=seconds, event_hooks=hooks)


def _shape(fields: dict[str, Any]) -> type[pydantic.BaseModel]:
    import pydantic

    strict = pydantic.ConfigDict(extra="forbid", strict=True)
    required: dict[str, Any] = {name: (kind, ...) for name, kind in fields.items()}
    return pydantic.create_model("Answer", __config__=strict, **required)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
