"""Calls that somebody has to agree to: over sockets and REST, at any replica, however long it takes."""

import asyncio
from typing import Any

import asyncpg
import httpx2

from db.ids import new_id
from tests.fakes.script import Text, Tokens, call
from tests.fakes.strict import StrictOpenAIFake
from tests.integration.sockets.client import Event, Socket, one, text_of, types_of
from tests.integration.tools.conftest import Bench, service_with
from tests.ledger import Ledger
from tests.waiting import eventually


def removing(model: StrictOpenAIFake, *names: str) -> None:
    """The model asks to remove these, then says that it is done."""
    model.script(Text("Well. "), *(call(n, "ledger__remove", {"text": name}, id=name) for n, name in enumerate(names)))
    model.reply("Done.")


def told(model: StrictOpenAIFake, number: int = 1) -> list[str]:
    return [message["content"] for message in model.requests[number].body["messages"] if message["role"] == "tool"]


async def asked(socket: Socket, content: str = "Remove it") -> Event:
    await socket.say(content)
    return await socket.expect("approval_required")


async def test_a_tool_that_destroys_waits_for_somebodys_word(
    bench: Bench, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    session_id, socket = await bench.socket()
    removing(model, "old")
    required = await asked(socket)
    assert (required["tool_call_id"], required["name"], required["server"]) == ("old", "ledger__remove", "ledger")
    assert required["arguments"] == '{"text": "old"}'
    assert required["reason"] == "The tool says that it can destroy things."
    assert await socket.answered() == []
    assert ledger.lines == []

    await socket.send("approve", tool_call_id="old", decision="approve")
    rest = await socket.until("post_response_complete")
    assert types_of(rest)[:4] == ["tool_start", "tool_done", "text_delta", "assistant_end"]
    assert one(rest, "tool_done")["status"] == "completed"
    assert ledger.lines == ["remove old"]
    parts = (await bench.client.history(session_id))[-1]["parts"]
    assert [part["type"] for part in parts] == ["text", "tool_call", "tool_result", "text"]


async def test_what_is_rejected_is_not_done_and_the_model_is_told(
    bench: Bench, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    _, socket = await bench.socket()
    removing(model, "old")
    await asked(socket)
    await socket.send("approve", tool_call_id="old", decision="reject")
    rest = await socket.until("assistant_end")
    assert types_of(rest) == ["tool_done", "text_delta", "assistant_end"]
    assert one(rest, "tool_done")["status"] == "rejected"
    assert told(model) == ["The user did not want this call to be made. Nothing was done."]
    assert ledger.lines == []


async def test_arguments_can_be_changed_if_the_new_ones_fit(
    bench: Bench, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    _, socket = await bench.socket()
    removing(model, "old")
    await asked(socket)
    await socket.send("approve", tool_call_id="old", decision="approve", arguments={"text": 5})
    error = await socket.refused("invalid_request")
    assert "is not of type 'string'" in error["message"]
    await socket.send("approve", tool_call_id="old", decision="reject", arguments={"text": "x"})
    await socket.refused("invalid_request")
    await socket.send("approve", tool_call_id="old", decision="approve", arguments={"text": "older"})
    rest = await socket.until("assistant_end")
    assert one(rest, "tool_start")["arguments"] == '{"text":"older"}'
    assert ledger.lines == ["remove older"]
    assert told(model) == ['[The user changed the arguments to {"text":"older"}]\nremove done: older']


async def test_what_is_remembered_is_not_asked_again(bench: Bench, model: StrictOpenAIFake, ledger: Ledger) -> None:
    session_id, socket = await bench.socket()
    removing(model, "a", "b")
    await asked(socket)
    await socket.send("approve", tool_call_id="a", decision="approve", remember=True)
    rest = await socket.until("post_response_complete")
    assert sorted(ledger.lines) == ["remove a", "remove b"]
    grant = {"servers": {"ledger": {"tools": {"remove": "auto"}}}}
    assert one(rest, "session_updated")["tools"] == grant
    assert (await bench.client.http.get(f"/api/sessions/{session_id}")).json()["tools"] == grant

    removing(model, "c")
    events = await socket.reply("And c")
    assert "approval_required" not in types_of(events)
    assert ledger.lines[-1] == "remove c"


async def test_a_remembered_no_takes_the_tool_away(bench: Bench, model: StrictOpenAIFake, ledger: Ledger) -> None:
    _, socket = await bench.socket()
    removing(model, "a")
    await asked(socket)
    await socket.send("approve", tool_call_id="a", decision="reject", remember=True)
    await socket.expect("post_response_complete")
    model.reply("Fine.")
    await socket.reply("And now?")
    offered = [tool["function"]["name"] for tool in model.requests[-1].body["tools"]]
    assert "ledger__remove" not in offered
    assert ledger.lines == []


async def test_a_session_can_want_to_be_asked_about_any_tool(bench: Bench, model: StrictOpenAIFake) -> None:
    tools = {"servers": {"ledger": {"tools": {"note": "ask", "remove": "auto"}}}}
    _, socket = await bench.socket(tools=tools)
    model.script(call(0, "ledger__note", {"text": "x"}, id="n"), call(1, "ledger__remove", {"text": "y"}, id="r"))
    model.reply("Done.")
    required = await asked(socket, "Do both")
    assert required["tool_call_id"] == "n"
    await socket.send("approve", tool_call_id="n", decision="approve")
    rest = await socket.until("assistant_end")
    assert "approval_required" not in types_of(rest)


async def test_other_calls_go_on_while_one_waits(bench: Bench, model: StrictOpenAIFake, ledger: Ledger) -> None:
    _, socket = await bench.socket()
    model.script(call(0, "ledger__remove", {"text": "x"}, id="r"), call(1, "ledger__note", {"text": "y"}, id="n"))
    model.reply("Done.")
    await socket.say("Both")
    await ledger.has("note y")
    await socket.expect("tool_done", tool_call_id="n")
    await socket.send("approve", tool_call_id="r", decision="approve")
    await socket.expect("assistant_end")
    assert told(model) == ["remove done: x", "note done: y"]


# --- over REST, and what is refused ---------------------------------------------------------------------------------


async def decide(bench: Bench, session_id: str, call_id: str, **body: Any) -> httpx2.Response:
    return await bench.client.http.post(f"/api/sessions/{session_id}/approvals/{call_id}", json=body)


async def test_over_rest_a_call_is_listed_and_decided_once(
    bench: Bench, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    session_id, socket = await bench.socket()
    removing(model, "old")
    await asked(socket)
    listed = (await bench.client.http.get(f"/api/sessions/{session_id}/approvals")).json()["items"]
    assert [(item["tool_call_id"], item["state"], item["arguments"]) for item in listed] == [
        ("old", "waiting", '{"text": "old"}')
    ]
    both = await asyncio.gather(*(decide(bench, session_id, "old", decision="approve") for _ in range(2)))
    assert sorted(answer.status_code for answer in both) == [200, 409]
    assert next(answer for answer in both if answer.status_code == 409).json()["code"] == "not_waiting"
    await socket.expect("assistant_end")
    assert ledger.lines == ["remove old"]
    assert (await decide(bench, session_id, "old", decision="reject")).status_code == 409
    assert (await bench.client.http.get(f"/api/sessions/{session_id}/approvals")).json()["items"] == []


async def test_what_is_not_there_or_not_yours_is_not_found(
    bench: Bench, model: StrictOpenAIFake, database_url: str
) -> None:
    session_id, socket = await bench.socket()
    other_id, other = await bench.socket()
    removing(model, "old")
    await asked(socket)
    stranger, theirs = new_id(), new_id()
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("INSERT INTO users (id, display_name) VALUES ($1, 'Somebody else')", stranger)
        await connection.execute("INSERT INTO sessions (id, owner_id) VALUES ($1, $2)", theirs, stranger)
        await connection.execute("INSERT INTO journals (session_id) VALUES ($1)", theirs)
        await connection.execute(
            """
            INSERT INTO tool_calls (session_id, run_id, id, name, name_there, arguments, state, expires_at)
            VALUES ($1, $2, 'theirs', 'x', 'x', '{}', 'waiting', now() + interval '1 hour')
            """,
            theirs,
            new_id(),
        )
    finally:
        await connection.close()
    for session, call_id in (
        (session_id, "nothing"),
        (other_id, "old"),
        (str(theirs), "theirs"),
        (session_id, "theirs"),
    ):
        assert (await decide(bench, session, call_id, decision="approve")).status_code == 404
    assert (await bench.client.http.get(f"/api/sessions/{theirs}/approvals")).status_code == 404
    await other.send("approve", tool_call_id="old", decision="approve")
    await other.refused("not_found")
    assert (await decide(bench, session_id, "old", decision="perhaps")).status_code == 422
    assert (await decide(bench, session_id, "old", decision="approve")).status_code == 200
    await socket.expect("assistant_end")


async def test_nobody_can_agree_after_the_run_was_stopped(
    bench: Bench, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    session_id, socket = await bench.socket()
    removing(model, "old")
    await asked(socket)
    await socket.send("interrupt")
    rest = await socket.until("assistant_end")
    assert types_of(rest) == ["tool_done", "interrupted", "assistant_end"]
    assert one(rest, "interrupted")["phase"] == "tool"
    assert (await decide(bench, session_id, "old", decision="approve")).status_code == 409
    model.reply("Fine.")
    await socket.reply("Leave it")
    assert told(model) == ["[Not made: the reply was stopped before. Nothing was done.]"]
    assert ledger.lines == []


async def test_a_word_that_comes_too_late_is_a_no(database_url: str, model: StrictOpenAIFake, ledger: Ledger) -> None:
    timeouts = {"approval": 0.3, "tool_wait": 30}
    async with service_with(database_url, model, ledger, timeouts=timeouts) as bench:
        session_id, socket = await bench.socket()
        removing(model, "old")
        await asked(socket)
        rest = await socket.until("assistant_end")
        assert one(rest, "tool_done")["status"] == "rejected"
        assert told(model) == ["Nobody said in time whether this call may be made. Nothing was done."]
        assert (await decide(bench, session_id, "old", decision="approve")).status_code == 409
        assert ledger.lines == []


# --- pauses -----------------------------------------------------------------------------------------------------------


async def test_waiting_does_not_count_into_the_time_of_a_run(
    database_url: str, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    async with service_with(database_url, model, ledger, timeouts={"run": 1.5, "tool_wait": 30}) as bench:
        _, warm = await bench.socket()
        await warm.reply("Hello")  # the tool server has started
        _, socket = await bench.socket()
        removing(model, "old")
        await asked(socket)
        begun = asyncio.get_running_loop().time()
        await eventually(lambda: asyncio.get_running_loop().time() > begun + 1.6)
        await socket.send("approve", tool_call_id="old", decision="approve")
        assert one(await socket.until("assistant_end"), "assistant_end")["finish_reason"] == "stop"


async def test_the_word_may_be_given_at_another_replica(
    database_url: str, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    async with (
        service_with(database_url, model, ledger) as here,
        service_with(database_url, model, ledger) as there,
    ):
        session_id, socket = await here.socket()
        removing(model, "old")
        await asked(socket)
        other = await there.client.open(session_id)
        await other.send("approve", tool_call_id="old", decision="approve")
        assert text_of(await socket.until("assistant_end")) == "Done."
        await other.expect("assistant_end")
    assert ledger.lines == ["remove old"]


async def test_a_run_that_waits_goes_on_after_a_restart(
    database_url: str, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    async with service_with(database_url, model, ledger) as bench:
        session_id, socket = await bench.socket()
        model.script(
            Text("Well. "),
            call(0, "ledger__remove", {"text": "x"}, id="r"),
            call(1, "ledger__note", {"text": "y"}, id="n"),
        )
        model.reply("Done.")
        await socket.say("Remove it")
        await socket.until("tool_done")
        before = [frame for frame in socket.seen if "at" in frame]
        shown = before[-1]["seq"]
    async with service_with(database_url, model, ledger) as bench:
        assert (await bench.client.http.get(f"/api/sessions/{session_id}")).json()["active_run_id"] is not None
        socket = await bench.client.open(session_id, f"after={shown}")
        await bench.client.http.post(f"/api/sessions/{session_id}/approvals/r", json={"decision": "approve"})
        events = await socket.until("assistant_end")
        assert types_of(events) == ["tool_start", "tool_done", "text_delta", "assistant_end"]
        assert events[-1]["finish_reason"] == "stop"
        assert [event["seq"] for event in events] == list(range(shown + 1, shown + 1 + len(events)))
        stored = (await bench.client.history(session_id))[-1]
        assert stored["content"] == "Well. Done."
        kinds = [part["type"] for part in stored["parts"]]
        assert kinds == ["text", "tool_call", "tool_call", "tool_result", "tool_result", "text"]
    assert ledger.lines == ["note y", "remove x"]
    assert told(model) == ["remove done: x", "note done: y"]


async def test_a_word_that_was_given_while_nobody_was_there_counts(
    database_url: str, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    async with service_with(database_url, model, ledger) as bench:
        session_id, socket = await bench.socket()
        removing(model, "old")
        await asked(socket)
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT state FROM runs") == "running"
        await connection.execute("UPDATE tool_calls SET state = 'approved', decided_at = now()")
    finally:
        await connection.close()
    async with service_with(database_url, model, ledger) as bench:
        socket = await bench.client.open(session_id, "after=0")
        events = await socket.until("assistant_end")
        assert text_of(events) == "Well. Done."
    assert ledger.lines == ["remove old"]


async def test_a_run_that_waits_after_a_restart_can_be_stopped(
    database_url: str, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    async with service_with(database_url, model, ledger) as bench:
        session_id, socket = await bench.socket()
        removing(model, "old")
        await asked(socket)
    async with service_with(database_url, model, ledger) as bench:
        socket = await bench.client.open(session_id, "after=0")
        await socket.expect("approval_required")
        await socket.say("Never mind")
        assert one(await socket.until("assistant_end"), "interrupted")["phase"] == "tool"
        assert text_of(await socket.until("assistant_end")) == "Done."
    assert ledger.lines == []


async def test_what_a_run_had_cost_before_it_waited_counts(
    database_url: str, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    async with service_with(database_url, model, ledger) as bench:
        session_id, socket = await bench.socket()
        model.script(Text("Well. "), call(0, "ledger__remove", {"text": "old"}, id="old"), Tokens(100, 10))
        model.script(Text("Done."), Tokens(200, 20))
        await asked(socket)
    async with service_with(database_url, model, ledger) as bench:
        socket = await bench.client.open(session_id, "after=0")
        await socket.expect("approval_required")
        await socket.send("approve", tool_call_id="old", decision="approve")
        ended = one(await socket.until("assistant_end"), "assistant_end")

        assert (ended["usage"]["input_tokens"], ended["usage"]["output_tokens"]) == (300, 30)
        total = (await bench.client.http.get("/api/usage")).json()["total"]
        assert (total["input_tokens"], total["output_tokens"], total["estimated_tokens"]) == (300, 30, 0)
