"""Whose pages may act on the service."""

import pytest

from websocket.origin import is_own_origin, split_host


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://localhost:8000", "localhost:8000", "http"),
        ("http://127.0.0.1:8000", "localhost:8000", "http"),
        ("http://localhost:8000", "127.0.0.1:8000", "http"),
        ("http://localhost:8000", "[::1]:8000", "http"),
        ("http://[::1]:8000", "[::1]:8000", "http"),
        ("HTTP://LocalHost:8000", "LOCALHOST:8000", "http"),
        ("https://chat.example.org", "chat.example.org", "https"),
        ("https://chat.example.org", "chat.example.org:443", "https"),
        ("http://localhost", "localhost:80", "http"),
        ("https://chat.example.org:8443", "chat.example.org:8443", "https"),
    ],
)
def test_our_own_page_may_act(origin: str, host: str, scheme: str) -> None:
    assert is_own_origin(origin, host, scheme, ())


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://localhost:8000/",
        "http://localhost:8001",
        "http://localhost",
        "https://localhost:8000",
        "http://evil.example",
        "http://localhost:8000.evil.example",
        "http://evil.example:8000",
        "http://[::1]:8000",
        "localhost:8000",
        " http://localhost:8000",
        "http://user@localhost:8000",
    ],
)
def test_any_other_page_may_not(origin: str) -> None:
    assert not is_own_origin(origin, "localhost:8000", "http", ())


def test_a_program_names_no_origin_and_may_act() -> None:
    assert is_own_origin(None, "localhost:8000", "http", ())


def test_an_allowed_origin_is_compared_exactly_but_for_its_case() -> None:
    allowed = ("https://app.example.org",)

    assert is_own_origin("https://App.Example.org", "localhost:8000", "http", allowed)
    assert not is_own_origin("https://app.example.org/", "localhost:8000", "http", allowed)
    assert not is_own_origin("http://app.example.org", "localhost:8000", "http", allowed)


def test_a_foreign_host_has_no_aliases_on_this_machine() -> None:
    assert not is_own_origin("http://localhost:8000", "chat.example.org:8000", "http", ())


@pytest.mark.parametrize("origin", ["", "null", "http://"])
def test_without_a_host_nothing_but_an_allowed_origin_is_own(origin: str) -> None:
    assert not is_own_origin(origin, "", "http", ())


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("localhost:8000", ("localhost", ":8000")),
        ("localhost", ("localhost", "")),
        ("[::1]:8000", ("[::1]", ":8000")),
        ("[::1]", ("[::1]", "")),
        ("", ("", "")),
    ],
)
def test_a_host_is_split_into_name_and_port(host: str, parts: tuple[str, str]) -> None:
    assert split_host(host) == parts
