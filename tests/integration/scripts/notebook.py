"""A host for scripts: it keeps variables, has a conversation of its own, and a model that answers when told to."""

import asyncio
from collections.abc import Mapping

from services.scripts.types import ScriptFault
from services.scripts.values import Json


class Notebook:
    """What a script can reach in these tests. Any name that is not here fails the test."""

    def __init__(self) -> None:
        self.variables: dict[str, Json] = {}
        self.calls: list[tuple[str, Mapping[str, Json]]] = []
        self.asked = asyncio.Event()
        self.answers: asyncio.Queue[str | Exception] = asyncio.Queue()
        """What the model says next; it keeps everybody waiting until there is something."""

    async def call(self, name: str, arguments: Mapping[str, Json]) -> Json:
        """Perform one call."""
        self.calls.append((name, arguments))
        match name, arguments:
            case "get_variable", {"name": str(variable), "default": default}:
                return self.variables.get(variable, default)
            case "set_variable", {"name": str(variable), "value": value}:
                self.variables[variable] = value
                return None
            case "get_raw_recent_messages", {"limit": int(limit)}:
                return [{"role": "user", "content": f"message {number}"} for number in range(limit)]
            case "run_module", {"name": module}:
                raise ScriptFault(f"there is no module {module}", "ValueError")
            case "generate", _:
                self.asked.set()
                answer = await self.answers.get()
                if isinstance(answer, Exception):
                    raise answer
                return answer
            case _:
                raise AssertionError(f"{name} reached the host")
