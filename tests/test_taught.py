"""Words that the text model was never taught: which they are, and what a search says of them."""

import json
import shutil

import pytest

import galsearch
from galsearch.encode import check_card
from galsearch.errors import ModelMismatchError
from galsearch.language.taught import beyond_training, stems, untaught

TAUGHT = stems(
    ["spiral galaxy with a bar", "ring galaxies", "bright star", "two-armed", "cigar-shaped", "low surface brightness"]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spiral galaxy", ()),
        ("Barred SPIRALS with rings", ()),  # other forms of the same words
        ("polar ring galaxy", ("polar",)),
        ("polar‑ring galaxy", ("polar-ring",)),  # a hyphen that is none of ASCII
        ("cluster of galaxies", ("cluster",)),
        ("a jellyfish, and a jellyfish with a jet", ("jellyfish", "jet")),  # each once
        ("spiral without a polar ring", ()),  # what is not wanted
        ("spirals except jellyfish", ()),
        ("show me some beautiful, very bright spirals please", ()),
        ("spiral brighter than mag_r 17 and within 2 arcmin", ()),
        ("SBbc spiral, E3 or Sa", ()),  # types
        ("LSB galaxy", ()),  # low surface brightness
        ("BCG", ("cluster",)),  # brightest cluster galaxy
        ("pinwheel, flocculent and colliding", ()),  # what is measured under other words
        ("X-shaped bar", ("x-shaped",)),  # a letter that says what the shape is
        ("n = 4 and z < 0.1", ()),
        ("☃ спираль", ()),  # no word of English: another hint tells of it
        ("", ()),
    ],
)
def test_words_that_no_training_text_had(text, expected):
    assert untaught(text, TAUGHT) == expected


def test_words_of_spectra_are_known_where_spectra_are_searched():
    assert untaught("Seyfert with strong [O III] 5007 emission lines", stems(["strong"]), spectra=True) == ()
    assert untaught("seyfert in a jellyfish", TAUGHT, spectra=True) == ("jellyfish",)
    assert untaught("seyfert galaxy", TAUGHT) == ("seyfert",)


def test_what_is_told_names_each_word():
    assert beyond_training(()) == ()
    assert beyond_training(("polar", "jet")) == (
        "no text that the model learned from has 'polar' or 'jet': hits answer the other words",
    )


@pytest.fixture(scope="module")
def atlas_path(tiny_models, tiny_source, tmp_path_factory):
    """An atlas whose text model says that it was taught the colors and "edge"."""
    home = tmp_path_factory.mktemp("taught")
    models = shutil.copytree(tiny_models, home / "models")
    for path in models.glob("*/card.json"):
        card = json.loads(path.read_text())
        if card["kind"] == "text":
            path.write_text(json.dumps(card | {"taught_words": sorted(stems(["red edge", "blue", "face"]))}))
    pictures, table = tiny_source
    galsearch.build(home / "taught.atlas", images=pictures, table=table, models=models)
    return home / "taught.atlas"


def test_no_hit_convinces_where_the_model_was_never_taught_a_word(atlas_path):
    with galsearch.open(atlas_path) as atlas:
        known, beyond = atlas.search("red edge", k=3), atlas.search("red edge of a jellyfish", k=3)
        assert (known.untaught, beyond.untaught) == ((), ("jellyfish",))
        assert known.convincing is not None
        assert beyond.convincing == 0
        assert "jellyfish" in " ".join(atlas.hints("red jellyfish"))
        assert atlas.hints("red edge") == ()
        assert atlas.search(known[0], k=3).untaught == ()  # an example has no words
        assert atlas.search(atlas.embed("jellyfish"), k=3).untaught == ()
        assert atlas.search("red edge", where="z > 0", k=3).untaught == ()


def test_a_word_that_is_searched_away_from_takes_nothing_back(atlas_path):
    with galsearch.open(atlas_path) as atlas:
        query = galsearch.Query((galsearch.Term("text", "red edge"), galsearch.Term("text", "jellyfish", -0.5)))
        assert atlas.search(query).untaught == ()


def test_a_model_that_does_not_say_what_it_was_taught_is_believed(tiny_folder):
    with galsearch.open(tiny_folder) as atlas:
        assert atlas.untaught("jellyfish") == ()
        assert atlas.search("red jellyfish", k=3).convincing is not None


def test_the_command_line_says_so_before_and_after(atlas_path, run):
    code, _, told = run("search", atlas_path, "red jellyfish", "-k", 3)
    assert code == 0
    assert "no text that the model learned from has 'jellyfish'" in told
    assert "no match is convincing: what the model was never taught" in told


@pytest.mark.parametrize("words", ["red", {"red": 1}, [1], ["x" * 65], ["a"] * 100_001])
def test_a_card_whose_list_is_none_is_refused(tiny_models, words):
    path = next(path for path in tiny_models.glob("*/card.json") if json.loads(path.read_text())["kind"] == "text")
    with pytest.raises(ModelMismatchError, match="taught_words"):
        check_card(json.loads(path.read_text()) | {"taught_words": words})


def test_the_shipped_text_model_says_what_it_was_taught():
    from export.facets import wordings

    card = json.loads((galsearch.encode.shipped("text") / "card.json").read_text())
    assert card["taught_words"] == sorted(stems(wordings()))
