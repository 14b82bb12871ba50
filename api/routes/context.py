"""What the model is given of a session, and making room in it."""

from uuid import UUID

from fastapi import APIRouter, Depends

from api.dependencies import Contexts, CurrentUser, WithinQuota, takes_json
from api.routes.responses import problems
from api.routing import StrictRoute
from api.schemas.context import Context, Summarized
from db.ids import SessionId

router = APIRouter(
    prefix="/api/sessions/{session_id}", tags=["sessions"], route_class=StrictRoute, dependencies=[Depends(takes_json)]
)


@router.get("/context", operation_id="getContext", responses=problems(404))
async def get_context(session_id: UUID, user: CurrentUser, contexts: Contexts) -> Context:
    """What the model would be given next, what it costs, and what stands for older messages."""
    return Context.of(session_id, await contexts.describe(user, SessionId(session_id)))


@router.post(
    "/summarize",
    operation_id="summarizeSession",
    responses=problems(404, 409, 429, 502, changes=True),
    dependencies=[WithinQuota],
)
async def summarize(session_id: UUID, user: CurrentUser, contexts: Contexts) -> Summarized:
    """Put a summary in the place of all but the newest messages; the history keeps them all."""
    return Summarized.of(await contexts.summarize(user, SessionId(session_id)))
