from __future__ import annotations

import copy
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.nn.adapters import helpers
from turnout.core.errors import InputError, NotFittedError, UnknownNameError
from turnout.nn.adapters import (
    AdapterPool,
    ArrowRouter,
    GliderRouter,
    PhatgooseRouter,
    SingleAdapter,
    read_lora,
)
from turnout.nn.adapters.contract import Context
from turnout.nn.depth import RoutedDepth

IDS = helpers.tokens()
VECTORS = torch.eye(6)


def test_without_a_router_and_after_closing_the_model_is_the_base_bit_for_bit() -> None:
    model = helpers.base()
    modules = dict(model.named_modules())
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    truth = model(IDS).logits
    with AdapterPool(model=model) as pool:
        pool.add(helpers.lora("a"))
        assert torch.equal(model(IDS).logits, truth)
        pool.router = SingleAdapter(name="a")
        assert not torch.equal(model(IDS).logits, truth)
        with pool.none():
            assert torch.equal(model(IDS).logits, truth)
            assert torch.equal(
                model.generate(IDS, max_new_tokens=3, do_sample=False),
                helpers.base().generate(IDS, max_new_tokens=3, do_sample=False),
            )
    assert torch.equal(model(IDS).logits, truth)
    assert all(module is modules[path] for path, module in model.named_modules())
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_permuting_a_batch_permutes_the_outputs() -> None:
    pool, order = helpers.pool(), [1, 2, 0]
    for router in (PhatgooseRouter(), ArrowRouter()):
        pool.router = router
        torch.testing.assert_close(
            helpers.logits(pool, IDS[order]), helpers.logits(pool, IDS)[order], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("router", [PhatgooseRouter(), ArrowRouter(), GliderRouter(alpha=2.0)])
def test_permuting_the_adapters_permutes_the_weights(router: PhatgooseRouter) -> None:
    recorded = {}
    for names in (("a", "b", "c"), ("c", "a", "b")):
        pool = helpers.pool(names)
        with pool.routed(router=router, queries=VECTORS[[1, 0, 2]]), pool.recording() as trace:
            recorded[names] = helpers.logits(pool, IDS), trace
    (out, trace), (other_out, other) = recorded.values()
    torch.testing.assert_close(other_out, out, rtol=1e-4, atol=1e-5)
    for path, (weights,) in trace.items():
        torch.testing.assert_close(other[path][0][..., [1, 2, 0]], weights, rtol=1e-3, atol=1e-4)
        assert weights.shape[:2] == IDS.shape


@pytest.mark.parametrize("router", [PhatgooseRouter(), ArrowRouter(), GliderRouter(alpha=2.0)])
def test_decoding_with_a_cache_equals_decoding_without(router: PhatgooseRouter) -> None:
    pool = helpers.pool()
    found = [
        pool.generate(
            IDS, router=router, queries=VECTORS[[1, 0, 2]], max_new_tokens=6, do_sample=False, use_cache=cache
        )
        for cache in (True, False)
    ]
    assert torch.equal(*found)


def test_padding_changes_no_answer() -> None:
    pool = helpers.pool()
    pool.router = PhatgooseRouter()
    padded = torch.nn.functional.pad(IDS, (4, 0))
    mask = torch.nn.functional.pad(torch.ones_like(IDS), (4, 0))
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    plain = pool.generate(IDS, attention_mask=torch.ones_like(IDS), **options)
    assert torch.equal(pool.generate(padded, attention_mask=mask, **options)[:, 4:], plain)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}])
def test_beams_keep_the_vector_and_the_adapter_of_their_item(options: dict) -> None:
    pool = helpers.pool()
    options = options | {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    answers = options.get("num_return_sequences", 1)
    router, queries = GliderRouter(alpha=1e6), VECTORS[[2, 0, 1]]
    together = pool.generate(IDS, router=router, queries=queries, **options)
    named = pool.generate(IDS, router=None, tasks=None, **options)
    assert not torch.equal(together, named)
    for row in range(3):
        alone = pool.generate(IDS[[row]], router=router, queries=queries[[row]], **options)
        mine = together[row * answers : (row + 1) * answers]
        assert torch.equal(mine[:, : alone.shape[1]], alone)


def test_the_number_of_copies_must_be_said() -> None:
    pool = helpers.pool()
    generate: Any = pool.model.generate
    with pool.only(["a", "b", "c"]), pytest.raises(InputError, match="copies"):
        generate(IDS, max_new_tokens=2, num_beams=2)
    with pool.only(["a", "b", "c"], copies=2):
        generate(IDS, max_new_tokens=2, num_beams=2)


def test_who_sees_some_of_the_batch_is_not_told_of_copies() -> None:
    """Where depth differs between sequences a block is called with those that call it."""
    pool = helpers.pool()
    routed = RoutedDepth(model=pool.model)
    with (
        pool.only(["a", "b", None]),
        routed.forced([[1, 0], [1, 1], [1, 1]]),
        pytest.raises(InputError, match=r"got: \(2, 9, 32\); .*depth differs") as caught,
    ):
        pool.model(IDS)
    assert "copies" not in str(caught.value)
    with pool.only(["a", "b", None]), routed.forced([1, 0]):
        pool.model(IDS)
    with pool.only(["a", "b"]), pytest.raises(InputError, match=r"name as many items as the batch has$"):
        pool.model(IDS)


def test_a_module_inside_experts_sees_tokens_and_no_items() -> None:
    context = Context(names=("a", "b"))
    with pytest.raises(InputError, match=r"tokens without their items.*leave it out of the targets"):
        context.per_item("tasks", torch.zeros(2, 2), torch.zeros(18, 32))


def test_a_route_holds_for_its_thread_alone() -> None:
    pool = helpers.pool()
    seen: list[torch.Tensor] = []
    with pool.only("a"):
        worker = threading.Thread(target=lambda: seen.append(helpers.logits(pool, IDS)))
        worker.start()
        worker.join()
        here = helpers.logits(pool, IDS)
    assert torch.equal(seen[0], helpers.base()(IDS).logits)
    assert not torch.equal(seen[0], here)


def test_a_copied_model_has_its_own_routes() -> None:
    pool = helpers.pool()
    pool.router = SingleAdapter(name="a")
    twin = copy.deepcopy(pool.model)
    before = helpers.logits(pool, IDS)
    with pool.none():
        assert torch.equal(twin(IDS).logits, before)


def test_taking_an_adapter_out_leaves_the_others_as_they_were() -> None:
    pool, other = helpers.pool(), helpers.pool(("a", "c"))
    pool.remove("b")
    assert pool.names == ("a", "c")
    pool.router = other.router = PhatgooseRouter()
    assert torch.equal(helpers.logits(pool, IDS), helpers.logits(other, IDS))
    assert all(torch.equal(g, helpers.gates(2)[path]) for path, g in pool.gate("c").items())
    with pytest.raises(UnknownNameError, match="'b'"):
        pool.remove("b")


def test_ranks_mix_exactly_where_they_may() -> None:
    pool = AdapterPool(model=helpers.base(), mixed_ranks=True)
    for rank, name in ((2, "a"), (5, "b"), (1, "c")):
        pool.add(helpers.lora(name, rank=rank))
        with AdapterPool(model=helpers.base()) as alone:
            alone.add(helpers.lora(name, rank=rank))
            with alone.only(name):
                truth = helpers.logits(alone, IDS)
        with pool.only(name):
            torch.testing.assert_close(helpers.logits(pool, IDS), truth, rtol=1e-5, atol=1e-6)


def test_an_adapter_of_another_kind_is_refused_and_the_pool_stays() -> None:
    pool = helpers.pool(("a",))
    pool.router = SingleAdapter(name="a")
    before = helpers.logits(pool, IDS)
    with pytest.raises(InputError, match=r"another rank; allowed: \[4\]; got: \[3\]; .*mixed_ranks"):
        pool.add(helpers.lora("x", rank=3))
    with pytest.raises(InputError, match=r"another target set; allowed: the pool's 4 modules; got: "):
        pool.add(helpers.lora("x", targets=("q_proj",)))
    with pytest.raises(InputError, match=r"allowed: a folder's name that is not taken; got: 'a'"):
        pool.add(helpers.lora("a"))
    with pytest.raises(InputError, match="a folder's name"):
        pool.add(replace(helpers.lora("a"), name="../a"))
    assert pool.names == ("a",)
    assert torch.equal(helpers.logits(pool, IDS), before)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    wide = AdapterPool(model=helpers.base(width=48))
    with pytest.raises(InputError, match=r"'a' is of another base: .*allowed: \(48, 48\); got: \(32, 32\)"):
        wide.add(helpers.lora("a"))
    with pytest.raises(InputError, match=r"stands at .*got: 'nothing'"):
        AdapterPool(model=helpers.base(layers=1)).add(helpers.lora("a"))
    folder = helpers.pool(("a",)).export("a", tmp_path / "a")
    with pytest.raises(InputError, match=r"'a' is of another base; allowed: .*; got: .*is_same_base"):
        AdapterPool(model=helpers.base(seed=1)).load(folder)
    assert AdapterPool(model=helpers.base()).load(folder) == "a"
    assert AdapterPool(model=helpers.base(seed=1)).load(folder, is_same_base=True) == "a"


def test_names_of_bases_decide_where_there_is_no_fingerprint() -> None:
    model = helpers.base()
    model.config._name_or_path = "somewhere/llama"
    pool = AdapterPool(model=model)
    with pytest.raises(InputError, match=r"allowed: somewhere/llama; got: 'org/mistral'"):
        pool.add(replace(helpers.lora("a"), base_name="org/mistral"))
    assert pool.add(replace(helpers.lora("a"), base_name="org/llama")) == "a"


def test_misuse_is_one_sentence() -> None:
    pool = helpers.pool()
    with pytest.raises(InputError, match="holds a pool already"):
        AdapterPool(model=pool.model)
    with pytest.raises(UnknownNameError, match="'nobody'"):
        pool.only("nobody")
    with pytest.raises(InputError, match="chosen already"):
        pool.target(["o_proj"])
    with pytest.raises(
        InputError, match=r"target modules.*allowed: some of \['down_proj'.*got: \['nothing'\]"
    ):
        AdapterPool(model=helpers.base(), targets=["nothing"])
    with pytest.raises(InputError, match=r"gate of 'a'; allowed: a vector \(D,\)"):
        pool.set_gate("a", {})
    with pool.only("a"), pytest.raises(InputError, match="a route is open"):
        pool.add(helpers.lora("d"))
    with pytest.raises(InputError, match=r"router; allowed: an AdapterRouter.*got: 'glider'"):
        pool.router = "glider"  # type: ignore[assignment]
    for wrong, words in (({"router": "glider"}, "an AdapterRouter"), ({"tasks": "ab"}, "one for each item")):
        with pytest.raises(InputError, match=words), pool.routed(**wrong):  # type: ignore[arg-type]
            pass
    with pytest.raises(InputError, match="embed: vectors; allowed: 2, one a text; got: 1"):
        pool.describe_texts({"a": "one", "b": "two"}, lambda texts: [[1.0, 0.0]])
    with pytest.raises(InputError, match="name of an adapter"):
        pool.add(replace(helpers.lora("a"), name=3))  # type: ignore[arg-type]
    fresh = AdapterPool(model=helpers.base())
    fresh.add(helpers.lora("a"))
    with pytest.raises(NotFittedError, match="'a' has no gate"):
        fresh.gate("a")


def test_an_exported_adapter_reads_back_as_it_was(tmp_path: Path) -> None:
    pool = helpers.pool()
    back = read_lora(pool.export("b", tmp_path / "b"))
    for path, part in pool.get("b").parts.items():
        assert torch.equal(back.parts[path].a_RD, part.a_RD)
        assert torch.equal(back.parts[path].b_OR, part.b_OR)
        assert back.parts[path].scale == pytest.approx(part.scale)


class Wrapped(torch.nn.Module):
    """Stands for whatever wraps a block later and so changes the paths inside it."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.block(*args, **kwargs)


def test_blocks_may_be_wrapped_after_the_pool_was_built(tmp_path: Path) -> None:
    pool, plain = helpers.pool(("a",)), helpers.pool(("a", "b"))
    layers: Any = pool.model.get_submodule("model.layers")
    for index, block in enumerate(layers):
        layers[index] = Wrapped(block)
    pool.add(helpers.lora("b", seed=1))
    pool.export("b", tmp_path / "b")
    with pool.only("b"), plain.only("b"):
        assert torch.equal(helpers.logits(pool, IDS), helpers.logits(plain, IDS))
    pool.close()
    assert torch.equal(helpers.logits(pool, IDS), helpers.base()(IDS).logits)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_adapters_and_gates_that_are_not_finite_are_refused(bad: float) -> None:
    pool = helpers.pool()
    gate = pool.gate("a")
    path = helpers.paths()[0]
    for part in ("a_RD", "b_OR"):
        lora = helpers.lora("d")
        getattr(lora.parts[path], part)[0, 0] = bad
        with pytest.raises(InputError, match=f"adapter 'd': {path}; allowed: finite numbers"):
            pool.add(lora)
    parts = {**helpers.lora("d").parts}
    parts[path] = replace(parts[path], scale=bad)
    with pytest.raises(InputError, match="finite numbers"):
        pool.add(replace(helpers.lora("d"), parts=parts))
    gates = helpers.gates(1)
    gates[path][1] = bad
    with pytest.raises(InputError, match=f"gate of 'a': {path}; allowed: finite numbers"):
        pool.set_gate("a", gates)
    assert pool.names == ("a", "b", "c")
    assert all(torch.equal(pool.gate("a")[p], gate[p]) for p in gate)
