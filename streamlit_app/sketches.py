"""What stands for an object among others: its image where the atlas has one, else a small sketch of its spectrum."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import streamlit as st
from drawing import spectrum
from state import fingerprint

import galsearch

MODALITY = "spectrum"


def embedding(atlas: galsearch.Atlas) -> str | None:
    """Return the embedding that an atlas compares spectra in; None for an atlas without spectra."""
    return atlas.manifest.embedding_of(MODALITY)


def worded(atlas: galsearch.Atlas) -> list[str]:
    """Return the embeddings of an atlas that words can be compared in, the main one first."""
    manifest = atlas.manifest
    names = sorted(manifest.embeddings, key=lambda name: name != manifest.main_embedding)
    return [name for name in names if manifest.knows_words(name)]


def of_spectra(atlas: galsearch.Atlas, by: str | None) -> bool:
    """Say whether the embedding `by`, or the main one, is made of spectra."""
    name = by or atlas.manifest.main_embedding
    return name in atlas.manifest.embeddings and atlas.manifest.modality(name).name == MODALITY


def knows_words(atlas: galsearch.Atlas) -> bool:
    """Say whether words can be compared with the main vectors of an atlas: with those of spectra where a model can.

    An atlas without any vectors says so itself when it is searched.
    """
    main = atlas.manifest.main_embedding
    return main is None or atlas.manifest.knows_words(main)


def describes_images(atlas: galsearch.Atlas) -> bool:
    """Say whether words are compared with images in the main vectors of an atlas; one without any may say so itself."""
    main = atlas.manifest.main_embedding
    return main is None or (has_images(atlas) and atlas.manifest.knows_words(main))


def has_images(atlas: galsearch.Atlas) -> bool:
    """Say whether vectors of the atlas were made of images."""
    return atlas.manifest.embedding_of("image") is not None


def faces(atlas: galsearch.Atlas, ids: Sequence[str]) -> dict[str, bytes | str]:
    """Return images as bytes and sketches as data URLs, by id; objects with neither are absent."""
    images: dict[str, bytes | str] = dict(atlas.thumbnails(ids))
    without = tuple(name for name in ids if name not in images)
    if not without or embedding(atlas) is None:
        return images
    return images | _sketches(fingerprint(atlas), without, atlas)


@st.cache_data(max_entries=32, show_spinner=False)
def _sketches(hash: str, ids: tuple[str, ...], _atlas: galsearch.Atlas) -> dict[str, str]:
    try:
        held = _atlas.spectra(ids)
    except galsearch.SchemaError:  # one is damaged: the others are drawn, and its own page says what is wrong
        held = {name: one for each in ids for name, one in _one(_atlas, each).items()}
    return {name: spectrum.sketch(one) for name, one in held.items()}


def _one(atlas: galsearch.Atlas, object_id: str) -> dict[str, galsearch.Spectrum]:
    with contextlib.suppress(galsearch.SchemaError):
        return atlas.spectra([object_id])
    return {}
