"""The demo says what it was given, says that it is a demo, and always says the same."""

import time

import pytest

from services.agent.types import (
    ChatMessage,
    Finish,
    ModelRequest,
    TextDelta,
    ToolCall,
    ToolResultMessage,
    ToolSpec,
    Usage,
)
from services.providers.demo import DemoProvider, account_of
from tests.unit.providers.conftest import answer, ask, joined

TOOL = ToolSpec("add", "Adds.", {"type": "object"})


def provider() -> DemoProvider:
    return DemoProvider(word_delay=0)


async def test_it_tells_what_it_was_given_word_by_word() -> None:
    request = ModelRequest(
        "demo",
        (ChatMessage("system", "You are a pirate."), ChatMessage("user", "Ahoy, what is the weather?")),
        tools=(TOOL,),
    )
    *words, usage, finish = await answer(provider(), request)
    text = joined(words)
    assert text == account_of(request)
    assert text.startswith("Demo (no model is connected)")
    for part in ("You are a pirate.", "2 messages", "1 tool (add)", "Ahoy, what is the weather?"):
        assert part in text
    assert len(words) > 10
    assert all(isinstance(word, TextDelta) for word in words)
    assert isinstance(usage, Usage)
    assert finish == Finish("stop")


async def test_the_same_request_gets_the_same_answer() -> None:
    assert await answer(provider()) == await answer(provider())


async def test_it_calls_a_tool_when_told_to() -> None:
    events = await answer(provider(), ask('/tool add {"a": 1}', tools=(TOOL,)))
    assert joined(events).startswith("Demo")
    assert events[-3:] == [ToolCall("demo_call_1", "add", '{"a": 1}'), events[-2], Finish("tool_calls")]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("/tool add", "{}"),
        ("/tool add {nonsense", "{nonsense"),
        ('/tool add {"a":\n 1}', '{"a":\n 1}'),
        ('/tool add {"a": 1}\n\n[File "notes.txt": apples]', '{"a": 1}'),
    ],
)
async def test_it_hands_on_the_arguments_as_they_were_written(text: str, arguments: str) -> None:
    events = await answer(provider(), ask(text, tools=(TOOL,)))
    assert [e.arguments for e in events if isinstance(e, ToolCall)] == [arguments]


async def test_without_tools_it_calls_none() -> None:
    assert (await answer(provider(), ask("/tool add {}")))[-1] == Finish("stop")


async def test_a_result_is_answered_not_asked_for_again() -> None:
    messages = (ChatMessage("user", "/tool add {}"), ToolResultMessage("demo_call_1", "add", "2"))
    events = await answer(provider(), ModelRequest("demo", messages, tools=(TOOL,)))
    assert 'The tool add answered "2".' in joined(events)


async def test_long_and_strange_words_are_quoted_shortly_and_cleanly() -> None:
    text = joined(await answer(provider(), ask("word\0 " * 1000 + "\ud800")))
    assert len(text) < 400
    text.encode()
    assert "\0" not in text


async def test_an_empty_request_is_no_trouble() -> None:
    assert "0 messages" in joined(await answer(provider(), ModelRequest("demo", ())))


async def test_words_are_paced_unless_told_not_to() -> None:
    started = time.monotonic()
    words = joined(await answer(DemoProvider(word_delay=0.001))).split()
    assert time.monotonic() - started >= 0.001 * len(words)


async def test_it_has_one_model_with_a_small_window() -> None:
    (model,) = await provider().models()
    assert model.context_window == await provider().context_window(model.id) == 8192
