"""Readers and writers of one atlas at the same time, each in a process of its own."""

import shutil
import signal
from pathlib import Path

import crash
import pytest

import galsearch

SECOND_WRITER = "another galsearch is writing"
NO_ANSWER = {"FormatError", "QueryError"}
WRITERS = ["build", "add", *(["optimize"] if hasattr(galsearch, "optimize") else [])]

pytestmark = [pytest.mark.slow, pytest.mark.durability]


def pictures(home: Path, first: int, rows: int = 3) -> Path:
    return crash.draw(home / f"from {first}", range(first, first + rows))


@pytest.fixture(scope="module")
def material(tmp_path_factory, tiny_models):
    """An atlas of ten galaxies and one that is not in the index yet, to be copied."""
    home = tmp_path_factory.mktemp("material")
    crash.run("build", {"path": home / "x.atlas", "images": pictures(home, 0, 10), "models": tiny_models})
    crash.run("add", {"path": home / "x.atlas", "images": pictures(home, 10, 1), "models": tiny_models})
    return home / "x.atlas"


@pytest.fixture
def atlas_path(material, tmp_path):
    return Path(shutil.copytree(material, tmp_path / "x.atlas"))


@pytest.fixture
def crew():
    with crash.Crew() as working:
        yield working


def jobs(path: Path, tiny_models: Path) -> list[tuple[str, dict]]:
    """Return what the writer does: it appends, and puts in order where that is known."""
    adding = [
        ("add", {"path": path, "images": pictures(path.parent, n, 1), "models": tiny_models}) for n in (20, 30, 40)
    ]
    ordering = [("optimize", {"path": path})] if "optimize" in WRITERS else []
    return [*adding[:2], *ordering, adding[2]]


def states(monkeypatch, path: Path, todo: list[tuple[str, dict]]) -> list[str]:
    """Return what there is to be seen before the first commit and after each; adding commits twice, with its index."""
    seen, replace = [crash.digest(crash.state(path))], Path.replace

    def committing(self, target):
        moved = replace(self, target)
        if Path(target) == path / "galaxies.duckdb":
            seen.append(crash.digest(crash.state(path)))
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", committing)
        for verb, options in todo:
            crash.run(verb, options)
    assert len(set(seen)) == len(seen) > len(todo)
    return seen


def watched(crew, path: Path, write) -> list[list[dict]]:
    """Return what two readers said while `write` was at work."""
    until = path.with_name("that is all")
    readers = [crew.start("read", {"path": path, "until": until}) for _ in range(2)]
    said = [[reader.read(seconds=crash.WAIT_SECONDS)] for reader in readers]
    write()
    until.touch()
    for reader, mine in zip(readers, said, strict=True):
        while "moments" not in mine[-1]:
            mine.append(reader.read(seconds=crash.WAIT_SECONDS))
        assert mine.pop()["error"] is None
    return said


def test_two_readers_see_one_whole_state_after_the_other_while_a_writer_appends(
    monkeypatch, crew, atlas_path, tmp_path, tiny_models
):
    copy = Path(shutil.copytree(atlas_path, tmp_path / "copy" / "x.atlas"))
    expected = states(monkeypatch, copy, jobs(copy, tiny_models))
    todo = jobs(atlas_path, tiny_models)
    said = watched(crew, atlas_path, lambda: finish(crew.start("several", {"jobs": todo})))
    for mine in said:
        assert {one["held"] for one in mine} == {expected[0]}
        order = [expected.index(one["new"]) for one in mine]
        assert order == sorted(order)
        assert order[-1] == len(expected) - 1


def finish(worker):
    said = worker.finish()
    assert said["error"] is None
    return said


def test_readers_of_a_bundle_keep_theirs_while_it_is_replaced(crew, atlas_path, tmp_path, tiny_models):
    bundle = galsearch.bundle(atlas_path, tmp_path / "x.duckdb")
    old = crash.digest(crash.state(bundle))
    galsearch.add(atlas_path, images=pictures(tmp_path, 20), models=tiny_models)
    galsearch.bundle(atlas_path, tmp_path / "y.duckdb")
    new = crash.digest(crash.state(tmp_path / "y.duckdb"))
    write = [("bundle", {"path": atlas_path, "out": bundle})]
    said = watched(crew, bundle, lambda: finish(crew.start("several", {"jobs": write})))
    for mine in said:
        assert {one["held"] for one in mine} == {old}
        assert {one["new"] for one in mine} <= {old, new}
        assert mine[-1]["new"] == new


def test_readers_of_a_folder_that_is_replaced_get_the_old_the_new_or_an_error(crew, atlas_path, tmp_path, tiny_models):
    todo = {"images": pictures(tmp_path, 20), "models": tiny_models}
    crash.run("build", {"path": tmp_path / "y.atlas", **todo})
    old, new = crash.digest(crash.state(atlas_path)), crash.digest(crash.state(tmp_path / "y.atlas"))
    write = ("build", {"path": atlas_path, **todo, "overwrite": True})
    said = watched(crew, atlas_path, lambda: finish(crew.start(*write)))
    for mine in said:
        assert {one["held"] for one in mine} <= {old} | NO_ANSWER
        assert {one["new"] for one in mine} <= {old, new} | NO_ANSWER
        assert mine[-1]["new"] == new


@pytest.mark.parametrize("verb", WRITERS)
def test_a_second_writer_is_refused_until_the_first_has_done(crew, atlas_path, tmp_path, tiny_models, verb):
    todo = {"path": atlas_path, "images": pictures(tmp_path, 20), "models": tiny_models}
    options = {"build": {**todo, "overwrite": True}, "add": todo, "optimize": {"path": atlas_path}}
    before = crash.state(atlas_path)
    moment = "execute ATTACH" if verb == "build" else "galaxies.duckdb.partial"
    first = crew.start(verb, options[verb], stop=(moment, "SIGSTOP"))
    assert first.stops()
    for other in WRITERS:
        with pytest.raises(galsearch.GalsearchError, match=SECOND_WRITER):
            crash.run(other, options[other])
    assert crash.state(atlas_path) == before
    first.signal(signal.SIGCONT)
    finish(first)
    assert crash.state(atlas_path) != before


def test_a_writer_that_begins_while_another_clears_up_loses_nothing(crew, atlas_path, tmp_path, tiny_models):
    first, second = (
        ("add", {"path": atlas_path, "images": pictures(tmp_path, start, 9), "models": tiny_models})
        for start in (20, 40)
    )
    clearing = crew.start(*first, stop=("os.remove plan.json", "SIGSTOP"))
    assert clearing.stops()
    writing = crew.start(*second, stop=("os.rename 000002", "SIGSTOP"))
    waits = writing.stops()
    clearing.signal(signal.SIGCONT)
    finish(clearing)
    if waits:
        writing.signal(signal.SIGCONT)
        finish(writing)
    else:
        assert SECOND_WRITER in writing.finish()["error"]
        crash.run(*second)
    assert len(crash.state(atlas_path)["facts"]) == 11 + 9 + 9


def test_two_that_bundle_to_one_place_leave_a_whole_bundle(crew, atlas_path, tmp_path):
    out = galsearch.bundle(atlas_path, tmp_path / "x.duckdb")
    write = ("bundle", {"path": atlas_path, "out": out})
    first = crew.start(*write, stop=("os.rename x.duckdb.partial", "SIGSTOP"))
    assert first.stops()
    second = crew.start(*write, stop=("CREATE TABLE models", "SIGSTOP"))
    if not second.stops():
        assert SECOND_WRITER in second.finish()["error"]
    first.signal(signal.SIGCONT)
    finish(first)
    second.kill()
    assert crash.state(out) is not None


def test_an_atlas_that_is_replaced_is_there_at_every_moment(monkeypatch, atlas_path, tmp_path, tiny_models):
    absent, replace = [], Path.replace

    def watching(self, target):
        moved = replace(self, target)
        absent.extend([] if atlas_path.exists() else [f"after {self.name} became {Path(target).name}"])
        return moved

    monkeypatch.setattr(Path, "replace", watching)
    todo = {"path": atlas_path, "images": pictures(tmp_path, 20), "models": tiny_models}
    crash.run("build", {**todo, "overwrite": True})
    assert absent == []
