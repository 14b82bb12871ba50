"""Tests talk to this machine only: a call to a real provider would cost money and prove nothing."""

import ipaddress
import sys


class NetworkGuard:
    """Refuses and remembers every connection or name look-up that would leave this machine."""

    def __init__(self) -> None:
        self.attempts: list[str] = []

    def install(self) -> None:
        """For the rest of the process: Python has no way to take an audit hook out again."""
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.connect":
            self.check(arguments[1])
        elif event == "socket.getaddrinfo":
            self.check(arguments[:2])

    def check(self, address: object) -> None:
        """Raise PermissionError for an address, as sockets take them, that is elsewhere."""
        if isinstance(address, tuple) and not _is_here(address[0]):
            self.attempts.append(str(address))
            raise PermissionError(f"a test tried to reach {address}")


def _is_here(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    name = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    # The unspecified address is what servers listen on; connecting to it stays here too.
    return address.is_loopback or address.is_unspecified
