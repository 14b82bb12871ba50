"""The service's own tools, called by a model over a real socket."""

from typing import Any

import pytest

from services.tools.builtin import BUILT_IN
from tests.fakes.script import Text, call
from tests.fakes.strict import StrictOpenAIFake
from tests.integration.sockets.client import one
from tests.integration.tools.conftest import Bench

ON = {"servers": {BUILT_IN: {}, "ledger": {"enabled": False}}}


def offered(model: StrictOpenAIFake, number: int = -1) -> dict[str, dict[str, Any]]:
    tools = model.requests[number].body.get("tools", [])
    return {tool["function"]["name"]: tool["function"] for tool in tools}


def told(model: StrictOpenAIFake) -> str:
    return model.requests[-1].body["messages"][-1]["content"]


async def test_what_there_is_is_told_in_the_configuration(bench: Bench) -> None:
    config = (await bench.client.http.get("/api/config")).json()
    names = [tool["name"] for tool in config["built_in_tools"]]
    assert names == ["list_files", "read_file", "search_files", "search_history", "run_module"]
    assert [server["name"] for server in config["tool_servers"]] == ["ledger"]


async def test_the_history_can_be_searched_beyond_what_was_asked(bench: Bench, model: StrictOpenAIFake) -> None:
    _, socket = await bench.socket(tools=ON)
    await socket.reply("My parrot is called Ferdinand.")
    model.script(call(0, "search_history", {"query": "parrot"}, id="c1"))
    model.reply("Ferdinand.")
    await socket.reply("What is my parrot called?")
    assert "user: My parrot is called Ferdinand." in told(model)
    assert "What is my parrot called?" not in told(model)
    assert list(offered(model)) == ["search_history", "read_tool_result"]


async def test_nothing_of_other_sessions_is_found(bench: Bench, model: StrictOpenAIFake) -> None:
    _, other = await bench.socket(tools=ON)
    await other.reply("My parrot is called Ferdinand.")
    _, socket = await bench.socket(tools=ON)
    model.script(call(0, "search_history", {"query": "Ferdinand"}, id="c1"))
    model.reply("No.")
    await socket.reply("Whom do I have?")
    assert told(model) == "Nothing was found."


# --- modules ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def persona(bench: Bench) -> str:
    """A persona with modules that wait to be named."""
    counting = 'n = ctx.get_variable("n", 0) + 1\nctx.set_variable("n", n)\nctx.set_output("n", str(n))'
    modules: list[dict[str, Any]] = [
        {"name": "plain", "description": "Says where it is.", "content": "In ${persona.name}. @always"},
        {"name": "counting", "type": "advanced", "script": counting, "content": "Run ${n}."},
        {"name": "broken", "type": "advanced", "script": 'ctx.set_output("x", str(1 // 0))', "content": "${x}"},
        {"name": "resting", "content": "no", "is_active": False},
        {"name": "always", "content": "@never_scanned", "execution_context": "IMMEDIATE"},
    ]
    for module in modules:
        answer = await bench.client.http.post("/api/modules", json={"execution_context": "ON_DEMAND", **module})
        assert answer.status_code == 201, answer.text
    names = ["plain", "counting", "broken", "resting"]
    return await bench.client.persona(name="Host", template="Be kind.", modules=names, tools=ON)


async def test_a_model_can_call_for_the_modules_that_wait_to_be_named(
    bench: Bench, model: StrictOpenAIFake, persona: str
) -> None:
    _, socket = await bench.socket(persona_id=persona)
    model.script(call(0, "run_module", {"name": "plain"}, id="c1"))
    model.reply("Thanks.")
    await socket.reply("Go")
    function = offered(model)["run_module"]
    assert function["parameters"]["properties"]["name"]["enum"] == ["plain", "counting", "broken"]
    assert "- plain: Says where it is." in function["description"]
    assert told(model) == "In Host. @never_scanned"


async def test_a_module_runs_once_in_a_turn_and_remembers_for_the_next(
    bench: Bench, model: StrictOpenAIFake, persona: str
) -> None:
    _, socket = await bench.socket(persona_id=persona)
    for expected in ("Run 1.", "Run 2."):
        calls = [call(n, "run_module", {"name": "counting"}, id=f"c{n}") for n in range(3)]
        model.script(*calls)
        model.script(call(0, "run_module", {"name": "counting"}, id="again"))
        model.reply("Thanks.")
        events = await socket.reply("Count")
        results = [event["result"] for event in events if event["type"] == "tool_done"]
        assert results == [expected] * 4


async def test_a_module_that_fails_says_nothing_of_why(bench: Bench, model: StrictOpenAIFake, persona: str) -> None:
    _, socket = await bench.socket(persona_id=persona)
    model.script(call(0, "run_module", {"name": "broken"}, id="c1"), call(1, "run_module", {"name": "always"}, id="c2"))
    model.reply("Well.")
    events = await socket.reply("Go")
    done = {event["tool_call_id"]: event for event in events if event["type"] == "tool_done"}
    assert (done["c1"]["status"], done["c1"]["result"]) == ("failed", "The module has nothing to say just now.")
    assert done["c2"]["status"] == "failed"
    assert "ZeroDivision" not in str(model.requests[-1].body)


async def test_a_persona_can_keep_its_modules_to_itself(bench: Bench, model: StrictOpenAIFake, persona: str) -> None:
    tools = {"servers": {BUILT_IN: {"tools": {"run_module": "never"}}}}
    _, socket = await bench.socket(persona_id=persona, tools=tools)
    await socket.reply("Go")
    assert "run_module" not in offered(model)


async def test_a_tool_of_our_own_can_be_asked_about_and_that_remembered(
    bench: Bench, model: StrictOpenAIFake, persona: str
) -> None:
    tools = {"servers": {BUILT_IN: {"tools": {"run_module": "ask"}}}}
    session_id, socket = await bench.socket(persona_id=persona, tools=tools)
    model.script(Text("May I? "), call(0, "run_module", {"name": "counting"}, id="c1"))
    model.reply("Thanks.")
    await socket.say("Count")
    required = await socket.expect("approval_required")
    assert (required["server"], required["reason"]) == (None, "You want to be asked about this tool.")
    await socket.send("approve", tool_call_id="c1", decision="approve", arguments={"name": "resting"})
    await socket.refused("invalid_request")
    await socket.send("approve", tool_call_id="c1", decision="approve", remember=True)
    assert one(await socket.until("assistant_end"), "tool_done")["result"] == "Run 1."
    stored = (await bench.client.http.get(f"/api/sessions/{session_id}")).json()["tools"]
    assert stored["servers"][BUILT_IN]["tools"]["run_module"] == "auto"


# --- files ------------------------------------------------------------------------------------------------------------


async def upload(bench: Bench, session_id: str, name: str, text: str) -> str:
    answer = await bench.client.http.post(
        f"/api/sessions/{session_id}/files", files={"file": (name, text.encode(), "text/plain")}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def test_files_can_be_read_where_nobody_says_anything_of_tools(bench: Bench, model: StrictOpenAIFake) -> None:
    off = {"ledger": {"enabled": False}}
    for servers, names in (
        (off, ["list_files", "read_file", "search_files", "read_tool_result"]),
        (off | {BUILT_IN: {"enabled": False}}, []),
        (off | {BUILT_IN: {"tools": {"read_file": "never", "search_history": "never"}}}, None),
    ):
        session_id, socket = await bench.socket(tools={"servers": servers})
        await upload(bench, session_id, "note.txt", "The safe is behind the mirror.")
        await socket.reply("Hello")
        expected = ["list_files", "search_files", "read_tool_result"] if names is None else names
        assert list(offered(model)) == expected


async def test_files_are_offered_where_there_are_some_and_read_page_by_page(
    bench: Bench, model: StrictOpenAIFake
) -> None:
    session_id, socket = await bench.socket(tools=ON)
    await socket.reply("Hello")
    assert "read_file" not in offered(model)

    long = "\n".join(f"line {n}" for n in range(5_000))
    file_id = await upload(bench, session_id, "long.txt", long)
    await upload(bench, session_id, "note.txt", "The safe is behind the mirror.")
    for number, asked in enumerate(
        (
            call(0, "list_files", {}, id="c1"),
            call(0, "read_file", {"file": "long.txt"}, id="c2"),
            call(0, "read_file", {"file": file_id, "offset": len(long) - 9}, id="c3"),
            call(0, "search_files", {"query": "mirror"}, id="c4"),
            call(0, "read_file", {"file": "../../etc/passwd"}, id="c5"),
        )
    ):
        model.script(asked)
        model.reply(str(number))
        await socket.reply(f"Step {number}")
        result = told(model)
        match number:
            case 0:
                assert "long.txt (text/plain" in result
                assert file_id in result
            case 1:
                assert result.startswith("line 0\nline 1\n")
                assert f" of {len(long)}. Go on with offset=" in result
            case 2:
                assert result == long[-9:]
            case 3:
                assert "[note.txt, from character" in result
                assert "behind the mirror" in result
            case _:
                assert result == "There is no file of that name."
