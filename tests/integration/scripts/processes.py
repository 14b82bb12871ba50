"""The processes of the interpreter that belong to this test process, as /proc shows them."""

import os
from pathlib import Path


def workers() -> set[int]:
    """Their process ids."""
    return {process for process in map(_number, Path("/proc").iterdir()) if process and _is_ours(process)}


def _number(path: Path) -> int:
    return int(path.name) if path.name.isdigit() else 0


def _is_ours(process: int) -> bool:
    try:
        state, parent = _fields(process)[:2]
        return parent == str(os.getpid()) and state != "Z" and _name(process) == "monty"
    except OSError:
        return False


def _name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


def _fields(process: int) -> list[str]:
    """From the state on; the name before it may hold anything."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
