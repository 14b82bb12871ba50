"""What must be true when everybody has gone."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx2

from tests.acceptance.aftermath import assert_nothing_in_progress, database
from tests.acceptance.processes import Service
from tests.soak.stack import Stack
from tests.waiting import eventually

_MORE_MIB = 150
"""What a process may have grown by over these minutes: caches, and memory that its allocator keeps."""


async def assert_all_is_well(stack: Stack, data_dir: Path, accepted: Sequence[tuple[str, str]]) -> list[str]:
    """Nothing is left, and nothing was lost; returns figures for people."""
    url, services = stack.postgres.url, stack.all_there
    async with database(url) as connection:
        await _stop_what_nobody_reads(connection, stack)
    await assert_nothing_in_progress(url, stack.model, *services, log_may_tell_of_errors=True)
    async with database(url) as connection:
        await _assert_accepted_is_answered(connection, accepted)
        orphans = await _assert_files_are_whole(connection, data_dir)
        runs = await connection.fetch("SELECT finish_reason, count(*) FROM runs GROUP BY 1 ORDER BY 2 DESC")
        sizes = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM events) events, (SELECT count(*) FROM messages) messages"
        )
    assert sizes is not None
    return [
        f"runs       {sum(row[1] for row in runs)} ({', '.join(f'{row[0]} {row[1]}' for row in runs)})",
        f"stored     {sizes['events']} events, {sizes['messages']} messages; {orphans} files without a row",
        f"accepted   {len(accepted)} messages were seen to be taken, and each has its end",
    ]


async def _stop_what_nobody_reads(connection: "asyncpg.Connection[asyncpg.Record]", stack: Stack) -> None:
    """End the runs whose users went away while a model talked without end, or a tool waited for their word."""
    service = stack.all_there[0]

    async def is_nothing_running() -> bool:
        rows = await connection.fetch("SELECT DISTINCT session_id, owner_id FROM runs WHERE state <> 'finished'")
        for row in rows:
            headers = stack.headers_of[str(row["owner_id"])]
            with suppress(httpx2.HTTPStatusError):  # it may have ended just now
                path = f"/api/sessions/{row['session_id']}/interrupt"
                await service.request("POST", path, json={}, headers=headers)
        return not rows

    await eventually(is_nothing_running, 90)


async def _assert_accepted_is_answered(
    connection: "asyncpg.Connection[asyncpg.Record]", accepted: Sequence[tuple[str, str]]
) -> None:
    rows = await connection.fetch(
        """
        SELECT a.session_id, a.message_id FROM unnest($1::uuid[], $2::text[]) AS a (session_id, message_id)
        LEFT JOIN runs r ON r.session_id = a.session_id AND r.client_message_id = a.message_id
        WHERE r.state IS DISTINCT FROM 'finished'
        """,
        [session for session, _ in accepted],
        [message for _, message in accepted],
    )
    assert [tuple(row) for row in rows] == [], "messages that were taken and never answered"


async def _assert_files_are_whole(connection: "asyncpg.Connection[asyncpg.Record]", data_dir: Path) -> int:
    """Each row has its bytes; returns how many bytes have no row, which the sweeper throws away after an hour."""
    rows = await connection.fetch("SELECT id, sha256 FROM files")
    kept = {path.name: path for path in data_dir.glob("files/*/[0-9a-f][0-9a-f]/*")}
    for row in rows:
        assert hashlib.sha256(kept[str(row["id"])].read_bytes()).hexdigest() == row["sha256"]
    return len(kept.keys() - {str(row["id"]) for row in rows})


def assert_memory_is_back(before: dict[int, int], services: Sequence[Service]) -> list[str]:
    """No process has grown by more than it may."""
    lines: list[str] = []
    for service in services:
        then, now = before[service.process.pid] / 2**20, service.memory / 2**20
        lines.append(f"memory     {then:.0f} MiB after its start, {now:.0f} MiB now")
        assert now - then < _MORE_MIB, lines[-1]
    return lines


def errors_told(services: Sequence[Service]) -> Counter[str]:
    """What the logs call errors, or tell with a traceback: by logger, and the beginning of what is said."""
    found = Counter[str]()
    for service in services:
        for line in service.log.splitlines():
            if '"level":"error"' in line or "Traceback" in line:
                found[_in_short(line)] += 1
    return found


def _in_short(line: str) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        return line[:200]
    reason = (said.get("exception") or "").strip().rpartition("\n")[2]
    return f"{said['logger']}: {said['message'][:60]} {reason[:160]}"


def ended_well(service: Service) -> bool:
    """Whether the process has ended by itself with exit code 0, in half a minute at most."""
    return service.process.wait(30) == 0
