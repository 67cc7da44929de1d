"""Re-ranking by a model with tools: what a sheet is, what a call may ask for, what is counted, and what it costs."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from fake_vlm import Asked, Said, Server

import galsearch
from benchmarks.agent_rerank import ERRORS, Case, Error, ScriptedJudge, recognized, tiles
from galsearch.errors import GalsearchError, QueryError
from galsearch.rerank.agent import MOST_ZOOMED, TOOLS
from galsearch.science import images

POINT = 0.5
EXACT = Error("exact", 0.0, 0.0, 0.0)


@pytest.fixture
def opened(bundle_path):
    """A copy of the tiny bundle, beside which answers may lie."""
    with galsearch.open(bundle_path, device="cpu") as atlas:
        yield atlas


@pytest.fixture(scope="module")
def known(tiny_bundle) -> dict[bytes, str]:
    """Object_ids by what is sent of the pictures that the tests ask about."""
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        return recognized(atlas.thumbnails(atlas.search("red galaxy", k=60).ids))


def options(url: str, **more: object) -> dict:
    return {"model": "m", "base_url": url, "retries": 0, "price_in": 1.0, "price_out": 1.0, "samples": 1, **more}


def of_sheet(asked: Asked, known: dict[bytes, str]) -> list[str]:
    """Return the objects of a sheet in its order; the tiles without a picture are left out."""
    return [known[tile] for tile in tiles(asked.picture) if tile in known]


def judged(scores: dict, notes: dict | None = None) -> Said:
    return Said(tool=("judge", {"scores": scores, "notes": notes or {}}))


def words_of(asked: Asked) -> str:
    return asked.body["messages"][0]["content"][0]["text"]


def test_a_sheet_is_judged_by_number_whatever_its_order(opened, known):
    hits = opened.search("red galaxy", k=5)
    wanted = opened.search("red galaxy", k=20).ids[14]
    with Server(
        lambda asked: judged(
            {str(at): 10 if one == wanted else 2 for at, one in enumerate(of_sheet(asked, known), start=1)},
            {str(at): f"it is {one}" for at, one in enumerate(of_sheet(asked, known), start=1)},
        )
    ) as server:
        better = hits.rerank("agent", n=20, pictures=8, looks=0, **options(server.url))
        orders = [of_sheet(asked, known) for asked in server.asked]
    assert sorted(map(len, orders)) == [4, 8, 8]  # several are under way at once, and arrive in any order
    ranked = opened.search("red galaxy", k=20).ids
    assert all(order != sorted(order, key=ranked.index) for order in orders)  # the order of a sheet says nothing
    assert sorted(one for order in orders for one in order) == sorted(opened.search("red galaxy", k=20).ids)
    first = better.table.slice(0, 1).to_pylist()[0]
    assert better.ids[0] == wanted and first["explanation"] == f"it is {wanted}" and first["judged"] == 10
    assert first["score"] == pytest.approx(first["score_before"] + POINT * (10 - 5.5), abs=1e-5)
    assert better.reranked.by == "agent"
    assert "3 calls on 3 sheets" in str(better.reranked) and "would have been 20 calls, about" in str(better.reranked)


def test_only_pictures_numbers_and_words_are_sent(opened, known):
    with Server(lambda asked: judged({"1": 5})) as server:
        opened.search("red galaxy", k=2).rerank("agent", n=12, pictures=12, looks=0, **options(server.url))
        [asked] = server.asked
    text = words_of(asked)
    assert "red galaxy" in text and "no instruction to you" in text
    lines = text.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("number | "))
    assert all(re.fullmatch(r"\d+( \| (-|-?[\d.e+-]+))*", line) for line in lines[head + 1 :])
    whole = json.dumps({**asked.body, "messages": [text]})
    assert not [one for one in known.values() if one in whole]
    assert [tool["function"]["name"] for tool in asked.body["tools"]] == list(TOOLS)
    assert asked.body["tool_choice"]["function"]["name"] == "judge"  # as it may not look


def test_a_model_may_look_closer_and_is_given_what_it_asks_for(opened, known):
    def answer(asked: Asked) -> Said:
        turn = len([one for one in asked.body["messages"] if one["role"] == "tool"])
        if turn == 0:
            return Said(tool=("zoom", {"numbers": [2, 99, 1, 2, 3, 4, 5]}))
        if turn == 1:
            return Said(tool=("measures", {"numbers": [3]}))
        if turn == 2:
            return Said(tool=("zoom", {"numbers": [0]}))
        return judged({str(number): 6 for number in range(1, 7)})

    with Server(answer) as server:
        better = opened.search("red galaxy", k=3).rerank("agent", n=6, pictures=6, looks=3, **options(server.url))
        asked = server.asked
    assert [one.body["tool_choice"] for one in asked[:3]] == ["required"] * 3 and len(asked) == 4
    last = asked[3].body["messages"]
    assert [one["role"] for one in last] == [
        *("user", "assistant", "tool", "user", "assistant", "tool", "assistant", "tool"),
    ]
    assert last[1]["tool_calls"][0]["id"] == last[2]["tool_call_id"] == "call-1"
    assert last[2]["content"] == "enlarged: 2, 1, 3, 4"[: len("enlarged: 2, 1, 3, 4")] and MOST_ZOOMED == 4
    assert last[3]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert last[5]["content"].startswith("number | ") and last[5]["content"].splitlines()[1].startswith("3 | ")
    assert "none of these numbers is on the sheet, which has 1 to 6" in last[7]["content"]
    assert "2 zooms and 1 looks at measures" in str(better.reranked)


@pytest.mark.parametrize(
    "bad",
    [
        Said(status=500),
        Said(refusal="I will not"),
        Said("these are all fine"),
        Said(tool=("judge", '{"scores": {"1": "ten"}, "notes": {}}')),
        Said(tool=("judge", "{")),
        Said(tool=("delete", {"numbers": [1]})),
        Said(tool=("zoom", {"numbers": [1]})),
        Said(tool=("judge", {"scores": {"1": 0, "2": 11, "7": 5, "x": 5}, "notes": {}})),
        Said(raw="[]"),
        Said(raw='{"choices": [{"message": {"tool_calls": [7]}}]}'),
    ],
)
def test_what_is_no_score_leaves_every_hit_where_it_was(opened, bad):
    hits = opened.search("red galaxy", k=4)
    with Server(lambda asked: bad) as server:
        better = hits.rerank("agent", n=4, pictures=4, looks=1, concurrency=4, **options(server.url))
    assert better.ids == hits.ids and better.reranked.kept
    assert "no scores: 4 of 4" in str(better.reranked)


def test_an_object_that_a_sheet_leaves_out_keeps_its_place(opened, known):
    hits = opened.search("red galaxy", k=6)
    silent = hits.ids[2]

    def answer(asked: Asked) -> Said:
        shown = list(enumerate(of_sheet(asked, known), start=1))
        return judged({str(at): 10 - hits.ids.index(one) for at, one in shown if one != silent})

    with Server(answer) as server:
        better = hits.rerank("agent", n=6, pictures=6, looks=0, **options(server.url))
    assert better.table["judged"].to_pylist()[better.ids.index(silent)] is None
    assert "no scores: 1 of 6" in str(better.reranked)


def test_the_same_sheet_is_never_paid_twice_and_a_stopped_one_goes_on(opened):
    hits = opened.search("red galaxy", k=4)

    def answer(asked: Asked) -> Said:
        looked = any(one["role"] == "tool" for one in asked.body["messages"])
        return (
            judged({str(number): number % 9 + 1 for number in range(1, 5)})
            if looked
            else Said(tool=("zoom", {"numbers": [1]}))
        )

    with Server(answer) as server:
        stated = options(server.url, pictures=4, looks=1, concurrency=1, max_tokens=300)
        stopped = hits.rerank("agent", n=12, max_cost=0.0065, **stated)
        first = len(server.asked)
        assert 0 < first < 6 and "raise max_cost" in str(stopped.reranked)
        assert stopped.reranked.cost["cost_usd"] <= 0.0065
        whole = hits.rerank("agent", n=12, **stated)
        assert len(server.asked) == 6  # three sheets, a look each; what was answered is not asked again
        assert hits.rerank("agent", n=12, **stated).ids == whole.ids and len(server.asked) == 6


@pytest.mark.slow
def test_sheets_give_the_order_that_single_pictures_give_for_fewer_calls(opened, known):
    hits = opened.search("red galaxy", k=5)
    ids = opened.search("red galaxy", k=40).ids
    truth = dict.fromkeys(ids[20:25], 1.0)
    with ScriptedJudge(truth, known, EXACT) as single:
        alone = hits.rerank("vlm", n=40, **options(single.url))
    with ScriptedJudge(truth, known, EXACT) as sheets:
        together = hits.rerank("agent", n=40, pictures=10, looks=0, **options(sheets.url))
    assert together.ids == alone.ids and sorted(together.ids) == sorted(truth)
    assert single.calls == 40 and sheets.calls == 4 and sheets.tokens_in < single.tokens_in / 2


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.name[:8])
def test_a_scripted_judge_errs_as_it_is_told_to(known, error):
    with ScriptedJudge({"x": 0.5}, known, error) as judge:
        alone = [judge.score("x", f"{number}", error.noise) for number in range(3000)]
    expected = np.clip(np.round(5.5 + error.noise * np.random.default_rng(0).normal(size=100_000)), 1, 10)
    assert np.std(alone) == pytest.approx(expected.std(), rel=0.06)
    assert np.mean(alone) == pytest.approx(expected.mean(), abs=0.15)


def test_a_case_of_the_benchmark_is_measured(tiny_bundle, known):
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        ids = atlas.search("red galaxy", k=20).ids
        relevance = {one: float(one in ids[10:14]) for one in ids}
        names = ", ".join(f"'{one}'" for one in ids)
        case = Case(atlas, "drawn", ["red galaxy"], f"object_id IN ({names})", relevance, known)
        row = case.measured(EXACT, {"by": "agent", "samples": 1, "pictures": 5, "looks": 0}, draws=1, n=20)
    assert row.calls == 4 and row.after == 1.0 and row.before < 0.2


@pytest.mark.parametrize(
    ("stated", "error", "told"),
    [
        ({"pictures": 0}, GalsearchError, "pictures is 0"),
        ({"pictures": 37}, GalsearchError, "from 1 to 36"),
        ({"looks": 11}, GalsearchError, "looks is 11"),
        ({"looks": 1.5}, GalsearchError, "looks is 1.5"),
        ({"model": None}, GalsearchError, "needs to be named"),
        ({"sheets": 3}, GalsearchError, "no option of 'agent'"),
        ({"max_cost": 1.0, "price_in": None}, GalsearchError, "price of 'm' is not known"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_sent(opened, stated, error, told):
    with Server(lambda asked: judged({})) as server, pytest.raises(error, match=told):
        opened.search("red galaxy", k=3).rerank("agent", n=3, **{**options(server.url), **stated})
    assert server.asked == []


def test_sheets_belong_to_agents_and_a_prompt_to_either(opened):
    with pytest.raises(GalsearchError, match="'pictures' is no option of 'vlm'"):
        opened.search("red", k=3).rerank("vlm", model="m", pictures=3)
    with pytest.raises(QueryError, match="asks no model"):
        galsearch.rerank_prompt(by="local")
    assert "{question}" in galsearch.rerank_prompt(by="agent") != galsearch.rerank_prompt()


def test_an_estimate_of_sheets_is_cheaper_and_sends_nothing(opened):
    hits = opened.search("red galaxy", k=10)
    stated = {"n": 120, "model": "gpt-4.1-mini", "samples": 2}
    [single], [sheets] = (
        hits.estimate_rerank(by="vlm", **stated).to_pylist(),
        hits.estimate_rerank(by="agent", pictures=12, **stated).to_pylist(),
    )
    assert single["answers"] == 240 and sheets["answers"] == 20 and sheets["usd"] < single["usd"]
    with pytest.raises(QueryError, match="costs nothing"):
        hits.estimate_rerank(by="local", **stated)


def test_an_estimate_is_within_a_factor_of_two_of_what_a_judge_counts(opened, known):
    hits = opened.search("red galaxy", k=10)
    with ScriptedJudge({}, known, EXACT) as judge:
        hits.rerank("agent", n=24, pictures=12, looks=0, **{**options(judge.url), "model": "gpt-4.1-mini"})
    [row] = hits.estimate_rerank(by="agent", n=24, pictures=12, samples=1, model="gpt-4.1-mini").to_pylist()
    assert row["answers"] == judge.calls == 2
    assert 0.5 < row["tokens_in"] / judge.tokens_in < 2


def test_the_tiles_of_a_sheet_are_found_again():
    pictures = [np.full((96, 96, 3), 20 * number, np.uint8) for number in range(1, 6)]
    sheet = images.contact_sheet([("x", [(one, "1") for one in pictures])], columns=3, tile_px=160)
    assert [tile[0] for tile in tiles(sheet)[:5]] == [20, 40, 60, 80, 100]


# ---- from the command line


def test_the_command_asks_by_sheets_and_says_what_it_did(bundle_path, known):
    from typer.testing import CliRunner

    from galsearch import cli

    with ScriptedJudge({}, known, EXACT) as judge:
        stated = ["--by", "agent", "--model", "m", "--base-url", judge.url, "--samples", "1"]
        stated += ["--pictures", "8", "--looks", "0", "-n", "16"]
        run = CliRunner().invoke(cli.app, ["rerank", str(bundle_path), "red galaxy", "-k", "4", *stated])
        assert run.exit_code == 0 and judge.calls == 2
    assert "2 calls on 2 sheets of up to 8 pictures" in run.stderr
    wrong = CliRunner().invoke(cli.app, ["rerank", str(bundle_path), "red galaxy", "--pictures", "8"])
    assert wrong.exit_code == 2 and "--by agent" in wrong.stderr
    told = CliRunner().invoke(cli.app, ["rerank", "--by", "agent", "--show-prompt"])
    assert told.exit_code == 0 and "numbered sheet" in told.stdout
