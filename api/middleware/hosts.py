"""Answers only to our own names: a foreign name that resolves to this machine (DNS rebinding) is refused."""

from collections.abc import Collection

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import UntrustedHost, problem_of
from websocket.origin import split_host

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


class TrustedHosts:
    """Refuses requests and sockets whose Host header is none of `names`, with any port, nor this machine."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {*_THIS_MACHINE, *(_as_in_a_header(name.lower()) for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._is_trusted(scope):
            await self._app(scope, receive, send)
            return
        # For a socket this is the answer to its handshake: it is not even opened.
        await problem_of(UntrustedHost(), HTTPConnection(scope))(scope, receive, send)

    def _is_trusted(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            return False
        name, port = split_host(hosts[0])
        return (name in self._names or hosts[0] in self._names) and (not port or port[1:].isdigit())


def _as_in_a_header(name: str) -> str:
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
