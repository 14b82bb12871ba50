"""Nothing that is a secret, or looks like one, gets through; what only sounds like one does."""

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.telemetry.redaction import HIDDEN, LONGEST, Redactor

SECRETS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=8, max_size=40).filter(
    lambda text: text.strip("*") == text
)


@given(SECRETS, st.binary(max_size=5), st.binary(max_size=5))
def test_a_known_secret_is_hidden_in_whatever_form_it_travels(secret: str, before: bytes, after: bytes) -> None:
    redactor = Redactor([secret])
    raw = before + secret.encode() + after

    assert secret not in redactor.clean(f"it said {secret}!")
    assert quote(secret, safe="") not in redactor.clean(f"x {quote(secret, safe='')} y").replace(HIDDEN, "")
    for encode in (b64encode, urlsafe_b64encode):
        cleaned = redactor.clean(f"<{encode(raw).decode()}>")
        assert HIDDEN in cleaned
        # What is left at the ends is of what stood around it, and a character that both have a part in.
        assert len(cleaned.replace(HIDDEN, "")) <= 2 + 4 * (len(before) + len(after) + 4)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("the key sk-proj-1234567890 was refused", "sk-proj-1234567890"),
        ("clq_Zm9vYmFy was revoked", "clq_Zm9vYmFy"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln", "eyJzdWIiOiJ4In0"),
        ("postgresql://me:hunter2@db/colloquy", "hunter2"),
        ("postgresql://me:hun@t/er2@db/colloquy", "hun@t/er2"),
        ("GET /ws/chat?ticket=abcdef&after=3", "abcdef"),
        ("password='it is long'", "it is long"),
        ('{"api_key": "0123abc", "model": "x"}', "0123abc"),
        ('{\\"secret\\": \\"0123abc\\"}', "0123abc"),
        ("{'x-api-key': b'0123abc'}", "0123abc"),
        ("Cookie: session=0123abc; theme=dark", "0123abc"),
        ("client_secret=0123abc&scope=x", "0123abc"),
        ("refresh_token: 0123abc", "0123abc"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, hidden: str) -> None:
    cleaned = Redactor().clean(text)

    assert hidden not in cleaned
    assert HIDDEN in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=800, tokens: 12",
        "the model said no token for 60 s",
        "GET /api/sessions/{session_id}/messages 200",
        "run 01a216a0-8ab3-7ff0-bad0-d85c6973448e ended",
        "see https://example.org:8443/a?x=1 or me@example.org",
        "the secret of good tea",
        "keyset=3, monkey: 4",
    ],
)
def test_what_only_sounds_like_a_secret_is_said(text: str) -> None:
    assert Redactor().clean(text) == text


def test_short_words_are_no_secrets() -> None:
    assert Redactor(["ollama", ""]).clean("ollama answers") == "ollama answers"


def test_a_text_is_cut_and_a_secret_across_the_cut_is_hidden() -> None:
    redactor = Redactor(["correct horse battery"])
    text = "x" * (LONGEST - 5) + "correct horse battery" + "y" * 1_000_000

    cleaned, end = redactor.clean(text), redactor.clean_end("y" * 1_000_000 + "correct horse battery" + "x" * LONGEST)

    assert len(cleaned) < LONGEST + 50
    assert "corre" not in cleaned
    assert "1016400 characters" in cleaned
    assert len(end) < LONGEST + 50
    assert "battery" not in end


def test_fields_are_cleaned_by_name_and_by_what_they_hold() -> None:
    redactor = Redactor(["correct horse battery"])

    assert redactor.clean_field("password", "x") == HIDDEN
    assert redactor.clean_field("access_token", {"any": "thing"}) == HIDDEN
    assert redactor.clean_field("tokens", 12) == 12
    assert redactor.clean_field("details", {"note": "correct horse battery", "n": [1, "Bearer abcdef"]}) == {
        "note": HIDDEN,
        "n": [1, f"Bearer {HIDDEN}"],
    }
    assert redactor.clean_field("odd", ValueError("password=abc")) == f"password={HIDDEN}"
    assert len(str(redactor.clean_field("deep", _nested(100)))) < 1_200


def _nested(depth: int) -> object:
    return {"a" * 5: _nested(depth - 1)} if depth else "end"
