"""Answers what a script calls: the allow-list, the arguments, and who performs what."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_monty import ExternalExceptionData, ExternalResult

from services.errors import ColloquyError
from services.scripts.api import PluginFunction
from services.scripts.functions import PureFunctions
from services.scripts.types import ScriptFault, ScriptHost
from services.scripts.values import Json, bounded_text


class Calls:
    """The functions of `ctx` for one run."""

    def __init__(
        self, declared: Mapping[str, PluginFunction], own: PureFunctions, host: ScriptHost, may_use_ai: bool
    ) -> None:
        self._declared = declared
        self._own = own
        self._host = host
        self._may_use_ai = may_use_ai

    async def answer(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ExternalResult:
        """The call's result, or the exception that it raises in the script."""
        try:
            return {"return_value": await self._perform(name, args, kwargs)}
        except ScriptFault as fault:
            return ExternalExceptionData(exc_type=fault.kind, message=bounded_text(fault.message))
        except ColloquyError as error:
            return ExternalExceptionData(exc_type="RuntimeError", message=bounded_text(error.message))

    async def _perform(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Json:
        function = self._declared.get(name)
        if function is None:
            raise ScriptFault(f"ctx has no function {name[:64]!r}", "AttributeError")
        arguments = function.bind(args, kwargs)
        if function.needs_ai and not self._may_use_ai:
            raise ScriptFault(f"ctx.{name}() asks a model, which this script may not do here")
        performer = self._own if name in self._own else self._host
        return await performer.call(name, arguments)
