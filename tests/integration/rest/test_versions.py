"""ETags: what has not changed is not sent again, and nobody changes what they have not read."""

from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.integration.rest.reading import problem

_OF_EACH = pytest.mark.parametrize("kind", ["personas", "modules", "sessions", "conversations"])


async def made(http: httpx2.AsyncClient, kind: str) -> tuple[str, str]:
    """The path of a new thing of that kind, and its tag."""
    body: dict[str, Any] = {"name": f"v{uuid4().hex[:20]}"} if kind in ("personas", "modules") else {}
    answer = (await http.post(f"/api/{kind}", json=body)).raise_for_status()
    return answer.headers["location"], answer.headers["etag"]


@_OF_EACH
async def test_what_has_not_changed_is_not_sent_again(http: httpx2.AsyncClient, kind: str) -> None:
    path, tag = await made(http, kind)
    assert (await http.get(path)).headers["etag"] == tag

    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await http.get(path, headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["etag"] == tag
        assert answer.headers["x-request-id"]
    assert (await http.get(path, headers={"if-none-match": '"0"'})).status_code == 200


@_OF_EACH
async def test_what_has_changed_is_sent(http: httpx2.AsyncClient, kind: str) -> None:
    path, tag = await made(http, kind)
    changed = {"title": "New"} if kind in ("sessions", "conversations") else {"description": "New"}
    await http.patch(path, json=changed)

    answer = await http.get(path, headers={"if-none-match": tag})

    assert answer.status_code == 200
    assert answer.headers["etag"] != tag


@_OF_EACH
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_nobody_changes_what_they_have_not_read(http: httpx2.AsyncClient, kind: str, method: str) -> None:
    path, tag = await made(http, kind)
    body = None if method == "DELETE" else {}
    for stale in ('"99"', '"x"', 'W/"1"x', f'"{tag}"', "99999999999999999999"):
        problem(await http.request(method, path, json=body, headers={"if-match": stale}), 412, "stale_version")

    answer = await http.request(method, path, json=body, headers={"if-match": tag})

    assert answer.is_success, answer.text


async def test_no_other_request_is_left_without_its_answer(http: httpx2.AsyncClient) -> None:
    path, tag = await made(http, "personas")

    problem(await http.get("/api/personas/x", headers={"if-none-match": "*"}), 422, "invalid_request")
    assert (await http.patch(path, json={}, headers={"if-none-match": tag})).status_code == 200
    assert (await http.get("/api/personas", headers={"if-none-match": "*"})).status_code == 200
