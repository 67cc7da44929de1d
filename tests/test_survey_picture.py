"""The picture of a survey for an object that has none: one request, when asked for, and what goes wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from PIL import Image
from sky_services import Fault, SkyServices
from typer.testing import CliRunner

import galsearch
from galsearch.cli.program import app
from galsearch.errors import GalsearchError, QueryError, RemoteError


@pytest.fixture(scope="module")
def atlas(tiny_bundle: Path):
    with galsearch.open(tiny_bundle, device="cpu") as opened:
        yield opened


def test_the_place_of_an_object_is_requested_once_and_nothing_else_is_sent(atlas, tmp_path):
    object_id = tiny.object_id(1)
    galaxy = atlas[object_id]
    with SkyServices() as sky:
        picture = atlas.survey_picture(object_id, size_arcsec=20, pixels=64, base_url=sky.address("hips"))
        (sent,) = sky.requests
    assert sent.position == pytest.approx((galaxy.ra, galaxy.dec), abs=1e-5)
    assert object_id not in str(sent)
    assert (picture.suffix, picture.service, picture.size_arcsec) == (".jpg", "hips", 20)
    path = picture.save(tmp_path / "it")
    assert path.name == "it.jpg"
    with Image.open(path) as image:
        assert image.size == (64, 64)


def test_a_service_that_has_none_or_fails_is_one_clear_error(atlas):
    with (
        SkyServices(lambda _: Fault(500, b"down")) as sky,
        pytest.raises(RemoteError, match="gave no picture of"),
    ):
        atlas.survey_picture(tiny.object_id(1), base_url=sky.address("hips"))
    with SkyServices() as sky, pytest.raises(RemoteError, match="HiPS not found"):
        atlas.survey_picture(tiny.object_id(1), hips="XYZ/none", base_url=sky.address("hips"))


def test_who_has_no_position_and_who_is_no_service_are_told(atlas):
    without = atlas.search(where="ra IS NULL", k=1).ids[0]
    with pytest.raises(QueryError, match="has no position"):
        atlas.survey_picture(without)
    with pytest.raises(GalsearchError, match="not one of legacy, sdss, panstarrs, hips"):
        atlas.survey_picture(tiny.object_id(1), survey="hubble")
    with pytest.raises(KeyError):
        atlas.survey_picture("nobody")


@pytest.mark.slow
def test_for_visitors_nothing_is_requested(tiny_bundle):
    with (
        galsearch.open(tiny_bundle, device="cpu", visitors=galsearch.Limits(seconds=5, processes=1)) as opened,
        pytest.raises(QueryError, match="nothing is requested of surveys here"),
    ):
        opened.survey_picture(tiny.object_id(1))


def test_the_command_writes_the_picture(tiny_bundle, tmp_path):
    run = CliRunner().invoke
    with SkyServices() as sky:
        options = ["--survey", "hips", "-o", str(tmp_path / "a.jpg"), "--service-url", sky.address("hips")]
        result = run(app, ["show", str(tiny_bundle), tiny.object_id(1), *options])
    assert result.exit_code == 0 and "wrote" in result.stderr and (tmp_path / "a.jpg").stat().st_size > 100
    assert run(app, ["show", str(tiny_bundle), tiny.object_id(1), "--survey", "hips"]).exit_code == 2
