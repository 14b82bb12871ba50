"""A door between the service and PostgreSQL that can be slammed at the worst moment."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

_SOCKET = ".s.PGSQL.5432"
_COMMIT = b"COMMIT"


class PostgresProxy:
    """Passes bytes both ways until it is told to fail."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_open = True
        self.swallow_next_answer_to: bytes | None = None
        """When a client's bytes contain this, they are passed on, but the connection breaks before the answer."""
        self.swallowed = 0
        self.statements = 0
        """How many statements clients have sent, those of transactions among them."""
        self.answered = 0
        """Bytes that the server has sent."""

    def cut(self) -> None:
        """Break every connection now."""
        for pair in tuple(self._pairs):
            for writer in pair:
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection."""
        if not self.is_open:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(self._target)
        pair = (writer, up_writer)
        self._pairs.add(pair)
        tasks = [
            asyncio.create_task(self._up(reader, up_writer, up_reader, writer)),
            asyncio.create_task(self._down(up_reader, writer)),
        ]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
            self._tasks.discard(task)
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in pair:
            one.transport.abort()
        self._pairs.discard(pair)

    async def _up(
        self,
        reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        messages = _Messages()
        while data := await reader.read(65536):
            self.statements += messages.statements_in(data)
            marker = self.swallow_next_answer_to
            if marker is not None and marker in data:
                self.swallow_next_answer_to = None
                self.swallowed += 1
                writer.transport.abort()  # the client will never hear of it
                up_writer.write(data)
                await up_writer.drain()
                up_writer.write_eof()
                while await up_reader.read(65536):  # but the server carries it out
                    pass
                return
            up_writer.write(data)
            await up_writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.answered += len(data)
            writer.write(data)
            await writer.drain()


class _Messages:
    """Divides what a client sends into the protocol's messages: a letter, four bytes of length, the rest."""

    def __init__(self) -> None:
        self._rest = b""
        self._has_started = False

    def statements_in(self, data: bytes) -> int:
        """How many of the messages that are whole by now carry a statement out."""
        self._rest += data
        count = 0
        while (message := self._next()) is not None:
            count += message in (b"B", b"Q")
        return count

    def _next(self) -> bytes | None:
        head = 1 if self._has_started else 0  # the first message has no letter
        if len(self._rest) < head + 4:
            return None
        end = head + int.from_bytes(self._rest[head : head + 4], "big")
        if len(self._rest) < end:
            return None
        kind, self._rest, self._has_started = self._rest[:head], self._rest[end:], True
        return kind


@asynccontextmanager
async def proxied(dsn: str) -> AsyncGenerator[tuple[str, PostgresProxy], None]:
    """The address of the proxy for the database at `dsn`, and the proxy."""
    parts = urlsplit(dsn)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    with tempfile.TemporaryDirectory(prefix="pgproxy-") as directory:
        proxy = PostgresProxy(str(Path(query["host"]) / _SOCKET))
        server = await asyncio.start_unix_server(proxy.serve, str(Path(directory) / _SOCKET))
        try:
            yield urlunsplit(parts._replace(query=urlencode({**query, "host": directory}))), proxy
        finally:
            server.close()
            proxy.cut()
