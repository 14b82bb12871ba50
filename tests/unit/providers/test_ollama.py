"""Ollama's own protocol: every request sets up its window, and options go by Ollama's names."""

from typing import Any

import pytest

from services.agent.types import ChatMessage, ModelRequest, ToolCall, ToolCallMessage, ToolSpec
from services.errors import InvalidControl
from services.providers.controls import validate_controls
from tests.unit.providers.conftest import Peer, answer, ask

TOOL = ToolSpec("add", "Adds.", {"type": "object"})


async def sent(
    ollama: Peer, *, tools: tuple[ToolSpec, ...] = (), connection_num_ctx: int = 8192, **controls: Any
) -> dict[str, Any]:
    await answer(ollama.provider(num_ctx=connection_num_ctx), ask(controls=validate_controls(controls), tools=tools))
    return ollama.fake.requests[-1].body


async def test_a_bare_request_says_how_large_a_window_it_needs(ollama: Peer) -> None:
    assert await sent(ollama, connection_num_ctx=5000) == {
        "model": "fake-small",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "truncate": False,
        "options": {"num_ctx": 5000},
    }


async def test_the_window_of_the_control_goes_before_that_of_the_connection(ollama: Peer) -> None:
    assert (await sent(ollama, num_ctx=5000))["options"] == {"num_ctx": 5000}
    provider = ollama.provider(num_ctx=5000)
    await answer(provider, ask(controls={"num_ctx": 6000}))
    assert ollama.fake.requests[-1].body["options"] == {"num_ctx": 6000}


async def test_controls_go_by_ollamas_names(ollama: Peer) -> None:
    body = await sent(
        ollama,
        temperature=0.5,
        max_tokens=9,
        top_k=4,
        stop="END",
        repeat_penalty=1.1,
        keep_alive="5m",
        thinking="low",
        provider_options={"mirostat": 2},
    )
    assert body["options"] == {
        "temperature": 0.5,
        "num_predict": 9,
        "top_k": 4,
        "stop": ["END"],
        "repeat_penalty": 1.1,
        "mirostat": 2,
        "num_ctx": 8192,
    }
    assert (body["keep_alive"], body["think"]) == ("5m", "low")


@pytest.mark.parametrize(("effort", "think"), [("none", False), ("minimal", "low"), ("xhigh", "high")])
async def test_effort_is_translated_to_thinking(ollama: Peer, effort: str, think: bool | str) -> None:
    assert (await sent(ollama, reasoning_effort=effort))["think"] == think


async def test_the_form_of_the_reply_is_json_or_a_schema(ollama: Peer) -> None:
    assert (await sent(ollama, response_format="json"))["format"] == "json"
    schema = {"type": "object"}
    assert (await sent(ollama, response_format={"type": "json_schema", "schema": schema}))["format"] == schema
    assert "format" not in await sent(ollama, response_format="text")


async def test_without_tools_wanted_none_are_offered(ollama: Peer) -> None:
    assert "tools" in await sent(ollama, tools=(TOOL,))
    assert "tools" not in await sent(ollama, tools=(TOOL,), tool_choice="none")
    with pytest.raises(InvalidControl, match="tool_choice"):
        await sent(ollama, tools=(TOOL,), tool_choice="required")


async def test_calls_with_unreadable_arguments_are_told_as_empty_objects(ollama: Peer) -> None:
    messages = (ChatMessage("user", "hi"), ToolCallMessage("", (ToolCall("a", "add", "{nonsense"),)))
    await answer(ollama.provider(), ModelRequest("m", messages))
    (call,) = ollama.fake.requests[0].body["messages"][1]["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": {}}


async def test_the_window_is_the_smaller_of_what_is_asked_for_and_what_the_model_can(ollama: Peer) -> None:
    provider = ollama.provider(num_ctx=20_000)
    assert await provider.context_window("fake-small") == 20_000
    assert await provider.context_window("fake-small", {"num_ctx": 50_000}) == 32_768
    assert await provider.context_window("fake-small", {"num_ctx": 1_000}) == 1_000
    assert len(ollama.fake.lookups) == 1


async def test_a_model_that_is_not_installed_has_the_window_that_would_be_asked_for(ollama: Peer) -> None:
    assert await ollama.provider(num_ctx=20_000).context_window("nobody") == 20_000


async def test_the_key_of_the_environment_goes_to_no_server(ollama: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "sk-of-the-environment")
    await answer(ollama.provider(api_key=None))
    assert "authorization" not in {name.lower() for name in ollama.fake.requests[0].headers}
