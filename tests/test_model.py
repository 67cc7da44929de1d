"""The whole way, against a model: random small atlases are built, added to, filtered, optimized and bundled, and every
answer is compared, row by row and column by column, with numpy on the table that went in.

The model knows what the documents say and nothing of galsearch's code: vectors are brought to unit length, a row whose
vector has no direction is left out, scores are cosines, equal ones are ordered by id, NULL passes no filter, a cone is
inclusive, objects within 2 arcsec (or, without positions, with one vector) are the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from sizes import LOWERED, lowered
from tiny_models import reference_image

import galsearch

DESCRIBED = {  # unit, UCD and description of the columns that the input describes
    "mag_r": ("mag", "phot.mag;em.opt.R", "r, as observed"),
    "flux": ("mJy", "phot.flux;em.radio", "Radio flux"),
    "flux_error": ("uJy", "stat.error;phot.flux", ""),
    "width": ("km/s", "phys.veloc.rotat", "Line width"),
}
EXAMPLES = int(os.environ.get("GALSEARCH_EXAMPLES", "2"))  # each takes seconds; CI takes more
NAMES = ("NGC 7", "a|b", 'say "x"', "ünï", "", None)


@dataclass
class Model:
    """What was given: one dictionary of columns, the vectors, and which rows can be searched."""

    columns: dict[str, list]
    vectors: np.ndarray  # (n, d) float64, as given
    group: np.ndarray  # which of them are copies of one object

    def __len__(self) -> int:
        return len(self.group)

    @property
    def kept(self) -> np.ndarray:
        """The rows whose vector has a direction."""
        length = np.sqrt((self.vectors**2).sum(axis=1))
        return np.flatnonzero(np.isfinite(length) & (length > 0))

    def part(self, rows: np.ndarray) -> Model:
        return Model(
            {name: [values[row] for row in rows] for name, values in self.columns.items()},
            self.vectors[rows],
            self.group[rows],
        )

    def write(self, path: Path, missing: str) -> Path:
        vectors = [
            None if missing == "null" and np.isnan(row).all() else row.astype(np.float32).tolist()
            for row in self.vectors
        ]
        table = pa.table(self.columns | {"v": pa.array(vectors, pa.list_(pa.float32()))})
        for name, meaning in DESCRIBED.items():
            kept = {k: v for k, v in zip(("unit", "ucd", "description"), meaning, strict=True) if v}
            field = table.schema.field(name).with_metadata(kept)
            table = table.set_column(table.column_names.index(name), field, table[name])
        pq.write_table(table, path)
        return path


@st.composite
def models(draw) -> Model:
    """Draw a table: ids that look like numbers, copies in groups of many, gaps everywhere, useless vectors at the ends
    and between."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, dim = draw(st.integers(6, 40)), draw(st.integers(3, 6))
    kind = draw(st.sampled_from(["zeros", "long", "float", "text"]))
    form = {"zeros": "{:05d}", "long": "1237650{:012d}", "float": "{}e3", "text": "J{}'+\" x"}[kind]
    numbers = rng.permutation(rows * 3)[:rows]
    groups = draw(st.sampled_from([rows, max(rows // 5, 1), 2]))
    group = rng.integers(0, groups, rows)
    vectors = rng.normal(size=(groups, dim))[group] * rng.uniform(0.1, 30, (rows, 1))
    vectors = vectors.astype(np.float32).astype(np.float64)
    useless = draw(st.sets(st.sampled_from([0, rows // 2, rows - 1]), max_size=3))
    for row in useless:
        vectors[row] = rng.choice([0.0, np.nan])
    ra = np.mod(rng.choice([0.001, 180.0, 359.9], groups) + rng.uniform(-0.5, 0.5, groups), 360)[group]
    dec = rng.choice([-89.0, -30.0, 0.0, 60.0], groups)[group] + rng.choice([0.0, 0.00001], rows)

    def gaps(values, share=0.2) -> list:
        return [None if rng.random() < share else value for value in np.asarray(values).tolist()]

    placed = rng.random(groups) < draw(st.sampled_from([0.0, 0.6, 1.0]))
    columns = {
        "object_id": [form.format(number) for number in numbers],
        "ra": [value if placed[which] else None for value, which in zip(ra.tolist(), group, strict=True)],
        "dec": [value if placed[which] else None for value, which in zip(dec.tolist(), group, strict=True)],
        "mag_r": gaps(np.round(rng.uniform(12, 22, rows), 1)),
        "flux": gaps(rng.lognormal(0, 3, rows)),
        "flux_error": gaps(rng.lognormal(0, 1, rows).astype(np.float32)),
        "width": gaps(rng.integers(0, 500, rows)),
        "counts": gaps(rng.integers(-(2**62), 2**62, rows)),
        "name": [NAMES[at] for at in rng.integers(0, len(NAMES), rows)],
        "seen": gaps(rng.random(rows) < 0.5),
    }
    for name in ("mag_r", "flux"):  # a type also where every value is a gap
        columns[name] = pa.array(columns[name], pa.float64()).to_pylist()
    return Model(columns, vectors, group)


# ---- what numpy says


def units(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True))


def ranking(model: Model, query: np.ndarray, passing: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return ids and scores of the passing rows, best first, equal ones by id; and the scores."""
    scores = (units(model.vectors[passing]) @ (query / np.sqrt((query**2).sum()))).astype(np.float32)
    ids = np.array([model.columns["object_id"][row] for row in passing], dtype=object)
    order = sorted(range(len(passing)), key=lambda at: (-scores[at], ids[at]))
    return [ids[at] for at in order], scores[order]


def fainter(model: Model, limit: float) -> np.ndarray:
    values = model.columns["mag_r"]
    return np.array([row for row in model.kept if values[row] is not None and values[row] > limit], dtype=int)


def around(model: Model, center: tuple[float, float], radius_arcsec: float) -> np.ndarray:
    """Return the rows in a cone, by the haversine formula."""
    found = []
    for row in model.kept:
        ra, dec = model.columns["ra"][row], model.columns["dec"][row]
        if ra is None:
            continue
        a, d, a0, d0 = np.radians([ra, dec, *center])
        half = np.sin((d - d0) / 2) ** 2 + np.cos(d) * np.cos(d0) * np.sin((a - a0) / 2) ** 2
        if np.degrees(2 * np.arcsin(np.sqrt(half))) * 3600 <= radius_arcsec:
            found.append(row)
    return np.array(found, dtype=int)


def same_scores(hits, expected: tuple[list[str], np.ndarray], k: int) -> None:
    """Compare a ranking; ids may only change places where scores are equal to single precision."""
    ids, scores = expected
    assert len(hits) == min(k, len(ids))
    np.testing.assert_allclose(hits.scores, scores[: len(hits)], atol=2e-6)
    true = dict(zip(ids, scores, strict=True))
    np.testing.assert_allclose([true[name] for name in hits.ids], hits.scores, atol=2e-6)
    assert len(set(hits.ids)) == len(hits.ids)


def exactly(hits) -> list[tuple[str, float]]:
    return list(zip(hits.ids, hits.scores.tolist(), strict=True))


# ---- what is compared


def compare_columns(atlas, model: Model) -> None:
    """Every row and every column, what describes them too."""
    table = atlas.search(k=1000).table
    rows = {name: at for at, name in enumerate(table["object_id"].to_pylist())}
    expected = {model.columns["object_id"][row]: row for row in model.kept}
    assert sorted(rows) == sorted(expected) and len(atlas) == len(expected)
    assert table["object_id"].to_pylist() == sorted(expected)  # a list is in order of the ids
    for name, values in model.columns.items():
        found = table[name].to_pylist()
        for object_id, row in expected.items():
            assert found[rows[object_id]] == values[row], (name, object_id)
    for name, (unit, ucd, description) in DESCRIBED.items():
        said = table.schema.field(name).metadata or {}
        assert said.get(b"unit", b"").decode() == unit, name
        assert said.get(b"ucd", b"").decode() == ucd, name
        assert not description or said[b"description"].decode() == description, name


def compare_vectors(atlas, model: Model) -> None:
    for row in model.kept:
        name = model.columns["object_id"][row]
        np.testing.assert_allclose(atlas.embed(atlas[name]), units(model.vectors[row : row + 1])[0], atol=1e-6)


def compare_answers(atlas, model: Model, query: np.ndarray) -> None:
    kept = model.kept
    for k in (1, len(kept) - 1, len(kept) + 5):
        same_scores(atlas.search(query, k=max(k, 1), exact=True), ranking(model, query, kept), max(k, 1))
    limit = float(np.median([value for value in model.columns["mag_r"] if value is not None] or [15.0]))
    passing = fainter(model, limit)
    hits = atlas.search(query, where=f"mag_r > {limit}", k=100, exact=True)
    same_scores(hits, ranking(model, query, passing), 100)
    assert hits.plan.matches == len(passing) == atlas.count(f"mag_r > {limit}")
    example = model.columns["object_id"][kept[len(kept) // 2]]
    others = np.array([row for row in kept if model.columns["object_id"][row] != example])
    like = units(model.vectors[kept[len(kept) // 2]][None])[0]
    same_scores(atlas.search(atlas[example], k=100, exact=True), ranking(model, like, others), 100)
    for row in kept[:2]:
        if model.columns["ra"][row] is not None:
            center = (model.columns["ra"][row], model.columns["dec"][row])
            inside = around(model, center, 1000.0)
            assert row in inside
            hits = atlas.search(query, near=center, radius_arcsec=1000.0, k=100, exact=True)
            same_scores(hits, ranking(model, query, inside), 100)


def compare_distinct(atlas, model: Model, query: np.ndarray) -> None:
    """Copies count once, under the id of the best of them, and how many there are is told."""
    ids, scores = ranking(model, query, model.kept)
    row_of = {model.columns["object_id"][row]: row for row in model.kept}
    first: dict[int, str] = {}
    for name in ids:
        first.setdefault(model.group[row_of[name]], name)
    every = atlas.search(query, k=len(ids) + 3, distinct=True, exact=True)
    assert len(every) == len(first)
    assert {model.group[row_of[name]] for name in every.ids} == set(first)
    counts = np.bincount(model.group[model.kept])
    assert every.table["copies"].to_pylist() == [counts[model.group[row_of[name]]] for name in every.ids]
    np.testing.assert_allclose(
        every.scores, [dict(zip(ids, scores, strict=True))[name] for name in every.ids], atol=2e-6
    )
    few = atlas.search(query, k=2, distinct=True, exact=True)
    assert few.ids == every.ids[:2]


def compare(atlas, model: Model, query: np.ndarray) -> list:
    compare_columns(atlas, model)
    compare_vectors(atlas, model)
    compare_answers(atlas, model, query)
    compare_distinct(atlas, model, query)
    wrong = [finding for finding in atlas.check() if not finding.ok]
    assert not wrong, wrong
    return exactly(atlas.search(query, k=1000, exact=True))


def two_in_one_place(model: Model) -> bool:
    """Say whether different objects of a draw are nearly the same: then which are copies is not for a model to say."""
    kept = model.kept
    group, vectors = model.group[kept], units(model.vectors[kept])
    other = group[:, None] != group[None]
    ra, dec = (np.array([model.columns[name][row] for row in kept], float) for name in ("ra", "dec"))
    wide = np.abs((ra[:, None] - ra[None] + 180) % 360 - 180) * np.cos(np.radians(dec))
    near = np.hypot(wide, dec[:, None] - dec[None]) * 3600 < 10
    return bool(((vectors @ vectors.T > 0.9998) & other).any() or (near & other).any())


@settings(max_examples=EXAMPLES, phases=(Phase.explicit, Phase.generate))  # to shrink a build takes minutes
@given(model=models(), missing=st.sampled_from(["null", "numbers"]), seed=st.integers(0, 99), small=st.booleans())
def test_an_atlas_is_what_went_in_whatever_is_done_to_it(tmp_path_factory, model, missing, seed, small):
    assume(len(model.kept) >= 4 and not two_in_one_place(model))
    query = np.random.default_rng(seed).normal(size=model.vectors.shape[1])
    half = max(len(model) * 2 // 3, 4)
    first, rest = model.part(np.arange(half)), model.part(np.arange(half, len(model)))
    assume(len(first.kept) and len(rest.kept))
    home = tmp_path_factory.mktemp("model")
    with lowered(but=() if small else tuple(LOWERED)):
        path = home / "a.atlas"
        report = galsearch.build(path, table=first.write(home / "first.parquet", missing), vectors="v", model="m")
        left_out = {str(row["object_id"]) for row in report.rejected}
        assert left_out == {first.columns["object_id"][row] for row in set(range(half)) - set(first.kept.tolist())}
        with galsearch.open(path) as atlas:
            compare(atlas, first, query)
        galsearch.add(path, table=rest.write(home / "rest.parquet", missing), vectors="v", model="m")
        orders = []
        with galsearch.open(path) as atlas:
            orders.append(compare(atlas, model, query))
        galsearch.optimize(path)
        with galsearch.open(path) as atlas:
            orders.append(compare(atlas, model, query))
        with galsearch.open(galsearch.bundle(path, home / "a.duckdb")) as atlas:
            orders.append(compare(atlas, model, query))
            compare_unmeasured(atlas, model, query)
    assert orders[0] == orders[1] == orders[2]


def compare_unmeasured(atlas, model: Model, query: np.ndarray) -> None:
    """A search that need not be exact: as many as there are, real scores, best first."""
    true = dict(zip(*ranking(model, query, model.kept), strict=True))
    for k in (1, 5, 100):
        hits = atlas.search(query, k=k, probes=1)
        assert len(hits) == min(k, len(true))
        np.testing.assert_allclose(hits.scores, [true[name] for name in hits.ids], atol=2e-6)
        assert (np.diff(hits.scores) <= 0).all()


# ---- pictures


def drawn(rng: np.random.Generator, kind: str, folder: Path, name: str) -> np.ndarray | None:
    """Write one picture; return its pixels where the model sees them as they are (16 x 16), else None."""
    if kind == "broken":
        (folder / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + rng.bytes(40))
        return None
    shape = {"as seen": (16, 16, 3), "wide": (20, 34, 3), "tall": (41, 18, 3), "holed": (24, 30, 3)}[kind]
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "holed":
        light = pixels.astype(np.float32).transpose(2, 0, 1)
        light[1, 3:9, 4:20] = np.nan  # in one band
        fits.PrimaryHDU(light).writeto(folder / f"{name}.fits")
        return None
    Image.fromarray(pixels).save(folder / f"{name}.png")
    return pixels if kind == "as seen" else None


@settings(max_examples=max(2, EXAMPLES // 2), phases=(Phase.explicit, Phase.generate))
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(["as seen", "wide", "tall", "holed", "broken"]), min_size=7, max_size=13),
    st.sets(st.sampled_from(["first", "middle", "last"]), min_size=1),
)
def test_every_picture_keeps_its_own_vector_and_row_beside_rejected_ones(
    tmp_path_factory, tiny_models, seed, kinds, ends
):
    rng = np.random.default_rng(seed)
    for which, at in {"first": 0, "middle": len(kinds) // 2, "last": len(kinds) - 1}.items():
        kinds[at] = "broken" if which in ends else kinds[at]
    assume(sum(kind != "broken" for kind in kinds) >= 3)
    home = tmp_path_factory.mktemp("pictures")
    (home / "cutouts").mkdir()
    names = [f"{number:04d}" for number in range(len(kinds))]
    seen = [drawn(rng, kind, home / "cutouts", name) for kind, name in zip(kinds, names, strict=True)]
    shuffled = rng.permutation(len(names))
    ra = rng.uniform(0, 360, len(names))
    table = pa.table({"object_id": [names[at] for at in shuffled], "ra": ra[shuffled], "dec": ra[shuffled] / 10})
    pq.write_table(table, home / "t.parquet")
    kept = [at for at, kind in enumerate(kinds) if kind != "broken"]
    with lowered():
        report = galsearch.build(
            home / "a.atlas", images=home / "cutouts", table=home / "t.parquet", models=tiny_models, device="cpu"
        )
        galsearch.bundle(home / "a.atlas", home / "a.duckdb")
        for path in (home / "a.atlas", home / "a.duckdb"):
            with galsearch.open(path, device="cpu") as atlas:
                rows = {row["object_id"]: row for row in atlas.search(k=100).table.to_pylist()}
                assert sorted(rows) == [names[at] for at in kept]
                for at in kept:
                    assert rows[names[at]]["ra"] == ra[at] and rows[names[at]]["dec"] == ra[at] / 10
                    vector = atlas.embed(atlas[names[at]])
                    file = next((home / "cutouts").glob(f"{names[at]}.*"))
                    truth = atlas.embed(file) if seen[at] is None else reference_image([seen[at]])[0]
                    assert vector @ truth > 0.9999, kinds[at]
                    assert atlas.search(file, k=1).ids == [names[at]]
                small = atlas.thumbnails([names[at] for at in kept])
                assert set(small) == set(rows)
                for at in kept:
                    if seen[at] is not None:
                        picture = galsearch.decode_thumbnail(small[names[at]])
                        assert picture.shape == (16, 16, 3)
                        assert np.corrcoef(picture.ravel(), seen[at].ravel())[0, 1] > 0.5  # a JPEG of noise
                assert all(finding.ok for finding in atlas.check())
    assert len(report.rejected) == len(kinds) - len(kept)
