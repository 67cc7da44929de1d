"""What galsearch can do, from features.toml: the page, what is wrong with it, and its commands run.

`python docs/features.py FOLDER` runs every command in FOLDER, where `galsearch demo` has made `demo/`, and prints what
each ended with; commands that need more than the demo are run where `--all` says that it lies there too.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATES = ("done", "partly", "not yet", "out of scope")
SECTIONS = {
    "A": "Pictures and words",
    "B": "Spectra and known objects",
    "C": "Discovery",
}
OPENS = "app", "review start"  # commands that open a page and do not end


def read() -> dict[str, list[dict]]:
    """Return `row` and `compared` of features.toml."""
    return tomllib.loads((ROOT / "docs" / "features.toml").read_text())


def page() -> str:
    """Return the counts and a table for each section."""
    rows = read()["row"]
    parts = [counts(rows)]
    for letter, title in SECTIONS.items():
        those = [row for row in rows if row["id"].startswith(letter)]
        parts += [f"## {letter}. {title}", counts(those), _table(those)]
    return "\n\n".join(parts)


def counts(rows: list[dict]) -> str:
    """Return how many rows are in which state, in a sentence."""
    found = Counter(row["state"] for row in rows)
    scope = len(rows) - found["out of scope"]
    beside = f"; {found['out of scope']} out of scope" if found["out of scope"] else ""
    return f"Of {scope}: {found['done']} done, {found['partly']} partly, {found['not yet']} not yet{beside}."


def comparison() -> str:
    """Return the table of the README: what three systems and galsearch have, and how many rows of it are done."""
    known = read()
    states = {row["id"]: row["state"] for row in known["row"]}
    head = ["", "AION-Search", "GalSpecEncoder-KB", "AstroLens", "galsearch now", "done"]
    lines = [head, ["---"] * len(head)]
    for one in known["compared"]:
        done = sum(states[row] == "done" for row in one["rows"])
        share = f"{done} of {len(one['rows'])}" if one["rows"] else ""
        systems = (one[name] for name in ("aion_search", "galspecencoder_kb", "astrolens", "galsearch"))
        lines.append([one["what"], *systems, share])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def problems() -> Iterator[str]:
    """Yield what is wrong: states, commands and tests that there are not, what is missing and not told."""
    known = read()
    rows = known["row"]
    for name, often in Counter(row["id"] for row in rows).items():
        if often > 1:
            yield f"{name} is there {often} times"
    for row in rows:
        yield from (f"{row['id']}: {problem}" for problem in _problems(row))
    ids = {row["id"] for row in rows}
    for one in known["compared"]:
        yield from (f"'{one['what']}' names the row {name}, which there is not" for name in set(one["rows"]) - ids)


def _problems(row: dict) -> Iterator[str]:
    if row["state"] not in STATES:
        yield f"state {row['state']!r}, expected one of {', '.join(STATES)}"
    shown = row["state"] in ("done", "partly")
    yield from (f"no {key}" for key in ("command", "test") if shown and key not in row)
    if row["state"] != "done" and not row.get("missing"):
        yield "nothing said of what is missing"
    if "command" in row:
        yield from _unknown(row["command"])
    if "test" in row and not _is_there(row["test"]):
        yield f"no test {row['test']}"


def _is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    path = ROOT / "tests" / file
    return path.is_file() and re.search(rf"^def {re.escape(name)}\(", path.read_text(), re.MULTILINE) is not None


def _unknown(command: str) -> Iterator[str]:
    """Yield what of a command there is not: its verb, an option, the module that it runs."""
    words = shlex.split(command)
    if words[:2] == ["python", "-m"]:
        if not (ROOT / f"{words[2].replace('.', '/')}.py").is_file():
            yield f"no module {words[2]}"
    elif words[0] == "galsearch":
        verb, options = _verb(words[1:])
        if options is None:
            yield f"no command galsearch {verb}"
        else:
            yield from (f"{verb} has no option {w}" for w in words if re.match(r"--?[a-z]", w) and w not in options)
    elif words[:2] != ["python", "-c"]:
        yield f"{words[0]} is neither galsearch nor Python"


def _verb(words: list[str]) -> tuple[str, set[str] | None]:
    """Return the verb that words begin with, of two where it is one of a group, and its options; None for none."""
    from typer.main import get_command

    from galsearch import cli

    command, name = get_command(cli.app), ""
    for word in words[:2]:
        if hasattr(command, "commands"):
            name = f"{name} {word}".strip()
            command = command.commands.get(word)
    return name, None if command is None else {option for one in command.params for option in one.opts}


def _table(rows: list[dict]) -> str:
    lines = [("", "what", "state", "shown by", "held by", "missing, or to know"), ("---",) * 6]
    for row in rows:
        needs = f"; needs {row['needs']}" if row.get("needs") else ""
        shown = f"`{row['command']}`{needs}" if "command" in row else ""
        file, _, name = row.get("test", "").partition("::")
        test = f"[{name}](../tests/{file})" if name else ""
        lines.append((row["id"], row["name"], row["state"], shown, test, row.get("missing", "")))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def run(folder: Path, *, everything: bool, only: str | None = None) -> int:
    """Run the commands in `folder`, each once, in the order of the rows; return how many failed."""
    failed, seen = 0, set()
    for row in read()["row"]:
        command = row.get("command")
        skipped = command is None or command in seen or (row.get("needs") and not everything)
        if skipped or (only and not row["id"].startswith(only)):
            continue
        words = shlex.split(command)
        if " ".join(words[1:]).startswith(OPENS) or words[1] == "-m":
            continue
        seen.add(command)
        start = time.perf_counter()
        program = [sys.executable, "-m", "galsearch.cli"] if words[0] == "galsearch" else [sys.executable]
        place = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*program, *words[1:]], cwd=folder, env=place, capture_output=True, text=True, check=False
        )
        failed += done.returncode != 0
        print(
            f"{'ok ' if done.returncode == 0 else 'BAD'} {time.perf_counter() - start:5.1f} s {row['id']}: {command}",
            flush=True,
        )
        if done.returncode:
            print(done.stderr.strip()[-400:])
    return failed


def main() -> int:
    """Run the commands; exit 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where demo/ is")
    parser.add_argument("--all", action="store_true", help="also commands that need more than the demo")
    parser.add_argument("--only", help="rows whose id begins so")
    asked = parser.parse_args()
    failed = run(asked.folder, everything=asked.all, only=asked.only)
    print(f"{failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
