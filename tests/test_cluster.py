"""Building by a Ray cluster: the atlas that one machine builds, whoever is killed; what is said where it cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

import galsearch
from galsearch import ingest
from galsearch.errors import GalsearchError
from galsearch.remote.cluster import each_done

ROWS = 600


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures, a broken one among them, and a table of which one row has no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for row in range(ROWS):
        Image.fromarray(tiny.draw(row % tiny.ROWS)).resize((96, 96)).save(folder / f"{row:04d}.png", compress_level=1)
    (folder / "0007.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def local(pictures: Path, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("local") / "local.atlas"
    galsearch.build(path, images=pictures, models=tiny_models, device="cpu")
    return path


def same(one: Path, other: Path) -> bool:
    """Say whether two atlases hold the same rows, vectors and rejections."""
    with galsearch.open(one, device="cpu") as a, galsearch.open(other, device="cpu") as b:
        for statement in ("SELECT * FROM galaxies ORDER BY object_id", "SELECT * FROM rejected ORDER BY ALL"):
            if not a.sql(statement).equals(b.sql(statement)):
                return False
        ids = sorted(galaxy.object_id for galaxy in a)
        vectors = [np.stack([atlas.embed(atlas[name]) for name in ids]) for atlas in (a, b)]
    return len(ids) == ROWS - 1 and float((vectors[0] * vectors[1]).sum(axis=1).min()) > 0.99999


def started(pictures: Path, models: Path, path: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "galsearch.cli", "build", path, "--images", pictures, "--models", models]
    return subprocess.Popen(
        [*map(str, command), "--on", "ray", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def batches(path: Path) -> int:
    return len(list(path.with_name(path.name + ".partial").glob("batches/*.arrow")))


def wait_for(condition, process: subprocess.Popen) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, "nothing happened within two minutes"
        time.sleep(0.02)


def workers() -> list[int]:
    """Return the processes of Ray that do pieces."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().startswith(b"ray::_do"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def end(process: subprocess.Popen) -> None:
    with_group = os.getpgid(process.pid)
    os.killpg(with_group, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_cluster_builds_the_atlas_that_one_machine_builds(pictures, local, tiny_models, tmp_path):
    told = []
    report = galsearch.build(
        tmp_path / "ray.atlas",
        images=pictures,
        models=tiny_models,
        device="cpu",
        on="ray",
        progress=lambda done, total, what: told.append((done, total, what)),
    )
    assert (report.rows, len(report.rejected)) == (ROWS - 1, 1)
    assert same(local, tmp_path / "ray.atlas")
    assert any("of 3 on ray" in what or "on ray" in what for _, _, what in told)
    assert told[-1][:2] == (ROWS, ROWS) and [done for done, *_ in told] == sorted(done for done, *_ in told)


@pytest.mark.durability
def test_killed_workers_cost_nothing(pictures, local, tiny_models, tmp_path):
    path = tmp_path / "ray.atlas"
    process = started(pictures, tiny_models, path)
    killed: set[int] = set()
    while process.poll() is None and len(killed) < 3:
        for pid in sorted(set(workers()) - killed)[:1]:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    out, told = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, ""), told
    assert killed and same(local, path)


@pytest.mark.durability
def test_a_killed_driver_goes_on_where_it_was(pictures, local, tiny_models, tmp_path):
    path = tmp_path / "ray.atlas"
    process = started(pictures, tiny_models, path)
    wait_for(lambda: batches(path) >= 1, process)
    end(process)
    assert not path.exists() and batches(path) >= 1
    kept = {file: file.stat().st_mtime_ns for file in path.with_name("ray.atlas.partial").glob("batches/*.arrow")}
    galsearch.build(path, images=pictures, models=tiny_models, device="cpu", on="ray")
    assert same(local, path) and kept


@pytest.mark.slow
def test_workers_that_find_other_files_say_so(pictures, tiny_models, tmp_path, monkeypatch):
    real = ingest._contents
    monkeypatch.setattr(ingest, "_contents", lambda parts: (*real(parts), ("image", None, "other")))
    with pytest.raises(
        GalsearchError, match=r"a worker finds other objects or models in .*same files under the same paths"
    ):
        galsearch.build(tmp_path / "ray.atlas", images=pictures, models=tiny_models, device="cpu", on="ray")
    assert not (tmp_path / "ray.atlas").exists()


@pytest.mark.slow
def test_another_galsearch_and_no_cluster_are_told():
    with pytest.raises(GalsearchError, match=r"a worker has galsearch .*, and galsearch 99 was started"):
        list(each_done(ingest.shards, b"", [1], address=None, gpus=False, software="galsearch 99"))
    with pytest.raises(GalsearchError, match=r"no Ray cluster at .*ray start --head"):
        list(each_done(ingest.shards, b"", [1], address="127.0.0.1:9", gpus=False, software="galsearch"))


def test_without_ray_the_extra_is_named(tmp_path, tiny_source, tiny_models, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(GalsearchError, match=r"pip install 'galsearch\[ray\]'"):
        galsearch.build(tmp_path / "a.atlas", images=tiny_source[0], models=tiny_models, on="ray")
    assert not (tmp_path / "a.atlas").exists()


@pytest.mark.parametrize(
    ("options", "message"), [({"on": "slurm"}, "on is 'slurm', expected ray"), ({"address": "auto"}, "give on='ray'")]
)
def test_a_place_that_there_is_not_is_an_error(tmp_path, tiny_source, options, message):
    with pytest.raises(GalsearchError, match=message):
        galsearch.build(tmp_path / "a.atlas", images=tiny_source[0], **options)
