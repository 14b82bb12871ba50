"""`ChatClient` by itself, against a real service."""

from uuid import uuid4

import pytest

from terminal.backoff import Backoff
from terminal.client import Away, ChatClient, Differs, Event, Happening
from terminal.errors import Lost, Refused
from terminal.service import Position, Service
from tests.fakes.openai_server import OpenAIFake
from tests.integration.terminal.programs import free_port, new_session
from tests.service import local_settings, running_service


async def ask(chat: ChatClient, content: str) -> list[Event]:
    """All events until the end of the reply."""
    await chat.send(content)
    return await rest_of(chat)


async def rest_of(chat: ChatClient) -> list[Event]:
    """All events until nothing more is awaited; nothing else may happen."""
    happenings = await everything(chat)
    events = [one for one in happenings if not isinstance(one, Away | Differs)]
    assert events == happenings
    return events


async def everything(chat: ChatClient) -> list[Happening]:
    """All that happens until nothing more is awaited."""
    happenings: list[Happening] = []
    while chat.is_waiting:
        happenings.append(await anext(chat))
    return happenings


def is_end(happening: Happening) -> bool:
    return not isinstance(happening, Away | Differs) and happening["type"] == "assistant_end"


def types_of(events: list[Event]) -> list[str]:
    return [event["type"] for event in events]


async def start_of(address: str, session_id: str) -> Position:
    async with Service.at(address) as service:
        return (await service.history(session_id)).position


async def test_a_reply_is_awaited_until_its_end(address: str, model: OpenAIFake) -> None:
    model.reply("Hel", "lo.")
    session_id = await new_session(address)
    async with ChatClient(address, session_id, await start_of(address, session_id)) as chat:
        events = await ask(chat, "Hello?")

    assert types_of(events)[:2] == ["session_start", "message_accepted"]
    assert types_of(events)[-1] == "assistant_end"
    assert "".join(event["delta"] for event in events if event["type"] == "text_delta") == "Hello."


async def test_a_reply_of_which_something_is_missing_is_told_before_its_end(address: str, model: OpenAIFake) -> None:
    model.reply("One, ", "two.")
    session_id = await new_session(address)
    async with ChatClient(address, session_id, await start_of(address, session_id)) as chat:
        events = await ask(chat, "Count")
        epoch = events[0]["epoch"]
        delta = next(event for event in events if event["type"] == "text_delta")
    run_id = delta["run_id"]

    async with ChatClient(address, session_id, Position(delta["seq"], epoch)) as late:
        happenings: list[Happening] = []
        while not (happenings and is_end(happenings[-1])):
            happenings.append(await anext(late))
    async with Service.at(address) as service:
        text = await service.reply(session_id, run_id)

    assert happenings[-2] == Differs(run_id)
    assert text == "One, two."


async def test_a_foreign_epoch_is_a_resync_and_the_conversation_goes_on(address: str, model: OpenAIFake) -> None:
    model.reply("Hello.")
    session_id = await new_session(address)
    async with ChatClient(address, session_id, Position(7, str(uuid4()))) as chat:
        events = await ask(chat, "Hello?")

    assert types_of(events)[:3] == ["session_start", "resync", "message_accepted"]
    assert types_of(events)[-1] == "assistant_end"


async def test_an_interrupt_that_comes_before_the_acknowledgement_stops_the_reply(
    address: str, model: OpenAIFake
) -> None:
    session_id = await new_session(address)
    async with ChatClient(address, session_id, await start_of(address, session_id)) as chat:
        await chat.send("Hello?")
        await chat.interrupt()
        events = await rest_of(chat)

    assert types_of(events)[-2:] == ["interrupted", "assistant_end"]


async def test_a_message_that_the_service_refuses_is_not_waited_for(address: str) -> None:
    session_id = await new_session(address)
    position = await start_of(address, session_id)
    async with ChatClient(address, session_id, position, fields={"connection_id": "nowhere"}) as chat:
        events = await ask(chat, "Hello?")

    assert events[-1]["code"] == "unknown_provider"


async def test_a_session_that_does_not_exist_is_refused(address: str) -> None:
    async with ChatClient(address, str(uuid4()), Position(0, str(uuid4()))) as chat:
        with pytest.raises(Refused, match="no such session"):
            await anext(chat)


async def test_too_many_connections_are_refused_in_words(database_url: str) -> None:
    settings = local_settings(limits={"connections_per_user": 1})
    async with running_service(settings, database_url) as address:
        session_id = await new_session(address)
        position = await start_of(address, session_id)
        async with ChatClient(address, session_id, position) as one, ChatClient(address, session_id, position) as two:
            await anext(one)
            with pytest.raises(Refused, match="too many connections"):
                await anext(two)


async def test_a_service_that_stays_away_is_given_up() -> None:
    backoff = Backoff(first=0.001, most=0.001, patience=0.02)
    address = f"http://127.0.0.1:{free_port()}"
    async with ChatClient(address, str(uuid4()), Position(0, str(uuid4())), backoff=backoff) as chat:
        with pytest.raises(Lost, match="did not come back"):
            await everything(chat)


def test_waits_grow_to_a_bound_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(first=1, most=4)
    rounds = [[backoff.next() or 0 for _ in range(4)] for _ in range(300) if backoff.reset() is None]

    bounds = [max(waits) for waits in zip(*rounds, strict=True)]
    assert [round(bound + 0.49) for bound in bounds] == [1, 2, 4, 4]
    assert all(4 <= (backoff.next(at_least=4) or 0) <= 8 for _ in range(20))
