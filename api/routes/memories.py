"""Memories of a session, behind the two doors of sessions."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.dependencies import CurrentUser, Memories
from api.routes.responses import problems
from api.schemas.memories import Memory, MemoryPage
from api.schemas.model import Text
from api.schemas.pages import Before, Limit, cursor_of, link_next
from db.ids import MemoryId, SessionId

router = APIRouter(tags=["memories"])


@router.get("/api/sessions/{session_id}/memories", operation_id="listSessionMemories", responses=problems(404))
@router.get(
    "/api/conversations/{session_id}/memories", operation_id="listConversationMemories", responses=problems(404)
)
async def list_memories(
    session_id: UUID,
    request: Request,
    response: Response,
    user: CurrentUser,
    memories: Memories,
    q: Annotated[
        Text | None, Query(min_length=1, max_length=500, description="Words to look for; the best matches, one page.")
    ] = None,
    before: Before = None,
    limit: Limit = 50,
) -> MemoryPage:
    """What scripts kept of this thread, newest first."""
    if q is not None:
        matching = await memories.search(user, SessionId(session_id), q, limit=limit)
        return MemoryPage(items=[Memory.of(memory) for memory in matching], next_cursor=None)
    found, following = await memories.list(user, SessionId(session_id), before=before and MemoryId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    return MemoryPage(items=[Memory.of(memory) for memory in found], next_cursor=cursor_of(following))


@router.delete(
    "/api/sessions/{session_id}/memories",
    status_code=204,
    operation_id="clearSessionMemories",
    responses=problems(404, changes=True),
)
@router.delete(
    "/api/conversations/{session_id}/memories",
    status_code=204,
    operation_id="clearConversationMemories",
    responses=problems(404, changes=True),
)
async def clear_memories(session_id: UUID, user: CurrentUser, memories: Memories) -> None:
    """Forget what scripts kept of this thread; what was said stays."""
    await memories.clear(user, SessionId(session_id))
