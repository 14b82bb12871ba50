"""Tells clients how many requests are left to them (draft-ietf-httpapi-ratelimit-headers-10)."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.pace import Allowance


class Pacing:
    """Adds RateLimit and RateLimit-Policy where a request was counted: what is left stands in the scope's state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_telling(message: Message) -> None:
            allowance: Allowance | None = scope.get("state", {}).get("allowance")
            if message["type"] == "http.response.start" and allowance is not None:
                headers = MutableHeaders(scope=message)
                headers["ratelimit-policy"] = f'"user";q={allowance.per_minute};w=60'
                headers["ratelimit"] = f'"user";r={allowance.left};t={allowance.whole_after}'
            await send(message)

        await self._app(scope, receive, send_telling)
