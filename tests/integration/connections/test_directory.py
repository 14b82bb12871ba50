"""Whom a name means, with which key, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from time import monotonic
from typing import Any

import asyncpg
import pytest

from db.ids import UserId, new_id
from db.records import ConnectionRecord
from services.agent.types import TextDelta
from services.connections.vault import KeyUnreadable
from services.errors import AddressNotAllowed, ConnectionOff, UnknownProvider
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, Wait
from tests.integration.connections.conftest import NEW, OLD, Replica, Replicas, answered, hello
from tests.waiting import eventually


@pytest.fixture
async def server() -> AsyncIterator[OpenAIFake]:
    """A model server."""
    async with OpenAIFake() as fake:
        yield fake


async def save(replica: Replica, owner: UserId, server: OpenAIFake, name: str, **fields: Any) -> ConnectionRecord:
    """A connection of that owner to that server."""
    given = {"name": name, "kind": "openai", "base_url": server.url, "api_key": f"sk-of-{name}-{owner}"}
    return await replica.service.create(owner, given | fields)


def keys_seen(server: OpenAIFake) -> list[str]:
    """The keys that were shown, one per question."""
    return [request.headers["authorization"].removeprefix("Bearer ") for request in server.requests]


async def test_a_connection_is_found_by_name_and_by_id_and_asked_with_its_key(
    replica: Replica, owner: UserId, server: OpenAIFake
) -> None:
    saved = await save(replica, owner, server, "mine")
    for name in ("mine", str(saved.id), saved.id.hex, str(saved.id).upper()):
        provider = await replica.directory.get(owner, name)
        assert provider.name == "mine"
        assert await answered(provider) == "Hello there."
    assert keys_seen(server) == [f"sk-of-mine-{owner}"] * 4
    assert len(replica.made) == 1
    assert len({request.peer for request in server.requests}) == 1, "one client, one connection kept alive"


async def test_the_services_own_are_found_without_asking_the_database(replica: Replica) -> None:
    nobody = UserId(new_id())
    assert (await replica.directory.get(nobody)).name == "demo"
    assert (await replica.directory.get(nobody, "demo")).kind == "demo"


@pytest.mark.parametrize(
    "nonsense", ["", "nobody", "a\0b", "\ud800", "x" * 5000, "00000000-0000-0000-0000-000000000001"]
)
async def test_what_is_unknown_is_answered_by_what_the_owner_may_use(
    replica: Replica, owner: UserId, stranger: UserId, server: OpenAIFake, nonsense: str
) -> None:
    await save(replica, owner, server, "mine")
    theirs = await save(replica, stranger, server, "theirs")
    for name in (nonsense, "theirs", str(theirs.id)):
        with pytest.raises(UnknownProvider) as unknown:
            await replica.directory.get(owner, name)
        assert unknown.value.details["known"] == ["demo", "mine"]
        assert not await replica.directory.knows(owner, name)
    assert server.requests == []


async def test_owners_share_neither_clients_nor_keys_nor_what_was_found_out(
    replica: Replica, owner: UserId, stranger: UserId, server: OpenAIFake
) -> None:
    await save(replica, owner, server, "same")
    async with OpenAIFake() as other:
        other.models = [{"id": "only-theirs"}]
        await save(replica, stranger, other, "same")
        mine, theirs = [await replica.directory.get(who, "same") for who in (owner, stranger)]
        assert await replica.directory.model_for(theirs) == "only-theirs"
        assert await replica.directory.model_for(mine) == "fake-small"
        await answered(mine)
        await answered(theirs)
        assert keys_seen(server) == [f"sk-of-same-{owner}"]
        assert keys_seen(other) == [f"sk-of-same-{stranger}"]


async def test_two_owners_of_one_server_do_not_share_its_sockets(
    replica: Replica, owner: UserId, stranger: UserId, server: OpenAIFake
) -> None:
    for who in (owner, stranger):
        await save(replica, who, server, "same")
        await answered(await replica.directory.get(who, "same"))
    assert len({request.peer for request in server.requests}) == 2


async def test_a_change_reaches_every_replica_with_the_next_question(
    replicas: Replicas, owner: UserId, server: OpenAIFake
) -> None:
    here, there = await replicas.start(), await replicas.start()
    await save(here, owner, server, "mine")
    for replica in (here, there):
        await answered(await replica.directory.get(owner, "mine"))

    await here.service.update(owner, "mine", {"api_key": "sk-another-one"}, version=None)

    for replica in (here, there):
        await answered(await replica.directory.get(owner, "mine"))
    assert keys_seen(server) == [f"sk-of-mine-{owner}"] * 2 + ["sk-another-one"] * 2
    assert [len(client.made) for client in (here, there)] == [2, 2]


async def test_what_is_under_way_goes_on_while_its_connection_changes_and_ends(
    replica: Replica, owner: UserId, server: OpenAIFake
) -> None:
    gate = asyncio.Event()
    saved = await save(replica, owner, server, "mine")
    provider = await replica.directory.get(owner, "mine")
    server.script(Text("one "), Wait(gate), Text("two"))
    said: list[str] = []
    async with provider.stream(hello()) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                said.append(event.text)
            if said == ["one "] and not gate.is_set():
                await replica.service.delete(owner, "mine", version=None)
                with pytest.raises(UnknownProvider):
                    await replica.directory.get(owner, str(saved.id))
                gate.set()
    assert "".join(said) == "one two"
    # The same run may ask once more, as after a tool has answered.
    assert await answered(provider) == "Hello there."


async def test_a_replaced_client_is_closed_when_nobody_uses_it_any_more(
    replica: Replica, owner: UserId, server: OpenAIFake
) -> None:
    await save(replica, owner, server, "mine")
    old = await replica.directory.get(owner, "mine")
    async with old.stream(hello()) as events:
        await anext(events)
        await replica.service.update(owner, "mine", {"default_model": "x"}, version=None)
        assert await replica.directory.get(owner, "mine") is not old
        assert _is_open(old)
    await eventually(lambda: not _is_open(old))


async def test_a_connection_that_is_off_answers_nobody_and_is_still_known(
    replica: Replica, owner: UserId, server: OpenAIFake
) -> None:
    await save(replica, owner, server, "mine")
    used = await replica.directory.get(owner, "mine")
    await answered(used)

    await replica.service.update(owner, "mine", {"is_active": False}, version=None)

    for ask in (replica.directory.get, replica.directory.check):
        with pytest.raises(ConnectionOff, match="mine is switched off"):
            await ask(owner, "mine")
    assert await replica.directory.knows(owner, "mine")
    assert len(replica.clients) == 0
    await eventually(lambda: not _is_open(used))


async def test_former_names_lead_on_until_another_connection_has_them(
    replica: Replica, owner: UserId, server: OpenAIFake
) -> None:
    saved = await save(replica, owner, server, "first")
    await replica.service.update(owner, "first", {"name": "second"}, version=None)
    await replica.service.update(owner, "first", {"name": "third"}, version=None)
    for name in ("first", "second", "third"):
        assert (await replica.directory.get(owner, name)).name == "third"

    other = await save(replica, owner, server, "first")

    assert (await replica.service.get(owner, "first")) == other
    assert (await replica.service.get(owner, "second")).name == "third"
    back = await replica.service.update(owner, str(saved.id), {"name": "second"}, version=None)
    assert back.former_names == ["third", "first"]


async def test_a_key_that_cannot_be_opened_is_an_error_and_no_question(
    replicas: Replicas, owner: UserId, stranger: UserId, server: OpenAIFake, database: asyncpg.Connection
) -> None:
    before, after = await replicas.start((OLD,)), await replicas.start((NEW,))
    await save(before, owner, server, "mine")
    with pytest.raises(KeyUnreadable, match="give it again"):
        await after.directory.get(owner, "mine")
    assert await answered(await (await replicas.start((NEW, OLD))).directory.get(owner, "mine"))

    server.requests.clear()
    await save(before, stranger, server, "theirs")
    await database.execute(
        """
        update provider_connections mine set sealed_key = theirs.sealed_key
        from provider_connections theirs where mine.owner_id = $1 and theirs.owner_id = $2
        """,
        owner,
        stranger,
    )
    with pytest.raises(KeyUnreadable):
        await (await replicas.start((OLD,))).directory.get(owner, "mine")
    assert server.requests == []


async def test_rules_that_have_become_stricter_bind_what_was_saved_before(
    replicas: Replicas, owner: UserId, server: OpenAIFake
) -> None:
    await save(await replicas.start(), owner, server, "mine")
    strict = await replicas.start(allowed=())
    with pytest.raises(AddressNotAllowed):
        await strict.directory.get(owner, "mine")
    assert server.requests == []


async def test_few_clients_are_kept_and_idle_ones_closed(replicas: Replicas, owner: UserId, server: OpenAIFake) -> None:
    replica = await replicas.start(most=2)
    names = ["a", "b", "c"]
    providers = []
    for name in names:
        await save(replica, owner, server, name)
        providers.append(await replica.directory.get(owner, name))
        await answered(providers[-1])
    assert len(replica.clients) == 2
    await eventually(lambda: [_is_open(one) for one in providers] == [False, True, True])
    assert await answered(await replica.directory.get(owner, "a"))

    replica.clients.close_idle(before=monotonic())

    assert len(replica.clients) == 0
    await eventually(lambda: not any(map(_is_open, providers)))


async def test_a_late_reader_of_an_older_row_does_not_bring_it_back(
    replica: Replica, owner: UserId, server: OpenAIFake
) -> None:
    saved = await save(replica, owner, server, "mine")
    newer = replace(saved, version=2, default_model="newer")
    assert replica.clients.get(newer).default_model == "newer"
    assert replica.clients.get(saved) is replica.clients.get(newer)


def _is_open(provider: Any) -> bool:
    return provider._inner._client is not None
