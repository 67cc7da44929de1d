"""Semi-synthetic lenses: the ray tracing against what is known of it, the injection, and the held-out objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from export import heldout
from export.lenses import Arc, arc_light, deflection, draw_arc, inject, is_host, targets_text
from galsearch.evaluation.targets import read_targets

RING = Arc(
    einstein=0.2,
    axis_ratio=0.999,
    angle=0.3,
    offset=0.0,
    offset_angle=0.0,
    source_radius=0.05,
    source_ratio=1.0,
    source_angle=0.0,
    flux=0.5,
    green=1.5,
    blue=2.0,
    fwhm=0.01,
)
SIZE = 100


def radii(size_px=SIZE):
    axis = (np.arange(size_px) + 0.5) / size_px - 0.5
    return np.hypot(*np.meshgrid(axis, axis))


def test_a_round_lens_deflects_by_its_einstein_radius_everywhere():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 50))
    bent_x, bent_y = deflection(x, y, 0.99999)
    radius = np.hypot(x, y)
    np.testing.assert_allclose(bent_x, x / radius, atol=1e-4)
    np.testing.assert_allclose(bent_y, y / radius, atol=1e-4)


@pytest.mark.parametrize("q", [0.5, 0.8])
def test_the_divergence_of_the_deflection_is_twice_the_convergence_of_the_ellipsoid(q):
    rng, step = np.random.default_rng(2), 1e-5
    x, y = rng.uniform(0.3, 2, (2, 20))
    along_x = deflection(x + step, y, q)[0] - deflection(x - step, y, q)[0]
    along_y = deflection(x, y + step, q)[1] - deflection(x, y - step, q)[1]
    convergence = np.sqrt(q) / (2 * np.hypot(q * x, y))
    np.testing.assert_allclose((along_x + along_y) / (2 * step), 2 * convergence, rtol=1e-5)


def test_a_source_behind_a_round_lens_is_a_ring_of_its_einstein_radius():
    light = arc_light(RING, SIZE)
    assert light.sum() == pytest.approx(1)
    assert (light * radii()).sum() == pytest.approx(0.2, abs=0.006)
    assert light[np.abs(radii() - 0.2) < 0.04].sum() > 0.95


def test_a_source_beside_the_axis_is_an_arc_farther_out_on_its_side():
    light = arc_light(replace(RING, angle=0.0, offset=0.5), SIZE)
    row, column = np.unravel_index(light.argmax(), light.shape)
    assert (column + 0.5) / SIZE - 0.5 == pytest.approx(0.2 * 1.5, abs=0.02)  # x = E + b for an isothermal lens
    assert (row + 0.5) / SIZE - 0.5 == pytest.approx(0, abs=0.02)


def test_arcs_are_bluer_than_the_host_and_touch_nothing_else():
    axis = np.exp(-((radii() / 0.05) ** 2))
    host = np.rint(20 + 180 * axis[..., None] * [1.0, 0.8, 0.6]).astype(np.uint8)
    found = inject(host, RING).astype(int)
    ring = np.abs(radii() - 0.2) < 0.01
    assert (found[radii() > 0.45] == host[radii() > 0.45]).all()
    added = found[ring].mean(axis=0) - host[ring].mean(axis=0)
    assert added[0] > 5
    assert added[0] < added[1] < added[2]


def test_lenses_are_the_same_for_the_same_seed():
    first, second = (draw_arc(np.random.default_rng(3)) for _ in range(2))
    assert first == second != draw_arc(np.random.default_rng(4))


def test_hosts_are_early_types():
    assert is_host({"set": "gz1", "gz1_class": "elliptical"})
    assert is_host({"set": "efigi", "T": "-5"})
    assert not is_host({"set": "efigi", "T": "3"})
    assert not is_host({"set": "gz1", "gz1_class": "merger"})


def test_the_targets_of_lenses_are_a_targets_file(tmp_path):
    path = tmp_path / "targets.toml"
    path.write_text(targets_text())
    found = read_targets(path)
    assert found.targets[0].prevalences == (0.01, 0.001)
    assert found.targets[0].queries == next(t for t in read_targets().targets if t.name.startswith("lens")).queries


def test_each_held_out_object_stands_there_once(monkeypatch):
    rows = [
        {"set": "gz1", "key": "1", "ra": None, "dec": None},
        {"set": "gz1", "key": "1", "ra": None, "dec": None},
        {"set": "gz1", "key": "2", "ra": None, "dec": None},
        {"set": "esahubble", "key": "3", "ra": None, "dec": None},
    ]
    monkeypatch.setattr(heldout, "labeled_rows", lambda folder: iter(rows))
    monkeypatch.setattr(heldout, "assign", lambda given: (["g"] * 4, ["test", "test", "train", "test"]))
    assert [row["object_id"] for row in heldout.chosen(None, "test")] == ["gz1:1"]
