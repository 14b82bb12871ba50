"""Files of a session."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse

from api.dependencies import CurrentUser, Files, takes_form
from api.downloads import attachment
from api.routes.responses import problems
from api.schemas.files import File, FilePage, FileText
from api.schemas.pages import Before, Limit, cursor_of, link_next
from api.uploads import FORM, uploaded_file
from db.ids import FileId, SessionId

router = APIRouter(prefix="/api/sessions/{session_id}/files", tags=["files"])

_BYTES = {"schema": {"type": "string", "format": "binary"}}
# The first is for programs that know no other name for bytes.
_ANYTHING = {"application/octet-stream": _BYTES, "*/*": _BYTES}


@router.post(
    "",
    status_code=201,
    operation_id="uploadFile",
    responses=problems(404, 409, changes=True),
    dependencies=[Depends(takes_form)],
    openapi_extra=FORM,
)
async def upload_file(session_id: UUID, request: Request, user: CurrentUser, files: Files, response: Response) -> File:
    """Keep a file: pictures painted anew, everything else as it is. Its text has been read when this answers."""
    async with uploaded_file(request) as upload:
        file = File.of(await files.upload(user, SessionId(session_id), upload.name, upload.pieces))
    response.headers["location"] = file.url
    return file


@router.get("", operation_id="listFiles", responses=problems(404))
async def list_files(
    session_id: UUID,
    request: Request,
    response: Response,
    user: CurrentUser,
    files: Files,
    before: Before = None,
    limit: Limit = 50,
) -> FilePage:
    """The files of a session, newest first."""
    found, following = await files.page(user, SessionId(session_id), before=before and FileId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    return FilePage(items=[File.of(file) for file in found], next_cursor=cursor_of(following))


@router.get(
    "/{file_id}",
    operation_id="downloadFile",
    responses={
        200: {"description": "The file.", "content": _ANYTHING},
        **problems(404),
    },
    response_class=FileResponse,
)
async def download_file(session_id: UUID, file_id: UUID, user: CurrentUser, files: Files) -> FileResponse:
    """The bytes of a file, to be saved: no browser shows them as a page."""
    file, path = await files.bytes_of(user, SessionId(session_id), FileId(file_id))
    headers = {"content-disposition": attachment(file.name), "etag": f'"{file.sha256}"'}
    return FileResponse(path, media_type=file.media_type, headers=headers)


@router.get("/{file_id}/text", operation_id="getFileText", responses=problems(404, 409))
async def get_file_text(
    session_id: UUID,
    file_id: UUID,
    user: CurrentUser,
    files: Files,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1, description="Characters to leave out.")] = 0,
    limit: Annotated[int, Query(ge=1, le=100_000, description="How many characters at most.")] = 20_000,
) -> FileText:
    """What is written in a document, in parts."""
    part = await files.read_text(user, SessionId(session_id), FileId(file_id), offset=offset, limit=limit)
    return FileText.of(part)


@router.delete("/{file_id}", status_code=204, operation_id="deleteFile", responses=problems(404, changes=True))
async def delete_file(session_id: UUID, file_id: UUID, user: CurrentUser, files: Files) -> None:
    """Delete a file. Messages that came with it keep its name; models are told that it is gone."""
    await files.delete(user, SessionId(session_id), FileId(file_id))
