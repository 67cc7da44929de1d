"""A watch takes in every picture once, whatever happens; its report has denominators and claims nothing."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ET
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import crash
import numpy as np
import pytest
from fake_catalogs import CONTROLS, Server
from sky_services import Fault, SkyServices, jpeg, picture

import galsearch
from galsearch.discovery.watch import feed, report, shares
from galsearch.discovery.watch.jobs import Jobs
from galsearch.discovery.watch.plan import read_plan
from galsearch.errors import GalsearchError, SchemaError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("httpx2") is None, reason="needs the package httpx2, which openai brings"),
]
HOSTILE = "<script>alert(1)</script>|`[x](http://evil.example)`\x1b[2J"


@pytest.fixture
def sky():
    with SkyServices() as services:
        yield services


@pytest.fixture
def home(tmp_path, tiny_models):
    """A folder for a plan, with the tiny models in it."""
    (tmp_path / "models").symlink_to(tiny_models)
    return tmp_path


def write(home: Path, *sources: str, top: str = "", rest: str = "") -> Path:
    """Write a plan of sources, each the lines of its table; return its path."""
    tables = "\n".join(f"[[source]]\n{lines}" for lines in sources)
    path = home / "plan.toml"
    path.write_text(f'title = "Test"\nmodels = "models"\nfree_gb = 0\nretries = 0\n{top}\n{tables}\n{rest}\n')
    return path


def cone(sky, *, name="cone", count=12, service="legacy", more=""):
    return (
        f'name = "{name}"\nkind = "sky"\nservice = "{service}"\nbase_url = "{sky.address(service)}"\ncount = {count}\n'
        f"cone = [150.0, 2.0, 20.0]\npixels = 64\n{more}"
    )


def listed(home, sky, rows, *, name="list", more="", head="object_id,ra,dec"):
    (home / f"{name}.csv").write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return (
        f'name = "{name}"\nkind = "cutouts"\nservice = "sdss"\nbase_url = "{sky.address("sdss")}"\n'
        f'table = "{name}.csv"\npixels = 64\n{more}'
    )


def grid(count: int, *, step: float = 0.1) -> list[tuple]:
    return [(f"g{number:03d}", round(number * step, 4), 1.5) for number in range(count)]


def workspace(plan: Path) -> Path:
    return plan.with_suffix(".watch")


def ids(plan: Path) -> list[str]:
    with galsearch.open(workspace(plan) / "sky.atlas", device="cpu") as atlas:
        return atlas.sql("SELECT object_id FROM galaxies ORDER BY object_id")["object_id"].to_pylist()


def states(plan: Path) -> dict[str, int]:
    jobs = Jobs(workspace(plan) / "watch.duckdb")
    try:
        return dict(jobs.rows("SELECT state, count(*) FROM items GROUP BY ALL"))
    finally:
        jobs.close()


def rows(plan: Path, statement: str) -> list[tuple]:
    jobs = Jobs(workspace(plan) / "watch.duckdb")
    try:
        return jobs.rows(statement)
    finally:
        jobs.close()


# ---- taking in


def test_everything_is_taken_in_once_and_a_second_run_requests_nothing(home, sky):
    for number in range(4):
        (home / "files").mkdir(exist_ok=True)
        (home / "files" / f"f{number}.jpg").write_bytes(jpeg(picture(200 + number, 5, 64)))
    with tarfile.open(home / "more.tar", "w") as tar:
        for number in range(3):
            content = jpeg(picture(210 + number, 5, 64))
            member = tarfile.TarInfo(f"in/t{number}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    plan = write(
        home,
        cone(sky),
        cone(sky, name="ps", service="panstarrs", count=5, more="").replace("[150.0", "[10.0"),
        cone(sky, name="hips", service="hips", count=5).replace("[150.0", "[60.0"),
        listed(home, sky, grid(6)),
        'name = "folder"\nkind = "folder"\npath = "files"',
        'name = "tar"\nkind = "archive"\npath = "more.tar"',
        top="batch = 10",
    )
    result = galsearch.watch(plan, processes=0)
    there = ids(plan)
    assert len(there) == len(set(there)) == 12 + 5 + 5 + 6 + 4 + 3
    assert {name.partition(":")[0] for name in there} == {"cone", "ps", "hips", "list", "folder", "tar"}
    assert {"list:g000", "folder:f0.jpg", "tar:in/t2.jpg", "cone:00000011"} <= set(there)
    assert result.numbers["total"]["added"] == 35
    sent = len(sky.requests)
    assert sent == 12 + 2 * 5 + 5 + 6
    assert galsearch.watch(plan, processes=0).numbers["total"]["added"] == 35
    assert (len(sky.requests), ids(plan)) == (sent, there)
    left = [path.name for path in workspace(plan).rglob("*") if path.suffix in (".jpg", ".fits")]
    assert left == []  # pictures are not kept


def test_what_comes_new_is_taken_in_the_next_time(home, sky):
    plan = write(home, listed(home, sky, grid(3)))
    galsearch.watch(plan, processes=0)
    listed(home, sky, grid(5))
    galsearch.watch(plan, processes=0)
    assert len(ids(plan)) == len(sky.requests) == 5


def test_an_empty_folder_is_reported_as_such_and_looked_into_again(home):
    inbox = home / "inbox"
    inbox.mkdir()
    plan = write(home, 'name = "inbox"\nkind = "folder"\npath = "inbox"\n')
    galsearch.watch(plan)
    assert "Nothing was requested yet" in (workspace(plan) / "reports" / "latest.md").read_text()
    (inbox / "one.jpg").write_bytes(jpeg(picture(200, 5, 64)))
    galsearch.watch(plan)
    assert len(ids(plan)) == 1
    (inbox / "one.jpg").unlink()
    galsearch.watch(plan)
    assert len(ids(plan)) == 1


def test_columns_of_a_list_come_along_with_their_types(home, sky):
    many = [(f"g{number}", number * 0.1, 2.0, 0.01 * number if number else "", f"k{number}") for number in range(4)]
    source = listed(home, sky, many, head="object_id,ra,dec,z_spec,kind", more='columns = ["z_spec", "kind"]\n')
    plan = write(home, source, cone(sky, count=2), top="batch = 1")
    galsearch.watch(plan, processes=0)
    with galsearch.open(workspace(plan) / "sky.atlas", device="cpu") as atlas:
        table = atlas.sql(
            "SELECT object_id, z_spec, kind, watch_source, ra FROM galaxies ORDER BY object_id"
        ).to_pylist()
    assert [(row["object_id"], row["z_spec"], row["kind"]) for row in table] == [
        ("cone:00000000", None, None),
        ("cone:00000001", None, None),
        ("list:g0", None, "k0"),
        ("list:g1", 0.01, "k1"),
        ("list:g2", 0.02, "k2"),
        ("list:g3", 0.03, "k3"),
    ]


def test_a_condition_chooses_from_a_table_and_reaches_no_file(home, sky):
    plan = write(home, listed(home, sky, grid(9), more='where = "ra >= 0.35 AND ra < 0.65"\n'))
    galsearch.watch(plan, processes=0)
    assert ids(plan) == ["list:g004", "list:g005", "list:g006"]
    for bad in ("ra >", "x = 1", "ra IN (SELECT ra FROM 'list.csv')", "1); DROP TABLE rows; SELECT (1"):
        listed(home, sky, grid(9))
        plan = write(home, listed(home, sky, grid(9), more=f"where = {json.dumps(bad)}\n"))
        with pytest.raises(GalsearchError, match="no condition"):
            galsearch.watch_forecast(plan)


def test_a_list_may_be_an_atlas(home, sky, tiny_bundle):
    (home / "known.duckdb").symlink_to(tiny_bundle)
    source = listed(home, sky, [], more='where = "ra IS NOT NULL AND z < 0.02"\n').replace("list.csv", "known.duckdb")
    plan = write(home, source, top="most_per_run = 5")
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        expected = atlas.count("ra IS NOT NULL AND z < 0.02")
    assert expected > 5
    assert galsearch.watch_forecast(plan).sources[0]["items"] == expected
    galsearch.watch(plan, processes=0)
    assert len(ids(plan)) == 5


# ---- never label a random position; uniform on the sphere


def test_a_random_position_gets_no_label(home, sky):
    plan = write(home, cone(sky))
    galsearch.watch(plan, processes=0)
    with galsearch.open(workspace(plan) / "sky.atlas", device="cpu") as atlas:
        names = atlas.columns()["column"].to_pylist()
        sources = atlas.sql("SELECT DISTINCT watch_source FROM galaxies")["watch_source"].to_pylist()
    assert not {"label", "class", "kind", "type"} & set(names)
    assert sources == ["cone"]
    for key in ("label", "labels", "class", "columns"):
        with pytest.raises(GalsearchError, match="random positions have no label"):
            read_plan(write(home, cone(sky, more=f'{key} = "supernova"\n')))


def test_random_positions_are_those_of_the_plan_and_uniform_on_the_sphere(home, sky):
    source = cone(sky, count=400).replace("cone = [150.0, 2.0, 20.0]", "box = [0, 360, 30, 90]")
    plan = write(home, source, top="seed = 3\nmost_per_run = 1")
    galsearch.watch(plan, processes=0)
    dec = np.array([row[0] for row in rows(plan, 'SELECT "dec" FROM items ORDER BY number')])
    assert len(dec) == 400
    assert (dec > 60).mean() == pytest.approx((1 - np.sin(np.radians(60))) / (1 - 0.5), abs=0.08)  # 0.27, not a half


# ---- what never came, and why


def test_every_way_of_not_coming_is_told_apart(home):
    def fault(sent):
        number = round(float(sent.query["ra"]) * 10)
        bad = {
            1: Fault(500, b"x"),
            2: Fault(200, b"<html>maintenance</html>"),
            3: Fault(200, jpeg(picture(1, 1, 64))[:-90]),
        }
        return bad.get(number)

    with SkyServices(fault, outside=lambda ra, dec: 0.35 < ra < 0.55) as sky:
        (home / "files").mkdir()
        (home / "files" / "black.jpg").write_bytes(jpeg(np.zeros((64, 64, 3), np.uint8)))
        (home / "files" / "half.jpg").write_bytes(jpeg(picture(5, 5, 64))[:-300])
        (home / "files" / "good.jpg").write_bytes(jpeg(picture(6, 6, 64)))
        folder = 'name = "folder"\nkind = "folder"\npath = "files"'
        plan = write(home, listed(home, sky, grid(8)), folder, top="attempts = 2")
        total = galsearch.watch(plan, processes=0).numbers
        one = total["sources"]["list"]
        assert (one["requested"], one["answered"], one["failed"], one["out of footprint"]) == (8, 5, 3, 2)
        assert (one["added"], one["empty"], one["rejected"]) == (3, 0, 0)
        files = total["sources"]["folder"]
        assert (files["empty"], files["rejected"], files["added"]) == (1, 1, 1)
        told = {(row["state"], row["source"]): row["reason"] for row in total["reasons"]}
        assert "footprint" in told["out of footprint", "list"]
        assert told["empty", "folder"] == "a picture of one value throughout"
        first = len(sky.requests)
        galsearch.watch(plan, processes=0)  # what failed is tried again, as often as the plan says
        assert len(sky.requests) == first + 3
        galsearch.watch(plan, processes=0)
        assert len(sky.requests) == first + 3
        assert states(plan)["failed"] == 3


def test_a_failure_that_passes_is_made_good(home):
    down = [True]
    with SkyServices(lambda _: Fault(503, b"") if down[0] else None) as sky:
        plan = write(home, listed(home, sky, grid(4)))
        assert galsearch.watch(plan, processes=0).numbers["total"]["failed"] == 4
        down[0] = False
        result = galsearch.watch(plan, processes=0)
    assert result.numbers["total"]["added"] == 4
    assert result.numbers["changed"]["counts"]["added"] == 4
    assert result.numbers["changed"]["counts"]["failed"] == -4


def test_a_host_that_is_down_leaves_its_items_waiting(home):
    with SkyServices(lambda _: Fault(500, b"")) as bad, SkyServices() as good:
        plan = write(home, cone(bad, name="bad", count=300), cone(good, name="good", count=5), top="threads = 1")
        result = galsearch.watch(plan, processes=0)
        assert len(bad.requests) < 20
    one = result.numbers["sources"]["bad"]
    assert one["waiting"] + one["failed"] == 300
    assert one["failed"] < 20
    assert result.numbers["sources"]["good"]["added"] == 5
    assert "500" in str(result.numbers["health"]["hosts"])


def test_the_same_content_and_the_same_position_are_taken_once(home, sky):
    (home / "files").mkdir()
    content = jpeg(picture(1, 1, 64))
    for name in ("a.jpg", "b.jpg"):
        (home / "files" / name).write_bytes(content)
    (home / "files" / "c.jpg").write_bytes(jpeg(picture(2, 1, 64)))
    near = [
        ("p", 10.0, 5.0),
        ("q", 10.0 + 0.5 / 3600, 5.0),
        ("r", 10.0 + 5 / 3600, 5.0),
        ("s", 359.99999, 0),
        ("t", 0, 0),
    ]
    folder = 'name = "folder"\nkind = "folder"\npath = "files"'
    plan = write(home, folder, listed(home, sky, near), top="threads = 1")  # or who comes first is taken
    galsearch.watch(plan, processes=0)
    assert ids(plan) == ["folder:a.jpg", "folder:c.jpg", "list:p", "list:r", "list:s"]
    same = rows(plan, "SELECT object_id, same_as FROM items WHERE state = 'duplicate' ORDER BY object_id")
    assert same == [("folder:b.jpg", "folder:a.jpg"), ("list:q", "list:p"), ("list:t", "list:s")]
    before = len(sky.requests)
    second = listed(home, sky, [("u", 10.0, 5.0 + 0.3 / 3600)], name="other")
    galsearch.watch(write(home, folder, listed(home, sky, near), second), processes=0)
    assert len(sky.requests) == before  # what is known to be there is not even requested
    assert states(plan)["duplicate"] == 4


# ---- limits


def test_a_limit_of_a_run_is_kept_and_the_rest_comes_the_next_time(home, sky):
    plan = write(home, cone(sky, count=25), top="most_per_run = 10\nbatch = 4")
    for expected in (10, 20, 25):
        galsearch.watch(plan, processes=0)
        assert len(ids(plan)) == len(sky.requests) == expected


def test_a_full_disk_ends_the_run_before_it_is_full(home, sky):
    plan = write(home, cone(sky, count=50)).read_text().replace("free_gb = 0", "free_gb = 999999")
    (home / "plan.toml").write_text(plan)
    result = galsearch.watch(home / "plan.toml", processes=0)
    assert len(sky.requests) == 0
    assert "until there is room" in str(result.numbers["health"]["events"])
    assert result.numbers["health"]["runs"][0]["how"] == "the disk is full"


def test_pictures_that_wait_are_bounded(home, sky):
    plan = read_plan(write(home, cone(sky, count=200), top="batch = 8\nthreads = 2"))
    most = []

    def seen(done, total, what):
        folder = plan.workspace / "pictures"
        most.append(len(list(folder.iterdir())) if folder.exists() else 0)

    galsearch.watch(plan, processes=0, progress=seen)
    assert max(most) <= 2 * 8 + 2 * 2
    assert len(ids(home / "plan.toml")) == 200


def test_two_watches_of_one_workspace_are_refused(home, sky):
    plan = write(home, cone(sky))
    workspace(plan).mkdir()
    from galsearch.atomic import WriterLock

    with WriterLock(workspace(plan) / "watch"), pytest.raises(GalsearchError, match="another galsearch"):
        galsearch.watch(plan)


# ---- dry run, report only


def test_a_dry_run_says_what_would_be_requested_and_changes_nothing(home, sky, run):
    plan = write(home, cone(sky, count=30), cone(sky, name="ps", service="panstarrs", count=7))
    text = plan.read_text().replace(sky.address("panstarrs"), "https://ps1images.stsci.edu/cgi-bin")
    plan.write_text(text)
    before = crash.files(home)
    code, out, _ = run("watch", plan, "--dry-run")
    assert code == 0
    assert "30 items, 30 of them new, 30 requests" in out
    assert "14 requests to ps1images.stsci.edu" in out
    assert "in all 44 requests in at least 3 s" in out  # five a second
    assert crash.files(home) == before
    assert not workspace(plan).exists()
    assert sky.requests == []


def test_a_dry_run_after_a_run_counts_what_is_left_and_changes_nothing(home, sky):
    plan = write(home, cone(sky, count=20), top="most_per_run = 8")
    galsearch.watch(plan, processes=0)
    before, sent = crash.files(home), len(sky.requests)
    result = galsearch.watch_forecast(plan)
    assert (result.sources[0]["items"], result.sources[0]["new"], result.sources[0]["requests"]) == (20, 0, 12)
    assert crash.files(home) == before
    assert len(sky.requests) == sent


def test_a_report_alone_requests_nothing(home, sky, run):
    plan = write(home, cone(sky, count=6))
    code, _, error = run("watch", plan, "--report-only")
    assert (code, "nothing was watched there yet" in error) == (1, True)
    run("watch", plan, "--processes", 0)
    sent, there = len(sky.requests), ids(plan)
    code, out, error = run("watch", plan, "--report-only")
    assert code == 0, error
    assert Path(out.strip()).name == "00002.html"
    assert (len(sky.requests), ids(plan)) == (sent, there)
    assert run("watch", plan, "--report-only", "--dry-run")[0] == 2


# ---- the report


@pytest.fixture(scope="module")
def watched(tmp_path_factory, tiny_models):
    """A plan that was carried out with scores, a queue, and hostile names."""
    home = tmp_path_factory.mktemp("watched")
    (home / "models").symlink_to(tiny_models)
    (home / "files").mkdir()
    for number in range(70):
        name = f"<img src=x onerror=alert({number})>.jpg" if number < 3 else f"f{number}.jpg"
        (home / "files" / name).write_bytes(jpeg(picture(number, 5, 64)))
    (home / "files" / "black.jpg").write_bytes(jpeg(np.zeros((64, 64, 3), np.uint8)))
    folder = 'name = "folder"\nkind = "folder"\npath = "files"'
    sources = [*CONTROLS, (0.5, 1.5, "NGC 5", "G", 3)]
    with SkyServices() as sky, Server(sources) as catalogs:
        (home / "known.csv").write_text(
            "name,ra,dec,what\n" + "".join(f"k{n},{n * 0.1},1.5,lens{n}\n" for n in range(0, 60, 2))
        )
        (home / "broken.csv").write_text("nothing here\n")
        source = listed(home, sky, grid(60))
        known = '[[identify]]\nname = "known"\ntable = "known.csv"\nradius_arcsec = 1\nlabel = "what"\n'
        known += '[[identify]]\nname = "broken"\ntable = "broken.csv"\nradius_arcsec = 1\n'
        known += '[[identify]]\nname = "gone"\ntable = "gone.csv"\nradius_arcsec = 1\n'
        service = '[[identify]]\nname = "{}"\nservice = "{}"\nbase_url = "{}"\nradius_arcsec = 1\n'
        known += service.format("answers", "simbad", catalogs.urls["simbad"])
        known += service.format("dead", "ned", "http://127.0.0.1:9/ned")
        top = 'budget = 130\nverdicts = "verdicts.csv"\nseed = 1'
        plan = write(home, folder, source, top=top, rest=known)
        plan.write_text(plan.read_text().replace('title = "Test"', f"title = {json.dumps(HOSTILE)}"))
        result = galsearch.watch(plan, processes=0)
    return plan, result


def test_what_came_in_is_scored_and_queued_once(watched):
    plan, result = watched
    total = result.numbers["total"]
    assert (total["added"], total["scored"], total["listed"]) == (130, 130, 130)
    with galsearch.open(workspace(plan) / "sky.atlas", device="cpu") as atlas:
        saved = atlas.saved_anomalies()
        assert sorted(saved["object_id"].to_pylist()) == ids(plan)
        p = dict(zip(saved["object_id"].to_pylist(), saved["p_value"].to_pylist(), strict=True))
    assert {one["object_id"]: one["p_value"] for one in result.numbers["queue"]} == p


def test_who_is_known_has_four_answers_and_a_failure_is_never_not_found(watched):
    plan, result = watched
    known = result.numbers["identified"]
    assert known["known"] == {"listed": 130, "known": 30, "not found": 30, "not checked": 70}  # no position in a folder
    assert known["broken"]["not found"] == known["gone"]["not found"] == 0
    assert known["broken"]["not checked"] == known["gone"]["not checked"] == 130
    assert known["answers"] == {"listed": 130, "known": 1, "not found": 59, "not checked": 70}
    assert known["dead"]["not found"] == known["dead"]["known"] == 0
    said = "SELECT object_id, label FROM identifications WHERE state = 'known' AND against = '{}'"
    labels = dict(rows(plan, said.format("known")))
    assert labels["list:g004"] == "lens4"
    assert rows(plan, said.format("answers")) == [("list:g005", "NGC 5 (G)")]
    reasons = {row[0] for row in rows(plan, "SELECT reason FROM identifications WHERE state = 'not checked'")}
    assert any("no position" in reason for reason in reasons)
    assert any("gone.csv" in reason for reason in reasons)
    texts = {one["object_id"]: " ".join(one["known"]) for one in result.numbers["queue"]}
    assert "known by known as lens4, 0.00 arcsec away" in texts["list:g004"]
    assert "not found in known" in texts["list:g005"]


def test_the_report_claims_nothing_and_loads_nothing(watched):
    _, result = watched
    page, text = result.html.read_text(), result.markdown.read_text()
    for content in (page, text, result.feed.read_text(), json.dumps(report.hook_message(result.numbers))):
        assert "discover" not in content.lower()
        assert "\x1b" not in content
    assert "<script" not in page
    assert "onerror=alert(1)>" not in page.replace("&gt;", "")
    assert not re.search(r"<img (?!alt=\"[^\"]*\" src=\"data:image/)", page)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert page.count("data:image/webp;base64,") == 60
    assert "<img src=x" not in text
    assert not re.search(r"(?<!\\)\]\(", text)  # no link
    assert "A list is a reason to look" in page
    assert "Near-duplicates" in page
    assert "only the tables and services that the plan names" in text


def test_the_report_has_denominators_null_results_and_health(watched):
    _, result = watched
    text = result.markdown.read_text()
    assert "| folder | 71 of 71 (100.0 %) | 70 of 71 (98.6 %) | 70 of 70 (100.0 %) | 70 of 70 (100.0 %) |" in text
    assert "none judged by people yet; its yield is not known" in text
    assert "GB free" in text
    assert "127.0.0.1" in text
    assert "nothing is left to do" in text


def test_verdicts_make_yields_and_what_is_decided_leaves_the_queue(watched, tmp_path):
    plan, first = watched
    copy = tmp_path / "copy"
    shutil.copytree(plan.parent, copy, symlinks=True)
    judged = [one["object_id"] for one in first.numbers["queue"] if one["source"] == "list"][:10]
    lines = [
        f"{name},{'yes' if number < 8 else 'no'},ann,2026-12-01T00:00:0{number % 10},odd"
        for number, name in enumerate(judged)
    ]
    (copy / "verdicts.csv").write_text("object_id,verdict,by,time,kind\n" + "\n".join(lines) + "\n")
    result = galsearch.watch_report(copy / "plan.toml")
    one = result.numbers["sources"]["list"]
    assert (one["yes"], one["no"], one["yield"]) == (8, 2, 0.8)
    assert one["interval"] == pytest.approx((0.490, 0.943), abs=0.001)
    assert not set(judged) & {each["object_id"] for each in result.numbers["queue"]}
    assert result.numbers["changed"]["judged"] == {"yes": 8, "no": 2, "unsure": 0}
    assert "8 of 10, 0.80 [0.49, 0.94]" in result.markdown.read_text().replace("\\", "")


def test_the_feed_is_atom_with_an_entry_for_each_new_object(watched):
    _, result = watched
    root = ET.fromstring(result.feed.read_text())
    entries = root.findall(f"{{{feed.ATOM}}}entry")
    assert len(entries) == 131
    named = [entry.find(f"{{{feed.ATOM}}}id").text for entry in entries]
    assert len(set(named)) == len(named)
    for element in (root, *entries):
        assert {"id", "title", "updated"} <= {child.tag.partition("}")[2] for child in element}
    later = {**result.numbers, "number": 2, "changed": {**_nothing_new(), "since": "x"}}
    assert len(ET.fromstring(feed.atom("t", [later, result.numbers])).findall(f"{{{feed.ATOM}}}entry")) == 132


def _nothing_new() -> dict:
    return {"newly_listed": [], "counts": {}, "judged": {}, "sources": []}


def test_a_webhook_that_fails_is_told_and_tried_again(home, sky):
    hook = f'[webhook]\nurl = "{sky.url}/hook?token=secret"'
    plan = write(home, cone(sky, count=3), rest=hook)
    sky.post_status = 500
    result = galsearch.watch(plan, processes=0)
    assert "was not taken by 127.0.0.1" in result.webhook
    assert result.html.exists()
    assert sky.posted == []
    sky.post_status = 200
    second = galsearch.watch_report(plan)
    assert "every report was sent" in second.webhook
    assert [one["number"] for one in sky.posted] == [1, 2]
    assert sky.posted[0]["total"]["added"] == 3
    galsearch.watch_report(plan)
    assert [one["number"] for one in sky.posted] == [1, 2, 3]
    for path in (workspace(plan) / "reports").iterdir():
        assert "secret" not in path.read_text()


# ---- shares


def test_shares_follow_verified_yields_and_nobody_is_left_out():
    yields = {"good": (40, 10), "bad": (1, 60), "new": (0, 0)}
    drawn = shares.allocate(yields, 1000, least=0.05, seed=[1, 2])
    assert sum(drawn.values()) == 1000
    assert drawn == shares.allocate(yields, 1000, least=0.05, seed=[1, 2])
    assert drawn["good"] > 600
    assert drawn["bad"] == 50
    assert drawn["new"] > 100  # it may be better, nobody knows
    even = shares.allocate(dict.fromkeys(yields, (0, 0)), 3000, least=0.0, seed=[0])
    assert min(even.values()) > 900


def test_a_thompson_share_is_the_chance_of_being_the_best():
    yields = {"a": (6, 4), "b": (4, 6)}
    rng = np.random.default_rng(0)
    best = np.mean(rng.beta(7, 5, 200_000) > rng.beta(5, 7, 200_000))
    assert shares.allocate(yields, 20_000, least=0, seed=[4])["a"] / 20_000 == pytest.approx(best, abs=0.02)


def test_shares_of_a_run_change_with_verdicts_and_not_with_scores(home, sky):
    sources = [cone(sky, name="one", count=400), cone(sky, name="two", count=400).replace("[150.0", "[30.0")]

    def first_requests(verdicts: str, scores: float) -> dict[str, int]:
        shutil.rmtree(home / "plan.watch", ignore_errors=True)
        (home / "verdicts.csv").write_text("object_id,verdict,by,time,kind\n" + verdicts)
        plan = write(
            home, *sources, top='most_per_run = 40\nverdicts = "verdicts.csv"\nmeasure = "none"\nleast_share = 0'
        )
        galsearch.watch(plan, processes=0)
        jobs = Jobs(workspace(plan) / "watch.duckdb")
        with jobs.changing() as connection:
            connection.execute(
                f"INSERT INTO queue SELECT object_id, 'r', {scores}, 0, 99, '', '', '', 0 FROM items WHERE source "
                f"= 'two'"
            )
        jobs.close()
        plan.write_text(plan.read_text().replace("most_per_run = 40", "most_per_run = 200"))
        galsearch.watch(plan, processes=0)
        return dict(rows(plan, "SELECT source, count(*) FROM items WHERE run = 2 GROUP BY source"))

    yes = "".join(f"one:{n:08d},yes,ann,2026-05-01T12:00:{n:02d}Z,odd\n" for n in range(20)) + "".join(
        f"two:{n:08d},no,ann,2026-05-01T12:00:{n:02d}Z,odd\n" for n in range(20)
    )
    good = first_requests(yes, 0.5)
    assert good.get("one", 0) > 3 * good.get("two", 1)
    assert first_requests(yes, 1e-9) == good  # whatever a model says of the other source
    even = first_requests("", 1e-9)
    assert 0.5 < even["one"] / even["two"] < 2


def test_the_last_word_of_each_person_counts_and_the_majority_decides(tmp_path):
    said = ["a,yes,ann", "a,no,ann", "b,yes,ann", "b,yes,bob", "b,no,eve", "c,yes,ann", "c,no,bob", "d,unsure,ann"]
    path = tmp_path / "v.csv"
    lines = [f"{one},2026-05-01T12:00:0{second}Z,odd" for second, one in enumerate(said)]
    path.write_text("\n".join(["object_id,verdict,by,time,kind", *lines]))
    assert shares.decided(shares.read_verdicts(path)) == {"a": "no", "b": "yes", "c": "unsure", "d": "unsure"}
    assert shares.read_verdicts(tmp_path / "none.csv") == []
    path.write_text("object_id,verdict,by,kind\na,maybe,ann,odd\n")
    with pytest.raises(SchemaError, match="row 1"):
        shares.read_verdicts(path)
    path.write_text("object_id,by,time\n")
    with pytest.raises(SchemaError, match="no column 'verdict'"):
        shares.read_verdicts(path)


def test_a_file_of_verdicts_counts_without_what_was_taken_back(tmp_path):
    kept = galsearch.Verdicts(tmp_path / "plan.verdicts")
    kept.add("a", "yes", kind="odd", by="ann")
    kept.add("b", "yes", kind="odd", by="ann")
    kept.undo(by="ann")
    kept.add("c", "label", label="tidal tail", kind="odd", by="ann")
    assert shares.decided(shares.read_verdicts(tmp_path / "plan.verdicts")) == {"a": "yes", "c": "unsure"}


@pytest.mark.parametrize(("yes", "total"), [(0, 5), (5, 5), (3, 7), (50, 100)])
def test_the_interval_of_a_yield_solves_wilsons_equation(yes, total):
    low, high = shares.wilson(yes, total)
    for end in (low, high):
        if 0 < end < 1:
            assert (yes / total - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / total, rel=1e-6)
    assert low <= yes / total <= high
    assert shares.wilson(0, 0) is None


# ---- what is lost and comes back


def test_lost_records_are_made_again_from_the_atlas(home, sky):
    plan = write(home, cone(sky, count=20), top="batch = 6")
    galsearch.watch(plan, processes=0)
    there, sent = ids(plan), len(sky.requests)
    (workspace(plan) / "watch.duckdb").unlink()
    result = galsearch.watch(plan, processes=0)
    assert (ids(plan), len(sky.requests)) == (there, sent)
    assert result.numbers["total"]["added"] == 20
    batches = rows(plan, "SELECT count(DISTINCT batch), max(batch) FROM items")
    assert batches == [(4, 4)]


def test_lists_that_were_saved_are_taken_from_the_atlas_when_records_are_lost(watched, tmp_path):
    plan, first = watched
    copy = tmp_path / "copy"
    shutil.copytree(plan.parent, copy, symlinks=True)
    (copy / "plan.watch" / "watch.duckdb").unlink()
    result = galsearch.watch(copy / "plan.toml", processes=0)  # nobody serves pictures any more, and none is needed
    assert result.numbers["total"]["failed"] == 0
    assert result.numbers["total"]["scored"] == 130

    def listed_in(numbers: dict) -> list[tuple]:
        return [(one["object_id"], one["p_value"], one["q_value"], len(one["known"])) for one in numbers["queue"]]

    assert listed_in(result.numbers) == listed_in(first.numbers)


def test_a_picture_of_a_killed_run_is_never_taken_for_another(home, sky):
    (home / "files").mkdir()
    for name in ("b.jpg", "c.jpg"):
        (home / "files" / name).write_bytes(jpeg(picture(ord(name[0]), 5, 64)))
    plan = write(home, 'name = "folder"\nkind = "folder"\npath = "files"')
    galsearch.watch(plan, processes=0)
    shutil.rmtree(workspace(plan) / "sky.atlas")
    left = jpeg(picture(77, 7, 64))
    from galsearch.discovery.watch.intake import stem_of

    (workspace(plan) / "pictures" / f"{stem_of('folder:a.jpg')}.jpg").write_bytes(left)  # of an item that is gone
    (workspace(plan) / "watch.duckdb").unlink()
    (home / "files" / "a2.jpg").write_bytes(jpeg(picture(3, 5, 64)))  # the first by number now
    galsearch.watch(plan, processes=0)
    digests = dict(rows(plan, "SELECT item, digest FROM items"))
    expected = {path.name: sha256(path.read_bytes()).hexdigest() for path in (home / "files").iterdir()}
    assert digests == expected


def test_a_lost_atlas_is_told_and_fetched_again(home, sky):
    plan = write(home, cone(sky, count=9))
    galsearch.watch(plan, processes=0)
    there = ids(plan)
    shutil.rmtree(workspace(plan) / "sky.atlas")
    result = galsearch.watch(plan, processes=0)
    assert ids(plan) == there
    assert len(sky.requests) == 18
    assert "9 objects are not in" in str(result.numbers["health"]["events"])


def test_a_damaged_record_file_is_one_clear_error(home, sky):
    plan = write(home, cone(sky))
    workspace(plan).mkdir()
    (workspace(plan) / "watch.duckdb").write_bytes(b"x" * 5000)
    with pytest.raises(GalsearchError, match="move it away"):
        galsearch.watch(plan)


def test_ctrl_c_says_how_to_go_on_and_nothing_is_lost(home):
    with SkyServices(lambda _: Fault(wait_seconds=0.05)) as sky:
        plan = write(home, cone(sky, count=60), top="batch = 10\nthreads = 2")
        command = [
            sys.executable,
            "-c",
            "from galsearch.cli import main; main()",
            "watch",
            str(plan),
            "--processes",
            "0",
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
        crash.wait_for(lambda: len(sky.requests) > 15)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130, error
        assert "run the same command again to go on" in error
        assert "Traceback" not in error
        galsearch.watch(plan, processes=0)
        assert len(ids(plan)) == 60
        assert len(sky.requests) <= 60 + 2  # what was under way when it was stopped


# ---- plans


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("count = 12", "count = 0"), r"source\[1\].count: it is 0; write a whole number from 1"),
        (("count = 12", 'count = "many"'), r"source\[1\].count: it is 'many'"),
        (("count = 12\n", ""), r"source\[1\].count: it is missing"),
        (("cone = [150.0, 2.0, 20.0]", "cone = [150.0, 2.0]"), "a list of 3 numbers"),
        (("cone = [150.0, 2.0, 20.0]", "cone = [150.0, 2.0, 200.0]"), "radius of the cone is 200"),
        (("pixels = 64", "pixels = 4"), r"source\[1\].pixels"),
        (("pixels = 64", "pixel = 64"), "no option 'pixel'"),
        (('kind = "sky"', 'kind = "heaven"'), "one of folder, archive, cutouts, sky"),
        (('service = "legacy"', 'service = "des"'), "not one of legacy, sdss, panstarrs, hips"),
        (("retries = 0", "retries = -1"), "retries: it is -1"),
        (("retries = 0", "requests_per_second = 50"), "requests_per_second: it is 50; write a number from 0.001 to 5"),
        (("retries = 0", "flavor = 1"), "flavor: there is no such key"),
        (("retries = 0", "fdr = true"), "fdr"),
        (("http://127.0.0.1", "http://example.org"), "over which anyone"),
        (("[[source]]", "[source]"), r"write it as \[\[source\]\]"),
        (('title = "Test"', "title = "), "no TOML"),
        (("retries = 0", '[webhook]\nurl = "http://example.org/x"'), "webhook"),
        (("retries = 0", '[hosts]\n"a.org" = "fast"'), "hosts.a.org"),
    ],
)
def test_a_wrong_plan_names_the_key_and_the_remedy(home, sky, change, told):
    plan = write(home, cone(sky))
    assert change[0] in plan.read_text()
    plan.write_text(plan.read_text().replace(*change))
    with pytest.raises(GalsearchError, match=told):
        galsearch.watch(plan)
    assert not workspace(plan).exists()
    assert sky.requests == []


def test_a_plan_that_is_not_there_or_has_no_source_is_one_line(home, run):
    assert run("watch", home / "none.toml")[0] == 1
    (home / "empty.toml").write_text('title = "x"\n')
    code, _, error = run("watch", home / "empty.toml")
    assert (code, "add a table [[source]]" in error) == (1, True)


def test_two_sources_of_one_name_are_refused(home, sky):
    with pytest.raises(GalsearchError, match="two are called 'cone'"):
        read_plan(write(home, cone(sky), cone(sky)))


@pytest.mark.parametrize("name", ["columns", "id_column"])
def test_a_column_that_is_not_there_is_named(home, sky, name):
    value = '["mass"]' if name == "columns" else '"mass"'
    plan = write(home, listed(home, sky, grid(3), more=f"{name} = {value}\n"))
    with pytest.raises(GalsearchError, match="no column 'mass'"):
        galsearch.watch(plan, processes=0)


# ---- kills


@pytest.mark.durability
def test_a_watch_killed_at_any_moment_takes_in_everything_once(home, tmp_path):
    kills = max(6, round(float(os.environ.get("GALSEARCH_KILLS", "1")) * 24))
    rng = np.random.default_rng(5)
    with SkyServices() as sky, crash.Crew(spare=1) as crew:
        plan = write(
            home, cone(sky, count=60), listed(home, sky, grid(30)), top='batch = 12\ncycle = 45\nmeasure = "none"'
        )
        job = ("cli", {"arguments": ["watch", str(plan), "--processes", "0"]})
        worker = crew.start(*job)
        said = worker.finish()
        assert said["result"]["status"] == 0, said
        moments, expected = said["moments"], ids(plan)
        assert len(expected) == 90
        shutil.rmtree(workspace(plan))
        done = dead = 0
        queue: set = set()
        for number in range(kills):
            moment = int(rng.integers(1, max(moments // 6, 10) if number % 2 else max(moments, 10)))
            worker = crew.start(*job, stop=(moment, "SIGKILL"))
            said = worker.read(seconds=crash.WAIT_SECONDS)
            worker.kill()
            dead, done = dead + (said is None), done + (said is not None)
            now = (
                set(rows(plan, "SELECT object_id, run FROM queue"))
                if (workspace(plan) / "watch.duckdb").exists()
                else set()
            )
            assert queue <= now, "a decision was lost"
            queue = now
            if done and number < kills // 2:
                shutil.rmtree(workspace(plan))
                done, queue = 0, set()
        galsearch.watch(plan, processes=0)
    assert dead > kills // 3
    assert ids(plan) == expected
    assert states(plan) == {"scored": 90}
    twice = rows(plan, "SELECT count(*) - count(DISTINCT (object_id, run)) FROM queue")
    assert twice == [(0,)]
    with galsearch.open(workspace(plan) / "sky.atlas", device="cpu") as atlas:
        assert [finding for finding in atlas.check() if not finding.ok] == []
        vectors = atlas.sql("SELECT count(*) AS n FROM embedding_image")["n"].to_pylist()
        saved = atlas.sql("SELECT count(*) AS n, count(DISTINCT object_id) AS m FROM anomalies").to_pylist()
    assert vectors == [90]
    assert saved == [{"n": 90, "m": 90}]


def test_time_is_not_lost_when_there_is_nothing_to_do(home, sky):
    plan = write(home, cone(sky, count=3))
    galsearch.watch(plan, processes=0)
    began = time.monotonic()
    galsearch.watch(plan, processes=0)
    assert time.monotonic() - began < 10


# ---- plans and runs that cannot do what they say


@pytest.mark.parametrize(
    ("folder", "top"),
    [
        ("pictures", 'workspace = "pictures/work"'),
        ("pictures", 'workspace = "pictures"'),
        ("work/pictures", 'workspace = "work"'),
        ("pictures", 'workspace = "other/../pictures/work"'),
        ("pictures", 'workspace = "link/work"'),
        (".", ""),
        ("pictures", 'workspace = "work"\natlas = "../pictures/sky.atlas"'),
    ],
)
def test_a_workspace_and_a_source_that_lie_in_each_other_are_refused(home, folder, top):
    (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "link").symlink_to(home / "pictures")
    plan = write(home, f'name = "files"\nkind = "folder"\npath = "{folder}"\n', top=top)
    with pytest.raises(GalsearchError, match=r"plan.toml: source\[1\].path: .* lie in each other; name another"):
        read_plan(plan)
    assert not list(home.rglob("watch.duckdb"))


def test_a_wrong_key_of_a_plan_is_told_beside_all_that_there_are(home):
    plan = write(home, 'name = "a"\nkind = "folder"\npath = "x"\n', top="sources = 1")
    with pytest.raises(GalsearchError, match=r"the keys are title, .*source, identify, hosts, webhook"):
        read_plan(plan)


def test_a_dry_run_tells_a_source_that_cannot_be_read_and_counts_the_others(home, sky, run):
    plan = write(home, cone(sky), 'name = "gone"\nkind = "folder"\npath = "gone"\n')
    code, told, _ = run("watch", plan, "--dry-run")
    assert code == 1 and "cannot be used: source 'gone' cannot be read" in told and "cone: 12 items" in told


def test_a_dry_run_tells_what_the_plan_names_and_is_not_there_and_exits_with_1(home, sky, run):
    rest = '[[identify]]\nname = "gone"\ntable = "gone.csv"\nradius_arcsec = 2\n'
    plan = write(home, cone(sky), top='verdicts = "none.verdicts"', rest=rest)
    code, told, _ = run("watch", plan, "--dry-run")
    assert code == 1
    assert f"cannot be used: identify 'gone': {home / 'gone.csv'}: no such file or folder" in told
    assert "none.verdicts is not there yet" in told and not workspace(plan).exists()
    (home / "gone.csv").write_text("ra,dec\n1,2\n")
    (home / "none.verdicts").write_text("object_id,verdict\na,yes\n")
    code, told, _ = run("watch", plan, "--dry-run")
    assert code == 1
    assert "cannot be used: verdicts:" in told and "identify 'gone'" not in told
    (home / "none.verdicts").unlink()
    assert run("watch", plan, "--dry-run")[0] == 0


@pytest.mark.parametrize("call", [galsearch.watch, galsearch.watch_forecast])
def test_a_workspace_that_is_a_file_is_one_error_with_a_remedy(home, sky, call):
    plan = write(home, cone(sky))
    workspace(plan).write_text("mine")
    if call is galsearch.watch:
        with pytest.raises(GalsearchError, match=r"must be a folder that may be written.*name another `workspace`"):
            call(plan)
    else:
        assert "is no folder that may be written; mend workspace" in "\n".join(call(plan).lines())
    assert workspace(plan).read_text() == "mine"


def test_a_full_disk_and_a_host_that_is_down_are_told_and_exit_with_1(home, sky, run):
    full = write(home, cone(sky), top="disk_gb = 0.01")
    workspace(full).mkdir()
    (workspace(full) / "big").write_bytes(bytes(11 << 20))
    code, _, told = run("watch", full, "--processes", 0)
    assert code == 1
    assert "not done: " in told and "nothing more is fetched until there is room" in told
    latest = (workspace(full) / "reports" / "latest.md").read_text()
    assert "## Not done" in latest and "12 items not requested or not answered yet, 12 of them positions" in latest
    (workspace(full) / "big").unlink()
    code, _, told = run("watch", full, "--processes", 0)
    assert code == 0
    assert "not done" not in told
    assert "## Not done" not in (workspace(full) / "reports" / "latest.md").read_text()


def test_a_host_that_is_down_is_told_with_what_waits_for_it(home, run):
    with SkyServices(lambda _: Fault(500, b"")) as down:
        plan = write(home, cone(down, count=30), top="threads = 1\nbatch = 8")
        code, _, told = run("watch", plan, "--processes", 0)
        assert code == 1
    waiting = states(plan)["waiting"]
    assert waiting > 0 and f"not done: {waiting} items of 'cone' wait: 127.0.0.1" in told
    assert "run the same command when it answers" in (workspace(plan) / "reports" / "latest.md").read_text()


def test_a_picture_that_the_disk_does_not_take_waits_and_is_not_rejected(home, sky, monkeypatch):
    from galsearch.discovery.watch import intake

    def full(path, content):
        raise OSError(28, "No space left on device")

    plan = write(home, cone(sky))
    with monkeypatch.context() as patch:
        patch.setattr(intake, "write_picture", full)
        result = galsearch.watch(plan, processes=0)
    assert states(plan) == {"waiting": 12}
    assert "pictures could not be kept: its picture cannot be written (No space left on device)" in result.unfinished[0]
    assert galsearch.watch(plan, processes=0).unfinished == [] and len(ids(plan)) > 0


def test_progress_never_passes_its_total_where_items_are_left_out_or_are_fewer_than_asked(home, sky):
    seen = []
    near = [(f"p{number}", 10.0 + number // 2, 5.0) for number in range(40)]  # each second one is a duplicate
    plan = write(home, listed(home, sky, near))
    galsearch.watch(plan, processes=0, progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen and all(0 <= done <= total for done, total, _ in seen), seen
    assert any(what == "fetching" and done == total for done, total, what in seen)
