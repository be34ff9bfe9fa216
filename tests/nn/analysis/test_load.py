from __future__ import annotations

import math

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.analysis.load import balance, load_of, load_table, sureness, sureness_table
from turnout.nn.analysis.recording import chosen_of


def test_an_even_load_has_no_violation() -> None:
    found = balance(torch.full((8,), 12))
    assert (found.max_vio, found.min_vio, found.avg_vio, found.cv) == (0.0, 0.0, 0.0, 0.0)
    assert found.entropy == pytest.approx(1.0)
    assert found.effective == pytest.approx(8.0)
    assert found.num_dead == 0


def test_one_expert_with_all_is_the_worst() -> None:
    found = balance(torch.tensor([0, 40, 0, 0]))
    assert (found.max_vio, found.min_vio, found.num_dead) == (3.0, -1.0, 3)
    assert found.entropy == 0.0
    assert found.effective == 1.0
    assert found.cv == pytest.approx(math.sqrt(3.0))


def test_by_hand() -> None:
    found = balance(torch.tensor([1, 2, 3, 2]))
    assert found.max_vio == pytest.approx(0.5)
    assert found.min_vio == pytest.approx(-0.5)
    assert found.avg_vio == pytest.approx(0.25)
    assert found.effective == pytest.approx(64 / 18)


def test_balance_does_not_depend_on_units_or_names() -> None:
    load_E = torch.rand(16)
    one, other = balance(load_E), balance(1000 * load_E[torch.randperm(16)])
    assert one.max_vio == pytest.approx(other.max_vio, rel=1e-6)
    assert one.entropy == pytest.approx(other.entropy, rel=1e-6)


def test_uniform_random_routing_violates_as_theory_says() -> None:
    num_tokens, num_experts = 4096, 16
    worst = [
        balance(torch.bincount(torch.randint(num_experts, (num_tokens,)), minlength=num_experts)).max_vio
        for _ in range(50)
    ]
    expected = math.sqrt(2 * math.log(num_experts) * num_experts / num_tokens)
    assert 0.5 * expected < sum(worst) / len(worst) < 1.1 * expected


def test_load_counts_tokens_of_any_number_of_experts() -> None:
    chosen_TE = chosen_of(torch.tensor([[0, 2], [2, -1], [-1, -1]]), 4)
    assert load_of(chosen_TE).tolist() == [1, 0, 2, 0]
    table = load_table({"layer 3": load_of(chosen_TE)})
    assert table.column("num_dead") == [2]
    assert "layer 3" in table.to_text()


def test_sureness_ends() -> None:
    sure = sureness(torch.eye(4)[torch.tensor([0, 1, 1])])
    assert (sure.entropy, sure.margin, sure.top) == (0.0, 1.0, 1.0)
    flat = sureness(torch.full((5, 4), 0.25))
    assert flat.entropy == pytest.approx(1.0)
    assert flat.margin == 0.0


def test_mass_and_load_differ() -> None:
    # Top-1 always takes expert 0, though its probability is hardly greater.
    probs_TE = torch.tensor([[0.26, 0.25, 0.25, 0.24]]).expand(100, 4)
    load = balance(load_of(chosen_of(probs_TE.topk(1)[1], 4)))
    mass = sureness_table(["0"], [probs_TE]).column("mass_max_vio")[0]
    assert load.max_vio == 3.0
    assert mass == pytest.approx(0.04, abs=1e-6)


def test_what_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(E,\)"):
        balance(torch.ones(2, 2))
    with pytest.raises(InputError, match="from 0 on"):
        balance(torch.tensor([1.0, -1.0]))
    with pytest.raises(InputError, match="from 0 on"):
        balance(torch.tensor([1.0, math.nan]))
    with pytest.raises(
        InputError, match=r"load_of: chosen_TE; allowed: torch\.bool.*`chosen_of` makes it of their numbers"
    ):
        load_of(torch.tensor([[0, 2], [1, 3]]))
    for wrong in (torch.randn(5, 4), torch.ones(3, 4), torch.tensor([[math.nan, 1.0]])):
        with pytest.raises(InputError, match="sureness: probs_TE; allowed: probabilities"):
            sureness(wrong)
    assert sureness(torch.tensor([[0.5, 0.1]])).margin == pytest.approx(0.4)
