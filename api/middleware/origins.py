"""Keeps pages of other sites from changing anything here."""

from collections.abc import Collection

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import ForeignOrigin, problem_of
from websocket.origin import is_own_origin

_READING = ("GET", "HEAD", "OPTIONS")


class OwnOrigins:
    """Refuses requests that change something and name a foreign Origin.

    Browsers let any page send a form or a plain POST to any address, and this machine's ports are no exception.
    What such a page may read is decided by CORS.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _READING or self._is_own(HTTPConnection(scope)):
            await self._app(scope, receive, send)
            return
        await problem_of(ForeignOrigin(), HTTPConnection(scope))(scope, receive, send)

    def _is_own(self, connection: HTTPConnection) -> bool:
        origins = connection.headers.getlist("origin")
        host = connection.headers.get("host", "")
        return all(is_own_origin(origin, host, connection.scope["scheme"], self._allowed) for origin in origins)
