"""Answers 304 to whoever has the newest version already (RFC 9110, section 13.1.2)."""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ABOUT_THE_BODY = ("content-length", "content-type", "content-disposition")


class NotModified:
    """Leaves out the body of a GET whose ETag the request's If-None-Match names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = _known(scope)
        if not known:
            await self._app(scope, receive, send)
            return
        is_left_out = False

        async def send_what_is_new(message: Message) -> None:
            nonlocal is_left_out
            if message["type"] == "http.response.start":
                is_left_out = message["status"] == 200 and _is_known(Headers(raw=message["headers"]), known)
                if is_left_out:
                    message = {**message, "status": 304}
                    headers = MutableHeaders(scope=message)
                    for name in _ABOUT_THE_BODY:
                        del headers[name]
                    await send(message)
                    await send({"type": "http.response.body", "body": b""})
            if not is_left_out:
                await send(message)

        await self._app(scope, receive, send_what_is_new)


def _known(scope: Scope) -> frozenset[str]:
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return frozenset()
    return frozenset(_tags(Headers(scope=scope).getlist("if-none-match")))


def _is_known(headers: Headers, known: frozenset[str]) -> bool:
    tag = headers.get("etag")
    return tag is not None and ("*" in known or tag.removeprefix("W/") in known)


def _tags(values: Iterable[str]) -> Iterable[str]:
    for value in values:
        yield from (tag.strip().removeprefix("W/") for tag in value.split(","))
