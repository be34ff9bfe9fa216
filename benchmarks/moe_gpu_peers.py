"""ScatterMoE and MegaBlocks on the weights of a checkpoint's experts, for `bench_moe_gpu`.

Each is run the way its own layer runs, forward and backward: ScatterMoE as its `GLUMLP`, MegaBlocks as its
dropless layer with the `glu` MLP over grouped products (its `sparse` MLP refuses Triton 3.2 and up). Neither
is a dependency: a peer that is not installed raises `ImportError`, and the bench leaves it out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

Run = Callable[[Tensor], Tensor]


def scattermoe(experts: OlmoeExperts, weights_TK: Tensor, indices_TK: Tensor) -> Run:
    """Return ScatterMoE's two products, which take the weights of a checkpoint as they lie."""
    layer = importlib.import_module("scattermoe.parallel_experts")
    num_experts, k = experts.num_experts, indices_TK.shape[1]

    def run(x_TD: Tensor) -> Tensor:
        order = layer.flatten_sort_count(indices_TK, num_experts=num_experts)
        up_EDF, down_EID = (w.permute(0, 2, 1) for w in (experts.gate_up_proj, experts.down_proj))
        h_NF = layer.parallel_linear(x_TD, up_EDF, k, *order, grouped_out=True)
        gate_NI, up_NI = h_NF.chunk(2, dim=-1)
        inner_NI = nn.functional.silu(gate_NI) * up_NI
        gates_TK = weights_TK.to(x_TD.dtype)
        y_TD: Tensor = layer.parallel_linear(inner_NI, down_EID, 1, *order, grouped_in=True, gates=gates_TK)
        return y_TD

    return run


def megablocks(
    experts: OlmoeExperts, weights_TK: Tensor, indices_TK: Tensor, *, build: str = "grouped_gemm_backend"
) -> Run:
    """Return MegaBlocks' dropless layer over grouped products, on a copy of the weights in its own layout.

    Its gradients land in that copy and are dropped when the next call begins; a call's backward pass has to
    end before the next call of either build.
    """
    grouped_gemm, backend = (importlib.import_module(name) for name in ("grouped_gemm", build))
    arguments = importlib.import_module("megablocks.layers.arguments").Arguments(
        hidden_size=experts.gate_up_proj.shape[2],
        ffn_hidden_size=experts.down_proj.shape[2],
        moe_num_experts=experts.num_experts,
        moe_top_k=indices_TK.shape[1],
        mlp_type="glu",
        mlp_impl="grouped",
        activation_fn=nn.functional.silu,
        bias=False,
        fp16=False,
        bf16=experts.gate_up_proj.dtype == torch.bfloat16,
        device=experts.gate_up_proj.device,
    )
    layer = importlib.import_module("megablocks.layers.dmoe").ParallelDroplessMLP(arguments)
    with torch.no_grad():
        gate_EID, up_EID = experts.gate_up_proj.chunk(2, dim=1)
        layer.mlp.w1.copy_(gate_EID.flatten(0, 1))
        layer.mlp.v1.copy_(up_EID.flatten(0, 1))
        layer.mlp.w2.copy_(experts.down_proj.transpose(1, 2).flatten(0, 1))

    def run(x_TD: Tensor) -> Tensor:
        layer.zero_grad(set_to_none=True)
        grouped_gemm.backend.backend = backend
        y_TD: Tensor = layer.forward_once(x_TD, weights_TK, indices_TK)[0]
        return y_TD

    return run


def megablocks_cutlass(experts: OlmoeExperts, weights_TK: Tensor, indices_TK: Tensor) -> Run:
    """Return `megablocks` over one CUTLASS kernel for all experts, in place of a loop over cuBLAS.

    `grouped_gemm` installs as that loop. This is the same source built with `GROUPED_GEMM_CUTLASS=1`, under
    the name `grouped_gemm_backend_cutlass` to stand beside it.
    """
    return megablocks(experts, weights_TK, indices_TK, build="grouped_gemm_backend_cutlass")


PEERS = (scattermoe, megablocks, megablocks_cutlass)
