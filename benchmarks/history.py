"""Whether a turn costs more in a long session than in a short one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import asyncpg

from benchmarks import usage
from benchmarks.clients import Chat, chat_on
from benchmarks.load import warm_up
from benchmarks.report import Figures, compare, percentile
from benchmarks.servers import Server, service, upstream
from benchmarks.upstream import paced
from db.ids import new_id

_TOKENS = 300
"""Of each old message, ten of which do not fit: the model is given equally much of every session."""
_WINDOW = {"CONTEXT__DEFAULT_WINDOW": "2048", "CONTEXT__REPLY_TOKENS": "512"}
_WORDS = "Ten messages of this length are more than the model of this benchmark can take. " * 15


async def run(home: Path, *, quick: bool) -> None:
    """Print what a turn takes and writes in sessions of 10, 1,000 and 10,000 messages."""
    lengths, rounds, turns = ((10, 200), 1, 5) if quick else ((10, 1000, 10000), 3, 40)
    async with upstream(home) as (model, _), service(home, model, settings=_WINDOW) as ours:
        database = await asyncpg.connect(ours.database_url())
        chats: dict[str, Chat] = {}
        try:
            for length in lengths:
                session = await _session_with(ours, database, length)
                chats[f"{length:,} messages"] = await chat_on(ours, session)
            await database.execute("ANALYZE messages")
            await warm_up(list(chats.values()))
            results: dict[str, list[Figures]] = {name: [] for name in chats}
            for _ in range(rounds):
                for name, figures in (await _round(ours, database, chats, turns)).items():
                    results[name].append(figures)
        finally:
            await asyncio.gather(*(chat.close() for chat in chats.values()))
            await database.close()
    compare(f"history: {turns} turns of 5 deltas per round", results, next(iter(results)))


async def _session_with(server: Server, database: "asyncpg.Connection[asyncpg.Record]", length: int) -> str:
    """A session with a chain of `length` messages, put straight into the database."""
    [session] = await server.new_sessions(1)
    ids = [new_id() for _ in range(length)]
    rows = [
        (id, UUID(session), parent, ("user", "assistant")[number % 2], _WORDS, _TOKENS)
        for number, (id, parent) in enumerate(zip(ids, [None, *ids], strict=False))
    ]
    columns = ["id", "session_id", "parent_id", "role", "content", "token_count"]
    await database.copy_records_to_table("messages", records=rows, columns=columns)
    await database.execute("UPDATE sessions SET active_leaf_id = $2 WHERE id = $1", UUID(session), ids[-1])
    return session


async def _round(
    server: Server, database: "asyncpg.Connection[asyncpg.Record]", chats: dict[str, Chat], turns: int
) -> dict[str, Figures]:
    """The times turn by turn in all sessions, then what the database does for each session in a row of turns."""
    times: dict[str, list[int]] = {name: [] for name in chats}
    for _ in range(turns):
        for name, chat in chats.items():
            turn = await chat.turn(paced(0, 5))
            times[name].append(turn.ended - turn.sent)
    figures = {name: _times(taken) for name, taken in times.items()}
    for name, chat in chats.items():
        figures[name] |= await _work(server, database, chat, turns)
    return figures


def _times(taken: Sequence[int]) -> Figures:
    return {
        "turn, median [ms]": percentile(taken, 0.5) / 1e3,
        "turn, p95 [ms]": percentile(taken, 0.95) / 1e3,
    }


async def _work(server: Server, database: "asyncpg.Connection[asyncpg.Record]", chat: Chat, turns: int) -> Figures:
    before = await _counts(database)
    own, stored = usage.cpu_seconds([server.pid]), usage.cpu_seconds(server.database_pids())
    for _ in range(turns):
        await chat.turn(paced(0, 5))
    own, stored = usage.cpu_seconds([server.pid]) - own, usage.cpu_seconds(server.database_pids()) - stored
    after = await _counts(database)
    work = {name: (after[name] - before[name]) / turns for name in after}
    return work | {"CPU, server process [ms]": own / turns * 1e3, "CPU, PostgreSQL [ms]": stored / turns * 1e3}


async def _counts(database: "asyncpg.Connection[asyncpg.Record]") -> Figures:
    """What the database has written so far. Housekeeping is in it too, a few times in a second."""
    row = await database.fetchrow(
        """
        SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, pg_current_wal_insert_lsn() - '0/0'::pg_lsn
        """
    )
    assert row is not None
    return {name: float(value) for name, value in zip(("writing transactions", "WAL [bytes]"), row, strict=True)}
