"""Pictures prepared for an atlas: all at once or little by little, here or in other processes, it comes to the same."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tiny_models import picture

import galsearch
from galsearch.errors import GalsearchError, SchemaError
from galsearch.sources import MEASURED, Workshop, open_source
from galsearch.sources.workshop import in_order

FORM = ("asymmetry", "gini", "sersic_n", "petrosian_radius_px", "morphology_flag")
COLORS = ("red", "blue", "green", "white")


def draw(folder: Path, count: int) -> Path:
    """Write pictures that all differ, and a bad one in the middle."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = picture(color=COLORS[number % 4], shape=("round", "face")[number % 2], size_px=32 + number % 5)
        noisy = pixels + np.random.default_rng(number).integers(0, 9, pixels.shape).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"g{number:03d}.png")
    (folder / "g003.png").write_bytes(b"not a picture")
    return folder


def seen_by_readers(path: Path) -> tuple[pa.Table, np.ndarray, dict[str, bytes]]:
    """Return rows, vectors and thumbnails of an atlas."""
    with galsearch.open(path, device="cpu") as atlas:
        ids = atlas.search(k=1000).ids
        return atlas.rows(ids), np.stack([atlas.embed(atlas[each]) for each in ids]), atlas.thumbnails(ids)


def assert_same(one: Path, other: Path) -> None:
    (rows, vectors, thumbnails), theirs = seen_by_readers(one), seen_by_readers(other)
    assert sorted(rows.column_names) == sorted(theirs[0].column_names)
    assert rows.equals(theirs[0].select(rows.column_names))
    np.testing.assert_array_equal(vectors, theirs[1])
    assert thumbnails == theirs[2]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("pictures") / "cutouts", 21)


@pytest.fixture(scope="module")
def alone(pictures, tiny_models, tmp_path_factory):
    """An atlas of the pictures, made by this process alone."""
    path = tmp_path_factory.mktemp("alone") / "x.atlas"
    galsearch.build(path, images=pictures, models=tiny_models, processes=0)
    return path


def test_other_processes_make_the_same_atlas(alone, pictures, tiny_models, tmp_path):
    report = galsearch.build(tmp_path / "x.atlas", images=pictures, models=tiny_models, processes=2)
    assert (report.rows, [each["file"] for each in report.rejected]) == (20, ["g003.png"])
    assert_same(alone, tmp_path / "x.atlas")


def test_a_process_that_is_killed_costs_no_picture(alone, pictures, tiny_models, tmp_path):
    killed = []

    def kill(done: int, total: int, what: str) -> None:
        if done and not killed:  # the only one is at work: a second one might be starting still
            killed.extend(children())
            for each in killed:
                os.kill(each, signal.SIGKILL)

    report = galsearch.build(tmp_path / "x.atlas", images=pictures, models=tiny_models, processes=1, progress=kill)
    assert killed
    assert report.rows == 20
    assert_same(alone, tmp_path / "x.atlas")


def children() -> list[int]:
    """Return the processes that this one has started to read pictures."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            stated, call = (each / "stat").read_text(), (each / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stated.rpartition(")")[2].split()[1]) == os.getpid() and b"galsearch.workers" in call:
            found.append(int(each.name))
    return found


def test_a_picture_that_takes_more_memory_than_it_may_is_left_out_by_name(pictures, tmp_path):
    folder = draw(tmp_path / "cutouts", 6)
    Image.new("RGB", (4000, 4000), (1, 2, 3)).save(folder / "g004.png")
    with Image.open(folder / "g004.png") as large:
        large.putpixel((2000, 2000), (200, 200, 200))
        large.save(folder / "g004.png")
    workshop = Workshop(processes=1)
    workshop = replace(workshop, limits=replace(workshop.limits, memory_bytes=400 << 20))
    (batch,) = open_source(folder, None, vectors=None).batches([range(6)], workshop)
    assert batch.table["object_id"].to_pylist() == ["g000", "g001", "g002", "g005"]
    assert [each["file"] for each in batch.rejected] == ["g003.png", "g004.png"]
    assert "memory" in batch.rejected[1]["reason"]


def test_a_script_without_a_guard_builds_once(pictures, tiny_models, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import galsearch\nprint('once')\n"
        f"galsearch.build({str(tmp_path / 'x.atlas')!r}, images={str(pictures)!r}, models={str(tiny_models)!r}, "
        "processes=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "once\n"
    assert (tmp_path / "x.atlas").is_dir()


def test_a_build_leaves_no_process_behind(pictures, tiny_models, tmp_path):
    galsearch.build(tmp_path / "x.atlas", images=pictures, models=tiny_models, processes=2)

    def stop(done: int, total: int, what: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        galsearch.build(tmp_path / "y.atlas", images=pictures, models=tiny_models, processes=2, progress=stop)
    end = time.monotonic() + 10
    while children() and time.monotonic() < end:
        time.sleep(0.02)
    assert children() == []


def test_progress_tells_every_picture(pictures, tiny_models, tmp_path):
    told = []
    galsearch.build(
        tmp_path / "x.atlas", images=pictures, models=tiny_models, progress=lambda done, total, what: told.append(done)
    )
    assert told == [0, *range(1, 22), 21]


def test_a_wrong_number_of_processes_is_refused():
    with pytest.raises(GalsearchError, match="processes is -1"):
        Workshop(processes=-1)


def test_few_pictures_start_no_process():
    workshop = Workshop(least_rows=10)
    assert workshop.processes_for(9) == 0
    assert workshop.processes_for(10) >= 1
    assert replace(workshop, processes=3).processes_for(2) == 3


# ---- in order


def test_results_come_in_the_order_of_the_groups_whoever_is_first():
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number * number

    assert list(in_order(iter(range(20)), work, threads=3, ahead=5)) == [number * number for number in range(20)]


def test_no_more_groups_are_taken_than_may_wait():
    taken, most = [], []

    def groups():
        for number in range(30):
            taken.append(number)
            yield number

    for done in in_order(groups(), lambda number: number, threads=2, ahead=4):
        time.sleep(0.002)
        most.append(len(taken) - done - 1)
    assert max(most) <= 4


def test_what_is_raised_comes_where_the_result_would_have():
    def work(number: int) -> int:
        if number == 3:
            raise SchemaError("the third")
        return number

    results = in_order(iter(range(6)), work, threads=2, ahead=3)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SchemaError, match="the third"):
        next(results)
    assert not [one for one in threading.enumerate() if one.name.startswith("prepare objects")]


def test_what_the_groups_raise_comes_too():
    def groups():
        yield 0
        raise SchemaError("no more")

    results = in_order(groups(), lambda number: number, threads=2, ahead=3)
    assert next(results) == 0
    with pytest.raises(SchemaError, match="no more"):
        next(results)


# ---- less measured, and the rest later


@pytest.fixture(scope="module", params=["none", "basic"])
def less(request, pictures, tiny_models, tmp_path_factory):
    """An atlas of the pictures of which less is measured, and how much."""
    path = tmp_path_factory.mktemp(request.param) / "x.atlas"
    galsearch.build(path, images=pictures, models=tiny_models, measure=request.param)
    return path, request.param


def columns_of(path: Path) -> set[str]:
    with galsearch.open(path) as atlas:
        return set(atlas.columns()["column"].to_pylist())


def copied(atlas: Path, folder: Path) -> Path:
    return Path(shutil.copytree(atlas, folder / "copy.atlas"))


def test_what_is_not_measured_has_no_column(less, alone):
    path, level = less
    there = columns_of(path)
    assert not there & set(FORM)
    assert ("axis_ratio" in there) == (level == "basic")
    assert set(MEASURED) <= columns_of(alone)
    with galsearch.open(path) as atlas:
        assert atlas.manifest.provenance[0]["parameters"]["measure"] == level


def test_measuring_later_comes_to_the_same_as_at_once(less, alone, tmp_path):
    atlas = copied(less[0], tmp_path)
    report = galsearch.measure(atlas)
    assert (report.added, report.rows) == (20, 20)
    assert [each["file"] for each in report.rejected] == ["g003.png"]
    assert_same(alone, atlas)
    with galsearch.open(atlas) as opened:
        assert {each.ok for each in opened.check()} == {True}
        assert [each["action"] for each in opened.manifest.provenance] == ["build", "measure"]
        units = {row["column"]: row["unit"] for row in opened.columns().to_pylist()}
        assert units["petrosian_radius_px"] == "pixel"
    assert galsearch.measure(atlas).added == 0  # nothing is left to do
    bundle = galsearch.bundle(atlas, tmp_path / "x.duckdb")
    assert seen_by_readers(bundle)[0].equals(seen_by_readers(atlas)[0])


def test_measuring_goes_on_where_it_stopped(less, alone, tmp_path, monkeypatch):
    atlas, seen = copied(less[0], tmp_path), []
    monkeypatch.setattr("galsearch.ingest.BATCH_ROWS", 5)

    def stop(done: int, total: int, what: str) -> None:
        seen.append(done)
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        galsearch.measure(atlas, progress=stop)
    assert_same(less[0], atlas)
    again = []
    galsearch.measure(atlas, progress=lambda done, total, what: again.append(done))
    assert min(done for done in again if done) == 11
    assert_same(alone, atlas)


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_pictures_that_are_not_what_they_were_are_named_with_the_remedy(tiny_models, tmp_path, change):
    folder = draw(tmp_path / "cutouts", 5)
    atlas = tmp_path / "x.atlas"
    galsearch.build(atlas, images=folder, models=tiny_models, measure="none")
    if change == "gone":
        folder.rename(tmp_path / "moved")
    else:
        Image.fromarray(picture(color="blue", shape="face", size_px=40)).save(folder / "g000.png")
    before = seen_by_readers(atlas)[0]
    with pytest.raises(GalsearchError, match=r"cutouts.*--images"):
        galsearch.measure(atlas)
    assert seen_by_readers(atlas)[0].equals(before)
    report = galsearch.measure(atlas, images=tmp_path / ("moved" if change == "gone" else "cutouts"))
    assert report.added == 4
    assert set(FORM) <= columns_of(atlas)


def test_pictures_of_a_part_leave_the_others_as_they_are(tiny_models, tmp_path):
    folder = draw(tmp_path / "cutouts", 5)
    atlas = tmp_path / "x.atlas"
    galsearch.build(atlas, images=folder, models=tiny_models, measure="basic")
    before = {row["object_id"]: row["axis_ratio"] for row in seen_by_readers(atlas)[0].to_pylist()}
    part = tmp_path / "part"
    part.mkdir()
    (folder / "g001.png").rename(part / "g001.png")
    Image.fromarray(picture(color="blue", shape="face", size_px=40)).save(part / "other.png")
    report = galsearch.measure(atlas, images=part)
    assert report.added == 1
    rows = {row["object_id"]: row for row in seen_by_readers(atlas)[0].to_pylist()}
    assert {name: row["axis_ratio"] for name, row in rows.items()} == before
    assert [name for name, row in rows.items() if row["morphology_flag"] is not None] == ["g001"]
    (part / "g001.png").rename(folder / "g001.png")
    assert galsearch.measure(atlas, images=folder).added == 4  # some are left, so that it is done again


def test_added_pictures_are_measured_as_those_before(less, pictures, tiny_models, tmp_path):
    atlas, level = copied(less[0], tmp_path), less[1]
    more = tmp_path / "more"
    more.mkdir()
    Image.fromarray(picture(color="blue", shape="face", size_px=40)).save(more / "h.png")
    galsearch.add(atlas, images=more, models=tiny_models)
    assert ("axis_ratio" in columns_of(atlas)) == (level == "basic")
    assert galsearch.measure(atlas).added == 21
    with galsearch.open(atlas) as opened:
        assert opened.rows(["h"])["morphology_flag"][0].as_py() is not None


def test_a_mosaic_is_cut_and_measured_later(tiny_models, tmp_path):
    rng = np.random.default_rng(0)
    light = rng.normal(10, 1, (160, 200)).astype(np.float32)
    y, x = np.mgrid[:160, :200]
    for at in ((40, 50), (120, 60), (80, 150)):
        light += 300 * np.exp(-(((x - at[1]) / 5) ** 2 + ((y - at[0]) / 4) ** 2) / 2)
    np.save(tmp_path / "field.npy", light)
    options = {"mosaic": tmp_path / "field.npy", "models": tiny_models}
    galsearch.build(tmp_path / "full.atlas", **options)
    galsearch.build(tmp_path / "less.atlas", **options, measure="none")
    assert "radius_px" in columns_of(tmp_path / "less.atlas")  # it decides how large the cutouts are
    assert "gini" not in columns_of(tmp_path / "less.atlas")
    galsearch.measure(tmp_path / "less.atlas")
    assert_same(tmp_path / "full.atlas", tmp_path / "less.atlas")


def test_a_bundle_is_not_measured(alone, tmp_path):
    bundle = galsearch.bundle(alone, tmp_path / "x.duckdb")
    with pytest.raises(GalsearchError, match="a bundle is never changed"):
        galsearch.measure(bundle)


def test_an_unknown_level_is_refused_before_anything_is_read(pictures, tiny_models, tmp_path):
    with pytest.raises(SchemaError, match="measure 'all' is not known; give one of none, basic, full"):
        galsearch.build(tmp_path / "x.atlas", images=pictures, models=tiny_models, measure="all")
    assert not (tmp_path / "x.atlas").exists()


def test_the_command_measures_and_says_where_to_go(run, pictures, tiny_models, tmp_path):
    path = tmp_path / "x.atlas"
    code, out, told = run("build", path, "--images", pictures, "--models", tiny_models, "--measure", "basic")
    assert code == 0
    assert f"galsearch measure {path}" in told
    code, out, told = run("measure", path)
    assert (code, out) == (0, "")
    assert "20 of 20 galaxies measured" in told
    assert "g003.png" in told
    assert set(FORM) <= columns_of(path)
