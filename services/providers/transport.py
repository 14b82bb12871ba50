"""aiohttp, which carries both official clients: what its faults mean.

Imported only by the modules that import a client.
"""

from collections.abc import Iterator

import aiohttp
import httpx
import httpx2

from services.errors import AddressNotAllowed, ProviderError, ProviderGarbled, ProviderTimeout, ProviderUnreachable
from services.providers.faults import Complaints
from services.providers.gate import Barred

# Idle connections are dropped before most servers do it.
KEEP_ALIVE = 15.0

TRANSPORT_ERRORS = (httpx.RequestError, httpx2.RequestError, aiohttp.ClientError, OSError)


def connection_fault(error: BaseException, when_cut: type[ProviderError], complaints: Complaints) -> ProviderError:
    """What `error` means; `when_cut` if the server dropped the connection.

    The wrapping libraries name some faults oddly (a dropped connection is a "connect timeout"), so the first cause
    that says something decides.
    """
    where = {"provider": complaints.provider}
    if any(isinstance(cause, Barred) for cause in _causes(error)):
        return AddressNotAllowed(**where)
    for cause in _causes(error):
        match cause:
            case ProviderError():
                return cause
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


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
