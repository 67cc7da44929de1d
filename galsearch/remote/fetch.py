"""One file from an address that a stranger names: a size, a deadline, no redirects, and no way into a local network."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import urlsplit

from galsearch import schema
from galsearch.errors import RemoteError

PIECE = 1 << 16


def fetch(url: str, *, most_bytes: int, seconds: float, local: bool = False) -> bytes:
    """Return what an http or https address holds. Unless `local`, only addresses of the whole internet are asked.

    The name is looked up once, and what was looked up is what is connected to. Raises RemoteError for everything else
    than an answer 200 of at most `most_bytes` within `seconds`.
    """
    end = time.monotonic() + seconds
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or not port:
        raise RemoteError(f"{url!r:.100} is no address that is fetched; give http://… or https://… without a login")
    connection = _connected(parts.hostname, port, secure=parts.scheme == "https", seconds=seconds, local=local)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", path, headers={"User-Agent": schema.software().replace(" ", "/"), "Accept": "*/*"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RemoteError(f"{parts.hostname} answers {answer.status} for {url!r:.100}; redirects are not followed")
        return _read(answer, connection, most_bytes, end)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RemoteError(f"{url!r:.100} cannot be fetched ({type(error).__name__}); send the table along") from None
    finally:
        connection.close()


def _read(answer: http.client.HTTPResponse, connection: http.client.HTTPConnection, most: int, end: float) -> bytes:
    content = bytearray()
    while piece := answer.read1(PIECE):
        content += piece
        left = end - time.monotonic()
        if len(content) > most or left <= 0:
            what = f"more than {most // 1_000_000} MB" if len(content) > most else "too long"
            raise RemoteError(f"the answer of {connection.host} takes {what}; send a smaller table along")
        if connection.sock is not None:
            connection.sock.settimeout(left)
    return bytes(content)


def _connected(host: str, port: int, *, secure: bool, seconds: float, local: bool) -> http.client.HTTPConnection:
    """Return a connection to the first address of a host that may be asked."""
    try:
        every = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise RemoteError(f"there is no host {host!r:.100}; check the address") from None
    addresses = [str(one) for one in every if local or ipaddress.ip_address(one).is_global]
    if not addresses:
        raise RemoteError(f"{host!r:.100} is in a local network, which is not asked for others; send the table along")
    try:
        channel = socket.create_connection((addresses[0], port), timeout=seconds)
        if secure:
            channel = ssl.create_default_context().wrap_socket(channel, server_hostname=host)
    except OSError as error:
        raise RemoteError(f"{host!r:.100} cannot be reached ({type(error).__name__}); send the table along") from None
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    connection.sock = channel
    return connection
