"""Runs scripts: each in a process of its own, which stops at every call of `ctx` and waits for the answer."""

from copy import copy
from datetime import UTC, datetime

from services.hardening import Hardening
from services.providers.text import clean_text
from services.scripts.api import plugin_functions
from services.scripts.calls import Calls
from services.scripts.functions import Clock, CountTokens, PureFunctions
from services.scripts.locating import Repetition
from services.scripts.places import Hurry
from services.scripts.run import ScriptRun
from services.scripts.types import ScriptHost, ScriptLimits, ScriptResult
from services.scripts.workers import Workers

DEEPEST = 3
"""Scripts that wait for each other, each for the next, for which there are processes in any case."""


class Sandbox:
    """Runs scripts that may be hostile. `async with` ends their processes.

    Any number of runs may be under way. Beyond `max_workers` they wait for a place, in time that is not theirs, but not
    longer than `patience` seconds. Who waits for a model, or for a script that it runs, keeps its place.
    """

    def __init__(
        self, *, count_tokens: CountTokens, clock: Clock | None = None, max_workers: int = 64, patience: float = 10.0
    ) -> None:
        self._workers = Workers(places=max_workers, in_a_hurry=max_workers * (DEEPEST - 1))
        self._patience = patience
        self._is_thorough = False
        self._count_tokens = count_tokens
        self._clock: Clock = clock or (lambda: datetime.now(UTC))
        self._functions = {function.name: function for function in plugin_functions()}

    def thorough(self) -> "Sandbox":
        """The same sandbox for trying scripts out: one that computes too long does so twice, to tell in which line."""
        other = copy(self)
        other._is_thorough = True
        return other

    async def __aenter__(self) -> "Sandbox":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._workers.__aexit__()

    @property
    def hardening_level(self) -> Hardening | None:
        """How far the scripts' processes are shut in by the operating system; None before `harden` and the start."""
        return self._workers.hardening

    @property
    def places(self) -> dict[str, int]:
        """How many scripts run at once, wait, and may run at once."""
        return self._workers.places

    async def harden(self) -> Hardening:
        """Find out how far the scripts' processes can be shut in here, without starting any for scripts.

        Raises:
            InterpreterMissing: the program that runs scripts is not installed.
            CannotStart: the operating system does not give us now what it needs.
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
        hurry: Hurry | None = None,
    ) -> ScriptResult:
        """Run a script to its end; whatever it does wrong is in the result's `error`.

        `hurry` is set where another script waits for this one: it then begins without a place.

        Cancelling kills the script at once. An exception of the host that is neither a ScriptFault nor a ColloquyError
        ends the script and is raised here.

        Raises:
            ShuttingDown: the processes have been ended.
        """
        limits = limits or ScriptLimits()
        functions = PureFunctions(limits, self._clock, timezone, self._count_tokens)
        calls = Calls(self._functions, functions, host, may_use_ai)
        source = clean_text(script)
        repetition = Repetition(source, limits) if self._is_thorough else None
        run = ScriptRun(source, limits, functions, calls, patience=self._patience, hurry=hurry, repetition=repetition)
        return await run.perform(self._workers)
