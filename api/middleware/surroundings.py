"""Tells everything that a request or socket causes where it came from."""

from starlette.types import ASGIApp, Receive, Scope, Send

from services.telemetry.circumstances import Circumstances, under


class Surroundings:
    """Makes the circumstances of each request; `scope["state"]["circumstances"]` is them, too.

    Stands where the request has its name and the client its true address.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        state, client = scope["state"], scope.get("client")
        around = Circumstances(request_id=state["request_id"], address=client[0] if client else None)
        state["circumstances"] = around
        with under(around):
            await self._app(scope, receive, send)
