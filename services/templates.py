"""Templates before they are saved: what they name, and what would become of it."""

import asyncio
from collections.abc import Collection

from db.ids import ModuleId, UserId
from db.records import ModuleRecord
from db.stores.modules import ModuleStore
from services.prompt.expansion import DEEPEST
from services.prompt.planning import Validation, validate
from services.prompt.template import Template, parse


class TemplateService:
    """Judges templates by the modules of their owner."""

    def __init__(self, modules: ModuleStore) -> None:
        self._modules = modules

    async def validate(self, owner_id: UserId, text: str, *, inside: str | None = None) -> Validation:
        """What would become of a persona's template, or of the content of the module called `inside`."""
        template = await asyncio.to_thread(parse, text)
        known = await self._reachable(owner_id, template.references)
        return await asyncio.to_thread(_judge, template, known, inside)

    async def available(
        self, owner_id: UserId, *, q: str | None, before: ModuleId | None, limit: int
    ) -> tuple[list[ModuleRecord], ModuleId | None]:
        """Active modules that a template can name, newest first, and where the next page begins if there is one."""
        found = await self._modules.list(
            owner_id, type=None, execution_context=None, active=True, q=q, before=before, limit=limit + 1
        )
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def _reachable(self, owner_id: UserId, names: Collection[str]) -> dict[str, ModuleRecord]:
        """The modules of those names, and all that they refer to, as deep as references are followed."""
        known: dict[str, ModuleRecord] = {}
        asked: set[str] = set()
        wanted = set(names)
        for _ in range(DEEPEST + 2):
            if not wanted:
                break
            found = await self._modules.get_by_names(owner_id, wanted)
            known |= {module.name: module for module in found}
            asked |= wanted
            wanted = {name for module in found for name in module.refers_to} - asked
        return known


def _judge(template: Template, known: dict[str, ModuleRecord], inside: str | None) -> Validation:
    contents = {name: parse(module.content) for name, module in known.items()}
    return validate(template, contents.get, inside=inside)
