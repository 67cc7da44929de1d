"""The command that watches unattended: by a plan, to be stopped and gone on with at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import galsearch
from galsearch.cli import options
from galsearch.cli.output import progress_bar, tell
from galsearch.cli.program import app


@app.command()
def watch(
    plan: Annotated[Path, typer.Argument(help="The plan: a TOML file, see docs/watch.md.", metavar="PLAN")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be requested, of whom and for how long; change nothing.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report of what is there; request no picture.")
    ] = False,
    processes: options.Processes = None,
):
    """Take in pictures by a plan, unattended.

    They are measured, embedded, scored and identified, and reported; run it again to go on.

    It exits with 1 where less was done than the plan says: the disk is full, or a host or source did not answer.
    """
    if dry_run and report_only:
        raise typer.BadParameter("--dry-run changes nothing, --report-only writes a report; give one of them")
    if dry_run:
        forecast = galsearch.watch_forecast(plan)
        print("\n".join(forecast.lines()))
        if forecast.missing:
            raise typer.Exit(1)
        return
    if report_only:
        result = galsearch.watch_report(plan)
    else:
        with progress_bar() as progress:
            result = galsearch.watch(plan, processes=processes, progress=progress)
    print(result.html)
    tell(*result.lines())
    if result.unfinished:
        raise typer.Exit(1)
