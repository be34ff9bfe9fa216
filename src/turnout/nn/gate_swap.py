"""This module puts gates of turnout's in the place of a checkpoint's, and keeps them in a file beside it.

A family's gate stays the module that it was, with its weights and its place in the state dict; its class
becomes a subclass that asks another gate. So blocks, experts, backends, the model's own recorder of router
logits and `generate` go on working, and what is saved of the model is the base. The new gates live outside.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from turnout.core.errors import ArtifactError, InputError, ShapeError, sentence
from turnout.nn import registry
from turnout.nn.fingerprint import fingerprint
from turnout.nn.gates.contract import Gate, GateContext
from turnout.nn.moe import MoELayer, find_moe_layers
from turnout.nn.moe_rule import checked
from turnout.nn.plan import Plan, SparsePlan
from turnout.nn.sidecar import load_sidecar, save_sidecar

KIND = "gates"
KNOWN = ("mask_BS", "token_ids_BS", "state", "experts")
"""What a swapped gate may need, beside hidden states."""

PROBE_TOKENS = 8


class GateSwap(nn.Module):
    """Gates in the place of those of a model, from its construction until `remove`.

    Its parameters are those of the new gates, for an optimiser; `after_step` is to be called after each step.
    Train and eval mode are those of the model.

    Parameters
    ----------
    model
        Any `transformers` model whose gates return (logits, weights, indices).
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
        self.numbers, self.num_layers = [number for number, _, _ in kept], len(found)
        self.layers = [layer for _, layer, _ in kept]
        # One gate may serve several layers; it is kept, trained and saved once.
        unique = list({id(gate): gate for _, _, gate in kept}.values())
        self.gates = nn.ModuleList(unique)
        self.gate_numbers = [next(i for i, one in enumerate(unique) if one is gate) for _, _, gate in kept]
        for _, layer, gate in kept:
            _check(layer, gate)
        self.plans: list[Plan | None] = [None] * len(kept)
        self._pass = _Pass()
        self._classes = [type(layer.gate) for layer in self.layers]
        self._handles = [model.register_forward_pre_hook(self._pass.of_model, with_kwargs=True)]
        for index, layer in enumerate(self.layers):
            self._handles.append(layer.block.register_forward_pre_hook(self._pass.of_block, with_kwargs=True))
            layer.gate.__class__ = _subclass(type(layer.gate))
            object.__setattr__(layer.gate, "_turnout_ask", self._asker(index))

    @classmethod
    def of(cls, model: nn.Module, name: str, *, is_shared: bool = False, **config: Any) -> GateSwap:
        """Put the gate of a name of `turnout.nn.registry` into every layer, of the layer's E and width.

        `is_shared` makes one gate for all layers, as `recurrent` wants it.
        """
        shared: list[Gate] = []

        def make(layer: MoELayer) -> Gate:
            if shared:
                return shared[0]
            gate: Gate = _gate_class(name)(width=_width(layer), num_experts=layer.num_experts, **config)
            gate = gate.to(_weight(layer).device)
            if is_shared:
                shared.append(gate)
            return gate

        return cls(model, make)

    @property
    def model(self) -> nn.Module:
        """The model whose gates these are."""
        return self._model[0]

    def after_step(self) -> None:
        """Let each gate learn what no gradient teaches, after an optimiser's step."""
        for gate in self.gates:
            assert isinstance(gate, Gate)
            gate.after_step()

    def losses(self) -> Tensor:
        """Return the sum of what the gates want added to the loss, of the last forward pass."""
        losses = [loss for plan in self.plans if plan is not None for loss in plan.losses.values()]
        return torch.stack(losses).sum() if losses else torch.zeros(())

    def remove(self) -> None:
        """Give the model its own gates back."""
        for layer, kind in zip(self.layers, self._classes, strict=True):
            if hasattr(layer.gate, "_turnout_ask"):
                layer.gate.__class__ = kind
                object.__delattr__(layer.gate, "_turnout_ask")
        for handle in self._handles:
            handle.remove()

    def save(self, folder: str | Path) -> Path:
        """Write the gates beside the checkpoint; return the JSON's path.

        Raises `InputError` for a gate that is not in the registry, or whose arguments are not JSON.
        """
        gates = []
        for gate in self.gates:
            assert isinstance(gate, Gate)
            config = gate.config()
            try:
                json.dumps(config)
            except TypeError as error:
                what = f"{type(gate).__name__}: its arguments can't be saved"
                raise InputError(
                    sentence(what, allowed="numbers, words and lists", got=str(error))
                ) from error
            gates.append({"gate": registry.name_of(type(gate)), "config": config})
        layers = dict(zip((layer.name for layer in self.layers), self.gate_numbers, strict=True))
        config = {"base": base_fingerprint(self.model), "gates": gates, "layers": layers}
        return save_sidecar(folder, KIND, config=config, tensors=self.gates.state_dict())

    @classmethod
    def load(cls, model: nn.Module, folder: str | Path) -> GateSwap:
        """Put the gates of a side file into the model that they were made for.

        Raises `ArtifactError` for another base, by its weights, and for a file that does not fit.
        """
        config, tensors = load_sidecar(folder, KIND)
        found = base_fingerprint(model)
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
            number = config["layers"].get(layer.name)
            return None if number is None else gates[number]

        swap = cls(model, make)
        try:
            swap.gates.load_state_dict(tensors)
        except RuntimeError as error:
            swap.remove()
            raise ArtifactError(sentence(f"the gates in {str(folder)!r}", got=str(error))) from error
        return swap

    def _asker(self, index: int) -> Callable[[Tensor, bool], tuple[Tensor, Tensor, Tensor]]:
        layer, number = self.layers[index], self.numbers[index]

        def ask(hidden: Tensor, is_training: bool) -> tuple[Tensor, Tensor, Tensor]:
            x_TD, gate = hidden.reshape(-1, hidden.shape[-1]), self.gates[self.gate_numbers[index]]
            before = self.plans[index - 1] if index else None
            context = self._pass.context(
                x_TD, number, self.num_layers, layer.experts, None if before is None else before.state
            )
            plan = gate.train(is_training)(x_TD, context)
            self.plans[index] = plan
            return _choices(layer, plan, hidden.dtype)

        return ask


class _Pass:
    """What is known of the forward pass that runs: its tokens, padding and cache, and a block's batch."""

    def __init__(self) -> None:
        self.token_ids: Tensor | None = None
        self.mask: Tensor | None = None
        self.cache: Any = None
        self.num_past = 0
        self.shape: tuple[int, int] | None = None

    def of_model(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = inspect.signature(model.forward).parameters
        given = dict(zip(names, args, strict=False)) | kwargs
        self.token_ids, self.mask = given.get("input_ids"), given.get("attention_mask")
        cache = given.get("past_key_values", given.get("cache"))
        self.cache = cache if hasattr(cache, "get_seq_length") else None
        self.num_past = 0 if self.cache is None else int(self.cache.get_seq_length())

    def of_block(self, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.get("hidden_states")
        is_batch = isinstance(hidden, Tensor) and hidden.ndim == 3
        self.shape = (int(hidden.shape[0]), int(hidden.shape[1])) if is_batch else None  # type: ignore[union-attr]

    def context(
        self, x_TD: Tensor, layer: int, num_layers: int, experts: nn.Module, state: Tensor | None
    ) -> GateContext:
        items, positions = self.shape or (1, x_TD.shape[0])
        ids, mask = self.token_ids, self.mask
        is_whole = isinstance(ids, Tensor) and tuple(ids.shape) == (items, positions)
        mask_BS = None
        if (
            isinstance(mask, Tensor)
            and mask.ndim == 2
            and mask.shape[0] == items
            and mask.shape[1] >= positions
        ):
            mask_BS = mask[:, mask.shape[1] - positions :].bool()
        return GateContext(
            num_items=items if items * positions == x_TD.shape[0] else 1,
            mask_BS=None if mask_BS is None or bool(mask_BS.all()) else mask_BS,
            token_ids_BS=ids if is_whole else None,
            state=state,
            experts=experts,
            layer=layer,
            num_layers=num_layers,
            is_autoregressive=self.cache is not None,
            num_past=0 if self.cache is None else self.num_past,
        )


def base_fingerprint(model: nn.Module) -> str:
    """Return sixteen hex digits that name a model's weights, whatever gates were put in."""
    return fingerprint(dict(model.named_parameters()))


def _subclass(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of a family's gate, so that recorders that look for the family's still find it."""

    def forward(self: Any, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return self._turnout_ask(hidden_states, self.training)

    # A family's block may hand more to its gate than hidden states; what it holds back is not the new gate's.
    return type(f"Swapped{kind.__name__}", (kind,), {"forward": forward, "__module__": __name__})


def _choices(layer: MoELayer, plan: Plan, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return (logits_TE, weights_TK, indices_TK) as the family's experts read them.

    A token with fewer pairs than others gets expert 0 with weight 0, which costs a row and changes nothing.
    """
    if not isinstance(plan, SparsePlan):
        got = f"a {type(plan).__name__}"
        what = f"{layer.name}: the family's experts run pairs (token, expert)"
        raise InputError(sentence(what, allowed="a gate with sparse plans", got=got))
    weights_TK, indices_TK, _ = plan.to_choices()
    if not plan.num_columns:
        weights_TK = weights_TK.new_zeros(plan.num_tokens, 1)
        indices_TK = indices_TK.new_zeros(plan.num_tokens, 1)
    logits_TE = plan.logits_TE
    if logits_TE is None:
        logits_TE = plan.to_dense().detach().float()
    is_half = dtype in (torch.float16, torch.bfloat16)
    return logits_TE, weights_TK.to(dtype) if is_half else weights_TK.float(), indices_TK


def _check(layer: MoELayer, gate: Gate) -> None:
    """Raise unless a gate fits a layer, and gives what the family's experts can run."""
    where = f"{layer.name}.{layer.gate_name}"
    if hasattr(layer.gate, "_turnout_ask"):
        raise InputError(sentence(f"{where} was swapped already", do="remove the other swap first"))
    if "forward" in vars(layer.gate):
        raise InputError(sentence(f"{where} has a forward of its own, which a class does not replace"))
    _check_outputs(layer)
    for name, own in (("num_experts", layer.num_experts), ("width", _width(layer))):
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


def _check_outputs(layer: MoELayer) -> None:
    """Raise for a family's gate that returns something else than its place is given now."""
    weight = next((p for p in layer.gate.parameters() if p.ndim == 2), None)
    if weight is None or weight.is_meta:
        return
    hidden_TD = torch.zeros(PROBE_TOKENS, _width(layer), dtype=weight.dtype, device=weight.device)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            out = layer.gate.forward(hidden_TD)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            # It is handed more than hidden states: what it returns shows at its first use.
            return
    checked(layer, out)


def _weight(layer: MoELayer) -> Tensor:
    return next(layer.experts.parameters())


def _width(layer: MoELayer) -> int:
    """Return D, as the gate's own matrix of one row an expert says."""
    for parameter in layer.gate.parameters():
        if parameter.ndim == 2 and parameter.shape[0] == layer.num_experts:
            return int(parameter.shape[1])
    what = f"the gate {layer.name}.{layer.gate_name} hides its width"
    raise InputError(sentence(what, allowed=f"a weight (E, D) with E = {layer.num_experts}"))


def _gate_class(name: str) -> type[Gate]:
    found = registry.get(name)
    if not issubclass(found, Gate):
        raise InputError(sentence(f"{name!r} of nn", allowed="the name of a gate", got=found.__name__))
    return found
