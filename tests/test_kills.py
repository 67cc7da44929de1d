"""Build, add, measure, bundle, optimize killed, stopped by Ctrl-C, on full disks: the last commit is what is there.

Half of the kills come at named moments, spread over all that Python does to files and all that the engines are told;
half come from outside, at any time that the work takes. Each meets what the one before has left.
"""

import functools
import os
import random
import shutil
import signal
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import crash
import pytest
from tiny_spectra import write_spectra, write_tiny_spectrum_model, write_tiny_words

import galsearch

KILLS = {
    "build": 36,
    "parallel": 20,  # a build whose pictures are read by other processes
    "replace": 36,
    "add": 42,
    "spectra": 20,  # added, some of them to objects that are there
    "measure": 20,
    "bundle": 28,
    "rebundle": 28,
    "optimize": 42,
}
SHARE = float(os.environ.get("GALSEARCH_KILLS", "1"))  # of them; each takes seconds, and CI has other work
TIMES = {verb: max(6, round(SHARE * count)) for verb, count in KILLS.items()}
STARTS_WITH_NOTHING = ("build", "parallel", "bundle")
FROM = {"optimize": "grown", "measure": "unmeasured"}  # what is written to, where it is not the small atlas
FEW, MORE = range(10), range(100, 108)  # so many more that adding them makes a new index, too
LEFT_BEHIND = (".partial", ".partial.wal", ".partial.lock", ".partial.spill")  # by a killed writer, beside the atlas
STOPS = 8  # by Ctrl-C, of each verb
LARGEST_FILES = (1, 2_000, 40_000, 300_000, 1_600_000, 2_400_000)  # bytes, on disks that get full
FREE_SPACE = (8_192, 40_960, 204_800, 1_024_000, 3_072_000)  # bytes, on small disks

pytestmark = [pytest.mark.slow, pytest.mark.durability]


@dataclass
class Place:
    """A folder with one atlas that is written to, and files beside it that nobody may touch."""

    verb: str
    home: Path
    materials: dict[str, Path]  # where the atlases, pictures and models that are read from lie
    before: dict | None = None
    after: dict | None = None
    moments: int = 0
    seconds: float = 0.0
    beside: dict[str, str] = field(default_factory=dict)

    @property
    def atlas(self) -> Path:
        """What is written."""
        return self.home / ("x.duckdb" if "bundle" in self.verb else "x.atlas")

    def job(self) -> tuple[str, dict]:
        """Return the job of a worker."""
        have = self.materials
        pictures = {"images": have["more"], "models": have["models"]}
        return {
            "build": ("build", {"path": self.atlas, **pictures}),
            "parallel": ("build", {"path": self.atlas, **pictures, "processes": 2}),
            "measure": ("measure", {"path": self.atlas}),
            "replace": ("build", {"path": self.atlas, **pictures, "overwrite": True}),
            "add": ("add", {"path": self.atlas, **pictures}),
            "spectra": ("add", {"path": self.atlas, "spectra": have["spectra"], "models": have["models"]}),
            "bundle": ("bundle", {"path": have["grown"], "out": self.atlas}),
            "rebundle": ("bundle", {"path": have["grown"], "out": self.atlas}),
            "optimize": ("optimize", {"path": self.atlas}),
        }[self.verb]

    def command(self) -> list[str]:
        """Return the job as typed."""
        verb, options = self.job()
        flags = {
            "images": "--images",
            "spectra": "--spectra",
            "models": "--models",
            "processes": "--processes",
        }
        typed = [part for name, flag in flags.items() if name in options for part in (flag, options[name])]
        places = [options[name] for name in ("path", "out") if name in options]
        return [verb, *map(str, places + typed), *(["--overwrite"] if "overwrite" in options else [])]

    def reset(self) -> None:
        """Put everything as it was before the first kill."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        (self.home / "x").write_text("a note")
        shutil.copyfile(self.materials["small bundle"], self.home / "y.duckdb")
        self.beside = crash.files(self.home)
        if self.verb == "rebundle":
            shutil.copyfile(self.materials["small bundle"], self.atlas)
        elif self.verb not in STARTS_WITH_NOTHING:
            shutil.copytree(self.materials[FROM.get(self.verb, "small")], self.atlas)

    def measure(self, crew: crash.Crew) -> None:
        """Do the job once without a kill, and keep what it led to, how long it took and how many moments it had."""
        self.reset()
        self.before = crash.state(self.atlas)
        worker = crew.start(*self.job())
        said = worker.finish()
        worker.kill()
        assert said["error"] is None
        self.after = crash.state(self.atlas)
        assert self.after is not None
        assert self.after != self.before
        self.moments, self.seconds = said["moments"], said["seconds"]
        self.only_the_atlas_is_there()

    def landed(self) -> str:
        """Say where the kill came: before or after the commit, which must be all that is to be seen of it."""
        found = crash.state(self.atlas)
        if found == self.before:
            return "before"
        self.is_after(found)
        return "after"

    def is_after(self, found: dict | None) -> None:
        """Compare with what the work leads to; adding and making a new index of it all are two commits."""
        written_by = found["written_by"] + (["optimize"] if self.verb in ("add", "spectra") else [])
        assert {**found, "written_by": written_by[: len(self.after["written_by"])]} == self.after

    def nothing_else_changed(self) -> None:
        """Compare what lies beside the atlas, and make sure that what is half done is taken for nothing."""
        mine = (self.atlas.name, *(self.atlas.name + end for end in LEFT_BEHIND))
        others = {
            name: value for name, value in crash.files(self.home).items() if name.partition(os.sep)[0] not in mine
        }
        assert others == self.beside
        for end in LEFT_BEHIND:
            left = self.home / (self.atlas.name + end)
            if left.exists():
                self.is_no_atlas(left)

    def is_no_atlas(self, left: Path) -> None:
        """Open what was left: it is nothing, or it is complete and only wants its name."""
        try:
            with galsearch.open(left, device="cpu") as atlas:
                found = crash.answers(atlas)
        except galsearch.GalsearchError:
            return
        assert found == self.after

    def run_again(self, landed: str) -> None:
        """Do the same in this process: now it is done, or it is refused because it was done."""
        try:
            crash.run(*self.job())
        except galsearch.GalsearchError as error:
            assert landed == "after", error
            assert self.verb in ("build", "parallel", "add", "spectra"), error
            assert "exists" in str(error) or "already" in str(error)
        self.is_after(crash.state(self.atlas))
        self.only_the_atlas_is_there(may_stay=landed == "after")

    def only_the_atlas_is_there(self, *, may_stay: bool = False) -> None:
        names = {item.name for item in self.home.iterdir()}
        staging = {self.atlas.name + end for end in LEFT_BEHIND} if may_stay else set()
        assert names - staging == {"x", "y.duckdb", self.atlas.name}
        assert may_stay or not list(self.atlas.glob("*.partial*"))
        self.nothing_else_changed()


@pytest.fixture(scope="module")
def crew():
    with crash.Crew(spare=2, aged=True) as working:
        yield working


@pytest.fixture(scope="module")
def place_for(tmp_path_factory, crew, materials):
    """A function that returns the place for a verb in a folder; the work is measured only once."""

    @functools.cache
    def measured(verb: str) -> Place:
        place = Place(verb, tmp_path_factory.mktemp("measured") / "home", materials)
        place.measure(crew)
        return place

    return lambda verb, folder: replace(measured(verb), home=folder / "home")


@pytest.fixture(scope="module")
def materials(tmp_path_factory, tiny_models, crew):
    home = tmp_path_factory.mktemp("materials")
    few, more = crash.draw(home / "few", FEW), crash.draw(home / "more", MORE)
    small, grown = home / "small.atlas", home / "grown.atlas"
    crash.run("build", {"path": small, "images": few, "models": tiny_models})
    unmeasured = home / "unmeasured.atlas"
    crash.run("build", {"path": unmeasured, "images": few, "models": tiny_models, "measure": "none"})
    shutil.copytree(small, grown)
    for start in (20, 30):
        pictures = crash.draw(home / f"from {start}", range(start, start + 1))
        crash.run("add", {"path": grown, "images": pictures, "models": tiny_models})
    lost = {"path": grown, "images": crash.draw(home / "lost", range(40, 43)), "models": tiny_models}
    assert crew.start("add", lost, stop=("os.rename galaxies.duckdb.partial", "SIGKILL")).killed_after(
        crash.WAIT_SECONDS
    )
    bundle = galsearch.bundle(small, home / "small.duckdb")
    models = Path(shutil.copytree(tiny_models, home / "models"))
    write_tiny_spectrum_model(models)
    write_tiny_words(models)
    kinds = {f"g{row:04d}": ("emission" if row % 2 else "passive", 0.01 * row) for row in (*FEW[:6], 200, 201)}
    spectra = write_spectra(home / "spectra", kinds)
    return {
        "more": more,
        "models": models,
        "spectra": spectra,
        "small": small,
        "grown": grown,
        "unmeasured": unmeasured,
        "small bundle": bundle,
    }


def test_at_least_two_hundred_are_killed():
    assert sum(KILLS.values()) >= 200


@pytest.mark.parametrize("verb", KILLS)
def test_kill_at_any_moment_leaves_the_last_committed_state(tmp_path, crew, place_for, verb):
    place, rng = place_for(verb, tmp_path), random.Random(verb)
    tally = crash.Tally(verb)
    with tally.told():
        while tally.kills < TIMES[verb]:
            place.reset()
            landed = "before"
            for _ in range(rng.choice((1, 2, 3, 4))):
                killed = kill_once(crew, place, rng, tally)
                landed = place.landed()
                place.nothing_else_changed()
                tally.kills, tally.finished = tally.kills + killed, tally.finished + (not killed)
                tally.landed[landed] += killed
                if landed == "after":
                    break
            place.run_again(landed)
        assert tally.landed["before"] > 0


def kill_once(crew: crash.Crew, place: Place, rng: random.Random, tally: crash.Tally) -> bool:
    """Let a worker die at a moment or after a while; say whether it did before it was done."""
    if tally.kills % 2:
        moment = 1 + int(place.moments * tally.kills / TIMES[place.verb])  # all parts of the work have their turn
        tally.moments.append(f"moment {moment} of {place.moments}")
        return crew.start(*place.job(), stop=(moment, "SIGKILL")).killed_after(crash.WAIT_SECONDS)
    seconds = rng.uniform(0, place.seconds)
    tally.moments.append(f"{seconds:.3f} s of {place.seconds:.3f}")
    return crew.start(*place.job()).killed_after(seconds)


# ---- stopped, and out of space


def said_once(said: dict, words: str) -> None:
    """Make sure that a command has said one line for people, with those words, and nothing else."""
    lines = [line for line in said["error"].splitlines() if line.startswith("galsearch: ")]
    assert len(lines) == 1, said
    assert words in lines[0]
    assert "Traceback" not in said["error"]
    assert said["out"] == ""


@pytest.mark.parametrize("verb", KILLS)
def test_ctrl_c_at_any_moment_says_so_and_the_same_command_goes_on(tmp_path, crew, place_for, verb):
    place, rng = place_for(verb, tmp_path), random.Random(verb)
    tally = crash.Tally(verb)
    with tally.told():
        for number in range(STOPS):
            place.reset()
            said = stopped(crew, place, rng, tally, number)
            landed = place.landed()
            if said["status"] == 0:
                assert landed == "after"
            else:
                assert said["status"] == 130, said
                said_once(said, "run the same command again")
            place.nothing_else_changed()
            place.run_again(landed)


def stopped(crew: crash.Crew, place: Place, rng: random.Random, tally: crash.Tally, number: int) -> dict:
    """Interrupt the command at a moment or after a while; return its status and what it said."""
    job = ("cli", {"arguments": place.command()})
    if number % 2:
        moment = 1 + place.moments * number // STOPS
        tally.moments.append(f"moment {moment} of {place.moments}")
        return crew.start(*job, stop=(moment, "SIGINT")).result()
    seconds = rng.uniform(0.02, place.seconds)
    tally.moments.append(f"{seconds:.3f} s of {place.seconds:.3f}")
    worker = crew.start(*job)
    if not worker.speaks(seconds=seconds):
        worker.signal(signal.SIGINT)
    return worker.result()


def fails_or_not(place: Place, said: dict) -> str:
    """Make sure that a command has done all or nothing, and said why; return where it landed."""
    landed = place.landed()
    if said["status"] == 0:
        assert landed == "after"
    else:
        assert said["status"] == 1, said
        said_once(said, "free some space")
        assert landed == "before", said
    place.nothing_else_changed()
    return landed


@pytest.mark.parametrize("verb", [verb for verb in KILLS if verb != "parallel"])
def test_a_disk_that_takes_no_larger_file_changes_nothing(tmp_path, crew, place_for, verb):
    place = place_for(verb, tmp_path)
    results = []
    for limit in LARGEST_FILES:
        place.reset()
        job = {"arguments": place.command(), "limit_bytes": limit}
        results.append(fails_or_not(place, crew.start("cli", job).result()))
        place.run_again(results[-1])
    assert results[0] == "before"


@pytest.mark.parametrize("verb", [verb for verb in KILLS if verb != "parallel"])
def test_a_small_disk_that_is_full_changes_nothing(small_disk, crew, place_for, verb):
    place = place_for(verb, small_disk.path)
    for free in FREE_SPACE:
        place.reset()
        small_disk.leave(free)
        said = crew.start("cli", {"arguments": place.command()}).result()
        small_disk.leave(SmallDisk.ALL)
        place.run_again(fails_or_not(place, said))


class SmallDisk:
    """A disk of its own, as small as wished."""

    ALL = 200_000_000

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        call = ["mount", "-t", "tmpfs", "-o", f"size={self.ALL}", "tmpfs", str(path)]
        done = subprocess.run(call, capture_output=True, check=False) if shutil.which("mount") else None
        if done is None or done.returncode:
            pytest.skip("a small disk can only be mounted by root with the right to mount")

    def leave(self, free: int) -> None:
        """Leave so many bytes free, about."""
        there = os.statvfs(self.path)
        size = min(self.ALL, (there.f_blocks - there.f_bfree) * there.f_frsize + free)
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk.path)], check=True)
