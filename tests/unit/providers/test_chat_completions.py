"""Chat Completions: what goes out, and the ways in which imitators differ."""

from typing import Any

import pytest

from services.agent.types import Finish, ModelEvent, RefusalDelta, TextDelta, ThinkingDelta, ToolSpec, Usage
from services.errors import InvalidControl, ProviderBrokeOff, ProviderRejected
from services.providers.chat_completions import ChatCompletions, ChatCompletionsReader
from services.providers.controls import validate_controls
from services.providers.openai import Azure, OpenAIAddress, OpenAIProvider
from services.providers.thoughts import Thoughts
from tests.fakes.script import Finish as FinishStep
from tests.fakes.script import Raw, Refusal, Status, Text, Tokens
from tests.unit.providers.conftest import Peer, answer, ask, joined, running

TOOL = ToolSpec("add", "Adds.", {"type": "object"})


def body(*, own: bool = False, tools: tuple[ToolSpec, ...] = (), **controls: Any) -> dict[str, Any]:
    return ChatCompletions(own=own).body(ask(controls=validate_controls(controls), tools=tools), ())


def read(*chunks: dict[str, Any]) -> list[ModelEvent]:
    reader = ChatCompletionsReader(Thoughts())
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.reply.end("fake")


def delta(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def test_a_bare_request_carries_nothing_but_what_it_must() -> None:
    assert body() == {
        "model": "fake-small",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_controls_go_by_the_names_of_the_protocol() -> None:
    sent = body(
        temperature=0.5, stop="END", max_tokens=9, top_k=4, response_format="json", provider_options={"min_p": 0.1}
    )
    assert (
        sent.items()
        >= {
            "temperature": 0.5,
            "stop": ["END"],
            "max_tokens": 9,
            "top_k": 4,
            "response_format": {"type": "json_object"},
            "min_p": 0.1,
        }.items()
    )


def test_openais_own_models_get_the_new_name_of_the_limit() -> None:
    assert body(own=True, max_tokens=9)["max_completion_tokens"] == 9


def test_a_schema_is_wrapped_as_the_protocol_wants_it() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}, "name": "out"}
    assert body(response_format=form)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "out", "strict": True, "schema": {"type": "object"}},
    }


def test_tool_controls_are_sent_with_tools_only() -> None:
    controls = {"tool_choice": {"name": "add"}, "parallel_tool_calls": False}
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & body(**controls).keys()
    sent = body(tools=(TOOL,), **controls)
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert sent["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    "address",
    [
        OpenAIAddress("k"),
        OpenAIAddress("k", "https://api.openai.com/v1"),
        OpenAIAddress("k", azure=Azure("https://x", "1")),
    ],
)
def test_openais_own_servers_are_not_asked_what_they_cannot_do(address: OpenAIAddress) -> None:
    with pytest.raises(InvalidControl, match="top_k"):
        OpenAIProvider(address).stream(ask(controls={"top_k": 4}))


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_comes_under_either_name(name: str) -> None:
    events = read(delta(**{name: "hm"}), delta(content="x"), delta("stop"))
    assert events == [ThinkingDelta("hm"), TextDelta("x"), Finish("stop")]


def test_reasoning_sent_under_both_names_counts_once() -> None:
    assert read(delta(reasoning="hm", reasoning_content="hm"), delta("stop"))[0:1] == [ThinkingDelta("hm")]


def test_content_may_come_in_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    events = read(delta(content=[thinking, {"type": "text", "text": "x"}]), delta("stop"))
    assert events == [ThinkingDelta("hm"), TextDelta("x"), Finish("stop")]


def test_arguments_may_come_as_an_object() -> None:
    events = read(delta("stop", tool_calls=[{"id": "a", "function": {"name": "add", "arguments": {"a": 1}}}]))
    assert getattr(events[0], "arguments", "") == '{"a": 1}'


def test_usage_told_with_every_chunk_is_told_once() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 1}}
    events = read({**delta(content="x"), "usage": usage}, {**delta("stop"), "usage": usage})
    assert events == [TextDelta("x"), Usage(3, 4, 1), Finish("stop")]


def test_only_the_first_choice_is_read() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}]}
    assert read(other, delta("stop", content="x")) == [TextDelta("x"), Finish("stop")]


@pytest.mark.parametrize(
    ("said", "meant"),
    [("length", "length"), ("content_filter", "refusal"), ("eos", "stop"), ("function_call", "stop")],
)
def test_every_word_for_the_end_has_a_meaning(said: str, meant: str) -> None:
    assert read(delta(said, content="x"))[-1] == Finish(meant)  # type: ignore[arg-type]


def test_an_end_by_error_is_a_fault() -> None:
    with pytest.raises(ProviderBrokeOff, match="error"):
        read(delta("error", content="x"))


async def test_a_refusal_is_told_as_one(chat: Peer) -> None:
    chat.fake.script(Refusal("I "), Refusal("won't."))
    events = await answer(chat.provider())
    assert events[:2] == [RefusalDelta("I "), RefusalDelta("won't.")]
    assert events[-1] == Finish("refusal")


async def test_reasoning_tokens_are_told(chat: Peer) -> None:
    chat.fake.script(Text("x"), Tokens(3, 4, 2))
    assert Usage(3, 4, 2) in await answer(chat.provider())


async def test_a_server_that_refuses_to_count_is_asked_without_and_remembered(chat: Peer) -> None:
    provider = chat.provider()
    chat.fake.script(Status(400, "Unknown field: stream_options"))
    assert joined(await answer(provider)) == "Hello there."
    assert joined(await answer(provider)) == "Hello there."
    assert ["stream_options" in request.body for request in chat.fake.requests] == [True, False, False]


async def test_a_refusal_of_something_else_is_not_mended(chat: Peer) -> None:
    chat.fake.script(Status(400, "Unknown field: temperature"))
    with pytest.raises(ProviderRejected):
        await answer(chat.provider())


async def test_comments_that_keep_the_line_open_are_no_part_of_the_answer(chat: Peer) -> None:
    chat.fake.script(Raw(b": waiting\n\n"), Text("x"), Raw(b": still here\r\n\r\n"), Text("y"))
    assert joined(await answer(chat.provider())) == "xy"


async def test_a_line_that_breaks_after_the_end_takes_nothing_away(chat: Peer) -> None:
    end = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    chat.fake.script(Text("whole"), Raw(end), Raw(b"data: {nonsense\n\n"), FinishStep())
    assert await answer(chat.provider()) == [TextDelta("whole"), Finish("stop")]


async def test_the_key_goes_to_the_server_and_nowhere_else(chat: Peer) -> None:
    provider = chat.provider()
    await answer(provider)
    assert chat.fake.requests[0].headers["Authorization"] == "Bearer sk-secret-key"
    assert "sk-secret" not in repr(vars(provider))


async def test_azure_is_asked_by_deployment_and_version() -> None:
    async with running("azure") as peer:
        await answer(peer.provider(), ask(model="my-deployment"))
        request = peer.fake.requests[0]
        assert request.path == "/openai/deployments/my-deployment/chat/completions?api-version=2025-03-01-preview"
        assert request.headers["api-key"] == "sk-secret-key"


async def test_the_window_comes_from_the_model_list_and_is_asked_for_once(chat: Peer) -> None:
    provider = chat.provider()
    assert [await provider.context_window("fake-small") for _ in range(3)] == [16_384] * 3
    assert len(chat.fake.lookups) == 1
