"""This module writes metrics as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import final

from turnout.gateway.board import Snapshot
from turnout.gateway.breaker import STATES
from turnout.gateway.metrics import BOUNDS_S, COUNTERS, HISTOGRAMS, Labels, Tally
from turnout.gateway.parts import Parts

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Gauge:
    """A number that is read when it is asked for."""

    name: str
    text: str
    labels: Labels = ()
    values: Mapping[Labels, float] = field(default_factory=dict)


def page(parts: Parts) -> bytes:
    """Return the page of this gateway, all of its workers together."""
    snapshot = snapshot_of(parts)
    if parts.metrics.board is not None:
        whole = Snapshot(tally=Tally(), configured_s=snapshot.configured_s)
        for one in (snapshot, *parts.metrics.board.others()):
            whole.add(one)
        snapshot = whole
    gauges = _read(snapshot)
    if parts.prices is not None and parts.prices.date is not None:
        age: dict[Labels, float] = {(): parts.prices.age_days(parts.clock.now_s())}
        gauges.append(Gauge(name="turnout_price_age_days", text="Age of the price file.", values=age))
    return render(snapshot.tally, gauges)


def render(tally: Tally, gauges: list[Gauge]) -> bytes:
    """Write counters, histograms and gauges."""
    return "".join([*_counters(tally), *_histograms(tally), *_gauges(gauges)]).encode("utf-8")


def snapshot_of(parts: Parts) -> Snapshot:
    """Return the numbers of this worker."""
    now_s = parts.clock.now_s()
    return Snapshot(
        tally=parts.metrics.tally,
        running=parts.gate.num_running,
        waiting=parts.gate.num_waiting,
        pending_rows=parts.ledger.num_pending,
        is_ledger_up=parts.ledger.failure is None,
        configured_s=parts.created_s,
        breakers={
            key: (STATES.index(breaker.state(now_s)), breaker.wait_s(now_s))
            for key, breaker in parts.breakers.by_place.items()
        },
        shadows={} if parts.rollout is None else parts.rollout.missing(),
    )


def _read(now: Snapshot) -> list[Gauge]:
    places = ("provider", "model")
    configured = "When the configuration in force was made, in seconds since the epoch."
    return [
        Gauge(name="turnout_running", text="Requests that run.", values={(): now.running}),
        Gauge(name="turnout_waiting", text="Requests that wait for a place.", values={(): now.waiting}),
        Gauge(
            name="turnout_breaker_state",
            text="0 closed, 1 half open, 2 open.",
            labels=places,
            values={key: state for key, (state, _) in now.breakers.items()},
        ),
        Gauge(
            name="turnout_breaker_wait_seconds",
            text="Seconds until a call may pass.",
            labels=places,
            values={key: wait_s for key, (_, wait_s) in now.breakers.items()},
        ),
        Gauge(
            name="turnout_ledger_pending_rows",
            text="Rows that wait for the disk.",
            values={(): now.pending_rows},
        ),
        Gauge(
            name="turnout_ledger_up",
            text="1 while the ledger can be written.",
            values={(): float(now.is_ledger_up)},
        ),
        Gauge(
            name="turnout_shadow_missing",
            text="Decisions of a second deployment that are missing since the last reload.",
            labels=("why",),
            values=dict(now.shadows),
        ),
        Gauge(name="turnout_configured_seconds", text=configured, values={(): now.configured_s}),
    ]


def _counters(tally: Tally) -> Iterator[str]:
    for name, (text, labels) in COUNTERS.items():
        yield _head(f"{name}_total", "counter", text)
        family = tally.counters.get(name, {} if labels else {(): 0.0})
        for values, amount in family.items():
            yield _line(f"{name}_total", labels, values, amount)


def _histograms(tally: Tally) -> Iterator[str]:
    for name, (text, labels) in HISTOGRAMS.items():
        yield _head(name, "histogram", text)
        for values, series in tally.histograms.get(name, {}).items():
            *counts, total_s = series
            ends = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
            for end, count in zip(ends, accumulate(counts), strict=True):
                yield _line(f"{name}_bucket", (*labels, "le"), (*values, end), count)
            yield _line(f"{name}_sum", labels, values, total_s)
            yield _line(f"{name}_count", labels, values, sum(counts))


def _gauges(gauges: list[Gauge]) -> Iterator[str]:
    for gauge in gauges:
        yield _head(gauge.name, "gauge", gauge.text)
        for values, amount in gauge.values.items():
            yield _line(gauge.name, gauge.labels, values, amount)


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _line(name: str, labels: Labels, values: Labels, amount: float) -> str:
    pairs = ",".join(
        f'{label}="{value.translate(_ESCAPES)}"' for label, value in zip(labels, values, strict=True)
    )
    return f"{name}{{{pairs}}} {amount!r}\n" if pairs else f"{name} {amount!r}\n"
