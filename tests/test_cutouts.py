"""Cut-out services on loopback: what is requested, what their answers are taken for, politeness, and every fault."""

import ssl
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import trustme
from sky_services import Fault, SkyServices, fits, jpeg, picture

from galsearch.errors import GalsearchError
from galsearch.remote.cutouts import EMPTY, FAILED, OUTSIDE, PICTURE, Client, Wanted, check_address, judged, service
from galsearch.science import images

pytestmark = pytest.mark.skipif(find_spec("httpx2") is None, reason="needs the package httpx2, which openai brings")
HERE, AWAY = Wanted(150.1, 2.2, 64), Wanted(355.0, -40.0, 64)
SERVICES = {
    "legacy": {},
    "legacy fits": {"format": "fits"},
    "sdss": {},
    "panstarrs": {},
    "panstarrs fits": {"format": "fits", "filters": "r"},
    "hips": {},
    "hips fits": {"format": "fits"},
}


def asked(sky, name, wanted=HERE, client=None, **more):
    """Return what a service answers for a position."""
    kind = name.split()[0]
    made = service(kind, {"base_url": sky.address(kind), **SERVICES[name], **more})
    with client or quick() as used:
        return made.cut(used, wanted)


def quick(**options):
    return Client(**{"pause_seconds": 0.01, "timeout_seconds": 5.0, "retries": 2, **options})


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_gives_the_picture_of_a_position(name):
    with SkyServices() as sky:
        answer = asked(sky, name)
    assert answer.status == PICTURE, answer
    assert answer.requests == len(sky.requests) == (2 if "panstarrs" in name else 1)
    read = images.read_picture(answer.content)
    side = round(64 * 0.262 / 0.25) if name == "panstarrs fits" else 64
    assert read.flux.shape[:2] == (side, side)
    expected = picture(150.1, 2.2, side)
    if name == "legacy fits":
        np.testing.assert_allclose(read.flux, expected / 255, atol=1e-6)
    elif "fits" not in name:
        assert np.abs(read.flux * 255 - expected).mean() < 12  # JPEG


@pytest.mark.parametrize("name", SERVICES)
def test_off_the_footprint_is_no_failure_and_no_picture(name):
    with SkyServices(outside=lambda ra, dec: ra > 300) as sky:
        answer = asked(sky, name, AWAY)
        there = asked(sky, name, HERE)
    assert answer.status == (EMPTY if name == "hips" else OUTSIDE), answer  # a black JPEG of a HiPS may be either
    assert there.status == PICTURE


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(500, b"oops"),
        Fault(503, b"busy", {"Retry-After": "0"}),
        Fault(429, b"slow down"),
        Fault(200, b"<!DOCTYPE html><html><body>Service is down for maintenance</body></html>"),
        Fault(200, b""),
        Fault(200, b"not a picture at all"),
        Fault(share=0.5),  # closed before all of what was announced
        Fault(200, jpeg(picture(1, 2, 64))[:-300]),  # a whole answer that is half a picture
        Fault(200, fits(picture(1, 2, 64)[..., 0])[:-1000]),
    ],
    ids=["500", "503", "429", "html", "empty", "text", "cut", "half-jpeg", "half-fits"],
)
def test_a_fault_is_failed_and_never_off_the_footprint(name, fault):
    with SkyServices(lambda _: fault) as sky:
        answer = asked(sky, name)
    assert (answer.status, answer.content) == (FAILED, b""), answer
    assert answer.passing
    assert answer.reason
    assert 1 <= answer.requests == len(sky.requests) <= 3


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_passing_trouble_is_tried_again(status):
    with SkyServices(lambda sent: Fault(status, b"") if sent.number < 3 else None) as sky:
        answer = asked(sky, "legacy")
    assert (answer.status, answer.requests) == (PICTURE, 3)


def test_what_a_host_asks_to_wait_is_waited():
    with SkyServices(lambda sent: Fault(503, b"", {"Retry-After": "1"}) if sent.number == 1 else None) as sky:
        assert asked(sky, "legacy").status == PICTURE
    assert sky.requests[1].at - sky.requests[0].at >= 1.0


def test_an_error_that_stays_is_not_tried_again():
    with SkyServices(lambda _: Fault(400, b"bad layer")) as sky:
        answer = asked(sky, "legacy")
    assert (answer.status, answer.passing, len(sky.requests)) == (FAILED, False, 1)
    assert "bad layer" in answer.reason


def test_a_survey_that_is_not_known_is_failed_not_empty():
    with SkyServices() as sky:
        answer = asked(sky, "hips", hips="XYZ/none")
    assert (answer.status, answer.passing) == (FAILED, False)
    assert "HiPS not found" in answer.reason


def test_a_slow_answer_ends_at_the_deadline():
    with SkyServices(lambda _: Fault(drip_seconds=0.05)) as sky:
        began = time.monotonic()
        answer = asked(sky, "legacy", client=quick(timeout_seconds=0.4, retries=0))
    assert answer.status == FAILED
    assert time.monotonic() - began < 3


def test_a_host_that_says_nothing_ends_at_the_deadline():
    with SkyServices(lambda _: Fault(wait_seconds=2)) as sky:
        answer = asked(sky, "legacy", client=quick(timeout_seconds=0.3, retries=0))
    assert answer.status == FAILED
    assert "Timeout" in answer.reason


def test_nobody_there_is_failed():
    with SkyServices() as sky:
        pass
    assert asked(sky, "legacy", client=quick(retries=0)).status == FAILED


def test_more_bytes_than_a_picture_may_have_are_not_read():
    with SkyServices(lambda _: Fault(200, b"x" * 100_000)) as sky:
        answer = asked(sky, "legacy", client=quick(most_bytes=1000))
    assert answer.status == FAILED
    assert "more than 1000 bytes" in answer.reason


def test_a_redirect_to_another_host_is_not_followed():
    with SkyServices() as other:
        to_other = {"Location": other.url.replace("127.0.0.1", "localhost") + "/viewer/cutout.jpg?ra=1&dec=1&size=64"}
        with SkyServices(lambda _: Fault(302, b"", to_other)) as sky:
            answer = asked(sky, "legacy")
    assert answer.status == FAILED
    assert "localhost, which is not followed" in answer.reason
    assert other.requests == []


def test_a_redirect_within_the_host_is_followed():
    def moved(sent):
        return Fault(301, b"", {"Location": "/viewer/cutout.jpg?ra=1&dec=2&size=64"}) if sent.number == 1 else None

    with SkyServices(moved) as sky:
        assert asked(sky, "legacy").status == PICTURE


def test_a_redirect_that_goes_round_ends():
    with SkyServices(lambda _: Fault(302, b"", {"Location": "/viewer/cutout.jpg"})) as sky:
        assert asked(sky, "legacy").status == FAILED
    assert len(sky.requests) < 10


def test_a_host_gets_five_requests_a_second_whatever_is_wished(monkeypatch):
    monkeypatch.setattr("galsearch.remote.cutouts.client.is_loopback", lambda host: False)
    client = quick(per_second=100)
    with SkyServices() as sky, client:
        threads = [threading.Thread(target=client.get, args=(sky.url + "/viewer/cutout.jpg", QUERY)) for _ in range(7)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(one.at for one in sky.requests) - began >= 6 / 5  # a slow machine only makes it more


QUERY = {"ra": "1", "dec": "2", "size": "32"}


def test_a_plan_may_allow_a_host_more(monkeypatch):
    monkeypatch.setattr("galsearch.remote.cutouts.client.is_loopback", lambda host: False)
    with SkyServices() as sky, quick(faster={sky.host: 200}) as client:
        began = time.monotonic()
        for _ in range(8):
            client.get(sky.url + "/viewer/cutout.jpg", QUERY)
    assert time.monotonic() - began < 7 / 5  # at five a second it would take that


def test_a_host_that_fails_again_and_again_is_left_alone():
    with SkyServices(lambda _: Fault(500, b"")) as sky, quick(retries=0, down_after=4) as client:
        made = service("legacy", {"base_url": sky.address("legacy")})
        answers = [made.cut(client, HERE) for _ in range(10)]
        assert client.is_down(sky.host)
    assert len(sky.requests) == 4
    assert [answer.requests for answer in answers] == [1] * 4 + [0] * 6
    assert "left alone until the next run" in answers[-1].reason
    assert client.health[sky.host].counts["failed"] == 4


def test_a_success_between_keeps_a_host():
    sometimes = SkyServices(lambda sent: Fault(500, b"") if sent.number % 3 else None)
    with sometimes as sky, quick(retries=0, down_after=3) as client:
        made = service("legacy", {"base_url": sky.address("legacy")})
        for _ in range(12):
            made.cut(client, HERE)
    assert len(sky.requests) == 12


def test_certificates_are_verified():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # which nobody has reason to trust
    with SkyServices() as sky:
        sky._http.socket = context.wrap_socket(sky._http.socket, server_side=True)
        made = service("legacy", {"base_url": sky.address("legacy").replace("http:", "https:")})
        with quick(retries=0) as client:
            answer = made.cut(client, HERE)
    assert answer.status == FAILED
    assert "CERTIFICATE_VERIFY_FAILED" in answer.reason.upper().replace(" ", "_") or "certificate" in answer.reason
    assert sky.requests == []


def test_no_source_text_turns_verification_off():
    for path in (Path(__file__).parent.parent / "galsearch").rglob("*.py"):
        text = path.read_text()
        assert "verify=False" not in text, path
        assert "CERT_NONE" not in text, path
        assert "_create_unverified_context" not in text, path


@pytest.mark.parametrize(
    "url", ["http://www.legacysurvey.org/viewer", "ftp://x.org", "viewer", "http://", "https://[::"]
)
def test_an_address_without_encryption_is_refused(url):
    with pytest.raises(GalsearchError):
        service("legacy", {"base_url": url})
    check_address("http://localhost:8000/x")
    check_address("https://mirror.example.org")


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("des", {}, "not one of"),
        ("legacy", {"flavor": "x"}, "no option 'flavor'"),
        ("legacy", {"format": "gif"}, "expected jpg or fits"),
        ("panstarrs", {"filters": "gr"}, "expected 3 of grizy"),
        ("hips", {"format": "webp"}, "expected jpg, png or fits"),
    ],
)
def test_a_wrong_option_names_what_is_right(name, options, told):
    with pytest.raises(GalsearchError, match=told):
        service(name, options)


@pytest.mark.parametrize("wanted", [Wanted(1, 2, 8), Wanted(1, 2, 5000), Wanted(1, 95), Wanted(1, 2, 64, 0)])
def test_a_size_or_position_that_nobody_cuts_is_refused(wanted):
    with pytest.raises(GalsearchError):
        wanted.check()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (jpeg(np.zeros((32, 32, 3), np.uint8)), EMPTY),
        (jpeg(np.full((32, 32, 3), 255, np.uint8)), EMPTY),
        (fits(np.zeros((32, 32))), EMPTY),
        (fits(np.full((32, 32), np.nan)), OUTSIDE),
        (fits(np.where(np.eye(32) > 0, np.nan, picture(1, 1, 32)[..., 0])), PICTURE),
        (jpeg(picture(1, 1, 32)), PICTURE),
        (jpeg(picture(1, 1, 32))[:400], FAILED),
        (b"\xff\xd8\xff garbage", FAILED),
        (b"", FAILED),
        (b"<html>", FAILED),
    ],
)
def test_the_bytes_decide_what_an_answer_is(content, status):
    assert judged(content).status == status
