from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.nn.adapters import helpers
from turnout.core.errors import InputError
from turnout.nn.adapters import AdapterPool, Lora, PhatgooseRouter, train_adapter, train_gate
from turnout.nn.tiny import Batch

IDS = helpers.tokens()


def repeated(token: int) -> Batch:
    """Return a batch that asks for one token everywhere."""
    ids = helpers.tokens(rows=8, seed=token)
    return Batch(
        input_ids_BT=ids, attention_mask_BT=torch.ones_like(ids), labels_BT=torch.full_like(ids, token)
    )


def snapshot(pool: AdapterPool) -> dict[str, Tensor]:
    """Return every number of the model and of the pool."""
    found = {name: value.clone() for name, value in pool.model.named_parameters()}
    return found | {name: value.clone() for name, value in pool.model.named_buffers()}


def test_an_adapter_learns_its_task_and_nothing_else_moves(tmp_path: Path) -> None:
    pool = AdapterPool(model=helpers.base(), targets=helpers.TARGETS)
    before = {name: value.clone() for name, value in pool.model.named_parameters()}
    flags = [parameter.requires_grad for parameter in pool.model.parameters()]
    losses = train_adapter(pool, "seven", lambda: repeated(7), rank=4, steps=40, lr=2e-2)
    first = pool.get("seven")
    train_adapter(pool, "nine", lambda: repeated(9), rank=4, steps=40, lr=2e-2, seed=1)
    assert losses[-1] < losses[0] - 0.3
    for name, token in (("seven", 7), ("nine", 9)):
        with pool.only(name):
            assert (helpers.logits(pool, IDS).argmax(-1) == token).float().mean() > 0.9
    assert all(torch.equal(value, before[name]) for name, value in pool.model.named_parameters())
    assert [parameter.requires_grad for parameter in pool.model.parameters()] == flags
    assert all(parameter.grad is None for parameter in pool.model.parameters())
    assert not pool.model.training
    site = next(iter(pool.sites))
    assert torch.equal(pool.sites[site].a_ERD[0], first.parts[site].a_RD)
    with pool.only("seven"):
        ours = helpers.logits(pool, IDS)
    theirs = helpers.peft_logits(pool.export("seven", tmp_path / "seven"), IDS)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_a_gate_trains_alone() -> None:
    pool = helpers.pool()
    before = snapshot(pool)
    train_gate(pool, "b", lambda: repeated(7), steps=3)
    for name, value in snapshot(pool).items():
        if name.endswith("gate_ED"):
            assert torch.equal(value[[0, 2]], before[name][[0, 2]])
            assert not torch.equal(value[1], before[name][1])
        else:
            assert torch.equal(value, before[name])


def test_a_gate_starts_at_one_half_and_lowers_its_loss() -> None:
    pool = AdapterPool(model=helpers.base(), targets=helpers.TARGETS)
    train_adapter(pool, "seven", lambda: repeated(7), rank=4, steps=40, lr=2e-2)
    losses = train_gate(pool, "seven", lambda: repeated(7), steps=60, lr=0.1)
    half = AdapterPool(model=helpers.base())
    parts = {path: replace(p, scale=p.scale / 2) for path, p in pool.get("seven").parts.items()}
    half.add(Lora(name="half", parts=parts))
    batch = repeated(7)
    with half.only("half"), torch.no_grad():
        start = half.model(input_ids=batch.input_ids_BT, labels=batch.labels_BT).loss
    assert losses[0] == pytest.approx(float(start), rel=1e-4)
    assert losses[-1] < losses[0] - 1e-3


def test_an_adapter_that_comes_later_changes_no_gate_and_no_adapter() -> None:
    pool = helpers.pool(("a", "b"))
    before = snapshot(pool)
    train_adapter(pool, "late", lambda: repeated(7), rank=4, steps=3)
    train_gate(pool, "late", lambda: repeated(7), steps=3)
    for name, value in snapshot(pool).items():
        old = before[name]
        assert torch.equal(value[:2] if "_E" in name else value, old)
    pool.router = PhatgooseRouter(top_k=3)
    assert helpers.logits(pool, IDS).isfinite().all()


def test_the_same_seed_trains_the_same_adapter() -> None:
    found = []
    for _ in range(2):
        pool = AdapterPool(model=helpers.base(), targets=helpers.TARGETS)
        train_adapter(pool, "x", lambda: repeated(7), rank=2, steps=2, seed=3)
        found.append(pool.get("x"))
    for path, part in found[0].parts.items():
        assert torch.equal(part.a_RD, found[1].parts[path].a_RD)
        assert torch.equal(part.b_OR, found[1].parts[path].b_OR)


def test_misuse_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"target modules.*give targets="):
        train_adapter(AdapterPool(model=helpers.base()), "x", lambda: repeated(7))
    pool = helpers.pool(("a",))
    with pytest.raises(InputError, match="rank"):
        train_adapter(pool, "x", lambda: repeated(7), rank=0)
    # Before the training and not after it.
    with pytest.raises(InputError, match="another rank"):
        train_adapter(pool, "x", _nothing, rank=2, steps=1)
    with pytest.raises(InputError, match=r"name of an adapter.*got: 'a'"):
        train_adapter(pool, "a", _nothing, rank=4, steps=1)


def _nothing() -> Batch:
    raise AssertionError("nobody should be trained")
