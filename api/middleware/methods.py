"""What can be done with a path: HEAD and OPTIONS for every resource, and a 405 that names all the rest."""

import re
from collections import defaultdict
from collections.abc import Iterable

from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import MethodNotAllowed, problem_of


class Resources:
    """The paths of the service, each with the methods of all its routes together."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._named: dict[str, set[str]] = defaultdict(set)
        self._shapes: dict[re.Pattern[str], set[str]] = defaultdict(set)
        for route in routes:
            if isinstance(route, APIRoute):
                if route.param_convertors:
                    self._shapes[_shape(route)].update(route.methods or ())
                else:
                    self._named[route.path].update(route.methods or ())

    def methods(self, path: str) -> frozenset[str]:
        """What is possible at that path; nothing where there is no resource.

        A path that stands as it is goes before one that could be somebody's id: `/api/modules/test-script` is no
        module.
        """
        named = self._named.get(path)
        if named is None:
            named = {method for shape, methods in self._shapes.items() if shape.fullmatch(path) for method in methods}
        return frozenset(named | {"HEAD"} if "GET" in named else named)


class Methods:
    """Answers for methods that no route has: OPTIONS itself, HEAD from the GET, and 405 for the rest."""

    def __init__(self, app: ASGIApp, resources: Resources) -> None:
        self._app = app
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        possible = self._resources.methods(scope["path"]) if scope["type"] == "http" else frozenset[str]()
        if not possible:
            await self._app(scope, receive, send)
            return
        allow = {"allow": ", ".join(sorted(possible | {"OPTIONS"}))}
        match scope["method"]:
            case "OPTIONS":
                await Response(status_code=204, headers=allow)(scope, receive, send)
            case "HEAD" if "HEAD" in possible:
                await self._app({**scope, "method": "GET"}, *_head_only(receive, send))
            case method if method in possible:
                await self._app(scope, receive, send)
            case method:
                error = MethodNotAllowed(f"{method[:40]} is not possible here.")
                response = problem_of(error, HTTPConnection(scope))
                response.headers.update(allow)
                await response(scope, receive, send)


def _head_only(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """A client that goes as soon as it has the head, so that no stream is kept open for it."""
    has_all = False

    async def receive_until_answered() -> Message:
        return {"type": "http.disconnect"} if has_all else await receive()

    async def send_head(message: Message) -> None:
        nonlocal has_all
        if message["type"] == "http.response.start":
            has_all = True
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return receive_until_answered, send_head


def _shape(route: APIRoute) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[^}]*\}", "[^/]+", re.escape(route.path)))
