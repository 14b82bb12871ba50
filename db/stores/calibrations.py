"""What is known of how models' servers count tokens."""

from db.ids import UserId
from db.pool import Database


class CalibrationStore:
    """One factor for each connection and model of an owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, owner_id: UserId, connection: str, model: str) -> float | None:
        """The factor that was stored last."""
        async with self._database.connection() as database:
            return await database.fetchval(
                "SELECT factor FROM context_calibrations WHERE owner_id = $1 AND connection = $2 AND model = $3",
                owner_id,
                connection,
                model,
            )

    async def put(self, owner_id: UserId, connection: str, model: str, factor: float) -> None:
        """Store a factor in place of the one before."""
        async with self._database.connection() as database:
            await database.execute(
                """
                INSERT INTO context_calibrations (owner_id, connection, model, factor) VALUES ($1, $2, $3, $4)
                ON CONFLICT (owner_id, connection, model) DO UPDATE SET factor = excluded.factor, updated_at = now()
                """,
                owner_id,
                connection,
                model,
                factor,
            )
