"""Runs that are over, over REST."""

from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.fakes.openai_server import OpenAIFake
from tests.integration.rest.conftest import Stranger
from tests.integration.rest.reading import problem
from tests.waiting import eventually


@pytest.fixture
async def run(http: httpx2.AsyncClient, model: OpenAIFake) -> dict[str, Any]:
    """A run of a persona with one module: its path, the module, and what the model was told."""
    body = {"name": f"style_{uuid4().hex[:12]}", "content": "Be brief."}
    module = (await http.post("/api/modules", json=body)).json()
    persona = {"name": f"Ada {uuid4()}", "template": f"Dear @{module['name']} @nobody"}
    persona_id = (await http.post("/api/personas", json=persona)).json()["id"]
    session = (await http.post("/api/sessions", json={"persona_id": persona_id})).json()["id"]
    path = f"/api/sessions/{session}"
    sent = (await http.post(f"{path}/messages", json={"content": "Hi"})).raise_for_status().json()
    told = model.requests[0].body["messages"][0]["content"]
    return {"path": f"{path}/runs/{sent['run_id']}", "module": module, "told": told}


async def test_a_run_tells_its_prompt_and_how_it_came_about(http: httpx2.AsyncClient, run: dict[str, Any]) -> None:
    found = (await http.get(run["path"])).json()

    assert found["prompt"] == run["told"] == "Dear Be brief. @nobody"
    assert set(found["trace"]) == {"modules", "after", "warnings"}
    assert found["trace"]["after"] == []
    style, nobody = found["trace"]["modules"]
    assert (style["module"], style["version"], style["state"]) == (run["module"]["name"], 1, "spoke")
    assert (nobody["module"], nobody["version"], nobody["state"]) == ("nobody", None, "unknown")
    assert found["trace"]["warnings"] == ["There is no module nobody."]


async def test_a_run_without_a_persona_has_neither(http: httpx2.AsyncClient, session_id: str) -> None:
    sent = (await http.post(f"/api/sessions/{session_id}/messages", json={"content": "Hi"})).json()
    path = f"/api/sessions/{session_id}/runs/{sent['run_id']}"

    found = (await http.get(path)).json()

    assert (found["prompt"], found["trace"]) == (None, None)
    problem(await http.post(f"{path}/render"), 404, "not_found")


async def test_a_prompt_is_rendered_again_or_it_is_said_what_has_changed(
    http: httpx2.AsyncClient, run: dict[str, Any]
) -> None:
    path, module = f"{run['path']}/render", run["module"]

    same = (await http.post(path)).json()
    await http.patch(f"/api/modules/{module['id']}", json={"content": "Be long."})
    other = (await http.post(path)).json()

    assert same == {"prompt": run["told"], "is_same": True, "changed": []}
    assert (other["prompt"], other["is_same"]) == ("Dear Be long. @nobody", False)
    assert other["changed"] == [{"kind": "module", "name": module["name"], "was": 1, "now": 2}]


async def test_a_run_is_found_only_in_its_session_and_by_its_owner(
    http: httpx2.AsyncClient, run: dict[str, Any], session_id: str, stranger: Stranger
) -> None:
    run_id = run["path"].rpartition("/")[2]
    for path in (
        f"/api/sessions/{session_id}/runs/{run_id}",
        f"/api/sessions/{stranger.session_id}/runs/{stranger.run_id}",
        f"/api/sessions/{session_id}/runs/{stranger.run_id}",
    ):
        problem(await http.get(path), 404, "not_found")
        problem(await http.post(f"{path}/render"), 404, "not_found")


async def test_runs_are_listed_newest_first_a_page_at_a_time(http: httpx2.AsyncClient, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    sent = [(await http.post(f"{path}/messages", json={"content": text})).json()["run_id"] for text in ("1", "2", "3")]

    first = await http.get(f"{path}/runs", params={"limit": 2})
    cursor = first.json()["next_cursor"]
    second = await http.get(f"{path}/runs", params={"limit": 2, "cursor": cursor})

    assert [run["id"] for run in first.json()["items"]] == [sent[2], sent[1]]
    assert [run["id"] for run in second.json()["items"]] == [sent[0]]
    assert (cursor in first.headers["link"], second.json()["next_cursor"]) == (True, None)
    assert {run["state"] for run in first.json()["items"]} == {"finished"}
    assert "prompt" not in first.json()["items"][0]


async def test_the_runs_of_somebody_else_are_not_listed(http: httpx2.AsyncClient, stranger: Stranger) -> None:
    problem(await http.get(f"/api/sessions/{stranger.session_id}/runs"), 404, "not_found")
    problem(await http.get(f"/api/sessions/{uuid4()}/runs"), 404, "not_found")


async def test_a_run_tells_what_became_of_modules_after_the_reply(http: httpx2.AsyncClient) -> None:
    name = f"late_{uuid4().hex[:12]}"
    script = 'ctx.set_output("t", ctx.get_ai_response())'
    module = {"name": name, "type": "advanced", "script": script, "execution_context": "POST_RESPONSE"}
    (await http.post("/api/modules", json=module)).raise_for_status()
    persona = {"name": f"Ada {uuid4()}", "template": f"@{name}"}
    persona_id = (await http.post("/api/personas", json=persona)).json()["id"]
    session = (await http.post("/api/sessions", json={"persona_id": persona_id})).json()["id"]
    sent = (await http.post(f"/api/sessions/{session}/messages", json={"content": "Hi"})).json()
    path = f"/api/sessions/{session}/runs/{sent['run_id']}"

    async def is_told() -> bool:
        return bool((await http.get(path)).json()["trace"]["after"])

    await eventually(is_told, 20)
    [late] = (await http.get(path)).json()["trace"]["after"]
    assert (late["module"], late["version"], late["state"], late["error"]) == (name, 1, "spoke", None)
    assert late["tokens"] > 0
    rendered = (await http.post(f"{path}/render")).json()
    assert rendered == {"prompt": "", "is_same": True, "changed": []}
