"""What stands in a pool's seats goes on computing what it computed, whatever kind of linear module it is."""

from __future__ import annotations

import copy
import functools
import io
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.finegrained_fp8 import FP8Linear

from tests.nn.adapters import helpers
from turnout.core.errors import InputError
from turnout.nn.adapters import AdapterPool

IDS = helpers.tokens()
PATH = "model.layers.0.self_attn.q_proj"


class Scaled(nn.Linear):
    """A linear module with a forward of its own, which is louder in training."""

    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) * (3 if self.training else 2)


class Pair(nn.Linear):
    def forward(self, u: Tensor) -> Any:
        return super().forward(u), None


class Flat(nn.Linear):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u).flatten()


class Grouped(nn.Linear):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u.unflatten(-1, (5, -1)))


def put(model: Any, kind: Callable[[int, int], nn.Linear]) -> None:
    for layer in model.model.layers:
        old = layer.self_attn.q_proj
        new = kind(old.in_features, old.out_features)
        new.register_parameter("bias", None)
        new.weight = old.weight
        layer.self_attn.q_proj = new


def hooked(model: nn.Module) -> None:
    model.get_submodule(PATH).register_forward_hook(lambda _module, _args, out: 2 * out)


def replaced(model: nn.Module) -> None:
    def twice(self: nn.Linear, u: Tensor) -> Tensor:
        return 2 * nn.Linear.forward(self, u)

    module: Any = model.get_submodule(PATH)
    module.forward = types.MethodType(twice, module)


def normed(model: nn.Module) -> None:
    module = torch.nn.utils.parametrizations.weight_norm(model.get_submodule(PATH))
    module.parametrizations.weight.original0.data.mul_(2)


KINDS: dict[str, Callable[[nn.Module], None]] = {
    "subclass": lambda model: put(model, Scaled),
    "hooks": hooked,
    "own forward": replaced,
    "weight that is computed": normed,
}


@pytest.fixture(params=list(KINDS))
def model(request: pytest.FixtureRequest) -> nn.Module:
    made = helpers.base()
    KINDS[request.param](made)
    return made


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(IDS).logits


def test_the_base_stays_what_it_is_with_a_pool_and_after_it(model) -> None:
    plain, names = logits(model), list(model.state_dict())
    assert (plain - logits(helpers.base())).abs().max() > 1e-4
    pool = AdapterPool(model=model)
    pool.add(helpers.lora("a"), is_same_base=True)
    assert torch.equal(logits(model), plain)
    assert list(model.state_dict()) == names
    with pool.only("a"):
        assert (logits(model) - plain).abs().max() > 1e-3
    pool.close()
    assert torch.equal(logits(model), plain)
    assert list(model.state_dict()) == names
    assert not [name for name, _ in model.named_buffers() if name.startswith(PATH)]


def test_an_adapter_is_added_to_what_the_base_gives(model) -> None:
    u, lora = torch.randn(3, 32), helpers.lora("a")
    base_out = model.get_submodule(PATH)(u)
    pool = AdapterPool(model=model)
    pool.add(lora, is_same_base=True)
    part = lora.parts[PATH]
    with pool.only("a"):
        found = model.get_submodule(PATH)(u)
    torch.testing.assert_close(found, base_out + part.scale * (u @ part.a_RD.T @ part.b_OR.T))


def test_parameters_that_come_meanwhile_are_the_bases_too(model) -> None:
    pool = AdapterPool(model=model, targets=["q_proj"])
    state = {name: value * 1.5 for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    expected = logits(model)
    model.double().float()
    assert torch.equal(logits(model), expected)
    pool.close()
    assert torch.equal(logits(model), expected)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_a_copy_is_its_own(model) -> None:
    pool = AdapterPool(model=model)
    pool.add(helpers.lora("a"), is_same_base=True)
    twin, plain = copy.deepcopy(model), logits(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(logits(twin), plain)


def test_a_base_that_differs_in_training_learns_of_it() -> None:
    model = helpers.base()
    put(model, Scaled)
    wanted = [logits(model.train(mode)) for mode in (True, False)]
    assert not torch.equal(*wanted)
    AdapterPool(model=model, targets=["q_proj"])
    for mode, want in zip((True, False), wanted, strict=True):
        assert torch.equal(logits(model.train(mode)), want)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Pair, "a Pair, which gives tuple"),
        (Flat, r"a Flat, which gives \(64,\)"),
        (Grouped, r"a Grouped, which refuses \(1, 2, 32\)"),
    ],
)
def test_a_linear_module_that_maps_otherwise_is_refused(kind, words) -> None:
    model = helpers.base()
    put(model, kind)
    with pytest.raises(InputError, match=words) as caught:
        AdapterPool(model=model, targets=["q_proj"])
    assert "\n" not in str(caught.value)


def test_a_pickle_of_a_model_with_a_pool_is_refused_by_name() -> None:
    pool = helpers.pool()
    with pytest.raises(InputError, match=r"holds an AdapterPool, which no copy or pickle.*save_pool"):
        torch.save(pool.model, io.BytesIO())


def test_hooks_that_come_meanwhile_stay_with_the_base_and_go_by_their_handles(model) -> None:
    linear = model.get_submodule(PATH)
    heard: list[str] = []
    first = linear.register_forward_hook(lambda *_: heard.append("first"))
    pool = AdapterPool(model=model, targets=["q_proj"])
    site, u = model.get_submodule(PATH), torch.randn(2, 32, requires_grad=True)

    def before(_module: object, _args: object, _kwargs: object) -> None:
        heard.append("before")

    handles = [
        site.register_forward_pre_hook(before, with_kwargs=True),
        site.register_forward_hook(lambda *_: heard.append("after")),
        site.register_full_backward_hook(lambda *_: heard.append("back")),
        site.register_full_backward_pre_hook(lambda *_: heard.append("down")),
    ]
    gone = site.register_forward_hook(lambda *_: heard.append("gone"))
    gone.remove()

    def said() -> list[str]:
        heard.clear()
        model.get_submodule(PATH)(u).sum().backward()
        return sorted(heard)

    everybody = ["after", "back", "before", "down", "first"]
    assert said() == everybody
    pool.close()
    assert model.get_submodule(PATH) is linear
    assert said() == everybody
    for handle in handles:
        handle.remove()
    assert said() == ["first"]
    first.remove()
    assert said() == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")  # its import is that of a compiler
def test_a_linear_module_of_bitnet_goes_on_as_it_was() -> None:
    from transformers.integrations.bitnet import AutoBitLinear

    model, u = helpers.base(), torch.randn(3, 32)
    put(model, functools.partial(AutoBitLinear, use_rms_norm=True))
    own = model.get_submodule(PATH)
    own.weight_scale.fill_(0.7)
    # As it is written, without the compiler that it asks for.
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        plain, alone = logits(model), own(u)
        pool = AdapterPool(model=model)
        pool.add(helpers.lora("a"), is_same_base=True)
        assert torch.equal(logits(model), plain)
        part = helpers.lora("a").parts[PATH]
        with pool.only("a"):
            found = model.get_submodule(PATH)(u)
        torch.testing.assert_close(found, alone + part.scale * (u @ part.a_RD.T @ part.b_OR.T))
        pool.close()
        assert torch.equal(logits(model), plain)
    assert model.get_submodule(PATH) is own


def test_a_linear_module_in_eight_bits_is_refused_where_nothing_multiplies_it() -> None:
    """Its kernel runs on a GPU; once its weights are read out it is one like others."""
    model = helpers.base()
    put(model, FP8Linear)
    plain = logits(model)
    AdapterPool(model=model, targets=["q_proj"]).close()
    assert torch.equal(logits(model), plain)
    quantised = FP8Linear(32, 32)
    model.model.layers[0].self_attn.q_proj = quantised
    with pytest.raises(InputError, match=r"a FP8Linear, which refuses \(1, 2, 32\)"):
        AdapterPool(model=model, targets=["q_proj"])
    assert model.get_submodule(PATH) is quantised
