"""Whatever was left in the context, what the model is told is legal."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.agent.types import (
    ChatMessage,
    ModelMessage,
    ModelRequest,
    ToolCall,
    ToolCallMessage,
    ToolResultMessage,
)
from services.context.repair import NO_ANSWER, UNKNOWN_OUTCOME, repaired
from services.providers.chat_completions import ChatCompletions
from tests.fakes.strict import complaints_about


def call(*ids: str, text: str = "") -> ToolCallMessage:
    return ToolCallMessage(text, tuple(ToolCall(id, "look", "{}") for id in ids))


def result(id: str, text: str = "found") -> ToolResultMessage:
    return ToolResultMessage(id, "look", text)


def refused(messages: Sequence[ModelMessage]) -> list[str]:
    """What a strict server says to these messages."""
    body = ChatCompletions(own=True).body(ModelRequest("m", tuple(messages)), ())
    return complaints_about(body["messages"])


HELLO = ChatMessage("user", "hello")


def test_legal_conversation_stays_as_it_is():
    messages = [HELLO, call("1", "2", text="Let me see."), result("1"), result("2"), ChatMessage("assistant", "There.")]
    assert all(after is before for after, before in zip(repaired(messages), messages, strict=True))


def test_call_without_result_gets_one_that_says_that_nobody_knows():
    assert repaired([call("1"), HELLO]) == [call("1"), result("1", UNKNOWN_OUTCOME), HELLO]


def test_results_stand_right_after_their_call_and_in_its_order():
    mended = repaired([call("1", "2"), result("2"), HELLO, result("1")])
    assert mended == [call("1", "2"), result("1"), result("2"), HELLO]


def test_result_without_call_and_second_result_are_left_out():
    assert repaired([result("0"), call("1"), result("1"), result("1", "again")]) == [call("1"), result("1")]


def test_id_that_a_model_uses_again_means_its_newest_call():
    messages = [call("1"), result("1", "old"), call("1"), result("1", "new")]
    assert repaired(messages) == messages


def test_two_calls_of_one_id_in_one_message_are_one():
    assert repaired([call("1", "2", "1"), result("1"), result("2")]) == [call("1", "2"), result("1"), result("2")]


def test_nothing_is_empty():
    assert repaired([ChatMessage("assistant", " \n"), ToolCallMessage("", ()), call("1"), result("1", "")]) == [
        call("1"),
        result("1", NO_ANSWER),
    ]
    assert repaired([ToolCallMessage("I would.", ())]) == [ChatMessage("assistant", "I would.")]


def test_arguments_that_nobody_can_read_are_told_as_such():
    (mended, _) = repaired([ToolCallMessage("", (ToolCall("1", "look", '{"cut'),))])
    assert isinstance(mended, ToolCallMessage)
    assert mended.calls[0].arguments == '{"invalid":"{\\"cut"}'


def test_note_of_the_system_says_what_it_is():
    (note,) = repaired([ChatMessage("system", "The shop is closed.")])
    assert isinstance(note, ChatMessage)
    assert note.role == "user"
    assert "not write" in note.content
    assert "The shop is closed." in note.content


IDS = st.sampled_from(["", "1", "2", "3"])
ARGUMENTS = st.sampled_from(["{}", '{"a": 1}', "", "[]", '{"cut'])
TEXTS = st.sampled_from(["", " ", "words"])
MESSAGES: st.SearchStrategy[ModelMessage] = st.one_of(
    st.builds(ChatMessage, st.sampled_from(["user", "assistant", "system"]), TEXTS),
    st.builds(
        ToolCallMessage, TEXTS, st.lists(st.builds(ToolCall, IDS, st.just("look"), ARGUMENTS), max_size=3).map(tuple)
    ),
    st.builds(ToolResultMessage, IDS, st.just("look"), TEXTS),
)


@given(st.lists(MESSAGES, max_size=12))
def test_any_sequence_becomes_legal_and_stays_so(messages: Sequence[ModelMessage]):
    mended = repaired(messages)
    assert refused(mended) == []
    assert repaired(mended) == mended


@given(st.lists(MESSAGES, max_size=12))
def test_what_people_and_models_said_is_never_lost(messages: Sequence[ModelMessage]):
    told = [m.content for m in repaired(messages) if isinstance(m, ChatMessage | ToolCallMessage) and m.content.strip()]
    said = [m.content for m in messages if isinstance(m, ChatMessage | ToolCallMessage) and m.content.strip()]
    assert len(told) == len(said)
