"""The command that serves atlases over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import galsearch
from galsearch.cli.program import app

TOKEN = "GALSEARCH_TOKEN"  # environment variable, so that the token stands in no list of processes


@app.command()
def serve(
    paths: Annotated[
        list[Path], typer.Argument(help="Atlases: folders name.atlas or files name.duckdb.", metavar="ATLAS…")
    ],
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on; this machine alone unless said.")
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8080,
    public: Annotated[
        bool, typer.Option("--public", help="For strangers: on every network address, with limits and quotas.")
    ] = False,
    url: Annotated[
        str | None, typer.Option("--url", help="Address that clients know, where a proxy stands in front.")
    ] = None,
    origins: Annotated[
        list[str] | None,
        typer.Option(
            "--origins",
            help="Web page that may read answers, such as https://aladin.cds.unistra.fr, or '*'; may be repeated.",
        ),
    ] = None,
    proxies: Annotated[int, typer.Option("--proxies", help="How many proxies of one's own write X-Forwarded-For.")] = 0,
    jobs: Annotated[
        Path | None, typer.Option("--jobs", help="Folder that keeps jobs of TAP from one start to the next.")
    ] = None,
    verdicts: Annotated[
        Path | None, typer.Option("--verdicts", help=f"File of verdicts, for who knows the token in {TOKEN}.")
    ] = None,
    log_queries: Annotated[bool, typer.Option("--log-queries", help="Put what was asked into the access log.")] = False,
):
    """Serve atlases over HTTP.

    JSON, and what TOPCAT, Aladin and pyvo speak (cone search, TAP, SIA, SSA).
    """
    from importlib.util import find_spec

    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise galsearch.GalsearchError("the service needs Starlette and uvicorn: pip install 'galsearch[serve]'")
    galsearch.serve(
        paths,
        host=host,
        port=port,
        public=public,
        url=url,
        origins=origins or (),
        proxies=proxies,
        jobs=jobs,
        verdicts=verdicts,
        token=os.environ.get(TOKEN),
        log_queries=log_queries,
    )
