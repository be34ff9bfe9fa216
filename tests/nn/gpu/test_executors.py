"""On a GPU every executor gives the loop's results and gradients, in fresh memory that is full of NaN."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch

from tests.nn.executors.test_fast import SETTINGS, make, plans, require_same, there
from tests.nn.gpu.here import DEVICE, IS_CUDA, far, needs_gpu, nobody_waits
from turnout.core.errors import InputError
from turnout.nn.executors import pair_rows
from turnout.nn.executors.auto import EXECUTORS, make_executor
from turnout.nn.executors.pair_rows import PairRows
from turnout.nn.executors.sums import FEW_PAIRS, bags_work
from turnout.nn.experts import Experts
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.late import refuse_arrived
from turnout.nn.mixture import MoE
from turnout.nn.plan import Plan, SparsePlan
from turnout.nn.plan_dense import MergedPlan, SlotPlan

pytestmark = needs_gpu

HAS_TRITON = IS_CUDA and importlib.util.find_spec("triton") is not None
FAST = sorted({*EXECUTORS, *(["triton"] if HAS_TRITON else [])} - {"loop"})
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def results(name: str, x_TD: torch.Tensor, plan: Plan, experts: Experts, leaf: torch.Tensor) -> dict:
    x_TD = x_TD.clone().requires_grad_()
    y_TD = make_executor(name).run(x_TD, plan, experts)
    random = torch.Generator().manual_seed(2)
    loss = (y_TD.float() * torch.randn(y_TD.shape, generator=random).to(DEVICE)).sum()
    leaves = {"x": x_TD, "leaf": leaf} | dict(experts.named_parameters())
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return {"y": y_TD.detach()} | dict(zip(leaves, grads, strict=True))


@DTYPES
@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("setting", list(SETTINGS))
@pytest.mark.parametrize(("width", "inner"), [(64, 32), (37, 21)])
def test_pairs_are_those_of_the_loop(name, dtype, setting, width, inner) -> None:
    experts = make(setting, dtype, width=width, inner=inner).to(DEVICE)
    for num_tokens in (0, 1, 37, 300):
        x_TD = torch.randn(num_tokens, width).to(DEVICE, dtype)
        for made in plans(num_tokens).values():
            plan = there(made, DEVICE)
            expected = results("loop", x_TD, plan, experts, plan.weights_N)
            require_same(results(name, x_TD, plan, experts, plan.weights_N), expected, dtype)


@DTYPES
@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("kind", ["slots", "merged"])
def test_slots_and_merged_experts_are_those_of_the_loop(name, dtype, kind) -> None:
    experts = make("swiglu and biases", dtype, width=16, inner=8).to(DEVICE)
    x_TD, logits_BSZ = (
        torch.randn(15, 16).to(DEVICE, dtype),
        torch.randn(3, 5, 12, device=DEVICE, requires_grad=True),
    )

    def plan() -> Plan:
        if kind == "slots":
            dispatch_BSZ, combine_BSZ = logits_BSZ.softmax(1), logits_BSZ.softmax(2)
            return SlotPlan(num_tokens=15, num_experts=6, dispatch_BSZ=dispatch_BSZ, combine_BSZ=combine_BSZ)
        groups_T = torch.arange(3, device=DEVICE).repeat_interleave(5)
        mix_GE = logits_BSZ[:, 0, :6].softmax(1)
        return MergedPlan(num_tokens=15, num_experts=6, mix_GE=mix_GE, groups_T=groups_T)

    expected = results("loop", x_TD, plan(), experts, logits_BSZ)
    require_same(results(name, x_TD, plan(), experts, logits_BSZ), expected, dtype)


@pytest.mark.parametrize("setting", list(SETTINGS))
@pytest.mark.parametrize("name", FAST)
def test_a_layer_of_real_size_is_right_to_the_rounding_of_half_precision(name, setting) -> None:
    """Against the loop in single precision, at the shape of OLMoE-1B-7B."""
    sizes = (2048, 1024, 64, 8, 2048) if IS_CUDA else (64, 32, 8, 2, 50)
    width, inner, num_experts, k, num_tokens = sizes
    if name == "batched":
        num_tokens = 8
    with torch.device(DEVICE):
        half, single = (
            Experts(width=width, inner=inner, num_experts=num_experts, **SETTINGS[setting]) for _ in range(2)
        )
        for part in (half.up_proj_bias, half.down_proj_bias):
            if part is not None:
                torch.nn.init.normal_(part)
        half.bfloat16()
        single.load_state_dict(half.state_dict())
        x_TD = torch.randn(num_tokens, width).bfloat16()
        indices_TK = torch.rand(num_tokens, num_experts).topk(k)[1]
        weights_TK = torch.rand(num_tokens, k).softmax(-1)
    found = []
    for executor, experts, dtype in ((name, half, torch.bfloat16), ("loop", single, torch.float32)):
        weights = weights_TK.clone().requires_grad_()
        plan = SparsePlan.from_choices(weights, indices_TK, num_experts=num_experts)
        found.append(results(executor, x_TD.to(dtype), plan, experts, weights))
    for part, right in found[1].items():
        assert far(found[0][part], right) < 2e-2, part


@pytest.mark.parametrize("name", [name for name in FAST if name in ("triton", "grouped", "batched")])
def test_neither_gate_nor_executor_waits(name) -> None:
    torch.use_deterministic_algorithms(False)
    gate = TopKGate(width=64, num_experts=8).to(DEVICE)
    experts = Experts(width=64, inner=32, num_experts=8).to(DEVICE, torch.bfloat16)
    x_TD, executor = torch.randn(64, 64).to(DEVICE, torch.bfloat16), make_executor(name)
    for _ in range(2):
        # Probes and kernels are made once.
        executor.run(x_TD, gate(x_TD), experts)
    with nobody_waits():
        executor.run(x_TD, gate(x_TD), experts)


@pytest.mark.parametrize("name", sorted(EXECUTORS))
def test_mixed_devices_are_refused(name) -> None:
    experts, x_TD = Experts(width=8, inner=4, num_experts=6), torch.randn(5, 8)
    plan = there(plans(5)["spread"], DEVICE)
    others = [(x_TD.to(DEVICE), experts), (x_TD, experts)] if IS_CUDA else []
    for states_TD, module in others:
        with pytest.raises(InputError, match=r"several devices.*one device.*'cpu', 'cuda"):
            make_executor(name).run(states_TD, plan, module)


@pytest.mark.skipif(not IS_CUDA, reason="needs CUDA graphs")
def test_a_layer_is_captured_while_an_answer_is_on_its_way() -> None:
    torch.use_deterministic_algorithms(False)
    layer = MoE(gate=TopKGate(width=64, num_experts=8), experts=Experts(width=64, inner=32, num_experts=8))
    layer = layer.to(DEVICE, torch.bfloat16).eval()
    x_TD, other_TD = torch.randn(2, 64, 64, device=DEVICE).bfloat16()
    pairs_N, graph = torch.arange(4, device=DEVICE), torch.cuda.CUDAGraph()
    with torch.no_grad():
        expected_TD, _ = layer(other_TD).clone(), layer(x_TD)
        torch.cuda.synchronize()
        SparsePlan.from_pairs(pairs_N, pairs_N, pairs_N.float(), num_tokens=64, num_experts=8)
        with torch.cuda.graph(graph):
            y_TD = layer(x_TD)
        x_TD.copy_(other_TD)
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y_TD, expected_TD)
    refuse_arrived(wait=True)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("num_tokens", [64, 1200])
def test_a_layer_may_be_on_another_device_than_the_current_one(num_tokens) -> None:
    torch.use_deterministic_algorithms(False)
    layer = MoE(gate=TopKGate(width=64, num_experts=8), experts=Experts(width=64, inner=64, num_experts=8))
    layer, x_TD, found = layer.bfloat16().eval(), torch.randn(num_tokens, 64).bfloat16(), []
    with torch.no_grad():
        for index in range(2):
            found.append(layer.to(f"cuda:{index}")(x_TD.to(f"cuda:{index}")).cpu())
            refuse_arrived(wait=True)
        assert torch.equal(*found)
        layer(torch.full_like(x_TD, torch.nan).to("cuda:1"))
    with pytest.raises(InputError, match="NaN"):
        refuse_arrived(wait=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_rows_of_many_pairs_are_moved_by_kernels_and_by_torch_alike(monkeypatch, dtype, setting) -> None:
    experts, x_TD = make(setting, dtype, width=64, inner=32).to(DEVICE), torch.randn(3000, 64)
    for made in plans(3000).values():
        plan = there(made, DEVICE)
        if plan.num_pairs <= FEW_PAIRS:
            continue
        given = (x_TD.to(DEVICE, dtype), plan, experts)
        expected = results("loop", *given, plan.weights_N)
        for are_asked in (True, False):
            with monkeypatch.context() as patched:
                if not are_asked:
                    patched.setattr(pair_rows, "kernels_work", lambda *_: False)
                rows = pair_rows.pair_rows(plan, given[0], experts.stack())
                assert (type(rows) is not PairRows) == (HAS_TRITON and are_asked)
                require_same(results("grouped", *given, plan.weights_N), expected, dtype)


@pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
def test_kernels_that_move_rows_and_sums_in_bags_work_here() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert pair_rows.kernels_work(DEVICE, dtype)
        assert bags_work(DEVICE, dtype)


def test_rows_of_many_pairs_wait_for_nobody() -> None:
    torch.use_deterministic_algorithms(False)
    experts = make("plain and biases", torch.bfloat16, width=64, inner=32).to(DEVICE)
    gate = TopKGate(width=64, num_experts=6, k=2).to(DEVICE)
    x_TD, executor = torch.randn(3000, 64).to(DEVICE, torch.bfloat16), make_executor("grouped")

    def turn() -> None:
        executor.run(x_TD, gate(x_TD), experts).float().sum().backward()

    for _ in range(2):
        turn()
    with nobody_waits():
        turn()
