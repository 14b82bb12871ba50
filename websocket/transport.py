"""What uvicorn speaks on a WebSocket, guarded against peers that do not read, do not stop and do not leave.

uvicorn bounds the memory of a slow peer for what the application sends, but not its time: a peer that reads nothing
keeps its socket and the task inside `send()` for ever. Nor does it bound the pongs that a peer asks for and never
reads. `GuardedProtocol` closes both gaps and a few smaller ones; everything else stays uvicorn's.
"""

import asyncio
import socket
import struct
from asyncio import TimerHandle
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame
from websockets.server import ServerProtocol

FRAME_TOO_BIG = 4413
SLOW_READER = 4508

UNSENT_LIMIT = 64 * 1024
"""Bytes that may wait in the process, and again in the kernel, before `send()` waits."""

UNREAD_LIMIT = 32 * 1024
"""Bytes of receive buffer asked of the kernel (Linux grants twice that). One read is handled in one go, and 256 KiB of
six-byte frames, which the event loop would hand over otherwise, stop everyone for 0.2 seconds."""

IDLE_FRAMES_PER_MINUTE = 600
"""Pings, pongs and empty fragments that a peer may send. They never reach the application and its limits, and clients
of good will send a handful."""

CHECKS_PER_STALL = 5

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER that drops what the kernel still holds, instead of offering it to a silent peer for minutes."""


class GuardedProtocol(WebSocketsSansIOProtocol):
    """A WebSocket connection whose memory is bounded and whose socket is free again soon after its peer stops reading.

    Pass it, or what `guarded()` returns, to uvicorn as `ws=`. The application meets nothing new: a dropped peer is a
    `websocket.disconnect` (4508 if it did not read) and an `OSError` out of a `send()` that waited.
    """

    stall_seconds = 5.0
    """How long the peer may take nothing of what waits for it, or leave a closing handshake unanswered."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Conversation(
            extensions=self.conn.available_extensions, max_size=config.ws_max_size, logger=self.logger
        )
        self.conn.debug = False  # else each frame would be logged: what people say, and the tokens that they show
        self.close_timeout = self.stall_seconds
        self.idle_frames = 0
        self.idle_minute = 0.0
        self.stall_timer: TimerHandle | None = None
        self.leave_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=UNSENT_LIMIT)
        self._set_option(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_LIMIT)
        # Without it Linux takes megabytes for a peer that reads nothing, and reports room so rarely that a peer which
        # reads slowly looks like one that does not read.
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            self._set_option(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_LIMIT)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self.stall_timer, self.leave_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # Peers that do not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size(), self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stall_timer is not None:
            self.stall_timer.cancel()
            self.stall_timer = None

    def _watch(self, unsent: int, since: float) -> None:
        """Drop the peer once the buffer has not shrunk below `unsent` for `stall_seconds`; a slow reader may stay."""
        now = self.loop.time()
        waiting = self.transport.get_write_buffer_size()
        if waiting < unsent:
            unsent, since = waiting, now
        if now - since >= self.stall_seconds:
            reason = "the client does not read"
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SLOW_READER, "reason": reason})
            self._abort()
        else:
            self.stall_timer = self.loop.call_later(self.stall_seconds / CHECKS_PER_STALL, self._watch, unsent, since)

    # Peers that do not stop

    def handle_ping(self) -> None:
        # Every ping makes a pong, which is written whether or not the peer reads. Pausing the reading meanwhile would
        # bound that as well, but a slow peer that is streamed to would not be heard: its interrupt, for one.
        if not self.conn.eof_sent:  # else it was read in one go with the frame that ended the conversation
            super().handle_ping()
            self._count_idle_frame()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._count_idle_frame()

    def handle_cont(self, event: Frame) -> None:
        if event.data or event.fin:
            super().handle_cont(event)
        else:  # adds nothing to the message, nor to its size, which is limited
            self._count_idle_frame()

    def _count_idle_frame(self) -> None:
        minute = self.loop.time() // 60
        if minute != self.idle_minute:
            self.idle_minute, self.idle_frames = minute, 0
        self.idle_frames += 1
        if self.idle_frames > IDLE_FRAMES_PER_MINUTE and not self.conn.eof_sent:
            self.conn.fail(CloseCode.POLICY_VIOLATION, "too many frames that say nothing")
            self.handle_parser_exception()

    # Peers that do not leave

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._leave_soon()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.disconnected = True  # a `send()` from now on is told so, rather than blamed
        self._leave_soon()

    def shutdown(self) -> None:
        super().shutdown()
        self._leave_soon()

    def _leave_soon(self) -> None:
        """Bound the flush that every orderly close waits for."""
        if self.leave_timer is None and self in self.connections:
            self.leave_timer = self.loop.call_later(self.close_timeout, self._abort)

    def _abort(self) -> None:
        self._set_option(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    # Peers that break the rules

    def handle_parser_exception(self) -> None:
        """Tell the peer why the conversation ends (1002, 1007, 1008, 4413), and hear out what it is still sending.

        Closing with bytes unread makes the kernel send a reset, which overtakes the close frame: the peer would see a
        broken connection instead of the code.
        """
        close = self.conn.close_sent
        if self.close_sent or close is None:
            return
        self.close_sent = self.disconnected = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.conn.fail(close.code)  # what follows is discarded unparsed
        self.transport.write(b"".join(self.conn.data_to_send()))
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        self.transport.write_eof()
        self.read_paused = False
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def _set_option(self, level: int, option: int, value: int | bytes) -> None:
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(level, option, value)


def guarded(stall_seconds: float) -> type[GuardedProtocol]:
    """A `GuardedProtocol` with that patience."""
    return type("GuardedProtocol", (GuardedProtocol,), {"stall_seconds": stall_seconds})


class _Conversation(ServerProtocol):
    """The rules of RFC 6455, with our own word for a message over the limit."""

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        super().fail(FRAME_TOO_BIG if code == CloseCode.MESSAGE_TOO_BIG else code, reason)
