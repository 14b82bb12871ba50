"""The journal's events as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import aclosing

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.requests import ClientDisconnect
from starlette.types import Message, Send

from db.errors import DatabaseError
from services.accounts.caller import Caller
from services.accounts.rights import RightsInUse
from services.errors import ColloquyError
from services.runs.feed import Frame, JournalGone, PastIsGone

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that proxies do not take the stream for dead."""

_CHUNK_BYTES = 65_536
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

NextFrames = Callable[[], Awaitable[Sequence[Frame]]]
"""Waits for the next frames; none means that there will not be any more."""


class EventStreams:
    """The streams of this process, so that all can be ended when it goes down."""

    def __init__(self, rights: RightsInUse, *, stall_seconds: float) -> None:
        self._rights = rights
        self._stall = stall_seconds
        self._streams: set[_Stream] = set()
        self._is_closing = False

    def open(self, caller: Caller, next_frames: NextFrames, *first: bytes) -> EventSourceResponse:
        """A response that sends `first`, then every frame until there are no more, its past is gone, or the right is.

        Frames are unnamed events, so that one handler of a browser's EventSource gets them all, and their id is
        their position, so that it comes back with Last-Event-ID. A client that takes nothing for `stall_seconds`
        is cut off; it can read on from where it was.
        """
        return _PatientResponse(self._chunks(caller, next_frames, first), self._stall, _HEADERS)

    def close(self) -> None:
        """End every stream: clients come back by themselves, with their position."""
        self._is_closing = True
        for stream in tuple(self._streams):
            stream.end()

    async def _chunks(
        self, caller: Caller, next_frames: NextFrames, first: Sequence[bytes]
    ) -> AsyncGenerator[bytes, None]:
        stream = _Stream(next_frames)
        self._streams.add(stream)
        try:
            if self._is_closing:
                stream.end()
            with self._rights.used(caller, stream.end):
                yield KEEPALIVE_COMMENT + b"".join(first)  # at once: the client knows that it is connected
                async with aclosing(stream.chunks()) as chunks:
                    async for chunk in chunks:
                        yield chunk
        finally:
            self._streams.discard(stream)


class _Stream:
    """One reader's frames, until there are no more or somebody ends it."""

    def __init__(self, next_frames: NextFrames) -> None:
        self._next_frames = next_frames
        self._waiting: asyncio.Timeout | None = None
        self._is_ended = False

    def end(self) -> None:
        """Send nothing more, and end soon."""
        self._is_ended = True
        if self._waiting is not None:
            self._waiting.reschedule(0)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """What is sent, with a comment now and then where there is nothing to be said."""
        while not self._is_ended:
            try:
                frames = await self._wait()
            except TimeoutError:
                if not self._is_ended:
                    yield KEEPALIVE_COMMENT
                continue
            except (JournalGone, PastIsGone, ColloquyError, DatabaseError):
                return  # whoever comes back with a position is told why
            if not frames:
                return
            for chunk in _encoded(frames):
                if not self._is_ended:
                    yield chunk

    async def _wait(self) -> Sequence[Frame]:
        async with asyncio.timeout(KEEP_ALIVE) as waiting:
            self._waiting = waiting
            try:
                return await self._next_frames()
            finally:
                self._waiting = None


def resync_event(reason: str, position: int, epoch: object) -> bytes:
    """Says that the past that was asked for is gone; events after `position` follow."""
    data = {"type": "resync", "reason": reason, "seq": position, "epoch": str(epoch)}
    return format_sse_event(event="resync", data_str=orjson.dumps(data).decode(), id=str(position))


def _encoded(frames: Sequence[Frame]) -> Generator[bytes, None, None]:
    """All frames, in pieces that a slow line can take before it is thought to be dead."""
    gathered = b""
    for frame in frames:
        gathered += format_sse_event(data_str=frame.text, id=str(frame.seq))
        if len(gathered) >= _CHUNK_BYTES:
            yield gathered
            gathered = b""
    if gathered:
        yield gathered


class _PatientResponse(EventSourceResponse):
    """A stream that does not wait for ever for its reader."""

    def __init__(self, content: AsyncGenerator[bytes, None], stall_seconds: float, headers: Mapping[str, str]) -> None:
        super().__init__(content, headers=headers)
        self._stall = stall_seconds

    async def stream_response(self, send: Send) -> None:
        async def send_soon(message: Message) -> None:
            try:
                async with asyncio.timeout(self._stall):
                    await send(message)
            except TimeoutError as error:
                raise ClientDisconnect from error

        await super().stream_response(send_soon)
