"""The service's own description, for programs and people."""

from importlib.metadata import files
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import FileResponse, HTMLResponse, Response

from api.asyncapi import asyncapi_document
from api.dependencies import CurrentSettings
from api.openapi import openapi_document
from services.errors import NotFound

_PACKAGE: Final = "fastapi-offline"
"""It brings Swagger UI for services that shall not ask foreign hosts. Its code is not used."""
_STYLES, _PROGRAM = "swagger-ui.css", "swagger-ui-bundle.js"
_TYPES: Final = {_STYLES: "text/css", _PROGRAM: "text/javascript"}
_PAGE: Final = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Colloquy: the REST interface</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/{_STYLES}">
<div id="interface"></div>
<script src="/docs/{_PROGRAM}"></script>
<script src="/docs/begin.js"></script>
</html>
"""
_BEGIN: Final = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#interface",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
# Swagger UI sets styles of single elements, and shows pictures that stand in its own style sheet.
_POLICY: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
}


async def _if_served(settings: CurrentSettings) -> None:
    if not settings.serve_docs:
        raise NotFound("There is nothing at this path.")


router = APIRouter(include_in_schema=False, dependencies=[Depends(_if_served)])

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
    return HTMLResponse(_PAGE, headers=_POLICY)


@router.get("/docs/begin.js")
async def get_beginning() -> Response:
    """What shows the interface on that page."""
    return Response(_BEGIN, media_type="text/javascript")


@router.get("/docs/{name}")
def get_docs_file(name: str) -> FileResponse:
    """What the page is made of."""
    if name not in _TYPES:
        raise NotFound("There is nothing at this path.")
    return FileResponse(_shipped(name), media_type=_TYPES[name])


def _shipped(name: str) -> Path:
    """Where the package has that file."""
    shipped = next(file for file in files(_PACKAGE) or () if file.name == name)
    return Path(str(shipped.locate()))
