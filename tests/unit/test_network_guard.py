"""The guard that keeps every test on this machine."""

import socket

import pytest

from tests.network_guard import NetworkGuard


@pytest.fixture
def guard() -> NetworkGuard:
    """The installed guards of the session would fail this test for what it tries, so a guard is asked directly."""
    return NetworkGuard()


@pytest.mark.parametrize("address", [("93.184.216.34", 443), ("2001:db8::1", 443, 0, 0), ("api.openai.com", 443)])
def test_an_address_elsewhere_is_refused_and_remembered(guard: NetworkGuard, address: tuple[object, ...]) -> None:
    with pytest.raises(PermissionError):
        guard.check(address)

    assert guard.attempts == [str(address)]


@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("::1", 80, 0, 0), ("localhost", 80), ("", 0), "/run/socket"])
def test_an_address_on_this_machine_is_free(guard: NetworkGuard, address: object) -> None:
    guard.check(address)

    assert guard.attempts == []


def test_a_real_connection_passes_through_the_guard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
