"""Who asks, by what right, and what that right allows."""

from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from db.ids import LOCAL_OWNER, UserId
from db.records import HeldRight
from services.errors import InsufficientScope

Scope = Literal["read", "write", "chat", "admin"]
"""read: look at what is one's own. write: change it. chat: send messages, stop replies, decide about tools.
admin: look after the service and its users."""

ALL_SCOPES: Final = frozenset[Scope](("read", "write", "chat", "admin"))
USER_SCOPES: Final = ALL_SCOPES - {"admin"}


@dataclass(frozen=True, slots=True)
class Credential:
    """What somebody showed: a sign-in (behind access tokens and tickets) or an API key. It can be revoked."""

    kind: Literal["sign_in", "api_key"]
    id: UUID


@dataclass(frozen=True, slots=True)
class Caller:
    """A user and what the credential at hand lets them do. Without accounts there is no credential."""

    user_id: UserId
    scopes: frozenset[Scope]
    credential: Credential | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the credential covers this."""
        return scope in self.scopes

    @property
    def credential_id(self) -> UUID | None:
        """What is noted with whatever is begun through the credential, so that it can end with that."""
        return None if self.credential is None else self.credential.id


LOCAL_CALLER: Final = Caller(LOCAL_OWNER, ALL_SCOPES)
"""Whoever reaches a service without accounts: its owner."""


class SignInNeeded(InsufficientScope):
    """People do this, and not their keys: sign in for it."""

    code = "sign_in_needed"


def check_signed_in(caller: Caller, scope: Scope = "write") -> None:
    """Raises `SignInNeeded` where a key is shown, or a sign-in without that scope.

    For whatever gives somebody more than they have: who finds a key must not be able to make the account theirs.
    """
    is_key = caller.credential is not None and caller.credential.kind == "api_key"
    if is_key or not caller.may(scope):
        raise SignInNeeded(scope=scope)


def caller_of(held: HeldRight) -> Caller:
    """Who holds that right. Who is no administrator any more has nothing of what they gave away as one."""
    scopes = ALL_SCOPES if held.is_admin else USER_SCOPES
    credential = Credential("api_key" if held.is_key else "sign_in", held.credential_id)
    return Caller(held.user_id, frozenset(scope for scope in scopes if scope in held.scopes), credential)
