"""Performs what scripts ask of their turn: every function of `ctx` that needs more than its arguments."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from db.stores.memories import MemoryStore
from db.stores.messages import MessageStore
from db.stores.sessions import SessionStore
from services.connections.directory import ConnectionDirectory
from services.prompt.conversation import Branches, ConversationFunctions
from services.prompt.memory import MemoryFunctions
from services.prompt.questions import AiFunctions
from services.prompt.view import TurnView
from services.scripts.types import ScriptFault
from services.scripts.values import Json

MOST_VARIABLES = 100
VARIABLE_BYTES = 64 * 1024
VARIABLE_NAME_CHARACTERS = 100

_Function = Callable[..., Awaitable[Any]]


class TurnHost:
    """One script's `ScriptHost`: it reads and changes nothing but what belongs to the owner of the run."""

    def __init__(
        self,
        view: TurnView,
        *,
        messages: MessageStore,
        memories: MemoryStore,
        sessions: SessionStore,
        connections: ConnectionDirectory,
    ) -> None:
        branches = Branches(view, messages, sessions)
        functions: tuple[_Function, ...] = (
            *StateFunctions(view).functions,
            *ConversationFunctions(view, branches, messages).functions,
            *MemoryFunctions(view, branches, messages, memories).functions,
            *AiFunctions(view, connections).functions,
        )
        self.functions: Mapping[str, _Function] = {function.__name__: function for function in functions}
        """What is performed here, by name; parameters are named as scripts name them."""

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """Perform `ctx.<name>` with checked arguments. Raises `ScriptFault` and `ColloquyError`."""
        return await self.functions[name](**arguments)


class StateFunctions:
    """What a module keeps, and what other modules have to say."""

    def __init__(self, view: TurnView) -> None:
        self._view = view
        self.functions = (
            self.get_variable,
            self.set_variable,
            self.get_all_variables,
            self.get_module_output,
            self.run_module,
        )

    async def get_variable(self, name: str, default: Json) -> Json:
        """A variable of this module, also one that this run has set."""
        return self._view.variables.get(name, default)

    async def set_variable(self, name: str, value: Json) -> None:
        """Set a variable; names and size of all of them are limited."""
        if not 0 < len(name) <= VARIABLE_NAME_CHARACTERS:
            raise ScriptFault(f"the name of a variable has 1 to {VARIABLE_NAME_CHARACTERS} characters", "ValueError")
        changed = {**self._view.variables, name: value}
        if len(changed) > MOST_VARIABLES:
            raise ScriptFault(f"a module keeps at most {MOST_VARIABLES} variables", "ValueError")
        if len(orjson.dumps(changed)) > VARIABLE_BYTES:
            raise ScriptFault(f"the variables are larger than {VARIABLE_BYTES:,} bytes", "ValueError")
        self._view.variables[name] = value

    async def get_all_variables(self) -> dict[str, Json]:
        """All variables of this module."""
        return dict(self._view.variables)

    async def get_module_output(self, module: str, name: str) -> Json:
        """The newest finished output of another module, or None."""
        return self._view.module_output(module, name)

    async def run_module(self, name: str) -> str:
        """The text of another module."""
        return await self._view.run_module(name)
