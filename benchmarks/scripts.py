"""What a script costs: by itself, beside others, per call of `ctx`, and to be rid of; against the bare interpreter."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from pydantic_monty import AsyncFunctionSnapshot, AsyncMonty, ClassInstance, MontyComplete

from benchmarks.report import Figures, compare, in_turns
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptLimits
from services.scripts.values import Json

_TRIVIAL = 'ctx.get_variable("name")'
_CALLS = 400
_MANY_CALLS = f'for _ in range({_CALLS}):\n    ctx.get_variable("name")'
_ENDLESS = 'ctx.get_variable("begun")\nwhile True: pass'
_PATIENT = ScriptLimits(cpu_seconds=30, timeout_ms=60_000)

Run = Callable[[str], Awaitable[object]]
Open = Callable[[asyncio.Event], AbstractAsyncContextManager[Run]]


async def run(home: Path, *, quick: bool) -> None:
    """Print times of scripts in the sandbox and in the interpreter's own pool, without hardening and checks."""
    rounds, scripts = (1, 50) if quick else (5, 500)
    measures = {"sandbox": partial(_measure, _sandbox, scripts), "bare": partial(_measure, _bare, scripts)}
    compare(f"scripts: {scripts} of one call", await in_turns(rounds, measures), "bare")


async def _measure(open_: Open, scripts: int) -> Figures:
    called = asyncio.Event()
    begun = time.perf_counter()
    async with open_(called) as perform:
        await perform("")
        start = time.perf_counter() - begun
        one = await _timed(perform(_TRIVIAL) for _ in range(scripts))
        await asyncio.gather(*(perform(_TRIVIAL) for _ in range(10)))  # that many processes are up
        ten = 0.0
        for _ in range(scripts // 10):
            begun = time.perf_counter()
            await asyncio.gather(*(perform(_TRIVIAL) for _ in range(10)))
            ten += time.perf_counter() - begun
        calls = await _timed(perform(_MANY_CALLS) for _ in range(5))
        return {
            "start [ms]": start * 1e3,
            "one after the other, each [ms]": one * 1e3,
            "10 at once, all [ms]": ten / (scripts // 10) * 1e3,
            "call of ctx [us]": calls / _CALLS * 1e6,
            "to cancel an endless one [ms]": await _cancel(perform, called) * 1e3,
        }


async def _timed(runs: Iterable[Awaitable[object]]) -> float:
    """Seconds that each takes, one after the other."""
    count = 0
    begun = time.perf_counter()
    for one in runs:
        await one
        count += 1
    return (time.perf_counter() - begun) / count


async def _cancel(perform: Run, called: asyncio.Event) -> float:
    called.clear()
    endless = asyncio.ensure_future(perform(_ENDLESS))
    await asyncio.wait_for(called.wait(), 10)
    await asyncio.sleep(0.05)
    begun = time.perf_counter()
    endless.cancel()
    with suppress(asyncio.CancelledError):
        await endless
    return time.perf_counter() - begun


class _Host:
    def __init__(self, called: asyncio.Event) -> None:
        self._called = called

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        self._called.set()
        return name


@asynccontextmanager
async def _sandbox(called: asyncio.Event) -> AsyncGenerator[Run, None]:
    async def count_tokens(text: str) -> int:
        return len(text)

    async with Sandbox(count_tokens=count_tokens) as sandbox:
        host = _Host(called)
        yield lambda script: sandbox.run(script, host, _PATIENT, may_use_ai=False)


@asynccontextmanager
async def _bare(called: asyncio.Event) -> AsyncGenerator[Run, None]:
    async with AsyncMonty(max_processes=64) as pool:

        async def perform(script: str) -> None:
            async with pool.checkout() as session:
                stop = await session.feed_start(script, inputs={"ctx": ClassInstance(object())})
                while not isinstance(stop, MontyComplete):
                    assert isinstance(stop, AsyncFunctionSnapshot)
                    called.set()
                    stop = await stop.resume({"return_value": "name"})

        yield perform
    # See LAST_BREATH in services/scripts/workers.py.
    await asyncio.sleep(0.05)
