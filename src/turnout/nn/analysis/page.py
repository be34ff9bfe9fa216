"""This module writes what was found in gates as one HTML page that fetches nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from turnout.nn.analysis.charts import draw_table, has_chart
from turnout.nn.analysis.inspection import Inspection
from turnout.nn.analysis.pictures import draw, panels_of
from turnout.nn.analysis.table import Table, show

PANEL_PX = 420
"""A picture's width, so that one alone is not as wide as the page."""

CHART_PX = 520
"""The width of a table's own picture."""

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--ink:#111827;--faint:#6b7280;--rule:#e5e7eb}
@media(prefers-color-scheme:dark){:root{--ground:#0f1419;--ink:#e6e9ee;--faint:#8b95a4;--rule:#2a323d}}
body{margin:0 auto;max-width:1000px;padding:24px 18px 60px;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
img{display:block;width:100%;height:auto;margin:1em 0;background:#fff;border-radius:6px}
.scroll{overflow-x:auto}
h1{font-size:1.6rem}h2{font-size:1.25rem;margin-top:2.2em}h3{font-size:1rem;margin:1.6em 0 .3em}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 9px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th{color:var(--faint);font-weight:500}th:first-child,td:first-child{text-align:left;padding-left:0}
.note{color:var(--faint);font-size:.85rem;margin:.2em 0}
"""


def render(inspections: Sequence[Inspection], *, source: str) -> str:
    """Return the page; `source` names what was read."""
    parts = [_section(inspection) for inspection in inspections]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>turnout: what gates do</title><style>{STYLE}</style></head><body>",
            f"<h1>What gates do</h1><p class='note'>{escape(source)}</p>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def _section(inspection: Inspection) -> str:
    tables = "".join(_table(table) for table in inspection.tables)
    size = f"max-width:{PANEL_PX * panels_of(inspection)}px"
    image = _image(draw(inspection), inspection.name, size)
    return f"<h2>{escape(inspection.name)}</h2><p>{escape(inspection.summary())}</p>{image}{tables}"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column.replace('_', ' '))}</th>" for column in table.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(show(cell))}</td>' for cell in row)}</tr>" for row in table.rows
    )
    chart = _image(draw_table(table), table.title, f"max-width:{CHART_PX}px") if has_chart(table) else ""
    return (
        f"<section><h3>{escape(table.title)}</h3><div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div><p class='note'>{escape(table.note)}</p>{chart}</section>"
    )


def _image(picture: bytes, alt: str, style: str) -> str:
    data = base64.b64encode(picture).decode("ascii")
    return f'<img alt="{escape(alt)}" style="{style}" src="data:image/png;base64,{data}">'
