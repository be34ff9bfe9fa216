from __future__ import annotations

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from turnout.core.errors import InputError, ShapeError
from turnout.nn.analysis.recording import chosen_of
from turnout.nn.balance.switch import balance_loss


def top(scores_TE: torch.Tensor, k: int) -> torch.Tensor:
    return chosen_of(scores_TE.topk(k, dim=-1)[1], scores_TE.shape[1])


@pytest.mark.parametrize("k", [1, 2, 5])
def test_even_scores_and_loads_cost_one_for_every_k(k) -> None:
    scores_TE = torch.full((40, 8), 1 / 8)
    places = (torch.arange(40)[:, None] + torch.arange(k)) % 8
    assert float(balance_loss(scores_TE, chosen_of(places, 8))) == pytest.approx(1.0)
    assert float(balance_loss(3 * scores_TE, chosen_of(places, 8), kind="sigmoid")) == pytest.approx(1.0)


def test_one_favourite_costs_the_number_of_experts() -> None:
    scores_TE = torch.eye(8)[torch.zeros(10, dtype=torch.long)]
    assert float(balance_loss(scores_TE, scores_TE.bool())) == pytest.approx(8.0)


def test_one_softmax_layer_agrees_with_transformers_up_to_its_factor_k() -> None:
    logits_TE = torch.randn(64, 8)
    scores_TE = logits_TE.softmax(-1)
    theirs = load_balancing_loss_func((logits_TE,), num_experts=8, top_k=2)
    assert float(balance_loss(scores_TE, top(scores_TE, 2))) * 2 == pytest.approx(float(theirs), rel=1e-5)


def test_layers_that_collapse_apart_are_seen_layer_by_layer_and_not_pooled() -> None:
    layers = []
    for favourite in range(4):
        logits_TE = torch.zeros(64, 4)
        logits_TE[:, favourite] = 20.0
        layers.append(logits_TE)
    own = [float(balance_loss(z.softmax(-1), top(z.softmax(-1), 1))) for z in layers]
    assert own == pytest.approx([4.0] * 4, rel=1e-3)
    pooled = load_balancing_loss_func(tuple(layers), num_experts=4, top_k=1)
    assert float(pooled) == pytest.approx(1.0, rel=1e-3)


def test_a_biased_choice_is_judged_as_it_was_made() -> None:
    scores_TE = torch.rand(100, 4)
    chosen_TE = top(scores_TE + torch.tensor([5.0, 0.0, 0.0, 0.0]), 1)
    biased = balance_loss(scores_TE, chosen_TE, kind="sigmoid")
    by_hand = 4 * (scores_TE[:, 0] / scores_TE.sum(-1)).mean()
    assert float(biased) == pytest.approx(float(by_hand))


def test_a_sigmoid_gate_gains_nothing_by_shrinking_all_scores() -> None:
    logits_TE = torch.randn(50, 8)
    chosen_TE = top(logits_TE, 2)
    plain = balance_loss(logits_TE.sigmoid(), chosen_TE, kind="sigmoid")
    tiny = balance_loss(logits_TE.sigmoid() * 1e-30, chosen_TE, kind="sigmoid")
    assert float(tiny) == pytest.approx(float(plain), rel=1e-4)


def test_the_relu_form_is_a_weighted_l1_norm() -> None:
    scores_TE = torch.randn(32, 6).relu()
    found = balance_loss(scores_TE, scores_TE > 0, kind="relu", k=2)
    slow = 0.0
    for e in range(6):
        slow += float(scores_TE[:, e].sum()) * float((scores_TE[:, e] > 0).sum())
    assert float(found) == pytest.approx(6 / (2 * 32**2) * slow, rel=1e-5)
    # Sparser costs less: the published switch loss would not see it.
    sparser_TE = torch.where(scores_TE > 1, scores_TE, 0.0)
    assert float(balance_loss(sparser_TE, sparser_TE > 0, kind="relu", k=2)) < 0.8 * float(found)


def test_padding_changes_nothing() -> None:
    scores_TE = torch.randn(20, 4).softmax(-1)
    chosen_TE = top(scores_TE, 2)
    mask_T = torch.ones(26, dtype=torch.bool)
    mask_T[20:] = False
    wide_TE = torch.cat([scores_TE, torch.eye(4)[torch.zeros(6, dtype=torch.long)]])
    wide = balance_loss(wide_TE, torch.cat([chosen_TE, torch.ones(6, 4, dtype=torch.bool)]), mask_T=mask_T)
    assert float(wide) == pytest.approx(float(balance_loss(scores_TE, chosen_TE)), rel=1e-6)


def test_one_loss_per_sequence() -> None:
    scores_TE = torch.randn(30, 4).softmax(-1)
    chosen_TE, items_T = top(scores_TE, 1), torch.arange(3).repeat_interleave(10)
    found = balance_loss(scores_TE, chosen_TE, items_T=items_T)
    each = [balance_loss(scores_TE[items_T == b], chosen_TE[items_T == b]) for b in range(3)]
    assert float(found) == pytest.approx(float(torch.stack(each).mean()), rel=1e-6)


def test_gradients_flow_through_the_scores_and_push_the_favourite_down() -> None:
    logits_TE = torch.zeros(16, 4, requires_grad=True)
    chosen_TE = chosen_of(torch.zeros(16, 1, dtype=torch.long), 4)
    balance_loss(logits_TE.softmax(-1), chosen_TE).backward()
    assert logits_TE.grad is not None
    assert bool((logits_TE.grad[:, 0] > 0).all())
    assert bool((logits_TE.grad[:, 1:] < 0).all())


def test_what_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(T, E\) = \(T, E\)"):
        balance_loss(torch.rand(3, 4), torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(InputError, match="softmax, sigmoid, relu"):
        balance_loss(torch.rand(3, 4), torch.ones(3, 4, dtype=torch.bool), kind="raw")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a number for 'relu'"):
        balance_loss(torch.rand(3, 4), torch.ones(3, 4, dtype=torch.bool), kind="relu")
