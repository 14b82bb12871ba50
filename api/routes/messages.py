"""The history of a session."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from api.dependencies import CurrentUser, Messages
from api.routes.responses import problems
from api.schemas.messages import History, Message
from api.schemas.pages import Before, Limit, link_next
from db.ids import MessageId, SessionId

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
) -> History:
    """What was said, newest first, with the position from which events tell the rest."""
    page = await messages.page(user, SessionId(session_id), before=before and MessageId(before), limit=limit)
    history = History.of(page)
    link_next(request, response, history.next_cursor)
    return history


@router.get("/api/messages/{message_id}", operation_id="getMessage", responses=problems(404))
async def get_message(message_id: UUID, user: CurrentUser, messages: Messages) -> Message:
    """One message."""
    return Message.of(await messages.get(user, MessageId(message_id)))
