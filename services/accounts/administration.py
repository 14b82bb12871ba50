"""Looking after the users of this service. There is always an administrator left who can."""

import secrets

from db.ids import UserId
from db.records import UserRecord
from db.stores.users import LastAdministrator, UserStore
from services.accounts.alarm import Alarm
from services.accounts.caller import Caller, check_signed_in
from services.accounts.passwords import Passwords
from services.audit import AuditLog
from services.errors import Conflict, NotFound
from services.images import ImageService

_RANDOM_BYTES = 15


class NoAdministratorLeft(Conflict):
    """This is the last administrator: make somebody else one first."""

    code = "last_administrator"


class UserAdministration:
    """Accounts, for administrators."""

    def __init__(
        self, users: UserStore, passwords: Passwords, images: ImageService, alarm: Alarm, audit: AuditLog
    ) -> None:
        self._users = users
        self._images = images
        self._passwords = passwords
        self._alarm = alarm
        self._audit = audit

    async def list(self, *, q: str | None, before: UserId | None, limit: int) -> tuple[list[UserRecord], UserId | None]:
        """Up to `limit` accounts, newest first, and where the next page begins if there is one."""
        found = await self._users.list(q=q, before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def get(self, user_id: UserId) -> UserRecord:
        """One account. Raises `NotFound`."""
        return _account(await self._users.get(user_id))

    async def change(
        self, caller: Caller, user_id: UserId, *, is_admin: bool | None, is_disabled: bool | None
    ) -> UserRecord:
        """Say what a user may do; None leaves it. Disabling ends all sign-ins, and what they had begun.

        Raises `SignInNeeded` if a key is to make an administrator, `NotFound`, `NoAdministratorLeft`.
        """
        if is_admin:
            check_signed_in(caller, "admin")
        before = await self.get(user_id)
        try:
            after = _account(await self._users.govern(user_id, is_admin=is_admin, is_disabled=is_disabled))
        except LastAdministrator as error:
            raise NoAdministratorLeft from error
        if is_disabled:
            await self._alarm.sound()
        if before.is_admin != after.is_admin:
            await self._audit.note(caller, "user.change_permissions", user_id, is_admin=after.is_admin)
        if before.disabled_at is None and after.disabled_at is not None:
            await self._audit.note(caller, "user.disable", user_id)
        if before.disabled_at is not None and after.disabled_at is None:
            await self._audit.note(caller, "user.enable", user_id)
        return after

    async def reset_password(self, caller: Caller, user_id: UserId) -> str:
        """A new password for somebody who has forgotten theirs; all their sign-ins end. Nobody can read it again.

        Raises `SignInNeeded`, `NotFound`, `PasswordsBusy`.
        """
        check_signed_in(caller, "admin")
        await self.get(user_id)
        password = secrets.token_urlsafe(_RANDOM_BYTES)
        if not await self._users.reset_password(user_id, await self._passwords.hash(password)):
            raise _no_account()
        await self._alarm.sound()
        await self._audit.note(caller, "user.change_password", user_id)
        return password

    async def delete(self, caller: Caller, user_id: UserId) -> None:
        """Delete an account with everything that belongs to it. Raises `NotFound`, `NoAdministratorLeft`."""
        # First what is under way ends, then what it would write to goes.
        await self.change(caller, user_id, is_admin=None, is_disabled=True)
        if not await self._users.delete(user_id):
            raise _no_account()
        await self._images.forget(user_id)
        await self._audit.note(caller, "user.delete", user_id)


def _account(user: UserRecord | None) -> UserRecord:
    if user is None or user.email is None:
        raise _no_account()
    return user


def _no_account() -> NotFound:
    return NotFound("There is no user with that id.")
