"""A client that does not read is cut off in bounded time and memory; its reply, and everybody else, go on."""

import asyncio
import base64
import contextlib
import json
import socket
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from websockets.frames import Frame, Opcode

from tests.acceptance.aftermath import assert_nothing_in_progress
from tests.acceptance.client import Client, connected, crowd
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator, at_pace
from tests.acceptance.processes import Service
from tests.fakes.script import Text, Wait
from tests.postgres_proxy import proxied
from tests.waiting import eventually

OTHERS = 4
MIB = 2**20
MUCH = [f"{number:05d} " + "much " * 1_600 for number in range(400)]
"""3 MiB, three times what may wait for a reader."""


class Deaf:
    """A socket that is written to and never read from."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, *frames: Frame) -> None:
        """Raises ConnectionError once the service has cut it off."""
        self._writer.write(b"".join(frame.serialize(mask=True) for frame in frames))
        await self._writer.drain()

    async def flood(self, frame: Frame) -> None:
        """Send that frame until the service cuts the connection."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self.send(*[frame] * 100)
                await asyncio.sleep(0)  # the others live in this process too


@asynccontextmanager
async def deaf(service: Service, session_id: str) -> AsyncGenerator[Deaf, None]:
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", service.port))
        reader, writer = await asyncio.open_connection(sock=plain)
        key = base64.b64encode(bytes(16)).decode()
        writer.write(
            f"GET /ws/chat/{session_id} HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield Deaf(writer)
        finally:
            writer.transport.abort()


class Memory:
    """The most that the service's memory has grown since the beginning."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._before = service.memory
        self.growth = 0

    def look(self) -> None:
        self.growth = max(self.growth, self._service.memory - self._before)


async def first_words(clients: Sequence[Client], story: str, name: str) -> list[float]:
    """Let all ask at once; the seconds until each had the first words. Their replies are whole."""

    async def ask(client: Client) -> float:
        began = time.monotonic()
        run_id = await client.ask(name)
        await client.until("text_delta", run_id=run_id)
        seconds = time.monotonic() - began
        await client.until("post_response_complete", run_id=run_id)
        assert client.end(run_id)["finish_reason"] == "stop"
        assert client.text(run_id) == story
        return seconds

    return await asyncio.gather(*map(ask, clients))


async def test_clients_that_never_read_are_cut_off_and_the_others_notice_nothing(
    database_url: str, model: Narrator, start: StartService
) -> None:
    words = [f"word {number} " for number in range(20)]
    model.tell("a word", *at_pace(words, 0.01))
    model.tell("very much", *at_pace(MUCH, 0.005))
    service = await start(database_url, TIMEOUTS__STALL=2)
    async with crowd(service, OTHERS) as others:
        quiet = [seconds for _ in range(3) for seconds in await first_words(others, "".join(words), "a word")]
        memory = Memory(service)
        loud: list[float] = []
        sessions = [await service.new_session() for _ in range(3)]
        ping = Frame(Opcode.TEXT, json.dumps({"type": "ping", "nonce": "n" * 200}).encode())
        message = Frame(Opcode.TEXT, json.dumps({"type": "message", "content": "very much"}).encode())
        async with contextlib.AsyncExitStack() as stack:
            silent, pinging, controlling = [await stack.enter_async_context(deaf(service, one)) for one in sessions]
            began = time.monotonic()
            await silent.send(message)
            async with asyncio.timeout(25), asyncio.TaskGroup() as group:
                group.create_task(pinging.flood(ping))
                group.create_task(controlling.flood(Frame(Opcode.PING, b"p" * 100)))
                while service.connections > OTHERS:
                    loud += await first_words(others, "".join(words), "a word")
                    memory.look()
            cut_after = time.monotonic() - began

        async def is_stored() -> bool:
            memory.look()
            return len(await service.history(sessions[0])) == 2

        await eventually(is_stored, 20)
        assert await service.history(sessions[0]) == [("user", "very much"), ("assistant", "".join(MUCH))]
        sys.stdout.write(
            f"first words for the others: median {1000 * statistics.median(quiet):.0f} ms alone, "
            f"{1000 * statistics.median(loud):.0f} ms beside the deaf; these were cut within {cut_after:.1f} s, "
            f"memory grew by {memory.growth / MIB:.0f} MiB\n"
        )
        assert memory.growth < 64 * MIB
    await assert_nothing_in_progress(database_url, model, service)


async def test_whoever_reads_is_not_blamed_for_what_gathered_while_the_database_was_away(
    database_url: str, model: Narrator, start: StartService
) -> None:
    gate = asyncio.Event()
    model.tell("very much", Text("At first "), Wait(gate), *map(Text, MUCH))
    async with proxied(database_url) as (url, proxy):
        service = await start(url)
        async with connected(service) as client:
            run_id = await client.ask("very much")
            await client.until("text_delta", run_id=run_id)
            proxy.is_open = False
            proxy.cut()
            gate.set()
            request = model.asked("very much")[0]
            await eventually(lambda: request.sent > len(MUCH) // 4, 20)  # more than a reader's backlog may be
            proxy.is_open = True
            await client.until("assistant_end", run_id=run_id)
            assert client.end(run_id)["finish_reason"] == "stop"
            assert client.text(run_id) == "At first " + "".join(MUCH)
        await assert_nothing_in_progress(database_url, model, service)
