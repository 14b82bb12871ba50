"""Whose sockets are counted together before it is known who is there."""

import pytest

from websocket.authentication import neighbourhood


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_they_are_counted_together(one: str, other: str):
    assert neighbourhood(one) == neighbourhood(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("testclient", "another"),
    ],
)
def test_they_are_counted_apart(one: str, other: str):
    assert neighbourhood(one) != neighbourhood(other)
