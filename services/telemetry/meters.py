"""What is measured. Everything is bounded: no label has a value that somebody else can make up.

Services are given the meter that they need and know nothing of how it is told. The meters stand in a registry of their
own: there may be several services in a process.
"""

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

from opentelemetry.trace import NoOpTracer, Span, Tracer
from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from services.errors import ProviderError
from services.telemetry.circumstances import circumstances

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10)
_LONG: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_LAG: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CLOSE_CODES: Final = (1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013)


class Meters:
    """All of them."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        """With a `tracer`, what takes time is also told as spans."""
        tracer = tracer or NoOpTracer()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.http = HttpMeter(self.registry)
        self.sockets = SocketMeter(self.registry)
        self.runs = RunMeter(self.registry, tracer)
        self.models = ModelMeter(self.registry, tracer)
        self.journal = JournalMeter(self.registry)
        self.loop_lag = Histogram(
            "colloquy_event_loop_lag_seconds",
            "How much later than it should the event loop came to a timer, several times a second.",
            registry=self.registry,
            buckets=_LAG,
        )
        self.database_wait = Histogram(
            "colloquy_database_wait_seconds",
            "How long was waited for a connection of the pool.",
            registry=self.registry,
            buckets=_QUICK,
        )
        self.audit = AuditMeter(self.registry)
        self._sights = _Sights()
        self.registry.register(self._sights)

    def see(self, name: str, what: str, look: Callable[[], float]) -> None:
        """Tell a figure that is looked up only when somebody asks for it; without a figure (NaN) it is left out."""
        self._sights.add(name, what, None, lambda: {"": look()})

    def see_each(self, name: str, what: str, label: str, look: Callable[[], Mapping[str, float]]) -> None:
        """The same for figures by a label."""
        self._sights.add(name, what, label, look)

    def told(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)


class HttpMeter:
    """Requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "colloquy_http_requests_total",
            "Requests that were answered, by route and class of status.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "colloquy_http_request_seconds",
            "How long answers took, those that are streams as long as they were read.",
            ("route",),
            registry=registry,
            buckets=_QUICK,
        )
        self._problems = Counter(
            "colloquy_problems_total", "Answers that were problems, by their code.", ("code",), registry=registry
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(method if method in _METHODS else "other", route, f"{status // 100}xx").inc()
        self._seconds.labels(route).observe(seconds)

    def problem(self, code: str) -> None:
        """Count a fault that was told."""
        self._problems.labels(code).inc()


class SocketMeter:
    """Sockets that were closed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._closed = Counter(
            "colloquy_sockets_closed_total",
            "Sockets that were closed or refused, by close code, or status of a refusal.",
            ("route", "code"),
            registry=registry,
        )

    def closed(self, route: str, code: int) -> None:
        """Count a socket; codes that a client made up are counted together."""
        is_ours = code in _CLOSE_CODES or 4400 <= code < 4600 or 400 <= code < 600
        self._closed.labels(route, str(code) if is_ours else "other").inc()


class RunMeter:
    """Runs: how they end, how long they and their stages take, and what they cost."""

    def __init__(self, registry: CollectorRegistry, tracer: Tracer) -> None:
        self._tracer = tracer
        self._ended = Counter(
            "colloquy_runs_ended_total", "Replies that ended, by why.", ("finish_reason",), registry=registry
        )
        self._seconds = Histogram(
            "colloquy_run_seconds", "From a run's start to the end of its reply.", registry=registry, buckets=_LONG
        )
        self._first_delta = Histogram(
            "colloquy_first_delta_seconds",
            "From a run's start to the first piece of its reply.",
            registry=registry,
            buckets=_LONG,
        )
        self._stages = Histogram(
            "colloquy_stage_seconds", "How long each stage took.", ("stage",), registry=registry, buckets=_LONG
        )
        self._tokens = Counter(
            "colloquy_tokens_total", "Tokens as model servers count them.", ("direction",), registry=registry
        )
        self._tool_calls = Counter(
            "colloquy_tool_calls_total", "Calls of tools, by how they ended.", ("outcome",), registry=registry
        )
        self._tool_seconds = Histogram(
            "colloquy_tool_call_seconds", "How long tools took to answer.", registry=registry, buckets=_LONG
        )

    def ended(self, finish_reason: str, timings: Mapping[str, int], usage: Mapping[str, int | None]) -> None:
        """Count a reply; timings are those of the run, in milliseconds."""
        self._ended.labels(finish_reason).inc()
        self._seconds.observe(timings["total_ms"] / 1e3)
        if "first_delta_ms" in timings:
            self._first_delta.observe(timings["first_delta_ms"] / 1e3)
        self._tokens.labels("in").inc(usage.get("input_tokens") or 0)
        self._tokens.labels("out").inc(usage.get("output_tokens") or 0)

    @contextmanager
    def performing(self) -> Generator[None, None, None]:
        """While a run is performed, by the task that asks."""
        with self._tracer.start_as_current_span("run", attributes=_ids(), record_exception=False):
            yield

    def tool_call(self, outcome: str, ms: int) -> None:
        """Count a call that ended."""
        now = time.time_ns()
        attributes = {**_ids(), "colloquy.outcome": outcome}
        self._tracer.start_span("tool call", start_time=now - ms * 1_000_000, attributes=attributes).end(now)
        self._tool_calls.labels(outcome).inc()
        self._tool_seconds.observe(ms / 1e3)

    def stages(self) -> "StageClock":
        """A clock for the stages of one run."""
        return StageClock(self._stages, self._tracer)


class StageClock:
    """Measures each stage that is told to begin and to end."""

    __slots__ = ("_begun", "_stages", "_tracer")

    def __init__(self, stages: Histogram, tracer: Tracer) -> None:
        self._stages = stages
        self._tracer = tracer
        self._begun: dict[int, int] = {}

    def note(self, stage: int, status: str) -> None:
        """The stage has `started` or `finished`; one that did not start here is not counted."""
        if status == "started":
            self._begun.setdefault(stage, time.time_ns())
        elif (begun := self._begun.pop(stage, None)) is not None:
            now = time.time_ns()
            self._stages.labels(str(stage)).observe(max(0, now - begun) / 1e9)
            self._tracer.start_span(f"stage {stage}", start_time=begun, attributes=_ids()).end(now)


class ModelMeter:
    """Answers of model servers within replies, by the kind of server."""

    def __init__(self, registry: CollectorRegistry, tracer: Tracer) -> None:
        self._tracer = tracer
        self._requests = Counter(
            "colloquy_model_requests_total",
            "Answers that model servers were asked for, by how that ended.",
            ("provider", "outcome"),
            registry=registry,
        )
        self._first = Histogram(
            "colloquy_model_first_token_seconds",
            "From a request to the first event of its answer.",
            ("provider",),
            registry=registry,
            buckets=_LONG,
        )
        self._seconds = Histogram(
            "colloquy_model_seconds", "How long whole answers took.", ("provider",), registry=registry, buckets=_LONG
        )

    def asked(self, kind: str) -> "MeasuredRequest":
        """A meter for one request, to be left as the request is."""
        span = self._tracer.start_span("model", attributes={**_ids(), "colloquy.provider": kind})
        return MeasuredRequest(kind, self._requests, self._first, self._seconds, span)


class RequestMeter(Protocol):
    """For one request: `with` it, and say when the answer begins."""

    has_begun: bool

    def began(self) -> None:
        """The first event is there."""
        ...


class NotMeasured:
    """For a request that nobody measures."""

    has_begun = True

    def began(self) -> None:
        """Nobody asks."""

    def __enter__(self) -> "NotMeasured":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class MeasuredRequest:
    """A request whose times and outcome are counted."""

    __slots__ = ("_asked_at", "_first", "_kind", "_requests", "_seconds", "_span", "has_begun")

    def __init__(self, kind: str, requests: Counter, first: Histogram, seconds: Histogram, span: Span) -> None:
        self._span = span
        self.has_begun = False
        self._kind = kind
        self._requests = requests
        self._first = first
        self._seconds = seconds
        self._asked_at = time.monotonic()

    def began(self) -> None:
        """The first event is there."""
        self.has_begun = True
        self._first.labels(self._kind).observe(time.monotonic() - self._asked_at)
        self._span.add_event("first token")

    def __enter__(self) -> "MeasuredRequest":
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _where: object) -> None:
        match error:
            case None:
                outcome = "ok"
                self._seconds.labels(self._kind).observe(time.monotonic() - self._asked_at)
            case ProviderError():
                outcome = error.code
            case Exception():
                outcome = "error"
            case _:
                outcome = "stopped"
        self._requests.labels(self._kind, outcome).inc()
        self._span.set_attribute("colloquy.outcome", outcome)
        self._span.end()


class AuditMeter:
    """Entries of the audit log."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._entries = Counter(
            "colloquy_audit_entries_total",
            "Entries of the audit log, sign-ins that were refused among them.",
            ("action", "outcome"),
            registry=registry,
        )

    def noted(self, action: str, outcome: str) -> None:
        """Count an entry."""
        self._entries.labels(action, outcome).inc()


class JournalMeter:
    """Commits of the one writer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "colloquy_journal_flush_seconds", "How long a flush took to commit.", registry=registry, buckets=_QUICK
        )
        self._events = Histogram(
            "colloquy_journal_flush_events", "Events that one flush wrote.", registry=registry, buckets=_SIZES
        )

    def flushed(self, seconds: float, events: int) -> None:
        """Count a flush."""
        self._seconds.observe(seconds)
        self._events.observe(events)


def _ids() -> dict[str, str]:
    """What a span belongs to. Spans may have ids; labels of figures must not."""
    around = circumstances()
    known = {"run_id": around.run_id, "session_id": around.session_id, "user_id": around.user_id}
    return {f"colloquy.{name}": str(value) for name, value in known.items() if value is not None}


class _Sights(Collector):
    """Figures that nobody counts: they are there to be looked at."""

    def __init__(self) -> None:
        self._all: list[tuple[str, str, str | None, Callable[[], Mapping[str, float]]]] = []

    def add(self, name: str, what: str, label: str | None, look: Callable[[], Mapping[str, float]]) -> None:
        self._all.append((name, what, label, look))

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, what, label, look in self._all:
            family = GaugeMetricFamily(name, what, labels=() if label is None else (label,))
            for value, figure in look().items():
                if figure == figure:  # noqa: PLR0124 - all but NaN
                    family.add_metric((value,) if label else (), figure)
            yield family
