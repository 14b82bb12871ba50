"""What is known of a turn before a module speaks."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from db.ids import ModuleId
from db.records import ModuleRecord, RunRecord
from db.stores.turns import StoredResult, TurnStore
from services.casting import Casting
from services.prompt.expansion import DEEPEST
from services.prompt.shelf import Shelf
from services.prompt.template import parse

_LOOKED_AT = 400
"""Messages that are looked at for the newest ones of the user."""
_LARGE = 32 * 1024
"""Characters that are searched for triggers without holding others up."""


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What is known when a turn begins. `user_texts` come newest first; `reply` is there once the model answered."""

    record: RunRecord
    casting: Casting
    modules: Mapping[str, ModuleRecord]
    results: Mapping[ModuleId, StoredResult]
    variables: Mapping[ModuleId, Mapping[str, Any]]
    user_texts: Sequence[str]
    matched: Mapping[str, int]
    """Modules whose trigger matches, each with the position in `user_texts` at which it does first."""
    turns: int = 1
    reply: str | None = None
    matched_by_reply: Collection[str] = ()
    held_back: Mapping[str, str] = field(default_factory=dict[str, str])
    """Modules that are not to speak although they would, each with the reason."""

    @property
    def user_message(self) -> str:
        """What the user says in this turn."""
        return "\n\n".join(reversed(self.user_texts[: self.turns]))

    @property
    def attached(self) -> list[str]:
        """The persona's further modules in their order, then those that the user named and that wait to be named."""
        by_id = {module.id: name for name, module in self.modules.items()}
        ids = self.casting.persona.module_ids if self.casting.persona else []
        attached = [by_id[id] for id in ids if id in by_id]
        named = mentions(reversed(self.user_texts[: self.turns]))
        waiting = {name for name, module in self.modules.items() if module.execution_context == "ON_DEMAND"}
        return [*(name for name in attached if name not in waiting), *(name for name in named if name in waiting)]

    @property
    def built_ins(self) -> dict[str, str]:
        """The variables that every template may use."""
        # The time is that of the message, so that a stored run gives the same prompt again.
        at = self.record.created_at
        persona = self.casting.persona
        return {
            "user.name": self.casting.user_name,
            "persona.name": persona.name if persona else "",
            "session.title": self.casting.session_title or "",
            "now": at.strftime("%Y-%m-%d %H:%M"),
            "date": at.strftime("%Y-%m-%d"),
            "model": self.casting.model,
        }


class TurnReader:
    """Finds out what a turn has to know: one statement, and another one for modules that have changed."""

    def __init__(self, turns: TurnStore, shelf: Shelf) -> None:
        self._turns = turns
        self._shelf = shelf

    async def facts(
        self,
        record: RunRecord,
        casting: Casting,
        template: str,
        *,
        reply: str | None = None,
        said_before: Sequence[str] = (),
        unsaved: Sequence[ModuleRecord] = (),
    ) -> TurnFacts:
        """Everything about a turn with that template that is read before a module speaks.

        `said_before` go before the stored messages, and `unsaved` modules before stored ones of their names.
        """
        turns: int = record.request["turns"]
        own = {module.name: module for module in unsaved}
        await self._shelf.read([template])
        named = [*self._shelf.template(template).references, *mentions(said_before)]
        names = {*named, *record.request.get("mentions", ()), *(name for one in unsaved for name in used_by(one))}
        attached = casting.persona.module_ids if casting.persona else []
        if not (names or attached or own):
            return TurnFacts(record, casting, {}, {}, {}, [], {}, turns, reply)
        row = await self._turns.read(
            record.session_id,
            record.owner_id,
            record.user_message_id,
            names=names - own.keys(),
            ids=attached,
            levels=DEEPEST,
            turns=turns,
            steps=_LOOKED_AT,
        )
        modules = await self._shelf.modules(record.owner_id, row.versions) | own
        await self._shelf.read([module.content for module in modules.values()])
        texts = [*said_before, *row.user_texts]
        by_user, by_reply = await self._matching(modules.values(), texts, [] if reply is None else [reply])
        return TurnFacts(
            record, casting, modules, row.results, row.variables, texts, by_user, turns, reply, by_reply.keys()
        )

    async def _matching(
        self, modules: Iterable[ModuleRecord], said: Sequence[str], replied: Sequence[str]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """The modules that what was said calls for, and those that the reply does."""
        triggers = await self._shelf.triggers({module.name: module.trigger_pattern for module in modules})
        if sum(map(len, (*said, *replied))) > _LARGE:
            found = await asyncio.to_thread(lambda: (triggers.matching(said), triggers.matching(replied)))
        else:
            found = triggers.matching(said), triggers.matching(replied)
        return found if replied else (found[0], {})


def used_by(module: ModuleRecord) -> list[str]:
    """The modules that its content names and those that its script runs or reads."""
    return [*module.refers_to, *(module.analysis or {}).get("references", ())]


def mentions(texts: Iterable[str]) -> list[str]:
    """The names that a user's words mention as templates do, in their order."""
    return [name for text in texts if "@" in text for name in parse(text).references]
