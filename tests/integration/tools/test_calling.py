"""An agent with hands: tools of a real server, called by a model over a real socket."""

from typing import Any

from tests.fakes.script import Text, call
from tests.fakes.strict import StrictOpenAIFake
from tests.integration.sockets.client import one, sha256, text_of, types_of
from tests.integration.tools.conftest import Bench, service_with
from tests.ledger import Ledger


def messages_of(model: StrictOpenAIFake, number: int) -> list[dict[str, Any]]:
    return model.requests[number].body["messages"]


async def test_a_reply_with_a_tool_is_shown_kept_and_told_in_its_true_order(
    bench: Bench, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    session_id, socket = await bench.socket()
    model.script(Text("Let me note that. "), call(0, "ledger__note", {"text": "milk"}, id="c1"))
    model.reply("It is ", "noted.")
    events = await socket.reply("Note milk")

    assert ledger.lines == ["note milk"]
    names = types_of(events)
    reply = names[names.index("assistant_start") : names.index("assistant_end") + 1]
    assert reply == ["assistant_start", "text_delta", "tool_start", "tool_done", "text_delta", "assistant_end"]
    start, done, end = (one(events, type) for type in ("tool_start", "tool_done", "assistant_end"))
    assert (start["tool_call_id"], start["name"], start["server"]) == ("c1", "ledger__note", "ledger")
    assert (done["status"], done["result"], done["truncated"]) == ("completed", "note done: milk", False)
    assert end["finish_reason"] == "stop"
    assert end["text_sha256"] == sha256("Let me note that. It is noted.") == sha256(text_of(events))
    assert end["usage"]["input_tokens"] == 20

    stored = (await bench.client.history(session_id))[-1]
    assert stored["content"] == "Let me note that. It is noted."
    assert [part["type"] for part in stored["parts"]] == ["text", "tool_call", "tool_result", "text"]
    assert stored["parts"][1]["arguments"] == '{"text": "milk"}'
    assert stored["parts"][2]["result"] == "note done: milk"

    offered = [tool["function"]["name"] for tool in model.requests[0].body["tools"]]
    assert offered == ["ledger__note", "ledger__wait", "ledger__remove", "ledger__talk", "read_tool_result"]
    assert [message["role"] for message in messages_of(model, 1)] == ["user", "assistant", "tool"]
    assert messages_of(model, 1)[-1] == {"role": "tool", "tool_call_id": "c1", "content": "note done: milk"}


async def test_the_next_turn_knows_what_was_done(bench: Bench, model: StrictOpenAIFake) -> None:
    _, socket = await bench.socket()
    model.script(call(0, "ledger__note", {"text": "milk"}, id="c1"))
    model.reply("Noted.")
    await socket.reply("Note milk")
    model.reply("Milk.")
    await socket.reply("What did you note?")
    assert [message["role"] for message in messages_of(model, 2)] == ["user", "assistant", "tool", "assistant", "user"]


async def test_parallel_calls_are_answered_in_their_order(
    bench: Bench, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    _, socket = await bench.socket()
    model.script(*(call(n, "ledger__wait", {"text": f"gate{n}"}, id=f"c{n}") for n in range(3)))
    model.reply("All three.")
    await socket.say("Wait for them")
    for n in (2, 1, 0):
        await ledger.has(f"begun gate{n}")
    for n in (2, 1, 0):
        ledger.allow(f"gate{n}")
        await ledger.has(f"ended gate{n}")
    await socket.expect("assistant_end")
    results = [message["tool_call_id"] for message in messages_of(model, 1) if message["role"] == "tool"]
    assert results == ["c0", "c1", "c2"]


async def test_how_far_a_tool_has_come_is_shown(bench: Bench, model: StrictOpenAIFake, ledger: Ledger) -> None:
    _, socket = await bench.socket()
    model.script(call(0, "ledger__wait", {"text": "gate"}, id="c1"))
    await socket.say("Wait")
    progress = await socket.expect("tool_progress")
    assert (progress["tool_call_id"], progress["progress"], progress["total"]) == ("c1", 1, 2)
    assert progress["message"] == "waiting for gate"
    ledger.allow("gate")
    await socket.expect("assistant_end")


async def test_arguments_that_do_not_fit_the_schema_never_reach_the_tool(
    bench: Bench, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    _, socket = await bench.socket()
    model.script(
        call(0, "ledger__note", {"text": 7}, id="c1"),
        call(1, "ledger__note", '{"text": "bro', id="c2"),
        call(2, "ledger__nothing", {}, id="c3"),
    )
    model.reply("I see.")
    events = await socket.reply("Try")
    assert ledger.lines == []
    assert [event["status"] for event in events if event["type"] == "tool_done"] == ["failed"] * 3
    told = [message["content"] for message in messages_of(model, 1) if message["role"] == "tool"]
    assert "text: 7 is not of type 'string'" in told[0]
    assert "not JSON" in told[1]
    assert "There is no tool named ledger__nothing" in told[2]


async def test_a_long_result_is_given_in_part_and_can_be_read_on(
    database_url: str, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    async with service_with(database_url, model, ledger, limits={"tool_result_tokens": 200}) as bench:
        _, socket = await bench.socket()
        model.script(call(0, "ledger__talk", {"characters": 20_000}, id="c1"))
        model.script(call(0, "read_tool_result", {"id": "c1", "offset": 19_000}, id="c2"))
        model.script(call(0, "read_tool_result", {"id": "c9"}, id="c3"))
        model.reply("Read.")
        events = await socket.reply("Read it")
    first, second, third = (messages_of(model, n)[-1]["content"] for n in (1, 2, 3))
    assert first.startswith("line 0\n")
    assert 'Go on with read_tool_result(id="c1", offset=' in first
    assert len(first) < 2_000
    assert "line 0\n" not in second
    assert "[Shortened: characters 19000 to" in second
    assert "no result with that id" in third
    assert next(event for event in events if event["type"] == "tool_done")["truncated"]


async def test_a_model_that_keeps_calling_in_vain_ends_the_run_with_an_error_of_its_own(
    bench: Bench, model: StrictOpenAIFake
) -> None:
    _, socket = await bench.socket()
    for n in range(4):
        model.script(Text("Hm. "), call(0, "nobody", {}, id=f"c{n}"))
    events = await socket.reply("Go")
    error = one(events, "error")
    assert (error["code"], error["whose"]) == ("unusable_calls", "model")
    assert one(events, "assistant_end")["finish_reason"] == "error"
    assert text_of(events) == "Hm. Hm. Hm. Hm. "
    model.reply("Better.")
    assert text_of(await socket.reply("Again")) == "Better."


async def test_a_model_that_calls_for_ever_concludes_when_its_turns_are_used_up(
    database_url: str, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    async with service_with(database_url, model, ledger, limits={"max_turns": 3}) as bench:
        _, socket = await bench.socket()
        for n in range(2):
            model.script(call(0, "ledger__note", {"text": str(n)}, id=f"c{n}"))
        model.reply("That is all that I found.")
        events = await socket.reply("Go")
        assert one(events, "assistant_end")["finish_reason"] == "max_turns"
        assert text_of(events) == "That is all that I found."
        assert [request.body.get("tool_choice") for request in model.requests] == [None, None, "none"]
        model.reply("Yes?")
        await socket.reply("And now?")


async def test_tools_are_those_that_session_and_persona_let_be(bench: Bench, model: StrictOpenAIFake) -> None:
    def offered(number: int) -> list[str]:
        return [tool["function"]["name"] for tool in model.requests[number].body.get("tools", [])]

    only_notes = {"servers": {"ledger": {"tools": {"*": "never", "note": "auto"}}}}
    persona_id = await bench.client.persona(name="Clerk", tools=only_notes)
    for session in (
        {"tools": {"servers": {"ledger": {"enabled": False}}}},
        {"persona_id": persona_id},
        {"persona_id": persona_id, "tools": {"servers": {"ledger": {"tools": {"talk": "auto"}}, "builtin": {}}}},
    ):
        _, socket = await bench.socket(**session)
        await socket.reply("Hello")
    assert offered(0) == []
    assert offered(1) == ["ledger__note", "read_tool_result"]
    assert offered(2) == ["search_history", "ledger__note", "ledger__talk", "read_tool_result"]


async def test_an_interrupt_in_a_call_cancels_it_and_keeps_what_was_done(
    bench: Bench, model: StrictOpenAIFake, ledger: Ledger
) -> None:
    session_id, socket = await bench.socket()
    model.script(
        Text("Both. "),
        call(0, "ledger__note", {"text": "first"}, id="c1"),
        call(1, "ledger__wait", {"text": "gate"}, id="c2"),
    )
    await socket.say("Do both")
    await socket.expect("tool_done", tool_call_id="c1")
    await ledger.has("begun gate")
    await socket.send("interrupt")
    rest = await socket.until("assistant_end")
    assert types_of([event for event in rest if event["type"] != "tool_progress"]) == [
        "tool_done",
        "interrupted",
        "assistant_end",
    ]
    closed = one(rest, "tool_done")
    assert (closed["tool_call_id"], closed["status"]) == ("c2", "interrupted")
    assert one(rest, "interrupted")["phase"] == "tool"
    await ledger.has("cancelled gate")
    statuses = [part.get("status") for part in (await bench.client.history(session_id))[-1]["parts"]]
    assert [status for status in statuses if status] == ["completed", "interrupted"]

    model.reply("Never mind.")
    assert text_of(await socket.reply("What now?")) == "Never mind."
    told = {
        message["tool_call_id"]: message["content"] for message in messages_of(model, 1) if message["role"] == "tool"
    }
    assert told["c1"] == "note done: first"
    assert "Whether it took effect is not known" in told["c2"]
    assert sorted(ledger.lines) == ["begun gate", "cancelled gate", "note first"]
