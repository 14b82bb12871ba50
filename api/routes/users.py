"""Users and invitations, for administrators."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from api.dependencies import Administrator, Inviting, Users, needs_accounts, takes_json
from api.routes.responses import problems
from api.routing import StrictRoute
from api.schemas.model import Text
from api.schemas.pages import Before, Limit, cursor_of, link_next
from api.schemas.users import (
    Account,
    AccountPage,
    AccountUpdate,
    Invitation,
    InvitationPage,
    InvitationRequest,
    NewInvitation,
    NewPassword,
)
from db.ids import InvitationId, UserId

router = APIRouter(
    prefix="/api/auth",
    tags=["users"],
    route_class=StrictRoute,
    dependencies=[Depends(needs_accounts), Depends(takes_json)],
)


@router.get("/users", operation_id="listUsers", responses=problems(409))
async def list_users(
    request: Request,
    response: Response,
    _admin: Administrator,
    users: Users,
    q: Annotated[Text | None, Query(max_length=200, description="Looked for in addresses and names.")] = None,
    before: Before = None,
    limit: Limit = 50,
) -> AccountPage:
    """Accounts, newest first."""
    found, following = await users.list(q=q, before=before and UserId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    return AccountPage(items=[Account.of(user) for user in found], next_cursor=cursor_of(following))


@router.get("/users/{user_id}", operation_id="getUser", responses=problems(404, 409))
async def get_user(user_id: UUID, _admin: Administrator, users: Users) -> Account:
    """One account."""
    return Account.of(await users.get(UserId(user_id)))


@router.patch("/users/{user_id}", operation_id="updateUser", responses=problems(404, 409, changes=True))
async def update_user(user_id: UUID, body: AccountUpdate, admin: Administrator, users: Users) -> Account:
    """Make somebody an administrator or not, disable or enable them; one administrator always stays."""
    is_admin, is_disabled = body.word_on("is_admin"), body.word_on("is_disabled")
    return Account.of(await users.change(admin, UserId(user_id), is_admin=is_admin, is_disabled=is_disabled))


@router.delete(
    "/users/{user_id}", status_code=204, operation_id="deleteUser", responses=problems(404, 409, changes=True)
)
async def delete_user(user_id: UUID, admin: Administrator, users: Users) -> None:
    """Delete an account and everything that belongs to it, for good."""
    await users.delete(admin, UserId(user_id))


@router.post(
    "/users/{user_id}/password-reset", operation_id="resetPassword", responses=problems(404, 409, changes=True)
)
async def reset_password(user_id: UUID, admin: Administrator, users: Users) -> NewPassword:
    """Make a new password for somebody who has forgotten theirs. All their sign-ins end."""
    return NewPassword(password=await users.reset_password(admin, UserId(user_id)))


@router.post("/invitations", status_code=201, operation_id="createInvitation", responses=problems(409, changes=True))
async def create_invitation(body: InvitationRequest, admin: Administrator, inviting: Inviting) -> NewInvitation:
    """Invite one person. The code is shown once; give it to them as you like."""
    made, code = await inviting.create(admin, email=body.email, days=body.days)
    return NewInvitation(invite_code=code, invitation=Invitation.of(made))


@router.get("/invitations", operation_id="listInvitations", responses=problems(409))
async def list_invitations(
    request: Request,
    response: Response,
    _admin: Administrator,
    inviting: Inviting,
    before: Before = None,
    limit: Limit = 50,
) -> InvitationPage:
    """Invitations, newest first, used and old ones among them."""
    found, following = await inviting.list(before=before and InvitationId(before), limit=limit)
    link_next(request, response, cursor_of(following))
    return InvitationPage(items=[Invitation.of(one) for one in found], next_cursor=cursor_of(following))


@router.delete(
    "/invitations/{invitation_id}",
    status_code=204,
    operation_id="deleteInvitation",
    responses=problems(404, 409, changes=True),
)
async def delete_invitation(invitation_id: UUID, admin: Administrator, inviting: Inviting) -> None:
    """Take an invitation back; who has registered with it stays."""
    await inviting.delete(admin, InvitationId(invitation_id))
