"""What a model server's complaint means to us, whichever protocol it came in."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

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
from services.providers.loose import mapping, words
from services.providers.text import clean_text

_LONGEST_QUOTE = 300
_SHORTEST_SECRET = 8

_CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"}
_CONTEXT_WORDS = re.compile(
    r"context (length|size|window)|maximum context|prompt is too long|too many (input |prompt )?tokens"
    r"|(input|prompt)( token count)? (length )?exceeds|exceeds? .{0,60}(token|context)",
    re.IGNORECASE,
)
_CONTENT_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"}
_MODEL_CODES = {"model_not_found", "deploymentnotfound", "invalid_model", "unknown_model"}
_MODEL_WORDS = re.compile(r"model .{0,120}(not found|does not exist|not exist|is not available)", re.IGNORECASE)
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached"}
_RATE_CODES = {"rate_limit_exceeded", "rate_limit_error", "too_many_requests"}
_AUTH_CODES = {"invalid_api_key", "authentication_error", "permission_denied"}

_SECRETS = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai)-[\w*.…-]{4,}|\bBearer\s+\S+|(?<=api-key:)\s*\S+|(?<=api_key=)[^\s&]+|\beyJ[\w-]{8,}\.[\w.-]+",
    re.IGNORECASE,
)
_HTML = re.compile(r"<(!doctype|html|head|body)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Complaint:
    """A model server's own words on what went wrong. `status` is None inside a stream that began well."""

    message: str
    status: int | None = None
    code: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Complaints:
    """Turns complaints of one connection into our errors, without its secrets."""

    provider: str
    secrets: Collection[str] = field(default=(), repr=False)

    def fault(self, complaint: Complaint) -> ProviderError:
        """The error to raise. Its message quotes the server shortly; `details` tell status, code and `retry_after`."""
        kind = _kind(complaint)
        details: dict[str, Any] = {"provider": self.provider}
        if complaint.status is not None:
            details["status"] = complaint.status
        if complaint.code:
            details["server_code"] = self.quote(complaint.code)
        if complaint.retry_after is not None:
            details["retry_after"] = complaint.retry_after
        quoted = self.quote(complaint.message)
        error = kind(f"{kind().message.rstrip('.')}: {quoted}" if quoted else None, **details)
        if complaint.code in _QUOTA_CODES or (complaint.status is not None and 300 <= complaint.status < 400):
            error.retryable = False
        return error

    def quote(self, text: str) -> str:
        """`text` fit to be shown: one line, a few hundred characters, no keys, no HTML."""
        if _HTML.search(text[:2000]):
            return "it answered with an HTML page; is the address right?"
        text = text[:20_000]
        for secret in self.secrets:
            # Local servers get keys like "ollama", which are words before they are secrets.
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "[key]")
        text = " ".join(clean_text(_SECRETS.sub("[key]", text)).split())
        return text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 1]}…"


def complaint_in(body: Any, *, status: int | None = None, retry_after: float | None = None) -> Complaint:
    """The complaint in an `error` object, in whichever of the common shapes it comes."""
    error = mapping(body)
    if isinstance(error.get("error"), Mapping):
        error = mapping(error["error"])
    inner = mapping(error.get("innererror"))
    # Some put the HTTP status where others put a word.
    codes = (words(code) for code in (error.get("code"), inner.get("code"), error.get("type")))
    code = next((code for code in codes if code and not code.isdigit()), "")
    message = words(error.get("message")) or words(error.get("error")) or words(error.get("detail")) or words(body)
    return Complaint(message, status, code, retry_after)


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds, where the server gives it as a number (RFC 9110, 10.2.3)."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * factor
        except ValueError:
            continue
        if 0 <= seconds < 1e9:
            return seconds
    return None


def _kind(complaint: Complaint) -> type[ProviderError]:
    """Codes say more than statuses, and statuses more than words."""
    by_code = _kind_of_code(complaint.code.lower())
    if by_code is not None:
        return by_code
    match complaint.status:
        case 401 | 403:
            return ProviderAuthentication
        case 404:
            return ProviderRejected if _HTML.search(complaint.message) or not complaint.message else UnknownModel
        case 408 | 504:
            return ProviderTimeout
        case 429:
            return ProviderRateLimited
        case status:
            return _kind_of_words(complaint.message, status)


def _kind_of_code(code: str) -> type[ProviderError] | None:
    for codes, kind in (
        (_CONTEXT_CODES, ProviderContextTooLong),
        (_CONTENT_CODES, ProviderRefusedContent),
        (_MODEL_CODES, UnknownModel),
        (_QUOTA_CODES | _RATE_CODES, ProviderRateLimited),
        (_AUTH_CODES, ProviderAuthentication),
    ):
        if code in codes:
            return kind
    return None


def _kind_of_words(message: str, status: int | None) -> type[ProviderError]:
    if _CONTEXT_WORDS.search(message):
        return ProviderContextTooLong
    if status is None or status >= 500:
        return ProviderError
    return UnknownModel if _MODEL_WORDS.search(message) else ProviderRejected
