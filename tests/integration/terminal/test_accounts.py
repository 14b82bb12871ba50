"""The terminal client and a service with accounts."""

import httpx2
import pytest

from tests.integration.terminal.programs import piped
from tests.service import accounts_settings, running_service


async def test_with_an_api_key_one_talks_as_its_owner(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        running_service(accounts_settings(), database_url) as address,
        httpx2.AsyncClient(base_url=address, timeout=20) as http,
    ):
        body = {"email": "ada@example.org", "password": "correct horse"}
        signed_in = (await http.post("/api/auth/register", json=body)).raise_for_status().json()
        shown = {"authorization": f"Bearer {signed_in['access_token']}"}
        wanted = {"name": "terminal", "scopes": ["read", "write", "chat"]}
        key = (await http.post("/api/auth/api-keys", json=wanted, headers=shown)).raise_for_status().json()["key"]

        stranger = await piped(address, "Hello?")
        monkeypatch.setenv("COLLOQUY_API_KEY", key)
        owner = await piped(address, "Hello?")

        sessions = (await http.get("/api/sessions", headers=shown)).json()["items"]

    assert stranger.process.returncode == 1
    assert "put an API key" in stranger.noticed
    assert (owner.process.returncode, owner.noticed) == (0, "")
    assert "Hello?" in owner.said
    assert len(sessions) == 1
