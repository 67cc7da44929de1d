"""Sentences, splits and shipped files of export/: what must hold whatever the training did."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export import sentences, split, truth
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
