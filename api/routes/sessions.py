"""Sessions, behind two doors: a conversation is a session."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from api.dependencies import CurrentUser, ExpectedVersion, Forks, Sessions, takes_json
from api.routes.responses import problems
from api.routing import Once, StrictRoute
from api.schemas.pages import Before, Limit, cursor_of, link_next
from api.schemas.sessions import Session, SessionCreate, SessionFork, SessionPage, SessionUpdate
from db.ids import MessageId, PersonaId, SessionId


def _door(noun: str) -> APIRouter:
    """The routes of sessions under the name `noun`."""
    path = f"/api/{noun.lower()}s"
    id_name = f"{noun.lower()}_id"
    one = f"/{{{id_name}}}"
    router = APIRouter(
        prefix=path, tags=[f"{noun.lower()}s"], route_class=StrictRoute, dependencies=[Depends(takes_json)]
    )

    @router.post(
        "",
        status_code=201,
        operation_id=f"create{noun}",
        responses=problems(404, 409, changes=True),
        dependencies=[Once],
    )
    async def create_session(
        user: CurrentUser, sessions: Sessions, response: Response, body: SessionCreate | None = None
    ) -> Session:
        """Begin a chat thread."""
        session = Session.of(await sessions.create(user, **(body.changes() if body else {})))
        response.headers["location"] = f"{path}/{session.id}"
        return _tagged(session, response)

    @router.get("", operation_id=f"list{noun}s", responses=problems(404))
    async def list_sessions(
        request: Request,
        response: Response,
        user: CurrentUser,
        sessions: Sessions,
        persona_id: Annotated[UUID | None, Query(description="Only those with this persona.")] = None,
        before: Before = None,
        limit: Limit = 50,
    ) -> SessionPage:
        """Chat threads, newest first."""
        return await _page(request, response, user, sessions, persona_id, before, limit)

    @router.get(one, operation_id=f"get{noun}", responses=problems(304, 404))
    async def get_session(
        session_id: Annotated[UUID, Path(alias=id_name)], user: CurrentUser, sessions: Sessions, response: Response
    ) -> Session:
        """One chat thread."""
        return _tagged(Session.of(await sessions.get(user, SessionId(session_id))), response)

    @router.put(one, operation_id=f"put{noun}", responses=problems(404, 412, changes=True))
    @router.patch(one, operation_id=f"update{noun}", responses=problems(404, 412, changes=True))
    async def update_session(
        session_id: Annotated[UUID, Path(alias=id_name)],
        body: SessionUpdate,
        version: ExpectedVersion,
        user: CurrentUser,
        sessions: Sessions,
        response: Response,
    ) -> Session:
        """Change the fields that are given, and tell whoever reads the session's events."""
        updated = await sessions.update(user, SessionId(session_id), body.changes(), version=version)
        return _tagged(Session.of(updated), response)

    @router.post(
        f"{one}/fork",
        status_code=201,
        operation_id=f"fork{noun}",
        responses=problems(404, 409, changes=True),
        dependencies=[Once],
    )
    async def fork_session(
        session_id: Annotated[UUID, Path(alias=id_name)],
        user: CurrentUser,
        forks: Forks,
        response: Response,
        body: SessionFork | None = None,
    ) -> Session:
        """Begin another chat thread with everything that was said in this one up to a message."""
        message_id = body and body.message_id and MessageId(body.message_id)
        forked = await forks.fork(user, SessionId(session_id), message_id=message_id, title=body and body.title)
        response.headers["location"] = f"{path}/{forked.id}"
        return _tagged(Session.of(forked), response)

    @router.delete(one, status_code=204, operation_id=f"delete{noun}", responses=problems(404, 412, changes=True))
    async def delete_session(
        session_id: Annotated[UUID, Path(alias=id_name)],
        version: ExpectedVersion,
        user: CurrentUser,
        sessions: Sessions,
    ) -> None:
        """Stop what runs in the thread and delete it with everything that was said."""
        await sessions.delete(user, SessionId(session_id), version=version)

    return router


sessions_router = _door("Session")
conversations_router = _door("Conversation")


@conversations_router.get(
    "/by-persona/{persona_id}", operation_id="listConversationsByPersona", responses=problems(404)
)
async def list_by_persona(
    persona_id: UUID,
    request: Request,
    response: Response,
    user: CurrentUser,
    sessions: Sessions,
    before: Before = None,
    limit: Limit = 50,
) -> SessionPage:
    """The chat threads with a persona, newest first."""
    return await _page(request, response, user, sessions, persona_id, before, limit)


async def _page(
    request: Request,
    response: Response,
    user: CurrentUser,
    sessions: Sessions,
    persona_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> SessionPage:
    found, following = await sessions.list(
        user, persona_id=persona_id and PersonaId(persona_id), before=before and SessionId(before), limit=limit
    )
    link_next(request, response, cursor_of(following))
    return SessionPage(items=[Session.of(session) for session in found], next_cursor=cursor_of(following))


def _tagged(session: Session, response: Response) -> Session:
    response.headers["etag"] = f'"{session.version}"'
    return session
