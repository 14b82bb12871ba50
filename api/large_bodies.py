"""Bodies so large that taking them apart beside everybody else's work would keep that waiting."""

import asyncio
from typing import Annotated, Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from api.schemas.library import LibraryFile
from api.schemas.transfer import SessionDocument

M = TypeVar("M", bound=BaseModel)

_TOLD = 100
"""Faults that are told, beyond what anybody reads."""


def _as_it_came(body: Any, check: ValidatorFunctionWrapHandler) -> Any:
    return body


# Beside pydantic's own way of checking nothing, this one leaves the model its name in the OpenAPI document.
_UNCHECKED = WrapValidator(_as_it_came)

UncheckedSession = Annotated[SessionDocument, _UNCHECKED]
"""What should be a session document: give it to `checked`."""

UncheckedLibrary = Annotated[LibraryFile, _UNCHECKED]
"""What should be a library: give it to `checked`."""


async def checked(kind: type[M], body: object) -> M:
    """The body as a `kind`, checked in a thread. Raises `RequestValidationError`, as a checked parameter would."""
    return await asyncio.to_thread(_check, kind, body)


def _check(kind: type[M], body: object) -> M:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in found[:_TOLD]]
    # There is a fault in each of tens of thousands of messages, or in none.
    raise RequestValidationError(faults)
