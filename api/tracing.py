"""Spans of OpenTelemetry, where the operator has installed it and says where they go."""

import os
from collections.abc import Mapping, MutableMapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import NoOpTracer, Tracer, TracerProvider

from api.version import service_version

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider

_WHERE: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_UNTOLD: Final = ("/livez", "/readyz", "/metrics")
_ASKED: Final = ("url.path", "url.query")


class Tracing:
    """What FastAPI is told of it, and what our own spans are made with. Without a provider there are none."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self.tracer: Tracer = NoOpTracer() if provider is None else provider.get_tracer("colloquy")

    @property
    def config(self) -> TelemetryConfig:
        """Spans of requests, and nothing else: figures and logs are told elsewhere, and without what was asked for."""
        return {
            "tracing": self._provider is not None,
            "tracer_provider": self._provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": _is_untold,
        }

    def closing(self, stack: AsyncExitStack) -> None:
        """Send what is left when `stack` ends."""
        shutdown = getattr(self._provider, "shutdown", None)
        if shutdown is not None:
            stack.callback(shutdown)


def tracing_of(environment: Mapping[str, str] = os.environ) -> Tracing:
    """To where OTEL_EXPORTER_OTLP_ENDPOINT says, if it says so and the extra `otel` is installed."""
    if not any(environment.get(name) for name in _WHERE):
        return Tracing(None)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        return Tracing(None)
    provider = discreet_provider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def discreet_provider() -> "SdkProvider":
    """A provider whose spans name routes and not what was asked for: paths and queries may hold anything."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import SpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider  # noqa: PLC0415

    class Discreet(SpanProcessor):
        def on_start(self, span: "Span", parent_context: Any = None) -> None:
            told = span.attributes or {}
            span.set_attributes({name: "" for name in _ASKED if name in told})

    named = Resource.create({"service.name": "colloquy", "service.version": service_version()})
    provider = SdkProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(Discreet())
    return provider


def _is_untold(scope: MutableMapping[str, Any]) -> bool:
    return scope["path"] in _UNTOLD
