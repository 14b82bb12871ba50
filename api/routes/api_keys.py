"""API keys for programs, and tickets for sockets."""

from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from api.dependencies import CurrentCaller, CurrentUser, KeysOfUsers, ReadingCaller, SocketTickets, takes_json
from api.routes.responses import problems
from api.routing import StrictRoute
from api.schemas.api_keys import ApiKey, ApiKeyPage, ApiKeyRequest, NewApiKey, SocketTicket, TicketRequest
from api.schemas.pages import Before, Limit, cursor_of, link_next
from db.ids import ApiKeyId, SessionId

router = APIRouter(prefix="/api/auth", tags=["auth"], route_class=StrictRoute, dependencies=[Depends(takes_json)])


@router.get("/api-keys", operation_id="listApiKeys", responses=problems())
async def list_api_keys(
    request: Request,
    response: Response,
    user: CurrentUser,
    keys: KeysOfUsers,
    before: Before = None,
    limit: Limit = 50,
) -> ApiKeyPage:
    """Your keys, newest first; their texts are kept nowhere."""
    found, following = await keys.list(user, before=before and ApiKeyId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    return ApiKeyPage(items=[ApiKey.of(key) for key in found], next_cursor=cursor_of(following))


@router.post("/api-keys", status_code=201, operation_id="createApiKey", responses=problems(409, changes=True))
async def create_api_key(body: ApiKeyRequest, caller: CurrentCaller, keys: KeysOfUsers) -> NewApiKey:
    """Make a key for a program. Only who has signed in may: a key makes no keys."""
    made, text = await keys.create(caller, name=body.name, scopes=body.scopes, expires_at=body.expires_at)
    return NewApiKey(key=text, api_key=ApiKey.of(made))


@router.delete(
    "/api-keys/{key_id}", status_code=204, operation_id="deleteApiKey", responses=problems(404, 409, changes=True)
)
async def delete_api_key(key_id: UUID, caller: CurrentCaller, keys: KeysOfUsers) -> None:
    """Take a key away: what it opened is closed, and the replies that it asked for stop."""
    await keys.delete(caller, ApiKeyId(key_id))


@router.post("/ws-ticket", operation_id="issueTicket", responses=problems(404, 409, 429, changes=True))
async def issue_ticket(body: TicketRequest, caller: ReadingCaller, tickets: SocketTickets) -> SocketTicket:
    """Get a ticket, with which a page says who it is on a socket: as its first frame, within seconds, once."""
    ticket = await tickets.issue(caller, body.session_id and SessionId(body.session_id))
    return SocketTicket(ticket=ticket.text, expires_in=ticket.expires_in)
