"""Users: who owns what."""

from db.ids import UserId
from db.pool import Database


class UserStore:
    """The owners of everything else."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, user_id: UserId, display_name: str) -> None:
        """Make sure that this user exists."""
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO users (id, display_name) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
                user_id,
                display_name,
            )
