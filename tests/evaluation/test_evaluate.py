from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.cases import choose, make_table, random_table
from turnout.core import (
    InputError,
    LeakageError,
    OutcomeTable,
    ShapeError,
    UnknownNameError,
    decisions_for,
    make_estimate,
)
from turnout.evaluation import Report, Run, evaluate

NAN = float("nan")
QUALITY = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]]
COST = [[1e-3, 4e-3]] * 4


def judge(table: OutcomeTable, choices: list[int], **options: object) -> Report:
    return evaluate({"mine": choose(table, choices)}, table, num_resamples=50, **options)  # type: ignore[arg-type]


def test_every_number_of_a_small_table_by_hand() -> None:
    table = make_table(QUALITY, COST, tasks=["a", "a", "b", "b"])
    report = judge(table, [0, 1, 0, 0])
    mine = report["mine"]
    # m1 is right three times of four at $4 per 1,000; mine is right three times at (1 + 4 + 1 + 1) / 4.
    assert report.best_single == "m1"
    assert mine.quality.value == 0.75
    assert mine.usd_per_1k is not None
    assert mine.usd_per_1k.value == pytest.approx(1.75)
    assert mine.vs_best_single.value == 0.0
    assert mine.saving is not None
    assert mine.saving.share.value == pytest.approx(1 - 1.75 / 4)
    assert mine.spend is not None
    assert mine.spend.value == pytest.approx(1.75 / 4)
    assert mine.shares == {"m0": 0.75, "m1": 0.25}
    # The oracle is right on all four: m0 twice, m1 twice.
    assert report["oracle"].quality.value == 1.0
    assert report["oracle"].usd_per_1k is not None
    assert report["oracle"].usd_per_1k.value == pytest.approx(2.5)
    assert mine.regret.value == 0.25
    assert mine.oracle_share.value == 0.0
    assert report["random"].quality.value == 0.625
    assert report["random"].usd_per_1k is not None
    assert report["random"].usd_per_1k.value == pytest.approx(2.5)
    # In task a the two tie at 1/2, so the cheaper m0 is taken; in b m1 is better.
    assert report.best_per_group == {"a": "m0", "b": "m1"}
    assert report["best per group"].quality.value == 0.75
    assert report.tasks.quality["mine"] == (1.0, 0.5)
    assert report.tasks.counts == (2, 2)
    assert [single.quality.value for single in report.singles] == [0.5, 0.75]


def test_a_sweep_by_hand() -> None:
    table = make_table(QUALITY, COST)
    sweep = [
        choose(table, [0, 0, 0, 0], price=1000.0),
        choose(table, [1, 1, 1, 1], price=0.0),
        choose(table, [0, 1, 0, 1], price=50.0),
    ]
    report = evaluate({"mine": sweep}, table, num_resamples=20)
    curve = report["mine"].curve
    assert curve is not None
    assert [point.price for point in curve.points] == [0.0, 50.0, 1000.0]
    assert [point.is_on_hull for point in curve.points] == [False, True, True]
    # (1, .5) and (2.5, 1.0) over budgets of 1 to 4 usd per 1,000: .75 * 1.5 + 1.0 * 1.5, over 3.
    assert curve.aiq is not None
    assert curve.aiq.value == pytest.approx((0.75 * 1.5 + 1.5) / 3)
    assert report.mix_aiq == pytest.approx((0.5 + 0.75) / 2)
    assert curve.peak.value == 1.0
    assert curve.qnc is not None
    assert curve.qnc.value == pytest.approx(2.5 / 4)
    assert curve.mixed_saving is not None
    # Half way between the two points the quality is .75, at 1.75.
    assert curve.mixed_saving.share.value == pytest.approx(1 - 1.75 / 4)
    assert curve.perf_gain.value == pytest.approx(1 / 3)
    assert curve.pair is not None
    assert (curve.pair.weak, curve.pair.strong) == ("m0", "m1")
    # Shares 0, 1/2, 1 with PGR 0, 2, 1.
    assert curve.pair.apgr.value == pytest.approx(1.25)
    assert curve.pair.cpt["50%"].value == pytest.approx(0.125)


def test_a_run_that_stepped_aside_saves_nothing_rather_than_never() -> None:
    table = make_table(QUALITY, COST)
    run = Run(chosen=choose(table, [1] * 4), sweep=[choose(table, [0] * 4, price=9.0)])
    row = evaluate({"mine": run}, table, num_resamples=20)["mine"]
    assert row.saving is not None
    assert row.saving.share.value == 0.0
    assert row.curve is not None
    assert row.curve.qnc is not None
    assert row.curve.qnc.value is None


def test_the_shown_point_of_a_bare_sweep_is_fixed_beforehand_and_named() -> None:
    table = make_table(QUALITY, COST)
    report = evaluate(
        {"mine": [choose(table, [0] * 4, price=9.0), choose(table, [1] * 4)]}, table, num_resamples=5
    )
    assert report["mine"].quality.value == 0.75
    assert report["mine"].note == "lowest price of its sweep"
    assert any("lowest price" in warning for warning in report.warnings)


def test_baselines_are_chosen_on_train_and_scored_on_the_table() -> None:
    table = make_table(QUALITY, COST, tasks=["a"] * 4)
    train = make_table([[1.0, 0.0]] * 3, COST[:3], tasks=["a"] * 3, prefix="t")
    report = judge(table, [1, 1, 1, 1], train=train)
    assert report.best_single == "m0"
    assert report["best single"].quality.value == 0.5
    assert report["mine"].vs_best_single.value == 0.25
    assert report.origin.train == train.fingerprint
    assert report.leakage is not None


def test_without_train_or_knn_the_report_says_so() -> None:
    warnings = judge(make_table(QUALITY, COST), [0, 1, 0, 0]).warnings
    assert any("no training table" in warning for warning in warnings)
    assert any("no kNN baseline" in warning for warning in warnings)


def test_knn_is_compared_when_it_is_named() -> None:
    table = make_table(QUALITY, COST)
    runs = {"mine": choose(table, [0, 1, 0, 1]), "near": choose(table, [0, 0, 0, 0])}
    report = evaluate(runs, table, knn="near", num_resamples=50)
    assert report.knn == "near"
    assert report["mine"].vs_knn is not None
    assert report["mine"].vs_knn.value == 0.5
    assert not any("kNN" in warning for warning in report.warnings)


def test_a_choice_that_was_not_observed_drops_the_query_for_everyone() -> None:
    table = make_table([[1.0, 0.0], [NAN, 1.0], [1.0, 1.0], [1.0, 0.0]], [[1e-3, 2e-3]] * 4)
    report = judge(table, [0, 0, 0, 0])
    assert (report.origin.num_scored, report.origin.dropped_quality) == (3, 1)
    assert report["mine"].quality.value == 1.0
    assert report["oracle"].quality.value == 1.0
    assert any("1 of 4 queries (25%)" in warning for warning in report.warnings)


def test_a_refusal_is_a_wrong_answer_at_no_cost() -> None:
    report = judge(make_table(QUALITY, COST), [0, -1, 0, -1])
    assert report["mine"].quality.value == 0.5
    assert report["mine"].refused == 2
    assert report["mine"].usd_per_1k is not None
    assert report["mine"].usd_per_1k.value == pytest.approx(0.5)
    assert any("serves nobody on 2 queries" in warning for warning in report.warnings)


def test_a_table_without_costs_gives_a_report_of_quality() -> None:
    report = judge(make_table(QUALITY), [0, 1, 0, 0])
    assert not report.has_costs
    assert report.cost_note == "the table records no costs"
    for row in report.rows:
        assert (row.usd_per_1k, row.saving, row.arena, row.spend) == (None, None, None, None)
    assert report["oracle"].quality.value == 1.0
    assert "usd" not in report.to_text()


def test_a_model_without_a_price_is_no_free_lunch_for_the_oracle() -> None:
    table = make_table([[0.5, 1.0]] * 4, [[1e-3, NAN]] * 4)
    train = make_table([[1.0, 0.0]] * 3, [[1e-3, 2e-3]] * 3, prefix="t")
    report = judge(table, [0, 0, 0, 0], train=train)
    for name in ("oracle", "random"):
        row = report[name]
        assert row.quality.value == 0.5
        assert row.usd_per_1k is not None
        assert row.usd_per_1k.value == pytest.approx(1.0)
    assert any("50.0% of the pairs have no known cost" in warning for warning in report.warnings)


def test_a_best_model_without_a_price_leaves_a_report_of_quality_that_names_it() -> None:
    table = make_table([[0.5, 1.0]] * 4, [[1e-3, NAN]] * 4)
    report = judge(table, [0, 0, 0, 0])
    assert not report.has_costs
    assert "without any cost: m1 (" in report.cost_note
    assert report["oracle"].quality.value == 1.0


def test_calibration_is_over_the_chosen_and_over_all() -> None:
    table = make_table([[1.0, 0.0], [0.0, 1.0]], COST[:2])
    estimate = make_estimate(table.candidates, np.array([[1.0, 0.5], [1.0, 0.5]]))
    report = evaluate({"mine": Run(chosen=choose(table, [0, 0]), estimate=estimate)}, table, num_resamples=5)
    found = report["mine"].calibration
    assert found is not None
    assert found.chosen is None  # these decisions carry no estimate of their own
    assert found.every is not None
    assert found.every.ece == pytest.approx(0.25)
    assert found.every.brier == pytest.approx((0 + 1 + 0.25 + 0.25) / 4)


def test_a_leaking_split_fails_unless_it_is_allowed_on_record() -> None:
    table = make_table(QUALITY, COST)
    with pytest.raises(LeakageError, match="4 of 4"):
        judge(table, [0, 0, 0, 0], train=table)
    allowed = judge(table, [0, 0, 0, 0], train=table, leakage="allow")
    assert allowed.leakage is not None
    assert allowed.leakage.is_allowed
    assert any("was allowed" in warning for warning in allowed.warnings)
    skipped = judge(table, [0, 0, 0, 0], train=table, leakage="skip")
    assert skipped.leakage is None
    assert any("skip" in warning for warning in skipped.warnings)


def test_what_does_not_fit_is_named() -> None:
    table = make_table(QUALITY, COST)
    with pytest.raises(ShapeError, match="Q = 4"):
        judge(table, [0, 0])
    with pytest.raises(InputError, match="names other than"):
        evaluate({"oracle": choose(table, [0] * 4)}, table)
    with pytest.raises(InputError, match="at least one"):
        evaluate({}, table)
    with pytest.raises(InputError, match="sequence of Decisions"):
        evaluate({"mine": "m0"}, table)  # type: ignore[dict-item]
    with pytest.raises(InputError, match="neither"):
        Run()
    with pytest.raises(ShapeError, match="groups"):
        judge(table, [0] * 4, groups=[1, 2])
    with pytest.raises(InputError, match="confidence"):
        judge(table, [0] * 4, confidence=1.0)
    other = make_table(QUALITY, COST, names=["m0", "stranger"])
    with pytest.raises(UnknownNameError, match="stranger"):
        evaluate({"mine": choose(other, [0, 0, 0, 1])}, table)
    with pytest.raises(InputError, match="none of the table's candidates"):
        judge(table, [0] * 4, train=make_table(QUALITY, COST, names=["x", "y"], prefix="t"))


def test_identical_runs_have_no_difference_in_any_resample() -> None:
    table = random_table(300, 4, seed=1)
    choices = np.random.default_rng(0).integers(0, 4, 300).tolist()
    report = evaluate({"a": choose(table, choices), "knn": choose(table, choices)}, table, num_resamples=200)
    difference = report["a"].vs_knn
    assert difference is not None
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_a_report_is_made_again_by_its_seed() -> None:
    table = random_table(200, 3, seed=1)
    runs = {"mine": choose(table, [k % 3 for k in range(200)])}
    one, two = (evaluate(runs, table, num_resamples=100, seed=5).to_json() for _ in range(2))
    assert one == two
    assert one != evaluate(runs, table, num_resamples=100, seed=6).to_json()


def test_adding_a_run_does_not_change_the_numbers_of_another() -> None:
    table = random_table(200, 3, seed=1)
    mine, other = choose(table, [k % 3 for k in range(200)]), choose(table, [k % 2 for k in range(200)])
    alone = evaluate({"mine": mine}, table, num_resamples=100)["mine"]
    both = evaluate({"other": other, "mine": mine}, table, num_resamples=100)["mine"]
    assert alone.quality.value == both.quality.value
    assert alone.quality.low == pytest.approx(both.quality.low, abs=1e-6)
    assert alone.vs_best_single.high == pytest.approx(both.vs_best_single.high, abs=1e-6)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[OutcomeTable, list[int]]:
    num_queries, num_candidates = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    cell = st.integers(0, 4).map(lambda k: k / 4)
    quality = draw(
        st.lists(
            st.lists(cell, min_size=num_candidates, max_size=num_candidates),
            min_size=num_queries,
            max_size=num_queries,
        )
    )
    cost = draw(st.lists(st.integers(0, 5), min_size=num_candidates, max_size=num_candidates))
    choices = draw(st.lists(st.integers(0, num_candidates - 1), min_size=num_queries, max_size=num_queries))
    tasks = draw(st.lists(st.sampled_from(["a", "b"]), min_size=num_queries, max_size=num_queries))
    table = make_table(quality, [[c / 1000 for c in cost]] * num_queries, tasks=tasks)
    return table, choices


@settings(max_examples=60)
@given(worlds())
def test_nothing_beats_the_oracle_and_random_is_the_mean(world: tuple[OutcomeTable, list[int]]) -> None:
    table, choices = world
    report = evaluate({"mine": choose(table, choices)}, table, num_resamples=8)
    best = report["oracle"].quality.value
    assert best is not None
    for row in report.rows:
        assert row.quality.value is not None
        assert row.quality.value <= best + 1e-12
        assert row.regret.value is not None
        assert row.regret.value >= -1e-12
    assert report["random"].quality.value == pytest.approx(float(table.quality_QM.mean()))


@settings(max_examples=30)
@given(worlds(), st.integers(0, 99))
def test_the_order_of_candidates_does_not_matter(world: tuple[OutcomeTable, list[int]], seed: int) -> None:
    table, choices = world
    order = np.random.default_rng(seed).permutation(len(table.names))
    turned = table.select(candidates=[table.names[k] for k in order])
    decisions = choose(table, choices)
    one = evaluate({"mine": decisions}, table, num_resamples=8)
    two = evaluate({"mine": decisions}, turned, num_resamples=8)
    assert one.best_single == two.best_single
    for left, right in zip(one.rows, two.rows, strict=True):
        assert left.quality.value == pytest.approx(right.quality.value)
        assert left.quality.low == pytest.approx(right.quality.low, abs=1e-6)
        assert left.usd_per_1k is not None
        assert right.usd_per_1k is not None
        assert left.usd_per_1k.value == pytest.approx(right.usd_per_1k.value)
        assert dict(left.shares) == dict(right.shares)


def test_decisions_over_other_candidates_are_read_by_name() -> None:
    table = make_table(QUALITY, COST)
    turned = decisions_for(table.candidates[::-1], np.array([1, 0, 1, 1]))
    assert evaluate({"mine": turned}, table, num_resamples=5)["mine"].quality.value == 0.75


def test_groups_are_resampled_whole() -> None:
    table = random_table(300, 3, seed=2)
    runs = {"mine": choose(table, [2] * 300)}
    report = evaluate(runs, table, num_resamples=100, groups=[k // 10 for k in range(300)])
    assert report.origin.num_groups == 30
    assert "resamples of groups" in report.to_text()
