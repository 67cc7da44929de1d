"""What tests share: tiny models, one tiny atlas in both forms, no network, and no silent skip in CI."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import ipaddress
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from hypothesis import HealthCheck, settings
from range_server import Served, serving
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
OTHERS = ("renamed", "two", "remote")
CREDIT = {"title": "Tiny", "license": "MIT", "acknowledgement": "drawn by tests/tiny.py", "bibtex": ""}
SHAPE = "CASE right(object_id, 2)::INT % 4 WHEN 0 THEN 'edge' WHEN 1 THEN 'ring' ELSE 'round' END"  # of a galaxy
MUST_BE_THERE = re.compile(
    r"browser|chromium|playwright|streamlit|torch|onnx|lancedb|skimage|scikit-image|statmorph|umap|regions|stilts|starlette|sqlglot|"
    r"GALSEARCH_DATA|training data",
    re.IGNORECASE,
)


def pytest_configure() -> None:
    """Let Ctrl-C work in here and in what tests start; behind nohup or `&` in a script it would be ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # what is made while tests are collected stays


def pytest_collection_finish() -> None:
    """Let the garbage collector look at nothing that stays, which takes it a third of a second each time."""
    gc.freeze()
    gc.enable()


FACES = (  # ask an atlas by its public names, whichever form it has: on a bundle is enough
    "test_app_pages",
    "test_captions",
    "test_cli",
    "test_language",
    "test_hits",
    "test_projection",
    "test_rerank",
    "test_visitors",
    "test_evaluation",
    "test_fuzz_sql",
)
TURNS = (  # of the cases of a list, one is tried on a folder, the next on a bundle
    "test_format",
    "test_hostile_files",
    "test_store",
    "test_a_cone_a_condition_and_words_together_equal_brute_force",
    "test_a_cone_and_a_condition_in_cells_equal_brute_force",
    "test_a_file_is_matched_as_its_table",
    "test_a_table_is_matched_as_astropy_does",
    "test_a_saved_file_reads_back_the_same",
    "test_sql_refuses_whatever_does_not",
    "test_where_keeps_the_best_of_what_passes_and_null_never_passes",
    "test_where_that_is_more_or_less_than_one_condition_is_refused",
)
ENDS_AS_BUNDLE = (  # begin with a folder, and ask the bundle that is made of it too
    "test_a_file_of_version_1_0_opens_answers_and_is_copied_as_such",
    "test_a_newer_minor_version_is_read_and_what_it_adds_is_kept",
)
STEPS = {  # of a long list of cases, the fast tests try the first and then only every second, third …
    "test_a_bad_cut_is_explained_and_changes_nothing": 4,
    "test_a_broken_link_is_announced_and_lists": 5,
    "test_a_build_that_cannot_begin_is_one_line_and_leaves_nothing": 3,
    "test_a_cone_takes_degrees_and_sexagesimal_and_crosses_ra_zero": 3,
    "test_a_shape_that_breaks_parsers_is_answered_or_refused": 3,
    "test_a_tree_with_exchanged_branches_is_answered_or_refused": 2,
    "test_a_version_that_is_none_is_damage": 4,
    "test_a_visitor_gets_what_the_owner_gets": 2,
    "test_a_wrong_question_is_one_line_and_exit_1": 4,
    "test_an_odd_answer_costs_one_answer": 3,
    "test_anything_typed_is_read": 3,
    "test_bad_sql_is_an_error_in_words": 4,
    "test_bytes_for_a_download_are_those_of_the_file": 2,
    "test_crossmatch_gives_what_python_gives": 3,
    "test_crossmatch_refuses_a_table_without_positions_in_one_line": 2,
    "test_crossmatch_refuses_options_that_make_no_sense_in_one_line": 2,
    "test_ctrl_c_anywhere_is_one_line_and_exit_130": 2,
    "test_each_entry_must_be_json": 4,
    "test_each_entry_must_be_of_its_kind": 3,
    "test_each_entry_of_the_manifest_is_missed": 3,
    "test_every_example_statement_runs": 4,
    "test_every_quick_plot_draws": 3,
    "test_every_verb_names_an_atlas_that_is_not_there": 3,
    "test_ids_that_begin_with_a_hyphen_or_have_a_comma_are_taken": 2,
    "test_no_score_is_no_middling_score_but_keeps_its_place": 2,
    "test_odd_words_are_explained_too": 2,
    "test_output_is_written_in_the_format_of_the_suffix": 3,
    "test_sql_refuses_what_is_no_question": 3,
    "test_the_command_to_copy_finds_the_same": 3,
    "test_the_python_to_copy_finds_the_same": 3,
    "test_what_a_link_gets_wrong_is_passed_over": 4,
    "test_what_cannot_be_classified_is_one_clear_line": 2,
    "test_what_is_shown_of_a_collection_is_what_is_exported": 4,
    "test_wrong_usage_is_exit_2": 3,
}


def is_for_ci(item: pytest.Item) -> bool:
    """Say whether a case repeats what others try, with another form or another value of a long list."""
    called = getattr(item, "callspec", None)
    if called is None:
        return False
    form, file = called.params.get("form"), item.path.stem
    indices = {name: index for name, index in called.indices.items() if name != "form" or form not in (*FORMS, *OTHERS)}
    others = sum(set(indices.values()))  # arguments of one list have one index
    if form in OTHERS or (form == "folder" and file in FACES):
        return True  # for other embeddings, test_embeddings.py is quicker
    if form == "bundle" and item.originalname in ENDS_AS_BUNDLE:
        return True
    takes_turns = file in TURNS or item.originalname in TURNS
    if form in FORMS and takes_turns and len(called.params) > 1 and (others + FORMS.index(form)) % 2:
        return True
    return others % STEPS.get(item.originalname, 1) != 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to CI what repeats the same."""
    for item in items:
        if is_for_ci(item):
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
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Have a folder filled once for all processes of a run, and return it: `made_once("models", write_models)`.

    Whoever comes first fills it, and the others wait; what is in there is never changed.
    """
    home = tmp_path_factory.getbasetemp()
    home = (home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) / "shared"
    home.mkdir(exist_ok=True)

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = home / name, home / f"{name}.done"
        with (home / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go by the system when a process ends, however that ends
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # half of it, where filling failed
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def tiny_models(made_once) -> Path:
    """A folder with a text and an image model that know a few words."""
    return made_once("models", write_tiny_models)


@pytest.fixture(scope="session")
def tiny_source(made_once) -> tuple[Path, Path]:
    """The pictures and the table that the tiny atlas is built from: (folder of PNG files, Parquet file)."""
    folder = made_once("source", tiny.write_source)
    return folder / "cutouts", folder / "catalog.parquet"


@pytest.fixture(scope="session")
def tiny_folder(made_once, tiny_models: Path, tiny_source) -> Path:
    """The tiny atlas as a folder; never change it, take `atlas_path` for that."""
    import galsearch

    pictures, table = tiny_source
    options = {"images": pictures, "table": table, "models": tiny_models, "title": "Tiny", "credits": [CREDIT]}
    return made_once("atlas", lambda home: galsearch.build(home / "tiny.atlas", **options)) / "tiny.atlas"


@pytest.fixture(scope="session")
def tiny_bundle(made_once, tiny_folder: Path) -> Path:
    """The tiny atlas as one file; never change it, take `atlas_path` for that."""
    import galsearch

    return made_once("bundle", lambda home: galsearch.bundle(tiny_folder, home / "tiny.duckdb")) / "tiny.duckdb"


@pytest.fixture(scope="session")
def hostile_path(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny atlas, with captions and a knowledge base, whose every text is hostile; never change it."""
    from hostile_app import make_hostile

    import galsearch

    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("hostile") / "h.atlas"))
    galsearch.caption(folder, where="mag_r < 15")
    galsearch.create_base(folder, "shapes", f"SELECT object_id, {SHAPE} AS shape FROM galaxies WHERE z < 0.03")
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
    """Either form of an atlas; for the contract also "renamed" and "two", bundles with other embeddings, and "remote".

    The last is the bundle behind an address: `atlas` is read by byte ranges, `tiny_path` is the file that is served.
    """
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
    names = {"folder": "tiny_folder", "renamed": "renamed_bundle", "two": "two_bundle"}
    return request.getfixturevalue(names.get(form, "tiny_bundle"))


@pytest.fixture(scope="session")
def atlas(form: str, tiny_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """The tiny atlas in either form, open for reading."""
    import galsearch

    with contextlib.ExitStack() as stack:
        path: Path | str = tiny_path
        if form == "remote":
            served = stack.enter_context(serving(Served({"tiny.duckdb": tiny_path})))
            path = f"{served.address}/tiny.duckdb"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            opened = stack.enter_context(galsearch.open(path, device="cpu"))
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


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory):
    """A page in the place of the built one of static sites, for tests of what Python writes."""
    from galsearch.site import writing

    home = tmp_path_factory.mktemp("page")
    (home / "assets").mkdir()
    (home / "index.html").write_text('<!doctype html><script type="module" src="assets/index-1.js"></script>')
    (home / "assets" / "index-1.js").write_text("'the page'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "FRONT_END", home)
        yield home


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
