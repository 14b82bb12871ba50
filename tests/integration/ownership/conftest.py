"""Two people on one service, each with one of everything."""

import io
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from PIL import Image

from db.ids import new_id
from tests.postgres import TestServer
from tests.service import accounts_settings, running_service

_PASSWORD = "correct horse battery staple"
_NOT_THEIRS = ("audit_log", "schema_migrations", "journals", "api_keys", "replicas")
"""Tables in which a refused request may leave a trace of who asked, and those that change by the clock."""


@dataclass(frozen=True)
class Person:
    """Somebody with an account and one of everything. `things` has the id of each kind of thing."""

    http: httpx2.AsyncClient
    token: str
    things: Mapping[str, str]


@dataclass(frozen=True)
class World:
    """The service, the one who owns, and the one who would like to have it."""

    base_url: str
    owner: Person
    stranger: Person
    nobody: httpx2.AsyncClient
    reader: httpx2.AsyncClient
    """The owner's, with a key that may only read."""
    chatter: httpx2.AsyncClient
    """The owner's, with a key that may only chat."""
    database: asyncpg.Connection

    async def state(self) -> dict[str, str]:
        """A fingerprint of each table."""
        tables = await self.database.fetch(
            "select table_name from information_schema.tables where table_schema = 'public' order by 1"
        )
        names = [row["table_name"] for row in tables if row["table_name"] not in _NOT_THEIRS]
        return {
            name: await self.database.fetchval(
                f"select coalesce(md5(string_agg(t::text, chr(10) order by t::text)), '') from \"{name}\" t"
            )
            for name in names
        }


@pytest.fixture(scope="session")
async def world(
    postgres: TestServer, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[World, None]:
    """Both of them, made once: nothing that a stranger may do changes it."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(postgres.database(migrated_template))
        base_url = await stack.enter_async_context(
            running_service(accounts_settings(data_dir=tmp_path_factory.mktemp("data")), url)
        )
        database = await asyncpg.connect(url)
        stack.push_async_callback(database.close)

        async def client(token: str | None = None) -> httpx2.AsyncClient:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            return await stack.enter_async_context(httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=20))

        nobody = await client()
        await _register(nobody, "operator")  # the first one looks after the service
        people: list[Person] = []
        for name in ("owner", "stranger"):
            token = await _register(nobody, name)
            http = await client(token)
            people.append(Person(http, token, await _one_of_everything(http, database, name)))
        owner, stranger = people
        keys = [
            (await owner.http.post("/api/auth/api-keys", json={"name": scope, "scopes": [scope]})).raise_for_status()
            for scope in ("read", "chat")
        ]
        reader, chatter = [await client(key.json()["key"]) for key in keys]
        yield World(base_url, owner, stranger, nobody, reader, chatter, database)


async def _register(http: httpx2.AsyncClient, name: str) -> str:
    body = {"email": f"{name}@example.org", "password": _PASSWORD, "display_name": name}
    answer = await http.post("/api/auth/register", json=body)
    http.cookies.clear()
    return answer.raise_for_status().json()["access_token"]


async def _one_of_everything(http: httpx2.AsyncClient, database: asyncpg.Connection, name: str) -> dict[str, str]:
    async def made(path: str, **request: Any) -> dict[str, Any]:
        return (await http.post(path, **request)).raise_for_status().json()

    things = {
        "user": (await http.get("/api/auth/me")).raise_for_status().json()["id"],
        "sign_in": (await http.get("/api/auth/sign-ins")).raise_for_status().json()["items"][0]["id"],
        "invitation": random_id("invitation"),  # who administers the service has them
    }
    picture = await made("/api/personas/upload-image", files={"file": ("face.png", _picture(name))})
    things["image"] = picture["image_path"]
    things["module"] = (await made("/api/modules", json={"name": "mine", "content": "Mine."}))["id"]
    persona = {"name": "Mine", "template": "You are @mine.", "image": picture["image_path"]}
    things["persona"] = (await made("/api/personas", json=persona))["id"]
    connection = {"name": f"{name}s", "kind": "openai", "api_key": "sk-" + "x" * 20}
    things["connection"] = (await made("/api/connections", json=connection))["id"]
    things["api_key"] = (await made("/api/auth/api-keys", json={"name": "mine", "scopes": ["read"]}))["api_key"]["id"]

    grants = {"servers": {"time": {"enabled": True, "tools": {"get_current_time": "ask"}}}}
    session = await made("/api/sessions", json={"persona_id": things["persona"], "tools": grants})
    things["session"] = session_id = session["id"]
    uploaded = await made(f"/api/sessions/{session_id}/files", files={"file": ("notes.txt", b"Secret notes.")})
    things["file"] = uploaded["id"]
    sent = await made(f"/api/sessions/{session_id}/messages", json={"content": "Hello"})
    things["message"], things["run"] = sent["user_message"]["id"], sent["run_id"]
    await database.execute(
        """
        insert into memories (id, session_id, owner_id, content)
        select $1, id, owner_id, 'The secret of the memory.' from sessions where id = $2
        """,
        new_id(),
        session_id,
    )
    things["tool_call"] = await _waiting_call(http, session_id) if name == "owner" else random_id("tool_call")
    return things


async def _waiting_call(http: httpx2.AsyncClient, session_id: str) -> str:
    """A call that waits for a word: with it the session has a run under way."""
    arguments = json.dumps({"timezone": "UTC"})
    async with http.stream(
        "POST",
        f"/api/sessions/{session_id}/messages",
        json={"content": f"/tool time__get_current_time {arguments}"},
        headers={"accept": "text/event-stream"},
    ) as response:
        async for line in response.aiter_lines():
            if line.startswith("data:") and '"approval_required"' in line:
                break

    waiting = (await http.get(f"/api/sessions/{session_id}/approvals")).raise_for_status().json()["items"]
    return waiting[0]["tool_call_id"]


def _picture(name: str) -> bytes:
    """A picture that nobody else has: those of the same pixels have the same id."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), f"#{name.encode().hex()[:6]}").save(picture, "PNG")
    return picture.getvalue()


def random_id(kind: str) -> str:
    """An id of that kind that nobody has."""
    return f"/api/images/{uuid4()}" if kind == "image" else str(uuid4())
