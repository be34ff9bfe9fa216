"""This module lets a family's gate answer with what another gate decides, in the form of its family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, sentence
from turnout.nn.gate_form import Handed, block_arguments
from turnout.nn.gate_port import PROBE_TOKENS, GatePort, Handle, probe
from turnout.nn.held import SWAP
from turnout.nn.moe import MoELayer

Ask = Callable[[Tensor, bool], tuple[Tensor, Tensor, Tensor]]
"""From hidden states and whether it is training to (logits_TE, weights_TK, indices_TK)."""


class StandIn:
    """Another gate's answers out of the mouth of a family's gate, whose class is changed and nothing else.

    What the family's gate returns for others than its experts, such as the weights of shared experts or a
    state for the next layer, it goes on to compute itself.

    Raises `InputError` for a family whose gate hands out something of an unknown form.
    """

    def __init__(self, layer: MoELayer, ask: Ask) -> None:
        self.layer, self.ask, self.kind = layer, ask, type(layer.gate)
        self._port = GatePort(layer, SWAP)
        self._handles: list[Handle] = []
        # None until it is known; a gate that is handed more than its block holds shows it at its first use.
        self._form = _form(layer)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse: the copy of a model would ask the gates of the original."""
        raise SWAP.refused()

    def put_in(self) -> None:
        """Make the family's gate ask."""
        self._handles = self._port.substitute()
        self.layer.gate.__class__ = _subclass(self.kind)
        object.__setattr__(self.layer.gate, "_turnout_answer", self._answer)

    def take_out(self) -> None:
        """Make the family's gate what it was, unless another's answers are in by now."""
        if getattr(self.layer.gate, "_turnout_answer", None) == self._answer:
            self.layer.gate.__class__ = self.kind
            object.__delattr__(self.layer.gate, "_turnout_answer")
        for handle in self._handles:
            handle.remove()

    def _answer(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        form = self._form
        if form is None or form.rest:
            theirs: Any = self.kind
            form = self._port.read(theirs.forward(self.layer.gate, hidden.clone(), *args, **kwargs))
            self._form = _emptied(form)
        choice = self.ask(hidden, self.layer.gate.training)
        own = getattr(self.layer.block, "top_k", None)
        if form.form == "sorted" and isinstance(own, int) and own != choice[2].shape[1]:
            what = f"{self.layer.name}: its block counts on the k experts a token that it was made for"
            raise InputError(sentence(what, allowed=f"k = {own}", got=f"k = {choice[2].shape[1]}"))
        if form.form == "logits":
            self._port.choice = choice[1:]
        return replace(form, lead=tuple(hidden.shape[:-1])).changed(*choice).out()


def width_of(layer: MoELayer) -> int:
    """Return D, as the gate's own matrix of one row an expert says, or else the first that it applies."""
    matrices = [p for p in layer.gate.parameters() if p.ndim == 2]
    rows = [p for p in matrices if p.shape[0] == layer.num_experts]
    for parameter in rows or matrices[:1]:
        return int(parameter.shape[1])
    what = f"the gate {layer.name}.{layer.gate_name} hides its width"
    raise InputError(sentence(what, allowed=f"a weight (E, D) with E = {layer.num_experts}"))


def _subclass(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of a family's gate, so that recorders that look for the family's still find it."""

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self._turnout_answer(hidden_states, *args, **kwargs)

    def refuse(_self: Any, _protocol: object) -> NoReturn:
        # Pickle looks a class up by its name, and there is none of this name.
        raise SWAP.refused()

    names = {"forward": forward, "__reduce_ex__": refuse, "__module__": __name__}
    return type(f"Swapped{kind.__name__}", (kind,), names)


def _form(layer: MoELayer) -> Handed | None:
    """Return the form of what a family's gate hands out, None where it can't be run apart from its block."""
    weight = next((p for p in layer.gate.parameters() if p.ndim == 2), None)
    if weight is None or weight.is_meta:
        return None
    hidden_TD = torch.zeros(PROBE_TOKENS, width_of(layer), dtype=weight.dtype, device=weight.device)
    try:
        block_arguments(layer)
    except InputError:
        return None
    try:
        return _emptied(probe(layer, hidden_TD))
    except InputError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return None


def _emptied(handed: Handed) -> Handed:
    """Return the form without the tokens; of the rest, whether there is any."""
    empty = handed.changed(handed.logits_TE[:0], handed.weights_TK[:0], handed.indices_TK[:0])
    return replace(empty, rest=(None,) * len(handed.rest))
