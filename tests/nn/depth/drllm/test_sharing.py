from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.depth import RoutedDepth, right_answers
from turnout.nn.depth.drllm import sharing
from turnout.nn.depth.drllm.labels import find_labels
from turnout.nn.depth.drllm.search import SearchRule
from turnout.nn.tiny import answer_batch, character_tokenizer, tiny_llama, train

TOKENIZER = character_tokenizer("abcdef=")
PAIRS = [(f"{a}{b}=", f"{b}{a}") for a in "abcdef" for b in "abcdef"]


@pytest.fixture(scope="module")
def base() -> RoutedDepth:
    torch.set_num_threads(1)
    model = tiny_llama(vocab_size=len(TOKENIZER), width=32, layers=4)
    train(model, lambda: answer_batch(TOKENIZER, PAIRS[::2]), steps=80, lr=5e-3)
    return RoutedDepth(model=model)


def test_shared_labels_are_right_few_and_not_longer_than_the_best_that_all_could_share(
    base: RoutedDepth,
) -> None:
    batch = answer_batch(TOKENIZER, PAIRS)
    own = find_labels(base, batch, rule=SearchRule(simulations=15))
    shared = sharing.share_labels(base, batch, own, paths=2)
    right_Q, _ = right_answers(base, batch, counts_BL=shared.counts_QL)
    assert torch.equal(right_Q, shared.is_found_Q)
    assert bool((shared.is_found_Q >= own.is_found_Q).all())
    assert shared.measured > own.measured
    dense_Q, _ = right_answers(base, batch, counts_BL=torch.ones(len(PAIRS), 4))
    assert torch.equal(shared.is_improved_Q, shared.is_found_Q & ~dense_Q)
    before, after = (len(one.counts_QL[one.is_found_Q].unique(dim=0)) for one in (own, shared))
    assert after < before


def test_each_question_is_taught_the_shortest_of_the_paths_that_answers_it(base: RoutedDepth) -> None:
    batch = answer_batch(TOKENIZER, PAIRS)
    own = find_labels(base, batch, rule=SearchRule(simulations=15))
    shared = sharing.share_labels(base, batch, own, paths=4)
    tried_PL = sharing._pool(own, 64, 0)
    paths = [path_L.expand(len(PAIRS), -1) for path_L in tried_PL]
    right_PQ = torch.stack([right_answers(base, batch, counts_BL=path_BL)[0] for path_BL in paths])
    taken_K = sharing._cover(right_PQ, tried_PL.sum(1), 4, missed=8)
    calls_KQ = tried_PL[taken_K].sum(1)[:, None].float().expand(-1, len(PAIRS))
    shortest_Q = calls_KQ.masked_fill(~right_PQ[taken_K], torch.inf).amin(0)
    longest_Q = calls_KQ.masked_fill(~right_PQ[taken_K], -torch.inf).amax(0)
    is_shared_Q = right_PQ[taken_K].any(0)
    assert torch.equal(shared.counts_QL.sum(1)[is_shared_Q].float(), shortest_Q[is_shared_Q])
    # Questions have a choice here.
    assert bool((longest_Q > shortest_Q)[is_shared_Q].any())


@pytest.mark.parametrize(("paths", "expected"), [(1, [0]), (2, [0, 2]), (9, [0, 2, 1])])
def test_paths_are_taken_in_the_order_of_what_they_save(paths: int, expected: list[int]) -> None:
    # Of calls 4, 3 and 2: the first answers all, the third most of what it leaves dear, the second the rest.
    right_PQ = torch.tensor(
        [[True] * 8, [False, False, False, False, False, True, True, True], [True] * 5 + [False] * 3]
    )
    chosen_K = sharing._cover(right_PQ, torch.tensor([4, 3, 2]), paths, missed=8)
    assert chosen_K.tolist() == expected


def test_a_path_that_answers_nothing_is_never_taken() -> None:
    right_PQ = torch.zeros(2, 3, dtype=torch.bool)
    assert sharing._cover(right_PQ, torch.tensor([4, 1]), 2, missed=8).tolist() == [0]


def test_numbers_below_one_are_refused(base: RoutedDepth) -> None:
    batch = answer_batch(TOKENIZER, PAIRS[:2])
    own = find_labels(base, batch, rule=SearchRule(simulations=1))
    with pytest.raises(InputError, match="share_labels: paths"):
        sharing.share_labels(base, batch, own, paths=0)
    with pytest.raises(InputError, match="share_labels: pool"):
        sharing.share_labels(base, batch, own, pool=0)
