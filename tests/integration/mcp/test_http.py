"""Servers over streamable HTTP: some that others wrote, and one that fails in every way."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from services.errors import ToolError, ToolFailed, ToolTimedOut, ToolUnavailable
from services.mcp.config import Address, McpServer
from tests.fakes.hostile_http import HostileHttp
from tests.integration.mcp.conftest import pooled
from tests.integration.mcp.test_hostile import never_stalling
from tests.waiting import eventually

TIME_OVER_HTTP = """
import sys
from mcp_server_time.server import create_server
create_server("UTC").run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
"""


def program(*words: str) -> AbstractAsyncContextManager[str]:
    """The URL of a Python program that listens on the port that is its last argument."""
    return listening(sys.executable, *words)


@asynccontextmanager
async def listening(*command: str) -> AsyncGenerator[str, None]:
    """The URL of a program that listens on the port that is its last argument, and in its environment as PORT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *command,
        str(port),
        env=os.environ | {"PORT": str(port)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(lambda: _listens(port), 30)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_server_of_the_official_library_in_both_kinds_of_the_protocol(mode: Any) -> None:
    async with (
        program("-P", "-c", TIME_OVER_HTTP) as url,
        pooled(McpServer("clock", Address(url), mode=mode)) as caller,
    ):
        assert await caller.tool_names("clock") == ["get_current_time", "convert_time"]
        answers = await asyncio.gather(
            *(caller.call("get_current_time", "clock", timezone="Asia/Tokyo") for _ in range(10))
        )

    assert {json.loads(answer)["timezone"] for answer in answers} == {"Asia/Tokyo"}


async def test_a_server_that_shares_no_code_with_our_client() -> None:
    async with (
        program("-m", "phocinae_mcp", "--transport", "http", "--port") as url,
        pooled(McpServer("seal", Address(url))) as caller,
    ):
        assert "gate" in await caller.tool_names("seal")
        allowed = json.loads(await caller.call("gate", "seal", command="ls"))
        with pytest.raises(ToolFailed, match="refused the call"):
            await caller.call("missing", "seal")

    assert allowed["decision"] == "allow"


@pytest.fixture
async def fake() -> AsyncGenerator[HostileHttp, None]:
    """A server that misbehaves."""
    async with HostileHttp() as server:
        yield server


def reach(fake: HostileHttp, **changes: Any) -> Sequence[McpServer]:
    """The configuration for it."""
    return [McpServer("hostile", Address(fake.url, {"authorization": "Bearer secret"}), mode="legacy", **changes)]


FAULTS: list[tuple[str, type[ToolError], str]] = [
    ("cut", ToolUnavailable, "cannot be reached"),
    ("cut_stream", ToolUnavailable, "ended during the call"),
    ("error", ToolFailed, "refused the call"),
    ("page", ToolFailed, "refused the call"),
    ("garbage", ToolFailed, "not in its own protocol"),
    ("bomb", ToolUnavailable, "compressed"),
    ("elsewhere", ToolFailed, "refused the call"),
    ("refused", ToolUnavailable, "refused our credentials"),
    ("big", ToolFailed, "larger than 4 MiB"),
    ("big_event", ToolFailed, "too large"),
    ("crumbs", ToolFailed, "too many parts"),
    ("flood", ToolFailed, "too large"),
]


@pytest.mark.parametrize(("way", "kind", "words"), FAULTS)
async def test_a_fault_costs_its_own_call_and_no_other(
    fake: HostileHttp, way: str, kind: type[ToolError], words: str
) -> None:
    async with pooled(*reach(fake)) as caller:
        beside = asyncio.create_task(caller.call("hang"))
        await caller.call("echo")
        async with never_stalling():
            with pytest.raises(kind, match=words) as error:
                await caller.call(way)

        assert await caller.call("echo") == "echo"
        assert not beside.done()
        assert "secret" not in error.value.message
        beside.cancel()
        await asyncio.wait([beside])


async def test_the_operators_headers_go_with_every_request(fake: HostileHttp) -> None:
    async with pooled(*reach(fake)) as caller:
        await caller.call("echo")

    assert all(headers["Authorization"] == "Bearer secret" for headers in fake.headers)


async def test_a_call_that_takes_too_long_is_given_up_and_the_server_is_told(fake: HostileHttp) -> None:
    async with pooled(*reach(fake, timeout=0.3)) as caller:
        with pytest.raises(ToolTimedOut):
            await caller.call("hang")
        await eventually(lambda: "notifications/cancelled" in [message["method"] for message in fake.requests])

        assert await caller.call("echo") == "echo"


async def test_a_server_that_has_forgotten_us_is_greeted_again(fake: HostileHttp) -> None:
    async with pooled(*reach(fake)) as caller:
        await caller.call("echo")
        fake.session = "second"

        assert await caller.call("echo") == "echo"


async def test_a_server_that_is_down_is_tried_again_when_it_is_needed(fake: HostileHttp) -> None:
    async with pooled(*reach(fake)) as caller:
        await caller.call("echo")
        port = fake.port
        await fake.stop()
        with pytest.raises(ToolUnavailable, match="cannot be reached"):
            await caller.call("echo")
        await fake.start(port)

        assert await caller.call("echo") == "echo"


async def test_nobody_listening_is_said_so(fake: HostileHttp) -> None:
    await fake.stop()
    async with pooled(*reach(fake)) as caller:
        assert "cannot be reached" in await caller.unavailable()
    await fake.start(0)


async def test_an_idle_server_that_has_gone_is_noticed(fake: HostileHttp) -> None:
    async with pooled(*reach(fake), probe_seconds=0.2) as caller:
        await caller.call("echo")
        await fake.stop()
        await eventually(lambda: caller.pool.servers()[0].last_error)

        assert "cannot be reached" in (caller.pool.servers()[0].last_error or "")
    await fake.start(0)
