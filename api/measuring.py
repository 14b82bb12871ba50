"""Figures of the service's state, looked up when somebody asks for them, and the punctuality of its loop."""

from contextlib import AsyncExitStack

from db.pool import Database
from services.runs.engine import RunEngine
from services.runs.feed import Feeds
from services.runs.journal import Journal
from services.scripts.sandbox import Sandbox
from services.telemetry.loop_lag import LoopLag
from services.telemetry.meters import Meters
from websocket.manager import ConnectionManager


async def open_measuring(
    meters: Meters,
    stack: AsyncExitStack,
    *,
    database: Database,
    journal: Journal,
    feeds: Feeds,
    engine: RunEngine,
    sandbox: Sandbox,
    sockets: ConnectionManager,
) -> None:
    """Tell of all of these; `stack` ends what looks at the loop."""
    lag = await _open_lag(meters, stack)
    meters.see("colloquy_event_loop_lag_worst_seconds", "The longest lag of the last minute.", lambda: lag.worst)
    meters.see("colloquy_sockets_open", "Sockets that are open.", lambda: sockets.open_connections)
    meters.see("colloquy_readers", "Readers of journals: sockets and streams.", lambda: feeds.readers)
    meters.see(
        "colloquy_journal_lag_seconds", "How long the oldest event has waited to be durable.", lambda: journal.lag
    )
    meters.see_each(
        "colloquy_runs",
        "Runs performed here, those of them that wait for somebody's word, and those queued on all replicas.",
        "state",
        lambda: _runs(engine),
    )
    meters.see_each(
        "colloquy_database_connections",
        "Connections of the pool, and how many wait for one.",
        "state",
        lambda: {**database.connections, "waiting": database.waiting},
    )
    meters.see_each(
        "colloquy_sandbox_places", "Places for scripts, and how many wait for one.", "state", lambda: sandbox.places
    )


async def _open_lag(meters: Meters, stack: AsyncExitStack) -> LoopLag:
    lag = LoopLag(meters.loop_lag)
    await stack.enter_async_context(lag.running())
    return lag


def _runs(engine: RunEngine) -> dict[str, float]:
    performing = engine.performing
    paused = sum(run.is_paused for run in performing)
    return {"active": len(performing) - paused, "paused": paused, "queued": engine.queued}
