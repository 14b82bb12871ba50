"""Servers that outlived their owner: found by the pid they left, recognised by what they were started with."""

import asyncio
import os
import subprocess
from pathlib import Path

_POLL_SECONDS = 0.005


def server_process(data: Path) -> int | None:
    """The living PostgreSQL that serves `data`, if any. A zombie and a reused number are nobody."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    words = _command_line(pid)
    return pid if "postgres" in words and f"-D {data} " in words else None


async def wait_until_gone(data: Path, seconds: float) -> bool:
    """True as soon as nothing serves `data`; False if something still does after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while server_process(data):
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return False
    return True


def _command_line(pid: int) -> str:
    """The words that `pid` was started with and a blank; empty if it is gone or a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="surrogateescape")
        except OSError:
            return ""
    listing = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    return os.fsdecode(listing.stdout).strip() + " "
