"""One socket: one reader, and one bounded outbox that one task empties."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, Final
from uuid import UUID

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from db.ids import new_id

GOING_AWAY = 1001
TRY_AGAIN = 1013
MALFORMED = 4400
NOT_AUTHENTICATED = 4401
FORBIDDEN = 4403
FOREIGN_ORIGIN = 4403
NOT_FOUND = 4404
NOT_IN_TIME = 4408
FRAME_TOO_BIG = 4413
TOO_MANY = 4429
SLOW_READER = 4508

CLOSE_CODES: Final[Mapping[int, str]] = {
    GOING_AWAY: "The service goes down; come back, to where you were.",
    1007: "A text frame was not UTF-8.",
    TRY_AGAIN: "The database cannot be reached just now; come back, to where you were.",
    MALFORMED: "The address or the first frame cannot be understood.",
    NOT_AUTHENTICATED: "Not known who you are; or what you have shown was revoked or has expired since.",
    FORBIDDEN: "A page of a foreign origin; or what you have shown does not allow to read.",
    NOT_FOUND: "There is no such session, or it is somebody else's; or it was deleted.",
    NOT_IN_TIME: "You have not said in time who you are.",
    FRAME_TOO_BIG: "A frame was too big.",
    TOO_MANY: "Too many sockets, or too many frames.",
    SLOW_READER: "You do not read what is sent to you; come back, to where you were.",
}
"""What the service means by closing with a code."""

_OUTBOX_CHARACTERS = 65_536
"""Above this the relay waits: what comes after stays in the journal, where it costs no memory."""
_REASON_BYTES = 120
"""A close frame has room for 123 (RFC 6455, section 5.5)."""
_CLOSE_SECONDS = 2.0
_WITHOUT_MORE = (SLOW_READER, NOT_AUTHENTICATED)
"""Reasons for which a client is not even told what waits for it."""


class Overrun(Exception):
    """The client does not read what it asks for."""


class Connection:
    """A client's socket. Whatever ends one of its tasks ends the others."""

    def __init__(self, socket: WebSocket, *, backlog_characters: int) -> None:
        self.id: UUID = new_id()
        self.knows_shutdown = True
        """Whether `server_shutdown` is a frame of what is spoken here."""
        self._socket = socket
        self._limit = backlog_characters
        self._outbox: deque[str] = deque()
        self._waiting = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._is_sending = False
        self._closing: tuple[int, str] | None = None
        self._end = asyncio.Event()

    async def receive(self) -> str | bytes:
        """The next frame, a text or bytes; raises `WebSocketDisconnect`."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        text: str | None = message.get("text")
        return text if text is not None else message["bytes"]

    def push(self, text: str) -> None:
        """Send a frame soon. Never waits: a client that lets too much gather is dropped."""
        self._outbox.append(text)
        self._waiting += len(text)
        self._filled.set()
        if self._waiting > self._limit:
            self.close(SLOW_READER, "you do not read what is sent to you")

    async def send(self, text: str) -> None:
        """Send a frame after those that wait, and wait as long as the client lets us wait."""
        if self._outbox or self._is_sending:
            self.push(text)
            await self.room()
            return
        # Nothing waits: the frame need not be handed to another task first.
        await self._send(text)
        if self._outbox:
            self._filled.set()

    async def room(self) -> None:
        """Wait while the outbox is full."""
        while self._waiting > _OUTBOX_CHARACTERS:
            self._emptied.clear()
            await self._emptied.wait()

    def close(self, code: int, reason: str) -> None:
        """End the connection soon, telling the client why."""
        self._closing = self._closing or (code, reason)
        self._end.set()

    async def run(self, *loops: Coroutine[Any, Any, None]) -> None:
        """Work until one of the loops ends, the client goes, or `close` is called; then nothing is left running."""
        tasks = [asyncio.create_task(loop) for loop in (*loops, self._write(), self._until_closed())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        await self._say_goodbye()
        for task, result in zip(tasks, results, strict=True):
            if task in done and isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | OSError):
                raise result

    async def _write(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._outbox and not self._is_sending:
                text = self._outbox.popleft()
                await self._send(text)
                self._waiting -= len(text)
            if not self._outbox:
                self._emptied.set()

    async def _send(self, text: str) -> None:
        self._is_sending = True
        try:
            await self._socket.send_text(text)
        finally:
            self._is_sending = False

    async def _until_closed(self) -> None:
        await self._end.wait()

    async def _say_goodbye(self) -> None:
        if self._closing is None:
            return
        code, reason = self._closing
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if code not in _WITHOUT_MORE:
                    while self._outbox:
                        await self._socket.send_text(self._outbox.popleft())
                await refuse(self._socket, code, reason)
        except (TimeoutError, OSError, RuntimeError, WebSocketDisconnect):
            return  # it has gone, or cannot be told


async def accept(socket: WebSocket) -> None:
    """Take the handshake, unless that was done when the socket was asked who is there."""
    if socket.application_state is WebSocketState.CONNECTING:
        await socket.accept()


async def refuse(socket: WebSocket, code: int, reason: str) -> None:
    """Close with a code that browsers can see: the handshake has to be accepted for that."""
    await accept(socket)
    if socket.application_state is WebSocketState.CONNECTED:
        await socket.close(code, reason[:_REASON_BYTES])
