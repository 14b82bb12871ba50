"""How the dialect of many chats on one socket knows that a chat is over."""

from typing import Any
from uuid import UUID

import pytest

from websocket.multiplexed import in_dialect, is_last


@pytest.mark.parametrize(
    "event",
    [
        {"type": "post_response_complete"},
        {"type": "interrupted", "phase": "post_response"},
        {"type": "assistant_end", "finish_reason": "interrupted"},
        {"type": "assistant_end", "finish_reason": "error"},
    ],
)
def test_nothing_comes_after(event: dict[str, Any]):
    assert is_last(event)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "interrupted", "phase": "streaming"},
        {"type": "assistant_end", "finish_reason": "stop"},
        {"type": "stage_update", "stage": 5, "status": "finished"},
    ],
)
def test_more_comes_after(event: dict[str, Any]):
    assert not is_last(event)


@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        ({"type": "tool_start", "name": "add"}, "started", "Calling add"),
        ({"type": "approval_required", "name": "add"}, "started", "Waiting for somebody to agree to a call of add"),
        ({"type": "tool_done", "status": "completed"}, "finished", "The call has ended"),
        ({"type": "tool_done", "status": "failed"}, "finished", "The call has failed"),
        ({"type": "tool_done", "status": "rejected"}, "finished", "The call has been rejected"),
    ],
)
def test_a_call_of_a_tool_is_a_step_of_the_third_stage(event: dict[str, Any], status: str, message: str):
    told = in_dialect({**event, "run_id": "r", "seq": 7, "tool_call_id": "c"}, UUID(int=1))
    assert told is not None
    assert told[0] == "stage_update"
    assert told[1] == {
        "chat_session_id": "r",
        "seq": 7,
        "stage": 3,
        "name": "tool",
        "status": status,
        "message": message,
        "tool_call_id": "c",
    }


def test_how_far_a_call_has_come_is_not_told():
    assert in_dialect({"type": "tool_progress", "run_id": "r", "seq": 7}, UUID(int=1)) is None
