"""Making and sending spans with the OpenTelemetry SDK, for what is over when it is told: begin and end are known.

Spans are sent in the background and in batches. Where nobody takes them they are dropped, and counted by the SDK; a
service never waits for them but for a moment when it stops.
"""

import asyncio
from collections.abc import Mapping

import structlog
from msgspec import Struct
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from taskyard.contracts.values import Instant
from taskyard.telemetry.context import TraceContext

EXPORT_SECONDS_MAX = 2.0
CLOSE_SECONDS_MAX = 3.0
"""How long a service that stops waits until its last spans are sent."""
QUEUE_SPANS_MAX = 16_384
BATCH_SPANS_MAX = 512
BATCH_SECONDS = 1.0
TRACES_PATH = "/v1/traces"
_NANOSECONDS = 1_000
"""In an `Instant`."""

Attributes = Mapping[str, str | int | float | bool]

_logger = structlog.get_logger()


class SpanTold(Struct, frozen=True, kw_only=True):
    """A span that is over. `trace` says where it belongs; its parent is `parent`, or the one that `trace` names.

    `error` is the code of what went wrong, None if nothing did.
    """

    name: str
    id: int
    trace: TraceContext
    began: Instant
    ended: Instant
    attributes: Attributes
    parent: int | None = None
    error: str | None = None


class Spans:
    """Tells the spans of one service to `processor`."""

    def __init__(self, processor: SpanProcessor, service: str, instance: str = "") -> None:
        self._ids = _ChosenIds()
        self._processor = processor
        resource = Resource({SERVICE_NAME: f"taskyard-{service}", SERVICE_INSTANCE_ID: instance})
        provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("taskyard")

    def tell(self, told: SpanTold) -> None:
        """Tell one span; one of a trace that is not sampled is left out."""
        place = told.trace
        if not place.is_sampled:
            return
        self._ids.trace_id, self._ids.span_id = place.trace_id, told.id
        parent = told.parent or place.span_id
        span = self._tracer.start_span(
            told.name,
            _context(place.trace_id, parent) if parent else Context(),
            attributes=dict(told.attributes),
            start_time=told.began * _NANOSECONDS,
        )
        if told.error is not None:
            span.set_attribute("error.type", told.error)
            span.set_status(Status(StatusCode.ERROR, told.error))
        span.end(max(told.began, told.ended) * _NANOSECONDS)

    async def close(self) -> None:
        """Send what is left, for a while."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await asyncio.to_thread(self._processor.shutdown)
        except TimeoutError:
            _logger.warning("the last spans were not sent in time")


def exporting_spans(endpoint: str, service: str, instance: str = "") -> Spans:
    """Spans that are sent by OTLP over HTTP to the collector at `endpoint`, a base address such as `http://host:4318`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # it takes long to import

    address = endpoint if endpoint.endswith(TRACES_PATH) else endpoint.rstrip("/") + TRACES_PATH
    processor = BatchSpanProcessor(
        OTLPSpanExporter(endpoint=address, timeout=EXPORT_SECONDS_MAX),
        max_queue_size=QUEUE_SPANS_MAX,
        schedule_delay_millis=BATCH_SECONDS * 1000,
        max_export_batch_size=BATCH_SPANS_MAX,
    )
    return Spans(processor, service, instance)


class _ChosenIds(IdGenerator):
    """Gives the ids that were chosen for the next span."""

    def __init__(self) -> None:
        self.trace_id = 1
        self.span_id = 1

    def generate_span_id(self) -> int:
        return self.span_id

    def generate_trace_id(self) -> int:
        return self.trace_id


def _context(trace_id: int, parent: int) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return trace.set_span_in_context(
        NonRecordingSpan(SpanContext(trace_id, parent, is_remote=True, trace_flags=flags)), Context()
    )
