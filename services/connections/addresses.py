"""Which addresses users may have the service connect to.

The tables of special addresses, and what a deceptive address looks like, are the library's (`ssrfguard`); where the
check stands is ours: `services/providers/guarded.py`.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from ssrfguard import BlockedAddressError, BlockedURLError, Policy

from services.errors import AddressNotAllowed, InvalidRequest
from services.providers.gate import Barred

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""All addresses of a name. Raises `OSError`."""

LOOPBACK: Final = ("127.0.0.0/8", "::1")

_UNPRIVILEGED = 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LONGEST = 2_000
_RESOLVERS = 16
_ANSWERS = 16

# Any address will do where only the form of a URL is looked at.
_FORM = Policy(allowed_networks=(ip_network("0.0.0.0/0"), ip_network("::/0")), max_url_length=_LONGEST)
_PUBLIC = Policy()
# Public by its number, but inside Azure it is what a machine asks for its own configuration.
_WIRE_SERVER = ip_address("168.63.129.16")
# What that name means, whoever is asked (RFC 6761).
_LOCALHOST = ip_address("127.0.0.1")
# Resolvers take a last label of this kind for a number: 0x7f.1 is 127.0.0.1.
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)
_NO_ADDRESS = (
    "An address of a model server is http:// or https://, a name or IP address, a port if need be, and a path."
)


@dataclass(frozen=True, slots=True)
class Place:
    """The host and port of an address, as they are connected to; the host's IP address, if it is one."""

    scheme: str
    host: str
    port: int
    literal: IPAddress | None


@dataclass(frozen=True, slots=True)
class _Allowed:
    """One entry of ALLOWED_PRIVATE_HOSTS: a network, or a name whatever it resolves to; one port of it, or all."""

    network: IPNetwork | None
    host: str
    port: int | None

    def covers(self, host: str, address: IPAddress, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is None:
            return self.host == host
        return address.version == self.network.version and address in self.network


class AddressRules:
    """Public addresses are allowed, and what the operator has named besides."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """`allowed`: names, addresses and networks, each with `:port` or without. Raises `ValueError`."""
        self._allowed = tuple(map(_entry, allowed))

    def check(self, url: str) -> Place:
        """Where `url` leads, as far as that can be told without resolving its name.

        Raises `InvalidRequest` for what is no plain http or https address, and `AddressNotAllowed`.
        """
        place = self.place(url)
        port_is_named = any(entry.port == place.port for entry in self._allowed)
        if place.port not in _DEFAULT_PORTS.values() and place.port < _UNPRIVILEGED and not port_is_named:
            raise AddressNotAllowed(f"Nobody may connect to port {place.port} from here.", field="base_url")
        if place.literal is not None and not self.allows(place.host, place.literal, place.port):
            raise AddressNotAllowed(field="base_url")
        return place

    @staticmethod
    def place(url: str) -> Place:
        """Where `url` leads, allowed or not. Raises `InvalidRequest`."""
        return _place(url)

    def allows(self, host: str, address: IPAddress, port: int) -> bool:
        """Whether `address`, which `host` has resolved to, may be connected to."""
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(entry.covers(host, address, port) for entry in self._allowed):
            return True
        if address == _WIRE_SERVER:
            return False
        try:
            _PUBLIC.check_address(address)
        except BlockedAddressError:
            return False
        return True


class Gatekeeper:
    """Makes the way out for each connection, after the rules; `close` ends its threads."""

    def __init__(self, rules: AddressRules, resolve: Resolve | None = None) -> None:
        self.rules = rules
        # Threads of its own: a name server that never answers must not take those that others wait for.
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolver")
        self._resolve = resolve or self._ask_system

    def gate(self, url: str) -> "AddressGate":
        """The way to the place of `url`, and nowhere else. Raises what `AddressRules.check` raises."""
        return AddressGate(self.rules.check(url), self.rules, self._resolve)

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask_system(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(target[0]) for *_, target in found]


class AddressGate:
    """Lets one client through to one place."""

    def __init__(self, place: Place, rules: AddressRules, resolve: Resolve) -> None:
        self._place = place
        self._rules = rules
        self._resolve = resolve

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """All addresses of the place. Raises `Barred` if it is another, or one of its addresses is not allowed.

        A name that leads to a public address and to a private one is not a public server with a mistake in its
        zone: that is what an attack by way of the resolver looks like.
        """
        if host.rstrip(".").lower() != self._place.host.rstrip("."):
            raise Barred
        found = list(dict.fromkeys(await self._resolve(host, port)))[:_ANSWERS]
        if not found:
            raise OSError("the name has no address")
        for address in found:
            self.check(address, port)
        return found

    def check(self, address: str, port: int) -> None:
        """Raises `Barred` for any other port, and for addresses that are not allowed."""
        # The zone of a link-local address is no part of it.
        ip = ip_address(address.partition("%")[0])
        if port != self._place.port or not self._rules.allows(self._place.host, ip, port):
            raise Barred


def normalized(url: str) -> str:
    """`url` as it is stored: host in lower case and ASCII, no default port, no slash at its end.

    Raises `InvalidRequest` for what is no plain http or https address.
    """
    place = _place(url)
    host = f"[{place.host}]" if ":" in place.host else place.host
    is_default = place.port == _DEFAULT_PORTS[place.scheme]
    return f"{place.scheme}://{host}{'' if is_default else f':{place.port}'}{urlsplit(url).path.rstrip('/')}"


def _place(url: str) -> Place:
    if any(character in url for character in "?#\\"):
        raise InvalidRequest("An address of a model server ends with its path.", field="base_url")
    try:
        port = urlsplit(url).port
        # The library wants a list of ports. Which may be used is for `AddressRules` to say.
        form = _FORM if port is None else replace(_FORM, allowed_ports=frozenset((port,)))
        target = form.check_url(url)
    except (BlockedURLError, ValueError):
        raise InvalidRequest(_NO_ADDRESS, field="base_url") from None
    host = target.host.rstrip(".")
    if target.address is None and _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise InvalidRequest(_NO_ADDRESS, field="base_url")
    literal = _LOCALHOST if host == "localhost" or host.endswith(".localhost") else target.address
    return Place(target.scheme, host, target.port, literal)


def _entry(text: str) -> _Allowed:
    """An entry of the operator's list. Raises `ValueError`."""
    with contextlib.suppress(ValueError):
        return _Allowed(ip_network(text.strip("[]")), "", None)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 2**16:
        host, port = text, ""
    number = int(port) if port else None
    with contextlib.suppress(ValueError):
        return _Allowed(ip_network(host.strip("[]")), "", number)
    if not host or any(character in host for character in "/:@[]* ") or not host.isascii():
        raise ValueError(f"{text!r} is no name, address or network such as ollama, 192.168.1.5:11434 or 10.0.0.0/8")
    return _Allowed(None, host.lower().rstrip("."), number)
