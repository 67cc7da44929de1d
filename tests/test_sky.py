"""Positions, against astropy's."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from galsearch.errors import QueryError
from galsearch.sky import check_position, parse_position, separation_arcsec, unit_vectors

RA = st.floats(0, 360)
DEC = st.floats(-90, 90)


def astropy_arcsec(ra1, dec1, ra2, dec2):
    return SkyCoord(ra1 * u.deg, dec1 * u.deg).separation(SkyCoord(ra2 * u.deg, dec2 * u.deg)).arcsec


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0.0, 0.0), (180.0, 0.0)),
        ((10.0, 30.0), (190.0, -30.0)),
        ((359.9999, 10.0), (0.0001, 10.0)),
        ((0.0, 90.0), (123.0, 90.0)),
        ((0.0, -90.0), (0.0, 90.0)),
        ((77.0, 89.9999), (257.0, 89.9999)),
        ((150.1, 2.2), (150.1, 2.2 + 1e-9)),
    ],
)
def test_separation_agrees_with_astropy_at_the_hard_places(first, second):
    assert separation_arcsec(*first, *second) == pytest.approx(astropy_arcsec(*first, *second), rel=1e-6, abs=1e-9)


@given(RA, DEC, RA, DEC)
def test_separation_agrees_with_the_angle_between_unit_vectors(ra1, dec1, ra2, dec2):
    a, b = unit_vectors(ra1, dec1)[0], unit_vectors(ra2, dec2)[0]
    angle = 2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))  # Kahan's form
    assert separation_arcsec(ra1, dec1, ra2, dec2) == pytest.approx(np.degrees(angle) * 3600, abs=1e-8)


@given(RA, DEC, RA, DEC)
def test_separation_is_symmetric_and_bounded(ra1, dec1, ra2, dec2):
    there, back = separation_arcsec(ra1, dec1, ra2, dec2), separation_arcsec(ra2, dec2, ra1, dec1)
    assert there == pytest.approx(back, abs=1e-9)
    assert 0 <= there <= 648_000.0001
    assert separation_arcsec(ra1, dec1, ra1, dec1) == 0


def test_a_step_of_a_microarcsecond_is_seen():
    step = 1e-6 / 3600
    assert separation_arcsec(10.0, 45.0, 10.0, 45.0 + step) == pytest.approx(1e-6, rel=1e-3)


def test_separation_broadcasts_and_keeps_nan():
    found = separation_arcsec(np.array([0.0, 1.0, np.nan]), 0.0, 0.0, 0.0)
    np.testing.assert_allclose(found, [0, 3600, np.nan])


def test_unit_vectors_point_along_the_axes():
    found = unit_vectors([0, 90, 12], [0, 0, 90])
    np.testing.assert_allclose(found, np.eye(3), atol=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "00h42m44.3s +41d16m09s",
        "00:42:44.3 +41:16:09",
        "00 42 44.3 +41 16 09",
        "00h42m44.3s+41d16m09s",
        "0:42:44.3, 41:16:09",
        "23h59m59.9s -00d00m30s",
    ],
)
def test_sexagesimal_positions_agree_with_astropy(text):
    expected = SkyCoord(text.replace(",", ""), unit=(u.hourangle, u.deg))
    assert parse_position(text) == pytest.approx((expected.ra.deg, expected.dec.deg), abs=1e-9)


@pytest.mark.parametrize("text", ["10.68 41.27", "10.68,+41.27", " 10.68d 41.27d ", "10.68+41.27", "1.068e1 41.27"])
def test_decimal_degrees_are_read(text):
    assert parse_position(text) == pytest.approx((10.68, 41.27))


def test_a_right_ascension_marked_with_degrees_is_not_in_hours():
    assert parse_position("10d30m -00d30m") == pytest.approx((10.5, -0.5))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M31",
        "10",
        "10 20 30",
        "nan nan",
        "10h 20h",
        "1 2 3 4 5",
        "00:61:00 +10:00:00",
        "1.5:30 +10:00",
        "a b",
    ],
)
def test_unreadable_positions_are_refused_with_the_text_in_the_message(text):
    with pytest.raises(QueryError, match="position"):
        parse_position(text)


@pytest.mark.parametrize("position", [(-1, 0), (360.1, 0), (0, 90.1), (0, -91), (float("nan"), 0), (0, float("nan"))])
def test_positions_off_the_sphere_are_refused(position):
    with pytest.raises(QueryError, match="degrees"):
        check_position(*position)


def test_right_ascension_360_is_0():
    assert check_position(360, -90) == (0.0, -90.0)
