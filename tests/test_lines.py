"""Lines of spectra: made spectra with known lines, sums written out and specutils are the truth."""

from __future__ import annotations

import doctest
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galsearch import schema
from galsearch.errors import SchemaError
from galsearch.science import lines, spectra
from galsearch.science.spectra import Spectrum

LIGHT = 299_792.458
GRID = spectra.log_grid(3600, 9300).wavelength_angstrom
BLUE_GRID = spectra.log_grid(2400, 9300).wavelength_angstrom
# vacuum wavelengths of NIST, and fluxes of a made galaxy
FLUXES = {
    "[O II] 3726": (3727.092, 90.0),
    "[O II] 3729": (3729.875, 120.0),
    "H delta": (4102.892, 30.0),
    "H gamma": (4341.684, 60.0),
    "H beta": (4862.683, 130.0),
    "[O III] 5007": (5008.240, 200.0),
    "[O III] 4959": (4960.295, 200.0 / 2.98),
    "[O I] 6300": (6302.046, 40.0),
    "[O I] 6364": (6365.536, 13.0),
    "H alpha": (6564.610, 450.0),
    "[N II] 6583": (6585.270, 100.0),
    "[N II] 6548": (6549.860, 100.0 / 3.05),
    "[S II] 6716": (6718.290, 90.0),
    "[S II] 6731": (6732.670, 70.0),
}
STARS_EW = 3.1  # at H beta, what is expected for the D4000 of a flat spectrum, 1.08


def bell(wavelength: np.ndarray, center: float, sigma_kms: float) -> np.ndarray:
    """A Gaussian with the area 1, mean over each pixel by nine points in it."""
    step = np.gradient(wavelength)
    points = wavelength[:, None] + step[:, None] * np.linspace(-4 / 9, 4 / 9, 9)
    scale = center * sigma_kms / LIGHT
    return (np.exp(-0.5 * ((points - center) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))).mean(axis=1)


def light(
    rest: np.ndarray,
    *,
    level: float = 20.0,
    scale: float = 1.0,
    velocity: float = 30.0,
    sigma: float = 110.0,
    stars: float = STARS_EW,
    fluxes: dict = FLUXES,
) -> np.ndarray:
    """The flux density at rest of a galaxy with lines on a tilted continuum, absorbed by stars."""
    flux = level * (1 + (rest - 5000) / 1e4)
    total = flux.copy()
    if stars:
        for name, (offset, slope) in lines.STARS.items():
            center = next(line.parts[0][0] for line in lines.EMISSION if line.name == name)
            wide = lines.STARS_KMS[0] if name.startswith("H ") else lines.STARS_KMS[1]
            depth = (offset + slope * stars) * np.interp(center, rest, flux)
            shares = [(center, 1.0)]
            shares += [(4960.295, 1 / 2.98)] if "5007" in name else [(6549.860, 1 / 3.05)] if "6583" in name else []
            for at, share in shares:
                total -= depth * share * bell(rest, at, wide)
    for center, area in fluxes.values():
        total += scale * area * bell(rest, center * (1 + velocity / LIGHT), sigma)
    return total


def observed(rest_flux: np.ndarray, wavelength: np.ndarray, *, z: float, error=1.0, seed: int | None = 0) -> Spectrum:
    """The same as seen at a redshift, with noise; without a seed there is none."""
    error = np.broadcast_to(error, wavelength.shape)
    noise = 0 if seed is None else np.random.default_rng(seed).normal(0, 1, len(wavelength)) * error
    return Spectrum(wavelength, rest_flux / (1 + z) + noise, error**-2.0, z=z)


def galaxy(*, z: float = 0.05, error=1.0, seed: int | None = 0, grid: np.ndarray = GRID, **known) -> Spectrum:
    return observed(light(grid / (1 + z), **known), grid, z=z, error=error, seed=seed)


def row(measured: lines.Lines, name: str) -> dict[str, float]:
    at = measured.line.index(name)
    return {key: float(values[at]) for key, values in measured.table().items() if key != "line"}


def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(lines).failed == 0


# ---- fluxes and their errors


TRUTH = {name: FLUXES[name][1] for name in ("H beta", "[O III] 5007", "[O I] 6300", "H alpha", "[N II] 6583")}
TRUTH |= {"[O II] 3727": 210.0, "[S II] 6716": 90.0, "[S II] 6731": 70.0, "H gamma": 60.0, "H delta": 30.0}


def test_lines_without_noise_are_what_was_put_in():
    measured = lines.measure(galaxy(seed=None, error=0.1))
    for name, flux in TRUTH.items():
        assert row(measured, name)["flux"] == pytest.approx(flux, rel=0.01), name
        assert row(measured, name)["sigma_kms"] == pytest.approx(110, rel=0.01), name
    level = 20 * (1 + (6564.61 - 5000) / 1e4)
    assert row(measured, "H alpha")["ew_angstrom"] == pytest.approx(450 / level, rel=0.01)


def pulls(count: int, *, scale: float, error: float = 1.0) -> dict[str, np.ndarray]:
    """Return (measured - true) / error of fluxes and equivalent widths over many draws of the noise."""
    rest = GRID / 1.05
    flux = light(rest, scale=scale)
    drawn: dict[str, list[float]] = {}
    for seed in range(count):
        measured = lines.measure(observed(flux, GRID, z=0.05, error=error, seed=seed))
        for name, area in TRUTH.items():
            one = row(measured, name)
            level = 20 * (1 + (one["wavelength_angstrom"] - 5000) / 1e4)
            drawn.setdefault(f"{name} flux", []).append((one["flux"] - scale * area) / one["flux_error"])
            drawn.setdefault(f"{name} width", []).append((one["ew_angstrom"] - scale * area / level) / one["ew_error"])
        one = row(measured, "H alpha")
        if math.isfinite(one["sigma_kms"]):
            drawn.setdefault("sigma", []).append((one["sigma_kms"] - 110) / one["sigma_error"])
    return {name: np.array(values) for name, values in drawn.items()}


def test_errors_are_as_large_as_the_scatter_of_many_draws():
    drawn = np.concatenate(list(pulls(40, scale=1.0).values()))
    assert abs(drawn.mean()) < 0.1
    assert 0.85 < drawn.std() < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0])
def test_errors_of_every_line_are_as_large_as_the_scatter(scale):
    for name, drawn in pulls(400, scale=scale).items():
        assert abs(drawn.mean()) < 0.1 + 2 / math.sqrt(len(drawn)), name
        assert 0.85 < drawn.std() < 1.15, name


def test_a_spectrum_of_noise_has_no_lines():
    flat = np.zeros_like(GRID)
    ratios = []
    for seed in range(30):
        values = lines.measure(observed(flat, GRID, z=0.05, seed=seed)).values
        ratios.append((values["flux"] / values["flux_error"])[:10])
    assert np.abs(np.mean(ratios)) < 0.3
    assert (np.abs(ratios) > 4).mean() < 0.02


def test_a_bright_line_is_measured_whole_where_photons_make_ivar_tiny():
    z = 0.05
    clean = light(GRID / (1 + z), scale=3000.0) / (1 + z)
    error = np.sqrt(1 + 0.5 * np.abs(clean))  # ivar falls by thousands in the lines
    spectrum = Spectrum(GRID, clean, error**-2.0, z=z)
    assert spectrum.ivar.min() < 1e-3 * spectrum.ivar.max()
    measured = lines.measure(spectrum)
    for name, flux in TRUTH.items():
        assert row(measured, name)["flux"] == pytest.approx(3000 * flux, rel=0.005), name


def test_a_bright_line_with_wings_is_the_sum_of_its_pixels():
    z, rest = 0.05, GRID / 1.05
    core = {name: (center, 20 * area) for name, (center, area) in FLUXES.items()}
    clean = light(rest, fluxes=core) + light(rest, level=0, stars=0, sigma=250, scale=5.0, velocity=-60)
    for seed in range(3):
        measured = lines.measure(observed(clean, GRID, z=z, error=np.sqrt(0.05 + clean / 20), seed=seed))
        one = row(measured, "[O III] 5007")
        assert one["flux"] == pytest.approx(5000, rel=0.015)  # one Gaussian has 4 % less
        assert one["ew_angstrom"] == pytest.approx(5000 / (20 * 1.000824), rel=0.05)
        assert row(measured, "H alpha")["flux"] == pytest.approx(25 * 450, rel=0.04)


def test_pixels_without_data_in_a_line_cost_precision_and_no_flux():
    whole = galaxy(seed=None)
    ivar = np.where(np.abs(GRID / 1.05 - 6565.0) < 1.6, 0, whole.ivar)
    cut = Spectrum(GRID, np.where(ivar > 0, whole.flux, 0), ivar, z=0.05)
    before, after = (row(lines.measure(one), "H alpha") for one in (whole, cut))
    assert after["flux"] == pytest.approx(450, rel=0.02)
    assert after["flux_error"] > before["flux_error"]


def test_a_line_that_is_not_covered_is_missing_and_the_others_stay():
    short = GRID < 6800
    whole = galaxy()
    measured = lines.measure(Spectrum(GRID[short], whole.flux[short], whole.ivar[short], z=0.05))
    assert math.isnan(row(measured, "H alpha")["flux"])
    assert measured.columns()["ew_halpha"] is None
    assert row(measured, "[O III] 5007")["flux"] == pytest.approx(200, abs=30)


def test_a_cosmic_ray_beside_a_line_changes_nothing():
    clean = galaxy(seed=3)
    flux = clean.flux.copy()
    flux[np.abs(GRID / 1.05 - 6450).argmin()] += 500
    struck = Spectrum(GRID, flux, clean.ivar, z=0.05)
    for name in ("H alpha", "[O I] 6300"):
        before, after = (row(lines.measure(one), name) for one in (clean, struck))
        assert abs(after["flux"] - before["flux"]) < 0.3 * before["flux_error"]


@settings(max_examples=10, deadline=None)
@given(st.floats(-20, 20))
def test_the_scale_of_the_flux_means_nothing_for_widths_and_classes(power):
    one = galaxy(seed=1)
    other = Spectrum(GRID, one.flux * 10.0**power, one.ivar * 10.0 ** (-2 * power), z=0.05)
    first, second = (lines.measure(spectrum).columns() for spectrum in (one, other))
    for name, value in first.items():
        assert second[name] == (pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value), name


def test_flux_without_pixels_of_use_gives_nothing():
    nothing = Spectrum(GRID, np.zeros_like(GRID), np.zeros_like(GRID), z=0.05)
    assert set(lines.measure(nothing).columns().values()) == {None}
    assert np.isnan(lines.measure(nothing).values["flux"]).all()


# ---- frames


def test_flux_is_the_same_at_rest_and_widths_are_at_rest():
    one = galaxy(z=0.3, seed=2, grid=spectra.log_grid(4700, 9500).wavelength_angstrom)
    first, second = lines.measure(one), lines.measure(spectra.to_rest_frame(one))
    assert np.allclose(first.values["flux"], second.values["flux"], rtol=1e-6, equal_nan=True)
    assert np.allclose(first.values["ew_angstrom"], second.values["ew_angstrom"], rtol=1e-6, equal_nan=True)


def test_a_redshift_is_needed_and_a_given_one_is_used():
    one = galaxy()
    without = Spectrum(GRID, one.flux, one.ivar)
    with pytest.raises(SchemaError, match="redshift"):
        lines.measure(without)
    assert lines.measure(without, z=0.05).columns() == lines.measure(one).columns()


# ---- equivalent widths and indices


@pytest.mark.slow  # importing specutils takes seconds
@pytest.mark.parametrize(
    ("center", "name"), [(5008.240, "[O III] 5007"), (4862.683, "H beta"), (3728.5, "[O II] 3727")]
)
def test_equivalent_widths_are_those_of_specutils(center, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from astropy import units
        from specutils import SpectralRegion
        from specutils import Spectrum as TheirSpectrum
        from specutils.analysis import equivalent_width

    rest = GRID / 1.05
    flux = light(rest, stars=0)
    level = np.interp(center, rest, 20 * (1 + (rest - 5000) / 1e4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = TheirSpectrum(spectral_axis=rest * units.AA, flux=flux * units.Unit("erg / (s cm2 AA)"))
        region = SpectralRegion((center - 16) * units.AA, (center + 16) * units.AA)
        expected = -equivalent_width(theirs, continuum=level * theirs.flux.unit, regions=region).value
    ours = row(lines.measure(galaxy(seed=None, error=0.01, stars=STARS_EW)), name)["ew_angstrom"]
    assert ours == pytest.approx(expected, rel=0.02)


def test_an_index_is_the_area_below_its_continuum():
    rest = np.arange(3700.0, 7000.0, 0.5)
    tilt = 1 + (rest - 5000) / 5000
    middle = lines.INDICES["H delta A"]
    at = (middle[0] + middle[1]) / 2
    is_low = np.abs(rest - at) <= 5
    hollow = np.where(is_low, 0.5, 1.0)
    measured = lines.measure(Spectrum(rest, 7 * tilt * hollow, np.ones_like(rest), z=0.0))
    assert measured.columns()["hdelta_a"] == pytest.approx(0.5 * is_low.sum() * 0.5, rel=1e-4)
    assert row(measured, "H delta A")["ew_angstrom"] == -measured.columns()["hdelta_a"]
    assert measured.columns()["mg_b"] == pytest.approx(0, abs=1e-3)


def test_the_break_is_the_ratio_of_fluxes_per_frequency():
    rest = np.arange(3700.0, 4300.0, 0.25)
    per_frequency = np.where(rest < 3980, 2.0, 3.4)
    measured = lines.measure(Spectrum(rest, per_frequency / rest**2, np.full(rest.shape, 1e16), z=0.0))
    assert measured.columns()["d4000"] == pytest.approx(1.7, rel=1e-5)


def test_errors_of_indices_are_as_large_as_their_scatter():
    rest = GRID / 1.05
    flux = light(rest)
    values, errors = [], []
    for seed in range(60):
        measured = lines.measure(observed(flux, GRID, z=0.05, error=2.0, seed=seed))
        indices = [row(measured, name) for name in lines.INDICES]
        values.append([*(one["ew_angstrom"] for one in indices), measured.columns()["d4000"]])
        errors.append([*(one["ew_error"] for one in indices), measured.d4000_error])
    ratio = np.std(values, axis=0) / np.mean(errors, axis=0)
    assert (np.abs(ratio - 1) < 0.3).all()  # 60 draws know a scatter to 9 %
    assert abs(np.mean(ratio) - 1) < 0.15


# ---- broad lines


def test_broad_lines_have_their_width_and_narrow_ones_are_not_broad():
    wide = {
        "H alpha": (6564.610, 3000.0),
        "H beta": (4862.683, 1000.0),
        "H gamma": (4341.684, 450.0),
        "Mg II a": (2796.352, 900.0),
        "Mg II b": (2803.531, 900.0),
    }
    rest = BLUE_GRID / 1.25
    flux = light(rest, stars=0) + light(rest, level=0, stars=0, sigma=1700, fluxes=wide, velocity=0)
    measured = lines.measure(observed(flux, BLUE_GRID, z=0.25))
    columns = measured.columns()
    assert columns["balmer_fwhm_kms"] == pytest.approx(2.3548 * 1700, rel=0.05)
    assert row(measured, "H alpha broad")["flux"] == pytest.approx(3000, rel=0.05)
    assert row(measured, "H alpha")["flux"] == pytest.approx(450, rel=0.1)
    assert columns["bpt_class"] is None
    narrow = lines.measure(galaxy()).columns()
    assert narrow["balmer_fwhm_kms"] == pytest.approx(2.3548 * 110, rel=0.1)
    assert narrow["mgii_fwhm_kms"] is None
    far = lines.measure(observed(light(GRID / 2, level=20, stars=0, sigma=1700, fluxes=wide), GRID, z=1.0))
    assert far.columns()["mgii_fwhm_kms"] == pytest.approx(2.3548 * 1700, rel=0.05)
    assert row(far, "Mg II 2799 broad")["flux"] == pytest.approx(1800, rel=0.1)


# ---- classes


@pytest.mark.parametrize(
    ("nii", "oiii", "known", "expected"),
    [
        (-0.5, 0.0, {}, "star-forming"),  # Kauffmann 2003 at -0.5: 0.191
        (-0.5, 0.2, {}, "composite"),
        (-0.5, 0.55, {}, "composite"),  # Kewley 2001 at -0.5: 0.561
        (-0.5, 0.57, {}, "Seyfert"),
        (0.1, 0.56, {}, "Seyfert"),  # Schawinski 2007 at 0.1: 0.555
        (0.1, 0.54, {}, "LINER"),
        (0.6, -2.0, {}, "LINER"),  # right of where Kewley's curve ends
        (0.1, 0.56, {"log_sii_halpha": 0.0}, "LINER"),  # Kewley 2006 by [S II] at 0: 0.76
        (0.1, 0.54, {"log_oi_halpha": -0.7}, "Seyfert"),  # by [O I] at -0.7: 0.474
        (0.1, 0.54, {"log_sii_halpha": 0.0, "log_oi_halpha": -0.7}, "AGN"),
        (math.nan, 0.5, {}, None),
        (0.1, 0.5, {"snr": 2.9}, None),
        (0.1, 0.5, {"snr": math.nan}, None),
        (0.1, 0.5, {"snr": 3.0}, "LINER"),
        (0.1, 0.5, {"snr": 2.9, "min_snr": 2.0}, "LINER"),
    ],
)
def test_bpt_classes_lie_on_their_sides_of_the_published_lines(nii, oiii, known, expected):
    known = {name: np.array([value]) if name != "min_snr" else value for name, value in known.items()}
    assert lines.bpt_class(np.array([nii]), np.array([oiii]), **known)[0] == expected


def test_each_demarcation_curve_parts_the_classes_that_it_names():
    step = 1e-6
    for curve in lines.demarcation_curves():
        right = curve.log_nii_halpha > -1.28  # where Kauffmann's crosses Kewley's, and nothing is between them
        x, y = curve.log_nii_halpha[right], curve.log_oiii_hbeta[right]
        below, above = (lines.bpt_class(x[1:], y[1:] + side * step) for side in (-1, 1))
        assert set(below) == {curve.below}
        # above Kewley's it is Schawinski's that says which AGN
        assert set(above) <= ({"Seyfert", "LINER"} if curve.above == "AGN" else {curve.above})
        assert (np.diff(x) > 0).all()


def test_demarcation_curves_are_those_that_were_published():
    stars, most, agn = lines.demarcation_curves()
    np.testing.assert_allclose(stars.log_oiii_hbeta, 0.61 / (stars.log_nii_halpha - 0.05) + 1.3)  # Kauffmann 2003
    np.testing.assert_allclose(most.log_oiii_hbeta, 0.61 / (most.log_nii_halpha - 0.47) + 1.19)  # Kewley 2001, eq. 5
    np.testing.assert_allclose(agn.log_oiii_hbeta, 1.05 * agn.log_nii_halpha + 0.45)  # Schawinski 2007
    start = agn.log_nii_halpha[0]
    assert agn.log_oiii_hbeta[0] == pytest.approx(0.61 / (start - 0.47) + 1.19)  # where it leaves Kewley's


def test_lines_that_plots_mark_lie_where_they_are_measured():
    marked = {(line.name, round(line.wavelength_angstrom, 2)) for line in lines.SPECTRAL_LINES}
    assert len(marked) == len(lines.SPECTRAL_LINES)
    measured = {at for line in lines.EMISSION for at, _ in line.parts if line.name.startswith(("H", "[N", "[O III"))}
    assert measured <= {line.wavelength_angstrom for line in lines.SPECTRAL_LINES}


@pytest.mark.parametrize(
    ("nii", "halpha", "known", "expected"),
    [
        (-0.5, 3.5, {}, "star-forming"),
        (-0.3, 6.5, {}, "strong AGN"),
        (-0.3, 5.5, {}, "weak AGN"),
        (-0.3, 2.5, {}, "retired"),
        (math.nan, 2.5, {}, "retired"),
        (math.nan, 20.0, {}, None),
        (-0.3, 0.3, {"ew_nii": 0.2}, "passive"),
        (-0.3, 0.3, {"ew_nii": 0.7}, "retired"),
        (-0.3, 0.3, {}, "retired"),
        (-0.3, 2.5, {"ew_error": 1.5}, None),
        (-0.3, 5.5, {"snr": 2.0}, None),
        (-0.3, math.nan, {}, None),
    ],
)
def test_whan_classes_are_those_of_cid_fernandes(nii, halpha, known, expected):
    known = {name: np.array([value]) for name, value in known.items()}
    assert lines.whan_class(np.array([nii]), np.array([halpha]), **known)[0] == expected


def test_classes_of_many_are_those_of_each():
    generator = np.random.default_rng(0)
    x, y = generator.uniform(-1, 0.6, 50), generator.uniform(-1, 1.2, 50)
    each = [lines.bpt_class(x[k : k + 1], y[k : k + 1])[0] for k in range(50)]
    assert lines.bpt_class(x, y).tolist() == each
    assert len(set(each)) >= 4


def test_a_star_forming_galaxy_is_classed_from_its_lines():
    columns = lines.measure(galaxy()).columns()
    assert (columns["bpt_class"], columns["whan_class"]) == ("star-forming", "star-forming")
    assert columns["log_nii_halpha"] == pytest.approx(math.log10(100 / 450), abs=0.03)
    assert columns["log_sii_halpha"] == pytest.approx(math.log10(160 / 450), abs=0.03)


# ---- columns


def test_columns_and_table_are_those_of_the_schema():
    measured = lines.measure(galaxy())
    assert set(measured.columns()) == set(schema.LINE_MEASURES)
    assert ["object_id", *measured.table()] == [column.name for column in schema.TABLES["lines"]]
    for name, value in measured.columns().items():
        kind = str if schema.LINE_MEASURES[name].type == "VARCHAR" else float
        assert value is None or type(value) is kind, name
    assert {len(values) for values in measured.table().values()} == {len(measured.line)}
