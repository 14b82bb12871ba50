"""No secret gets out: whatever stands in settings, headers, queries, bodies, frames or in what a model server says."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.acceptance.canaries import Canaries, Requests, torn
from tests.acceptance.conftest import StartService
from tests.acceptance.narrator import Narrator
from tests.acceptance.processes import Service
from tests.fakes.script import Fault, Status, Text
from tests.waiting import eventually

_TALKATIVE = "import os, sys; print(os.environ['FOO'], os.environ['DB'], file=sys.stderr); sys.exit(3)"


class Household:
    """A service whose every secret is a canary, somebody who has signed in, and all that was answered."""

    def __init__(self, service: Service, canaries: Canaries, http: httpx2.AsyncClient) -> None:
        self.service = service
        self.canaries = canaries
        self.http = http
        self.answers: list[tuple[str, str]] = []

    async def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """The answer, which is kept; streams are read for a moment."""
        heard = b""
        async with self.http.stream(method, path, **options) as answer:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    async for piece in answer.aiter_bytes():
                        heard += piece
            self.answers.append((f"{method} {path}", heard.decode(errors="replace")))
            return httpx2.Response(answer.status_code, headers={"content-type": "application/json"}, content=heard)

    async def sign_in(self) -> None:
        """Register, sign in, and make a key and a ticket: what the service made is secret, too."""
        secret = self.canaries.secret
        credentials = {"email": "ada@example.org", "password": secret("password of Ada")}
        register = await self.http.post("/api/auth/register", json=credentials)
        assert register.status_code == 201, register.text
        tokens = (await self.http.post("/api/auth/login", json=credentials)).raise_for_status().json()
        bearer = {"authorization": f"Bearer {secret('access token', tokens['access_token'])}"}
        secret("refresh token", tokens.get("refresh_token") or self.http.cookies.get("refresh_token"))
        made = {"name": "a program", "scopes": ["read"]}
        key = (await self.http.post("/api/auth/api-keys", json=made, headers=bearer)).raise_for_status().json()
        secret("API key", key["key"])
        ticket = (await self.http.post("/api/auth/ws-ticket", json={}, headers=bearer)).raise_for_status().json()
        secret("ticket", ticket["ticket"])
        self.http.headers.update(bearer)

    async def told(self) -> str:
        """All that the service has said to whoever runs it, once it has ended."""
        self.service.terminate()
        await self.service.ended()
        return self.service.log


@pytest.fixture
async def household(start: StartService, database_url: str, tmp_path: Path) -> AsyncGenerator[Household, None]:
    canaries = Canaries()
    secret = canaries.secret
    servers = {
        "loud": {
            "command": sys.executable,
            "args": ["-c", _TALKATIVE],
            "env": {"FOO": secret("environment of a tool server"), "DB": f"pg://u:{secret('address in it')}@db/x"},
            "default": True,
        },
        "far": {
            "url": "http://127.0.0.1:9/mcp",
            "headers": {"Authorization": f"Bearer {secret('header of a tool server')}"},
            "default": True,
        },
    }
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    role, at, rest = database_url.partition("@")
    service = await start(
        f"{role}:{secret('password of the database')}{at}{rest}",
        AUTH_MODE="accounts",
        LOG_LEVEL="debug",
        LOG_FORMAT="json",
        MCP_CONFIG=config,
        OPENAI_API_KEY=secret("key of the model server"),
        SECRET_KEY=f"{secret('secret key')}, {secret('older secret key')}",
        METRICS_TOKEN=secret("metrics token"),
    )
    async with httpx2.AsyncClient(base_url=service.address, timeout=20) as http:
        household = Household(service, canaries, http)
        await household.sign_in()
        yield household


async def test_no_route_tells_a_secret_that_it_is_given(household: Household) -> None:
    document = (await household.http.get("/openapi.json")).json()
    requests = list(Requests(document, household.canaries).all())
    wrong = {"authorization": f"Bearer {household.canaries.secret('wrong token')}"}
    basic = {"authorization": f"Basic {household.canaries.secret('wrong password')}"}

    for method, path, options in requests:
        if "/events" in path:
            continue  # a stream that would only be waited for
        await household.ask(method, path, **options)
        await household.ask(method, path, **options | {"headers": options["headers"] | wrong})
        if "json" in options:
            await household.ask(method, path, **torn(options))
    await household.ask("GET", "/api/sessions", headers=basic)
    shown = {"authorization": f"Bearer {household.canaries.secrets['metrics token']}"}
    figures = await household.ask("GET", "/metrics", headers=shown)
    log = await household.told()

    assert len(requests) > 80
    assert figures.status_code == 200
    assert household.canaries.found_in(log, words=True) == []
    assert household.canaries.found_in(figures.text, words=True) == []
    told = {asked: found for asked, said in household.answers if (found := household.canaries.found_in(said))}
    assert told == {}


async def test_nothing_of_a_reply_tells_a_secret_that_a_model_server_repeats(
    household: Household, model: Narrator
) -> None:
    key = household.canaries.secrets["key of the model server"]
    question = household.canaries.word("question")
    model.tell(f"{question} 1", Status(401, f"Incorrect API key provided: {key}", "invalid_api_key"))
    model.tell(f"{question} 2", Text("A word"), Fault(f"the key {key} has run out"))
    model.tell(f"{question} 3", Status(400, f"cannot read Authorization: Bearer {key}"))
    session = (await household.ask("POST", "/api/sessions", json={})).json()["id"]

    for number in (1, 2, 3):
        await household.ask("POST", f"/api/sessions/{session}/messages", json={"content": f"{question} {number}"})
    runs = (await household.ask("GET", f"/api/sessions/{session}/runs")).json()["items"]
    for run in runs:
        await household.ask("GET", f"/api/sessions/{session}/runs/{run['id']}")
    await household.ask("GET", f"/api/sessions/{session}/messages")
    await household.ask("GET", f"/api/sessions/{session}/events?after=0")
    await household.ask("GET", "/api/health")
    await household.ask("POST", "/api/connections/openai/test", json={})
    await eventually(lambda: "tool server" in household.service.log)
    log = await household.told()

    assert len(runs) == 3
    assert household.canaries.found_in(log, words=True) == []
    told = {asked: found for asked, said in household.answers if (found := household.canaries.found_in(said))}
    assert told == {}


async def test_no_socket_tells_a_secret_that_it_is_given(household: Household) -> None:
    secret, word = household.canaries.secret, household.canaries.word
    session = (await household.ask("POST", "/api/sessions", json={})).json()["id"]
    base = household.service.address.replace("http", "ws")
    frames = [
        {"type": "authenticate", "ticket": household.canaries.secrets["ticket"]},
        {"type": "authenticate", "token": secret("token in a frame")},
        {"type": "message", "content": word("content in a frame"), "api_key": secret("key in a frame")},
        {"type": word("type of a frame"), "password": secret("password in a frame")},
        {"type": "interrupt", "run_id": word("id in a frame")},
    ]
    heard = ""

    for path in (f"/ws/chat/{session}", "/ws/chat", f"/ws/chat/{word('path of a socket')}"):
        for frame in (*frames, None):
            query = f"token={secret('token of a socket')}&ticket={secret('ticket of a socket')}&after={word('after')}"
            said = json.dumps(frame) if frame else f'{{"torn": "{word("torn frame")}'
            for address in (f"{base}{path}", f"{base}{path}?{query}"):
                heard += await _say(address, said)
    log = await household.told()

    assert heard
    assert household.canaries.found_in(log, words=True) == []
    assert household.canaries.found_in(heard) == []


async def _say(address: str, frame: str) -> str:
    """What a socket answers to one frame, and why it closes."""
    heard = ""
    try:
        async with connect(address) as socket:
            await socket.send(frame)
            async with asyncio.timeout(0.3):
                async for said in socket:
                    heard += str(said)
    except TimeoutError:
        return heard
    except ConnectionClosed as closed:
        return f"{heard}{closed}"
    except InvalidStatus as refused:
        return f"{heard}{refused.response.body.decode(errors='replace') if refused.response.body else ''}"
    return heard
