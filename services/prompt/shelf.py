"""Modules and templates as they were read last, so that a turn reads again only what has changed since."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping
from typing import Generic, TypeVar

from db.ids import ModuleId, UserId
from db.records import ModuleRecord
from db.stores.modules import ModuleStore
from services.prompt.template import Template, parse
from services.prompt.triggers import InvalidTrigger, Trigger, TriggerSet

_CHARACTERS = 16 * 1024 * 1024
"""How much text the modules have that are kept, and the same for the templates."""
_PATTERNS = 20_000
_LARGE = 32 * 1024
"""Characters of a template, and of triggers, that are read without holding others up."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Newest(Generic[K, V]):
    """What was used last, as much as weighs no more than `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0
        self._all: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """What is kept by that key, if it still is."""
        found = self._all.get(key)
        if found is None:
            return None
        self._all.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, weight: int) -> V:
        """Keep a value, and forget what was not used for longest."""
        self._weight += weight - self._all.pop(key, (None, 0))[1]
        self._all[key] = (value, weight)
        while self._weight > self._most:
            self._weight -= self._all.popitem(last=False)[1][1]
        return value


class Shelf:
    """What turns read again and again. A new version of a module is another module, so nothing is ever out of date."""

    def __init__(self, modules: ModuleStore) -> None:
        self._modules = modules
        self._records: Newest[ModuleId, ModuleRecord] = Newest(_CHARACTERS)
        self._templates: Newest[str, Template] = Newest(_CHARACTERS)
        self._triggers: Newest[frozenset[tuple[str, str | None]], TriggerSet] = Newest(_PATTERNS)

    async def modules(self, owner_id: UserId, versions: Mapping[ModuleId, int]) -> dict[str, ModuleRecord]:
        """The owner's modules with those ids, by name; one that is gone by now is left out.

        None is older than its version here.
        """
        known = {id: found for id, version in versions.items() if (found := self._of(id, owner_id, version))}
        if missing := versions.keys() - known.keys():
            for module in await self._modules.get_by_names(owner_id, (), ids=missing):
                known[module.id] = self._records.put(module.id, module, len(module.content) + len(module.script) + 500)
        return {known[id].name: known[id] for id in versions if id in known}

    async def read(self, texts: Collection[str]) -> None:
        """Read these templates, large ones without holding others up; `template` then has them at hand."""
        for text in texts:
            if len(text) > _LARGE and self._templates.get(text) is None:
                self._templates.put(text, await asyncio.to_thread(parse, text), _weight(text))

    def template(self, text: str) -> Template:
        """The text as a template."""
        return self._templates.get(text) or self._templates.put(text, parse(text), _weight(text))

    async def triggers(self, patterns: Mapping[str, str | None]) -> TriggerSet:
        """The triggers of modules by name. A pattern that cannot be used never matches; saving refuses those."""
        key = frozenset(patterns.items())
        found = self._triggers.get(key)
        if found is not None:
            return found
        size = sum(len(pattern or "") for pattern in patterns.values())
        made = await asyncio.to_thread(_compiled, patterns) if size > _LARGE // 8 else _compiled(patterns)
        return self._triggers.put(key, made, len(patterns) + 1)

    def _of(self, module_id: ModuleId, owner_id: UserId, version: int) -> ModuleRecord | None:
        found = self._records.get(module_id)
        return found if found and found.version == version and found.owner_id == owner_id else None


def _weight(text: str) -> int:
    return len(text) + 500


def _compiled(patterns: Mapping[str, str | None]) -> TriggerSet:
    return TriggerSet({name: trigger for name, pattern in patterns.items() if (trigger := _trigger(pattern))})


def _trigger(pattern: str | None) -> Trigger | None:
    try:
        return Trigger.compile(pattern)
    except InvalidTrigger:
        return None
