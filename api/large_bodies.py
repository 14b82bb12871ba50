"""Bodies so large that taking them apart beside everybody else's work would keep that waiting."""

import asyncio
from typing import Annotated, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, SkipValidation, ValidationError

from api.schemas.library import LibraryFile
from api.schemas.transfer import SessionDocument

M = TypeVar("M", bound=BaseModel)

UncheckedSession = Annotated[SessionDocument, SkipValidation]
"""What should be a session document: give it to `checked`."""

UncheckedLibrary = Annotated[LibraryFile, SkipValidation]
"""What should be a library: give it to `checked`."""


async def checked(kind: type[M], body: object) -> M:
    """The body as a `kind`, checked in a thread. Raises `RequestValidationError`, as a checked parameter would."""
    try:
        return await asyncio.to_thread(kind.model_validate, body)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)]
        raise RequestValidationError(faults, body=body) from error
