"""Tool calls come together from any fragments, and an answer ends as it should."""

import random

import pytest

from services.agent.types import Finish, RefusalDelta, TextDelta, ThinkingDelta, ToolCall, Usage
from services.errors import ProviderBrokeOff
from services.providers.reply import Reply


def calls_of(reply: Reply) -> list[ToolCall]:
    reply.finish = "tool_calls"
    return [event for event in reply.end("fake") if isinstance(event, ToolCall)]


def test_fragments_of_several_calls_may_come_interleaved() -> None:
    reply = Reply()
    reply.call(0, id="a", name="add")
    reply.call(1, id="b", name="mul", arguments='{"x"')
    reply.call(0, arguments='{"y": 1')
    reply.call(1, arguments=": 2}")
    reply.call(0, arguments="}")
    assert calls_of(reply) == [ToolCall("a", "add", '{"y": 1}'), ToolCall("b", "mul", '{"x": 2}')]


def test_the_name_may_come_after_the_arguments() -> None:
    reply = Reply()
    reply.call(0, arguments="{}")
    reply.call(0, id="a", name="add")
    assert calls_of(reply) == [ToolCall("a", "add", "{}")]


def test_the_order_among_calls_does_not_matter_to_any_of_them() -> None:
    fragments = [(index, letter) for index in range(3) for letter in "abcd"]
    for seed in range(20):
        order = random.Random(seed)
        queues = {index: [letter for i, letter in fragments if i == index] for index in range(3)}
        reply = Reply()
        while any(queues.values()):
            index = order.choice([i for i, queue in queues.items() if queue])
            reply.call(index, id=f"id{index}", name="f", arguments=queues[index].pop(0))
        assert {call.id: call.arguments for call in calls_of(reply)} == {f"id{i}": "abcd" for i in range(3)}


def test_a_name_repeated_with_every_fragment_counts_once() -> None:
    reply = Reply()
    reply.call(0, id="a", name="add", arguments="{")
    reply.call(0, id="a", name="add", arguments="}")
    assert calls_of(reply) == [ToolCall("a", "add", "{}")]


def test_parallel_calls_under_one_index_are_told_apart_by_their_ids() -> None:
    reply = Reply()
    reply.call(0, id="a", name="add", arguments="{}")
    reply.call(0, id="b", name="mul", arguments="{}")
    assert [call.id for call in calls_of(reply)] == ["a", "b"]


def test_fragments_without_an_index_belong_to_the_last_call() -> None:
    reply = Reply()
    reply.call(None, id="a", name="add", arguments="{")
    reply.call(None, arguments="}")
    reply.call(None, id="b", name="mul", arguments="{}")
    assert calls_of(reply) == [ToolCall("a", "add", "{}"), ToolCall("b", "mul", "{}")]


def test_a_call_without_an_id_gets_one_of_its_own() -> None:
    reply = Reply()
    reply.call(0, name="add")
    reply.call(1, name="add")
    first, second = calls_of(reply)
    assert first.id != second.id
    assert first.arguments == "{}"


def test_arguments_that_are_not_json_are_handed_on_as_they_are() -> None:
    reply = Reply()
    reply.call(0, id="a", name="add", arguments='{"x": ')
    assert calls_of(reply) == [ToolCall("a", "add", '{"x": ')]


def test_a_call_cut_by_the_length_limit_is_not_made() -> None:
    reply = Reply()
    reply.call(0, id="a", name="add", arguments="{}")
    reply.call(1, id="b", name="add", arguments='{"x"')
    reply.finish = "length"
    assert reply.end("fake") == [ToolCall("a", "add", "{}"), Finish("length")]


def test_calls_decide_how_the_turn_ended_whatever_the_server_says() -> None:
    reply = Reply()
    reply.call(0, id="a", name="add")
    reply.finish = "stop"
    assert reply.end("fake")[-1] == Finish("tool_calls")


def test_an_empty_answer_to_a_call_is_a_plain_stop() -> None:
    reply = Reply()
    reply.finish = "tool_calls"
    assert reply.end("fake") == [Finish("stop")]


def test_a_refusal_decides_how_the_turn_ended() -> None:
    reply = Reply()
    assert list(reply.refusal("no")) == [RefusalDelta("no")]
    reply.finish = "stop"
    assert reply.end("fake") == [Finish("refusal")]


def test_what_was_held_back_comes_before_the_end() -> None:
    reply = Reply()
    assert list(reply.text("<thi")) == []
    assert list(reply.thinking("hm\ud83d")) == [ThinkingDelta("hm")]
    reply.finish, reply.usage = "stop", Usage(1, 2)
    assert reply.end("fake") == [TextDelta("<thi"), ThinkingDelta("\ufffd"), Usage(1, 2), Finish("stop")]


def test_surrogates_are_joined_also_after_plain_pieces() -> None:
    reply = Reply()
    pieces = ["plain ", "\ud83d", "\ude00", " more"]
    assert [event for piece in pieces for event in reply.text(piece)] == [
        TextDelta("plain "),
        TextDelta("😀"),
        TextDelta(" more"),
    ]


def test_an_answer_without_an_end_is_a_fault() -> None:
    reply = Reply()
    reply.text("Hel")
    with pytest.raises(ProviderBrokeOff):
        reply.end("fake")
