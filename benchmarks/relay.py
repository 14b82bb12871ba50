"""What a delta costs on its way through Colloquy, beside a relay that stores nothing."""

from functools import partial
from pathlib import Path

from benchmarks.load import Load, carry
from benchmarks.report import compare, in_turns
from benchmarks.servers import bare_relay, service, upstream


async def run(home: Path, *, quick: bool) -> None:
    """Print CPU and latency per delta, and the time to the first one, at 1, 50 and 200 streams."""
    streams, seconds, probes, rounds = ((10,), 0.7, 4, 1) if quick else ((1, 50, 200), 4.0, 20, 3)
    async with (
        upstream(home) as (model, _),
        service(home, model) as ours,
        bare_relay(home, model) as bare,
        bare_relay(home, model, sdk_default=True) as default,
    ):
        for count in streams:
            load = Load(count, 50, seconds, probes)
            measures = {server.name: partial(carry, server, load) for server in (ours, bare, default)}
            compare(f"relay: {load}", await in_turns(rounds, measures), bare.name)
