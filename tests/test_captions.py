"""Captions: what is said, what is never said, what it costs, and that nothing is lost or paid twice."""

import hashlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from importlib import resources
from pathlib import Path

import fake_vlm
import numpy as np
import pyarrow as pa
import pytest
import tiny
from fake_vlm import GOOD, TOKENS_IN, TOKENS_OUT, Said, Server
from hypothesis import given
from hypothesis import strategies as st
from negations import DESCRIPTIONS
from PIL import Image
from typer.testing import CliRunner

import galsearch
from galsearch import cli
from galsearch.atomic import WriterLock
from galsearch.captions import labels, measurements
from galsearch.language import decision_tree, summaries, templates

ROWS = 12
DENIES = re.compile(  # written anew here, so that the code's own list is not its judge
    r"\b(no|not|nor|non|none|neither|never|without|lacks?|lacking|absent|absence|devoid|missing|cannot|un(barred|seen))\b"
    r"|n't|\w+less\b",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def material(tmp_path_factory, tiny_models) -> Path:
    """Twelve galaxies with pictures and labels, to be copied."""
    home = tmp_path_factory.mktemp("captions")
    (home / "cutouts").mkdir()
    names = [tiny.object_id(row) for row in range(ROWS)]
    for row, name in enumerate(names):
        Image.fromarray(tiny.draw(row)).save(home / "cutouts" / f"{name}.png")
    types = [-5.0, 4.0, *[None] * (ROWS - 2)]
    rows = {
        "object_id": names,
        "ra": [10.0] * ROWS,
        "dec": [0.0] * ROWS,
        "T": types,
        "Bar_Length": [0.0, 0.75, *[None] * (ROWS - 2)],
        "Inclination": [0.25, 0.25, *[None] * (ROWS - 2)],
        "kind": ["zebra", *[None] * (ROWS - 1)],
    }
    table = tiny.parquet(home / "rows.parquet", **rows)
    galsearch.build(home / "x.atlas", images=home / "cutouts", table=table, models=tiny_models)
    return home / "x.atlas"


@pytest.fixture
def path(material, tmp_path) -> Path:
    return Path(shutil.copytree(material, tmp_path / "x.atlas"))


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def captions(path: Path, cut: str = "true") -> list[dict]:
    with galsearch.open(path) as atlas:
        return atlas.sql(f"FROM captions WHERE {cut} ORDER BY object_id, model, seed").to_pylist()


def ledger(path: Path) -> list[dict]:
    with galsearch.open(path) as atlas:
        return atlas.sql("FROM caption_costs ORDER BY started, run").to_pylist()


def digest(path: Path) -> dict[str, str]:
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(path.rglob("*")) if f.is_file()}


def asking(server: Server, **options) -> galsearch.VLM:
    usual = {"concurrency": 2, "retries": 0, "timeout_seconds": 20, "poll_seconds": 0.01}
    return galsearch.VLM(model="gpt-4.1-mini", base_url=server.url, **{**usual, **options})


# ---- words

SAID = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(sorted(templates.KINDS)),
        **{
            aspect: st.sampled_from(sorted(values) + (["none"] if aspect in templates.ABSENT else []))
            for aspect, values in templates.PHRASES.items()
        },
    },
)


@given(SAID, st.text(max_size=12), st.integers(0, 2**40))
def test_a_summary_is_one_sentence_that_denies_nothing(said, object_id, seed):
    found = templates.write(said, object_id=object_id, seed=seed)
    if not said:
        assert found is None
        return
    assert DENIES.search(found.summary) is None
    assert re.fullmatch(r"[A-Z][^.!?]*\.", found.summary)
    assert set(found.negatives) == {templates.ABSENT[aspect][0] for aspect, value in said.items() if value == "none"}


@given(SAID, st.integers(0, 2**40))
def test_a_whole_caption_denies_what_its_negatives_say_and_nothing_else(said, seed):
    found = templates.write(said, object_id="x", seed=seed)
    if found is not None:
        assert (DENIES.search(found.text) is not None) == bool(found.negatives)
        assert set(summaries.negatives(found.text)) <= set(found.negatives)


def test_wording_follows_from_id_and_seed_and_differs_between_them():
    said = {"kind": "spiral", "view": "face-on", "bar": "strong", "arms": "strong", "color": "blue"}
    first = [templates.write(said, object_id="a", seed=seed) for seed in range(8)]
    assert first == [templates.write(said, object_id="a", seed=seed) for seed in range(8)]
    assert len({one.text for one in first}) > 4 and len({one.summary for one in first}) > 4
    assert first != [templates.write(said, object_id="b", seed=seed) for seed in range(8)]


def test_what_has_no_words_is_refused():
    with pytest.raises(galsearch.SchemaError, match=r"'bar: huge' has no words.*strong"):
        templates.write({"bar": "huge"}, object_id="a", seed=0)
    with pytest.raises(galsearch.SchemaError, match="'wings: two'"):
        templates.write({"wings": "two"}, object_id="a", seed=0)


@pytest.mark.parametrize(
    ("text", "summary", "negatives"),
    [
        ("A face-on spiral galaxy with two arms, but no bar.", "A face-on spiral galaxy with two arms.", ("bar",)),
        ("A spiral galaxy without a bar, ring or companions.", "A spiral galaxy.", ("bar", "companion", "ring")),
        ("No bar or ring is visible in the disk. It has spiral arms.", "It has spiral arms.", ("bar", "ring")),
        ("The bar is not visible; the arms are strong.", "The arms are strong.", ("bar",)),
        ("A halo, lacking well-defined, structured parts such as bars or rings.", "A halo.", ("bar", "ring")),
        ("## Morphology\n- **Type:** An edge-on disk galaxy.\n", "An edge-on disk galaxy.", ()),
        ("Better data might show a bar and arms. A red elliptical.", "A red elliptical.", ()),
        ("There is no disk.", None, ("disk",)),
        ("", None, ()),
    ],
)
def test_denials_are_taken_out_of_a_text_and_kept_apart(text, summary, negatives):
    assert (summaries.summary(text), summaries.negatives(text)) == (summary, negatives)


@pytest.mark.parametrize(("text", "bar", "arms"), DESCRIPTIONS)
def test_captions_and_the_decision_tree_read_the_same_denials(text, bar, arms):
    denied = set(summaries.negatives(text))
    assert ("bar" in denied, "spiral arms" in denied) == (bar is False, arms is False)
    stated = decision_tree.stated(text)
    assert (stated["bar"], stated["has-spiral-arms"]) == (bar, arms)


TEXTS = (
    *("a blue disk", "no bar", "without arms", "two arms", "it isn't round", "or a ring", "but red", "nor a tail"),
    *("a featureless core", "the ring is absent", "with a bulge", "not seen", "dust lanes", "unbarred", "lacking dust"),
)
PIECES = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=7)


@given(PIECES, st.lists(st.sampled_from([", ", "; ", " ", ". ", " and ", "\n"]), min_size=7, max_size=7))
def test_no_text_leaves_a_denial_in_its_summary(pieces, joints):
    text = "".join(f"{piece}{joint}" for piece, joint in zip(pieces, joints, strict=False))
    found = summaries.summary(text)
    assert found is None or DENIES.search(found) is None


# ---- measurements and labels


def test_measures_are_read_by_physics_and_by_the_atlas_itself():
    shares = measurements.Shares({"color_gr": np.linspace(0, 1, 50), "radius_px": np.full(50, 3.0)})
    thin = measurements.say({"axis_ratio": 0.2, "color_gr": 0.99, "radius_px": 3.0}, shares)
    assert thin == {"kind": "disk", "view": "edge-on", "color": "red"}
    assert measurements.say({"axis_ratio": 0.9, "color_gr": 0.01}, shares)["color"] == "blue"
    assert measurements.say({"axis_ratio": 0.9}, shares) == {"roundness": "round"}
    assert measurements.say({"axis_ratio": None, "m20": None}, shares) == {}
    assert measurements.say({"axis_ratio": 0.9, "is_star": True}, shares) == {"kind": "star"}


def test_shares_of_few_galaxies_are_not_taken():
    few = measurements.Shares({"color_gr": np.linspace(0, 1, measurements.ENOUGH - 1)})
    assert few.of("color_gr", 0.99) is None
    values = np.random.default_rng(0).normal(size=40)
    many = measurements.Shares({"color_gr": np.append(values, np.nan)})
    assert many.of("color_gr", 0.3) == pytest.approx(np.mean(values < 0.3))


def test_smooth_and_featured_galaxies_are_told_apart():
    shares = measurements.Shares({})
    smooth = {"axis_ratio": 0.9, "m20": -1.8, "gini": 0.5, "concentration": 2.7, "color_gradient": 0.05}
    featured = {"axis_ratio": 0.7, "m20": -1.4, "gini": 0.35, "concentration": 2.1, "color_gradient": -0.4}
    assert measurements.say(smooth, shares)["kind"] == "elliptical"
    found = measurements.say({**featured, "arm_strength": 0.25, "bar_strength": 0.2}, shares)
    assert (found["kind"], found["view"], found["arms"], found["bar"]) == ("spiral", "inclined", "strong", "strong")
    assert measurements.say({**featured, "bar_strength": 0.02}, shares)["bar"] == "none"


def test_labels_of_efigi_and_galaxy_zoo_say_what_their_papers_mean():
    rules, _ = labels.read_rules(None)
    assert labels.say({"T": -5, "Inclination": 0.0}, rules) == {"kind": "elliptical", "roundness": "round"}
    found = labels.say(
        {"T": 4, "Bar_Length": 0.75, "Inclination": 1.0, "Arm_Strength": -1, "Perturbation": 0.75}, rules
    )
    assert (found["kind"], found["view"], found["bar"], found["disturbance"]) == ("spiral", "edge-on", "strong", "mild")
    assert "arms" not in found  # -1 is undefined
    assert labels.say({"gz2_class": "SBb2m(r)"}, rules) == {
        **{"kind": "spiral", "arms": "present", "bar": "present", "bulge": "large"},
        **{"arm_count": "2", "winding": "medium", "ring": "present"},
    }
    assert labels.say({"gz1_class": "edge_on"}, rules) == {"kind": "disk", "view": "edge-on"}
    votes = {"smooth-or-featured_smooth_fraction": 0.9, "how-rounded_cigar-shaped_fraction": 0.8}
    assert labels.say(votes, rules) == {"kind": "elliptical", "roundness": "cigar"}
    assert labels.say({"T": None}, rules) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not toml [", "not a TOML file"),
        ("a = 1", r"has no \[\[rule\]\]"),
        ('[[rule]]\nfrom = 1\nsay = "bar: strong"', "rule 1 names no column"),
        ('[[rule]]\ncolumn = "a"\nfrom = 1\nsay = "bar: big"', "rule 1: 'bar: big' has no words"),
        ('[[rule]]\ncolumn = "a"\nsay = "bar: strong"', "give from and to"),
        ('[[rule]]\ncolumn = "a"\nmatches = "("\nsay = "bar: strong"', "no regular expression"),
        ('[[rule]]\ncolumn = "a"\nfrom = 1\nsays = "bar: strong"', "'says'"),
    ],
)
def test_a_mapping_that_is_none_says_where(text, said, tmp_path):
    with pytest.raises(galsearch.SchemaError, match=said):
        labels.read_rules(tiny.write(tmp_path / "m.toml", text))


def test_our_mappings_are_toml_that_says_every_rule():
    for name in labels.OURS:
        content = resources.files("galsearch.captions").joinpath(name).read_text()
        assert len(tomllib.loads(content)["rule"]) > 20


# ---- into the atlas


@pytest.mark.slow
def test_measured_captions_are_written_found_and_bundled(path, tmp_path):
    done = galsearch.caption(path, copies=2, seed=5)
    rows = captions(path)
    assert done.captions == len(rows) and done.captions + 2 * done.silent == 2 * ROWS and done.captions > 0
    assert {row["seed"] for row in rows} == {5, 6} and {row["model"] for row in rows} == {"measurements-1"}
    assert all(row["status"] == "ok" and row["cost_usd"] == 0 and len(row["prompt_sha256"]) == 64 for row in rows)
    bundle = galsearch.bundle(path, tmp_path / "x.duckdb")
    assert captions(bundle) == rows
    with galsearch.open(bundle) as atlas:
        assert all(finding.ok for finding in atlas.check())
        record = atlas.manifest.provenance[-2]
        assert record["action"] == "caption" and record["parameters"]["seed"] == 5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_words(path):
    galsearch.caption(path, copies=2)
    first = [(row["object_id"], row["caption"], row["summary"]) for row in captions(path)]
    galsearch.caption(path, copies=2)
    assert [(row["object_id"], row["caption"], row["summary"]) for row in captions(path)] == first


@pytest.mark.slow
def test_label_captions_come_from_columns_or_a_mapping_of_ones_own(path, tmp_path):
    galsearch.caption(path, by="labels")
    found = captions(path)
    assert [row["object_id"] for row in found] == [tiny.object_id(0), tiny.object_id(1)]
    assert "elliptical" in found[0]["summary"] and "bar" in found[1]["summary"]
    assert found[0]["negatives"] == []
    mapping = tiny.write(tmp_path / "m.toml", '[[rule]]\ncolumn = "kind"\nmatches = "zebra"\nsay = "bar: none"')
    galsearch.caption(path, by="labels", mapping=mapping)
    (row,) = captions(path, f"object_id = '{tiny.object_id(0)}'")
    assert row["negatives"] == ["bar"] and "bar" not in row["summary"]


@pytest.mark.slow
def test_texts_of_a_table_are_joined_by_id_and_searched(path, tmp_path):
    first = tiny.object_id(3)
    table = tiny.parquet(
        tmp_path / "t.parquet",
        name=[first, first, tiny.object_id(4), "nobody"],
        said=["A striped galaxy without a bar.", "Once more: quagga.", None, "x"],
    )
    done = galsearch.caption(path, by="table", table=table, id_column="name", caption_column="said", model="Ann")
    assert (done.captions, done.silent) == (2, 1)
    assert done.counts == {"rows of the table that name no object": 1}
    rows = captions(path)
    assert [(row["seed"], row["negatives"]) for row in rows] == [(0, ["bar"]), (1, [])]
    assert rows[0]["summary"] == "A striped galaxy." and rows[0]["prompt_sha256"] == galsearch_digest(table)
    with galsearch.open(path) as atlas:
        assert atlas.search("quagga", hybrid="rank", k=1).ids == [first]
        assert atlas.sql("FROM matching_words('striped bar')")["object_id"].to_pylist() == [first]
        assert atlas.sql("FROM matching_words('bar')").num_rows == 0  # it is denied


def galsearch_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_captions_of_others_stay_and_ones_own_are_replaced_or_appended(path, tmp_path):
    table = tiny.parquet(tmp_path / "t.parquet", object_id=[tiny.object_id(0)], caption=["A quagga."])
    galsearch.caption(path, by="table", table=table, model="Ann")
    galsearch.caption(path, by="labels", seed=0)
    galsearch.caption(path, by="labels", seed=1)
    cut = f"object_id = '{tiny.object_id(0)}'"
    assert [(row["model"], row["seed"]) for row in captions(path, cut)] == [("Ann", 0), ("labels-1", 1)]
    galsearch.caption(path, by="labels", seed=2, append=True)
    assert [(row["model"], row["seed"]) for row in captions(path, cut)] == [
        *[("Ann", 0), ("labels-1", 1), ("labels-1", 2)]
    ]


@pytest.mark.slow
def test_a_cut_chooses_whom_to_caption(path):
    galsearch.caption(path, by="labels", where="T > 0")
    assert [row["object_id"] for row in captions(path)] == [tiny.object_id(1)]
    with pytest.raises(galsearch.QueryError, match="where"):
        galsearch.caption(path, by="labels", where="nonsense > 0")


@pytest.mark.slow
def test_galaxies_added_later_can_be_captioned_and_captions_survive_adding(path, tmp_path, tiny_models):
    galsearch.caption(path, by="labels")
    (tmp_path / "more").mkdir()
    Image.fromarray(tiny.draw(50)).save(tmp_path / "more" / "late.png")
    galsearch.add(path, images=tmp_path / "more", models=tiny_models)
    assert len(captions(path)) == 2
    table = tiny.parquet(tmp_path / "t.parquet", object_id=["late"], caption=["A quagga."])
    galsearch.caption(path, by="table", table=table)
    with galsearch.open(path) as atlas:
        assert atlas.search("quagga", hybrid="rank", k=1).ids == ["late"]


@pytest.mark.slow
def test_a_bundle_is_not_captioned_and_neither_is_an_atlas_that_another_writes(path, tmp_path):
    bundle = galsearch.bundle(path, tmp_path / "x.duckdb")
    with pytest.raises(galsearch.GalsearchError, match="bundle is never changed"):
        galsearch.caption(bundle)
    before = digest(path)
    with WriterLock(path), pytest.raises(galsearch.GalsearchError, match="another galsearch is writing"):
        galsearch.caption(path)
    assert digest(path) == before


def test_a_failed_write_changes_nothing(path, monkeypatch):
    from galsearch.store.write import upsert

    before = digest(path)

    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(upsert, "write_words", broken)
    with pytest.raises(galsearch.GalsearchError, match="no space left"):
        galsearch.caption(path)
    assert digest(path) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "magic"}, "no captioner"),
        ({"copies": 0}, "at least one"),
        ({"by": "table"}, "need a table"),
        ({"by": "vlm"}, "needs to be named"),
        ({"by": "labels", "mapping": "nowhere.toml"}, "cannot be read"),
    ],
)
def test_wrong_options_are_said_in_words(path, options, said):
    before = digest(path)
    with pytest.raises(galsearch.GalsearchError, match=said):
        galsearch.caption(path, **options)
    assert digest(path) == before


# ---- a vision model


@pytest.mark.slow
def test_answers_become_captions_with_their_cost(path):
    with Server() as server:
        done = galsearch.caption(path, by="vlm", vlm=asking(server))
        assert len(server.asked) == ROWS and server.most_at_once <= 2
        body, picture = server.asked[0].body, server.asked[0].picture
    prompt = galsearch.caption_prompt()
    assert body["messages"][0]["content"][0]["text"] == prompt
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["description", "summary", "absent"]
    assert np.asarray(Image.open(io.BytesIO(picture))).shape == (tiny.SIZE_PX, tiny.SIZE_PX, 3)
    one = (TOKENS_IN * 0.4 + TOKENS_OUT * 1.6) / 1e6
    rows = captions(path)
    assert done.captions == len(rows) == ROWS and done.cost_usd == pytest.approx(ROWS * one)
    assert rows[0]["caption"] == GOOD["description"] and rows[0]["summary"] == GOOD["summary"]
    assert rows[0]["negatives"] == ["ring"] and rows[0]["cost_usd"] == pytest.approx(one)
    assert rows[0]["prompt_sha256"] == hashlib.sha256(prompt.encode()).hexdigest()
    (costs,) = ledger(path)
    assert (costs["answers"], costs["tokens_in"], costs["tokens_out"]) == (ROWS, ROWS * TOKENS_IN, ROWS * TOKENS_OUT)
    assert costs["cost_usd"] == pytest.approx(ROWS * one) and costs["service"].startswith("127.0.0.1:")
    assert not path.with_name("x.atlas.answers").exists()


@pytest.mark.slow
def test_the_key_goes_to_the_service_and_nowhere_else(path, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with Server() as server:
        galsearch.caption(path, by="vlm", vlm=asking(server, key_env="MY_KEY"))
        assert {asked.key for asked in server.asked} == {"sk-very-secret"}
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and b"sk-very-secret" in f.read_bytes()]


@pytest.mark.slow
def test_what_is_there_is_not_asked_again_unless_told(path):
    with Server() as server:
        galsearch.caption(path, by="vlm", vlm=asking(server), where="T IS NOT NULL")
        assert len(server.asked) == 2
        galsearch.caption(path, by="vlm", vlm=asking(server), copies=2)
        assert len(server.asked) == 2 * ROWS
        assert len(captions(path)) == 2 * ROWS
        galsearch.caption(path, by="vlm", vlm=asking(server), copies=2)
        assert len(server.asked) == 2 * ROWS and len(captions(path)) == 2 * ROWS
        galsearch.caption(path, by="vlm", vlm=asking(server, again=True), where="T > 0")
        assert len(server.asked) == 2 * ROWS + 1
    assert len(ledger(path)) == 3


@pytest.mark.slow
def test_refusals_and_malformed_answers_are_kept_as_such(path):
    said = [
        Said(refusal="I cannot describe this."),
        Said(finish="content_filter"),
        Said("{not json"),
        Said(json.dumps({**GOOD, "absent": "none"})),
        Said(json.dumps(GOOD)[:20], finish="length"),
        Said(raw=json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 0}})),
        Said(json.dumps({**GOOD, "description": "  "})),
        Said(json.dumps({**GOOD, "summary": "A spiral galaxy without a bar."})),
    ]
    with Server(lambda asked: said[asked.number - 1] if asked.number <= len(said) else fake_vlm.good(asked)) as server:
        done = galsearch.caption(path, by="vlm", vlm=asking(server, concurrency=1))
    rows = captions(path)
    assert [row["status"] for row in rows[:8]] == ["refused"] * 2 + ["malformed"] * 5 + ["ok"]
    assert all(row["caption"] is None and row["summary"] is None and row["reply"] for row in rows[:7])
    assert rows[0]["reply"] == "I cannot describe this." and "cut off after 1500 tokens" in rows[4]["reply"]
    assert rows[7]["summary"] == "A spiral galaxy." and rows[7]["caption"] == GOOD["description"]
    assert done.counts == {"refused": 2, "malformed": 5} and done.captions == ROWS - 7
    (costs,) = ledger(path)
    assert (costs["answers"], costs["refused"], costs["malformed"]) == (ROWS, 2, 5)
    with galsearch.open(path) as atlas:
        assert atlas.sql("FROM matching_words('describe')").num_rows == 0


@pytest.mark.slow
def test_too_many_requests_are_asked_again_by_the_client(path):
    slow = Said(status=429, headers={"retry-after-ms": "10"})
    with Server(lambda asked: slow if asked.number % 2 else fake_vlm.good(asked)) as server:
        done = galsearch.caption(path, by="vlm", vlm=asking(server, retries=2, concurrency=1))
        assert len(server.asked) == 2 * ROWS
    assert done.captions == ROWS and done.counts == {}


def test_a_service_that_always_fails_stops_the_job_and_changes_nothing(path):
    before = digest(path)
    with Server(lambda _: Said(status=500)) as server:
        with pytest.raises(galsearch.RemoteError, match=r"3 times in a row.*made to fail"):
            galsearch.caption(path, by="vlm", vlm=asking(server, concurrency=1))
        assert len(server.asked) == 3
    assert digest(path) == before


@pytest.mark.slow
def test_a_failure_now_and_then_is_no_caption_and_is_asked_the_next_time(path):
    with Server(lambda asked: Said(status=500) if asked.number == 3 else fake_vlm.good(asked)) as server:
        done = galsearch.caption(path, by="vlm", vlm=asking(server))
        assert done.counts == {"failed": 1} and "made to fail" in done.note
        assert len(captions(path)) == ROWS - 1
        galsearch.caption(path, by="vlm", vlm=asking(server))
        assert len(server.asked) == ROWS + 1
    assert len(captions(path)) == ROWS


@pytest.mark.parametrize(("status", "said"), [(401, "key is not accepted"), (404, "no such model")])
def test_what_nobody_can_answer_stops_at_once(path, status, said):
    with Server(lambda _: Said(status=status)) as server:
        with pytest.raises(galsearch.RemoteError, match=said):
            galsearch.caption(path, by="vlm", vlm=asking(server))
        assert len(server.asked) <= 2


def test_nobody_at_the_address_is_a_remote_error(path):
    with Server() as server:
        url = server.url
    with pytest.raises(galsearch.RemoteError, match="in a row"):
        galsearch.caption(
            path, by="vlm", vlm=galsearch.VLM(model="gpt-4.1-mini", base_url=url, retries=0, concurrency=1)
        )


def test_without_a_key_or_the_package_the_remedy_is_named(path, monkeypatch):
    with pytest.raises(galsearch.GalsearchError, match="OPENAI_API_KEY"):
        galsearch.caption(path, by="vlm", vlm=galsearch.VLM(model="gpt-4.1-mini"))
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(galsearch.GalsearchError, match=r"galsearch\[vlm\]"):
        galsearch.caption(path, by="vlm", vlm=galsearch.VLM(model="gpt-4.1-mini"))


# ---- money


@pytest.mark.slow
def test_the_limit_is_never_exceeded_and_going_on_pays_only_the_rest(path):
    one = (TOKENS_IN * 0.4 + TOKENS_OUT * 1.6) / 1e6
    limit = 0.009
    with Server() as server:
        done = galsearch.caption(path, by="vlm", vlm=asking(server, max_cost=limit, concurrency=8))
        first = len(server.asked)
        assert 0 < first < ROWS and len(server.asked) * one <= limit
        assert "stopped at" in done.note and done.captions == first == len(captions(path))
        again = galsearch.caption(path, by="vlm", vlm=asking(server, max_cost=limit))
        assert len(server.asked) == first and "stopped at" in again.note  # what was spent still counts
        galsearch.caption(path, by="vlm", vlm=asking(server, max_cost=1))
        assert len(server.asked) == ROWS
    assert len(captions(path)) == ROWS
    assert sum(row["cost_usd"] for row in ledger(path)) == pytest.approx(ROWS * one)


def test_an_answer_that_hides_its_tokens_counts_as_the_most_it_can_cost(path):
    with Server(lambda asked: Said(json.dumps(GOOD), usage=None)) as server:
        galsearch.caption(path, by="vlm", vlm=asking(server, max_cost=0.006, concurrency=1))
        most = (1500 * 1.6) / 1e6
        assert 1 <= len(server.asked) <= 0.006 / most


@pytest.mark.slow
def test_a_limit_needs_a_price(path):
    with Server() as server:
        vlm = galsearch.VLM(model="llava", base_url=server.url, max_cost=1.0)
        with pytest.raises(galsearch.GalsearchError, match="price of 'llava' is not known"):
            galsearch.caption(path, by="vlm", vlm=vlm)
        assert server.sent == []
        done = galsearch.caption(path, by="vlm", vlm=galsearch.VLM(model="llava", base_url=server.url))
    assert done.cost_usd is None and {row["cost_usd"] for row in captions(path)} == {None}
    assert ledger(path)[0]["cost_usd"] is None and ledger(path)[0]["tokens_in"] == ROWS * TOKENS_IN


@pytest.mark.slow
def test_an_estimate_sends_nothing_and_says_which_price_it_does_not_know(path):
    table = galsearch.estimate_captions(path, copies=2)
    assert table["captions"].to_pylist() == [2 * ROWS] * table.num_rows
    assert table["usd"].to_pylist() == sorted(table["usd"].to_pylist())
    (unknown,) = galsearch.estimate_captions(path, model="llava").to_pylist()
    assert unknown["usd"] is None and unknown["tokens_out"] > 0
    (mine,) = galsearch.estimate_captions(path, model="llava", price_in=1.0, price_out=2.0).to_pylist()
    assert mine["usd"] == pytest.approx((mine["tokens_in"] + 2 * mine["tokens_out"]) / 1e6)
    (dated,) = galsearch.estimate_captions(path, model="gpt-4.1-mini-2025-04-14").to_pylist()
    (plain,) = galsearch.estimate_captions(path, model="gpt-4.1-mini").to_pylist()
    assert dated["usd"] == plain["usd"] and plain["usd_batch"] == plain["usd"] / 2


# ---- batches


@pytest.mark.slow
def test_batches_are_answered_at_half_the_price(path):
    with Server(batches=True) as server:
        done = galsearch.caption(path, by="vlm", vlm=asking(server, batch="on"))
        assert ("POST", "/v1/chat/completions") not in server.sent and len(server.jobs) == 1
        assert len(server.asked) == ROWS
    assert done.captions == ROWS
    assert done.cost_usd == pytest.approx(ROWS * (TOKENS_IN * 0.4 + TOKENS_OUT * 1.6) / 2e6)
    assert {row["caption"] for row in captions(path)} == {GOOD["description"]}


@pytest.mark.slow
def test_refusals_and_errors_in_a_batch_are_told_apart(path):
    said = {1: Said(refusal="no"), 2: Said("{"), 3: Said(status=500)}
    with Server(lambda asked: said.get(asked.number) or fake_vlm.good(asked), batches=True) as server:
        done = galsearch.caption(path, by="vlm", vlm=asking(server, batch="on"))
    assert done.counts == {"refused": 1, "malformed": 1, "failed": 1} and done.captions == ROWS - 3


@pytest.mark.slow
def test_a_server_without_batches_is_asked_one_by_one(path):
    with Server() as server:
        done = galsearch.caption(path, by="vlm", vlm=asking(server, batch="on"))
        assert len(server.asked) == ROWS and ("POST", "/v1/files") in server.sent
    assert done.captions == ROWS and "has no Batch API" in done.note


@pytest.mark.slow
def test_a_batch_is_no_larger_than_the_limit_allows(path):
    with Server(batches=True) as server:
        done = galsearch.caption(path, by="vlm", vlm=asking(server, batch="on", max_cost=0.004))
        assert 0 < len(server.asked) < ROWS and "stopped at" in done.note
    assert done.cost_usd <= 0.004


# ---- interruptions


def start(path: Path, server: Server, *options: str) -> subprocess.Popen:
    """Start the verb in a process of its own, whose words go to the file `said` beside the atlas."""
    command = [sys.executable, "-m", "galsearch.cli", "caption", str(path), "--by", "vlm", "--model", "gpt-4.1-mini"]
    own = ["--base-url", server.url, "--concurrency", "2", "--retries", "0", *options]
    with path.with_name("said").open("w") as said:
        return subprocess.Popen([*command, *own], stderr=said, stdout=said)


def wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def kept(path: Path) -> int:
    files = list(path.with_name("x.atlas.answers").glob("*.jsonl"))
    return sum(line.startswith('{"reply"') for line in files[0].read_text().splitlines()) if files else 0


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_under_way_and_nothing_is_paid_twice(path):
    before = digest(path)
    slow = Said(json.dumps(GOOD), wait_seconds=0.4)
    with Server(lambda _: slow) as server:
        process = start(path, server)
        wait_for(lambda: len(server.asked) >= 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert "nothing is lost" in path.with_name("said").read_text()
        first = len(server.asked)
        assert kept(path) == first < ROWS and digest(path) == before
        server.answer = fake_vlm.good
        process = start(path, server)
        assert process.wait(timeout=60) == 0
        assert len(server.asked) == ROWS
    assert len(captions(path)) == ROWS
    (costs,) = ledger(path)
    assert costs["answers"] == ROWS


@pytest.mark.slow
def test_a_kill_loses_only_what_was_under_way(path):
    before = digest(path)
    with Server(lambda asked: Said(json.dumps(GOOD), wait_seconds=60 if asked.number > 5 else 0)) as server:
        process = start(path, server)
        wait_for(lambda: len(server.asked) >= 7 and kept(path) == 5)
        process.kill()
        process.wait()
        assert digest(path) == before
        (journal,) = path.with_name("x.atlas.answers").glob("*.jsonl")
        with journal.open("a") as file:
            file.write('{"reply": {"key": "0:torn')  # as a killed writer may leave it
        server.answer = fake_vlm.good
        galsearch.caption(path, by="vlm", vlm=asking(server))
        assert len(server.asked) == ROWS + 2
    assert len(captions(path)) == ROWS


@pytest.mark.slow
def test_a_batch_that_was_under_way_when_killed_is_waited_for_by_the_next_run(path):
    with Server(batches=True) as server:
        server.finishing = False
        process = start(path, server, "--batch", "on")
        wait_for(lambda: server.jobs and next(iter(server.jobs.values()))["looks"])
        process.kill()
        process.wait()
        server.finishing = True
        galsearch.caption(path, by="vlm", vlm=asking(server, batch="on"))
        assert len(server.jobs) == 1 and len(server.asked) == ROWS
    assert len(captions(path)) == ROWS


@pytest.mark.slow
def test_a_batch_whose_id_was_never_heard_is_found_again_by_its_tag(path, monkeypatch):
    from galsearch.remote import Endpoint

    submit = Endpoint.submit

    def killed(self, *arguments, **options):
        submit(self, *arguments, **options)
        raise KeyboardInterrupt

    with Server(batches=True) as server:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Endpoint, "submit", killed)
            galsearch.caption(path, by="vlm", vlm=asking(server, batch="on"))
        galsearch.caption(path, by="vlm", vlm=asking(server, batch="on"))
        assert len(server.jobs) == 1 and len(server.asked) == ROWS
    assert len(captions(path)) == ROWS


def test_two_of_one_job_at_a_time_are_refused(path):
    from galsearch.remote import Journal, journal_path

    with Server() as server:
        vlm = asking(server)
        sha256 = hashlib.sha256(galsearch.caption_prompt().encode()).hexdigest()
        with (
            Journal(journal_path(path, [vlm.model, vlm.base_url or "", sha256, str(vlm.images)])),
            pytest.raises(galsearch.GalsearchError, match="asking the same now"),
        ):
            galsearch.caption(path, by="vlm", vlm=vlm)
        assert server.sent == []


@pytest.mark.slow
def test_answers_wait_while_another_writes_the_atlas(path):
    with Server() as server:
        with WriterLock(path), pytest.raises(galsearch.GalsearchError, match="another galsearch is writing"):
            galsearch.caption(path, by="vlm", vlm=asking(server))
        assert kept(path) == ROWS
        galsearch.caption(path, by="vlm", vlm=asking(server))
        assert len(server.asked) == ROWS
    assert len(captions(path)) == ROWS and not path.with_name("x.atlas.answers").exists()


# ---- the command line


def run(*arguments: object) -> object:
    return CliRunner().invoke(cli.app, [str(one) for one in arguments])


@pytest.mark.slow
def test_the_verb_writes_estimates_and_shows_its_prompt(path):
    done = run("caption", path, "--by", "labels", "--copies", "2")
    assert done.exit_code == 0 and "4 captions by labels-1" in done.stderr
    prompt = run("caption", "--show-prompt")
    assert prompt.stdout.strip() == galsearch.caption_prompt().strip()
    estimate = run("caption", path, "--by", "vlm", "--model", "llava", "--estimate", "--format", "csv")
    assert f'"llava",{ROWS},' in estimate.stdout and "price of llava is not known" in estimate.stderr
    assert run("caption", path, "--by", "vlm").exit_code == 2
    assert run("caption").exit_code == 2


@pytest.mark.slow
def test_the_verb_asks_a_model(path):
    with Server() as server:
        done = run("caption", path, "--by", "vlm", "--model", "gpt-4.1-mini", "--base-url", server.url, "--max-cost", 1)
    assert done.exit_code == 0 and "cost: 0.0" in done.stderr
    assert pa.Table.from_pylist(captions(path)).num_rows == ROWS
