"""Pictures of personas."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, File, UploadFile
from fastapi.responses import FileResponse

from api.dependencies import CurrentUser, Images, takes_form
from api.routes.responses import problems
from api.schemas.images import UploadedImage

router = APIRouter(tags=["personas"])

# A picture never changes: other pixels have another id.
_FOR_GOOD = {"cache-control": "private, max-age=31536000, immutable", "content-disposition": "inline"}

_WEBP = {"image/webp": {"schema": {"type": "string", "format": "binary"}}}


@router.post(
    "/api/personas/upload-image",
    status_code=201,
    operation_id="uploadPersonaImage",
    responses=problems(409, changes=True),
    dependencies=[Depends(takes_form)],
)
async def upload_image(
    file: Annotated[UploadFile, File(description="PNG, JPEG, WebP or GIF.")], user: CurrentUser, images: Images
) -> UploadedImage:
    """Keep a picture: painted anew at 512 pixels a side at most, without anything but its pixels."""
    return UploadedImage.of(await images.store(user, await file.read()))


@router.get(
    "/api/images/{image_id}",
    operation_id="getImage",
    responses={200: {"description": "The picture.", "content": _WEBP}, **problems(404)},
    response_class=FileResponse,
)
async def get_image(image_id: UUID, user: CurrentUser, images: Images) -> FileResponse:
    """One picture."""
    return FileResponse(await images.file(user, image_id), media_type="image/webp", headers=_FOR_GOOD)
