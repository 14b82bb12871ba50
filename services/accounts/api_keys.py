"""API keys: what a user's programs show. A key is shown once, when it is made, and kept as a hash."""

import hashlib
import secrets
import string
import zlib
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from db.ids import ApiKeyId, UserId, new_id
from db.records import ApiKeyRecord
from db.stores.api_keys import ApiKeyStore, TooManyKeys
from services.accounts.alarm import Alarm
from services.accounts.caller import Caller, Scope, caller_of, check_signed_in
from services.audit import AuditLog
from services.errors import (
    Conflict,
    InsufficientScope,
    InvalidRequest,
    NoAccounts,
    NotAuthenticated,
    NotFound,
)

PREFIX: Final = "clq_"
"""What every key begins with, so that people and scanners of published code know it when they see it."""

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_BYTES, _RANDOM_DIGITS = 32, 43
_CHECK_DIGITS = 6
_LENGTH = len(PREFIX) + _RANDOM_DIGITS + _CHECK_DIGITS
_NOTED_AFTER = 60.0
"""Seconds in which further uses of a key are not noted: a write for each request would cost more than the request."""


def new_key() -> str:
    """A key that nobody can guess: 32 random bytes, and a checksum of them."""
    body = PREFIX + _in_digits(int.from_bytes(secrets.token_bytes(_RANDOM_BYTES)), _RANDOM_DIGITS)
    return body + _check(body)


def is_key(text: str) -> bool:
    """Whether `text` can be a key at all; one with a slip of the pen in it cannot. Asks nobody."""
    return (
        len(text) == _LENGTH
        and text.isascii()
        and text.startswith(PREFIX)
        and _check(text[:-_CHECK_DIGITS]) == text[-_CHECK_DIGITS:]
    )


class ApiKeys:
    """The keys that users have made."""

    def __init__(self, store: ApiKeyStore, alarm: Alarm, audit: AuditLog, *, per_user: int) -> None:
        self._store = store
        self._audit = audit
        self._alarm = alarm
        self._per_user = per_user

    async def create(
        self, caller: Caller, *, name: str, scopes: Collection[Scope], expires_at: datetime | None
    ) -> tuple[ApiKeyRecord, str]:
        """A new key of the caller, with its text, which nobody can read again.

        Raises `NoAccounts`, `SignInNeeded` (a key makes no keys), `InsufficientScope` (nobody gives what they have
        not), `InvalidRequest`, and `Conflict` if there are too many.
        """
        self._check_may_give(caller, scopes)
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise InvalidRequest("expires_at must be in the future.", field="expires_at")
        text = new_key()
        try:
            made = await self._store.add(
                ApiKeyId(new_id()),
                caller.user_id,
                name=name,
                hash=_hash(text),
                last_four=text[-4:],
                scopes=sorted(set(scopes)),
                expires_at=expires_at,
                most=self._per_user,
            )
        except TooManyKeys as error:
            raise Conflict(
                f"You have {self._per_user} keys already: delete one first.", limit=self._per_user
            ) from error
        await self._audit.note(caller, "api_key.create", made.id, name=name, scopes=made.scopes)
        return made, text

    async def list(
        self, owner_id: UserId, *, before: ApiKeyId | None, limit: int
    ) -> tuple[list[ApiKeyRecord], ApiKeyId | None]:
        """Up to `limit` keys made before `before`, newest first, and where the next page begins if there is one."""
        found = await self._store.page(owner_id, before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def delete(self, caller: Caller, key_id: ApiKeyId) -> None:
        """Take a key away. A key may take away itself and no other.

        Raises `NoAccounts`, `SignInNeeded`, `NotFound`.
        """
        if caller.credential is None:
            raise NoAccounts
        if caller.credential.id != key_id:
            check_signed_in(caller)
        if not await self._store.remove(key_id, caller.user_id):
            raise NotFound("There is no key with that id.")
        await self._alarm.sound()
        await self._audit.note(caller, "api_key.revoke", key_id)

    async def verify(self, text: str) -> Caller:
        """Whose key that is, and what it allows: never more than its owner may. Raises `NotAuthenticated`."""
        used = await self._store.use(_hash(text), note_after_seconds=_NOTED_AFTER) if is_key(text) else None
        if used is None:
            raise NotAuthenticated("That API key is not valid, or not any more.")
        held, is_first_today = used
        caller = caller_of(held)
        if is_first_today:
            await self._audit.note(caller, "api_key.use", held.credential_id)
        return caller

    def _check_may_give(self, caller: Caller, scopes: Collection[Scope]) -> None:
        if caller.credential is None:
            raise NoAccounts
        check_signed_in(caller)
        if missing := sorted(set(scopes) - caller.scopes):
            raise InsufficientScope(
                f"You cannot give what you have not: {', '.join(missing)}.", scope=" ".join(missing)
            )


def _hash(text: str) -> bytes:
    """What is kept of a key. It is random enough that nothing slower is needed."""
    return hashlib.sha256(text.encode()).digest()


def _check(body: str) -> str:
    return _in_digits(zlib.crc32(body.encode()), _CHECK_DIGITS)


def _in_digits(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
