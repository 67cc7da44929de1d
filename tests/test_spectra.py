"""Spectra as arrays: air and vacuum, resampling with variance, rest frame, arms; specutils and numpy are the truth."""

from __future__ import annotations

import doctest
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galsearch.errors import SchemaError
from galsearch.science import spectra
from galsearch.science.spectra import LogGrid, Spectrum

LINES = {"H alpha": (6562.80, 6564.61), "[O III]": (5006.84, 5008.24), "H beta": (4861.33, 4862.69)}  # air, vacuum


def spectrum(wavelength: np.ndarray, seed: int = 0, **known) -> Spectrum:
    """A noisy spectrum with errors that differ from pixel to pixel."""
    rng = np.random.default_rng(seed)
    count = len(wavelength)
    return Spectrum(wavelength, rng.normal(5, 1, count), rng.uniform(0.5, 2, count), **known)


def brute_force(begins, ends, flux, ivar, edges):
    """Resampling as the docstring has it, pixel by pixel."""
    new_flux, new_ivar = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for j in range(len(edges) - 1):
        width = np.clip(np.minimum(ends, edges[j + 1]) - np.maximum(begins, edges[j]), 0, None) * (ivar > 0)
        if width.sum() < 0.5 * (edges[j + 1] - edges[j]):
            continue
        weight = width / width.sum()
        new_flux[j] = np.sum(weight * flux)
        new_ivar[j] = 1 / np.sum(weight[ivar > 0] ** 2 / ivar[ivar > 0])
    return new_flux, new_ivar


def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(spectra).failed == 0


# ---- air and vacuum


@pytest.mark.parametrize(("air", "vacuum"), LINES.values(), ids=LINES)
def test_published_lines_have_their_published_vacuum_wavelength(air, vacuum):
    assert spectra.air_to_vacuum(np.array([air]))[0] == pytest.approx(vacuum, abs=0.006)
    assert spectra.vacuum_to_air(np.array([vacuum]))[0] == pytest.approx(air, abs=0.006)


def test_air_and_vacuum_are_each_others_inverse():
    vacuum = np.linspace(2000, 60_000, 5001)
    assert np.allclose(spectra.air_to_vacuum(spectra.vacuum_to_air(vacuum)), vacuum, rtol=1e-12, atol=0)


@pytest.mark.slow  # importing specutils takes seconds
def test_the_refractive_index_is_that_of_specutils_and_near_morton():
    from astropy import units
    from specutils.utils.wcs_utils import refraction_index

    vacuum = np.linspace(2500, 10_000, 300)
    for method, tolerance in (("Ciddor1996", 1e-12), ("Morton2000", 1e-8)):
        expected = refraction_index(vacuum * units.AA, method=method)
        assert np.allclose(spectra.refractive_index(vacuum), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("convert", [spectra.air_to_vacuum, spectra.vacuum_to_air])
def test_below_2000_angstrom_there_is_no_air(convert):
    with pytest.raises(SchemaError, match="medium='vacuum'"):
        convert(np.array([1215.67, 5000.0]))


# ---- grids and resampling


def test_a_grid_is_that_of_sdss():
    grid = spectra.log_grid(3548.2, 10471.2)
    assert (grid.start, grid.step, grid.count) == (3.55, 1e-4, 4701)
    assert grid.wavelength_angstrom[[0, -1]] == pytest.approx([10**3.55, 10**4.02])
    assert len(grid.edges_angstrom) == grid.count + 1


@pytest.mark.parametrize("ends", [(0, 5000), (6000, 5000), (4000, np.inf), (np.nan, 5000)])
def test_a_grid_that_cannot_be_is_refused(ends):
    with pytest.raises(SchemaError, match="0 < low <= high"):
        spectra.log_grid(*ends)


def test_a_spectrum_that_is_on_the_grid_stays_what_it_is():
    grid = LogGrid(3.58, 1e-4, 3800)
    old = spectrum(grid.wavelength_angstrom)
    new = spectra.resample(old, grid)
    assert np.allclose(new.flux, old.flux, atol=1e-8) and np.allclose(new.ivar, old.ivar, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (np.arange(4000, 4400, 0.8), LogGrid(3.605, 1e-4, 300)),  # DESI to SDSS: pixels of nearly the same width
        (np.arange(4000, 4400, 3.0), LogGrid(3.605, 1e-4, 300)),  # to narrower ones
        (10 ** np.arange(3.6, 3.65, 1e-4), LogGrid(3.605, 7.3e-4, 40)),  # to wider ones
    ],
    ids=["alike", "narrower", "wider"],
)
def test_flux_and_variance_are_those_of_specutils(old, new):
    from astropy import units
    from astropy.nddata import InverseVariance
    from specutils import Spectrum as Oracle
    from specutils.manipulation import FluxConservingResampler

    ours = spectrum(old)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = FluxConservingResampler(extrapolation_treatment="zero_fill")(
            Oracle(
                spectral_axis=old * units.AA,
                flux=ours.flux * units.Unit("erg / (s cm2 AA)"),
                uncertainty=InverseVariance(ours.ivar),
            ),
            new.wavelength_angstrom * units.AA,
        )
    result = spectra.resample(ours, new)
    assert np.abs(result.flux / theirs.flux.value - 1).max() < 1e-3  # they cut pixels halfway, we in the logarithm
    assert np.abs(result.ivar / theirs.uncertainty.array - 1).max() < 5e-3

    def halfway(centers):
        inner = (centers[1:] + centers[:-1]) / 2
        return np.concatenate([[2 * centers[0] - inner[0]], inner, [2 * centers[-1] - inner[-1]]])

    cuts = halfway(old)
    flux, ivar = spectra.rebin(cuts[:-1], cuts[1:], ours.flux, ours.ivar, halfway(new.wavelength_angstrom))
    assert np.abs(flux / theirs.flux.value - 1).max() < 1e-11  # with their cuts it is the same
    assert np.abs(ivar / theirs.uncertainty.array - 1).max() < 1e-11


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(2, 60),
    new=st.integers(1, 60),
    missing=st.floats(0, 0.8),
    jitter=st.floats(0, 0.4),
)
def test_resampling_is_what_its_docstring_says(seed, count, new, missing, jitter):
    rng = np.random.default_rng(seed)
    wavelength = 5000 + np.arange(count) + rng.uniform(-jitter, jitter, count)
    flux, ivar = rng.normal(0, 5, count), rng.uniform(0.1, 3, count) * (rng.random(count) >= missing)
    edges = np.sort(rng.uniform(4990, 5010 + count, new + 1))
    edges += np.arange(new + 1) * 1e-6
    begins, ends = spectra.pixel_edges(wavelength)
    result = spectra.rebin(begins, ends, flux, ivar, edges)
    for ours, theirs in zip(result, brute_force(begins, ends, flux, ivar, edges), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-9)


@given(seed=st.integers(0, 10_000), count=st.integers(8, 300), step=st.floats(2e-5, 2e-3), start=st.floats(3.3, 4.5))
def test_the_total_flux_is_conserved(seed, count, step, start):
    rng = np.random.default_rng(seed)
    wavelength = 10 ** (start + step * (np.arange(count) + rng.uniform(-0.2, 0.2, count)))
    old = spectrum(wavelength, seed)
    begins, ends = spectra.pixel_edges(wavelength)
    edges = np.sort(np.concatenate([[begins[0], ends[-1]], rng.uniform(begins[0], ends[-1], count // 2)]))
    flux, ivar = spectra.rebin(begins, ends, old.flux, old.ivar, edges)
    assert (ivar[np.diff(edges) > 1e-9] > 0).all()
    assert np.sum(flux * np.diff(edges)) == pytest.approx(np.sum(old.flux * (ends - begins)), rel=1e-9)


def test_the_variance_is_that_of_many_draws():
    grid, wavelength = LogGrid(3.601, 1.7e-4, 40), np.arange(3990, 4060, 0.8)
    one = spectrum(wavelength)
    rng = np.random.default_rng(5)
    draws = [
        spectra.resample(Spectrum(wavelength, rng.normal(0, one.ivar**-0.5), one.ivar), grid).flux for _ in range(600)
    ]
    assert np.var(draws, axis=0) * spectra.resample(one, grid).ivar == pytest.approx(1, abs=0.3)


def test_rows_that_are_missing_count_as_pixels_without_data():
    wavelength = np.arange(4000, 4200, 1.0)
    whole = spectrum(wavelength)
    gap = (wavelength > 4050) & (wavelength < 4090)
    masked = Spectrum(wavelength, whole.flux, np.where(gap, 0, whole.ivar))
    cut = Spectrum(wavelength[~gap], whole.flux[~gap], whole.ivar[~gap])
    grid = spectra.log_grid(4000, 4200)
    for one, other in ((masked, cut), (cut, masked)):
        first, second = spectra.resample(one, grid), spectra.resample(other, grid)
        assert np.allclose(first.flux, second.flux, atol=1e-2) and ((first.ivar > 0) == (second.ivar > 0)).all()
    inside = (grid.wavelength_angstrom > 4052) & (grid.wavelength_angstrom < 4088)
    assert not spectra.resample(cut, grid).ivar[inside].any()


def test_a_change_of_sampling_is_no_gap():
    wavelength = np.concatenate([np.arange(4000, 4100, 0.5), np.arange(4100, 4300, 1.5)])
    begins, ends = spectra.pixel_edges(wavelength)
    assert np.array_equal(begins[1:], ends[:-1])


def test_less_than_half_a_pixel_is_no_data():
    begins, ends = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    flux, ivar = spectra.rebin(
        begins, ends, np.array([1.0, 9.0, 3.0]), np.array([1.0, 0, 1.0]), np.array([0, 1.4, 3.0])
    )
    assert flux.tolist() == [1.0, 3.0] and ivar.tolist() == pytest.approx([1.0, 1.0])
    flux, ivar = spectra.rebin(
        begins, ends, np.array([1.0, 9.0, 3.0]), np.array([1.0, 0, 1.0]), np.array([0.6, 2, 3.0])
    )
    assert flux.tolist() == [0.0, 3.0] and ivar.tolist() == [0.0, 1.0]


def test_nothing_outside_of_the_data_and_nothing_without_any():
    grid = LogGrid(3.7, 1e-4, 10)
    assert not spectra.resample(spectrum(np.arange(4000, 4100.0)), grid).ivar.any()
    empty = Spectrum(np.arange(5000, 5100.0), np.zeros(100), np.zeros(100))
    assert not spectra.resample(empty, grid).ivar.any() and empty.median_snr is None


# ---- frames and arms


def test_a_line_keeps_its_flux_and_its_significance_in_the_rest_frame():
    wavelength = np.arange(6000, 7000, 1.0)
    line = np.exp(-0.5 * ((wavelength - 6500) / 5) ** 2)
    old = Spectrum(wavelength, line, np.full(1000, 25.0), z=0.3, name="a")
    new = spectra.to_rest_frame(old)
    assert new.wavelength_angstrom == pytest.approx(wavelength / 1.3)
    assert np.trapezoid(new.flux, new.wavelength_angstrom) == pytest.approx(np.trapezoid(line, wavelength))
    assert new.flux * np.sqrt(new.ivar) == pytest.approx(old.flux * np.sqrt(old.ivar))
    assert (new.frame, new.z, old.frame) == ("rest", 0.3, "observed")
    assert spectra.to_rest_frame(new) is new


@pytest.mark.parametrize("z", [None, -1.0, float("nan")])
def test_no_rest_frame_without_a_redshift(z):
    with pytest.raises(SchemaError, match=r"nameless: its redshift is .*; give z"):
        spectra.to_rest_frame(spectrum(np.arange(4000, 4010.0), name="nameless"), z)


def arms_of_desi(seed: int = 0) -> list[Spectrum]:
    axes = [3600 + 0.8 * np.arange(2751), 5760 + 0.8 * np.arange(2326), 7520 + 0.8 * np.arange(2881)]
    return [spectrum(axis, seed + number) for number, axis in enumerate(axes)]


def test_arms_on_one_grid_keep_their_pixels_and_overlaps_count_once():
    b, r, z = arms_of_desi()
    joined = spectra.join([b, r, z])
    assert joined.wavelength_angstrom == pytest.approx(3600 + 0.8 * np.arange(7781))
    assert joined.flux[:2700] == pytest.approx(b.flux[:2700], rel=1e-14)
    assert np.array_equal(joined.ivar[:2700], b.ivar[:2700]) and np.array_equal(joined.ivar[-2000:], z.ivar[-2000:])
    both = slice(2700, 2751)  # 5760 to 5800 angstrom
    weights = np.array([b.ivar[both], r.ivar[:51]])
    assert joined.ivar[both] == pytest.approx(weights.sum(axis=0))
    assert joined.flux[both] == pytest.approx(np.average([b.flux[both], r.flux[:51]], axis=0, weights=weights))


def test_a_flat_spectrum_stays_flat_over_the_overlap_of_arms_on_other_grids():
    one = Spectrum(np.arange(4000, 5000, 1.0), np.full(1000, 2.0), np.full(1000, 4.0))
    other = Spectrum(np.arange(4800.3, 6000, 1.5), np.full(800, 2.0), np.full(800, 9.0))
    joined = spectra.join([one, other])
    good = joined.ivar > 0
    assert joined.flux[good] == pytest.approx(2.0) and good.mean() > 0.99
    overlap = (joined.wavelength_angstrom > 4810) & (joined.wavelength_angstrom < 4990)
    beside = (joined.wavelength_angstrom > 4600) & (joined.wavelength_angstrom < 4790)
    assert np.median(joined.ivar[overlap]) > np.median(joined.ivar[beside])


def test_the_mean_of_an_overlap_scatters_as_its_ivar_says():
    rng, wavelength = np.random.default_rng(3), np.arange(4000, 8000, 1.0)
    arms = [Spectrum(wavelength, rng.normal(0, s, 4000), np.full(4000, s**-2)) for s in (1.0, 2.0)]
    joined = spectra.join(arms)
    assert np.mean(joined.flux**2 * joined.ivar) == pytest.approx(1, abs=0.07)


def test_arms_with_a_gap_between_them_are_laid_side_by_side():
    a, b = spectrum(np.arange(1124, 1287, 0.5)), spectrum(np.arange(1290, 1440, 0.5))
    joined = spectra.join([b, a])
    assert np.array_equal(joined.wavelength_angstrom, np.r_[a.wavelength_angstrom, b.wavelength_angstrom])
    assert joined.flux == pytest.approx(np.r_[a.flux, b.flux], rel=1e-14)


def test_arms_that_do_not_belong_together_are_refused():
    one = spectrum(np.arange(4000, 4100.0))
    with pytest.raises(SchemaError, match="different frames or units"):
        spectra.join([one, spectrum(np.arange(4000, 4100.0), frame="rest")])
    with pytest.raises(SchemaError, match="no arm"):
        spectra.join([])
    assert spectra.join([one]) is one


# ---- what a spectrum is


def test_the_median_signal_to_noise_leaves_out_pixels_without_data():
    assert Spectrum([1, 2, 3, 4], [2, 4, 90, 6], [1, 1, 0, 1]).median_snr == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([1, 2], [1, 2, 3], [1, 1]), "shapes"),
        (([1], [1], [1]), "2 pixels or more"),
        (([1, 1], [1, 1], [1, 1]), "rise strictly"),
        (([2, 1], [1, 1], [1, 1]), "rise strictly"),
        (([-1, 1], [1, 1], [1, 1]), "rise strictly"),
        (([1, np.nan], [1, 1], [1, 1]), "rise strictly"),
        (([1, np.inf], [1, 1], [1, 1]), "rise strictly"),
        (([1, 2], [1, np.nan], [1, 1]), "not finite"),
        (([1, 2], [1, 1], [1, -1]), "negative"),
    ],
)
def test_arrays_that_are_no_spectrum_are_refused(arrays, message):
    with pytest.raises(SchemaError, match=message):
        Spectrum(*arrays)


def test_the_arrays_of_a_spectrum_are_its_own():
    flux = np.array([1.0, 2.0])
    one = Spectrum(np.array([1.0, 2.0]), flux, np.ones(2))
    flux[0] = 7
    assert one.flux[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        one.flux[0] = 3
