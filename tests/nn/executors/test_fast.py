"""Every fast path gives the naive loop's result and gradients, in fresh memory that is full of NaN."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.nn.moe_models import decisive
from turnout.core.errors import InputError, MissingExtraError
from turnout.nn.executors import grouped
from turnout.nn.executors.auto import EXECUTORS, AutoExecutor, make_executor
from turnout.nn.executors.blocks import BLOCK_ROWS, EVEN_ROWS, blocks_of
from turnout.nn.executors.grouped import GroupedExecutor
from turnout.nn.executors.loop import LoopExecutor
from turnout.nn.executors.precision import WIDE_ROWS, has_half
from turnout.nn.executors.segments import SegmentExecutor
from turnout.nn.experts import Experts
from turnout.nn.flops import executed_flops
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.moe import find_moe_layers
from turnout.nn.plan import Plan, SparsePlan
from turnout.nn.plan_dense import MergedPlan, SlotPlan

FAST = sorted(set(EXECUTORS) - {"loop"})

SETTINGS: dict[str, dict] = {
    "swiglu": {},
    "swiglu and biases": {"has_bias": True},
    "plain and biases": {"is_gated": False, "activation": "gelu", "has_bias": True},
}


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fill memory that nobody wrote with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)


def make(setting: str, dtype: torch.dtype, *, width: int, inner: int) -> Experts:
    experts = Experts(width=width, inner=inner, num_experts=6, **SETTINGS[setting])
    for bias in (experts.up_proj_bias, experts.down_proj_bias):
        if bias is not None:
            torch.nn.init.normal_(bias)
    return experts.to(dtype)


def plans(num_tokens: int) -> dict[str, SparsePlan]:
    """Return plans whose weights are leaves: usual, one for all, ragged, and with idle experts."""
    random = torch.Generator().manual_seed(1)
    weights_TK = torch.rand(num_tokens, 3, generator=random)
    spread_TK = torch.rand(num_tokens, 6, generator=random).argsort(1)[:, :3]
    matrix_TE = torch.rand(num_tokens, 6, generator=random)
    made = {
        "spread": SparsePlan.from_choices(weights_TK, spread_TK, num_experts=6),
        "all to one": SparsePlan.from_choices(
            weights_TK[:, :1], torch.full((num_tokens, 1), 4), num_experts=6
        ),
        "ragged": SparsePlan.from_dense(matrix_TE * (matrix_TE > 0.6)),
        "idle": SparsePlan.from_choices(weights_TK, spread_TK.clamp(1, 3), num_experts=6),
    }
    return {name: replace(plan, weights_N=plan.weights_N.requires_grad_()) for name, plan in made.items()}


def there(plan: SparsePlan, device: torch.device) -> SparsePlan:
    """Return the plan on a device, with weights that are a leaf."""
    names = ("tokens_N", "experts_N", "columns_N", "offsets_E")
    moved = {name: getattr(plan, name).to(device) for name in names}
    return replace(plan, weights_N=plan.weights_N.detach().to(device).requires_grad_(), **moved)


def results(
    executor: str, x_TD: torch.Tensor, plan: Plan, experts: torch.nn.Module, leaf: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the output, and the gradients of a loss that weighs each output otherwise."""
    x_TD = x_TD.clone().requires_grad_()
    y_TD = make_executor(executor).run(x_TD, plan, experts)
    random = torch.Generator().manual_seed(2)
    loss = (y_TD.float() * torch.randn(y_TD.shape, generator=random)).sum()
    leaves = {"x": x_TD, "leaf": leaf} | dict(experts.named_parameters())
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return {"y": y_TD.detach()} | dict(zip(leaves, grads, strict=True))


def require_same(found: dict, expected: dict, dtype: torch.dtype, *, times: float = 1.0) -> None:
    tolerance = times * (2e-5 if dtype == torch.float32 else 4e-2)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        scale = max(float(value.abs().max()), 1.0) if value.numel() else 1.0
        close = torch.allclose(found[name].float(), value.float(), rtol=0, atol=tolerance * scale)
        assert close, (name, float((found[name].float() - value.float()).abs().max()), scale)


@pytest.mark.parametrize("executor", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("setting", list(SETTINGS))
@pytest.mark.parametrize(("width", "inner"), [(16, 32), (13, 7)])
def test_pairs_are_those_of_the_loop(executor, dtype, setting, width, inner) -> None:
    experts = make(setting, dtype, width=width, inner=inner)
    for num_tokens in (0, 1, 37):
        x_TD = torch.randn(num_tokens, width).to(dtype)
        for plan in plans(num_tokens).values():
            expected = results("loop", x_TD, plan, experts, plan.weights_N)
            require_same(results(executor, x_TD, plan, experts, plan.weights_N), expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stretches_and_chunks_of_an_expert_add_up(dtype) -> None:
    experts = make("swiglu and biases", dtype, width=6, inner=4)
    num_tokens = 2 * BLOCK_ROWS + WIDE_ROWS - 1
    plan = plans(num_tokens)["all to one"]
    x_TD = torch.randn(num_tokens, 6).to(dtype)
    expected = results("loop", x_TD, plan, experts, plan.weights_N)
    require_same(results("segments", x_TD, plan, experts, plan.weights_N), expected, dtype)


def test_rows_past_a_stretch_belong_to_nobody() -> None:
    """Products of many rows in half precision go over some of the next expert's, or of the next block's."""
    experts = make("swiglu and biases", torch.bfloat16, width=6, inner=4)
    counts = [EVEN_ROWS + 1, 3, BLOCK_ROWS - EVEN_ROWS + 6, EVEN_ROWS + 2, 0, EVEN_ROWS + 3]
    num_tokens = sum(counts)
    indices_TK = torch.repeat_interleave(torch.arange(6), torch.tensor(counts))[:, None]
    plan = SparsePlan.from_choices(torch.rand(num_tokens, 1), indices_TK, num_experts=6)
    plan.weights_N.requires_grad_()
    assert any(s.reach > s.end for block in blocks_of(plan.offsets_E, is_even=True) for s in block.stretches)
    x_TD = torch.randn(num_tokens, 6).bfloat16()
    expected = results("loop", x_TD, plan, experts, plan.weights_N)
    require_same(results("segments", x_TD, plan, experts, plan.weights_N), expected, torch.bfloat16)
    with torch.no_grad():
        y_TD = SegmentExecutor().run(x_TD, plan, experts)
    require_same({"y": y_TD}, {"y": expected["y"]}, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("setting", ["swiglu", "swiglu and biases"])
def test_weights_of_nothing_and_of_nearly_nothing_have_their_gradient(dtype, setting) -> None:
    experts = make(setting, dtype, width=16, inner=8)
    weights_TK = torch.rand(9, 2)
    weights_TK[2:5, 0] = torch.tensor([0.0, 1e-38, -1e-30])
    plan = SparsePlan.from_choices(weights_TK, torch.rand(9, 6).argsort(1)[:, :2], num_experts=6)
    is_small_N = plan.weights_N.abs() < 1e-20
    assert int(is_small_N.sum()) == 3
    plan.weights_N.requires_grad_()
    x_TD = torch.randn(9, 16).to(dtype)
    expected = results("loop", x_TD, plan, experts, plan.weights_N)
    assert bool((expected["leaf"][is_small_N].abs() > 1e-3).all())
    require_same(results("segments", x_TD, plan, experts, plan.weights_N), expected, dtype)


def test_segments_are_right_to_the_digits_of_double_precision() -> None:
    experts = make("swiglu and biases", torch.float64, width=5, inner=3)
    plan = plans(9)["ragged"]
    parts = ("up_EFD", "down_EDI", "up_bias_EF", "down_bias_ED")
    stack = experts.stack()
    leaves = [torch.randn(9, 5), plan.weights_N, *(getattr(stack, part) for part in parts)]

    def run(x_TD, weights_N, *weights):
        changed = replace(stack, **dict(zip(parts, weights, strict=True)))
        return SegmentExecutor().run_pairs(x_TD, replace(plan, weights_N=weights_N), changed)

    inputs = [leaf.detach().double().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("executor", FAST)
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_under_autocast_results_and_gradients_are_the_loops(executor, setting) -> None:
    experts = make(setting, torch.float32, width=16, inner=8)
    plan = plans(11)["spread"]
    x_TD = torch.randn(11, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x_TD.requires_grad_()
        y_TD = make_executor(executor).run(x_TD, plan, experts)
    loss = (y_TD * torch.randn(y_TD.shape, generator=torch.Generator().manual_seed(2))).sum()
    names = {"x": x_TD, "leaf": plan.weights_N} | dict(experts.named_parameters())
    found = dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))
    expected = results("loop", x_TD.detach(), plan, experts, plan.weights_N)
    found["y"] = y_TD.detach()
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(expected, torch.float32)
    for name, value in expected.items():
        scale = max(float(value.abs().max()), 1.0)
        assert float((found[name] - value).abs().max()) < 4e-2 * scale, name


@pytest.mark.parametrize("executor", FAST)
def test_frozen_experts_still_pass_gradients_on(executor) -> None:
    experts = make("swiglu and biases", torch.float32, width=16, inner=8)
    plan = plans(11)["spread"]
    x_TD = torch.randn(11, 16)
    expected = results("loop", x_TD, plan, experts, plan.weights_N)
    experts.requires_grad_(False)
    x_TD.requires_grad_()
    y_TD = make_executor(executor).run(x_TD, plan, experts)
    random = torch.Generator().manual_seed(2)
    loss = (y_TD * torch.randn(y_TD.shape, generator=random)).sum()
    x, weights = torch.autograd.grad(loss, (x_TD, plan.weights_N))
    require_same({"x": x, "leaf": weights}, {name: expected[name] for name in ("x", "leaf")}, torch.float32)


@pytest.mark.parametrize("executor", FAST)
@pytest.mark.parametrize("family", ["olmoe", "gpt_oss", "mixtral"])
def test_experts_of_checkpoints_are_run_too(executor, family) -> None:
    layer = find_moe_layers(decisive(family))[0]
    experts, num_experts = layer.experts, layer.num_experts
    torch.use_deterministic_algorithms(False)  # gpt-oss's activation has no deterministic gradient on slices
    x_TD = torch.randn(19, 32)
    plan = TopKGate(width=32, num_experts=num_experts, k=2)(x_TD)
    plan = replace(plan, weights_N=plan.weights_N.detach().requires_grad_())
    expected = results("loop", x_TD, plan, experts, plan.weights_N)
    require_same(results(executor, x_TD, plan, experts, plan.weights_N), expected, torch.float32)


@pytest.mark.parametrize("executor", FAST)
@pytest.mark.parametrize("items", [0, 3])
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_slots_and_merged_experts_are_those_of_the_loop(executor, items, setting) -> None:
    experts = make(setting, torch.float32, width=8, inner=4)
    x_TD, logits_BSZ = torch.randn(items * 5, 8), torch.randn(items, 5, 12, requires_grad=True)

    def dense(kind: str) -> Plan:
        if kind == "slots":
            dispatch_BSZ, combine_BSZ = logits_BSZ.softmax(1), logits_BSZ.softmax(2)
            return SlotPlan(
                num_tokens=items * 5, num_experts=6, dispatch_BSZ=dispatch_BSZ, combine_BSZ=combine_BSZ
            )
        groups_T = torch.arange(items).repeat_interleave(5)
        mix_GE = logits_BSZ[:, 0, :6].softmax(1)
        return MergedPlan(num_tokens=items * 5, num_experts=6, mix_GE=mix_GE, groups_T=groups_T)

    for kind in ("slots", "merged"):
        if items:
            expected = results("loop", x_TD, dense(kind), experts, logits_BSZ)
            require_same(results(executor, x_TD, dense(kind), experts, logits_BSZ), expected, torch.float32)
        else:
            assert make_executor(executor).run(x_TD, dense(kind), experts).shape == (0, 8)


def with_padding(kind: str, logits_BSZ: torch.Tensor, mask_BS: torch.Tensor) -> Plan:
    """Return a plan of two items of five positions, some of them padding."""
    mask_T = mask_BS.flatten()
    if kind == "pairs":
        weights_TK, indices_TK = logits_BSZ.flatten(0, 1).topk(2)
        return SparsePlan.from_choices(weights_TK, indices_TK % 6, num_experts=6, mask_T=mask_T)
    if kind == "merged":
        groups_T = torch.arange(2).repeat_interleave(5)
        mix_GE = logits_BSZ[:, 4, :6].softmax(1)
        return MergedPlan(num_tokens=10, num_experts=6, mix_GE=mix_GE, groups_T=groups_T, mask_T=mask_T)
    dispatch_BSZ = logits_BSZ.masked_fill(~mask_BS[..., None], -1e9).softmax(1)
    combine_BSZ = logits_BSZ.softmax(2) * mask_BS[..., None]
    return SlotPlan(
        num_tokens=10, num_experts=6, dispatch_BSZ=dispatch_BSZ, combine_BSZ=combine_BSZ, mask_T=mask_T
    )


@pytest.mark.parametrize("executor", [*FAST, "loop"])
@pytest.mark.parametrize("kind", ["pairs", "slots", "merged"])
def test_nan_at_padding_reaches_no_other_token_and_no_gradient(executor, kind) -> None:
    experts = make("swiglu", torch.float32, width=8, inner=4)
    logits_BSZ = torch.randn(2, 5, 12, requires_grad=True)
    mask_BS = torch.arange(10).view(2, 5) > 1
    found = []
    for filler in (0.0, torch.nan):
        x_TD = torch.randn(10, 8, generator=torch.Generator().manual_seed(4))
        x_TD[~mask_BS.flatten()] = filler
        plan = with_padding(kind, logits_BSZ, mask_BS)
        found.append(results(executor, x_TD, plan, experts, logits_BSZ))
    require_same(found[1], found[0], torch.float32)
    assert not bool(found[0]["y"][:2].any())


@pytest.mark.parametrize("executor", FAST)
def test_no_executor_computes_more_than_the_pairs(executor) -> None:
    experts = make("swiglu", torch.float32, width=16, inner=8)
    plan = plans(37)["ragged"]
    forward = 6 * plan.num_pairs * 16 * 8
    with torch.no_grad():
        _, flops = executed_flops(lambda: make_executor(executor).run(torch.randn(37, 16), plan, experts))
    assert flops == forward
    _, flops = executed_flops(lambda: results(executor, torch.randn(37, 16), plan, experts, plan.weights_N))
    assert flops == 3 * forward


def test_the_probe_knows_where_grouped_products_work() -> None:
    device = torch.device("cpu")
    assert grouped.works(device, torch.float32, 64, 32)
    assert grouped.works(device, torch.bfloat16, 64, 32)
    assert not grouped.works(device, torch.float32, 64, 63), "strides of 252 bytes"
    assert not grouped.works(device, torch.float64, 64, 32), "no such kernel"
    with torch.inference_mode():
        assert grouped.works(device, torch.float16, 64, 32)


@pytest.mark.parametrize("setting", ["swiglu", "plain and biases"])
@pytest.mark.parametrize("executor", ["auto", "batched", "loop", "packed", "segments"])
def test_a_second_derivative_is_right_or_refused(executor, setting) -> None:
    experts, plan = make(setting, torch.float64, width=16, inner=8), plans(5)["spread"]
    x_TD = torch.randn(5, 16, dtype=torch.float64, requires_grad=True)
    y_TD = make_executor(executor).run(x_TD, plan, experts)
    (dx_TD,) = torch.autograd.grad(y_TD.sum(), x_TD, create_graph=True)
    penalty = dx_TD.square().sum()
    if executor != "loop":
        for leaves in (list(experts.parameters()), [x_TD]):
            with pytest.raises(InputError, match=r"was differentiated.*make_executor\('loop'\)"):
                torch.autograd.grad(penalty, leaves, allow_unused=True, retain_graph=True)
        with pytest.raises(InputError, match="was differentiated"):
            penalty.backward()
        return
    (found, *_) = torch.autograd.grad(penalty, experts.up_proj)
    assert bool(found.any())


@pytest.mark.parametrize("setting", ["swiglu", "plain and biases"])
@pytest.mark.parametrize("executor", ["auto", "batched", "loop", "packed", "segments"])
def test_a_graph_of_gradients_is_made_of_a_checkpointed_pass_too(executor, setting) -> None:
    experts, plan = make(setting, torch.float64, width=16, inner=8), plans(5)["spread"]
    x_TD, run = torch.randn(5, 16, dtype=torch.float64, requires_grad=True), make_executor(executor).run
    y_TD = checkpoint(lambda x: run(x, plan, experts), x_TD, use_reentrant=False)
    (dx_TD,) = torch.autograd.grad(y_TD.square().sum(), x_TD, create_graph=True)
    (expected_TD,) = torch.autograd.grad(run(x_TD, plan, experts).square().sum(), x_TD)
    torch.testing.assert_close(dx_TD, expected_TD)
    if executor != "loop":
        with pytest.raises(InputError, match="was differentiated"):
            dx_TD.square().sum().backward()


@pytest.mark.parametrize("executor", sorted(EXECUTORS))
def test_transforms_of_functions_are_followed_or_refused(executor) -> None:
    experts, plan, x_TD = (
        make("swiglu", torch.float32, width=16, inner=8),
        plans(5)["spread"],
        torch.randn(5, 16),
    )

    def total(x_TD: torch.Tensor) -> torch.Tensor:
        return make_executor(executor).run(x_TD, plan, experts).sum()

    calls = (lambda: torch.func.grad(total)(x_TD), lambda: torch.func.vmap(total)(x_TD[None]))
    for call in calls:
        if executor == "loop":
            assert bool(call().any())
            continue
        with pytest.raises(InputError, match=r"torch\.func.*make_executor\('loop'\)"):
            call()


def test_auto_takes_segments_on_a_cpu_and_an_unknown_name_is_refused() -> None:
    experts = make("swiglu", torch.float32, width=16, inner=8)
    for num_tokens in (1, 300):
        chosen = AutoExecutor.choose(plans(num_tokens)["spread"], experts.stack())
        assert isinstance(chosen, SegmentExecutor)
    with pytest.raises(
        InputError, match="'auto', 'batched', 'grouped', 'loop', 'packed', 'segments', 'triton'"
    ):
        make_executor("fastest")
    assert isinstance(make_executor("loop"), LoopExecutor)


@pytest.mark.skipif(importlib.util.find_spec("triton") is not None, reason="Triton is installed")
def test_triton_without_its_extra_is_refused_by_name() -> None:
    with pytest.raises(MissingExtraError, match=r"turnout\[triton\]"):
        make_executor("triton")


def test_auto_groups_a_few_rows_in_half_precision_without_gradients() -> None:
    experts = make("swiglu", torch.bfloat16, width=16, inner=8)
    plan = replace(plans(5)["spread"], weights_N=plans(5)["spread"].weights_N.detach())
    x_TD = torch.randn(5, 16).bfloat16()
    with torch.no_grad():
        is_grouped = isinstance(AutoExecutor.choose(plan, experts.stack()), GroupedExecutor)
        assert is_grouped == has_half(torch.bfloat16)
        expected = LoopExecutor().run(x_TD, plan, experts)
        require_same({"y": AutoExecutor().run(x_TD, plan, experts)}, {"y": expected}, torch.bfloat16)
        assert isinstance(AutoExecutor.choose(plans(300)["spread"], experts.stack()), SegmentExecutor)
        assert isinstance(AutoExecutor.choose(plans(1)["spread"], experts.stack()), SegmentExecutor)
    assert isinstance(AutoExecutor.choose(plan, experts.stack()), SegmentExecutor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_first_pass_may_be_checkpointed(dtype) -> None:
    grouped._probe.forget()
    experts, plan = make("swiglu", dtype, width=16, inner=16), plans(37)["spread"]
    x_TD = torch.randn(37, 16, dtype=dtype, requires_grad=True)

    def layer(x_TD: torch.Tensor) -> torch.Tensor:
        return make_executor("grouped").run(x_TD, plan, experts)

    checkpoint(layer, x_TD, use_reentrant=False).float().sum().backward()
    expected = torch.autograd.grad(layer(x_TD).float().sum(), x_TD)[0]
    assert x_TD.grad is not None
    assert torch.equal(x_TD.grad, expected)
