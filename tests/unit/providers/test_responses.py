"""The Responses protocol: what goes out, and how its many events end."""

from typing import Any

import pytest

from services.agent.types import (
    ChatMessage,
    Finish,
    ModelRequest,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallMessage,
    ToolResultMessage,
    ToolSpec,
    Usage,
)
from services.errors import InvalidControl, ProviderError
from services.providers.controls import validate_controls
from services.providers.faults import Complaints
from services.providers.responses import Responses
from tests.fakes.script import Fault, Refusal, Status, Text, Thinking, Tokens, call
from tests.fakes.script import Finish as FinishStep
from tests.unit.providers.conftest import Peer, answer, ask, joined

TOOL = ToolSpec("add", "Adds.", {"type": "object"})


def body(*, model: str = "gpt-4o", tools: tuple[ToolSpec, ...] = (), **controls: Any) -> dict[str, Any]:
    return Responses().body(ask(model=model, controls=validate_controls(controls), tools=tools), ())


def read(*events: dict[str, Any]) -> list[Any]:
    reader = Responses().reader(Complaints("fake"))
    return [e for event in events for e in reader.feed(event)] + reader.reply.end("fake")


DONE = {"type": "response.completed", "response": {"usage": None}}


def test_nothing_is_stored_at_the_server() -> None:
    assert body() == {
        "model": "gpt-4o",
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "stream": True,
        "store": False,
    }


def test_controls_go_by_the_names_of_the_protocol() -> None:
    form = {"type": "json_schema", "schema": {}, "name": "out"}
    sent = body(max_tokens=9, verbosity="low", reasoning_effort="high", response_format=form)
    assert sent["max_output_tokens"] == 9
    assert sent["text"] == {
        "verbosity": "low",
        "format": {"type": "json_schema", "name": "out", "strict": True, "schema": {}},
    }
    assert sent["reasoning"] == {"effort": "high", "summary": "auto"}


@pytest.mark.parametrize("model", ["o3-mini", "gpt-5", "gpt-5-mini", "openai/gpt-oss-20b"])
def test_reasoning_models_are_asked_for_a_summary(model: str) -> None:
    assert body(model=model)["reasoning"] == {"summary": "auto"}
    assert "reasoning" not in body(model=model, thinking=False)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5-chat-latest", "my-deployment"])
def test_other_models_are_not_unless_told_so(model: str) -> None:
    assert "reasoning" not in body(model=model)
    assert body(model=model, thinking="low")["reasoning"] == {"effort": "low", "summary": "auto"}


async def test_what_the_protocol_cannot_say_is_refused(responses: Peer) -> None:
    with pytest.raises(InvalidControl, match="stop"):
        responses.provider().stream(ask(controls={"stop": ["x"]}))


def test_summaries_of_several_thoughts_are_paragraphs() -> None:
    def part(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"type": "response.reasoning_summary_part.added"}, {
            "type": "response.reasoning_summary_text.delta",
            "delta": text,
        }

    assert joined(read(*part("one"), *part("two"), DONE), ThinkingDelta) == "one\n\ntwo"


def test_a_call_without_any_fragments_is_read_from_its_last_event() -> None:
    item = {"type": "function_call", "id": "fc", "call_id": "c", "name": "add", "arguments": '{"a":1}'}
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    assert read(done, DONE)[0] == ToolCall("c", "add", '{"a":1}')


def test_fragments_without_a_last_event_and_without_numbers_are_enough() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "add", "arguments": ""}
    events = (
        {"type": "response.output_item.added", "item": item},
        {"type": "response.function_call_arguments.delta", "item_id": "c", "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", "item_id": "c", "delta": ":1}"},
    )
    assert read(*events, DONE)[0] == ToolCall("c", "add", '{"a":1}')


async def test_usage_and_refusals_are_told(responses: Peer) -> None:
    responses.fake.script(Refusal("no"), Tokens(3, 4, 2))
    assert await answer(responses.provider()) == [RefusalDelta("no"), Usage(3, 4, 2), Finish("refusal")]


@pytest.mark.parametrize(("reason", "meant"), [("length", "length"), ("content_filter", "refusal")])
async def test_an_incomplete_response_tells_why(responses: Peer, reason: str, meant: str) -> None:
    responses.fake.script(Text("x"), FinishStep(reason))
    assert (await answer(responses.provider()))[-1] == Finish(meant)  # type: ignore[arg-type]


async def test_a_failed_response_is_a_fault(responses: Peer) -> None:
    responses.fake.script(Text("x"), FinishStep("failed"))
    with pytest.raises(ProviderError, match="the model fell over"):
        await answer(responses.provider())


async def test_an_error_event_before_the_first_word_is_tried_again(responses: Peer) -> None:
    responses.fake.script(Fault("overloaded"))
    assert joined(await answer(responses.provider())) == "Hello there."


async def test_sealed_thoughts_go_back_with_the_results_of_the_calls_they_led_to(responses: Peer) -> None:
    provider = responses.provider()
    responses.fake.script(Thinking("I should add"), call(0, "add", {}, id="c1"))
    await answer(provider, ask(model="gpt-5", tools=(TOOL,)))
    messages = (
        ChatMessage("user", "hi"),
        ToolCallMessage("", (ToolCall("c1", "add", "{}"),)),
        ToolResultMessage("c1", "add", "2"),
    )
    await answer(provider, ModelRequest("gpt-5", messages, tools=(TOOL,)))
    assert responses.fake.requests[0].body["include"] == ["reasoning.encrypted_content"]
    kinds = [item["type"] for item in responses.fake.requests[1].body["input"]]
    assert kinds == ["message", "reasoning", "function_call", "function_call_output"]


async def test_a_model_without_summaries_is_asked_without_them(responses: Peer) -> None:
    provider = responses.provider()
    message = "Your organization must be verified to generate reasoning summaries."
    responses.fake.script(Status(400, message, "unsupported_value"))
    assert joined(await answer(provider, ask(model="gpt-5"))) == "Hello there."
    assert ["reasoning" in request.body for request in responses.fake.requests] == [True, False]


async def test_text_and_calls_of_one_turn_are_both_told(responses: Peer) -> None:
    responses.fake.script(Text("Adding."), call(0, "add", {"a": 1}, id="c1"), Tokens(1, 2))
    assert await answer(responses.provider(), ask(tools=(TOOL,))) == [
        TextDelta("Adding."),
        ToolCall("c1", "add", '{"a": 1}'),
        Usage(1, 2),
        Finish("tool_calls"),
    ]
