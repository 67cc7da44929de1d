"""Write the session in docs/agents.md anew: a client of the SDK asks `galsearch mcp` by stdio, as an agent would.

`python docs/agent_session.py demo/xdf.duckdb` rewrites what stands between the two marks; `--check` only says whether
the document has what the service answers now, and exits 1 where not. Long answers are cut.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import mcp

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "agents.md"
BEGIN, END = "<!-- session -->", "<!-- end: session -->"
MOST = 700  # characters of an answer that are shown


async def session(client: mcp.Client) -> AsyncIterator[tuple[str, dict[str, Any], Any]]:
    """Yield each call with its arguments and its result; ids come from the answers before."""

    async def call(name: str, **arguments: Any) -> tuple[str, dict[str, Any], Any]:
        return name, arguments, await client.call_tool(name, arguments)

    found = await call("search", words="spiral galaxy", where="axis_ratio > 0.5", k=4, sheet=True)
    yield found
    ids = [hit["object_id"] for hit in found[2].structured_content["data"]["hits"]]
    yield await call("show", object_id=ids[0])
    alike = await call("neighbors", object_id=ids[0], k=2)
    yield alike
    yield await call(
        "contact_sheet", object_ids=[*ids[:2], alike[2].structured_content["data"]["hits"][0]["object_id"]]
    )
    counted = "SELECT count(*) AS n, round(avg(axis_ratio), 2) AS mean FROM galaxies WHERE axis_ratio > 0.5"
    yield await call("sql", statement=counted)
    yield await call("sql", statement="SELECT * FROM read_csv('/etc/passwd')")
    yield await call("show", object_id="xdf-9999")
    yield await call("mark", object_ids=ids[:2], verdict="yes", kind="spiral", note="written by docs/agent_session.py")
    yield await call("mark", verdict="undo", kind="spiral")


def lines_of(name: str, arguments: dict[str, Any], result: Any) -> list[str]:
    """Return a call and its answer as lines of a document."""
    told = (
        result.content[0].text if result.is_error else json.dumps(result.structured_content["data"], ensure_ascii=False)
    )
    told = told if len(told) <= MOST else f"{told[:MOST]} …"
    pictures = [_size(one.data) for one in result.content[1:]]
    shown = [f"<- [picture, {width} x {height}]" for width, height in pictures]
    return [f"-> {name} {json.dumps(arguments)}", f"<- {'error: ' if result.is_error else ''}{told}", *shown, ""]


def _size(picture: str) -> tuple[int, int]:
    png = base64.b64decode(picture)
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


async def transcript(atlas: Path) -> str:
    """Return the session with a service on an atlas."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "galsearch.cli", "mcp", str(atlas), "--verdicts", str(Path(folder) / "a.verdicts")]
        stated = mcp.StdioServerParameters(
            command=sys.executable, args=command, env={"PYTHONPATH": str(ROOT)}, cwd=str(ROOT)
        )
        async with mcp.Client(mcp.stdio_client(stated)) as client:
            lines = [line async for one in session(client) for line in lines_of(*one)]
    return "\n".join(["```text", *lines[:-1], "```"])


def main() -> int:
    """Write or check the document; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 where the document is stale")
    options = parser.parse_args()
    made = anyio.run(transcript, options.atlas.absolute())
    text = DOCUMENT.read_text()
    new = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{made}\n\n{END}", text, flags=re.DOTALL)
    if options.check and new != text:
        again = shlex.join(["python", "docs/agent_session.py", str(options.atlas)])
        print(f"{DOCUMENT.name} is stale: run {again}", file=sys.stderr)
        return 1
    DOCUMENT.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
