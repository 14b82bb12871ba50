"""Refuses whoever is not known, before anything of the request is read."""

from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from api.callers import caller_of
from api.errors import problem_of
from db.errors import DatabaseUnavailable
from services.errors import ColloquyError, Unavailable

GUARDED: Final = "/api/"
PUBLIC: Final = frozenset(
    (
        ("GET", "/api/config"),
        ("HEAD", "/api/config"),
        ("GET", "/api/health"),
        ("HEAD", "/api/health"),
        ("POST", "/api/auth/register"),
        ("POST", "/api/auth/login"),
        ("POST", "/api/auth/refresh"),
        ("POST", "/api/auth/logout"),
    )
)
"""What anybody may ask below `/api/`. A route that is not named here needs a caller, whether it says so or not."""


class Authentication:
    """Finds out who asks, for everything below `/api/` that is not public. Routes then ask what the caller may.

    Sockets are not looked at here: they may also say in their first frame who they are.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(GUARDED) and not _is_public(scope):
            connection = HTTPConnection(scope)
            try:
                await caller_of(connection)
            except ColloquyError as error:
                await problem_of(error, connection)(scope, receive, send)
                return
            except DatabaseUnavailable:
                await problem_of(Unavailable(), connection)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_public(scope: Scope) -> bool:
    return (scope["method"], scope["path"]) in PUBLIC
