"""Servers where no connection of a user may lead, which note whoever comes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager


class Target:
    """A port on which something private listens."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.port = 0

    @asynccontextmanager
    async def listening(self, *hosts: str) -> AsyncGenerator["Target", None]:
        """Listen on the same port of each of `hosts`."""
        async with AsyncExitStack() as stack:
            for host in hosts:
                server = await asyncio.start_server(self._noting(host), host, self.port)
                await stack.enter_async_context(server)
                self.port = server.sockets[0].getsockname()[1]
            yield self

    def _noting(self, host: str):
        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.hits.append(host)
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"data":[]}')
            writer.close()

        return note


class Names:
    """A name server for tests: what each look-up of a name is answered, one after the other; the last one remains."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self._answers.get(host.partition(".")[0])
        if answers is None:
            raise OSError("there is no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]
