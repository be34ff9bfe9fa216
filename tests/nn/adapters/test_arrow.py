from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.nn.adapters import helpers
from turnout.core.errors import InputError
from turnout.nn.adapters import ArrowRouter
from turnout.nn.adapters.arrow import prototypes


@pytest.mark.parametrize(("rank", "width", "outputs"), [(3, 17, 11), (1, 5, 4), (8, 5, 6), (4, 30, 2)])
def test_a_prototype_is_the_top_right_vector_of_the_whole_product(
    rank: int, width: int, outputs: int
) -> None:
    torch.manual_seed(rank)
    a_ERD, b_EOR = torch.randn(4, rank, width), torch.randn(4, outputs, rank)
    found = prototypes(a_ERD, b_EOR)
    full = torch.linalg.svd((b_EOR @ a_ERD).double()).Vh[:, 0].float()
    torch.testing.assert_close((found * full).sum(-1).abs(), torch.ones(4), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(4))


def test_an_adapter_that_adds_nothing_has_no_prototype() -> None:
    assert torch.equal(prototypes(torch.randn(1, 2, 6), torch.zeros(1, 4, 2)), torch.zeros(1, 6))


def test_weights_are_those_of_the_equation_and_blind_to_sign() -> None:
    pool = helpers.pool()
    site, context = next(iter(pool.sites.values())), pool.context()
    u = torch.randn(2, 5, site.in_features)
    weights = ArrowRouter(top_k=2, temperature=0.5).weights(u, site, context)
    scores = (u @ prototypes(site.a_ERD, site.b_EOR).T).abs()
    for w, s in zip(weights.reshape(-1, 3), scores.reshape(-1, 3), strict=True):
        best = s.topk(2).indices
        torch.testing.assert_close(w[best], torch.softmax(s[best] / 0.5, 0))
        assert (w > 0).sum() == 2
    torch.testing.assert_close(ArrowRouter(top_k=2, temperature=0.5).weights(-u, site, context), weights)


def test_the_prototypes_follow_the_pool() -> None:
    pool = helpers.pool(("a", "b"))
    pool.router = ArrowRouter(top_k=1)
    ids = helpers.tokens()
    helpers.logits(pool, ids)
    pool.add(helpers.lora("c", seed=2))
    later = helpers.logits(pool, ids)
    fresh = helpers.pool(("a", "b", "c"))
    fresh.router = ArrowRouter(top_k=1)
    assert torch.equal(later, helpers.logits(fresh, ids))


def test_it_equals_the_arrow_of_peft(tmp_path: Path) -> None:
    import warnings

    import peft

    folders = [helpers.peft_saved(tmp_path / name) for name in ("one", "three")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.create_arrow_model(
            base_model=helpers.base(),
            task_specific_adapter_paths=[str(folder) for folder in folders],
            arrow_config=peft.ArrowConfig(top_k=2, router_temperature=1.0, rng_seed=0),
        ).eval()
    from turnout.nn.adapters import AdapterPool

    pool = AdapterPool(model=helpers.base(), router=ArrowRouter(top_k=2))
    for folder in folders:
        pool.load(folder)
    ids = helpers.tokens()
    with torch.no_grad():
        # Its power iteration stops after 15 steps, hence the tolerance.
        torch.testing.assert_close(helpers.logits(pool, ids), theirs(ids).logits, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("bad", [{"top_k": 0}, {"temperature": 0.0}])
def test_arguments_out_of_range_are_refused(bad: dict) -> None:
    with pytest.raises(InputError, match="ArrowRouter"):
        ArrowRouter(**bad)
