"""Whom a request comes from, where proxies stand between."""

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

_SCHEMES = {"http": {"http": "http", "https": "https"}, "websocket": {"http": "ws", "https": "wss"}}


class TrustedProxies:
    """Believes X-Forwarded-For and X-Forwarded-Proto of the proxies in `networks`, and of nobody else.

    The client is the last address that is not one of theirs: what stands before it anybody may have written.
    """

    def __init__(self, app: ASGIApp, networks: Collection[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(network) for network in networks]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in _SCHEMES and scope.get("client") and self._is_trusted(scope["client"][0]):
            headers = Headers(scope=scope)
            scope["client"] = (self._client(headers, scope["client"][0]), 0)
            words = _words(headers, "x-forwarded-proto")
            scope["scheme"] = _SCHEMES[scope["type"]].get(words[-1].lower() if words else "", scope["scheme"])
        await self._app(scope, receive, send)

    def _client(self, headers: Headers, peer: str) -> str:
        client = peer
        for word in reversed(_words(headers, "x-forwarded-for")):
            if not _is_address(word):
                break
            client = word
            if not self._is_trusted(word):
                break
        return client

    def _is_trusted(self, address: str) -> bool:
        if not _is_address(address):
            return False
        ip = ipaddress.ip_address(address)
        return any(ip in network for network in self._networks)


def _words(headers: Headers, name: str) -> list[str]:
    return [word.strip() for value in headers.getlist(name) for word in value.split(",")]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
