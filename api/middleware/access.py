"""What came in and how it was answered: one line of the log each, and whoever else counts it."""

import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.route_names import route_of
from services.telemetry.meters import Meters

_log = logging.getLogger(__name__)

_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UNTOLD: Final = ("/livez", "/readyz", "/metrics")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was answered, or a socket that was closed.

    `route` is the template of the path, never what was asked for; `status` is the close code of a socket, `problem`
    the code of a fault that was told.
    """

    kind: str
    method: str
    route: str
    status: int
    seconds: float
    bytes_sent: int
    session_id: str | None
    problem: str | None


Observer = Callable[[Exchange], None]


class Access:
    """Tells `observe` of everything that was answered, and the log of all but the questions of health."""

    def __init__(self, app: ASGIApp, observe: Observer) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = _Answer()

        async def receive_noting() -> Message:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                answer.status = answer.status or message.get("code", 1006)
            return message

        def send_noting(message: Message) -> Awaitable[None]:
            # Not a coroutine: one less for every frame of a stream.
            answer.note(message)
            return send(message)

        begun = time.perf_counter()
        try:
            await self._app(scope, receive_noting if scope["type"] == "websocket" else receive, send_noting)
        finally:
            self._tell(_exchange(scope, answer, time.perf_counter() - begun))

    def _tell(self, exchange: Exchange) -> None:
        self._observe(exchange)
        if exchange.route in _UNTOLD:
            return
        extra: dict[str, Any] = {"ms": round(exchange.seconds * 1000, 1), "bytes": exchange.bytes_sent}
        if exchange.session_id is not None:
            extra["session_id"] = exchange.session_id
        _log.info("%s %s %d", exchange.method, exchange.route, exchange.status, extra=extra)


def count(meters: Meters, exchange: Exchange) -> None:
    """Put an exchange into the figures."""
    if exchange.kind == "websocket":
        meters.sockets.closed(exchange.route, exchange.status)
        return
    meters.http.answered(exchange.method, exchange.route, exchange.status, exchange.seconds)
    if exchange.problem is not None:
        meters.http.problem(exchange.problem)


class _Answer:
    """What was sent: the status of a response or the code that closed a socket, and how much."""

    __slots__ = ("bytes_sent", "status")

    def __init__(self) -> None:
        self.status = 0
        self.bytes_sent = 0

    def note(self, message: Message) -> None:
        match message["type"]:
            case "websocket.send":
                self.bytes_sent += len(message.get("text") or "")
            case "http.response.body" | "websocket.http.response.body":
                self.bytes_sent += len(message.get("body", b""))
            case "http.response.start" | "websocket.http.response.start":
                self.status = message["status"]
            case "websocket.close":
                self.status = self.status or message.get("code", 1000)
            case _:
                pass


def _session_id(scope: Scope) -> str | None:
    """The session that the path names, if that is an id: anybody may have written anything there."""
    named = scope.get("path_params", {})
    text = str(named.get("session_id") or named.get("conversation_id"))
    return text.lower() if _ID.fullmatch(text) else None


def _exchange(scope: Scope, answer: _Answer, seconds: float) -> Exchange:
    is_socket = scope["type"] == "websocket"
    return Exchange(
        scope["type"],
        "WS" if is_socket else scope["method"],
        route_of(scope),
        answer.status,
        seconds,
        answer.bytes_sent,
        _session_id(scope),
        scope["state"].get("problem"),
    )
