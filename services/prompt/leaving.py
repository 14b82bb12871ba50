"""What a turn leaves: the results of its scripts, and the trace that explains its prompt."""

from collections.abc import Collection, Mapping
from typing import Any

from db.records import ModuleRecord
from db.stores.turns import NewResult
from services.context.tokens import TokenCounter
from services.prompt.building import Built, Insertion
from services.prompt.expansion import PromptTooLarge
from services.prompt.planning import Plan
from services.prompt.said import Said
from services.prompt.turn import Turn


def results_of(turn: Turn, besides: Collection[str] = ()) -> list[NewResult]:
    """What each module gave that ran in the turn, but for those that were stored already."""
    ran = [(name, said) for name, said in turn.finished().items() if said.ran and name not in besides]
    return [_result(turn, turn.facts.modules[name], said) for name, said in ran]


async def trace_of(turn: Turn, planned: Plan, built: Built, tokens: TokenCounter) -> dict[str, Any]:
    """Why each module spoke or not, and what it takes of the prompt."""
    said = turn.finished()
    inserted = {insertion.module: insertion for insertion in built.insertions}
    asked = dict.fromkeys((*planned.waits_for, *said))  # those that only a script ran come last
    known = turn.facts.modules
    modules = [await _inserted(known[name], said[name], inserted.get(name), tokens) for name in asked]
    unknown = [{"module": name, "state": "unknown", "why": "there is no such module"} for name in planned.unknown]
    warnings = [warned.message for warned in dict.fromkeys((*planned.warnings, *built.warnings))]
    return {"modules": [*modules, *unknown], "warnings": warnings}


async def _inserted(
    module: ModuleRecord, said: Said, insertion: Insertion | None, tokens: TokenCounter
) -> dict[str, Any]:
    """The entry of one module with the place at which its text stands in the prompt; None if it does not."""
    entry = await entry_of(module, said, insertion.text if insertion else "", tokens)
    return entry | {"at": insertion.at if insertion else None}


async def entry_of(module: ModuleRecord, said: Said, text: str, tokens: TokenCounter) -> dict[str, Any]:
    """What the trace has of one module, whose text is `text`."""
    return {
        "module": module.name,
        "version": module.version,
        "state": said.state,
        "why": said.why,
        "characters": len(text),
        "tokens": await tokens.count(text) if text else 0,
        "ms": said.ms,
        "error": said.error,
    }


def text_of(turn: Turn, name: str) -> str | None:
    """The text of a module by itself; None if it is too large to be anybody's."""
    try:
        return turn.text_now(name)
    except PromptTooLarge:
        return None


def _result(turn: Turn, module: ModuleRecord, said: Said) -> NewResult:
    text = None if said.error is not None else text_of(turn, module.name)
    if text is None:
        return NewResult(module.id, "failed")
    outputs: Mapping[str, Any] = said.outputs
    return NewResult(module.id, "spoke", text, dict(outputs), dict(said.variables))
