"""The Model Context Protocol over the tools: schemas, errors, resources, prompts; stdio and streamable HTTP."""

from __future__ import annotations

import base64
import hmac
import logging
import os
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import resources
from typing import Annotated, Any, Literal

import anyio
import pydantic
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError, UnexpectedToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolResult, ImageContent, TextContent, ToolAnnotations

from galsearch import schema
from galsearch.errors import GalsearchError
from galsearch.escaping import printable
from galsearch.quotas import Client, Quota, Turns, address_of
from galsearch.service.agents import HttpAddress
from galsearch.service.agents.bounds import MOST_HITS, MOST_ID, MOST_ROWS, NOTE, as_json, cut, marked
from galsearch.service.agents.tools import Answer, Tools

PATH = "/mcp"
QUOTA = Quota(per_minute=600, address_per_minute=600, lines={"search": 4, "sql": 4})
MOST_BODY_BYTES = 1 << 20
MOST_ERROR = 1_500  # characters
MOST_SESSIONS, IDLE_SECONDS = 100, 600.0
JSON, MARKDOWN = "application/json", "text/markdown"
logger = logging.getLogger("galsearch.mcp")

ObjectId = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=2 * MOST_ID)]
Ids = Annotated[list[ObjectId], pydantic.Field(min_length=1, max_length=MOST_HITS, description="object_ids")]
Where = Annotated[
    str | None, pydantic.Field(description='SQL condition on the columns, such as "z < 0.05 AND mag_r < 17"')
]
Near = Annotated[
    str | None, pydantic.Field(max_length=100, description="position, ICRS: '202.47 47.20' or '13h29m52s +47d11m43s'")
]
Radius = Annotated[float | None, pydantic.Field(gt=0, description="radius of the cone around near, arcseconds")]
K = Annotated[int, pydantic.Field(ge=1, le=MOST_HITS, description="how many")]
By = Annotated[
    str | None, pydantic.Field(max_length=100, description="embedding to compare in, as describe lists; else the main")
]
Columns = Annotated[
    list[Annotated[str, pydantic.StringConstraints(max_length=200)]],
    pydantic.Field(max_length=20, description="more columns to show of each object"),
]
Sheet = Annotated[bool, pydantic.Field(description="also give one picture of all hits, numbered")]
AtlasName = Annotated[
    str | None, pydantic.Field(max_length=300, description="which atlas, where describe lists several")
]


class Position(pydantic.BaseModel):
    """A position to cross-match, in degrees ICRS, and what it is called."""

    model_config = pydantic.ConfigDict(extra="forbid")
    ra: float = pydantic.Field(ge=0, le=360)
    dec: float = pydantic.Field(ge=-90, le=90)
    name: str | None = pydantic.Field(default=None, max_length=200)


class AtlasServer(MCPServer):
    """A server whose every failure is one sentence for a model, and never a traceback."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool; ToolError in words of ours for arguments that do not fit, and for whatever goes wrong."""
        tool = next((one for one in self._tool_manager.list_tools() if one.name == name), None)
        if tool is None:
            known = ", ".join(one.name for one in self._tool_manager.list_tools())
            raise ToolError(f"there is no tool {name!r:.80}; there are {known}")
        known_arguments = tool.parameters.get("properties", {})
        unknown = [one for one in arguments if one not in known_arguments]
        if unknown:
            raise ToolError(f"{name} has no argument {unknown[0]!r:.80}; it has {', '.join(known_arguments) or 'none'}")
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError as error:
            cause = type(error.__cause__).__name__
            logger.error("%s failed", name, exc_info=error.__cause__)
            raise ToolError(
                f"{name} failed inside galsearch ({cause}); that is a mistake of ours: ask another way, and tell the "
                "person who started the server"
            ) from error.__cause__
        except ToolError as error:
            raise ToolError(_told(name, error)) from error.__cause__


def _told(name: str, error: ToolError) -> str:
    """Return an error in one sentence: which argument, the rule; what is quoted is data."""
    if isinstance(error.__cause__, pydantic.ValidationError):
        wrong = error.__cause__.errors(include_url=False, include_context=False, include_input=False)[:3]
        parts = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong]
        return f"{name}: {printable('; '.join(parts))[:MOST_ERROR]}; see the schema of the tool"
    return printable(str(error).removeprefix(f"Error executing tool {name}: "))[:MOST_ERROR]


def make_server(tools: Tools) -> AtlasServer:
    """Return a server of the tools, which stay open as long as it runs."""
    server = AtlasServer(
        "galsearch",
        title="galsearch",
        version=schema.software().rpartition(" ")[2],
        instructions=_text("agent-guide-1.md"),
        log_level="WARNING",
        subscriptions=False,
    )
    _Face(tools).register(server)
    return server


class _Face:
    """The tools with their schemas, as methods whose signatures and docstrings the protocol shows."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._turns = Turns(QUOTA)

    def register(self, server: AtlasServer) -> None:
        reading: list[Callable[..., Any]] = [
            self.describe,
            self.search,
            self.show,
            self.contact_sheet,
            self.sql,
            self.neighbors,
        ]
        reading += [self.classify, self.crossmatch]
        if any(map(self._tools.has_anomalies, self._tools.names)):
            reading.append(self.anomalies)
        for tool in reading:
            server.add_tool(tool, annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
        if self._tools.verdicts is not None:
            hints = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
            server.add_tool(self.mark, annotations=hints)
        self._add_resources(server)
        server.prompt(description="Find objects in words, look at each, and mark what holds")(find_and_verify)

    def _add_resources(self, server: AtlasServer) -> None:
        server.resource("galsearch://columns", mime_type=JSON)(self.columns)
        server.resource("galsearch://units", mime_type=JSON)(self.units)
        server.resource("galsearch://macros", mime_type=MARKDOWN)(macros)
        server.resource("galsearch://guide", mime_type=MARKDOWN)(guide)

    def columns(self) -> str:
        """Every column that where may use: type, unit, UCD, meaning."""
        return self._resource(lambda: {"columns": self._tools.columns()})

    def units(self) -> str:
        """The units of the columns that have one."""
        return self._resource(lambda: {one["column"]: one["unit"] for one in self._tools.columns() if "unit" in one})

    def _resource(self, read: Callable[[], dict[str, Any]]) -> str:
        try:
            return as_json(marked(read()))
        except GalsearchError as error:
            raise ResourceError(printable(str(error))[:MOST_ERROR]) from None

    def _ask(self, ctx: Context, ask: Callable[[], Answer], *, line: str = "search") -> CallToolResult:
        """Return an answer as content: JSON, marked as data, then the pictures. Raises ToolError for our errors."""
        try:
            with self._turns.turn(_client(ctx), line=line):
                answer = ask()
        except GalsearchError as error:
            raise ToolError(f"{error} [{type(error).__name__}]") from None
        told = marked(answer.data)
        pictures = [
            ImageContent(type="image", data=base64.b64encode(one).decode(), mime_type="image/png")
            for one in answer.pictures
        ]
        return CallToolResult(
            content=[TextContent(type="text", text=as_json(told)), *pictures], structured_content=told
        )

    def describe(self, ctx: Context) -> CallToolResult:
        """What this catalog of galaxies holds: how many, which columns with units, embeddings, tables, bounds."""
        return self._ask(ctx, self._tools.describe)

    def search(
        self,
        ctx: Context,
        *,
        words: Annotated[str | None, pydantic.Field(max_length=2_000, description="what the object looks like")] = None,
        like: Annotated[list[ObjectId], pydantic.Field(max_length=20, description="object_ids to be like")] = [],  # noqa: B006
        minus: Annotated[
            list[str], pydantic.Field(max_length=20, description="words to be unlike; '0.5:bar' counts half")
        ] = [],  # noqa: B006
        where: Where = None,
        near: Near = None,
        radius_arcsec: Radius = None,
        k: K = 12,
        by: By = None,
        distinct: Annotated[bool, pydantic.Field(description="leave out duplicates of one object")] = False,
        columns: Columns = [],  # noqa: B006
        sheet: Sheet = False,
    ) -> CallToolResult:
        """Find galaxies in words, by example, by SQL condition and by position, all at once; the best k, ranked.

        Words that are an object's id or name give that object. Without words and like, lists what passes where.
        """
        options: dict[str, Any] = {"where": where, "near": near, "radius_arcsec": radius_arcsec, "k": k, "by": by}
        options |= {"distinct": distinct, "columns": columns, "sheet": sheet, "like": like, "minus": minus}
        return self._ask(ctx, lambda: self._tools.search(words, **options))

    def show(
        self,
        ctx: Context,
        *,
        object_id: ObjectId,
        picture: Annotated[bool, pydantic.Field(description="give the picture")] = True,
        spectrum: Annotated[bool, pydantic.Field(description="give a plot of the spectrum, if any")] = True,
    ) -> CallToolResult:
        """Everything about one object: its columns with units, its picture whole and enlarged, its spectrum."""
        return self._ask(ctx, lambda: self._tools.show(object_id, picture=picture, spectrum=spectrum))

    def contact_sheet(self, ctx: Context, *, object_ids: Ids) -> CallToolResult:
        """One picture of several objects with their ids, numbered in the order of object_ids."""
        return self._ask(ctx, lambda: self._tools.contact_sheet(object_ids))

    def sql(
        self,
        ctx: Context,
        *,
        statement: Annotated[str, pydantic.Field(min_length=1, description="one SELECT; see galsearch://macros")],
        atlas: AtlasName = None,
    ) -> CallToolResult:
        """Run one SELECT over the catalog and its macros, read-only; at most 200 rows, 10 seconds."""
        return self._ask(ctx, lambda: self._tools.sql(statement, atlas=atlas), line="sql")

    def neighbors(
        self,
        ctx: Context,
        *,
        object_id: ObjectId,
        by: By = None,
        where: Where = None,
        k: K = 12,
        columns: Columns = [],  # noqa: B006
        sheet: Sheet = False,
    ) -> CallToolResult:
        """The k objects most like one object, which is left out."""
        options: dict[str, Any] = {"by": by, "where": where, "k": k, "columns": columns, "sheet": sheet}
        return self._ask(ctx, lambda: self._tools.neighbors(object_id, **options))

    def classify(
        self,
        ctx: Context,
        *,
        object_ids: Ids,
        base: Annotated[str, pydantic.Field(max_length=300, description="knowledge base, or column of known values")],
        atlas: AtlasName = None,
        k: Annotated[int, pydantic.Field(ge=1, le=100, description="how many neighbors vote")] = 3,
        prevalence: Annotated[
            float | None, pydantic.Field(gt=0, lt=1, description="share of the target class in your sample")
        ] = None,
    ) -> CallToolResult:
        """What the nearest objects of known class vote for: label, probability, who voted; no label where unsure."""
        options: dict[str, Any] = {"atlas": atlas, "k": k, "prevalence": prevalence}
        return self._ask(ctx, lambda: self._tools.classify(object_ids, base, **options), line="sql")

    def crossmatch(
        self,
        ctx: Context,
        *,
        positions: Annotated[list[Position], pydantic.Field(min_length=1, max_length=MOST_ROWS)],
        radius_arcsec: Annotated[float, pydantic.Field(gt=0, le=3600, description="inclusive, arcseconds")] = 1.0,
        mode: Annotated[Literal["best", "all"], pydantic.Field(description="the closest, or every object")] = "best",
        where: Where = None,
    ) -> CallToolResult:
        """Which objects of this catalog lie within a radius of positions of yours, up to 200."""
        rows = [one.model_dump() for one in positions]
        options: dict[str, Any] = {"radius_arcsec": radius_arcsec, "mode": mode, "where": where}
        return self._ask(ctx, lambda: self._tools.crossmatch(rows, **options), line="sql")

    def anomalies(
        self,
        ctx: Context,
        *,
        atlas: AtlasName = None,
        run: Annotated[str | None, pydantic.Field(max_length=100, description="which kept list; the last")] = None,
        fdr: Annotated[float, pydantic.Field(gt=0, lt=1, description="false discovery rate of candidates")] = 0.1,
        k: K = 12,
        sheet: Sheet = False,
    ) -> CallToolResult:
        """The oddest objects of a list that this catalog keeps, with p-values, q-values and what is odd of them."""
        options: dict[str, Any] = {"atlas": atlas, "run": run, "fdr": fdr, "k": k, "sheet": sheet}
        return self._ask(ctx, lambda: self._tools.anomalies(**options))

    def mark(
        self,
        ctx: Context,
        *,
        verdict: Annotated[
            Literal["yes", "no", "unsure", "label", "undo"],
            pydantic.Field(description="label needs label; undo takes back your last verdict of this kind"),
        ],
        kind: Annotated[str, pydantic.Field(min_length=1, max_length=200, description="what was judged, as 'merger'")],
        object_ids: Annotated[list[ObjectId], pydantic.Field(max_length=MOST_HITS, description="what was judged")] = [],  # noqa: B006
        label: Annotated[str | None, pydantic.Field(max_length=200)] = None,
        note: Annotated[str | None, pydantic.Field(max_length=500, description="what decided it")] = None,
    ) -> CallToolResult:
        """Keep your verdict on objects you have looked at, beside those of people and under your name; or undo it."""
        options: dict[str, Any] = {"kind": kind, "label": label, "note": note, "by": _agent(ctx)}
        return self._ask(ctx, lambda: self._tools.mark(object_ids, verdict, **options))


def macros() -> str:
    """What SQL may call, with examples."""
    return _text("agent-sql-1.md")


def guide() -> str:
    """How to go about it."""
    return _text("agent-guide-1.md")


def find_and_verify(what: str, where: str = "", kind: str = "") -> str:
    """Return the prompt; `what` to find, `where` a SQL condition to keep to, `kind` what marks are called."""
    condition = f"Keep to objects that pass this condition, in every search: {where}\n" if where.strip() else ""
    text = _text("agent-verify-1.md")
    for name, value in (("{what}", what), ("{where}", condition), ("{kind}", kind or what[:100])):
        text = text.replace(name, printable(value[:2_000], lines=True))
    return text


def _agent(ctx: Context) -> str:
    """Return under which name the verdicts of a client are kept."""
    params = getattr(ctx.session, "client_params", None)
    named = getattr(getattr(params, "client_info", None), "name", "") or ""
    return f"agent {cut(named, 100)}".strip()


def _client(ctx: Context) -> Client:
    request = getattr(ctx.request_context, "request", None)
    remote = None if request is None or request.client is None else request.client.host
    session = "" if request is None else request.headers.get("mcp-session-id", "") or str(remote)
    return Client(session[:200] or "stdio", address_of(remote))


def _text(name: str) -> str:
    return resources.files("galsearch.prompts").joinpath(name).read_text()


# ---- transports


def run_stdio(tools: Tools) -> None:
    """Answer one client by stdin and stdout until it closes them, or Ctrl-C."""
    before = signal.signal(signal.SIGINT, _stop)
    try:
        anyio.run(make_server(tools).run_stdio_async)
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(*_: object) -> None:
    """End at once: a thread waits in a read of stdin that nothing interrupts. Workers end with their pipes."""
    os.write(2, b"galsearch: stopped\n")
    os._exit(130)


def run_http(tools: Tools, address: HttpAddress, hosts: tuple[str, ...]) -> None:
    """Answer clients by streamable HTTP until the process is told to stop."""
    import uvicorn

    config = uvicorn.Config(
        http_app(tools, address, hosts),
        host=address.host,
        port=address.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        limit_concurrency=200,
        server_header=False,
    )
    try:
        uvicorn.Server(config).run()
    except SystemExit:  # it has said why
        raise GalsearchError(
            f"cannot listen on port {address.port} of {address.host}; end what listens there, or give another --port"
        ) from None


def http_app(tools: Tools, address: HttpAddress, hosts: tuple[str, ...]) -> Any:
    """Return the ASGI application: only requests that call it by a known name, from no foreign page."""
    names = [f"{name}{port}" for name in hosts for port in ("", ":*")]
    origins = [f"{scheme}://{name}" for name in names for scheme in ("http", "https")]
    app = make_server(tools).streamable_http_app(
        streamable_http_path=PATH,
        host=address.host,
        max_request_body_size=MOST_BODY_BYTES,
        max_sessions=MOST_SESSIONS,
        session_idle_timeout=IDLE_SECONDS,
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=True, allowed_hosts=names, allowed_origins=origins
        ),
    )
    return app if address.token is None else _guarded(app, address.token)


_Scope = MutableMapping[str, Any]


def _guarded(app: Any, token: str) -> Any:
    """Return the application behind a token, which requests carry as `Authorization: Bearer TOKEN`."""
    expected = f"Bearer {token}".encode()

    async def checked(scope: _Scope, receive: Any, send: Callable[[_Scope], Awaitable[None]]) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] != "http" or hmac.compare_digest(given, expected):
            await app(scope, receive, send)
            return
        told = b"this service needs its token: Authorization: Bearer TOKEN\n"
        headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": told})

    return checked


__all__ = ["NOTE", "AtlasServer", "http_app", "make_server", "run_http", "run_stdio"]
