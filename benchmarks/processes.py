"""Child processes that say in one line when they are ready, and that do not outlive us."""

import asyncio
import ctypes
import os
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_READY_SECONDS = 60
_STOP_SECONDS = 30
_PR_SET_PDEATHSIG = 1
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER")


class BenchmarkFailed(Exception):
    """Something could not be measured; the message says what, and where to read more."""


@dataclass(frozen=True, slots=True)
class Process:
    """A running child; `said` is the line with which it announced that it is ready."""

    pid: int
    said: str


@asynccontextmanager
async def running(
    command: Sequence[str], *, home: Path, settings: dict[str, str] | None = None
) -> AsyncGenerator[Process, None]:
    """Run `command` in the directory `home` from its first line of output until the context is left.

    It gets hardly any environment and an empty directory: a developer's `.env` and database stay untouched.
    Raises BenchmarkFailed if it ends before it says anything.
    """
    log = home / f"{Path(command[-1]).name}.log"
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    with log.open("ab") as errors:
        child = await asyncio.create_subprocess_exec(
            *command,
            cwd=home,
            env=environment | {"PYTHONPATH": str(ROOT)} | (settings or {}),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            preexec_fn=_die_with_parent(),
        )
    try:
        assert child.stdout is not None
        try:
            async with asyncio.timeout(_READY_SECONDS):
                said = (await child.stdout.readline()).decode().strip()
        except TimeoutError:
            said = ""
        if not said:
            raise BenchmarkFailed(f"{' '.join(command)} did not start:\n{_tail(log)}")
        yield Process(child.pid, said)
        if child.returncode is not None:
            raise BenchmarkFailed(f"{' '.join(command)} ended while it was measured:\n{_tail(log)}")
    finally:
        await _stop(child)


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def _die_with_parent() -> Callable[[], None]:
    """What a child does before it becomes the program: ask to be told when we die, however we die."""
    libc = ctypes.CDLL(None)  # loaded here: the child must not load anything

    def before_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return before_exec


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
