"""Whom a request comes from, where proxies stand between."""

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from api.middleware.proxies import TrustedProxies


async def seen(peer: str, *headers: tuple[str, str], kind: str = "http") -> tuple[str, str]:
    """Client and scheme, as what is behind the middleware sees them."""
    found: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    scope = {
        "type": kind,
        "scheme": "http" if kind == "http" else "ws",
        "client": (peer, 1234),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    await TrustedProxies(app, ["10.0.0.0/8", "::1/128"])(scope, nothing, nothing)
    return found[0]["client"][0], found[0]["scheme"]


FOR, PROTO = "x-forwarded-for", "x-forwarded-proto"


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("192.0.2.1", [(FOR, "198.51.100.1")], "192.0.2.1"),  # anybody can write that
        ("10.0.0.1", [(FOR, "198.51.100.1")], "198.51.100.1"),
        ("::1", [(FOR, "2001:db8::1")], "2001:db8::1"),
        ("10.0.0.1", [(FOR, "203.0.113.9, 198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, "198.51.100.1, 10.0.0.2")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, "203.0.113.9"), (FOR, "198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, "198.51.100.1, unknown")], "10.0.0.1"),
        ("10.0.0.1", [(FOR, "unknown, 198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, "evil\r\nx, 10.0.0.2")], "10.0.0.2"),
        ("10.0.0.1", [(FOR, "")], "10.0.0.1"),
        ("10.0.0.1", [(FOR, ",,,")], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [("forwarded", "for=198.51.100.1")], "10.0.0.1"),
        ("testclient", [(FOR, "198.51.100.1")], "testclient"),
    ],
)
async def test_the_client_is_whom_the_last_trusted_proxy_names(
    peer: str, headers: list[tuple[str, str]], client: str
) -> None:
    assert (await seen(peer, *headers))[0] == client


@pytest.mark.parametrize(
    ("peer", "proto", "kind", "scheme"),
    [
        ("10.0.0.1", "https", "http", "https"),
        ("10.0.0.1", "HTTPS", "http", "https"),
        ("10.0.0.1", "https", "websocket", "wss"),
        ("10.0.0.1", "javascript", "http", "http"),
        ("10.0.0.1", "http, https", "http", "https"),
        ("192.0.2.1", "https", "http", "http"),
    ],
)
async def test_the_scheme_is_what_the_proxy_was_called_by(peer: str, proto: str, kind: str, scheme: str) -> None:
    assert (await seen(peer, (PROTO, proto), kind=kind))[1] == scheme
