"""On a GPU nothing waits to learn whether a number is NaN; here a processor is asked in the same way."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.nn.moe_models import decisive, tokens
from turnout.checks.gate_batch import batch
from turnout.core.errors import InputError
from turnout.nn import gate_hook, plan, plan_order, registry, token_ids
from turnout.nn import late as late_module
from turnout.nn.gate_hook import GateHook
from turnout.nn.gates import contract
from turnout.nn.gates.contract import Gate, GateContext
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.late import refuse_arrived, refuse_later, same, sign
from turnout.nn.plan import SparsePlan
from turnout.nn.plan_order import by_expert, by_expert_on_gpu

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "equal")
"""Operations that need to know numbers, whose results have sizes that depend on them among these."""

ASKS = frozenset({"tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"})

WAITS = {
    "attention_k": "a token has as many experts as it needs",
    "base-True": "an assignment is solved step by step",
    "block_ffn": "a token has as many experts as are above zero",
    "compete-True": "a number of the processor decides how a step goes",
    "dirichlet-True": "the series of its loss ends where it is exact",
    "dynamoe": "a token has as many experts as are above a bar",
    "expert_choice": "an expert takes as many tokens as there are",
    "null_experts": "a token may have none",
    "rectify": "an expert takes as many tokens as there are",
    "relu": "a token has as many experts as are above zero",
    "rex": "how many are open depends on the step, which the state dict keeps",
    "sinkhorn-True": "a number of the processor decides how a step goes",
    "smoe_dropout": "how many are open depends on the step, which the state dict keeps",
    "sparse_transport_choice": "an expert takes as many tokens as the plan gives it",
    "stable": "ids beyond its vocabulary would stop the device",
    "switch-True": "an expert has room for some",
    "timestep_choice": "an expert takes as many tokens as there are",
    "top_p": "a token has as many experts as hold p",
}
"""Gates that need to know a number, in one mode or in both, and why; all others wait for nothing."""


class Asked(Exception):
    """Somebody read a number."""


class NobodyReads(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._overloadpacket.__name__
        is_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITING or is_mask:
            raise Asked(name)
        return func(*args, **(kwargs or {}))


class NobodyAsks(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ASKS:
            raise Asked(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def late(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(plan, "SHORT", -1)
    for module in (contract, plan, plan_order, gate_hook, token_ids):
        monkeypatch.setattr(module, "is_late", lambda _device: True)
    yield
    try:
        refuse_arrived(wait=True)
    except InputError:
        pytest.fail("a test left what it did not look at")


GATES = [name for name in registry if issubclass(registry.get(name), Gate)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", GATES)
def test_who_waits_for_a_number_says_why(name, training, monkeypatch) -> None:
    for module in (contract, late_module):
        monkeypatch.setattr(module, "refuse_arrived", lambda **_how: None)
    gate = registry.get(name)(width=16, num_experts=8).train(training)
    given = batch(gate)
    states_TD, context = given.x_BSD.reshape(-1, 16), given.context()
    if name in WAITS or f"{name}-{training}" in WAITS:
        with pytest.raises(Asked), NobodyReads(), NobodyAsks():
            gate(states_TD, context)
    else:
        with NobodyReads(), NobodyAsks():
            gate(states_TD, context)
    # What was asked so far is no fault of this batch.
    refuse_arrived(wait=True)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_refused_by_the_next_pass(value) -> None:
    gate, x_TD = TopKGate(width=16, num_experts=8), torch.randn(6, 16)
    broken_TD = x_TD.clone()
    broken_TD[1, 0] = value
    gate(broken_TD)
    with pytest.raises(InputError, match="TopKGate: logits of a token of this or an earlier pass are NaN"):
        gate(x_TD)
    gate(broken_TD)
    with pytest.raises(InputError, match="NaN or infinite"):
        refuse_arrived(wait=True)
    gate(x_TD)
    refuse_arrived(wait=True)


def test_the_layer_that_was_wrong_is_named_and_not_the_one_that_asks() -> None:
    gates = [TopKGate(width=16, num_experts=8) for _ in range(3)]
    gates[1].weight_ED.data[0, 0] = torch.nan
    x_TD = torch.randn(6, 16)
    for number, gate in enumerate(gates):
        if number == 2:
            with pytest.raises(InputError, match=r"TopKGate \(layer 1 of 0 to 2\): logits of a token"):
                gate(x_TD, GateContext(layer=number, num_layers=3))
        else:
            gate(x_TD, GateContext(layer=number, num_layers=3))
    gates[1](x_TD, GateContext(layer=1, num_layers=3, name="model.layers.7.mlp"))
    with pytest.raises(InputError, match=r"model\.layers\.7\.mlp \(TopKGate\): logits of a token"):
        refuse_arrived(wait=True)


def test_what_stands_at_padding_is_refused_by_nobody_and_padding_alone_is() -> None:
    gate, x_TD = TopKGate(width=16, num_experts=8), torch.randn(6, 16)
    x_TD[1] = torch.nan
    mask_BS = torch.ones(1, 6, dtype=torch.bool)
    mask_BS[0, 1] = False
    gate(x_TD, GateContext(mask_BS=mask_BS))
    refuse_arrived(wait=True)
    gate(x_TD, GateContext(mask_BS=torch.zeros_like(mask_BS)))
    with pytest.raises(InputError, match="all tokens are masked"):
        refuse_arrived(wait=True)


def test_weights_and_states_without_logits_are_looked_at_too() -> None:
    class Bare(TopKGate):
        def decide(self, x_TD, context):
            factor = 1.0 if self.training else torch.nan
            return SparsePlan.from_choices(
                torch.ones(len(x_TD), 1) * factor, torch.zeros(len(x_TD), 1).long(), num_experts=8
            )

    gate, x_TD = Bare(width=16, num_experts=8), torch.randn(6, 16)
    gate.eval()(x_TD)
    with pytest.raises(InputError, match="Bare: its weights"):
        refuse_arrived(wait=True)
    x_TD[2, 3] = -torch.inf
    gate.train()(x_TD)
    with pytest.raises(InputError, match="Bare: hidden states of a token"):
        refuse_arrived(wait=True)


def test_a_recording_ends_with_what_its_last_pass_held() -> None:
    model = decisive("olmoe")
    hook = GateHook(model, needs_rules=False)
    with hook.recording() as records:
        model(input_ids=tokens())
    assert len(records[0]) == 1
    hook.layers[1].gate.get_parameter("weight").data[0, 0] = torch.nan
    with pytest.raises(InputError, match="logits of a token of this or an earlier"), hook.recording():
        model(input_ids=tokens())


class NobodyNames(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == "numpy":
            raise Asked("numpy")
        return func(*args, **(kwargs or {}))


def test_ids_are_named_when_they_are_asked_for_and_as_they_were() -> None:
    model, ids_BS, other_BS = decisive("olmoe"), tokens(), tokens().flip(0)
    hook = GateHook(model, needs_rules=False)
    with hook.recording() as records:
        with NobodyNames():
            model(input_ids=ids_BS)
        kept_BS = ids_BS.clone()
        ids_BS.copy_(other_BS)
        model(input_ids=ids_BS)
        ids_BS.copy_(kept_BS)
        model(input_ids=ids_BS)
    first, other, again = (routing.tokens for routing in records[0])
    assert first == again != other
    assert first is not None
    assert len(first) == 16
    assert pickle.loads(pickle.dumps(records[1][0])).tokens == first  # noqa: S301
    assert replace(records[1][0], tokens="named").tokens == "named"


@pytest.mark.parametrize("num_tokens", [0, 1, 50])
@pytest.mark.parametrize("has_holes", [False, True])
def test_pairs_are_put_in_the_order_of_a_processor(num_tokens, has_holes, monkeypatch) -> None:
    monkeypatch.undo()
    indices_TK = torch.randint(7, (num_tokens, 3))
    kept_TK = torch.rand(num_tokens, 3) < 0.5 if has_holes else None
    expected = by_expert(indices_TK, 7, kept_TK)
    for one, other in zip(by_expert_on_gpu(indices_TK, 7, kept_TK), expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("expert", [-1, -70000, 7, 2**16 + 3])
def test_an_expert_that_is_none_is_refused_once_it_is_known(expert) -> None:
    indices_TK = torch.randint(7, (50, 3))
    indices_TK[4, 1] = expert
    SparsePlan.from_choices(torch.rand(50, 3), indices_TK, num_experts=7)
    with pytest.raises(InputError, match=r"indices_TK.*0 to 6"):
        refuse_arrived(wait=True)


def test_a_sign_is_read_once_whoever_it_is_of() -> None:
    processor = torch.device("cpu")
    errors = [same(_error, number) for number in range(300)]
    places = [sign(error, processor) for error in errors]
    assert sign(same(_error, 299), processor) is places[299]
    places[299].fill_(5)
    with pytest.raises(InputError, match="number 299"):
        refuse_arrived()
    refuse_arrived(wait=True)
    assert not any(places)


def _error(number: int) -> InputError:
    return InputError(f"number {number}")


def test_what_is_asked_where_no_gate_runs_is_looked_at_by_the_next_question() -> None:
    pairs_N, answers = torch.arange(3), late_module._waiting.answers
    for _ in range(50):
        SparsePlan.from_pairs(pairs_N, pairs_N, torch.ones(3), num_tokens=3, num_experts=4)
    assert len(answers) <= 2
    plan.check_within("tokens", pairs_N, 2)
    with pytest.raises(InputError, match=r"tokens.*0 to 1"):
        SparsePlan.from_pairs(pairs_N, pairs_N, torch.ones(3), num_tokens=3, num_experts=4)
    refuse_arrived(wait=True)


@pytest.mark.parametrize("wrong", [-1, 4, 2**40])
@pytest.mark.parametrize("is_token", [False, True])
def test_pairs_outside_stop_no_device_before_they_are_refused(wrong, is_token) -> None:
    right_N, wrong_N = torch.arange(3), torch.tensor([0, wrong, 2])
    tokens_N, experts_N = (wrong_N, right_N) if is_token else (right_N, wrong_N)

    def asked() -> None:
        # The question about experts looks at what was answered about tokens.
        made = SparsePlan.from_pairs(tokens_N, experts_N, torch.ones(3), num_tokens=4, num_experts=4)
        made.validate()
        refuse_arrived(wait=True)

    with pytest.raises(InputError, match=r"from_pairs: (tokens|experts)_N; allowed: 0 to 3"):
        asked()


class _Slow:
    """An event of a device that is behind: what it stands for has arrived once somebody waits."""

    has_come = False

    def query(self) -> bool:
        return self.has_come

    def synchronize(self) -> None:
        self.has_come = True


def test_no_more_than_so_many_answers_wait_for_a_device_that_is_behind() -> None:
    answers, error = late_module._waiting.answers, same(_error, 7)
    behind = [
        late_module._Answer(values_N=torch.zeros(1), errors=(error,), arrival=_Slow())
        for _ in range(late_module.MOST)
    ]
    answers.extend(behind[:-1])
    refuse_later({error: torch.tensor(0.0)})
    assert len(answers) == late_module.MOST, "nobody waits for what is on its way"
    refuse_later({error: torch.tensor(torch.nan)})
    assert len(answers) == 1
    with pytest.raises(InputError, match="number 7"):
        refuse_arrived(wait=True)


class _Untouchable:
    """An event while a graph is captured: whoever asks it or waits for it ends the capture."""

    def query(self) -> bool:
        raise RuntimeError("operation not permitted when stream is capturing")

    synchronize = query


def test_while_a_graph_is_captured_nobody_asks_an_event_or_waits(monkeypatch) -> None:
    error = same(_error, 9)
    late_module._waiting.answers.append(
        late_module._Answer(values_N=torch.tensor([torch.nan]), errors=(error,), arrival=_Untouchable())
    )
    gate, x_TD = TopKGate(width=16, num_experts=8), torch.randn(6, 16)
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_initialized", lambda: True)
        patched.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        refuse_arrived()
        refuse_arrived(wait=True)
        gate(x_TD)
        # What a kernel of an earlier pass wrote is memory of the processor, and is read as ever.
        place = sign(same(_error, 10), torch.device("cpu"))
        place.fill_(1)
        with pytest.raises(InputError, match="number 10"):
            refuse_arrived()
    refuse_arrived(wait=True)


def test_while_a_graph_is_captured_no_memory_of_the_processor_is_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(late_module, "_waiting", late_module._Waiting())
    processor = torch.device("cpu")
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_initialized", lambda: True)
        patched.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        place = sign(same(_error, 11), processor)
        assert place.shape == (1,)
        assert not late_module._waiting.boards
    assert sign(same(_error, 11), processor) is not place
    assert len(late_module._waiting.boards) == 1
