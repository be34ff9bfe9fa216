"""This module holds the report: a tree of frozen values that knows its own numbers and their origin.

The doors at the end (`to_text`, `to_html`, `to_png`) load what they need when they are called.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from turnout.core.errors import UnknownNameError, did_you_mean, sentence
from turnout.evaluation.calibration import Calibration
from turnout.evaluation.leaks import LeakageCheck
from turnout.evaluation.saving import Saving
from turnout.evaluation.value import Value

FORMAT = 1
"""Version of the JSON layout."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """One dual price of a sweep."""

    price: float
    """Quality that one USD must buy."""
    quality: Value
    usd_per_1k: Value | None
    is_on_hull: bool
    """Whether the point lies on the non-decreasing concave envelope of its own curve."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class PairScores:
    """RouteLLM's numbers for a sweep between two candidates; shares are of strong calls."""

    weak: str
    strong: str
    apgr: Value
    apgr_routellm: float | None
    """The published code's form, which depends on the grid."""
    cpt: Mapping[str, Value]
    """Smallest share of strong calls that recovers 20, 50 and 80 % of the gap."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A sweep and its summary; what needs costs is None without them."""

    points: tuple[CurvePoint, ...]
    """By rising dual price, so the dearest comes first."""
    aiq: Value | None
    area: Value | None
    peak: Value
    qnc: Value | None
    """Smallest cost at no lower quality, as a share of the best single model's; None inside: never."""
    mixed_saving: Saving | None
    """Saving at equal expected quality if neighbouring points may be mixed at random."""
    perf_gain: Value
    pair: PairScores | None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RunCalibration:
    """Error of the estimated quality: on the chosen candidates, and on all of them."""

    chosen: Calibration | None
    every: Calibration | None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    kind: Literal["run", "baseline"]
    note: str
    """What the line stands for, where the name does not say it."""
    quality: Value
    usd_per_1k: Value | None
    saving: Saving | None
    """At no lower quality than the best single model: at this point or anywhere on the sweep; None without
    costs, and for the oracle, which is one point of higher quality."""
    oracle_share: Value
    """Share of the gap between best single and oracle that is recovered."""
    vs_best_single: Value
    """Paired difference of quality."""
    vs_knn: Value | None
    share: Value
    """Quality as a share of the best single model's."""
    spend: Value | None
    """Cost as a share of the best single model's, whatever the quality."""
    regret: Value
    arena: Value | None
    shares: Mapping[str, float]
    """Share of the queries that each candidate serves; empty for random."""
    refused: int
    """Queries that nobody was allowed to serve; they score 0."""
    price: float | None
    """Dual price of the decisions; None for baselines."""
    fingerprint: str
    """Names the deployment that decided; empty when unknown."""
    calibration: RunCalibration | None
    curve: Curve | None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Single:
    """One candidate on every query."""

    name: str
    quality: Value
    """None where it was not observed on every scored query."""
    usd_per_1k: Value | None
    observed: float
    """Share of the scored queries on which it was observed."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class TaskTable:
    """Mean quality by task."""

    tasks: tuple[str, ...]
    counts: tuple[int, ...]
    quality: Mapping[str, tuple[float, ...]]
    """By row name, one entry per task."""
    usd_per_1k: Mapping[str, tuple[float, ...]] | None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What makes the report reproducible."""

    version: str
    table: str
    """Fingerprint of the table that is reported."""
    train: str | None
    """Fingerprint of the table on which the baselines were chosen."""
    seed: int
    num_resamples: int
    confidence: float
    num_groups: int | None
    """Groups of the cluster bootstrap; None when queries were resampled one by one."""
    num_queries: int
    num_scored: int
    dropped_quality: int
    dropped_cost: int
    num_cells: int
    """Pairs of a scored query and a candidate."""
    observed_cells: int
    """Those of them that were recorded."""
    is_filled: bool
    """Whether something stands in for the others (`Cells`)."""
    cost_range_usd: tuple[float, float] | None
    """Range of budgets per query for AIQ and area."""


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """What was compared, how good it was, what it cost, and how sure that is."""

    rows: tuple[Row, ...]
    """Runs in the order given, then best single, best per group, random, oracle."""
    singles: tuple[Single, ...]
    best_single: str
    """Which candidate the best single model is."""
    best_per_group: Mapping[str, str]
    """Which candidate serves which task in the baseline."""
    knn: str | None
    """Name of the run that is the kNN baseline; None when none was given."""
    tasks: TaskTable
    halved_oracle: float | None
    """Quality of the oracle when half of the samples choose and the other half score; None without
    repeated samples. The naive oracle is paid for luck as well."""
    mix_aiq: float | None
    """AIQ of random mixes of single candidates, chosen with hindsight: the curve to beat."""
    has_costs: bool
    cost_note: str
    """Why there is no money in the report; empty when there is."""
    leakage: LeakageCheck | None
    """What was found between train and table; None when nobody looked."""
    warnings: tuple[str, ...]
    origin: Origin

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        names = [row.name for row in self.rows]
        raise UnknownNameError(sentence(f"Report: no row is called {name!r}", do=did_you_mean(name, names)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rows, in order."""
        return tuple(row.name for row in self.rows)

    def to_dict(self) -> dict[str, object]:
        """Return plain dicts, lists, numbers and strings; a number that is not finite becomes None."""
        plain: dict[str, object] = {"format": FORMAT, **_plain(self)}
        return plain

    def to_json(self, path: str | Path | None = None, *, indent: int | None = 1) -> str:
        """Return the report as JSON, and write it to `path` if one is given."""
        text = json.dumps(self.to_dict(), indent=indent, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_text(self, *, width: int | None = None, color: bool | None = None) -> str:
        """Return the table for a terminal; `color` None means only when standard output is one."""
        from turnout.evaluation.terminal import render

        return render(self, width=width, color=color)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page (no external resource) and return its path."""
        from turnout.evaluation.page import render

        target = Path(path)
        target.write_text(render(self), encoding="utf-8")
        return target

    def to_png(self, path: str | Path) -> Path:
        """Write the picture of the quality-cost curve and return its path."""
        from turnout.evaluation.plots import draw

        return draw(self, Path(path))


def _plain(value: object) -> dict[str, object]:
    """Return the fields of a dataclass as plain values."""
    assert dataclasses.is_dataclass(value)
    return {field.name: _plain_value(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain_value(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(value)
    if isinstance(value, Mapping):
        return {str(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain_value(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
