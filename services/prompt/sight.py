"""What one module's script sees of its turn, and does in it."""

from typing import TYPE_CHECKING

import orjson

from db.records import ModuleRecord
from services.agent.types import Usage
from services.scripts.types import ScriptFault
from services.scripts.values import Json

if TYPE_CHECKING:
    from services.prompt.turn import Turn

GENERATIONS = 10
"""How often a module may ask a model in one turn."""
DEEPEST_QUESTION = 3
"""How deep in a chain of modules that call each other models are asked."""


class ModuleSight:
    """The `TurnView` of a module in a `Turn`."""

    def __init__(self, turn: "Turn", module: ModuleRecord) -> None:
        self._turn = turn
        self._generations = 0
        self._known = dict(turn.facts.variables.get(module.id, {}))
        self.record = turn.facts.record
        self.casting = turn.facts.casting
        self.module = module
        self.user_message = turn.facts.user_message
        self.reply = turn.facts.reply
        self.variables: dict[str, Json] = dict(self._known)

    @property
    def prompt(self) -> str:
        """The system prompt as far as it is composed."""
        return self._turn.prompt

    def module_output(self, module: str, output: str) -> Json:
        """The newest finished output of another module; None if there is none."""
        return self._turn.output_of(module, output)

    async def run_module(self, name: str) -> str:
        """The text of another module, which runs once in a turn. Raises `ScriptFault`."""
        return await self._turn.text_of(name, asked_by=self.module.name)

    def begin_generation(self) -> None:
        """Count one question to a model. Raises `ScriptFault`."""
        self._generations += 1
        if self._generations > GENERATIONS:
            raise ScriptFault(f"a module asks a model at most {GENERATIONS} times in a turn")
        if self._turn.depth(self.module.name) > DEEPEST_QUESTION:
            raise ScriptFault(f"models are asked at most {DEEPEST_QUESTION} modules deep")

    def spend(self, usage: Usage) -> None:
        """Add what a question cost to the run's usage."""
        self._turn.spend(usage)

    def changed_variables(self) -> dict[str, Json]:
        """The variables that the script has set to something else."""
        # To Python 1, 1.0 and true are the same; to who reads them as JSON they are not.
        before = {name: orjson.dumps(value) for name, value in self._known.items()}
        return {name: value for name, value in self.variables.items() if before.get(name) != orjson.dumps(value)}
