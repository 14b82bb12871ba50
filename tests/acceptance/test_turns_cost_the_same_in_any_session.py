"""What a turn costs does not grow with the length of its session: statements, bytes read, bytes written."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from uuid import UUID

import asyncpg
import httpx2

from db.ids import new_id
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator
from tests.postgres_proxy import PostgresProxy, proxied

LENGTHS = (10, 10_000)
TURNS = 12
WORDS = "Ten messages of this length are more than the model here can take. " * 20
TOKENS = 300
"""Of each old message: both sessions fill the window, so the model is given equally much of both."""


@dataclass(frozen=True)
class Cost:
    """What one turn cost the database."""

    statements: int
    answered: int
    wal: int


async def write_history(database: "asyncpg.Connection[asyncpg.Record]", session: str, length: int) -> None:
    ids = [new_id() for _ in range(length)]
    rows = [
        (id, UUID(session), parent, ("user", "assistant")[number % 2], WORDS, TOKENS)
        for number, (id, parent) in enumerate(zip(ids, [None, *ids], strict=False))
    ]
    columns = ["id", "session_id", "parent_id", "role", "content", "token_count"]
    await database.copy_records_to_table("messages", records=rows, columns=columns)
    await database.execute("UPDATE sessions SET active_leaf_id = $2 WHERE id = $1", UUID(session), ids[-1])


async def turn(
    http: httpx2.AsyncClient, session: str, proxy: PostgresProxy, database: "asyncpg.Connection[asyncpg.Record]"
) -> Cost:
    before = proxy.statements, proxy.answered, await wal(database)
    reply = await http.post(f"/api/sessions/{session}/messages", json={"content": "And now?"})
    assert reply.json()["finish_reason"] == "stop", reply.text
    after = proxy.statements, proxy.answered, await wal(database)
    return Cost(*(now - then for now, then in zip(after, before, strict=True)))


async def wal(database: "asyncpg.Connection[asyncpg.Record]") -> int:
    return int(await database.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


def usual(costs: Sequence[Cost]) -> Cost:
    """Housekeeping and how deltas are gathered add to some turns, so the middle one counts."""
    return Cost(
        int(median(cost.statements for cost in costs)),
        int(median(cost.answered for cost in costs)),
        int(median(cost.wal for cost in costs)),
    )


async def test_a_turn_costs_as_much_after_ten_thousand_messages_as_after_ten(
    database_url: str, start: StartService, model: Narrator
):
    model.models[0]["context_length"] = 3000
    database = await asyncpg.connect(database_url)
    try:
        async with proxied(database_url) as (address, proxy):
            service = await start(address, TIMEOUTS__LEASE=60, CONTEXT__DEFAULT_WINDOW=3000, CONTEXT__REPLY_TOKENS=512)
            async with httpx2.AsyncClient(base_url=service.address, timeout=60) as http:
                sessions = [(await http.post("/api/sessions", json={})).json()["id"] for _ in LENGTHS]
                costs: list[list[Cost]] = [[] for _ in LENGTHS]
                for session, length in zip(sessions, LENGTHS, strict=True):
                    await write_history(database, session, length)
                await database.execute("ANALYZE messages")
                for number in range(TURNS + 2):
                    for session, spent in zip(sessions, costs, strict=True):
                        cost = await turn(http, session, proxy, database)
                        if number >= 2:  # the first make room and warm up
                            spent.append(cost)
    finally:
        await database.close()

    short, long = map(usual, costs)
    # One commit more or less is a matter of how events gather, which is a matter of time.
    assert abs(short.statements - long.statements) <= 1
    assert long.statements < 20
    assert 0.8 < long.answered / short.answered < 1.25
    assert 0.7 < long.wal / short.wal < 1.4
