"""Every fault that a user can be told of, sorted by whose it is.

An error's docstring is its default message. `code` is the stable name of the fault: the same over REST
(problem+json) and in a WebSocket `error` frame. HTTP statuses live in `api/errors.py` only.
"""

import inspect
from typing import Any, Literal

Whose = Literal["caller", "model", "provider", "server"]


class ColloquyError(Exception):
    """Something went wrong."""

    code: str = "internal"
    whose: Whose = "server"
    retryable: bool = False
    """Doing the same again later may work."""
    resend_safe: bool = False
    """Sending the same message again cannot make anything happen twice."""

    def __init__(self, message: str | None = None, **details: Any) -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or "").split("\n", 1)[0]
        self.details: dict[str, Any] = details
        super().__init__(self.message)


# --- the caller's ---------------------------------------------------------------------------------------------


class CallerError(ColloquyError):
    """The request cannot be carried out as it was made."""

    code = "bad_request"
    whose = "caller"
    resend_safe = True


class InvalidRequest(CallerError):
    """A field of the request is missing, unknown or out of range."""

    code = "invalid_request"


class NotFound(CallerError):
    """There is nothing here with that id."""

    code = "not_found"


def no_session(**details: Any) -> NotFound:
    """There is no such session, or it is somebody else's."""
    return NotFound("There is no session with that id.", **details)


class NotAuthenticated(CallerError):
    """Sign in first: send an access token or an API key as `Authorization: Bearer …`."""

    code = "not_authenticated"


class InsufficientScope(CallerError):
    """What was shown does not allow this."""

    code = "insufficient_scope"


class Conflict(CallerError):
    """The request does not fit the present state."""

    code = "conflict"


class NoAccounts(Conflict):
    """This service has no accounts (AUTH_MODE=local): whoever reaches it is its owner and needs to show nothing."""

    code = "accounts_are_off"


class NothingRunning(Conflict):
    """Nothing is running that could be stopped."""

    code = "nothing_running"


class StaleVersion(CallerError):
    """It was changed by somebody else in the meantime: read it again before changing it."""

    code = "stale_version"


class SessionBusy(CallerError):
    """A reply is running in this session."""

    code = "session_busy"
    retryable = True


class TooManyRequests(CallerError):
    """Too much at once: wait for `retry_after` seconds."""

    code = "too_many_requests"
    retryable = True


class QuotaExceeded(TooManyRequests):
    """The tokens of today are used up."""

    code = "quota_exceeded"


class UnknownProvider(CallerError):
    """No connection has that name."""

    code = "unknown_provider"


class ConnectionOff(CallerError):
    """That connection is switched off."""

    code = "connection_off"


class UnknownControl(CallerError):
    """That control does not exist."""

    code = "unknown_control"


class InvalidControl(CallerError):
    """A control has a value that cannot be used."""

    code = "invalid_control"


class ContextTooLong(CallerError):
    """The message does not fit the model's context window."""

    code = "context_too_long"


# --- the model's ----------------------------------------------------------------------------------------------


class ModelError(ColloquyError):
    """The model did something that cannot be used."""

    code = "model_error"
    whose = "model"
    retryable = True


class ReplyTooLong(ModelError):
    """The reply grew over the limit and was stopped."""

    code = "reply_too_long"
    retryable = False


class UnusableCalls(ModelError):
    """The model kept asking for tools in a way that cannot be carried out."""

    code = "unusable_calls"


# --- the provider's -------------------------------------------------------------------------------------------


class ProviderError(ColloquyError):
    """The model server failed."""

    code = "provider_error"
    whose = "provider"
    retryable = True


class ProviderUnreachable(ProviderError):
    """The model server cannot be reached."""

    code = "provider_unreachable"


class AddressNotAllowed(CallerError, ProviderError):
    """Nobody may connect to that address from here: it is not public, and not in ALLOWED_PRIVATE_HOSTS."""

    code = "provider_host_not_allowed"
    whose = "caller"
    retryable = False
    resend_safe = True


class ProviderAuthentication(ProviderError):
    """The model server refused our key."""

    code = "provider_authentication"
    retryable = False


class ProviderRateLimited(ProviderError):
    """The model server asks us to slow down."""

    code = "provider_rate_limited"


class ProviderTimeout(ProviderError):
    """The model server did not answer in time."""

    code = "provider_timeout"


class ProviderRejected(ProviderError):
    """The model server refused the request."""

    code = "provider_rejected"
    retryable = False


class ProviderRefusedContent(ProviderError):
    """The model server's content filter refused the request."""

    code = "provider_refused_content"
    retryable = False


class ProviderContextTooLong(ProviderError):
    """The model server says that the request is longer than its context window."""

    code = "provider_context_too_long"
    retryable = False


class UnknownModel(ProviderError):
    """The model server does not have that model."""

    code = "unknown_model"
    retryable = False


class ProviderBrokeOff(ProviderError):
    """The model server broke off in the middle of its answer."""

    code = "provider_broke_off"


class ProviderGarbled(ProviderError):
    """The model server sent something that is not in its own protocol."""

    code = "provider_garbled"


# --- the tool server's ------------------------------------------------------------------------------------------


class ToolError(ColloquyError):
    """The tool server failed."""

    code = "tool_error"
    whose = "provider"
    retryable = True


class ToolUnavailable(ToolError):
    """The tool server cannot be reached just now."""

    code = "tool_unavailable"


class ToolTimedOut(ToolError):
    """The tool did not answer in time."""

    code = "tool_timed_out"


class ToolFailed(ToolError):
    """The tool server gave an answer that cannot be used."""

    code = "tool_failed"
    retryable = False


# --- ours -----------------------------------------------------------------------------------------------------


class ServerError(ColloquyError):
    """The service failed; nothing of what you sent is lost unless this says so."""

    code = "internal"
    whose = "server"
    retryable = True


class Unavailable(ServerError):
    """The database cannot be reached just now."""

    code = "unavailable"


class ShuttingDown(ServerError):
    """The service is going down and takes no new messages."""

    code = "shutting_down"
    resend_safe = True


class LeaseLost(ServerError):
    """Another process has taken over this session."""

    code = "lease_lost"


class RunTimedOut(ServerError):
    """The reply took longer than a run may take."""

    code = "run_timed_out"
