from __future__ import annotations

import torch

from tests.nn.adapters import helpers
from turnout.nn.adapters import MergedAdapters


def test_it_equals_a_base_whose_weights_hold_the_mean_product() -> None:
    pool, ids = helpers.pool(), helpers.tokens()
    pool.router = MergedAdapters()
    merged = helpers.base()
    with torch.no_grad():
        for path in pool.sites:
            products = [
                p.scale * p.b_OR @ p.a_RD for p in (pool.get(name).parts[path] for name in pool.names)
            ]
            merged.get_submodule(path).weight += torch.stack(products).mean(0)
        truth = merged(ids).logits
    torch.testing.assert_close(helpers.logits(pool, ids), truth, rtol=1e-4, atol=1e-5)
