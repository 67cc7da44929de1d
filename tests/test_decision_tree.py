"""Reading text into the Galaxy Zoo tree, sentence by sentence, and against a judge's reading of real captions."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import captions
from galsearch.errors import QueryError
from galsearch.language import decision_tree

DATA = os.environ.get("GALSEARCH_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="GALSEARCH_DATA is not set: the captions are needed here")
FEATURED = "featured-or-disk"


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        ("A smooth elliptical galaxy.", "smooth-or-featured", "smooth"),
        ("A dwarf of type E4.", "smooth-or-featured", "smooth"),
        ("A barred spiral seen face-on.", "smooth-or-featured", FEATURED),
        ("This is not an elliptical.", "smooth-or-featured", FEATURED),
        ("The bright streak is an imaging artifact.", "smooth-or-featured", "artifact"),
        ("The outline is nearly circular.", "how-rounded", "round"),
        ("It looks slightly elongated.", "how-rounded", "in-between"),
        ("An oval patch of light.", "how-rounded", "in-between"),
        ("A cigar of light.", "how-rounded", "cigar-shaped"),
        ("Strongly flattened and smooth.", "how-rounded", "cigar-shaped"),
        ("The disk is nearly edge-on.", "disk-edge-on", "yes"),
        ("The disk is not edge-on.", "disk-edge-on", "no"),
        ("We look at it face-on.", "disk-edge-on", "no"),
        ("It has a rounded bulge.", "edge-on-bulge", "rounded"),
        ("Its bulge is boxy.", "edge-on-bulge", "boxy"),
        ("An edge-on disk without a bulge.", "edge-on-bulge", "none"),
        ("Two arms wind around the nucleus.", "has-spiral-arms", "yes"),
        ("The arms are tightly wound.", "spiral-winding", "tight"),
        ("The arms are moderately wound.", "spiral-winding", "medium"),
        ("Loosely wound arms leave the core.", "spiral-winding", "loose"),
        ("One spiral arm trails to the north.", "spiral-arm-count", "1"),
        ("A two-armed spiral.", "spiral-arm-count", "2"),
        ("Three faint blue arms.", "spiral-arm-count", "3"),
        ("Four spiral arms.", "spiral-arm-count", "4"),
        ("Six short arms.", "spiral-arm-count", "more-than-4"),
        ("Flocculent arms fill the disk.", "spiral-arm-count", "cant-tell"),
        ("A strong bar crosses the core.", "bar", "strong"),
        ("A weak bar crosses the core.", "bar", "weak"),
        ("An unbarred spiral.", "bar", "no"),
        ("Hubble type SBb.", "bar", "strong"),
        ("Hubble type Sb.", "bar", None),
        ("The bulge dominates the light.", "bulge-size", "dominant"),
        ("A large bulge.", "bulge-size", "large"),
        ("A moderate bulge.", "bulge-size", "moderate"),
        ("A small bulge.", "bulge-size", "small"),
        ("A bulgeless disk.", "bulge-size", "none"),
        ("Two merging galaxies.", "merging", "merger"),
        ("The disk is warped.", "merging", "minor-disturbance"),
        ("A severely distorted disk.", "merging", "major-disturbance"),
        ("The galaxy is undisturbed.", "merging", "none"),
    ],
)
def test_a_plain_statement_is_read(text, question, answer):
    assert decision_tree.read(text)[question] == answer


def test_every_answer_of_the_tree_can_be_stated():
    stated = {
        (rule.question, answer) for rule in decision_tree.LEXICON for answer in (rule.answer, rule.denied) if answer
    }
    assert stated == {(question, answer) for question, (answers, _) in decision_tree.TREE.items() for answer in answers}


@pytest.mark.parametrize("text", ["", "   \n", "Bright and blue, with a red star nearby.", "Taken in three bands."])
def test_where_nothing_is_said_nothing_is_answered(text):
    assert set(decision_tree.read(text).values()) == {None}


@pytest.mark.parametrize(
    ("text", "bar", "arms"),
    [
        ("There is no bar.", "no", None),
        ("No spiral arms, rings or bars are visible.", "no", "no"),
        ("Spiral arms and a bar are not visible.", "no", "no"),
        ("The bar is absent.", "no", None),
        ("It lacks a bar but has clear spiral arms.", "no", "yes"),
        ("It has clear spiral arms, without a bar.", "no", "yes"),
        ("No rings; a bar crosses the disk.", "strong", None),
        ("The absence of a bar suggests that spiral arms formed alone.", "no", "yes"),
        ("No dust is seen within the bar.", "strong", None),
        ("It has not only a bar but also spiral arms.", "strong", "yes"),
        ("There isn't a bar in the disk.", "no", None),
        ("Neither a bar nor spiral arms can be made out.", "no", "no"),
        ("A ring rather than a bar.", "no", None),
    ],
)
def test_how_far_a_denial_reaches(text, bar, arms):
    answers = decision_tree.read(text)
    assert (answers["bar"], answers["has-spiral-arms"]) == (bar, arms)


@pytest.mark.parametrize(
    "text", ["Possibly a strong bar.", "A hint of a bar.", "A bar may be present.", "A faint bar."]
)
def test_a_bar_that_is_only_hinted_at_is_weak(text):
    assert decision_tree.read(text)["bar"] == "weak"


def test_a_hedged_statement_weighs_less_than_a_plain_one():
    plain, hedged = (
        next(decision_tree.statements(text)).weight for text in ("An elliptical.", "Perhaps an elliptical.")
    )
    assert hedged == pytest.approx(decision_tree.HEDGED * plain)


def test_a_merger_that_is_only_hinted_at_is_a_disturbance():
    assert decision_tree.read("A possible merger.")["merging"] == "minor-disturbance"


def test_of_contradictions_the_one_said_more_surely_wins():
    assert decision_tree.read("Possibly an elliptical. It is a spiral.")["smooth-or-featured"] == FEATURED
    assert decision_tree.read("Possibly a spiral. It is an elliptical of type E3.")["smooth-or-featured"] == "smooth"


def test_of_equal_contradictions_the_first_wins():
    assert decision_tree.read("A small bulge. A moderate bulge.")["bulge-size"] == "small"
    assert decision_tree.read("A moderate bulge. A small bulge.")["bulge-size"] == "moderate"


def test_saying_it_twice_in_one_sentence_adds_nothing():
    assert decision_tree.read("A small bulge, a small bulge. A large bulge. A large bulge.")["bulge-size"] == "large"


@pytest.mark.parametrize(
    "text",
    [
        "A background galaxy to the left shows a bar.",
        "Companion galaxies: one of them has a bar.",
        "Other objects:\n  - Upper left: a barred spiral.\n  - Lower right: a star.",
        "Deeper images would reveal a bar.",
        "Many galaxies are barred, and spiral galaxies often have a bar.",
        "The noise limits the ability to detect a bar.",
    ],
)
def test_only_the_central_galaxy_as_seen_here_is_judged(text):
    assert decision_tree.read(text)["bar"] is None


def test_what_follows_an_aside_about_others_is_judged_again():
    assert decision_tree.read("Beside a background galaxy, the main galaxy has a strong bar.")["bar"] == "strong"
    assert decision_tree.read("Background objects:\n  - a spiral\nMain galaxy:\n  - a strong bar")["bar"] == "strong"


def test_neighbors_count_for_merging():
    assert decision_tree.read("A companion galaxy is merging with it.")["merging"] == "merger"


def test_what_happened_long_ago_is_not_merging_now():
    assert decision_tree.read("It was formed by past mergers.")["merging"] is None
    assert decision_tree.read("There are no signs of a past merger.")["merging"] == "none"


def test_a_heading_alone_says_nothing():
    assert decision_tree.read("Bar: hard to say anything here.")["bar"] is None
    assert decision_tree.read("**Bar:** none.")["bar"] == "no"
    assert decision_tree.read("1. Bar\n2. Spiral Arms\nAn elliptical.")["has-spiral-arms"] == "no"


def test_a_bulge_that_is_there_is_not_absent():
    assert (
        decision_tree.read("A bulge is seen. Its bulge is red. No dust lane and no clump hides a bulge.")["bulge-size"]
        is None
    )


def test_markdown_and_typographic_signs_do_not_matter():
    plain = decision_tree.read("An edge-on disk. It isn't barred. A boxy bulge, e.g. a peanut.")
    assert decision_tree.read("* An **edge‑on** disk.\n* It isn’t _barred_.\n• A boxy bulge, e.g. a peanut.") == plain
    assert plain["disk-edge-on"] == "yes" and plain["bar"] == "no" and plain["edge-on-bulge"] == "boxy"


def test_a_disk_with_arms_is_taken_not_to_be_edge_on_unless_it_says_so():
    assert decision_tree.read("A disk with a small bulge.")["disk-edge-on"] == "no"
    assert decision_tree.read("An edge-on disk with a small bulge.")["disk-edge-on"] == "yes"
    assert decision_tree.read("A disk.")["disk-edge-on"] is None


def test_case_and_repetition_do_not_change_a_reading():
    text = "A face-on spiral with two loosely wound arms, no bar and a small bulge. It is isolated."
    assert decision_tree.read(text.upper()) == decision_tree.read(text) == decision_tree.read(text)


def test_a_text_without_an_end_of_sentence_is_read_in_pieces():
    text = "a strong bar, " * 200
    assert max(len(sentence.words) for sentence in decision_tree.sentences(text)) == decision_tree.LONGEST
    assert decision_tree.read(text)["bar"] == "strong"


# ---- signs


@pytest.mark.parametrize(
    ("text", "question", "sign"),
    [
        ("spiral without a bar", "has-spiral-arms", True),
        ("spiral without a bar", "bar", False),
        ("barred spiral", "bar", True),
        ("unbarred spiral", "bar", False),
        ("galaxy with no spiral arms", "has-spiral-arms", False),
        ("not a spiral", "has-spiral-arms", False),
        ("disk that is not edge-on", "disk-edge-on", False),
        ("edge-on galaxy", "disk-edge-on", True),
        ("elliptical galaxy", "smooth-or-featured", False),
        ("merging galaxies", "merging", True),
        ("undisturbed spiral", "merging", False),
        ("not round", "how-rounded", False),
        ("no two-armed spiral", "spiral-arm-count", False),
        ("disk with a bulge", "bulge-size", True),
        ("disk without a bulge", "bulge-size", False),
        ("blue galaxy", "bar", None),
    ],
)
def test_a_query_says_whether_it_wants_a_thing_or_its_absence(text, question, sign):
    assert decision_tree.stated(text)[question] is sign


# ---- paths and scores


def test_a_path_leaves_out_what_does_not_follow():
    answers = {"smooth-or-featured": "smooth", "how-rounded": "round", "bar": "strong", "merging": "none"}
    assert decision_tree.path(answers) == {"smooth-or-featured": "smooth", "how-rounded": "round", "merging": "none"}


def test_a_path_goes_down_in_the_order_of_the_questions():
    answers = {
        "merging": "none",
        "bar": "no",
        "spiral-winding": "tight",
        "has-spiral-arms": "yes",
        "disk-edge-on": "no",
        "smooth-or-featured": FEATURED,
        "spiral-arm-count": None,
    }
    assert list(decision_tree.path(answers)) == [
        *("smooth-or-featured", "disk-edge-on", "has-spiral-arms", "spiral-winding", "bar", "merging")
    ]


def test_a_path_ends_where_a_question_is_not_answered():
    assert decision_tree.path({"how-rounded": "round", "merging": "none"}) == {}
    assert decision_tree.path({"smooth-or-featured": "artifact", "merging": "none"}) == {
        "smooth-or-featured": "artifact"
    }


def test_every_question_can_be_reached_by_answers_that_exist():
    for question, (_, after) in decision_tree.TREE.items():
        assert all(answer in decision_tree.TREE[before].answers for before, answer in after), question
        assert not after or list(decision_tree.TREE).index(after[0][0]) < list(decision_tree.TREE).index(question)


def test_overlap_tells_wrong_from_silent():
    truth = {"smooth-or-featured": "smooth", "how-rounded": "round", "merging": "none"}
    assert decision_tree.overlap(truth, truth) == (1.0, 1.0, 1.0)
    silent = {"smooth-or-featured": "smooth"}
    assert decision_tree.overlap(silent, truth) == (1.0, pytest.approx(1 / 3), pytest.approx(1 / 3))
    wrong = {**truth, "how-rounded": "in-between"}
    assert decision_tree.overlap(wrong, truth) == (pytest.approx(2 / 3), 1.0, pytest.approx(2 / 3))
    assert decision_tree.overlap({}, truth) == (None, 0.0, 0.0)


def test_a_wrong_turn_costs_precision():
    truth = {"smooth-or-featured": "smooth", "how-rounded": "round", "merging": "none"}
    said = {"smooth-or-featured": FEATURED, "disk-edge-on": "yes", "edge-on-bulge": "none", "merging": "none"}
    assert decision_tree.overlap(said, truth) == (0.25, pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_what_is_not_in_the_tree_is_refused():
    with pytest.raises(QueryError, match="no question of the tree"):
        decision_tree.path({"color": "red"})
    with pytest.raises(QueryError, match="use one of strong, weak, no"):
        decision_tree.path({"bar": "maybe"})
    with pytest.raises(QueryError, match="leave out galaxies"):
        decision_tree.overlap({"smooth-or-featured": "smooth"}, {"bar": None})


# ---- the benchmark


def test_the_tuning_half_is_half_and_does_not_depend_on_the_order():
    ids = [f"galaxy-{number}" for number in range(64)]
    half = captions.for_tuning(ids)
    assert len(half) == 32 and half == captions.for_tuning(reversed(ids)) and half < set(ids)


def test_agreement_is_cohens_kappa_with_an_interval_over_galaxies():
    cells = {("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}  # a textbook's 2 x 2 table
    pairs = [pair for pair, count in cells.items() for _ in range(count)]
    rows = [
        {"galaxy": str(number % 10), "theirs": {"bar": theirs}, "ours": {"bar": ours}}
        for number, (theirs, ours) in enumerate(pairs)
    ]
    found = captions.agreement(rows, "bar", asked_by_both=True)
    assert (found["n"], found["galaxies"]) == (50, 10)
    assert found["equal"][0] == pytest.approx(0.7) and found["kappa"][0] == pytest.approx(0.4)
    assert found["kappa"][1] < 0.4 < found["kappa"][2]


def test_questions_that_either_judge_did_not_reach_are_left_out_where_asked():
    rows = [
        {"galaxy": str(number), "theirs": {"bar": theirs}, "ours": {"bar": ours}}
        for number, (theirs, ours) in enumerate([("no", "no"), ("not asked", "no"), ("no", "not asked")])
    ]
    assert captions.agreement(rows, "bar", asked_by_both=True)["n"] == 1
    assert captions.agreement(rows, "bar", asked_by_both=False)["equal"][0] == pytest.approx(1 / 3)


def test_silence_is_told_from_a_question_that_was_not_reached():
    asked = captions.as_asked({"smooth-or-featured": "smooth", "bar": "strong"})
    assert (asked["how-rounded"], asked["bar"]) == ("not-mentioned", "not asked")


def test_rank_correlation_is_that_of_scipy():
    from scipy.stats import spearmanr  # which takes seconds

    one, other = np.array([0.1, 0.4, 0.4, 0.2, 0.9]), np.array([0.3, 0.2, 0.8, 0.1, 0.9])
    assert captions.spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)


def test_only_the_marked_part_of_the_page_is_written():
    page = (
        "above\n<!-- written by benchmarks.captions -->old<!-- end of what is written by benchmarks.captions -->\nbelow"
    )
    new = captions.filled(page, r"new \1")
    assert new.startswith("above\n") and new.endswith("\nbelow") and r"new \1" in new and "old" not in new
    assert captions.filled(new, r"new \1") == new
    with pytest.raises(ValueError, match="0 parts"):
        captions.filled("no marks", "new")


@needs_data
@pytest.mark.slow
def test_the_rules_rank_the_models_as_the_stored_judge_does_on_the_held_out_half():
    rows = [row for row in captions.judged(Path(DATA)) if not row["tuned_on"]]
    assert len({row["galaxy"] for row in rows}) == 32 and len({row["model"] for row in rows}) == 13
    assert captions.ranking(rows)["spearman"][0] >= captions.BAR
    kappas = {q: captions.agreement(rows, q, asked_by_both=True)["kappa"][0] for q in decision_tree.TREE}
    assert all(kappa > 0.2 for kappa in kappas.values()), kappas  # better than chance in every question
