"""Saved connections are named in frames as those of the service are; somebody else's do not exist."""

from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.integration.sockets.client import Client, Event, text_of
from tests.integration.sockets.conftest import Stranger

KEY = "sk-canary-0123456789"


@pytest.fixture
async def own(database: asyncpg.Connection) -> AsyncGenerator[OpenAIFake, None]:
    """A model server of the user's own."""
    async with OpenAIFake() as fake:
        yield fake
    await database.execute("delete from provider_connections")


@pytest.fixture
async def saved(client: Client, own: OpenAIFake) -> dict[str, Any]:
    """The connection to it."""
    body = {"name": "my own", "kind": "openai", "base_url": own.url, "api_key": KEY}
    return (await client.http.post("/api/connections", json=body)).raise_for_status().json()


def fault_of(events: list[Event]) -> str:
    """The code of the error with which a run ended."""
    error, end = events[-2:]
    assert (error["type"], end["type"], end["finish_reason"]) == ("error", "assistant_end", "error")
    return error["code"]


@pytest.mark.parametrize("reference", ["id", "name"])
async def test_a_message_is_answered_by_the_connection_that_it_names(
    client: Client, model: OpenAIFake, own: OpenAIFake, saved: dict[str, Any], reference: str
):
    own.reply("From my own.")
    socket = await client.open(await client.session())
    events = await socket.reply("Hi", connection_id=saved[reference])
    assert text_of(events) == "From my own."
    assert own.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert model.requests == []
    assert KEY not in str(events)
    assert "127.0.0.1" not in str(events)


async def test_the_other_dialect_takes_a_name_as_provider_or_in_its_settings(
    client: Client, own: OpenAIFake, saved: dict[str, Any]
):
    many = await client.multiplexed()
    ways = (
        {"provider": "my own"},
        {"provider": saved["id"]},
        {"provider": "openai", "provider_settings": {"connection": "my own", "model": "fake-small"}},
        {"provider_settings": {"connection_id": saved["id"]}},
    )
    for way in ways:
        start = await many.chat("Hi", **way)
        await many.of_chat(start["chat_session_id"])
    assert len(own.requests) == len(ways)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"provider_settings": {"host": "http://127.0.0.1:11434"}}, "provider_host_not_allowed"),
        ({"provider_settings": {"api_key": KEY}}, "provider_host_not_allowed"),
        ({"provider_settings": {"connection": "my own", "base_url": "http://10.0.0.1"}}, "provider_host_not_allowed"),
        ({"provider_settings": {"connection": {"base_url": "http://10.0.0.1"}}}, "invalid_request"),
        ({"provider": "http://127.0.0.1:11434"}, "unknown_provider"),
        ({"provider": "nobody"}, "unknown_provider"),
    ],
)
async def test_a_chat_names_no_address_and_begins_nothing(
    client: Client, own: OpenAIFake, saved: dict[str, Any], data: dict[str, Any], code: str
):
    many = await client.multiplexed()
    before = (await client.http.get("/api/sessions")).json()["items"][:1]
    await many.send("chat", data={"message": "Hi", **data})
    error = await many.expect("error")
    assert error["data"]["code"] == code
    assert (await client.http.get("/api/sessions")).json()["items"][:1] == before
    assert own.requests == []


async def test_a_connection_of_somebody_else_and_one_that_is_off_answer_nobody(
    client: Client, database: asyncpg.Connection, own: OpenAIFake, saved: dict[str, Any], stranger: Stranger
):
    session = await client.session(connection="my own")
    socket = await client.open(session)
    await client.http.patch("/api/connections/my own", json={"is_active": False})
    await socket.say("Hi", connection_id="my own")
    await socket.refused("connection_off")
    # Whoever only has it in a session learns of it from the run.
    assert fault_of(await socket.reply("Hi")) == "connection_off"

    await database.execute(
        """
        update provider_connections set is_active = true,
            owner_id = (select owner_id from sessions where id = $1::text::uuid)
        """,
        stranger.session_id,
    )
    for name in (saved["id"], "my own"):
        await socket.say("Hi", connection_id=name)
        assert "my own" not in str((await socket.refused("unknown_provider"))["details"]["known"])
    assert fault_of(await socket.reply("Hi")) == "unknown_provider"
    assert own.requests == []


async def test_a_persona_of_a_connection_that_is_deleted_is_not_answered_by_another(
    client: Client, model: OpenAIFake, own: OpenAIFake, saved: dict[str, Any]
):
    persona = await client.persona(name="Mine", connection="my own")
    socket = await client.open(await client.session(persona_id=persona))
    assert text_of(await socket.reply("Hi")) == "Hello there."
    await client.http.delete(f"/api/connections/{saved['id']}")

    assert fault_of(await socket.reply("Again")) == "unknown_provider"
    assert model.requests == []
    body = {"name": "my own", "kind": "openai", "base_url": own.url}
    assert (await client.http.post("/api/connections", json=body)).status_code == 201
    assert text_of(await socket.reply("And now?")) == "Hello there."
