"""Modules over REST."""

from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem

SCRIPT = """
mood = ctx.get_variable("mood", "calm")
ctx.set_output("mood", mood)
other = ctx.run_module("helper")
"""
ASKS = 'ctx.set_output("mood", ctx.generate("In one word, the mood:"))'


def fresh(stem: str = "mood") -> str:
    """A name that no other test uses."""
    return f"{stem}_{uuid4().hex[:12]}"


async def make(http: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    return (await http.post("/api/modules", json={"name": fresh()} | fields)).raise_for_status().json()


@pytest.fixture
async def module(http: httpx2.AsyncClient) -> dict[str, Any]:
    """A fresh module."""
    return await make(http, content="Be kind.")


async def test_a_module_is_made_with_what_was_given_and_defaults_for_the_rest(http: httpx2.AsyncClient) -> None:
    name = fresh()

    made = await http.post("/api/modules", json={"name": name, "content": "Like @helper, not a@b.example: ${mood}."})

    assert made.status_code == 201
    module = made.json()
    assert module | {"id": 0, "created_at": 0, "updated_at": 0} == {
        "id": 0,
        "name": name,
        "description": "",
        "type": "simple",
        "content": "Like @helper, not a@b.example: ${mood}.",
        "script": "",
        "trigger_pattern": None,
        "trigger_depth": 1,
        "execution_context": "IMMEDIATE",
        "timeout_ms": None,
        "is_active": True,
        "requires_ai": False,
        "analysis": None,
        "references": ["helper"],
        "version": 1,
        "created_at": 0,
        "updated_at": 0,
    }
    assert made.headers["etag"] == '"1"'
    assert (await http.get(made.headers["location"])).json() == module


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_an_update_changes_only_what_is_given_and_null_clears(
    http: httpx2.AsyncClient, module: dict[str, Any], method: str
) -> None:
    path = f"/api/modules/{module['id']}"
    await http.patch(path, json={"trigger_pattern": "rain|snow", "timeout_ms": 500, "trigger_depth": 3})
    changes = {"trigger_pattern": None, "timeout_ms": None, "content": None}

    updated = await http.request(method, path, json=changes, headers={"if-match": '"2"'})

    expected = module | {"trigger_depth": 3, "content": "", "version": 3, "updated_at": updated.json()["updated_at"]}
    assert updated.json() == expected
    assert updated.headers["etag"] == '"3"'


async def test_what_a_script_does_is_read_when_it_is_saved(http: httpx2.AsyncClient) -> None:
    plain = await make(http, type="advanced", script=SCRIPT)
    assert plain["requires_ai"] is False
    assert plain["analysis"] == {
        "functions": ["get_variable", "run_module", "set_output"],
        "outputs": ["mood"],
        "references": ["helper"],
    }

    asks = await http.patch(f"/api/modules/{plain['id']}", json={"script": ASKS})
    assert asks.json()["requires_ai"] is True

    simple = await http.patch(f"/api/modules/{plain['id']}", json={"type": "simple"})
    assert simple.json()["requires_ai"] is False

    empty = await http.patch(f"/api/modules/{plain['id']}", json={"script": None, "type": "advanced"})
    assert (empty.json()["requires_ai"], empty.json()["analysis"]) == (False, None)


@pytest.mark.parametrize(
    ("script", "line", "column"),
    [("x = 1\nif x\n  y", 2, 5), ('ctx.set_output("a")', 1, 1), ("x: int = 'text'", 1, 10), ("ctx.launch()", 1, 1)],
)
async def test_a_script_with_errors_is_refused_with_line_and_column(
    http: httpx2.AsyncClient, module: dict[str, Any], script: str, line: int, column: int
) -> None:
    for answer in (
        await http.post("/api/modules", json={"name": fresh(), "type": "advanced", "script": script}),
        await http.patch(f"/api/modules/{module['id']}", json={"type": "advanced", "script": script}),
    ):
        found = problem(answer, 422, "invalid_script", "/script")["details"]["problems"][0]
        assert (found["line"], found["column"]) == (line, column)
        assert found["message"]
    assert (await http.get(f"/api/modules/{module['id']}")).json() == module


@pytest.mark.parametrize("pattern", ["/(?=x)/", "/(a)\\1/", "//", "/x/q", "|", "/(/"])
async def test_a_trigger_that_cannot_be_matched_is_refused(http: httpx2.AsyncClient, pattern: str) -> None:
    answer = await http.post("/api/modules", json={"name": fresh(), "trigger_pattern": pattern})

    problem(answer, 422, "invalid_trigger", "/trigger_pattern")


@pytest.mark.parametrize("pattern", [None, "", "*", "rain | snow", "/^rain/s", "/abc"])
async def test_a_trigger_is_kept_as_it_was_written(http: httpx2.AsyncClient, pattern: str | None) -> None:
    assert (await make(http, trigger_pattern=pattern))["trigger_pattern"] == pattern


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, "/name"),
        ({"name": None}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "Mood"}, "/name"),
        ({"name": "1st"}, "/name"),
        ({"name": "two words"}, "/name"),
        ({"name": "é"}, "/name"),
        ({"name": "n" * 51}, "/name"),
        ({"name": "n\n"}, "/name"),
        ({"name": "n", "content": "c" * 65_537}, "/content"),
        ({"name": "n", "content": "é" * 32_769}, "/content"),
        ({"name": "n", "content": "a\0"}, "/content"),
        ({"name": "n", "script": "#" * 65_537}, "/script"),
        ({"name": "n", "type": "odd"}, "/type"),
        ({"name": "n", "execution_context": "LATER"}, "/execution_context"),
        ({"name": "n", "trigger_depth": 0}, "/trigger_depth"),
        ({"name": "n", "timeout_ms": 9}, "/timeout_ms"),
        ({"name": "n", "is_active": None}, "/is_active"),
        ({"name": "n", "requires_ai": False}, "/requires_ai"),
        ([], ""),
    ],
)
async def test_a_bad_module_is_refused_with_the_field_named(http: httpx2.AsyncClient, body: object, at: str) -> None:
    problem(await http.post("/api/modules", json=body), 422, "invalid_request", at)


async def test_a_bad_name_is_explained(http: httpx2.AsyncClient) -> None:
    refused = problem(await http.post("/api/modules", json={"name": "My module"}), 422, "invalid_request", "/name")

    assert "small letter" in refused["errors"][0]["detail"]


async def test_a_name_can_be_used_once(http: httpx2.AsyncClient, module: dict[str, Any]) -> None:
    other = await make(http)

    problem(await http.post("/api/modules", json={"name": module["name"]}), 409, "conflict", "/name")
    renamed = await http.patch(f"/api/modules/{other['id']}", json={"name": module["name"]})
    problem(renamed, 409, "conflict", "/name")


async def test_a_stale_etag_changes_nothing(http: httpx2.AsyncClient, module: dict[str, Any]) -> None:
    path = f"/api/modules/{module['id']}"
    for method, body in (("PATCH", {"description": "x"}), ("PUT", {"content": "x"}), ("DELETE", None)):
        for etag in ('"7"', '"nonsense"'):
            problem(await http.request(method, path, json=body, headers={"if-match": etag}), 412, "stale_version")

    assert (await http.get(path)).json() == module


async def test_a_module_that_nobody_uses_is_deleted(http: httpx2.AsyncClient, module: dict[str, Any]) -> None:
    path = f"/api/modules/{module['id']}"

    deleted = await http.delete(path, headers={"if-match": '"1"'})

    assert (deleted.status_code, deleted.content) == (204, b"")
    problem(await http.get(path), 404, "not_found")
    problem(await http.delete(path), 404, "not_found")


async def test_a_used_module_is_deleted_only_by_force(http: httpx2.AsyncClient, module: dict[str, Any]) -> None:
    path, name = f"/api/modules/{module['id']}", module["name"]
    named = (await http.post("/api/personas", json={"name": f"A {uuid4()}", "template": f"@{name}"})).json()
    attached = (await http.post("/api/personas", json={"name": f"B {uuid4()}", "modules": [name]})).json()
    refers = await make(http, content=f"${{{name}.mood}}")
    runs = await make(http, type="advanced", script=f'ctx.run_module("{name}")')

    refused = problem(await http.delete(path), 409, "module_in_use")

    users = {(use["kind"], use["id"]) for use in refused["details"]["used_by"]}
    assert users == {
        ("persona", named["id"]),
        ("persona", attached["id"]),
        ("module", refers["id"]),
        ("module", runs["id"]),
    }
    assert (await http.delete(path, params={"force": True})).status_code == 204
    assert (await http.get(f"/api/personas/{attached['id']}")).json()["modules"] == []


async def test_lists_are_filtered_and_walked_by_cursor(http: httpx2.AsyncClient) -> None:
    mark = uuid4().hex[:12]
    made = [
        (await make(http, name=f"m{n}_{mark}", type="advanced" if n % 2 else "simple", is_active=n != 4))["id"]
        for n in range(5)
    ]
    await http.patch(f"/api/modules/{made[0]}", json={"execution_context": "ON_DEMAND"})

    walked: list[str] = []
    path: str | None = f"/api/modules?limit=2&q={mark.upper()}"
    while path:
        page = await http.get(path)
        walked += [module["id"] for module in page.json()["items"]]
        path = page.links["next"]["url"] if "next" in page.links else None

    async def found(**wanted: Any) -> list[int]:
        page = (await http.get("/api/modules", params={"q": mark} | wanted)).json()
        return [made.index(module["id"]) for module in page["items"]]

    assert walked == made[::-1]
    assert await found(type="advanced") == [3, 1]
    assert await found(active=False) == [4]
    assert await found(execution_context="ON_DEMAND") == [0]
    assert await found(execution_context="POST_RESPONSE") == []
    problem(await http.get("/api/modules?type=odd"), 422, "invalid_request", "/type")


async def test_every_function_of_ctx_is_described(http: httpx2.AsyncClient) -> None:
    functions = {one["name"]: one for one in (await http.get("/api/modules/plugin-functions")).json()["items"]}

    generate = functions["generate"]
    assert (generate["needs_ai"], functions["set_output"]["needs_ai"]) == (True, False)
    assert generate["description"]
    assert generate["parameters"][0] | {"default": None} == {
        "name": "instructions",
        "type": "str",
        "required": True,
        "default": None,
        "variadic": False,
    }


async def test_a_script_is_read_without_being_saved(http: httpx2.AsyncClient) -> None:
    good = (await http.post("/api/modules/analyze-script", json={"script": ASKS})).json()
    bad = (await http.post("/api/modules/analyze-script", json={"script": "x ="})).json()

    assert good == {
        "is_valid": True,
        "requires_ai": True,
        "functions": ["generate", "set_output"],
        "outputs": ["mood"],
        "references": [],
        "problems": [],
    }
    assert bad["is_valid"] is False
    assert bad["problems"][0]["line"] == 1
    problem(await http.post("/api/modules/analyze-script", json={}), 422, "invalid_request", "/script")


async def test_a_strangers_module_is_not_there(http: httpx2.AsyncClient, stranger: Stranger) -> None:
    path = f"/api/modules/{stranger.module_id}"

    for method, body in (("GET", None), ("PUT", {}), ("PATCH", {"content": "x"}), ("DELETE", None)):
        problem(await http.request(method, path, json=body), 404, "not_found")
    problem(await http.delete(path, params={"force": True}), 404, "not_found")
    assert str(stranger.module_id) not in (await http.get("/api/modules", params={"limit": 100})).text
    problem(await http.get("/api/modules/x"), 422, "invalid_request")
