"""This module sets OpenTelemetry up for a process that is a gateway and nothing else: OTLP over HTTP.

Where the exporter sends to, how often and with which headers is the library's own business: it reads the
environment (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME` ...). A process that has set itself up, as
`opentelemetry-instrument` does, is left alone.
"""

from __future__ import annotations

from collections.abc import Callable

from turnout.core.errors import missing_extra


def set_up() -> Callable[[], None]:
    """Send spans and metrics of this process; return what sends the rest and stops."""
    try:
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise missing_extra("opentelemetry", feature="telemetry.otel", extra="otel") from error
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return lambda: None
    resource = Resource.create().merge(Resource({"service.name": "turnout"}))
    named = Resource.create()
    if named.attributes.get("service.name", "unknown_service") != "unknown_service":
        resource = named
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    meters = MeterProvider(resource=resource, metric_readers=[reader])
    metrics.set_meter_provider(meters)

    def stop() -> None:
        tracers.shutdown()
        meters.shutdown()

    return stop
