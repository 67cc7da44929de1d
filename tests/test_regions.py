"""Random positions on the sky are uniform on the sphere, and the n-th is the same whatever was drawn before."""

import numpy as np
import pytest
from scipy import stats

from galsearch.errors import QueryError
from galsearch.science.regions import BLOCK, Region
from galsearch.science.sky import separation_arcsec

MANY = 20_000


def test_the_whole_sky_is_uniform_on_the_sphere_not_in_degrees():
    ra, dec = Region().draw(0, MANY, seed=3).T
    assert stats.kstest(ra, "uniform", (0, 360)).pvalue > 0.001
    assert stats.kstest(np.sin(np.radians(dec)), "uniform", (-1, 2)).pvalue > 0.001
    assert stats.kstest(dec, "uniform", (-90, 180)).pvalue < 1e-100
    assert np.mean(np.abs(dec) > 60) == pytest.approx(1 - np.sin(np.radians(60)), abs=0.01)  # not a third


@pytest.mark.parametrize("box", [(10, 40, 30, 89), (350, 20, -10, 60), (-180, 180, -90, 0)])
def test_a_box_is_uniform_on_the_sphere(box):
    west, east, south, north = box
    ra, dec = Region(box=box).draw(0, MANY, seed=1).T
    width = (east - west) % 360 or 360
    assert ((ra - west) % 360 <= width).all()
    assert ((dec >= south) & (dec <= north)).all()
    low, high = np.sin(np.radians([south, north]))
    assert stats.kstest(np.sin(np.radians(dec)), "uniform", (low, high - low)).pvalue > 0.001
    assert stats.kstest((ra - west) % 360, "uniform", (0, width)).pvalue > 0.001


@pytest.mark.parametrize("cone", [(180.0, 0.0, 5.0), (10.0, 89.5, 3.0), (359.9, -60.0, 40.0), (0.0, 0.0, 180.0)])
def test_a_cone_has_as_many_positions_as_area_at_every_distance(cone):
    drawn = Region(cone=cone).draw(0, MANY, seed=2)
    distance = separation_arcsec(cone[0], cone[1], *drawn.T) / 3600
    assert distance.max() <= cone[2] + 1e-9
    area = (1 - np.cos(np.radians(distance))) / (1 - np.cos(np.radians(cone[2])))
    assert stats.kstest(area, "uniform").pvalue > 0.001


def test_a_position_depends_on_its_number_alone():
    region = Region(cone=(20.0, 10.0, 2.0))
    whole = region.draw(0, 2 * BLOCK, seed=5)
    np.testing.assert_array_equal(region.draw(BLOCK - 3, BLOCK + 3, seed=5), whole[BLOCK - 3 : BLOCK + 3])
    assert (region.draw(0, 10, seed=6) != whole[:10]).any()
    assert region.draw(7, 7, seed=5).shape == (0, 2)


@pytest.mark.parametrize(
    "region",
    [
        Region(cone=(0, 0, 0)),
        Region(cone=(0, 91, 1)),
        Region(box=(0, 10, 5, 5)),
        Region(box=(0, 0, 1, 5)),
        Region(box=(0, 10, -91, 5)),
        Region(cone=(0, 0, 1), box=(0, 1, 0, 1)),
    ],
)
def test_a_region_that_is_none_is_refused(region):
    with pytest.raises(QueryError):
        region.check()
