"""Gives a new owner something to look at, once."""

from collections.abc import Mapping
from typing import Any

from db.ids import UserId
from db.stores.first_run import FirstRunStore
from services.first_run.content import ATTACHED, MODULES, PERSONA
from services.modules import told_by
from services.personas import slugs
from services.prompt.template import parse
from services.scripts.analysis import analyse


class Welcome:
    """Makes the first persona of an owner."""

    def __init__(self, store: FirstRunStore) -> None:
        self._store = store

    async def greet(self, owner_id: UserId) -> bool:
        """Give an owner who has made nothing yet a default persona with its modules; never a second time.

        Everything is stored or nothing. False if there was nothing to do.
        """
        if not await self._store.is_due(owner_id):
            return False
        persona = {
            **PERSONA,
            "slug": slugs(PERSONA["name"])[0],
            "refers_to": list(parse(PERSONA["template"]).references),
        }
        return await self._store.give(owner_id, [complete(fields) for fields in MODULES], persona, attached=ATTACHED)


def complete(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What saving such a module would store. Ours are not checked at each first start: the tests have done it."""
    script = fields.get("script", "")
    told = told_by(fields["type"], analyse(script)) if script else {"requires_ai": False, "analysis": None}
    return {**fields, "refers_to": list(parse(fields["content"]).references), **told}
