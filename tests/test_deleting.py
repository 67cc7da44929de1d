"""Deleted objects are gone from all that is asked, come back until they are removed, and nothing else changes."""

import hashlib
import shutil
from pathlib import Path

import crash
import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from PIL import Image

import galsearch
from galsearch.store.index import cells
from galsearch.store.write import lance_offsets, tombstones

GONE = "mag_r < 15.5"  # a cut of the tiny atlas
SHAPES = "SELECT object_id, CASE WHEN mag_r < 17 THEN 'bright' ELSE 'faint' END AS label FROM galaxies WHERE mag_r > 0"
DIM = 64  # so wide that Lance keeps the numbers as they are


def seen(path):
    """Return what a reader sees: rows, scores of one question, pictures, captions; all of it must pass the check."""
    with galsearch.open(path, device="cpu") as atlas:
        assert [finding for finding in atlas.check() if not finding.ok] == []
        hits = atlas.search("red edge", k=1000)
        rows = {row["object_id"]: row for row in hits.table.to_pylist()}
        return rows, atlas.thumbnails(list(rows)), atlas.sql("FROM captions ORDER BY object_id").to_pylist()


def digest(path):
    files = sorted(item for item in path.rglob("*") if item.is_file())
    return {str(item.relative_to(path)): hashlib.sha256(item.read_bytes()).hexdigest() for item in files}


@pytest.fixture(scope="module")
def captioned(tiny_folder, tmp_path_factory):
    """The tiny atlas with captions and a knowledge base, never to be changed."""
    path = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("deleting") / "tiny.atlas")
    galsearch.caption(path, by="measurements")
    galsearch.create_base(path, "shapes", SHAPES)
    return path


@pytest.fixture
def folder(captioned, tmp_path):
    return Path(shutil.copytree(captioned, tmp_path / "tiny.atlas"))


@pytest.mark.slow
def test_deleted_objects_are_in_no_search_sql_picture_caption_base_or_bundle(folder, tmp_path):
    rows, pictures, captions = seen(folder)
    gone = galsearch.delete(folder, where=GONE)
    assert 10 < len(gone) < len(rows) - 10 and set(gone) == {i for i, row in rows.items() if row["mag_r"] < 15.5}
    for path in (folder, galsearch.bundle(folder, tmp_path / "tiny.duckdb")):
        left, shown, told = seen(path)
        assert left == {name: row for name, row in rows.items() if name not in gone}
        assert list(left) == [name for name in rows if name not in gone]
        assert shown == {name: picture for name, picture in pictures.items() if name not in gone}
        assert told == [row for row in captions if row["object_id"] not in gone]
        with galsearch.open(path, device="cpu") as atlas:
            listed = ", ".join(f"'{name}'" for name in gone)
            for table in ("galaxies", "captions", "knowledge_labels", "embedding_image", "map_image"):
                assert (
                    atlas.sql(f"SELECT count(*) AS n FROM {table} WHERE object_id IN ({listed})")["n"][0].as_py() == 0
                )
            nearest = atlas.sql(f"SELECT object_id FROM nearest(embed('red edge'), k := {len(rows)})")
            assert set(nearest["object_id"].to_pylist()) == set(left)
            assert atlas.sql("SELECT sum(rows) AS n FROM knowledge_bases")["n"][0].as_py() == len(
                atlas.sql("FROM knowledge_labels")
            )
            assert len(atlas) == len(left) and gone[0] not in atlas
            assert not set(atlas.search("bright", k=1000, hybrid="rank").ids) & set(gone)


@pytest.mark.slow
def test_they_come_back_as_they_were_deletion_by_deletion(folder):
    before = seen(folder)
    first = galsearch.delete(folder, where=GONE)
    between = seen(folder)
    second = galsearch.delete(folder, ids=list(between[0])[:5])
    assert [galsearch.undelete(folder), seen(folder)] == [len(second), between]
    assert galsearch.undelete(folder) == len(first)
    rows, pictures, captions = seen(folder)
    assert (rows, pictures, captions) == before
    with galsearch.open(folder, device="cpu") as atlas:
        assert atlas.classify(first[0], "shapes", least=0).label is not None
    with pytest.raises(galsearch.GalsearchError, match="nothing is left to bring back"):
        galsearch.undelete(folder)
    assert not list(folder.glob("deleted-*"))


@pytest.mark.slow
def test_optimize_removes_them_for_good_and_the_bytes_go_with_them(folder, monkeypatch):
    gone = galsearch.delete(folder, where=GONE)
    after = seen(folder)
    assert list(folder.glob("deleted-*"))
    monkeypatch.setattr(tombstones, "KEEP", tombstones.KEEP * 0)
    assert galsearch.optimize(folder).removed == len(gone)
    assert seen(folder) == after and not list(folder.glob("deleted-*"))
    with pytest.raises(galsearch.GalsearchError, match="nothing is left"):
        galsearch.undelete(folder)
    for table in (folder / "vectors.lance").glob("*.lance"):
        data = lance.dataset(str(table))
        assert sum(part.num_deletions for part in data.get_fragments()) == 0
        assert len(list((table / "data").iterdir())) == len(data.get_fragments())
    assert galsearch.optimize(folder).removed == 0


@pytest.mark.slow
def test_an_id_may_be_added_again_and_then_nothing_is_brought_back_over_it(folder, tiny_source, tiny_models, tmp_path):
    pictures, _ = tiny_source
    name = galsearch.delete(folder, ids=[tiny.object_id(5)])[0]
    (tmp_path / "again").mkdir()
    shutil.copy(next(pictures.glob(f"{name}*")), tmp_path / "again")
    galsearch.add(folder, images=tmp_path / "again", models=tiny_models)
    assert name in seen(folder)[0]
    with pytest.raises(galsearch.GalsearchError, match=f"'{name}' was added again since"):
        galsearch.undelete(folder)
    galsearch.delete(folder, ids=[name])
    assert (galsearch.undelete(folder), name in seen(folder)[0]) == (1, True)


def test_what_cannot_be_deleted_is_one_clear_error_and_changes_nothing(folder, captioned, tmp_path):
    before = digest(folder)
    with galsearch.open(folder) as atlas:
        every = atlas.search(k=1000).ids
    bundle = galsearch.bundle(folder, tmp_path / "tiny.duckdb")
    for path, options, message in (
        (folder, {}, "one of the two"),
        (folder, {"where": "true", "ids": every[:1]}, "one of the two"),
        (folder, {"ids": [every[0], "nobody"]}, "no object 'nobody'"),
        (folder, {"where": "mag_r <"}, "syntax error"),
        (folder, {"where": "true"}, "all of its 300 objects"),
        (bundle, {"ids": every[:1]}, "is a bundle"),
    ):
        with pytest.raises(galsearch.GalsearchError, match=message):
            galsearch.delete(path, **options)
    assert galsearch.delete(folder, where="false") == []
    assert galsearch.delete(folder, ids=every[:2], dry_run=True) == every[:2]
    assert digest(folder) == before


def test_a_reader_goes_on_with_what_it_opened(folder):
    with galsearch.open(folder, device="cpu") as atlas:
        before = atlas.search("red edge", k=20)
        galsearch.delete(folder, ids=before.ids[:5])
        again = atlas.search("red edge", k=20)
        assert again.ids == before.ids and len(atlas.thumbnails(again.ids)) == 20


def test_a_file_of_deleted_objects_that_was_changed_is_told_and_not_used(folder):
    galsearch.delete(folder, where=GONE)
    (aside,) = folder.glob("deleted-*")
    content = bytearray(aside.read_bytes())
    content[len(content) // 2] ^= 1
    aside.write_bytes(bytes(content))
    with pytest.raises(galsearch.FormatError, match="missing or damaged"):
        galsearch.undelete(folder)
    with galsearch.open(folder, device="cpu") as atlas:
        assert [finding.name for finding in atlas.check() if not finding.ok] == ["deleted"]


@pytest.mark.parametrize("stated", ['"x"', "[1]", '[{"file": "../x", "objects": 1}]', '[{"file": "deleted-1.duckdb"}]'])
def test_a_manifest_that_lies_about_deletions_is_refused(folder, stated):
    with duckdb.connect(folder / "galaxies.duckdb") as connection:
        connection.execute("INSERT INTO galsearch_manifest VALUES ('deleted', $1)", [stated])
    with pytest.raises(galsearch.FormatError, match="no list of deletions"):
        galsearch.delete(folder, where=GONE)


def test_lists_that_were_made_anew_since_stay_as_they_are(folder):
    galsearch.save_duplicates(folder_duplicates(folder))
    galsearch.delete(folder, where=GONE)
    with galsearch.open(folder) as atlas:
        kept = atlas.sql("FROM duplicates ORDER BY ALL").to_pylist()
    galsearch.undelete(folder)
    with galsearch.open(folder) as atlas:
        assert len(atlas.sql("FROM duplicates")) >= len(kept)
        assert [finding for finding in atlas.check() if not finding.ok] == []


def folder_duplicates(path):
    with galsearch.open(path, device="cpu") as atlas:
        return atlas.duplicates(by="vector")


@pytest.fixture
def indexed(tmp_path, monkeypatch):
    """A folder of vectors that lie in cells and are read in place."""
    monkeypatch.setattr(cells, "LEAST_ROWS", 100)
    units = tiny.random_units(400, DIM, seed=3)
    ids = [f"o'{row:03d}" for row in range(len(units))]  # whose quotes could end a statement
    columns = {"object_id": ids, "mag": np.linspace(10, 20, len(ids)), "vec": list(units)}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    galsearch.build(tmp_path / "v.atlas", table=tmp_path / "rows.parquet", vectors="vec", model="mine")
    return tmp_path / "v.atlas", dict(zip(ids, units, strict=True))


def findings(path):
    with galsearch.open(path, device="cpu") as atlas:
        return {finding.name: finding for finding in atlas.check()}


def best(path, units, query, **options):
    """Return what a search finds, and make sure that it is what comparing all that are left gives."""
    with galsearch.open(path, device="cpu") as atlas:
        left = atlas.search(k=1000).ids
        hits = atlas.search(query, k=10, **options)
        scores = {name: float(units[name] @ query) for name in left}
        assert hits.ids == sorted(left, key=lambda name: (-scores[name], name))[:10]
        return left, hits.plan


@pytest.mark.slow
def test_vectors_are_still_read_in_place_and_cells_hold_what_is_left(indexed):
    path, units = indexed
    query = units["o'007"] + units["o'123"]
    assert findings(path)["image map"].message == "the map of the vectors fits the file"
    gone = galsearch.delete(path, where="mag BETWEEN 12 AND 13 OR object_id = 'o''399'")
    left, _ = best(path, units, query, recall=1.0)
    assert set(left) == set(units) - set(gone)
    told = findings(path)
    assert all(finding.ok for finding in told.values()), told
    assert told["image map"].message == "the map of the vectors fits the file"
    with galsearch.open(path) as atlas:
        assert atlas.sql("SELECT sum(rows) AS n FROM cells_image")["n"][0].as_py() == len(left)
    galsearch.undelete(path)
    assert best(path, units, query, exact=True)[0] == sorted(units)
    assert all(finding.ok for finding in findings(path).values())


def test_where_deletions_leave_too_many_runs_the_engine_is_asked(indexed, monkeypatch):
    path, units = indexed
    monkeypatch.setattr(lance_offsets, "MOST_RUNS", 3)
    galsearch.delete(path, where="object_id LIKE '%7'")
    told = findings(path)
    assert all(finding.ok for finding in told.values()) and "not used" in told["image map"].message
    best(path, units, units["o'008"], exact=True)


@pytest.mark.slow
def test_when_a_quarter_is_deleted_the_rest_is_put_in_order_and_can_still_come_back(indexed):
    path, units = indexed
    gone = galsearch.delete(path, where="mag < 14")
    data = lance.dataset(str(path / "vectors.lance" / "image.lance"))
    assert sum(part.num_deletions for part in data.get_fragments()) == 0
    best(path, units, units["o'399"], exact=True)
    assert galsearch.undelete(path) == len(gone)
    assert best(path, units, units["o'001"], exact=True)[0] == sorted(units)
    galsearch.optimize(path)
    assert all(finding.ok for finding in findings(path).values())


@pytest.mark.slow
def test_a_watch_does_not_fetch_again_what_somebody_deleted(tmp_path, tiny_models):
    (tmp_path / "incoming").mkdir()
    for row in range(6):
        Image.fromarray(tiny.draw(row + 20)).save(tmp_path / "incoming" / f"g{row}.png")
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'title = "t"\nworkspace = "w"\nbudget = 2\nmodels = "{tiny_models}"\n'
        '[[source]]\nname = "in"\nkind = "folder"\npath = "incoming"\n'
    )
    galsearch.watch(plan)
    (atlas_path,) = (tmp_path / "w").glob("*.atlas")
    with galsearch.open(atlas_path) as atlas:
        ids = atlas.search(k=10).ids
    galsearch.delete(atlas_path, ids=ids[:2])
    galsearch.watch(plan)
    with galsearch.open(atlas_path) as atlas:
        assert atlas.search(k=10).ids == ids[2:]


@pytest.mark.slow
@pytest.mark.parametrize("action", ["delete", "undo", "optimize"])
def test_killed_at_any_moment_all_is_deleted_or_nothing(folder, tmp_path, action):
    if action != "delete":
        galsearch.delete(folder, where=GONE)
    words = {"delete": ["delete", "--where", GONE], "undo": ["delete", "--undo"], "optimize": ["optimize"]}[action]
    trial = Path(shutil.copytree(folder, tmp_path / "trial.atlas"))
    before, landed = seen(folder), []
    with crash.Crew(spare=1) as crew:
        last = crew.start("cli", {"arguments": [words[0], str(trial), *words[1:]]}).finish()
        assert last["result"]["status"] == 0
        after = seen(trial)
        steps = range(1, last["moments"] + 1, max(1, last["moments"] // 8))
        for number, moment in enumerate([*steps, "os.rename galaxies.duckdb.partial"]):
            copy = Path(shutil.copytree(folder, tmp_path / f"copy-{number}.atlas"))
            job = {"arguments": [words[0], str(copy), *words[1:]]}
            crew.start("cli", job, stop=(moment, "SIGKILL")).killed_after(crash.WAIT_SECONDS)
            found = seen(copy)
            assert found in (before, after)
            landed.append(found == after)
            with galsearch.open(copy) as atlas:
                done = "deleted" not in atlas.manifest.extra if action != "delete" else len(atlas) < len(before[0])
            if not done:
                main = crew.start("cli", job).finish()  # what the killed one left behind is in nobody's way
                assert main["result"]["status"] == 0
            assert seen(copy) == after
    assert action == "optimize" or landed[0] is False


@pytest.mark.slow
def test_the_command_deletes_by_condition_by_file_and_takes_it_back(run, folder, tmp_path):
    with galsearch.open(folder) as atlas:
        every = atlas.search(k=1000).ids
    (tmp_path / "gone.txt").write_text("\n".join(every[:3]) + "\n")
    duckdb.sql(f"COPY (SELECT '{every[3]}' AS object_id) TO '{tmp_path / 'gone.csv'}'")
    code, out, error = run("delete", folder, "--ids", tmp_path / "gone.txt", "--dry-run")
    assert (code, out.split()) == (0, every[:3]) and "3 galaxies would be deleted" in error
    code, out, error = run("delete", folder, "--ids", tmp_path / "gone.txt")
    assert (code, out) == (0, "") and "3 galaxies deleted" in error and "--undo" in error
    code, _, error = run("delete", folder, "--ids", tmp_path / "gone.csv")
    assert code == 0 and "1 galaxies deleted" in error
    code, _, error = run("delete", folder, "--undo")
    assert code == 0 and "1 galaxies came back" in error
    code, _, error = run("optimize", folder)
    assert code == 0 and "3 deleted galaxies were removed for good" in error
    code, _, error = run("delete", folder, "--undo")
    assert code == 1 and "nothing is left to bring back" in error
    code, _, error = run("delete", folder, "--undo", "--where", "true")
    assert code == 2
    code, _, error = run("delete", folder, "--ids", tmp_path / "none.txt")
    assert code == 1 and "cannot be read" in error
