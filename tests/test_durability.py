"""What an interruption, a kill, a full disk or a second writer does to an atlas: nothing that a reader could see."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import picture
from tiny_spectra import OBJECTS, write_models, write_spectra

import galsearch
from galsearch import ingest, sources
from galsearch.encode import Encoder
from galsearch.store import Staging

pytestmark = pytest.mark.slow
ROWS = 10
BATCH = 3  # four batches
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def draw(folder, rows=ROWS, *, first=0):
    folder.mkdir(exist_ok=True)
    for row in range(first, first + rows):
        color = ("red", "blue", "green", "white")[row % 4]
        noise = np.random.default_rng(row).integers(0, 40, (32, 32, 3))
        pixels = np.minimum(picture(color=color, shape="edge", size_px=32).astype(int) + noise, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"g{row:04d}.png")
    return folder


def digests(path):
    """Return the sha256 of every file of an atlas by its place."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    return {str(item.relative_to(path)): hashlib.sha256(item.read_bytes()).hexdigest() for item in files}


def seen(path):
    """Return what a reader sees: rows, vectors, pictures; and make sure that check finds nothing wrong."""
    with galsearch.open(path, device="cpu") as atlas:
        rows = atlas.search(k=10_000).table
        ids = rows["object_id"].to_pylist()
        assert all(finding.ok for finding in atlas.check())
        vectors = np.stack([atlas.embed(atlas[i]) for i in ids[:20]])
        return rows.to_pylist(), vectors.tolist(), atlas.thumbnails(ids)


@pytest.fixture
def cutouts(tmp_path):
    return draw(tmp_path / "cutouts")


@pytest.fixture
def few(monkeypatch):
    """Make batches of three."""
    monkeypatch.setattr(ingest, "BATCH_ROWS", BATCH)


@pytest.fixture
def readings(monkeypatch):
    """Count the pictures that are read."""
    counted = []
    job = sources.CutoutSource.job

    def counting(self, row):
        counted.append(row)
        return job(self, row)

    monkeypatch.setattr(sources.CutoutSource, "job", counting)
    return counted


def stop_in_batch(monkeypatch, number, *, error=KeyboardInterrupt):
    """Let the encoder fail in its n-th batch from now on; return what takes the trap away."""
    encode, calls = Encoder.encode, []

    def encoding(self, items):
        if self.kind == "image":
            calls.append(1)
            if len(calls) == number:
                raise error
        return encode(self, items)

    monkeypatch.setattr(Encoder, "encode", encoding)
    return lambda: monkeypatch.setattr(Encoder, "encode", encode)


# ---- interrupted and resumed


@pytest.mark.usefixtures("few")
def test_an_interrupted_build_leaves_no_atlas_and_goes_on_where_it_stopped(
    monkeypatch, readings, cutouts, tmp_path, tiny_models
):
    whole = galsearch.build(tmp_path / "whole.atlas", images=cutouts, models=tiny_models).path
    again = stop_in_batch(monkeypatch, 3)
    path = tmp_path / "x.atlas"
    with pytest.raises(KeyboardInterrupt):
        galsearch.build(path, images=cutouts, models=tiny_models)
    assert not path.exists()
    with pytest.raises(galsearch.FormatError):
        galsearch.open(path)
    again()
    readings.clear()
    assert galsearch.build(path, images=cutouts, models=tiny_models).rows == ROWS
    assert readings == list(range(2 * BATCH, ROWS))
    assert seen(path) == seen(whole)
    assert not path.with_name("x.atlas.partial").exists()


@pytest.mark.usefixtures("few")
def test_rejections_of_finished_batches_survive_an_interruption(monkeypatch, cutouts, tmp_path, tiny_models):
    (cutouts / "g0001.png").write_bytes(b"")
    (cutouts / "g0009.png").write_bytes(b"")
    again = stop_in_batch(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models)
    again()
    report = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models)
    assert [item["object_id"] for item in report.rejected] == ["g0001", "g0009"]
    assert report.rows == ROWS - 2


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("changed", ["pictures", "batch size", "table"])
def test_another_plan_starts_afresh(monkeypatch, readings, cutouts, tiny_models, changed):
    again = stop_in_batch(monkeypatch, 3)
    path, options = cutouts.parent / "x.atlas", {"images": cutouts, "models": tiny_models}
    with pytest.raises(KeyboardInterrupt):
        galsearch.build(path, **options)
    again()
    readings.clear()
    if changed == "pictures":
        draw(cutouts, 1, first=ROWS)
    elif changed == "batch size":
        monkeypatch.setattr(ingest, "BATCH_ROWS", BATCH + 1)
    else:
        options["table"] = cutouts.parent / "t.csv"
        options["table"].write_text("id,z\n" + "".join(f"g{row:04d},{row}\n" for row in range(ROWS)))
    report = galsearch.build(path, **options)
    assert len(readings) == report.rows == ROWS + (changed == "pictures")
    assert len(seen(path)[0]) == report.rows


@pytest.mark.usefixtures("few")
def test_an_interrupted_addition_leaves_the_atlas_as_it_was_and_goes_on(
    monkeypatch, readings, cutouts, tmp_path, tiny_models
):
    path = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models).path
    before, more = digests(path), draw(tmp_path / "more", ROWS, first=100)
    again = stop_in_batch(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        galsearch.add(path, images=more, models=tiny_models)
    assert digests(path) == before
    again()
    readings.clear()
    assert galsearch.add(path, images=more, models=tiny_models).rows == 2 * ROWS
    assert readings == list(range(BATCH, ROWS))
    assert len(seen(path)[0]) == 2 * ROWS


@contextlib.contextmanager
def killed_before_the_facts(monkeypatch):
    """Stop the writer that the block starts after its Lance tables, before the facts."""
    with monkeypatch.context() as patch:
        patch.setattr(
            "galsearch.store.write.folder.write_manifest",
            lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_writer_killed_between_lance_and_the_facts_is_rolled_back(monkeypatch, cutouts, tmp_path, tiny_models):
    path = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models).path
    before = seen(path)
    with killed_before_the_facts(monkeypatch):
        galsearch.add(path, images=draw(tmp_path / "lost", 2, first=50), models=tiny_models)
    assert seen(path) == before
    assert not list(path.glob("*.partial"))
    galsearch.add(path, images=draw(tmp_path / "more", 2, first=70), models=tiny_models)
    ids = [row["object_id"] for row in seen(path)[0]]
    assert ids == [f"g{row:04d}" for row in (*range(ROWS), 70, 71)]


def test_the_first_spectra_of_an_atlas_killed_before_the_facts_are_rolled_back(monkeypatch, cutouts, tmp_path):
    models = write_models(tmp_path / "models")
    path = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=models).path
    before = seen(path)
    with killed_before_the_facts(monkeypatch):
        galsearch.add(path, spectra=write_spectra(tmp_path / "lost", OBJECTS), models=models)
    assert seen(path) == before
    few = {"old": OBJECTS["old-near"], "quasar": OBJECTS["quasar"]}  # not those that were lost
    galsearch.add(path, spectra=write_spectra(tmp_path / "more", few), models=models)
    with galsearch.open(path, device="cpu") as atlas:
        assert set(atlas.spectra(list(OBJECTS) + list(few))) == set(few)
        assert atlas.search(tmp_path / "more" / "old.fits", k=1).ids == ["old"]


def test_a_replacement_killed_between_its_two_renames_gives_the_old_atlas_back(cutouts, tmp_path, tiny_models):
    path = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models).path
    before = digests(path)
    staging = path.with_name("x.atlas.partial")
    staging.mkdir()
    path.rename(staging / "old")
    with Staging(path, {"any": "plan"}):
        pass
    assert digests(path) == before


# ---- one writer


def test_a_second_writer_is_refused_while_one_works(cutouts, tmp_path, tiny_models):
    path = tmp_path / "x.atlas"
    with (
        Staging(path, {"any": "plan"}),
        pytest.raises(galsearch.GalsearchError, match="another galsearch is writing"),
    ):
        galsearch.build(path, images=cutouts, models=tiny_models)
    assert galsearch.build(path, images=cutouts, models=tiny_models).rows == ROWS
    with Staging(path, {"any": "plan"}), pytest.raises(galsearch.GalsearchError, match="another galsearch"):
        galsearch.add(path, images=draw(tmp_path / "more", 1, first=50), models=tiny_models)
    assert len(seen(path)[0]) == ROWS


def test_an_addition_that_was_overtaken_is_refused(monkeypatch, cutouts, tmp_path, tiny_models):
    path = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models).path
    more = draw(tmp_path / "more", 1, first=50)
    existing = ingest._existing

    def overtaken(place):
        found = existing(place)
        monkeypatch.setattr(ingest, "_existing", existing)
        galsearch.add(place, images=more, models=tiny_models)
        return found

    monkeypatch.setattr(ingest, "_existing", overtaken)
    with pytest.raises(galsearch.GalsearchError, match="meanwhile"):
        galsearch.add(path, images=more, models=tiny_models)
    assert len(seen(path)[0]) == ROWS + 1


def test_a_reader_sees_the_old_rows_while_more_are_added(cutouts, tmp_path, tiny_models):
    path = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models).path
    with galsearch.open(path) as before:
        galsearch.add(path, images=draw(tmp_path / "more", 5, first=50), models=tiny_models)
        assert len(before.search("red", k=100)) == len(before) == ROWS
    with galsearch.open(path) as after:
        assert len(after.search("red", k=100)) == len(after) == ROWS + 5


# ---- signals


def command(*arguments, limit_bytes=None):
    """Return the argument list that runs galsearch in a process of its own, which may write no larger file."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes},) * 2); " if limit_bytes else ""
    code = f"{limit}import sys; from galsearch.cli import main; sys.argv[0] = 'galsearch'; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def run(*arguments, limit_bytes=None):
    call = command(*arguments, limit_bytes=limit_bytes)
    return subprocess.run(call, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False)


def one_line(stderr):
    """Return what galsearch said; there must be exactly one such line and no traceback."""
    assert "Traceback" not in stderr
    said = [line for line in stderr.splitlines() if line.startswith("galsearch:")]
    assert len(said) == 1, stderr
    return said[0]


def wait_for(condition, *, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def test_ctrl_c_in_a_build_says_one_line_exits_130_and_loses_nothing(tmp_path, tiny_models):
    cutouts = draw(tmp_path / "cutouts", 1)
    for row in range(1, 2500):  # enough to be at work still when the signal comes
        os.link(cutouts / "g0000.png", cutouts / f"h{row:05d}.png")
    path = tmp_path / "x.atlas"
    call = command("build", path, "--images", cutouts, "--models", tiny_models)
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        wait_for(lambda: list(tmp_path.glob("x.atlas.partial/batches/*.arrow")))
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "run the same command again" in one_line(error)
    assert not path.exists()
    assert list(tmp_path.glob("x.atlas.partial/batches/*.arrow"))


def test_a_second_process_that_writes_is_refused(cutouts, tmp_path, tiny_models):
    path = tmp_path / "x.atlas"
    with Staging(path, {"any": "plan"}):
        done = run("build", path, "--images", cutouts, "--models", tiny_models)
    assert done.returncode == 1
    assert "another galsearch is writing" in one_line(done.stderr)


# ---- the disk is full


def test_a_disk_that_fills_while_bundling_leaves_the_bundle_that_was_there(cutouts, tmp_path, tiny_models):
    path = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models).path
    bundle = galsearch.bundle(path, tmp_path / "x.duckdb")
    before = bundle.read_bytes()
    done = run("bundle", path, bundle, limit_bytes=300_000)
    assert done.returncode == 1
    assert "free some space" in one_line(done.stderr)
    assert bundle.read_bytes() == before
    assert not list(tmp_path.glob("*.partial*"))


LONGER = pytest.mark.durability


@pytest.mark.parametrize(
    "limit_bytes", [pytest.param(1_000, marks=LONGER), 20_000, pytest.param(300_000, marks=LONGER)]
)
def test_a_disk_that_fills_while_building_leaves_no_atlas_and_the_build_goes_on_later(
    cutouts, tmp_path, tiny_models, limit_bytes
):
    path = tmp_path / "x.atlas"
    done = run("build", path, "--images", cutouts, "--models", tiny_models, limit_bytes=limit_bytes)
    assert done.returncode == 1
    assert "free some space" in one_line(done.stderr)
    assert not path.exists()
    assert run("build", path, "--images", cutouts, "--models", tiny_models).returncode == 0
    assert len(seen(path)[0]) == ROWS


@pytest.mark.parametrize("limit_bytes", [pytest.param(1_000, marks=LONGER), 500_000])
def test_a_disk_that_fills_while_adding_changes_nothing(cutouts, tmp_path, tiny_models, limit_bytes):
    path = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models).path
    before = seen(path)
    more = draw(tmp_path / "more", 3, first=50)
    done = run("add", path, "--images", more, "--models", tiny_models, limit_bytes=limit_bytes)
    assert done.returncode == 1
    assert "free some space" in one_line(done.stderr)
    assert seen(path) == before
    assert not list(path.glob("*.partial"))


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of a given size, where that is allowed."""
    mounted = []

    def mount(size):
        place = tmp_path / "disk"
        place.mkdir()
        call = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        done = subprocess.run(call, capture_output=True, check=False) if shutil.which("mount") else None
        if done is None or done.returncode:
            pytest.skip("a small disk can only be mounted by root with the right to mount")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_small_disk_takes_neither_half_a_bundle_nor_half_an_atlas(small_disk, cutouts, tmp_path, tiny_models):
    path = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models).path
    disk = small_disk("400k")
    for arguments in (
        ("bundle", path, disk / "x.duckdb"),
        ("build", disk / "y.atlas", "--images", cutouts, "--models", tiny_models),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert "free some space" in one_line(done.stderr)
        assert not Path(arguments[1 if arguments[0] == "build" else 2]).exists()
    assert not list(disk.glob("*.duckdb*"))


def test_a_folder_that_may_not_be_written_to_says_so(cutouts, tmp_path, tiny_models):
    (tmp_path / "file").write_text("no folder")
    done = run("build", tmp_path / "file" / "x.atlas", "--images", cutouts, "--models", tiny_models)
    assert done.returncode == 1
    assert "could not be written" in one_line(done.stderr)
