"""Signing in, going on with a sign-in, and ending it."""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass

from db.ids import SignInId, UserId, new_id
from db.records import SignInRecord, UserRecord
from db.stores.sign_ins import NewSignIn, Refreshed, Reused, SignInStore
from db.stores.users import UserStore
from services.accounts.alarm import Alarm
from services.accounts.caller import Caller, check_signed_in
from services.accounts.emails import normal_email
from services.accounts.guesses import GuessLimits
from services.accounts.passwords import Passwords
from services.accounts.secrets import KeyRing
from services.accounts.tokens import AccessTokens
from services.audit import AuditLog
from services.errors import NotAuthenticated, NotFound

_PREFIX = "clr_"
_TOKEN_CHARACTERS = len(_PREFIX) + 43
_GRACE_SECONDS = 30.0
"""For a client that did not get the answer, or whose other window was faster, to come again with the same token."""
_USER_AGENT_CHARACTERS = 200


class WrongCredentials(NotAuthenticated):
    """The e-mail address or the password is wrong."""

    code = "wrong_credentials"


class SignInOver(NotAuthenticated):
    """This sign-in is over: sign in again."""

    code = "sign_in_over"


@dataclass(frozen=True, slots=True)
class Device:
    """Who is at the other end, as far as can be seen: the address, and what the program calls itself."""

    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What somebody has who signed in. Seconds are from now on."""

    user: UserRecord
    access_token: str
    access_seconds: int
    refresh_token: str
    refresh_seconds: int


class SignIns:
    """Gives tokens for passwords, and new tokens for old ones."""

    def __init__(
        self,
        users: UserStore,
        sign_ins: SignInStore,
        passwords: Passwords,
        tokens: AccessTokens,
        refresh_keys: KeyRing,
        guesses: GuessLimits,
        alarm: Alarm,
        audit: AuditLog,
        *,
        refresh_seconds: int,
        per_user: int,
    ) -> None:
        self._users = users
        self._sign_ins = sign_ins
        self._passwords = passwords
        self._tokens = tokens
        self._refresh_keys = refresh_keys
        self._guesses = guesses
        self._alarm = alarm
        self._audit = audit
        self._refresh_seconds = refresh_seconds
        self._per_user = per_user

    async def login(self, email: str, password: str, device: Device) -> SignedIn:
        """A sign-in for a password. Raises `WrongCredentials`, `TooManyAttempts`, `PasswordsBusy`, `InvalidRequest`.

        An address that nobody has, a wrong password and a disabled user are answered alike, and after the same work.
        """
        email = normal_email(email)
        self._guesses.guess_password(email, device.address)
        stored = await self._users.password_of(email)
        verdict = await self._passwords.verify(password, stored and stored.hash)
        if not verdict.matches or stored is None or stored.is_disabled:
            await self._audit.note(None, "user.sign_in", stored and stored.user_id, outcome="refused")
            raise WrongCredentials
        self._guesses.password_was_right(email, device.address)
        current = stored.hash
        if verdict.better_hash and await self._users.replace_hash(
            stored.user_id, old=stored.hash, new=verdict.better_hash
        ):
            current = verdict.better_hash
        return await self.begin(stored.user_id, current, device)

    async def begin(self, user_id: UserId, password_hash: str, device: Device) -> SignedIn:
        """A sign-in for the user who has just shown to know the password behind the hash. Raises `WrongCredentials`."""
        token = _PREFIX + secrets.token_urlsafe(32)
        new = NewSignIn(SignInId(new_id()), user_id, _hash(token), _printable(device.user_agent), self._refresh_seconds)
        user = await self._sign_ins.begin(new, password_hash=password_hash, most=self._per_user)
        if user is None:  # disabled, or given another password, while this one was verified
            raise WrongCredentials
        await self._audit.note(user.id, "user.sign_in", user.id, sign_in=new.id)
        return self._signed_in(user, new.id, token)

    async def refresh(self, token: str, device: Device) -> SignedIn:
        """New tokens for a refresh token, which is used up by it. Raises `SignInOver`, `TooManyAttempts`.

        Its successor is computed from it, so that a client that comes again with the same token, because the answer
        was lost or another window was faster, is given the same one for a short while. Later, or once the successor
        was used, somebody has a copy of the token: the sign-in ends for both.
        """
        self._guesses.may_refresh(device.address)
        following = self._following(token)
        match await self._exchanged(token, following):
            case Refreshed(user, sign_in_id):
                return self._signed_in(user, sign_in_id, following)
            case Reused(user_id, sign_in_id):
                await self._alarm.sound()
                await self._audit.note(user_id, "sign_in.reuse", sign_in_id, outcome="refused")
            case None:
                self._guesses.token_was_wrong(device.address)
        raise SignInOver

    async def logout(self, user_id: UserId, sign_in_id: SignInId, *, everywhere: bool) -> None:
        """End the sign-in, or all sign-ins of the user."""
        if everywhere:
            await self._sign_ins.end_all(user_id, "logout")
        else:
            await self._sign_ins.end(sign_in_id, user_id, "logout")
        await self._alarm.sound()
        await self._audit.note(user_id, "user.sign_out", user_id, sign_in=sign_in_id, everywhere=everywhere)

    async def of_refresh_token(self, token: str) -> tuple[UserId, SignInId] | None:
        """Whose unused refresh token this is, and of which sign-in."""
        return await self._sign_ins.of_token(_hash(token)) if _is_one(token) else None

    async def list(
        self, user_id: UserId, *, before: SignInId | None, limit: int
    ) -> tuple[list[SignInRecord], SignInId | None]:
        """The user's sign-ins that began before `before`, newest first, and where the next page begins, if any."""
        found = await self._sign_ins.list(user_id, before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def end(self, caller: Caller, sign_in_id: SignInId) -> None:
        """End one of the caller's sign-ins. Raises `SignInNeeded`, `NotFound`."""
        check_signed_in(caller)
        if not await self._sign_ins.end(sign_in_id, caller.user_id, "logout"):
            raise NotFound("There is no sign-in with that id.")
        await self._alarm.sound()
        await self._audit.note(caller, "sign_in.revoke", sign_in_id)

    async def _exchanged(self, token: str, following: str) -> Refreshed | Reused | None:
        if not _is_one(token):
            return None
        return await self._sign_ins.refresh(
            _hash(token), _hash(following), grace_seconds=_GRACE_SECONDS, seconds=self._refresh_seconds
        )

    def _signed_in(self, user: UserRecord, sign_in_id: SignInId, refresh_token: str) -> SignedIn:
        access = self._tokens.issue(user.id, sign_in_id)
        return SignedIn(user, access, self._tokens.seconds, refresh_token, self._refresh_seconds)

    def _following(self, token: str) -> str:
        digest = hmac.digest(self._refresh_keys.current.material, token.encode("utf-8", "replace"), "sha256")
        return _PREFIX + urlsafe_b64encode(digest).rstrip(b"=").decode()


def _is_one(token: str) -> bool:
    return len(token) == _TOKEN_CHARACTERS and token.isascii() and token.startswith(_PREFIX)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _printable(user_agent: str) -> str:
    return "".join(character for character in user_agent if character.isprintable())[:_USER_AGENT_CHARACTERS]
