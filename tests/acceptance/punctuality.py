"""How punctual this machine is just now: a process that does nothing but look at the clock.

python -m tests.acceptance.punctuality: until its input ends; then it writes how often it was late by more than the
seconds that it was given as its argument.
"""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

_EVERY = 0.05


class Bystander:
    """Such a process, running."""

    def __init__(self, late_by: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.punctuality", str(late_by)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    async def times_late(self) -> int:
        """How often it was late until now, when it ends."""
        said, _ = await asyncio.to_thread(self._process.communicate, b"", 20)
        return int(said)

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.communicate(timeout=5)


def main(late_by: float) -> None:
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    late = 0
    while not over.is_set():
        begun = time.monotonic()
        time.sleep(_EVERY)
        late += time.monotonic() - begun - _EVERY > late_by
    sys.stdout.write(f"{late}\n")


if __name__ == "__main__":
    main(float(sys.argv[1]))
