"""What a request says: its parameters, whatever their case, files sent along, who sent it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from galsearch.errors import QueryError
from galsearch.escaping import is_text
from galsearch.permalinks import MOST_DEPTH, nested
from galsearch.quotas import Client, address_of

MOST_FILES, MOST_FIELDS = 16, 1_000
JSON = "application/json"
TEXT = ("text/plain", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


@dataclass
class Params:
    """The parameters of a request by their names in lower case, each with all its values in order.

    `body` is the text of a body that is one, `stated` the object of one in JSON.
    """

    request: Request
    values: dict[str, list[str]]
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    body: str = ""
    stated: dict[str, Any] = field(default_factory=dict)

    def all(self, name: str) -> list[str]:
        """Return all values of a parameter that are not empty."""
        return [value for value in self.values.get(name, []) if value.strip()]

    def text(self, name: str, default: str | None = None) -> str | None:
        """Return the last value of a parameter, `default` where there is none."""
        given = self.all(name)
        return given[-1] if given else default

    def needed(self, name: str) -> str:
        """Return a value that must be there."""
        value = self.text(name)
        if value is None:
            raise QueryError(f"the parameter {name.upper()} is missing; give it")
        return value

    def number(self, name: str, default: float | None = None) -> float | None:
        """Return a finite number. Raises QueryError for anything else."""
        value = self.text(name)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise QueryError(f"{name.upper()} is {value!r:.60}, expected a number")
        return number

    def whole(self, name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        """Return a whole number, at most `most`, which a higher one becomes. Raises QueryError for anything else."""
        value = self.text(name)
        if value is None:
            return default
        text = value.strip()
        if not (text.isascii() and text.isdecimal()) or len(text) > 18 or int(text) < least:
            raise QueryError(f"{name.upper()} is {value!r:.60}, expected a whole number from {least}")
        return int(text) if most is None else min(int(text), most)

    def flag(self, name: str) -> bool:
        """Say whether a parameter is there and says yes."""
        value = (self.text(name) or "0").strip().lower()
        if value not in ("0", "1", "true", "false", "yes", "no"):
            raise QueryError(f"{name.upper()} is {value!r:.60}, expected true or false")
        return value in ("1", "true", "yes")

    def client(self, proxies: int) -> Client:
        """Return who asks: an address, or that of the connection where it tells nobody apart."""
        remote = self.request.client.host if self.request.client else None
        forwarded = self.request.headers.get("x-forwarded-for") if proxies else None
        address = address_of(remote, forwarded, proxies=proxies)
        name = address or remote or "local"
        return Client(hashlib.sha256(name.encode()).hexdigest()[:16], address)


async def read_params(request: Request) -> Params:
    """Return the parameters of the URL and of the body: a form, parts with files, JSON, or plain text."""
    params = Params(request, {})
    for name, value in request.query_params.multi_items():
        _add(params, name, value)
    if request.method not in ("POST", "PUT", "DELETE"):
        return params
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        most = request.app.state.upload_bytes
        async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=most) as form:
            for name, part in form.multi_items():
                if isinstance(part, UploadFile):
                    params.files[name.lower()] = part.filename or name, await part.read()
                else:
                    _add(params, name, part)
    elif kind == JSON:
        _add_json(params, await request.body())
    elif kind in TEXT:
        params.body = _decoded(await request.body())
    elif await request.body():
        params.files["body"] = kind, await request.body()
    return params


def _add(params: Params, name: str, value: str) -> None:
    if not is_text(value) or "\0" in value or not is_text(name):
        raise QueryError(f"the parameter {name!r:.60} is not text")
    params.values.setdefault(name.lower(), []).append(value)


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise QueryError("the body is not UTF-8 text") from None


def _add_json(params: Params, content: bytes) -> None:
    """Take the entries of a JSON object as parameters: what is no text as JSON, a list as several values."""
    params.body = _decoded(content)
    if nested(params.body) > MOST_DEPTH:
        raise QueryError("the JSON of the body is nested too deeply")
    try:
        stated = json.loads(params.body)
    except ValueError:
        stated = None
    if not isinstance(stated, dict):
        raise QueryError("the body is not a JSON object")
    params.stated = stated
    for name, value in stated.items():
        several = value if isinstance(value, list) and all(isinstance(one, str) for one in value) else [value]
        for one in several:
            if one is not None:
                _add(params, name, _as_text(one))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def not_too_much(received: int, most: int) -> None:
    """Raise 413 for a body that is longer than what is taken."""
    if received > most:
        raise HTTPException(413, f"the body has more than {most // 1_000_000} MB; send less")
