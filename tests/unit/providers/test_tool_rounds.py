"""Rounds of tools with every provider: what a server is told back is what it takes, thoughts included."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from services.agent.types import (
    ChatMessage,
    Finish,
    ModelEvent,
    ModelMessage,
    ModelRequest,
    ToolCall,
    ToolCallMessage,
    ToolResultMessage,
    ToolSpec,
)
from services.providers.tools import TOOLS_REFUSED
from tests.fakes.ollama_server import OllamaFake
from tests.fakes.script import Status, Text, Thinking, call
from tests.unit.providers.conftest import Peer, answer, joined

TOOL = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
QUESTION = ChatMessage("user", "1+2?")


def calls_of(events: list[ModelEvent]) -> tuple[ToolCall, ...]:
    return tuple(event for event in events if isinstance(event, ToolCall))


async def round_of(peer: Peer, provider: Any, said: list[ModelMessage]) -> list[ModelEvent]:
    """One call of the model; what it asks for and what the tool answers goes to what was said."""
    events = await answer(provider, ModelRequest("fake-small", tuple(said), tools=(TOOL,)))
    if calls := calls_of(events):
        said.append(ToolCallMessage(joined(events), calls))
        said.extend(ToolResultMessage(one.id, one.name, f"result of {one.id}") for one in calls)
    return events


def sent(peer: Peer, number: int) -> list[Mapping[str, Any]]:
    """The messages of a request, or its items."""
    body = peer.fake.requests[number].body
    return body["input"] if peer.kind == "openai-responses" else body["messages"]


def results_in(items: list[Mapping[str, Any]]) -> list[str]:
    """The ids of the calls that are answered."""
    ids = [item.get("tool_call_id") or item.get("call_id") for item in items if "arguments" not in item]
    return [id for id in ids if id]


async def test_two_rounds_are_told_back_call_by_call_with_their_results(peer: Peer) -> None:
    provider, said = peer.provider(), [QUESTION]
    peer.fake.script(Text("First. "), call(0, "add", {"a": 1}, id="x1"), call(1, "add", {"a": 2}, id="x2"))
    peer.fake.script(call(0, "add", {"a": 3}, id="x3"))
    peer.fake.reply("3")
    messages: list[ModelMessage] = list(said)
    rounds = [await round_of(peer, provider, messages) for _ in range(3)]
    assert [event for event in rounds[2] if isinstance(event, Finish)] == [Finish("stop")]

    asked = [one.id for events in rounds for one in calls_of(events)]
    assert len(set(asked)) == 3
    assert results_in(sent(peer, 1)) == asked[:2]
    assert results_in(sent(peer, 2)) == asked
    last = json.dumps(sent(peer, 2))
    assert "First. " in last
    assert all(f"result of {id}" in last for id in asked)


async def test_thoughts_go_back_with_the_results_and_only_in_their_own_turn(peer: Peer) -> None:
    if peer.kind in ("openai-responses", "azure"):
        return  # the one hands them out sealed, the other does not show them
    provider, messages = peer.provider(), list[ModelMessage]([QUESTION])
    peer.fake.script(Thinking("add "), Thinking("them"), call(0, "add", {"a": 1}, id="x1"))
    peer.fake.reply("3")
    for _ in range(2):
        await round_of(peer, provider, messages)
    field = "thinking" if peer.kind == "ollama" else "reasoning_content"
    assert [message.get(field) for message in sent(peer, 1)] == [None, "add them", None]

    peer.fake.reply("Yes.")
    await round_of(peer, provider, [*messages, ChatMessage("assistant", "3"), ChatMessage("user", "Sure?")])
    assert [message.get(field) for message in sent(peer, 2)] == [None] * 5


async def test_a_server_that_does_not_want_thoughts_back_is_asked_without_them(peer: Peer) -> None:
    if peer.kind != "openai-chat":
        return
    provider, messages = peer.provider(), list[ModelMessage]([QUESTION])
    peer.fake.script(Thinking("hm"), call(0, "add", {"a": 1}, id="x1"))
    peer.fake.script(Status(422, "messages.1.reasoning_content: Extra inputs are not permitted"))
    peer.fake.reply("3")
    await round_of(peer, provider, messages)
    assert joined(await round_of(peer, provider, messages)) == "3"
    assert "reasoning_content" not in json.dumps(sent(peer, 2))


REFUSALS = [
    "registry.ollama.ai/library/llama2:latest does not support tools",
    '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    "No endpoints found that support tool use. Try disabling tools.",
    "This model doesn't support function calling",
    "Function calling is not supported for this model",
    "`tools` are not supported with this model",
]


@pytest.mark.parametrize("words", REFUSALS)
def test_servers_say_in_many_words_that_a_model_has_no_tools(words: str) -> None:
    assert TOOLS_REFUSED.search(words.replace("`", ""))


@pytest.mark.parametrize(
    "words",
    [
        "tool_choice 'add' is not one of the tools",
        "Invalid schema for function 'add'",
        "messages with role 'tool' must",
    ],
)
def test_a_bad_tool_is_no_reason_to_do_without_all_of_them(words: str) -> None:
    assert not TOOLS_REFUSED.search(words)


async def test_a_model_without_tools_is_asked_without_them(peer: Peer) -> None:
    provider = peer.provider()
    peer.fake.script(Status(400, REFUSALS[0]))
    for _ in range(2):
        peer.fake.reply("By heart: 3.")
        events = await answer(provider, ModelRequest("fake-small", (QUESTION,), tools=(TOOL,)))
        assert joined(events) == "By heart: 3."
    assert ["tools" in request.body for request in peer.fake.requests] == [True, False, False]


async def test_an_ollama_model_that_says_beforehand_that_it_has_no_tools_is_never_offered_any(peer: Peer) -> None:
    if not isinstance(peer.fake, OllamaFake):
        return
    peer.fake.capabilities = ["completion"]
    await answer(peer.provider(), ModelRequest("fake-small", (QUESTION,), tools=(TOOL,)))
    assert ["tools" in request.body for request in peer.fake.requests] == [False]
