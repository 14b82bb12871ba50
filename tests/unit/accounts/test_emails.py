"""E-mail addresses: one spelling for each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.accounts.emails import normal_email
from services.errors import InvalidRequest


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Ada@Example.ORG", "ada@example.org"),
        (" ada@example.org\n", "ada@example.org"),
        ("ada+lists@example.org", "ada+lists@example.org"),
        ("o'hara@example.org", "o'hara@example.org"),
        ("a@localhost", "a@localhost"),
        ("\u00c9va@b\u00fccher.example", "\u00e9va@xn--bcher-kva.example"),
        ("E\u0301va@XN--BCHER-KVA.example", "\u00e9va@xn--bcher-kva.example"),
        ("\uff41\uff44\uff41@example.org", "ada@example.org"),
        ("stra\u00dfe@example.org", "strasse@example.org"),
        ("\u4f8b@\u4f8b\u3048.jp", "\u4f8b@xn--r8jz45g.jp"),
    ],
)
def test_an_address_has_one_spelling(written: str, meant: str) -> None:
    assert normal_email(written) == meant
    assert normal_email(meant) == meant


@given(st.text(max_size=300) | st.builds("{}@{}".format, st.text(max_size=80), st.text(max_size=200)))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = normal_email(text)
    except InvalidRequest:
        return
    assert normal_email(address) == address
    assert address.isprintable()
    assert not any(character.isspace() for character in address)
    assert len(address) <= 254


@pytest.mark.parametrize("text", ["a" * 250 + '"@x', "a." * 120 + "@x", "x" * 10_000_000, "@" * 250, "a@" + "a-" * 120])
def test_a_long_text_costs_no_time(text: str) -> None:
    with pytest.raises(InvalidRequest):
        normal_email(text)
