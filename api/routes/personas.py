"""Personas."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from api.dependencies import CurrentUser, ExpectedVersion, Personas, takes_json
from api.routes.responses import problems
from api.routing import Once, StrictRoute
from api.schemas.model import Text
from api.schemas.pages import Before, Limit, cursor_of, link_next
from api.schemas.personas import Mode, Persona, PersonaCopy, PersonaCreate, PersonaDetails, PersonaPage, PersonaUpdate
from db.ids import PersonaId
from services.personas import PersonaFilter

router = APIRouter(
    prefix="/api/personas", tags=["personas"], route_class=StrictRoute, dependencies=[Depends(takes_json)]
)


@router.post(
    "", status_code=201, operation_id="createPersona", responses=problems(404, 409, changes=True), dependencies=[Once]
)
async def create_persona(
    body: PersonaCreate, user: CurrentUser, personas: Personas, response: Response
) -> PersonaDetails:
    """Make a persona. What will not work in its template is told, not refused."""
    return _made(PersonaDetails.reviewed(await personas.create(user, body.changes())), response)


@router.get("", operation_id="listPersonas", responses=problems())
async def list_personas(
    request: Request,
    response: Response,
    user: CurrentUser,
    personas: Personas,
    mode: Mode | None = None,
    active: bool | None = None,
    q: Annotated[Text | None, Query(max_length=200, description="Looked for in names and descriptions.")] = None,
    before: Before = None,
    limit: Limit = 50,
) -> PersonaPage:
    """Personas, newest first."""
    wanted = PersonaFilter(mode, active, q)
    found, following = await personas.list(user, wanted, before=before and PersonaId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    return PersonaPage(items=[Persona.of(persona) for persona in found], next_cursor=cursor_of(following))


@router.get("/{persona_id}", operation_id="getPersona", responses=problems(304, 404))
async def get_persona(persona_id: UUID, user: CurrentUser, personas: Personas, response: Response) -> PersonaDetails:
    """One persona."""
    return _tagged(PersonaDetails.reviewed(await personas.review(user, PersonaId(persona_id))), response)


@router.put("/{persona_id}", operation_id="putPersona", responses=problems(404, 409, 412, changes=True))
@router.patch("/{persona_id}", operation_id="updatePersona", responses=problems(404, 409, 412, changes=True))
async def update_persona(
    persona_id: UUID,
    body: PersonaUpdate,
    version: ExpectedVersion,
    user: CurrentUser,
    personas: Personas,
    response: Response,
) -> PersonaDetails:
    """Change the fields that are given."""
    updated = await personas.update(user, PersonaId(persona_id), body.changes(), version=version)
    return _tagged(PersonaDetails.reviewed(updated), response)


@router.post(
    "/{persona_id}/duplicate",
    status_code=201,
    operation_id="duplicatePersona",
    responses=problems(404, 409, changes=True),
    dependencies=[Once],
)
async def duplicate_persona(
    persona_id: UUID,
    user: CurrentUser,
    personas: Personas,
    response: Response,
    body: PersonaCopy | None = None,
) -> PersonaDetails:
    """Make a copy of a persona: everything but its being the default."""
    copy = await personas.duplicate(user, PersonaId(persona_id), body and body.name)
    return _made(PersonaDetails.reviewed(copy), response)


@router.delete(
    "/{persona_id}", status_code=204, operation_id="deletePersona", responses=problems(404, 412, changes=True)
)
async def delete_persona(persona_id: UUID, version: ExpectedVersion, user: CurrentUser, personas: Personas) -> None:
    """Delete a persona; its sessions stay, without one."""
    await personas.delete(user, PersonaId(persona_id), version=version)


def _made(persona: PersonaDetails, response: Response) -> PersonaDetails:
    response.headers["location"] = f"/api/personas/{persona.id}"
    return _tagged(persona, response)


def _tagged(persona: PersonaDetails, response: Response) -> PersonaDetails:
    response.headers["etag"] = f'"{persona.version}"'
    return persona
