"""Inviting people: an administrator makes a code, and gives it to them as they like."""

import secrets
from datetime import timedelta

from db.ids import InvitationId, new_id
from db.records import InvitationRecord
from db.stores.invitations import InvitationStore
from db.stores.users import UserStore
from services.accounts.caller import Caller
from services.accounts.emails import normal_email
from services.accounts.registration import AddressTaken, invitation_hash
from services.audit import AuditLog
from services.errors import NotFound

_PREFIX = "cli_"


class Invitations:
    """The invitations of this service, for administrators."""

    def __init__(self, store: InvitationStore, users: UserStore, audit: AuditLog) -> None:
        self._store = store
        self._users = users
        self._audit = audit

    async def create(self, caller: Caller, *, email: str | None, days: int) -> tuple[InvitationRecord, str]:
        """An invitation for one person, and its code, which nobody can read again.

        Raises `InvalidRequest`, and `AddressTaken` if the one with that address has an account.
        """
        address = None if email is None else normal_email(email)
        if address is not None and await self._users.password_of(address) is not None:
            raise AddressTaken(field="email")
        code = _PREFIX + secrets.token_urlsafe(24)
        made = await self._store.add(
            InvitationId(new_id()),
            caller.user_id,
            hash=invitation_hash(code),
            email=address,
            lasts=timedelta(days=days),
        )
        await self._audit.note(caller, "invitation.create", made.id, days=days)
        return made, code

    async def list(
        self, *, before: InvitationId | None, limit: int
    ) -> tuple[list[InvitationRecord], InvitationId | None]:
        """Up to `limit` invitations, newest first, and where the next page begins if there is one."""
        found = await self._store.list(before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def delete(self, caller: Caller, invitation_id: InvitationId) -> None:
        """Take an invitation back; who has registered with it stays. Raises `NotFound`."""
        if not await self._store.delete(invitation_id):
            raise NotFound("There is no invitation with that id.")
        await self._audit.note(caller, "invitation.revoke", invitation_id)
