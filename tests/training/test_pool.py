"""The pool that can be learned: candidates without a price, and candidates that were never graded."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from tests.routers.tables import dense_table, worded_queries, worded_table
from turnout.core import Candidate, Goal, OutcomeTable, PriceCard, TableError
from turnout.policies import Deployment
from turnout.training import study, train
from turnout.training.pool import about_prices, learnable
from turnout.training.select import merit

ROUTERS = ["auto", "knn", ("knn", "best_single")]


def make_table(
    usd: tuple[float, float],
    *,
    chance: tuple[float, float] = (0.4, 0.7),
    num: int = 400,
    more: tuple[str, ...] = (),
    names: tuple[str, str] = ("small", "large"),
) -> OutcomeTable:
    """Two candidates of these chances and costs; those of `more` are listed and were never run."""
    rng = np.random.default_rng(0)
    quality_QM = (rng.random((num, 2)) < np.array(chance)).astype(float)
    return OutcomeTable(
        queries=worded_queries(num, seed=0),
        candidates=[Candidate(model=name) for name in (*names, *more)],
        query_index=np.repeat(np.arange(num), 2),
        candidate_index=np.tile([0, 1], num),
        quality=quality_QM.ravel(),
        cost_usd=np.tile(usd, num),
    )


def notes_of(made: Deployment) -> list[str]:
    notes = made.certificate["notes"]
    assert isinstance(notes, list)
    return notes


UNPRICED = make_table((0.0001, np.nan))


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("goal", [Goal(usd_per_1k=0.5), Goal(usd_per_1k=0.2), Goal(usd_per_quality=0.01)])
def test_a_candidate_without_a_price_does_not_serve_where_money_is_asked_for(router: str, goal: Goal) -> None:
    made = train(UNPRICED, goal, router=router)
    decisions = made.decide(UNPRICED.queries[:50])
    assert set(decisions.names_Q) == {"small"}
    assert np.isfinite(decisions.cost_usd_Q).all()
    verdict = made.plan().verdict
    assert verdict is not None
    assert np.isfinite([verdict.gain, verdict.low]).all()
    assert made.plan().is_kept
    # A pacer may lower its price to 0, and the cap still stands.
    assert set(made.decide(UNPRICED.queries[:50], price=0.0).names_Q) == {"small"}


def test_where_quality_is_asked_for_it_serves_and_fit_says_that_its_price_is_unknown() -> None:
    for goal in (Goal(), Goal(quality_floor=0.95)):
        made = train(UNPRICED, goal, router="knn")
        assert set(made.decide(UNPRICED.queries[:50]).names_Q) == {"large"}
        (note,) = notes_of(made)
        assert note.startswith("no price is known of 'large': where money is asked for, it stands behind")
        assert "record cost_usd" in note
    assert "notes" not in train(make_table((0.0001, 0.001)), Goal(), router="knn").certificate
    assert about_prices(["a", "b"], np.array([np.nan, np.nan])) == ()


def test_selection_for_a_cap_does_not_take_an_unknown_cost_for_none() -> None:
    made = train(UNPRICED, Goal(usd_per_1k=0.5), router=("knn", "best_single"))
    trials = made.certificate["trials"]
    assert isinstance(trials, list)
    assert all(trial["usd_per_1k"] == pytest.approx(0.1) for trial in trials)
    assert merit(0.9, np.nan, Goal(quality_floor=0.9), 1.0, price=0.0)[1] == -np.inf


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("num", [100, 400])
def test_candidates_that_cost_nothing_keep_every_cap_and_the_better_serves(router: str, num: int) -> None:
    table = make_table((0.0, 0.0), chance=(0.1, 0.9), num=num, names=("bad", "good"))
    plan = train(table, Goal(usd_per_1k=1.0), router=router).plan()
    assert plan.is_kept
    assert plan.single == 1
    assert set(train(table, Goal(usd_per_1k=1.0), router=router).decide(table.queries).names_Q) == {"good"}


@pytest.mark.parametrize("router", ROUTERS)
def test_a_candidate_that_was_never_graded_is_left_out_and_named(router: str) -> None:
    table = make_table((0.0001, 0.001), more=("newcomer",))
    made = train(table, Goal(quality_floor=0.9), router=router)
    assert [candidate.name for candidate in made.candidates] == ["small", "large"]
    (note,) = notes_of(made)
    assert note.startswith("'newcomer' is left out of the pool: no answer of it was graded")
    assert made.certificate["table"]["fingerprint"] == table.fingerprint  # type: ignore[index]
    json.dumps(made.certificate, allow_nan=False)


@pytest.mark.parametrize("router", ROUTERS)
def test_a_lucky_candidate_that_was_hardly_observed_is_left_out_and_named(router: str) -> None:
    table = make_table((0.0001, 0.001), more=("lucky",))
    for num in (1, 5):
        met = OutcomeTable(
            queries=table.queries,
            candidates=table.candidates,
            query_index=np.append(table.query_index, np.arange(num)),
            candidate_index=np.append(table.candidate_index, np.full(num, 2)),
            quality=np.append(table.quality, np.ones(num)),
            cost_usd=np.append(table.cost_usd, np.full(num, 0.0005)),
        )
        made = train(met, Goal(quality_floor=0.9), router=router)
        assert [candidate.name for candidate in made.candidates] == ["small", "large"]
        (note,) = notes_of(made)
        assert note.startswith(
            "'lucky' is left out of the pool: fewer than 10 answers of it were graded; ask"
        )


def test_who_has_few_answers_where_all_have_few_stays() -> None:
    for num, kept in ((3, 2), (4, 3)):
        seen_QM = np.zeros((31, 3))
        seen_QM[:, :2] = 1.0
        seen_QM[:num, 2] = 1.0
        table = dense_table(np.where(seen_QM > 0, 0.5, np.nan), ["a text"] * 31)
        assert len(learnable(table)[0].candidates) == kept


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("router", ["auto", "knn"])
def test_many_candidates_that_all_have_few_answers_step_aside_without_a_promise(
    router: str, density: float
) -> None:
    rng = np.random.default_rng(0)
    right_QM = (rng.random((40, 300)) < 0.5).astype(float)
    quality_QM = np.where(rng.random((40, 300)) < density, right_QM, np.nan)
    table = worded_table(quality_QM)
    made = train(table, Goal(), router=router)
    plan = made.plan()
    assert not plan.is_open
    assert plan.text.endswith("and nothing is promised")
    assert np.isfinite(made.router.estimate(table.queries[:3]).quality_QM).any(axis=1).all()


@pytest.mark.parametrize("router", ["auto", "knn"])
def test_nothing_is_worded_as_measured_that_holds_by_definition(router: str) -> None:
    few = make_table((0.001, 0.001), num=25)
    plan = train(few, Goal(quality_floor=0.95), router=router).plan()
    assert plan.is_kept
    assert plan.text.startswith("large is the best single model itself, so that it keeps at least 95.0%")
    assert "confidence" not in plan.text
    free = train(make_table((0.0, 0.0), num=25), Goal(usd_per_1k=1.0), router=router).plan()
    assert "costs nothing, so that it keeps at most 1 usd" in free.text


def test_a_deployment_without_it_is_studied_on_a_table_that_lists_it() -> None:
    table = make_table((0.0001, 0.001), more=("newcomer",), num=300)
    first_Q = np.arange(300) < 200
    made = train(table.where(first_Q), Goal(), router="knn")
    report = study(made, table.where(first_Q), table.where(~first_Q), num_resamples=20, leakage="skip")
    assert report.origin.num_scored == 100


@pytest.mark.parametrize("router", ROUTERS)
def test_a_cost_that_the_price_card_tells_is_known(router: str) -> None:
    plain = make_table((0.0001, 0.001), chance=(0.4, 0.9))
    card = PriceCard(input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
    table = OutcomeTable(
        queries=plain.queries,
        candidates=[plain.candidates[0], plain.candidates[1].with_price_card(card)],
        query_index=plain.query_index,
        candidate_index=plain.candidate_index,
        quality=plain.quality,
        cost_usd=np.where(plain.candidate_index == 1, np.nan, plain.cost_usd),
        input_tokens=np.full(plain.num_rows, 900.0),
        output_tokens=np.full(plain.num_rows, 100.0),
    )
    made = train(table, Goal(usd_per_1k=0.5), router=router)
    assert "notes" not in made.certificate
    # The large one costs 1 usd per 1,000: it may serve some queries, and not all of them.
    assert made.plan().is_kept
    assert made.plan().usd_per_1k <= 0.5
    assert np.mean(made.decide(table.queries).cost_usd_Q) * 1000.0 < 0.6
    assert train(table, Goal(usd_per_1k=2.0), router=router).plan().is_kept


@pytest.mark.parametrize("router", ROUTERS)
def test_a_table_without_any_quality_says_so(router: str) -> None:
    table = make_table((0.0001, 0.001), num=60)
    blank = OutcomeTable(
        queries=table.queries,
        candidates=table.candidates,
        query_index=table.query_index,
        candidate_index=table.candidate_index,
        quality=np.full(table.num_rows, np.nan),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TableError, match=r"the table holds no quality; .*grade some answers"):
            train(blank, Goal(), router=router)
