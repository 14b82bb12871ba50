"""Whether a right holds: asked in four places, answered alike in all of them."""

from dataclasses import dataclass
from itertools import product
from typing import Literal
from uuid import UUID

import asyncpg
import pytest

from db.ids import SignInId, UserId, new_id
from db.pool import Database
from db.stores.api_keys import ApiKeyStore
from db.stores.rights import RightsStore
from db.stores.sign_ins import SignInStore
from db.stores.tickets import TicketStore

Expiry = Literal["none", "later", "past"]


@dataclass(frozen=True)
class State:
    """What may be so of a credential and its user."""

    is_key: bool
    is_revoked: bool
    expiry: Expiry
    is_disabled: bool

    @property
    def holds(self) -> bool:
        return not self.is_revoked and self.expiry != "past" and not self.is_disabled


STATES = [
    State(is_key, is_revoked, expiry, is_disabled)
    for is_key, is_revoked, expiry, is_disabled in product(
        (True, False), (True, False), ("none", "later", "past"), (True, False)
    )
    if is_key or expiry != "none"  # every sign-in has an end
]


@dataclass(frozen=True)
class Given:
    """A user with a credential in that state, and a ticket got by it."""

    user_id: UserId
    id: UUID
    hash: bytes


async def given(database: asyncpg.Connection, state: State) -> Given:
    user, credential = UserId(new_id()), new_id()
    hash = credential.bytes * 2
    until = {"none": None, "later": "1 hour", "past": "-1 second"}[state.expiry]
    await database.execute(
        "insert into users (id, display_name, disabled_at) values ($1, 'Somebody', case when $2 then now() end)",
        user,
        state.is_disabled,
    )
    if state.is_key:
        await database.execute(
            """
            insert into api_keys (id, user_id, name, hash, last_four, scopes, expires_at, revoked_at)
            values ($1, $2, 'x', $3, 'xxxx', '{read}', now() + $4::text::interval, case when $5 then now() end)
            """,
            credential,
            user,
            hash,
            until,
            state.is_revoked,
        )
    else:
        await database.execute(
            """
            insert into sign_ins (id, user_id, expires_at, revoked_at)
            values ($1, $2, now() + $3::text::interval, case when $4 then now() end)
            """,
            credential,
            user,
            until,
            state.is_revoked,
        )
    await database.execute(
        """
        insert into socket_tickets (hash, user_id, sign_in_id, api_key_id, scopes, expires_at)
        values ($1, $2, case when not $4 then $3::uuid end, case when $4 then $3::uuid end, '{read}',
                now() + interval '1 minute')
        """,
        hash,
        user,
        credential,
        state.is_key,
    )
    return Given(user, credential, hash)


@pytest.mark.parametrize("state", STATES, ids=str)
async def test_every_place_gives_the_same_answer(pool: Database, database: asyncpg.Connection, state: State):
    it = await given(database, state)
    answers = {
        "looking": not await RightsStore(pool).revoked([it.id]),
        "ticket": await TicketStore(pool).take(it.hash, None) is not None,
        "door": await _at_the_door(pool, it, state) is not None,
    }
    assert answers == dict.fromkeys(answers, state.holds)


async def _at_the_door(pool: Database, it: Given, state: State) -> object:
    if state.is_key:
        return await ApiKeyStore(pool).use(it.hash, note_after_seconds=60)
    return await SignInStore(pool).user_of(SignInId(it.id), it.user_id)


async def test_what_is_not_there_does_not_hold_and_of_the_rest_nothing_is_said(
    pool: Database, database: asyncpg.Connection
):
    good = [await given(database, state) for state in STATES if state.holds]
    gone = await given(database, next(state for state in STATES if state.holds))
    await database.execute("delete from users where id = $1", gone.user_id)
    asked = [*(one.id for one in good), gone.id, nobodys := new_id()]
    found = await RightsStore(pool).revoked(asked)
    assert {item.id for item in found if item.kind == "credential"} == {gone.id, nobodys}
