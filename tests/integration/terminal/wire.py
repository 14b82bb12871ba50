"""A wire between a client and the service that can break at the worst moment."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit


class Wire:
    """Passes bytes both ways until it is told to break."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_up = True
        self._ends: set[asyncio.StreamWriter] = set()
        self.breaks_before_an_answer = False
        """What the client says next still arrives; then the wire breaks, before anything comes back."""

    def cut(self) -> None:
        """Break every connection now."""
        for end in self._ends:
            end.transport.abort()

    @contextmanager
    def down(self) -> Generator[None, None, None]:
        """Break every connection, and make none as long as this lasts."""
        self._is_up = False
        self.cut()
        try:
            yield
        finally:
            self._is_up = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the client's."""
        if not self._is_up:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends |= {writer, far_writer}
        try:
            await asyncio.gather(self._out(reader, writer, far_writer), _pass(far_reader, writer))
        except OSError:
            pass  # an end that was cut
        finally:
            self._ends -= {writer, far_writer}
            writer.transport.abort()
            far_writer.transport.abort()

    async def _out(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far_writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if self.breaks_before_an_answer:
                self.breaks_before_an_answer = False
                writer.transport.abort()
            far_writer.write(data)
            await far_writer.drain()
        far_writer.write_eof()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def wire_to(address: str) -> AsyncGenerator[tuple[str, Wire], None]:
    """The address of a wire to the service at `address`, and the wire."""
    wire = Wire(urlsplit(address).port or 80)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", wire
    finally:
        server.close()
        wire.cut()
