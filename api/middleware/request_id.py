"""Gives every request and socket a name that stands in the answer and in the log."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db.ids import new_id

_SANE = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class RequestId:
    """Takes a sane X-Request-Id or makes one; `scope["state"]["request_id"]` has it, and the response says it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE.fullmatch(given) else str(new_id())
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_named(message: Message) -> None:
            if message["type"] in _STARTS:
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_named)
