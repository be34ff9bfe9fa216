"""Spans and measurements as the SDK's own exporters get them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.gateway.client import Answer, ask
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream
from turnout.gateway.address import bind
from turnout.gateway.app import build_app
from turnout.gateway.lifecycle import Server
from turnout.gateway.settings_telemetry import TelemetrySettings
from turnout.gateway.telemetry import Telemetry

ROOT = Path(__file__).parents[2]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Told:
    """What the exporters got."""

    def __init__(self, base_url: str, spans: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
        self.base_url, self.exporter, self.reader = base_url, spans, reader

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.exporter.get_finished_spans()
        return span

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        metrics = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


@contextmanager
def told(upstream: Upstream, folder: Path, **settings: Any) -> Iterator[Told]:
    """Run a gateway whose telemetry goes to exporters in memory."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider(metric_readers=[reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    app = build_app(make_config(upstream.base_url, folder / "l.sqlite"), deployment=make_deployment())
    telemetry = Telemetry(settings=TelemetrySettings(otel=True, **settings), tracers=tracers, meters=meters)
    app.parts = dataclasses.replace(app.parts, telemetry=telemetry)
    started = threading.Event()
    listener = bind("127.0.0.1", 0)
    server = Server(gateway=app, listener=listener, ready=lambda _: started.set())
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    thread = threading.Thread(target=server.run_bound)
    thread.start()
    try:
        assert started.wait(20)
        yield Told(base_url, exporter, reader)
    finally:
        server.should_exit = True
        thread.join()
        tracers.shutdown()
        meters.shutdown()


def ended(gateway: Told, answer: Answer) -> dict[str, Any]:
    """Return the attributes of the one span; it ends a moment after the answer."""
    for _ in range(200):
        if gateway.exporter.get_finished_spans():
            break
        threading.Event().wait(0.01)
    attributes = dict(gateway.span.attributes or {})
    assert attributes["turnout.decision_id"] == answer.decision_id
    return attributes


def test_an_answer_is_a_span_in_the_words_of_the_conventions(upstream: Upstream, tmp_path: Path) -> None:
    with told(upstream, tmp_path) as gateway:
        answer = ask(gateway.base_url, headers={"traceparent": PARENT})
        attributes = ended(gateway, answer)
        span = gateway.span
        duration = gateway.points("gen_ai.client.operation.duration")
        tokens = {
            point.attributes["gen_ai.token.type"]: point.sum
            for point in gateway.points("gen_ai.client.token.usage")
        }
        first = gateway.points("gen_ai.client.operation.time_to_first_chunk")
    assert (span.name, span.kind.name) == ("chat large", "CLIENT")
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "main"
    assert attributes["gen_ai.request.model"] == "large"
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (11, 7)
    assert attributes["turnout.cost_usd"] == pytest.approx((11 * 1.0 + 7 * 4.0) / 1e6)
    assert attributes["turnout.reason"]
    assert span.status.status_code.name == "UNSET"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert span.end_time is not None
    assert span.start_time is not None
    assert duration[0].sum == pytest.approx((span.end_time - span.start_time) / 1e9, abs=1e-5)
    assert tokens == {"input": 11, "output": 7}
    assert first[0].count == 1


def test_content_is_told_only_where_the_settings_say_so(upstream: Upstream, tmp_path: Path) -> None:
    secret = [{"role": "user", "content": "my secret question"}]
    with told(upstream, tmp_path) as gateway:
        attributes = ended(gateway, ask(gateway.base_url, messages=secret))
    assert "secret question" not in repr(attributes)
    with told(upstream, tmp_path, capture_content=True) as gateway:
        attributes = ended(gateway, ask(gateway.base_url, messages=secret))
    assert "my secret question" in attributes["gen_ai.input.messages"]


def test_a_failure_is_an_error_with_its_type(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave["small"] = "500"
    with told(upstream, tmp_path) as gateway:
        attributes = ended(gateway, ask(gateway.base_url, model="small"))
        span = gateway.span
        duration = gateway.points("gen_ai.client.operation.duration")
    assert span.status.status_code.name == "ERROR"
    assert attributes["error.type"] == "upstream_error"
    assert attributes["http.response.status_code"] == 502
    assert duration[0].attributes["error.type"] == "upstream_error"


def test_what_clients_write_is_no_label(upstream: Upstream, tmp_path: Path) -> None:
    with told(upstream, tmp_path) as gateway:
        ended(gateway, ask(gateway.base_url, model="made up by a client"))
        (point,) = gateway.points("gen_ai.client.operation.duration")
    assert "made up" not in repr(point.attributes)


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.got: dict[str, list[bytes]] = {}


class _Take(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.setdefault(self.path, []).append(body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        return


def test_a_gateway_of_its_own_sends_to_a_collector(upstream: Upstream, tmp_path: Path) -> None:
    """The whole way: a process, the exporter that the environment configures, a server that takes it."""
    collector = Collector()
    thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    script = (
        "import sys, msgspec; from pathlib import Path; from tests.gateway.pool import make_deployment; "
        "from tests.gateway.settings import make_config; from turnout.gateway.lifecycle import serve\n"
        "from turnout.gateway.settings_telemetry import TelemetrySettings\n"
        "config = make_config(sys.argv[1], Path(sys.argv[2]))\n"
        "config = msgspec.structs.replace(config, telemetry=TelemetrySettings(otel=True))\n"
        "serve(config, deployment=make_deployment(), ready=lambda r: print(r.base_url, flush=True))"
    )
    port = collector.server_address[1]
    process = subprocess.Popen(
        [sys.executable, "-c", script, upstream.base_url, str(tmp_path / "l.sqlite")],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        answer = ask(process.stdout.readline().strip())
        assert answer.status == 200
    finally:
        process.terminate()
        process.communicate(timeout=30)
        collector.shutdown()
        thread.join()
        collector.server_close()
    assert process.returncode == 0
    (spans,) = collector.got["/v1/traces"]
    assert answer.decision_id.encode() in spans
    assert b"turnout" in spans
    assert any(b"gen_ai.client.token.usage" in body for body in collector.got["/v1/metrics"])
