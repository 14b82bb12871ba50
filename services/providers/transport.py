"""aiohttp, which carries both official clients: what its faults mean, and how it is kept to allowed addresses.

Imported only by the modules that import a client.
"""

import errno
import socket
from collections.abc import Callable, Iterator

import aiohttp
import httpx
import httpx2

from services.errors import ProviderError, ProviderGarbled, ProviderTimeout, ProviderUnreachable
from services.providers.faults import Complaints

# As `socket.getaddrinfo` describes an address.
_Address = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]

# Idle connections are dropped before most servers do it.
KEEP_ALIVE = 15.0

TRANSPORT_ERRORS = (httpx.RequestError, httpx2.RequestError, aiohttp.ClientError, OSError)


def connection_fault(error: BaseException, when_cut: type[ProviderError], complaints: Complaints) -> ProviderError:
    """What `error` means; `when_cut` if the server dropped the connection.

    The wrapping libraries name some faults oddly (a dropped connection is a "connect timeout"), so the first cause
    that says something decides.
    """
    where = {"provider": complaints.provider}
    for cause in _causes(error):
        match cause:
            case aiohttp.ServerTimeoutError():
                return ProviderTimeout("The model server could not be connected to in time.", **where)
            case aiohttp.ClientConnectorError() | aiohttp.InvalidURL():
                return ProviderUnreachable(
                    f"The model server cannot be reached: {complaints.quote(str(cause))}", **where
                )
            case aiohttp.ClientResponseError() | httpx.DecodingError() | httpx2.DecodingError():
                return ProviderGarbled(**where)
            case _:
                continue
    if when_cut is ProviderUnreachable:
        return ProviderUnreachable("The model server closed the connection before it answered.", **where)
    return when_cut(**where)


def guarded_session(allows_ip: Callable[[str], bool], max_connections: int) -> Callable[[], aiohttp.ClientSession]:
    """Makes sessions that connect only to addresses that `allows_ip` lets pass.

    The check stands where the socket is made, after all name resolution: a name that resolves to something else
    the second time gains nothing. Proxies of the environment are not used, as they would connect in our stead.
    """

    def make_socket(address: _Address) -> socket.socket:
        family, kind, protocol, _, target = address
        if not allows_ip(str(target[0])):
            raise PermissionError(errno.EACCES, "this address is not allowed")
        return socket.socket(family, kind, protocol)

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=max_connections, keepalive_timeout=KEEP_ALIVE, socket_factory=make_socket, use_dns_cache=False
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    return session


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
