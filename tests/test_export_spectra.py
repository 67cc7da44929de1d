"""The spectrum encoder: semi-synthetic spectra are what they claim to be, the graph computes what torch computes."""

import base64
import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from export import spectra_synthetic as synthetic
from galsearch.science.spectra import Spectrum, rebin

SHIPPED = Path(__file__).resolve().parent.parent / "onnx_models" / "galspec-1"
NEEDS_DATA = pytest.mark.skipif(not os.environ.get("GALSEARCH_DATA"), reason="GALSEARCH_DATA is not set")


@pytest.mark.parametrize(
    "x, y, kind",
    [(-1.0, 0.3, "star-forming"), (-0.2, -0.1, "composite"), (0.0, 1.0, "seyfert"), (0.15, 0.2, "liner")],
)
def test_points_of_the_bpt_plane_have_their_textbook_kind(x, y, kind):
    assert synthetic.bpt_kind(np.array([x]), np.array([y])) == [kind]


@pytest.mark.parametrize("kind", synthetic.BPT_KINDS)
def test_drawn_line_ratios_lie_in_the_region_of_their_kind(kind):
    x, y = synthetic.bpt_point(kind, 200, np.random.default_rng(1))
    assert (synthetic.bpt_kind(x, y) == kind).all()
    if kind == "liner":  # below the line between Seyferts and LINERs, above the largest starburst
        assert (y < 1.05 * x + 0.45).all()
        assert (y > 0.61 / (np.minimum(x, 0.46) - 0.47) + 1.19).all()


def test_lines_carry_the_flux_that_they_are_given():
    flux = np.zeros((2, len(synthetic.FINE_LOG)), np.float32)
    strengths = {"oiii": np.array([3.0, 5.0]), "ha": np.array([2.0, 0.0])}
    synthetic._add_system(flux, strengths, np.array([150.0, 90.0]), np.array([1.0, 1.1]))
    total = np.trapezoid(flux, synthetic.FINE_ANGSTROM, axis=1)
    assert np.allclose(total, [5.0, 5.0], rtol=1e-3)
    near = np.abs(synthetic.FINE_ANGSTROM - 5008.24 * 1.1) < 20
    assert np.trapezoid(flux[1, near], synthetic.FINE_ANGSTROM[near]) == pytest.approx(5 * 0.749, rel=1e-3)


def test_pixels_are_put_on_the_grid_as_resampling_does():
    random = np.random.default_rng(2)
    observed = random.normal(1, 0.1, (1, len(synthetic.SKY_LOG))).astype(np.float32)
    sigma = random.uniform(0.5, 2, observed.shape).astype(np.float32)
    sigma[0, 1000:1100] = np.inf
    offset = round((synthetic.SKY_LOG[0] - synthetic.FINE_LOG[0]) / synthetic.FINE_STEP)
    flux, ivar = synthetic._to_rest(observed, sigma, np.array([offset]))
    half = synthetic.FINE_STEP / 2
    log = synthetic.FINE_LOG[offset] + synthetic.FINE_STEP * np.arange(len(synthetic.SKY_LOG))
    expected = rebin(
        10 ** (log - half), 10 ** (log + half), observed[0], 1 / sigma[0] ** 2, synthetic.GRID.edges_angstrom
    )
    assert np.array_equal(flux[0] != 0, expected[0] != 0)
    assert np.allclose(flux[0], expected[0], atol=2e-4)
    assert np.allclose(ivar[0], expected[1], rtol=2e-3)


@NEEDS_DATA
@pytest.mark.parametrize("templates", synthetic.SETS)
def test_spectra_are_repeated_by_their_seed_and_have_the_noise_that_was_asked_for(templates):
    given = synthetic.load_templates(templates)
    first, again, other = (synthetic.draw("passive", 30, templates=given, seed=s, snr=(10, 10)) for s in (1, 1, 2))
    assert np.array_equal(first.flux, again.flux)
    assert not np.array_equal(first.flux, other.flux)
    assert np.isfinite(first.flux).all()
    assert (first.ivar >= 0).all()
    rms = [
        np.median(flux[ok]) * np.sqrt(np.median(ivar[ok]) / synthetic.FINE)
        for flux, ivar, ok in zip(first.flux, first.ivar, first.ivar > 0, strict=True)
    ]
    assert np.median(rms) == pytest.approx(10, rel=0.15)
    assert isinstance(first.spectrum(0), Spectrum)


@NEEDS_DATA
def test_a_lens_shows_the_lines_of_a_second_galaxy_at_its_redshift_and_a_passive_galaxy_does_not():
    given = synthetic.sources("lens", 20, templates=synthetic.load_templates("redrock"), seed=5)
    row = np.arange(20)
    at = np.log10(5008.24 * given.source_ratio.astype(float))
    column = np.rint((at - synthetic.FINE_LOG[0]) / synthetic.FINE_STEP).astype(int)
    beside = given.flux[row, column - 60] + given.flux[row, column + 60]
    assert (given.flux[row, column] > 1.15 * beside / 2).all()
    assert (given.source_ratio > 1.08).all()


@NEEDS_DATA
def test_unknown_names_are_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="star-forming"):
        synthetic.sources("spiral", 1, templates=synthetic.load_templates("sdss"), seed=0)
    with pytest.raises(ValueError, match="redrock"):
        synthetic.load_templates("kurucz")


def test_an_object_of_the_test_that_training_has_under_another_name_is_a_twin():
    from export.prepare_spectra import has_twin

    ra, dec = np.array([10.0, 10.0 + 1.2 / 3600, 10.0, np.nan]), np.array([60.0, 60.0, 60.01, np.nan])
    assert has_twin(ra, dec, others=np.array([True, False, False, True])).tolist() == [True, True, False, False]


def drawn_pair(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return noise around 1 with lines and gaps: flux and ivar (n, p) float32."""
    random = np.random.default_rng(seed)
    flux = random.normal(1, 0.2, (n, synthetic.GRID.count)).astype(np.float32)
    ivar = np.full_like(flux, 25)
    for row in range(n):
        ivar[row, : random.integers(50, 400)] = 0
        ivar[row, random.integers(600, 1000) :] = 0
    return flux, ivar


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4")


@pytest.mark.torch
def test_normalization_ignores_scale_bright_lines_and_spectra_without_data():
    torch = pytest.importorskip("torch")
    from export.spectra_models import SpectrumEncoder, features

    torch.manual_seed(0)
    encoder = SpectrumEncoder().eval()
    flux, ivar = (torch.from_numpy(part) for part in drawn_pair(4))
    bright = flux.clone()
    bright[:, 500:502] = 400
    sharp = ivar.clone()
    sharp[0, 510] = 1e8
    with torch.inference_mode():
        vectors = encoder(flux, ivar)
        assert torch.allclose(vectors, encoder(flux * 1e-17, ivar * 1e34), atol=1e-4)
        channels, _ = features(bright, ivar)
        assert channels[:, 0, 500].min() > 6  # asinh(2 * 400): not clipped
        assert torch.allclose(channels[:, 0, 300], features(flux, ivar)[0][:, 0, 300], atol=0.03)
        assert features(flux, sharp)[1].max() <= 1
        ivar[2] = 0
        empty = encoder(flux, ivar)
    assert torch.isfinite(empty).all()
    assert torch.allclose(empty.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(empty[[0, 1, 3]], vectors[[0, 1, 3]], atol=1e-5)


@pytest.mark.torch
def test_tokens_without_data_can_be_left_out():
    torch = pytest.importorskip("torch")
    from export.spectra_models import SpectrumEncoder
    from export.train_spectra import vectors_of

    torch.manual_seed(1)
    encoder = SpectrumEncoder().eval()
    flux, ivar = (torch.from_numpy(part) for part in drawn_pair(6))
    with torch.inference_mode():
        assert torch.allclose(encoder(flux, ivar), vectors_of(encoder, flux, ivar), atol=1e-5)


@pytest.mark.torch
def test_a_quarter_is_masked_in_contiguous_spans():
    pytest.importorskip("torch")
    from export.train_spectra import spans

    mask = spans(400, np.random.default_rng(0)).numpy()
    assert 0.18 < mask.mean() < 0.25  # spans may overlap
    runs = np.sum(np.diff(mask, axis=1, prepend=0) > 0, axis=1)
    assert runs.max() <= 6
    assert (mask.sum(axis=1) / np.maximum(runs, 1) > 15).all()  # longer than a patch


@pytest.mark.torch
def test_votes_weigh_the_three_nearest_by_their_distance():
    pytest.importorskip("torch")
    from export.train_spectra import votes

    similarity = np.array([[1.0, 0.0, -0.1, -0.9], [0.5, 0.5, 0.5, 0.4]])
    assert votes(similarity, np.array([0, 1, 1, 1])).tolist() == [0, 1]
    # one at distance 0 weighs 1; two at distances sqrt(2) and sqrt(2.2) weigh 0.243 + 0.227


def test_the_shipped_graph_is_that_of_its_card_and_passes_its_self_test():
    runtime = pytest.importorskip("onnxruntime")
    card = json.loads((SHIPPED / "card.json").read_text())
    content = (SHIPPED / "model.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == card["sha256"]
    assert len(content) < 6e6
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    stated = card["self_test"]["inputs"]
    feed = {name: np.stack([unpacked(one[name]) for one in stated]) for name in ("flux", "ivar")}
    assert feed["flux"].shape == (len(stated), card["input"]["pixels"])
    result = session.run(["embedding"], feed)[0]
    cosine = np.sum(result * np.array(card["self_test"]["outputs"]), axis=1)
    assert cosine.min() > card["self_test"]["min_cosine"]
    grid = synthetic.GRID
    assert (grid.start, grid.step, grid.count) == tuple(
        card["input"][key] for key in ("log_wavelength_start", "log_wavelength_step", "pixels")
    )
    feed["ivar"][1] = 0
    empty = session.run(["embedding"], feed)[0]
    assert np.allclose(np.linalg.norm(empty, axis=1), 1, atol=1e-4)
    assert np.allclose(empty[[0, 2]], result[[0, 2]], atol=1e-5)
