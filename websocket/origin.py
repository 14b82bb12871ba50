"""Whose page is asking: browsers name the page's origin (RFC 6454), and only our own may act."""

from collections.abc import Collection

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_ALIASES = ("localhost", "127.0.0.1")


def is_own_origin(origin: str | None, host: str, scheme: str, allowed: Collection[str]) -> bool:
    """Whether a page of `origin` may act on the service that was called as `scheme`://`host`.

    No origin at all is a program, not a page. `host` is the trusted Host header; on this machine `localhost` and
    `127.0.0.1` are both us. `allowed` are further origins in lower case. Compared exactly but for the case, so that
    `null`, an empty header and a trailing slash are foreign.
    """
    if origin is None:
        return True
    return origin.lower() in {*_own(host.lower(), scheme.lower()), *allowed}


def _own(host: str, scheme: str) -> list[str]:
    if not host:
        return []
    # Browsers leave the usual port out of an origin.
    name, port = split_host(host.removesuffix(_DEFAULT_PORTS.get(scheme, "")))
    names = {name, *_ALIASES} if name in _LOOPBACK else {name}
    return [f"{scheme}://{name}{port}" for name in names]


def split_host(host: str) -> tuple[str, str]:
    """Name and port, with its colon, of a Host header; the port is empty if there is none."""
    end_of_address = host.rfind("]") + 1
    name, colon, port = host[end_of_address:].rpartition(":")
    return (host[:end_of_address] + name, colon + port) if colon else (host, "")
