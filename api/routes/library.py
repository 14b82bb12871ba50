"""Personas and modules as one file."""

import asyncio

from fastapi import APIRouter, Depends, Response

from api.dependencies import CurrentUser, Libraries, takes_json
from api.large_bodies import UncheckedLibrary, checked
from api.routes.responses import problems
from api.routing import Once, StrictRoute
from api.schemas.library import Imported, LibraryFile

router = APIRouter(
    prefix="/api/personas", tags=["personas"], route_class=StrictRoute, dependencies=[Depends(takes_json)]
)


@router.get("/export", operation_id="exportPersonas", responses=problems(), response_model_exclude_unset=True)
async def export_personas(user: CurrentUser, libraries: Libraries, response: Response) -> LibraryFile:
    """All personas and modules with their pictures, in one file."""
    response.headers["content-disposition"] = 'attachment; filename="colloquy-personas.json"'
    return LibraryFile.of(await libraries.export(user))


@router.post("/import", operation_id="importPersonas", responses=problems(404, 409, changes=True), dependencies=[Once])
async def import_personas(body: UncheckedLibrary, user: CurrentUser, libraries: Libraries) -> Imported:
    """Take over all of a file or nothing of it; what has the name of something that is there takes its place."""
    file = await checked(LibraryFile, body)
    return Imported.of(await libraries.put(user, await asyncio.to_thread(file.to_import)))
