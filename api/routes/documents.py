"""The service's own description, for programs and people."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

from api.asyncapi import asyncapi_document
from api.dependencies import CurrentSettings
from api.openapi import openapi_document

router = APIRouter(include_in_schema=False)

# Functions without `async` run in a thread: making a document takes half a second, in which replies go on.


@router.get("/openapi.json")
def get_openapi(request: Request, settings: CurrentSettings) -> dict[str, Any]:
    """The REST interface."""
    return openapi_document(request.app, has_accounts=settings.auth_mode == "accounts")


@router.get("/asyncapi.json")
def get_asyncapi(request: Request) -> dict[str, Any]:
    """The sockets."""
    return asyncapi_document(request.app.version, request.headers["host"])


@router.get("/docs")
async def get_docs() -> HTMLResponse:
    """The REST interface, to be tried out in a browser."""
    return get_swagger_ui_html(openapi_url="/openapi.json", title="Colloquy")
