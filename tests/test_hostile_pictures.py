"""Hostile pictures are refused with one sentence, in bounded memory and time, by a process of its own."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import hostile_pictures
import pytest

from galsearch import images
from galsearch.errors import SchemaError

MEMORY = 1536 << 20  # bytes of address space that reading any picture must do with
SECONDS = 20.0  # for one picture, on a busy machine
RUN = """
import json, pathlib, sys, time, warnings
warnings.simplefilter("error")
from galsearch import images
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

    def bounded():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": str(folder)}
    run = subprocess.run(
        [sys.executable, "-c", RUN, folder], capture_output=True, text=True, timeout=SECONDS * 15, check=False,
        env={**os.environ, **one_thread}, preexec_fn=bounded, cwd=Path(__file__).parent.parent,
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
