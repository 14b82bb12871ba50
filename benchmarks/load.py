"""A load of paced streams, and what it costs the server under it."""

import asyncio
import random
from dataclasses import dataclass

from benchmarks import usage
from benchmarks.clients import PATIENCE, Chat, Tally, chats, soon
from benchmarks.report import Figures, percentile
from benchmarks.servers import Server
from benchmarks.upstream import paced

_SPREAD = 0.005
"""Seconds between the starts of two streams: a hundred people do not press Enter in the same moment."""
_SETTLING = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams at so many deltas per second each, watched for `seconds`; then so many probing turns."""

    streams: int
    rate: float
    seconds: float
    probes: int

    def __str__(self) -> str:
        return f"{self.streams} x {self.rate:g} deltas/s"

    @property
    def model(self) -> str:
        """The model whose answer lasts until everything has been watched."""
        lasting = self.streams * _SPREAD + 2 * _SETTLING + self.seconds + self.probes * 0.1
        return paced(self.rate, int(self.rate * lasting))


async def carry(server: Server, load: Load) -> Figures:
    """CPU and latency per delta while the streams run, then the time to the first delta of turns beside them.

    Sockets are open and connections to the model warm before anything counts.
    """
    tally = Tally([])
    async with chats(server, load.streams + 1, tally) as (probe, *streaming):
        await warm_up([probe, *streaming])
        ends = [chat.expect("assistant_end") for chat in streaming]
        starting = random.Random(1)
        for chat in streaming:
            chat.say(load.model)
            await asyncio.sleep(starting.uniform(0, 2 * _SPREAD))
        await asyncio.sleep(_SETTLING)
        figures = await _watch(server, tally, load.seconds)
        figures |= await _probe(probe, load.probes)
        for end in ends:
            await soon(end)
    return figures


async def warm_up(talking: list[Chat]) -> None:
    """One short turn on each socket: connections, prepared statements and caches are there afterwards."""
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(chat.turn(paced(0, 5)) for chat in talking))


async def _watch(server: Server, tally: Tally, seconds: float) -> Figures:
    database = server.database_pids()
    tally.latencies.clear()
    tally.frames = 0
    own, stored = usage.cpu_seconds([server.pid]), usage.cpu_seconds(database)
    await asyncio.sleep(seconds)
    own, stored = usage.cpu_seconds([server.pid]) - own, usage.cpu_seconds(database) - stored
    latencies, frames = tally.latencies.copy(), tally.frames
    deltas = len(latencies)
    return {
        "CPU per delta, server process [us]": own / deltas * 1e6,
        "CPU per delta, with PostgreSQL [us]": (own + stored) / deltas * 1e6,
        "latency of a delta, median [ms]": percentile(latencies, 0.5) / 1e3,
        "latency of a delta, p95 [ms]": percentile(latencies, 0.95) / 1e3,
        "latency of a delta, p99 [ms]": percentile(latencies, 0.99) / 1e3,
        "deltas per frame": deltas / frames,
        "deltas/s received": deltas / seconds,
    }


async def _probe(probe: Chat, turns: int) -> Figures:
    """Short turns, one after another."""
    first: list[float] = []
    for _ in range(turns):
        turn = await probe.turn(paced(0, 1))
        assert turn.first_delta is not None
        first.append((turn.first_delta - turn.sent) / 1e3)
        await asyncio.sleep(0.02)
    return {
        "time to first delta, median [ms]": percentile(first, 0.5),
        "time to first delta, p95 [ms]": percentile(first, 0.95),
    }
