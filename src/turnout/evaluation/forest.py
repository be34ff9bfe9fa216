"""This module lists what the picture of a report without costs shows: one interval per row and candidate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from turnout.evaluation.scene import Role, run_role, short

if TYPE_CHECKING:
    from turnout.evaluation.report import Report
    from turnout.evaluation.value import Value

MAX_SINGLES = 14
"""Of more candidates only the best are shown."""


@final
@dataclass(frozen=True, kw_only=True)
class Bar:
    """One line of the picture."""

    role: Role
    label: str
    value: float
    low: float
    high: float


def bars(report: Report) -> list[Bar]:
    """Return rows and candidates by falling quality."""
    roles: dict[str, Role] = {
        "best single": "best",
        "best per group": "group",
        "random": "random",
        "oracle": "oracle",
    }
    runs = [row.name for row in report.rows if row.kind == "run"]
    roles.update({name: run_role(index) for index, name in enumerate(runs)})
    shown = []
    for row in report.rows:
        name = f"best single: {short(report.best_single)}" if row.name == "best single" else row.name
        shown.append(_bar(roles[row.name], name, row.quality))
    singles = [single for single in report.singles if single.quality.value is not None]
    singles.sort(key=lambda single: -(single.quality.value or 0.0))
    shown += [
        _bar("single", short(single.name), single.quality)
        for single in singles[:MAX_SINGLES]
        if single.name != report.best_single
    ]
    return sorted(shown, key=lambda bar: -bar.value)


def _bar(role: Role, label: str, quality: Value) -> Bar:
    value = quality.value or 0.0
    return Bar(
        role=role,
        label=label,
        value=value,
        low=value if quality.low is None else quality.low,
        high=value if quality.high is None else quality.high,
    )
