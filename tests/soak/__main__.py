"""See `tests.soak`. Ends with 0 if all is well, with 1 and the reason if not."""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Coroutine
from pathlib import Path

from db.binaries import find_binaries
from tests.acceptance.narrator import Narrator
from tests.ledger import Ledger
from tests.postgres import children_of, durable_server
from tests.soak.findings import assert_all_is_well, assert_memory_is_back, ended_well, errors_told
from tests.soak.stack import REPLICAS, Stack, Trouble, probed
from tests.soak.tally import Tally
from tests.soak.users import User, tell


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--pause", type=float, default=8, help="seconds between two faults, about")
    words = parser.parse_args()
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # the model server, about those who hang up on it
    tally = Tally()
    try:
        asyncio.run(_soak(tally, words.seconds, words.seed, words.users, words.pause))
    except AssertionError as wrong:
        _say(*traceback.format_tb(wrong.__traceback__)[-3:], f"NOT WELL   {str(wrong)[-1_000:]}")
        return 1
    _say("all is well")
    return 0


async def _soak(tally: Tally, seconds: float, seed: int, users: int, pause: float) -> None:
    binaries = find_binaries()
    with tempfile.TemporaryDirectory(prefix="colloquy-soak-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        async with durable_server(binaries) as postgres, Narrator() as model:
            tell(model, random.Random(seed))
            stack = Stack(home, postgres, model, Ledger(home / "ledger"), tally)
            try:
                await _live(stack, tally, seconds, seed, users, pause)
                await _look(stack, tally, home)
            finally:
                _say(*tally.lines())
                for service in [*stack.all_there, *stack.gone]:
                    service.kill()


async def _live(stack: Stack, tally: Tally, seconds: float, seed: int, users: int, pause: float) -> None:
    for place in range(REPLICAS):
        await stack.start(place)
    _say(f"soaking    {users} users at {REPLICAS} processes for {seconds:g} s, seed {seed}")
    people = [User(number, seed, stack, tally) for number in range(users)]
    for person in people:
        await person.join()
    trouble = Trouble(stack, random.Random(seed), tally, pause)
    async with probed(stack, tally):
        await _until_one_fails([*(person.live() for person in people), trouble.go_on()], seconds)


async def _until_one_fails(lives: list[Coroutine[None, None, None]], seconds: float) -> None:
    tasks = [asyncio.create_task(life) for life in lives]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _look(stack: Stack, tally: Tally, home: Path) -> None:
    began = time.monotonic()
    services = stack.all_there
    lines = await assert_all_is_well(stack, home / "data", tally.accepted)
    _say(*lines, f"quiet      {time.monotonic() - began:.1f} s after the last user had gone")
    for name, count in errors_told([*services, *stack.gone]).most_common(10):
        _say(f"log        {count} x {name}")
    _say(*assert_memory_is_back(stack.memory, services))
    helpers = [pid for service in services for pid in children_of(service.process.pid)]
    for service in services:
        service.terminate()
    ended = [await asyncio.to_thread(ended_well, service) for service in services]
    assert all(ended), f"processes that were asked to stop ended with {[one.process.returncode for one in services]}"
    left = [pid for pid in helpers if Path(f"/proc/{pid}").exists()]
    assert not left, f"processes {left} have outlived those that started them"


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
