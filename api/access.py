"""Who comes in, and what happens when a right is taken away: the part of the assembly that knows keys and tickets."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from api.settings import Settings
from db.pool import Database
from db.stores.api_keys import ApiKeyStore
from db.stores.rights import RightsStore
from db.stores.sign_ins import SignInStore
from db.stores.tickets import TicketStore
from services.accounts.alarm import Alarm
from services.accounts.api_keys import ApiKeys
from services.accounts.authenticator import AccountAuthenticator, Authenticator, LocalAuthenticator
from services.accounts.revocation import Revocations
from services.accounts.rights import RightsInUse
from services.accounts.secrets import SecretKeys
from services.accounts.tickets import Tickets
from services.accounts.tokens import AccessTokens
from services.audit import AuditLog
from services.runs.afterwork import Afterwork
from services.runs.engine import RunEngine
from websocket.authentication import Door, DoorLimits, GuardedDoor, OpenDoor


@dataclass(frozen=True, slots=True)
class Access:
    """How it is found out who asks: tokens, keys, tickets, the door of the sockets; and what is open by whose right."""

    tokens: AccessTokens
    authenticator: Authenticator
    keys: ApiKeys
    tickets: Tickets
    door: Door
    rights: RightsInUse
    alarm: Alarm
    store: RightsStore

    @property
    def heard(self) -> Mapping[str, Callable[[str], None]]:
        """The notifications that it wants to be told of."""
        return {"colloquy_revocations": self.alarm.heard}


def make_access(settings: Settings, database: Database, secrets: SecretKeys, audit: AuditLog) -> Access:
    """All of it but `watch_rights`, which needs what is to be stopped. Raises `TokensUnsafe`."""
    limits, timeouts = settings.limits, settings.timeouts
    tokens = AccessTokens(secrets.derive("access tokens"), seconds=settings.tokens.access_seconds)
    store = RightsStore(database)
    alarm = Alarm(store)
    keys = ApiKeys(ApiKeyStore(database), alarm, audit, per_user=limits.api_keys_per_user)
    tickets = Tickets(TicketStore(database), seconds=timeouts.ticket, per_user=limits.tickets_per_user)
    if settings.auth_mode == "local":
        return Access(tokens, LocalAuthenticator(), keys, tickets, OpenDoor(), RightsInUse(), alarm, store)
    tokens.prove()
    authenticator = AccountAuthenticator(tokens, SignInStore(database), keys)
    waiting = DoorLimits(timeouts.authenticate, limits.strangers_per_address, limits.strangers)
    door = GuardedDoor(authenticator, tickets, waiting)
    return Access(tokens, authenticator, keys, tickets, door, RightsInUse(), alarm, store)


async def watch_rights(
    settings: Settings, access: Access, engine: RunEngine, afterwork: Afterwork, stack: AsyncExitStack
) -> None:
    """See to it that what is revoked ends here. Without accounts there is nothing to be revoked."""
    if settings.auth_mode == "local":
        return
    revocations = Revocations(
        store=access.store,
        rights=access.rights,
        engine=engine,
        afterwork=afterwork,
        tickets=access.tickets,
        alarm=access.alarm,
    )
    await stack.enter_async_context(revocations.running())
