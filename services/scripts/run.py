"""One script from its first line to its end: it stops at every call of `ctx`, and goes on with the answer."""

import asyncio
import logging
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager, nullcontext

from pydantic_monty import (
    AsyncFunctionSnapshot,
    AsyncMontySession,
    ClassInstance,
    CollectString,
    ExternalResult,
    MontyComplete,
    MontyError,
    ResourceLimits,
)

from services.scripts.calls import Calls
from services.scripts.explaining import Call, Explainer
from services.scripts.functions import PureFunctions
from services.scripts.locating import Repetition
from services.scripts.places import Hurry
from services.scripts.stops import Ctx, go_on
from services.scripts.types import ScriptError, ScriptLimits, ScriptResult
from services.scripts.values import plain_text
from services.scripts.workers import CannotStart, InterpreterMissing, Workers

_log = logging.getLogger(__name__)

SPARE_STOPS = 1_000
"""Stops beside calls of `ctx`: names that are not defined, modules, files. All end in an exception in the script."""


class _Stopped(Exception):
    """The script is not to go on, whatever it would catch."""

    def __init__(self, error: ScriptError) -> None:
        self.error = error


class ScriptRun:
    """A script, once. Its time is what passes while it has a process, but not the time of modules that it runs."""

    def __init__(
        self,
        source: str,
        limits: ScriptLimits,
        functions: PureFunctions,
        calls: Calls,
        *,
        patience: float,
        hurry: Hurry | None = None,
        repetition: Repetition | None = None,
    ) -> None:
        """`patience`: seconds that it may wait for a place; with a `hurry` it need not.

        With a `repetition`, it is run once more to find the place of an error that has none.
        """
        self._source = source
        self._limits = limits
        self._functions = functions
        self._calls = calls
        self._explainer = Explainer(source, limits)
        self._printed = CollectString(limits.printed_bytes)
        self._patience = patience
        self._hurry = hurry
        self._repetition = repetition
        self._waited = 0.0
        self._clock = asyncio.timeout(None)
        self._count = 0
        self._newest: Call | None = None
        self._is_answering = False

    async def perform(self, workers: Workers) -> ScriptResult:
        """The run as a whole, within its time."""
        begun = time.perf_counter()
        error = await self._within_limits(workers)
        if error and error.type == "WorkerLost" and self._is_untouched:
            error = await self._within_limits(workers)
        return ScriptResult(
            outputs=dict(self._functions.outputs),
            printed=plain_text(self._printed.output[: self._limits.printed_bytes]),
            logs=tuple(self._functions.logs),
            calls=self._count,
            error=error,
            duration_ms=(time.perf_counter() - begun - self._waited) * 1e3,
        )

    @property
    def _is_untouched(self) -> bool:
        """Whether the script has done nothing yet: its process may have been dead before, which is not its fault."""
        return self._count == 0 and not self._printed.output

    async def _within_limits(self, workers: Workers) -> ScriptError | None:
        if len(self._source.encode()) > self._limits.source_bytes:
            return ScriptError("ValueError", f"the script is larger than {self._limits.source_bytes:,} bytes")
        self._clock = asyncio.timeout(None)
        try:
            async with AsyncExitStack() as held:
                session = await self._begin(workers, held)
                async with self._clock:
                    self._clock.reschedule(asyncio.get_running_loop().time() + self._limits.timeout_ms / 1e3)
                    await self._execute(session)
        except _Stopped as stopped:
            return stopped.error
        except MontyError as error:
            return await self._explained(error, workers)
        except InterpreterMissing as missing:
            return ScriptError("InterpreterMissing", missing.message)
        except CannotStart as error:
            _log.warning("no process for a script: %s", error)
            return ScriptError("WorkerLost", "no process could be started for the script; run it again")
        except TimeoutError:
            # Any other one is the host's.
            if not self._clock.expired():
                raise
            return self._took_too_long()
        return None

    async def _explained(self, error: MontyError, workers: Workers) -> ScriptError:
        if self._repetition is not None and self._explainer.could_be_located(error):
            place = await self._repetition.place(workers, self._resources())
            if place is not None:
                return self._explainer.error_repeated(error, *place)
        return self._explainer.explained(error, self._newest)

    def _took_too_long(self) -> ScriptError:
        message = f"took longer than {self._limits.timeout_ms / 1e3:g} s"
        if self._newest and self._is_answering:
            return self._explainer.error_at(self._newest, "TimeoutError", message)
        return self._explainer.error_after(self._newest, "TimeoutError", message)

    async def _begin(self, workers: Workers, held: AsyncExitStack) -> AsyncMontySession:
        """A process; waiting for it is not the script's own time."""
        begun = time.perf_counter()
        clock = asyncio.timeout(self._patience)
        try:
            async with clock:
                await held.enter_async_context(workers.place(self._hurry))
                return await held.enter_async_context(workers.session(self._resources()))
        except TimeoutError:
            if not clock.expired():
                raise
            message = f"found no place to run within {self._patience:g} s: too many scripts run at once"
            raise _Stopped(ScriptError("NoPlace", message)) from None
        finally:
            self._waited = time.perf_counter() - begun

    def _resources(self) -> ResourceLimits:
        limits = self._limits
        return {
            "max_feed_duration_secs": limits.cpu_seconds,
            "max_turn_duration_secs": limits.cpu_seconds,
            "max_memory": limits.memory_bytes,
            "max_recursion_depth": limits.recursion,
            "max_suspensions": limits.host_calls + SPARE_STOPS,
        }

    async def _execute(self, session: AsyncMontySession) -> None:
        inputs = {"ctx": ClassInstance(Ctx())}
        stop = await session.feed_start(self._source, inputs=inputs, print_callback=self._printed)
        while not isinstance(stop, MontyComplete):
            stop = await go_on(stop, self._answer)

    async def _answer(self, stop: AsyncFunctionSnapshot) -> ExternalResult:
        self._newest = Call(stop.function_name, stop.position)
        self._count += 1
        if self._count > self._limits.host_calls:
            message = f"called ctx more than {self._limits.host_calls:,} times"
            raise _Stopped(self._explainer.error_at(self._newest, "RuntimeError", message))
        self._is_answering = True
        # Modules have time of their own, and limits for it.
        with self._time_stands_still() if stop.function_name == "run_module" else nullcontext():
            answer = await self._calls.answer(stop.function_name, stop.args, stop.kwargs)
        self._is_answering = False
        if self._repetition is not None:
            self._repetition.keep(stop.function_name, answer)
        return answer

    @contextmanager
    def _time_stands_still(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        due = self._clock.when()
        assert due is not None, "a script that calls has begun"
        left = due - loop.time()
        self._clock.reschedule(None)
        try:
            yield
        finally:
            self._clock.reschedule(loop.time() + left)
