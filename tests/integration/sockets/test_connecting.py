"""Coming in: who is let in, what is said first, and from which position the events are told."""

import asyncio
import contextlib
from uuid import UUID, uuid4

import asyncpg
import pytest
from websockets.exceptions import InvalidStatus

from db.pool import Database
from db.stores.events import EventStore
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Text, Wait
from tests.integration.sockets.client import Client, Socket, assert_gapless, client_of, is_uuid, text_of, types_of
from tests.integration.sockets.conftest import Opened, Stranger
from tests.service import local_settings, running_service

NOBODYS = "01a20047-0000-7000-8000-000000000000"
"""The id of nothing."""

# --- who is let in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/ws/chat/not-a-uuid",
        "/ws/chat/123",
        "/ws/chat/%00",
        f"/ws/chat/{NOBODYS}x",
        f"/ws/chat/{NOBODYS}?after=-1",
        f"/ws/chat/{NOBODYS}?after=1.5",
        f"/ws/chat/{NOBODYS}?after=",
        f"/ws/chat/{NOBODYS}?after=%D9%A3",
        f"/ws/chat/{NOBODYS}?after=99999999999999999999",
        f"/ws/chat/{NOBODYS}?after=0&epoch=yesterday",
    ],
)
async def test_a_malformed_address_is_refused_with_4400(client: Client, path: str):
    socket = await client.knock(path)
    code, reason = await socket.closed()
    assert code == 4400
    assert reason


async def test_a_session_that_does_not_exist_is_refused_with_4404(client: Client):
    assert (await (await client.knock(f"/ws/chat/{uuid4()}")).closed())[0] == 4404


async def test_somebody_elses_session_looks_like_one_that_does_not_exist(client: Client, stranger: Stranger):
    for query in ("", "?after=0", f"?after=0&epoch={uuid4()}"):
        theirs = await (await client.knock(f"/ws/chat/{stranger.session_id}{query}")).closed()
        nobodys = await (await client.knock(f"/ws/chat/{uuid4()}{query}")).closed()
        assert theirs == nobodys
        assert theirs[0] == 4404


def foreign_origins(own: str) -> list[str]:
    port = own.rpartition(":")[2]
    return [
        "null",
        "",
        f"{own}/",
        f"{own}.",
        f"{own}0",
        f" {own}x",
        f"https://127.0.0.1:{port}",
        "http://127.0.0.1",
        f"http://127.0.0.1.evil.example:{port}",
        f"http://evil.example:{port}",
        f"http://[::1]:{port}",
        f"{own}, https://evil.example",
        f"file://{own}",
    ]


async def test_pages_of_other_origins_are_refused_on_both_sockets(client: Client, session_id: str):
    for origin in foreign_origins(client.origin):
        for path in (f"/ws/chat/{session_id}", "/ws/chat"):
            raw = await client.connect(path, additional_headers={"Origin": origin})
            code, _ = await Socket(raw, lambda _: None).closed()
            assert code == 4403, origin


async def test_a_foreign_page_learns_nothing_about_what_exists(client: Client, session_id: str):
    headers = {"Origin": "https://evil.example"}
    answers = {
        await (await client.knock(path, additional_headers=headers)).closed()
        for path in (f"/ws/chat/{session_id}", f"/ws/chat/{uuid4()}", "/ws/chat/malformed")
    }
    assert len(answers) == 1


async def test_our_own_pages_come_in_however_they_write_our_name(client: Client, session_id: str):
    port = client.origin.rpartition(":")[2]
    for origin in (client.origin, client.origin.upper(), f"http://localhost:{port}", f"HTTP://LocalHost:{port}"):
        await client.open(session_id, additional_headers={"Origin": origin})


async def test_an_origin_that_the_operator_named_comes_in(opened: Opened):
    async with opened(allowed_origins="https://chat.example.org") as client:
        session_id = await client.session()
        await client.open(session_id, additional_headers={"Origin": "https://CHAT.example.org"})
        raw = await client.knock(f"/ws/chat/{session_id}", additional_headers={"Origin": "https://chat.example.org/"})
        assert (await raw.closed())[0] == 4403


async def test_a_foreign_host_name_is_refused_at_the_handshake(client: Client, session_id: str):
    port = client.origin.rpartition(":")[2]
    host = f"rebound.example:{port}"
    with pytest.raises(InvalidStatus) as refused:
        await client.connect(
            f"/ws/chat/{session_id}",
            host="127.0.0.1",
            port=int(port),
            additional_headers={"Host": host, "Origin": f"http://{host}"},
        )
    assert refused.value.response.status_code == 400


# --- what is said first ---------------------------------------------------------------------------------------------


async def test_the_first_frame_says_where_the_session_stands(client: Client, session_id: str, socket: Socket):
    start = socket.seen[0]
    assert start == {
        "type": "session_start",
        "session_id": session_id,
        "connection_id": start["connection_id"],
        "protocol": 1,
        "epoch": start["epoch"],
        "seq": 0,
        "active_run": None,
    }
    assert is_uuid(start["connection_id"])
    assert is_uuid(start["epoch"])

    events = await socket.reply("Hi")
    again = await client.open(session_id)
    assert again.seen[0]["seq"] == events[-1]["seq"] == await client.newest_seq(session_id)
    assert again.seen[0]["epoch"] == start["epoch"]
    assert again.seen[0]["connection_id"] != start["connection_id"]


async def test_the_first_frame_names_the_run_that_is_active(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Hel"), Hang())
    await socket.say("Hi")
    run_id = (await socket.expect("text_delta"))["run_id"]
    assert (await client.open(session_id)).seen[0]["active_run"] == run_id


# --- from which position --------------------------------------------------------------------------------------------


async def test_after_zero_replays_everything_that_is_kept(client: Client, session_id: str, socket: Socket):
    told = [*await socket.reply("One"), *await socket.reply("Two")]
    late = await client.open(session_id, "after=0")
    assert late.seen[0]["replayed_from"] == 0
    assert await late.catch_up() == told
    assert_gapless(told)


async def test_after_any_position_replays_exactly_what_follows_it(client: Client, session_id: str, socket: Socket):
    told = await socket.reply("Hi")
    epoch = socket.seen[0]["epoch"]
    for event in told:
        late = await client.open(session_id, f"after={event['seq']}&epoch={epoch}")
        assert late.seen[0]["replayed_from"] == event["seq"]
        assert await late.catch_up() == told[event["seq"] :]


async def test_without_after_only_what_happens_from_now_on_is_told(client: Client, session_id: str, socket: Socket):
    await socket.reply("Hi")
    late = await client.open(session_id)
    assert "replayed_from" not in late.seen[0]
    assert await late.catch_up() == []
    assert types_of(await late.reply("Again"))[0] == "message_accepted"


async def test_without_after_a_run_that_is_active_is_told_from_its_beginning(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    await socket.reply("Before")
    model.script(Text("Hel"), Wait(go_on), Text("lo"))
    await socket.say("Hi")
    shown = await socket.until("text_delta")
    late = await client.open(session_id)
    assert await late.catch_up() == shown
    go_on.set()
    run_id = shown[0]["run_id"]
    assert await late.rest_of(run_id) == await socket.rest_of(run_id)


async def test_a_tab_that_comes_back_in_mid_reply_reads_on_where_it_stopped(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    go_on = asyncio.Event()
    model.script(Text("one "), Text("two "), Wait(go_on), Text("three"))
    await socket.say("Hi")
    shown = await socket.until("text_delta")
    await socket.connection.close()
    go_on.set()
    back = await client.open(session_id, f"after={shown[-1]['seq']}")
    rest = await back.rest_of(shown[0]["run_id"])
    assert_gapless([*shown, *rest])
    assert text_of([*shown, *rest]) == "one two three"


async def test_many_tabs_that_come_and_go_in_mid_reply_are_all_told_the_same(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    gates = [asyncio.Event() for _ in range(12)]
    model.script(*(step for i, gate in enumerate(gates) for step in (Wait(gate), Text(f"{i} "), Text(f"{i}! "))))
    await socket.say("Count")
    run_id = (await socket.expect("assistant_start"))["run_id"]
    tabs: list[Socket] = []
    for i, gate in enumerate(gates):
        gate.set()
        tabs.append(await client.open(session_id, f"after={i}" if i % 2 else ""))
    await socket.rest_of(run_id)
    whole = [event for event in socket.seen if event.get("run_id") == run_id]
    for tab in tabs:
        events = await tab.rest_of(run_id)
        assert events == whole[-len(events) :]
        assert_gapless(events)


async def test_a_position_in_the_future_is_answered_by_resync_and_the_socket_goes_on(
    client: Client, session_id: str, socket: Socket
):
    told = await socket.reply("Hi")
    newest = told[-1]["seq"]
    late = await client.open(session_id, f"after={newest + 1}")
    resync = await late.next()
    epoch = socket.seen[0]["epoch"]
    assert resync == {"type": "resync", "reason": "position_unknown", "seq": newest, "epoch": epoch}
    assert "replayed_from" not in late.seen[0]
    events = await late.reply("Again")
    assert events[0]["seq"] == newest + 1


@pytest.mark.parametrize("after", [0, 1])
async def test_a_position_of_another_epoch_is_answered_by_resync(
    client: Client, session_id: str, socket: Socket, after: int
):
    newest = (await socket.reply("Hi"))[-1]["seq"]
    late = await client.open(session_id, f"after={after}&epoch={uuid4()}")
    resync = await late.next()
    assert (resync["reason"], resync["seq"]) == ("foreign_epoch", newest)
    assert await late.catch_up() == []


async def test_a_resync_in_mid_reply_is_followed_by_that_reply_from_its_beginning(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Hel"), Hang())
    await socket.say("Hi")
    shown = await socket.until("text_delta")
    late = await client.open(session_id, f"after=0&epoch={uuid4()}")
    resync = await late.next()
    assert resync["seq"] == shown[0]["seq"] - 1
    assert await late.catch_up() == shown


async def test_what_retention_dropped_is_never_a_silent_hole(
    client: Client, session_id: str, socket: Socket, shared_database_url: str, database: asyncpg.Connection
):
    first = await socket.reply("One")
    second = await socket.reply("Two")
    kept_after = first[-1]["seq"]
    await database.execute(
        "UPDATE runs SET finished_at = now() - interval '2 hours' WHERE id = $1", UUID(first[0]["run_id"])
    )
    await _prune(shared_database_url, older_than_seconds=3600)

    late = await client.open(session_id, f"after={kept_after - 1}")
    resync = await late.next()
    assert (resync["reason"], resync["seq"]) == ("past_is_gone", second[-1]["seq"])
    assert await late.catch_up() == []

    from_the_start = await client.open(session_id, "after=0")
    assert from_the_start.seen[0]["replayed_from"] == kept_after
    assert await from_the_start.catch_up() == second

    at_the_edge = await client.open(session_id, f"after={kept_after}")
    assert await at_the_edge.catch_up() == second


async def test_a_session_whose_whole_past_was_dropped_goes_on_counting(
    client: Client, session_id: str, socket: Socket, shared_database_url: str, database: asyncpg.Connection
):
    newest = (await socket.reply("One"))[-1]["seq"]
    await database.execute("UPDATE runs SET finished_at = now() - interval '2 hours' WHERE session_id = $1", session_id)
    await _prune(shared_database_url, older_than_seconds=3600)
    late = await client.open(session_id, "after=0")
    assert late.seen[0]["replayed_from"] == newest
    assert await late.catch_up() == []
    assert (await late.reply("Two"))[0]["seq"] == newest + 2  # the first is catch_up's
    assert [content for _, content in await client.said(session_id)] == ["One", "Hello there.", "Two", "Hello there."]


async def test_an_active_run_is_never_pruned(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket, shared_database_url: str
):
    first = await socket.reply("One")
    model.script(Text("Hel"), Hang())
    await socket.say("Two")
    shown = await socket.until("text_delta")
    await _prune(shared_database_url, older_than_seconds=0)
    late = await client.open(session_id, "after=0")
    assert late.seen[0]["replayed_from"] == first[-1]["seq"]
    assert await late.catch_up() == shown


async def test_positions_and_epoch_outlive_a_restart(database_url: str, model: OpenAIFake):
    settings = local_settings(
        default_provider="openai", openai_base_url=model.url, openai_api_key="k", openai_default_model="fake-small"
    )
    async with running_service(settings, database_url) as base_url, client_of(base_url) as before:
        session_id = await before.session(forget=False)
        socket = await before.open(session_id)
        told = await socket.reply("Hi")
    async with running_service(settings, database_url) as base_url, client_of(base_url) as after:
        late = await after.open(session_id, f"after=0&epoch={socket.seen[0]['epoch']}")
        assert await late.catch_up() == told
        assert types_of(await late.reply("Again"))[-1] == "post_response_complete"


# --- how it ends ----------------------------------------------------------------------------------------------------


async def test_deleting_a_session_closes_its_sockets_with_4404(client: Client, session_id: str, socket: Socket):
    second = await client.open(session_id)
    await client.http.delete(f"/api/sessions/{session_id}")
    assert (await socket.closed())[0] == 4404
    assert (await second.closed())[0] == 4404


async def test_deleting_a_session_in_mid_reply_stops_its_model_and_closes_its_sockets(
    client: Client, model: OpenAIFake, session_id: str, socket: Socket
):
    model.script(Text("Hel"), Hang())
    await socket.say("Hi")
    await socket.expect("text_delta")
    deleted = await client.http.delete(f"/api/sessions/{session_id}")
    assert deleted.status_code == 204
    assert (await socket.closed())[0] == 4404
    request = await model.request()
    async with asyncio.timeout(5):
        await request.closed
    assert request.ended_by == "client"
    assert (await (await client.knock(f"/ws/chat/{session_id}")).closed())[0] == 4404


async def test_a_service_that_goes_down_says_so_and_closes_with_1001(database_url: str, model: OpenAIFake):
    settings = local_settings(
        default_provider="openai", openai_base_url=model.url, openai_default_model="x", timeouts={"drain": 0.5}
    )
    async with contextlib.AsyncExitStack() as stack:
        async with running_service(settings, database_url) as base_url:
            client = await stack.enter_async_context(client_of(base_url))
            session_id = await client.session(forget=False)
            socket, many = await client.open(session_id), await client.multiplexed()
            model.script(Text("Hel"), Hang())
            await socket.say("Hi")
            await socket.expect("text_delta")
            closings = [asyncio.create_task(one.closed()) for one in (socket, many)]
        assert [(await closing)[0] for closing in closings] == [1001, 1001]
        assert socket.seen[-1]["type"] == "server_shutdown"
        assert socket.seen[-1]["reconnect_after_ms"] > 0
        end = next(event for event in socket.seen if event["type"] == "assistant_end")
        assert end["finish_reason"] == "interrupted"


async def _prune(database_url: str, *, older_than_seconds: float) -> None:
    database = await Database.connect(database_url, size=1)
    try:
        await EventStore(database).prune(older_than_seconds=older_than_seconds, sessions=1000)
    finally:
        await database.close()
