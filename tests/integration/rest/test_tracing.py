"""Spans, for whoever collects them."""

from collections.abc import AsyncGenerator

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from api.tracing import Tracing, discreet_provider, tracing_of
from tests.service import local_settings, running_service
from tests.waiting import eventually


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced(shared_database_url: str, exporter: InMemorySpanExporter) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of a service whose spans go to `exporter`."""
    provider = discreet_provider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with (
        running_service(local_settings(), shared_database_url, Tracing(provider)) as address,
        httpx2.AsyncClient(base_url=address, timeout=20) as http,
    ):
        yield http


async def test_a_reply_is_told_as_spans_with_ids_and_without_words(
    traced: httpx2.AsyncClient, exporter: InMemorySpanExporter
) -> None:
    session = (await traced.post("/api/sessions", json={})).json()["id"]

    answer = await traced.post(
        f"/api/sessions/{session}/messages?odd=needle", json={"content": "the needle in the haystack"}
    )

    run_id = answer.raise_for_status().json()["run_id"]
    await eventually(lambda: {"run", "stage 3"} <= names(exporter))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"stage 1", "stage 2", "stage 3", "model", "run"} <= set(spans)
    for name in ("stage 1", "stage 3", "model", "run"):
        attributes = spans[name].attributes or {}
        assert (attributes["colloquy.run_id"], attributes["colloquy.session_id"]) == (run_id, session)
    asked = next(span for span in spans.values() if is_for(span, "/api/sessions/{session_id}/messages"))
    assert context_of(spans["run"]).trace_id == context_of(asked).trace_id
    model = spans["model"].parent
    assert model is not None
    assert model.span_id == context_of(spans["run"]).span_id
    assert "needle" not in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_questions_of_health_make_no_spans(traced: httpx2.AsyncClient, exporter: InMemorySpanExporter) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        (await traced.get(path)).raise_for_status()

    assert exporter.get_finished_spans() == ()


def test_without_a_place_to_send_them_there_are_no_spans() -> None:
    assert tracing_of({}).config.get("tracing") is False
    assert tracing_of({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}).config.get("tracing") is False


def names(exporter: InMemorySpanExporter) -> set[str]:
    return {span.name for span in exporter.get_finished_spans()}


def is_for(span: ReadableSpan, route: str) -> bool:
    return (span.attributes or {}).get("http.route") == route


def context_of(span: ReadableSpan) -> SpanContext:
    assert span.context is not None
    return span.context
