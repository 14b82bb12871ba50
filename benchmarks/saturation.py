"""How much one core can do: the server alone on one CPU, everything else on the others."""

import asyncio
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import usage
from benchmarks.clients import PATIENCE, Chat, Tally, chats
from benchmarks.load import warm_up
from benchmarks.report import Figures, compare, in_turns
from benchmarks.servers import Server, bare_relay, service, upstream
from benchmarks.upstream import paced


async def run(home: Path, *, quick: bool) -> None:
    """Print deltas per second and short turns per second of one core."""
    rounds = 1 if quick else 3
    streams, deltas = (5, 500) if quick else (50, 2000)
    crowd, rate, seconds = (20, 50, 0.5) if quick else (200, 100, 4.0)
    talkers, talking = (5, 0.7) if quick else (32, 5.0)
    async with (
        upstream(home) as (model, model_pid),
        service(home, model) as ours,
        bare_relay(home, model) as bare,
        bare_relay(home, model, sdk_default=True) as default,
    ):
        servers = (ours, bare, default)
        with _one_cpu_each(servers, model_pid):
            measures = {one.name: partial(_all_of, one, streams, paced(0, deltas)) for one in servers}
            title = f"saturation: {streams} streams of {deltas} deltas, each sent at once; more is better"
            compare(title, await in_turns(rounds, measures), bare.name)

            lasting = paced(rate, int(rate * seconds))
            measures = {one.name: partial(_all_of, one, crowd, lasting) for one in servers}
            title = f"saturation: {crowd} streams for {seconds:g} s, {crowd * rate:,} deltas/s offered"
            compare(title, await in_turns(rounds, measures), bare.name)

            measures = {one.name: partial(_turns, one, talkers, talking) for one in servers}
            title = f"saturation: turns of 5 deltas, {talkers} sessions without a pause"
            compare(title, await in_turns(rounds, measures), bare.name)


async def _all_of(server: Server, streams: int, model: str) -> Figures:
    """Let every stream begin at once, and wait until the last has ended."""
    tally = Tally([])
    async with chats(server, streams, tally) as talking:
        await warm_up(talking)
        tally.latencies.clear()
        own, begun = usage.cpu_seconds([server.pid]), time.monotonic()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(chat.turn(model) for chat in talking))
        seconds = time.monotonic() - begun
        own = usage.cpu_seconds([server.pid]) - own
    deltas = len(tally.latencies)
    return {
        "deltas/s until the last end": deltas / seconds,
        "deltas per second of its CPU": deltas / own,
        "share of its CPU used [%]": own / seconds * 100,
    }


async def _turns(server: Server, talkers: int, seconds: float) -> Figures:
    """Let every session talk without a pause."""
    async with chats(server, talkers) as talking:
        await warm_up(talking)
        own, begun = usage.cpu_seconds([server.pid]), time.monotonic()
        turns = sum(await asyncio.gather(*(_talk(chat, begun + seconds) for chat in talking)))
        taken = time.monotonic() - begun
        own = usage.cpu_seconds([server.pid]) - own
    return {"turns/s": turns / taken, "CPU per turn, server process [ms]": own / turns * 1e3}


async def _talk(chat: Chat, until: float) -> int:
    turns = 0
    while time.monotonic() < until:
        await chat.turn(paced(0, 5))
        turns += 1
    return turns


@contextmanager
def _one_cpu_each(servers: Sequence[Server], model_pid: int) -> Generator[None, None, None]:
    """Give the servers, which are measured one at a time, one CPU, and the rest the others."""
    available = os.sched_getaffinity(0)
    first, *rest = sorted(available)
    if not rest:
        print("\nsaturation: there is only one CPU, which all processes share")
        yield
        return
    usage.pin([server.pid for server in servers], {first})
    others = [os.getpid(), model_pid, *(pid for server in servers for pid in server.database_pids())]
    usage.pin(others, set(rest))
    try:
        yield
    finally:
        usage.pin([os.getpid()], available)
