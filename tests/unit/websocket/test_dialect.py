"""How the dialect of many chats on one socket knows that a chat is over."""

from typing import Any

import pytest

from websocket.multiplexed import is_last


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
