"""Every refusal is a problem that says what is wrong, whatever went wrong."""

import asyncio
import json

import httpx2
import pytest

from tests.integration.rest.reading import problem

ONE = "01a20045-2d6e-7875-be1d-b9906fa70873"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for bad in ("x", "1", "01a20045-2d6e-7875-be1d-b9906fa7087", f"{ONE}0", "%00", "..%2f..")
        for method, path in (
            ("GET", f"/api/personas/{bad}"),
            ("DELETE", f"/api/personas/{bad}"),
            ("GET", f"/api/sessions/{bad}"),
            ("GET", f"/api/conversations/{bad}"),
            ("DELETE", f"/api/conversations/{bad}"),
            ("GET", f"/api/conversations/by-persona/{bad}"),
            ("GET", f"/api/sessions/{bad}/messages"),
            ("GET", f"/api/sessions/{bad}/events"),
            ("GET", f"/api/sessions/{ONE}/runs/{bad}"),
            ("GET", f"/api/messages/{bad}"),
            ("GET", f"/api/messages/by-conversation/{bad}"),
        )
    ],
)
async def test_a_malformed_id_is_refused(http: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path)

    if answer.status_code == 404 and "%2f" in path:  # a slash is a slash
        problem(answer, 404, "not_found")
    else:
        problem(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/personas"),
        ("PATCH", f"/api/personas/{ONE}"),
        ("PUT", f"/api/sessions/{ONE}"),
        ("POST", "/api/conversations"),
        ("POST", f"/api/sessions/{ONE}/messages"),
        ("POST", f"/api/sessions/{ONE}/interrupt"),
    ],
)
class TestBodies:
    """What every route that takes a body does with a bad one."""

    @pytest.mark.parametrize(
        "raw", [b"{", b'{"name": }', b"\xff\xfe", b"nonsense", b'{"a": 1} x', b"[" * 100_000, b'"\xc3']
    )
    async def test_what_is_no_json_is_400(self, http: httpx2.AsyncClient, method: str, path: str, raw: bytes) -> None:
        answer = await http.request(method, path, content=raw, headers={"content-type": "application/json"})

        problem(answer, 400, "malformed_json")

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
    async def test_another_kind_of_body_is_415(
        self, http: httpx2.AsyncClient, method: str, path: str, kind: str | None
    ) -> None:
        headers = {} if kind is None else {"content-type": kind}

        problem(
            await http.request(method, path, content=b'{"name": "n"}', headers=headers), 415, "unsupported_media_type"
        )

    @pytest.mark.parametrize("body", ["text", 5, True, []])
    async def test_json_that_is_no_object_is_422(
        self, http: httpx2.AsyncClient, method: str, path: str, body: object
    ) -> None:
        problem(await http.request(method, path, json=body), 422, "invalid_request")

    async def test_an_unknown_field_is_422_and_named(self, http: httpx2.AsyncClient, method: str, path: str) -> None:
        problem(await http.request(method, path, json={"surprise": 1}), 422, "invalid_request", "/surprise")

    async def test_a_body_over_the_limit_is_413(self, http: httpx2.AsyncClient, method: str, path: str) -> None:
        raw = json.dumps({"name": "x" * 1_048_576}).encode()

        answer = await http.request(method, path, content=raw, headers={"content-type": "application/json"})

        assert problem(answer, 413, "body_too_large")["details"] == {"limit": 1_048_576}

    async def test_so_is_one_that_comes_in_chunks(self, http: httpx2.AsyncClient, method: str, path: str) -> None:
        async def chunks():
            for _ in range(40):
                yield b'{"name":' + b" " * 32_768

        answer = await http.request(method, path, content=chunks(), headers={"content-type": "application/json"})

        problem(answer, 413, "body_too_large")


async def test_an_endless_body_is_refused_before_its_end(service: str) -> None:
    host, port = service.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/personas HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(17):
        writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
    await writer.drain()

    async with asyncio.timeout(5):
        status = await reader.readline()

    assert b" 413 " in status
    writer.close()
    await writer.wait_closed()


async def test_a_body_of_just_the_limit_is_read(http: httpx2.AsyncClient) -> None:
    raw = b'{"name": "x"' + b" " * (1_048_576 - 24) + b', "mode": 1}'
    assert len(raw) == 1_048_576

    answer = await http.post("/api/personas", content=raw, headers={"content-type": "application/json"})

    problem(answer, 422, "invalid_request", "/mode")


@pytest.mark.parametrize("path", ["/api", "/api/nothing", f"/api/sessions/{ONE}/nothing"])
async def test_an_unknown_path_is_404(http: httpx2.AsyncClient, path: str) -> None:
    problem(await http.get(path), 404, "not_found")


async def test_an_impossible_method_is_405_and_says_what_is_possible(http: httpx2.AsyncClient) -> None:
    answer = await http.delete("/api/personas")

    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]


async def test_a_nul_in_a_query_is_refused(http: httpx2.AsyncClient) -> None:
    problem(await http.get("/api/personas?q=a%00b"), 422, "invalid_request", "/q")


async def test_well_formed_ids_of_nothing_are_404(http: httpx2.AsyncClient) -> None:
    for path in ("personas", "sessions", "conversations", "messages", "messages/by-conversation"):
        problem(await http.get(f"/api/{path}/{ONE}"), 404, "not_found")
    for path in ("messages", "events", f"runs/{ONE}"):
        problem(await http.get(f"/api/sessions/{ONE}/{path}"), 404, "not_found")
