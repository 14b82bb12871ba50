"""The sockets that browsers connect to, taken before anything else is started."""

import errno
import os
import socket


class CannotListen(Exception):
    """The address cannot be listened on."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets for every address that `host` stands for, all with one port. Raises CannotListen.

    They answer nobody until the server listens; port 0 becomes the free port that was found.
    """
    sockets: list[socket.socket] = []
    for family, address in _addresses(host, port):
        bound = _bind(family, address, port)
        if bound is not None:
            sockets.append(bound)
            port = port or bound.getsockname()[1]
    if not sockets:
        raise CannotListen(f"{host} is not an address of this machine: set HOST.")
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise CannotListen(f"HOST={host} cannot be resolved: {error.strerror}.") from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bind(family: int, address: str, port: int) -> socket.socket | None:
    """None if this machine does not have that address (`localhost` names ::1 even where there is no IPv6)."""
    # Named as TCP, or asyncio does not see that it is, and leaves on what holds small frames back for 40 ms (Nagle).
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return None
        raise _explained(error, address, port) from error
    return bound


def _explained(error: OSError, address: str, port: int) -> CannotListen:
    match error.errno:
        case errno.EADDRINUSE:
            return CannotListen(
                f"Port {port} on {address} is taken, perhaps by another Colloquy: stop it, or set PORT to another."
            )
        case errno.EACCES:
            return CannotListen(f"Port {port} needs more rights than this user has: set PORT to 1024 or above.")
        case number:
            return CannotListen(f"{address} port {port}: {os.strerror(number or 0)}.")
