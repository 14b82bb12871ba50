"""What a person and a script can do with `python -m terminal`."""

import asyncio
from pathlib import Path

import httpx2

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Hang, Refusal, Status, Text, Thinking, Wait
from tests.integration.terminal.programs import (
    free_port,
    new_session,
    person_at,
    piped,
    stored,
    terminal,
)


async def test_a_piped_conversation_gets_one_reply_for_each_line(address: str, model: OpenAIFake) -> None:
    model.reply("Good ", "morning.")
    model.reply("Good ", "night.")

    client = await piped(address, "It is morning", "", "It is evening")

    assert client.said == "Good morning.\nGood night.\n"
    assert client.noticed == ""
    assert client.process.returncode == 0
    assert [message["content"] for message in model.requests[1].body["messages"]] == [
        "It is morning",
        "Good morning.",
        "It is evening",
    ]


async def test_lines_can_come_from_a_file(address: str, model: OpenAIFake, tmp_path: Path) -> None:
    model.reply("One.")
    model.reply("Two.")
    (tmp_path / "lines").write_bytes(b"first\r\nsecond without an end")

    with (tmp_path / "lines").open() as lines:
        async with terminal(address, stdin=lines) as client:
            assert await client.ended() == 0

    assert client.said == "One.\nTwo.\n"
    assert model.requests[1].body["messages"][0]["content"] == "first"


async def test_ctrl_c_stops_the_reply_and_the_next_line_is_answered(address: str, model: OpenAIFake) -> None:
    model.script(Text("For ever "), Hang())
    model.reply("Hello again.")
    async with terminal(address) as client:
        client.type("Go on for ever")
        await client.says("For ever")
        client.press_ctrl_c()
        await client.notices("[stopped]")
        client.type("And now?")
        await client.says("Hello again.")

        assert await client.end() == 0
    assert client.said == "For ever \nHello again.\n"
    assert model.requests[0].ended_by == "client"


async def test_ctrl_c_before_the_service_has_answered_just_leaves() -> None:
    came = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    async with server, terminal(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        async with asyncio.timeout(10):
            await came.wait()
        client.press_ctrl_c()
        assert await client.ended() != 0
    assert client.noticed == ""


async def test_a_failed_reply_says_whose_fault_it_is_and_whether_to_try_again(address: str, model: OpenAIFake) -> None:
    model.script(Status(401, "no such key"))
    model.reply("Better.")

    client = await piped(address, "Hello?", "Hello?")

    assert "fault of the model server; trying again will not help" in client.noticed
    assert client.said == "Better.\n"
    assert client.process.returncode == 1


async def test_a_refusal_is_said(address: str, model: OpenAIFake) -> None:
    model.script(Refusal("I would "), Refusal("rather not."))

    client = await piped(address, "Do something bad")

    assert client.said == "I would rather not.\n"


async def test_a_message_that_is_too_long_is_refused_and_the_next_one_is_answered(
    address: str, model: OpenAIFake
) -> None:
    model.reply("Short.")

    client = await piped(address, "long " * 40_000, "short")

    assert "longer than the service takes" in client.noticed
    assert client.said == "Short.\n"


async def test_a_session_is_continued(address: str, model: OpenAIFake) -> None:
    model.reply("Nice to meet you, Ada.")
    model.reply("Ada.")
    session_id = await new_session(address)

    await piped(address, "I am Ada", arguments=("--session", session_id))
    client = await piped(address, "Who am I?", arguments=("--session", session_id, "--model", "other"))

    assert client.said == "Ada.\n"
    assert model.requests[1].body["model"] == "other"
    assert [role for role, _ in await stored(address, session_id)] == ["user", "assistant"] * 2


async def test_the_reply_that_runs_in_a_continued_session_is_shown_first(address: str, model: OpenAIFake) -> None:
    gate = asyncio.Event()
    model.script(Text("Once upon "), Wait(gate), Text("a time."))
    model.reply("The end.")
    session_id = await new_session(address)
    async with terminal(address, "--session", session_id) as first:
        first.type("A story, please")
        await first.says("Once upon")
    async with terminal(address, "--session", session_id) as second:
        await second.says("Once upon")
        second.type("And then?")
        gate.set()
        await second.says("The end.")

        assert await second.end() == 0
    assert second.said == "Once upon a time.\nThe end.\n"


async def test_a_persona_is_found_by_its_name(address: str, model: OpenAIFake) -> None:
    async with httpx2.AsyncClient(base_url=address) as http:
        persona = {"name": "Ada", "template": "You are Ada."}
        (await http.post("/api/personas", json=persona)).raise_for_status()

    await piped(address, "Who are you?", arguments=("--persona", "ada"))
    stranger = await piped(address, "Who are you?", arguments=("--persona", "Nobody"))

    assert model.requests[0].body["messages"][0]["content"] == "You are Ada."
    assert stranger.noticed == "There is no persona 'Nobody'.\n"
    assert stranger.process.returncode == 1


async def test_commands_begin_a_new_session_and_show_what_was_said(address: str, model: OpenAIFake) -> None:
    model.reply("One.")
    model.reply("Two.")

    client = await piped(address, "first", "/new", "second", "/history", "/quit", "never read")

    assert client.said == "One.\nTwo.\n> second\nTwo.\n"
    assert len(model.requests[1].body["messages"]) == 1
    assert len(model.requests) == 2


async def test_a_service_that_does_not_run_is_named_with_the_way_to_start_it() -> None:
    client = await piped(f"http://127.0.0.1:{free_port()}", "hello")

    assert "does not answer" in client.noticed
    assert "make run" in client.noticed
    assert client.process.returncode == 1


async def test_an_unknown_session_is_named(address: str) -> None:
    client = await piped(address, "hello", arguments=("--session", "0190a000-0000-7000-8000-000000000000"))

    assert client.noticed == "There is no session with that id.\n"
    assert client.process.returncode == 1


async def test_at_a_terminal_thinking_is_dimmed_and_ctrl_c_stops_then_leaves(address: str, model: OpenAIFake) -> None:
    model.script(Thinking("Let me see."), Text("It is \x1b[2Jfine. "), Hang())
    async with person_at(address) as person:
        await person.sees_that("> ")
        person.type("How is it?\r")
        await person.sees_that("fine.")
        person.type("\x03")
        await person.sees_that("[stopped]\x1b[0m\r\n> ")
        person.type("\x03")

        assert await person.ended() == 0
    assert "\x1b[2mLet me see.\x1b[0m\r\nIt is [2Jfine. " in person.sees


async def test_ctrl_d_at_the_prompt_leaves(address: str) -> None:
    async with person_at(address) as person:
        await person.sees_that("> ")
        person.type("\x04")

        assert await person.ended() == 0
