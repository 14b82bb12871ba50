"""The part of a fake model server that all protocols share: a real HTTP server on a free port of this machine."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from tests.fakes.script import (
    Body,
    Cut,
    Endless,
    Fault,
    Finish,
    Hang,
    Headers,
    Pause,
    Raw,
    Script,
    Status,
    Step,
    Stop,
    Text,
    Wait,
)

EndedBy = Literal["server", "client"]


class Recorded:
    """One request that came in, and what became of it."""

    def __init__(self, request: web.Request, body: Any) -> None:
        self.at = monotonic()
        self.path = request.path_qs
        self.headers: Mapping[str, str] = request.headers
        self.body = body
        self.peer: object = request.transport and request.transport.get_extra_info("peername")
        """The client's address and port: the same for requests over one connection."""
        self.opened = False
        """Whether the headers of the answer have been sent."""
        self.sent = 0
        """Pieces of text sent so far."""
        self.ended_by: EndedBy | None = None
        self.closed: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        """The monotonic time at which the exchange ended; `ended_by` tells whose doing it was."""

    def end(self, by: EndedBy) -> None:
        """Note the end; only the first call counts."""
        if not self.closed.done():
            self.ended_by = by
            self.closed.set_result(monotonic())


class Exchange(ABC):
    """One answer in the words of a protocol; made anew for every request."""

    content_type: str

    def __init__(self, request: Recorded) -> None:
        self.request = request

    @abstractmethod
    def say(self, step: Step) -> bytes:
        """The bytes for a step that is part of the answer itself."""

    def begin(self) -> bytes:
        """What the protocol sends before the first piece."""
        return b""

    @abstractmethod
    def fault(self, fault: Fault) -> bytes:
        """An error inside the stream."""

    @abstractmethod
    def finish(self, finish: Finish) -> bytes:
        """The protocol's own end, with usage."""

    @abstractmethod
    def refuse(self, status: Status) -> Any:
        """The JSON body of an HTTP error."""


class FakeServer:
    """Answers each request by the next script, and by `otherwise` when there is none left.

    `async with FakeServer(...)` starts it on 127.0.0.1. Scripts are taken in the order in which requests come;
    `reply("Hel", "lo")` is short for a script of texts.
    """

    def __init__(self, *, port: int = 0, otherwise: Iterable[Step] = (Text("Hello "), Text("there."))) -> None:
        self.requests: list[Recorded] = []
        """Requests for an answer, oldest first."""
        self.lookups: list[Recorded] = []
        """All other requests: model lists and the like."""
        self.otherwise = Script(tuple(otherwise))
        self._scripts: deque[Script] = deque()
        self._port = port
        self._came = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._streams: set[asyncio.Task[Any]] = set()

    def reply(self, *pieces: str) -> None:
        """The next answer is these pieces of text."""
        self.script(*map(Text, pieces))

    def script(self, *steps: Step, cut_every: int = 0) -> None:
        """The next answer goes by these steps."""
        self._scripts.append(Script(steps, cut_every))

    async def request(self, index: int = 0, *, timeout: float = 5.0) -> Recorded:
        """The request number `index`; waits until it has come."""
        async with asyncio.timeout(timeout), self._came:
            await self._came.wait_for(lambda: len(self.requests) > index)
        return self.requests[index]

    async def drop_idle_connections(self) -> None:
        """Close every connection, as a server does that has waited long enough; returns when all are closed."""
        assert self._runner
        assert self._runner.server
        for connection in list(self._runner.server.connections):
            if connection.transport:
                connection.transport.close()
        async with asyncio.timeout(5):
            while self._runner.server.connections:
                await asyncio.sleep(0)

    @property
    def root(self) -> str:
        """`http://127.0.0.1:port`"""
        return f"http://127.0.0.1:{self._port}"

    def routes(self) -> list[web.RouteDef]:
        """The protocol's paths."""
        return []

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)
        app.add_routes(self.routes())
        # The handler is cancelled as soon as the client's connection is gone: that is the moment to be recorded.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=2048)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for stream in self._streams:
            stream.cancel()
        if self._runner:
            await self._runner.cleanup()

    async def look_up(self, request: web.Request) -> Recorded:
        """Record a request that is not for an answer."""
        recorded = Recorded(request, await _json(request))
        self.lookups.append(recorded)
        return recorded

    async def answer(self, request: web.Request, exchange_for: Callable[[Recorded], Exchange]) -> web.StreamResponse:
        """Record a request for an answer and go by its script."""
        recorded = Recorded(request, await _json(request))
        script = self._scripts.popleft() if self._scripts else self.otherwise
        async with self._came:
            self.requests.append(recorded)
            self._came.notify_all()
        task = asyncio.current_task()
        assert task
        self._streams.add(task)
        try:
            return await _Performance(request, recorded, exchange_for(recorded), script.cut_every).of(script)
        except (asyncio.CancelledError, ConnectionError):
            recorded.end("client")
            raise
        finally:
            self._streams.discard(task)
            recorded.end("server")


class _Performance:
    """One script being carried out."""

    def __init__(self, request: web.Request, recorded: Recorded, exchange: Exchange, cut_every: int) -> None:
        self._request = request
        self._recorded = recorded
        self._exchange = exchange
        self._cut_every = cut_every
        self._response: web.StreamResponse | None = None

    async def of(self, script: Script) -> web.StreamResponse:  # noqa: C901 - one case per step
        for step in script.complete():
            match step:
                case Status():
                    body = self._exchange.refuse(step)
                    return web.json_response(body, status=step.status, headers=dict(step.headers))
                case Body():
                    return web.Response(text=step.text, content_type=step.content_type, status=step.status)
                case Wait():
                    await step.gate.wait()
                case Pause():
                    await asyncio.sleep(step.seconds)
                case Hang():
                    await asyncio.Event().wait()
                case Cut():
                    # Whatever was written before goes out first, as with a proxy that dies.
                    assert self._request.transport
                    await asyncio.sleep(0)
                    self._request.transport.abort()
                    return await self._open_already()
                case Endless():
                    while True:
                        await self._send(self._exchange.say(Text(step.text)))
                        self._recorded.sent += 1
                        await asyncio.sleep(step.seconds)
                case Headers():
                    await self._open()
                case Raw():
                    await self._send(step.data)
                case Fault():
                    await self._send(self._exchange.fault(step))
                case Stop():
                    await self._open()
                case Finish():
                    await self._send(self._exchange.finish(step))
                case _:
                    await self._send(self._exchange.say(step))
                    self._recorded.sent += isinstance(step, Text)
        response = await self._open()
        await response.write_eof()
        return response

    async def _open_already(self) -> web.StreamResponse:
        return self._response or web.Response()

    async def _open(self) -> web.StreamResponse:
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": self._exchange.content_type})
            await self._response.prepare(self._request)
            self._recorded.opened = True
            if begin := self._exchange.begin():
                await self._send(begin)
        return self._response

    async def _send(self, data: bytes) -> None:
        response = await self._open()
        if not data:
            return
        size = self._cut_every or len(data)
        for start in range(0, len(data), size):
            await response.write(data[start : start + size])
            # Lets the reader see each piece on its own.
            await asyncio.sleep(0)


async def _json(request: web.Request) -> Any:
    text = await request.text()
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text
