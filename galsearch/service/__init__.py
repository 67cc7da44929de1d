"""The HTTP service: JSON and the protocols of the Virtual Observatory over open atlases, read-only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from galsearch import __version__
from galsearch.errors import GalsearchError

STOP_SECONDS = 10  # for requests under way, when the service is stopped
LOCAL = ("localhost", "127.0.0.1", "[::1]")


def serve(
    paths: Sequence[str | Path],
    *,
    host: str | None = None,
    port: int = 8080,
    public: bool = False,
    url: str | None = None,
    origins: Sequence[str] = (),
    proxies: int = 0,
    jobs: Path | None = None,
    verdicts: Path | None = None,
    token: str | None = None,
    log_queries: bool = False,
) -> None:
    """Serve atlases over HTTP until the process is stopped: JSON, and the protocols of the Virtual Observatory.

    Several atlases are served under their names. Unless `public`, it listens on this machine alone and only names of
    this machine reach it; `public` means every network address and the limits for strangers. `url` is the address that
    clients know, where a proxy stands in front, `proxies` how many of them write X-Forwarded-For; `origins` are the web
    pages that may read answers ("*": all); `jobs` is a folder that keeps queries of TAP that run aside, which else end
    with the service; `verdicts` a file of verdicts for who knows the `token`. Raises what opening an atlas raises, and
    GalsearchError where it cannot listen there.
    """
    import uvicorn

    from galsearch.service.app import service_app
    from galsearch.service.settings import Settings

    host = host or ("0.0.0.0" if public else "127.0.0.1")
    hosts = ("*",) if public or host not in LOCAL else LOCAL
    settings = Settings(public, url, proxies, tuple(origins), hosts, jobs, verdicts, token, log_queries)
    with _told_where_it_fails(host, port):
        app = service_app(paths, settings)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            headers=[("Server", f"galsearch/{__version__}")],
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        server = uvicorn.Server(config)
        for one in app.state.services:
            where = f"http://{host}:{port}{one.prefix}"
            print(  # noqa: T201
                f"galsearch: {one.atlas.manifest.title} ({len(one.atlas):,} objects) at {where}/docs", file=sys.stderr
            )
        server.run()


@contextlib.contextmanager
def _told_where_it_fails(host: str, port: int) -> Iterator[None]:
    """Turn the exit of the server where its port is taken into an error with the remedy."""
    try:
        yield
    except SystemExit as stop:
        if stop.code:
            raise GalsearchError(f"cannot listen on {host}:{port}; choose another --port or --host") from None
        raise
