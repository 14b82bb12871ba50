"""What an open socket on which nothing happens takes of the memory."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from benchmarks import usage
from benchmarks.clients import chats
from benchmarks.report import Figures, compare, in_turns
from benchmarks.servers import Server, bare_relay, service, upstream

_FIRST = 100
"""Sockets that are opened before the count begins: pools and caches belong to the process, not to a socket."""


async def run(home: Path, *, quick: bool) -> None:
    """Print the growth of the server's memory per idle socket, each on a session of its own."""
    sockets, rounds = (100, 1) if quick else (1000, 3)
    async with upstream(home) as (model, _):
        measures = {
            "service": partial(_idle, lambda: service(home, model), sockets),
            "bare relay": partial(_idle, lambda: bare_relay(home, model), sockets),
        }
        results = await in_turns(rounds, measures)
    compare(f"memory: {sockets} idle sockets", results, "bare relay")


async def _idle(start: Callable[[], AbstractAsyncContextManager[Server]], sockets: int) -> Figures:
    """In a process of its own each time, as what one round gives back to the process the next would take again."""
    async with start() as server, chats(server, _FIRST):
        await asyncio.sleep(0.5)
        before = usage.resident_bytes(server.pid)
        async with chats(server, sockets):
            await asyncio.sleep(0.5)
            grown = usage.resident_bytes(server.pid) - before
    return {"memory per socket [KiB]": grown / sockets / 1024, "server before [MiB]": before / 2**20}
