"""A request that names an Idempotency-Key is carried out once, however often it is sent."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from db.ids import LOCAL_OWNER, ReplicaId, UserId, new_id
from db.pool import Database
from db.stores.idempotency import IdempotencyStore
from services.errors import TooManyRequests
from services.idempotency import Attempt, Idempotency, InProgress, KeptAnswer, OutcomeUnknown
from tests.integration.rest.reading import problem


def named(key: str | None = None) -> dict[str, str]:
    """A header with that key or a new one."""
    return {"idempotency-key": key or str(uuid4())}


async def document(http: httpx2.AsyncClient, session_id: str) -> dict[str, Any]:
    """The session, exported."""
    return (await http.get(f"/api/sessions/{session_id}/export")).raise_for_status().json()


class TestWhatIsMade:
    """Every route that makes something."""

    @pytest.fixture(
        params=[
            "session",
            "conversation",
            "persona",
            "module",
            "message",
            "fork",
            "copy",
            "import",
            "library",
            "connection",
        ]
    )
    async def request_(
        self, request: pytest.FixtureRequest, http: httpx2.AsyncClient, session_id: str, persona: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        name = f"n{uuid4().hex[:20]}"
        match request.param:
            case "session":
                return "/api/sessions", {"title": name}
            case "conversation":
                return "/api/conversations", {"title": name}
            case "persona":
                return "/api/personas", {"name": name}
            case "module":
                return "/api/modules", {"name": name}
            case "message":
                return "/api/messages", {"session_id": session_id, "role": "user", "content": name}
            case "fork":
                return f"/api/sessions/{session_id}/fork", {"title": name}
            case "copy":
                return f"/api/personas/{persona['id']}/duplicate", {"name": name}
            case "connection":
                return "/api/connections", {"name": name, "kind": "openai", "api_key": f"sk-{name}"}
            case "import":
                return "/api/sessions/import", await document(http, session_id)
            case _:
                return "/api/personas/import", (await http.get("/api/personas/export")).json()

    async def test_is_made_once_and_answered_twice(
        self, http: httpx2.AsyncClient, request_: tuple[str, dict[str, Any]]
    ) -> None:
        path, body = request_
        header = named()

        first = await http.post(path, json=body, headers=header)
        second = await http.post(path, json=body, headers=header)

        assert first.is_success, first.text
        assert "idempotency-replayed" not in first.headers
        assert second.headers["idempotency-replayed"] == "true"
        assert (second.status_code, second.content) == (first.status_code, first.content)
        for one in ("content-type", "location", "etag"):
            assert second.headers.get(one) == first.headers.get(one)


async def test_another_body_under_the_same_key_is_refused(http: httpx2.AsyncClient) -> None:
    header = named()
    await http.post("/api/sessions", json={"title": "one"}, headers=header)

    answer = await http.post("/api/sessions", json={"title": "two"}, headers=header)

    problem(answer, 422, "idempotency_key_reused", "/Idempotency-Key")


async def test_another_address_under_the_same_key_is_refused(http: httpx2.AsyncClient) -> None:
    header = named()
    await http.post("/api/sessions", json={}, headers=header)

    problem(await http.post("/api/conversations", json={}, headers=header), 422, "idempotency_key_reused")


async def test_requests_at_the_same_time_make_one_thing(http: httpx2.AsyncClient, database: asyncpg.Connection) -> None:
    header, title = named(), f"at once {uuid4()}"

    answers = await asyncio.gather(
        *(http.post("/api/sessions", json={"title": title}, headers=header) for _ in range(8))
    )

    assert await database.fetchval("select count(*) from sessions where title = $1", title) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "idempotency_in_progress")
            assert answer.headers["retry-after"] == "1"


async def test_what_was_refused_may_be_corrected_under_the_same_key(http: httpx2.AsyncClient) -> None:
    header = named()

    problem(await http.post("/api/personas", json={"name": ""}, headers=header), 422, "invalid_request")
    problem(await http.post("/api/sessions", json={"persona_id": str(uuid4())}, headers=header), 404, "not_found")

    assert (await http.post("/api/sessions", json={}, headers=header)).status_code == 201


@pytest.mark.parametrize("key", ["", '""', "x" * 201, "a\tb", "\u00e9"])
async def test_what_is_no_key_is_refused(http: httpx2.AsyncClient, key: str) -> None:
    answer = await http.post("/api/sessions", json={}, headers=[(b"idempotency-key", key.encode("latin-1"))])

    problem(answer, 422, "invalid_request", "/Idempotency-Key")


async def test_quotation_marks_around_a_key_do_not_count(http: httpx2.AsyncClient) -> None:
    key = str(uuid4())
    first = await http.post("/api/sessions", json={}, headers=named(f'"{key}"'))

    second = await http.post("/api/sessions", json={}, headers=named(key))

    assert second.json() == first.json()


async def test_without_a_key_everything_is_done_anew(http: httpx2.AsyncClient) -> None:
    first, second = [(await http.post("/api/sessions", json={})).json() for _ in range(2)]

    assert first["id"] != second["id"]


async def test_a_message_that_is_sent_again_gets_the_same_run(
    http: httpx2.AsyncClient, session_id: str, database: asyncpg.Connection
) -> None:
    path, body, header = f"/api/sessions/{session_id}/messages", {"content": "Hello", "connection_id": "demo"}, named()

    first = await http.post(path, json=body, headers=header)
    second = await http.post(path, json=body, headers=header)

    assert first.json()["run_id"] == second.json()["run_id"]
    assert await database.fetchval("select count(*) from runs where session_id = $1", UUID(session_id)) == 1


class TestKeys:
    """What is behind the routes."""

    FINGERPRINT = hashlib.sha256(b"the request").digest()
    ANSWER = KeptAnswer(201, {"location": "/there"}, json.dumps({"id": 1}).encode())

    @pytest.fixture
    async def store(self, shared_database_url: str):
        database = await Database.connect(shared_database_url, size=2)
        yield IdempotencyStore(database, lease_seconds=8)
        await database.close()

    @pytest.fixture
    async def replica(self, database: asyncpg.Connection):
        id = ReplicaId(new_id())
        await database.execute("insert into replicas (id) values ($1)", id)
        yield id
        await database.execute("delete from replicas where id = $1", id)

    @pytest.fixture
    async def somebody(self, database: asyncpg.Connection) -> UserId:
        id = UserId(new_id())
        await database.execute("insert into users (id, display_name) values ($1, 'Somebody')", id)
        return id

    async def test_belong_to_their_owner(
        self, store: IdempotencyStore, replica: ReplicaId, somebody: UserId, http: httpx2.AsyncClient
    ) -> None:
        key = str(uuid4())
        await http.post("/api/sessions", json={}, headers=named(key))

        begun = await Idempotency(store, replica).begin(somebody, key, self.FINGERPRINT)

        assert isinstance(begun, Attempt)

    async def test_of_a_dead_process_are_answered_by_nobody_knows(
        self, store: IdempotencyStore, replica: ReplicaId, database: asyncpg.Connection
    ) -> None:
        keys, key = Idempotency(store, replica), str(uuid4())
        await keys.begin(LOCAL_OWNER, key, self.FINGERPRINT)

        with pytest.raises(InProgress):
            await keys.begin(LOCAL_OWNER, key, self.FINGERPRINT)
        await database.execute("delete from replicas where id = $1", replica)
        with pytest.raises(OutcomeUnknown):
            await keys.begin(LOCAL_OWNER, key, self.FINGERPRINT)

    async def test_are_free_again_after_a_failure(self, store: IdempotencyStore, replica: ReplicaId) -> None:
        keys, key = Idempotency(store, replica), str(uuid4())
        attempt = await keys.begin(LOCAL_OWNER, key, self.FINGERPRINT)
        assert isinstance(attempt, Attempt)

        await keys.forget(attempt)

        assert isinstance(await keys.begin(LOCAL_OWNER, key, self.FINGERPRINT), Attempt)

    async def test_are_forgotten_after_a_day_and_swept(
        self, store: IdempotencyStore, replica: ReplicaId, somebody: UserId, database: asyncpg.Connection
    ) -> None:
        keys = Idempotency(store, replica)
        for key in ("old", "older"):
            attempt = await keys.begin(somebody, key, self.FINGERPRINT)
            assert isinstance(attempt, Attempt)
            await keys.complete(attempt, self.ANSWER)
        assert await keys.begin(somebody, "old", self.FINGERPRINT) == self.ANSWER
        await database.execute("update idempotent_requests set expires_at = now() where owner_id = $1", somebody)

        assert isinstance(await keys.begin(somebody, "old", self.FINGERPRINT), Attempt)
        await keys.sweep()

        left = await database.fetch("select key from idempotent_requests where owner_id = $1", somebody)
        assert [row["key"] for row in left] == ["old"]

    async def test_are_bounded_in_number(
        self, store: IdempotencyStore, replica: ReplicaId, somebody: UserId, database: asyncpg.Connection
    ) -> None:
        await database.execute(
            """
            insert into idempotent_requests (owner_id, key, fingerprint, attempt_id, replica_id, expires_at)
            select $1, n::text, '', $2, $2, now() + interval '1 day' from generate_series(1, 10000) n
            """,
            somebody,
            replica,
        )

        with pytest.raises(TooManyRequests):
            await Idempotency(store, replica).begin(somebody, "one more", self.FINGERPRINT)

    async def test_of_a_late_attempt_are_not_taken_from_the_next(
        self, store: IdempotencyStore, replica: ReplicaId, somebody: UserId, database: asyncpg.Connection
    ) -> None:
        keys = Idempotency(store, replica)
        late = await keys.begin(somebody, "key", self.FINGERPRINT)
        assert isinstance(late, Attempt)
        await database.execute("update idempotent_requests set expires_at = now() where owner_id = $1", somebody)
        await keys.begin(somebody, "key", self.FINGERPRINT)

        await keys.complete(late, self.ANSWER)
        await keys.forget(late)

        with pytest.raises(InProgress):
            await keys.begin(somebody, "key", self.FINGERPRINT)
