"""What a request is called where it is told of: by its route, never by what was asked for."""

from typing import Any, Final

NO_ROUTE: Final = "none"


def route_of(scope: Any) -> str:
    """The template of the path, such as /api/sessions/{session_id}: ids, and what else was put there, are left out.

    Known once the request has been given to a route.
    """
    return getattr(scope.get("route"), "path", NO_ROUTE)
