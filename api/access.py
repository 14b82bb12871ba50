"""Who comes in, and what happens when a right is taken away: the part of the assembly that knows keys and tickets."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from api.settings import Settings
from db.pool import Database
from db.stores.api_keys import ApiKeyStore
from db.stores.rights import RightsStore
from db.stores.tickets import TicketStore
from services.accounts.alarm import Alarm
from services.accounts.api_keys import ApiKeys
from services.accounts.revocation import Revocations
from services.accounts.rights import RightsInUse
from services.accounts.tickets import Tickets
from services.audit import AuditLog
from services.runs.afterwork import Afterwork
from services.runs.engine import RunEngine
from websocket.authentication import Door, OpenDoor


@dataclass(frozen=True, slots=True)
class Access:
    """Keys, tickets, the door of the sockets, and what is open by whose right."""

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


def make_access(settings: Settings, database: Database, audit: AuditLog) -> Access:
    """All of it but `watch_rights`, which needs what is to be stopped."""
    limits, timeouts = settings.limits, settings.timeouts
    store = RightsStore(database)
    alarm = Alarm(store)
    keys = ApiKeys(ApiKeyStore(database), alarm, audit, per_user=limits.api_keys_per_user)
    tickets = Tickets(TicketStore(database), seconds=timeouts.ticket, per_user=limits.tickets_per_user)
    return Access(keys, tickets, OpenDoor(), RightsInUse(), alarm, store)


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
