"""The wire and the journal tell the same: what is an event here is a frame there."""

import dataclasses
import json
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from services.runs import events
from services.runs.events import Event, SessionUpdated, encode, frame_text, timestamp
from websocket.frames import CLIENT_FRAME, SERVER_FRAME, ConnectionFrame, Frame, ServerFrame, SessionEvent
from websocket.manager import BinaryNotSupported, FrameBudget, InvalidFrame, parse_frame

RUN = UUID("01a20047-0000-7000-8000-000000000000")
ADDED = {"type", "seq", "run_id", "at"}
"""What the journal puts beside an event's own fields."""

FRAMES: dict[str, type[BaseModel]] = {
    get_args(frame.model_fields["type"].annotation)[0]: frame for frame in get_args(get_args(ServerFrame)[0])
}


def members(union: Any) -> list[Any]:
    return [member for part in get_args(union) for member in (members(part) or [part])]


EVENTS = members(Event)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
json_values = st.dictionaries(words, words | st.integers(-(2**53), 2**53) | st.booleans() | st.none(), max_size=3)
optional_counts = st.fixed_dictionaries(
    {name: st.none() | st.integers(0, 2**40) for name in ("input_tokens", "output_tokens", "thinking_tokens")}
)
counts = st.dictionaries(words, st.integers(0, 2**40), max_size=3)
BY_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "stage": st.integers(1, 5),
    "modules": st.lists(json_values, max_size=2).map(tuple),
    "parts": counts,
    "timings": counts,
    "usage": optional_counts,
    "details": json_values,
    "progress": st.floats(allow_nan=False, allow_infinity=False),
    "total": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "changes": json_values.map(lambda changes: {f"_{name}": value for name, value in changes.items()} | {"title": "T"}),
}


def strategy_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    hints = {field.name: BY_FIELD.get(field.name) for field in dataclasses.fields(kind)}
    typed = {name: strategy for name, strategy in hints.items() if strategy is not None}
    texts = {field.name: words for field in dataclasses.fields(kind) if field.type is str}
    numbers = {field.name: st.integers(0, 2**53) for field in dataclasses.fields(kind) if field.type is int}
    return st.builds(kind, **{**texts, **numbers, **typed})


any_event = st.one_of(*(strategy_of(kind) for kind in EVENTS))


def test_every_event_has_its_frame_and_every_journalled_frame_its_event():
    journalled = {name for name, frame in FRAMES.items() if not issubclass(frame, ConnectionFrame)}
    assert {kind.type for kind in EVENTS} == journalled


@pytest.mark.parametrize("kind", [kind for kind in EVENTS if kind is not SessionUpdated], ids=lambda kind: kind.type)
def test_a_frame_has_exactly_the_fields_of_its_event(kind: type[Any]):
    assert {field.name for field in dataclasses.fields(kind)} == set(FRAMES[kind.type].model_fields) - ADDED


@given(any_event, st.integers(1, 2**62))
def test_any_event_becomes_a_valid_frame_with_the_same_values(event: Event, seq: int):
    run_id = None if isinstance(event, SessionUpdated) else RUN
    encoded = encode(event, run_id, timestamp())
    text = frame_text(encoded.type, seq, encoded.body)
    sent = json.loads(text)
    assert (sent["type"], sent["seq"], sent.get("run_id")) == (event.type, seq, run_id and str(run_id))
    own = event.changes if isinstance(event, SessionUpdated) else dataclasses.asdict(event)
    assert {name: sent[name] for name in own} == json.loads(json.dumps(own, default=str))
    assert set(sent) <= set(own) | ADDED
    frame = SERVER_FRAME.validate_json(text)
    assert isinstance(frame, FRAMES[event.type])
    assert json.loads(frame.model_dump_json(include=set(own))) == json.loads(json.dumps(own, default=str))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_arrives_as_it_was(text: str):
    encoded = encode(events.TextDelta(text), RUN, timestamp())
    assert json.loads(frame_text(encoded.type, 7, encoded.body))["delta"] == text
    assert json.loads(encoded.body)["delta"] == text


def test_frames_refuse_what_the_protocol_does_not_have():
    for frame in FRAMES.values():
        if not issubclass(frame, SessionEvent) or frame.model_config.get("extra") == "forbid":
            with pytest.raises(ValidationError):
                frame.model_validate({"surprise": 1})


def parsed_or_refused(received: bytes | str) -> Frame | InvalidFrame:
    try:
        return parse_frame(received, CLIENT_FRAME, FrameBudget(10))
    except InvalidFrame as error:
        return error


@given(st.binary() | st.text())
def test_whatever_a_client_sends_is_a_frame_or_an_error_that_says_why(received: bytes | str):
    parsed = parsed_or_refused(received)
    if not isinstance(parsed, Frame):
        assert parsed.message
        assert isinstance(parsed, BinaryNotSupported) == isinstance(received, bytes)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(
    [
        "content",
        "messages",
        "controls",
        "run_id",
        "nonce",
        "token",
        "when_busy",
        "tool_call_id",
        "decision",
        "message_id",
        "replaces",
        "surprise",
    ]
)


@given(
    st.sampled_from(["message", "regenerate", "interrupt", "approve", "ping", "authenticate"]),
    st.dictionaries(_names, _json, max_size=4),
)
def test_no_fields_of_a_frame_break_its_reading(type: str, fields: dict[str, Any]):
    parsed = parsed_or_refused(json.dumps({"type": type, **fields}))
    if isinstance(parsed, Frame):
        assert parsed.model_dump()["type"] == type
    else:
        assert isinstance(parsed.details["reason"], str)


def test_what_cannot_be_read_is_counted_too():
    budget = FrameBudget(2)
    for received in ("not json", b"binary"):
        with pytest.raises(InvalidFrame):
            parse_frame(received, CLIENT_FRAME, budget)
    with pytest.raises(Exception, match="Too many frames"):
        parse_frame("not json", CLIENT_FRAME, budget)
