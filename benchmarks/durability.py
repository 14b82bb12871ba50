"""What waiting for the disk costs: the same load with and without it."""

from functools import partial
from pathlib import Path

from benchmarks.load import Load, carry
from benchmarks.report import compare, in_turns
from benchmarks.servers import service, upstream


async def run(home: Path, *, quick: bool) -> None:
    """Print CPU and latency per delta with a journal that waits for the disk and with one that does not."""
    load, rounds = (Load(10, 50, 0.7, 4), 1) if quick else (Load(100, 50, 4.0, 20), 3)
    async with (
        upstream(home) as (model, _),
        service(home, model, name="durable") as durable,
        service(home, model, name="not durable", settings={"JOURNAL__DURABLE": "false"}) as loose,
    ):
        measures = {server.name: partial(carry, server, load) for server in (durable, loose)}
        compare(f"durability: {load}", await in_turns(rounds, measures), loose.name)
