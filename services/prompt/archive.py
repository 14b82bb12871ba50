"""The prompts of runs: as they were, and rendered again from what is left of their parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from db.ids import PersonaId, RunId, SessionId, UserId
from db.records import ModuleRecord, PersonaRecord, RunRecord, RunTraceRecord
from db.stores.modules import ModuleStore
from db.stores.personas import PersonaStore
from db.stores.run_traces import RunTraceStore
from db.stores.runs import RunStore
from db.stores.sessions import SessionStore
from services.errors import NotFound, no_session
from services.prompt.building import Contribution, build
from services.prompt.planning import Lookup, Plan, plan
from services.prompt.prefix import Prefix, compared
from services.prompt.template import OutputRef, Template, Variable, parse
from services.prompt.turn import SILENT, Turn

RECIPE = "recipe"
"""The key in a stored trace under which everything stands that its prompt is rendered from, but the templates."""


@dataclass(frozen=True, slots=True)
class Change:
    """A part that has another version now than in the run; None: it does not exist."""

    kind: Literal["persona", "module"]
    name: str
    was: int | None
    now: int | None


@dataclass(frozen=True, slots=True)
class Rendering:
    """A run's prompt made of the templates of today; None if the persona is gone."""

    prompt: str | None
    is_same: bool
    changed: tuple[Change, ...]


class PromptArchive:
    """Reads runs with their prompts."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        runs: RunStore,
        traces: RunTraceStore,
        modules: ModuleStore,
        personas: PersonaStore,
    ) -> None:
        self._sessions = sessions
        self._runs = runs
        self._traces = traces
        self._modules = modules
        self._personas = personas

    async def run(
        self, owner_id: UserId, session_id: SessionId, run_id: RunId
    ) -> tuple[RunRecord, RunTraceRecord | None, Prefix | None]:
        """A run, its prompt if it has got that far with a persona, and how that begins like the one before it.

        Raises `NotFound`.
        """
        run = await self._runs.get(run_id, session_id, owner_id)
        if run is None:
            raise NotFound("There is no run with that id in this session.")
        stored = await self._traces.get(run_id, owner_id)
        before = stored and await self._traces.before(run_id, session_id, owner_id)
        prefix = compared(before.prompt, stored.prompt, stored.trace["modules"]) if stored and before else None
        return run, stored, prefix

    async def runs(
        self, owner_id: UserId, session_id: SessionId, *, before: RunId | None, limit: int
    ) -> tuple[list[RunRecord], RunId | None]:
        """Up to `limit` runs made before `before`, newest first, and where the next page begins if there is one.

        Raises `NotFound`.
        """
        if await self._sessions.get(session_id, owner_id) is None:
            raise no_session()
        found = await self._runs.page(session_id, owner_id, before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def render(self, owner_id: UserId, session_id: SessionId, run_id: RunId) -> Rendering:
        """The run's prompt once more, with what its scripts said then: no script runs.

        Without changes of persona and modules it is the same, byte for byte.
        Raises `NotFound` if the run has no prompt, and `PromptTooLarge`.
        """
        _, stored, _ = await self.run(owner_id, session_id, run_id)
        if stored is None or RECIPE not in stored.trace:
            raise NotFound("There is no prompt of that run that could be rendered again.")
        recipe: Mapping[str, Any] = stored.trace[RECIPE]
        versions = {entry["module"]: entry.get("version") for entry in stored.trace["modules"]}
        modules = {module.name: module for module in await self._modules.get_by_names(owner_id, versions)}
        contents, changed = _contents(recipe, versions, modules), _of_modules(versions, modules)
        if recipe["persona"] is None:  # only what the user named
            text = _rendered("", recipe, contents)
            return Rendering(text, text == stored.prompt, tuple(changed))
        persona = await self._personas.get(PersonaId(UUID(recipe["persona"]["id"])), owner_id)
        text = None if persona is None else _rendered(persona.template, recipe, contents)
        return Rendering(text, text == stored.prompt, (*_of_persona(recipe, persona), *changed))


def recipe_of(turn: Turn, planned: Plan) -> dict[str, Any]:
    """What the prompt of a turn can be rendered from again, with what was said as far as a template reads it."""
    persona = turn.facts.casting.persona
    read = set(_outputs_read(planned))
    said = {name: said.contribution for name, said in turn.finished().items() if name in planned.waits_for}
    return {
        "persona": persona and {"id": str(persona.id), "name": persona.name, "version": persona.version},
        "attached": list(planned.attached),
        "variables": dict(turn.template_variables),
        "said": {
            name: {
                "text": words.text,
                "outputs": {output: text for output, text in words.outputs.items() if (name, output) in read},
            }
            for name, words in said.items()
            if words != Contribution()
        },
    }


def _outputs_read(planned: Plan) -> list[tuple[str, str]]:
    """Modules and their outputs, in the order in which templates name them."""
    by_others = [
        (node.module, node.output)
        for template in (planned.template, *planned.modules.values())
        for node in template.nodes
        if isinstance(node, OutputRef)
    ]
    by_itself = [
        (name, node.name)
        for name, template in planned.modules.items()
        for node in template.nodes
        if isinstance(node, Variable)
    ]
    return by_others + by_itself


def _contents(
    recipe: Mapping[str, Any], versions: Mapping[str, int | None], modules: Mapping[str, ModuleRecord]
) -> Lookup:
    """What the run knew, as it is today."""

    def content(name: str) -> Template | None:
        if versions.get(name) is None or name not in modules:
            return None
        words = recipe["said"].get(name)
        return SILENT if words and words["text"] is not None else parse(modules[name].content)

    return content


def _rendered(template: str, recipe: Mapping[str, Any], contents: Lookup) -> str:
    contributions = {name: Contribution(words["text"], words["outputs"]) for name, words in recipe["said"].items()}
    planned = plan(parse(template), recipe["attached"], contents)
    return build(planned, contributions, recipe["variables"]).text


def _of_persona(recipe: Mapping[str, Any], persona: PersonaRecord | None) -> list[Change]:
    then = recipe["persona"]
    now = persona and persona.version
    return [] if now == then["version"] else [Change("persona", then["name"], then["version"], now)]


def _of_modules(versions: Mapping[str, int | None], modules: Mapping[str, ModuleRecord]) -> list[Change]:
    now = {name: modules[name].version if name in modules else None for name in versions}
    return [Change("module", name, was, now[name]) for name, was in versions.items() if was != now[name]]
