"""The documents say what the code does: generated parts are current, examples run, verbs and columns are all there."""

import functools
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
from PIL import Image
from typer.testing import CliRunner

import galsearch
from galsearch import schema

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FIRST_PAGE = [PAGES[0], *(pytest.param(path, marks=pytest.mark.slow) for path in PAGES[1:])]
ROWS = 60  # as many as a search for anomalies wants at least, and some
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TEXT = {".py", ".md", ".toml", ".cff", ".txt", ".css", ".js", ".json", ".yml", ".yaml", ""}
# Homes of one machine, not of the project; /tmp and /usr are everywhere.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt|data|scratch)/[\w.]")
BRITISH = re.compile(
    r"\b(colou?red|colour\w*|centre\w*|neighbour\w*|catalogue\w*|licence\w*|behaviour\w*|artefact\w*|analyse[ds]?|"
    r"normalis\w+|optimis\w+|recognis\w+|visualis\w+|grey\w*|modelling|labelled)\b",
    re.IGNORECASE,
)
PROPER = {"colored", "grey"}  # American as it stands; and "grey", the name of a stretch


def blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return [text for name, text in BLOCK.findall(path.read_text()) if name == language]


def tracked() -> list[Path]:
    """Return the text files of the repository; without git, those of the folders that it has."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = [ROOT / line for line in listed.stdout.splitlines()] or [*PAGES, *ROOT.glob("*/*.py")]
    return [path for path in found if path.suffix in TEXT and path.is_file() and path.stat().st_size < 2_000_000]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo(tmp_path_factory, tiny_models):
    """A folder where the examples of the documents find what they name: demo/xdf.duckdb, of drawn galaxies."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "demo").mkdir()
    (folder / "cutouts").mkdir()
    names = [f"xdf-{row:04d}" for row in range(1, ROWS + 1)]
    for row, name in enumerate(names):
        Image.fromarray(tiny.draw(row)).save(folder / "cutouts" / f"{name}.png")
    Image.fromarray(tiny.draw(1)).save(folder / "arp220.jpg")
    columns = {
        "object_id": names,
        "ra": [53.16 + row / 3600 for row in range(ROWS)],
        "dec": [-27.79] * ROWS,
        "axis_ratio": [0.1 + 0.05 * (row % 12) for row in range(ROWS)],
        "snr": [25.0] * ROWS,
        "is_star": [False] * ROWS,
        "is_artifact": [False] * ROWS,
    }
    pyarrow.parquet.write_table(pa.table(columns), folder / "rows.parquet")
    atlas = folder / "xdf.atlas"
    galsearch.build(atlas, images=folder / "cutouts", table=folder / "rows.parquet", models=tiny_models)
    galsearch.bundle(atlas, folder / "demo" / "xdf.duckdb")
    return folder


def test_generated_parts_are_current(generate):
    stale = [path.name for path, text in generate.documents() if path.read_text() != text]
    assert stale == [], "run `make docs`"


@pytest.mark.slow
def test_every_capability_names_a_command_and_a_test_that_are_there(generate):
    assert list(generate.features.problems()) == []


def test_a_capability_that_names_what_is_not_there_is_noticed(generate, monkeypatch):
    row = {
        "id": "A1.1",
        "name": "x",
        "state": "done",
        "command": "galsearch serch x",
        "test": "test_docs.py::test_none",
    }
    other = {
        "id": "A1.1",
        "name": "y",
        "state": "partly",
        "command": "galsearch search x --fast",
        "test": "test_docs.py",
    }
    known = {"row": [row, other], "compared": [{"what": "z", "rows": ["A9"]}]}
    monkeypatch.setattr(generate.features, "read", lambda: known)
    assert list(generate.features.problems()) == [
        "A1.1 is there 2 times",
        "A1.1: no command galsearch serch",
        "A1.1: no test test_docs.py::test_none",
        "A1.1: nothing said of what is missing",
        "A1.1: search has no option --fast",
        "A1.1: no test test_docs.py",
        "'z' names the row A9, which there is not",
    ]


def test_a_stale_page_is_noticed(generate):
    page = "before <!-- generated: x -->\nold\n<!-- end: x --> after"
    assert generate.filled(page, {"x": lambda: "new"}) == "before <!-- generated: x -->\n\nnew\n\n<!-- end: x --> after"


def test_signatures_read_like_their_source(generate):
    def ask(what: str, *, k: int = 12, **options: object) -> list: ...

    assert generate.signature("ask", ask) == "ask(what: str, *, k: int = 12, **options: object) -> list"


@pytest.mark.parametrize("path", FIRST_PAGE, ids=lambda path: path.name)
def test_python_examples_run(path, demo, monkeypatch, capsys):
    monkeypatch.chdir(demo)
    for text in blocks(path, "python"):
        exec(compile(text, str(path), "exec"), {})
        assert capsys.readouterr().out.count("xdf-") > 1  # each of them prints what it finds


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_command_lines_on_the_demo_run(path, demo, monkeypatch):
    from galsearch import cli

    monkeypatch.chdir(demo)
    for line in re.findall(r"^galsearch (.* demo/xdf\.duckdb.*)$", "\n".join(blocks(path, "bash")), re.MULTILINE):
        done = CliRunner().invoke(cli.app, shlex.split(line, comments=True))
        assert done.exit_code == 0 and done.stdout, f"galsearch {line}: {done.output} {done.exception}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_python_examples_use_only_public_names(path):
    for text in blocks(path, "python"):
        used = set(re.findall(r"\bgalsearch\.(\w+)", text)) - {"duckdb"}
        assert used <= set(galsearch.__all__), path.name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_sql_examples_run_in_plain_duckdb(path, demo):
    with duckdb.connect(demo / "demo" / "xdf.duckdb", read_only=True) as connection:
        for text in blocks(path, "sql"):
            for statement in duckdb.extract_statements(text):
                assert connection.execute(statement).fetchall() != [], statement.query


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@functools.cache
def commands() -> dict:
    from typer.main import get_command

    from galsearch import cli

    return _named(get_command(cli.app).commands, "")


def _named(known: dict, before: str) -> dict:
    """Return commands by what is typed; those of a group, such as kb, with its name before theirs."""
    found = {}
    for name, command in known.items():
        found |= _named(command.commands, f"{name} ") if hasattr(command, "commands") else {before + name: command}
    return found


def test_files_where_tasks_begin_are_there():
    page = (ROOT / "docs" / "architecture.md").read_text()
    tasks = page.partition("## Tasks and where they begin")[2].partition("\n## ")[0]
    rows = [row for row in tasks.splitlines() if ", new" not in row]  # of what is still to come
    named = re.findall(r"`((?:\w+/)*\w+\.(?:py|c))`", "\n".join(rows))
    assert len(named) > 15
    assert [name for name in named if not any((root / name).is_file() for root in (ROOT, ROOT / "galsearch"))] == []


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_verb_is_documented_and_has_help(name):
    assert commands()[name].help
    assert f"## galsearch {name}\n" in (ROOT / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_command_lines_in_the_documents_name_verbs_and_options_that_exist(path):
    known = commands()
    for text in blocks(path, "bash") + blocks(path, "sh"):
        for line in re.findall(r"^(?:\$ )?galsearch ([a-z]+)(.*)$", text.replace("\\\n", " "), re.MULTILINE):
            verb, rest = line
            if verb not in known and rest.split():
                verb, rest = f"{verb} {rest.split()[0]}", rest.strip().partition(" ")[2]
                rest = f" {rest}"
            assert verb in known, f"{path.name}: galsearch {verb}"
            bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", rest.partition("#")[0])
            options = {name for parameter in known[verb].params for name in parameter.opts}
            assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", bare)) <= options, f"{path.name}: galsearch {verb}{rest}"


def test_the_format_page_gives_every_column_and_table():
    text = (ROOT / "docs" / "format.md").read_text()
    assert all(f"`{name}`" in text for name in (*schema.GALAXIES, *schema.TABLES, *schema.REQUIRED_KEYS))


def test_targets_that_the_readme_names_are_in_the_makefile():
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", " ".join(re.findall(r"`[^`]+`", (ROOT / "README.md").read_text()))))
    assert {"demo", "test"} <= named <= rules


def test_no_file_names_a_place_on_one_machine():
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path != Path(__file__)
        for match in MACHINE_PATH.finditer(path.read_text(errors="replace"))
    ]
    assert found == []


def test_spelling_is_american():
    found = []
    for path in tracked():
        if path.suffix not in {".py", ".md", ".toml", ".txt"} or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if "EFIGI catalogue" in line:  # the name of a publication's catalog, as its credit line has it
                continue
            found += [f"{path.name}:{number}: {w}" for w in BRITISH.findall(line) if w.lower() not in PROPER]
    assert found == []


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {galsearch.__version__}\n" in citation


@pytest.mark.slow
def test_the_counts_of_threats_are_those_of_the_tests(tiny_bundle):
    import hostile
    import hostile_files
    import hostile_pictures
    import hostile_worker
    import test_hostile_files

    said = " ".join((ROOT / "docs" / "security.md").read_text().split())
    integration = re.search(r"GALSEARCH_MUTATIONS=(\d+)", (ROOT / ".ci" / "run").read_text())[1]
    whole = re.search(r"GALSEARCH_MUTATIONS:-(\d+)", (ROOT / "Makefile").read_text())[1]
    with galsearch.open(tiny_bundle) as atlas:
        questions = len(list(hostile_worker.questions(atlas)))
    for expected in (
        f"{len(hostile_files.BUNDLES)} kinds of lies in a bundle and {len(hostile_files.FOLDERS)} in a folder",
        f"{int(whole):,} seeded mutations",
        f"{hostile_worker.FEW} of {questions} questions",
        f"of every {test_hostile_files.WHOLE}th all",
        f"tries the first {int(integration):,}.",
        f"{len(hostile.HOSTILE_STATEMENTS)} statements and {len(hostile.HOSTILE_CONDITIONS)} conditions",
        f"{len(hostile.DISCLOSING)} statements that would tell",
        f"{len(hostile.LINKS)} links",
        f"{len(hostile_pictures.refused())} pictures that must be refused and {len(hostile_pictures.read())} odd ones",
    ):
        assert expected in said
