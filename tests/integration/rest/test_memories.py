"""Memories over REST."""

from uuid import UUID

import asyncpg
import httpx2
import pytest

from db.ids import LOCAL_OWNER, new_id
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem


async def remember(database: asyncpg.Connection, session_id: str, *contents: str) -> None:
    for content in contents:
        await database.execute(
            "insert into memories (id, session_id, owner_id, content, first_message) values ($1, $2, $3, $4, 7)",
            new_id(),
            UUID(session_id),
            LOCAL_OWNER,
            content,
        )


@pytest.mark.parametrize("door", ["sessions", "conversations"])
async def test_memories_are_read_newest_first_and_cleared(
    http: httpx2.AsyncClient, database: asyncpg.Connection, session_id: str, door: str
) -> None:
    await remember(database, session_id, "one", "two", "three")
    path = f"/api/{door}/{session_id}/memories"

    first = await http.get(path, params={"limit": 2})
    rest = await http.get(first.links["next"]["url"])

    read = [*first.json()["items"], *rest.json()["items"]]
    assert [memory["content"] for memory in read] == ["three", "two", "one"]
    assert read[0] | {"id": 0, "created_at": 0} == {
        "id": 0,
        "session_id": session_id,
        "content": "three",
        "first_message": 7,
        "last_message": None,
        "metadata": {},
        "created_at": 0,
    }
    assert rest.json()["next_cursor"] is None

    assert (await http.delete(path)).status_code == 204
    assert (await http.get(path)).json()["items"] == []
    assert (await http.delete(path)).status_code == 204


async def test_memories_are_searched_the_best_first(
    http: httpx2.AsyncClient, database: asyncpg.Connection, session_id: str
) -> None:
    await remember(database, session_id, "likes bread and cheese", "plays chess", "bakes bread")

    found = await http.get(f"/api/sessions/{session_id}/memories", params={"q": "bread, cheese"})

    assert [memory["content"] for memory in found.json()["items"]] == ["likes bread and cheese", "bakes bread"]
    problem(await http.get(f"/api/sessions/{session_id}/memories?q="), 422, "invalid_request", "/q")


async def test_a_strangers_memories_are_not_there(http: httpx2.AsyncClient, stranger: Stranger) -> None:
    for door in ("sessions", "conversations"):
        for method in ("GET", "DELETE"):
            for query in ("", "?q=x"):
                path = f"/api/{door}/{stranger.session_id}/memories{query}"
                problem(await http.request(method, path), 404, "not_found")
            problem(await http.request(method, f"/api/{door}/{new_id()}/memories"), 404, "not_found")
            problem(await http.request(method, f"/api/{door}/x/memories"), 422, "invalid_request")
