"""HTTP to servers that nobody vouches for: checked addresses, none of the environment's headers, bounded answers.

Imported only by the modules that import a client.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import aiohttp
import httpx
import httpx2
import httpx_aiohttp
import httpx_aiohttp.httpx2
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader

from services.errors import ProviderGarbled
from services.providers.gate import Gate
from services.providers.transport import KEEP_ALIVE

# As `socket.getaddrinfo` describes an address.
_Address = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]
_Headers = MutableMapping[str, str]
_Stream = httpx.AsyncByteStream | httpx2.AsyncByteStream

_SENT: Final = frozenset(
    ("host", "accept", "content-type", "content-length", "transfer-encoding", "connection", "user-agent")
)
_STREAMS: Final = ("text/event-stream", "application/x-ndjson")
_LINES: Final = (b"\n",)
_EVENTS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")
"""The client of OpenAI keeps all lines of an event until an empty one comes."""
_STREAMED: Final = ("/api/chat", "/chat/completions", "/responses")
"""How paths end whose answers are read as they come; others are read as a whole, whatever their server calls them."""
_PIECE: Final = 16_384
_LINES_A_SECOND: Final = 10_000
"""Of one stream. An event is two lines, and the fastest models say three thousand words in a second."""
_BURST_SECONDS: Final = 0.5
_INTERIM: Final = 20
"""Answers of status 1xx in a row."""
LONGEST_ANSWER: Final = 8 * 1024 * 1024
"""Bytes of an answer that is read as a whole, and of a line or event of one that is read as it comes."""


def guarded_session(gate: Gate, max_connections: int) -> Callable[[], aiohttp.ClientSession]:
    """Makes sessions that connect only where `gate` lets them.

    A name is resolved once, and what was checked is what is connected to. The check stands a second time where the
    socket is made, so that nothing gets past it that never was a name. Proxies of the environment are not used, as
    they would connect in our stead.
    """

    def make_socket(address: _Address) -> socket.socket:
        family, kind, protocol, _, target = address
        host, port = target[:2]
        gate.check(str(host), int(str(port)))
        return socket.socket(family, kind, protocol)

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=max_connections,
            keepalive_timeout=KEEP_ALIVE,
            socket_factory=make_socket,
            resolver=_Checked(gate),
            use_dns_cache=False,
        )
        # aiohttp has no setting for it.
        connector._factory = partial(_handler, asyncio.get_running_loop())  # pyright: ignore[reportPrivateUsage]
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)

    return session


class GuardedTransport(httpx_aiohttp.AiohttpTransport):
    """Carries the client of Ollama."""

    def __init__(self, gate: Gate, max_connections: int, credentials: Mapping[str, str]) -> None:
        super().__init__(client=guarded_session(gate, max_connections), trust_env=False)
        self._credentials = credentials

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, bounded."""
        _only_ours(request.headers, self._credentials)
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        ends = _ends(request.url.path, response.status_code, response.headers, _LINES)
        response.stream = _BoundedStream(response.stream, response.headers, ends)
        return response


class GuardedTransport2(httpx_aiohttp.httpx2.AiohttpTransport):
    """Carries the client of OpenAI."""

    def __init__(self, gate: Gate, max_connections: int, credentials: Mapping[str, str]) -> None:
        super().__init__(client=guarded_session(gate, max_connections), trust_env=False)
        self._credentials = credentials

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, bounded."""
        _only_ours(request.headers, self._credentials)
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        ends = _ends(request.url.path, response.status_code, response.headers, _EVENTS)
        response.stream = _BoundedStream2(response.stream, response.headers, ends)
        return response


class _Terse(ResponseHandler):
    """Takes a few interim answers before the answer: of a hundred thousand aiohttp passes over each at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim = 0

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take the next answer that was read; hang up on whoever says too often that there will be one."""
        self._interim = self._interim + 1 if data[0].code < HTTPStatus.OK else 0
        if self._interim > _INTERIM:
            if self.transport is not None:
                self.transport.abort()
            if self._interim == _INTERIM + 1:
                self.set_exception(aiohttp.ServerDisconnectedError("too many interim answers"))
            return
        super().feed_data(data, size)


def _handler(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return _Terse(loop)


class _Checked(AbstractResolver):
    """Resolves names through a gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await self._gate.addresses(host, port)
        ]

    async def close(self) -> None:
        """Nothing is kept."""


class _Bounded:
    """A stream of bytes, bounded; what both clients' kinds of streams have in common."""

    def __init__(self, inner: _Stream, headers: Mapping[str, str], ends: Sequence[bytes]) -> None:
        self._inner = inner
        self._headers = headers
        self._ends = ends

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in bounded(self._inner, self._headers, self._ends):
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(_Bounded, httpx.AsyncByteStream):
    pass


class _BoundedStream2(_Bounded, httpx2.AsyncByteStream):
    pass


def _ends(path: str, status: int, headers: Mapping[str, str], ends: Sequence[bytes]) -> Sequence[bytes]:
    """What ends a piece of the answer that is done with before the next one comes; nothing if it is read as a whole.

    What the server says of its answer is not enough: where we want all of it, a stream without an end is as much as
    the memory can hold.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_stream = path.endswith(_STREAMED) and 200 <= status < 300 and kind in _STREAMS
    return ends if is_stream else ()


async def bounded(chunks: Any, headers: Mapping[str, str], ends: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Those chunks; raises `ProviderGarbled` at more than anybody may be made to keep."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ProviderGarbled("The model server sends compressed answers, for which it was not asked.")
    held, before = 0, b""
    pace = _Pace()
    async for chunk in chunks:
        seen = before + chunk  # an end may come in two chunks
        last = max((seen.rfind(end) + len(end) for end in ends if end in seen), default=None)
        held = held + len(chunk) if last is None else len(seen) - last
        if held > LONGEST_ANSWER:
            raise ProviderGarbled("The model server sent more at once than anybody can use.")
        before = seen[-3:]
        if not ends:
            yield chunk
            continue
        for begin in range(0, len(chunk), _PIECE):
            piece = chunk[begin : begin + _PIECE]
            yield piece
            await pace.keep(piece.count(b"\n") + piece.count(b"\r"))


class _Pace:
    """Reads a stream no faster than any model speaks: whoever only keeps us busy would keep all others waiting.

    Whoever was slower before may be faster for a moment.
    """

    def __init__(self) -> None:
        self._due = monotonic()

    async def keep(self, lines: int) -> None:
        """Wait until it is time to go on after so many lines."""
        now = monotonic()
        self._due = max(self._due, now - _BURST_SECONDS) + lines / _LINES_A_SECOND
        if self._due > now:
            await asyncio.sleep(self._due - now)


def _only_ours(headers: _Headers, credentials: Mapping[str, str]) -> None:
    """Leave out what the official clients take from the environment: it is the operator's, and may be secret."""
    for name in list(headers):
        if name.lower() not in _SENT:
            del headers[name]
    headers.update(credentials)
    headers["accept-encoding"] = "identity"
