"""Sessions as documents, out and in again."""

import asyncio
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from starlette.responses import StreamingResponse

from api.dependencies import CurrentUser, SessionExports, SessionImports, takes_json
from api.large_bodies import UncheckedSession, checked
from api.routes.responses import Responses, problems
from api.routing import Once, StrictRoute
from api.schemas.transfer import SessionDocument, SessionImported
from db.ids import SessionId

router = APIRouter(
    prefix="/api/sessions", tags=["sessions"], route_class=StrictRoute, dependencies=[Depends(takes_json)]
)

_DOCUMENT: Responses = {
    200: {
        "model": SessionDocument,
        "description": "The session.",
        # JSON first: generators of clients take the first that they know. Its schema is the model's.
        "content": {"application/json": {}, "text/markdown": {"schema": {"type": "string"}}},
    }
}
_FORMAT = "`json` has everything and can be imported; `markdown` has the active branch, to be read."


@router.get(
    "/{session_id}/export",
    operation_id="exportSession",
    response_class=Response,
    responses=_DOCUMENT | problems(404),
)
async def export_session(
    session_id: UUID,
    user: CurrentUser,
    exports: SessionExports,
    format: Annotated[Literal["json", "markdown"], Query(description=_FORMAT)] = "json",
) -> Response:
    """A session as one document."""
    exported = await exports.open(user, SessionId(session_id))
    pieces, media_type, ending = (
        (exports.json(exported), "application/json", "json")
        if format == "json"
        else (exports.markdown(exported), "text/markdown; charset=utf-8", "md")
    )
    name = f'attachment; filename="colloquy-{session_id}.{ending}"'
    return StreamingResponse(pieces, media_type=media_type, headers={"content-disposition": name})


@router.post(
    "/import", status_code=201, operation_id="importSession", responses=problems(409, changes=True), dependencies=[Once]
)
async def import_session(
    body: UncheckedSession, user: CurrentUser, imports: SessionImports, response: Response
) -> SessionImported:
    """Make a session of a document that `exportSession` gave, here or elsewhere; each time another one."""
    document = await checked(SessionDocument, body)
    imported = SessionImported.of(await imports.put(user, await asyncio.to_thread(document.to_document)))
    response.headers["location"] = f"/api/sessions/{imported.session.id}"
    return imported
