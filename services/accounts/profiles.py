"""What users see and change of themselves."""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from db.ids import SignInId, UserId
from db.records import UserRecord
from db.stores.users import UserStore
from services.accounts.alarm import Alarm
from services.accounts.caller import Caller, check_signed_in
from services.accounts.guesses import GuessLimits
from services.accounts.passwords import Passwords
from services.accounts.sign_ins import WrongCredentials
from services.audit import AuditLog
from services.errors import InvalidRequest, NotFound


class WrongPassword(InvalidRequest):
    """This is not your current password."""

    code = "wrong_password"


class Profiles:
    """Reads and changes users, each for themselves."""

    def __init__(
        self, users: UserStore, passwords: Passwords, guesses: GuessLimits, alarm: Alarm, audit: AuditLog
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._guesses = guesses
        self._alarm = alarm
        self._audit = audit

    async def get(self, user_id: UserId) -> UserRecord:
        """The user. Raises `NotFound` if they were deleted a moment ago."""
        return _found(await self._users.get(user_id))

    async def update(self, user_id: UserId, changes: Mapping[str, Any]) -> UserRecord:
        """Change `display_name` and `timezone`, an IANA name or None. Raises `InvalidRequest`, `NotFound`."""
        if changes.get("timezone") is not None and not is_timezone(changes["timezone"]):
            raise InvalidRequest("There is no such time zone; names are like Europe/Vienna.", field="timezone")
        return _found(await self._users.update(user_id, changes))

    async def change_password(self, caller: Caller, current: str, new: str, *, address: str) -> None:
        """Give the caller another password, and end all their sign-ins but the present one.

        Raises `SignInNeeded`, `WrongPassword`, `WrongCredentials` if it was changed at the same moment,
        `TooManyAttempts`, `PasswordsBusy`, `InvalidRequest`.
        """
        check_signed_in(caller)
        user_id = caller.user_id
        account = f"password of {user_id}"
        self._guesses.guess_password(account, address)
        stored = await self._users.hash_of(user_id)
        verdict = await self._passwords.verify(current, stored)
        if not verdict.matches or stored is None:
            await self._audit.note(caller, "user.change_password", user_id, outcome="refused")
            raise WrongPassword(field="current_password")
        self._guesses.password_was_right(account, address)
        new_hash = await self._passwords.hash(new, field="new_password")
        if not await self._users.change_password(user_id, old=stored, new=new_hash, but=sign_in_of(caller)):
            raise WrongCredentials
        await self._alarm.sound()
        await self._audit.note(caller, "user.change_password", user_id)


def sign_in_of(caller: Caller) -> SignInId | None:
    """The sign-in by which somebody asks, if it is not an API key."""
    credential = caller.credential
    return SignInId(credential.id) if credential and credential.kind == "sign_in" else None


def is_timezone(name: str) -> bool:
    """Whether this machine knows a time zone of that name; UTC is known everywhere."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return name == "UTC"
    return True


def _found(user: UserRecord | None) -> UserRecord:
    if user is None:
        raise NotFound("There is no such user.")
    return user
