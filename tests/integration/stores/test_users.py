"""What must hold of users whatever happens at the same moment."""

import asyncio

import asyncpg
import pytest

from db.ids import UserId, new_id
from db.pool import Database
from db.stores.users import LastAdministrator, UserStore
from tests.waiting import eventually


async def test_the_second_of_two_administrators_waits_for_the_first_and_then_stays(database_url: str) -> None:
    ada, ben = UserId(new_id()), UserId(new_id())
    database = await Database.connect(database_url, size=2)
    connection = await asyncpg.connect(database_url)
    watcher = await asyncpg.connect(database_url)

    async def is_waiting() -> bool:
        return await watcher.fetchval(
            "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%FOR UPDATE%')"
        )

    try:
        for user, email in ((ada, "ada@example.org"), (ben, "ben@example.org")):
            await connection.execute(
                "insert into users (id, display_name, email, is_admin) values ($1, '', $2, true)", user, email
            )
        first = connection.transaction()
        await first.start()
        await connection.execute("update users set is_admin = false where id = $1", ada)
        second = asyncio.create_task(UserStore(database).govern(ben, is_admin=False, is_disabled=None))
        await eventually(is_waiting)
        await first.commit()

        with pytest.raises(LastAdministrator):
            await second
        assert await connection.fetchval("select is_admin from users where id = $1", ben) is True
    finally:
        await connection.close()
        await watcher.close()
        await database.close()
