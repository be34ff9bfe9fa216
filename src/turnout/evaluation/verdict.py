"""This module is the door of the room: `evaluate` puts the questions in order and signs the report."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from turnout.core.errors import ShapeError, sentence
from turnout.core.validation import check_choice, check_count
from turnout.evaluation.bootstrap import check_confidence, group_numbers
from turnout.evaluation.curves import mix_aiq
from turnout.evaluation.halves import halved_oracle
from turnout.evaluation.judge import Judged, Settings, judge
from turnout.evaluation.leaks import check_split
from turnout.evaluation.notes import find_warnings
from turnout.evaluation.report import Origin, Report
from turnout.evaluation.rows import make_rows, make_singles, make_tasks
from turnout.evaluation.runs import RunLike, read_runs

if TYPE_CHECKING:
    from turnout.core.outcomes import Ints, OutcomeTable
    from turnout.evaluation.cells import Cells
    from turnout.evaluation.leaks import LeakageCheck

Leakage = Literal["check", "allow", "skip"]


def evaluate(
    runs: Mapping[str, RunLike],
    table: OutcomeTable,
    *,
    train: OutcomeTable | None = None,
    seed: int = 0,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    groups: Sequence[Hashable] | None = None,
    knn: str = "knn",
    leakage: Leakage = "check",
    cost_range_usd: tuple[float, float] | None = None,
    cells: Cells | None = None,
) -> Report:
    """Judge named runs on a held-out table, next to the baselines, with paired intervals.

    Parameters
    ----------
    runs:
        Name to decisions, to a sweep of decisions, or to a `Run` with both; row i of each is about
        `table.queries[i]`. The names of the baselines are taken.
    table:
        Recorded outcomes of the queries that are reported.
    train:
        Where best single and best per group are chosen; None chooses them on `table`, with a warning.
    seed, num_resamples, confidence:
        Of the percentile bootstrap.
    groups:
        One label per query of `table`; whole groups are resampled (conversations, users, documents).
    knn:
        The name of the run that is the kNN baseline; the report warns when there is none.
    leakage:
        "check" raises when train and table share texts, "allow" only records it, "skip" does not look.
    cost_range_usd:
        Budgets (low, high) in USD per query for AIQ and area; None takes the cheapest and the dearest
        single candidate.
    cells:
        What the cells of `table` count as, where something stands in for those that were not observed; None
        counts what was recorded and drops a query on which a compared choice was not observed.

    Raises
    ------
    InputError, ShapeError, UnknownNameError
        If a run does not fit the table.
    LeakageError
        If the split leaks and `leakage` is "check".
    TableError
        If no query was observed for everything that is compared.
    """
    read = read_runs(runs, table)
    check_choice("evaluate: leakage", leakage, ("check", "allow", "skip"))
    settings = Settings(
        seed=check_count("evaluate: seed", seed, low=0),
        num_resamples=check_count("evaluate: num_resamples", num_resamples),
        confidence=check_confidence(confidence),
        groups_Q=None if groups is None else _read_groups(groups, table),
        cost_range_usd=cost_range_usd,
    )
    found = None
    if train is not None and leakage != "skip":
        found = check_split(train, table, allow_leakage=leakage == "allow")
    judged = judge(read, table, train, settings, cells)
    return _sign(judged, table, train, settings, found, knn if knn in runs else None)


def _sign(
    judged: Judged,
    table: OutcomeTable,
    train: OutcomeTable | None,
    settings: Settings,
    found: LeakageCheck | None,
    knn: str | None,
) -> Report:
    rows = make_rows(judged, knn)
    return Report(
        rows=rows,
        singles=make_singles(judged),
        best_single=judged.best_single,
        best_per_group={task or "(none)": name for task, name in judged.best_per_group.items()},
        knn=knn,
        tasks=make_tasks(judged),
        halved_oracle=halved_oracle(judged.table),
        mix_aiq=mix_aiq(judged),
        has_costs=judged.coverage.has_costs,
        cost_note=judged.coverage.cost_note,
        leakage=found,
        warnings=find_warnings(judged, rows, train, found, knn),
        origin=_origin(judged, table, train, settings),
    )


def _origin(judged: Judged, table: OutcomeTable, train: OutcomeTable | None, settings: Settings) -> Origin:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("turnout")
    except PackageNotFoundError:
        installed = "unknown"
    groups_Q = settings.groups_Q
    return Origin(
        version=installed,
        table=table.fingerprint,
        train=None if train is None else train.fingerprint,
        seed=settings.seed,
        num_resamples=settings.num_resamples,
        confidence=settings.confidence,
        num_groups=None if groups_Q is None else len(set(groups_Q[judged.coverage.keep_Q].tolist())),
        num_queries=judged.coverage.num_queries,
        num_scored=judged.coverage.num_scored,
        dropped_quality=judged.coverage.dropped_quality,
        dropped_cost=judged.coverage.dropped_cost,
        num_cells=judged.table.observed_QM.size,
        observed_cells=int(judged.table.observed_QM.sum()),
        is_filled=not judged.is_recorded,
        cost_range_usd=judged.cost_range_usd,
    )


def _read_groups(groups: Sequence[Hashable], table: OutcomeTable) -> Ints:
    if len(groups) != len(table.queries):
        raise ShapeError(
            sentence(
                "evaluate: groups",
                allowed=f"one label per query of the table, Q = {len(table.queries)}",
                got=len(groups),
            )
        )
    return group_numbers(groups)
