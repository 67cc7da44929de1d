"""The service as the Virtual Observatory asks it: pyvo, astroquery, STILTS and its validators, and odd requests."""

from __future__ import annotations

import io
import shutil
import subprocess
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from service import get, post, post_parts, request, running

import galsearch
from galsearch.service.settings import Settings

pytestmark = pytest.mark.slow

pytest.importorskip("starlette")
pyvo = pytest.importorskip("pyvo")
UWS = "{http://www.ivoa.net/xml/UWS/v1.0}"
STILTS = shutil.which("stilts")


@pytest.fixture(scope="module")
def base(tiny_bundle):
    with running(tiny_bundle) as address:
        yield address


@pytest.fixture(scope="module")
def plain(tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu") as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_warnings_of_clients():
    """Clients warn of what is theirs: units that astropy does not know, and answers that end early."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def stilts(*arguments: str) -> str:
    if STILTS is None:
        pytest.skip("stilts is not installed (Debian: apt install stilts)")
    done = subprocess.run([STILTS, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def finished(url: str):
    """Wait until a job is over, and return what is told of it."""
    while True:
        job = ElementTree.fromstring(request(f"{url}?WAIT=30").content)
        if job.find(f"{UWS}phase").text not in ("PENDING", "QUEUED", "EXECUTING"):
            return job


def votable(content: bytes):
    from astropy.io.votable import parse

    return parse(io.BytesIO(content))


# ---- cone search


def test_a_cone_by_pyvo_is_that_of_python(base, plain):
    result = pyvo.dal.SCSService(f"{base}/scs").search((0.0, 10.0), 1.0)
    mine = plain.search(near=(0.0, 10.0), radius_arcsec=3600, k=1000)
    assert sorted(row.id for row in result) == sorted(mine.ids)
    assert result[0].pos.dec.deg == pytest.approx(plain[result[0].id].dec)


def test_a_cone_of_radius_zero_tells_the_columns_and_maxrec_is_told(base):
    none = votable(get(base, "/scs", RA=0, DEC=10, SR=0).content).get_first_table()
    assert (len(none.array), none.get_field_by_id_or_name("ra").ucd) == (0, "POS_EQ_RA_MAIN")
    answer = get(base, "/scs", RA=0, DEC=10, SR=5, MAXREC=3, VERB=1)
    assert b'value="OVERFLOW"' in answer.content
    assert len(votable(answer.content).get_first_table().fields) == 3


@pytest.mark.parametrize(
    "params", [{}, {"RA": "x", "DEC": 1, "SR": 1}, {"RA": 1, "DEC": 95, "SR": 1}, {"RA": 1, "DEC": 9, "SR": 181}]
)
def test_a_wrong_cone_is_an_error_of_its_protocol(base, params):
    answer = get(base, "/scs", **params)
    assert answer.status == 200
    assert b'name="Error"' in answer.content
    with pytest.raises(pyvo.dal.DALQueryError):
        pyvo.dal.SCSQuery(f"{base}/scs").execute() if not params else _raise(pyvo, base, params)


def _raise(pyvo, base, params):
    query = pyvo.dal.SCSQuery(f"{base}/scs")
    query.update({key: str(value) for key, value in params.items()})
    return query.execute()


# ---- TAP


QUERY = "SELECT object_id, ra, dec, z FROM galsearch.galaxies WHERE z < 0.05 ORDER BY object_id"


def test_sync_and_async_by_pyvo_give_the_same_as_duckdb(base, plain):
    service = pyvo.dal.TAPService(f"{base}/tap")
    expected = plain.sql("SELECT object_id, z FROM galaxies WHERE z < 0.05 ORDER BY object_id").to_pylist()
    for result in (service.run_sync(QUERY), service.run_async(QUERY)):
        assert [(row["object_id"], row["z"]) for row in result] == [(row["object_id"], row["z"]) for row in expected]
        assert result.fielddescs[1].unit == "deg"
        assert result.fielddescs[1].ucd == "pos.eq.ra;meta.main"


def test_jobs_by_pyvo_step_by_step(base):
    service = pyvo.dal.TAPService(f"{base}/tap")
    job = service.submit_job(QUERY, maxrec=2)
    assert job.phase == "PENDING"
    job.run().wait(phases=["COMPLETED"], timeout=30)
    assert len(job.fetch_result()) == 2
    assert job.result_uri.endswith("/results/result")
    assert job.destruction is not None and job.execution_duration.value == 60
    url = job.url
    job.delete()
    assert request(url).status == 404


def test_tables_and_capabilities_by_pyvo(base):
    service = pyvo.dal.TAPService(f"{base}/tap")
    table = service.tables["galsearch.galaxies"]
    column = next(one for one in table.columns if one.name == "ra")
    assert (column.unit, column.ucd) == ("deg", "pos.eq.ra;meta.main")
    assert service.maxrec == 100_000 and service.hardlimit == 1_000_000
    assert service.available
    listed = service.run_sync(
        "SELECT column_name, unit, ucd FROM TAP_SCHEMA.columns WHERE table_name = 'galsearch.galaxies'"
    )
    assert {row["column_name"] for row in listed} == {one.name for one in table.columns}


def test_uploads_by_pyvo_are_joined(base, plain):
    from astropy.table import Table

    ids = plain.search(k=3).ids
    mine = Table({"name": ids, "grade": [1, 2, 3]})
    service = pyvo.dal.TAPService(f"{base}/tap")
    text = "SELECT m.grade, g.z FROM TAP_UPLOAD.mine AS m JOIN galaxies AS g ON g.object_id = m.name ORDER BY grade"
    for run in (service.run_sync, service.run_async):
        result = run(text, uploads={"mine": mine})
        assert list(result["grade"]) == [1, 2, 3]


def test_astroquery_speaks_to_it(base, plain):
    from astroquery.utils.tap import TapPlus

    tap = TapPlus(url=f"{base}/tap", verbose=False)
    assert "galsearch.galaxies" in {
        table.get_qualified_name().removeprefix("galsearch.galsearch.") for table in tap.load_tables()
    } | {table.name for table in tap.load_tables()}
    expected = plain.sql("SELECT object_id FROM galaxies WHERE z < 0.05 ORDER BY object_id")["object_id"].to_pylist()
    assert list(tap.launch_job(QUERY).get_results()["object_id"]) == expected
    assert list(tap.launch_job_async(QUERY).get_results()["object_id"]) == expected


def test_similarity_orders_by_the_index_and_filters(base, plain):
    text = "SELECT TOP 7 object_id, gs_similarity('red edge') AS score FROM galaxies WHERE z < 0.1 ORDER BY score DESC"
    result = pyvo.dal.TAPService(f"{base}/tap").run_sync(text)
    hits = plain.search("red edge", where="z < 0.1", k=7)
    assert list(result["object_id"]) == hits.ids
    assert list(result["score"]) == pytest.approx(hits.scores.tolist(), abs=1e-6)
    first = hits.ids[0]
    like = pyvo.dal.TAPService(f"{base}/tap").run_sync(
        f"SELECT TOP 3 object_id, gs_like('{first}') AS score FROM galaxies ORDER BY score DESC"
    )
    assert like["score"][0] == pytest.approx(1.0, abs=1e-5)
    every = pyvo.dal.TAPService(f"{base}/tap").run_sync(
        f"SELECT object_id, gs_like('{first}') AS score FROM galaxies WHERE gs_like('{first}') > 0.99999"
    )
    assert first in list(every["object_id"])


def test_maxrec_overflows_only_where_there_is_more(base):
    for rows, more in ((5, True), (300, False), (0, False)):
        answer = get(base, "/tap/sync", LANG="ADQL", QUERY="SELECT object_id FROM galaxies", MAXREC=rows)
        assert (b'value="OVERFLOW"' in answer.content) == more
        assert len(votable(answer.content).get_first_table().array) == rows


@pytest.mark.parametrize(
    "form", ["csv", "fits", "ecsv", "parquet", "text/csv", "votable/td", "application/x-votable+xml"]
)
def test_answers_come_in_the_format_that_is_asked_for(base, plain, form):
    answer = get(base, "/tap/sync", LANG="ADQL", QUERY="SELECT TOP 4 object_id, z FROM galaxies", RESPONSEFORMAT=form)
    name = {"text/csv": "csv", "votable/td": "vot", "application/x-votable+xml": "vot"}.get(form, form)
    assert plain.read_table(answer.content, name=f"rows.{name}").num_rows == 4


@pytest.mark.parametrize(
    "params",
    [
        {"QUERY": "SELECT"},
        {"QUERY": "SELECT x FROM galaxies"},
        {"QUERY": "SELECT * FROM nothing"},
        {"QUERY": "DROP TABLE galaxies"},
        {"QUERY": "SELECT 1; SELECT 2"},
        {"QUERY": "SELECT * FROM galaxies", "LANG": "PQL"},
        {"QUERY": "SELECT * FROM galaxies", "REQUEST": "doit"},
        {"QUERY": "SELECT * FROM galaxies", "MAXREC": "-1"},
        {"QUERY": "SELECT * FROM galaxies", "RESPONSEFORMAT": "exe"},
        {"QUERY": "SELECT * FROM TAP_UPLOAD.x", "UPLOAD": "x,param:y"},
        {"QUERY": "SELECT * FROM TAP_UPLOAD.x", "UPLOAD": "x,file:///etc/passwd"},
        {"QUERY": "SELECT * FROM duckdb_settings()"},
        {"QUERY": "SELECT read_text('/etc/passwd') FROM galaxies"},
        {"QUERY": "SELECT * FROM galaxies WHERE CONTAINS(POINT('GALACTIC', ra, dec), CIRCLE(0, 0, 1)) = 1"},
        {"QUERY": "SELECT * FROM galaxies WHERE CONTAINS(ra, CIRCLE(0, 0, 1)) = 1"},
        {"QUERY": "SELECT TOP 5 gs_similarity(survey) FROM galaxies"},
        {"QUERY": "SELECT TOP 5 gs_like('nobody') AS s FROM galaxies ORDER BY s DESC"},
        {},
    ],
)
def test_errors_are_votables_at_once_and_in_jobs(base, params):
    answer = post(base, "/tap/sync", **{"LANG": "ADQL", **params})
    assert answer.status in (400, 404), answer.text
    info = votable(answer.content).resources[0].infos[0]
    assert (info.name, info.value) == ("QUERY_STATUS", "ERROR") and info.content
    made = post(base, "/tap/async", PHASE="RUN", **{"LANG": "ADQL", **params})
    job = finished(made.headers["location"])
    assert job.find(f"{UWS}phase").text == "ERROR"
    assert job.find(f"{UWS}errorSummary/{UWS}message").text == info.content
    told = request(made.headers["location"] + "/error").content
    assert votable(told).resources[0].infos[0].content == info.content


# ---- jobs


def test_a_job_runs_at_its_creation_and_its_result_is_called_result(base):
    made = post(base, "/tap/async", LANG="ADQL", QUERY=QUERY, PHASE="RUN")
    assert made.status == 303
    url = made.headers["location"]
    job = finished(url)
    assert job.find(f"{UWS}phase").text == "COMPLETED"
    result = job.find(f"{UWS}results/{UWS}result")
    assert result.get("id") == "result"
    one = request(result.get("{http://www.w3.org/1999/xlink}href")).content
    other = get(base, "/tap/sync", LANG="ADQL", QUERY=QUERY).content
    assert one == other
    assert request(url, method="DELETE").status == 303
    assert request(url).status == 404


def test_a_job_is_aborted_changed_and_given_an_end(base):
    url = post(base, "/tap/async", LANG="ADQL", QUERY="SELECT 1").headers["location"]
    assert request(f"{url}/phase").text == "PENDING"
    assert post(url, "/parameters", QUERY=QUERY).status == 303
    assert "z &lt; 0.05" in request(f"{url}/parameters").text
    assert post(url, "/destruction", DESTRUCTION="2999-01-01T00:00:00Z").status == 303
    assert request(f"{url}/destruction").text < "2999"  # no later than it keeps jobs
    assert post(url, "/destruction", DESTRUCTION="tomorrow").status == 400
    assert post(url, "/phase", PHASE="ABORT").status == 303
    assert request(f"{url}/phase").text == "ABORTED"
    post(url, "/phase", PHASE="RUN")
    assert request(f"{url}/phase").text == "ABORTED"
    assert request(f"{url}/results/result").status == 404
    assert post(url, "", DESTRUCTION="2001-01-01T00:00:00Z").status == 303
    assert request(url).status == 404


def test_jobs_outlive_the_service_in_a_folder_and_else_are_told_to_be_gone(tiny_bundle, tmp_path):
    settings = Settings(jobs=tmp_path / "jobs")
    with running(tiny_bundle, settings=settings) as address:
        url = post(address, "/tap/async", LANG="ADQL", QUERY=QUERY, PHASE="RUN").headers["location"]
        finished(url)
        before = request(f"{url}/results/result").content
        waiting = post(address, "/tap/async", LANG="ADQL", QUERY=QUERY).headers["location"]
    path = url.removeprefix(address)
    with running(tiny_bundle, settings=settings) as address:
        assert request(f"{address}{path}/results/result").content == before
        assert request(f"{address}/tap/async/{waiting.rpartition('/')[2]}/phase").text == "PENDING"
    with running(tiny_bundle) as address:
        answer = request(f"{address}{path}")
        assert answer.status == 404 and "started anew" in answer.text


def test_a_job_that_ran_when_the_service_was_killed_says_so(tmp_path):
    from galsearch.service.vo.uws import EXECUTING, Jobs

    jobs = Jobs(tmp_path, lambda job: (b"", "text/plain"))
    job = jobs.create({"query": ["SELECT 1"]}, {"mine": b"table"}, "me", None)
    jobs._enter(job, EXECUTING)
    later = Jobs(tmp_path, lambda job: (b"", "text/plain"))
    again = later.get(job.id)
    assert (again.phase, again.uploads) == ("ERROR", job.uploads)
    assert "stopped while the query ran" in again.message
    assert later.upload(again, "mine") == b"table"


def test_nobody_keeps_more_jobs_than_others_have_room_for(tmp_path, monkeypatch):
    from galsearch.service.vo import uws

    monkeypatch.setattr(uws, "MOST_OF_ONE", 2)
    jobs = uws.Jobs(tmp_path, lambda job: (b"", "text/plain"))
    for _ in range(2):
        jobs.create({}, {}, "me", None)
    with pytest.raises(galsearch.BusyError, match="of yours"):
        jobs.create({}, {}, "me", None)
    monkeypatch.setattr(uws, "MOST_BYTES", 1)
    with pytest.raises(galsearch.BusyError, match="bytes"):
        jobs.create({}, {}, "you", None)


def test_a_public_service_lists_no_jobs(tiny_bundle):
    for public, count in ((True, 0), (False, 1)):
        with running(tiny_bundle, settings=Settings(public=public)) as address:
            post(address, "/tap/async", LANG="ADQL", QUERY=QUERY)
            listed = ElementTree.fromstring(get(address, "/tap/async").content)
            assert len(listed.findall(f"{UWS}jobref")) == count


# ---- pictures and spectra


def test_pictures_by_pyvo(base, plain):
    service = pyvo.dal.SIA2Service(f"{base}/sia2")
    result = service.search(pos=(0.0, 10.0, 1.0))
    mine = plain.search(near=(0.0, 10.0), radius_arcsec=3600, k=1000)
    assert sorted(row.target_name for row in result) == sorted(mine.ids)
    picture = request(result[0].access_url)
    assert (picture.status, result[0].access_format) == (200, "image/webp")
    assert len(service.search(pos=(0.0, 10.0, 1.0), band=5e-7)) == 0  # nobody knows their bands
    assert len(votable(get(base, "/sia2/query", MAXREC=0).content).get_first_table().array) == 0
    assert get(base, "/sia2/query", POS="CIRCLE 1").status == 400


def test_boxes_and_polygons_of_pictures(base, plain):
    inside = plain.sql("SELECT object_id FROM galaxies WHERE ra BETWEEN 0 AND 2 AND dec BETWEEN 9 AND 11")["object_id"]
    for position in ("RANGE 0 2 9 11", "POLYGON 0 9 2 9 2 11 0 11"):
        table = votable(get(base, "/sia2/query", POS=position).content).get_first_table()
        assert set(table.array["obs_id"]) == set(inside.to_pylist())


def test_an_atlas_without_spectra_lists_none(base):
    result = pyvo.dal.SSAService(f"{base}/ssa").search(pos=(0.0, 10.0), diameter=1.0)
    assert len(result) == 0
    assert get(base, "/ssa", REQUEST="doit").status == 400
    assert get(base, "/ssa", REQUEST="queryData", POS="1,2;GALACTIC").status == 400


# ---- validators, and the commands of STILTS


def test_taplint_finds_no_error(base):
    text = stilts("taplint", f"tapurl={base}/tap", "report=EF")
    told = [line for line in text.splitlines() if line.startswith(("E-", "F-"))]
    assert [line for line in told if not line.startswith("F-LOC-NOTP")] == []  # it is no observatory's schedule


@pytest.mark.parametrize(
    "path",
    [
        "/scs?RA=0&DEC=10&SR=1", "/scs?RA=0&DEC=10&SR=0", "/scs", "/sia2/query?POS=CIRCLE+0+10+1", "/sia2/query?POS=x",
        "/ssa?REQUEST=queryData&POS=0,10&SIZE=1", "/tap/sync?LANG=ADQL&QUERY=SELECT+*+FROM+galaxies&MAXREC=3",
        "/tap/sync?LANG=ADQL&QUERY=SELECT", "/search?text=red&format=votable", "/columns?format=votable",
    ],
)  # fmt: skip
def test_votlint_is_silent(base, path, tmp_path):
    file = tmp_path / "answer.vot"
    file.write_bytes(request(f"{base}{path}").content)
    assert stilts("votlint", str(file)).strip() == ""


def test_stilts_asks_tap_and_cones(base, plain, tmp_path):
    text = "SELECT TOP 5 object_id, z FROM galsearch.galaxies ORDER BY object_id"
    for mode in ("true", "false"):
        out = tmp_path / f"{mode}.csv"
        stilts("tapquery", f"tapurl={base}/tap", f"adql={text}", f"sync={mode}", "ofmt=csv", f"out={out}")
        assert [line.split(",")[0] for line in out.read_text().splitlines()[1:]] == plain.search(k=5).ids
    lines = stilts("cone", f"serviceurl={base}/scs", "lon=0", "lat=10", "radius=1", "ofmt=csv").splitlines()
    assert len(lines) - 1 == len(plain.search(near=(0.0, 10.0), radius_arcsec=3600, k=1000))
    table = plain.sql(
        "SELECT object_id AS name, ra, dec FROM galaxies WHERE ra IS NOT NULL ORDER BY object_id LIMIT 30"
    )
    galsearch.write_table(table, tmp_path / "mine.csv")
    out = tmp_path / "matched.csv"
    where = (f"serviceurl={base}/scs", f"in={tmp_path / 'mine.csv'}", "ifmt=csv", "ra=ra", "dec=dec", "sr=0.0003")
    stilts("coneskymatch", *where, "find=best", "ofmt=csv", "parallel=3", f"out={out}")
    assert len(out.read_text().splitlines()) == 31


# ---- tables at addresses


def test_an_upload_at_an_address_is_fetched_but_not_from_a_local_network_for_strangers(tiny_bundle, base):
    where = f"{base}/scs?RA=0&DEC=10&SR=1"
    params = {"LANG": "ADQL", "QUERY": "SELECT count(*) AS n FROM TAP_UPLOAD.cone", "UPLOAD": f"cone,{where}"}
    answer = get(base, "/tap/sync", **params)
    assert votable(answer.content).get_first_table().array["n"][0] > 0
    with running(tiny_bundle, settings=Settings(public=True)) as address:
        refused = get(address, "/tap/sync", **params)
        assert refused.status == 400 and "local network" in refused.text


def test_a_hostile_upload_costs_one_error(base):
    for content in (b"", b"<VOTABLE>", b"\x00" * 1000, b"<!DOCTYPE x [<!ENTITY a 'b'>]><VOTABLE>&a;</VOTABLE>"):
        answer = post_parts(
            base,
            "/tap/sync",
            {"t": ("t.vot", content)},
            LANG="ADQL",
            UPLOAD="t,param:t",
            QUERY="SELECT * FROM TAP_UPLOAD.t",
        )
        assert answer.status == 400
        assert votable(answer.content).resources[0].infos[0].value == "ERROR"


def test_the_registry_record_names_every_protocol(base):
    record = get(base, "/registry").text
    ElementTree.fromstring(record)
    for standard in ("TAP", "ConeSearch", "SIA#query-2.0", "SSA"):
        assert f'standardID="ivo://ivoa.net/std/{standard}"' in record


# ---- an atlas with spectra


@pytest.fixture(scope="module")
def with_spectra(tmp_path_factory):
    """A bundle of a few spectra with positions."""
    from tiny_spectra import OBJECTS, write_models, write_spectra

    home = tmp_path_factory.mktemp("with spectra")
    spectra, models = write_spectra(home / "spectra", OBJECTS), write_models(home / "models")
    names = list(OBJECTS)
    table = home / "rows.csv"
    galsearch.write_table(
        pa.table({"object_id": names, "ra": [10.0 + n for n in range(len(names))], "dec": [5.0] * len(names)}), table
    )
    galsearch.build(home / "s.atlas", spectra=spectra, table=table, models=models)
    galsearch.bundle(home / "s.atlas", home / "s.duckdb")
    return home / "s.duckdb"


@pytest.mark.parametrize("form", ["folder", "bundle"])
def test_spectra_by_pyvo_and_as_tables(with_spectra, form, tmp_path):
    path = with_spectra if form == "bundle" else with_spectra.with_name("s.atlas")
    with galsearch.open(path) as atlas, running(path) as address:
        service = pyvo.dal.SSAService(f"{address}/ssa")
        listed = service.search(pos=(10.0, 5.0), diameter=3.0, format="votable")
        expected = atlas.search(near=(10.0, 5.0), radius_arcsec=1.5 * 3600, k=100).ids
        assert sorted(row["target_name"] for row in listed) == sorted(expected)
        assert len(expected) == 2
        name, url = listed[0]["target_name"], listed[0].acref
        assert listed[0].format == "application/x-votable+xml"
        stored = atlas.spectra([name])[name]
        table = votable(request(url).content).get_first_table()
        assert np.allclose(table.array["flux"], stored.flux.astype(np.float32))
        assert np.allclose(table.array["wavelength"], stored.wavelength_angstrom)
        assert listed[0]["spectral_start"] == pytest.approx(stored.wavelength_angstrom[0] * 1e-10)
        answer = get(address, f"/spectrum/{name}")
        assert answer.json["object_id"] == name and len(answer.json["flux"]) == len(stored.flux)
        every = votable(get(address, "/ssa", REQUEST="queryData").content).get_first_table()
        assert len(every.array) == 2 * len(atlas)  # as VOTable and as FITS
        assert len(votable(get(address, "/ssa", BAND="1e-3/2e-3").content).get_first_table().array) == 0
        many = votable(get(address, "/ssa", BAND="3e-7/9e-7", FORMAT="fits").content).get_first_table()
        assert len(many.array) == len(atlas)
        for content in (request(url).content, get(address, "/ssa").content):
            assert complaints(content, tmp_path) == ""


def complaints(content: bytes, folder: Path) -> str:
    """Return what votlint says of a document."""
    (folder / "lint.vot").write_bytes(content)
    return stilts("votlint", str(folder / "lint.vot")).strip()


# ---- hostile queries


HOSTILE = (
    "SELECT COUNT(*) FROM galaxies AS a, galaxies AS b, galaxies AS c, galaxies AS d, galaxies AS e",
    "SELECT a.object_id FROM galaxies AS a, galaxies AS b, galaxies AS c ORDER BY a.z * b.z * c.z",
    "SELECT repeat('x', 2000000000) FROM galaxies",
    "SELECT COUNT(*) FROM galaxies AS a, galaxies AS b, galaxies AS c WHERE DISTANCE(a.ra, a.dec, b.ra, c.dec) < 1",
    "WITH a AS (SELECT 1 AS x UNION ALL SELECT 2), b AS (SELECT p.x FROM a AS p, a AS q, a AS r, a AS s), "
    "c AS (SELECT p.x FROM b AS p, b AS q, b AS r), d AS (SELECT p.x FROM c AS p, c AS q) "
    "SELECT COUNT(*) FROM d, d AS e",
)


def test_hostile_queries_end_within_their_limit_with_others_served(tiny_bundle, monkeypatch):
    limits = galsearch.Limits(
        seconds=2, cpu_seconds=2, memory_bytes=512 << 20, processes=2, spare=1, text_characters=300_000,
        result_bytes=4 << 20,
    )  # fmt: skip
    monkeypatch.setattr(Settings, "limits", property(lambda _: limits))
    with running(tiny_bundle, settings=Settings()) as address:
        get(address, "/tap/sync", LANG="ADQL", QUERY="SELECT TOP 1 object_id FROM galaxies")
        with ThreadPoolExecutor(3) as pool:
            heavy = [pool.submit(get, address, "/tap/sync", LANG="ADQL", QUERY=text) for text in HOSTILE]
            others = []
            for _ in range(8):
                start = time.monotonic()
                assert get(address, "/scs", RA=0, DEC=10, SR=1).status == 200
                others.append(time.monotonic() - start)
            answers = [one.result(timeout=120) for one in heavy]
        for answer in answers:
            assert answer.status in (200, 422, 503), answer.text
            assert votable(answer.content)
        assert sorted(others)[len(others) // 2] < 3
        assert get(address, "/tap/sync", LANG="ADQL", QUERY="SELECT TOP 1 object_id FROM galaxies").status == 200
