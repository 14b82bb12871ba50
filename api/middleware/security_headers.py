"""Headers that keep browsers from making more of an answer than it is."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}
_CONTENT = "content-security-policy"
_NO_FRAMES = "frame-ancestors 'none'"
_NOTHING = f"default-src 'none'; {_NO_FRAMES}"


class SecurityHeaders:
    """Adds them to every response that does not say otherwise itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_api = scope["path"].startswith("/api/")

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _EVERYWHERE.items():
                    headers.setdefault(name, value)
                headers.setdefault(_CONTENT, _NOTHING if is_api else _NO_FRAMES)
                if is_api:
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_safe)
