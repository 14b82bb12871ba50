"""What the operating system keeps from a script's process, and what is left where the system offers less."""

import asyncio
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from services.hardening import Hardening, harden
from services.scripts.sandbox import Sandbox
from services.scripts.workers import InterpreterMissing, interpreter
from tests.integration.scripts.conftest import four_characters_each
from tests.integration.scripts.notebook import Notebook
from tests.integration.scripts.processes import workers
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="hardening is Linux's")

MONTY = interpreter()


def status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def alive(process: int) -> bool:
    try:
        return not status(process)["State"].startswith("Z")
    except FileNotFoundError:
        return False


def namespace(process: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{process}/ns/{kind}")


async def level_with(tools: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hardening:
    """The level that is reached, and proven by a script, on a machine with only these tools."""
    shelf = tmp_path / "bin"
    shelf.mkdir()
    for tool in tools:
        if not (found := shutil.which(tool)):
            pytest.skip(f"{tool} is not installed here")
        (shelf / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(shelf))
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        level = await sandbox.start()
        assert (await sandbox.run("ctx.log('fine')", Notebook(), may_use_ai=False)).logs == ("fine",)
        assert sandbox.hardening_level is level
    return level


async def test_a_process_has_what_its_level_promises(notebook: Notebook) -> None:
    others = workers()
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        level = await sandbox.start()
        if level is Hardening.NONE:
            pytest.skip("nothing is to be had here")
        (process,) = workers() - others
        assert status(process)["NoNewPrivs"] == "1"
        assert Path(f"/proc/{process}/environ").read_bytes() == b""
        if level is Hardening.LIMITED:
            return
        assert int(status(process)["CapEff"], 16) == int(status(process)["CapPrm"], 16) == 0
        assert namespace(process, "net") != namespace("self", "net")
        if level is Hardening.OFFLINE:
            return
        assert int(status(process)["CapBnd"], 16) == 0
        assert set(os.listdir(f"/proc/{process}/root")) <= {"monty", "setpriv", "lib", "lib64", "dev"}
        mounts = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines()]
        assert mounts
        assert [mount[4] for mount in mounts if "ro" not in mount[5].split(",") and mount[4] != "/dev"] == []


@pytest.mark.parametrize(
    ("tools", "levels"),
    [
        ([], {Hardening.NONE}),
        (["unshare", "setpriv"], {Hardening.NONE}),
        (["nice", "prlimit"], {Hardening.NONE}),
        (["nice", "prlimit", "setpriv"], {Hardening.LIMITED}),
        (["nice", "prlimit", "setpriv", "unshare"], {Hardening.OFFLINE, Hardening.LIMITED}),
        (
            ["nice", "prlimit", "setpriv", "unshare", "mount", "chroot"],
            {Hardening.CONTAINED, Hardening.OFFLINE, Hardening.LIMITED},
        ),
        (["nice", "prlimit", "bwrap"], {Hardening.CONTAINED, Hardening.NONE}),
    ],
)
async def test_the_strongest_level_that_the_machine_offers_is_taken(
    tools: list[str], levels: set[Hardening], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await level_with(tools, tmp_path, monkeypatch) in levels


async def test_a_level_that_does_not_work_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "bin"
    shelf.mkdir()
    for tool in ("nice", "prlimit", "setpriv", "unshare", "bwrap"):
        (shelf / tool).write_text("#!/bin/sh\nexit 1\n")
        (shelf / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(shelf))
    assert await harden(MONTY, tmp_path) == (Hardening.NONE, MONTY.binary)


ORPHAN = """
import asyncio
from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptLimits
from tests.integration.scripts.processes import workers
from tests.waiting import eventually

class Host:
    async def call(self, name, arguments):
        print(*workers(), flush=True)

async def count(text):
    return 0

async def main():
    async with Sandbox(count_tokens=count) as sandbox:
        limits = ScriptLimits(cpu_seconds=60, timeout_ms=60_000)
        await sandbox.run("ctx.get_variable('x')\\nwhile True: pass", Host(), limits, may_use_ai=False)

asyncio.run(main())
"""


async def test_a_script_does_not_outlive_us(shared_sandbox: Sandbox, tmp_path: Path) -> None:
    if shared_sandbox.hardening_level is Hardening.NONE:
        pytest.skip("nothing is to be had here")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ORPHAN),
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    orphans = [int(word) for word in (await asyncio.wait_for(process.stdout.readline(), 20)).split()]
    assert orphans
    process.kill()
    await process.wait()
    await eventually(lambda: not any(map(alive, orphans)))


async def test_paths_with_spaces_are_no_obstacle(tmp_path: Path) -> None:
    plain, spaced = tmp_path / "plain", tmp_path / "with a space's"
    for directory in (plain, spaced):
        directory.mkdir()
    assert (await harden(MONTY, spaced))[0] == (await harden(MONTY, plain))[0]


async def test_a_missing_interpreter_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))  # pyright: ignore[reportUnknownLambdaType]
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        with pytest.raises(InterpreterMissing, match="install the service again"):
            await sandbox.start()


async def test_starting_twice_at_once_starts_one_pool() -> None:
    others = workers()
    async with Sandbox(count_tokens=four_characters_each) as sandbox:
        first, second = await asyncio.gather(sandbox.start(), sandbox.start())
        assert first is second
        assert len(workers() - others) == 1
