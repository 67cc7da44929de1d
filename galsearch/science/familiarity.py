"""Distance of an atlas from the training data of the model that made its vectors.

The card of a model holds the centers of its training vectors (k-means) and quantiles of how close held-out pictures of
the same surveys come to the nearest of them. How close the vectors of an atlas come, as percentiles of those, says
whether its pictures are such as the model has learned from.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from galsearch.errors import ModelMismatchError
from galsearch.science.ranking import Scorer

FAR_PERCENTILE = (
    20.0  # a median below this is far: held-out parts of the training surveys have 28 to 65 (docs/evaluation.md)
)
RARE_PERCENTILE = 5.0
MOST_CENTERS, MOST_QUANTILES = 4_096, 10_001


@dataclass(frozen=True)
class Familiarity:
    """How an atlas compares with what its model learned from: percentiles of held-out training pictures.

    `median` is that of its objects, 50 where they are such pictures themselves; `rare` the share of its objects below
    the fifth percentile, .05 then. `objects` is how many were compared, `held_out` with how many.
    """

    model: str
    median: float
    rare: float
    objects: int
    held_out: int

    @property
    def is_far(self) -> bool:
        """Whether scores, and which hits are convincing, are less sure here than where the model was tested."""
        return self.median < FAR_PERCENTILE

    @property
    def hints(self) -> tuple[str, ...]:
        """What to tell a person unasked: that these are not such as the model was tested on; nothing where they are."""
        if not self.is_far:
            return ()
        return (
            f"most of these differ from what {self.model} learned from: look at hits before you believe their scores",
        )

    def __str__(self) -> str:
        return (
            f"beside what {self.model} learned from: the median object is at percentile {self.median:.0f} of held-out "
            f"training pictures, {100 * self.rare:.0f} % are below percentile {RARE_PERCENTILE:.0f} (5 % would be)"
        )


@dataclass(frozen=True)
class Reference:
    """What a card says of training vectors: `centers` `(c, d) float32` of unit length, `quantiles` ascending."""

    centers: np.ndarray
    quantiles: np.ndarray
    held_out: int

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Reference | None:
        """Read the entry `familiar` of a model card; None where there is none. ModelMismatchError where it is wrong."""
        entry = card.get("familiar")
        if entry is None:
            return None
        try:
            centers = np.frombuffer(base64.b64decode(entry["centers"], validate=True), "<f2").reshape(-1, card["dim"])
            quantiles = np.asarray(entry["quantiles"], np.float32)
            held_out = int(entry["held_out"])
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error):
            raise _wrong(card) from None
        centers = centers.astype(np.float32)
        is_sound = (
            0 < len(centers) <= MOST_CENTERS
            and quantiles.ndim == 1
            and 2 <= len(quantiles) <= MOST_QUANTILES
            and np.isfinite(centers).all()
            and bool(np.all(np.diff(quantiles) >= 0))
        )
        if not is_sound:
            raise _wrong(card)
        return cls(centers, quantiles, held_out)

    def entry(self) -> dict[str, Any]:
        """Return the entry for a card."""
        return {
            "centers": base64.b64encode(self.centers.astype("<f2").tobytes()).decode(),
            "quantiles": [round(float(value), 4) for value in self.quantiles],
            "held_out": self.held_out,
        }

    @property
    def scorer(self) -> Scorer:
        """What gives the cosine of a vector with the center nearest to it."""
        return Scorer(np.zeros(self.centers.shape[1], np.float32), either=self.centers)

    def compared(self, scores: np.ndarray, *, model: str) -> Familiarity:
        """Return how the objects with these scores compare; `scores` `(n,)` are those of `scorer`, n at least 1."""
        percentiles = np.interp(scores, self.quantiles, np.linspace(0, 100, len(self.quantiles)))
        rare = float(np.mean(percentiles < RARE_PERCENTILE))
        return Familiarity(model, float(np.median(percentiles)), rare, len(scores), self.held_out)


def _wrong(card: Mapping[str, Any]) -> ModelMismatchError:
    name = f"{card.get('id', 'unnamed')!s:.80}"
    return ModelMismatchError(f"model {name}: its card's familiar is not what it must be; export it again")
