from __future__ import annotations

import numpy as np
import pytest
import torch

from turnout.nn.depth import FixedDepth, RoutedDepth, right_answers
from turnout.nn.depth.drllm.labels import find_labels
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.drllm.search import SearchRule
from turnout.nn.depth.dropping import train_dropping
from turnout.nn.depth.duo import exhaustive
from turnout.nn.depth.oracle import answer_problem, searched_oracle
from turnout.nn.regret import regret, regret_table
from turnout.nn.tiny import answer_batch, character_tokenizer, tiny_llama

TOKENIZER = character_tokenizer("abcd=")
BATCH = answer_batch(TOKENIZER, [(f"{a}{b}=", b) for a in "abcd" for b in "abcd"])
QUESTIONS, LAYERS = 16, 3


@pytest.fixture(scope="module")
def base() -> RoutedDepth:
    torch.set_num_threads(1)
    routed = RoutedDepth(model=tiny_llama(vocab_size=len(TOKENIZER), width=32, layers=LAYERS))
    train_dropping(routed, lambda: BATCH, drop=0.2, rng=np.random.default_rng(0), steps=30, lr=5e-3)
    return routed


def test_the_losses_are_wrong_answers_and_the_oracle_has_tried_every_depth(base: RoutedDepth) -> None:
    problem = answer_problem(base, BATCH)
    choice_QL = np.random.default_rng(1).integers(0, 3, size=(QUESTIONS, LAYERS))
    right_Q, _ = right_answers(base, BATCH, counts_BL=torch.from_numpy(choice_QL))
    assert problem.of_items(choice_QL).tolist() == (1.0 - right_Q.double()).tolist()
    oracle = exhaustive(problem, budgets=range(2 * LAYERS + 1))
    # The slow twin: every pattern on its own.
    for budget in range(2 * LAYERS + 1):
        paths = [p for p in np.ndindex(3, 3, 3) if sum(p) <= budget]
        right_PQ = [
            right_answers(base, BATCH, counts_BL=torch.tensor([p]).expand(QUESTIONS, -1))[0] for p in paths
        ]
        assert oracle.loss_KQ[budget].tolist() == (1.0 - torch.stack(right_PQ).any(0).double()).tolist()


def test_regret_judges_a_router_of_drllm_by_what_it_spent(base: RoutedDepth) -> None:
    problem = answer_problem(base, BATCH)
    oracle = exhaustive(problem, budgets=range(2 * LAYERS + 1))
    base.set_router(DrLLMRouter(layers=LAYERS, width=32, seed=3))
    right_Q, counts_QL = right_answers(base, BATCH)
    base.set_router(None)
    decisions = {
        "router": counts_QL.numpy(),
        "oracle": oracle.choice_KQL[-1],
        "none": np.zeros(3, dtype=int),
        **{f"block {i}": np.eye(3, dtype=int)[i] for i in range(LAYERS)},
    }
    lines = regret_table(problem, decisions, oracle=oracle, rng=np.random.default_rng(0))
    router, best, none, *single = lines
    assert router.budget == counts_QL.sum(1).double().mean().item()
    assert router.loss.value == pytest.approx(1 - right_Q.double().mean().item())
    assert router.regret.value == pytest.approx(router.loss.value - router.oracle_loss)
    assert router.regret.value >= 0.0
    # The oracle takes the block that answers each question; none of the three answers all that one does.
    assert max(line.regret.value for line in single) > 0.1
    assert min(line.regret.value for line in single) >= 0.0
    assert best.regret.value == 0.0
    assert none.loss.value == none.oracle_loss
    assert none.regret.value == 0.0


def test_what_searches_found_is_an_oracle_that_no_search_of_all_paths_falls_behind(base: RoutedDepth) -> None:
    labels = find_labels(base, BATCH, rule=SearchRule(simulations=12, is_exhausting=True))
    found = searched_oracle(labels)
    every = exhaustive(answer_problem(base, BATCH), budgets=range(2 * LAYERS + 1))
    assert (found.loss_KQ >= every.loss_KQ).all()
    calls_Q = labels.counts_QL.sum(1).double().numpy()
    loss_Q = 1.0 - labels.is_found_Q.double().numpy()
    line = regret("labels", loss_Q, calls_Q, oracle=found, rng=np.random.default_rng(0))
    assert line.regret.value == 0.0
    # One call fewer than a label has is not enough, as far as its search knows.
    longer = np.flatnonzero(labels.is_found_Q.numpy() & (calls_Q > 0))
    assert len(longer) > QUESTIONS // 2
    assert {found.loss_at(calls_Q[q] - 1)[q] for q in longer} == {1.0}


def test_a_fixed_depth_is_judged_as_one_pattern_for_all(base: RoutedDepth) -> None:
    router = FixedDepth(counts=[1, 1, 1])
    line = regret_table(
        answer_problem(base, BATCH),
        {"dense": np.array(router.counts)},
        oracle=exhaustive(answer_problem(base, BATCH), budgets=[0, LAYERS]),
        rng=np.random.default_rng(0),
    )[0]
    assert line.budget == LAYERS
