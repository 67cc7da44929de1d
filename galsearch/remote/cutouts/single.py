"""One request for one picture, as most services want it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from galsearch.remote.cutouts.answers import EMPTY, FAILED, OUTSIDE, Answer, judged
from galsearch.remote.cutouts.client import Client, FailedError

SHOWN = 120


def one_picture(
    client: Client,
    url: str,
    parameters: Mapping[str, Any],
    *,
    outside: Collection[int] = (404,),
    outside_words: Collection[str] = (),
    blank: str = EMPTY,
) -> Answer:
    """Return what GET gives: statuses in `outside`, and errors with one of `outside_words`, are off the footprint."""
    try:
        body = client.get(url, parameters)
    except FailedError as error:
        return Answer(FAILED, reason=str(error), passing=True, requests=error.requests)
    text = "" if body.status == 200 else " ".join(body.content[:2000].decode("utf-8", "replace").split())
    told_so = any(word in text.casefold() for word in outside_words)
    if body.status in outside or told_so:
        return Answer(OUTSIDE, reason=f"{body.status} {text[:SHOWN]}".strip(), requests=body.requests)
    if body.status != 200:
        passing = body.status >= 500
        return Answer(FAILED, reason=f"status {body.status}: {text[:SHOWN]}", passing=passing, requests=body.requests)
    answer = judged(body.content, media_type=body.media_type, blank=blank)
    if answer.status == FAILED:
        client.wrong(url, answer.reason or "")
    else:
        client.fine(url)
    return answer.after(body.requests)
