"""Faults as problem+json (RFC 9457): one table says which status each class of error has."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from api.route_names import route_of
from api.schemas.problems import FieldProblem, Problem
from db.errors import DatabaseUnavailable, WriteConflict
from services.accounts.registration import InvitationNeeded, RegistrationClosed
from services.errors import (
    AddressNotAllowed,
    CallerError,
    ColloquyError,
    Conflict,
    ConnectionOff,
    ContextTooLong,
    InsufficientScope,
    InvalidControl,
    InvalidRequest,
    LeaseLost,
    ModelError,
    NotAuthenticated,
    NotFound,
    ProviderError,
    ProviderTimeout,
    RunTimedOut,
    ServerError,
    SessionBusy,
    ShuttingDown,
    StaleVersion,
    ToolError,
    ToolTimedOut,
    TooManyRequests,
    Unavailable,
    UnknownControl,
    UnknownProvider,
)
from services.files.vault import FileTooLarge
from services.images import ImageTooLarge
from services.prompt.expansion import PromptTooLarge

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER = 2
"""Seconds, where nobody knows better."""

_FAULTS_TOLD: Final = 50
"""Of a request with more, the first ones: what nobody reads need not be written."""


class MalformedJson(CallerError):
    """The body is not JSON."""

    code = "malformed_json"


class UnsupportedMediaType(CallerError):
    """Bodies are JSON: send Content-Type: application/json."""

    code = "unsupported_media_type"


class MethodNotAllowed(CallerError):
    """That is not possible here."""

    code = "method_not_allowed"


class BodyTooLarge(CallerError):
    """The body is larger than this service takes."""

    code = "body_too_large"


class MalformedForm(CallerError):
    """The body is not a form that can be read."""

    code = "malformed_form"


class UntrustedHost(CallerError):
    """This service is not called that: open it as localhost, or name the host in TRUSTED_HOSTS."""

    code = "untrusted_host"


class ForeignOrigin(CallerError):
    """A page of another site may not change anything here, unless its origin is in ALLOWED_ORIGINS."""

    code = "foreign_origin"


STATUSES: Mapping[type[ColloquyError], HTTPStatus] = {
    CallerError: HTTPStatus.BAD_REQUEST,
    MalformedJson: HTTPStatus.BAD_REQUEST,
    MalformedForm: HTTPStatus.BAD_REQUEST,
    UntrustedHost: HTTPStatus.BAD_REQUEST,
    ForeignOrigin: HTTPStatus.FORBIDDEN,
    NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    InsufficientScope: HTTPStatus.FORBIDDEN,
    RegistrationClosed: HTTPStatus.FORBIDDEN,
    InvitationNeeded: HTTPStatus.FORBIDDEN,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    SessionBusy: HTTPStatus.CONFLICT,
    ConnectionOff: HTTPStatus.CONFLICT,
    StaleVersion: HTTPStatus.PRECONDITION_FAILED,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    FileTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnknownProvider: HTTPStatus.UNPROCESSABLE_ENTITY,
    AddressNotAllowed: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnknownControl: HTTPStatus.UNPROCESSABLE_ENTITY,
    InvalidControl: HTTPStatus.UNPROCESSABLE_ENTITY,
    PromptTooLarge: HTTPStatus.UNPROCESSABLE_ENTITY,
    ContextTooLong: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    ModelError: HTTPStatus.BAD_GATEWAY,
    ProviderError: HTTPStatus.BAD_GATEWAY,
    ProviderTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    ToolError: HTTPStatus.BAD_GATEWAY,
    ToolTimedOut: HTTPStatus.GATEWAY_TIMEOUT,
    RunTimedOut: HTTPStatus.GATEWAY_TIMEOUT,
    LeaseLost: HTTPStatus.SERVICE_UNAVAILABLE,
    ShuttingDown: HTTPStatus.SERVICE_UNAVAILABLE,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    ServerError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ColloquyError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""The most specific class of an error decides."""

_WAITING = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_CONTROL_ERRORS = (UnknownControl, InvalidControl)
_PLACES = ("body", "query", "path", "header", "cookie")


def register_error_handlers(app: FastAPI) -> None:
    """Answer every fault of a route with problem+json. What nobody foresaw is left to the middleware."""
    app.add_exception_handler(ColloquyError, _on_colloquy_error)
    app.add_exception_handler(DatabaseUnavailable, _on_database)
    app.add_exception_handler(WriteConflict, _on_database)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def problem_of(error: ColloquyError, connection: HTTPConnection) -> Response:
    """The response that tells of `error`."""
    status = status_of(error)
    details = dict(error.details)
    field = details.pop("field", None)
    errors = [] if field is None else [FieldProblem(pointer=_pointer_of(error, field), detail=error.message)]
    return respond(
        connection,
        status,
        code=error.code,
        detail=error.message,
        errors=errors,
        retryable=error.retryable,
        resend_safe=error.resend_safe,
        details=details,
        headers=_headers(error, status),
    )


def _headers(error: ColloquyError, status: HTTPStatus) -> dict[str, str]:
    retry_after = error.details.get("retry_after", _RETRY_AFTER if status in _WAITING else None)
    if retry_after is not None:
        return {"retry-after": str(round(retry_after) or 1)}
    if isinstance(error, InsufficientScope):
        return {"www-authenticate": f'Bearer error="insufficient_scope", scope="{error.details["scope"]}"'}
    return {"www-authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else {}


def status_of(error: ColloquyError) -> HTTPStatus:
    """The status of the most specific class that the table knows."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def respond(
    connection: HTTPConnection,
    status: HTTPStatus,
    *,
    code: str,
    detail: str,
    errors: Sequence[FieldProblem] = (),
    retryable: bool = False,
    resend_safe: bool = True,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem+json response."""
    state: dict[str, Any] = connection.scope.setdefault("state", {})
    state["problem"] = code
    problem = Problem(
        title=status.phrase,
        status=status,
        detail=detail,
        code=code,
        errors=list(errors),
        request_id=state.get("request_id"),
        retryable=retryable,
        resend_safe=resend_safe,
        details=dict(details or {}),
    )
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


async def _on_colloquy_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ColloquyError)
    return problem_of(error, request)


async def _on_database(request: Request, error: Exception) -> Response:
    _log.warning("%s %s: %s", request.method, route_of(request.scope), error)
    return problem_of(Unavailable(), request)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found: Sequence[Mapping[str, Any]] = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return problem_of(MalformedJson(f"The body is not JSON: {found[0]['ctx']['error']}."), request)
    problems = [FieldProblem(pointer=pointer(one["loc"]), detail=_said(one)) for one in found[:_FAULTS_TOLD]]
    places = ", ".join(dict.fromkeys(problem.pointer or "the body" for problem in problems))
    return respond(
        request,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        code=InvalidRequest.code,
        detail=f"The request cannot be used as it is; see {places}.",
        errors=problems,
    )


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # FastAPI's word for bytes that no parser gets through
        is_form = request.headers.get("content-type", "").startswith("multipart/")
        return problem_of(MalformedForm() if is_form else MalformedJson(), request)
    details = {
        HTTPStatus.NOT_FOUND: "There is nothing at this path.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not possible here.",
    }
    return respond(
        request,
        status,
        code=status.name.lower(),
        detail=details.get(status, str(error.detail)),
        headers=error.headers,
    )


def pointer(location: Iterable[str | int]) -> str:
    """A JSON pointer (RFC 6901) to where validation found something wrong."""
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in location]
    return "".join(f"/{step}" for step in (steps[1:] if steps[0] in _PLACES else steps))


def _pointer_of(error: ColloquyError, field: str | Sequence[str | int]) -> str:
    """`field` is a name, or the steps to a place further in."""
    steps = (field,) if isinstance(field, str) else tuple(field)
    if isinstance(error, _CONTROL_ERRORS):
        steps = (*steps[:-1], "controls", steps[-1])
    return "".join(pointer((step,)) for step in steps)


def _said(problem: Mapping[str, Any]) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return "There is no such field."
        case "missing":
            return "This is required."
        case "string_unicode":
            return "Must not contain lone surrogates."
        case _:
            message = str(problem["msg"]).removeprefix("Value error, ")
            return f"{message[:1].upper()}{message[1:]}."
