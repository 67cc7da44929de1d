"""Embeddings that others publish: what their tables call them, whose they are, and what asking them in words takes.

The tables of AION-Search (on its hub: gz-decals-embeddings, lens-retrieval-ls-embeddings) have `ra` and `dec` in
degrees, `aion_mean_embedding` (768 numbers, the mean of AION-1's 576 tokens) and `aion_search_embedding` (1,024
numbers, the same through AION-Search's image projector); some have `object_id` or `iauname`, some no id at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from galsearch.errors import SchemaError

IDS = ("iauname", "galaxy10_decals_index")  # of these tables, where they have no column that is an id everywhere


@dataclass(frozen=True)
class Publication:
    """Published vectors: the name to give as model, their column, length and space, and how they are asked in words.

    `words` is said to who asks in words, `words_here` where the text projector travels with the atlas.
    """

    model: str
    column: str
    dim: int
    space: str
    words: str
    words_here: str


_LARGE = "words of this space are embedded by OpenAI's text-embedding-3-large (3,072 numbers, remote, with your key)"
AION = Publication(
    model="aion",
    column="aion_mean_embedding",
    dim=768,
    space="aion-1-base",
    words="AION-1 knows no words; rebuild with --projector FOLDER, AION-Search's projectors, for a space that has them",
    words_here="AION-1 knows no words; rebuild with --projector FOLDER, AION-Search's image projector among them",
)
AION_SEARCH = Publication(
    model="aion-search",
    column="aion_search_embedding",
    dim=1024,
    space="aion-search",
    words=f"{_LARGE} and AION-Search's text projector, and neither is here; build with --projector FOLDER to take the "
    "projector along, embed the words there, and ask by that array",
    words_here=f"{_LARGE}, which is not here; embed the words there and ask by that array: the text projector that "
    "travels with the atlas takes it from there",
)
PUBLISHED = (AION_SEARCH, AION)


def of_model(model: str | None) -> Publication | None:
    """Return the publication that a model's name stands for."""
    return next((known for known in PUBLISHED if known.model == model), None)


def of_space(space: str) -> Publication | None:
    """Return the publication whose vectors lie in a space."""
    return next((known for known in PUBLISHED if known.space == space), None)


def find(
    names: Sequence[str], *, vectors: str | None, model: str | None, takes: str | None = None
) -> Publication | None:
    """Return whose vectors are to be read from a table with columns `names`; None when nothing says so.

    What was said decides, the model before the column `vectors`. Otherwise the columns do: those in the space that a
    projector `takes` first, then those that can be asked in words. Raises SchemaError when a model was named and its
    column is not there.
    """
    stated = of_model(model)
    if vectors is not None:
        return stated if model else next((known for known in PUBLISHED if known.column == vectors), None)
    if model is not None and stated is None:
        return None
    wanted = [stated] if stated and takes is None else sorted(PUBLISHED, key=lambda known: known.space != takes)
    result = next((known for known in wanted if known.column in names), None)
    if stated and result is None:
        raise SchemaError(
            f"no column {' or '.join(known.column for known in wanted)}, as published tables of {stated.model} have; "
            f"there are {', '.join(names)}; name the column of the vectors with --vectors"
        )
    return result


def check_length(publication: Publication, dim: int, column: str) -> None:
    """Raise SchemaError unless the vectors of a column are as long as those of the publication."""
    if dim == publication.dim:
        return
    other = next((known for known in PUBLISHED if known.dim == dim), None)
    meant = f"those of {other.model} have {dim}: give --model {other.model}" if other else "name their own model"
    raise SchemaError(
        f"column '{column}' has vectors of {dim} numbers, and those of {publication.model} have {publication.dim}; "
        f"{meant}"
    )


def other_columns(names: Iterable[str], column: str) -> list[str]:
    """Return the columns of other published vectors, which are not facts about galaxies and are left out."""
    return [known.column for known in PUBLISHED if known.column in names and known.column != column]
