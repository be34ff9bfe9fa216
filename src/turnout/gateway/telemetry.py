"""This module tells OpenTelemetry of requests that have ended, in the words of its GenAI conventions.

A span begins when an upstream is first told of it; it and three measurements per request are filled in when
the request is over, from what the account knows, so that little stands in the request's way. The conventions
are in development: the names are those of 2026.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from turnout.core.errors import missing_extra
from turnout.gateway.account import Account
from turnout.gateway.exchange import Exchange
from turnout.gateway.onward import Pairs, passed_on
from turnout.gateway.settings_telemetry import TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

_TOKEN_BOUNDS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304]
_SECOND_BOUNDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]


@final
class Telemetry:
    """Tells of requests.

    Parameters
    ----------
    settings:
        Whether content is told too.
    tracers, meters:
        Who takes it; None means whoever the process has set up.
    """

    def __init__(
        self,
        *,
        settings: TelemetrySettings,
        tracers: TracerProvider | None = None,
        meters: MeterProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, propagate, trace
        except ImportError as error:
            raise missing_extra("opentelemetry", feature="telemetry.otel", extra="otel") from error
        self.settings = settings
        self._trace, self._extract, self._inject = trace, propagate.extract, propagate.inject
        self._tracer = trace.get_tracer("turnout", tracer_provider=tracers)
        meter = metrics.get_meter("turnout", meter_provider=meters)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Duration of a GenAI operation.",
            explicit_bucket_boundaries_advisory=_SECOND_BOUNDS,
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            description="Time to the first chunk of an answer.",
            explicit_bucket_boundaries_advisory=_SECOND_BOUNDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Input and output tokens of an operation.",
            explicit_bucket_boundaries_advisory=_TOKEN_BOUNDS,
        )

    def observe(self, exchange: Exchange) -> None:
        """Tell of a request that has ended."""
        account = exchange.account
        if account.status is None:
            if exchange.span is not None:
                exchange.span.end()
            return
        common = _common(account)
        self._measure(account, common)
        span = self._span_of(exchange)
        span.update_name(f"chat {common.get('gen_ai.request.model', '')}".strip())
        span.set_attributes({**common, **self._details(account)})
        if account.error is not None:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(end_time=int((account.time_s + account.latency_s) * 1e9))

    def trace_of(self, exchange: Exchange) -> Pairs:
        """Return what an upstream is told: the request's span, as the process propagates traces."""
        carrier: dict[str, str] = {}
        self._inject(carrier, context=self._trace.set_span_in_context(self._span_of(exchange)))
        return tuple([(name.lower().encode(), value.encode("latin-1")) for name, value in carrier.items()])

    def _span_of(self, exchange: Exchange) -> Span:
        """Return the request's span, which begins when it is first asked for, as of when the request came."""
        if exchange.span is None:
            trace, _ = passed_on(exchange.headers)
            carrier = {name.decode(): value.decode("latin-1") for name, value in trace}
            exchange.span = self._tracer.start_span(
                "chat",
                context=self._extract(carrier),
                kind=self._trace.SpanKind.CLIENT,
                start_time=int(exchange.account.time_s * 1e9),
                attributes={"gen_ai.operation.name": "chat"},
            )
        return exchange.span

    def _measure(self, account: Account, common: dict[str, Any]) -> None:
        self._duration.record(account.latency_s, common)
        if account.first_byte_s is not None:
            self._first.record(account.first_byte_s, common)
        for kind, tokens in zip(("input", "output"), account.counted_tokens, strict=True):
            if tokens is not None:
                self._tokens.record(tokens, {**common, "gen_ai.token.type": kind})

    def _details(self, account: Account) -> dict[str, Any]:
        tokens_in, tokens_out = account.counted_tokens
        details = {
            "gen_ai.usage.input_tokens": tokens_in,
            "gen_ai.usage.output_tokens": tokens_out,
            "http.response.status_code": account.status,
            "turnout.decision_id": account.decision_id,
            "turnout.attempts": account.attempts,
            "turnout.cost_usd": account.usd,
        }
        if account.selection is not None:
            details["turnout.reason"] = account.selection.reason
            details["turnout.chosen"] = account.selection.ranked[0].name
            details["turnout.propensity"] = account.selection.propensity
        if account.key is not None:
            details["turnout.key"] = account.key.name
        request = account.request
        if self.settings.capture_content and request is not None and "messages" in request.members:
            details["gen_ai.input.messages"] = bytes(request.members["messages"]).decode("utf-8", "replace")
        return {name: value for name, value in details.items() if value is not None}


def _common(account: Account) -> dict[str, Any]:
    """Return the attributes that span and measurements share; their values are few."""
    common: dict[str, Any] = {"gen_ai.operation.name": "chat"}
    # What a client asks for may be any text; only a name that was served stands in a measurement.
    if account.served_name is not None:
        common["gen_ai.request.model"] = account.served_name
    if account.provider is not None:
        common["gen_ai.provider.name"] = account.provider
    if account.error is not None:
        common["error.type"] = account.error
    return common
