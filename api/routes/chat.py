"""The two WebSocket endpoints."""

from uuid import UUID

from fastapi import APIRouter, WebSocket

from api.dependencies import Chat, CurrentSettings, FrontDoor, Sessions, Sockets
from api.settings import Settings
from db.ids import SessionId
from websocket import dialect, frames
from websocket.connection import FOREIGN_ORIGIN, MALFORMED, refuse
from websocket.multiplexed import serve_multiplexed
from websocket.origin import is_own_origin

router = APIRouter()


@router.websocket("/ws/chat/{session_id}")
async def session_socket(
    socket: WebSocket, session_id: str, door: FrontDoor, sockets: Sockets, settings: CurrentSettings
) -> None:
    """One socket, one session: see `/asyncapi.json`."""
    if not _is_ours(socket, settings):
        await refuse(socket, FOREIGN_ORIGIN, "this page may not use this service")
        return
    try:
        id, after, epoch = SessionId(_uuid("session_id", session_id)), _after(socket), _epoch(socket)
    except ValueError as error:
        await refuse(socket, MALFORMED, str(error))
        return
    caller = await door.admit(socket, id, frames.read_proof)
    if caller is not None:
        await sockets.serve(socket, caller, id, after=after, epoch=epoch)


@router.websocket("/ws/chat")
async def multiplexed_socket(
    socket: WebSocket, door: FrontDoor, sockets: Sockets, chat: Chat, sessions: Sessions, settings: CurrentSettings
) -> None:
    """One socket, many chats: see `/asyncapi.json`."""
    if not _is_ours(socket, settings):
        await refuse(socket, FOREIGN_ORIGIN, "this page may not use this service")
        return
    caller = await door.admit(socket, None, dialect.read_proof)
    if caller is not None:
        await serve_multiplexed(sockets, chat, sessions, socket, caller)


def _is_ours(socket: WebSocket, settings: Settings) -> bool:
    # Browsers let any page open a socket anywhere and leave it to the server to look where the page is from.
    scheme = "https" if socket.url.scheme == "wss" else "http"
    host = socket.headers.get("host", "")
    return is_own_origin(socket.headers.get("origin"), host, scheme, settings.allowed_origins)


def _after(socket: WebSocket) -> int | None:
    text = socket.query_params.get("after")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError("after must be a position: 0 or more")
    return int(text)


def _epoch(socket: WebSocket) -> UUID | None:
    text = socket.query_params.get("epoch")
    return _uuid("epoch", text) if text else None


def _uuid(name: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ValueError(f"{name} must be a UUID") from error
