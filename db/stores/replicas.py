"""Which processes of the service are alive."""

from db.ids import ReplicaId
from db.pool import Database


class ReplicaStore:
    """The running processes that share this database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def beat(self, replica_id: ReplicaId, *, lease_seconds: float) -> int:
        """Say that this replica lives, and count the others that do."""
        async with self._database.connection() as connection:
            return await connection.fetchval(
                """
                WITH mine AS (
                    INSERT INTO replicas (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET seen_at = now()
                ), gone AS (
                    DELETE FROM replicas WHERE seen_at < now() - make_interval(hours => 1) AND id <> $1
                )
                SELECT count(*) FROM replicas WHERE id <> $1 AND seen_at > now() - make_interval(secs => $2)
                """,
                replica_id,
                lease_seconds,
            )

    async def announce(self, replica_id: ReplicaId) -> None:
        """Tell the others at once that this replica is here."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT pg_notify('colloquy_replicas', $1)", str(replica_id))

    async def call(self) -> None:
        """Tell all replicas that there may be work that nobody does."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT pg_notify('colloquy_work', '')")

    async def leave(self, replica_id: ReplicaId) -> None:
        """Say that this replica is going."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM replicas WHERE id = $1", replica_id)
