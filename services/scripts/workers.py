"""The processes that scripts run in: kept ready, shut in, one for each script at a time."""

import asyncio
import shutil
import sysconfig
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic_monty import AsyncMonty, AsyncMontySession, ResourceLimits

from services.errors import ServerError
from services.hardening import Hardening, Program, harden

GRACE = 0.1
"""Seconds past its time limit after which a process that does not stop by itself is killed."""

RECYCLE_AFTER = 1_000
"""Scripts that one process serves."""

LAST_BREATH = 0.05
"""Seconds that the library's own threads need after the pool is closed: a Python that exits at once may abort."""


_THEIR_WORDS = {
    "The monty syntax parser does not yet support ": "scripts cannot use ",
    "Internal error in monty: ": "",
}


class InterpreterMissing(ServerError):
    """The program that runs scripts is not installed: install the service again."""

    code = "interpreter_missing"
    retryable = False


class Workers:
    """A pool of processes, started when the first one is needed. `async with` ends all of them."""

    def __init__(self, *, max_processes: int, answer_within: float | None = None) -> None:
        """`answer_within`: seconds after which a process that says nothing is killed, whatever its limits."""
        self._max_processes = max_processes
        self._answer_within = answer_within
        self._starting: asyncio.Task[AsyncMonty] | None = None
        self._resources = AsyncExitStack()
        self.hardening: Hardening | None = None
        """How far the processes are shut in; None before the start."""

    async def __aenter__(self) -> "Workers":
        return self

    async def __aexit__(self, *_: object) -> None:
        starting, self._starting = self._starting, None
        if starting:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self._resources.aclose()
            await asyncio.sleep(LAST_BREATH)

    async def start(self) -> Hardening:
        """Return once a process is ready, with the strongest hardening that works here.

        Raises:
            InterpreterMissing: there is no such program.
        """
        await self._started()
        assert self.hardening
        return self.hardening

    async def session(self, limits: ResourceLimits, *, stubs: str | None = None) -> AsyncMontySession:
        """A fresh interpreter, to be entered with `async with`, which waits for a free process.

        Leaving it by an exception in mid-script kills the process. With `stubs`, what is fed is checked first against
        these declarations.

        Raises:
            InterpreterMissing: there is no such program.
        """
        pool = await self._started()
        return pool.checkout(
            limits=limits,
            type_check=stubs is not None,
            type_check_stubs=stubs,
            type_check_format="json",
            assert_message_annotations=False,
            # A script that sleeps would keep its process.
            os_policy={"sleep": "zero"},
        )

    async def _started(self) -> AsyncMonty:
        # A task of its own: whoever asks first may be cancelled, and others wait for the same start.
        if self._starting is None or _failed(self._starting):
            self._starting = asyncio.create_task(self._open())
        return await asyncio.shield(self._starting)

    async def _open(self) -> AsyncMonty:
        async with AsyncExitStack() as resources:
            pool = await self._enter(resources)
            self._resources = resources.pop_all()
        return pool

    async def _enter(self, resources: AsyncExitStack) -> AsyncMonty:
        # Not in a thread, from which a cancelled start would not learn the name.
        directory = tempfile.mkdtemp(prefix="colloquy-scripts-")
        resources.push_async_callback(asyncio.to_thread, shutil.rmtree, directory, ignore_errors=True)
        self.hardening, command = await harden(interpreter(), Path(directory))
        pool = await resources.enter_async_context(
            AsyncMonty(
                binary_path=command,
                min_processes=1,
                max_processes=self._max_processes,
                request_timeout=self._answer_within,
                max_checkouts_per_worker=RECYCLE_AFTER,
                feed_duration_limit_grace=GRACE,
                turn_duration_limit_grace=GRACE,
            )
        )
        # The pool does not wait for its processes to have come up.
        async with pool.checkout() as session:
            await session.feed_run("")
        return pool


def _failed(task: asyncio.Task[AsyncMonty]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def interpreter() -> Program:
    """The program that came with the package, beside this Python's own, or anywhere on PATH.

    Raises:
        InterpreterMissing: there is no such program.
    """
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("monty", path=scripts) or shutil.which("monty")
    if not found:
        raise InterpreterMissing
    return Program(Path(found).absolute(), inside=Path("/monty"), answer=b"monty")


def own_words(message: str) -> str:
    """The interpreter's message without its talk of itself."""
    for theirs, ours in _THEIR_WORDS.items():
        if message.startswith(theirs):
            return ours + message.removeprefix(theirs)
    return message
