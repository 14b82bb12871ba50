"""What is measured, and who may see it."""

import re
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from tests.fakes.openai_server import OpenAIFake
from tests.fakes.script import Text
from tests.integration.rest.reading import problem
from tests.service import local_settings, running_service

_AN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-")


async def figures(http: httpx2.AsyncClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels."""
    answer = (await http.get("/metrics")).raise_for_status()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


class Figures:
    """The figures of the service now, against those of before."""

    def __init__(self, before: dict[Any, float], now: dict[Any, float]) -> None:
        self._before = before
        self._now = now

    def grown(self, name: str, **labels: str) -> float:
        """By how much that has grown."""
        key = (name, frozenset(labels.items()))
        return self._now.get(key, 0.0) - self._before.get(key, 0.0)


async def test_a_reply_is_counted_with_its_stages_tokens_and_model(
    http: httpx2.AsyncClient, model: OpenAIFake, session_id: str
) -> None:
    before = await figures(http)
    model.script(Text("Hello"))

    (await http.post(f"/api/sessions/{session_id}/messages", json={"content": "Hi"})).raise_for_status()

    counted = Figures(before, await figures(http))
    assert counted.grown("colloquy_runs_ended_total", finish_reason="stop") == 1
    assert counted.grown("colloquy_run_seconds_count") == 1
    assert counted.grown("colloquy_first_delta_seconds_count") == 1
    assert counted.grown("colloquy_tokens_total", direction="in") > 0
    assert counted.grown("colloquy_model_requests_total", provider="openai", outcome="ok") == 1
    assert counted.grown("colloquy_model_first_token_seconds_count", provider="openai") == 1
    assert counted.grown("colloquy_journal_flush_seconds_count") >= 1
    assert counted.grown("colloquy_journal_flush_events_sum") >= 2
    assert counted.grown("colloquy_database_wait_seconds_count") >= 1
    for stage in "123":
        assert counted.grown("colloquy_stage_seconds_count", stage=stage) == 1


async def test_requests_are_counted_by_route_and_faults_by_code(http: httpx2.AsyncClient, session_id: str) -> None:
    before = await figures(http)

    await http.get(f"/api/sessions/{session_id}")
    await http.get("/api/sessions/nonsense")
    await http.get("/nowhere/at/all")
    await http.request("LOCK", "/nowhere/at/all")

    counted, route = Figures(before, await figures(http)), "/api/sessions/{session_id}"
    assert counted.grown("colloquy_http_requests_total", method="GET", route=route, status="2xx") == 1
    assert counted.grown("colloquy_http_requests_total", method="GET", route=route, status="4xx") == 1
    assert counted.grown("colloquy_http_requests_total", method="GET", route="none", status="4xx") == 1
    assert counted.grown("colloquy_problems_total", code="invalid_request") == 1
    assert counted.grown("colloquy_problems_total", code="not_found") == 2
    assert counted.grown("colloquy_http_requests_total", method="other", route="none", status="4xx") == 1


async def test_what_the_audit_log_takes_is_counted(http: httpx2.AsyncClient, session_id: str) -> None:
    before = await figures(http)

    await http.delete(f"/api/sessions/{session_id}")

    counted = Figures(before, await figures(http))
    assert counted.grown("colloquy_audit_entries_total", action="session.delete", outcome="done") == 1


async def test_the_state_of_the_service_is_told(http: httpx2.AsyncClient) -> None:
    now = await figures(http)

    def told(name: str, **labels: str) -> float:
        return now[name, frozenset(labels.items())]

    assert told("colloquy_database_connections", state="limit") == 10
    assert told("colloquy_database_connections", state="in_use") >= 0
    assert told("colloquy_sandbox_places", state="limit") == 64
    assert told("colloquy_sockets_open") == 0
    assert told("colloquy_readers") == 0
    assert told("colloquy_journal_lag_seconds") == 0
    assert {told("colloquy_runs", state=state) for state in ("active", "paused", "queued")} == {0}
    assert told("colloquy_event_loop_lag_seconds_count") > 0
    assert told("colloquy_event_loop_lag_worst_seconds") >= 0
    assert told("process_resident_memory_bytes") > 1e6


async def test_no_label_is_an_id(http: httpx2.AsyncClient, session_id: str) -> None:
    await http.get(f"/api/sessions/{session_id}")

    assert not _AN_ID.search((await http.get("/metrics")).text)


async def test_with_a_token_only_who_shows_it_may_read(shared_database_url: str) -> None:
    settings = local_settings(metrics_token=SecretStr("correct horse battery"))
    async with (
        running_service(settings, shared_database_url) as address,
        httpx2.AsyncClient(base_url=address) as http,
    ):
        problem(await http.get("/metrics"), 401, "not_authenticated")
        for wrong in ("Bearer wrong", "Basic correct horse battery", "correct horse battery", "Bearer é"):
            problem(await http.get("/metrics", headers={b"authorization": wrong.encode()}), 401, "not_authenticated")
        shown = await http.get("/metrics", headers={"authorization": "Bearer correct horse battery"})
        assert shown.headers["content-type"].startswith("text/plain")
        assert "colloquy_runs" in shown.text


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="16"):
        local_settings(metrics_token=SecretStr("short"))
