"""The last resort: what nobody foresaw becomes a 500 that tells nothing of our insides."""

import asyncio
import logging

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_of
from api.route_names import route_of
from services.errors import ServerError, ShuttingDown

_log = logging.getLogger(__name__)


class Failures:
    """Logs an exception under the request's id and answers for it, unless the answer has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            # The service goes down and nobody else cancels a request. One that was answered in part is left torn.
            if not has_begun:
                await problem_of(ShuttingDown(), HTTPConnection(scope))(scope, receive, send)
        except Exception:
            if has_begun:
                raise  # the server drops the connection: a torn answer must not look like a whole one
            _log.exception("%s %s failed", scope["method"], route_of(scope))
            await problem_of(ServerError(), HTTPConnection(scope))(scope, receive, send)
