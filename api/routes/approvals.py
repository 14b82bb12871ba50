"""Calls of tools that wait for somebody's word."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path

from api.dependencies import Approvals, ChattingUser, CurrentUser, takes_json
from api.routes.responses import problems
from api.routing import StrictRoute
from api.schemas.tools import CallDecision, CallOfTool, WaitingCalls
from db.ids import SessionId

router = APIRouter(
    prefix="/api/sessions/{session_id}/approvals",
    tags=["sessions"],
    route_class=StrictRoute,
    dependencies=[Depends(takes_json)],
)


@router.get("", operation_id="listApprovals", responses=problems(404))
async def list_approvals(session_id: UUID, user: CurrentUser, approvals: Approvals) -> WaitingCalls:
    """The calls of tools that wait in this chat thread."""
    waiting = await approvals.waiting(user, SessionId(session_id))
    return WaitingCalls(items=[CallOfTool.of(call) for call in waiting])


@router.post("/{tool_call_id}", operation_id="decideApproval", responses=problems(404, 409, changes=True))
async def decide_approval(
    session_id: UUID,
    tool_call_id: Annotated[str, Path(min_length=1, max_length=200)],
    body: CallDecision,
    user: ChattingUser,
    approvals: Approvals,
) -> CallOfTool:
    """Let a call be made or not; 409 if it does not wait any more."""
    return CallOfTool.of(await approvals.decide(user, SessionId(session_id), tool_call_id, body.word()))
