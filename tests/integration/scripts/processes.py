"""The processes of the interpreter that belong to this or another process, as /proc shows them."""

import os
from pathlib import Path


def workers(of: int | None = None) -> set[int]:
    """Their process ids; without an `of`, those of the test's own process."""
    return {process for process in map(_number, Path("/proc").iterdir()) if process and _is_of(of, process)}


def computing(of: int) -> set[int]:
    """Those of them that have used a tenth of a second of processor time: no script without a loop does."""
    return {process for process in workers(of) if _ticks(process) >= os.sysconf("SC_CLK_TCK") // 10}


def _number(path: Path) -> int:
    return int(path.name) if path.name.isdigit() else 0


def _is_of(parent: int | None, process: int) -> bool:
    try:
        state, found = _fields(process)[:2]
        return found == str(parent or os.getpid()) and state != "Z" and _name(process) == "monty"
    except OSError:
        return False


def _ticks(process: int) -> int:
    """Of the processor, in the process itself."""
    try:
        return int(_fields(process)[11])
    except OSError:
        return 0


def _name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


def _fields(process: int) -> list[str]:
    """From the state on; the name before it may hold anything."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
