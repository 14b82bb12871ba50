"""What is in the audit log stays there."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from db.ids import UserId, new_id
from db.pool import Database
from db.stores.audit import AuditStore
from services.accounts.caller import USER_SCOPES, Caller, Credential
from services.audit import AuditLog
from services.telemetry.circumstances import Circumstances, under
from services.telemetry.meters import Meters


@pytest.fixture
def store(pool: Database) -> AuditStore:
    return AuditStore(pool)


@pytest.fixture
def audit(store: AuditStore) -> AuditLog:
    return AuditLog(store, Meters().audit, retention_days=30)


@pytest.fixture
async def user_id(database: asyncpg.Connection) -> UserId:
    user = UserId(new_id())
    await database.execute("insert into users (id, display_name) values ($1, 'Somebody')", user)
    return user


async def test_an_entry_tells_who_did_what_through_which_credential_and_from_where(
    audit: AuditLog, user_id: UserId
) -> None:
    key, session = Credential("api_key", new_id()), new_id()

    with under(Circumstances("req-1", "192.0.2.7")):
        await audit.note(Caller(user_id, USER_SCOPES, key), "session.delete", session, title="Plans")

    [entry], following = await audit.list(user_id=user_id, before=None, limit=10)
    assert following is None
    assert (entry.user_id, entry.credential_kind, entry.credential_id) == (user_id, "api_key", key.id)
    assert (entry.action, entry.subject_kind, entry.subject_id) == ("session.delete", "session", str(session))
    assert (entry.outcome, entry.address, entry.request_id) == ("done", "192.0.2.7", "req-1")
    assert entry.details == {"title": "Plans"}
    assert datetime.now(UTC) - entry.at < timedelta(minutes=1)


async def test_the_credential_of_the_request_is_noted_where_only_the_user_is_named(
    audit: AuditLog, user_id: UserId
) -> None:
    around = Circumstances("req-2", None)
    with under(around):
        around.credential = Credential("sign_in", new_id())
        await audit.note(user_id, "persona.delete", new_id())

    [entry], _ = await audit.list(user_id=user_id, before=None, limit=10)
    assert (entry.credential_kind, entry.credential_id) == ("sign_in", around.credential.id)


async def test_an_entry_outlives_its_user(audit: AuditLog, user_id: UserId, database: asyncpg.Connection) -> None:
    await audit.note(user_id, "user.delete", user_id)
    await database.execute("delete from users where id = $1", user_id)

    [entry], _ = await audit.list(user_id=user_id, before=None, limit=10)
    assert entry.action == "user.delete"


@pytest.mark.parametrize(
    "statement",
    [
        "update audit_log set outcome = 'refused' where user_id = $1",
        "delete from audit_log where user_id = $1",
        "with _ as (select $1::uuid) delete from audit_log",
    ],
)
async def test_entries_can_neither_be_changed_nor_deleted(
    audit: AuditLog, user_id: UserId, database: asyncpg.Connection, statement: str
) -> None:
    await audit.note(user_id, "module.delete", new_id())

    with pytest.raises(asyncpg.RaiseError, match="only added to"):
        await database.execute(statement, user_id)
    with pytest.raises(asyncpg.RaiseError, match="only added to"):
        await database.execute("truncate audit_log")

    assert len((await audit.list(user_id=user_id, before=None, limit=10))[0]) == 1


async def test_only_what_is_older_than_the_operator_wants_is_swept(
    audit: AuditLog, store: AuditStore, user_id: UserId, database: asyncpg.Connection
) -> None:
    await audit.note(user_id, "persona.delete", new_id())
    for days in (29, 31, 400):
        await an_old_entry(database, user_id, days)

    assert await store.sweep(older_than_days=30, most=1_000) == 2
    assert await store.sweep(older_than_days=30, most=1_000) == 0
    # Even then the last day is kept.
    await store.sweep(older_than_days=0, most=1_000)

    left, _ = await audit.list(user_id=user_id, before=None, limit=10)
    assert [entry.action for entry in left] == ["persona.delete"]


async def test_details_are_short_and_few_and_can_be_stored(audit: AuditLog, user_id: UserId) -> None:
    many: dict[str, Any] = {f"d{number}": number for number in range(50)}

    await audit.note(user_id, "library.import", None, long="x" * 10_000, odd="a\0b\ud800", scopes={"b", "a"}, **many)

    [entry], _ = await audit.list(user_id=user_id, before=None, limit=10)
    assert len(entry.details) == 12
    assert len(entry.details["long"]) == 200
    assert entry.details["odd"] == "ab?"
    assert entry.details["scopes"] == "a, b"


async def test_what_the_database_does_not_take_is_in_the_log(
    shared_database_url: str, user_id: UserId, caplog: pytest.LogCaptureFixture
) -> None:
    gone = await Database.connect(shared_database_url, size=1)
    await gone.close()

    await AuditLog(AuditStore(gone), Meters().audit, retention_days=1).note(user_id, "file.delete", "the-file")

    [error] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "file.delete" in error
    assert "the-file" in error
    assert str(user_id) in error


async def an_old_entry(database: asyncpg.Connection, user_id: UserId, days: int) -> None:
    # Ids tell the time: old ones come first.
    old = UUID(
        int=(int((datetime.now(UTC) - timedelta(days=days)).timestamp() * 1000) << 80) | 7 << 76 | new_id().int & 0xFFFF
    )
    await database.execute(
        """
        insert into audit_log (id, at, user_id, action, subject_kind, outcome)
        values ($1, now() - make_interval(days => $2), $3, 'session.export', 'session', 'done')
        """,
        old,
        days,
        user_id,
    )
