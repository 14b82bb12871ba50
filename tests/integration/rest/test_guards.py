"""What surrounds every request."""

import io
import json
import logging

import httpx2
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from api.errors import register_error_handlers
from api.logs import JsonLines, LogHandler
from api.middleware import add_middleware
from db.errors import DatabaseUnavailable
from services.errors import TooManyRequests
from services.telemetry.redaction import Redactor
from tests.integration.rest.reading import problem
from tests.service import local_settings, running_service


def port_of(http: httpx2.AsyncClient) -> int:
    assert http.base_url.port
    return http.base_url.port


@pytest.mark.parametrize(
    "host", ["localhost:{}", "127.0.0.1:{}", "[::1]:{}", "LOCALHOST:{}", "localhost", "127.0.0.1:1"]
)
async def test_this_machine_is_trusted_under_its_own_names(http: httpx2.AsyncClient, host: str) -> None:
    answer = await http.get("/livez", headers={"host": host.format(port_of(http))})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{}",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:x",
        "",
        "10.0.0.1",
    ],
)
async def test_a_foreign_name_for_this_machine_is_refused(http: httpx2.AsyncClient, host: str) -> None:
    for method, path in (("GET", "/api/sessions"), ("POST", "/api/sessions"), ("GET", "/livez"), ("GET", "/nowhere")):
        answer = await http.request(method, path, headers={"host": host.format(port_of(http))})
        problem(answer, 400, "untrusted_host")


async def test_sockets_are_guarded_and_named_too(http: httpx2.AsyncClient, session_id: str) -> None:
    address = f"ws://127.0.0.1:{port_of(http)}/ws/chat/{session_id}"

    async with connect(address, additional_headers={"x-request-id": "my-socket"}) as socket:
        assert socket.response
        assert socket.response.headers["x-request-id"] == "my-socket"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://evil.example/ws/chat/{session_id}", host="127.0.0.1", port=port_of(http)):
            pass

    assert refused.value.response.status_code == 400
    assert b"untrusted_host" in refused.value.response.body


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://localhost:1", "http://127.0.0.1:{}/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_page_of_another_site_changes_nothing(
    http: httpx2.AsyncClient, session_id: str, origin: str, method: str
) -> None:
    path = f"/api/sessions/{session_id}"

    answer = await http.request(method, path, json={"title": "x"}, headers={"origin": origin.format(port_of(http))})

    problem(answer, 403, "foreign_origin")
    assert "access-control-allow-origin" not in answer.headers
    assert (await http.get(path)).json()["version"] == 1


@pytest.mark.parametrize("origin", ["http://localhost:{}", "http://127.0.0.1:{}"])
async def test_our_own_page_may_change_things(http: httpx2.AsyncClient, session_id: str, origin: str) -> None:
    headers = {"origin": origin.format(port_of(http))}

    answer = await http.patch(f"/api/sessions/{session_id}", json={"title": "x"}, headers=headers)

    assert answer.status_code == 200


async def test_named_sites_and_hosts_are_let_in(database_url: str) -> None:
    settings = local_settings(allowed_origins="https://app.example.org", trusted_hosts="chat.lan")
    async with running_service(settings, database_url) as base_url, httpx2.AsyncClient(base_url=base_url) as http:
        named = {"origin": "https://app.example.org", "host": "chat.lan:8000"}

        made = await http.post("/api/sessions", json={}, headers=named)
        preflight = await http.options(
            "/api/sessions",
            headers=named | {"access-control-request-method": "PATCH", "access-control-request-headers": "if-match"},
        )
        foreign = await http.post("/api/sessions", json={}, headers={"origin": "https://other.example.org"})

    assert made.status_code == 201
    assert made.headers["access-control-allow-origin"] == "https://app.example.org"
    assert "etag" in made.headers["access-control-expose-headers"]
    assert preflight.status_code == 200
    problem(foreign, 403, "foreign_origin")


async def test_every_answer_bears_safe_headers_and_a_name(http: httpx2.AsyncClient) -> None:
    for path in ("/api/sessions", "/livez", "/nowhere", "/docs", "/api/sessions/x"):
        answer = await http.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-request-id"]


async def test_a_sane_request_id_is_kept_and_another_is_replaced(http: httpx2.AsyncClient) -> None:
    kept = await http.get("/nowhere", headers={"x-request-id": "my-id_1"})
    assert kept.headers["x-request-id"] == "my-id_1"
    assert problem(kept, 404, "not_found")["request_id"] == "my-id_1"

    for odd in ("", "a b", "x" * 101, "<script>", '"'):
        answer = await http.get("/livez", headers={"x-request-id": odd})
        assert answer.headers["x-request-id"] not in ("", odd)


def _app_that(error: Exception) -> FastAPI:
    app = FastAPI()
    register_error_handlers(app)
    add_middleware(app, local_settings(), app.routes, lambda _exchange: None)

    @app.get("/fails")
    async def fails() -> None:
        raise error

    return app


async def _ask(error: Exception) -> httpx2.Response:
    transport = httpx2.ASGITransport(_app_that(error))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.get("/fails")


async def test_what_nobody_foresaw_is_a_500_that_tells_only_the_log() -> None:
    log, handler = logging.getLogger("api.middleware.failures"), LogHandler(said := io.StringIO())
    handler.setFormatter(JsonLines(Redactor()))
    log.addHandler(handler)
    answer = await _ask(RuntimeError("the shelf has fallen on 10.0.0.5"))
    log.removeHandler(handler)

    body = problem(answer, 500, "internal")
    line = json.loads(said.getvalue())
    assert "10.0.0.5" not in answer.text
    assert (line["message"], line["request_id"]) == ("GET /fails failed", body["request_id"])
    assert "the shelf has fallen on 10.0.0.5" in line["exception"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_absent_database_is_a_503_that_says_when_to_come_back() -> None:
    answer = await _ask(DatabaseUnavailable("connection to 10.0.0.5 refused"))

    assert problem(answer, 503, "unavailable")["retryable"]
    assert int(answer.headers["retry-after"]) >= 1
    assert "10.0.0.5" not in answer.text


async def test_too_much_at_once_is_a_429_that_says_when_to_come_back() -> None:
    answer = await _ask(TooManyRequests(retry_after=7))

    assert problem(answer, 429, "too_many_requests")["details"] == {"retry_after": 7}
    assert answer.headers["retry-after"] == "7"
