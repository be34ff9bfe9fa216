"""This module lays a report out as sheets of text, which the terminal and the page print alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from turnout.evaluation.report import Origin, Report, Row
    from turnout.evaluation.value import Value

MAX_TASKS = 30
"""Of more tasks only the largest are printed; the JSON has all."""


@final
@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table of strings."""

    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""


def main_sheet(report: Report) -> Sheet:
    """Return runs and baselines; the columns about money are absent without costs."""
    money = ("usd per 1,000", "saving at equal quality") if report.has_costs else ()
    return Sheet(
        title="Was it worth it?",
        headings=("router", "quality", *money, "vs best single", "oracle gap"),
        lines=tuple(_main_line(report, row) for row in report.rows),
        note=MAIN_NOTE,
    )


MAIN_NOTE = (
    "Saving: cost saved at no lower quality than the best single model, at the run's point or anywhere on "
    "its sweep. Oracle gap: share recovered. Differences are paired, in points of quality."
)


def curve_sheet(report: Report) -> Sheet | None:
    """Return the numbers of the sweeps; None without any."""
    found = [(row.name, row.curve) for row in report.rows if row.curve is not None]
    if not found:
        return None
    lines = []
    for name, curve in found:
        line = [name, curve.peak.format(".3f"), curve.perf_gain.format("+z.1%")]
        if report.has_costs:
            line += [_text(curve.aiq), _text(curve.area), _text(curve.qnc, ".2f"), str(curve.mixed_saving)]
        lines.append(tuple(line))
    money = ("AIQ", "area", "QNC", "with mixing") if report.has_costs else ()
    return Sheet(
        title="Over the whole sweep",
        headings=("router", "peak", "PerfGain", *money),
        lines=tuple(lines),
        note=_range_note(report),
    )


def pair_sheet(report: Report) -> Sheet | None:
    """Return APGR and CPT; None unless there are two candidates."""
    found = [(row.name, row.curve.pair) for row in report.rows if row.curve and row.curve.pair]
    if not found:
        return None
    levels = tuple(found[0][1].cpt)
    return Sheet(
        title="Between two models",
        headings=("router", "APGR", "APGR (RouteLLM)", *(f"CPT({level})" for level in levels)),
        lines=tuple(
            (
                name,
                pair.apgr.format(".4f"),
                "n/a" if pair.apgr_routellm is None else f"{pair.apgr_routellm:.4f}",
                *(pair.cpt[level].format(".1%") for level in levels),
            )
            for name, pair in found
        ),
        note=f"Strong: {found[0][1].strong}. Weak: {found[0][1].weak}. A random split has APGR 0.5.",
    )


def calibration_sheet(report: Report) -> Sheet | None:
    """Return how far estimates can be believed; None where nothing was estimated."""
    lines = []
    for row in report.rows:
        if row.calibration is None:
            continue
        for label, part in (("chosen", row.calibration.chosen), ("all", row.calibration.every)):
            if part is not None:
                lines.append((row.name, label, f"{part.ece:.4f}", f"{part.brier:.4f}", f"{part.count:,}"))
    if not lines:
        return None
    return Sheet(
        title="Can its estimates be believed?",
        headings=("router", "candidates", "ECE", "Brier", "pairs"),
        lines=tuple(lines),
    )


def task_sheet(report: Report) -> Sheet | None:
    """Return mean quality by task, the largest first; None with a single task."""
    tasks = report.tasks
    if len(tasks.tasks) < 2:
        return None
    order = sorted(range(len(tasks.tasks)), key=lambda k: (-tasks.counts[k], tasks.tasks[k]))[:MAX_TASKS]
    return Sheet(
        title="Quality by task",
        headings=("task", "queries", *report.names),
        lines=tuple(
            (
                tasks.tasks[k],
                f"{tasks.counts[k]:,}",
                *(f"{tasks.quality[name][k]:.3f}" for name in report.names),
            )
            for k in order
        ),
        note=""
        if len(order) == len(tasks.tasks)
        else f"The {len(order)} largest of {len(tasks.tasks)} tasks.",
    )


def single_sheet(report: Report) -> Sheet:
    """Return every candidate by itself, the best first."""
    order = sorted(report.singles, key=lambda single: -(single.quality.value or 0.0))
    return Sheet(
        title="Single models",
        headings=("model", "quality", *(("usd per 1,000",) if report.has_costs else ()), "observed"),
        lines=tuple(
            (
                single.name,
                single.quality.format(".4f"),
                *((money(single.usd_per_1k),) if report.has_costs else ()),
                f"{single.observed:.0%}",
            )
            for single in order
        ),
        note="n/a where a model was not observed on every scored query.",
    )


def origin_sheet(report: Report) -> Sheet:
    """Return what makes the numbers reproducible."""
    origin = report.origin
    lines = [
        ("version", origin.version),
        ("table", origin.table),
        ("train", origin.train or "none"),
        ("seed", str(origin.seed)),
        ("resamples", f"{origin.num_resamples:,}"),
        ("resampled", "queries" if origin.num_groups is None else f"{origin.num_groups:,} groups"),
        ("cells", _cells(origin)),
        ("not scored: quality unknown", f"{origin.dropped_quality:,}"),
        ("not scored: cost unknown", f"{origin.dropped_cost:,}"),
        (
            "oracle without luck",
            "no repeated samples" if report.halved_oracle is None else f"{report.halved_oracle:.4f}",
        ),
        ("leakage", "not looked for" if report.leakage is None else str(report.leakage)),
    ]
    return Sheet(title="Where the numbers come from", headings=("", ""), lines=tuple(lines))


def _cells(origin: Origin) -> str:
    rest = origin.num_cells - origin.observed_cells
    if not rest:
        return f"{origin.num_cells:,}, all observed"
    use = "estimated" if origin.is_filled else "left out"
    return f"{origin.num_cells:,}: {origin.observed_cells:,} observed, {rest:,} {use}"


def money(amount: Value | None) -> str:
    """Return an amount with three significant digits and its interval."""
    if amount is None or amount.value is None:
        return "n/a"
    head = _dollars(amount.value)
    if amount.low is None or amount.high is None:
        return head
    return f"{head} [{_dollars(amount.low)}, {_dollars(amount.high)}]"


def _main_line(report: Report, row: Row) -> tuple[str, ...]:
    is_single = row.name == "best single"
    shown: tuple[str, ...] = ()
    if report.has_costs and row.usd_per_1k is not None:
        usd = row.usd_per_1k.value
        saved = "-" if is_single or row.saving is None else str(row.saving)
        shown = ("n/a" if usd is None else _dollars(usd), saved)
    return (
        row.name,
        row.quality.format(".3f"),
        *shown,
        "-" if is_single else row.vs_best_single.format("+z.1f", scale=100),
        "n/a" if row.oracle_share.value is None else f"{row.oracle_share.value:.0%}",
    )


def _range_note(report: Report) -> str:
    span = report.origin.cost_range_usd
    if span is None:
        return ""
    low, high = (_dollars(1000 * end) for end in span)
    mix = "" if report.mix_aiq is None else f" Mixes of single models reach AIQ {report.mix_aiq:.3f}."
    return f"AIQ and area over budgets of {low} to {high} usd per 1,000 queries.{mix}"


def _text(value: Value | None, spec: str = ".3f") -> str:
    return "n/a" if value is None else value.format(spec)


def _dollars(usd: float) -> str:
    return f"{usd:,.0f}" if usd >= 100 or usd == 0 else f"{usd:#.3g}"
