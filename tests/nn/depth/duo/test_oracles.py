from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.depth.duo.setup import make_batch, make_duo, pad_left
from turnout.core.errors import InputError, ShapeError
from turnout.nn.depth.duo import (
    Oracle,
    Problem,
    SequenceLoss,
    TokenLoss,
    best_fixed,
    best_of,
    exhaustive,
    greedy,
)
from turnout.nn.depth.duo.patterns import all_patterns, random_patterns


def table_problem(
    seed: int, *, items: int = 3, layers: int = 4, cost_A: tuple[float, ...] = (0, 1)
) -> Problem:
    """Return a problem whose losses are a table of random numbers: no structure helps a search."""
    table = np.random.default_rng(seed).random((items, *[len(cost_A)] * layers))
    return Problem(
        loss=lambda item_P, choice_PL: table[(item_P, *choice_PL.T)],
        num_items=items,
        num_layers=layers,
        cost_A=cost_A,
    )


def separable(seed: int, *, items: int = 3, layers: int = 6, cost_A: tuple[float, ...] = (0, 1)) -> Problem:
    """Return a problem whose loss is a sum over layers."""
    part = np.random.default_rng(seed).normal(size=(items, layers, len(cost_A)))
    return Problem(
        loss=lambda item_P, choice_PL: part[item_P[:, None], np.arange(layers), choice_PL].sum(1),
        num_items=items,
        num_layers=layers,
        cost_A=cost_A,
    )


COSTS = st.sampled_from([(0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 1.0, 2.0), (1.0, 0.0)])


@given(seed=st.integers(0, 10**6), cost_A=COSTS)
@settings(max_examples=40)
def test_no_pattern_within_a_budget_beats_the_exhaustive_oracle(seed: int, cost_A: tuple[float, ...]) -> None:
    problem = table_problem(seed, layers=3, cost_A=cost_A)
    budgets = range(int(3 * max(cost_A)) + 1)
    oracle = exhaustive(problem, budgets=list(budgets))
    for pattern in itertools.product(range(len(cost_A)), repeat=3):
        spent = float(problem.spent(np.array(pattern)))
        loss_Q = problem.of_items(np.array(pattern))
        for k in budgets:
            if spent <= k:
                assert (oracle.loss_KQ[k] <= loss_Q).all()


@given(seed=st.integers(0, 10**6), cost_A=COSTS)
@settings(max_examples=30)
def test_every_oracle_keeps_its_budget_reports_true_losses_and_never_loses_by_more_budget(
    seed: int, cost_A: tuple[float, ...]
) -> None:
    problem = table_problem(seed, cost_A=cost_A)
    budgets = [0, 1, 2, 4]
    rng = np.random.default_rng(seed)
    best = exhaustive(problem, budgets=budgets)
    for oracle in (
        best,
        greedy(problem, budgets=budgets),
        best_of(problem, budgets=budgets, rng=rng, num_draws=5)[0],
    ):
        assert (np.diff(oracle.loss_KQ, axis=0) <= 0).all()
        assert (oracle.loss_KQ >= best.loss_KQ).all()
        for k, budget in enumerate(budgets):
            assert (problem.spent(oracle.choice_KQL[k]) <= budget).all()
            np.testing.assert_array_equal(problem.of_items(oracle.choice_KQL[k]), oracle.loss_KQ[k])


EVEN = [(0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 1.0, 2.0), (1.0, 2.0, 3.0, 2.0)]


@pytest.mark.parametrize("cost_A", EVEN)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_greedy_is_exhaustive_on_separable_losses(cost_A: tuple[float, ...], seed: int) -> None:
    problem = separable(seed, layers=6 if len(cost_A) == 2 else 4, cost_A=cost_A)
    low, high = (int(problem.num_layers * end) for end in (min(cost_A), max(cost_A)))
    for budgets in (list(range(low, high + 1)), [low + 2], [low + 1, high - 1]):
        best, climbed = exhaustive(problem, budgets=budgets), greedy(problem, budgets=budgets)
        np.testing.assert_allclose(climbed.loss_KQ, best.loss_KQ, atol=1e-12)


def chosen(part_LA: list[list[float]], *, cost_A: tuple[float, ...], budget: float) -> list[int]:
    """Return greedy's pattern for losses that add up, one row a layer, where no smaller budget came first."""
    table = np.array(part_LA)
    problem = Problem(
        loss=lambda item_P, choice_PL: table[np.arange(len(table)), choice_PL].sum(1),
        num_items=1,
        num_layers=len(table),
        cost_A=cost_A,
    )
    return list(greedy(problem, budgets=[budget]).choice_KQL[0, 0])


def test_greedy_moves_a_big_module_from_one_layer_to_another() -> None:
    # The first step spends the budget on layer 0, whose skip (2) is nearly as good.
    assert chosen([[5, 0, 1], [3, 0, 3]], cost_A=(0, 1, 0), budget=1) == [2, 1]


def test_greedy_trades_one_repeat_for_two_layers() -> None:
    # The repeat of layer 0 is the steepest change, and the two others together are worth more.
    assert chosen([[5, 5, 0], [3, 0, 0], [3, 0, 0]], cost_A=(0, 1, 2), budget=2) == [0, 1, 1]
    # Layers 1 and 2 are taken one by one, and then the repeat of layer 0 is worth more.
    assert chosen([[5, 4.5, 0], [2, 0, 0], [2, 0, 0]], cost_A=(0, 1, 2), budget=2) == [2, 0, 0]


def test_greedy_asks_far_less_than_all() -> None:
    asked = []
    inner = separable(0, items=1, layers=10)

    def loss(item_P: np.ndarray, choice_PL: np.ndarray) -> np.ndarray:
        asked.append(len(item_P))
        return np.asarray(inner.loss(item_P, choice_PL))

    problem = Problem(loss=loss, num_items=1, num_layers=10)
    greedy(problem, budgets=[3])
    assert sum(asked) < 200
    asked.clear()
    exhaustive(problem, budgets=[10])
    assert sum(asked) == 1024


def test_a_planted_optimum_is_found() -> None:
    planted = np.array([1, 0, 0, 1, 0])
    problem = Problem(
        loss=lambda item_P, choice_PL: (choice_PL != planted).sum(1) + 0.0, num_items=2, num_layers=5
    )
    for oracle in (exhaustive(problem, budgets=[2]), greedy(problem, budgets=[2])):
        assert oracle.choice_KQL[0].tolist() == [planted.tolist()] * 2
        assert oracle.share_KL()[0].tolist() == planted.tolist()


def test_best_fixed_is_the_best_single_pattern_on_average() -> None:
    problem = table_problem(3)
    fixed_KL = best_fixed(problem, budgets=[1, 4])
    every_NL = all_patterns(problem, budget=4)
    means = [problem.of_items(pattern).mean() for pattern in every_NL]
    assert fixed_KL[1].tolist() == every_NL[int(np.argmin(means))].tolist()
    assert fixed_KL[0].sum() <= 1


@pytest.mark.parametrize("cost_A", [(0, 1), (0, 1, 0), (0, 1, 2)])
def test_random_patterns_spend_the_whole_budget_and_cover_all(cost_A: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    drawn_PL = random_patterns(rng, num_rows=3000, num_layers=4, budget=2, cost_A=cost_A)
    assert (np.asarray(cost_A)[drawn_PL].sum(1) == 2).all()
    counts = np.unique(drawn_PL, axis=0, return_counts=True)[1]
    assert len(counts) == {(0, 1): 6, (0, 1, 0): 24, (0, 1, 2): 10}[cost_A]
    if cost_A != (0, 1, 2):
        assert counts.min() > 0.7 * counts.mean()


def test_best_of_is_reproducible_and_its_mean_is_that_of_random_routing() -> None:
    problem = table_problem(1, items=4)
    one, loss_KNQ = best_of(problem, budgets=[2], rng=np.random.default_rng(5), num_draws=400)
    two, _ = best_of(problem, budgets=[2], rng=np.random.default_rng(5), num_draws=400)
    np.testing.assert_array_equal(one.loss_KQ, two.loss_KQ)
    np.testing.assert_array_equal(loss_KNQ[0].min(0), one.loss_KQ[0])
    exactly_NL = [p for p in all_patterns(problem, budget=2) if p.sum() == 2]
    expected_Q = np.mean([problem.of_items(p) for p in exactly_NL], axis=0)
    np.testing.assert_allclose(loss_KNQ[0].mean(0), expected_Q, atol=0.06)


def test_between_budgets_the_oracle_mixes() -> None:
    oracle = Oracle(
        budget_K=np.array([1.0, 3.0]), loss_KQ=np.array([[4.0], [2.0]]), choice_KQL=np.zeros((2, 1, 3), int)
    )
    assert [float(oracle.loss_at(b)[0]) for b in (1, 1.5, 3, 9)] == [4.0, 3.5, 2.0, 2.0]
    with pytest.raises(InputError, match="oracle: budget"):
        oracle.loss_at(0.5)


@pytest.mark.parametrize(("cost_A", "limit"), [((0, 1), 10), ((0, 1, 0), 6)])
def test_more_layers_than_can_be_tried_are_refused(cost_A: tuple[float, ...], limit: int) -> None:
    problem = Problem(
        loss=lambda item_P, choice_PL: np.zeros(len(item_P)), num_items=1, num_layers=limit + 1, cost_A=cost_A
    )
    with pytest.raises(InputError, match=f"at most {limit} layers; got: {limit + 1}; use greedy or best_of"):
        exhaustive(problem, budgets=[1])
    assert exhaustive(problem, budgets=[1], max_layers=limit + 1).loss_KQ.shape == (1, 1)
    assert greedy(problem, budgets=[1]).loss_KQ.shape == (1, 1)


def test_budgets_out_of_range_are_refused() -> None:
    for budgets in ([-1], [5], [float("nan")], []):
        with pytest.raises(InputError, match="oracle"):
            exhaustive(table_problem(0), budgets=budgets)
    with pytest.raises(InputError, match="oracle: a budget"):
        greedy(Problem(loss=lambda i, c: c.sum(1), num_items=1, num_layers=2, cost_A=(1, 2)), budgets=[1])


def test_a_loss_function_that_returns_nonsense_is_refused() -> None:
    for wrong, kind in ((lambda i, c: np.zeros(1), ShapeError), (lambda i, c: i * np.nan, InputError)):
        with pytest.raises(kind, match="Problem"):
            exhaustive(Problem(loss=wrong, num_items=2, num_layers=2), budgets=[1])


def test_sequence_losses_are_the_models_own_per_sequence_and_ignore_padding() -> None:
    duo = make_duo()
    batch = make_batch(3, 6)
    loss = SequenceLoss(duo, batch, rows=2)
    pattern_QL = np.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    found_Q = loss(np.arange(3), pattern_QL)
    for row in range(3):
        ids = batch.input_ids_BT[row : row + 1]
        with duo.forced(pattern_QL[row]):
            expected = float(duo.model(input_ids=ids, labels=ids).loss.detach())
        assert found_Q[row] == pytest.approx(expected, rel=1e-4)
    padded_Q = SequenceLoss(duo, pad_left(batch, 3))(np.arange(3), pattern_QL)
    np.testing.assert_allclose(padded_Q, found_Q, rtol=1e-3)


def test_a_row_without_labels_is_refused() -> None:
    batch = make_batch(2, 4)
    batch.labels_BT[1] = -100
    with pytest.raises(InputError, match="every row needs a label"):
        SequenceLoss(make_duo(), batch)


@pytest.mark.parametrize("padding", [0, 2])
def test_token_losses_equal_whole_passes_in_which_one_token_has_a_pattern_of_its_own(padding: int) -> None:
    duo = make_duo(allow_skip=True)
    batch = pad_left(make_batch(3, 6), padding)
    others = [1, 0, 2, 1]
    positions = [(row, padding + column) for row in range(3) for column in (0, 2, 4)]
    loss = TokenLoss(duo, batch, positions=positions, others=others, rows=5)
    rng = np.random.default_rng(0)
    item_P = rng.integers(0, len(positions), size=30)
    choice_PL = rng.integers(0, 3, size=(30, 4))
    found_P = loss(item_P, choice_PL)
    for item, choice_L, found in zip(item_P, choice_PL, found_P, strict=True):
        row, column = positions[item]
        choice_TL = np.tile(others, (1, 6 + padding, 1))
        choice_TL[0, column] = choice_L
        with duo.forced(choice_TL):
            logits = duo.model(
                input_ids=batch.input_ids_BT[row : row + 1],
                attention_mask=batch.attention_mask_BT[row : row + 1],
            ).logits[0, column]
        expected = -float(logits.log_softmax(-1)[batch.labels_BT[row, column + 1]].detach())
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_token_oracle_is_monotone_and_below_the_pattern_of_the_others() -> None:
    duo, batch = make_duo(), make_batch(2, 6)
    problem = TokenLoss(duo, batch, positions=[(0, 2), (1, 4)], others=[0, 1, 0, 0]).problem()
    oracle = exhaustive(problem, budgets=range(5))
    assert (np.diff(oracle.loss_KQ, axis=0) <= 0).all()
    assert (oracle.loss_KQ[1] <= problem.of_items(np.array([0, 1, 0, 0]))).all()


def test_positions_that_cannot_be_judged_are_refused() -> None:
    duo, batch = make_duo(), make_batch(2, 6)
    batch.labels_BT[0, 3] = -100
    for positions, words in (
        ([(2, 0)], "a position"),
        ([(0, 5)], "a position"),
        ([(0, 2)], "no label follows"),
    ):
        with pytest.raises(InputError, match=words):
            TokenLoss(duo, batch, positions=positions, others=[0, 0, 0, 0])
    with pytest.raises(ShapeError, match="L = 4"):
        TokenLoss(duo, batch, positions=[(0, 0)], others=[0, 0])


def test_random_routing_per_token_reaches_the_model() -> None:
    duo, batch = make_duo(), make_batch(2, 5)
    problem = SequenceLoss(duo, batch).problem()
    best, _ = best_of(problem, budgets=[1, 2], rng=np.random.default_rng(0), num_draws=6, num_tokens=5)
    assert best.choice_KQL.shape == (2, 2, 5, 4)
    assert (best.choice_KQL.sum(-1) <= np.array([1, 2])[:, None, None]).all()
    with duo.forced(best.choice_KQL[1]):
        loss = duo.model(input_ids=batch.input_ids_BT, labels=batch.labels_BT).loss
    assert float(loss.detach()) == pytest.approx(best.loss_KQ[1].mean(), rel=1e-4)
