"""Mutation sampling tells tests that notice a mistake from tests that do not, on a package of five lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="planting mistakes needs cosmic-ray, of the extra 'mutants'")

from benchmarks import mutants

ROOT = Path(__file__).parents[1]
SOURCE = """from __future__ import annotations

def larger(a: int | None, b: int | None) -> bool:
    return a > b

def next_one(a: int) -> int:
    return a + 1

def never_run(a: int) -> int:
    return a - 1
"""
TESTS = """import pytest
from galsearch.science.sky import larger, next_one

@pytest.fixture(scope="module")
def made():
    return larger(2, 1)

def test_all_is_compared(made):
    assert made and not larger(1, 2) and not larger(1, 1)

def test_nothing_is_compared():
    next_one(1)
"""


@pytest.fixture
def tree(tmp_path):
    """A small project that looks like this one."""
    root = tmp_path / "project"
    files = {"galsearch/__init__.py": "", "galsearch/science/sky.py": SOURCE, "tests/test_sky.py": TESTS}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "benchmarks").mkdir()
    for name in ("__init__.py", "covering.py"):
        shutil.copy(ROOT / "benchmarks" / name, root / "benchmarks" / name)
    return root


def test_the_draw_depends_on_the_seed_alone_and_leaves_annotations_out(tree):
    drawn = mutants.draw(100, 3, tree)
    assert drawn == mutants.draw(100, 3, tree) != mutants.draw(100, 4, tree)
    assert {mutant.line for mutant in drawn} == {4, 7, 10}  # a place is drawn once
    assert len(drawn) == 5  # >, +, 1, -, 1
    for mutant in drawn:
        changed = mutant.changed(SOURCE)
        assert [
            at
            for at, pair in enumerate(zip(SOURCE.split("\n"), changed.split("\n"), strict=True), 1)
            if pair[0] != pair[1]
        ] == [mutant.line]


@pytest.mark.slow
def test_what_tests_notice_is_killed_and_what_they_only_run_survives(tree, tmp_path):
    drawn = [
        mutants.Mutant("galsearch/science/sky.py", 4, "ReplaceComparisonOperator_Gt_Lt", 0),
        mutants.Mutant("galsearch/science/sky.py", 4, "ReplaceComparisonOperator_Gt_GtE", 0),
        mutants.Mutant("galsearch/science/sky.py", 7, "NumberReplacer", 0),
        mutants.Mutant("galsearch/science/sky.py", 10, "NumberReplacer", 2),
    ]
    copy = mutants.copy_of(tree, tmp_path / "copy")
    mutants.covered(copy, 1, tmp_path / "map")
    tests = mutants.read_map(tmp_path / "map")
    assert set(tests.seconds) == {
        "tests/test_sky.py::test_all_is_compared",
        "tests/test_sky.py::test_nothing_is_compared",
    }
    assert tests.of(drawn[0], 10) == ["tests/test_sky.py::test_all_is_compared"]  # by itself, and by its fixture
    results = mutants.try_all(drawn, tests, [copy], budget_s=10, minutes=30)
    states = [result["state"] for result in results]
    assert states == [mutants.KILLED, mutants.KILLED, mutants.SURVIVED, mutants.UNCOVERED]
    assert "test_all_is_compared" in results[0]["killer"]
    assert (
        (copy / "galsearch" / "science" / "sky.py").read_text()
        == SOURCE
        == (tree / "galsearch" / "science" / "sky.py").read_text()
    )
    json.dumps(results)
