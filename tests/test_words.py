"""One concept, one word: names in the code use those of docs/glossary.md, and none of the words of before."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "galsearch").rglob("*.py"))
BANNED = {  # word of a name -> what to say
    "found": "result, hit",
    "said": "message, or stated",
    "place": "row index",
    "places": "row indices",
    "asked": "query, requested",
    "asking": "query, search",
    "wording": "full-text index",
    "settle": "recluster",
    "amend": "upsert",
    "citing": "citations",
    "understood": "parsed",
}
MODULES = {  # of a file or a folder -> what to call it
    **{"asking": "retrieval", "exchange": "formats", "facts": "base", "pages": "lance_offsets", "place": "atomic"},
    **{"settle": "recluster", "plane": "projection", "wording": "fulltext", "union": "multi", "subset": "row_view"},
    **{"understanding": "language", "reading_words": "parser", "zoo": "decision_tree", "published": "known_embeddings"},
}
KEPT = {  # public, or of the format, or another meaning of the word
    *("Atlas.candidates.found", "Reranked.said", "Reply.said", "Negation.said", "Judge.asked", "System.asked"),
    *("attributes.asked", "check_length.found", "worst_length.found"),
}


def names(tree: ast.AST, home: str = "") -> Iterator[tuple[str, str]]:
    """Yield each name that a module defines, and where: functions, classes, parameters, variables, attributes."""
    for node in ast.iter_child_nodes(tree):
        inside = home
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, home
            inside = f"{home}.{node.name}".strip(".")
        elif isinstance(node, ast.arg):
            yield node.arg, home
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, home
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, home
        yield from names(node, inside)


def words(name: str) -> list[str]:
    """Return the words of a name in lower case.

    >>> words("_MostSaid_here")
    ['most', 'said', 'here']
    """
    return re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "galsearch").as_posix())
def test_names_use_the_words_of_the_glossary(path):
    bad = {
        f"{home}.{name}".strip("."): BANNED[word]
        for name, home in names(ast.parse(path.read_text()))
        for word in words(name)
        if word in BANNED
    }
    assert {name: remedy for name, remedy in bad.items() if name not in KEPT} == {}


def test_files_are_called_by_standard_names():
    parts = {part for path in FILES for part in path.relative_to(ROOT / "galsearch").with_suffix("").parts}
    assert {part: MODULES[part] for part in parts if part in MODULES} in ({}, {"pages": "lance_offsets"})  # cli/pages


def test_a_banned_word_is_seen_wherever_it_is_defined():
    source = "def f(said):\n    found = 1\nclass Asking:\n    def g(self):\n        self.place = [x for places in y]\n"
    seen = {word for name, _ in names(ast.parse(source)) for word in words(name)} & set(BANNED)
    assert seen == {"said", "found", "asking", "place", "places"}
