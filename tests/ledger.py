"""The configuration of a tool server that writes down what it does, and what it has written."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.waiting import eventually

_PROGRAM = Path(__file__).parent / "fakes" / "ledger_tools.py"


class Ledger:
    """A directory in which a tool server of that kind works."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home

    def config(self, **more: Any) -> Path:
        """An `mcp.json` with the server `ledger`; `more` goes into its entry."""
        command = {"command": sys.executable, "args": ["-S", "-E", str(_PROGRAM), str(self.home)], "mode": "legacy"}
        file = self.home / "mcp.json"
        file.write_text(json.dumps({"mcpServers": {"ledger": command | more}}))
        return file

    @property
    def lines(self) -> list[str]:
        """What has acted, in order."""
        file = self.home / "ledger"
        return file.read_text().splitlines() if file.exists() else []

    def allow(self, name: str) -> None:
        """Let the call of `wait` that waits for this go on."""
        (self.home / name).touch()

    async def has(self, line: str) -> None:
        """Return once that has been written."""
        await eventually(lambda: line in self.lines, 15)
