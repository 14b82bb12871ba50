"""Reading what was said."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from db.ids import new_id
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text, Wait
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import events, problem, text_of

DOORS = ["/api/sessions/{}/messages", "/api/messages/by-conversation/{}"]


@pytest.mark.parametrize("door", DOORS)
async def test_walking_250_messages_shows_each_once_newest_first(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection, door: str
) -> None:
    written = await _write(database, session_id, 250)
    path: str | None = door.format(session_id) + "?limit=37"

    walked: list[str] = []
    pages = 0
    while path:
        page = await http.get(path)
        assert len(page.json()["items"]) <= 37
        walked += [message["id"] for message in page.json()["items"]]
        path = page.links["next"]["url"] if "next" in page.links else None
        pages += 1

    assert walked == [str(id) for id in reversed(written)]
    assert pages == 7


async def test_a_walk_is_not_disturbed_by_what_is_said_meanwhile(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection
) -> None:
    written = await _write(database, session_id, 10)
    first = (await http.get(f"/api/sessions/{session_id}/messages?limit=5")).json()
    await http.post(f"/api/sessions/{session_id}/messages", json={"content": "hello"})

    cursor = {"cursor": first["next_cursor"], "limit": 5}
    second = (await http.get(f"/api/sessions/{session_id}/messages", params=cursor)).json()

    walked = [message["id"] for message in first["items"] + second["items"]]
    assert walked == [str(id) for id in reversed(written)]
    assert second["next_cursor"] is None


async def test_a_list_that_fills_its_last_page_exactly_names_no_next_one(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection
) -> None:
    await _write(database, session_id, 4)

    page = await http.get(f"/api/sessions/{session_id}/messages?limit=4")

    assert len(page.json()["items"]) == 4
    assert page.json()["next_cursor"] is None
    assert "link" not in page.headers


async def test_a_message_is_the_same_alone_and_in_the_list(http: httpx2.AsyncClient, session_id: str) -> None:
    await http.post(f"/api/sessions/{session_id}/messages", json={"content": "hello"})

    for message in (await http.get(f"/api/sessions/{session_id}/messages")).json()["items"]:
        assert (await http.get(f"/api/messages/{message['id']}")).json() == message
        assert message["session_id"] == message["conversation_id"] == session_id


async def test_a_snapshot_and_the_events_after_it_give_every_later_snapshot(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    half_way = asyncio.Event()
    model.reply("First ", "reply.")
    model.script(Text("Second "), Wait(half_way), Text("reply."))
    path = f"/api/sessions/{session_id}"
    snapshots = [(await http.get(f"{path}/messages")).json()]
    await http.post(f"{path}/messages", json={"content": "One"})
    snapshots.append((await http.get(f"{path}/messages")).json())

    async with events(
        http, "POST", f"{path}/messages", json={"content": "Two"}, headers={"accept": "text/event-stream"}
    ) as reply:
        await reply.until("text_delta")
        snapshots.append((await http.get(f"{path}/messages")).json())
        half_way.set()
        await reply.rest()
    final = (await http.get(f"{path}/messages")).json()

    expected = [message["content"] for message in final["items"] if message["role"] == "assistant"][::-1]
    assert expected == ["First reply.", "Second reply."]
    for snapshot in snapshots:
        position = {"after": snapshot["seq"], "epoch": snapshot["epoch"]}
        replies = {m["id"]: m["content"] for m in snapshot["items"] if m["role"] == "assistant"}
        if snapshot["seq"] < final["seq"]:
            async with events(http, "GET", f"{path}/events", params=position) as stream:
                told = []
                while not told or told[-1].id != final["seq"]:
                    told.append(await stream.next())
            assert [event.id for event in told] == list(range(snapshot["seq"] + 1, final["seq"] + 1))
            for run in dict.fromkeys(event.data["run_id"] for event in told):
                mine = [event for event in told if event.data["run_id"] == run]
                (start,) = (event.data for event in mine if event.data["type"] == "assistant_start")
                replies[start["message_id"]] = text_of(mine)
        assert list(replies.values()) == expected


async def test_while_a_reply_runs_the_snapshot_stands_just_before_it(
    http: httpx2.AsyncClient, session_id: str, model: OpenAIFake
) -> None:
    gate = asyncio.Event()
    model.script(Text("One "), Wait(gate), Text("two"))
    path = f"/api/sessions/{session_id}"
    await http.patch(path, json={"title": "An event before"})

    async with events(
        http, "POST", f"{path}/messages", json={"content": "hi"}, headers={"accept": "text/event-stream"}
    ) as reply:
        await reply.until("text_delta")
        snapshot = (await http.get(f"{path}/messages")).json()
        gate.set()
        await reply.rest()

    assert snapshot["seq"] == 1
    assert [message["role"] for message in snapshot["items"]] == ["user"]


@pytest.mark.parametrize("cursor", ["x", "", "AAAA", "é", "A" * 22 + "==", "0" * 500])
async def test_a_cursor_that_was_never_given_out_is_refused(
    http: httpx2.AsyncClient, session_id: str, cursor: str
) -> None:
    answer = await http.get(f"/api/sessions/{session_id}/messages", params={"cursor": cursor})

    if answer.status_code == 200:  # padding is no difference, and a well-formed one may lead nowhere
        assert answer.json()["items"] == []
    else:
        problem(answer, 422, "invalid_request", "/cursor")


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", ""])
async def test_a_limit_has_its_limits(http: httpx2.AsyncClient, session_id: str, limit: str) -> None:
    for path in (f"/api/sessions/{session_id}/messages", "/api/sessions", "/api/personas", "/api/conversations"):
        problem(await http.get(path, params={"limit": limit}), 422, "invalid_request", "/limit")


async def test_a_strangers_words_are_not_there(http: httpx2.AsyncClient, session_id: str, stranger: Stranger) -> None:
    for door in DOORS:
        problem(await http.get(door.format(stranger.session_id)), 404, "not_found")
        problem(await http.get(door.format(uuid4())), 404, "not_found")
    problem(await http.get(f"/api/messages/{stranger.message_id}"), 404, "not_found")
    problem(await http.get(f"/api/messages/{uuid4()}"), 404, "not_found")


async def _write(database: asyncpg.Connection, session_id: str, count: int) -> list[UUID]:
    """A history of that many messages, oldest first, written from behind."""
    ids = [new_id() for _ in range(count)]
    await database.executemany(
        """
        insert into messages (id, session_id, parent_id, role, content, token_count)
        values ($1, $2, $3, 'user', $4, 1)
        """,
        [(id, session_id, parent, str(id)) for id, parent in zip(ids, [None, *ids], strict=False)],
    )
    await database.execute("update sessions set active_leaf_id = $2 where id = $1", session_id, ids[-1])
    return ids
