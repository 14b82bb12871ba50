"""What the service remembers of requests and of what they cost."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from api.settings import Settings
from db.ids import ReplicaId
from db.migrate import read_migrations
from db.pool import Database
from db.stores.idempotency import IdempotencyStore
from db.stores.schema import SchemaStore
from db.stores.usage import UsageStore
from services.database import DatabaseInspector
from services.idempotency import Idempotency
from services.pace import Pace
from services.usage.quota import Quota
from services.usage.reports import UsageReports


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """What routes are given of it."""

    idempotency: Idempotency
    quota: Quota
    usage: UsageReports
    inspector: DatabaseInspector
    pace: Pace


async def open_bookkeeping(
    settings: Settings, database: Database, replica_id: ReplicaId, stack: AsyncExitStack
) -> Bookkeeping:
    """All of it, at work until `stack` is closed."""
    idempotency = Idempotency(IdempotencyStore(database, lease_seconds=settings.timeouts.lease), replica_id)
    await stack.enter_async_context(idempotency.running())
    store = UsageStore(database)
    quota = Quota(store, tokens_per_day=settings.limits.tokens_per_user_day)
    inspector = DatabaseInspector(database, SchemaStore(database), newest_migration=len(read_migrations()))
    return Bookkeeping(
        idempotency, quota, UsageReports(store, quota), inspector, Pace(settings.limits.requests_per_minute)
    )
