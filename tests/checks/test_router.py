"""For every promise of a router there is a router that breaks it, and the check says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.checks.broken_routers import MeanRouter, broken, changing, fitting, zero_filled
from turnout.checks import CheckFailed, CheckSkipped, check_router, run
from turnout.core.contracts import State
from turnout.core.errors import InputError
from turnout.core.estimate import make_estimate
from turnout.core.outcomes import OutcomeTable


def learns(self: Any, queries: Any, arrays: Any) -> None:
    self.mean_KM = self.mean_KM + 0.01


def counts(self: Any, queries: Any, arrays: Any) -> None:
    self.calls = getattr(self, "calls", 0) + 1
    arrays["quality_QM"] *= 1 - 0.01 * self.calls


def by_position(self: Any, queries: Any, arrays: Any) -> None:
    arrays["quality_QM"] *= 1 - 0.01 * np.arange(len(queries))[:, None]


def by_batch(self: Any, queries: Any, arrays: Any) -> None:
    arrays["quality_QM"] /= 1 + 0.01 * len(queries)


def by_column(self: Any, queries: Any, arrays: Any) -> None:
    arrays["quality_QM"] *= np.linspace(1.0, 0.9, arrays["quality_QM"].shape[1])


def remembers(self: Any, table: OutcomeTable) -> None:
    self.seen = getattr(self, "seen", 0) + table.num_rows
    self.mean_KM[0] *= 1 - 1e-4 * self.seen


def by_first_row(self: Any, table: OutcomeTable) -> None:
    self.mean_KM[0] *= 1 - 0.1 * table.quality[0]


def by_first_query(self: Any, table: OutcomeTable) -> None:
    self.mean_KM[0] *= 1 - 0.1 * table.quality_QM[0].mean()


def by_chance(self: Any, table: OutcomeTable) -> None:
    self.mean_KM[0] *= np.random.default_rng().uniform(0.5, 1.0)


def spoils(self: Any, table: OutcomeTable) -> None:
    table.quality[0] = 0.123


def sure_of_nobody(self: Any, queries: Any, arrays: Any) -> None:
    arrays["spread_QM"][:] = np.where(np.isnan(arrays["spread_QM"]), 0.01, arrays["spread_QM"])


def counts_nothing(self: Any, table: OutcomeTable) -> None:
    """Give the deviation of what was seen for its spread, which is 0 for outcomes that are all alike."""
    deviation_M = np.nanstd(table.quality_QM, axis=0)

    def estimate(queries: Any) -> Any:
        made = MeanRouter.estimate(self, queries)
        spread_QM = np.broadcast_to(deviation_M, made.quality_QM.shape).copy()
        return make_estimate(made.candidates, made.quality_QM, spread_QM=spread_QM)

    self.estimate = estimate


def needs_text(self: Any, queries: Any, arrays: Any) -> None:
    for query in queries:
        query.text.encode("utf-8")


def needs_a_query(self: Any, queries: Any, arrays: Any) -> None:
    assert queries[0].id


def needs_every_text(self: Any, table: Any) -> None:
    assert all(query.text.isascii() for query in table.queries)


def needs_words(self: Any, table: OutcomeTable) -> None:
    if not any(query.text for query in table.queries):
        raise ValueError("empty vocabulary")


def needs_variety(self: Any, table: OutcomeTable) -> None:
    if len({query.text for query in table.queries}) < 2:
        raise ZeroDivisionError("no distance between texts")


def standardises(self: Any, table: OutcomeTable) -> None:
    spread = float(np.nanstd(table.quality_QM))
    self.mean_KM[0] *= min(spread / 0.2, 1.0)


def is_slow_to_fail(self: Any, queries: Any, arrays: Any) -> None:
    if any(len(query.words) > 100_000 for query in queries):
        raise MemoryError("too long")


def add_and_disturb(self: Any, candidate: Any, table: OutcomeTable) -> Any:
    self.pool = (*self.pool, candidate)
    self.mean_KM = np.pad(self.mean_KM * 0.9, ((0, 0), (0, 1)), constant_values=0.5)
    return self


def refuse_rudely(self: Any, candidate: Any, table: OutcomeTable) -> Any:
    raise InputError("no")


def reversed_state(self: Any) -> State:
    state = MeanRouter.state(self)
    return State(arrays={"mean_KM": state.arrays["mean_KM"][:, ::-1]}, values=state.values)


def renamed(self: Any, queries: Any) -> Any:
    made = MeanRouter.estimate(self, queries)
    return made.reorder(made.names[::-1])


def unfitted_answer(self: Any, queries: Any) -> Any:
    if not self.is_fitted:
        return make_estimate((), np.zeros((len(queries), 0)))
    return MeanRouter.estimate(self, queries)


def clip_nothing(self: Any, queries: Any, arrays: Any) -> None:
    arrays["quality_QM"] += 0.5


BREAKS: dict[str, list[Callable[[], MeanRouter]]] = {
    "an_estimate_is_an_estimate": [
        lambda: broken(fit=lambda self, table: None),
        lambda: broken(estimate=lambda self, queries: np.zeros((len(queries), 4))),
        lambda: broken(estimate=lambda self, queries: None),
        lambda: broken(estimate=lambda self, queries: MeanRouter.estimate(self, queries[:1])),
    ],
    "fit_returns_the_router": [lambda: broken(fit=lambda self, table: MeanRouter().fit(table))],
    "estimating_before_fit_is_refused": [lambda: broken(estimate=unfitted_answer)],
    "fitting_changes_no_table": [lambda: fitting(spoils)],
    "estimating_does_not_learn": [lambda: changing(learns), lambda: changing(counts)],
    "the_same_seed_gives_the_same_result": [lambda: fitting(by_chance)],
    "fitting_again_forgets": [lambda: fitting(remembers)],
    "a_clone_has_learned_nothing": [lambda: broken(clone=lambda self: self)],
    "its_state_survives_a_round_trip": [lambda: broken(state=reversed_state)],
    "saving_before_fit_is_refused": [lambda: broken(is_fitted=True)],
    "an_added_candidate_leaves_the_others_alone": [
        lambda: broken(add_candidate=add_and_disturb),
        lambda: broken(add_candidate=refuse_rudely),
        lambda: broken(add_candidate=lambda self, candidate, table: self),
    ],
    "the_order_of_queries_does_not_matter": [lambda: changing(by_position)],
    "a_batch_equals_one_by_one": [lambda: changing(by_batch)],
    "an_empty_batch_works": [lambda: changing(needs_a_query)],
    "the_order_of_candidates_does_not_matter": [lambda: changing(by_column)],
    "the_order_of_training_rows_does_not_matter": [lambda: fitting(by_first_row)],
    "the_order_of_training_queries_does_not_matter": [lambda: fitting(by_first_query)],
    "estimates_lie_in_their_ranges": [lambda: changing(clip_nothing)],
    "estimates_have_the_pools_shape": [lambda: broken(estimate=renamed)],
    "a_missing_quality_is_not_zero": [lambda: zero_filled("quality_QM", 0)],
    "nobody_is_judged_without_evidence": [
        lambda: zero_filled("quality_QM", 0),
        lambda: changing(sure_of_nobody),
    ],
    "few_outcomes_leave_it_unsure": [lambda: fitting(counts_nothing)],
    "an_unknown_cost_stays_unknown": [lambda: zero_filled("cost_usd_QM", 1)],
    "a_missing_cost_is_not_free": [lambda: zero_filled("cost_usd_QM", 1)],
    "a_latency_that_nobody_measured_is_unknown": [lambda: zero_filled("latency_s_QM", 2)],
    "hard_texts_get_an_estimate": [lambda: changing(needs_text)],
    "a_table_without_texts_works": [lambda: fitting(needs_words)],
    "a_table_of_hard_texts_works": [lambda: fitting(needs_every_text)],
    "a_table_of_one_query_works": [lambda: fitting(needs_variety)],
    "a_table_of_one_text_works": [lambda: fitting(needs_variety)],
    "a_constant_quality_works": [lambda: fitting(standardises)],
    "a_text_of_a_megabyte_works": [lambda: changing(is_slow_to_fail)],
}

ELSEWHERE = {"saving_and_loading_changes_nothing"}
"""Checks that need a registered class; `test_artifact_checks` breaks them."""


def named(router: MeanRouter) -> dict[str, Callable[[], None]]:
    return {check.name: check for check in check_router(router)}


def test_a_good_router_passes() -> None:
    report = run(check_router(MeanRouter()))
    assert report.failed == ()
    assert {result.name for result in report.results if result.outcome == "skipped"} == ELSEWHERE


@pytest.mark.parametrize(
    ("name", "build"), [(name, build) for name, builds in BREAKS.items() for build in builds]
)
def test_a_broken_router_is_caught(name: str, build: Callable[[], MeanRouter]) -> None:
    report = run(check for check in check_router(build()) if check.name == name)
    assert [result.outcome for result in report.results] == ["failed"], str(report)


@pytest.mark.parametrize("thing", [object(), MeanRouter, "knn"])
def test_what_is_no_router_is_told_so_in_one_sentence(thing: Any) -> None:
    (result,) = run(check_router(thing)).results
    assert result.outcome == "failed"
    assert "is no turnout.core.contracts.Router; allowed: an object of a class that inherits" in result.reason


def test_what_estimates_an_array_is_told_so_once() -> None:
    report = run(check_router(broken(estimate=lambda self, queries: np.zeros((len(queries), 4)))))
    (failed,) = report.failed
    assert failed.reason.startswith(
        "Broken: estimate returned no estimate; allowed: a turnout.core.estimate.Estimate; got: 'ndarray'"
    )
    assert {result.outcome for result in report.results} == {"failed", "skipped"}
    assert report.results[-1].reason == "says nothing while an_estimate_is_an_estimate fails"


def test_a_broken_promise_names_the_class_and_the_numbers() -> None:
    with pytest.raises(CheckFailed, match=r"Broken: estimating learned something: the array 'mean_KM'"):
        named(changing(learns))["estimating_does_not_learn"]()


def test_a_class_without_a_name_skips_the_artifact() -> None:
    with pytest.raises(CheckSkipped, match="has no name in the room 'routers'"):
        named(MeanRouter())["saving_and_loading_changes_nothing"]()


def test_every_router_check_is_broken_by_somebody() -> None:
    from turnout.checks.configured import CONFIGURED_CHECKS

    shared = {check.__name__ for check in CONFIGURED_CHECKS}
    assert set(named(MeanRouter())) - shared == set(BREAKS) | ELSEWHERE
