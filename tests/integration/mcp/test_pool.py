"""What the pool promises to those who use it: shared starts, warm lists, copies for whom they are meant."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from db.ids import SessionId
from services.errors import ToolFailed, ToolUnavailable
from services.mcp.config import McpServer
from services.mcp.listing import PERMISSIVE
from tests.integration.mcp.conftest import Caller, inhabitants, pooled
from tests.waiting import eventually

Hostile = Callable[..., McpServer]


async def test_nothing_runs_before_it_is_needed(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile()) as caller:
        (status,) = caller.pool.servers()
        assert (status.state, status.running, status.tools) == ("idle", 0, None)
        assert not inhabitants(home)

        await caller.tool_names()

        (status,) = caller.pool.servers()
        assert (status.state, status.running, status.last_error) == ("ready", 1, None)
        assert "echo" in [tool.name for tool in status.tools or ()]


async def test_all_who_wait_for_a_start_share_it(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile()) as caller:
        pids = await asyncio.gather(*(caller.call("pid") for _ in range(50)))

        assert len(set(pids)) == 1
        assert len(inhabitants(home)) == 1


async def test_who_stops_waiting_for_a_start_does_not_stop_it(hostile: Hostile) -> None:
    async with pooled(hostile("sluggish")) as caller:
        impatient, patient = (asyncio.create_task(caller.call("echo")) for _ in range(2))
        await eventually(lambda: caller.pool.servers()[0].state == "starting")
        impatient.cancel()

        assert await patient == "{}"
        assert impatient.cancelled()


async def test_the_list_of_a_running_server_costs_no_question(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        for _ in range(100):
            await caller.tool_names()

        assert await caller.call("lists") == "1"


async def test_a_server_that_fails_does_not_keep_the_others_tools_away(hostile: Hostile) -> None:
    async with pooled(hostile("stillborn", name="bad"), hostile(name="good")) as caller:
        offered = await caller.pool.tools(caller.owner_id, caller.session_id, ["bad", "good", "unheard_of"])

    assert "good__echo" in [tool.qualified_name for tool in offered.tools]
    assert set(offered.unavailable) == {"bad", "unheard_of"}
    assert "unheard_of" in offered.unavailable["unheard_of"]


async def test_calls_of_one_server_run_side_by_side(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        await caller.call("echo")
        begun = time.monotonic()
        await asyncio.gather(*(caller.call("sleep", seconds=0.3) for _ in range(10)))

        assert time.monotonic() - begun < 2.5  # one after the other would take three seconds


async def test_no_more_calls_than_allowed_are_given_to_a_server_at_once(hostile: Hostile) -> None:
    async with pooled(hostile(), calls=2) as caller:
        await caller.call("echo")
        begun = time.monotonic()
        await asyncio.gather(*(caller.call("sleep", seconds=0.2) for _ in range(6)))

        assert time.monotonic() - begun >= 0.6


async def test_changed_tools_are_seen_by_the_next_list(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        assert "newcomer" not in await caller.tool_names()
        await caller.call("change")
        await eventually(lambda: _has_newcomer(caller))


async def _has_newcomer(caller: Caller) -> bool:
    return "newcomer" in await caller.tool_names()


async def test_a_change_that_has_been_told_is_in_the_very_next_list(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        await caller.tool_names()
        await caller.call("change")
        await caller.call("echo")  # by now the notice has been heard

        assert "newcomer" in await caller.tool_names()


async def test_nobody_waits_long_for_a_server_that_keeps_failing(hostile: Hostile) -> None:
    async with pooled(hostile("silent"), start_seconds=0.5, wait_seconds=30) as caller:
        await eventually(lambda: _says(caller, "still starting"), 30)

        assert caller.pool.servers()[0].state in ("starting", "failing")


async def _says(caller: Caller, words: str) -> bool:
    return words in await caller.unavailable()


async def test_a_server_that_cries_wolf_is_asked_once_in_a_while(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        await caller.tool_names()
        await caller.call("change", times=1_000)
        await eventually(lambda: _has_newcomer(caller))

        assert int(await caller.call("lists")) <= 8


@pytest.mark.parametrize(("trusted", "approval"), [(True, None), (False, "ask")])
async def test_other_words_for_a_tool_are_logged_and_asked_about_if_its_server_is_not_trusted(
    hostile: Hostile, caplog: pytest.LogCaptureFixture, trusted: bool, approval: str | None
) -> None:
    server = hostile(trusted=trusted, approval={} if trusted else {"*": "auto"})
    async with pooled(server) as caller:
        before = await caller.pool.tools(caller.owner_id, caller.session_id, ["hostile"])
        await caller.call("change")
        await eventually(lambda: _has_newcomer(caller))
        after = await caller.pool.tools(caller.owner_id, caller.session_id, ["hostile"])

    first, same = before.tools[0], after.tools[0]
    assert first.name == same.name
    assert (first.changed, same.changed) == (False, not trusted)
    assert same.approval == approval
    assert "in other words than at first" in caplog.text
    assert not any(tool.changed for tool in after.tools[1:])


async def test_hints_and_the_operators_word_are_handed_on(hostile: Hostile) -> None:
    async with pooled(hostile(approval={"erase": "never", "*": "ask"}, timeout=7.0)) as caller:
        offered = await caller.pool.tools(caller.owner_id, caller.session_id, ["hostile"])
        with pytest.raises(ToolFailed, match="may not be called"):
            await caller.call("erase")

    tools = {tool.name: tool for tool in offered.tools}
    assert (tools["erase"].destructive, tools["erase"].approval) == (True, "never")
    assert (tools["count_again"].read_only, tools["echo"].read_only) == (True, False)
    assert tools["echo"].approval == "ask"
    assert tools["echo"].timeout == 7.0


async def test_lies_about_tools_are_made_harmless(hostile: Hostile) -> None:
    async with pooled(hostile("lying")) as caller:
        offered = await caller.pool.tools(caller.owner_id, caller.session_id, ["hostile"])

    tools = {tool.name: tool for tool in offered.tools}
    harmless = {name for name, tool in tools.items() if tool.parameters == PERMISSIVE}
    assert harmless == {
        "array", "typo", "properties", "enormous", "deep", "recursive", "elsewhere", "nowhere"
    }  # fmt: skip
    assert len(tools["talkative"].description) == 4_000
    names = [tool.qualified_name for tool in offered.tools]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 64 and name.replace("-", "_").isidentifier() for name in names)
    assert "" not in tools


async def test_only_so_many_tools_of_a_server_are_taken(hostile: Hostile) -> None:
    async with pooled(hostile("crowded"), tools=100) as caller:
        assert len(await caller.tool_names()) == 100


async def test_a_copy_per_session_is_nobody_elses_and_ends_with_it(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile(isolation="session")) as caller:
        other = caller.somebody_else()
        mine, theirs = await caller.call("pid"), await other.call("pid")
        assert mine != theirs
        assert mine == await caller.call("pid")

        await caller.pool.end_session(caller.session_id)

        assert inhabitants(home) == {int(theirs)}
        assert await caller.call("pid") != mine


async def test_a_copy_per_user_is_shared_by_their_sessions(hostile: Hostile) -> None:
    async with pooled(hostile(isolation="user")) as caller:
        other, again = caller.somebody_else(), caller.somebody_else()
        again.owner_id = caller.owner_id
        mine = await caller.call("pid")

        assert await again.call("pid") == mine
        assert await other.call("pid") != mine


async def test_a_shared_copy_is_one_for_all(hostile: Hostile) -> None:
    async with pooled(hostile()) as caller:
        assert await caller.call("pid") == await caller.somebody_else().call("pid")
        await caller.pool.end_session(caller.session_id)
        assert caller.pool.servers()[0].running == 1


async def test_when_there_are_too_many_copies_the_one_least_recently_needed_goes(hostile: Hostile) -> None:
    async with pooled(hostile(isolation="session"), copies=2) as caller:
        first, second, third = caller, caller.somebody_else(), caller.somebody_else()
        one, two = await first.call("pid"), await second.call("pid")
        assert await first.call("pid") == one
        await third.call("pid")

        assert await first.call("pid") == one
        assert await second.call("pid") != two


async def test_a_copy_that_is_at_work_is_not_taken_away(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile(isolation="session"), copies=1) as caller:
        call = asyncio.create_task(caller.call("sleep", seconds=0.5))
        await eventually((home / "begun").exists)
        with pytest.raises(ToolUnavailable, match="too many"):
            await caller.somebody_else().call("echo")

        assert await call == "slept"


async def test_a_copy_that_nobody_needs_is_stopped(hostile: Hostile, home: Path) -> None:
    async with pooled(hostile(isolation="session"), hostile(name="shared"), idle_seconds=0.4) as caller:
        await caller.call("echo")
        shared = int(await caller.call("pid", "shared"))
        await eventually(lambda: inhabitants(home) == {shared})

        assert await caller.call("echo") == "{}"


async def test_a_session_without_copies_ends_in_peace(hostile: Hostile) -> None:
    async with pooled(hostile(isolation="session")) as caller:
        await caller.pool.end_session(SessionId(caller.owner_id))


async def test_letters_that_nobody_sees_are_taken_out_of_descriptions(hostile: Hostile) -> None:
    async with pooled(hostile("whispering")) as caller:
        offered = await caller.pool.tools(caller.owner_id, caller.session_id, ["hostile"])

    assert [tool.description for tool in offered.tools] == ["Adds numbers."]


async def test_a_server_that_invents_ever_new_tools_is_remembered_only_so_far(hostile: Hostile) -> None:
    async with pooled(hostile("inventive", trusted=False), probe_seconds=0.01) as caller:
        await caller.tool_names()
        await eventually(lambda: _is_changed(caller), 30)


async def _is_changed(caller: Caller) -> bool:
    offered = await caller.pool.tools(caller.owner_id, caller.session_id, ["hostile"])
    return all(tool.changed and tool.approval == "ask" for tool in offered.tools)


async def test_of_many_calls_those_that_are_not_cancelled_get_their_own_answers(hostile: Hostile) -> None:
    async with pooled(hostile(), calls=100) as caller:
        await caller.call("echo")
        before = len(asyncio.all_tasks())
        lost = [asyncio.create_task(caller.call("sleep", seconds=30)) for _ in range(50)]
        kept = [asyncio.create_task(caller.call("echo", number=number)) for number in range(200)]
        await asyncio.sleep(0)
        for call in lost:
            call.cancel()
        await asyncio.wait([*lost, *kept])

        assert [call.result() for call in kept] == [f'{{"number": {number}}}' for number in range(200)]
        assert all(call.cancelled() for call in lost)
        await eventually(lambda: len(asyncio.all_tasks()) == before)
