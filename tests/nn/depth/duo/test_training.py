from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.nn.depth.duo.setup import LAYERS, VOCABULARY, make_batch, make_duo, make_ids, pad_left
from turnout.core.errors import InputError, ShapeError
from turnout.nn.depth.duo import DuoModel, calibrate, train_modules, train_routers
from turnout.nn.depth.duo.sequences import routed_losses
from turnout.nn.depth.duo.training import budget_loss, temperature_at
from turnout.nn.tiny import tiny_llama, train


def test_random_routing_draws_every_choice_alike_and_the_same_from_the_same_seed() -> None:
    duo, drawn = make_duo(allow_skip=True), []
    for _ in range(2):
        with duo.random(torch.Generator().manual_seed(3)), duo.recording() as record, torch.no_grad():
            duo.model(input_ids=make_ids(20, 20))
        drawn.append(record.choice_BTL)
    assert torch.equal(*drawn)
    share_A = torch.bincount(drawn[0].flatten(), minlength=3) / drawn[0].numel()
    assert (share_A - 1 / 3).abs().max() < 0.04
    # No layer follows another one.
    layers_LN = drawn[0].flatten(0, 1).T.double()
    assert (torch.corrcoef(layers_LN) - torch.eye(LAYERS)).abs().max() < 0.2


def test_random_routing_trains_base_and_small_and_leaves_routers_alone() -> None:
    duo, batch = make_duo(), make_batch(4, 8)
    before = {name: p.detach().clone() for name, p in duo.model.named_parameters()}
    losses = train_modules(duo, lambda: batch, steps=30, lr=3e-3)
    moved = {name for name, p in duo.model.named_parameters() if not torch.equal(p, before[name])}
    assert {name for name in before if ".router." not in name} == moved
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert duo.flow.generator is None


def test_same_seed_same_training() -> None:
    found = [train_modules(make_duo(), make_batch, steps=3, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_the_budget_is_global_over_layers_and_tokens() -> None:
    mask_BT = torch.ones(2, 3)

    def penalty(share_BTL: torch.Tensor) -> float:
        chance_BTLA = torch.stack([1 - share_BTL, share_BTL], dim=-1)
        return float(budget_loss(chance_BTLA, mask_BT, target=0.25))

    even, one_layer, one_row = torch.full((2, 3, 4), 0.5), torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    one_layer[..., :2] = 1
    one_row[0] = 1
    assert penalty(even) == penalty(one_layer) == penalty(one_row) == pytest.approx(0.0625)
    assert penalty(torch.full((2, 3, 4), 0.25)) == 0


def test_padding_counts_in_no_budget() -> None:
    chance_BTLA = torch.rand(2, 5, 3, 2)
    mask_BT = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    changed_BTLA = chance_BTLA.clone()
    changed_BTLA[0, :2] = 9.0
    one, other = (float(budget_loss(c, mask_BT, target=0.5)) for c in (chance_BTLA, changed_BTLA))
    assert one == other != float(budget_loss(changed_BTLA, torch.ones(2, 5), target=0.5))
    with pytest.raises(ShapeError, match="mask_BT"):
        budget_loss(chance_BTLA, mask_BT[:1], target=0.5)


def test_the_temperature_falls_from_first_to_last() -> None:
    found = [temperature_at(step, 5, first=1.0, last=0.01) for step in range(5)]
    assert found[0] == 1.0
    assert found[-1] == pytest.approx(0.01)
    assert found == sorted(found, reverse=True)
    assert temperature_at(0, 1, first=1.0, last=0.1) == 1.0


def test_mixtures_harden_while_routers_learn() -> None:
    duo, temperatures, sureness = make_duo(), [], []
    batch = make_batch(4, 8)

    def before(*_: object) -> None:
        temperatures.append(duo.flow.temperature)

    def after(*_: object) -> None:
        record = duo.flow.record
        assert record is not None
        sureness.append(float(record.chance_BTLA.detach().amax(-1).mean()))

    hooks = [duo.model.register_forward_pre_hook(before), duo.model.register_forward_hook(after)]
    # A rate of next to nothing: what hardens is the temperature and not the router.
    train_routers(duo, lambda: batch, target=0.5, steps=6, lr=1e-9, temperatures=(1.0, 0.01))
    for hook in hooks:
        hook.remove()
    assert temperatures == [temperature_at(step, 6, first=1.0, last=0.01) for step in range(6)]
    assert sureness == sorted(sureness)
    assert sureness[-1] > sureness[0] + 0.1


def test_routers_learn_the_budget_alone() -> None:
    duo, batch = make_duo(bias=True), pad_left(make_batch(4, 8), 2)
    fixed = [p for p in duo.model.parameters() if all(p is not q for q in duo.router_parameters())]
    before = [p.detach().clone() for p in fixed]
    needed = [p.requires_grad for p in duo.model.parameters()]
    for target in (0.2, 0.8):
        train_routers(duo, lambda: batch, target=target, steps=25, strength=1000.0, lr=5e-2)
        with duo.soft(0.1), duo.recording() as record, torch.no_grad():
            duo.model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT)
        share = float(record.chance_BTLA[..., 1][batch.attention_mask_BT.bool()].mean())
        assert share == pytest.approx(target, abs=0.1)
    assert duo.is_routed
    assert all(map(torch.equal, before, fixed))
    assert needed == [p.requires_grad for p in duo.model.parameters()]


def test_routers_find_the_layer_that_matters() -> None:
    duo = DuoModel(tiny_llama(vocab_size=VOCABULARY, width=32, layers=LAYERS, heads=2), bias=True)
    batch = make_batch(4, 8)
    with torch.no_grad():
        for number, layer in enumerate(duo.layers):
            if number != 2:
                # Big and small are the same here, nothing: only layer 2 has anything to win.
                layer.big.get_parameter("down_proj.weight").zero_()
                layer.small.get_parameter("down_proj.weight").zero_()
    learning = [*duo.layers[2].big.parameters(), *duo.model.lm_head.parameters()]
    with duo.forced([0, 0, 1, 0]):
        train(duo.model, lambda: batch, steps=60, lr=1e-2, parameters=learning)
    train_routers(duo, lambda: batch, target=0.25, steps=40, lr=5e-2)
    calibrate(duo, [batch], target=0.25)
    _, spent_B, choice_BTL = routed_losses(duo, batch)
    assert spent_B.mean() == pytest.approx(1.0, abs=0.05)
    # The last column predicts nothing, so an eighth of layer 2 has nothing to win either.
    share_L = (choice_BTL == 1).mean((0, 1))
    assert share_L[2] > 0.6
    assert np.delete(share_L, 2).max() < 0.25


@pytest.mark.parametrize("target", [0.0, 0.3, 0.5, 1.0])
def test_calibration_meets_a_target_without_moving_a_weight(target: float) -> None:
    duo, batch = make_duo(), pad_left(make_batch(6, 12), 3)
    before = [p.detach().clone() for p in duo.router_parameters()]
    share = calibrate(duo, [batch], target=target)
    assert share == pytest.approx(target, abs=0.05)
    assert all(map(torch.equal, before, duo.router_parameters()))
    _, spent_B, _ = routed_losses(duo, batch)
    assert spent_B.mean() / LAYERS == pytest.approx(share, abs=1e-6)


def test_bad_numbers_are_refused() -> None:
    duo = make_duo()
    with pytest.raises(InputError, match="target"):
        train_routers(duo, make_batch, target=1.5, steps=1)
    with pytest.raises(InputError, match="temperature"):
        train_routers(duo, make_batch, target=0.5, steps=1, temperatures=(1.0, 0.0))
    with pytest.raises(InputError, match="steps"):
        train_routers(duo, make_batch, target=0.5, steps=0)
    with pytest.raises(InputError, match="batches"):
        calibrate(duo, [], target=0.5)
    padding = make_batch()
    padding.attention_mask_BT[:] = 0
    with pytest.raises(InputError, match="batches; allowed: at least one, with tokens; got: 'padding alone'"):
        calibrate(duo, [padding], target=0.5)
    with pytest.raises(InputError, match=r"temperatures; allowed: \(first, last\)"):
        train_routers(duo, make_batch, target=0.5, steps=1, temperatures=(1.0,))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="steps"):
        train_modules(duo, make_batch, steps=-1)
    with pytest.raises(InputError, match="lr"):
        train_modules(duo, make_batch, steps=1, lr=-1.0)
    assert not duo.is_routed
