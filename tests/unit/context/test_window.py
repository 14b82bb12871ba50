"""What can be relied on when a session is fitted into a model's context."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.types import ChatMessage, ToolResultMessage
from services.context.items import Group, Item
from services.context.tokens import MESSAGE_OVERHEAD
from services.context.window import SHORTENED, SHORTENED_TOKENS, DoesNotFit, Window, fit
from tests.unit.context.told import asked, groups, result


def contents(window: Window) -> str:
    return " ".join(message.content for message in window.messages)


def test_short_history_is_given_whole():
    window = fit(30, groups("a0", "u1", "a1", "u2"), limit=1000, reserve=200)
    assert contents(window) == "a0 u1 a1 u2"
    assert (window.tokens, window.reserve, window.left_out) == (70, 200, 0)


def test_oldest_messages_are_left_out_first():
    window = fit(10, groups("u1", "a1", "u2", "a2", "u3"), limit=60, reserve=20)
    assert contents(window) == "u2 a2 u3"
    assert (window.tokens, window.left_out) == (40, 2)


def test_reply_goes_when_its_question_went():
    assert contents(fit(10, groups("u1", "a1", "u2"), limit=50, reserve=20)) == "u2"
    assert contents(fit(10, groups("u1", "s1", "a1", "s2", "u2"), limit=70, reserve=20)) == "s2 u2"


def test_opening_words_of_a_persona_stay_while_nothing_is_left_out():
    assert contents(fit(0, groups("a0", "u1"), limit=40, reserve=20)) == "a0 u1"
    assert contents(fit(0, groups("a0", "u1"), limit=30, reserve=15)) == "u1"


def test_every_message_of_the_turn_is_kept():
    history = groups("u1", "a1", "u2", "u3")
    assert contents(fit(0, history, limit=30, reserve=15, turn=1)) == "u3"
    with pytest.raises(DoesNotFit):
        fit(0, history, limit=20, reserve=15, turn=2)
    assert contents(fit(0, history, limit=30, reserve=15, turn=2)) == "u2 u3"


def test_reserve_shrinks_to_make_room_for_a_long_message_but_not_for_history():
    window = fit(0, groups("u1", "a1", "u2"), limit=16, reserve=8)
    assert (contents(window), window.reserve) == ("u2", 6)
    window = fit(0, groups("u1", "a1", "u2"), limit=40, reserve=20)
    assert (contents(window), window.reserve) == ("u2", 20)


def test_reserve_as_large_as_the_context_still_leaves_half_to_the_conversation():
    window = fit(0, groups("u1", "a1", "u2"), limit=60, reserve=60)
    assert (contents(window), window.reserve) == ("u1 a1 u2", 30)


def test_message_too_long_for_the_model_tells_the_numbers():
    with pytest.raises(DoesNotFit) as refused:
        fit(80, groups("u1"), limit=100, reserve=50)
    assert (refused.value.needed, refused.value.limit) == (115, 100)


def test_summary_stands_before_everything_and_goes_before_the_newest_message_does():
    summary = Item(ChatMessage("user", "so far"), 10)
    assert contents(fit(0, groups("u1", "a1", "u2"), limit=100, reserve=20, summary=summary)) == "so far u1 a1 u2"
    assert contents(fit(0, groups("u1", "a1", "u2"), limit=40, reserve=20, summary=summary)) == "so far u2"
    assert contents(fit(0, groups("u1", "a1", "u2"), limit=20, reserve=10, summary=summary)) == "u2"


def test_running_reply_pushes_out_what_was_said_before_it():
    reply = [asked("", "one"), result("one")]
    window = fit(0, groups("u1", "a1", "u2"), limit=80, reserve=20, reply=reply)
    assert [message.content for message in window.messages] == ["u2", "", "found"]


def test_long_running_reply_forgets_its_oldest_results_first_and_says_where_they_are():
    reply = [asked("", "one"), result("one", tokens=500), asked("", "two"), result("two", tokens=500)]
    window = fit(0, groups("u1"), limit=800, reserve=100, reply=reply)
    assert [message.content for message in window.messages] == ["u1", "", SHORTENED.format("one"), "", "found"]
    assert window.tokens <= 700


def test_reply_that_fits_not_even_without_its_results_tells_the_numbers():
    reply = [asked("", "one", tokens=900), result("one", tokens=500)]
    with pytest.raises(DoesNotFit):
        fit(0, groups("u1"), limit=800, reserve=100, reply=reply)


TOKENS = st.integers(0, 500)


@st.composite
def replies(draw: st.DrawFn) -> list[Item]:
    """Exchanges with tools: calls, each with its results."""
    items: list[Item] = []
    for number in range(draw(st.integers(0, 4))):
        ids = [f"{number}.{call}" for call in range(draw(st.integers(1, 3)))]
        items += [asked("", *ids, tokens=draw(TOKENS)), *(result(id, tokens=draw(TOKENS)) for id in ids)]
    return items


@st.composite
def histories(draw: st.DrawFn) -> list[Group]:
    """Groups of any size, in any order of roles; replies may have exchanges with tools in them."""
    made: list[Group] = []
    for number, word in enumerate(draw(st.lists(st.sampled_from("uas"), max_size=20))):
        (group,) = groups(word, tokens=draw(TOKENS))
        exchanges = tuple(draw(replies())) if word == "a" else ()
        made.append(Group(group.message_id, group.role, (*exchanges, *group.items)))
        assert number < 20
    return made


def least_of(reply: Sequence[Item]) -> int:
    """What a reply costs when all of its results are shortened that are longer than the word of it."""
    word = MESSAGE_OVERHEAD + SHORTENED_TOKENS
    return sum(
        min(item.tokens, word + len(item.message.call_id))
        if isinstance(item.message, ToolResultMessage)
        else item.tokens
        for item in reply
    )


def calls_and_results(window: Window) -> list[tuple[str, ...]]:
    """For each message what it calls, or what it answers."""
    return [
        tuple(call.id for call in getattr(message, "calls", ())) or (getattr(message, "call_id", ""),)
        for message in window.messages
    ]


def is_legal(told: Sequence[tuple[str, ...]], window: Window) -> bool:
    """Whether every call is followed by its results, in its order, and no result stands elsewhere."""
    waiting: list[str] = []
    for ids, message in zip(told, window.messages, strict=True):
        if isinstance(message, ToolResultMessage):
            if not waiting or waiting.pop(0) != message.call_id:
                return False
        elif waiting:
            return False
        else:
            waiting = [id for id in ids if id]
    return not waiting


@given(histories(), replies(), st.integers(0, 500), st.integers(1, 6000), st.integers(0, 4000), st.integers(0, 3))
def test_any_window_is_within_the_limit_contiguous_newest_and_legal(
    history: list[Group], reply: list[Item], prompt: int, limit: int, reserve: int, turn: int
):
    users = [position for position, group in enumerate(history) if group.role == "user"]
    kept = history[min(max(len(history) - turn, 0), users[-1] if users else len(history)) :]
    needed = prompt + sum(group.tokens for group in kept) + min(reserve, limit // 4) + least_of(reply)
    if needed > limit:
        with pytest.raises(DoesNotFit) as refused:
            fit(prompt, history, limit=limit, reserve=reserve, turn=turn, reply=reply)
        assert (refused.value.needed, refused.value.limit) == (needed, limit)
        return

    window = fit(prompt, history, limit=limit, reserve=reserve, turn=turn, reply=reply)

    assert window.tokens == prompt + sum(item.tokens for item in window.items)
    assert window.tokens + window.reserve <= limit
    assert min(reserve, limit // 4) <= window.reserve <= reserve
    assert list(window.groups) == history[window.left_out :]
    assert len(window.groups) >= len(kept)
    assert is_legal(calls_and_results(window), window)
    if window.left_out and len(window.groups) > len(kept):
        assert next((group.role for group in window.groups if group.role != "system"), None) != "assistant"


@given(histories(), st.integers(1, 4000))
def test_larger_model_never_sees_less(history: list[Group], limit: int):
    try:
        smaller = fit(0, history, limit=limit, reserve=100)
    except DoesNotFit:
        return
    larger = fit(0, history, limit=limit * 2, reserve=100)
    assert larger.left_out <= smaller.left_out


@given(replies(), st.integers(200, 4000))
def test_results_are_shortened_oldest_first(reply: list[Item], limit: int):
    try:
        window = fit(0, groups("u"), limit=limit, reserve=100, reply=reply)
    except DoesNotFit:
        return
    short = [kept is not item for kept, item in zip(window.reply, reply, strict=True)]
    could = [
        isinstance(item.message, ToolResultMessage) and item.tokens > 60 for item in reply
    ]  # more than any note of being shortened takes
    of_results = [is_short for is_short, can in zip(short, could, strict=True) if can]
    assert all(earlier >= later for earlier, later in pairwise(of_results))
