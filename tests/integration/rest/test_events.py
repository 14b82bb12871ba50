"""The journal as a stream of server-sent events."""

import asyncio

import asyncpg
import httpx2
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, Wait
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import events, problem, text_of
from tests.service import local_settings, running_service


async def test_a_cut_stream_goes_on_exactly_where_it_stopped(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    pieces = [f"{n} " for n in range(30)]
    gate = asyncio.Event()
    model.script(*map(Text, pieces[:10]), Wait(gate), *map(Text, pieces[10:]))
    path = f"/api/sessions/{session_id}"
    async with events(
        http, "POST", f"{path}/messages", json={"content": "Count"}, headers={"accept": "text/event-stream"}
    ) as first:
        seen = await first.until("text_delta")
    async with events(http, "GET", f"{path}/events", headers={"last-event-id": str(seen[-1].id)}) as second:
        gate.set()
        seen += await second.until("assistant_end")

    assert [event.id for event in seen] == list(range(1, len(seen) + 1))
    assert text_of(seen) == "".join(pieces)


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_the_past_after_a_position_comes_first(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake, after: int
) -> None:
    await http.post(f"/api/sessions/{session_id}/messages", json={"content": "Hi"})

    async with events(http, "GET", f"/api/sessions/{session_id}/events", params={"after": after}) as stream:
        told = await stream.until("post_response_complete")

    assert [event.id for event in told] == list(range(after + 1, told[-1].data["seq"] + 1))


async def test_last_event_id_goes_before_after(http: httpx2.AsyncClient, session_id: str) -> None:
    for title in ("One", "Two", "Three"):
        await http.patch(f"/api/sessions/{session_id}", json={"title": title})

    async with events(
        http, "GET", f"/api/sessions/{session_id}/events", params={"after": 0}, headers={"last-event-id": "2"}
    ) as stream:
        assert (await stream.next()).data["title"] == "Three"


async def test_without_a_position_a_stream_begins_with_the_active_run(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    gate = asyncio.Event()
    model.script(Text("One "), Wait(gate), Text("two."))
    path = f"/api/sessions/{session_id}"
    await http.patch(path, json={"title": "Before"})
    async with events(
        http, "POST", f"{path}/messages", json={"content": "Hi"}, headers={"accept": "text/event-stream"}
    ) as sender:
        await sender.until("text_delta")
        async with events(http, "GET", f"{path}/events") as watcher:
            gate.set()
            told = await watcher.until("assistant_end")

    assert told[0].data["type"] == "message_accepted"
    assert told[0].id == 2
    assert text_of(told) == "One two."


async def test_a_past_that_is_gone_is_said_aloud_and_the_stream_goes_on(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection
) -> None:
    path = f"/api/sessions/{session_id}"
    for title in ("One", "Two", "Three"):
        await http.patch(path, json={"title": title})
    epoch = (await http.get(f"{path}/messages")).json()["epoch"]
    await database.execute("delete from events where session_id = $1 and seq <= 2", session_id)
    await database.execute("update journals set kept_after = 2 where session_id = $1", session_id)
    cases = [
        ({"after": 1}, "past_is_gone"),
        ({"after": 99}, "position_unknown"),
        ({"after": 3, "epoch": session_id}, "foreign_epoch"),
    ]

    for number, (position, reason) in enumerate(cases, 4):
        async with events(http, "GET", f"{path}/events", params=position) as stream:
            told = await stream.next()
            assert told.name == "resync"
            assert told.data == {"type": "resync", "reason": reason, "seq": number - 1, "epoch": epoch}
            assert told.id == number - 1
            await http.patch(path, json={"title": f"Title {number}"})
            assert (await stream.next()).id == number


async def test_position_zero_asks_for_all_that_is_kept(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection
) -> None:
    path = f"/api/sessions/{session_id}"
    for title in ("One", "Two"):
        await http.patch(path, json={"title": title})
    await database.execute("delete from events where session_id = $1 and seq <= 1", session_id)
    await database.execute("update journals set kept_after = 1 where session_id = $1", session_id)

    async with events(http, "GET", f"{path}/events", params={"after": 0}) as stream:
        assert (await stream.next()).data["title"] == "Two"


@pytest.mark.parametrize(
    ("parameters", "headers", "at"),
    [
        ({"after": "x"}, {}, "/after"),
        ({"after": "-1"}, {}, "/after"),
        ({"after": str(2**63)}, {}, "/after"),
        ({"epoch": "x"}, {}, "/epoch"),
        ({}, {"last-event-id": "x"}, "/last-event-id"),
    ],
)
async def test_a_bad_position_is_refused(
    http: httpx2.AsyncClient, session_id: str, parameters: dict[str, str], headers: dict[str, str], at: str
) -> None:
    answer = await http.get(f"/api/sessions/{session_id}/events", params=parameters, headers=headers)

    problem(answer, 422, "invalid_request", at)


async def test_a_strangers_events_are_not_there(http: httpx2.AsyncClient, stranger: Stranger) -> None:
    problem(await http.get(f"/api/sessions/{stranger.session_id}/events"), 404, "not_found")


async def test_streams_end_when_the_service_goes_down(database_url: str) -> None:
    async with httpx2.AsyncClient(timeout=20) as http:
        async with running_service(local_settings(), database_url) as base_url:
            session = (await http.post(f"{base_url}/api/sessions")).json()["id"]
            response = await http.send(
                http.build_request("GET", f"{base_url}/api/sessions/{session}/events"), stream=True
            )
            lines = response.aiter_lines()
            await anext(lines)

        assert [line async for line in lines if line] == []
