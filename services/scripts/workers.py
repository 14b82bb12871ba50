"""The processes that scripts run in: kept ready, shut in, one for each script at a time."""

import asyncio
import logging
import os
import shutil
import sysconfig
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic_monty import AsyncMonty, AsyncMontySession, ResourceLimits

from services.errors import ServerError, ShuttingDown
from services.hardening import Hardening, Program, harden
from services.scripts.places import Hurry, Places

GRACE = 0.1
"""Seconds past its time limit after which a process that does not stop by itself is killed."""

RECYCLE_AFTER = 1_000
"""Scripts that one process serves."""

LAST_BREATH = 0.05
"""Seconds that the library's own threads need after the pool is closed: a Python that exits at once may abort."""

PARTING = 3.0
"""Seconds that the way down waits for processes to end. The library kills those that stay after half a second."""

_log = logging.getLogger(__name__)

T = TypeVar("T")

_THEIR_WORDS = {
    "The monty syntax parser does not yet support ": "scripts cannot use ",
    "Internal error in monty: ": "",
}


class InterpreterMissing(ServerError):
    """The program that runs scripts is not installed: install the service again."""

    code = "interpreter_missing"
    retryable = False


class CannotStart(Exception):
    """The operating system does not give us now what a process needs."""


class Workers:
    """A pool of processes, started when the first one is needed. `async with` ends all of them, and soon."""

    def __init__(self, *, places: int, in_a_hurry: int = 0, answer_within: float | None = None) -> None:
        """`in_a_hurry`: processes for those who need no place.

        `answer_within`: seconds after which a process that says nothing is killed, whatever its limits.
        """
        self._places = Places(places)
        self._max_processes = places + in_a_hurry
        self._answer_within = answer_within
        self._shelter = _Once(self._build)
        self._pool = _Once(self._open)
        self._resources = AsyncExitStack()
        self._shelter_files: Sequence[Path] = ()
        self.hardening: Hardening | None = None
        """How far the processes are shut in; None as long as nobody has asked for it or for a process."""

    async def __aenter__(self) -> "Workers":
        return self

    async def __aexit__(self, *_: object) -> None:
        begun = [once for once in (self._pool, self._shelter) if once.was_asked]
        for once in (self._pool, self._shelter):
            await once.close()
        if begun:
            await _part_with(self._resources)
            await asyncio.sleep(LAST_BREATH)

    async def harden(self) -> Hardening:
        """Find out how far processes can be shut in here; none is kept for it.

        Raises:
            InterpreterMissing: there is no such program.
        """
        await self._shelter.get()
        assert self.hardening
        return self.hardening

    async def start(self) -> Hardening:
        """Return once a process is ready, with the strongest hardening that works here.

        Raises:
            InterpreterMissing: there is no such program.
        """
        await self._pool.get()
        return await self.harden()

    @property
    def places(self) -> dict[str, int]:
        """How many places are in use, waited for, and there at all."""
        return self._places.state

    def place(self, hurry: Hurry | None = None) -> AbstractAsyncContextManager[None]:
        """Among those who may have a session, to be waited for with `async with`."""
        return self._places.taken(hurry)

    @asynccontextmanager
    async def session(
        self, limits: ResourceLimits, *, stubs: str | None = None
    ) -> AsyncGenerator[AsyncMontySession, None]:
        """A fresh interpreter for who has a place.

        Leaving it by an exception in mid-script kills the process. With `stubs`, what is fed is checked first against
        these declarations.

        Raises:
            InterpreterMissing: there is no such program.
            CannotStart: there is no process to be had.
            ShuttingDown: the processes have been ended.
        """
        self._build_again_if_swept_away()
        pool = await self._pool.get()
        session = pool.checkout(
            limits=limits,
            type_check=stubs is not None,
            type_check_stubs=stubs,
            type_check_format="json",
            assert_message_annotations=False,
            # A script that sleeps would keep its process.
            os_policy={"sleep": "zero"},
        )
        async with AsyncExitStack() as held:
            try:
                await held.enter_async_context(session)
            except RuntimeError as error:
                raise CannotStart(str(error)) from error
            yield session

    def _build_again_if_swept_away(self) -> None:
        """Those who clean up temporary files don't know for how long we need ours."""
        if all(map(os.path.lexists, self._shelter_files)):
            return
        _log.warning("the files with which scripts' processes are started have been removed: making them again")
        self._shelter_files = ()
        self._pool.forget()
        self._shelter.forget()

    async def _build(self) -> Path:
        """The command that starts a process."""
        program = interpreter()
        try:
            # Not in a thread, from which a cancelled start would not learn the name.
            directory = tempfile.mkdtemp(prefix="colloquy-scripts-")
        except OSError as error:
            raise CannotStart(f"no temporary files can be made: {error}") from error
        self._resources.push_async_callback(asyncio.to_thread, shutil.rmtree, directory, ignore_errors=True)
        self.hardening, command = await harden(program, Path(directory))
        self._shelter_files = await asyncio.to_thread(lambda: [*Path(directory).rglob("*")])
        return command

    async def _open(self) -> AsyncMonty:
        command = await self._shelter.get()
        async with AsyncExitStack() as resources:
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
            self._resources.push_async_exit(resources.pop_all())
        return pool


class _Once(Generic[T]):
    """Something made when it is first asked for, in a task of its own: who asks may be cancelled while others wait."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._make = make
        self._task: asyncio.Task[T] | None = None
        self._is_closed = False

    @property
    def was_asked(self) -> bool:
        return self._task is not None

    async def get(self) -> T:
        """The thing; if it could not be made the last time, it is tried again. Raises `ShuttingDown`."""
        if self._is_closed:
            raise ShuttingDown
        if self._task is None or _failed(self._task):
            self._task = asyncio.create_task(self._make())
        return await asyncio.shield(self._task)

    def forget(self) -> None:
        """Have it made again by who asks next."""
        self._task = None

    async def close(self) -> None:
        """Stop making it; from now on there is nothing to be had."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([asyncio.gather(self._task, return_exceptions=True)], timeout=PARTING)


async def _part_with(resources: AsyncExitStack) -> None:
    """Close them, or leave them to the end of our process, with which theirs end too."""
    try:
        async with asyncio.timeout(PARTING):
            await resources.aclose()
    except TimeoutError:
        _log.warning("the processes of scripts did not end within %g s", PARTING)


def _failed(task: asyncio.Task[Any]) -> bool:
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
