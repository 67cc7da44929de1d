"""Sentences, splits and shipped files of export/: what must hold whatever the training did."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export import foils, sentences, split, synthetic, truth
from export.facets import FACETS, INDEX, NAMES
from export.sentences import canonical, draw_statement, statement_truth, word
from export.truth import truth_of

DATA = os.environ.get("GALSEARCH_DATA")
MODELS = Path(__file__).resolve().parent.parent / "onnx_models"
needs_data = pytest.mark.skipif(not DATA, reason="GALSEARCH_DATA is not set: the training sets are needed here")


def efigi_row(**changes) -> dict:
    row = dict.fromkeys(truth.UNDEFINED, "0") | {
        "set": "efigi",
        "T": "4",
        "Inclination": "0.25",
        "Visible_Dust": "0",
    }
    row |= {"Flocculence": "0", "Hot_Spots": "0", "Perturbation": "0", "Contamination": "0", "Multiplicity": "0"}
    return row | {"m_axis_ratio": 0.8} | changes


def test_a_wanted_facet_and_its_absence_share_no_wording():
    for name, facet in FACETS.items():
        present = {*facet.adjectives, *facet.phrases, *facet.words, *(head for pair in facet.heads for head in pair)}
        assert not present & {*facet.not_adjectives, *facet.not_phrases}, name


def test_no_sentence_is_written_for_a_statement_and_for_its_opposite():
    random = np.random.default_rng(0)
    for name in NAMES:
        if sentences.can_negate(name):
            texts = [{word(((name, wanted),), random) for _ in range(200)} for wanted in (True, False)]
            assert not texts[0] & texts[1], name


def test_drawn_statements_name_each_facet_once_and_in_one_order():
    random = np.random.default_rng(1)
    for _ in range(500):
        statement = draw_statement(random)
        names = [name for name, _ in statement]
        assert 1 <= len(names) <= 3 and len(set(names)) == len(names)
        assert statement == canonical(tuple(reversed(statement)))


def test_the_same_seed_writes_the_same_sentences():
    written = []
    for _ in range(2):
        random = np.random.default_rng(5)
        written.append([word(draw_statement(random), random) for _ in range(50)])
    assert written[0] == written[1]
    assert len(set(written[0])) > 40


def test_a_conjunction_is_false_where_one_part_is_and_unknown_where_it_may_be():
    table = np.zeros((3, len(NAMES)), np.int8)
    table[:, INDEX["spiral"]] = 1
    table[:, INDEX["barred"]] = (1, -1, 0)
    assert statement_truth(table, (("spiral", True), ("barred", True))).tolist() == [1, -1, 0]
    assert statement_truth(table, (("spiral", True), ("barred", False))).tolist() == [-1, 1, 0]
    assert statement_truth(table, (("spiral", False), ("barred", True))).tolist() == [-1, -1, -1]


def test_no_statement_is_both_true_and_false_of_a_galaxy():
    random = np.random.default_rng(2)
    table = truth.truth_table(
        [efigi_row(), efigi_row(Bar_Length="0.75"), efigi_row(T="-5"), efigi_row(T="10", Inclination="1")]
    )
    for _ in range(300):
        statement = draw_statement(random)
        turned = tuple((name, not wanted) for name, wanted in statement)
        both = (statement_truth(table, statement) == 1) & (statement_truth(table, turned) == 1)
        assert not both.any(), statement


@pytest.mark.parametrize(
    ("changes", "facet", "expected"),
    [
        ({"Bar_Length": "0.75"}, "barred", 1),
        ({"Bar_Length": "0"}, "barred", -1),
        ({"Bar_Length": "0.25"}, "barred", None),
        ({"Bar_Length": "-1"}, "barred", None),
        ({"T": "-5"}, "spiral", -1),
        ({"T": "-5"}, "elliptical", 1),
        ({"T": "10"}, "irregular", 1),
        ({"Inclination": "1"}, "edge_on", 1),
        ({"Inclination": "1"}, "face_on", -1),
        ({"Outer_Ring": "0.5"}, "ring", 1),
        ({"Inner_Ring": "-1"}, "ring", None),
        ({"Visible_Dust": "0.5", "Inclination": "1"}, "dust_lane", 1),
    ],
)
def test_efigi_attributes_become_truths(changes, facet, expected):
    assert truth_of(efigi_row(**changes)).get(facet) == expected


@pytest.mark.parametrize(
    ("string", "facet", "expected"),
    [
        ("SBc2m(r)", "barred", 1),
        ("SBc2m(r)", "ring", 1),
        ("Sc?t", "barred", -1),
        ("Sc?t", "tight", 1),
        ("Sc2l", "two_arms", 1),
        ("Er", "elliptical", 1),
        ("Er", "round", 1),
        ("Sen", "edge_on", 1),
        ("Sen", "bulgeless", 1),
        ("Ei(m)", "merger", 1),
        ("Sb", "spiral", None),
    ],
)
def test_galaxy_zoo_2_strings_become_truths(string, facet, expected):
    row = {"set": "phys449", "gz2_class": string, "gz2_flags": None, "m_axis_ratio": None}
    assert truth_of(row).get(facet) == expected


def test_one_object_under_two_names_goes_to_one_side():
    rows = [
        {"key": "b", "ra": "10.0", "dec": "0.0"},
        {"key": "a", "ra": "10.001", "dec": "0.0"},
        {"key": "a", "ra": None, "dec": None},
        {"key": "c", "ra": "10.1", "dec": "0.0"},
        {"key": "d", "ra": "359.9999", "dec": "89.9999"},
        {"key": "e", "ra": "179.9999", "dec": "89.9999"},
    ]
    groups = split.groups_of(rows, split.same_sky_pairs(rows))
    assert groups == ["a", "a", "a", "c", "d", "d"]


def test_split_shares_are_those_stated_and_depend_on_the_name_alone():
    sides = [split.split_of(f"object-{number}") for number in range(5000)]
    shares = [sides.count(name) / len(sides) for name in ("train", "validation", "test")]
    assert np.allclose(shares, (0.7, 0.1, 0.2), atol=0.02)
    assert split.split_of("object-7") == sides[7]


def test_two_cutouts_of_one_exposure_are_found_and_a_like_galaxy_is_not():
    random = np.random.default_rng(3)
    y, x = np.mgrid[:96, :96] - 47.5
    first, other = (180 * np.exp(-np.hypot(x, y / ratio) / 14) + random.normal(14, 5, (96, 96)) for ratio in (0.9, 0.5))
    first, other = first.astype(np.float32), other.astype(np.float32)
    enlarged = np.asarray(Image.fromarray(first).resize((96, 96), box=(7, 7, 89, 89)))
    found = split.copies(first[None], np.stack([np.clip(first * 1.2, 0, 255), enlarged, other]))
    assert found.tolist() == [True, True, False]


@needs_data
def test_no_object_is_on_two_sides_of_the_split():
    from export.prepare import labeled_rows

    rows = [dict(row, ra=row.get("ra"), dec=row.get("dec")) for row in labeled_rows(Path(DATA))]
    _, sides = split.assign(rows)
    side_of: dict[str, str] = {}
    for row, side in zip(rows, sides, strict=True):
        assert side_of.setdefault(row["key"], side) == side
    assert all(sides[first] == sides[second] for first, second in split.same_sky_pairs(rows))
    assert 0.17 < sides.count("test") / len(sides) < 0.23


def test_only_defined_grades_are_learned_from():
    first, other = truth.grades([efigi_row(Bar_Length="0.75", Inner_Ring="-1"), {"set": "gz1"}])
    assert first[truth.GRADED.index("Bar_Length")] == 0.75 and first[-1] == np.float32(0.4)
    assert np.isnan(first[truth.GRADED.index("Inner_Ring")]) and np.isnan(other).all()


def test_phrases_to_judge_nonsense_by_are_never_trained_on_and_none_names_a_galaxy():
    random = np.random.default_rng(4)
    drawn = {foils.draw_foil(random) for _ in range(3000)}
    assert not drawn & set(foils.HELD_OUT)
    assert not any(word in text for text in drawn for word in ("galax", "spiral", "nebula", "merger"))


def test_arcs_to_train_on_are_drawn_wider_than_those_to_judge_by():
    from export import lenses

    kept = {name: getattr(lenses, name) for name in synthetic.WIDER}
    arcs = [synthetic.draw_wider(np.random.default_rng(seed)) for seed in range(200)]
    assert {name: getattr(lenses, name) for name in synthetic.WIDER} == kept
    for name, (low, high) in synthetic.WIDER.items():
        values = [getattr(arc, name.lower()) for arc in arcs]
        assert low <= kept[name][0] and high >= kept[name][1] and (low, high) != kept[name]
        assert low <= min(values) and max(values) <= high


def test_a_close_pair_shows_both_galaxies_on_the_sky_of_the_first():
    y, x = np.mgrid[:96, :96] - 47.5
    blob = np.exp(-np.hypot(x, y) / 4)[..., None]
    red, blue = (np.rint(12 + 200 * blob * tint).astype(np.uint8) for tint in ([1.0, 0.3, 0.1], [0.1, 0.3, 1.0]))
    found = synthetic.pair(red, blue, np.random.default_rng(5)).astype(int)
    reddest, bluest = (np.array(np.unravel_index(c.argmax(), c.shape)) for c in (found[..., 0], found[..., 2]))
    share = np.linalg.norm(reddest - bluest) / 96
    assert synthetic.SEPARATION[0] - 0.02 < share < synthetic.SEPARATION[1] + 0.02
    assert abs(np.median(found[:5]) - 12) <= 3


def test_a_pair_is_made_of_lone_galaxies():
    lone = {"set": "gz1", "gz1_class": "elliptical", "m_axis_ratio": 0.8}
    assert synthetic.may_pair(lone)
    assert not synthetic.may_pair(lone | {"gz1_class": "merger"})
    assert not synthetic.may_pair(lone | {"set": "spacewarps"})


@pytest.mark.torch
def test_a_statement_is_asked_within_one_survey_or_where_the_rest_of_it_holds():
    pytest.importorskip("torch")
    from export.train_align import SURVEYS, in_context

    random = np.random.default_rng(6)
    statements = [(("barred", True),), (("spiral", True), ("barred", True))] * 50
    facts = np.zeros((90, len(NAMES)), np.int8)
    facts[:, INDEX["spiral"]], facts[:, INDEX["barred"]] = random.choice([-1, 0, 1], (2, 90))
    sets = np.array(SURVEYS)[np.arange(90) % 3]
    full = np.stack([statement_truth(facts, statement) for statement in statements], axis=1)
    asked = in_context(full, facts, sets, statements, random)
    changed = asked != full
    assert (asked[changed] == 0).all() and 20 < changed.any(axis=0).sum() < 80
    for column in np.flatnonzero(changed.any(axis=0)):
        left = asked[:, column] != 0
        if len(statements[column]) == 1:
            assert len(set(sets[left])) == 1
        else:
            parts = facts[left][:, [INDEX["spiral"], INDEX["barred"]]]
            assert (parts == 1).any(axis=1).all()


@pytest.mark.torch
def test_a_narrowed_tower_computes_the_same_where_what_it_lost_did_nothing():
    torch = pytest.importorskip("torch")
    from export.models import INNER, ImageTower, narrowed

    torch.manual_seed(0)
    wide = ImageTower(inner=1.0).eval()
    for block in wide.stages[1:]:
        with torch.no_grad():
            lost = torch.randperm(block.second.in_channels)[: round(block.second.in_channels * (1 - INNER))]
            block.second.weight[:, lost] = 0
    pictures = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(narrowed(wide).eval()(pictures), wide(pictures), rtol=1e-4, atol=1e-5)


@pytest.mark.torch
def test_the_null_direction_is_far_from_every_picture():
    torch = pytest.importorskip("torch")
    from export.train_text import null_direction

    pictures = torch.nn.functional.normalize(torch.randn(400, 16, generator=torch.manual_seed(1)) + 1.5, dim=1)
    null = null_direction(pictures)
    assert float(null.norm()) == pytest.approx(1, abs=1e-5)
    assert float((pictures @ null).max()) < -0.1
    assert float((pictures @ null).max()) <= float(
        (pictures @ -pictures.mean(dim=0) / pictures.mean(dim=0).norm()).max()
    )


@pytest.mark.torch
def test_near_identical_captions_are_no_negatives():
    torch = pytest.importorskip("torch")
    from export.ablations import infonce

    unit = torch.eye(3)
    captions = unit[[0, 0, 2]]
    same = captions @ captions.T > 0.9
    masked = infonce(unit[[0, 0, 2]], captions, same, torch.tensor(20.0))
    assert float(masked) < 1e-6
    assert float(infonce(unit[[0, 0, 2]], captions, same & False, torch.tensor(20.0))) > 0.4


@pytest.mark.torch
def test_rankings_are_judged_as_counting_pairs_does():
    pytest.importorskip("torch")
    from export.ablations import ranked

    random = np.random.default_rng(7)
    scores, relevant = random.permutation(40).astype(float), random.random(40) < 0.3
    precision, area = ranked(scores, relevant)
    others = scores[~relevant]
    assert area == pytest.approx(np.mean([(scores[place] > others).mean() for place in np.flatnonzero(relevant)]))
    ranks = [(scores >= scores[place]).sum() for place in np.flatnonzero(relevant)]
    hits = [(scores[relevant] >= scores[place]).sum() for place in np.flatnonzero(relevant)]
    assert precision == pytest.approx(np.mean(np.array(hits) / np.array(ranks)))


@pytest.mark.torch
def test_a_section_of_a_document_is_replaced_and_the_rest_kept(tmp_path):
    pytest.importorskip("torch")
    from export.ablations import put_section

    path = tmp_path / "doc.md"
    path.write_text("# title\n\ntext\n")
    for text in ("first", "second"):
        put_section(text, path)
    assert path.read_text().count("second") == 1 and "first" not in path.read_text()
    assert path.read_text().startswith("# title\n\ntext\n")


def shipped_folders() -> list[Path]:
    return sorted(path.parent for path in MODELS.glob("*/card.json"))


def test_the_shipped_folder_stays_small():
    assert shipped_folders()
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 40e6


@pytest.mark.parametrize("folder", shipped_folders(), ids=lambda folder: folder.name)
def test_a_card_names_its_sets_credits_and_figures(folder):
    card = json.loads((folder / "card.json").read_text())
    assert all(entry["credit"] and entry["license"] for entry in card["training"]["sets"])
    assert card["notices"] and card["license"] and card["evaluation"]
    assert card["parity"]["min_cosine_fp32"] >= 0.9999 and card["parity"]["min_cosine"] >= 0.999


@pytest.mark.parametrize("folder", shipped_folders(), ids=lambda folder: folder.name)
def test_a_shipped_model_passes_its_self_test(folder):
    pytest.importorskip("onnxruntime")
    from galsearch.encode import Encoder

    assert Encoder.from_folder(folder, device="cpu").self_test() >= 0.999


def test_opposite_queries_are_apart_and_paraphrases_together():
    pytest.importorskip("onnxruntime")
    from galsearch.encode import Encoder, shipped

    encoder = Encoder.from_folder(shipped("text"), device="cpu")
    vectors = encoder.encode(
        ["barred spiral", "spiral galaxy with a bar", "spiral without a bar", "unbarred spiral galaxy"]
    )
    cosine = vectors @ vectors.T
    assert cosine[0, 2] < 0.6
    assert min(cosine[0, 1], cosine[2, 3]) > cosine[0, 2] + 0.2


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # raised inside torch.onnx
def test_the_graph_computes_what_torch_computes(tmp_path):
    torch = pytest.importorskip("torch")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from export.models import ImageEncoder, ImageTower
    from export.to_onnx import export_graph, without_batch_norm

    torch.manual_seed(0)
    encoder = ImageEncoder(ImageTower(width=8))
    for norm in (module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    encoder.eval()
    pictures = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = encoder(pictures).numpy()
    path = tmp_path / "image.onnx"
    export_graph(
        without_batch_norm(encoder),
        (pictures[:2],),
        path,
        inputs=["image"],
        dynamic={"image": {0: torch.export.Dim("n", min=1)}},
    )
    found = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        ["embedding"], {"image": pictures.numpy()}
    )[0]
    assert (found * expected).sum(axis=1).min() > 0.9999
