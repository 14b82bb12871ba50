"""What must be true after every test: the truth is whole, and nothing is left in progress."""

from collections.abc import Sequence
from contextlib import asynccontextmanager
from hashlib import sha256

import asyncpg
import orjson

from services.runs.events import frame_text
from tests.acceptance.client import Client
from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service
from tests.waiting import eventually

_POOL = 10 + 1
"""The service's default pool, and the connection that listens."""

_IN_PROGRESS = """
    SELECT 'run ' || id || ' is ' || state FROM runs WHERE state <> 'finished'
    UNION ALL SELECT 'work after run ' || run_id || ' is ' || state FROM post_responses WHERE state <> 'done'
    UNION ALL SELECT 'call ' || id || ' is ' || state FROM tool_calls WHERE finished_at IS NULL
    UNION ALL SELECT 'session ' || session_id || ' is leased' FROM journals WHERE run_id IS NOT NULL
    UNION ALL SELECT 'a connection is ' || state FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
"""

_CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'colloquy'
"""

_WRONG = """
    SELECT 'journal ' || j.session_id || ' has a hole' FROM journals j
    LEFT JOIN LATERAL (
        SELECT count(*) AS count, coalesce(max(seq), 0) AS newest FROM events e WHERE e.session_id = j.session_id
    ) e ON true
    WHERE e.newest <> j.last_seq OR e.count <> j.last_seq - j.kept_after
    UNION ALL
    SELECT 'run ' || r.id || ' has ' || count(e.seq) || ' ends' FROM runs r
    LEFT JOIN events e ON e.session_id = r.session_id AND e.run_id = r.id AND e.type = 'assistant_end'
    GROUP BY r.id HAVING count(e.seq) <> CASE WHEN r.finish_reason = 'steered' THEN 0 ELSE 1 END
    UNION ALL
    SELECT 'run ' || e.run_id || ' was shown a ' || e.type || ' after its end' FROM events e
    JOIN events last ON last.session_id = e.session_id AND last.run_id = e.run_id AND last.type = 'assistant_end'
    WHERE e.seq > last.seq AND e.type NOT IN ('stage_update', 'post_response_complete', 'interrupted')
    UNION ALL
    SELECT 'run ' || r.id || ' has ' || count(m.id) || ' replies' FROM runs r
    JOIN messages m ON m.run_id = r.id AND m.role = 'assistant'
    GROUP BY r.id HAVING count(m.id) > 1
"""


@asynccontextmanager
async def database(url: str):
    """A connection of the test's own."""
    connection: asyncpg.Connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def assert_nothing_in_progress(
    url: str, model: Narrator, *services: Service, log_may_tell_of_errors: bool = False
) -> None:
    """No run, no lease, no transaction, no stream of the model, no client and no more connections than at rest.

    And what is stored is whole: journals without a hole, one end for each run, replies that are what was shown.
    """
    async with database(url) as connection:

        async def is_at_rest() -> bool:
            return not await connection.fetch(_IN_PROGRESS) and model.is_quiet

        try:
            await eventually(is_at_rest, 20)
        except AssertionError:
            left = [row[0] for row in await connection.fetch(_IN_PROGRESS)]
            raise AssertionError(f"{left}; the model is {'quiet' if model.is_quiet else 'still asked'}") from None
        wrong = [row[0] for row in await connection.fetch(_WRONG)]
        assert wrong == [], wrong
        await _assert_replies_are_what_was_shown(connection)

        async def has_few_connections() -> bool:
            return await connection.fetchval(_CONNECTIONS) <= _POOL * len(services)

        await eventually(has_few_connections, 20)  # those of a service that was killed end when PostgreSQL looks
    for service in services:
        await eventually(lambda service=service: service.connections == 0, 15)
        assert log_may_tell_of_errors or '"level":"error"' not in service.log, service.log
        assert [path for path in service.home.iterdir() if path.name != "data"] == [], "a file was left behind"


async def assert_seen_is_stored(connection: asyncpg.Connection, client: Client) -> None:
    """Every event that the client was shown is in the journal, at its place and unchanged."""
    rows = await connection.fetch(
        "SELECT seq, type, body FROM events WHERE session_id = $1 ORDER BY seq", client.session_id
    )
    stored = [frame_text(row["type"], row["seq"], row["body"]) for row in rows]
    for seen, kept in zip(client.frames, stored, strict=False):
        assert seen == kept, f"seen was {seen}, kept is {kept}"
    assert len(client.frames) <= len(stored)


async def _assert_replies_are_what_was_shown(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(
        """
        SELECT r.id, r.finish_reason, m.content, m.finish_reason AS stored_reason, e.type, e.body
        FROM events e JOIN runs r ON r.id = e.run_id AND r.session_id = e.session_id
        LEFT JOIN messages m ON m.id = r.reply_message_id
        WHERE e.type IN ('text_delta', 'assistant_end') ORDER BY e.session_id, e.seq
        """
    )
    shown: dict[object, list[str]] = {}
    for row in rows:
        event = orjson.loads(row["body"])
        if row["type"] == "text_delta":
            shown.setdefault(row["id"], []).append(event["delta"])
            continue
        text = "".join(shown.get(row["id"], ()))
        assert event["text_sha256"] == sha256(text.encode()).hexdigest()
        assert event["finish_reason"] == row["finish_reason"]
        assert (row["content"] or "") == text
        assert row["stored_reason"] in (None, row["finish_reason"])


def figures(name: str, seconds: Sequence[float]) -> str:
    """A line with the usual percentiles in milliseconds."""
    ordered = sorted(seconds)
    p50, p95, p99 = (1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.95, 0.99))
    return f"{name}: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms of {len(ordered)}\n"


def p95(seconds: Sequence[float]) -> float:
    """The time that 95 of 100 do not exceed."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
