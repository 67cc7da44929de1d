"""Imports go down only: words, science, engines, whole, faces (docs/architecture.md), read from the source text."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import galsearch

ROOT = Path(__file__).resolve().parent.parent
WORDS = {"errors", "escaping", "schema"}
SCIENCE = {"sky", "images", "spectra", "morphology", "shapes", "neighbors", "novelty", "metrics", "zoo"}
ENGINES = {"encode", "store", "exchange", "remote"}
BELOW_WHOLE = WORDS | SCIENCE | {"query", "workers"} | ENGINES

# module -> the modules of galsearch that it may import; a package such as store stands for all files in it
MAY_IMPORT = {
    "errors": set(),
    "escaping": {"errors"},
    "schema": {"errors"},
    **dict.fromkeys(SCIENCE, WORDS),
    "images": WORDS | {"images"},
    "morphology": WORDS | {"shapes"},
    "query": WORDS | {"sky"},
    "workers": {"errors"},
    "quotas": {"errors", "workers"},
    "graphs": {"errors"},
    "encode": WORDS | {"images", "spectra", "graphs"},
    "store": WORDS | {"store", "query", "sky", "workers"},
    "exchange": WORDS | {"exchange"},
    "remote": WORDS | {"remote"},
    "published": {"errors"},
    "citing": WORDS,
    "columns": BELOW_WHOLE,
    "sources": BELOW_WHOLE | {"columns", "published", "sources"},
    "asking": BELOW_WHOLE,
    "crossmatch": BELOW_WHOLE | {"columns"},
    "understanding": BELOW_WHOLE | {"understanding"},
    "rerank": BELOW_WHOLE | {"rerank", "asking", "captions", "understanding"},
    "atlas": BELOW_WHOLE | {"citing", "asking", "crossmatch", "rerank", "understanding"},
    "ingest": BELOW_WHOLE | {"columns", "published", "sources", "asking", "crossmatch", "atlas"},
    "evaluation": BELOW_WHOLE | {"atlas"},
    "space": BELOW_WHOLE | {"citing", "ingest", "space"},
    "captions": BELOW_WHOLE | {"captions"},
    "prompts": set(),  # text files
    "__init__": {"errors"},  # everything else is found by name at first use
    "cli": set(),  # the public surface only
}
# package from outside -> the modules that may import it; what is not named here nobody may
OWNERS = {
    "numpy": set(MAY_IMPORT),
    "pyarrow": set(MAY_IMPORT) - SCIENCE,
    "scipy": SCIENCE | {"sources"},
    "PIL": {"images"},
    "astropy": {"images", "spectra", "exchange", "sources"},
    "sep": {"morphology"},
    "duckdb": {"store"},
    "lance": {"store"},
    "umap": {"store"},
    "packaging": {"space"},
    "huggingface_hub": {"space"},  # in the script that runs in a Space
    "onnxruntime": {"encode"},
    "tokenizers": {"encode"},
    "skimage": {"sources"},
    "yaml": {"understanding", "exchange"},
    "clevercsv": {"exchange"},
    "charset_normalizer": {"exchange"},
    "openai": {"remote"},
    "httpx2": {"remote"},  # comes with openai
    "pydantic": {"remote"},
    "typer": {"cli"},
    "rich": {"cli"},
}
NETWORK = {"socket", "ssl", "http", "ftplib", "smtplib", "urllib", "xmlrpc"}
MAY_REACH_OUT = {"remote"}
EXPORT_MAY_IMPORT = WORDS | {"images", "spectra", "morphology", "metrics", "captions", "encode"}


def imports(tree: ast.AST, *, typing_only: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield every dotted name imported at any depth, and whether it is imported for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["galsearch" if node.level else "", node.module]))
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "galsearch" else [base]
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
            bad += _inside(module, rest)
        elif top == "<computed>":
            bad += [] if module == "__init__" else [f"{module}: an import whose name is computed hides from this test"]
        elif top in NETWORK and name != "urllib.parse" and module not in MAY_REACH_OUT:
            bad.append(f"{module} must not reach the network ({name})")
        elif top not in sys.stdlib_module_names and not typing_only and module not in OWNERS.get(top, ()):
            bad.append(f"{module} must not import {name}")
    return bad


def _inside(module: str, rest: str) -> list[str]:
    other = rest.partition(".")[0]
    if module == "cli":
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
    return [name for name in names if name and name not in galsearch.__all__]


def module_of(path: Path) -> str:
    """Return the module's name below galsearch, or that of the package it lies in."""
    return path.relative_to(ROOT / "galsearch").parts[0].removesuffix(".py")


FILES = sorted((ROOT / "galsearch").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_layer_allows(path):
    assert module_of(path) in MAY_IMPORT, (
        f"{path.name} has no layer yet: give it one in this test and in architecture.md"
    )
    assert violations(module_of(path), path.read_text()) == []


@pytest.mark.parametrize("folder", ["galsearch/cli.py", "streamlit_app"])
def test_a_face_uses_only_public_names(folder):
    path = ROOT / folder
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        assert private_names(file.read_text()) == [], file


def test_training_code_uses_only_what_it_shares_with_the_runtime():
    for path in sorted((ROOT / "export").rglob("*.py")):
        used = {name.split(".")[1] for name, _ in imports(ast.parse(path.read_text())) if name.startswith("galsearch.")}
        assert used <= EXPORT_MAY_IMPORT, f"{path.name} must not import {used - EXPORT_MAY_IMPORT}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("schema", "import galsearch.query"),
        ("schema", "from galsearch import sky"),
        ("sky", "import duckdb"),
        ("images", "from galsearch.encode import Encoder"),
        ("morphology", "from galsearch import images"),
        ("morphology", "import pyarrow as pa"),
        ("query", "from galsearch.store import Store"),
        ("encode", "def load():\n    from galsearch.store.write.bundle import write_bundle"),
        ("encode", "import duckdb"),
        ("store", "import onnxruntime"),
        ("store", "from galsearch import encode"),
        ("store", "from ..encode import Encoder"),
        ("exchange", "from galsearch import images"),
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
        ("store", "import duckdb, lance\nfrom galsearch.store import cells"),
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
    modules = [f"galsearch.{name}" for name in MAY_IMPORT if (ROOT / "galsearch" / f"{name}.py").exists()]
    modules = [name for name in modules if not name.endswith("__init__")] + ["galsearch.store.write.folder"]
    run = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "streamlit", "matplotlib", "export", "lancedb"} & set(run.stdout.split())
