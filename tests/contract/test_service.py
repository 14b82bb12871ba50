"""The running service keeps what its OpenAPI document promises, whatever it is sent."""

import asyncio
import sys
from pathlib import Path

import httpx2
import pytest

from tests.service import accounts_settings, local_settings, running_service

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


@pytest.mark.timeout(120)
async def test_a_service_with_accounts_keeps_it_too(database_url: str, tmp_path: Path) -> None:
    # A key can take itself away, and then nothing after it would be asked by anybody.
    left_out = ("--exclude-operation-id-regex", "Conversation|^deleteApiKey")
    settings = accounts_settings(data_dir=tmp_path, limits={"requests_per_minute": 0})
    async with running_service(settings, database_url) as base_url:
        key = await _key_of_a_program(base_url)
        shown = f"Authorization: Bearer {key}"
        chosen = ("--phases", "fuzzing", *left_out, "--header", shown)
        status, said = await schemathesis(*_RUN, *chosen, f"{base_url}/openapi.json", cwd=tmp_path)
        async with httpx2.AsyncClient(base_url=base_url, headers={"authorization": f"Bearer {key}"}) as http:
            still = await http.get("/api/auth/me")

    assert status == 0, said[-20_000:]
    assert "failures" not in said
    assert "Fuzzing" in said
    assert still.status_code == 200, "the key was taken away on the way"


async def _key_of_a_program(base_url: str) -> str:
    """A key of somebody who does not look after the service."""
    async with httpx2.AsyncClient(base_url=base_url) as http:
        await _register(http, "administrator@example.org")
        token = await _register(http, "somebody@example.org")
        answer = await http.post(
            "/api/auth/api-keys",
            json={"name": "a program", "scopes": ["read", "write", "chat"]},
            headers={"authorization": f"Bearer {token}"},
        )
        return answer.raise_for_status().json()["key"]


async def _register(http: httpx2.AsyncClient, email: str) -> str:
    answer = await http.post("/api/auth/register", json={"email": email, "password": "correct horse battery"})
    http.cookies.clear()
    return answer.raise_for_status().json()["access_token"]


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
