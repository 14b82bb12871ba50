"""Saved connections where there are accounts: each user's own, and none into the network of the service."""

import httpx2

from tests.fakes.openai_server import OpenAIFake
from tests.integration.auth.conftest import registered
from tests.integration.rest.reading import problem

KEY = "sk-canary-0123456789"


async def test_connections_need_somebody_who_is_signed_in(http: httpx2.AsyncClient) -> None:
    for method, path in (
        ("GET", "/api/connections"),
        ("POST", "/api/connections"),
        ("GET", "/api/connections/openai"),
        ("PATCH", "/api/connections/mine"),
        ("DELETE", "/api/connections/mine"),
        ("POST", "/api/connections/demo/test"),
        ("POST", "/api/connections/demo/models"),
    ):
        json = {} if method in ("POST", "PATCH") else None
        assert (await http.request(method, path, json=json)).status_code == 401, path


async def test_each_user_has_connections_of_their_own(http: httpx2.AsyncClient) -> None:
    one, other = await registered(http), await registered(http)
    body = {"name": "mine", "kind": "openai", "base_url": "https://models.example.org/v1", "api_key": KEY}
    saved = [(await http.post("/api/connections", json=body, headers=who.headers)).json() for who in (one, other)]
    assert saved[0]["id"] != saved[1]["id"]

    for who, own, theirs in ((one, saved[0], saved[1]), (other, saved[1], saved[0])):
        listed = (await http.get("/api/connections", headers=who.headers)).json()["items"]
        assert [item["id"] for item in listed if item["source"] == "saved"] == [own["id"]]
        assert (await http.get("/api/connections/mine", headers=who.headers)).json() == own
        path = f"/api/connections/{theirs['id']}"
        problem(await http.get(path, headers=who.headers), 404, "not_found")
        problem(await http.patch(path, json={"name": "x"}, headers=who.headers), 404, "not_found")
        problem(await http.delete(path, headers=who.headers), 404, "not_found")
        problem(await http.post(f"{path}/test", headers=who.headers), 404, "not_found")
        config = (await http.get("/api/config", headers=who.headers)).json()
        assert [one["id"] for one in config["providers"] if one["source"] == "saved"] == [own["id"]]
        named = {"connection": theirs["id"]}
        problem(await http.post("/api/sessions", json=named, headers=who.headers), 422, "unknown_provider")


async def test_no_connection_leads_into_the_network_of_the_service(http: httpx2.AsyncClient) -> None:
    headers = (await registered(http)).headers
    async with OpenAIFake() as inside:
        body = {"base_url": inside.url, "api_key": KEY}
        port = inside.root.rpartition(":")[2]
        for kind in ("openai", "azure", "ollama"):
            tried = await http.post(f"/api/connections/{kind}/test", json=body, headers=headers)
            problem(tried, 422, "provider_host_not_allowed", "/base_url")
        saved = await http.post("/api/connections", json={"name": "in", "kind": "openai"} | body, headers=headers)
        problem(saved, 422, "provider_host_not_allowed", "/base_url")
        named = await http.post(
            "/api/connections/openai/test", json=body | {"base_url": f"http://localhost:{port}/v1"}, headers=headers
        )
        problem(named, 422, "provider_host_not_allowed", "/base_url")
        assert inside.requests == []
        assert inside.lookups == []
