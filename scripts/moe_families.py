"""This module writes docs/moe_families.md: what turnout can do with each family's gate.

    python -m scripts.moe_families           write the page (about half a minute)

Of every module that gives itself `experts` a tiny block with random weights is built, and asked: can its gate
be recorded and replayed bit for bit, can another take its place, do executors run its experts, and does it
follow a known rule? Where
experts stand in a whole decoder layer a tiny model is built instead. What cannot be built is listed too.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from turnout.core.errors import TurnoutError
from turnout.nn.executors.auto import make_executor
from turnout.nn.experts import stack_of
from turnout.nn.gate_hook import GateHook
from turnout.nn.gate_stand_in import width_of
from turnout.nn.gate_swap import GateSwap
from turnout.nn.gates.top_k import TopKGate
from turnout.nn.moe import MoELayer, find_moe_layers
from turnout.nn.moe_rule import GateRule, find_rule
from turnout.nn.plan import SparsePlan
from turnout.nn.replay import replaying

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "moe_families.md"
MODELS = Path(transformers.__file__).parent / "models"
WIDTH, INNER, EXPERTS, CHOSEN = 32, 16, 8, 2
ARGUMENTS = {"layer_idx": 3, "layer_id": 3, "intermediate_size": INNER, "ffn_dim": INNER}
LINE = 110
"""So long may an obstacle be."""

SIZES = {
    "vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
GEMMA = {
    **SIZES, "num_attention_heads": 4, "head_dim": 8, "global_head_dim": 8, "num_experts": EXPERTS,
    "top_k_experts": CHOSEN, "moe_intermediate_size": INNER, "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of one block."""

    family: str
    block: str
    replayed: str
    """`exact`, or the obstacle."""
    swapped: str
    """`exact`, or the obstacle."""
    executed: str
    """`same`, or the obstacle."""
    rule: GateRule | None
    obstacle: str
    """Why there is no rule."""


def families() -> Iterator[Found]:
    """Yield a finding for each block of experts in the installed `transformers`."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    for path in sorted(MODELS.glob("*/modeling_*.py")):
        if "self.experts =" in path.read_text(encoding="utf-8"):
            yield from family(path.parent.name, path.stem)


def family(name: str, stem: str | None = None) -> Iterator[Found]:
    """Yield a finding for each block of one family."""
    modeling = importlib.import_module(f"transformers.models.{name}.{stem or f'modeling_{name}'}")
    configuration = importlib.import_module(modeling.__name__.replace(".modeling_", ".configuration_"))
    if name in BY_HAND:
        yield from _by_hand(name, modeling, configuration)
        return
    for block_class in _blocks(modeling):
        built = _built(block_class, configuration)
        if isinstance(built, str):
            yield _refused(name, block_class.__name__, built)
            continue
        holder = nn.Module()
        holder.block = built
        yield _asked(name, built, holder, partial(_run_block, built))


def _refused(name: str, block: str, obstacle: str, replayed: str = "-") -> Found:
    nothing: dict[str, Any] = {"swapped": "-", "executed": "-", "rule": None}
    return Found(family=name, block=block, replayed=replayed, obstacle=obstacle, **nothing)


def _run_block(block: nn.Module) -> Tensor:
    hidden_BSD = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    out = block(hidden_BSD)
    found = out[0] if isinstance(out, tuple) else out
    assert isinstance(found, Tensor)
    return found.clone()


def _gemma4(modeling: ModuleType, configuration: ModuleType) -> nn.Module:
    config = configuration.Gemma4TextConfig(
        **GEMMA, enable_moe_block=True, hidden_size_per_layer_input=0, num_kv_shared_layers=0
    )
    return _module(modeling.Gemma4ForCausalLM(config))


def _diffusion_gemma(modeling: ModuleType, configuration: ModuleType) -> nn.Module:
    text = configuration.DiffusionGemmaTextConfig(**GEMMA)
    config = configuration.DiffusionGemmaConfig(text_config=text, vision_config=None, canvas_length=5)
    return _module(modeling.DiffusionGemmaForBlockDiffusion(config))


def _jetmoe(modeling: ModuleType, configuration: ModuleType) -> nn.Module:
    config = configuration.JetMoeConfig(
        **SIZES, kv_channels=16, num_local_experts=EXPERTS, num_experts_per_tok=CHOSEN
    )
    return _module(modeling.JetMoeForCausalLM(config))


def _module(model: Any) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model


BY_HAND: dict[str, Callable[[ModuleType, ModuleType], nn.Module]] = {
    "gemma4": _gemma4,
    "diffusion_gemma": _diffusion_gemma,
    "jetmoe": _jetmoe,
}
"""Families whose experts stand in a whole decoder layer: a tiny model of each."""


def _by_hand(name: str, modeling: ModuleType, configuration: ModuleType) -> Iterator[Found]:
    torch.manual_seed(0)
    model = BY_HAND[name](modeling, configuration)
    _randomise(model)
    ids_BS = torch.randint(3, 64, (2, 5), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids_BS}
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        inputs["decoder_input_ids"] = ids_BS
    kinds: dict[str, nn.Module] = {}
    for layer in find_moe_layers(model):
        kinds.setdefault(type(layer.block).__name__, layer.block)
    for block in kinds.values():
        yield _asked(name, block, model, partial(_run_model, model, inputs))


def _run_model(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    logits = model(**inputs).logits
    assert isinstance(logits, Tensor)
    return logits.clone()


def _randomise(module: nn.Module) -> None:
    for value in [*module.parameters(), *module.buffers()]:
        if value.is_floating_point() and value.ndim:
            nn.init.normal_(value, std=0.5)
    module.eval()


def _blocks(modeling: ModuleType) -> Iterator[type[nn.Module]]:
    """Yield the classes whose constructor makes `experts`."""
    for value in vars(modeling).values():
        is_own = inspect.isclass(value) and value.__module__ == modeling.__name__
        if is_own and issubclass(value, nn.Module) and "__init__" in vars(value):
            source = inspect.getsource(value.__init__)
            if "self.experts =" in source:
                yield value


def _built(block_class: type[nn.Module], configuration: ModuleType) -> nn.Module | str:
    """Return a tiny block with random weights, or why it cannot be built."""
    parameters = inspect.signature(block_class.__init__).parameters
    named = [getattr(p.annotation, "__name__", str(p.annotation)) for p in parameters.values()]
    configs = [c for c in vars(configuration).values() if inspect.isclass(c) and hasattr(c, "model_type")]
    configs = [c for c in configs if c.__module__ == configuration.__name__]
    configs.sort(key=lambda c: (c.__name__ not in named, -_alike(c.__name__, block_class.__name__)))
    why = ""
    for config_class in configs:
        try:
            config = _shrunk(config_class())
            config._experts_implementation = "eager"
            torch.manual_seed(0)
            arguments = {k: v for k, v in ARGUMENTS.items() if k in parameters}
            block = _completed(partial(block_class, config, **arguments), config)
        except Exception as error:  # noqa: BLE001  (any class of any version; what it says is the finding)
            why = why or f"not built: {type(error).__name__}: {error}".splitlines()[0][:LINE]
            continue
        _randomise(block)
        return block
    return why or "not built: no configuration"


def _completed(make: Callable[[], nn.Module], config: Any) -> nn.Module:
    """Make a block; sizes that a checkpoint brings and the class of its configuration leaves out are set."""
    while True:
        try:
            return make()
        except AttributeError as error:
            missing = str(error.name)
            if hasattr(config, missing) or "intermediate" not in missing:
                raise
            setattr(config, missing, INNER)


def _alike(one: str, other: str) -> int:
    """Return with how many letters two names begin in the same way."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _shrunk(config: Any) -> Any:
    """Make every size of a configuration small."""
    for name, value in list(vars(config).items()):
        if hasattr(value, "model_type"):
            _shrunk(value)
        elif name.startswith("enable_moe"):
            setattr(config, name, True)
        elif value is None or (isinstance(value, int) and not isinstance(value, bool)):
            size = _size(name, value)
            if size is not None:
                setattr(config, name, size)
    return config


def _size(name: str, value: int | None) -> int | None:
    """Return the small size of a setting, None for one that is no size."""
    is_count = "expert" in name and "shared" not in name and "group" not in name
    if "per_tok" in name or name in ("top_k", "moe_topk", "moe_k"):
        return CHOSEN
    if is_count and (name.startswith(("num", "n_")) or "num_experts" in name):
        return EXPERTS
    if value is None:
        return 1 if "shared_experts" in name else None
    if name in ("hidden_size", "d_model", "embed_dim"):
        return WIDTH
    if "intermediate" in name or name in ("expert_ffn_hidden_size", "ffn_hidden_size", "ffn_dim", "d_ff"):
        return INNER
    caps = {
        "part_features": 8, "n_group": 4, "num_expert_group": 4, "topk_group": 2, "vocab_size": 64,
        "head_dim": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4,
    }  # fmt: skip
    return min(value, caps[name]) if name in caps else None


def _asked(name: str, block: nn.Module, model: nn.Module, run: Callable[[], Tensor]) -> Found:
    kind = type(block).__name__
    try:
        hook = GateHook(model, needs_rules=False)
    except TurnoutError as error:
        return _refused(name, kind, "no gate to ask", replayed=_got(error))
    number = next((i for i, layer in enumerate(hook.layers) if layer.block is block), 0)
    swapped = _tried(partial(_swapped, model, hook, number, run))
    replayed = _tried(partial(_replayed, hook, number, run))
    executed = _tried(partial(_executed, hook.layers[number]))
    rule, obstacle = None, ""
    try:
        rule = find_rule(hook.layers[number])
    except TurnoutError as error:
        obstacle = _got(error)
    return Found(
        family=name, block=kind, replayed=replayed, swapped=swapped, executed=executed,
        rule=rule, obstacle=obstacle,
    )  # fmt: skip


@torch.no_grad()
def _tried(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except TurnoutError as error:
        return _got(error)
    except Exception as error:  # noqa: BLE001  (any class of any version; what it says is the finding)
        return f"not run: {type(error).__name__}: {error}".splitlines()[0][:LINE]


def _swapped(model: nn.Module, hook: GateHook, number: int, run: Callable[[], Tensor]) -> str:
    """Return `exact` if the experts do what another gate says, and the family's is back afterwards."""
    with hook.recording() as records:
        plain = run()
    layer, k = hook.layers[number], records[number][0].indices_TK.shape[1]

    def make(found: MoELayer) -> TopKGate | None:
        if found.block is not layer.block:
            return None
        return TopKGate(width=width_of(found), num_experts=found.num_experts, k=k)

    swap = GateSwap(model, make)
    with hook.recording() as records:
        swapped = run()
    swap.remove()
    back = run()
    with replaying(hook, records):
        told = run()
    if torch.equal(swapped, plain) or not torch.equal(told, swapped):
        return "the experts do otherwise"
    return "exact" if torch.equal(back, plain) else "the family's gate is not back"


def _replayed(hook: GateHook, number: int, run: Callable[[], Tensor]) -> str:
    """Return `exact` if what was recorded is repeated bit for bit by a gate that has changed."""
    with hook.recording() as records:
        plain = run()
    for parameter in hook.layers[number].gate.parameters():
        parameter.neg_()
    changed = run()
    with replaying(hook, records):
        again = run()
    if not records[number]:
        return "its gate is never called"
    if not torch.equal(again, plain):
        return "the output differs"
    return "exact" if not torch.equal(changed, plain) else "the gate does not matter"


def _executed(layer: MoELayer) -> str:
    """Return `same` if an executor gives what the family's experts do of the same choices, to rounding."""
    stack = stack_of(layer.experts)
    random = torch.Generator().manual_seed(0)
    x_TD = torch.randn(37, stack.width, generator=random)
    weights_TK, indices_TK = torch.rand(37, stack.num_experts, generator=random).topk(CHOSEN)
    plan = SparsePlan.from_choices(weights_TK, indices_TK, num_experts=stack.num_experts)
    own_TD = layer.experts(x_TD, indices_TK, weights_TK).reshape(x_TD.shape)
    y_TD = make_executor("auto").run(x_TD, plan, layer.experts)
    bound = 1e-5 * float(own_TD.abs().max())
    return "same" if torch.allclose(y_TD, own_TD, rtol=0, atol=bound) else "the output differs"


def _got(error: TurnoutError) -> str:
    """Return the obstacle that a sentence names."""
    return str(error).partition("got: ")[2].strip("\"'") or str(error).partition("; allowed: ")[0]


def page() -> str:
    """Return the page."""
    found = list(families())
    held = [[x in ("exact", "same") for x in (o.replayed, o.swapped, o.executed)] for o in found]
    exact, swapped, executed = map(sum, zip(*held, strict=True))
    ruled = sum(one.rule is not None for one in found)
    lines = [
        "# Families of experts\n",
        "<!-- Written by scripts/moe_families.py: run `python -m scripts.moe_families`. -->\n",
        f"The blocks of experts in `transformers` {transformers.__version__}, each built tiny with random "
        "weights and asked. *Replay*: what `GateHook.recording` kept is repeated by `replaying` bit for bit "
        "after the gate was changed. *Swap*: with `GateSwap` the experts do, bit for bit, what a `top_k` "
        "gate says, and the family's gate is back afterwards. *Experts*: an executor of turnout gives of the "
        "same choices what the family's own code gives, to rounding. *Rule*: score, weight, selection bias, "
        "groups; `GateHook.steered` and `Rewiring` need it, and it is proved on the gate's own outputs.",
        "",
        f"{len(found)} blocks: {exact} replayed exactly, {swapped} swapped exactly, {executed} with experts "
        f"that executors run, {ruled} with a known rule.",
        "",
        "| family | block | replay | swap | experts | rule, or its obstacle |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        asked = (one.replayed, one.swapped, one.executed, _rule(one))
        cells = [one.family, f"`{one.block}`", *map(_cell, asked)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _rule(one: Found) -> str:
    rule = one.rule
    if rule is None:
        return one.obstacle
    parts: list[str] = [rule.score, rule.weight]
    if rule.bias_name:
        parts.append("selection bias" if "." in rule.bias_name else "selection bias of the block")
    parts += ["chosen by logits"] if rule.chosen_by == "logits" else []
    parts += ["a scale of each expert"] if rule.expert_scale_name else []
    parts += [f"{rule.num_groups} groups"] if rule.num_groups > 1 else []
    return ", ".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
