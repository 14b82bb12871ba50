"""All keys are sealed anew under the newest key of the ring."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest
from pydantic import SecretStr

from api.keys import secret_keys
from api.rotation import KeysLeft, rotate_keys
from api.settings import Settings
from db.ids import UserId
from db.pool import Database
from db.stores.connections import ConnectionStore
from services.accounts.secrets import KeyRing
from services.connections.rotation import KeyRotation
from services.connections.vault import PURPOSE, KeyUnreadable, KeyVault
from tests.integration.connections.conftest import NEW, OLD, Replicas, new_owner
from tests.service import local_settings

MANY = 230
"""More than two batches."""


@pytest.fixture
async def alone(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A database in which nobody else has saved anything."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def pool_alone(database_url: str) -> AsyncIterator[Database]:
    """A pool on it."""
    pool = await Database.connect(database_url, size=2)
    yield pool
    await pool.close()


async def saved(pool: Database, owner: UserId, ring: KeyRing, count: int) -> None:
    """So many connections of that owner, sealed with that ring; each key names its connection."""
    async with AsyncExitStack() as stack:
        replica = await Replicas(pool, stack).start(tuple(ring))
        for number in range(count):
            given = {"name": f"c{number}", "kind": "openai", "api_key": f"sk-of-c{number}"}
            await replica.service.create(owner, given)


async def test_all_keys_are_sealed_anew_and_nothing_else_changes(
    pool_alone: Database, alone: asyncpg.Connection
) -> None:
    owner = await new_owner(alone)
    await saved(pool_alone, owner, KeyRing([OLD]), MANY)
    store, vault = ConnectionStore(pool_alone), KeyVault(KeyRing([NEW, OLD]))
    unkeyed = "select name, base_url, version, updated_at, last_four from provider_connections order by id"
    before = await alone.fetch(unkeyed)

    first, second = await KeyRotation(store, vault).run(), await KeyRotation(store, vault).run()

    assert (first.resealed, first.unreadable) == (MANY, [])
    assert (second.resealed, second.unreadable) == (0, [])
    assert await alone.fetch(unkeyed) == before
    newest_only = KeyVault(KeyRing([NEW]))
    rows = await store.list(owner, before=None, limit=MANY)
    assert {newest_only.open(row) for row in rows} == {f"sk-of-c{number}" for number in range(MANY)}


async def test_one_that_was_stopped_goes_on_where_it_was(pool_alone: Database, alone: asyncpg.Connection) -> None:
    owner = await new_owner(alone)
    await saved(pool_alone, owner, KeyRing([OLD]), MANY)
    store, vault = ConnectionStore(pool_alone), KeyVault(KeyRing([NEW, OLD]))
    await alone.execute(
        """
        create function stop_here() returns trigger language plpgsql as $$
        begin
            if (select count(*) from provider_connections where key_id = 'new') >= 150 then raise 'stopped'; end if;
            return new;
        end $$;
        create trigger stop_here before update on provider_connections for each row execute function stop_here()
        """
    )
    with pytest.raises(Exception, match="stopped"):
        await KeyRotation(store, vault).run()
    await alone.execute("drop trigger stop_here on provider_connections")

    rest = await KeyRotation(store, vault).run()

    assert rest.resealed == MANY - 150


async def test_a_key_that_its_owner_changes_meanwhile_is_not_put_back(
    pool_alone: Database, alone: asyncpg.Connection
) -> None:
    owner = await new_owner(alone)
    await saved(pool_alone, owner, KeyRing([OLD]), 1)
    store, vault = ConnectionStore(pool_alone), KeyVault(KeyRing([NEW, OLD]))
    read = (await store.sealed_otherwise("new", after=None, limit=1))[0]
    async with AsyncExitStack() as stack:
        replica = await Replicas(pool_alone, stack).start((NEW, OLD))
        await replica.service.update(owner, "c0", {"api_key": "sk-changed"}, version=None)

    late = vault.seal(vault.open(read), read.id, read.owner_id)
    assert late.sealed is not None
    assert await store.reseal(read, late.sealed, "new") is False

    assert [vault.open(row) for row in await store.list(owner, before=None, limit=5)] == ["sk-changed"]


async def test_what_cannot_be_opened_is_told_and_left_as_it_is(pool_alone: Database, alone: asyncpg.Connection) -> None:
    owner = await new_owner(alone)
    await saved(pool_alone, owner, KeyRing([OLD]), 3)
    rows = await alone.fetch("select id, sealed_key from provider_connections order by id")
    await alone.execute(
        "update provider_connections set sealed_key = $1 where id = $2", rows[0]["sealed_key"], rows[1]["id"]
    )
    await alone.execute("update provider_connections set key_id = 'lost' where id = $1", rows[2]["id"])
    store, vault = ConnectionStore(pool_alone), KeyVault(KeyRing([NEW, OLD]))

    done = await KeyRotation(store, vault).run()

    assert done.resealed == 1
    assert done.unreadable == [rows[1]["id"], rows[2]["id"]]
    left = await store.list(owner, before=None, limit=5)
    with pytest.raises(KeyUnreadable):
        vault.open(left[0])


def settings(database_url: str, *secrets: str) -> Settings:
    """Settings with that ring."""
    return local_settings(secret_key=SecretStr(",".join(secrets)), database_url=SecretStr(database_url))


OLDER, NEWER = "n8Kq3vZ1xW7bT5mR2yL9pD4fG6hJ0sAe", "Vb7Yt2Qm9Lx4Rk1Wz8Pn5Hd3Fg6Jc0Su"


async def test_the_command_says_what_it_did_and_fails_where_a_secret_is_missing(
    database_url: str, pool_alone: Database, alone: asyncpg.Connection
) -> None:
    owner = await new_owner(alone)
    await saved(pool_alone, owner, secret_keys(settings(database_url, OLDER)).derive(PURPOSE), 2)

    with pytest.raises(KeysLeft, match="2 keys cannot be opened"):
        _ = [line async for line in rotate_keys(settings(database_url, NEWER))]
    told = [line async for line in rotate_keys(settings(database_url, NEWER, OLDER))]
    again = [line async for line in rotate_keys(settings(database_url, NEWER))]

    assert told[0].startswith("2 keys")
    assert again[0].startswith("0 keys")
    vault = KeyVault(secret_keys(settings(database_url, NEWER)).derive(PURPOSE))
    rows = await ConnectionStore(pool_alone).list(owner, before=None, limit=5)
    assert [vault.open(row) for row in rows] == ["sk-of-c1", "sk-of-c0"]
