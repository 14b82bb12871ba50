"""The history of a session."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from api.dependencies import CurrentUser, Editor, Messages, Search, takes_json
from api.routes.responses import problems
from api.routing import Once, StrictRoute
from api.schemas.messages import History, Message, MessageCreate, MessageUpdate
from api.schemas.model import Text
from api.schemas.pages import Before, Limit, cursor_of, link_next
from api.schemas.search import FoundMessage, FoundMessages
from db.ids import MessageId, SessionId
from db.records import MessageRole
from services.errors import InvalidRequest

router = APIRouter(tags=["messages"], route_class=StrictRoute, dependencies=[Depends(takes_json)])

_QUERY = 'Words, "phrases", `or`, `-unwanted` ones, and `begin*` of words; the last word may be unfinished.'


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


@router.get("/api/messages/search", operation_id="searchMessages", responses=problems(404))
async def search_messages(
    request: Request,
    response: Response,
    user: CurrentUser,
    search: Search,
    q: Annotated[Text, Query(min_length=1, max_length=500, description=_QUERY)],
    session_id: Annotated[UUID | None, Query(description="Only in this session.")] = None,
    role: Annotated[MessageRole | None, Query(description="Only what was said by these.")] = None,
    before: Before = None,
    limit: Limit = 20,
) -> FoundMessages:
    """Messages of all sessions, newest first, in which all of this stands."""
    hits, following = await search.find(
        user,
        q,
        session_id=session_id and SessionId(session_id),
        role=role,
        before=before and MessageId(before),
        limit=limit,
    )
    link_next(request, response, cursor_of(following))
    return FoundMessages(items=[FoundMessage.of(hit) for hit in hits], next_cursor=cursor_of(following))


@router.get("/api/messages/{message_id}", operation_id="getMessage", responses=problems(404))
async def get_message(message_id: UUID, user: CurrentUser, messages: Messages) -> Message:
    """One message."""
    return Message.of(*await messages.get(user, MessageId(message_id)))


@router.post(
    "/api/messages",
    status_code=201,
    operation_id="addMessage",
    responses=problems(404, 409, changes=True),
    dependencies=[Once],
)
async def add_message(body: MessageCreate, user: CurrentUser, editor: Editor, response: Response) -> Message:
    """Add a message that nobody is to answer: a note, or a part of a conversation from elsewhere."""
    message = Message.of(
        *await editor.add(
            user,
            SessionId(body.session),
            role=body.role,
            content=body.content,
            parent_id=body.parent_id and MessageId(body.parent_id),
            metadata=body.metadata,
        )
    )
    response.headers["location"] = f"/api/messages/{message.id}"
    return message


@router.put("/api/messages/{message_id}", operation_id="putMessage", responses=problems(404, 409, changes=True))
@router.patch("/api/messages/{message_id}", operation_id="updateMessage", responses=problems(404, 409, changes=True))
async def update_message(message_id: UUID, body: MessageUpdate, user: CurrentUser, editor: Editor) -> Message:
    """Change what stands in a message, in the history and in what the model is told of it. No branch begins."""
    return Message.of(*await editor.edit(user, MessageId(message_id), body.given()))


@router.delete(
    "/api/messages/{message_id}",
    status_code=204,
    operation_id="deleteMessage",
    responses=problems(404, 409, changes=True),
)
async def delete_message(message_id: UUID, user: CurrentUser, editor: Editor) -> None:
    """Delete a message; what followed it follows the one before it."""
    await editor.delete(user, MessageId(message_id))
