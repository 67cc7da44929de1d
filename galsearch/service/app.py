"""The application: its addresses, who may ask how much, errors, logs, and how it starts and stops."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import galsearch
from galsearch.atlas import Atlas
from galsearch.atlas import open as open_atlas
from galsearch.discovery.verdicts import Verdicts
from galsearch.errors import GalsearchError, QueryError
from galsearch.escaping import printable
from galsearch.quotas import Client, Turns
from galsearch.service import openapi
from galsearch.service.addresses import ADDRESSES, Address
from galsearch.service.answers import error_json, status_of
from galsearch.service.params import Params, not_too_much, read_params
from galsearch.service.settings import Settings
from galsearch.service.vo import tap, tap_schema, votable
from galsearch.service.vo.uws import Jobs

THREADS = 100  # that wait for their turn or work
WARM_SECONDS = 10.0  # for what is loaded at the start to be there, when the service ends before


class Service:
    """One atlas that is served, under a prefix of the address."""

    def __init__(self, path: Path, settings: Settings, turns: Turns, jobs: Path, prefix: str = "") -> None:
        self.settings, self.prefix, self.started = settings, prefix, datetime.now(UTC)
        self.atlas: Atlas = open_atlas(path, visitors=settings.limits)
        self._turns = turns
        self._verdicts: Verdicts | None = None
        self._lock = threading.Lock()
        self._warming: threading.Thread | None = None
        self.jobs = Jobs(jobs, functools.partial(tap.work, self))

    @functools.cached_property
    def published(self) -> Any:
        """The columns of the tables that queries may name."""
        return self.atlas.tables()

    @functools.cached_property
    def tap_schema(self) -> dict[str, Any]:
        """The tables of TAP_SCHEMA."""
        return tap_schema.tables(self.published)

    @functools.cached_property
    def _tables(self) -> set[str]:
        listed = self.atlas.sql("SELECT table_name FROM duckdb_tables() WHERE NOT internal")
        return set(listed["table_name"].to_pylist())

    def holder(self, table: str) -> str | None:
        """Return the table that lists the objects which have a picture or a spectrum; None where none has."""
        return next((name for name in (table, f"rows_{table}") if name in self._tables), None)

    def warm(self) -> None:
        """Load in the background what the first requests would wait for: the encoder, the parser, the writers."""

        def load() -> None:
            with contextlib.suppress(GalsearchError):
                self.atlas.prepare()
            with contextlib.suppress(GalsearchError):
                table, _ = self.atlas.adql("SELECT TOP 1 object_id FROM galaxies", tables=self.tap_schema)
                votable.document(table, self.about("start"))

        self._warming = threading.Thread(target=load, daemon=True, name="warm the service")
        self._warming.start()

    def close(self) -> None:
        """End jobs and processes, and release the files."""
        if self._warming is not None:  # an encoder that is being loaded when Python ends aborts the process
            self._warming.join(WARM_SECONDS)
        self.jobs.close()
        self.atlas.close()

    def base(self, params: Params) -> str:
        """Return the address of the service, without a slash at its end."""
        start = self.settings.url or str(params.request.base_url)
        return start.rstrip("/") + self.prefix

    def link(self, params: Params, kind: str, object_id: str) -> str:
        """Return the address of something of an object."""
        return f"{self.base(params)}/{kind}/{quote(object_id, safe='')}"

    def turn(self, params: Params, *, line: str = "search") -> contextlib.AbstractContextManager[None]:
        """Wait for a turn of who asks."""
        return self.turn_of(params.client(self.settings.proxies), line=line)

    def turn_of(self, client: Client, *, line: str) -> contextlib.AbstractContextManager[None]:
        """Wait for a turn of a client."""
        return self._turns.turn(client, line=line)

    def verdicts(self) -> Verdicts:
        """Return the verdicts that are kept."""
        with self._lock:
            if self._verdicts is None:
                self._verdicts = Verdicts(self.settings.verdicts, atlas=self.atlas)
            return self._verdicts

    def about(self, what: str) -> dict[str, Any]:
        """Return what goes into a table about where it comes from."""
        manifest = self.atlas.manifest
        return {
            "title": f"galsearch: {what}",
            "atlas": manifest.title,
            "software": f"galsearch {galsearch.__version__}",
            "sources": manifest.sources,
        }


def service_app(paths: Sequence[str | Path], settings: Settings | None = None) -> Starlette:
    """Return the ASGI application that serves atlases; of several, each is under its name.

    Raises what opening them raises, and QueryError for two of one name.
    """
    settings = settings or Settings()
    files = [Path(path) for path in paths]
    names = [re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.partition(".")[0]) or "atlas" for path in files]
    if len(set(names)) < len(names) or not files:
        raise QueryError(
            f"the atlases are called {', '.join(names) or 'nothing'}; give one or several of different names"
        )
    turns = Turns(settings.quota)
    kept = contextlib.ExitStack()
    folder = settings.jobs or Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="galsearch-jobs-")))
    services: list[Service] = []
    try:
        for name, path in zip(names, files, strict=True):
            services.append(Service(path, settings, turns, folder / name, "" if len(files) == 1 else f"/{name}"))
            kept.callback(services[-1].close)
    except BaseException:
        kept.close()
        raise

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        for one in services:
            one.warm()
        with kept:
            yield

    routes: list[Any] = [route for one in services for route in _routes(one)]
    if len(services) > 1:
        routes = [Mount(one.prefix, routes=_routes(one), name=one.prefix) for one in services]
        routes.append(Route("/", functools.partial(_index, services), name="index"))
    app = Starlette(routes=routes, middleware=_middleware(settings), lifespan=lifespan, exception_handlers=_HANDLERS)
    app.state.upload_bytes = settings.upload_bytes
    app.state.services = services
    return app


def _routes(service: Service) -> list[Route]:
    routes = [
        Route(one.path, _endpoint(service, one), methods=list(one.methods), name=f"{service.prefix}{one.path}")
        for one in ADDRESSES
    ]
    pages = (("/", openapi.page), ("/docs", openapi.page), ("/openapi.json", openapi.document))
    return routes + [
        Route(path, _endpoint(service, Address(path, ("GET",), handler, "")), name=f"{service.prefix}{path}")
        for path, handler in pages
    ]


def _endpoint(service: Service, address: Address) -> Callable[[Request], Awaitable[Response]]:
    """Return the function that answers at an address: what goes wrong is told in the words of its protocol."""

    async def run(request: Request) -> Response:
        try:
            params = await read_params(request)
            if address.is_quick:
                return address.handler(service, params)
            return await run_in_threadpool(address.handler, service, params)
        except GalsearchError as error:
            return _error(address, error)
        except (HTTPException, ClientDisconnect):
            raise
        except Exception as error:  # noqa: BLE001  the edge: what a stranger is told names no file of ours
            print(f"galsearch: {address.path} failed: {printable(repr(error))[:500]}", file=sys.stderr)  # noqa: T201
            return _error(address, GalsearchError("the service failed at this; please report it"))

    run.address = service.prefix + address.path  # type: ignore[attr-defined]  # for the log
    return run


def _error(address: Address, error: GalsearchError) -> Response:
    if address.errors == "votable":
        return tap.error_response(error)
    if address.errors == "cone":
        return Response(votable.cone_error(str(error)), media_type=votable.MEDIA)
    if address.errors == "text":
        return Response(str(error), status_of(error), media_type="text/plain")
    return error_json(status_of(error), str(error), type(error).__name__)


async def _refusal(request: Request, error: Exception) -> Response:
    """Return what Starlette refuses, such as an address that there is not, as JSON."""
    assert isinstance(error, HTTPException)
    remedy = "; the addresses are listed at /docs" if error.status_code == 404 else ""
    return error_json(error.status_code, f"{error.detail}{remedy}", "HTTPException")


_HANDLERS: Any = {HTTPException: _refusal}


def _index(services: Sequence[Service], request: Request) -> Response:
    """Name the atlases that are served."""
    from galsearch.service.answers import as_json, respond

    each = [{"title": one.atlas.manifest.title, "path": one.prefix, "objects": len(one.atlas)} for one in services]
    return respond(request, as_json({"atlases": each}), "application/json")


# ---- what every request goes through


def _middleware(settings: Settings) -> list[Middleware]:
    layers = [Middleware(_Log, with_queries=settings.log_queries), Middleware(_Safe)]
    layers.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts), www_redirect=False))
    if settings.origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Authorization", "Content-Type"],
                expose_headers=["ETag", "Location"],
            )
        )
    layers.append(Middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5))
    return [*layers, Middleware(_Bounded, most=settings.upload_bytes)]


class _Log:
    """A line on stderr for each request: method, path, status, milliseconds; what was asked only where wanted."""

    def __init__(self, app: ASGIApp, *, with_queries: bool) -> None:
        self._app, self._with_queries = app, with_queries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            path = getattr(scope.get("endpoint"), "address", "-")  # as it is listed, without names of objects and jobs
            if self._with_queries:
                path = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
            spent = 1000 * (time.perf_counter() - start)
            print(f"{scope['method']} {printable(path)[:2000]} {status} {spent:.0f} ms", file=sys.stderr)  # noqa: T201


class _Safe:
    """Headers that keep a browser from taking an answer for a page that may do anything."""

    HEADERS = (
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (b"referrer-policy", b"no-referrer"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.HEADERS]
            await send(message)

        await self._app(scope, receive, add if scope["type"] == "http" else send)


class _Bounded:
    """Refuse bodies that are longer than what is taken, while they are read."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            not_too_much(received, self._most)
            return message

        await self._app(scope, count if scope["type"] == "http" else receive, send)
