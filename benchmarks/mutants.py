"""Mutation sampling: would the fast tests notice a mistake in galsearch? `python -m benchmarks.mutants --count 200`.

Random single changes of the source (cosmic-ray makes them: another operator, a number one off, a condition denied, a
loop that does not run) are tried one at a time in a copy of the tree. Each meets the fast tests that run the changed
line, the quickest first, until one fails: it is killed. The others survived, and their changes are printed and
written, with everything else, to a JSON file. A change of a line that no test runs has survived, too. Changes of
annotations, which nothing evaluates, are not made.

The draw depends on the seed and the source alone. `--again` tries only those that survived in the file of an earlier
run. Which test runs which line is found once per run, with `benchmarks.covering`, or read from `--map`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue

import coverage
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("store/**/*.py", "retrieval.py", "query.py", "science/sky.py", "science/detection.py", "science/morphology.py"),
    *("columns.py", "formats/*.py", "sources/*.py", "ingest.py", "language/cuts.py", "encode.py"),
)
FAST = "not slow and not browser and not durability and not hostile and not torch"
UNREAD = ("test_layers.py", "test_words.py", "test_docs.py", "test_public.py")  # they look at the text of the source
NEED_ARGUMENTS = ("VariableReplacer", "VariableInserter")
OPERATORS = {name: OperatorProvider()[name]() for name in OperatorProvider() if name not in NEED_ARGUMENTS}
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "demo", "onnx_models", "__pycache__", ".hypothesis", ".pytest_cache", ".ruff_cache", "*.partial"
)
KILLED, SURVIVED, TIMED_OUT, UNCOVERED = "killed", "survived", "timed out", "survived: no test runs the line"


@dataclass(frozen=True)
class Mutant:
    """One change: the n-th place (`occurrence`) in `path` where `operator` can change something."""

    path: str
    line: int
    operator: str
    occurrence: int

    def changed(self, source: str) -> str | None:
        """Return the changed source; None where it is not valid Python."""
        changed = mutate_code(source, OPERATORS[self.operator], self.occurrence)
        try:
            with warnings.catch_warnings(action="ignore"):  # of `is` with a literal
                compile(changed or "(", self.path, "exec")
        except (SyntaxError, ValueError):
            return None
        return changed

    def diff(self, source: str) -> str:
        """Return the change as a diff without context."""
        before, after = source.splitlines(keepends=True), (self.changed(source) or "").splitlines(keepends=True)
        return "".join(list(difflib.unified_diff(before, after, self.path, self.path, n=0))[2:])


# ---- which changes


def draw(count: int, seed: int, root: Path = ROOT) -> list[Mutant]:
    """Return `count` random mutants, or all there are: first a place in the source, then what is done there."""
    trees = [Source(path.relative_to(root).as_posix(), path.read_text()) for path in _files(root)]
    random_ = random.Random(seed)
    nodes = [(tree, number) for tree in trees for number in range(len(tree.nodes))]
    drawn: dict[tuple, Mutant] = {}
    for tree, number in random_.sample(nodes, len(nodes)):
        if len(drawn) == count:
            break
        choices = [choice for choice in tree.choices(number) if (tree.path, choice[2]) not in drawn]
        if choices:
            name, before, position = random_.choice(choices)
            mutant = Mutant(tree.path, position[0][0], name, tree.occurrences(name, number) + before)
            if mutant.changed(tree.text) is not None:
                drawn[tree.path, position] = mutant
    return list(drawn.values())


class Source:
    """One file: its nodes, in the order in which cosmic-ray counts the places of an operator."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.nodes = list(ast_nodes(get_ast(text)))
        self._annotations = _annotations(text)

    def choices(self, number: int) -> list[tuple[str, int, tuple]]:
        """Return what can be done to a node: the operator, which of its changes of that node, and the position."""
        return [
            (name, before, position)
            for name, operator in OPERATORS.items()
            for before, position in enumerate(operator.mutation_positions(self.nodes[number]))
            if not any(start <= position[0] and position[1] <= stop for start, stop in self._annotations)
        ]

    def occurrences(self, name: str, number: int) -> int:
        """Return at how many places an operator could change something in the nodes before one."""
        return sum(1 for node in self.nodes[:number] for _ in OPERATORS[name].mutation_positions(node))


def _files(root: Path) -> list[Path]:
    return sorted({path for room in ROOMS for path in (root / "galsearch").glob(room)})


def _annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    found = []
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if isinstance(part, ast.expr):
                found.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))
    return found


# ---- which tests


@dataclass
class Tests:
    """The fast tests: seconds of each, and which of them run a line, themselves or by a fixture that they share."""

    seconds: dict[str, float]
    by_line: dict[str, dict[int, list[str]]]
    shared: dict[str, dict[int, list[str]]]

    def of(self, mutant: Mutant, budget_s: float) -> list[str]:
        """Return the tests that run the changed line, `budget_s` of them at most.

        Those that run it themselves come first, the quickest first, then those that share a fixture which does. A line
        that runs when the module is imported belongs to every test that runs another line of it: those that run most
        of them come first.
        """
        lines, shared = self.by_line.get(mutant.path, {}), self.shared.get(mutant.path, {})
        groups = [dict.fromkeys(there.get(mutant.line, ()), 0) for there in (lines, shared)]
        if not any(groups) and mutant.line in lines:
            groups = [Counter(test for tests in there.values() for test in tests) for there in (lines, shared)]
        order: dict[str, tuple] = {}
        for number, group in enumerate(groups):
            for test, runs in group.items():
                order.setdefault(test, (number, -runs, self.seconds[test], test))
        kept, spent = [], 0.0
        for test in sorted(order, key=order.__getitem__):
            spent += self.seconds[test]
            if kept and spent > budget_s:
                break
            kept.append(test)
        return kept


def covered(copy: Path, jobs: int, folder: Path) -> None:
    """Run the fast tests once, and note in `folder` which line each of them runs."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["-p", "benchmarks.covering", "-n", str(jobs), "--dist", "loadfile", "-m", FAST]
    subprocess.run(
        [sys.executable, "-m", "pytest", *command, *(f"--ignore=tests/{name}" for name in UNREAD)],
        cwd=copy,
        env=_environment(copy) | {"COVERING": str(folder)},
        check=False,
    )
    coverage.Coverage(data_file=str(folder / ".coverage"), config_file=False).combine(keep=False)
    (folder / "root").write_text(str(copy))


def read_map(folder: Path) -> Tests:
    """Read what `covered` has noted."""
    noted = {}
    for path in folder.glob("tests-*.json"):
        noted |= json.loads(path.read_text())
    passed = {test: facts for test, facts in noted.items() if facts["passed"]}
    users = defaultdict(list)
    for test, facts in passed.items():
        for fixture in facts["fixtures"]:
            users[fixture].append(test)
    data = coverage.CoverageData(str(folder / ".coverage"))
    data.read()
    root = Path((folder / "root").read_text())
    by_line: dict[str, dict[int, list[str]]] = {}
    shared: dict[str, dict[int, list[str]]] = {}
    for path in data.measured_files():
        lines, name = data.contexts_by_lineno(path), Path(path).relative_to(root).as_posix()
        by_line[name] = {line: sorted(set(contexts) & passed.keys()) for line, contexts in lines.items()}
        shared[name] = {
            line: sorted({test for context in contexts for test in users.get(context, ())})
            for line, contexts in lines.items()
        }
    return Tests({test: facts["seconds"] for test, facts in passed.items()}, by_line, shared)


# ---- trying them


def copy_of(root: Path, place: Path) -> Path:
    """Copy the tree without what is generated; compile it so that a changed file is never taken for the old one."""
    shutil.copytree(root, place, ignore=LEFT_OUT, symlinks=True)
    (place / "onnx_models").symlink_to(root / "onnx_models")
    compiling = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "galsearch", "tests", "benchmarks"]
    subprocess.run([sys.executable, *compiling], cwd=place, check=True)
    return place


def _environment(copy: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{copy / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1"}


def attempt(mutant: Mutant, tests: Tests, copy: Path, *, budget_s: float, patience: float) -> dict:
    """Try one mutant in a copy of the tree; return what became of it."""
    path = copy / mutant.path
    source = path.read_text()
    chosen = tests.of(mutant, budget_s)
    result = asdict(mutant) | {"diff": mutant.diff(source), "tests": len(chosen)}
    if not chosen:
        return result | {"state": UNCOVERED, "seconds": 0.0}
    limit_s = patience * (12 + sum(tests.seconds[test] for test in chosen))
    started = time.perf_counter()
    path.write_text(mutant.changed(source))
    try:
        state, said = _run(chosen, copy, limit_s)
    finally:
        path.write_text(source)
    return result | {"state": state, "killer": said, "seconds": round(time.perf_counter() - started, 1)}


def _run(chosen: list[str], copy: Path, limit_s: float) -> tuple[str, str]:
    """Run tests until one fails; return the state of the mutant and the test that failed."""
    scratch = Path(tempfile.mkdtemp(prefix="mutant-"))
    (scratch / "chosen").write_text("\n".join(chosen))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-p", "no:xdist"]
    command += [f"--basetemp={scratch / 'pytest'}", f"@{scratch / 'chosen'}"]
    process = subprocess.Popen(
        command, cwd=copy, env=_environment(copy), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return TIMED_OUT, ""
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if process.returncode == 0:
        return SURVIVED, ""
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return KILLED, failed[0] if failed else said[-300:]


def try_all(
    mutants: list[Mutant], tests: Tests, copies: list[Path], *, budget_s: float, minutes: float, patience: float = 5
) -> list[dict]:
    """Try mutants, as many at a time as there are copies, until all are done or the time is up."""
    free: Queue[Path] = Queue()
    for copy in copies:
        free.put(copy)
    stop = time.monotonic() + 60 * minutes

    def one(mutant: Mutant) -> dict | None:
        if time.monotonic() > stop:
            return None
        copy = free.get()
        try:
            result = attempt(mutant, tests, copy, budget_s=budget_s, patience=patience)
        finally:
            free.put(copy)
        print(
            f"{result['state']:10} {result['seconds']:6.1f} s  {mutant.path}:{mutant.line} {mutant.operator}"
            + ("" if result["state"] == KILLED else f"\n{result['diff']}"),
            flush=True,
        )
        return result

    with ThreadPoolExecutor(len(copies)) as workers:
        return [result for result in workers.map(one, mutants) if result is not None]


def main() -> None:
    """Draw, try, print and write."""
    options = _options()
    mutants = draw(options.count, options.seed)
    if options.again:
        before = json.loads(options.again.read_text())["mutants"]
        mutants = [_mutant(facts) for facts in before if facts["state"].startswith(SURVIVED)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        copies = [copy_of(ROOT, Path(scratch) / f"copy-{number}") for number in range(options.jobs)]
        folder = options.map or Path(scratch) / "map"
        if not (folder / "root").exists():
            covered(copies[0], options.jobs, folder)
        tests = read_map(folder)
        print(f"{len(tests.seconds)} fast tests; {len(mutants)} mutants drawn with seed {options.seed}", flush=True)
        limits = {"budget_s": options.budget, "minutes": options.minutes, "patience": options.patience}
        results = try_all(mutants, tests, copies, **limits)
    report(results, options)


def report(results: list[dict], options: argparse.Namespace) -> None:
    """Print the survivors and the score, and write everything."""
    for result in results:
        if result["state"] != KILLED:
            print(
                f"\n{result['path']}:{result['line']} {result['operator']}: {result['state']}\n{result['diff']}", end=""
            )
    states = Counter(result["state"] for result in results)
    killed = (states[KILLED] + states[TIMED_OUT]) / max(len(results), 1)
    print(f"\n{len(results)} mutants, seed {options.seed}: {dict(states)}; {killed:.1%} killed or never done")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"seed": options.seed, "count": len(results), "killed": round(killed, 4), "states": dict(states)}
    options.out.write_text(json.dumps(facts | {"mutants": results}, indent=1) + "\n")


def _mutant(facts: dict) -> Mutant:
    return Mutant(*(facts[name] for name in Mutant.__dataclass_fields__))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--minutes", type=float, default=60, help="no new mutant is tried after that")
    parser.add_argument("--budget", type=float, default=60, help="seconds of tests that one mutant meets at most")
    parser.add_argument(
        "--patience",
        type=float,
        default=5,
        help="tests that take so many times their seconds never end (more on a busy machine)",
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--map", type=Path, help="folder to keep, or to read, which test runs which line")
    parser.add_argument("--again", type=Path, help="JSON of an earlier run, whose survivors are tried again")
    parser.add_argument("--out", type=Path, default=ROOT / "demo" / "bench" / "mutants.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
