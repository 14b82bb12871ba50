"""Tickets: once, soon, for one socket."""

import asyncio

import asyncpg
import pytest

from db.ids import SessionId, new_id
from services.accounts.api_keys import ApiKeys
from services.accounts.caller import LOCAL_CALLER, Caller
from services.accounts.tickets import Tickets
from services.errors import NoAccounts, NotAuthenticated, NotFound, TooManyRequests
from tests.integration.accounts.conftest import Person


async def test_a_ticket_says_who_got_it_and_what_they_may(tickets: Tickets, person: Person):
    for session_id in (person.session_id, None):
        ticket = await tickets.issue(person.caller, session_id)
        assert ticket.expires_in == 60
        assert await tickets.redeem(ticket.text, session_id) == person.caller


async def test_it_is_good_once_however_many_show_it_at_the_same_time(tickets: Tickets, person: Person):
    ticket = await tickets.issue(person.caller, None)
    answers = await asyncio.gather(*(tickets.redeem(ticket.text, None) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, Caller) for answer in answers) == 1
    assert sum(isinstance(answer, NotAuthenticated) for answer in answers) == 9


async def test_shown_at_another_socket_it_is_used_up(tickets: Tickets, person: Person, other: Person):
    for given, shown in (
        (person.session_id, None),
        (None, person.session_id),
        (person.session_id, other.session_id),
        (person.session_id, SessionId(new_id())),
    ):
        ticket = await tickets.issue(person.caller, given)
        for socket in (shown, given):
            with pytest.raises(NotAuthenticated):
                await tickets.redeem(ticket.text, socket)


async def test_nobody_gets_one_for_a_session_of_somebody_else(tickets: Tickets, person: Person, other: Person):
    for session_id in (other.session_id, SessionId(new_id())):
        with pytest.raises(NotFound):
            await tickets.issue(person.caller, session_id)


async def test_it_is_good_for_a_while_only(tickets: Tickets, person: Person, database: asyncpg.Connection):
    ticket = await tickets.issue(person.caller, None)
    await database.execute("update socket_tickets set expires_at = now() where user_id = $1", person.id)
    with pytest.raises(NotAuthenticated):
        await tickets.redeem(ticket.text, None)


@pytest.mark.parametrize(
    "ending",
    [
        "update sign_ins set revoked_at = now() where user_id = $1",
        "update sign_ins set expires_at = now() where user_id = $1",
        "delete from sign_ins where user_id = $1",
        "update users set disabled_at = now() where id = $1",
        "delete from users where id = $1",
    ],
)
async def test_it_is_worth_nothing_once_what_it_was_got_with_is_not(
    tickets: Tickets, person: Person, database: asyncpg.Connection, ending: str
):
    ticket = await tickets.issue(person.caller, None)
    await database.execute(ending, person.id)
    with pytest.raises(NotAuthenticated):
        await tickets.redeem(ticket.text, None)


async def test_one_that_a_key_got_is_bound_to_the_key(tickets: Tickets, keys: ApiKeys, person: Person):
    key, text = await keys.create(person.caller, name="a key", scopes=["read"], expires_at=None)
    by_key = await keys.verify(text)
    first, second = await tickets.issue(by_key, None), await tickets.issue(by_key, None)
    assert await tickets.redeem(first.text, None) == by_key
    await keys.delete(person.caller, key.id)
    with pytest.raises(NotAuthenticated):
        await tickets.redeem(second.text, None)


async def test_there_are_so_many_and_no_more_however_many_are_asked_for_at_once(
    tickets: Tickets, person: Person, database: asyncpg.Connection
):
    asked = (tickets.issue(person.caller, None) for _ in range(12))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, TooManyRequests)]
    assert len(refused) == 7
    assert refused[0].details["retry_after"] == 60
    await database.execute("update socket_tickets set expires_at = now() where user_id = $1", person.id)
    await tickets.issue(person.caller, None)
    assert await database.fetchval("select count(*) from socket_tickets where user_id = $1", person.id) == 1


async def test_what_nobody_used_in_time_is_swept_away(
    tickets: Tickets, person: Person, other: Person, database: asyncpg.Connection
):
    await tickets.issue(person.caller, None)
    await tickets.issue(other.caller, None)
    await database.execute(
        "update socket_tickets set expires_at = now() - interval '1 second' where user_id = $1", person.id
    )
    await tickets.sweep()
    left = await database.fetch("select user_id from socket_tickets where user_id in ($1, $2)", person.id, other.id)
    assert [row["user_id"] for row in left] == [other.id]


async def test_only_a_hash_of_it_is_kept(tickets: Tickets, person: Person, database: asyncpg.Connection):
    ticket = await tickets.issue(person.caller, None)
    row = await database.fetchval("select socket_tickets::text from socket_tickets where user_id = $1", person.id)
    assert ticket.text not in row
    assert ticket.text.encode().hex() not in row


async def test_what_is_no_ticket_opens_nothing(tickets: Tickets):
    for text in ("", "x", "x" * 43, "x" * 4096, "é" * 43, "\0" * 43, "x" * 43 + "\n"):
        with pytest.raises(NotAuthenticated):
            await tickets.redeem(text, None)


async def test_without_accounts_there_are_none(tickets: Tickets):
    with pytest.raises(NoAccounts):
        await tickets.issue(LOCAL_CALLER, None)
