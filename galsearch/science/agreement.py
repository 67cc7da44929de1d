"""Agreement of several raters on classes, beyond chance: Cohen's and Fleiss' kappa, Krippendorff's alpha.

Classes are texts without an order. Rows are objects; a None is an object that a rater did not judge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from galsearch.errors import QueryError

Ratings = Sequence[Sequence[str | None]]


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Return Cohen's kappa of two raters of the same objects (Cohen 1960, Educ. Psychol. Meas. 20, 37).

    None where there is nothing to tell apart: no objects, or both say one and the same of all.

    >>> cohen_kappa(["yes", "yes", "no", "no"], ["yes", "no", "no", "no"])
    0.5
    """
    if len(first) != len(second):
        raise QueryError(
            f"one rater judged {len(first)} objects and the other {len(second)}; give the same ones of both"
        )
    if not len(first):
        return None
    classes = sorted({*first, *second})
    shares = np.array([[sum(one == label for one in rater) for label in classes] for rater in (first, second)], float)
    agreed = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    chance = float((shares[0] * shares[1]).sum()) / len(first) ** 2
    return None if chance == 1 else float((agreed - chance) / (1 - chance))


def fleiss_kappa(ratings: Ratings) -> float | None:
    """Return Fleiss' kappa of objects that equally many judged (Fleiss 1971, Psychol. Bull. 76, 378).

    None where there is nothing to tell apart. Raises QueryError where some were judged by fewer than others.
    """
    counts = _counts(ratings)
    judged = counts.sum(axis=1)
    if not len(counts) or counts.shape[1] < 2:
        return None
    if judged.min() != judged.max() or judged[0] < 2:
        raise QueryError(
            f"objects were judged by {int(judged.min())} to {int(judged.max())} people, and Fleiss' kappa takes "
            "equally many, 2 or more; use Krippendorff's alpha"
        )
    agreed = float((counts * (counts - 1)).sum(axis=1).mean() / (judged[0] * (judged[0] - 1)))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return (agreed - chance) / (1 - chance)


def krippendorff_alpha(ratings: Ratings) -> float | None:
    """Return Krippendorff's alpha for classes (Krippendorff 2004, Content Analysis, chapter 11); any may be missing.

    Objects that fewer than two judged do not count. None where there is nothing to tell apart.
    """
    counts = _counts(ratings)
    counts = counts[counts.sum(axis=1) > 1] if counts.size else counts
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    judged = counts.sum(axis=1, keepdims=True)
    total, of_class = counts.sum(), counts.sum(axis=0)
    observed = ((counts * (judged - counts)) / (judged - 1)).sum() / total
    expected = (of_class * (total - of_class)).sum() / (total * (total - 1))
    return float(1 - observed / expected)


def agreed_share(ratings: Ratings) -> float | None:
    """Return the share of pairs of raters of an object that say the same, of all such pairs.

    An object that n judged has n (n - 1) / 2 pairs, of which Σ m (m - 1) / 2 agree, m being how many say a class; both
    are summed over the objects before they are divided. None where no object was judged by two.

    >>> agreed_share([["yes", "yes", "yes"], ["yes", "no", None]])
    0.75
    """
    counts = _counts(ratings)
    judged = counts.sum(axis=1)
    pairs = float((judged * (judged - 1)).sum())
    return float((counts * (counts - 1)).sum()) / pairs if pairs else None


def _counts(ratings: Ratings) -> np.ndarray:
    """Return how many say each class of each object, `(objects, classes) float64`."""
    classes = sorted({one for row in ratings for one in row if one is not None})
    counts = [[sum(one == label for one in row) for label in classes] for row in ratings]
    return np.array(counts, np.float64).reshape(len(ratings), len(classes))
