"""The service as operators run it: a process of its own, to be stopped, frozen and killed."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2

from tests.waiting import eventually

_CHECKOUT = Path(__file__).resolve().parents[2]
_PASSED_ON = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "XDG_CACHE_HOME"}
_READY = "Colloquy is ready: "
_START_SECONDS = 40.0
_STOP_SECONDS = 30.0
_ESTABLISHED = "01"
_PAGE = os.sysconf("SC_PAGE_SIZE")


_DEFAULTS = {
    "PYTHONPATH": str(_CHECKOUT),
    "PORT": "0",
    "FIRST_RUN_CONTENT": "false",  # its modules would work after replies that these tests watch to the end
    "TITLES__ENABLED": "false",
}


class Service:
    """A running `python -m api`, started in an empty directory with hardly any environment."""

    def __init__(self, home: Path, settings: dict[str, str]) -> None:
        home.mkdir()
        self.home = home
        self.address = ""
        self._log = home.parent / f"{home.name}.log"
        environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api"],
                cwd=home,
                env=environment | _DEFAULTS | settings,
                stdout=output,
                stderr=output,
            )

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])

    async def ready(self) -> None:
        """Return when it takes requests."""
        await eventually(lambda: _READY in self.log or self.process.poll() is not None, _START_SECONDS)
        assert _READY in self.log, f"the service ended with {self.process.returncode}:\n{self.log}"
        self.address = self.log.split(_READY)[1].split()[0]

    def kill(self) -> None:
        """kill -9; returns when the process is gone."""
        self.process.kill()
        self.process.wait(_STOP_SECONDS)

    def terminate(self) -> None:
        """Ask it to stop, as an operator does; `ended` tells when it has."""
        self.process.terminate()

    async def ended(self) -> None:
        """Return when it has ended in good order."""
        assert await asyncio.to_thread(self.process.wait, _STOP_SECONDS) == 0, self.log
        assert "Traceback" not in self.log, self.log

    async def freeze(self) -> None:
        """Stop the process without its knowing; returns when nothing of it runs any more."""
        self.process.send_signal(signal.SIGSTOP)
        await eventually(lambda: self._status("State").startswith("T"))

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE

    @property
    def connections(self) -> int:
        """Clients that are connected, by the kernel's account."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[3] == _ESTABLISHED and int(row[1].rpartition(":")[2], 16) == self.port for row in rows)

    async def new_session(self) -> str:
        """The id of a fresh session."""
        return (await self.request("POST", "/api/sessions", json={}))["id"]

    async def history(self, session_id: str) -> list[tuple[str, str]]:
        """Role and content of the messages, oldest first."""
        page = await self.request("GET", f"/api/sessions/{session_id}/messages?limit=100")
        return [(message["role"], message["content"]) for message in reversed(page["items"])]

    async def request(self, method: str, path: str, **options: Any) -> Any:
        """The JSON that a request is answered with; its connection is closed afterwards."""
        async with httpx2.AsyncClient(base_url=self.address, timeout=20) as http:
            answer = (await http.request(method, path, **options)).raise_for_status()
            return answer.json() if answer.content else None

    def _status(self, name: str) -> str:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
