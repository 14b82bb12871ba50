"""The reply is the sum of its events, however they were cut."""

import hashlib
from itertools import pairwise
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from db.records import EventRecord
from services.runs.draft import Draft
from services.runs.events import (
    ApprovalRequired,
    AssistantStart,
    RefusalDelta,
    RunEvent,
    TextDelta,
    ThinkingDelta,
    ToolDone,
    ToolStart,
    encode,
    timestamp,
)

RUN = UUID(int=7)
START = AssistantStart(UUID(int=1), None, "fake", "small")
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
deltas = st.one_of(*(st.builds(kind, texts) for kind in (TextDelta, ThinkingDelta, RefusalDelta)))


@st.composite
def tool_calls(draw: st.DrawFn) -> list[RunEvent]:
    id = f"call_{draw(st.integers(0, 10**9))}"
    asked = ApprovalRequired(id, "tool", "files", '{"n": 1}', "It deletes.", "2026-01-01T00:00:00Z")
    start = ToolStart(id, "tool", "files", '{"n": 2}')
    done = ToolDone(id, "completed", draw(texts), draw(st.booleans()), 1)
    story: list[RunEvent] = [asked, start, done]
    return draw(st.sampled_from([story[1:], story[1:2], story, story[:1], [asked, done]]))


stories = st.lists(deltas.map(lambda delta: [delta]) | tool_calls(), max_size=12).map(
    lambda parts: [event for part in parts for event in part]
)


def draft_of(events: list[Any]) -> Draft:
    draft = Draft()
    for event in events:
        draft.add(event)
    return draft


def cut(event: RunEvent, data: st.DataObject) -> list[RunEvent]:
    """The same delta in pieces."""
    if not isinstance(event, TextDelta | ThinkingDelta | RefusalDelta):
        return [event]
    at = sorted(data.draw(st.lists(st.integers(0, len(event.delta)), max_size=4)))
    edges = [0, *at, len(event.delta)]
    pieces = [event.delta[a:b] for a, b in pairwise(edges)]
    return [type(event)(piece) for piece in pieces if piece]


def facts(draft: Draft) -> tuple[object, ...]:
    return draft.text, draft.text_sha256, draft.parts, draft.size, draft.open_tool_calls, draft.message_id


@given(stories, st.data())
def test_any_way_of_cutting_the_deltas_gives_the_same_reply(story: list[RunEvent], data: st.DataObject):
    pieces = [piece for event in story for piece in cut(event, data)]
    assert facts(draft_of(pieces)) == facts(draft_of(story))


@given(stories)
def test_the_parts_tell_the_text_in_order(story: list[RunEvent]):
    draft = draft_of(story)
    for name, kind in (("text", TextDelta), ("thinking", ThinkingDelta), ("refusal", RefusalDelta)):
        shown = "".join(getattr(event, "delta", "") for event in story if type(event) is kind)
        assert "".join(part["text"] for part in draft.parts if part["type"] == name) == shown
    assert draft.text == "".join(event.delta for event in story if isinstance(event, TextDelta))
    assert draft.text_sha256 == hashlib.sha256(draft.text.encode()).hexdigest()
    kinds = [part["type"] for part in draft.parts]
    assert all(a != b or a.startswith("tool_") for a, b in pairwise(kinds))


@given(stories)
def test_looking_at_a_draft_in_between_changes_nothing(story: list[RunEvent]):
    looked = Draft()
    for event in story:
        looked.add(event)
        facts(looked)
    assert facts(looked) == facts(draft_of(story))


@given(stories)
def test_the_stored_events_give_the_same_draft(story: list[RunEvent]):
    whole: list[RunEvent] = [START, *story]
    stored = [encode(event, RUN, timestamp()) for event in whole]
    rows = [EventRecord(seq, None, event.type, event.body) for seq, event in enumerate(stored, 1)]
    assert facts(Draft.of(rows)) == facts(draft_of(whole))


def test_a_draft_without_events_has_neither_text_nor_message():
    draft = Draft()
    assert (draft.message_id, draft.text, draft.parts) == (None, "", [])
    assert draft.text_sha256 == hashlib.sha256(b"").hexdigest()


def test_open_tool_calls_are_those_without_a_result():
    draft = draft_of(
        [ToolStart("a", "t", None, "{}"), ToolStart("b", "t", None, "{}"), ToolDone("a", "failed", "", False, 1)]
    )
    assert draft.open_tool_calls == ["b"]


def test_a_call_is_one_part_with_the_arguments_that_it_was_made_with():
    asked = ApprovalRequired("a", "remove", "files", '{"n": 1}', "It deletes.", "2026-01-01T00:00:00Z")
    done = ToolDone("a", "completed", "gone", False, 7)
    draft = draft_of(
        [TextDelta("Well. "), asked, ToolStart("a", "remove", "files", '{"n": 2}'), done, TextDelta("So.")]
    )
    assert draft.parts == [
        {"type": "text", "text": "Well. "},
        {"type": "tool_call", "id": "a", "name": "remove", "server": "files", "arguments": '{"n": 2}'},
        {"type": "tool_result", "id": "a", "status": "completed", "result": "gone", "truncated": False, "ms": 7},
        {"type": "text", "text": "So."},
    ]
    assert draft.text == "Well. So."


def test_a_call_that_waits_for_somebodys_word_is_open():
    asked = ApprovalRequired("a", "remove", None, "{}", "It deletes.", "2026-01-01T00:00:00Z")
    assert draft_of([asked]).open_tool_calls == ["a"]
    assert draft_of([asked, ToolDone("a", "rejected", "", False, 0)]).open_tool_calls == []
