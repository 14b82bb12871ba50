"""What the model is told of a message."""

import pytest

from services.agent.types import ChatMessage, ModelMessage, ToolCall, ToolCallMessage, ToolResultMessage
from services.context.items import (
    BROKEN_OFF_NOTE,
    FAILED_NOTE,
    INTERRUPTED_NOTE,
    Item,
    decode,
    encode,
    groups_of,
    overhead_of,
    said_in,
    texts_of,
)
from services.context.repair import UNKNOWN_OUTCOME
from services.context.tokens import MESSAGE_OVERHEAD, RANKS, count_tokens, read_encoding
from tests.unit.context.told import asked, message, result, stored


def told(*messages: object, **fields: object) -> list[tuple[str, str]]:
    """Who says what in the only group of a message."""
    (group,) = groups_of([message(*messages, **fields)])  # pyright: ignore[reportArgumentType]
    return [(_who(item.message), item.message.content) for item in group.items]


def _who(message: ModelMessage) -> str:
    match message:
        case ChatMessage(role=role):
            return role
        case ToolCallMessage():
            return "calls"
        case ToolResultMessage():
            return "result"


def test_message_without_items_stands_for_itself():
    assert told("user words") == [("user", "user words")]
    (group,) = groups_of([message("user words")])
    assert group.tokens == 10 + MESSAGE_OVERHEAD


def test_reply_with_tools_is_its_exchanges_and_then_the_rest_of_its_text():
    said = told("a look. Found it.", asked("a look. ", "1"), result("1"), rest=7)
    assert said == [("calls", "a look. "), ("result", "found"), ("assistant", "Found it.")]
    (group,) = groups_of([message("a look. Found it.", asked("a look. ", "1"), result("1"), rest=7)])
    assert [item.tokens for item in group.items] == [20, 30, 7]


def test_reply_that_ended_with_its_tools_has_no_rest():
    assert told("a look. ", asked("a look. ", "1"), result("1")) == [("calls", "a look. "), ("result", "found")]


@pytest.mark.parametrize(
    ("finish_reason", "stopped_by", "note"),
    [
        ("interrupted", "user", INTERRUPTED_NOTE),
        ("interrupted", "message", INTERRUPTED_NOTE),
        ("interrupted", None, INTERRUPTED_NOTE),
        ("interrupted", "recovery", BROKEN_OFF_NOTE),
        ("interrupted", "shutdown", BROKEN_OFF_NOTE),
        ("error", None, FAILED_NOTE),
    ],
)
def test_model_is_told_why_a_reply_has_no_end(finish_reason: str, stopped_by: str | None, note: str):
    how = {"finish_reason": finish_reason, "stopped_by": stopped_by}
    assert told("a beginning", **how) == [("assistant", f"a beginning\n\n{note}")]
    assert told("", **how) == [("assistant", note)]
    assert told("a look. ", asked("a look. ", "1"), result("1"), **how)[-1] == ("assistant", note)


def test_call_whose_owner_died_has_a_result_that_says_so():
    said = told("a look. ", asked("a look. ", "1"), finish_reason="interrupted", stopped_by="recovery")
    assert said == [("calls", "a look. "), ("result", UNKNOWN_OUTCOME), ("assistant", BROKEN_OFF_NOTE)]


def test_reply_that_ended_by_itself_and_said_nothing_is_not_there():
    assert groups_of([message("", finish_reason="refusal"), message("user words")])[0].role == "user"


def test_notes_cost_no_more_than_they_are_counted():
    encoding = read_encoding(RANKS)
    for content in ("", "a word", "a sentence.", "a {", "a:\n\n", "a   ", "a\t\t", "a###", "a\u4e2d", "a\U0001f642"):
        known = message(content, finish_reason="error")
        for how in (known, message(content, finish_reason="interrupted", stopped_by="recovery")):
            (group,) = groups_of([how])
            (item,) = group.items
            spare = 10 - count_tokens(encoding, content) if content else 0
            assert count_tokens(encoding, item.message.content) + MESSAGE_OVERHEAD + spare <= item.tokens


@pytest.mark.parametrize(
    "said",
    [
        ChatMessage("user", "words"),
        ChatMessage("assistant", "words"),
        ToolCallMessage("words", (ToolCall("1", "look", '{"at": "it"}'), ToolCall("2", "look", "{}"))),
        ToolResultMessage("1", "look", "found"),
    ],
)
def test_item_that_was_stored_is_the_same_again(said: ModelMessage):
    item = Item(said, 12, ({"id": "f"},))
    assert decode(encode(item)) == item


def test_item_of_another_version_does_not_raise():
    assert decode(stored(role="oracle", text="words")).message == ChatMessage("user", "words")
    assert decode(stored()).message == ChatMessage("user", "")
    assert decode(stored(role="tool", text=None)).message == ToolResultMessage("", "", "")


def test_every_text_of_a_call_counts():
    call = ToolCallMessage("words", (ToolCall("1", "look", "{}"), ToolCall("2", "see", "[]")))
    assert texts_of(call) == ("words", "look", "{}", "see", "[]")
    assert overhead_of(call) > overhead_of(ChatMessage("user", "words")) == MESSAGE_OVERHEAD


def test_text_of_a_reply_that_its_items_tell_is_counted_in_characters():
    user = Item(ChatMessage("user", "steered"), 5)
    assert said_in([asked("a look. ", "1"), result("1"), user, Item(ChatMessage("assistant", "So."), 5)]) == 11
