"""This module holds the settings of what the gateway tells OpenTelemetry."""

from __future__ import annotations

from turnout.gateway.settings import Settings


class TelemetrySettings(Settings, frozen=True, kw_only=True):
    """What is told about requests; needs the extra `otel`."""

    otel: bool = False
    """Whether every request becomes a span and its times and tokens become metrics."""
    capture_content: bool = False
    """Whether a span holds the messages of the request; off by default, as content is the user's own."""
