"""A service that agents speak: the Model Context Protocol (MCP) over an atlas, by stdio or HTTP.

`tools` is what may be asked, `bounds` how much comes back and that it is data, `server` the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from galsearch.errors import GalsearchError, QueryError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN = "GALSEARCH_MCP_TOKEN"


@dataclass(frozen=True)
class HttpAddress:
    """Where a service listens: `names` are those under which clients reach it, beside `host`; `token` they must send.

    On another host than this machine's own, a name is needed where `host` is none ("0.0.0.0"), so that a page of
    somebody else's cannot ask in the name of its visitors.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    names: tuple[str, ...] = ()
    token: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it: a name is that of a proxy in front of it."""
        return self.host in LOOPBACK and not self.names

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that a request may call it by. Raises QueryError where there are none."""
        if self.host in LOOPBACK:
            return (*LOOPBACK[:2], "[::1]", *self.names)
        if self.host in ("0.0.0.0", "::", "") and not self.names:
            raise QueryError(
                f"host is {self.host!r}, every address of this machine, and no name says how clients reach it; give "
                "--allowed-host NAME, once for each name or address"
            )
        return tuple(dict.fromkeys((self.host, *self.names)))


def serve_mcp(
    paths: str | Path | Sequence[str | Path], *, http: HttpAddress | None = None, verdicts: str | Path | None = None
) -> None:
    """Answer agents by MCP until the other side ends it: by stdin and stdout, or at an address by streamable HTTP.

    `paths` are an atlas or several, asked as one. Agents may search, look at pictures and spectra, and ask SQL, as
    visitors with limits (see docs/agents.md). Nothing is written but their verdicts, to the file `verdicts`: beside
    the first atlas unless given. Where others than this machine reach the service, also by a proxy, marks are taken
    only in a file that was named, from clients that send `token`. Raises GalsearchError where the package `mcp` is
    missing or the port is taken, and as `galsearch.open` does.
    """
    from galsearch.service.agents import tools

    several = [Path(one) for one in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if not several:
        raise QueryError("no atlas was named; give the path of one, or several")
    allowed = () if http is None else http.hosts
    local = http is None or http.is_local
    if not local and verdicts is not None and not (http and http.token):
        raise QueryError(
            f"verdicts of whoever reaches {http.host if http else ''} would be taken; set {TOKEN} to a secret that "
            "clients send, or leave out --verdicts"
        )
    file = Path(verdicts) if verdicts is not None else tools.verdicts_beside(several[0]) if local else None
    _check_package()
    from galsearch.service.agents import server

    opened = tools.Tools(several, verdicts=file)
    try:
        if http is None:
            server.run_stdio(opened)
        else:
            server.run_http(opened, http, allowed)
    finally:
        opened.close()


def _check_package() -> None:
    try:
        import mcp  # noqa: F401
    except ImportError:
        raise GalsearchError("agents are answered with the package mcp: pip install 'galsearch[mcp]'") from None
