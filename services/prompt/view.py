"""What a script may learn of the turn in which it runs, and do in it."""

from typing import Protocol

from db.records import ModuleRecord, RunRecord
from services.agent.types import Usage
from services.casting import Casting
from services.scripts.values import Json


class TurnView(Protocol):
    """One module's sight of its turn."""

    @property
    def record(self) -> RunRecord:
        """The run."""
        ...

    @property
    def casting(self) -> Casting:
        """Who answers."""
        ...

    @property
    def module(self) -> ModuleRecord:
        """The module whose script runs."""
        ...

    @property
    def user_message(self) -> str:
        """What the user says in this turn; several turns are joined by a blank line."""
        ...

    @property
    def reply(self) -> str | None:
        """The reply of this turn; None before it is there."""
        ...

    @property
    def prompt(self) -> str:
        """The system prompt as far as it is composed."""
        ...

    @property
    def variables(self) -> dict[str, Json]:
        """The module's variables in this session: changes are kept if the script ends well."""
        ...

    def module_output(self, module: str, output: str) -> Json:
        """The newest finished output of another module; None if there is none."""
        ...

    async def run_module(self, name: str) -> str:
        """The text of another module, which runs once in a turn. Raises `ScriptFault`."""
        ...

    def begin_generation(self) -> None:
        """Count one question to a model. Raises `ScriptFault` if the module has asked too often or is too deep."""
        ...

    def spend(self, usage: Usage) -> None:
        """Add what a question cost to the run's usage."""
        ...
