"""Servers that fail in every way: each costs one clear error or nothing at all, and the next call is answered."""

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.errors import ToolFailed, ToolTimedOut, ToolUnavailable
from services.mcp.config import McpServer, Program
from services.mcp.types import ToolProgress
from tests.integration.mcp.conftest import inhabitants, pooled
from tests.waiting import eventually

Hostile = Callable[..., McpServer]

LONG_STALL = 0.2
"""Seconds for which nothing else may be kept from going on; only the worst of these servers come near it."""


@asynccontextmanager
async def never_stalling() -> AsyncGenerator[None, None]:
    """Fails if the loop stood still meanwhile."""
    worst = 0.0

    async def look() -> None:
        nonlocal worst
        while True:
            begun = time.monotonic()
            # Processor time: that others have the machine is not our doing.
            used = time.thread_time()
            await asyncio.sleep(0.001)
            worst = max(worst, min(time.monotonic() - begun, time.thread_time() - used))

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait([looking])
    assert worst < LONG_STALL, f"the loop stood still for {worst * 1000:.0f} ms"


async def test_a_program_that_does_not_exist_is_named_and_nothing_waits_for_it(home: Path) -> None:
    async with pooled(McpServer("absent", Program("no-such-program"))) as caller:
        assert "no-such-program" in await caller.unavailable("absent")
        with pytest.raises(ToolUnavailable, match="no-such-program"):
            await caller.call("anything", "absent")


async def test_a_program_that_cannot_be_run_is_unavailable(home: Path) -> None:
    script = home / "script"
    script.write_text("this is no program")
    script.chmod(0o700)
    async with pooled(McpServer("odd", Program(str(script)))) as caller:
        assert "cannot be used" in await caller.unavailable("odd")


async def test_a_server_that_ends_at_once_says_how(hostile: Hostile) -> None:
    async with pooled(hostile("stillborn")) as caller:
        await caller.unavailable()
        await eventually(lambda: caller.pool.servers()[0].last_error == "its process ended with code 3")

        assert caller.pool.servers()[0].state == "failing"


async def test_while_a_failed_server_rests_it_is_not_started_again(hostile: Hostile) -> None:
    async with pooled(hostile("stillborn")) as caller:
        await caller.unavailable()
        reasons = [await caller.unavailable() for _ in range(20)]

    assert all("tried again" in reason for reason in reasons)


async def test_a_silent_process_is_given_up_and_ended(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile("silent"), start_seconds=0.5) as caller:
        assert "did not start within 0.5 seconds" in await caller.unavailable()
        await eventually(lambda: not inhabitants(home))


async def test_a_slow_start_costs_a_list_only_its_patience_and_goes_on(hostile: Hostile) -> None:
    async with pooled(hostile("sluggish"), wait_seconds=0.2) as caller:
        assert "still starting" in await caller.unavailable()
        assert await caller.call("echo", a=1) == '{"a": 1}'
        assert "echo" in await caller.tool_names()


async def test_a_start_that_fails_when_nobody_waits_any_more_is_no_error_of_ours(
    hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    async with pooled(hostile("sluggish", "stillborn"), wait_seconds=0.1) as caller:
        assert "still starting" in await caller.unavailable()
        await eventually(lambda: caller.pool.servers()[0].state == "failing", 15)
    gc.collect()

    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_server_that_dies_costs_its_calls_and_starts_again_for_the_next(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        first = await caller.call("pid")
        others = [asyncio.create_task(caller.call("sleep")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ToolUnavailable, match="ended during the call"):
            await caller.call("die")
        for error in await asyncio.gather(*others, return_exceptions=True):
            assert isinstance(error, ToolUnavailable)

        assert await caller.call("pid") != first


async def test_a_server_that_keeps_dying_is_made_to_rest(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        for _ in range(2):
            with pytest.raises(ToolUnavailable, match="ended during the call"):
                await caller.call("die")
        with pytest.raises(ToolUnavailable, match="tried again in") as refused:
            await caller.call("echo")

    assert refused.value.details["retry_after"] >= 1


async def test_a_call_that_only_reads_is_made_again_if_its_server_dies(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile()) as caller:
        await caller.tool_names()
        assert await caller.call("count_again") == "2"


async def test_a_call_that_may_do_something_is_never_made_twice(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile()) as caller:
        await caller.tool_names()
        with pytest.raises(ToolUnavailable):
            await caller.call("count")
        await caller.call("echo")

    assert (home / "ledger").read_text() == "called\n"


async def test_a_server_that_is_not_trusted_is_not_believed_that_a_tool_only_reads(
    hostile: Hostile, home: Path
) -> None:
    async with pooled(hostile(trusted=False)) as caller:
        await caller.tool_names()
        with pytest.raises(ToolUnavailable):
            await caller.call("count_again")

    assert (home / "ledger").read_text() == "called\n"


async def test_a_killed_server_is_noticed_while_nobody_calls(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        pid = int(await caller.call("pid"))
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: caller.pool.servers()[0].last_error == "its process was killed by signal 9")

        assert int(await caller.call("pid")) != pid


async def test_the_end_of_a_process_is_noticed_though_its_child_holds_the_pipes(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile()) as caller:
        await caller.call("bear")
        with pytest.raises(ToolUnavailable, match="ended during the call"):
            await caller.call("die")
        await caller.call("echo")
        await eventually(lambda: len(inhabitants(home)) == 1)


async def test_a_frozen_server_costs_the_calls_that_wait_and_is_replaced(hostile: Hostile) -> None:
    async with pooled(hostile(timeout=0.5), answer_seconds=0.5) as caller:
        first = await caller.call("pid")
        with pytest.raises(ToolTimedOut, match="did not answer within"):
            await caller.call("freeze")

        # The next call is not sent to it.
        assert await caller.call("pid") != first


async def test_large_arguments_for_a_frozen_server_can_be_cancelled_at_once(hostile: Hostile) -> None:
    async with pooled(hostile(timeout=30), message_bytes=1_000_000) as caller:
        os.kill(int(await caller.call("pid")), signal.SIGSTOP)
        calls = [asyncio.create_task(caller.call("echo", text="x" * 300_000)) for _ in range(8)]
        refused, waiting = await asyncio.wait(calls, timeout=0.5)
        for call in waiting:
            call.cancel()
        async with asyncio.timeout(1):
            await asyncio.gather(*waiting, return_exceptions=True)

    assert all(call.cancelled() for call in waiting)
    # What it does not read does not gather without end.
    assert refused
    assert all("does not read" in str(call.exception()) for call in refused)


async def test_a_server_that_never_answers_in_time_is_replaced_even_if_it_says_that_it_is_alive(
    hostile: Hostile,
) -> None:
    async with pooled(hostile("deaf", timeout=0.2)) as caller:
        first = await caller.call("pid")
        for _ in range(3):
            with pytest.raises(ToolTimedOut):
                await caller.call("sleep")

        assert await caller.call("pid") != first


async def test_cancelling_a_call_tells_the_server(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile()) as caller:
        call = asyncio.create_task(caller.call("sleep"))
        await eventually((home / "begun").exists)
        call.cancel()
        await asyncio.wait([call])

        assert call.cancelled()
        await eventually((home / "cancelled").exists)
        assert await caller.call("echo") == "{}"


async def test_a_call_that_takes_too_long_tells_the_server(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile(timeout=0.3)) as caller:
        with pytest.raises(ToolTimedOut):
            await caller.call("sleep")
        await eventually((home / "cancelled").exists)


async def test_a_server_that_does_not_hear_of_cancelling_goes_on_serving(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile("deaf")) as caller:
        call = asyncio.create_task(caller.call("sleep", seconds=0.5))
        await eventually((home / "begun").exists)
        call.cancel()
        await asyncio.wait([call])

        # Its late answer is nobody's.
        assert await caller.call("sleep", seconds=0.6) == "slept"


@pytest.mark.parametrize("manner", ["polite", "backwards"])
async def test_an_answer_of_20_megabytes_is_refused_without_a_stall(hostile: Hostile, manner: str) -> None:
    async with pooled(hostile(manner)) as caller:
        await caller.call("echo")
        async with never_stalling():
            with pytest.raises(ToolFailed, match="larger than 4 MiB"):
                await caller.call("big", bytes=20_000_000)

        assert await caller.call("echo") == "{}"


async def test_a_large_answer_is_cut_and_says_so(hostile: Hostile) -> None:
    async with pooled(hostile(), text_characters=1_000) as caller, never_stalling():
        outcome = await caller.ask("big", bytes=4_000_000)

    assert outcome.text == "x" * 1_000
    assert outcome.truncated


async def test_an_answer_of_countless_parts_does_not_stall(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        await caller.call("echo")
        async with never_stalling():
            with pytest.raises(ToolFailed, match="too many parts"):
                await caller.call("crumbs")


async def test_a_flood_of_progress_is_thinned_out(hostile: Hostile) -> None:
    seen: list[ToolProgress] = []
    async with pooled(hostile()) as caller:
        await caller.call("echo")
        begun = time.monotonic()
        async with never_stalling():
            outcome = await caller.pool.call(
                caller.owner_id, caller.session_id, "hostile", "flood", {}, on_progress=seen.append
            )

    assert outcome.text == "done"
    assert 0 < len(seen) <= (time.monotonic() - begun) * 10 + 1


async def test_progress_is_handed_on(hostile: Hostile) -> None:
    seen: list[ToolProgress] = []
    async with pooled(hostile()) as caller:
        await caller.pool.call(caller.owner_id, caller.session_id, "hostile", "progress", {}, on_progress=seen.append)

    assert seen == [ToolProgress(1, 2, "step 1"), ToolProgress(2, 2, "step 2")]


async def test_garbage_between_messages_is_stepped_over(hostile: Hostile, caplog: pytest.LogCaptureFixture) -> None:
    async with pooled(hostile()) as caller:
        assert await caller.call("garbage") == "tidy again"

    assert len([record for record in caplog.records if "no message" in record.message]) == 1


async def test_an_answer_that_is_no_result_is_the_servers_fault(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        with pytest.raises(ToolFailed, match="not in its own protocol"):
            await caller.call("nonsense")
        with pytest.raises(ToolFailed, match="there is no such tool"):
            await caller.call("missing")
        assert await caller.call("echo") == "{}"


async def test_megabytes_of_complaints_do_not_stall_and_do_not_stop_the_server(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller, never_stalling():
        assert await caller.call("shout") == "hoarse"


async def test_last_words_are_in_the_log_and_nowhere_else(hostile: Hostile, caplog: pytest.LogCaptureFixture) -> None:
    async with pooled(hostile()) as caller:
        with pytest.raises(ToolUnavailable) as error:
            await caller.call("die")
        await eventually(lambda: "this is why" in caplog.text)

        assert "this is why" not in error.value.message
        assert "this is why" not in str(caller.pool.servers())


async def test_all_kinds_of_content_become_text_and_pictures(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        mixed = await caller.ask("pictures")
        structured = await caller.ask("structured")

    assert mixed.text.splitlines() == [
        "look",
        "[a picture: image/png]",
        "[a picture: image/png]",
        "[a picture: image/svg+xml]",
        "[a sound: audio/wav]",
        "[a link: a <file:///a.txt>]",
        "inside",
        "[a file: of unknown type <file:///c>]",
        "nul \N{REPLACEMENT CHARACTER} and \N{REPLACEMENT CHARACTER} end",
    ]
    assert [(image.media_type, image.data[:4]) for image in mixed.images] == [("image/png", b"\x89PNG")]
    assert json.loads(structured.text) == {"answer": 42}


async def test_a_server_gets_a_small_environment_and_what_the_operator_gives_it(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_SECRET_KEY", "canary")
    server = hostile()
    assert isinstance(server.reach, Program)
    given = Program(server.reach.command, server.reach.args, {"TOKEN": "given"}, server.reach.cwd)
    async with pooled(McpServer("hostile", given, mode="legacy")) as caller:
        environment = json.loads(await caller.call("environment"))

    assert environment["TOKEN"] == "given"
    assert environment["PATH"] == os.environ["PATH"]
    assert "OUR_SECRET_KEY" not in environment
    assert "canary" not in str(environment)


async def test_arguments_are_never_given_to_a_shell(home: Path) -> None:
    words = ("-c", "open('words', 'w').write(sys.argv[1])".replace("sys", "__import__('sys')"), "$(touch shell); *")
    async with pooled(McpServer("odd", Program(sys.executable, words, cwd=str(home)))) as caller:
        await caller.unavailable("odd")

    assert (home / "words").read_text() == "$(touch shell); *"
    assert not (home / "shell").exists()


async def test_a_server_that_stays_when_asked_to_go_is_killed_with_its_children(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile("stays")) as caller:
        await caller.call("bear")
        assert len(inhabitants(home)) == 2
        begun = time.monotonic()

    assert time.monotonic() - begun < 10
    await eventually(lambda: not inhabitants(home))


async def test_stopping_the_pool_ends_calls_and_starts_that_are_under_way(hostile: Hostile) -> None:
    async with pooled(hostile(), hostile("silent", name="silent")) as caller:
        await caller.call("echo")
        call = asyncio.create_task(caller.call("sleep"))
        start = asyncio.create_task(caller.call("echo", "silent"))
        await asyncio.sleep(0.05)

    for task in (call, start):
        with pytest.raises(ToolUnavailable):
            await task


async def test_after_its_end_the_pool_starts_nothing(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile()) as caller:
        pass

    assert "going down" in await caller.unavailable()
    assert not inhabitants(home)
