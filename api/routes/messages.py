"""The history of a session."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.dependencies import CurrentUser, Messages
from api.routes.responses import problems
from api.schemas.messages import History, Message
from api.schemas.pages import Before, Limit, link_next
from db.ids import MessageId, SessionId
from services.errors import InvalidRequest

router = APIRouter(tags=["messages"])


@router.get("/api/sessions/{session_id}/messages", operation_id="listSessionMessages", responses=problems(404))
@router.get(
    "/api/messages/by-conversation/{session_id}", operation_id="listConversationMessages", responses=problems(404)
)
async def list_messages(
    session_id: UUID,
    request: Request,
    response: Response,
    user: CurrentUser,
    messages: Messages,
    before: Before = None,
    limit: Limit = 50,
    branch: Annotated[UUID | None, Query(description="The branch that ends with this message.")] = None,
    all: Annotated[bool, Query(description="The messages of all branches.")] = False,
) -> History:
    """What was said in the active branch, newest first, with the position from which events tell the rest."""
    if all and branch:
        raise InvalidRequest("Ask either for one branch or for all.", field="branch")
    id, cursor = SessionId(session_id), before and MessageId(before)
    if all:
        page = await messages.page_of_all(user, id, before=cursor, limit=limit)
    else:
        page = await messages.page(user, id, before=cursor, limit=limit, branch=branch and MessageId(branch))
    history = History.of(page)
    link_next(request, response, history.next_cursor)
    return history


@router.get("/api/messages/{message_id}", operation_id="getMessage", responses=problems(404))
async def get_message(message_id: UUID, user: CurrentUser, messages: Messages) -> Message:
    """One message."""
    return Message.of(*await messages.get(user, MessageId(message_id)))
