"""Bounds what a request may carry, whether it says its length or comes in chunks."""

import re
from collections.abc import Mapping

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BodyTooLarge, problem_of


class BodyLimit:
    """Answers 413 as soon as a body is over `most` bytes; the server discards what still comes of it.

    `others` has the limits of paths that take files, or next to nothing; a star in one stands for any id.
    """

    def __init__(self, app: ASGIApp, most: int, others: Mapping[str, int]) -> None:
        self._app = app
        self._most = most
        self._others = {re.compile(re.escape(path).replace(r"\*", "[^/]+")): limit for path, limit in others.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._limit(scope["path"])
        if _announced(scope) > most:
            await self._refuse(most, scope, receive, send)
            return
        received = 0
        is_refused = False

        async def receive_counted() -> Message:
            nonlocal received, is_refused
            if is_refused:
                return {"type": "http.disconnect"}
            message = await receive()
            received += len(message.get("body", b""))
            if received <= most:
                return message
            is_refused = True
            await self._refuse(most, scope, receive, send)
            return {"type": "http.disconnect"}  # for whoever reads on, the client has gone

        async def send_unless_refused(message: Message) -> None:
            if not is_refused:
                await send(message)

        await self._app(scope, receive_counted, send_unless_refused)

    def _limit(self, path: str) -> int:
        return next((limit for pattern, limit in self._others.items() if pattern.fullmatch(path)), self._most)

    async def _refuse(self, most: int, scope: Scope, receive: Receive, send: Send) -> None:
        error = BodyTooLarge(f"A body has at most {most} bytes.", limit=most)
        await problem_of(error, HTTPConnection(scope))(scope, receive, send)


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
