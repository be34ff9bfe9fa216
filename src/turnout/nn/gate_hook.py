"""This module changes or records what the gates of a model decide, for as long as a `with` block lasts.

A forward hook on each gate returns other (logits, weights, indices), in the form of its family. Gates,
blocks, experts and state dict stay what they are, so `generate`, quantised experts and the model's own
recorder go on working. The price is the gate's own selection, computed and thrown away where something is
changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.computed_again import is_computed_again
from turnout.nn.gate_form import Handed
from turnout.nn.gate_port import GatePort
from turnout.nn.held import HOOK, Held
from turnout.nn.late import is_late, refuse_arrived, refuse_later, same, wrong_rows
from turnout.nn.moe import MoELayer, find_moe_layers
from turnout.nn.moe_rule import GateRule, find_rule
from turnout.nn.one_thread import OneThread
from turnout.nn.token_ids import TokenIds, TokensField
from turnout.nn.uncompiled import uncompiled

Where = Literal["logits", "selection"]


@dataclass(frozen=True, kw_only=True)
class Routing:
    """What one gate decided for the T = B * S tokens of one forward pass, row by row of the batch.

    `logits_TE` are before the score, `weights_TK` what the experts' outputs are multiplied by, `indices_TK`
    the experts, -1 in holes: a token may have fewer experts than others, and a hole's weight counts as 0,
    whatever it is. `batch_size` is B, None where neither the block nor what holds it was given (B, S, d).
    `rest` is what the gate gave to others than the routed experts. `tokens` names the ids that
    the model was called with, in what was recorded; None where it got none. `mask_T` is True at tokens and
    False at padding, in what was recorded with an attention mask (B, S); None where nothing is known of it or
    nothing was masked.
    """

    logits_TE: Tensor
    weights_TK: Tensor
    indices_TK: Tensor
    batch_size: int | None
    rest: tuple[Any, ...] = ()
    tokens: TokensField = TokensField()  # noqa: RUF009 - a descriptor, read and written as a name or None
    mask_T: Tensor | None = None

    def detached(self, **other: Any) -> Routing:
        """Return the same without gradients, with some fields other than they are."""
        return replace(
            self,
            logits_TE=self.logits_TE.detach(),
            weights_TK=self.weights_TK.detach(),
            indices_TK=self.indices_TK.detach(),
            rest=tuple(part.detach() if isinstance(part, Tensor) else part for part in self.rest),
            **other,
        )


Change = Callable[[int, Routing], Routing]
"""From a layer's number and what its gate decided to what shall hold instead."""


class GateHook:
    """The gates of one model: found and understood once, then changed or recorded at will.

    What is changed is changed for everybody who runs the model meanwhile: one thread at a time.
    Raises `InputError` for a family without a gate that can be reached, or with one whose rule is not known.

    Parameters
    ----------
    model
        Any `transformers` model whose mixture-of-experts blocks hold `gate` (or `router`) and `experts`.
    needs_rules
        Whether a family whose rule is not known is refused. Without rules, decisions can be recorded,
        replayed and changed, but not steered through logits; `rules` is then empty.

    Attributes
    ----------
    layers
        The blocks in the order of depth.
    rules
        How each gate turns logits into experts and weights; proved on the gate itself.

    Source: the gate convention of `transformers` 5.24.
    """

    def __init__(self, model: nn.Module, *, needs_rules: bool = True) -> None:
        self.model = model
        self.layers: list[MoELayer] = find_moe_layers(model)
        self.rules: list[GateRule] = [find_rule(layer) for layer in self.layers] if needs_rules else []
        self._changes: list[Change] = []
        self._thread = OneThread("GateHook")
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._ids: dict[str, Tensor] = {}
        self._tokens: TokenIds | None = None
        self._mask: Tensor | None = None
        self._flat: dict[tuple[int, torch.device], Tensor] = {}
        self._names: list[str] = []

    @property
    def tokens(self) -> str | None:
        """Sixteen hex digits that name the token ids of the pass that runs; None where it got none."""
        ids = self._token_ids()
        return None if ids is None else ids.name

    @contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """Let `change` decide in every gate. Inner blocks of one hook see what its outer blocks decided.

        Under activation checkpointing the backward pass asks the gates again: keep it inside the block. What
        was given to `torch.compile` runs uncompiled in the block.
        """
        with self._thread.held(), uncompiled():
            if not self._changes:
                self._names = list(inspect.signature(self.model.forward).parameters)
                self._handles.append(
                    self.model.register_forward_pre_hook(Held(self._begin, HOOK), with_kwargs=True)
                )
                self._handles.append(
                    self.model.register_forward_hook(Held(self._end, HOOK), always_call=True)
                )
                for number, layer in enumerate(self.layers):
                    self._install(number, layer)
            self._changes.append(change)
            try:
                yield
            finally:
                self._changes.remove(change)
                if not self._changes:
                    for handle in self._handles:
                        handle.remove()
                    self._handles.clear()

    def steered(
        self, deltas: Sequence[Tensor | None], *, where: Where = "logits"
    ) -> AbstractContextManager[None]:
        """Add deltas[layer] (B, E) to the logits of every token of its batch item, before the score.

        None leaves a layer's gate alone. `where="selection"` adds them to the choice scores instead, where a
        selection-only bias goes, and keeps the weights. Raises `ShapeError` for other shapes, here or when a
        batch of another size comes, and `InputError` for deltas that are NaN or infinite; -inf closes an
        expert.
        """
        if len(deltas) != len(self.layers):
            raise ShapeError(
                sentence("deltas", allowed=f"one for each of {len(self.layers)} layers", got=len(deltas))
            )
        if where not in ("logits", "selection"):
            raise InputError(sentence("where", allowed="'logits' or 'selection'", got=where))
        for number, (layer, delta_BE) in enumerate(zip(self.layers, deltas, strict=True)):
            if delta_BE is not None and (delta_BE.ndim != 2 or delta_BE.shape[1] != layer.num_experts):
                allowed = f"(B, E = {layer.num_experts})"
                raise ShapeError(sentence(f"deltas[{number}]", allowed=allowed, got=tuple(delta_BE.shape)))
            if delta_BE is not None and not bool((delta_BE.detach() < torch.inf).all()):
                raise InputError(sentence(f"deltas[{number}]", allowed="numbers, or -inf", got="NaN or inf"))

        def change(number: int, routing: Routing) -> Routing:
            delta_BE = deltas[number]
            return routing if delta_BE is None else self.shifted(number, routing, delta_BE, where=where)

        return self.changed(change)

    def shifted(self, number: int, routing: Routing, delta_BE: Tensor, *, where: Where = "logits") -> Routing:
        """Return what a gate decides when delta_BE is added; the gate's own rule does the rest."""
        shift_TE = _for_tokens(routing, delta_BE)
        rule, block, logits_TE = self.rules[number], self.layers[number].block, routing.logits_TE
        if where == "logits":
            # In single precision: half precision would round small steps away.
            moved_TE = logits_TE.float() + shift_TE
            weights_TK, indices_TK = rule.apply(block, moved_TE if rule.is_single else moved_TE.to(logits_TE))
            logits_TE = moved_TE.to(logits_TE)
        else:
            weights_TK, indices_TK = rule.apply(block, logits_TE, shift_TE)
        return replace(
            routing, logits_TE=logits_TE, weights_TK=weights_TK.to(routing.weights_TK), indices_TK=indices_TK
        )

    @contextmanager
    def recording(self) -> Iterator[list[list[Routing]]]:
        """Give a list per layer that gains one `Routing` per forward pass, without gradients.

        What is recorded is what the experts get, changes of outer `with` blocks included. A pass that is
        computed again in the backward pass, under activation checkpointing, is recorded once.
        """
        records: list[list[Routing]] = [[] for _ in self.layers]

        def record(number: int, routing: Routing) -> Routing:
            if is_computed_again():
                return routing
            # Ids of a GPU are named once they are asked for: meanwhile nobody waits.
            found = routing.detached(tokens=self._token_ids(), mask_T=self._mask_of(routing))
            records[number].append(found)
            return routing

        with self.changed(record):
            yield records
        # No further pass would say that the last one held NaN.
        refuse_arrived(wait=True)

    def _token_ids(self) -> TokenIds | None:
        if self._ids and self._tokens is None:
            self._tokens = TokenIds(self._ids)
        return self._tokens

    def _begin(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._thread.check()
        refuse_arrived()
        given = dict(zip(self._names, args, strict=False)) | kwargs
        found = {name: given.get(name) for name in ("input_ids", "decoder_input_ids")}
        self._ids = {name: ids for name, ids in found.items() if isinstance(ids, Tensor)}
        self._tokens = None
        self._flat.clear()
        # In a model of an encoder and a decoder it is the encoder's alone.
        self._mask = None if "decoder_input_ids" in self._names else _padded(given.get("attention_mask"))

    def _mask_of(self, routing: Routing) -> Tensor | None:
        """Return which of the tokens of a pass are no padding, None where that is not known.

        With a cache a mask also has the positions of before.
        """
        mask_BS, size, num_tokens = self._mask, routing.batch_size, len(routing.indices_TK)
        if mask_BS is None or size != mask_BS.shape[0] or num_tokens // size > mask_BS.shape[1]:
            return None
        # All layers of one width share a copy.
        key = (num_tokens, routing.indices_TK.device)
        if key not in self._flat:
            positions_S = slice(mask_BS.shape[1] - num_tokens // size, None)
            self._flat[key] = mask_BS[:, positions_S].reshape(-1).to(key[1], torch.bool)
        return self._flat[key]

    def _check(self, layer: MoELayer, routing: Routing) -> None:
        """Raise for tokens whose logits are no numbers; padding may be anything."""
        if is_computed_again():
            return
        logits_TE = routing.logits_TE.detach()
        if is_late(logits_TE.device):
            error = same(_no_numbers_yet, layer.name)
            refuse_later(wrong_rows(error, logits_TE, self._mask_of(routing), may_close=True))
            return
        # The largest of numbers and NaN is NaN; -inf closes an expert.
        wrong_T = ~logits_TE.amax(dim=-1).isfinite()
        if not bool(wrong_T.any()):
            return
        mask_T = self._mask_of(routing)
        wrong_T = wrong_T if mask_T is None else wrong_T & mask_T
        if wrong := int(wrong_T.sum()):
            raise _no_numbers(layer.name, f"{wrong} of T = {len(wrong_T)} tokens")

    def _end(self, _model: nn.Module, _args: tuple[Any, ...], _out: object) -> None:
        # What is computed again later, as under activation checkpointing, has no ids of its own.
        self._ids, self._tokens, self._mask = {}, None, None
        self._flat.clear()

    def _install(self, number: int, layer: MoELayer) -> None:
        """Hook one block, to learn the batch size, and its gate."""
        size: int | None = None

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal size
            hidden = args[0] if args else kwargs.get("hidden_states")
            size = int(hidden.shape[0]) if isinstance(hidden, Tensor) and hidden.ndim == 3 else None

        def decide(handed: Handed) -> Handed | None:
            found = Routing(
                logits_TE=handed.logits_TE, weights_TK=handed.weights_TK, indices_TK=handed.indices_TK,
                batch_size=size, rest=handed.rest,
            )  # fmt: skip
            self._check(layer, found)
            after = found
            for change in self._changes:
                after = change(number, after)
            if after is found:
                return None
            return handed.changed(after.logits_TE, after.weights_TK, after.indices_TK, after.rest)

        # Some blocks are called by other methods than their forward: what holds them knows as much.
        holder = self.model.get_submodule(layer.name.rpartition(".")[0])
        for module in (holder, layer.block):
            self._handles.append(module.register_forward_pre_hook(Held(before, HOOK), with_kwargs=True))
        self._handles += GatePort(layer).open(decide)


def _no_numbers(name: str, of: str) -> InputError:
    what = f"{name}: logits of {of} are NaN or infinite"
    return InputError(sentence(what, allowed="numbers", do="look for NaN in the weights"))


def _no_numbers_yet(name: str) -> InputError:
    return _no_numbers(name, "a token of this or an earlier pass")


def _padded(mask: object) -> Tensor | None:
    """Return a mask (B, S) with padding in it, None for anything else; an accelerator is not asked."""
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return None
    return None if mask.device.type == "cpu" and bool(mask.all()) else mask


def _for_tokens(routing: Routing, delta_BE: Tensor) -> Tensor:
    """Return one row of delta_BE per token."""
    num_tokens, batch_size = routing.logits_TE.shape[0], routing.batch_size
    if batch_size is None or batch_size != delta_BE.shape[0] or num_tokens % batch_size:
        raise ShapeError(
            sentence(
                "deltas and batch",
                allowed=f"B = {delta_BE.shape[0]} items, as the deltas have",
                got=f"B = {batch_size}, {num_tokens} tokens",
                do="make the deltas for this batch; where depth differs between sequences a block sees some "
                "of them: give all one depth",
            )
        )
    return delta_BE.repeat_interleave(num_tokens // batch_size, dim=0)
