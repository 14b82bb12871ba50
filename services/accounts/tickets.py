"""Tickets: with one, a page in a browser says who opens a socket.

Browsers cannot send a header with a handshake, and addresses are logged. So a page asks for a ticket over REST, where
it shows who it is, and sends that as the socket's first frame. Who reads it afterwards can do nothing with it.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass

from db.ids import ApiKeyId, SessionId, SignInId
from db.stores.accepting import NoSuchSession
from db.stores.tickets import TicketStore, TooManyTickets
from services.accounts.caller import Caller, caller_of
from services.errors import NoAccounts, NotAuthenticated, TooManyRequests, no_session

_RANDOM_BYTES = 32
_TICKET = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Ticket:
    """Opens one socket within `expires_in` seconds."""

    text: str
    expires_in: float


class Tickets:
    """Gives out tickets and takes them back."""

    def __init__(self, store: TicketStore, *, seconds: float, per_user: int) -> None:
        self._store = store
        self._seconds = seconds
        self._per_user = per_user

    async def issue(self, caller: Caller, session_id: SessionId | None) -> Ticket:
        """A ticket for the socket of that session, or for the socket of many conversations if none is named.

        It stands for what the caller has shown, and is worth nothing once that is revoked. Raises `NoAccounts`,
        `NotFound` and `TooManyRequests`.
        """
        credential = caller.credential
        if credential is None:
            raise NoAccounts
        ticket = Ticket(secrets.token_urlsafe(_RANDOM_BYTES), self._seconds)
        try:
            await self._store.add(
                _hash(ticket.text),
                caller.user_id,
                session_id=session_id,
                sign_in_id=SignInId(credential.id) if credential.kind == "sign_in" else None,
                api_key_id=ApiKeyId(credential.id) if credential.kind == "api_key" else None,
                scopes=sorted(caller.scopes),
                seconds=self._seconds,
                most=self._per_user,
            )
        except NoSuchSession as error:
            raise no_session() from error
        except TooManyTickets as error:
            raise TooManyRequests(
                f"{self._per_user} tickets wait to be used.", retry_after=self._seconds, limit=self._per_user
            ) from error
        return ticket

    async def redeem(self, text: str, session_id: SessionId | None) -> Caller:
        """Who got that ticket for this socket. It cannot be used again, whatever comes of it.

        Raises `NotAuthenticated`.
        """
        held = await self._store.take(_hash(text), session_id) if _TICKET.fullmatch(text) else None
        if held is None:
            raise NotAuthenticated("That ticket is not valid: each is good once, soon, and for one socket.")
        return caller_of(held)

    async def sweep(self) -> None:
        """Throw away what nobody has used in time."""
        await self._store.sweep()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
