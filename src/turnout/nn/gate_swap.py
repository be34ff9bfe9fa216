"""This module puts gates of turnout's in the place of a checkpoint's, and keeps them in a file beside it.

A family's gate stays the module that it was, with its weights and its place in the state dict; its class
becomes a subclass that asks another gate. So blocks, experts, backends, the model's own recorder of router
logits and `generate` go on working, and what is saved of the model is the base. The new gates live outside.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from turnout.core.errors import ArtifactError, InputError, ShapeError, sentence
from turnout.nn import registry
from turnout.nn.fingerprint import FORM, fingerprint, stored_weights
from turnout.nn.gate_pass import ForwardPass, called_with_tokens
from turnout.nn.gate_port import PROBE_TOKENS
from turnout.nn.gate_stand_in import StandIn, width_of
from turnout.nn.gates.contract import Gate, GateContext
from turnout.nn.held import SWAP, Held
from turnout.nn.left_out import LeftOutWatch
from turnout.nn.moe import MoELayer, find_moe_layers
from turnout.nn.no_graph import no_graph
from turnout.nn.plan import Plan, SparsePlan
from turnout.nn.sidecar import load_sidecar, save_sidecar
from turnout.nn.stock_names import stock_name, stock_weights

KIND = "gates"
KNOWN = ("mask_BS", "token_ids_BS", "state", "experts")
"""What a swapped gate may need, beside hidden states."""


class GateSwap(nn.Module):
    """Gates in the place of those of a model, from its construction until `remove`.

    Its parameters are those of the new gates, for an optimiser; `after_step` is to be called after each step.
    Train and eval mode are those of the model.

    Parameters
    ----------
    model
        Any `transformers` model whose gates hand out a choice in a form of `turnout.nn.gate_form`.
    make
        From a layer to its gate, which has to give sparse plans; None keeps the family's gate.

    Attributes
    ----------
    layers
        The blocks whose gates were swapped, in the order of depth.
    gates
        Their gates, one that serves several layers once; `gate_numbers` says which is whose.
    plans
        The plan of each layer in the last forward pass, None before; for losses and analysis.

    Raises `ShapeError` for a gate of other experts or another width, and `InputError` for a gate that the
    family's experts can't serve, a gate that was swapped already, and a family whose gate can't be reached.
    """

    def __init__(self, model: nn.Module, make: Callable[[MoELayer], Gate | None]) -> None:
        super().__init__()
        # Not registered: the model's parameters are not the swap's.
        self._model = (model,)
        found = find_moe_layers(model)
        made = [(number, layer, make(layer)) for number, layer in enumerate(found)]
        kept = [(number, layer, gate) for number, layer, gate in made if gate is not None]
        if not kept:
            raise InputError(sentence("GateSwap: make", allowed="a gate for one layer at least", got="none"))
        self.layers = [layer for _, layer, _ in kept]
        # One gate may serve several layers; it is kept, trained and saved once.
        unique = list({id(gate): gate for _, _, gate in kept}.values())
        self.gates = nn.ModuleList(unique)
        self.gate_numbers = [next(i for i, one in enumerate(unique) if one is gate) for _, _, gate in kept]
        for _, layer, gate in kept:
            _check(layer, gate)
        self.plans: list[Plan | None] = [None] * len(kept)
        # Whether each of them was made where gradients are recorded.
        self._has_graph = [False] * len(kept)
        # An encoder and a decoder are counted apart.
        stacks = [called_with_tokens(model, layer.name) for layer in found]
        called = [stacks[number] for number, _, _ in kept]
        self._places = [
            (sum(stack is stacks[n] for stack in stacks[:n]), sum(stack is stacks[n] for stack in stacks))
            for n, _, _ in kept
        ]
        passes = {module: ForwardPass() for module in called}
        self._passes = [passes[module] for module in called]
        self._stand_ins = [StandIn(layer, self._asker(index)) for index, layer in enumerate(self.layers)]
        self._handles = [
            module.register_forward_pre_hook(Held(one.of_model, SWAP), with_kwargs=True)
            for module, one in passes.items()
        ]
        watch = LeftOutWatch(model, self.gates)
        self._handles.append(model.register_forward_pre_hook(Held(lambda _model, _args: watch.look(), SWAP)))
        for stand_in, one in zip(self._stand_ins, self._passes, strict=True):
            block = stand_in.layer.block
            self._handles.append(block.register_forward_pre_hook(Held(one.of_block, SWAP), with_kwargs=True))
            stand_in.put_in()

    @classmethod
    def of(cls, model: nn.Module, name: str, *, is_shared: bool = False, **config: Any) -> GateSwap:
        """Put the gate of a name of `turnout.nn.registry` into every layer, of the layer's E and width.

        A gate that wants to know `num_layers` is told. `is_shared` makes one gate for all layers, as
        `recurrent` wants it.
        """
        shared: list[Gate] = []
        if "num_layers" in inspect.signature(_gate_class(name)).parameters:
            config = {"num_layers": len(find_moe_layers(model))} | config

        def make(layer: MoELayer) -> Gate:
            if shared:
                return shared[0]
            gate: Gate = _gate_class(name)(width=width_of(layer), num_experts=layer.num_experts, **config)
            gate = gate.to(_weight(layer).device)
            if is_shared:
                shared.append(gate)
            return gate

        return cls(model, make)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse: what answers in the model's gates is not in a copy or a pickle."""
        raise SWAP.refused()

    @property
    def model(self) -> nn.Module:
        """The model whose gates these are."""
        return self._model[0]

    def after_step(self) -> None:
        """Let each gate learn what no gradient teaches, after an optimiser's step."""
        for gate in self.gates:
            assert isinstance(gate, Gate)
            gate.after_step()

    def losses(self, factors: Mapping[str, float] | None = None) -> Tensor:
        """Return the sum of what the gates want added to the loss, of the last forward pass.

        Each loss is multiplied by its factor of `factors`, by name; by 1 where that has none. Raises
        `InputError` for a factor of a loss that no gate has, and, where gradients are recorded, for losses of
        a pass without them, such as the first one under reentrant checkpointing: they would teach nothing.
        """
        for plan, has_graph in zip(self.plans, self._has_graph, strict=True):
            if plan is not None and plan.losses and torch.is_grad_enabled() and not has_graph:
                raise no_graph(f"losses {', '.join(sorted(plan.losses))} of the gates")
        named = [item for plan in self.plans if plan is not None for item in plan.losses.items()]
        factors, names = factors or {}, sorted({name for name, _ in named})
        if named and (unknown := sorted(set(factors) - set(names))):
            raise InputError(sentence("losses: factors", allowed=", ".join(names), got=", ".join(unknown)))
        scaled = [factors.get(name, 1.0) * loss for name, loss in named]
        return torch.stack(scaled).sum() if scaled else torch.zeros(())

    def remove(self) -> None:
        """Give the model its own gates back."""
        for stand_in in self._stand_ins:
            stand_in.take_out()
        for handle in self._handles:
            handle.remove()

    def save(self, folder: str | Path) -> Path:
        """Write the gates beside the checkpoint; return the JSON's path.

        Raises `InputError` for a gate that is not in the registry, or of arguments that JSON does not give
        back.
        """
        gates = [
            {"config": _stored_config(gate), "gate": registry.name_of(type(gate))} for gate in self.gates
        ]
        names = [_stock_name(self.model, layer) for layer in self.layers]
        layers = dict(zip(names, self.gate_numbers, strict=True))
        config = {"base": base_fingerprint(self.model), "gates": gates, "layers": layers}
        return save_sidecar(folder, KIND, config=config, tensors=self.gates.state_dict())

    @classmethod
    def load(cls, model: nn.Module, folder: str | Path) -> GateSwap:
        """Put the gates of a side file into the model that they were made for.

        Raises `ArtifactError` for another base, by its weights, and for a file that does not fit.
        """
        config, tensors = load_sidecar(folder, KIND)
        found = base_fingerprint(model, like=config["base"])
        if config["base"] != found:
            raise ArtifactError(
                sentence(
                    f"the gates in {str(folder)!r} were made for another base",
                    allowed=f"weights of fingerprint {config['base']}",
                    got=found,
                    do="load the checkpoint that they were saved beside",
                )
            )
        device = next(model.parameters()).device
        gates = [_gate_class(one["gate"])(**one["config"]).to(device) for one in config["gates"]]

        def make(layer: MoELayer) -> Gate | None:
            number = config["layers"].get(_stock_name(model, layer), config["layers"].get(layer.name))
            return None if number is None else gates[number]

        swap = cls(model, make)
        try:
            swap.gates.load_state_dict(tensors)
        except RuntimeError as error:
            swap.remove()
            raise ArtifactError(sentence(f"the gates in {str(folder)!r}", got=str(error))) from error
        return swap

    def _asker(self, index: int) -> Callable[[Tensor, bool], tuple[Tensor, Tensor, Tensor]]:
        layer, (number, num_layers) = self.layers[index], self._places[index]

        def ask(hidden: Tensor, is_training: bool) -> tuple[Tensor, Tensor, Tensor]:
            x_TD, gate = hidden.reshape(-1, hidden.shape[-1]), self.gates[self.gate_numbers[index]]
            # A decoder's first layer has none before it: the encoder's last one saw other tokens.
            is_first = not index or self._passes[index - 1] is not self._passes[index]
            before = None if is_first else self.plans[index - 1]
            has_graph = torch.is_grad_enabled()
            state = None if before is None else before.state
            had_graph = is_first or self._has_graph[index - 1]
            running = self._passes[index]
            context = running.context(
                x_TD, number, num_layers, layer.experts, state, has_graph=had_graph, name=layer.name
            )
            if context.state is not None and has_graph > running.state_has_graph:
                raise no_graph(f"{layer.name}: the state that the layer before left")
            plan = gate.train(is_training)(x_TD, context)
            self.plans[index], self._has_graph[index] = plan, has_graph
            return _choices(layer, plan, hidden.dtype)

        return ask


def base_fingerprint(model: nn.Module, *, like: object = None) -> str:
    """Return what names a model's weights, whatever gates and adapters were put in; in the form of `like`."""
    weights = stored_weights(model, like=like)
    # The first form knew nothing of adapters.
    is_first = isinstance(like, str) and not like.startswith(FORM)
    return fingerprint(weights if is_first else stock_weights(model, weights), like=like)


def _stock_name(model: nn.Module, layer: MoELayer) -> str:
    return stock_name(model, layer.name) or layer.name


def _stored_config(gate: nn.Module) -> dict[str, object]:
    """Return the arguments of a gate, if what JSON makes of them makes the same gate."""
    assert isinstance(gate, Gate)
    config = gate.config()
    try:
        read = json.loads(json.dumps(config))
        with torch.random.fork_rng(devices=[]):
            again = type(gate)(**read).config()
    except (TypeError, ValueError) as error:
        got = str(error)
    else:
        if again == config:
            return config
        got = f"{config} that comes back as {again}"
    what = f"{type(gate).__name__}: its arguments can't be saved"
    raise InputError(sentence(what, allowed="numbers, words and lists", got=got))


def _choices(layer: MoELayer, plan: Plan, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return (logits_TE, weights_TK, indices_TK) as the family's experts read them.

    A token with fewer pairs than others has -1 in its holes, with weight 0.
    """
    if not isinstance(plan, SparsePlan):
        got = f"a {type(plan).__name__}"
        what = f"{layer.name}: the family's experts run pairs (token, expert)"
        raise InputError(sentence(what, allowed="a gate with sparse plans", got=got))
    weights_TK, indices_TK, is_pair_TK = plan.to_choices()
    indices_TK = indices_TK.masked_fill(~is_pair_TK, -1)
    if not plan.num_columns:
        weights_TK = weights_TK.new_zeros(plan.num_tokens, 1)
        indices_TK = indices_TK.new_full((plan.num_tokens, 1), -1)
    logits_TE = plan.logits_TE
    if logits_TE is None:
        logits_TE = plan.to_dense().detach().float()
    is_half = dtype in (torch.float16, torch.bfloat16)
    return logits_TE, weights_TK.to(dtype) if is_half else weights_TK.float(), indices_TK


def _check(layer: MoELayer, gate: Gate) -> None:
    """Raise unless a gate fits a layer, and gives what the family's experts can run."""
    where = f"{layer.name}.{layer.gate_name}"
    if hasattr(layer.gate, "_turnout_answer"):
        raise InputError(sentence(f"{where} was swapped already", do="remove the other swap first"))
    if "forward" in vars(layer.gate):
        raise InputError(sentence(f"{where} has a forward of its own, which a class does not replace"))
    for name, own in (("num_experts", layer.num_experts), ("width", width_of(layer))):
        got = getattr(gate, name)
        if got != own:
            what = f"{where}: {name} of the gate = {name} of the checkpoint"
            raise ShapeError(sentence(what, allowed=f"{name} = {own}", got=f"{name} = {got}"))
    if missing := sorted(set(gate.needs) - set(KNOWN)):
        what = f"{type(gate).__name__} needs what a checkpoint's block does not know"
        raise InputError(sentence(what, allowed=", ".join(KNOWN), got=", ".join(missing)))
    if not set(gate.needs) - {"experts"}:
        x_TD = torch.randn(PROBE_TOKENS, gate.width, generator=torch.Generator().manual_seed(0))
        was_training = gate.training
        with torch.no_grad():
            plan = gate.eval()(x_TD.to(_weight(layer).device), GateContext(experts=layer.experts))
        gate.train(was_training)
        _choices(layer, plan, torch.float32)


def _weight(layer: MoELayer) -> Tensor:
    return next(layer.experts.parameters())


def _gate_class(name: str) -> type[Gate]:
    found = registry.get(name)
    if not issubclass(found, Gate):
        raise InputError(sentence(f"{name!r} of nn", allowed="the name of a gate", got=found.__name__))
    return found
