"""The running service keeps what its OpenAPI document promises, whatever it is sent."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.service import local_settings, running_service

_EXCUSES = Path(__file__).parent / "schemathesis.toml"
_RUN = ("run", "--max-examples", "2", "--seed", "7", "--continue-on-failure", "--no-shrink", "--request-timeout", "20")


@pytest.mark.timeout(300)
async def test_no_request_that_can_be_thought_of_breaks_the_contract(database_url: str, tmp_path: Path) -> None:
    settings = local_settings(data_dir=tmp_path, limits={"requests_per_minute": 0})
    async with running_service(settings, database_url) as base_url:
        status, said = await schemathesis(*_RUN, f"{base_url}/openapi.json", cwd=tmp_path)

    assert status == 0, said[-20_000:]
    assert "failures" not in said
    assert "Stateful" in said


async def schemathesis(*arguments: str, cwd: Path) -> tuple[int | None, str]:
    """What it ended with and said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(_EXCUSES), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()
