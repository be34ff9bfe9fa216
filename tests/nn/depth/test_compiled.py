"""A routed model under `torch.compile` is the routed model."""

from __future__ import annotations

import torch

from turnout.nn.depth import RoutedDepth
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.tiny import tiny_llama


def test_a_compiled_model_decides_and_computes_as_it_does_without() -> None:
    router = DrLLMRouter(layers=2, width=16, seed=3)
    with torch.no_grad():
        for parameter in router.parameters():
            parameter.mul_(9.0)
    routed = RoutedDepth(model=tiny_llama(vocab_size=20, width=16, layers=2, heads=2), router=router)
    ids_BT = torch.randint(4, 20, (6, 5), generator=torch.Generator().manual_seed(0))
    torch.compiler.reset()
    with torch.no_grad():
        plain = routed.model(input_ids=ids_BT, use_cache=False).logits
        counts_BL = routed.counts_BL
        assert len(counts_BL.unique(dim=0)) > 1
        compiled = torch.compile(routed.model, backend="eager")
        assert torch.equal(compiled(input_ids=ids_BT, use_cache=False).logits, plain)
        assert torch.equal(routed.counts_BL, counts_BL)
        # The same code under other decisions: nothing of the first ones is compiled in.
        with routed.forced([2, 0]):
            forced = routed.model(input_ids=ids_BT, use_cache=False).logits
            assert torch.equal(compiled(input_ids=ids_BT, use_cache=False).logits, forced)
        assert not torch.equal(forced, plain)
    torch.compiler.reset()
