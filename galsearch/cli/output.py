"""What commands print: data on stdout; words and progress bars on stderr."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import galsearch
from galsearch.cli.options import check_format

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_COLUMNS = (
    "object_id",
    "score",
    "ra",
    "dec",
    "z",
    "mag_r",
    "radius_px",
    "axis_ratio",
    "color_gr",
    "color_br",
)


def command_name() -> str:
    """Return what to type to run this command again: its path, where its name alone would not find it."""
    return "galsearch" if shutil.which("galsearch") else sys.argv[0]


def again(*arguments: str | Path) -> str:
    """Return what to type to run galsearch with these arguments, quoted as a shell needs it."""
    return shlex.join([command_name(), *map(str, arguments)])


def print_rows(table: pa.Table, output_format: str) -> None:
    check_format(output_format)
    if output_format == "table":
        print_table(table, columns=table.column_names)
    else:
        print_data(galsearch.format_table(table, output_format))


def put_out(
    table: pa.Table,
    output_format: str,
    output: Path | None = None,
    *,
    shown: Sequence[str] = (),
    meta: dict | None = None,
    quote_formulas: bool = False,
) -> None:
    """Write a table to the file `output`, with `meta`, or print it; `shown` are the columns for a person."""
    if output is not None:
        rows = galsearch.write_table(table, output, meta=meta, quote_formulas=quote_formulas)
        tell(f"wrote {output} ({rows} rows)")
        return
    names = [name for name in shown if name in table.column_names]
    print_rows(table.select(names) if names and output_format == "table" else table, output_format)


def meta_of(atlas: galsearch.Atlas, title: str) -> dict:
    """Return what a file of a table says: what it is, and which atlas and sources it comes from."""
    return {"title": title, "atlas": atlas.manifest.title, "sources": atlas.manifest.sources}


def print_table(table: pa.Table, columns: list[str] | None = None) -> None:
    """Print rows for a person: the well-known columns of hits, or the given ones; units stand in the head."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn

    names = columns or [
        name for name in SHOWN_COLUMNS if name in table.column_names and table[name].null_count < len(table)
    ]
    drawn = Drawn(box=box.SIMPLE_HEAD)
    for name in names:
        unit = (table.field(name).metadata or {}).get(b"unit", b"").decode()
        drawn.add_column(f"{text_of(name)}\n[{text_of(unit)}]" if unit else text_of(name), overflow="fold")
    for row in table.select(names).to_pylist():
        drawn.add_row(*(cell(row[name]) for name in names))
    wide = 0 if sys.stdout.isatty() else 200  # a pipe has no width: do not fold what grep will read
    Console(width=wide or None, markup=False, highlight=False).print(drawn)


def short(value: object, most: int = 60) -> str:
    """Return a stranger's text as `text_of` does, cut where it has more than `most` characters."""
    text = str(value)
    return text_of(text if len(text) <= most else f"{text[: most - 1]}…")


def cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:.6f}"
    if isinstance(value, list) and len(value) > 4:
        return f"[{len(value)} numbers]"
    return text_of(value)


def text_of(value: object) -> str:
    """Return a stranger's text, such as a title or the name of a column, as one line that no terminal obeys."""
    return galsearch.printable(value)


def print_data(text: str) -> None:
    """Print data on stdout as it is; on a terminal, which would obey what is in it, with its escapes shown."""
    text = text.rstrip("\n")
    print(galsearch.printable(text, lines=True) if sys.stdout.isatty() else text)


def tell(*lines: object) -> None:
    """Print lines of words on stderr; each stays one line, whatever text of an atlas is in it."""
    for line in lines:
        print(text_of(line), file=sys.stderr)


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar on stderr while a long call runs."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.{0 if task.speed >= 10 else 1}f}/s")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with kept_interrupts() as interrupted, Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[int, TaskID] = {}

        def report(done: int, total: int, what: str) -> None:
            what = text_of(what)
            if interrupted:
                raise KeyboardInterrupt
            if total not in tasks:  # steps of one job have one total, whatever they are called
                tasks[total] = bar.add_task(what, total=total)
            bar.update(tasks[total], completed=min(done, total), description=what)

        yield report


@contextmanager
def kept_interrupts() -> Iterator[list[int]]:
    """Note every Ctrl-C in a list: Python drops what is raised while an object is being deleted, Ctrl-C too."""
    came: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield came  # it is ignored, as under nohup, or comes to another thread
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)
