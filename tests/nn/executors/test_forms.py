"""Each form of a product is right; one is chosen once, by time, and in deterministic mode never."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.nn.executors.test_fast import make, plans, require_same, results
from turnout.nn.executors import forms
from turnout.nn.flops import executed_flops
from turnout.nn.gates.contract import fp32_logits

NAMES = sorted({(kind, name) for kind, named in forms._FORMS.items() for name in named})


@pytest.mark.parametrize(("kind", "name"), NAMES)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_a_form_is_the_product(kind, name, rows) -> None:
    form, exact = forms._FORMS[kind][name], forms._FORMS[kind]["own"]
    left, right = torch.randn(rows, 11), torch.randn(rows, 7) if kind == "weights" else torch.randn(11, 11)
    expected = exact(left.double(), right.double()).float()
    # Slices as of stacked weights, and views that skip columns.
    wide = torch.randn(rows, 22)
    wide[:, ::2] = left
    for given in (left, wide[:, ::2]):
        assert torch.allclose(form(given, right), expected, atol=1e-4)


@pytest.fixture
def forced(monkeypatch):
    def force(names: dict[str, str]) -> None:
        monkeypatch.setattr(forms, "LARGE", 0)
        monkeypatch.setattr(forms, "fastest", lambda kind, _rows, _threads: names[kind])

    return force


@pytest.mark.parametrize("executor", ["batched", "segments"])
@pytest.mark.parametrize("setting", ["swiglu and biases", "plain and biases"])
def test_executors_give_the_loops_results_in_every_form(executor, setting, forced) -> None:
    experts = make(setting, torch.float32, width=13, inner=7)
    choices = [[(kind, name) for name in named] for kind, named in forms._FORMS.items()]
    for num_tokens in (0, 1, 37):
        x_TD = torch.randn(num_tokens, 13)
        for plan in plans(num_tokens).values():
            expected = results("loop", x_TD, plan, experts, plan.weights_N)
            for names in itertools.product(*choices):
                forced(dict(names))
                require_same(results(executor, x_TD, plan, experts, plan.weights_N), expected, torch.float32)


def test_other_forms_are_counted_as_the_same_operations(forced) -> None:
    forced({"outputs": "onednn", "inputs": "onednn", "weights": "onednn"})
    experts, plan = make("swiglu", torch.float32, width=16, inner=8), plans(37)["spread"]
    x_TD = torch.randn(37, 16)
    _, flops = executed_flops(lambda: results("segments", x_TD, plan, experts, plan.weights_N))
    assert flops == 3 * 6 * plan.num_pairs * 16 * 8


def test_the_choice_is_made_once_by_time(monkeypatch) -> None:
    seconds = {"own": 3.0, "onednn": 1.0, "turned": 2.0}
    by_form = {form: seconds[name] for name, form in forms._FORMS["outputs"].items()}
    turns = []

    def timed(form, left, right):
        turns.append(left.shape[0])
        return by_form[form]

    monkeypatch.setattr(forms, "_seconds", timed)
    forms.fastest.cache_clear()
    weight_JK = torch.zeros(512, 512)
    assert forms._chosen("outputs", 100, weight_JK, forms.LARGE) is forms._onednn
    count = len(turns)
    assert set(turns) == {forms.MANY}
    assert forms._chosen("outputs", 5000, weight_JK, forms.LARGE) is forms._onednn
    assert len(turns) == count
    seconds["onednn"] = by_form[forms._onednn] = 2.9
    by_form[forms._turned] = 2.9
    forms.fastest.cache_clear()
    own = forms._FORMS["outputs"]["own"]
    assert forms._chosen("outputs", 100, weight_JK, forms.LARGE) is own, "not enough to leave torch's own"
    for like, numbers in ((weight_JK.bfloat16(), forms.LARGE), (weight_JK, forms.LARGE - 1)):
        assert forms._chosen("outputs", 60, like, numbers) is own
    assert forms._chosen("outputs", 1, weight_JK, forms.LARGE) is own
    forms.fastest.cache_clear()


def test_a_gates_many_tokens_are_multiplied_in_the_fastest_form(monkeypatch) -> None:
    asked: list[tuple[object, ...]] = []

    def fastest(*about: object) -> str:
        asked.append(about)
        return "onednn"

    monkeypatch.setattr(forms, "fastest", fastest)
    weight_ED = torch.randn(64, 256, requires_grad=True)
    num_tokens = forms.MUCH // weight_ED.numel()
    x_TD = torch.randn(num_tokens, 256)
    recorded = fp32_logits(x_TD, weight_ED)
    assert recorded.requires_grad
    with torch.no_grad():
        few = fp32_logits(x_TD[1:], weight_ED)
        assert not asked, "so few that nothing is timed"
        found = fp32_logits(x_TD, weight_ED)
    assert asked == [("outputs", forms.MANY, torch.get_num_threads())]
    assert torch.allclose(found, recorded, atol=1e-4)
    assert torch.equal(few, torch.nn.functional.linear(x_TD[1:], weight_ED))


def test_deterministic_mode_takes_torchs_own(monkeypatch) -> None:
    monkeypatch.setattr(forms, "fastest", lambda *_: "onednn")
    weight_JK = torch.zeros(512, 512)
    assert forms._chosen("outputs", 100, weight_JK, forms.LARGE) is forms._onednn
    torch.use_deterministic_algorithms(True)
    try:
        assert forms._chosen("outputs", 100, weight_JK, forms.LARGE) is forms._FORMS["outputs"]["own"]
    finally:
        torch.use_deterministic_algorithms(False)


def test_timing_moves_no_random_numbers_and_is_not_counted() -> None:
    forms.fastest.cache_clear()
    before = torch.get_rng_state()
    name, flops = executed_flops(lambda: forms.fastest("weights", 10, 1))
    assert name in forms._FORMS["weights"]
    assert flops == 0
    assert torch.equal(torch.get_rng_state(), before)
