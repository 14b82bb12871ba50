"""Checks a script before it is saved: that the interpreter can read it, and that its types fit `ctx`."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from pydantic_monty import (
    AsyncFunctionSnapshot,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
    MontyTypingError,
    ResourceLimits,
)

from services.errors import Unavailable
from services.providers.text import clean_text
from services.scripts.analysis import Problem
from services.scripts.api import plugin_functions, type_stubs
from services.scripts.types import ScriptLimits
from services.scripts.values import plain_text
from services.scripts.workers import CannotStart, Workers, own_words

PATIENCE = 3.0
"""Seconds for one check. An ordinary script takes some 0.02, one made to be slow would take as long as it likes."""

QUEUE = 15.0
"""Seconds for a script to wait until others have been checked."""

MAX_PROBLEMS = 50

MAX_IMPORTS = 100

_GATE = "__unchecked__"
"""A name that nobody defines, put before the script: a script with an error in its types is not run, so one that
begins with an error never is. Without the check of types, the script stops there and is left."""

_LIMITS: ResourceLimits = {"max_feed_duration_secs": 2.0, "max_memory": 256 * 1024 * 1024}

_NOT_FOUND_BY_US = {"__future__ imports must be at the top of the file", "Cannot resolve imported module `__future__`"}


class ScriptChecker:
    """Reads scripts that may be hostile, two at a time, in processes of its own. `async with` ends them."""

    def __init__(self) -> None:
        # Apart from those of the sandbox: checking leaves a process three times as large.
        self._workers = Workers(places=2, answer_within=PATIENCE)
        self._stubs = type_stubs(plugin_functions())

    async def __aenter__(self) -> "ScriptChecker":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._workers.__aexit__()

    async def check(self, script: str, source_bytes: int = ScriptLimits().source_bytes) -> list[Problem]:
        """What is wrong with the script, by line; nothing of it is run.

        Raises:
            InterpreterMissing: the program that reads scripts is not installed.
            Unavailable: too many scripts are being checked.
        """
        source = clean_text(script)
        if len(source.encode()) > source_bytes:
            return [Problem(1, 1, f"the script is larger than {source_bytes:,} bytes")]
        async with self._place():
            try:
                async with asyncio.timeout(PATIENCE):
                    return await self._read(source) or await self._typed(source)
            except TimeoutError:
                return [_TOO_SLOW]

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[None, None]:
        """One of the two, and a process that is up; waiting for it is not the script's fault."""
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(QUEUE):
                    await held.enter_async_context(self._workers.place())
                    await self._workers.start()
            except TimeoutError:
                raise Unavailable("Too many scripts are being checked.", retry_after=2) from None
            try:
                yield
            except CannotStart as error:
                raise Unavailable("Scripts cannot be checked just now.", retry_after=2) from error

    async def _read(self, source: str) -> list[Problem]:
        """What the interpreter does not understand."""
        try:
            async with self._workers.session(_LIMITS) as session:
                await session.feed_start(f"{_GATE}\n{source}")
        except (MontySyntaxError, MontyRuntimeError) as error:
            frame = next(iter(error.traceback()), None)
            line, column = (max(frame.line - 1, 1), frame.column) if frame else (1, 1)
            return [Problem(line, column, _bounded(own_words(error.display("msg"))))]
        except MontyCrashedError:
            return [_TOO_SLOW]
        return []

    async def _typed(self, source: str) -> list[Problem]:
        """What does not fit the declaration of `ctx` and of Python's own library."""
        try:
            async with self._workers.session(_LIMITS, stubs=self._stubs) as session:
                stop = await session.feed_start(f"{_GATE}\n{source}")
                # It asks us for declarations of modules that it does not know.
                for _ in range(MAX_IMPORTS):
                    if isinstance(stop, AsyncFunctionSnapshot):
                        stop = await stop.resume_not_handled()
        except MontyTypingError as error:
            problems = sorted(_problems(error.display()), key=lambda problem: (problem.line, problem.column))
            return problems[:MAX_PROBLEMS]
        except MontyError:
            return [_TOO_SLOW]
        return [_TOO_SLOW]


_TOO_SLOW = Problem(1, 1, "the script is too complicated to be checked")


def _problems(diagnostics: str) -> Iterator[Problem]:
    """The checker's findings, without those that the gate caused."""
    found: list[dict[str, Any]] = json.loads(diagnostics)
    for finding in found:
        place, message = finding["location"], str(finding["message"])
        if place["row"] > 1 and finding["severity"] == "error" and message not in _NOT_FOUND_BY_US:
            yield Problem(place["row"] - 1, place["column"], _bounded(message))


def _bounded(message: str) -> str:
    return plain_text(message[:500])
