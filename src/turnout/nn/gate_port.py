"""This module stands where a family's gate hands its choice to the experts, and lets another one through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, sentence
from turnout.nn.gate_form import Decide, Handed, block_arguments, for_experts, read
from turnout.nn.held import HOOK, Held, Holder
from turnout.nn.moe import MoELayer

PROBE_TOKENS = 8

Handle = torch.utils.hooks.RemovableHandle


class GatePort:
    """The place between one gate and its experts.

    A gate that returns logits alone leaves the choice to its block, where no hook reaches; it is then read
    and changed in the call of the experts.

    Attributes
    ----------
    choice
        (weights_TK, indices_TK) that the experts are called with instead of the block's own; for a gate that
        returns logits alone, set before it returns, used once.
    """

    def __init__(self, layer: MoELayer, holder: Holder = HOOK) -> None:
        self.layer, self._holder = layer, holder
        self.choice: tuple[Tensor, Tensor] | None = None
        self._waiting: Handed | None = None
        self._inner: Tensor | None = None

    def read(self, out: object) -> Handed:
        """Return what the gate handed out; raises `InputError` for a form that is not known."""
        inner, self._inner = self._inner, None
        return read(self.layer, out, inner)

    def watch(self) -> list[Handle]:
        """Keep what a linear map of E rows inside the gate gives: what probabilities were made of."""

        def keep(_module: nn.Module, _args: tuple[Any, ...], out: object) -> None:
            self._inner = out if isinstance(out, Tensor) else None

        inner = (part for part in self.layer.gate.modules() if part is not self.layer.gate)
        rows = self.layer.num_experts
        return [
            part.register_forward_hook(Held(keep, self._holder))
            for part in inner
            if isinstance(part, nn.Linear) and part.out_features == rows
        ]

    def open(self, decide: Decide) -> list[Handle]:
        """Let `decide` change what each pass hands over, until the handles are removed."""

        def after_gate(_gate: nn.Module, _args: tuple[Any, ...], out: object) -> Any:
            handed = self.read(out)
            if handed.form == "logits":
                self._waiting = handed
                return None
            changed = decide(handed)
            return None if changed is None else changed.out()

        def before_experts(_experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            handed, self._waiting = self._waiting, None
            if handed is None:
                return None
            changed = decide(handed.changed(handed.logits_TE, *self._called(args, kwargs)).with_holes())
            if changed is None:
                return None
            return _replaced(args, kwargs, *for_experts(changed.weights_TK, changed.indices_TK))

        # First in line, so that the model's own recorder of router logits sees what the experts get.
        handles = [
            *self.watch(),
            self.layer.gate.register_forward_hook(Held(after_gate, self._holder), prepend=True),
        ]
        return handles + self._around_experts(before_experts)

    def substitute(self) -> list[Handle]:
        """Let `choice` be what a block calls its experts with, until the handles are removed."""

        def before_experts(_experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            choice, self.choice, self._waiting = self.choice, None, None
            return None if choice is None else _replaced(args, kwargs, *for_experts(*choice))

        return [*self.watch(), *self._around_experts(before_experts)]

    def _around_experts(self, before_experts: Any) -> list[Handle]:
        if self.layer.experts is self.layer.block:
            return []

        def after_block(_block: nn.Module, _args: tuple[Any, ...], _out: object) -> None:
            missed = self._waiting is not None or self.choice is not None
            self._waiting = self.choice = None
            if missed:
                what = f"{self.layer.name}: what its experts get"
                allowed = "experts that are called with (hidden states, indices, weights)"
                raise InputError(
                    sentence(what, allowed=allowed, got="logits alone, and a choice inside the block")
                )

        return [
            self.layer.experts.register_forward_pre_hook(
                Held(before_experts, self._holder), with_kwargs=True
            ),
            self.layer.block.register_forward_hook(Held(after_block, self._holder)),
        ]

    def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return (weights_TK, indices_TK) among the arguments of the experts' call."""
        indices, weights = _places(args, kwargs)
        if indices is None or weights is None:
            got = [tuple(v.shape) for v in [*args, *kwargs.values()] if isinstance(v, Tensor)]
            what = f"{self.layer.name}: the call of its experts"
            raise InputError(sentence(what, allowed="indices (T, k) and weights (T, k)", got=got))
        given = [*args, *kwargs.values()]
        return given[weights], given[indices]


@torch.no_grad()
def probe(layer: MoELayer, hidden_TD: Tensor) -> Handed:
    """Run a gate on hidden states apart from its block, and return what it hands out.

    Raises `InputError` for one that can't be run so: it asks for more than its block holds.
    """
    port = GatePort(layer)
    handles = port.watch()
    try:
        with torch.random.fork_rng(devices=[]):
            return port.read(_run(layer, hidden_TD, block_arguments(layer)))
    finally:
        for handle in handles:
            handle.remove()


def _run(layer: MoELayer, hidden_TD: Tensor, arguments: dict[str, Tensor]) -> object:
    # `forward`, not the call: hooks of others must not see these tokens.
    try:
        return layer.gate.forward(hidden_TD.clone(), **arguments)
    except (ValueError, IndexError):
        # Some gates take a batch of sequences apart.
        return layer.gate.forward(hidden_TD[None].clone(), **arguments)


def _places(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return where the indices and the weights stand among positional and named arguments."""
    given = list(enumerate([*args, *kwargs.values()]))
    tensors = [(i, v) for i, v in given if isinstance(v, Tensor) and v.ndim == 2]
    whole = [(i, v) for i, v in tensors if not v.is_floating_point() and v.dtype != torch.bool]
    if len(whole) != 1:
        return None, None
    indices, like = whole[0]
    weights = [i for i, v in tensors if v.is_floating_point() and v.shape == like.shape]
    # Hidden states (T, D) with D = k come first.
    return indices, weights[-1] if weights else None


def _replaced(
    args: tuple[Any, ...], kwargs: dict[str, Any], weights_TK: Tensor, indices_TK: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the experts' call with another choice."""
    indices, weights = _places(args, kwargs)
    assert indices is not None
    assert weights is not None
    given = [*args, *kwargs.values()]
    given[indices], given[weights] = indices_TK, weights_TK
    return tuple(given[: len(args)]), dict(zip(kwargs, given[len(args) :], strict=True))
