"""The journal's events as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from services.runs.feed import Frame

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that proxies do not take the stream for dead."""

_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

NextFrames = Callable[[], Awaitable[Sequence[Frame]]]
"""Waits for the next frames; none means that there will not be any more."""


def event_stream(next_frames: NextFrames, *first: bytes) -> EventSourceResponse:
    """A response that sends `first`, then every frame until there are no more.

    Frames are unnamed events, so that one handler of a browser's EventSource gets them all, and their id is their
    position, so that it comes back with Last-Event-ID.
    """
    return EventSourceResponse(_chunks(next_frames, first), headers=_HEADERS)


def resync_event(reason: str, position: int, epoch: object) -> bytes:
    """Says that the past that was asked for is gone; events after `position` follow."""
    data = {"type": "resync", "reason": reason, "seq": position, "epoch": str(epoch)}
    return format_sse_event(event="resync", data_str=orjson.dumps(data).decode(), id=str(position))


async def _chunks(next_frames: NextFrames, first: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    yield KEEPALIVE_COMMENT + b"".join(first)  # at once: the client knows that it is connected
    while True:
        try:
            async with asyncio.timeout(KEEP_ALIVE):
                frames = await next_frames()
        except TimeoutError:
            yield KEEPALIVE_COMMENT
            continue
        if not frames:
            return
        yield b"".join(format_sse_event(data_str=frame.text, id=str(frame.seq)) for frame in frames)
