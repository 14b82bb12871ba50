"""Lines from a terminal, a pipe or a file."""

import asyncio
import os

_PIECE = 65_536


class Lines:
    """The lines that can be read from a file descriptor, while the event loop goes on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read = b""
        self._waiter: asyncio.Future[None] | None = None
        self._has_ended = False

    async def next(self) -> str | None:
        """The next line without its end; None when there are no more."""
        while b"\n" not in self._read:
            piece = await self._piece()
            if not piece:
                last, self._read = self._read, b""
                return _text(last) if last else None
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return _text(line)

    def end(self) -> None:
        """Let there be no more lines, as if the input had ended here."""
        self._has_ended = True
        self._read = b""
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def _piece(self) -> bytes:
        # A thread in `readline` could not be called back when the person leaves, and a descriptor that does not
        # block would not be ours alone: the shell and our own output share it.
        if await self._is_readable():
            return os.read(self._descriptor, _PIECE)
        return b""

    async def _is_readable(self) -> bool:
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        if self._has_ended:
            return False
        try:
            loop.add_reader(self._descriptor, lambda: waiter.done() or waiter.set_result(None))
        except PermissionError:  # a regular file or /dev/null: never waits, so there is nothing to wait for
            return True
        try:
            await waiter
        finally:
            # Whoever is given up may find that somebody else waits already.
            if self._waiter is waiter:
                loop.remove_reader(self._descriptor)
        return not self._has_ended


def _text(line: bytes) -> str:
    return line.decode(errors="replace").removesuffix("\r")
