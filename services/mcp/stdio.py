"""Talking to a server over its standard input and output, whatever it does with them."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.client import Transport
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCMessage, JSONRPCRequest

from services.mcp.config import Program
from services.mcp.lines import LineSplitter, TooLong
from services.mcp.process import ServerProcess
from services.mcp.wire import UNREACHABLE, NoiseGuard, error_message, read_line, refusal_of

_log = logging.getLogger(__name__)

_CHUNK = 65_536
_NOTICES_PER_SECOND = 100
_PAUSE = 0.02
"""Seconds by which a server that floods us is slowed down at each chunk."""
_LAST_WORDS = 10
_LAST_MOMENT = 0.1

_Incoming = ObjectReceiveStream[SessionMessage | Exception]
_Outgoing = ObjectSendStream[SessionMessage]


class StdioTransport(Transport):
    """Starts a program on entering, and ends it, with all that it started, on leaving."""

    def __init__(self, name: str, program: Program, *, longest: int, on_end: Callable[[], None]) -> None:
        """`longest`: bytes of a message. `on_end` is called as soon as the server has ended by itself."""
        self._name = name
        self._program = program
        self._longest = longest
        self._on_end = on_end
        self._process: ServerProcess | None = None
        self._conversation: _Conversation | None = None

    async def __aenter__(self) -> "tuple[_Incoming, _Outgoing]":
        self._process = await ServerProcess.start(self._program)
        # Nothing is awaited from here on: a cancelled start would leave the process behind.
        self._conversation = _Conversation(self._name, self._process, self._longest, self._on_end)
        return self._conversation.incoming, self._conversation.outgoing

    async def __aexit__(self, *_: object) -> None:
        assert self._process
        assert self._conversation
        self._conversation.hang_up()
        try:
            if not await self._process.end():
                _log.error("tool server %s cannot be ended", self._name)
        finally:
            await self._conversation.close()

    def kill(self) -> None:
        """End the process and all that it started at once."""
        if self._process:
            self._process.kill()

    def outcome(self) -> str | None:
        """How the process ended, for people; None if it has not. What it said last goes to the log alone."""
        outcome = self._process.outcome if self._process else None
        if outcome and self._conversation and self._conversation.last_words:
            _log.warning("tool server %s said last:\n%s", self._name, "\n".join(self._conversation.last_words))
        return outcome


class _Conversation:
    """Carries messages between the client's two streams and the process's pipes."""

    def __init__(self, name: str, process: ServerProcess, longest: int, on_end: Callable[[], None]) -> None:
        self.last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._name = name
        self._process = process
        self._longest = longest
        self._on_end = on_end
        self._has_complained = False
        self._is_over = False
        self._to_client, self.incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self.outgoing, self._from_client = anyio.create_memory_object_stream[SessionMessage](0)
        works = (self._read, self._write, self._overhear, self._see_it_end)
        self._tasks = [asyncio.create_task(work()) for work in works]

    def hang_up(self) -> None:
        """Take no more messages in either direction; the pipes are emptied further, so that the server can end."""
        self._is_over = True
        for stream in (self._to_client, self.incoming, self.outgoing, self._from_client):
            stream.close()

    async def close(self) -> None:
        """Return when nothing works on the pipes any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _read(self) -> None:
        lines, guard = LineSplitter(self._longest), NoiseGuard(_NOTICES_PER_SECOND)
        with contextlib.suppress(ConnectionError):
            while chunk := await self._process.stdout.read(_CHUNK):
                is_flood = False
                for line in lines.feed(chunk):
                    if isinstance(line, bytes) and guard.refuses(line):
                        is_flood = True
                    else:
                        await self._take(line)
                await asyncio.sleep(_PAUSE if is_flood else 0)
        self._end()

    async def _see_it_end(self) -> None:
        """Notice the end of a process whose children hold on to its pipes."""
        await self._process.gone()
        await asyncio.sleep(_LAST_MOMENT)  # for what it may have said before
        self._end()

    def _end(self) -> None:
        if not self._is_over:
            self._on_end()
            self._to_client.close()

    async def _take(self, line: bytes | TooLong) -> None:
        message = refusal_of(line, self._longest) if isinstance(line, TooLong) else read_line(line, self._longest)
        if message:
            await self._give(message)
        elif line:
            self._complain(line)

    async def _give(self, message: SessionMessage) -> None:
        # When the client is gone, what still comes is only taken off the pipe.
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._to_client.send(message)

    def _complain(self, line: bytes | TooLong) -> None:
        if not self._has_complained:
            self._has_complained = True
            shown = line.head if isinstance(line, TooLong) else line
            _log.warning("tool server %s writes to its output what is no message, such as %r", self._name, shown[:80])

    async def _write(self) -> None:
        stdin = self._process.stdin
        async with self._from_client:
            async for message in self._from_client:
                # Never waits for the server: whoever sends can be cancelled, and time out, at any moment.
                if stdin.transport.get_write_buffer_size() > self._longest:
                    await self._refuse(message.message)
                elif not stdin.is_closing():
                    stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")

    async def _refuse(self, message: JSONRPCMessage) -> None:
        if isinstance(message, JSONRPCRequest):
            await self._give(error_message(message.id, UNREACHABLE, "it does not read what it is sent"))

    async def _overhear(self) -> None:
        """Keep the last lines of standard error, at a pace that a flood cannot set."""
        lines = LineSplitter(_CHUNK)
        with contextlib.suppress(ConnectionError):
            while chunk := await self._process.stderr.read(_CHUNK):
                self.last_words.extend(_words(line) for line in lines.feed(chunk))
                if len(chunk) > _CHUNK // 2:
                    await asyncio.sleep(_PAUSE)


def _words(line: bytes | TooLong) -> str:
    return (line.head if isinstance(line, TooLong) else line)[:200].decode(errors="replace")
