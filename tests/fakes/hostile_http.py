"""A tool server over HTTP that can misbehave: each tool is a way to answer a request, or not to."""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Answer = web.StreamResponse


class HostileHttp:
    """A real server on a free port. `async with` it; `url` is what goes into a configuration."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.gone = 0
        """Requests whose client did not wait for the answer."""
        self.session = "first"
        self.url = ""

    async def __aenter__(self) -> "HostileHttp":
        await self.start(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_route("*", "/mcp", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> Answer:
        if request.method != "POST":
            return web.Response(status=405)
        message: dict[str, Any] = await request.json()
        self.requests.append(message)
        self.headers.append(dict(request.headers))
        if "id" not in message:
            return web.Response(status=202)
        match message["method"]:
            case "initialize":
                return self._initialize(message)
            case _ if request.headers.get("mcp-session-id") != self.session:
                return web.Response(status=404)
            case "tools/list":
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in WAYS]
                return _json(message, {"tools": tools})
            case "tools/call":
                return await self._call(request, message)
            case _:
                return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601}}, status=404)

    def _initialize(self, message: dict[str, Any]) -> Answer:
        result = {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "hostile", "version": "1"},
        }
        return _json(message, result, headers={"mcp-session-id": self.session})

    async def _call(self, request: web.Request, message: dict[str, Any]) -> Answer:
        try:
            return await WAYS[message["params"]["name"]](request, message)
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            raise


def _json(message: dict[str, Any], result: Any, headers: dict[str, str] | None = None) -> Answer:
    return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)


def _text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


async def _echo(request: web.Request, message: dict[str, Any]) -> Answer:
    return _json(message, _text("echo"))


async def _big(request: web.Request, message: dict[str, Any]) -> Answer:
    return _json(message, _text("x" * 20_000_000))


async def _crumbs(request: web.Request, message: dict[str, Any]) -> Answer:
    return _json(message, {"content": [{"type": "text", "text": "x"}] * 100_000})


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    return response


async def _big_event(request: web.Request, message: dict[str, Any]) -> Answer:
    response = await _stream(request)
    whole = {"jsonrpc": "2.0", "id": message["id"], "result": _text("x" * 20_000_000)}
    await response.write(b"data: " + json.dumps(whole).encode() + b"\n\n")
    return response


async def _flood(request: web.Request, message: dict[str, Any]) -> Answer:
    response = await _stream(request)
    notice = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 100}}
    while True:
        await response.write((b"data: " + json.dumps(notice).encode() + b"\n\n") * 100)


async def _cut(request: web.Request, message: dict[str, Any]) -> Answer:
    assert request.transport
    request.transport.close()
    return web.Response()


async def _cut_stream(request: web.Request, message: dict[str, Any]) -> Answer:
    response = await _stream(request)
    await response.write(b'data: {"jsonrpc": "2.0", ')
    assert request.transport
    request.transport.close()
    return response


async def _hang(request: web.Request, message: dict[str, Any]) -> Answer:
    await asyncio.Event().wait()
    return web.Response()


async def _error(request: web.Request, message: dict[str, Any]) -> Answer:
    return web.Response(status=500, text="<h1>Oh no</h1>")


async def _page(request: web.Request, message: dict[str, Any]) -> Answer:
    return web.Response(text="<h1>Hello</h1>", content_type="text/html")


async def _garbage(request: web.Request, message: dict[str, Any]) -> Answer:
    return web.Response(text="{", content_type="application/json")


async def _bomb(request: web.Request, message: dict[str, Any]) -> Answer:
    body = zlib.compress(b" " * 50_000_000)
    return web.Response(body=body, headers={"content-encoding": "deflate", "content-type": "application/json"})


async def _elsewhere(request: web.Request, message: dict[str, Any]) -> Answer:
    return web.Response(status=307, headers={"location": "http://127.0.0.2:1/mcp"})


async def _refused(request: web.Request, message: dict[str, Any]) -> Answer:
    return web.Response(status=401)


WAYS: dict[str, Callable[[web.Request, dict[str, Any]], Awaitable[Answer]]] = {
    "echo": _echo,
    "big": _big,
    "big_event": _big_event,
    "crumbs": _crumbs,
    "flood": _flood,
    "cut": _cut,
    "cut_stream": _cut_stream,
    "hang": _hang,
    "error": _error,
    "page": _page,
    "garbage": _garbage,
    "bomb": _bomb,
    "elsewhere": _elsewhere,
    "refused": _refused,
}
