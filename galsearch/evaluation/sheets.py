"""Pictures of the best candidates of each target, relevant ones framed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from galsearch.atlas import Atlas
from galsearch.errors import GalsearchError
from galsearch.science import images

if TYPE_CHECKING:
    from galsearch.evaluation import Evaluation

MARK_RGB, MARK_SHARE = (70, 220, 110), 24  # the frame of a relevant picture: its color, and its part of the side


def write_sheets(atlas: Atlas, evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write a PNG per target: the first ranks of its first and its worst query, relevant ones in a green frame."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GalsearchError(f"{folder}: cannot be made ({error.strerror}); name a folder for the sheets") from None
    paths = []
    for target, answers in evaluation.best.items():
        sections = []
        for words, ids, scores, relevances in answers:
            pictures = atlas.thumbnails(ids)
            hits = sum(relevance > 0 for relevance in relevances)
            tiles = [
                (_marked(images.decode_thumbnail(pictures[name]), relevance), _label(name, score, relevance))
                for name, score, relevance in zip(ids, scores, relevances, strict=True)
                if name in pictures
            ]
            sections.append((f"{target}: “{words}”, {hits} of the first {len(ids)} relevant", tiles))
        path = folder / f"{_file_name(target)}.png"
        path.write_bytes(images.contact_sheet(sections, columns=5))
        paths.append(path)
    return paths


def _marked(rgb: np.ndarray, relevance: float) -> np.ndarray:
    """Return the central square of a picture, in a frame where it is relevant."""
    if relevance <= 0:
        return rgb
    out = images.square(rgb).copy()
    wide = max(1, round(len(out) / MARK_SHARE))
    for edge in (out[:wide], out[-wide:], out[:, :wide], out[:, -wide:]):
        edge[...] = MARK_RGB
    return out


def _label(name: str, score: float, relevance: float) -> str:
    return f"{'relevant' if relevance > 0 else 'not'}  {score:.2f}\n{name}"


def _file_name(target: str) -> str:
    return "-".join("".join(sign if sign.isalnum() else " " for sign in target).split()) or "target"
