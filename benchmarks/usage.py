"""What processes use, as the kernel counts it, and where they may run."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of those processes so far. In nanoseconds inside, as ticks of 10 ms would hide a single stream."""
    return sum(int(text.split()[0]) for pid in pids for text in _of_threads(pid, "schedstat")) / 1e9


def resident_bytes(pid: int) -> int:
    """Memory of the process that is in RAM now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def descendants(pid: int) -> list[int]:
    """The living children of the process, and theirs."""
    children = [int(word) for text in _of_threads(pid, "children") for word in text.split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def pin(pids: Iterable[int], cpus: set[int]) -> None:
    """Keep those processes, and what they will start, on `cpus`."""
    for pid in pids:
        with suppress(ProcessLookupError, FileNotFoundError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cpus)


def _of_threads(pid: int, name: str) -> list[str]:
    texts: list[str] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                texts.append(Path(f"/proc/{pid}/task/{thread}/{name}").read_text())
    return texts
