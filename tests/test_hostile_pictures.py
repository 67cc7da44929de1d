"""Hostile pictures are refused with one sentence, in bounded memory and time, by a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import hostile_pictures
import numpy as np
import pytest

import galsearch
from galsearch.errors import GalsearchError, SchemaError
from galsearch.science import images

MEMORY = 1536 << 20  # bytes of address space that reading any picture must do with
SECONDS = 20.0  # for one picture, on a busy machine
RUN = """
import json, pathlib, resource, sys, time, warnings
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
warnings.simplefilter("error")
from galsearch.science import images
from galsearch.errors import SchemaError
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start = time.monotonic()
    print(json.dumps({"begun": path.name}), flush=True)
    try:
        picture = images.read_picture(path)
        images.render(picture)
        try:
            picture.sky_position(0, 0)
        except SchemaError:
            pass
        said = ["read", str(picture.flux.shape)]
    except SchemaError as error:
        said = ["refused", str(error)]
    print(json.dumps({"name": path.name, "said": said, "seconds": time.monotonic() - start}), flush=True)
"""


def outcomes(folder, pictures):
    """Read pictures in a process with bounded memory; return what became of each, by name."""
    for number, content in enumerate(pictures.values()):
        (folder / f"{number:04d}").write_bytes(content)

    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": str(folder)}
    run = subprocess.run(
        [sys.executable, "-c", RUN, folder, str(MEMORY)],
        capture_output=True, text=True, timeout=SECONDS * 15, check=False,
        env={**os.environ, **one_thread}, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    names = list(pictures)
    last = names[int(lines[-1].get("name") or lines[-1]["begun"])] if lines else "the start"
    assert run.returncode == 0, f"the process ended at: {last}\n{run.stderr[-2000:]}"
    return {names[int(line["name"])]: line for line in lines if "name" in line}


@pytest.mark.hostile
def test_hostile_pictures_are_refused_with_one_sentence_in_bounded_memory_and_time(tmp_path):
    pictures = hostile_pictures.refused()
    assert len(pictures) >= 100
    found = outcomes(tmp_path, pictures)
    assert set(found) == set(pictures)
    wrong = {name: line for name, line in found.items() if line["said"][0] != "refused"}
    assert wrong == {}
    assert [name for name, line in found.items() if ";" not in line["said"][1] or "\n" in line["said"][1]] == []
    assert {name: line["seconds"] for name, line in found.items() if line["seconds"] > SECONDS} == {}


@pytest.mark.hostile
def test_odd_pictures_are_read_in_bounded_memory_and_time(tmp_path):
    pictures = hostile_pictures.read()
    found = outcomes(tmp_path, pictures)
    assert {name: line for name, line in found.items() if line["said"][0] != "read"} == {}
    assert set(found) == set(pictures)


# ---- as uploads: through the worker processes of a public app, as `take_picture` of the app asks them


@pytest.fixture(scope="module")
def public(tiny_bundle):
    """The tiny atlas as a public app has it open."""
    with galsearch.open(tiny_bundle, device="cpu", visitors=galsearch.Limits(processes=2)) as opened:
        opened.count("z < 1")  # the workers have started
        yield opened


def uploaded(atlas, folder, pictures):
    """Ask for galaxies like each picture, as the app does; return the vector or the message by name, and the slow."""
    path, found, slow = folder / "image", {}, {}
    for name, content in pictures.items():
        path.write_bytes(content)
        start = time.monotonic()
        try:
            found[name] = atlas.embed(path)
        except GalsearchError as error:
            found[name] = str(error)
        if (seconds := time.monotonic() - start) > galsearch.Limits().seconds + 2:
            slow[name] = seconds
    return found, slow


@pytest.mark.hostile
def test_more_than_fifty_hostile_uploads_are_refused_and_the_app_goes_on(public, tmp_path):
    found, slow = uploaded(public, tmp_path, hostile_pictures.refused())
    refused = {name: said for name, said in found.items() if isinstance(said, str)}
    assert len(refused) > 50
    assert set(found) - set(refused) == set()
    assert slow == {}
    assert {name: said for name, said in refused.items() if "\n" in said or str(tmp_path) in said} == {}
    assert {name: said for name, said in refused.items() if "it failed" in said} == {}  # a sentence of ours, for each
    assert public.count("z < 0.1") > 0


@pytest.mark.hostile
def test_odd_uploads_are_searched_with(public, tmp_path):
    found, slow = uploaded(public, tmp_path, hostile_pictures.read())
    assert {name: said for name, said in found.items() if isinstance(said, str)} == {}
    assert {name for name, vector in found.items() if abs(np.linalg.norm(vector) - 1) > 1e-5} == set()
    assert slow == {}


@pytest.mark.hostile
def test_a_picture_of_the_largest_size_is_read_within_the_memory_that_is_promised(tmp_path):
    side = int((images.PICTURE.values / 3) ** 0.5)
    found = outcomes(tmp_path, {"the largest": hostile_pictures.png(side, side)})
    assert found["the largest"]["said"] == ["read", str((side, side, 3))]


@pytest.mark.parametrize("name", ["eps", "dos eps", "eps called png", "eps called jpeg", "svg", "gif"])
def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch, name):
    """Pillow starts Ghostscript for PostScript; a stand-in on the path would leave its trace."""
    trace = tmp_path / "was run"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch '{trace}'\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    content = _small(name)
    for decode in (images.read_picture, images.decode_thumbnail):
        with pytest.raises(SchemaError):
            decode(content)
    assert not trace.exists()


def _small(name):
    small = {
        "eps": hostile_pictures.EPS,
        "dos eps": b"\xc5\xd0\xd3\xc6" + hostile_pictures.EPS,
        "eps called png": b"\x89PNG\r\n\x1a\n" + hostile_pictures.EPS,
        "eps called jpeg": b"\xff\xd8\xff" + hostile_pictures.EPS,
        "svg": b"<svg/>",
        "gif": hostile_pictures.encoded(kind="GIF"),
    }
    return small[name]


def test_a_thumbnail_is_small_or_refused():
    with pytest.raises(SchemaError, match="pixels"):
        images.decode_thumbnail(hostile_pictures.png(1200, 1200))
    with pytest.raises(SchemaError, match="no picture"):
        images.decode_thumbnail(None)


def test_a_file_that_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.fits")
    with pytest.raises(SchemaError, match="no regular file"):
        images.read_picture(tmp_path / "pipe.fits")
    with pytest.raises(SchemaError, match="no regular file"):
        images.read_picture(tmp_path)
