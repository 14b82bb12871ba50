"""A client that sends too much of a head, too slowly, or never reads is told, and costs nothing."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.service import local_settings, running_service

_POST = b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_LINE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
async def guarded(shared_database_url: str) -> AsyncGenerator[str, None]:
    """A service of little patience."""
    settings = local_settings(timeouts={"head": 0.3, "body": 0.3, "stall": 0.5}, limits={"head_bytes": 4_096})
    async with running_service(settings, shared_database_url) as base_url:
        yield base_url


async def said(base_url: str, *pieces: bytes) -> tuple[int, dict[str, Any]]:
    """The status and body of what the service answers before it closes the connection."""
    reader, writer = await asyncio.open_connection(urlsplit(base_url).hostname, urlsplit(base_url).port)
    try:
        for piece in pieces:
            writer.write(piece)
        async with asyncio.timeout(5):
            answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return 0, {}
    if b"problem+json" in head:
        assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body) if body else {}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /livez?" + b"x" * 8_181 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
        (b"GET /livez?" + b"x" * 8_186 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 414),
        (_LINE + b"Connection: close\r\n" + b"X-A: b\r\n" * 98 + b"\r\n", 200),
        (_LINE + b"Connection: close\r\n" + b"X-A: b\r\n" * 99 + b"\r\n", 431),
        (_LINE + b"Connection: close\r\nX-A: " + b"x" * 32_600 + b"\r\n\r\n", 200),
        (_LINE + b"Connection: close\r\nX-A: " + b"x" * 32_768 + b"\r\n\r\n", 431),
        (_LINE + b"X-A: " + b"x" * 40_000, 431),
    ],
)
async def test_a_head_has_its_limits(service: str, head: bytes, status: int) -> None:
    told, body = await said(service, head)

    assert told == status
    if status != 200:
        assert (body["status"], body["errors"], body["resend_safe"]) == (status, [], True)


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n"])
async def test_what_is_no_request_is_refused_in_our_words(service: str, sent: bytes) -> None:
    status, body = await said(service, sent)

    assert (status, body["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /livez HT",
        _LINE,
        _LINE + b"X-A: b\r\n",
        _POST + b"Content-Length: 9\r\n\r\n{",
    ],
)
async def test_a_request_that_does_not_come_to_an_end_is_ended(guarded: str, sent: bytes) -> None:
    status, body = await said(guarded, sent)

    assert (status, body["code"], body["retryable"]) == (408, "request_timeout", True)


async def test_a_client_that_says_nothing_is_sent_away(guarded: str) -> None:
    assert await said(guarded) == (0, {})


async def test_a_head_that_comes_drop_by_drop_is_ended_all_the_same(guarded: str) -> None:
    reader, writer = await asyncio.open_connection(urlsplit(guarded).hostname, urlsplit(guarded).port)
    writer.write(_LINE)

    async def drip() -> None:
        while True:
            writer.write(b"X-A: b\r\n")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(5):
        status = await reader.readline()
    dripping.cancel()
    writer.close()

    assert b" 408 " in status


async def test_the_next_request_on_a_connection_is_not_waited_for_either(guarded: str) -> None:
    reader, writer = await asyncio.open_connection(urlsplit(guarded).hostname, urlsplit(guarded).port)
    writer.write(_LINE + b"\r\n" + _LINE)
    async with asyncio.timeout(5):
        answers = await reader.read()
    writer.close()

    assert answers.startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_never_reads_is_cut(guarded: str) -> None:
    reader, writer = await asyncio.open_connection(urlsplit(guarded).hostname, urlsplit(guarded).port, limit=1_024)
    for _ in range(40):
        writer.write(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(10):
        await _reset(writer)

    assert reader.exception() is not None or writer.transport.is_closing()


async def _reset(writer: asyncio.StreamWriter) -> None:
    """Wait, without reading, until the service has closed the connection."""
    while True:
        try:
            writer.write(b"\r\n")
            await writer.drain()
        except ConnectionError:
            return
        await asyncio.sleep(0.1)
