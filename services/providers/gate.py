"""To which addresses a client may connect, as the transport asks; the rules are elsewhere."""

import errno
from collections.abc import Sequence
from typing import Protocol


class Barred(PermissionError):
    """Nobody may connect there."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "this address is not allowed")


class Gate(Protocol):
    """The way out of one client: to the host and port of its address, and only where that is allowed."""

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """All addresses of `host`, each of which may be connected to. Raises `Barred`, and `OSError` for no answer."""
        ...

    def check(self, address: str, port: int) -> None:
        """Raises `Barred`. Asked at each socket, whatever was resolved before."""
        ...
