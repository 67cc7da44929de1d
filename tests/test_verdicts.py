"""Verdicts: kept append-only, merged by union, undone, agreed on; kills, full disks and foreign files lose nothing."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

import galsearch
from galsearch.discovery import journal as journals
from galsearch.discovery.journal import Journal
from galsearch.discovery.verdicts import Verdict, Verdicts, standing
from galsearch.errors import FormatError, GalsearchError, QueryError, SchemaError, UnknownIdError
from galsearch.science import agreement

KIND = "merger"


def said(verdicts: Verdicts, **only: str) -> dict[tuple[str, str], str]:
    return {(one.object_id, one.by): one.verdict for one in verdicts.current(**only)}


# ---- what is kept


def test_a_verdict_says_who_when_what_and_how_and_survives_reopening(tmp_path):
    path = tmp_path / "v.verdicts"
    one = Verdicts(path).add("a", "yes", kind=KIND, by="ann", note="tail to the north", label="tidal", blind=True)
    (again,) = Verdicts(path).all()
    assert again == one and (again.by, again.note, again.label, again.blind) == (
        "ann",
        "tail to the north",
        "tidal",
        True,
    )
    assert again.time.endswith("Z") and abs(time.time() - _seconds(again.time)) < 60


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def test_judging_again_corrects_and_names_what_it_corrects_and_nothing_is_rewritten(tmp_path):
    path = tmp_path / "v.verdicts"
    verdicts = Verdicts(path)
    first = verdicts.add("a", "yes", kind=KIND, by="ann")
    before = path.read_bytes()
    second = verdicts.add("a", "no", kind=KIND, by="ann")
    assert second.replaces == first.id and path.read_bytes().startswith(before)
    assert said(verdicts) == {("a", "ann"): "no"} and len(verdicts.all()) == 2


def test_undo_goes_back_step_by_step_of_one_person_and_one_kind(tmp_path):
    verdicts = Verdicts(tmp_path / "v")
    verdicts.add("a", "yes", kind=KIND, by="ann")
    verdicts.add("a", "no", kind=KIND, by="ann")
    verdicts.add("b", "yes", kind=KIND, by="bob")
    verdicts.add("c", "yes", kind="artifact", by="ann")
    assert verdicts.undo(by="ann", kind=KIND).verdict == "no"
    assert said(verdicts, kind=KIND) == {("a", "ann"): "yes", ("b", "bob"): "yes"}
    assert verdicts.undo(by="ann", kind=KIND).verdict == "yes"
    assert verdicts.undo(by="ann", kind=KIND) is None
    assert said(verdicts) == {("b", "bob"): "yes", ("c", "ann"): "yes"} and len(verdicts.all()) == 6


def test_nobody_undoes_the_verdict_of_another():
    rows = [
        Verdict("a", "yes", KIND, "ann", time="2026-01-01", id="1"),
        Verdict("a", "undo", KIND, "bob", time="2026-01-02", id="2", undoes="1"),
    ]
    assert [one.id for one in standing(rows)] == ["1"]


def test_a_clock_that_went_back_does_not_bring_an_old_verdict_back(tmp_path):
    verdicts = Verdicts(tmp_path / "v")
    later = "2999-01-01T00:00:00.000000Z"
    verdicts.merge(_table(tmp_path, object_id="a", verdict="yes", kind=KIND, by="ann", time=later))
    verdicts.add("a", "no", kind=KIND, by="ann")
    assert said(verdicts) == {("a", "ann"): "no"} and verdicts.current()[0].time > later


def _table(folder: Path, **row: str) -> Path:
    path = folder / "t.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    return path


def test_the_bundle_is_not_touched_and_only_its_objects_are_judged(tmp_path, tiny_bundle):
    before = tiny_bundle.read_bytes()
    with galsearch.open(tiny_bundle) as atlas:
        ids = atlas.search(k=2).ids
        verdicts = Verdicts(tmp_path / "v", atlas=atlas)
        verdicts.add(ids[0], "yes", kind=KIND, by="ann")
        with pytest.raises(UnknownIdError, match="nobody"):
            verdicts.add("nobody", "yes", kind=KIND, by="ann")
        assert len(verdicts) == 1 and verdicts.notes == ()
    assert tiny_bundle.read_bytes() == before


def test_verdicts_on_another_atlas_are_refused_or_matched_by_object_id_with_a_message(tmp_path, tiny_bundle):
    other = Verdicts(tmp_path / "v")
    other.add("of another atlas", "yes", kind=KIND, by="ann")
    with galsearch.open(tiny_bundle) as atlas:
        with pytest.raises(QueryError, match="none of them is in"):
            Verdicts(tmp_path / "v", atlas=atlas)
        other.add(atlas.search(k=1).ids[0], "yes", kind=KIND, by="ann")
        (note,) = Verdicts(tmp_path / "v", atlas=atlas).notes
    assert "1 of their 2 objects" in note


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "maybe"},
        {"verdict": "undo"},
        {"verdict": "label"},
        {"kind": " "},
        {"by": "x" * 300},
        {"note": "x" * 3_000},
        {"label": "\ud800"},
        {"blind": "yes"},
        {"object_id": ""},
    ],
)
def test_what_is_no_verdict_is_refused_and_nothing_is_written(tmp_path, wrong):
    verdicts = Verdicts(tmp_path / "v")
    given = {"object_id": "a", "verdict": "yes", "kind": KIND, "by": "ann"} | wrong
    with pytest.raises(QueryError, match=next(iter(wrong)).replace("verdict", "verdict|label")):
        verdicts.add(given.pop("object_id"), given.pop("verdict"), **given)
    assert verdicts.all() == []


# ---- merging


def three_people(folder: Path) -> list[Verdicts]:
    people = []
    for number, name in enumerate(("ann", "bob", "eve")):
        one = Verdicts(folder / name)
        for at in range(6):
            one.add(f"o{at}", ("yes", "no", "unsure")[(at + number) % 3], kind=KIND, by=name)
        one.add("o0", "no", kind=KIND, by=name)
        one.undo(by=name)
        one.add("o5", "label", kind=KIND, by=name, label="shell")
        people.append(one)
    return people


def test_merging_in_any_order_and_twice_loses_nothing_and_counts_nothing_twice(tmp_path):
    people = three_people(tmp_path)
    every = sorted(one.id for person in people for one in person.all())
    tables = set()
    for number, order in enumerate(permutations(people)):
        merged = Verdicts(tmp_path / f"merged{number}")
        for one in (*order, *order):
            merged.merge(one)
        assert sorted(one.id for one in merged.all()) == every
        tables.add(json.dumps(merged.table().to_pylist()))
    assert len(tables) == 1 and len(merged.current()) == 18


@pytest.mark.parametrize("suffix", [".csv", ".vot", ".ecsv", ".parquet"])
def test_a_table_comes_back_as_it_went_out_and_merges_with_its_own_file(tmp_path, suffix):
    person = three_people(tmp_path)[0]
    path = person.save(tmp_path / f"out{suffix}", history=True)
    again = Verdicts()
    assert again.merge(path).new == len(person.all()) and again.all() == person.all()
    assert person.merge(path) == galsearch.Merged(0, len(again.all()))


def test_a_table_of_others_without_ids_counts_once_however_often_it_comes(tmp_path):
    path = _table(tmp_path, object_id="0012", verdict="yes", kind=KIND, by="ann", note="made elsewhere")
    verdicts = Verdicts(tmp_path / "v")
    assert (verdicts.merge(path).new, verdicts.merge(path).new) == (1, 0)
    assert verdicts.current()[0].object_id == "0012"


def test_a_table_that_has_no_verdicts_is_refused_whole(tmp_path):
    verdicts = Verdicts(tmp_path / "v")
    with pytest.raises(SchemaError, match="no column 'kind'"):
        verdicts.merge(_table(tmp_path, object_id="a", verdict="yes", by="ann"))
    with pytest.raises(SchemaError, match="row 1: verdict is 'perhaps'"):
        verdicts.merge(_table(tmp_path, object_id="a", verdict="perhaps", kind=KIND, by="ann"))
    assert verdicts.all() == [] and not (tmp_path / "v").exists()


def test_one_id_that_stands_for_two_rows_is_an_error_and_nothing_is_taken_in(tmp_path):
    mine = Verdicts(tmp_path / "v")
    one = mine.add("a", "yes", kind=KIND, by="ann")
    row = {"id": one.id, "time": one.time, "kind": KIND, "object_id": "a", "verdict": "no", "by": "ann"}
    with pytest.raises(FormatError, match="two different verdicts"):
        mine.merge(_table(tmp_path, **row))
    assert said(mine) == {("a", "ann"): "yes"}


def test_formulas_in_notes_can_be_quoted_for_spreadsheets(tmp_path):
    verdicts = Verdicts()
    verdicts.add("a", "yes", kind=KIND, by="ann", note="=1+1")
    assert "'=1+1" in verdicts.save(tmp_path / "v.csv", quote_formulas=True).read_text()


# ---- agreement


CLASSES = st.sampled_from(["yes", "no", "unsure"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CLASSES, CLASSES), min_size=2, max_size=40))
def test_kappa_of_two_is_that_of_scikit_learn(pairs):
    first, second = zip(*pairs, strict=True)
    ours = agreement.cohen_kappa(first, second)
    if len({*first, *second}) < 2:
        assert ours is None
    else:
        assert ours == pytest.approx(cohen_kappa_score(first, second), nan_ok=True)


def test_kappa_of_many_is_that_of_the_example_of_fleiss():
    """Fourteen raters, ten subjects, five classes: the table that textbooks work out, kappa 0.210."""
    counts = [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
    ratings = [[str(label) for label, count in enumerate(row) for _ in range(count)] for row in counts]
    assert agreement.fleiss_kappa(ratings) == pytest.approx(0.2099, abs=1e-4)
    with pytest.raises(QueryError, match="equally many"):
        agreement.fleiss_kappa([["yes", "no"], ["yes", None]])


def test_alpha_is_that_of_the_example_of_krippendorff():
    """Four observers, twelve units, some missing: nominal alpha 0.743 in "Computing Krippendorff's alpha" (2011)."""
    observers = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    columns = zip(*(row.split() for row in observers), strict=True)
    ratings = [[None if one == "." else one for one in column] for column in columns]
    assert agreement.krippendorff_alpha(ratings) == pytest.approx(0.743, abs=5e-4)


def test_agreement_counts_what_two_or_more_judged_and_blind_verdicts_alone_where_wanted():
    verdicts = Verdicts()
    for at, (ann, bob) in enumerate([("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "no")]):
        verdicts.add(f"o{at}", ann, kind=KIND, by="ann", blind=True)
        verdicts.add(f"o{at}", bob, kind=KIND, by="bob", blind=at < 2)
    verdicts.add("o9", "yes", kind=KIND, by="ann")
    result = verdicts.agreement()
    assert (result.objects, result.share, result.kappa) == (4, 0.75, pytest.approx(0.5))
    assert "75 % of pairs agree, kappa 0.50" in str(result)
    assert verdicts.agreement(blind=True).objects == 2
    verdicts.add("o0", "yes", kind="artifact", by="ann")
    with pytest.raises(QueryError, match="which kind"):
        verdicts.agreement()
    assert verdicts.agreement("artifact").share is None


def test_of_three_people_who_judged_not_the_same_there_is_alpha_and_kappa_of_pairs(tmp_path):
    merged = Verdicts()
    for one in three_people(tmp_path):
        merged.merge(one)
    merged.add("o9", "yes", kind=KIND, by="ann")
    result = merged.agreement()
    assert result.kappa is not None and result.alpha is not None and result.pairs.num_rows == 3
    merged.add("o9", "yes", kind=KIND, by="bob")  # eve has not judged it
    result = merged.agreement()
    assert result.kappa is None and result.objects == 7 and result.alpha is not None


# ---- the file


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def filled(path: Path, count: int = 5) -> Verdicts:
    verdicts = Verdicts(path)
    for at in range(count):
        verdicts.add(f"o{at}", "yes", kind=KIND, by="ann")
    return verdicts


def test_a_file_cut_anywhere_gives_the_whole_lines_before_and_takes_more(tmp_path):
    path = tmp_path / "v"
    filled(path)
    content = path.read_bytes()
    for cut in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:cut])
        whole = max(content[:cut].count(b"\n") - 1, 0)
        verdicts = Verdicts(path)
        assert len(verdicts.all()) == whole
        verdicts.add("new", "no", kind=KIND, by="bob")
        again = Verdicts(path)
        assert len(again.all()) == whole + 1
        torn = not content[:cut].endswith(b"\n") and content[:cut].count(b"\n") > 0
        assert again.unfinished == torn and bool(again.notes) == torn


def test_a_flipped_bit_is_told_with_its_line_and_changes_nothing(tmp_path):
    path = tmp_path / "v"
    filled(path)
    content, rng = path.read_bytes(), random.Random(3)
    end = content.index(b"\n")
    for _ in range(200):
        at = rng.randrange(end + 1, len(content) - 1)
        damaged = bytearray(content)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        if damaged[at : at + 1] == b"~" and content[at + 1 : at + 2] == b"\n":
            continue  # one of 8 million flips makes a whole line look like an unfinished one
        with pytest.raises(FormatError, match=r"damaged|no verdict"):
            Verdicts(path).add("x", "yes", kind=KIND, by="ann")
        assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "content",
    [
        b"object_id,verdict\na,yes\n",
        b"\x00" * 100,
        b"{}\n",
        b'{"format": "galsearch.searches", "version": 1}\n',
        b'{"format": "galsearch.verdicts", "version": 1}\n',
        b"[" * 100_000,
        b'{"format": "galsearch.verdicts"' + b" " * 100_000 + b"\n",
    ],
)
def test_a_foreign_file_is_one_clear_error_and_stays_as_it_is(tmp_path, content):
    path = tmp_path / "v"
    path.write_bytes(content)
    for act in (
        lambda: Verdicts(path),
        lambda: Journal(path, kind="galsearch.verdicts").append(lambda _: [{"id": "x"}]),
    ):
        with pytest.raises(FormatError, match=r"no file of galsearch.verdicts|damaged|expected"):
            act()
    assert path.read_bytes() == content


def test_a_newer_version_a_pipe_and_a_folder_are_refused(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(journals.line_of({"format": "galsearch.verdicts", "version": 2}))
    with pytest.raises(FormatError, match="update galsearch"):
        Verdicts(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="device or a pipe"):
        Verdicts(tmp_path / "pipe")
    with pytest.raises(GalsearchError, match="v"):
        Verdicts(tmp_path).add("a", "yes", kind=KIND, by="ann")
    with pytest.raises(GalsearchError, match="cannot be opened"):
        Verdicts(tmp_path / "no folder" / "v").add("a", "yes", kind=KIND, by="ann")


def test_where_the_disk_is_full_nothing_is_acknowledged_and_the_file_is_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "v"
    verdicts = filled(path)
    before, write = path.read_bytes(), os.write

    def full(descriptor: int, content: bytes) -> int:
        if len(content) > 40:
            return write(descriptor, content[:40])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(GalsearchError, match="No space left"):
        verdicts.add("x", "yes", kind=KIND, by="ann")
    monkeypatch.undo()
    assert path.read_bytes() == before
    verdicts.add("x", "yes", kind=KIND, by="ann")
    assert len(Verdicts(path)) == 6


def test_a_file_that_is_replaced_by_another_is_read_anew(tmp_path):
    path = tmp_path / "v"
    verdicts = filled(path)
    filled(tmp_path / "w", 2)
    (tmp_path / "w").replace(path)
    assert len(verdicts.all()) == 2


WRITER = """
import sys
from galsearch.discovery.verdicts import Verdicts
verdicts = Verdicts(sys.argv[1])
for number in range(int(sys.argv[3])):
    one = verdicts.add(f"{sys.argv[2]}-{number}", "yes", kind="merger", by=sys.argv[2])
    print(one.id, flush=True)
"""


@pytest.mark.durability
def test_what_was_acknowledged_survives_kill_9_at_any_moment(tmp_path):
    path, rng, acknowledged = tmp_path / "v", random.Random(1), []
    for number in range(20):
        command = [sys.executable, "-c", WRITER, str(path), f"p{number}", "100000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            acknowledged.append(process.stdout.readline().strip())
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    kept = [one.id for one in Verdicts(path).all()]
    assert len(kept) == len(set(kept)) and set(acknowledged) <= set(kept)
    assert len(acknowledged) > 20


@pytest.mark.durability
def test_several_that_write_at_once_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "v"
    commands = [[sys.executable, "-c", WRITER, str(path), f"p{number}", "50"] for number in range(4)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    ids = {line for process in processes for line in process.communicate()[0].split()}
    assert len(ids) == 200 and {one.id for one in Verdicts(path).all()} == ids


@pytest.mark.parametrize("at", range(0, 400, 13))
def test_a_line_that_was_written_in_part_harms_nobody(tmp_path, at):
    """As after a power cut: the last write reached the disk in part, also that which closes an unfinished line."""
    path = tmp_path / "v"
    filled(path, 2)
    before = path.read_bytes()
    filled(path, 3)
    path.write_bytes(path.read_bytes()[: len(before) + at])
    Verdicts(path).add("x", "no", kind=KIND, by="bob")
    middle = path.read_bytes()
    path.write_bytes(middle[: len(before) + at + 2])  # of `~` and the line end that closed it
    Verdicts(path).add("y", "no", kind=KIND, by="bob")
    assert {"o0", "o1", "y"} <= {one.object_id for one in Verdicts(path).current()}


def test_ten_thousand_verdicts_are_read_and_added_to_quickly(tmp_path):
    path = tmp_path / "v"
    many = Verdicts()
    rows = [
        Verdict(f"o{n}", "yes", KIND, "ann", time=f"2026-01-01T00:00:00.{n:06d}Z", id=f"{n:032x}")
        for n in range(10_000)
    ]
    many._journal.append(lambda _: [one.to_row() for one in rows])
    verdicts = Verdicts(path)
    assert verdicts.merge(many).new == 10_000
    started = time.perf_counter()
    again = Verdicts(path)
    again.add("x", "yes", kind=KIND, by="ann")
    assert len(again) == 10_001 and time.perf_counter() - started < 5


# ---- the command line


def run(*arguments: str | Path, code: int = 0) -> str:
    from galsearch import cli

    done = CliRunner().invoke(cli.app, [str(one) for one in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, GalsearchError) and code == 1, done.exception
        return str(done.exception)
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.slow
def test_verdicts_on_the_command_line_from_the_first_to_their_table(tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.setenv("GALSEARCH_REVIEWER", "ann")
    file = ["--verdicts", tmp_path / "v"]
    with galsearch.open(tiny_bundle) as atlas:
        one, two = atlas.search(k=2).ids
    assert "not there" in run("review", "list", tiny_bundle, *file, code=1)
    assert one in run("review", "queue", tiny_bundle, *file, "--kind", "ring", "-k", "500", "--format", "csv")
    run("review", "add", tiny_bundle, one, "yes", "--kind", "ring", *file)
    run("review", "add", tiny_bundle, two, "label", "--label", "shell", "--kind", "ring", *file)
    run("review", "add", tiny_bundle, one, "no", "--kind", "ring", "--by", "bob", *file)
    assert "took back" in run("review", "undo", tiny_bundle, *file)
    listed = json.loads(run("review", "list", tiny_bundle, *file, "--format", "json"))["rows"]
    assert len(listed) == 2
    assert "0 % of pairs agree" in run("review", "agreement", tiny_bundle, *file)
    assert "(4 rows)" in run("review", "export", tiny_bundle, *file, "-o", tmp_path / "v.vot", "--history")
    assert "4 new" in run("review", "import", tiny_bundle, tmp_path / "v.vot", "--verdicts", tmp_path / "w")
    assert one not in run("review", "rank", tiny_bundle, *file, "--format", "csv")
    assert one in run("review", "rank", tiny_bundle, *file, "--format", "csv", "--include-judged", "-k", "500")


def test_start_opens_the_app_on_the_page_review_with_this_file_and_refuses_another(tmp_path, tiny_bundle, monkeypatch):
    for name in ("GALSEARCH_VERDICTS", "GALSEARCH_PAGE", "GALSEARCH_REVIEWER"):
        monkeypatch.setenv(name, "")
    opened = []
    monkeypatch.setattr("galsearch.cli.review.open_app", lambda path, **more: opened.append((path, more)))
    run("review", "start", tiny_bundle, "--verdicts", tmp_path / "v", "--by", "ann", "--port", "8600")
    assert opened == [(tiny_bundle, {"port": 8600, "public": False})]
    names = ("GALSEARCH_VERDICTS", "GALSEARCH_PAGE", "GALSEARCH_REVIEWER")
    assert [os.environ[name] for name in names] == [str(tmp_path / "v"), "review", "ann"]
    (tmp_path / "notes").write_text("notes\n")
    assert "no file of" in run("review", "start", tiny_bundle, "--verdicts", tmp_path / "notes", code=1)
    assert len(opened) == 1


# ---- saved searches


def test_alerts_tell_what_is_new_once_and_nothing_is_lost_before_it_is_marked(tmp_path, tiny_folder, tiny_models):
    import shutil

    import tiny
    from PIL import Image

    atlas_path = Path(shutil.copytree(tiny_folder, tmp_path / "a.atlas"))
    saved = galsearch.Searches(tmp_path / "s")
    with galsearch.open(atlas_path) as atlas:
        saved.save("all", galsearch.Query(k=1000), atlas)
        saved.save("fast", galsearch.Query((galsearch.Term("text", "ring"),), k=5), None)
        assert saved.new(atlas, name="all").num_rows == 0
        first = saved.new(atlas)
        assert first["search"].to_pylist() == ["fast"] * 5 and first.equals(saved.new(atlas))  # nothing is marked yet
        saved.mark(first)
        saved.mark(first)
        assert galsearch.Searches(tmp_path / "s").new(atlas).num_rows == 0
    (tmp_path / "new").mkdir()
    Image.fromarray(tiny.draw(3)).save(tmp_path / "new" / "newcomer.png")
    galsearch.add(atlas_path, images=tmp_path / "new", models=tiny_models)
    with galsearch.open(atlas_path) as atlas:
        assert saved.new(atlas, name="all")["object_id"].to_pylist() == ["newcomer"]
    saved.drop("all")
    with pytest.raises(QueryError, match="no search 'all', it has 'fast'"):
        saved.drop("all")


def test_alerts_print_nothing_where_nothing_is_new_and_exit_as_told(tmp_path, tiny_bundle):
    file = ["--searches", tmp_path / "s"]
    run("search", tiny_bundle, "ring", "-k", "3", "--save-as", "rings", *file)
    done = run("alerts", tiny_bundle, *file, "--exit-code")
    assert done == ""
    galsearch.Searches(tmp_path / "s").save("later", galsearch.Query(k=2))
    assert "later" in run("alerts", tiny_bundle, *file, "--keep", "--exit-code", code=3)
    assert "later" in run("alerts", tiny_bundle, *file)
    assert run("alerts", tiny_bundle, *file) == ""
    assert "forgot" in run("alerts", tiny_bundle, *file, "--drop", "--name", "later")


def test_a_search_by_a_file_is_not_saved_and_a_foreign_file_is_refused(tmp_path):
    with pytest.raises(QueryError, match="by a file"):
        galsearch.Searches().save("x", galsearch.Query((galsearch.Term("image", "a.png"),)))
    (tmp_path / "s").write_text("notes\n")
    with pytest.raises(FormatError, match=r"no file of galsearch\.searches"):
        galsearch.Searches(tmp_path / "s")
    np.testing.assert_equal((tmp_path / "s").read_text(), "notes\n")


def test_a_correction_stands_although_the_clock_of_what_it_corrects_was_ahead(tmp_path):
    (tmp_path / "early.csv").write_text("object_id,verdict,kind,by,time\na,yes,m,ann,2999-01-01T00:00:00.000000Z\n")
    kept = galsearch.Verdicts(tmp_path / "v.verdicts")
    kept.merge(tmp_path / "early.csv")
    kept.add("a", "no", kind="m", by="ann")
    assert [one.verdict for one in kept.current("m")] == ["no"]
    kept.undo(by="ann")
    assert [one.verdict for one in kept.current("m")] == ["yes"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf"), 2.0])
def test_a_least_score_that_is_none_is_refused_and_the_file_stays_readable(tmp_path, score):
    kept = galsearch.Searches(tmp_path / "s.searches")
    kept.save("good", galsearch.Query(where="z < 1"))
    with pytest.raises(QueryError, match="least_score"):
        kept.save("bad", galsearch.Query(where="z < 1"), least_score=score)
    assert list(galsearch.Searches(tmp_path / "s.searches").all()) == ["good"]


# ---- times, flags and texts of tables that others wrote


def _rows(folder: Path, head: str, *rows: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2026-05-01T12:00:00+02:00", "2026-05-01T11:00:00Z"),  # as text the first is greater
        ("2026-05-01T12:00:00Z", "2026-05-01 13:00:00"),  # a space sorts before T
        ("2026-05-01", "2026-05-01T00:00:00.000001Z"),
        ("2026-05-01T23:30:00-05:00", "2026-05-02T05:00Z"),
        ("2026-05-01T12:00:00.5Z", "2026-05-01T12:00:00.51Z"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_times_of_tables_are_compared_as_moments_whatever_their_zone_and_spelling(tmp_path, earlier, later, turned):
    rows = [f"a,yes,{KIND},ann,{later}", f"a,no,{KIND},ann,{earlier}"]
    verdicts = Verdicts(tmp_path / "v")
    verdicts.merge(_rows(tmp_path, "object_id,verdict,kind,by,time", *(rows[::-1] if turned else rows)))
    assert said(Verdicts(tmp_path / "v")) == {("a", "ann"): "yes"}
    assert all(one.time.endswith("Z") and len(one.time) == 27 for one in verdicts.all())


@pytest.mark.parametrize("time", ["yesterday", "2026-13-01", "61161.5", "1777600000", "2026-05-01T12:00 CEST", "12:00"])
def test_what_is_no_time_is_refused_with_its_row_and_nothing_is_taken(tmp_path, time):
    path = _rows(tmp_path, "object_id,verdict,kind,by,time", f"a,yes,{KIND},ann,2026-05-01", f"b,no,{KIND},ann,{time}")
    verdicts = Verdicts(tmp_path / "v")
    with pytest.raises(SchemaError, match=r"row 2: time is .*ISO 8601.*mend it"):
        verdicts.merge(path)
    assert verdicts.all() == []


@pytest.mark.parametrize("order", [("yes", "no", "yes"), ("no", "yes", "no"), ("unsure", "no", "yes")])
def test_of_rows_without_time_the_later_ones_count_and_again_they_are_known(tmp_path, order):
    path = _rows(tmp_path, "object_id,verdict,kind,by", *(f"a,{one},{KIND},ann" for one in order), f"b,no,{KIND},ann")
    verdicts = Verdicts(tmp_path / "v")
    assert verdicts.merge(path).new == 4
    assert said(verdicts) == {("a", "ann"): order[-1], ("b", "ann"): "no"}
    longer = _rows(tmp_path, "object_id,verdict,kind,by", f"c,no,{KIND},ann", *path.read_text().splitlines()[1:])
    assert verdicts.merge(longer) == galsearch.Merged(1, 4)  # a row in front changes none of the others
    assert said(verdicts)[("a", "ann")] == order[-1]


def test_times_of_parquet_that_are_no_text_are_read_too(tmp_path):
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    zone = datetime.timezone(datetime.timedelta(hours=2))
    times = [datetime.datetime(2026, 5, 1, 12, tzinfo=zone), datetime.datetime(2026, 5, 1, 11, tzinfo=datetime.UTC)]
    columns = {"object_id": ["a", "a"], "verdict": ["no", "yes"], "kind": [KIND] * 2, "by": ["ann"] * 2, "time": times}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    verdicts = Verdicts()
    verdicts.merge(tmp_path / "t.parquet")
    assert said(verdicts) == {("a", "ann"): "yes"}
    assert [one.time for one in verdicts.all()] == ["2026-05-01T10:00:00.000000Z", "2026-05-01T11:00:00.000000Z"]


@pytest.mark.parametrize(("text", "blind"), [("Yes", True), ("TRUE", True), ("n", False), ("0", False), ("", False)])
def test_a_flag_is_yes_or_no_and_anything_else_is_refused(tmp_path, text, blind):
    verdicts = Verdicts()
    verdicts.merge(_rows(tmp_path, "object_id,verdict,kind,by,blind", f"a,yes,{KIND},ann,{text}"))
    assert verdicts.all()[0].blind is blind
    with pytest.raises(SchemaError, match="row 1: blind is 'maybe', expected true or false"):
        verdicts.merge(_rows(tmp_path, "object_id,verdict,kind,by,blind", f"a,yes,{KIND},ann,maybe"))


HARD_TEXTS = st.text(
    st.sampled_from("aB1 '=+-@\t\n\r\x00\x07\x1b\x85\x9f\u00a0\u200f\u2028\ufeff\uffff,;|#\"\\<&]>é\u0301星☄.0eE"),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.tuples(HARD_TEXTS, HARD_TEXTS, HARD_TEXTS), min_size=1, max_size=3), quote=st.booleans())
@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".vot", ".fits", ".parquet"])
@pytest.mark.slow
def test_whatever_was_noted_comes_back_the_same_from_every_format(tmp_path_factory, suffix, rows, quote):
    verdicts, folder = Verdicts(), tmp_path_factory.mktemp("hard")
    for number, (kind, note, label) in enumerate(rows):
        verdicts.add(f"o{number}", "yes", kind=f"k {kind}", note=note or None, label=label or None, by="ann")
    path = verdicts.save(folder / f"t{suffix}", quote_formulas=quote)
    again = Verdicts(folder / "v")
    again.merge(path)
    assert again.all() == verdicts.all()
    assert verdicts.merge(path) == galsearch.Merged(0, len(rows))
    assert Verdicts(folder / "v").all() == verdicts.all()


def test_texts_are_kept_tidy_and_one_kind_is_one_however_it_is_typed(tmp_path):
    verdicts = Verdicts(tmp_path / "v")
    one = verdicts.add("a", "yes", kind=" ring \x07 galaxy\u00a0", note="  12.0\r\nsee tail ", by="ann\t", label="'=1")
    assert (one.kind, one.note, one.by, one.label) == ("ring galaxy", "12.0\nsee tail", "ann", "=1")
    assert verdicts.current("ring  galaxy ")[0] == one and verdicts.undo(by=" ann", kind="ring galaxy ") == one
    with pytest.raises(QueryError, match="kind is"):
        verdicts.add("a", "yes", kind="\x07", by="ann")


def test_what_an_older_file_holds_untidily_merges_with_its_own_table(tmp_path):
    row = {"id": "1", "time": "2026-05-01 12:00", "kind": KIND, "object_id": "a", "verdict": "yes", "by": "ann"}
    Journal(tmp_path / "v", kind="galsearch.verdicts").append(lambda _: [row | {"note": " tail\x07 "}])
    verdicts = Verdicts(tmp_path / "v")
    assert (verdicts.all()[0].note, verdicts.all()[0].time) == ("tail", "2026-05-01T12:00:00.000000Z")
    for suffix in (".csv", ".vot", ".fits"):
        assert verdicts.merge(verdicts.save(tmp_path / f"t{suffix}")) == galsearch.Merged(0, 1)


def test_an_object_id_that_a_format_would_change_is_refused_when_it_is_written(tmp_path):
    verdicts = Verdicts()
    verdicts.add("a ", "yes", kind=KIND, by="ann")
    for suffix in (".csv", ".ecsv", ".vot", ".fits"):
        with pytest.raises(SchemaError, match=r"does not keep the verdict on 'a '.*write .parquet"):
            verdicts.save(tmp_path / f"t{suffix}")
        assert not (tmp_path / f"t{suffix}").exists()
        with pytest.raises(SchemaError, match="does not keep"):
            verdicts.to_bytes(suffix)
    again = Verdicts()
    again.merge(verdicts.save(tmp_path / "t.parquet"))
    assert again.all() == verdicts.all()


# ---- verdicts of another atlas


def _changed(bundle: Path, folder: Path, statement: str) -> Path:
    """Return a copy of a bundle in which a statement was executed."""
    import shutil

    import duckdb

    path = Path(shutil.copy(bundle, folder / "other.duckdb"))
    with duckdb.connect(str(path)) as connection:
        connection.execute(statement)
    return path


def test_verdicts_on_unknown_objects_are_counted_and_refused_unless_they_are_wanted(tmp_path, tiny_bundle):
    with galsearch.open(tiny_bundle) as atlas:
        known = atlas.search(k=1).ids[0]
        path = _rows(
            tmp_path, "object_id,verdict,kind,by", f"{known},yes,{KIND},ann", *(f"x{n},no,{KIND},ann" for n in "12")
        )
        verdicts = Verdicts(tmp_path / "v", atlas=atlas)
        with pytest.raises(QueryError, match=r"2 of 3 new verdicts are on 2 objects .*such as 'x1'.*--foreign"):
            verdicts.merge(path)
        assert verdicts.all() == []
        assert verdicts.merge(path, foreign=True) == galsearch.Merged(3, 0, 2)
        assert verdicts.merge(path) == galsearch.Merged(0, 3)  # nothing of it is new
    told = run("review", "import", tiny_bundle, path, "--verdicts", tmp_path / "w", code=1)
    assert "2 of 3 new verdicts" in told
    told = run("review", "import", tiny_bundle, path, "--verdicts", tmp_path / "w", "--foreign")
    assert "3 new, 2 of them on objects that are not in the atlas, 0 known" in told


def test_verdicts_that_were_begun_with_another_atlas_are_refused_even_where_the_ids_are_the_same(tmp_path, tiny_bundle):
    statement = "UPDATE galsearch_manifest SET value = '\"Another survey\"' WHERE key = 'title'"
    other = _changed(tiny_bundle, tmp_path, statement)
    with galsearch.open(other) as atlas, galsearch.open(tiny_bundle) as mine:
        name = mine.search(k=1).ids[0]
        Verdicts(tmp_path / "theirs", atlas=atlas).add(name, "yes", kind=KIND, by="bob")
        verdicts = Verdicts(tmp_path / "v", atlas=mine)
        with pytest.raises(QueryError, match="given on the atlas 'Another survey', and this is the atlas"):
            verdicts.merge(tmp_path / "theirs")
        assert verdicts.merge(tmp_path / "theirs", foreign=True).new == 1
        Verdicts(tmp_path / "own", atlas=mine).add(name, "no", kind=KIND, by="eve")
        assert verdicts.merge(tmp_path / "own").new == 1


# ---- agreement, consensus and kinds


def test_the_share_that_agrees_is_of_pairs_and_not_of_objects():
    """Three people on one object have three pairs: of 3 + 1 pairs all but one agree, though of two objects half do."""
    verdicts = Verdicts()
    for name in ("ann", "bob", "eve"):
        verdicts.add("a", "yes", kind=KIND, by=name)
    verdicts.add("b", "yes", kind=KIND, by="ann")
    verdicts.add("b", "no", kind=KIND, by="bob")
    assert verdicts.agreement().share == 0.75
    assert "75 % of pairs agree" in str(verdicts.agreement())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.one_of(st.none(), CLASSES), min_size=3, max_size=3), min_size=1, max_size=12))
def test_the_share_that_agrees_is_that_of_all_pairs_counted_one_by_one(ratings):
    pairs = [(a, b) for row in ratings for at, a in enumerate(row) for b in row[at + 1 :] if a and b]
    expected = sum(a == b for a, b in pairs) / len(pairs) if pairs else None
    assert agreement.agreed_share(ratings) == (None if expected is None else pytest.approx(expected))


def test_the_consensus_has_no_class_unsure_and_one_spelling_of_a_label(tmp_path, tiny_bundle):
    verdicts = Verdicts(tmp_path / "v")
    said_of = {
        "doubt": ("unsure", "unsure", "yes"),
        "tie": ("yes", "no"),
        "half": ("yes", "unsure"),
        "most": ("yes", "yes", "unsure"),
    }
    for name, opinions in said_of.items():
        for person, one in zip(("ann", "bob", "eve"), opinions, strict=False):
            verdicts.add(name, one, kind=KIND, by=person)
    for person, label in (("ann", "Shell"), ("bob", "shell"), ("eve", "shell")):
        verdicts.add("word", "label", label=label, kind=KIND, by=person)
    rows = {row["object_id"]: (row["label"], row["people"], row["share"]) for row in verdicts.consensus().to_pylist()}
    assert rows == {
        "doubt": (None, 3, pytest.approx(2 / 3)),
        "tie": (None, 2, 0.5),
        "half": (None, 2, 0.5),
        "most": ("yes", 3, pytest.approx(2 / 3)),
        "word": ("shell", 3, 1.0),
    }
    file = ["--verdicts", tmp_path / "v", "-o", tmp_path / "c.csv"]
    assert "3 of 5 objects have no label" in run("review", "export", tiny_bundle, *file, "--consensus")


def test_a_kind_that_nobody_judged_is_told_and_never_an_empty_result(tmp_path, tiny_bundle):
    file = ["--verdicts", tmp_path / "v"]
    with galsearch.open(tiny_bundle) as atlas:
        name = atlas.search(k=1).ids[0]
    run("review", "add", tiny_bundle, name, "yes", "--kind", "ring", "--by", "ann", *file)
    wrong = "no verdict is of kind 'rign', they are of 'ring'"
    for command in (["list"], ["export", "-o", tmp_path / "t.csv"], ["rank"], ["agreement"]):
        assert wrong in run("review", command[0], tiny_bundle, *command[1:], "--kind", "rign", *file, code=1)
    assert wrong in run(
        "review", "export", tiny_bundle, "-o", tmp_path / "t.csv", "--consensus", "--kind", "rign", *file, code=1
    )
    assert not (tmp_path / "t.csv").exists()
    told = run("review", "queue", tiny_bundle, "--kind", "rign", *file)
    assert "no verdict is of kind 'rign' yet, they are of 'ring'" in told


def test_near_a_position_where_no_object_has_one_is_an_error_of_queue_rank_and_anomalies(tmp_path, tiny_bundle):
    path = _changed(tiny_bundle, tmp_path, "UPDATE galaxies SET ra = NULL, dec = NULL")
    with galsearch.open(path) as atlas:
        verdicts = Verdicts(atlas=atlas)
        verdicts.add(atlas.search(k=1).ids[0], "yes", kind="ring", by="ann")
        cone = {"near": (10.0, 0.0), "radius_arcsec": 60.0}
        for call in (
            lambda: atlas.review_queue(verdicts, **cone),
            lambda: atlas.rank_by_verdicts(verdicts, **cone),
            lambda: atlas.anomalies(**cone),
        ):
            with pytest.raises(QueryError, match="since none of the 300 objects has a position"):
                call()


def test_a_search_of_a_name_that_is_taken_is_kept_unless_it_is_to_be_replaced(tmp_path, tiny_bundle):
    file = ["--searches", tmp_path / "s"]
    run("search", tiny_bundle, "ring", "-k", "3", "--save-as", "rings", *file)
    told = run("search", tiny_bundle, "edge", "-k", "2", "--save-as", "rings ", *file, code=1)
    assert "has a search 'rings' already" in told and "--replace" in told
    assert galsearch.Searches(tmp_path / "s").all()["rings"].query.k == 3
    run("search", tiny_bundle, "edge", "-k", "2", "--save-as", "rings", "--replace", *file)
    assert galsearch.Searches(tmp_path / "s").all()["rings"].query.k == 2


def test_only_what_lies_above_a_half_with_its_interval_is_called_likely():
    from galsearch.discovery.learning import _reason

    fact = {"interest": 0.73, "information": 0.3, "like": None, "likeness": None}
    assert _reason(fact, (0.01, 1.0), explores=False).startswith("unsure: interest 0.73 (0.01 to 1.00)")
    assert _reason(fact, (0.6, 0.9), explores=False).startswith("likely: interest 0.73 (0.60 to 0.90)")
