"""A server at an address: spoken to over streamable HTTP, with nothing in its answers left unbounded."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final, Protocol

import httpx2
import orjson
from anyio.abc import ObjectReceiveStream
from mcp.client import Transport
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from services.mcp.config import Address
from services.mcp.wire import TOO_LARGE, UNREACHABLE, bounded, is_too_complex, too_large

_CONNECT_SECONDS = 10.0
_FAREWELL_SECONDS = 2.0
_NOTICE_SECONDS = 5.0
_STREAM_FACTOR: Final = 2
"""A stream of events may be longer than one message: it has notices of progress too."""


class HttpTransport(Transport):
    """Streamable HTTP to one address of the operator's; redirects are followed only within its origin."""

    def __init__(self, address: Address, *, longest: int) -> None:
        """`longest`: bytes of a message."""
        self._address = address
        self._longest = longest
        self._stack = AsyncExitStack()

    # The types of the streams have no public name.
    async def __aenter__(self):
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                httpx2.AsyncClient(
                    headers=dict(self._address.headers) | {"accept-encoding": "identity"},
                    transport=BoundedTransport(self._longest),
                    # How long an answer may take is the caller's business.
                    timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
                )
            )
            incoming, outgoing = await stack.enter_async_context(
                streamable_http_client(self._address.url, http_client=client, max_sse_event_size=self._longest)
            )
            self._stack = stack.pop_all()
        return _Bounded(incoming), outgoing

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


class BoundedTransport(httpx2.AsyncBaseTransport):
    """HTTP whose failures are answers, each for the one request that failed, and whose answers end somewhere.

    The protocol's client takes an exception of the transport for the end of everything: one dropped connection would
    cost all calls that are under way. It understands an error in an answer's body.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The server's answer, or one that says why there is none."""
        _hurry(request)
        try:
            response = await self._inner.handle_async_request(request)
            return await self._bound(request, response)
        except httpx2.TransportError as error:
            return _failure(request, UNREACHABLE, f"it cannot be reached: {str(error) or type(error).__name__}")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def _bound(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        if response.headers.get("content-encoding", "identity") != "identity":
            await stream.aclose()
            return _failure(request, UNREACHABLE, "it sends compressed answers, for which it was not asked")
        if _kind(response) == "text/event-stream":
            longest = None if _is_subscription(request) else self._longest * _STREAM_FACTOR
            response.stream = _BoundedStream(stream, longest)
            return response
        return await self._whole(request, response, stream)

    async def _whole(
        self, request: httpx2.Request, response: httpx2.Response, stream: httpx2.AsyncByteStream
    ) -> httpx2.Response:
        body = bytearray()
        try:
            async for chunk in stream:
                body += chunk
                if len(body) > self._longest:
                    return _failure(request, TOO_LARGE, too_large(self._longest))
        finally:
            await stream.aclose()
        if is_too_complex(bytes(body)):
            return _failure(request, TOO_LARGE, too_large(self._longest))
        if response.status_code in (401, 403):
            return _failure(request, UNREACHABLE, f"it refused our credentials (HTTP {response.status_code})")
        return httpx2.Response(response.status_code, headers=response.headers, content=bytes(body), request=request)


class _BoundedStream(httpx2.AsyncByteStream):
    """A stream of events that breaks off at one that cannot be looked at, or when it has become too long."""

    def __init__(self, inner: httpx2.AsyncByteStream, longest: int | None) -> None:
        self._inner = inner
        self._longest = longest
        self._size = 0
        self._event = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._size += len(chunk)
            self._event = self._event[self._event.rfind(b"\n\n") + 1 :] + chunk
            if is_too_complex(self._event) or (self._longest is not None and self._size > self._longest):
                raise httpx2.SSEError("more than can be looked at")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Receives(Protocol):
    async def receive(self) -> SessionMessage | Exception: ...

    async def aclose(self) -> None: ...


class _Bounded(ObjectReceiveStream[SessionMessage | Exception]):
    """The client's own stream of messages, each looked at on its way."""

    def __init__(self, inner: "_Receives") -> None:
        self._inner = inner

    async def receive(self) -> SessionMessage | Exception:
        item = await self._inner.receive()
        return bounded(item) if isinstance(item, SessionMessage) else item

    async def aclose(self) -> None:
        await self._inner.aclose()


def _hurry(request: httpx2.Request) -> None:
    """Give what nobody waits for little time: the client sends it in line with what is waited for."""
    seconds = None
    if request.method == "DELETE":
        seconds = _FAREWELL_SECONDS
    elif request.method == "POST" and b'"id"' not in request.content[:200]:
        seconds = _NOTICE_SECONDS
    if seconds is not None:
        request.extensions["timeout"] = httpx2.Timeout(seconds).as_dict()


def _is_subscription(request: httpx2.Request) -> bool:
    """Whether it is open for as long as the connection."""
    return request.method == "GET" or request.headers.get("mcp-method") == "subscriptions/listen"


def _kind(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _failure(request: httpx2.Request, code: int, message: str) -> httpx2.Response:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    headers = {"content-type": "application/json"}
    return httpx2.Response(500, headers=headers, content=orjson.dumps(error), request=request)
