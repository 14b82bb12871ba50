"""How long a user waits for the word that stops a reply to be obeyed, here and at the model's server."""

import asyncio
from functools import partial
from pathlib import Path

import httpx2

from benchmarks.clients import PATIENCE, Chat, chats, soon
from benchmarks.load import warm_up
from benchmarks.report import Figures, compare, in_turns, percentile
from benchmarks.servers import Server, bare_relay, service, upstream
from benchmarks.upstream import SILENT, paced
from db.ids import new_id

_PHASES = {"waiting for the first delta": SILENT, "streaming 50 deltas/s": paced(50, 5000)}
_BETWEEN = 0.03
"""Seconds: what is measured are interrupts beside running streams, not a storm of new turns."""


async def run(home: Path, *, quick: bool) -> None:
    """Print the time from the interrupt to its event and to the model's closed connection, in two phases."""
    streams, interrupts, rounds = (10, 20, 1) if quick else (100, 200, 3)
    async with upstream(home) as (model, _), service(home, model) as ours, bare_relay(home, model) as bare:
        for phase, name in _PHASES.items():
            measures = {
                server.name: partial(_interrupts, server, model, name, streams, interrupts) for server in (ours, bare)
            }
            title = f"interrupt: {streams} streams, {phase}, {interrupts} interrupts per round"
            compare(title, await in_turns(rounds, measures), bare.name)


async def _interrupts(server: Server, upstream: str, model: str, streams: int, interrupts: int) -> Figures:
    """Interrupt one stream after another; each begins a new reply at once, so that the load stays."""
    tag = f"{new_id()} {{}}".format  # what the user says, by which the model's server knows the answer again
    async with chats(server, streams) as talking, httpx2.AsyncClient(timeout=30) as http:
        await warm_up(talking)
        for number, chat in enumerate(talking):
            chat.say(model, tag(number))
        await asyncio.sleep(1)
        running = dict(enumerate(talking))
        sent: dict[str, int] = {}
        heard: list[int] = []
        for number in range(interrupts):
            await asyncio.sleep(_BETWEEN)
            # The oldest, which has certainly reached its phase.
            chat = running.pop(number)
            at, came = await _interrupt(chat)
            sent[tag(number)] = at
            heard.append(came - at)
            running[number + streams] = chat
            chat.say(model, tag(number + streams))
        closed = await _closed(http, upstream, set(sent))
        for chat in running.values():
            await _interrupt(chat)
    hung_up = [closed[tag] - at for tag, at in sent.items()]
    return _percentiles("to `interrupted`", heard) | _percentiles("to the closed connection", hung_up)


async def _closed(http: httpx2.AsyncClient, upstream: str, tags: set[str]) -> dict[str, int]:
    """When the model's server saw its client hang up in each of those answers."""
    async with asyncio.timeout(PATIENCE):
        while True:
            closed: dict[str, int] = (await http.get(f"{upstream}/closed")).json()
            if tags <= closed.keys():
                return closed
            await asyncio.sleep(0.1)


async def _interrupt(chat: Chat) -> tuple[int, int]:
    said, end = chat.expect("interrupted"), chat.expect("assistant_end")
    at = chat.interrupt()
    came = await soon(said)
    await soon(end)
    return at, came


def _percentiles(name: str, microseconds: list[int]) -> Figures:
    return {
        f"{name}, {label} [ms]": percentile(microseconds, share) / 1e3
        for label, share in (("median", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
