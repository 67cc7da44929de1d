"""Imports go down only: words, science, engines, whole, faces (docs/architecture.md), read from the source text."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import galsearch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "galsearch").rglob("__init__.py")
}  # from which modules may be imported by name
WORDS = {"errors", "escaping", "progress", "schema"}
SCIENCE_FILES = (
    *("metrics", "morphology", "novelty", "probe", "quality", "ranking", "votes"),
    *("adaptation", "agreement", "duplicates", "familiarity", "fingerprints", "interest"),
    *("bounded", "fits_units", "sky", "healpix", "regions", "images", "spectra", "lines", "pixels", "detection"),
)
SCIENCE = {"science", *(f"science.{name}" for name in SCIENCE_FILES)}
SERVERS = {"workers", "quotas"}
ENGINES = {"encode", "store", "formats", "remote"}
BELOW_WHOLE = WORDS | SCIENCE | {"query", "language", "workers"} | ENGINES

# room -> the rooms of galsearch that it may import; a package such as store stands for all files in it
MAY_IMPORT = {
    "errors": set(),
    "atomic": {"errors"},
    "compiled": set(),
    "progress": set(),
    "escaping": {"errors"},
    "schema": {"errors"},
    **dict.fromkeys(SCIENCE, WORDS),
    "science.fits_units": WORDS | {"science.bounded"},
    "science.images": WORDS | {"science.bounded", "science.fits_units", "science.images"},
    "science.morphology": WORDS | {"science.pixels"},
    "science.pixels": WORDS | {"compiled"},
    "science.detection": WORDS | {"science.morphology", "science.pixels"},
    "science.interest": WORDS | {"science.novelty"},
    "science.lines": WORDS | {"science.spectra"},
    "science.adaptation": WORDS | {"science.metrics", "science.ranking"},
    "science.familiarity": WORDS | {"science.ranking"},
    "science.novelty": WORDS | {"science.probe"},
    "science.duplicates": WORDS | {"science.sky"},
    "science.regions": WORDS | {"science.sky"},
    "notebook": {"errors"},
    "query": WORDS | {"science.sky", "science.ranking"},
    "permalinks": WORDS | {"query"},
    "language": WORDS | {"query", "language"},
    "workers": {"errors"},
    "quotas": {"errors", "workers"},
    "graphs": {"errors"},
    "encode": WORDS | {"science.familiarity", "science.images", "science.spectra", "graphs"},
    "store": WORDS
    | {
        "store",
        "atomic",
        "compiled",
        "query",
        "language",
        "science.sky",
        "science.ranking",
        "science.spectra",
        "workers",
    },
    "formats": WORDS | {"formats", "atomic", "science.healpix", "science.sky"},
    "remote.cutouts": WORDS | {"remote.cutouts", "science.sky", "science.images"},
    "remote": WORDS | {"remote", "science.sky"},
    "citations": WORDS,
    "columns": BELOW_WHOLE,
    "sources": BELOW_WHOLE | {"columns", "sources"},
    "retrieval": BELOW_WHOLE,
    "crossmatch": BELOW_WHOLE | {"columns"},
    "adql": BELOW_WHOLE | {"adql"},
    "lookup": BELOW_WHOLE,
    "zeroshot": BELOW_WHOLE,
    "captions": BELOW_WHOLE | {"captions"},
    "knowledge": BELOW_WHOLE | {"crossmatch", "knowledge", "notebook"},
    "discovery.watch": BELOW_WHOLE
    | {
        "atlas",
        "atomic",
        "columns",
        "crossmatch",
        "discovery",
        "discovery.watch",
        "ingest",
        "remote.cutouts",
        "sources",
    },
    "discovery": BELOW_WHOLE | {"columns", "crossmatch", "discovery", "notebook"},
    "rerank": BELOW_WHOLE | {"rerank", "retrieval", "captions", "zeroshot"},
    "hits": BELOW_WHOLE | {"retrieval", "rerank", "zeroshot", "notebook"},
    "query_code": BELOW_WHOLE | {"retrieval", "atlas"},
    "atlas": BELOW_WHOLE
    | {"sources", "citations", "retrieval", "crossmatch", "lookup", "rerank", "zeroshot", "hits", "adql"}
    | {"knowledge", "discovery", "remote.cutouts"},
    "ingest": BELOW_WHOLE | {"columns", "sources"},
    "evaluation": BELOW_WHOLE | {"atlas", "knowledge", "evaluation"},
    "space": BELOW_WHOLE | {"citations", "ingest", "space"},
    "service.agents": WORDS
    | SCIENCE
    | {"query", "workers", "quotas", "rerank", "hits", "atlas", "discovery", "service.agents"},
    "service": BELOW_WHOLE | {"", "adql", "atlas", "atomic", "discovery", "permalinks", "quotas", "service"},
    "site": BELOW_WHOLE | {"atomic", "citations", "knowledge", "site", "site.serving"},
    "site.serving": {"errors", "site"},
    "prompts": set(),  # text files
    "__init__": {"errors"},  # everything else is found by name at first use
    "cli": {"cli"},  # beside that the public surface only
}
# inside the store each file may import only those before it; `__init__` is the door to all of them
STORE = (
    *("files", "interface", "sql.served", "sql.sandbox", "sql.allowed"),
    *("index.kernel", "index.vectors", "index.cells", "index.search", "index.fulltext", "index.projection"),
    *(
        "sql.macros",
        "read.admission",
        "read.blocks",
        "read.spectra",
        "read.base",
        "read.bundle",
        "read.folder",
        "read.multi",
    ),
    *("read.row_view", "check"),
    *("write.disk", "write.index_tables", "write.lance_offsets", "write.recluster", "write.upsert"),
    *("write.tombstones", "write.folder"),
    *("write.bundle", "write.site_tables", "sql.visitors"),
)
# package from outside -> the modules that may import it; what is not named here nobody may
OWNERS = {
    "numpy": set(MAY_IMPORT),
    "pyarrow": set(MAY_IMPORT) - SCIENCE,
    "scipy": SCIENCE | {"sources"},
    "PIL": {"science.images"},
    "astropy": {"science.fits_units", "science.images", "formats", "remote", "sources"},
    "sep": {"science.detection"},
    "fsspec": {"store", "remote"},  # by which DuckDB reads a file through Python; the other only looks if it is there
    "duckdb": {"store", "discovery.watch"},  # the latter for the jobs of a watch, which are no atlas
    "lance": {"store"},
    "pandas": {"formats", "hits", "knowledge", "discovery"},
    "umap": {"store"},
    "packaging": {"space"},
    "huggingface_hub": {"space"},  # in the script that runs in a Space
    "onnxruntime": {"encode"},
    "onnx": {"site"},  # which rewrites a text model for browsers
    "tokenizers": {"encode"},
    "skimage": {"sources"},
    "yaml": {"language", "formats"},
    "snowballstemmer": {"language"},
    "clevercsv": {"formats"},
    "charset_normalizer": {"formats"},
    "openai": {"remote"},
    "ray": {"remote"},
    "httpx2": {"remote", "remote.cutouts"},  # comes with openai
    "pydantic": {"remote", "service.agents"},
    "mcp": {"service.agents"},
    "requests": {"remote"},  # comes with astropy's packages of services
    "urllib3": {"remote"},
    "pyvo": {"remote"},
    "astroquery": {"remote"},
    "sqlglot": {"adql"},
    "starlette": {"service"},
    "anyio": {"service", "service.agents"},  # comes with Starlette and mcp, and so does the next
    "uvicorn": {"service", "service.agents"},
    "typer": {"cli"},
    "rich": {"cli"},
}
NETWORK = {"socket", "ssl", "http", "ftplib", "smtplib", "urllib", "xmlrpc"}
MAY_REACH_OUT = {"remote", "site.serving"}  # the latter only listens, on this machine
EXPORT_MAY_IMPORT = WORDS | SCIENCE | {"language", "captions", "encode"}


def imports(tree: ast.AST, *, typing_only: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield every dotted name imported at any depth, and whether it is imported for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["galsearch" if node.level else "", node.module]))
            names = [f"{base}.{alias.name}" for alias in node.names] if base in PACKAGES else [base]
            yield from ((name, typing_only) for name in names)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            named = node.args and isinstance(node.args[0], ast.Constant)
            yield str(node.args[0].value) if named else "<computed>", typing_only
        guard = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        yield from imports(node, typing_only=typing_only or guard)


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def violations(module: str, source: str) -> list[str]:
    """Return what `source` imports against the rules for `module`, a module or package of galsearch."""
    bad = []
    for name, typing_only in imports(ast.parse(source)):
        top, _, rest = name.partition(".")
        if top == "galsearch":
            bad += [] if typing_only else _inside(module, rest)
        elif top == "<computed>":
            bad += [] if module == "__init__" else [f"{module}: an import whose name is computed hides from this test"]
        elif top in NETWORK and name != "urllib.parse" and module not in MAY_REACH_OUT:
            bad.append(f"{module} must not reach the network ({name})")
        elif top not in sys.stdlib_module_names and not typing_only and module not in OWNERS.get(top, ()):
            bad.append(f"{module} must not import {name}")
    return bad


def _inside(module: str, rest: str) -> list[str]:
    other = room_of(rest)
    if module == "cli" and other != "cli":
        return [] if other in {"", *galsearch.__all__} else [f"cli must not import galsearch.{rest}: not public"]
    if other in MAY_IMPORT.get(module, ()) or (module != "__init__" and other == "__version__"):
        return []
    return [f"{module} must not import galsearch.{rest}"]


def private_names(source: str) -> list[str]:
    """Return what a face reaches in galsearch beyond its public names, by import or by attribute."""
    tree = ast.parse(source)
    names = [name.partition(".")[2] for name, _ in imports(tree) if name.partition(".")[0] == "galsearch"]
    names += [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "galsearch"
    ]
    names = [name for name in names if name.partition(".")[0] != "cli"]
    return [name for name in names if name and name not in galsearch.__all__]


def module_of(path: Path) -> str:
    """Return the module's name below galsearch, or that of the room it lies in."""
    return room_of(dotted(path))


def dotted(path: Path) -> str:
    """Return the dotted name of a file below galsearch; of a package that of its folder."""
    name = ".".join(path.relative_to(ROOT / "galsearch").with_suffix("").parts)
    return name.removesuffix(".__init__")


def room_of(name: str) -> str:
    """Return the room that a dotted name below galsearch belongs to."""
    parts = name.split(".")
    rooms = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((room for room in rooms if room in MAY_IMPORT), parts[0])


FILES = sorted((ROOT / "galsearch").rglob("*.py"))
STORE_FILES = [path for path in sorted((ROOT / "galsearch" / "store").rglob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_layer_allows(path):
    assert module_of(path) in MAY_IMPORT, (
        f"{path.name} has no layer yet: give it one in this test and in architecture.md"
    )
    assert violations(module_of(path), path.read_text()) == []


def upward(name: str, source: str) -> list[str]:
    """Return what a file of the store imports that does not come before it."""
    inside = [
        other.removeprefix("galsearch.store.") for other, typing_only in imports(ast.parse(source)) if not typing_only
    ]
    return [one for one in inside if one in STORE and STORE.index(one) >= STORE.index(name)]


@pytest.mark.parametrize("path", STORE_FILES, ids=dotted)
def test_a_file_of_the_store_imports_only_those_before_it(path):
    assert upward(dotted(path).removeprefix("store."), path.read_text()) == []


def test_a_planted_import_upward_in_the_store_is_caught():
    assert upward("index.cells", "from galsearch.store.read import bundle") == ["read.bundle"]
    assert upward("read.base", "from galsearch.store.write.disk import disk_errors") == ["write.disk"]


# ---- what stays inside the store, and inside schema


def inside_only(source: str) -> list[str]:
    """Return what of a source text belongs into the store or into schema: engines, forms of a store, one modality."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if node.attr == "sandbox" or (node.attr == "kind" and is_store(node.value)) or text == "schema.IMAGE":
                found.append(text)
    return found


def is_store(node: ast.expr) -> bool:
    return ast.unparse(node).rpartition(".")[2] in ("store", "_store")


OUTSIDE = [path for path in FILES if not dotted(path).startswith("store") and dotted(path) != "schema"]


@pytest.mark.parametrize("path", OUTSIDE, ids=dotted)
def test_what_belongs_to_the_store_stays_there(path):
    allowed = ["self._store.kind"] if dotted(path) == "atlas" else []  # which it tells as its own
    assert [one for one in inside_only(path.read_text()) if one not in allowed] == []


def test_what_leaves_the_store_is_seen():
    source = "def f(store):\n    if store.kind == 'set':\n        store.sandbox.rows(schema.IMAGE)"
    assert sorted(inside_only(source)) == ["schema.IMAGE", "store.kind", "store.sandbox"]


@pytest.mark.parametrize("folder", ["galsearch/cli", "streamlit_app"])
def test_a_face_uses_only_public_names(folder):
    for file in sorted((ROOT / folder).rglob("*.py")):
        assert private_names(file.read_text()) == [], file


def test_training_code_uses_only_what_it_shares_with_the_runtime():
    for path in sorted((ROOT / "export").rglob("*.py")):
        named = (name for name, _ in imports(ast.parse(path.read_text())) if name.startswith("galsearch."))
        used = {room_of(name.removeprefix("galsearch.")) for name in named}
        assert used <= EXPORT_MAY_IMPORT, f"{path.name} must not import {used - EXPORT_MAY_IMPORT}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("schema", "import galsearch.query"),
        ("schema", "from galsearch.science import sky"),
        ("science.sky", "import duckdb"),
        ("science.images", "from galsearch.encode import Encoder"),
        ("science.detection", "from galsearch.science import images"),
        ("science.morphology", "import pyarrow as pa"),
        ("query", "from galsearch.store import Store"),
        ("encode", "def load():\n    from galsearch.store.write.bundle import write_bundle"),
        ("encode", "import duckdb"),
        ("store", "import onnxruntime"),
        ("store", "from galsearch import encode"),
        ("store", "from ..encode import Encoder"),
        ("formats", "from galsearch.science import images"),
        ("atlas", "import lance"),
        ("atlas", "from galsearch.ingest import build"),
        ("atlas", "import torch"),
        ("atlas", "import pandas as pd"),
        ("atlas", "from urllib.request import urlopen"),
        ("ingest", "from export import models"),
        ("ingest", "def shown():\n    import matplotlib.pyplot as plt"),
        ("sources", "from galsearch import cli"),
        ("sources", "from importlib import import_module\nimport_module('duckdb')"),
        ("atlas", "__import__('d' + 'uckdb')"),
        ("cli", "from galsearch.store import open_store"),
        ("cli", "from galsearch import ingest"),
        ("cli", "import streamlit"),
        ("__init__", "from galsearch.atlas import Atlas"),
    ],
)
def test_a_planted_violation_is_caught(module, source):
    assert violations(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("query", "from galsearch.science.sky import check_position"),
        ("store", "import duckdb, lance\nfrom galsearch.store.index import cells"),
        ("atlas", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from astropy.table import Table"),
        ("cli", "import galsearch, typer\nfrom galsearch import GalsearchError"),
    ],
)
def test_an_allowed_import_passes(module, source):
    assert violations(module, source) == []


@pytest.mark.parametrize("source", ["import galsearch\ngalsearch.store.open_store(p)", "from galsearch import encode"])
def test_a_face_that_reaches_inside_is_caught(source):
    assert private_names(source) != []


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import galsearch", set(OWNERS)),
        # what every search on a bundle pays for: no Lance, no image reader, no encoder before the first question
        ("import galsearch; galsearch.open", {"lance", "onnxruntime", "tokenizers", "astropy", "PIL", "sep", "scipy"}),
    ],
)
def test_importing_loads_no_engine(statement, heavy):
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert heavy & set(run.stdout.split()) == set()


def test_no_part_of_the_runtime_loads_training_or_app_packages():
    """Lance brings pandas along for itself, which is why that one is looked for in the source text only."""
    code = "import sys, importlib\nfor m in sys.argv[1:]: importlib.import_module(m)\nprint(*sys.modules)"
    modules = [
        f"galsearch.{dotted(path)}" for path in FILES if "templates" not in path.parts and path.stem != "__main__"
    ]
    run = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "streamlit", "matplotlib", "export", "lancedb"} & set(run.stdout.split())


BROUGHT_BY_EXTRAS = (
    *("onnx", "requests", "pyvo", "astroquery", "httpx2", "openai", "skimage", "sklearn", "umap", "photutils"),
    *("mcp", "ray"),
)


def test_everything_public_is_there_without_any_extra():
    """Whoever installs no more than galsearch and ONNX Runtime has every name and every command."""
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(sys.argv[1:]))\n"  # None: importing it raises ModuleNotFoundError
        "import galsearch, galsearch.cli\n"
        "print(len([getattr(galsearch, name) for name in galsearch.__all__]))"
    )
    call = [sys.executable, "-c", code, *BROUGHT_BY_EXTRAS]
    run = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 100
