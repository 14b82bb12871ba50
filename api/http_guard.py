"""What uvicorn speaks on HTTP, guarded against clients that send too much of a head, too slowly, or never read.

uvicorn bounds neither the head of a request (a header of a gigabyte is gathered in memory) nor the time in which it has
to come, and waits for ever for a client that takes nothing. What the client hears is problem+json here too.
"""

import asyncio
import time
from asyncio import TimerHandle
from dataclasses import dataclass
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.schemas.problems import Problem
from api.settings import Settings

_MEDIA_TYPE = "application/problem+json"
_LOOKS = 5
"""How often in its time a client is looked at."""
_SLOWEST = 16_384
"""Bytes a second from which on a body may take longer than its time."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Numbers of the operator: bytes, headers and seconds."""

    url_bytes: int
    head_bytes: int
    headers: int
    head_seconds: float
    body_seconds: float
    stall_seconds: float


class GuardedHttp(HttpToolsProtocol):
    """An HTTP connection on which everything ends in time. Pass what `guarded_http` returns to uvicorn as `http=`."""

    limits: HttpLimits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._timer: TimerHandle | None = None
        self._stall: TimerHandle | None = None
        self._head_bytes = 0
        self._body_bytes = 0
        self._in_head = True
        self._has_begun = False
        self._fault = HTTPStatus.BAD_REQUEST
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_timer()
        if self._stall is not None:
            self._stall.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if self._timer is None:
                self._await_head()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.head_bytes and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    # What comes

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun, self._body_bytes = True, 0
        if self._timer is None:  # it came in one go with the request before it
            self._await_head()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url_bytes:
            self._fault = HTTPStatus.REQUEST_URI_TOO_LONG
            raise _TooMuch

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > self.limits.headers or size > self.limits.head_bytes:
            self._fault = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _TooMuch

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._end_timer()
        super().on_headers_complete()
        self._watch_body(time.monotonic())

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._end_timer()
        self._in_head, self._has_begun, self._head_bytes = True, False, 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._end_timer()
        super().handle_websocket_upgrade()

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.limits.head_seconds, self._too_slow)

    def _watch_body(self, since: float) -> None:
        """Give a body its time, and more as long as it comes fast enough. While nobody here reads, it may wait."""
        allowed = self.limits.body_seconds + self._body_bytes / _SLOWEST
        if time.monotonic() - since > allowed and not self.flow.read_paused:
            self._too_slow()
        else:
            self._timer = self.loop.call_later(self.limits.body_seconds / _LOOKS, self._watch_body, since)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What goes

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(self.transport.get_write_buffer_size(), self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _watch_reader(self, unsent: int, since: float) -> None:
        """Drop a client that takes nothing for `stall_seconds`; a slow one may stay."""
        now, waiting = self.loop.time(), self.transport.get_write_buffer_size()
        if waiting < unsent:
            unsent, since = waiting, now
        if now - since >= self.limits.stall_seconds:
            self.transport.abort()
        else:
            self._stall = self.loop.call_later(self.limits.stall_seconds / _LOOKS, self._watch_reader, unsent, since)

    # Refusals

    def _too_slow(self) -> None:
        self._timer = None
        if self.cycle and not self.cycle.response_complete and self.cycle.response_started:
            self.transport.abort()  # an answer has begun: another one would be taken for a part of it
        elif self._in_head and not self._has_begun:
            self.transport.close()  # nobody has asked anything
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        self._fault = status
        self.send_400_response("")
        self.loop.call_later(self.limits.stall_seconds, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what never came to be a request, and close."""
        status, self._fault = self._fault, HTTPStatus.BAD_REQUEST
        problem = Problem(
            title=status.phrase,
            status=status,
            detail=_DETAILS[status],
            code=status.name.lower(),
            request_id=None,
            retryable=status is HTTPStatus.REQUEST_TIMEOUT,
            resend_safe=True,
        )
        body = problem.model_dump_json().encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {_MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        )
        self._end_timer()
        self.transport.write(head.encode() + body)
        self.transport.close()


class _TooMuch(Exception):
    """The parser is to stop."""


_DETAILS = {
    HTTPStatus.BAD_REQUEST: "What was sent is no HTTP request.",
    HTTPStatus.REQUEST_TIMEOUT: "The request did not come in time.",
    HTTPStatus.REQUEST_URI_TOO_LONG: "The address is too long.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The headers are too many or too long.",
}


def guarded_http(settings: Settings) -> type[GuardedHttp]:
    """A `GuardedHttp` with the operator's numbers."""
    most, timeouts = settings.limits, settings.timeouts
    limits = HttpLimits(most.url_bytes, most.head_bytes, most.headers, timeouts.head, timeouts.body, timeouts.stall)
    return type("GuardedHttp", (GuardedHttp,), {"limits": limits})
