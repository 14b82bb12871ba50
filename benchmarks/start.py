"""How long a start takes when the database is already there."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import httpx2

from benchmarks.report import Figures, compare, in_turns
from benchmarks.servers import Server, bare_relay, service, upstream


async def run(home: Path, *, quick: bool) -> None:
    """Print the seconds from the command to a server that says it is ready, and what the first start takes."""
    rounds = 1 if quick else 5
    async with upstream(home) as (model, _):
        first = await _start(lambda: service(home, model))
        measures = {
            "service": partial(_start, lambda: service(home, model)),
            "bare relay": partial(_start, lambda: bare_relay(home, model)),
        }
        results = await in_turns(rounds, measures)
    compare("start: from the command to the first answer", results, "bare relay")
    print(f"  The first start, which makes the database, took {first['seconds']:.2f} s.")


async def _start(start: Callable[[], AbstractAsyncContextManager[Server]]) -> Figures:
    begun = time.monotonic()
    async with start() as server, httpx2.AsyncClient() as http:
        path = "/readyz" if server.has_database else "/openapi.json"
        (await http.get(server.address + path)).raise_for_status()
        return {"seconds": time.monotonic() - begun}
