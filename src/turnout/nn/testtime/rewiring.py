"""This module rewires a model's experts for one request: offsets on gate logits, learned on its context."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.flops import executed_flops
from turnout.nn.gate_hook import GateHook, Where
from turnout.nn.testtime.confidence import Layers, Select, confidence, layer_weights
from turnout.nn.testtime.context import (
    caches_checked,
    caches_released,
    check_context,
    check_finite,
    frozen,
    next_token_loss,
)
from turnout.nn.testtime.descent import Descent, Optimizer
from turnout.nn.testtime.result import Adaptation, Rewired
from turnout.nn.testtime.segments import Segments


class Rewiring:
    """Adds to every gate's logits a vector per batch item that was optimised on that item's own context.

    1. `steps` gradient steps of `step_size` on the next-token loss of the context (the prompt, later prompt
    and answer so far), for the vectors alone. 2. `every_tokens` tokens are generated. 3. Again, until done.
    Nothing is kept between calls: every request begins with zeros, which are the identity.

    Parameters
    ----------
    model
        A causal language model whose gates `GateHook` understands. It is never changed.
    steps, step_size
        Steps before each segment, and their size; 0 steps is the model as it is.
    every_tokens
        Tokens between two optimisations, m.
    layers, select, fraction
        `all` layers; the ceil(fraction * L) of `hard`; or `soft`, all with steps scaled by C. `select` says
        whether a high or a low C is favoured: the paper says high, and that high means decisive, while its
        formula is high where a gate is unsure. Chosen anew in every round, by item. Back-propagation stops at
        the first chosen layer.
    where
        `logits`: before the score (for sigmoid gates too), so that weights change as well. `selection`: where
        a selection-only bias goes; weights keep their values and pass the gradient on (straight through).
        The unit is then that of scores, which lie in [0, 1] after softmax or sigmoid: use smaller steps.
    optimizer
        The paper says neither; `sgd` is the plain reading.
    is_cache_kept
        After an update the keys and values of the context are stale. False computes them again; True goes on
        with the stale ones, which is cheaper and no longer what the offsets were optimised for.

    Source: S26, Rewiring Experts on the Fly, arXiv 2510.14853: its loop and its choice of layers.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        steps: int = 5,
        step_size: float = 0.05,
        every_tokens: int = 128,
        layers: Layers = "hard",
        select: Select = "high",
        fraction: float = 0.5,
        where: Where = "logits",
        optimizer: Optimizer = "sgd",
        is_cache_kept: bool = False,
    ) -> None:
        self.steps = check_count("rewiring: steps", steps, low=0)
        self.step_size = check_number(
            "rewiring: step_size", step_size, low=0.0, allow_low=False, allow_high=False
        )
        self.every_tokens = check_count("rewiring: every_tokens", every_tokens)
        self.fraction = check_number("rewiring: fraction", fraction, low=0.0, high=1.0, allow_low=False)
        _check("layers", layers, ("hard", "soft", "all"))
        _check("select", select, ("high", "low"))
        _check("where", where, ("logits", "selection"))
        _check("optimizer", optimizer, ("sgd", "adam"))
        self.model = model
        self.layers: Layers = layers
        self.select: Select = select
        self.where: Where = where
        self.optimizer: Optimizer = optimizer
        self.is_cache_kept = is_cache_kept
        self.hook = GateHook(model)

    def zeros(self, batch_size: int) -> tuple[Tensor, ...]:
        """Return the vectors that change nothing, one (B, E) per layer."""
        devices = [next(layer.gate.parameters()).device for layer in self.hook.layers]
        return tuple(
            torch.zeros(batch_size, layer.num_experts, device=device)
            for layer, device in zip(self.hook.layers, devices, strict=True)
        )

    def adapt(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        start: Sequence[Tensor] | None = None,
        count_flops: bool = False,
    ) -> Adaptation:
        """Optimise the vectors on a context (B, T), padded on either side; `start` are vectors to go on from.

        Counting FLOPs makes small models several times slower. Raises `InputError` for an item without a next
        token and for steps so large that a loss is no number any more, `ShapeError` for a mask or vectors of
        another shape.
        """
        mask = check_context(input_ids, attention_mask)
        check_finite("rewiring: start", start or ())
        began = time.perf_counter()
        with torch.inference_mode(False), torch.enable_grad(), frozen(self.model):
            # Copies, since what was made in inference mode can't be kept for a backward pass.
            ids_BT, mask_BT = input_ids.clone(), mask.clone()
            first = self.zeros(len(ids_BT)) if start is None else tuple(d.detach().clone() for d in start)
            found, flops = _counted(lambda: self._optimise(ids_BT, mask_BT, first), count_flops)
        deltas, loss_SB, confidence_BL, weights_BL = found
        return Adaptation(
            deltas=deltas,
            loss_SB=loss_SB,
            confidence_BL=confidence_BL,
            weights_BL=weights_BL,
            seconds=time.perf_counter() - began,
            flops=flops,
        )

    @contextmanager
    def applied(self, deltas: Sequence[Tensor]) -> Iterator[None]:
        """Let the vectors of an `Adaptation` hold for what the model computes in this block.

        A cache that holds keys made outside of this block is refused with `InputError`, and so is, outside
        of it, one that was filled in it; unless `is_cache_kept`.
        """
        check_finite("rewiring: deltas", deltas)
        caches = caches_released if self.is_cache_kept else caches_checked
        with self.hook.steered(deltas, where=self.where), caches(self.model):
            yield

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        max_new_tokens: int,
        count_flops: bool = False,
        **options: Any,
    ) -> Rewired:
        """Optimise and generate in turns; prompts (B, T) may be padded on the left.

        `options` go to the model's own `generate` (sampling, end tokens, stop strings, criteria). An item
        that has ended is padded, and adapted no further. Beams, several answers and caches from outside are
        refused with `InputError`, as is what `adapt` refuses.
        """
        check_count("rewiring: max_new_tokens", max_new_tokens)
        mask = check_context(input_ids, attention_mask)
        if not bool(mask[:, -1].all()):
            raise InputError(
                sentence("rewiring: the padding of prompts", allowed="on the left", got="on the right")
            )
        segments = Segments(
            self.model,
            input_ids,
            mask,
            max_new_tokens=max_new_tokens,
            is_cache_kept=self.is_cache_kept,
            options=options,
        )
        deltas = [delta_BE.clone() for delta_BE in self.zeros(len(input_ids))]
        rounds, items, seconds, flops = [], [], 0.0, 0
        while segments.active:
            rows = segments.rows
            ids_BT, mask_BT = segments.context()
            found = self.adapt(ids_BT, mask_BT, start=[d[rows] for d in deltas], count_flops=count_flops)
            for delta_BE, new_BE in zip(deltas, found.deltas, strict=True):
                delta_BE[rows] = new_BE
            rounds.append(found)
            items.append(tuple(segments.active))
            began = time.perf_counter()
            with self.applied(deltas):
                _, spent = _counted(lambda: segments.extend(self.every_tokens), count_flops)
            seconds += time.perf_counter() - began
            flops += spent or 0
        return Rewired(
            sequences_BT=segments.ids_BT,
            attention_mask_BT=segments.mask_BT,
            rounds=rounds,
            items=items,
            generating_s=seconds,
            generating_flops=flops if count_flops else None,
        )

    def _optimise(
        self, ids_BT: Tensor, mask_BT: Tensor, start: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]:
        """Return (deltas, loss_SB, confidence_BL, weights_BL) after all steps."""
        if not self.steps:
            unknown_BL = torch.full((len(ids_BT), len(start)), torch.nan, device=ids_BT.device)
            return start, torch.empty(0, len(ids_BT)), unknown_BL, torch.zeros_like(unknown_BL)
        confidence_BL = self._confidence(ids_BT, mask_BT, start)
        weights_BL = layer_weights(
            confidence_BL, layers=self.layers, select=self.select, fraction=self.fraction
        )
        descent = Descent(optimizer=self.optimizer, step_size=self.step_size)
        deltas, losses = start, []
        for _ in range(self.steps):
            # A layer that nobody chose has no gradient, so that the backward pass ends at the first chosen.
            moving = [bool((weights_BL[:, n] > 0).any()) for n in range(len(deltas))]
            for delta_BE, moves in zip(deltas, moving, strict=True):
                delta_BE.requires_grad_(moves)
            with self.hook.steered(deltas, where=self.where):
                loss_B = next_token_loss(self.model, ids_BT, mask_BT)
            check_finite("rewiring: the loss of a context", [loss_B.detach()], do="take smaller steps")
            # The sum, so that an item's gradient is what it would be alone.
            leaves = [d for d, moves in zip(deltas, moving, strict=True) if moves]
            # Nobody is chosen where the model itself computes no numbers, which its loss then shows.
            found = iter(torch.autograd.grad(loss_B.sum(), leaves, allow_unused=True) if leaves else ())
            gradients = [next(found) if moves else None for moves in moving]
            deltas = tuple(descent.step(deltas, gradients, weights_BL))
            losses.append(loss_B.detach())
        return deltas, torch.stack(losses), confidence_BL, weights_BL

    def _confidence(self, ids_BT: Tensor, mask_BT: Tensor, start: tuple[Tensor, ...]) -> Tensor:
        """Return C_BL under the vectors so far; NaN where no choice depends on it."""
        if self.layers == "all":
            return torch.full((len(ids_BT), len(start)), torch.nan, device=ids_BT.device)
        with torch.no_grad(), self.hook.steered(start, where=self.where), self.hook.recording() as records:
            next_token_loss(self.model, ids_BT, mask_BT)
        return confidence(self.hook, [seen[0] if seen else None for seen in records], mask_BT)


def _counted(work: Any, is_counted: bool) -> tuple[Any, int | None]:
    """Return the result of work and its FLOPs, or None where nobody asked."""
    return executed_flops(work) if is_counted else (work(), None)


def _check(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise `InputError` for an argument that is not allowed."""
    if value not in allowed:
        raise InputError(sentence(f"rewiring: {name}", allowed=allowed, got=value))
