"""What tests share: tiny models, one tiny atlas in both forms, no network, and no silent skip in CI."""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest
import tiny
from hypothesis import HealthCheck, settings
from tiny_models import write_tiny_models

settings.register_profile(
    "galsearch",
    deadline=None,  # another process may have the machine
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("galsearch")

FORMS = ("folder", "bundle")
CONTRACT = ("test_atlas", "test_retrieval")  # hold for an embedding by any name, and beside a second one
OTHERS = ("renamed", "two")
CREDIT = {"title": "Tiny", "license": "MIT", "acknowledgement": "drawn by tests/tiny.py", "bibtex": ""}
MUST_BE_THERE = re.compile(
    r"browser|chromium|playwright|streamlit|torch|onnx|lancedb|skimage|scikit-image|statmorph|umap|regions|stilts|"
    r"GALSEARCH_DATA|training data",
    re.IGNORECASE,
)


def pytest_configure() -> None:
    """Let Ctrl-C work in here and in what tests start; behind nohup or `&` in a script it would be ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


FACES = (
    "test_cli",
    "test_language",
    "test_hits",
    "test_rerank",
    "test_visitors",
    "test_evaluation",
    "test_fuzz_sql",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let CI alone try faces on a folder, and the contract on other embeddings: test_embeddings.py is quicker."""
    for item in items:
        called = getattr(item, "callspec", None)
        form = called.params.get("form") if called else None
        if form in OTHERS or (form == "folder" and item.path.stem in FACES):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def errors_in_full():
    """Let Streamlit tell what failed, in a process where a test before drew the public app, which hides it."""
    yield
    if "streamlit" in sys.modules:
        sys.modules["streamlit"].set_option("client.showErrorDetails", "full")


@pytest.fixture(scope="session")
def packages_read_once():
    """Streamlit reads about all installed packages anew for each AppTest, which takes as long as most tests of ours."""
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        scan = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and an image model that know a few words."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_models(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The pictures and the table that the tiny atlas is built from: (folder of PNG files, Parquet file)."""
    return tiny.write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path, tiny_source) -> Path:
    """The tiny atlas as a folder; never change it, take `atlas_path` for that."""
    import galsearch

    path = tmp_path_factory.mktemp("atlas") / "tiny.atlas"
    pictures, table = tiny_source
    galsearch.build(path, images=pictures, table=table, models=tiny_models, title="Tiny", credits=[CREDIT])
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_folder: Path) -> Path:
    """The tiny atlas as one file; never change it, take `atlas_path` for that."""
    import galsearch

    return galsearch.bundle(tiny_folder, tiny_folder.with_name("tiny.duckdb"))


@pytest.fixture(scope="session")
def hostile_path(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny atlas with captions, of which every text is hostile; never change it."""
    from hostile_app import make_hostile

    import galsearch

    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("hostile") / "h.atlas"))
    galsearch.caption(folder, where="mag_r < 15")
    return make_hostile(galsearch.bundle(folder, folder.with_suffix(".duckdb")))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests over either form of an atlas, and the contract over those with other embeddings, too."""
    own = any("form" in str(mark.args[0]).split(",") for mark in metafunc.definition.iter_markers("parametrize"))
    if "form" in metafunc.fixturenames and not own:
        holds = metafunc.module.__name__ in CONTRACT and "tiny_path" in metafunc.fixturenames
        others = OTHERS if holds else ()
        metafunc.parametrize("form", (*FORMS, *others), indirect=True, scope="session")


@pytest.fixture(scope="session")
def form(request: pytest.FixtureRequest) -> str:
    """Either form of an atlas; for the contract also "renamed" and "two", bundles with other embeddings."""
    return request.param


@pytest.fixture(scope="session")
def renamed_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_source) -> Path:
    """The tiny atlas, whose only embedding is called "radio"; never change it."""
    import galsearch

    home = tmp_path_factory.mktemp("renamed")
    write_tiny_models(home / "models", embedding="radio")
    pictures, table = tiny_source
    options = {"images": pictures, "table": table, "models": home / "models", "title": "Tiny", "credits": [CREDIT]}
    galsearch.build(home / "tiny.atlas", **options)
    return galsearch.bundle(home / "tiny.atlas", home / "tiny.duckdb")


@pytest.fixture(scope="session")
def two_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The tiny atlas with a second embedding, "spectrum", of most galaxies; never change it."""
    import galsearch

    home = tmp_path_factory.mktemp("two")
    return galsearch.bundle(tiny.add_spectra(tiny_folder, home / "tiny.atlas"), home / "tiny.duckdb")


@pytest.fixture(scope="session")
def tiny_path(form: str, request: pytest.FixtureRequest) -> Path:
    """The tiny atlas in either form; never change it."""
    names = {"folder": "tiny_folder", "bundle": "tiny_bundle", "renamed": "renamed_bundle", "two": "two_bundle"}
    return request.getfixturevalue(names[form])


@pytest.fixture(scope="session")
def atlas(tiny_path: Path):
    """The tiny atlas in either form, open for reading."""
    import galsearch

    with galsearch.open(tiny_path, device="cpu") as opened:
        yield opened


@pytest.fixture
def atlas_path(tiny_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny atlas in either form, to damage."""
    copy = tmp_path / tiny_path.name
    (shutil.copytree if tiny_path.is_dir() else shutil.copyfile)(tiny_path, copy)
    return copy


@pytest.fixture
def bundle_path(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle, to damage."""
    return Path(shutil.copyfile(tiny_bundle, tmp_path / "tiny.duckdb"))


@pytest.fixture
def folder_path(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny folder, to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny.atlas"))


# ---- a real browser


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests of a file."""
    from browsing import screenshot

    with screenshot.browser() as opened:
        yield opened


@pytest.fixture
def new_page(browser):
    """Make fresh pages; afterwards nothing may have gone wrong in the console, and no other place was asked."""
    from browsing import WAIT_MS, watch

    contexts, wrong = [], []

    def make(address: str, **options):
        options.setdefault("viewport", {"width": 1280, "height": 860})
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        watch(page, address, wrong)
        return page

    yield make
    for context in contexts:
        context.close()
    assert wrong == []


# ---- no network


def _is_loopback(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a socket of the file system
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return address[0] in ("localhost", "")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test reach this machine only."""

    def guarded(name: str):
        real = getattr(socket.socket, name)

        def connect(self: socket.socket, address: object):
            if not _is_loopback(address):
                raise RuntimeError(f"a test tried to reach {address!r}; tests use no network")
            return real(self, address)

        return connect

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(name))


# ---- no silent skip in CI


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip for a missing browser, package or data set into a failure, where GALSEARCH_CI is set."""
    if not (os.environ.get("GALSEARCH_CI") and report.skipped) or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if MUST_BE_THERE.search(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped where it must run (GALSEARCH_CI is set): {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield  # a whole module that skips itself, by pytest.importorskip for one
    _refuse(report)
    return report


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line in this process; return (exit code, stdout, stderr)."""

    from galsearch import cli

    def running(*arguments):
        monkeypatch.setattr(sys, "argv", ["galsearch", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return running
