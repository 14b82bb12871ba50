"""What can be done with a path, and what JSON is."""

import httpx2
import pytest

from tests.integration.rest.reading import problem

ONE = "01a20045-2d6e-7875-be1d-b9906fa70873"
_ALL = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/api/personas", "GET, HEAD, OPTIONS, POST"),
        (f"/api/personas/{ONE}", _ALL),
        (f"/api/conversations/{ONE}", _ALL),
        (f"/api/conversations/{ONE}/memories", "DELETE, GET, HEAD, OPTIONS"),
        ("/api/modules/plugin-functions", "GET, HEAD, OPTIONS"),
        ("/api/modules/test-script", "OPTIONS, POST"),
        ("/livez", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_path_tells_what_is_possible(http: httpx2.AsyncClient, path: str, allow: str) -> None:
    options = await http.options(path)
    impossible = await http.request("TRACE", path)

    assert (options.status_code, options.content, options.headers["allow"]) == (204, b"", allow)
    problem(impossible, 405, "method_not_allowed")
    assert impossible.headers["allow"] == allow


async def test_the_name_of_a_resource_is_nobodys_id(http: httpx2.AsyncClient) -> None:
    problem(await http.put("/api/modules/plugin-functions", json={}), 405, "method_not_allowed")
    problem(await http.delete("/api/messages/search?q=x"), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/api/personas", "/api/config", "/livez", "/openapi.json"])
async def test_a_head_is_that_of_the_answer(http: httpx2.AsyncClient, path: str) -> None:
    head, answer = await http.head(path), await http.get(path)

    assert (head.status_code, head.content) == (answer.status_code, b"")
    assert head.headers["content-type"] == answer.headers["content-type"]


async def test_the_head_of_a_stream_opens_none(http: httpx2.AsyncClient, session_id: str) -> None:
    head = await http.head(f"/api/sessions/{session_id}/events")

    assert head.status_code == 200
    assert head.headers["content-type"].startswith("text/event-stream")


async def test_the_head_of_a_refusal_is_one(http: httpx2.AsyncClient) -> None:
    assert (await http.head(f"/api/personas/{ONE}")).status_code == 404
    assert (await http.head("/api/personas/x")).status_code == 422


@pytest.mark.parametrize("path", ["/api/personas/", f"/api/sessions/{ONE}/", "//api/personas", "/API/personas"])
async def test_a_path_is_taken_by_the_letter(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.send(http.build_request("GET", f"{http.base_url}".rstrip("/") + path))

    problem(answer, 404, "not_found")


@pytest.mark.parametrize(
    "text",
    [
        '{"title": "a", "title": "b"}',
        '{"metadata": {"a": {"b": 1, "b": 1}}}',
        '{"metadata": {"a": NaN}}',
        '{"metadata": {"a": -Infinity}}',
        '{"metadata": {"a": 1e400}}',
        '{"metadata": {"a": 1' + "0" * 5_000 + "}}",
        '{"metadata": ' + "[" * 5_000 + "]" * 5_000 + "}",
    ],
)
async def test_what_readers_of_json_disagree_about_is_refused(http: httpx2.AsyncClient, text: str) -> None:
    answer = await http.post("/api/sessions", content=text, headers={"content-type": "application/json"})

    problem(answer, 400, "malformed_json")


@pytest.mark.parametrize(
    ("path", "body", "at"),
    [
        ("/api/sessions", {"pinned": 1}, "/pinned"),
        ("/api/sessions", {"pinned": "true"}, "/pinned"),
        ("/api/modules", {"name": "m", "trigger_depth": "1"}, "/trigger_depth"),
        ("/api/modules", {"name": "m", "is_active": 0}, "/is_active"),
    ],
)
async def test_a_value_of_another_kind_is_not_bent(
    http: httpx2.AsyncClient, path: str, body: dict[str, object], at: str
) -> None:
    problem(await http.post(path, json=body), 422, "invalid_request", at)
