"""This module writes a report as one HTML page: inline style, inline picture, nothing fetched."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from turnout.evaluation.canvas import COLORS, DARK_COLORS
from turnout.evaluation.drawing import svg
from turnout.evaluation.scene import run_role
from turnout.evaluation.tables import (
    Sheet,
    calibration_sheet,
    curve_sheet,
    main_sheet,
    origin_sheet,
    pair_sheet,
    single_sheet,
    task_sheet,
)

if TYPE_CHECKING:
    from turnout.evaluation.report import Report


def render(report: Report) -> str:
    """Return the page."""
    title = "Quality against cost" if report.has_costs else "Quality"
    origin = report.origin
    lead = (
        f"{origin.num_scored:,} of {origin.num_queries:,} queries scored, {origin.confidence:.0%} intervals "
        f"from {origin.num_resamples:,} resamples. Best single model: {report.best_single}."
    )
    rest = [
        curve_sheet(report),
        pair_sheet(report),
        calibration_sheet(report),
        task_sheet(report),
        single_sheet(report),
        origin_sheet(report),
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>turnout report: {title.lower()}</title><style>{_style()}</style></head><body><main>",
            f"<header><p class='brand'>turnout report</p><h1>{title}</h1><p>{escape(lead)}</p></header>",
            _warnings(report),
            f"<figure>{svg(report, width=860, height=480, name='wide')}",
            f"{svg(report, width=380, height=420, name='narrow')}{_caption(report)}</figure>",
            _table(main_sheet(report), report),
            *(_table(sheet, report) for sheet in rest if sheet is not None and sheet.lines),
            "</main></body></html>",
            "",
        ]
    )


def _warnings(report: Report) -> str:
    if not report.warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in report.warnings)
    return f"<aside><h2>Read this first</h2><ul>{items}</ul></aside>"


def _caption(report: Report) -> str:
    if not report.has_costs:
        return f"<figcaption>No money in this report: {escape(report.cost_note)}.</figcaption>"
    return (
        "<figcaption>The band and the whiskers are intervals of quality. Small dots are single models; the "
        "dashed line is what random mixes of them reach for those who know the best ones beforehand."
        "</figcaption>"
    )


def _table(sheet: Sheet, report: Report) -> str:
    runs = {row.name: run_role(k) for k, row in enumerate(r for r in report.rows if r.kind == "run")}
    head = "".join(f"<th>{escape(title)}</th>" for title in sheet.headings)
    lines = []
    for line in sheet.lines:
        role = runs.get(line[0])
        mark = f' class="run {role}"' if role is not None else ""
        cells = "".join(_cell(cell) for cell in line)
        lines.append(f"<tr{mark}>{cells}</tr>")
    note = f"<p class='note'>{escape(sheet.note)}</p>" if sheet.note else ""
    return (
        f"<section><h2>{escape(sheet.title)}</h2>{note}<div class='scroll'><table><thead><tr>{head}</tr>"
        f"</thead><tbody>{''.join(lines)}</tbody></table></div></section>"
    )


def _cell(text: str) -> str:
    """Return a table cell with its interval in a quieter tone."""
    value, bracket, ends = text.partition(" [")
    if not bracket or not ends.endswith("]"):
        return f"<td>{escape(text)}</td>"
    return f"<td>{escape(value)} <span>[{escape(ends)}</span></td>"


def _style() -> str:
    light = "".join(f"--{role}:{color};" for role, color in COLORS.items())
    dark = "".join(f"--{role}:{color};" for role, color in DARK_COLORS.items())
    roles = "".join(
        f".dot.{role},.label.{role},.band.{role}{{fill:var(--{role})}}"
        f".line.{role},.whisker.{role}{{stroke:var(--{role})}}tr.{role} td:first-child{{color:var(--{role})}}"
        for role in COLORS
    )
    return f":root{{color-scheme:light dark;{_LIGHT}{light}}}{_RULES}{roles}" + (
        f"@media(prefers-color-scheme:dark){{:root{{{_DARK}{dark}}}}}"
    )


_LIGHT = (
    "--ground:#fff;--ink:#111827;--soft:#4b5563;--faint:#6b7280;--rule:#e5e7eb;--warn:#fff7e6;--edge:#f0b429;"
)
_DARK = (
    "--ground:#0f1419;--ink:#e6e9ee;--soft:#a9b2bf;--faint:#8b95a4;--rule:#2a323d;--warn:#2a2213;"
    "--edge:#b7791f;"
)
_RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:940px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:1.7rem;line-height:1.2;margin:.1em 0 .3em}h2{font-size:1.05rem;margin:0 0 .4em}
header p{margin:0;color:var(--soft)}.brand{font-size:.8rem;letter-spacing:.08em;text-transform:uppercase}
figure{margin:22px 0 30px}figcaption,.note{color:var(--faint);font-size:.85rem;margin:.3em 0 .6em}
svg{width:100%;height:auto;display:block}svg.narrow{display:none}
aside{margin:20px 0;padding:12px 16px;background:var(--warn);border-left:4px solid var(--edge);
border-radius:4px;font-size:.92rem}aside ul{margin:0;padding-left:1.1em}
section{margin:34px 0}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th{color:var(--faint);font-weight:500;font-size:.8rem;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;padding-left:0}td span{color:var(--faint);font-size:.92em}
tr.run td:first-child{font-weight:600}
.grid{stroke:var(--rule);fill:none}.axis{stroke:var(--faint);fill:none}
.mixes{stroke:var(--faint);stroke-dasharray:5 4;fill:none}
.band{opacity:.14}.line{fill:none;stroke-width:1.8;stroke-linecap:round;stroke-linejoin:round}
.line.main{stroke-width:2.8}
.whisker{stroke-width:1.8;opacity:.8;fill:none}.dot{stroke:var(--ground);stroke-width:1.5}
.dot.single{stroke:none}.tick{font-size:11.5px;fill:var(--faint)}.label{font-size:12.5px;
paint-order:stroke;stroke:var(--ground);stroke-width:3px;stroke-linejoin:round}
.label.small{font-size:9.5px;fill:var(--faint)}
.label[class*="run-"]{font-weight:650}
@media(max-width:640px){main{padding:20px 14px 40px}svg.wide{display:none}svg.narrow{display:block}
th,td{padding:7px 8px}}
"""
