"""Accounts: registering, signing in and out, and oneself."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Cookie, Depends, Request, Response

from api.callers import CurrentCaller, CurrentDevice, CurrentUser, caller_of, shown_by
from api.dependencies import SignInService, UserProfiles, UserRegistration, needs_accounts, takes_json
from api.routes.responses import problems
from api.routing import StrictRoute
from api.schemas.auth import (
    Login,
    Logout,
    PasswordChange,
    Refresh,
    Register,
    TokensAndUser,
    User,
    UserUpdate,
)
from api.schemas.pages import Before, Limit, cursor_of, link_next
from api.schemas.users import SignIn, SignInPage
from db.ids import SignInId
from services.accounts.profiles import sign_in_of
from services.accounts.sign_ins import SignedIn
from services.errors import NotAuthenticated

router = APIRouter(prefix="/api/auth", tags=["auth"], route_class=StrictRoute, dependencies=[Depends(takes_json)])

_COOKIE = "colloquy_refresh"
_PATH = "/api/auth"

CookieToken = Annotated[str | None, Cookie(alias=_COOKIE, include_in_schema=False)]
WithAccounts = Depends(needs_accounts)


@router.post(
    "/register",
    status_code=201,
    operation_id="registerAccount",
    dependencies=[WithAccounts],
    responses=problems(403, 409, 429, changes=True, public=True),
)
async def register(
    body: Register, registration: UserRegistration, device: CurrentDevice, request: Request, response: Response
) -> TokensAndUser:
    """Make an account and sign in. The first account is the administrator's."""
    password = body.password.get_secret_value()
    made = await registration.register(body.email, password, body.display_name, body.invite_code, device)
    return _given(made, request, response)


@router.post(
    "/login",
    operation_id="logIn",
    dependencies=[WithAccounts],
    responses=problems(401, 409, 429, changes=True, public=True),
)
async def login(
    body: Login, sign_ins: SignInService, device: CurrentDevice, request: Request, response: Response
) -> TokensAndUser:
    """Sign in."""
    signed_in = await sign_ins.login(body.email, body.password.get_secret_value(), device)
    return _given(signed_in, request, response)


@router.post(
    "/refresh",
    operation_id="refreshTokens",
    dependencies=[WithAccounts],
    responses=problems(401, 409, 429, changes=True, public=True),
)
async def refresh(
    sign_ins: SignInService,
    device: CurrentDevice,
    request: Request,
    response: Response,
    body: Refresh | None = None,
    cookie: CookieToken = None,
) -> TokensAndUser:
    """Get new tokens for a refresh token, which is used up by it."""
    token = _refresh_token(body, cookie)
    if token is None:
        raise NotAuthenticated("Send the refresh token, in the body or as the cookie.")
    return _given(await sign_ins.refresh(token, device), request, response)


@router.post(
    "/logout",
    status_code=204,
    operation_id="logOut",
    dependencies=[WithAccounts],
    responses=problems(401, 409, changes=True, public=True),
)
async def logout(
    sign_ins: SignInService,
    request: Request,
    response: Response,
    body: Logout | None = None,
    cookie: CookieToken = None,
) -> None:
    """End a sign-in: that of the refresh token, else that of the access token."""
    response.delete_cookie(_COOKIE, path=_PATH)
    token = _refresh_token(body, cookie)
    found = None if token is None else await sign_ins.of_refresh_token(token)
    if found is None and (token is None or shown_by(request) is not None):
        caller = await caller_of(request)
        sign_in_id = sign_in_of(caller)
        found = sign_in_id and (caller.user_id, sign_in_id)
    if found is not None:  # otherwise it is over already
        await sign_ins.logout(*found, everywhere=body is not None and body.everywhere)


@router.get("/sign-ins", operation_id="listSignIns", dependencies=[WithAccounts], responses=problems(409))
async def list_sign_ins(
    request: Request,
    response: Response,
    caller: CurrentCaller,
    sign_ins: SignInService,
    before: Before = None,
    limit: Limit = 50,
) -> SignInPage:
    """Where the caller is signed in, newest first."""
    found, following = await sign_ins.list(caller.user_id, before=before and SignInId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    items = [SignIn.of(one, sign_in_of(caller)) for one in found]
    return SignInPage(items=items, next_cursor=cursor_of(following))


@router.delete(
    "/sign-ins/{sign_in_id}",
    status_code=204,
    operation_id="deleteSignIn",
    dependencies=[WithAccounts],
    responses=problems(404, 409, changes=True),
)
async def delete_sign_in(sign_in_id: UUID, caller: CurrentCaller, sign_ins: SignInService) -> None:
    """Sign a device out: what it has open is closed, and the replies that it asked for stop."""
    await sign_ins.end(caller, SignInId(sign_in_id))


@router.get("/me", operation_id="getMe", responses=problems())
async def get_me(user: CurrentUser, profiles: UserProfiles) -> User:
    """Who asks."""
    return User.of(await profiles.get(user))


@router.patch("/me", operation_id="updateMe", responses=problems(changes=True))
async def update_me(body: UserUpdate, user: CurrentUser, profiles: UserProfiles) -> User:
    """Change what is known of oneself."""
    return User.of(await profiles.update(user, body.changes()))


@router.post(
    "/me/password",
    status_code=204,
    operation_id="changePassword",
    dependencies=[WithAccounts],
    responses=problems(409, 429, changes=True),
)
async def change_password(
    body: PasswordChange, caller: CurrentCaller, profiles: UserProfiles, device: CurrentDevice
) -> None:
    """Take another password. All other sign-ins end."""
    current, new = body.current_password.get_secret_value(), body.new_password.get_secret_value()
    await profiles.change_password(caller, current, new, address=device.address)


def _refresh_token(body: Refresh | Logout | None, cookie: str | None) -> str | None:
    return body.refresh_token.get_secret_value() if body and body.refresh_token else cookie


def _given(signed_in: SignedIn, request: Request, response: Response) -> TokensAndUser:
    """The tokens; the one for the next time also as a cookie that scripts cannot read and other sites do not send."""
    response.set_cookie(
        _COOKIE,
        signed_in.refresh_token,
        max_age=signed_in.refresh_seconds,
        path=_PATH,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return TokensAndUser.of(signed_in)
