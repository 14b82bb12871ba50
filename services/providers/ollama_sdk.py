"""The official `ollama` client as we use it. Imported only when a connection is used."""

import json
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, cast

import httpx
import ollama
from httpx_aiohttp import AiohttpTransport

from services.errors import ProviderBrokeOff, ProviderError, ProviderGarbled, ProviderUnreachable
from services.providers.faults import Complaints, complaint_in, seconds_to_wait
from services.providers.gate import Gate
from services.providers.guarded import GuardedTransport
from services.providers.transport import KEEP_ALIVE, TRANSPORT_ERRORS, connection_fault


class OllamaClient(ollama.AsyncClient):
    """One Ollama server with its pool of connections. Everything that goes wrong comes out as a `ProviderError`.

    It is the official client (address, headers, key) without its request and response models: those drop the
    parts of a tool's JSON Schema that they do not know, and its line splitter cuts JSON at U+0085 and U+2028.
    """

    def __init__(
        self,
        host: str,
        *,
        api_key: str | None,
        complaints: Complaints,
        connect_timeout: float,
        max_connections: int,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - its **kwargs go to httpx
            host,
            # An approved address stays the address.
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=connect_timeout, pool=connect_timeout),
            transport=_transport(max_connections, gate, api_key),
        )
        self._http = cast(httpx.AsyncClient, self._client)  # pyright: ignore[reportUnknownMemberType]
        # The client would send the environment's key to every host.
        self._http.headers.pop("authorization", None)
        if api_key:
            self._http.headers["authorization"] = f"Bearer {api_key}"
        self._complaints = complaints

    @asynccontextmanager
    async def chat_stream(self, body: Mapping[str, Any]) -> AsyncGenerator[AsyncGenerator[object, None], None]:
        """POST `body` to `/api/chat` and read the lines as plain JSON values; leaving closes the connection."""
        with self._translated(ProviderUnreachable):
            request = self._http.build_request("POST", "/api/chat", json=body)
            response = await self._http.send(request, stream=True)
        with self._translated(ProviderBrokeOff):
            try:
                await self._insist_on_success(response)
                async with aclosing(_json_lines(response)) as lines:
                    yield lines
            finally:
                await response.aclose()

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> object:
        """The JSON that `path` answers."""
        with self._translated(ProviderUnreachable):
            response = await self._http.request(method, path, json=body)
            await self._insist_on_success(response)
            return response.json()

    async def aclose(self) -> None:
        """Close the pool."""
        await self.close()

    async def _insist_on_success(self, response: httpx.Response) -> None:
        kind = response.headers.get("content-type", "")
        if response.is_success and "html" not in kind:
            return
        text = (await response.aread()).decode("utf-8", "replace")
        if response.is_success:
            raise ProviderGarbled("The model server answered with an HTML page; is the address right?")
        try:
            body = json.loads(text)
        except ValueError:
            body = text
        wait = seconds_to_wait(response.headers)
        raise self._complaints.fault(complaint_in(body, status=response.status_code, retry_after=wait))

    @contextmanager
    def _translated(self, when_cut: type[ProviderError]) -> Generator[None]:
        try:
            yield
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProviderGarbled() from error
        except TRANSPORT_ERRORS as error:
            raise connection_fault(error, when_cut, self._complaints) from error


async def _json_lines(response: httpx.Response) -> AsyncGenerator[object, None]:
    rest: list[bytes] = []
    async for piece in response.aiter_bytes():
        first, *lines = piece.split(b"\n")
        rest.append(first)
        for line in lines:
            if whole := b"".join(rest).strip():
                yield json.loads(whole)
            rest = [line]
    if whole := b"".join(rest).strip():
        yield json.loads(whole)


def _transport(max_connections: int, gate: Gate | None, api_key: str | None) -> AiohttpTransport:
    if gate:
        return GuardedTransport(gate, max_connections, {"authorization": f"Bearer {api_key}"} if api_key else {})
    # Without a number, aiohttp stops at 100 connections.
    limits = httpx.Limits(
        max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=KEEP_ALIVE
    )
    return AiohttpTransport(limits=limits)
