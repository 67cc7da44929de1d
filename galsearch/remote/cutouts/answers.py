"""What a cut-out service answered: a picture, out of the footprint, empty, or failed; decided by the bytes alone.

Services say "no data here" in many ways: 404, a table without rows, a black JPEG, a FITS image of NaN, a page of HTML
with status 200. A failed request is never taken for "no data".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from galsearch.errors import SchemaError
from galsearch.science import images

PICTURE, OUTSIDE, EMPTY, FAILED = "picture", "out of footprint", "empty", "failed"
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "FITS": ".fits", "GZIP": ".fits.gz"}
SUFFIXES |= {"BZIP2": ".fits.bz2", "NPY": ".npy"}
NAN, ONE_VALUE = "every pixel is NaN", "every pixel has the value"  # how the reader of pictures calls a blank one
SHOWN = 120  # characters of an answer that is no picture


@dataclass(frozen=True)
class Answer:
    """An answer: `status` is PICTURE (with `content` and the `suffix` of its format), OUTSIDE, EMPTY or FAILED.

    `reason` says why there is no picture, in the service's words where it has any. `passing` is True where another try
    may do better, `requests` counts what was sent, retries included.
    """

    status: str
    content: bytes = b""
    suffix: str = ""
    reason: str | None = None
    passing: bool = False
    requests: int = 0

    def after(self, requests: int) -> Answer:
        """Return the answer with so many requests sent for it."""
        return replace(self, requests=requests)


def judged(content: bytes, *, name: str = "answer", media_type: str = "", blank: str = EMPTY) -> Answer:
    """Return what an answer with status 200 is; `blank` is what a picture of one value means at this service.

    Pictures of NaN alone are out of the footprint: a service that has pixels there gives numbers.
    """
    if not content:
        return Answer(FAILED, reason="an answer of 0 bytes", passing=True)
    kind = images.kind_of(content)
    if kind is None or kind not in SUFFIXES:
        return Answer(FAILED, reason=_no_picture(content, media_type), passing=True)
    if kind == "FITS" and len(content) % 2880:
        return Answer(FAILED, reason=f"a FITS file of {len(content)} bytes, which ends within a block", passing=True)
    try:
        images.read_picture(content, name=name)
    except SchemaError as error:
        return _unreadable(str(error), blank)
    return Answer(PICTURE, content, SUFFIXES[kind])


def _unreadable(reason: str, blank: str) -> Answer:
    if NAN in reason:
        return Answer(OUTSIDE, reason="a picture without any number")
    if ONE_VALUE in reason:
        return Answer(blank, reason="a picture of one value throughout")
    return Answer(FAILED, reason=reason[:300], passing=True)


def _no_picture(content: bytes, media_type: str) -> str:
    text = " ".join(content[:2000].decode("utf-8", "replace").split())
    what = "a page of HTML" if text[:200].lower().lstrip().startswith(("<!doctype", "<html")) else "no picture"
    return f"{what}{f', with status 200 and called {media_type}' if media_type else ''}: {text[:SHOWN]}"
