"""Runs scripts: each in a process of its own, which stops at every call of `ctx` and waits for the answer."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic_monty import (
    AsyncFunctionSnapshot,
    AsyncFutureSnapshot,
    AsyncNameLookupSnapshot,
    AsyncSnapshot,
    ClassInstance,
    CollectString,
    ExternalExceptionData,
    ExternalResult,
    MontyComplete,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
    ResourceLimits,
    SourceRange,
)

from services.errors import ColloquyError
from services.hardening import Hardening
from services.providers.text import clean_text
from services.scripts.api import PluginFunction, plugin_functions
from services.scripts.functions import Clock, CountTokens, PureFunctions
from services.scripts.types import ScriptError, ScriptFault, ScriptHost, ScriptLimits, ScriptResult
from services.scripts.values import Json, plain_text
from services.scripts.workers import Workers, own_words

SPARE_STOPS = 1_000
"""Stops beside calls of `ctx`: names that are not defined, modules, files. All end in an exception in the script."""

MESSAGE_CHARACTERS = 2_000

_OVER_BYTES = re.compile(r"> (\d+) bytes")


class Sandbox:
    """Runs scripts that may be hostile. `async with` ends their processes.

    Any number of runs may be under way; beyond `max_workers` they wait for each other. A script that waits for a model
    keeps its process.
    """

    def __init__(self, *, count_tokens: CountTokens, clock: Clock | None = None, max_workers: int = 64) -> None:
        self._workers = Workers(max_processes=max_workers)
        self._count_tokens = count_tokens
        self._clock: Clock = clock or (lambda: datetime.now(UTC))
        self._functions = {function.name: function for function in plugin_functions()}

    async def __aenter__(self) -> "Sandbox":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._workers.__aexit__()

    @property
    def hardening_level(self) -> Hardening | None:
        """How far the scripts' processes are shut in by the operating system; None before `harden` and the start."""
        return self._workers.hardening

    async def harden(self) -> Hardening:
        """Find out how far the scripts' processes can be shut in here, without starting any for scripts.

        Raises:
            InterpreterMissing: the program that runs scripts is not installed.
        """
        return await self._workers.harden()

    async def start(self) -> Hardening:
        """Return once a script can run without waiting for its process; the first run does it otherwise.

        Raises:
            InterpreterMissing: the program that runs scripts is not installed.
        """
        return await self._workers.start()

    async def run(
        self,
        script: str,
        host: ScriptHost,
        limits: ScriptLimits | None = None,
        *,
        may_use_ai: bool,
        timezone: str = "UTC",
    ) -> ScriptResult:
        """Run a script to its end; whatever it does wrong is in the result's `error`.

        Cancelling kills the script at once. An exception of the host that is neither a ScriptFault nor a ColloquyError
        ends the script and is raised here.

        Raises:
            InterpreterMissing: the program that runs scripts is not installed.
        """
        limits = limits or ScriptLimits()
        functions = PureFunctions(limits, self._clock, timezone, self._count_tokens)
        run = _Run(clean_text(script), limits, functions, _Calls(self._functions, functions, host, may_use_ai))
        return await run.perform(self._workers)


class Ctx:
    """What a script's `ctx` is on this side: nothing. Every use of it arrives by name."""

    __slots__ = ()


class _Calls:
    """Answers calls of `ctx`: the allow-list, the arguments, and who performs what."""

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
            return ExternalExceptionData(exc_type=fault.kind, message=_bounded(fault.message))
        except ColloquyError as error:
            return ExternalExceptionData(exc_type="RuntimeError", message=_bounded(error.message))

    async def _perform(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Json:
        function = self._declared.get(name)
        if function is None:
            raise ScriptFault(f"ctx has no function {name[:64]!r}", "AttributeError")
        arguments = function.bind(args, kwargs)
        if function.needs_ai and not self._may_use_ai:
            raise ScriptFault(f"ctx.{name}() asks a model, which this script may not do here")
        performer = self._own if name in self._own else self._host
        return await performer.call(name, arguments)


class _Stopped(Exception):
    """The script is not to go on, whatever it would catch."""

    def __init__(self, error: ScriptError) -> None:
        self.error = error


class _Run:
    """One script from its first line to its end."""

    def __init__(self, source: str, limits: ScriptLimits, functions: PureFunctions, calls: _Calls) -> None:
        self._source = source
        self._limits = limits
        self._functions = functions
        self._calls = calls
        self._printed = CollectString(limits.printed_bytes)
        self._count = 0
        self._waiting: SourceRange | None = None
        """The call that the script is waiting for."""

    async def perform(self, workers: Workers) -> ScriptResult:
        """The run as a whole, within its time."""
        begun = time.perf_counter()
        error = await self._within_its_time(workers)
        return ScriptResult(
            outputs=dict(self._functions.outputs),
            printed=plain_text(self._printed.output[: self._limits.printed_bytes]),
            logs=tuple(self._functions.logs),
            calls=self._count,
            error=error,
            duration_ms=(time.perf_counter() - begun) * 1e3,
        )

    async def _within_its_time(self, workers: Workers) -> ScriptError | None:
        size = len(self._source.encode())
        if size > self._limits.source_bytes:
            return ScriptError("ValueError", f"the script is larger than {self._limits.source_bytes:,} bytes")
        clock = asyncio.timeout(self._limits.timeout_ms / 1e3)
        try:
            async with clock:
                return await self._execute(workers)
        except TimeoutError:
            # Any other one is the host's.
            if not clock.expired():
                raise
            return self._error("TimeoutError", f"took longer than {self._limits.timeout_ms / 1e3:g} s", self._waiting)

    async def _execute(self, workers: Workers) -> ScriptError | None:
        try:
            async with await workers.session(self._resources()) as session:
                inputs = {"ctx": ClassInstance(Ctx())}
                stop = await session.feed_start(self._source, inputs=inputs, print_callback=self._printed)
                while not isinstance(stop, MontyComplete):
                    stop = await self._next(stop)
        except _Stopped as stopped:
            return stopped.error
        except MontyError as error:
            return self._explained(error)
        return None

    def _resources(self) -> ResourceLimits:
        limits = self._limits
        return {
            "max_feed_duration_secs": limits.cpu_seconds,
            "max_turn_duration_secs": limits.cpu_seconds,
            "max_memory": limits.memory_bytes,
            "max_recursion_depth": limits.recursion,
            "max_suspensions": limits.host_calls + SPARE_STOPS,
        }

    async def _next(self, stop: AsyncSnapshot) -> AsyncSnapshot:
        """Answer what the script stopped for, and let it go on to its next stop."""
        match stop:
            case AsyncFunctionSnapshot(is_os_function=True):
                return await stop.resume_not_handled()
            case AsyncFunctionSnapshot(object_id=None):
                message = f"name {str(stop.function_name)[:64]!r} is not defined"
                return await stop.resume({"exc_type": "NameError", "message": message})
            case AsyncFunctionSnapshot():
                answer = await self._answer(stop)
                return await stop.resume(answer)
            case AsyncNameLookupSnapshot():
                return await stop.resume()
            case AsyncFutureSnapshot() | MontyComplete():
                raise AssertionError("no call is answered by a promise, so a script never waits for one")

    async def _answer(self, stop: AsyncFunctionSnapshot) -> ExternalResult:
        self._count += 1
        if self._count > self._limits.host_calls:
            message = f"called ctx more than {self._limits.host_calls:,} times"
            raise _Stopped(self._error("RuntimeError", message, stop.position))
        self._waiting = stop.position
        answer = await self._calls.answer(stop.function_name, stop.args, stop.kwargs)
        self._waiting = None
        return answer

    def _error(self, kind: str, message: str, place: SourceRange | None) -> ScriptError:
        # Inside eval() the place counts from the start of another text.
        if place is None or place.filename == "<string>":
            return ScriptError(kind, message)
        before = self._source.encode()[: place.start].decode()
        return ScriptError(kind, message, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)

    def _explained(self, error: MontyError) -> ScriptError:
        match error:
            case MontyRuntimeError() | MontySyntaxError():
                kind = type(error.exception()).__name__
                frames = [frame for frame in error.traceback() if frame.filename != "<string>"]
                place = (frames[-1].line, frames[-1].column) if frames else (None, None)
                return ScriptError(kind, _bounded(self._in_our_words(kind, error.display("msg"))), *place)
            case MontyCrashedError(timed_out=True):
                return ScriptError("TimeoutError", self._in_our_words("TimeoutError", "time limit exceeded"))
            case _:
                return ScriptError("WorkerLost", "the process that ran the script ended unexpectedly; run it again")

    def _in_our_words(self, kind: str, message: str) -> str:
        """The interpreter's message, or for limits and its own peculiarities one that says what to do."""
        limits = self._limits
        match kind:
            case "TimeoutError" if "time limit exceeded" in message:
                return f"computed for more than {limits.cpu_seconds:g} s"
            case "MemoryError" if (over := _OVER_BYTES.search(message)) and int(over[1]) == limits.printed_bytes:
                return f"printed more than {limits.printed_bytes:,} bytes"
            case "MemoryError" if "memory limit" in message:
                return f"used more than {limits.memory_bytes / 2**20:g} MiB of memory"
            case "RuntimeError" if message.startswith("suspension limit"):
                return "asked too often for what does not exist"
            case "NotImplementedError" if "cannot suspend" in message:
                return "ctx cannot be called by sorted, map and the like: call it in a loop or a comprehension"
            case _:
                return own_words(message)


def _bounded(message: str) -> str:
    return plain_text(message[:MESSAGE_CHARACTERS])
