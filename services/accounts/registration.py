"""Who may have an account, and how the first one comes about."""

import hashlib
import hmac
from base64 import b32encode
from typing import Literal

from db.ids import UserId, new_id
from db.records import UserRecord
from db.stores.users import EmailTaken, InvitationRefused, NewAccount, NotTheFirst, UserStore
from services.accounts.emails import normal_email
from services.accounts.guesses import GuessLimits
from services.accounts.passwords import Passwords
from services.accounts.secrets import KeyRing
from services.accounts.sign_ins import Device, SignedIn, SignIns
from services.audit import AuditLog
from services.errors import CallerError, Conflict
from services.first_run.welcome import Welcome

RegistrationMode = Literal["open", "invite", "closed"]


class RegistrationClosed(CallerError):
    """This service takes no new accounts."""

    code = "registration_closed"


class InvitationNeeded(CallerError):
    """An invite code is needed: this one is wrong, used, over, or for another address."""

    code = "invitation_needed"


class SetupCodeNeeded(InvitationNeeded):
    """The first account needs the setup code as its `invite_code`: it stands where this service says it is ready."""

    code = "setup_code_needed"


class AddressTaken(Conflict):
    """There is an account with this e-mail address."""

    code = "email_taken"


class Registration:
    """Makes accounts, as the operator's word on registration allows.

    The first one is the administrator's. It needs the setup code, which only the operator can read, where registration
    is not open, where others than the operator may reach the service (`is_public`), and where it takes over what was
    made without accounts.
    """

    def __init__(
        self,
        mode: RegistrationMode,
        users: UserStore,
        passwords: Passwords,
        sign_ins: SignIns,
        setup_keys: KeyRing,
        guesses: GuessLimits,
        audit: AuditLog,
        welcome: Welcome | None,
        *,
        is_public: bool,
    ) -> None:
        self._mode: RegistrationMode = mode
        self._users = users
        self._passwords = passwords
        self._sign_ins = sign_ins
        self._setup_keys = setup_keys
        self._guesses = guesses
        self._audit = audit
        self._welcome = welcome
        self._is_public = is_public

    async def register(
        self, email: str, password: str, display_name: str | None, invite_code: str | None, device: Device
    ) -> SignedIn:
        """Make an account and sign in.

        Raises `RegistrationClosed`, `InvitationNeeded`, `AddressTaken`, `TooManyAttempts`, `PasswordsBusy`,
        `InvalidRequest`. Without a good invitation nobody is told whether an address is taken.
        """
        email = normal_email(email)
        self._guesses.register(device.address)
        is_first = await self._users.needs_first()
        invitation = await self._admitted(is_first, email, invite_code)
        password_hash = await self._passwords.hash(password)
        new = NewAccount(UserId(new_id()), email, password_hash, display_name or email.partition("@")[0])
        user = await self._made(is_first, new, invitation)
        await self._audit.note(
            user.id, "user.register", user.id, is_admin=user.is_admin, invited=invitation is not None
        )
        if self._welcome is not None:
            await self._welcome.greet(user.id)
        return await self._sign_ins.begin(user.id, password_hash, device)

    async def setup_code(self) -> str | None:
        """What the first account needs, if there is none yet and it needs anything.

        The same on every replica and after each start; worth nothing once there is an account.
        """
        return self._codes()[0] if await self._users.needs_first() and await self._is_guarded() else None

    async def _admitted(self, is_first: bool, email: str, code: str | None) -> bytes | None:
        """The hash of the invitation to be used up, if one is needed."""
        if is_first:
            if await self._is_guarded() and not self._is_setup_code(code or ""):
                raise SetupCodeNeeded
            return None
        match self._mode:
            case "closed":
                raise RegistrationClosed
            case "invite":
                invitation = invitation_hash(code or "")
                if not await self._users.is_invited(invitation, email):
                    raise InvitationNeeded
                return invitation
            case "open":
                return None

    async def _made(self, is_first: bool, new: NewAccount, invitation: bytes | None) -> UserRecord:
        try:
            if is_first:
                return await self._users.register_first(new)
            return await self._users.register(new, invitation_hash=invitation)
        except EmailTaken as error:
            raise AddressTaken from error
        except InvitationRefused as error:
            raise InvitationNeeded from error
        except NotTheFirst:
            return await self._made_second(new)

    async def _made_second(self, new: NewAccount) -> UserRecord:
        """Somebody was faster: what is asked of all others is asked now."""
        if self._mode != "open":
            raise InvitationNeeded
        try:
            return await self._users.register(new, invitation_hash=None)
        except EmailTaken as error:
            raise AddressTaken from error

    async def _is_guarded(self) -> bool:
        return self._mode != "open" or self._is_public or await self._users.has_local_owner()

    def _is_setup_code(self, code: str) -> bool:
        given = code.strip().upper().encode("utf-8", "replace")
        return any(hmac.compare_digest(given, expected.encode()) for expected in self._codes())

    def _codes(self) -> list[str]:
        return [b32encode(key.material[:10]).decode() for key in self._setup_keys]


def invitation_hash(code: str) -> bytes:
    """What is stored of an invite code."""
    return hashlib.sha256(code.strip().encode("utf-8", "replace")).digest()
