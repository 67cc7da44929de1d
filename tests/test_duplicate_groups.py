"""Groups of duplicates: indexes against brute force, an atlas of pictures and positions, what is kept and read back."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_galaxies import SIDE, galaxy
from PIL import Image
from typer.testing import CliRunner

import galsearch
from galsearch import retrieval
from galsearch.cli import app
from galsearch.discovery import duplicates as discovery
from galsearch.errors import FormatError, GalsearchError, QueryError
from galsearch.science import duplicates, fingerprints
from galsearch.science.sky import separation_arcsec

ARCSEC = 1 / 3600
OBJECTS = 40
COPIES = {
    "turned": lambda seed: np.rot90(galaxy(seed)),
    "angle": lambda seed: galaxy(seed, turn=1.1),
    "mirrored": lambda seed: galaxy(seed)[:, ::-1],
    "stretched": lambda seed: np.rint(255 * (galaxy(seed) / 255.0) ** 0.75).astype(np.uint8),
}


def pairs_by_brute_force(close: np.ndarray) -> set[tuple[int, int]]:
    return {(a, b) for a, b in zip(*np.nonzero(np.triu(close, 1)), strict=True)}


def as_set(pairs: duplicates.Pairs) -> set[tuple[int, int]]:
    assert (pairs.first < pairs.second).all()
    result = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(result) == len(pairs.first)
    return result


# ---- indexes


def crowd(rng: np.random.Generator, *, rows: int = 300) -> np.ndarray:
    """Return positions around the pole, across right ascension 0, on the equator, and none."""
    ra = np.concatenate([rng.uniform(0, 360, rows), rng.normal(0, 0.002, rows) % 360, rng.normal(180, 0.002, rows)])
    dec = np.concatenate([90 - rng.uniform(0, 0.002, rows), rng.normal(0, 0.002, 2 * rows)])
    ra[::7] = np.nan
    dec[3] = np.nan
    ra[11], dec[11] = ra[10], dec[10]
    return np.stack([ra, dec], axis=1)


@pytest.mark.parametrize("radius", [0.0, 0.5, 2.0])
def test_pairs_on_the_sky_are_those_of_brute_force(radius):
    sky = crowd(np.random.default_rng(0))
    apart = separation_arcsec(*sky[:, None].T.swapaxes(1, 2), *sky.T)
    pairs = duplicates.close_pairs(sky, radius)
    assert as_set(pairs) == pairs_by_brute_force(apart <= radius) != set()
    assert pairs.value == pytest.approx(apart[pairs.first, pairs.second], abs=1e-6)


def test_the_chance_of_an_alignment_is_that_of_a_random_field():
    """Of random positions, pairs of a density have a chance of that of the uniform field around them."""
    rng = np.random.default_rng(1)
    side = 2_000.0  # arcsec
    sky = np.stack([rng.uniform(0, side, 40_000), rng.uniform(0, side, 40_000)], axis=1) * ARCSEC
    pairs = duplicates.close_pairs(sky, 2.0)
    chance = duplicates.chance_alignment(sky, pairs, 2.0)
    expected = -np.expm1(-np.pi * pairs.value**2 * 40_000 / side**2)
    assert np.median(chance / expected) == pytest.approx(1, abs=0.1)
    alone = np.array([[10.0, 10.0], [10.0, 10.0 + 0.5 * ARCSEC]])
    assert duplicates.chance_alignment(alone, duplicates.close_pairs(alone, 1.0), 1.0) == pytest.approx([0])


def test_equal_vectors_are_those_of_brute_force_and_copies_of_one_cost_a_link_each():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(500, 4)).astype(np.float32)
    vectors[100:120] = vectors[0]
    vectors[200:220] = vectors[50:70] + 0.001 * rng.normal(size=(20, 4)).astype(np.float32)
    near = np.linalg.norm(vectors[:, None] - vectors, axis=2) <= 0.01
    pairs = as_set(duplicates.equal_pairs(vectors, 0.01))
    assert {(0, at) for at in range(100, 120)} <= pairs
    assert pairs == {pair for pair in pairs_by_brute_force(near) if not (pair[0] >= 100 and pair[1] < 120)}


def test_nearest_are_those_of_brute_force_and_equal_rows_go_with_the_first():
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(200, 12)).astype(np.float32)
    vectors[150:160] = vectors[7]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kinds = np.r_[0:150, 160:200]
    cosine = (vectors[kinds] @ vectors[kinds].T).astype(np.float64)
    np.fill_diagonal(cosine, -np.inf)
    best = np.argsort(-cosine, axis=1)[:, :3]
    expected = {
        tuple(sorted((int(kinds[row]), int(kinds[other]))))
        for row in range(len(kinds))
        for other in best[row]
        if cosine[row, other] >= 0.3
    }
    pairs = as_set(duplicates.nearest_pairs(vectors, k=3, least=0.3, seed=0))
    assert pairs == expected | {(7, row) for row in range(150, 160)}


def test_in_cells_nearly_all_copies_are_found_and_the_seed_decides():
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(9_000, 16)) @ rng.normal(size=(16, 48))
    vectors[-1_000:] = vectors[:1_000] + 0.1 * rng.normal(size=(1_000, 48))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pairs = duplicates.nearest_pairs(vectors, k=5, least=0.45, seed=0)
    result = as_set(pairs)
    assert np.mean([(row, 8_000 + row) in result for row in range(1_000)]) > 0.99
    again = duplicates.nearest_pairs(vectors, k=5, least=0.45, seed=0)
    assert all(np.array_equal(one, other) for one, other in zip(pairs, again, strict=True))
    assert result != as_set(duplicates.nearest_pairs(vectors, k=5, least=0.45, seed=1))


def test_what_is_mostly_density_is_refused(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 20)
    sky = np.stack([np.full(50, 10.0), np.linspace(10, 10 + 5 * ARCSEC, 50)], axis=1)
    with pytest.raises(QueryError, match="more than 20 pairs lie within 3 arcsec"):
        duplicates.close_pairs(sky, 3.0)
    with pytest.raises(QueryError, match="more than 20 pairs of vectors are nearly equal"):
        duplicates.equal_pairs(np.linspace(0, 0.1, 50, dtype=np.float32)[:, None].repeat(4, axis=1), 1.0)


# ---- groups


def links(*three: tuple[int, int, float]) -> duplicates.Pairs:
    return duplicates.Pairs(*(np.array(column) for column in zip(*three, strict=True)))


def test_rows_that_are_linked_are_one_group_and_the_others_are_alone():
    nowhere = np.full((7, 2), np.nan)
    labels = duplicates.group(links((0, 1, 0.9), (1, 4, 0.9), (2, 5, 0.9)), nowhere, 2.0)
    assert labels[0] == labels[1] == labels[4] >= 0 and labels[2] == labels[5] >= 0
    assert labels[0] != labels[2] and labels[[3, 6]].tolist() == [-1, -1]


def test_a_chain_of_positions_is_cut_where_it_is_weakest():
    sky = np.array([[10.0, 10.0 + offset * ARCSEC] for offset in (0, 1.5, 3.0, 3.2)])
    chain = links((0, 1, 0.99), (1, 2, 0.9), (2, 3, 0.999))
    assert duplicates.group(chain, sky, 5.0).tolist() == [0, 0, 0, 0]
    labels = duplicates.group(chain, sky, 2.0)  # 0 and 3 lie 3.2 arcsec apart, 1 and 3 lie 1.7
    assert labels[0] == labels[1] != labels[2] and labels[2] == labels[3] >= 0


def test_a_row_without_a_position_does_not_join_two_that_lie_apart():
    sky = np.array([[10.0, 10.0], [20.0, 20.0], [np.nan, np.nan]])
    labels = duplicates.group(links((0, 2, 0.9), (1, 2, 0.99)), sky, 2.0)
    assert labels[0] == -1 and labels[1] == labels[2] >= 0


def test_links_of_a_group_are_the_surest_that_lead_to_the_root():
    some = links((0, 1, 0.2), (0, 2, 0.9), (1, 2, 0.8), (3, 4, 1.0))
    assert duplicates.tree(some, 5, np.array([0, 4])).tolist() == [-1, 2, 1, 3, -1]


# ---- an atlas of pictures and positions


def positions(names: list[str]) -> tuple[list[float | None], list[float | None]]:
    """Return positions: objects lie a degree apart, copies on them but for 0.1 arcsec, every fifth object has none."""
    ra, dec = [], []
    for name in names:
        number = int(name[1:3])
        there = number % 5 != 0
        ra.append(float(number) if there else None)
        dec.append(10.0 + (0.1 * ARCSEC if "_" in name else 0) if there else None)
    return ra, dec


def write_sources(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for number in range(OBJECTS):
        Image.fromarray(galaxy(number)).save(folder / "pictures" / f"g{number:02d}.png")
        if number < 20:
            kind = list(COPIES)[number % len(COPIES)]
            copy = np.ascontiguousarray(COPIES[kind](number))
            Image.fromarray(copy).save(folder / "pictures" / f"g{number:02d}_{kind}.png")
    names = sorted(path.stem for path in (folder / "pictures").iterdir())
    ra, dec = positions(names)
    columns = {"object_id": names, "file": [f"{name}.png" for name in names], "ra": ra, "dec": dec}
    columns["kind"] = [name.partition("_")[2] or "first" for name in names]
    pq.write_table(pa.table(columns), folder / "table.parquet")


@pytest.fixture(scope="module")
def home(made_once, tiny_models) -> Path:
    def fill(folder: Path) -> None:
        write_sources(folder)
        options = {"images": folder / "pictures", "models": tiny_models, "measure": "none"}
        galsearch.build(folder / "sky.atlas", table=folder / "table.parquet", **options)
        galsearch.build(folder / "plain.atlas", **options)
        galsearch.bundle(folder / "sky.atlas", folder / "sky.duckdb")

    return made_once("duplicate_groups", fill)


@pytest.fixture(params=["sky.atlas", "sky.duckdb"])
def atlas(request: pytest.FixtureRequest, home: Path):
    with galsearch.open(home / request.param, device="cpu") as opened:
        yield opened


@pytest.fixture
def kept(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "sky.atlas", tmp_path / "kept.atlas"))


def groups_of(result: galsearch.Duplicates) -> set[frozenset[str]]:
    return {frozenset(group.ids) for group in result}


TRUTH = {frozenset({f"g{n:02d}", f"g{n:02d}_{list(COPIES)[n % len(COPIES)]}"}) for n in range(20)}
WITHOUT_POSITION = {pair for pair in TRUTH if int(min(pair)[1:3]) % 5 == 0}


@pytest.mark.slow
def test_copies_are_grouped_with_the_grounds_of_each_link(atlas):
    result = atlas.duplicates()
    assert groups_of(result) == TRUTH and result.redundant == 20
    assert result.radius_arcsec == 2.0 and result.radius_from == "as no image scale is known"
    assert result.not_compared == {"position": 8 + 4, "picture": 0, "vector": 0}
    for group in result:
        (link,) = group.links
        assert {link.object_id, link.linked_to} == set(group.ids) and group.kept == link.linked_to
        assert 0.8 <= link.confidence <= 1 and 0 <= link.hash_distance < 5 and -1 <= link.cosine <= 1
        if frozenset(group.ids) in WITHOUT_POSITION:
            assert link.grounds == ("picture",) and link.separation_arcsec is None and link.correlation > 0.9
        else:
            assert "position" in link.grounds and link.separation_arcsec == pytest.approx(0.1, abs=1e-6)


def test_one_ground_alone_decides(home):
    with galsearch.open(home / "sky.atlas", device="cpu") as opened:
        assert groups_of(opened.duplicates("picture")) == TRUTH
        assert groups_of(opened.duplicates("position")) == TRUTH - WITHOUT_POSITION
        assert groups_of(opened.duplicates("position", radius_arcsec=0.05)) == set()
        assert opened.duplicates("position").grounds == ("position",)
        assert {link.grounds for group in opened.duplicates("picture") for link in group.links} == {("picture",)}


def test_an_atlas_of_pictures_alone_is_grouped_as_well(home):
    with galsearch.open(home / "plain.atlas", device="cpu") as opened:
        result = opened.duplicates()
        assert groups_of(result) == TRUTH and "position" not in result.grounds
        with pytest.raises(QueryError, match="none of the 60 objects has a position to compare; loosen where"):
            opened.duplicates("position")


def test_positions_keep_two_apart_whatever_they_look_like(home, tiny_models, tmp_path):
    """The same picture 10 arcsec further on is a neighbor with an overlapping cutout, and so says the position."""
    names = ["a", "b", "c", "d"]
    table = {"object_id": names, "file": ["g01.png", "g01.png", "g02.png", "g02.png"]}
    table |= {"ra": [10.0, 10.0, 20.0, None], "dec": [0.0, 10 * ARCSEC, 0.0, None]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    options = {"images": home / "pictures", "models": tiny_models, "measure": "none"}
    galsearch.build(tmp_path / "n.atlas", table=tmp_path / "t.parquet", **options)
    with galsearch.open(tmp_path / "n.atlas", device="cpu") as opened:
        assert groups_of(opened.duplicates()) == {frozenset("cd")}
        assert groups_of(opened.duplicates("picture")) == {frozenset("ab"), frozenset("cd")}
        assert groups_of(opened.duplicates("vector")) == {frozenset("ab"), frozenset("cd")}
        assert groups_of(opened.duplicates(radius_arcsec=10.01)) == {frozenset("ab"), frozenset("cd")}


def test_objects_of_one_mosaic_are_kept_apart_by_their_pixels(tiny_models, tmp_path):
    """Drawn twice into one picture without a WCS: they look the same, and are two."""
    mosaic = np.concatenate([galaxy(1), galaxy(2), galaxy(1)], axis=1)
    Image.fromarray(mosaic).save(tmp_path / "m.png")
    x = [SIDE * (n + 0.5) for n in range(3)]
    pq.write_table(pa.table({"object_id": list("abc"), "x_px": x, "y_px": [SIDE / 2] * 3}), tmp_path / "m.parquet")
    options = {"models": tiny_models, "measure": "none"}
    galsearch.build(tmp_path / "m.atlas", mosaic=tmp_path / "m.png", table=tmp_path / "m.parquet", **options)
    with galsearch.open(tmp_path / "m.atlas", device="cpu") as opened:
        assert groups_of(opened.duplicates("picture")) == {frozenset("ac")}
        assert groups_of(opened.duplicates()) == set()


def test_where_restricts_who_is_compared(atlas):
    result = atlas.duplicates(where="kind IN ('first', 'turned')")
    assert groups_of(result) == {pair for pair in TRUTH if any("turned" in name for name in pair)}
    assert result.objects == 45
    assert groups_of(atlas.duplicates(where="kind = 'first'")) == set()


def test_the_radius_comes_from_the_image_scale(tmp_path):
    rng = np.random.default_rng(0)
    size = rng.uniform(3, 9, 30)
    table = {"object_id": [f"o{n:02d}" for n in range(30)], "ra": np.full(30, 5.0), "dec": np.arange(30) * 0.9 * ARCSEC}
    table |= {"radius_px": size, "radius_arcsec": size * 0.262, "v": rng.normal(size=(30, 4)).tolist()}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    galsearch.build(tmp_path / "s.atlas", table=tmp_path / "t.parquet", vectors="v", model="m")
    with galsearch.open(tmp_path / "s.atlas", device="cpu") as opened:
        result = opened.duplicates()
        assert result.radius_arcsec == pytest.approx(3 * 0.262)
        assert result.radius_from == "from the image scale, 0.262 arcsec a pixel"
        sizes = {len(group.ids) for group in opened.duplicates(radius_arcsec=1.0)}
        assert len(result) == 0 and sizes == {2}  # a chain falls into pairs


def test_equal_vectors_are_one_where_there_is_nothing_else(tmp_path):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(60, 8))
    vectors[50:] = vectors[:10] * 3  # of any length
    vectors[40] = vectors[41] + 0.05 * np.linalg.norm(vectors[41]) * np.eye(8)[0]
    pq.write_table(
        pa.table({"object_id": [f"v{n:02d}" for n in range(60)], "v": vectors.tolist()}), tmp_path / "t.parquet"
    )
    galsearch.build(tmp_path / "v.atlas", table=tmp_path / "t.parquet", vectors="v", model="m")
    with galsearch.open(tmp_path / "v.atlas", device="cpu") as opened:
        result = opened.duplicates()
        assert groups_of(result) == {frozenset({f"v{n:02d}", f"v{50 + n:02d}"}) for n in range(10)}
        assert {link.grounds for group in result for link in group.links} == {("vector",)}
        assert min(result.table["cosine"].drop_null().to_pylist()) > 0.9999


def test_a_vector_of_no_numbers_is_like_none(pairs_of_five, monkeypatch):
    real = discovery._Search._vectors

    def damaged(self, embedding: str, at: np.ndarray) -> np.ndarray:
        result = np.where(at[:, None] < 50, 1.0, real(self, embedding, at))
        result[at == 7] = np.nan
        return result.astype(np.float32)

    monkeypatch.setattr(discovery._Search, "_vectors", damaged)
    with galsearch.open(pairs_of_five, device="cpu") as opened:
        (group,) = opened.duplicates("vector")
    assert len(group.ids) == 49 and "o07" not in group.ids


def test_the_same_position_in_two_atlases_is_one_object(home, tmp_path, tiny_models):
    pq.write_table(
        pa.table({"object_id": ["other"], "file": ["g30.png"], "ra": [7.0], "dec": [10.0]}), tmp_path / "t.parquet"
    )
    options = {"images": home / "pictures", "models": tiny_models, "measure": "none"}
    galsearch.build(tmp_path / "o.atlas", table=tmp_path / "t.parquet", **options)
    with galsearch.open([home / "sky.atlas", tmp_path / "o.atlas"], device="cpu") as both:
        result = both.duplicates("position")
        assert {"g07", "g07_stretched", "other"} in [set(group.ids) for group in result]
        assert result[0].ids[0] == result[0].kept and len(result[0].ids) == 3  # the largest group comes first
        with pytest.raises(GalsearchError, match="save the duplicates of the folder"):
            galsearch.save_duplicates(result)


def test_groups_are_exported_as_other_lists_are(atlas, tmp_path):
    result = atlas.duplicates()
    for suffix in (".csv", ".vot", ".parquet", ".json"):
        assert result.save(tmp_path / f"same{suffix}").stat().st_size > 100
    table = pq.read_table(tmp_path / "same.parquet")
    assert table["object_id"].to_pylist() == result.table["object_id"].to_pylist() and "kind" in table.column_names
    assert list(result.to_pandas()["group_id"]) == sorted(result.table["group_id"].to_pylist())
    assert str(result.to_astropy()["separation_arcsec"].unit) == "arcsec"
    assert "40 of 60 objects in 20 groups" in repr(result) and result[0].kept in result._repr_html_()
    assert result[-1] == list(result)[-1] and result[:2] == [result[0], result[1]]
    assert len(atlas.duplicates(where="false or object_id = 'g01'").table) == 0


# ---- keeping them


def test_hashes_are_kept_and_read_again_after_a_restart(kept, monkeypatch):
    """AstroLens kept hashes in memory alone and loaded none: after a restart every duplicate was new again."""
    with galsearch.open(kept, device="cpu") as opened:
        before = opened.duplicates()
        galsearch.save_duplicates(before)
    galsearch.bundle(kept, kept.with_suffix(".duckdb"))
    monkeypatch.setattr(fingerprints, "hashes", lambda pictures: pytest.fail("a picture was hashed again"))
    for form in (kept, kept.with_suffix(".duckdb")):
        with galsearch.open(form, device="cpu") as opened:
            again = opened.duplicates()
            assert again.table.equals(before.table)
            assert opened.duplicates("position").table["hash_distance"].null_count == 20 - 4 + 0


def test_hashes_of_another_method_are_made_anew(kept, monkeypatch):
    with galsearch.open(kept, device="cpu") as opened:
        before = opened.duplicates()
        galsearch.save_duplicates(before)
    with duckdb.connect(str(kept / "galaxies.duckdb")) as connection:
        connection.execute("UPDATE picture_hashes SET method = 'older' WHERE object_id < 'g10'")
        connection.execute("UPDATE picture_hashes SET hash = 'short'::BLOB WHERE object_id = 'g30'")
    made = []
    real = fingerprints.hashes
    monkeypatch.setattr(fingerprints, "hashes", lambda pictures: made.append(len(pictures)) or real(pictures))
    with galsearch.open(kept, device="cpu") as opened:
        assert opened.duplicates().table.equals(before.table)
    assert sum(made) == 21


@pytest.fixture
def pairs_of_five(tmp_path: Path) -> Path:
    """Fifty objects a degree apart and, 5 arcsec from each of the first ten, one with another vector."""
    number = np.r_[0:50, 0:10]
    table = {"object_id": [f"o{n:02d}" for n in range(60)], "ra": number.astype(float), "first": np.arange(60) < 50}
    table |= {"dec": np.where(np.arange(60) < 50, 0.0, 5 * ARCSEC)}
    vectors = np.random.default_rng(0).normal(size=(60, 8))
    pq.write_table(pa.table(table | {"v": vectors.tolist()}), tmp_path / "t.parquet")
    galsearch.build(tmp_path / "five.atlas", table=tmp_path / "t.parquet", vectors="v", model="m")
    return tmp_path / "five.atlas"


@pytest.mark.slow
def test_saved_groups_are_read_back_and_a_search_collapses_them(pairs_of_five):
    path = pairs_of_five
    with galsearch.open(path, device="cpu") as opened:
        every = opened.search(opened["o30"], k=59, distinct=True).ids
        assert len(every) == 59
        result = opened.duplicates(radius_arcsec=6)
        run = galsearch.save_duplicates(result)
    galsearch.bundle(path, path.with_suffix(".duckdb"))
    names = ["group_id", "object_id", "is_kept", "linked_to", "grounds", "confidence", "cosine"]
    for form in (path, path.with_suffix(".duckdb")):
        with galsearch.open(form, device="cpu") as opened:
            table = opened.saved_duplicates(run)
            assert table.select(names).to_pylist() == result.table.select(names).to_pylist() and len(table) == 20
            assert opened.saved_duplicates().equals(table)
            with pytest.raises(QueryError, match="no saved duplicates of run 'x', it has"):
                opened.saved_duplicates("x")
            hits = opened.search(opened["o30"], k=59, distinct=True)
            number = [int(name[1:]) % 50 for name in every]
            assert hits.ids == [name for at, name in enumerate(every) if number[at] not in number[:at]]
            assert hits.table["copies"].to_pylist() == [number.count(int(name[1:]) % 50) for name in hits.ids]
            assert opened.search(opened["o30"], k=59).ids == every  # without distinct nothing is left out
            part = opened.search(where="first", k=60).bundle(path.parent / f"part-{form.suffix[1:]}.duckdb")
        with galsearch.open(part, device="cpu") as few, pytest.raises(QueryError, match="it has none yet; save some"):
            few.saved_duplicates()  # those that are kept may be elsewhere
    with galsearch.open([path, path.parent / "part-duckdb.duckdb"], device="cpu") as both:
        assert len(both.search(both["o30"], k=59, distinct=True)) == 49
    with galsearch.open([path.parent / "part-duckdb.duckdb", path], device="cpu") as both:
        groups = both._store.duplicate_groups()
        assert len(groups) == 110 and groups.max() == 9 and (groups[:50] == -1).all()
    with galsearch.open(path, device="cpu") as opened:
        assert all(finding.ok for finding in opened.check())


def test_what_is_the_same_by_itself_and_by_a_group_is_counted_once(pairs_of_five):
    with galsearch.open(pairs_of_five, device="cpu") as opened:
        galsearch.save_duplicates(opened.duplicates(radius_arcsec=6))
    with galsearch.open(pairs_of_five, device="cpu") as opened:
        hits = opened.search(opened["o00"], k=60, distinct=True)
        assert sum(hits.table["copies"].to_pylist()) == 59 and len(hits) == 50  # its own copy is still a hit
        first = retrieval._collapsed(np.array([0, 1, 0, 3, 1, 3]), np.array([-1, 5, 5, 7, -1, 7]))
        assert first.tolist() == [0, 1, 0, 3, 1, 3]
        assert retrieval._collapsed(np.array([0, 1, 2, 1]), np.array([4, 4, -1, -1])).tolist() == [0, 0, 2, 0]


def test_the_last_run_counts_even_where_it_has_no_groups(pairs_of_five):
    with galsearch.open(pairs_of_five, device="cpu") as opened:
        galsearch.save_duplicates(opened.duplicates(radius_arcsec=6))
        run = galsearch.save_duplicates(opened.duplicates(radius_arcsec=1))
    with galsearch.open(pairs_of_five, device="cpu") as opened:
        assert len(opened.saved_duplicates()) == 0 == len(opened.saved_duplicates(run))
        assert len(opened.search(opened["o30"], k=59, distinct=True)) == 59


def test_hashes_travel_with_a_part(kept):
    with galsearch.open(kept, device="cpu") as opened:
        galsearch.save_duplicates(opened.duplicates())
    with galsearch.open(kept, device="cpu") as opened:
        part = opened.search(where="kind = 'first'", k=60).bundle(kept.parent / "part.duckdb")
    with galsearch.open(part, device="cpu") as few:
        assert few._store.rows_with("picture_hashes", ["hash"]).num_rows == 40


def test_a_damaged_table_is_told(kept):
    with galsearch.open(kept, device="cpu") as opened:
        galsearch.save_duplicates(opened.duplicates())
    with duckdb.connect(str(kept / "galaxies.duckdb")) as connection:
        connection.execute("ALTER TABLE duplicates DROP COLUMN group_id")
        connection.execute("ALTER TABLE picture_hashes DROP COLUMN method")
    with galsearch.open(kept, device="cpu") as opened:
        with pytest.raises(FormatError, match="table duplicates has no column 'group_id'"):
            opened.saved_duplicates()
        with pytest.raises(FormatError, match="table duplicates has no column 'group_id'"):
            opened.search(opened["g30"], distinct=True)
        with pytest.raises(FormatError, match="table picture_hashes has no column 'method'"):
            opened.duplicates()


def test_rows_without_a_group_are_told(pairs_of_five):
    with galsearch.open(pairs_of_five, device="cpu") as opened:
        galsearch.save_duplicates(opened.duplicates(radius_arcsec=6))
    with duckdb.connect(str(pairs_of_five / "galaxies.duckdb")) as connection:
        connection.execute("UPDATE duplicates SET group_id = NULL WHERE object_id = 'o03'")
    with galsearch.open(pairs_of_five, device="cpu") as opened, pytest.raises(FormatError, match="without a group"):
        opened.search(opened["o30"], distinct=True)


def test_a_damaged_picture_is_counted_and_left_out(home, monkeypatch):
    real = discovery.decode_thumbnail
    with galsearch.open(home / "sky.atlas", device="cpu") as opened:
        bad = opened.thumbnails(["g05"])["g05"]

        def decode(content: bytes) -> np.ndarray:
            return real(content[:40] if content == bad else content)

        monkeypatch.setattr(discovery, "decode_thumbnail", decode)
        result = opened.duplicates()
    assert result.unreadable == 1 and result.not_compared["picture"] == 1
    assert groups_of(result) == {pair for pair in TRUTH if "g05" not in pair}


def test_a_bundle_is_never_written_to(home):
    with (
        galsearch.open(home / "sky.duckdb", device="cpu") as opened,
        pytest.raises(GalsearchError, match="then bundle"),
    ):
        galsearch.save_duplicates(opened.duplicates("position"))


# ---- the command, and what cannot be answered


def test_the_command_lists_says_and_saves(kept, tmp_path):
    result = CliRunner().invoke(app, ["duplicates", str(kept), "--save", "-o", str(tmp_path / "same.csv")])
    assert result.exit_code == 0, result.output
    assert "20 groups, 40 of 60 objects in all: 20 left out when each group is collapsed" in result.stderr
    assert "positions within 2 arcsec are one (as no image scale is known" in result.stderr
    assert "12 of 60 objects have no position, and were not compared by it" in result.stderr
    assert "kept as run" in result.stderr and len((tmp_path / "same.csv").read_text().splitlines()) == 41
    table = CliRunner().invoke(app, ["duplicates", str(kept), "--by", "position", "--format", "csv"])
    assert table.exit_code == 0 and table.stdout.startswith('"group_id","object_id","is_kept","linked_to"')


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "spectrum"}, "by is 'spectrum', expected one of position, picture, vector"),
        ({"by": 3}, "by is 3"),
        ({"radius_arcsec": -1}, "radius_arcsec is -1, expected how far apart one object may lie, 0 to 3600"),
        ({"radius_arcsec": float("nan")}, "radius_arcsec is nan"),
        ({"radius_arcsec": "2"}, "radius_arcsec is '2'"),
        ({"radius_arcsec": True}, "radius_arcsec is True"),
        ({"seed": -1}, "seed is -1"),
        ({"where": "kind = "}, "where"),
        ({"where": "true; DROP TABLE galaxies"}, "where"),
        ({"where": " "}, "where is ' '"),
        ({"where": "false"}, "no object is left to compare; loosen where"),
    ],
)
def test_what_cannot_be_answered_is_one_clear_error(home, options, message):
    with galsearch.open(home / "sky.duckdb", device="cpu") as opened, pytest.raises(QueryError, match=message):
        opened.duplicates(options.pop("by", None), **options)


@pytest.mark.slow
def test_without_any_position_it_is_told_that_none_was_compared_by_it(tmp_path, tiny_bundle):
    from typer.testing import CliRunner

    from galsearch.cli.program import app

    path = Path(shutil.copy(tiny_bundle, tmp_path / "a.duckdb"))
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE galaxies SET ra = NULL, dec = NULL")
    with galsearch.open(path) as atlas:
        assert atlas.duplicates().not_compared["position"] == 300
    done = CliRunner().invoke(app, ["duplicates", str(path), "--where", "z < 0.02"])
    assert "objects have no position, and were not compared by it" in done.stderr
    assert "0 groups" not in done.stderr and "1 groups" not in done.stderr
