"""Connections to model servers over REST."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from db.ids import new_id
from tests.fakes.ollama_server import OllamaFake
from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Status, Wait
from tests.integration.rest.reading import problem
from tests.service import local_settings, running_service

KEY = "sk-canary-0123456789"
Save = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture(autouse=True)
async def nothing_is_left(database: asyncpg.Connection) -> AsyncGenerator[None, None]:
    """Other tests count what there is."""
    yield
    await database.execute("delete from provider_connections")


@pytest.fixture
def save(http: httpx2.AsyncClient, model: OpenAIFake) -> Save:
    """Saves a connection to `model`, with other fields where they are given."""

    async def save(**fields: Any) -> dict[str, Any]:
        body = {"name": f"Mine {uuid4()}", "kind": "openai", "base_url": model.url, "api_key": KEY}
        made = await http.post("/api/connections", json=body | fields)
        assert made.status_code == 201, made.text
        return made.json()

    return save


async def test_a_connection_is_saved_and_its_key_is_not_shown_again(http: httpx2.AsyncClient) -> None:
    body = {"name": " At home ", "kind": "openai", "base_url": "https://Models.Example.com/v1/", "api_key": KEY}

    made = await http.post("/api/connections", json=body)

    assert made.status_code == 201
    saved = made.json()
    assert made.headers["location"] == f"/api/connections/{saved['id']}"
    assert made.headers["etag"] == '"1"'
    assert saved["name"] == "At home"
    assert saved["source"] == "saved"
    assert saved["base_url"] == "https://models.example.com/v1"
    assert (saved["has_key"], saved["last_four"]) == (True, "6789")
    for path in (saved["id"], "At home"):
        answer = await http.get(f"/api/connections/{path}")
        assert answer.json() == saved
        assert answer.headers["etag"] == '"1"'
        assert KEY not in answer.text


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_an_update_changes_only_what_is_given_and_null_clears(
    http: httpx2.AsyncClient, save: Save, method: str
) -> None:
    saved = await save(default_model="fake-small")
    changes = {"default_model": None, "is_active": False}

    updated = await http.request(method, f"/api/connections/{saved['id']}", json=changes)

    assert updated.json() == saved | changes | {"version": 2, "updated_at": updated.json()["updated_at"]}
    assert updated.headers["etag"] == '"2"'
    cleared = await http.request(method, f"/api/connections/{saved['id']}", json={"api_key": None})
    assert (cleared.json()["has_key"], cleared.json()["last_four"]) == (False, None)


async def test_a_stale_etag_changes_nothing(http: httpx2.AsyncClient, save: Save) -> None:
    saved = await save()
    path = f"/api/connections/{saved['id']}"
    for method, body in (("PATCH", {"default_model": "x"}), ("PUT", {"default_model": "x"}), ("DELETE", None)):
        answer = await http.request(method, path, json=body, headers={"if-match": '"7"'})
        problem(answer, 412, "stale_version")
    assert (await http.get(path)).json() == saved
    assert (await http.delete(path, headers={"if-match": '"1"'})).status_code == 204
    problem(await http.get(path), 404, "not_found")


async def test_pages_hold_the_saved_ones_and_then_those_of_the_service(http: httpx2.AsyncClient, save: Save) -> None:
    saved = [(await save())["name"] for _ in range(3)]
    seen: list[dict[str, Any]] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor:
        page = await http.get("/api/connections", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        seen += page.json()["items"]
        cursor = page.json()["next_cursor"]
        assert ("link" in page.headers) is (cursor is not None)
        pages += 1

    assert [one["name"] for one in seen] == [*reversed(saved), "openai", "demo"]
    assert [one["source"] for one in seen] == ["saved"] * 3 + ["environment"] * 2
    assert pages == 3
    for one in seen[3:]:
        assert (one["id"], one["base_url"], one["has_key"], one["last_four"]) == (None, None, None, None)
    whole = (await http.get("/api/connections")).json()
    assert whole["items"] == seen


async def test_those_of_the_service_can_be_looked_at_and_not_changed(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/api/connections/openai")).json()["source"] == "environment"
    problem(await http.patch("/api/connections/openai", json={"default_model": "x"}), 409, "conflict")
    problem(await http.delete("/api/connections/demo"), 409, "conflict")


async def test_a_name_can_be_used_once_and_not_for_what_the_service_has(http: httpx2.AsyncClient, save: Save) -> None:
    saved, other = await save(), await save()
    body = {"kind": "ollama", "base_url": "http://127.0.0.1:1025"}
    problem(await http.post("/api/connections", json=body | {"name": saved["name"]}), 409, "conflict", "/name")
    renamed = await http.patch(f"/api/connections/{other['id']}", json={"name": saved["name"]})
    problem(renamed, 409, "conflict", "/name")
    for name in (
        "openai",
        "Azure",
        "OLLAMA",
        "demo",
        str(uuid4()),
        uuid4().hex,
        "a/b",
        "..",
        "a\nb",
        " ",
        "",
        "x" * 101,
    ):
        answer = await http.post("/api/connections", json=body | {"name": name})
        problem(answer, 422, "invalid_request", "/name")


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"kind": "demo"}, "/kind"),
        ({"kind": "ollama"}, "/base_url"),
        ({"kind": "azure"}, "/base_url"),
        ({"base_url": "ftp://model.example"}, "/base_url"),
        ({"base_url": "http://user:password@model.example"}, "/base_url"),
        ({"base_url": "http://2130706433/"}, "/base_url"),
        ({"api_version": "2025"}, "/api_version"),
        ({"deployment": "mine"}, "/deployment"),
        ({"num_ctx": 4096}, "/num_ctx"),
        ({"kind": "azure", "base_url": "https://x.example", "default_model": "gpt"}, "/default_model"),
        ({"kind": "ollama", "base_url": "https://x.example", "api": "responses"}, "/api"),
        ({"kind": "ollama", "base_url": "https://x.example", "num_ctx": 1}, "/num_ctx"),
        ({"api_key": "two words"}, "/api_key"),
        ({"api_key": "line\r\nX-Evil: 1"}, "/api_key"),
        ({"api_key": ""}, "/api_key"),
        ({"api_key": "k" * 4097}, "/api_key"),
        ({"secret": "x"}, "/secret"),
    ],
)
async def test_what_cannot_be_is_refused_where_it_stands(
    http: httpx2.AsyncClient, body: dict[str, Any], at: str
) -> None:
    answer = await http.post("/api/connections", json={"name": f"Bad {uuid4()}", "kind": "openai"} | body)
    problem(answer, 422, "invalid_request", at)
    assert "X-Evil" not in answer.text
    assert (await http.get("/api/connections")).json()["items"][0]["source"] == "environment"


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "0.0.0.0", "[fe80::1]"])
async def test_a_private_address_is_refused_at_once(http: httpx2.AsyncClient, host: str) -> None:
    body = {"name": "inside", "kind": "ollama", "base_url": f"http://{host}:11434"}
    problem(await http.post("/api/connections", json=body), 422, "provider_host_not_allowed", "/base_url")
    tried = await http.post("/api/connections/ollama/test", json={"base_url": body["base_url"]})
    problem(tried, 422, "provider_host_not_allowed", "/base_url")


async def test_a_key_does_not_follow_a_connection_to_another_server(
    http: httpx2.AsyncClient, save: Save, model: OpenAIFake
) -> None:
    saved = await save()
    path = f"/api/connections/{saved['id']}"
    async with OpenAIFake() as thief:
        moved = await http.patch(path, json={"base_url": thief.url})
        problem(moved, 422, "invalid_request", "/api_key")
        problem(await http.patch(path, json={"base_url": None}), 422, "invalid_request", "/api_key")
        other_kind = {"kind": "ollama", "base_url": model.root}
        problem(await http.patch(path, json=other_kind), 422, "invalid_request", "/api_key")

        assert (await http.patch(path, json={"base_url": f"{model.root}/other/v1"})).status_code == 200
        assert (await http.patch(path, json={"base_url": thief.url, "api_key": None})).status_code == 200
        assert (await http.post(f"{path}/test")).json()["works"] is True
        assert KEY not in str([dict(request.headers) for request in thief.lookups])


async def test_the_operators_limit_of_saved_connections_holds(
    shared_database_url: str, model: OpenAIFake, database: asyncpg.Connection
) -> None:
    settings = local_settings(limits={"saved_connections_per_user": 2, "connection_tests_per_minute": 3})
    async with running_service(settings, shared_database_url) as url, httpx2.AsyncClient(base_url=url) as http:
        body = {"kind": "openai", "base_url": model.url}
        answers = [await http.post("/api/connections", json=body | {"name": f"{n}"}) for n in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 409]
        tests = [await http.post("/api/connections/0/test") for _ in range(4)]
        assert [test.status_code for test in tests] == [200, 200, 200, 429]
        assert int(tests[-1].headers["retry-after"]) > 0


@pytest.mark.parametrize("reference", ["id", "name"])
async def test_a_saved_connection_is_tried_by_name_and_by_id(
    http: httpx2.AsyncClient, save: Save, model: OpenAIFake, reference: str
) -> None:
    saved = await save()
    path = f"/api/connections/{saved[reference]}"

    tested = (await http.post(f"{path}/test")).json()
    answered = (await http.post(f"{path}/test", json={"model": "fake-small"})).json()
    offered = (await http.post(f"{path}/models")).json()

    assert tested | {"ms": 0} == {"works": True, "ms": 0, "models": 1, "answered": None, "error": None}
    assert answered | {"ms": 0} == {"works": True, "ms": 0, "models": None, "answered": True, "error": None}
    assert offered == {"models": [{"id": "fake-small", "context_window": 16_384}]}
    assert {request.headers["authorization"] for request in (*model.lookups, *model.requests)} == {f"Bearer {KEY}"}


async def test_settings_are_tried_before_they_are_saved(http: httpx2.AsyncClient, model: OpenAIFake) -> None:
    async with OllamaFake() as ollama:
        for kind, url in (("openai", model.url), ("azure", model.root), ("ollama", ollama.url)):
            body = {"base_url": url, "api_key": KEY}
            tested = await http.post(f"/api/connections/{kind}/test", json=body)
            assert tested.json()["works"] is True, tested.text
            offered = await http.post(f"/api/connections/{kind}/models", json=body)
            assert [one["id"] for one in offered.json()["models"]] == ["fake-small"]
            assert KEY not in tested.text + offered.text
    assert model.lookups[-1].headers["api-key"] == KEY
    assert (await http.get("/api/connections")).json()["items"][0]["source"] == "environment"


async def test_the_services_own_connections_can_be_tried(http: httpx2.AsyncClient, model: OpenAIFake) -> None:
    assert (await http.post("/api/connections/openai/test")).json()["models"] == 1
    assert (await http.post("/api/connections/demo/models", json={})).json()["models"][0]["id"] == "demo"
    problem(await http.post("/api/connections/ollama/test"), 422, "invalid_request")
    problem(await http.post("/api/connections/nobody/test"), 404, "not_found")
    problem(await http.post("/api/connections/demo/test", json={"base_url": model.url}), 422, "invalid_request")


async def test_a_trial_names_the_fault(http: httpx2.AsyncClient, save: Save, model: OpenAIFake) -> None:
    saved = await save()
    path = f"/api/connections/{saved['id']}"
    faults = {
        "provider_authentication": Status(401, f"Incorrect API key provided: {KEY}"),
        "unknown_model": Status(404, "The model `x` does not exist"),
    }
    for code, status in faults.items():
        model.otherwise, usual = type(model.otherwise)((status,)), model.otherwise
        tested = await http.post(f"{path}/test", json={"model": "x"})
        model.otherwise = usual
        assert (tested.status_code, tested.json()["works"]) == (200, False)
        assert tested.json()["error"]["code"] == code
        assert KEY not in tested.text

    gone = await save(base_url="http://127.0.0.9:1025/v1")
    assert (await http.post(f"/api/connections/{gone['id']}/test")).json()["error"]["code"] == "provider_unreachable"
    problem(await http.post(f"/api/connections/{gone['id']}/models"), 502, "provider_unreachable")


async def test_trials_of_one_owner_do_not_pile_up(http: httpx2.AsyncClient, save: Save, model: OpenAIFake) -> None:
    saved, gate = await save(), asyncio.Event()
    for _ in range(3):
        model.script(Wait(gate))
    path = f"/api/connections/{saved['id']}/test"
    waiting = [asyncio.create_task(http.post(path, json={"model": "x"})) for _ in range(3)]
    await model.request(2)

    problem(await http.post(path), 429, "too_many_requests")

    gate.set()
    assert [(await one).status_code for one in waiting] == [200] * 3
    assert (await http.post(path)).status_code == 200


async def test_what_is_somebody_elses_does_not_exist(
    http: httpx2.AsyncClient, database: asyncpg.Connection, save: Save
) -> None:
    mine = await save()
    stranger = new_id()
    await database.execute("insert into users (id, display_name) values ($1, 'Somebody else')", stranger)
    await database.execute(
        "update provider_connections set owner_id = $1, name = 'theirs' where id = $2", stranger, mine["id"]
    )
    session = (await http.post("/api/sessions", json={})).json()["id"]
    for reference in (mine["id"], "theirs"):
        path = f"/api/connections/{reference}"
        problem(await http.get(path), 404, "not_found")
        problem(await http.patch(path, json={"is_active": False}), 404, "not_found")
        problem(await http.delete(path), 404, "not_found")
        problem(await http.post(f"{path}/test"), 404, "not_found")
        problem(await http.post(f"{path}/models"), 404, "not_found")
        named = {"connection": reference}
        problem(await http.post("/api/sessions", json=named), 422, "unknown_provider")
        problem(await http.patch(f"/api/sessions/{session}", json=named), 422, "unknown_provider")
        problem(await http.post("/api/personas", json=named | {"name": str(uuid4())}), 422, "unknown_provider")
        sent = await http.post(f"/api/sessions/{session}/messages", json={"content": "hi", "connection_id": reference})
        assert "theirs" not in str(problem(sent, 422, "unknown_provider")["details"]["known"])
    assert mine["id"] not in (await http.get("/api/connections")).text
    assert mine["id"] not in (await http.get("/api/config")).text
    assert await database.fetchval("select is_active from provider_connections where id = $1", mine["id"])


async def test_the_configuration_lists_what_the_caller_may_name(http: httpx2.AsyncClient, save: Save) -> None:
    saved = await save(default_model="fake-small")
    off = await save(is_active=False)

    answer = await http.get("/api/config")

    assert answer.json()["providers"][2:] == [
        {
            "name": saved["name"],
            "id": saved["id"],
            "source": "saved",
            "kind": "openai",
            "default_model": "fake-small",
        }
    ]
    assert off["name"] not in answer.text
    assert "127.0.0.1" not in answer.text
