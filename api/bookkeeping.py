"""What the service remembers of requests and of what they cost."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from api.settings import Settings
from db.ids import ReplicaId
from db.pool import Database
from db.stores.idempotency import IdempotencyStore
from services.idempotency import Idempotency


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """What routes are given of it."""

    idempotency: Idempotency


async def open_bookkeeping(
    settings: Settings, database: Database, replica_id: ReplicaId, stack: AsyncExitStack
) -> Bookkeeping:
    """All of it, at work until `stack` is closed."""
    idempotency = Idempotency(IdempotencyStore(database, lease_seconds=settings.timeouts.lease), replica_id)
    await stack.enter_async_context(idempotency.running())
    return Bookkeeping(idempotency)
