"""Who asks, and by what right: what routes get to know of it."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Security
from fastapi.openapi.models import HTTPBearer as BearerModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from api.assembly import Services
from db.ids import UserId
from services.accounts.caller import Caller, Scope
from services.accounts.sign_ins import Device
from services.errors import InsufficientScope, NotAuthenticated
from services.telemetry.circumstances import circumstances

_READING = ("GET", "HEAD", "OPTIONS")


def services_of(connection: HTTPConnection) -> Services:
    """What the lifespan made."""
    return connection.app.state.services


async def caller_of(connection: HTTPConnection) -> Caller:
    """Who asks; looked up once for each request. Raises `NotAuthenticated`, `TooManyRequests`."""
    state = connection.scope.setdefault("state", {})
    if "caller" not in state:
        authenticator = services_of(connection).access.authenticator
        caller = await authenticator.authenticate(shown_by(connection))
        around = circumstances()
        around.user_id, around.credential = caller.user_id, caller.credential
        if connection.scope["type"] == "http":  # sockets have frames to be counted
            state["allowance"] = services_of(connection).bookkeeping.pace.spend(caller.user_id)
        state["caller"] = caller
    return state["caller"]


def shown_by(connection: HTTPConnection) -> str | None:
    """The token or key of the Authorization header. Raises `NotAuthenticated` if that says something else."""
    headers = connection.headers.getlist("authorization")
    if not headers:
        return None
    scheme, _, shown = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer":
        raise NotAuthenticated
    return shown.strip()


def check_scope(caller: Caller, scope: Scope) -> None:
    """Raises `InsufficientScope`, which names the scope."""
    if not caller.may(scope):
        raise InsufficientScope(f"This needs the scope {scope}, which what was shown does not have.", scope=scope)


class _Bearer(SecurityBase):
    """Says in the OpenAPI document how to show who one is."""

    def __init__(self) -> None:
        self.model = BearerModel(description="An access token, or an API key.")
        self.scheme_name = "bearer"

    def __call__(self, connection: HTTPConnection) -> None:
        """Nothing to do: `caller_of` looks at the header, for sockets too."""


_BEARER = _Bearer()


async def _caller(connection: HTTPConnection, _: Annotated[None, Security(_BEARER)]) -> Caller:
    return await caller_of(connection)


_Somebody = Annotated[Caller, Depends(_caller)]


def _current_caller(connection: HTTPConnection, caller: _Somebody) -> Caller:
    is_reading = connection.scope.get("method", "GET") in _READING  # the handshake of a socket has no method
    check_scope(caller, "read" if is_reading else "write")
    return caller


def _with(scope: Scope) -> Callable[[Caller], Caller]:
    """A dependency: who asks, if they may do this, whatever the method."""

    def caller_with(caller: _Somebody) -> Caller:
        check_scope(caller, scope)
        return caller

    return caller_with


CurrentCaller = Annotated[Caller, Depends(_current_caller)]
"""As `CurrentUser`, with what they showed."""
ReadingCaller = Annotated[Caller, Depends(_with("read"))]
"""Who asks, with what they showed: may `read`, whatever the method."""
ChattingCaller = Annotated[Caller, Depends(_with("chat"))]
"""As `ChattingUser`, with what they showed."""


def _user(caller: CurrentCaller) -> UserId:
    return caller.user_id


def _chatting_user(caller: ChattingCaller) -> UserId:
    return caller.user_id


async def _caller_if_known(connection: HTTPConnection) -> Caller | None:
    has_shown = "authorization" in connection.headers
    is_local = services_of(connection).settings.auth_mode == "local"
    return await caller_of(connection) if has_shown or is_local else None


def _device(connection: HTTPConnection) -> Device:
    address = connection.client.host if connection.client else ""
    return Device(address, connection.headers.get("user-agent", ""))


CurrentUser = Annotated[UserId, Depends(_user)]
"""Who asks: may `read` with GET, and `write` with anything else."""
ChattingUser = Annotated[UserId, Depends(_chatting_user)]
"""Who asks: may `chat`."""
Administrator = Annotated[Caller, Depends(_with("admin"))]
"""Who asks: may `admin`."""
MaybeCaller = Annotated[Caller | None, Depends(_caller_if_known)]
"""Who asks, where nobody has to say so."""
CurrentDevice = Annotated[Device, Depends(_device)]
