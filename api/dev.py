"""`make dev`: the service, started again whenever a source file changes."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_LOOK_SECONDS = 0.5


def main() -> None:
    """Until Ctrl-C. A version that does not start is left alone until the next change."""
    try:
        while True:
            _one_version()
    except KeyboardInterrupt:
        pass


def _one_version() -> None:
    before = _versions()
    service = subprocess.Popen([sys.executable, "-m", "api"])
    try:
        while _versions() == before:
            time.sleep(_LOOK_SECONDS)
    finally:
        if service.poll() is None:
            service.send_signal(signal.SIGTERM)
        service.wait()


def _versions() -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in _sources()}


def _sources() -> Iterator[Path]:
    for floor in ("api", "websocket", "services", "db"):
        yield from (_ROOT / floor).rglob("*.py")
        yield from (_ROOT / floor).rglob("*.sql")
    yield from _ROOT.glob(".env")


if __name__ == "__main__":
    main()
