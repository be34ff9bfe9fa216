from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from turnout.core.errors import InputError, ShapeError
from turnout.nn.plan import SparsePlan


def example() -> SparsePlan:
    indices_TK = torch.tensor([[2, 0], [0, 1], [2, 1], [2, 0]])
    weights_TK = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1], [0.5, 0.5]])
    return SparsePlan.from_choices(weights_TK, indices_TK, num_experts=4)


def dropped(plan: SparsePlan) -> torch.Tensor:
    assert plan.dropped_E is not None
    return plan.dropped_E


def test_pairs_stand_in_the_order_of_experts_and_tokens() -> None:
    plan = example()
    assert plan.experts_N.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert plan.tokens_N.tolist() == [0, 1, 3, 1, 2, 0, 2, 3]
    assert plan.columns_N.tolist() == [1, 0, 1, 1, 1, 0, 0, 0]
    assert plan.offsets_E.tolist() == [3, 5, 8, 8]
    assert plan.offsets_E.dtype == torch.int32
    assert plan.counts_E.tolist() == [3, 2, 3, 0]
    plan.validate()


@pytest.mark.parametrize("shape", [(0, 2), (1, 3), (5, 0), (7, 4), (16, 4)])
def test_few_choices_are_sorted_as_many_are(shape, monkeypatch) -> None:
    weights_TK = torch.rand(shape)
    indices_TK = torch.randint(0, 5, shape, dtype=torch.int32)
    few = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=5)
    monkeypatch.setattr("turnout.nn.plan.SHORT", -1)
    many = SparsePlan.from_choices(weights_TK, indices_TK.long(), num_experts=5)
    for name in ("tokens_N", "experts_N", "weights_N", "columns_N", "offsets_E"):
        assert torch.equal(getattr(few, name), getattr(many, name)), name
        assert getattr(few, name).dtype == getattr(many, name).dtype, name


@pytest.mark.parametrize("wrong", [-1, 4])
@pytest.mark.parametrize("num_tokens", [1, 100])
def test_an_expert_that_is_not_there_is_refused(wrong, num_tokens) -> None:
    indices_TK = torch.tensor([[0, wrong]]).repeat(num_tokens, 1)
    with pytest.raises(InputError, match=f"0 to 3.*got: {wrong}"):
        SparsePlan.from_choices(torch.ones(num_tokens, 2), indices_TK, num_experts=4)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 9), st.integers(1, 6), st.integers(0, 10**6), st.booleans())
def test_choices_and_matrices_come_back_as_they_went_in(tokens, experts, seed, is_masked) -> None:
    random = torch.Generator().manual_seed(seed)
    k = int(torch.randint(1, experts + 1, (), generator=random))
    indices_TK = torch.rand(tokens, experts, generator=random).argsort(1)[:, :k]
    weights_TK = torch.rand(tokens, k, generator=random) + 0.1
    mask_T = torch.rand(tokens, generator=random) > 0.3 if is_masked else None
    plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=experts, mask_T=mask_T)
    plan.validate()
    weights, indices, is_pair_TK = plan.to_choices()
    here_T = torch.ones(tokens, dtype=torch.bool) if mask_T is None else mask_T
    assert torch.equal(weights[here_T], weights_TK[here_T])
    assert torch.equal(indices[here_T], indices_TK[here_T])
    assert torch.equal(is_pair_TK, here_T[:, None].expand(-1, k))
    dense_TE = torch.zeros(tokens, experts).scatter(1, indices_TK, weights_TK) * here_T[:, None]
    assert torch.equal(plan.to_dense(), dense_TE)
    again = SparsePlan.from_dense(dense_TE, mask_T=mask_T)
    again.validate()
    assert torch.equal(again.tokens_N, plan.tokens_N)
    assert torch.equal(again.experts_N, plan.experts_N)
    assert torch.equal(again.offsets_E, plan.offsets_E)
    order = torch.randperm(plan.num_pairs, generator=random)
    parts = (plan.tokens_N[order], plan.experts_N[order], plan.weights_N[order])
    shuffled = SparsePlan.from_pairs(*parts, num_tokens=tokens, num_experts=experts)
    shuffled.validate()
    assert torch.equal(shuffled.to_dense(), dense_TE)


def test_a_token_may_have_any_number_of_experts() -> None:
    weights_TE = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    plan = SparsePlan.from_dense(weights_TE)
    plan.validate()
    assert (plan.num_columns, plan.num_pairs) == (3, 4)
    assert torch.equal(plan.to_dense(), weights_TE)
    assert plan.to_choices()[2].sum(1).tolist() == [0, 3, 1]


def test_a_pair_of_weight_zero_is_kept_where_it_is_named() -> None:
    weights_TE = torch.tensor([[0.0, 1.0]])
    plan = SparsePlan.from_dense(weights_TE, is_pair_TE=torch.ones(1, 2, dtype=torch.bool))
    assert plan.counts_E.tolist() == [1, 1]


def test_gradients_flow_through_every_form() -> None:
    weights_TK = torch.rand(4, 2, requires_grad=True)
    plan = SparsePlan.from_choices(weights_TK, example().to_choices()[1], num_experts=4)
    for form in (plan.to_dense(), plan.to_choices()[0], plan.limited(9).to_dense()):
        (gradient_TK,) = torch.autograd.grad(form.sum(), weights_TK, retain_graph=True)
        assert torch.equal(gradient_TK, torch.ones(4, 2))


def test_a_capacity_keeps_the_first_or_the_heaviest_and_counts_the_rest() -> None:
    plan = example()
    first = plan.limited(2)
    first.validate()
    assert first.counts_E.tolist() == [2, 2, 2, 0]
    assert torch.equal(dropped(first), torch.tensor([1, 0, 1, 0]))
    assert first.tokens_N.tolist() == [0, 1, 1, 2, 0, 2]
    heavy = plan.limited(1, priority="weight")
    heavy.validate()
    assert heavy.tokens_N.tolist() == [1, 1, 2]
    assert torch.equal(dropped(heavy), torch.tensor([2, 1, 2, 0]))
    assert heavy.num_columns == 2
    assert torch.equal(dropped(first.limited(1)), torch.tensor([2, 1, 2, 0]))
    assert plan.limited(0).num_pairs == 0
    with pytest.raises(InputError, match="capacity"):
        plan.limited(-1)
    with pytest.raises(InputError, match="'position' or 'weight'"):
        plan.limited(1, priority="age")  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_are_refused_as_an_equation() -> None:
    with pytest.raises(ShapeError, match="\\(T, K\\) = \\(T, K\\)"):
        SparsePlan.from_choices(torch.ones(2, 2), torch.zeros(2, 3, dtype=torch.int64), num_experts=4)
    with pytest.raises(ShapeError, match="\\(T,\\) = \\(4,\\)"):
        replace(example(), mask_T=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ShapeError, match="\\(T, E\\) = \\(4, 4\\)"):
        replace(example(), logits_TE=torch.ones(4, 3))
    with pytest.raises(ShapeError, match="\\(N,\\) = \\(8,\\)"):
        replace(example(), tokens_N=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InputError, match="float32"):
        replace(example(), logits_TE=torch.ones(4, 4, dtype=torch.bfloat16))
    for wrong_TK in (torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool)):
        with pytest.raises(InputError, match="whole numbers"):
            SparsePlan.from_choices(torch.ones(2, 2), wrong_TK, num_experts=4)
    with pytest.raises(InputError, match="int32"):
        replace(example(), offsets_E=example().offsets_E.long())
    for name in ("tokens_N", "experts_N", "columns_N"):
        with pytest.raises(InputError, match=rf"{name} of a plan.*torch\.int64.*int32.*long\(\)"):
            replace(example(), **{name: getattr(example(), name).int()})
    with pytest.raises(InputError, match="one device"):
        replace(example(), weights_N=torch.ones(8, device="meta"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens_N": torch.tensor([0, 1, 9, 1, 2, 0, 2, 3])}, "0 to 3"),
        ({"experts_N": torch.tensor([0, 0, 1, 0, 1, 2, 2, 2])}, "never falling"),
        ({"offsets_E": torch.tensor([3, 6, 8, 8], dtype=torch.int32)}, "ends"),
        ({"columns_N": torch.tensor([1, 0, 1, 1, 1, 1, 0, 0])}, "one column"),
        ({"mask_T": torch.tensor([True, True, True, False])}, "padding"),
        ({"capacity": 2}, "capacity 2"),
        ({"weights_N": torch.full((8,), float("nan"))}, "finite"),
    ],
    ids=range(7),
)
def test_numbers_that_break_a_rule_are_found(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(example(), **changes).validate()
