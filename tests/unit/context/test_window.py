"""What can be relied on when a session's items are fitted into a model's context."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.context.tokens import RANKS, count_tokens, read_encoding
from services.context.window import (
    INTERRUPTED_NOTE,
    INTERRUPTED_NOTE_TOKENS,
    ContextItem,
    DoesNotFit,
    Role,
    as_model_messages,
    fit,
)


def items(*spoken: str) -> list[ContextItem]:
    """Items of 10 tokens each: `u` a user message, `a` a reply, `s` a note of the system, `i` an interrupted reply."""
    roles: dict[str, Role] = {"u": "user", "a": "assistant", "i": "assistant", "s": "system"}
    return [
        ContextItem(roles[word[0]], word, 10, UUID(int=number), interrupted=word[0] == "i")
        for number, word in enumerate(spoken)
    ]


def contents(history: Sequence[ContextItem]) -> str:
    return " ".join(item.content for item in history)


def test_short_history_is_given_whole():
    window = fit(30, items("a0", "u1", "a1", "u2"), limit=1000, reserve=200)
    assert contents(window.items) == "a0 u1 a1 u2"
    assert (window.tokens, window.reserve, window.left_out) == (70, 200, 0)


def test_oldest_items_are_left_out_first():
    window = fit(10, items("u1", "a1", "u2", "a2", "u3"), limit=60, reserve=20)
    assert contents(window.items) == "u2 a2 u3"
    assert (window.tokens, window.left_out) == (40, 2)


def test_reply_goes_when_its_question_went():
    assert contents(fit(10, items("u1", "a1", "u2"), limit=50, reserve=20).items) == "u2"
    assert contents(fit(10, items("u1", "s1", "a1", "s2", "u2"), limit=70, reserve=20).items) == "s2 u2"


def test_opening_words_of_a_persona_stay_while_nothing_is_left_out():
    assert contents(fit(0, items("a0", "u1"), limit=40, reserve=20).items) == "a0 u1"
    assert contents(fit(0, items("a0", "u1"), limit=30, reserve=15).items) == "u1"


def test_every_message_of_the_turn_is_kept():
    history = items("u1", "a1", "u2", "u3")
    assert contents(fit(0, history, limit=30, reserve=15, turn=1).items) == "u3"
    with pytest.raises(DoesNotFit):
        fit(0, history, limit=20, reserve=15, turn=2)
    assert contents(fit(0, history, limit=30, reserve=15, turn=2).items) == "u2 u3"


def test_reserve_shrinks_to_make_room_for_a_long_message_but_not_for_history():
    window = fit(0, items("u1", "a1", "u2"), limit=16, reserve=8)
    assert (contents(window.items), window.reserve) == ("u2", 6)
    window = fit(0, items("u1", "a1", "u2"), limit=40, reserve=20)
    assert (contents(window.items), window.reserve) == ("u2", 20)


def test_reserve_as_large_as_the_context_still_leaves_half_to_the_conversation():
    window = fit(0, items("u1", "a1", "u2"), limit=60, reserve=60)
    assert (contents(window.items), window.reserve) == ("u1 a1 u2", 30)


def test_message_too_long_for_the_model_tells_the_numbers():
    with pytest.raises(DoesNotFit) as refused:
        fit(80, items("u1"), limit=100, reserve=50)
    assert (refused.value.needed, refused.value.limit) == (115, 100)


def test_interrupted_reply_tells_the_model_that_it_was_stopped():
    window = fit(0, items("u1", "i1", "u2"), limit=200, reserve=50)
    assert as_model_messages(window) == [
        ("user", "u1"),
        ("assistant", f"i1\n\n{INTERRUPTED_NOTE}"),
        ("user", "u2"),
    ]
    assert window.tokens == 30 + INTERRUPTED_NOTE_TOKENS


def test_reply_interrupted_before_its_first_word_is_the_note_alone():
    silent = ContextItem("assistant", "", 4, UUID(int=1), interrupted=True)
    window = fit(0, [*items("u1"), silent, *items("u2")], limit=200, reserve=50)
    assert as_model_messages(window)[1] == ("assistant", INTERRUPTED_NOTE)


def test_note_costs_no_more_than_it_is_counted():
    encoding = read_encoding(RANKS)
    for content in (
        "",
        "word",
        "a sentence.",
        "code {",
        "list:\n\n",
        "spaces   ",
        "tabs\t\t",
        "###",
        "\u4e2d",
        "\U0001f642",
    ):
        item = ContextItem("assistant", content, count_tokens(encoding, content), UUID(int=1), interrupted=True)
        ((_, said),) = as_model_messages(fit(0, [item], limit=1000, reserve=0))
        assert count_tokens(encoding, said) <= item.cost


ROLES = st.sampled_from(["user", "assistant", "system"])
HISTORIES = st.lists(
    st.builds(ContextItem, ROLES, st.text(max_size=3), st.integers(0, 500), st.uuids(), st.booleans()), max_size=30
)


@given(HISTORIES, st.integers(0, 500), st.integers(1, 4000), st.integers(0, 4000), st.integers(0, 3))
def test_any_window_is_within_the_limit_contiguous_newest_and_legal(
    history: list[ContextItem], prompt: int, limit: int, reserve: int, turn: int
):
    users = [position for position, item in enumerate(history) if item.role == "user"]
    kept = history[min(max(len(history) - turn, 0), users[-1] if users else len(history)) :]
    needed = prompt + sum(item.cost for item in kept) + min(reserve, limit // 4)
    if needed > limit:
        with pytest.raises(DoesNotFit) as refused:
            fit(prompt, history, limit=limit, reserve=reserve, turn=turn)
        assert (refused.value.needed, refused.value.limit) == (needed, limit)
        return

    window = fit(prompt, history, limit=limit, reserve=reserve, turn=turn)
    assert window.tokens == prompt + sum(item.cost for item in window.items)
    assert window.tokens + window.reserve <= limit
    assert min(reserve, limit // 4) <= window.reserve <= reserve
    assert list(window.items) == history[window.left_out :]
    assert len(window.items) >= len(kept)
    if window.left_out and len(window.items) > len(kept):
        assert next((item.role for item in window.items if item.role != "system"), None) != "assistant"


@given(HISTORIES, st.integers(1, 4000))
def test_larger_model_never_sees_less(history: list[ContextItem], limit: int):
    try:
        smaller = fit(0, history, limit=limit, reserve=100)
    except DoesNotFit:
        return
    larger = fit(0, history, limit=limit * 2, reserve=100)
    assert larger.left_out <= smaller.left_out
