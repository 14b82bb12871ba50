"""What is told of calls whose owner died before it could tell."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.ids import RunId, SessionId, new_id
from db.records import CallState, ToolCallRecord
from services.runs.draft import Draft
from services.runs.events import ApprovalRequired, RunEvent, ToolDone, ToolStart
from services.tools.books import is_paused, untold

AT = datetime(2026, 1, 1, tzinfo=UTC)
START = ToolStart("c", "files__read", "files", "{}")
ASKED = ApprovalRequired("c", "files__read", "files", "{}", "why", "2026-01-02T00:00:00Z")
DONE = ToolDone("c", "completed", "text", False, 1500)


def record(state: CallState, **changes: Any) -> ToolCallRecord:
    started = AT if state in ("running", "completed", "failed") else None
    finished = AT + timedelta(seconds=1.5) if state in ("completed", "failed", "interrupted") else None
    call = ToolCallRecord(
        SessionId(new_id()), RunId(new_id()), "c", "files__read", "files", "read", "{}", state, None, None,
        "text" if finished else None, AT, None, None, started, finished,
    )  # fmt: skip
    return replace(call, **changes)


def draft_of(*events: RunEvent) -> Draft:
    draft = Draft()
    for event in events:
        draft.add(event)
    return draft


@pytest.mark.parametrize(
    ("shown", "call", "told"),
    [
        ([], record("completed"), [START, DONE]),
        ([START], record("completed"), [DONE]),
        ([ASKED], record("completed"), [DONE]),
        ([START, DONE], record("completed"), []),
        ([START], record("failed"), [replace(DONE, status="failed")]),
        ([], record("running"), [START]),
        ([START], record("running"), []),
        ([], record("waiting"), []),
        ([ASKED], record("waiting"), []),
        ([ASKED], record("interrupted"), [ToolDone("c", "interrupted", "", False, 0)]),
        ([], record("interrupted", started_at=AT), [START, ToolDone("c", "interrupted", "", False, 1500)]),
        ([START], record("completed", told="x" * 3000), [ToolDone("c", "completed", "x" * 2000, True, 1500)]),
    ],
)
def test_what_nobody_has_heard_of_is_told_and_nothing_twice(
    shown: list[RunEvent], call: ToolCallRecord, told: list[RunEvent]
):
    assert untold(draft_of(*shown), [call]) == told


@pytest.mark.parametrize(
    ("states", "paused"),
    [
        ([], False),
        (["completed"], False),
        (["waiting"], True),
        (["waiting", "completed", "failed"], True),
        (["approved"], True),
        (["rejected"], True),
        (["waiting", "running"], False),
        (["running"], False),
    ],
)
def test_a_run_is_paused_if_what_is_open_only_waits_for_a_word(states: list[CallState], paused: bool):
    assert is_paused([record(state) for state in states]) == paused
