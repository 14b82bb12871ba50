"""A server's complaint is sorted by its meaning and quoted without secrets."""

from typing import Any

import pytest

from services.errors import (
    ProviderAuthentication,
    ProviderContextTooLong,
    ProviderError,
    ProviderRateLimited,
    ProviderRefusedContent,
    ProviderRejected,
    ProviderTimeout,
    UnknownModel,
)
from services.providers.faults import Complaint, Complaints, complaint_in, seconds_to_wait

COMPLAINTS = Complaints("openai", secrets=("very-secret", "", "ollama"))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "m", "code": "context_length_exceeded"}}, ProviderContextTooLong),
        (400, {"error": {"code": 400, "message": "m", "type": "exceed_context_size_error"}}, ProviderContextTooLong),
        (400, {"detail": "prompt is too long: 9 > 8"}, ProviderContextTooLong),
        (413, {"error": "input exceeds the available context size"}, ProviderContextTooLong),
        (400, {"error": {"message": "m", "code": "content_filter"}}, ProviderRefusedContent),
        (
            400,
            {"error": {"message": "m", "code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            ProviderRefusedContent,
        ),
        (400, {"error": "model 'x' not found"}, UnknownModel),
        (404, {"error": {"message": "no", "code": "DeploymentNotFound"}}, UnknownModel),
        (404, "<html><body>nginx</body></html>", ProviderRejected),
        (400, "nonsense", ProviderRejected),
        (408, {}, ProviderTimeout),
        (429, {"error": {"code": "insufficient_quota", "message": "pay"}}, ProviderRateLimited),
        (403, {}, ProviderAuthentication),
        (500, {"error": "oops"}, ProviderError),
        (529, None, ProviderError),
        (None, {"message": "overloaded"}, ProviderError),
        (None, {"code": "rate_limit_exceeded", "message": "slow"}, ProviderRateLimited),
    ],
)
def test_the_kind_of_fault_is_told_from_code_status_or_words(status: int | None, body: Any, kind: type) -> None:
    assert type(COMPLAINTS.fault(complaint_in(body, status=status))) is kind


def test_a_quota_that_is_used_up_is_not_worth_another_try() -> None:
    assert not COMPLAINTS.fault(Complaint("pay", 429, "insufficient_quota")).retryable
    assert COMPLAINTS.fault(Complaint("slow", 429)).retryable


@pytest.mark.parametrize(
    "text",
    [
        "bad key very-secret!",
        "Incorrect API key provided: sk-proj-abcdefgh12345.",
        "Incorrect API key provided: sk-ab****wxyz.",
        "header Authorization: Bearer abc.def.ghi was refused",
        "GET /x?api_key=abcdef&y=1 failed",
    ],
)
def test_keys_are_never_quoted(text: str) -> None:
    message = COMPLAINTS.fault(Complaint(text, 401)).message
    assert "[key]" in message
    for secret in ("very-secret", "abcdef", "wxyz", "abc.def"):
        assert secret not in message


def test_a_word_that_serves_as_a_key_stays_a_word() -> None:
    assert "is ollama running?" in COMPLAINTS.fault(Complaint("is ollama running?", 500)).message


def test_a_long_complaint_is_cut_and_put_on_one_line() -> None:
    message = COMPLAINTS.fault(Complaint("a\n\0b " * 10_000, 500)).message
    assert len(message) < 400
    assert "\n" not in message
    assert "\0" not in message


def test_an_html_page_is_named_not_quoted() -> None:
    message = COMPLAINTS.fault(Complaint("<!DOCTYPE html><html>secret page</html>", 502)).message
    assert "HTML" in message
    assert "secret page" not in message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_the_wait_that_a_server_asks_for_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(headers) == seconds
