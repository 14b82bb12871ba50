"""Lines out of a stream of bytes, without ever keeping more than one line of a bounded length."""

from collections.abc import Iterator
from dataclasses import dataclass

_ENDS = 512
"""Bytes kept of either end of a line that is too long."""


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line that was longer than allowed; its ends may tell whom it was for."""

    size: int
    head: bytes
    tail: bytes


class LineSplitter:
    """Cuts what comes in into lines. Its memory is bounded by `longest`, its work by what comes in."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []
        self._size = 0
        self._head = b""
        self._tail = b""

    def feed(self, chunk: bytes) -> Iterator[bytes | TooLong]:
        """The lines that end in `chunk`, without their ends."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._add(piece)
            yield self._take()
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        if not piece:
            return
        self._size += len(piece)
        self._pieces.append(piece)
        if self._size > self._longest:
            self._forget()

    def _forget(self) -> None:
        if not self._head:
            self._head = b"".join(self._pieces)[:_ENDS]
        self._tail = (self._tail + b"".join(self._pieces))[-_ENDS:]
        self._pieces = []

    def _take(self) -> bytes | TooLong:
        line: bytes | TooLong = b"".join(self._pieces)
        if self._size > self._longest:
            line = TooLong(self._size, self._head, self._tail)
        self._pieces, self._size, self._head, self._tail = [], 0, b"", b""
        return line
