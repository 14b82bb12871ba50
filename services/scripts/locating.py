"""Finds the statement in which a script computed too long: by running it once more, with marks."""

import asyncio
from contextlib import AsyncExitStack

from pydantic_monty import (
    AsyncFunctionSnapshot,
    AsyncMontySession,
    ClassInstance,
    CollectString,
    ExternalResult,
    MontyComplete,
    MontyError,
    MontyRuntimeError,
    ResourceLimits,
)

from services.scripts.marks import Marked, marked
from services.scripts.stops import Ctx, go_on
from services.scripts.types import ScriptLimits
from services.scripts.workers import CannotStart, Workers

MOST_ANSWERS = 100
"""Calls of `ctx` whose answers are kept for a second run; a script that calls more often tells its place by them."""


class _WentAnotherWay(Exception):
    """The second run is not a repetition of the first one."""


class Repetition:
    """What a second run needs: the answers of the first."""

    def __init__(self, source: str, limits: ScriptLimits) -> None:
        self._source = source
        self._limits = limits
        self._answers: list[tuple[str, ExternalResult]] = []
        self._is_complete = True

    def keep(self, function: str, answer: ExternalResult) -> None:
        """Note what a call was answered."""
        self._is_complete = len(self._answers) < MOST_ANSWERS
        if self._is_complete:
            self._answers.append((function, answer))

    async def place(self, workers: Workers, resources: ResourceLimits) -> tuple[int, int] | None:
        """Line and column of the statement in which the script computes too long again; None if it does not.

        Nothing is done for it but computing: the second run gets the answers that the first one got.
        """
        script = await asyncio.to_thread(marked, self._source) if self._is_complete else None
        if script is None:
            return None
        try:
            async with asyncio.timeout(self._limits.timeout_ms / 1e3), AsyncExitStack() as held:
                await held.enter_async_context(workers.place())
                session = await held.enter_async_context(workers.session(resources))
                try:
                    await self._repeat(script, session)
                except MontyRuntimeError as error:
                    if isinstance(error.exception(), TimeoutError):
                        return _place(script, await session.feed_run(script.variable))
        except (MontyError, CannotStart, TimeoutError, RuntimeError, _WentAnotherWay):
            return None
        return None

    async def _repeat(self, script: Marked, session: AsyncMontySession) -> None:
        answers = iter(self._answers)

        async def answer(stop: AsyncFunctionSnapshot) -> ExternalResult:
            function, answer = next(answers, (None, None))
            if answer is None or function != stop.function_name:
                raise _WentAnotherWay
            return answer

        inputs = {"ctx": ClassInstance(Ctx())}
        printed = CollectString(self._limits.printed_bytes)
        stop = await session.feed_start(script.source, inputs=inputs, print_callback=printed)
        while not isinstance(stop, MontyComplete):
            stop = await go_on(stop, answer)


def _place(script: Marked, number: object) -> tuple[int, int] | None:
    """The script may have put anything in the place of the mark."""
    return script.places[number] if isinstance(number, int) and 0 <= number < len(script.places) else None
