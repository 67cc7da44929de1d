"""Commands for agents: the Model Context Protocol."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import galsearch
from galsearch.cli.output import tell
from galsearch.cli.program import app


@app.command("mcp")
def serve_mcp(
    paths: Annotated[
        list[Path],
        typer.Argument(help="An atlas, name.atlas or name.duckdb, or several asked as one.", metavar="ATLAS..."),
    ],
    http: Annotated[
        bool, typer.Option("--http", help="Listen for clients by streamable HTTP, not by stdin and stdout.")
    ] = False,
    host: Annotated[
        str, typer.Option("--host", help="With --http: the address to listen on.")
    ] = galsearch.HttpAddress.host,
    port: Annotated[
        int, typer.Option("--port", help="With --http: the port to listen on.", min=1, max=65535)
    ] = galsearch.HttpAddress.port,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="With --http: a name under which clients reach it; may be repeated."),
    ] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option("--verdicts", help="File that agents' marks go to; beside the atlas, name.verdicts, unless said."),
    ] = None,
):
    """Let an agent search, look and ask SQL (MCP).

    By the Model Context Protocol; it writes nothing but marks.

    With the environment variable GALSEARCH_MCP_TOKEN, clients by HTTP must send it as a bearer token.
    """
    address = None
    if http:
        token = os.environ.get("GALSEARCH_MCP_TOKEN") or None
        address = galsearch.HttpAddress(host, port, tuple(allowed_host or ()), token)
        tell(f"agents find it at http://{host}:{port}/mcp; Ctrl-C ends it")
    galsearch.serve_mcp(paths, http=address, verdicts=verdicts)
