"""What an owner is given at the first start."""

from collections.abc import Mapping, Sequence
from typing import Any

from db.ids import ModuleId, PersonaId, UserId, new_id
from db.pool import Database
from db.stores.modules import insert_module
from db.stores.personas import insert_persona


class FirstRunStore:
    """Remembers who was welcomed, for good: what they delete afterwards stays deleted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_due(self, owner_id: UserId) -> bool:
        """Whether the owner has not been welcomed yet."""
        async with self._database.connection() as connection:
            due: bool | None = await connection.fetchval(
                "SELECT welcomed_at IS NULL FROM users WHERE id = $1", owner_id
            )
        return bool(due)

    async def give(
        self,
        owner_id: UserId,
        modules: Sequence[Mapping[str, Any]],
        persona: Mapping[str, Any],
        *,
        attached: Sequence[str],
    ) -> bool:
        """Store the modules and the persona as the owner's default, and that the owner was welcomed.

        An owner who has a persona or a module already is given nothing. False if so, or if somebody was faster.
        """
        async with self._database.transaction() as connection:
            has_nothing = await connection.fetchval(
                """
                UPDATE users SET welcomed_at = now() WHERE id = $1 AND welcomed_at IS NULL
                RETURNING NOT EXISTS (SELECT FROM personas WHERE owner_id = $1)
                      AND NOT EXISTS (SELECT FROM modules WHERE owner_id = $1)
                """,
                owner_id,
            )
            if not has_nothing:
                return False
            ids: dict[str, ModuleId] = {}
            for fields in modules:
                module = await insert_module(connection, ModuleId(new_id()), owner_id, fields)
                ids[module.name] = module.id
            module_ids = [ids[name] for name in attached]
            await insert_persona(
                connection,
                PersonaId(new_id()),
                owner_id,
                {**persona, "module_ids": module_ids, "is_default": True},
            )
        return True
