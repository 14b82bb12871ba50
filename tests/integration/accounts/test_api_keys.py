"""Keys of programs: what they allow, whose they are, and until when."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from db.ids import ApiKeyId, new_id
from services.accounts.api_keys import ApiKeys, new_key
from services.accounts.caller import LOCAL_CALLER, Caller, Credential, Scope
from services.errors import Conflict, InsufficientScope, InvalidRequest, NoAccounts, NotAuthenticated, NotFound
from tests.integration.accounts.conftest import Person, make_person


async def made(keys: ApiKeys, person: Person, **fields: Any) -> tuple[ApiKeyId, str]:
    record, text = await keys.create(
        person.caller, **{"name": "a key", "scopes": ["read", "chat"], "expires_at": None, **fields}
    )
    return record.id, text


async def test_a_key_shows_whose_it_is_and_allows_what_it_was_given(keys: ApiKeys, person: Person):
    key_id, text = await made(keys, person)
    caller = await keys.verify(text)
    assert caller == Caller(person.id, frozenset(("read", "chat")), Credential("api_key", key_id))


async def test_only_a_hash_of_it_is_kept(keys: ApiKeys, person: Person, database: asyncpg.Connection):
    key_id, text = await made(keys, person)
    row = await database.fetchrow("select api_keys::text as row, last_four from api_keys where id = $1", key_id)
    assert row is not None
    assert row["last_four"] == text[-4:]
    assert text not in row["row"]
    assert text[4:20] not in row["row"]
    assert text.encode().hex() not in row["row"]


async def test_a_key_that_nobody_made_shows_nothing(keys: ApiKeys, person: Person):
    _, text = await made(keys, person)
    for shown in (new_key(), text[:-1], text + "x", "", "clq_", "clq_" + "0" * 49):
        with pytest.raises(NotAuthenticated):
            await keys.verify(shown)


async def test_a_key_ends_when_it_expires_is_deleted_or_its_user_is_disabled(
    keys: ApiKeys, person: Person, other: Person, database: asyncpg.Connection
):
    expired_id, expired = await made(keys, person, expires_at=datetime.now(UTC) + timedelta(hours=1))
    deleted_id, deleted = await made(keys, person)
    _, disabled = await made(keys, other)
    for text in (expired, deleted, disabled):
        await keys.verify(text)
    await database.execute("update api_keys set expires_at = now() where id = $1", expired_id)
    await keys.delete(person.caller, deleted_id)
    await database.execute("update users set disabled_at = now() where id = $1", other.id)
    for text in (expired, deleted, disabled):
        with pytest.raises(NotAuthenticated):
            await keys.verify(text)


async def test_nobody_gives_what_they_have_not(keys: ApiKeys, person: Person):
    with pytest.raises(InsufficientScope) as refused:
        await made(keys, person, scopes=["read", "admin"])
    assert refused.value.details["scope"] == "admin"


async def test_who_is_no_administrator_any_more_has_no_key_of_one(keys: ApiKeys, database: asyncpg.Connection):
    admin = await make_person(database, is_admin=True)
    _, text = await made(keys, admin, scopes=["read", "admin"])
    assert (await keys.verify(text)).may("admin")
    await database.execute("update users set is_admin = false where id = $1", admin.id)
    assert (await keys.verify(text)).scopes == {"read"}


async def test_a_key_makes_no_keys_and_deletes_none_but_itself(keys: ApiKeys, person: Person):
    everything: list[Scope] = ["read", "write", "chat"]
    key_id, text = await made(keys, person, scopes=everything)
    other_id, _ = await made(keys, person)
    by_key = await keys.verify(text)
    with pytest.raises(InsufficientScope):
        await keys.create(by_key, name="one more", scopes=["read"], expires_at=None)
    with pytest.raises(InsufficientScope):
        await keys.delete(by_key, other_id)
    await keys.delete(by_key, key_id)
    with pytest.raises(NotAuthenticated):
        await keys.verify(text)


async def test_a_key_of_somebody_else_is_not_there(keys: ApiKeys, person: Person, other: Person):
    key_id, text = await made(keys, person)
    for missing in (key_id, ApiKeyId(new_id())):
        with pytest.raises(NotFound):
            await keys.delete(other.caller, missing)
    assert (await keys.list(other.id, before=None, limit=10))[0] == []
    assert (await keys.verify(text)).user_id == person.id


async def test_there_are_so_many_keys_and_no_more_however_many_are_asked_for_at_once(keys: ApiKeys, person: Person):
    answers = await asyncio.gather(*(made(keys, person) for _ in range(12)), return_exceptions=True)
    assert sum(isinstance(answer, Conflict) for answer in answers) == 7
    found, _ = await keys.list(person.id, before=None, limit=10)
    assert len(found) == 5
    await keys.delete(person.caller, found[0].id)
    await made(keys, person)


async def test_they_are_listed_newest_first_in_pages(keys: ApiKeys, person: Person):
    ids = [(await made(keys, person))[0] for _ in range(3)]
    first, following = await keys.list(person.id, before=None, limit=2)
    rest, end = await keys.list(person.id, before=following, limit=2)
    assert [key.id for key in (*first, *rest)] == ids[::-1]
    assert end is None


async def test_a_key_that_would_be_dead_at_once_is_not_made(keys: ApiKeys, person: Person):
    with pytest.raises(InvalidRequest):
        await made(keys, person, expires_at=datetime.now(UTC) - timedelta(seconds=1))


async def test_that_it_is_used_is_noted_once_a_minute(keys: ApiKeys, person: Person, database: asyncpg.Connection):
    key_id, text = await made(keys, person)
    used = "select last_used_at from api_keys where id = $1"
    assert await database.fetchval(used, key_id) is None
    await keys.verify(text)
    first = await database.fetchval(used, key_id)
    await keys.verify(text)
    assert await database.fetchval(used, key_id) == first
    await database.execute("update api_keys set last_used_at = now() - interval '61 seconds' where id = $1", key_id)
    await keys.verify(text)
    assert await database.fetchval(used, key_id) > first


async def test_the_audit_log_tells_of_the_first_use_of_each_day(
    keys: ApiKeys, person: Person, database: asyncpg.Connection
):
    key_id, text = await made(keys, person)
    for _ in range(3):
        await keys.verify(text)
    await database.execute("update api_keys set last_used_at = now() - interval '1 day' where id = $1", key_id)
    await keys.verify(text)
    await keys.delete(person.caller, key_id)
    rows = await database.fetch("select action from audit_log where subject_id = $1 order by id", str(key_id))
    assert [row["action"] for row in rows] == ["api_key.create", "api_key.use", "api_key.use", "api_key.revoke"]


async def test_without_accounts_there_is_nothing_to_make_a_key_for(keys: ApiKeys):
    with pytest.raises(NoAccounts):
        await keys.create(LOCAL_CALLER, name="of no use", scopes=["read"], expires_at=None)
    with pytest.raises(NoAccounts):
        await keys.delete(LOCAL_CALLER, ApiKeyId(new_id()))
