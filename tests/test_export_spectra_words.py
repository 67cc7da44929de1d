"""Words for spectra: captions say what numbers say, denials are denials, the shipped projector ranks by them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from export import spectra_words as words
from galsearch.language.negation import negations
from galsearch.language.text import plain

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "onnx_models"
RESULT = ROOT / "docs" / "spectra_words.json"


def columns_of(n: int = 1, **given: object) -> dict[str, np.ndarray]:
    """Return measures of n real galaxies in which nothing is in emission, with what is given in their place."""
    columns: dict[str, np.ndarray] = {}
    for line in words.LINE_FACTS:
        columns |= {f"ew_{line}": np.zeros(n), f"error_ew_{line}": np.full(n, 0.2)}
    columns |= {f"covers_{name}": np.ones(n, bool) for name in (*words.LINE_FACTS, "hdelta", "mgii", "d4000", "mgb")}
    for name in ("ew_halpha_broad", "ew_hbeta_broad", "balmer_fwhm_kms", "mgii_fwhm_kms"):
        columns[name] = np.full(n, np.nan)
    columns |= {name: np.full(n, np.nan) for name in ("log_nii_halpha", "log_oiii_hbeta")}
    columns |= {"hdelta_a": np.zeros(n), "error_hdelta_a": np.full(n, 0.3), "mg_b": np.full(n, 4.0)}
    columns |= {"d4000": np.full(n, 1.8), "ca_hk": np.full(n, 20.0), "zwarning": np.zeros(n)}
    columns |= {"cls": np.full(n, "GALAXY"), "subclass": np.full(n, "", "U16")}
    return columns | {name: np.asarray(values) for name, values in given.items()}


@pytest.mark.parametrize(
    ("width", "error", "seen", "expected"),
    [
        (30.0, 1.0, True, (1, 1, -1)),  # there, strong, weak
        (4.0, 0.3, True, (1, -1, 1)),
        (0.0, 0.3, True, (-1, -1, 0)),
        (5.0, 6.0, True, (0, 0, 0)),  # the error does not tell
        (30.0, 1.0, False, (0, 0, 0)),  # not covered
    ],
)
def test_a_line_is_there_or_not_only_where_its_error_tells(width, error, seen, expected):
    known = words.facts(columns_of(ew_oiii=[width], error_ew_oiii=[error], covers_oiii=np.array([seen])))
    assert tuple(int(known[f"oiii{how}"][0]) for how in ("", " strong", " weak")) == expected


def test_a_galaxy_without_lines_and_with_a_break_is_passive_and_not_post_starburst():
    known = words.facts(columns_of())
    assert [int(known[name][0]) for name in ("passive", "emission", "post-starburst", "quasar")] == [1, -1, -1, -1]


def test_a_post_starburst_has_h_delta_and_neither_h_alpha_nor_oii():
    given = {"hdelta_a": [6.0, 6.0, 2.0], "ew_halpha": [0.5, 12.0, 0.5], "d4000": [1.3, 1.3, 1.3]}
    assert words.facts(columns_of(3, **given))["post-starburst"].tolist() == [1, -1, -1]


def test_broad_balmer_lines_are_emission_and_broad():
    given = {"ew_halpha_broad": [80.0], "balmer_fwhm_kms": [3000.0], "cls": np.array(["QSO"])}
    known = words.facts(columns_of(**given))
    assert [int(known[name][0]) for name in ("halpha", "halpha strong", "broad", "quasar")] == [1, 1, 1, 1]


def test_the_bpt_plane_names_galaxies_and_leaves_unmeasured_ones_open():
    given = {"log_nii_halpha": [0.0, -1.0, np.nan], "log_oiii_hbeta": [0.9, 0.3, 0.3]}
    known = words.facts(columns_of(3, **given))
    assert known["seyfert"].tolist() == [1, -1, 0]
    assert known["star-forming"].tolist() == [-1, 1, 0]


def test_a_statement_is_false_if_a_part_is_and_unknown_if_a_part_is():
    known = {"a": np.array([1, 1, 1, 0], np.int8), "b": np.array([-1, 0, 1, 1], np.int8)}
    both, denied = words.truth([(("a", True), ("b", False)), (("a", False),)], known)
    assert both.tolist() == [1, 0, -1, -1]
    assert denied.tolist() == [-1, -1, -1, 0]


def test_captions_deny_what_their_statement_denies_as_queries_are_read():
    kinds = set(words.KIND_WORDS)
    for text, statement in words.captions(6, seed=3):
        if len(statement) > 1 or statement[0][0] in kinds or text in sum(words.EXTRA.values(), ()):
            continue
        # queries are read without brackets; "little" is weak and "little or no" denies; these forms are not read
        unread = any(word in text.lower() for word in ("little", "few or no", "zero", "-free", "reject", "leave out"))
        is_denied = bool(negations(plain(text).replace("[", "").replace("]", "")))
        if not unread:
            assert is_denied == (not statement[0][1]), text


def test_captions_name_the_line_that_they_speak_of():
    for text, statement in words.captions(5, seed=4):
        fact = statement[0][0].removesuffix(" strong").removesuffix(" weak")
        if len(statement) == 1 and fact in words.LINE_FACTS:
            assert any(name.lower() in text.lower() for name in words.LINE_WORDS[fact].train), text


def test_names_and_templates_that_are_held_out_are_in_no_caption_of_training():
    every = {**words.LINE_WORDS, **words.FEATURE_WORDS, **words.KIND_WORDS}
    held = {name.lower() for one in every.values() for name in one.held_out}
    trained = {name.lower() for one in every.values() for name in one.train}
    assert not held & trained
    for use, templates in words.HELD_OUT.items():
        assert not set(templates) & set(words.TRAINED[use])
    texts = [text.lower() for text, _ in words.captions(8, seed=5)]
    assert not [name for name in held for text in texts if text == name]


def test_plurals_are_those_of_the_noun():
    names = ("quasar", "passive galaxy", "strong lens", "AGN", "star with TiO bands")
    expected = ["quasars", "passive galaxies", "strong lenses", "AGNs", "stars with TiO bands"]
    assert [words.plural(name) for name in names] == expected


# ---- the shipped projector


def test_the_shipped_projector_is_that_of_its_card_and_takes_what_galtext_gives():
    pytest.importorskip("onnxruntime")
    from galsearch.encode import Encoder

    folder = SHIPPED / "galspec-words-1"
    card, text = (json.loads((path / "card.json").read_text()) for path in (folder, SHIPPED / "galtext-2"))
    content = (folder / "model.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == card["sha256"]
    assert len(content) < 2e6
    assert (card["kind"], card["projects"], card["embedding"], card["space"]) == (
        *("projector", "text", "spectrum", "galspec-1"),
    )
    assert card["input"]["sha256"] == text["sha256"]
    assert (card["input"]["dim"], card["input"]["space"]) == (text["dim"], text["space"])
    model = Encoder.from_folder(folder, device="cpu", threads=1)
    assert model.self_test() > 0.999
    stated = Encoder.from_folder(SHIPPED / "galtext-2", device="cpu", threads=1).encode(card["self_test"]["texts"])
    assert np.allclose(stated, card["self_test"]["inputs"], atol=2e-3)


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("strong emission lines", "lines-near", "old-near"),
        ("no emission lines", "old-near", "lines-near"),
        ("passive galaxy", "old-far", "lines-far"),
        ("strong [O III] emission", "lines-far", "old-far"),
        ("broad lines", "quasar", "old-near"),
    ],
)
def test_drawn_spectra_are_ranked_by_words_through_the_shipped_models(query, first, last):
    pytest.importorskip("onnxruntime")
    from tiny_spectra import OBJECTS, WAVELENGTH, flux_of

    from galsearch.encode import Encoder
    from galsearch.science.spectra import Spectrum, model_input

    spectrum, text, projector = (
        Encoder.from_folder(SHIPPED / name, device="cpu", threads=1)
        for name in ("galspec-1", "galtext-2", "galspec-words-1")
    )
    drawn = {}
    for name in (first, last):
        kind, z = OBJECTS[name]
        seen = Spectrum(WAVELENGTH, flux_of(kind, z), np.full(len(WAVELENGTH), 0.02**-2.0), z=z)
        drawn[name] = spectrum.encode([model_input(seen, spectrum.grid, frame="rest")])[0]
    vector = projector.encode(list(text.encode([query])))[0]
    assert drawn[first] @ vector > drawn[last] @ vector + 0.1


def test_the_figures_of_the_page_are_those_of_the_file():
    result = json.loads(RESULT.read_text())
    page = (ROOT / "docs" / "spectra.md").read_text()
    card = json.loads((SHIPPED / "galspec-words-1" / "card.json").read_text())
    assert result["about"]["sha256"] == card["sha256"]
    for row in (*result["real"], *result["semi-synthetic"], *result["names never seen"]):
        low, high = row["interval"]
        cells = f"| {row['n']} ({row['true']}) | {row['auroc']:.3f} ({low:.3f} to {high:.3f}) |"
        assert f"| {row['query']} | {row['truth']} {cells}" in page, row["task"]
    for row in (*result["real"], *result["semi-synthetic"]):
        assert f"| {row['paraphrases']['auroc']:.3f}, {row['paraphrases']['lowest']:.3f} |" in page, row["task"]
