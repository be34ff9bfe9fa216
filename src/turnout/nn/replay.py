"""This module repeats what gates decided before: for reinforcement learning, and to look into a difference.

A model that is trained on answers chooses other experts than the one that wrote them, if only by rounding;
replaying the choice makes the two comparable. A file is one safetensors file, never a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from turnout.core.errors import ArtifactError, InputError, ShapeError, sentence
from turnout.core.validation import check_choice
from turnout.nn.computed_again import Passes, is_computed_again
from turnout.nn.gate_hook import GateHook, Routing

FORMAT = "turnout-routings-2"
FORMATS = ("turnout-routings-1", FORMAT)
"""Those that are read. The first has expert 0 with weight 0 where the second has -1."""
PARTS = ("logits_TE", "weights_TK", "indices_TK")

Weights = Literal["recorded", "current"]


@contextmanager
def replaying(
    hook: GateHook, records: Sequence[Sequence[Routing]], *, weights: Weights = "recorded"
) -> Iterator[None]:
    """Let the n-th forward pass of each layer choose what the n-th one chose when it was recorded.

    A pass that is computed again in a backward pass, under activation checkpointing, chooses what it chose
    before; the backward pass has to be inside the block too.

    Parameters
    ----------
    hook
        The gates of a model with as many layers; made with `needs_rules=False` it may be of any family whose
        choice can be read.
    records
        What `GateHook.recording` gave: a list for each layer, an entry for each pass.
    weights
        `recorded`: experts and weights as they were, bit for bit. `current`: the recorded experts, weighted
        by what the gate says of them now, so that its gradient flows; needs the rule of each gate.

    Raises `InputError` for another number of layers, experts that a layer does not have, more passes than
    were recorded, other token ids where both the recording and this pass know theirs, and current weights of
    tokens that differ in how many experts they have; `ShapeError` for a pass of other T, K, E or B.
    """
    check_choice("replaying: weights", weights, ("recorded", "current"))
    if len(records) != len(hook.layers):
        allowed = f"one list for each of {len(hook.layers)} layers"
        raise InputError(sentence("replaying: records", allowed=allowed, got=len(records)))
    for number, passes in enumerate(records):
        _check_experts(number, passes, hook)
    if weights == "current" and not hook.rules:
        raise InputError(
            sentence("replaying: weights='current'", allowed="a GateHook with the rules of its gates")
        )
    counters = [_Counter(of_layer) for of_layer in records]

    def change(number: int, now: Routing) -> Routing:
        before = _recorded(records, number, counters[number].next(now.logits_TE), now, hook)
        indices_TK = before.indices_TK.to(now.indices_TK.device)
        weights_TK, rest = before.weights_TK.to(now.weights_TK), _rest(before, now)
        if weights == "current":
            rule, block = hook.rules[number], hook.layers[number].block
            if indices_TK.shape[1] > 1 and bool((indices_TK < 0).any()):
                what = f"replaying: weights='current' in layer {number}, where tokens differ in experts"
                raise InputError(sentence(what, allowed="weights='recorded'"))
            scores_TE = rule.scores(now.logits_TE)
            weights_TK = rule.weigh(block, scores_TE, indices_TK.clamp(min=0)).to(now.weights_TK.dtype)
            rest = now.rest
        return replace(now, weights_TK=weights_TK, indices_TK=indices_TK, rest=rest)

    with hook.changed(change):
        yield


class _Counter:
    """Numbers one layer's passes; what a backward pass computes again has the number that it had."""

    def __init__(self, records: Sequence[Routing]) -> None:
        self.records = records
        self.count = 0
        self.passes: Passes[int] = Passes()

    def next(self, logits_TE: Tensor) -> int:
        """Return the number of the pass that runs, with these logits."""
        if is_computed_again() and (number := self.passes.take(logits_TE, self._is_same)) is not None:
            return number
        self.passes.note(logits_TE, self.count)
        self.count += 1
        return self.count - 1

    def _is_same(self, one: int, other: int) -> bool:
        records = [self.records[number] for number in (one, other) if number < len(self.records)]
        if len(records) < 2:
            return False
        one_of, other_of = records
        pairs = ((one_of.indices_TK, other_of.indices_TK), (one_of.weights_TK, other_of.weights_TK))
        return all(torch.equal(was, is_now) for was, is_now in pairs)


def _check_experts(number: int, passes: Sequence[Routing], hook: GateHook) -> None:
    """Raise unless all that was chosen is an expert, an output of the gate that is none, or a hole."""
    for count, routing in enumerate(passes):
        chosen_TK = routing.indices_TK
        known = max(hook.layers[number].num_experts, routing.logits_TE.shape[-1])
        if chosen_TK.numel() and not -1 <= int(chosen_TK.min()) <= int(chosen_TK.max()) < known:
            where = f"replaying: experts of layer {number}, pass {count + 1}"
            got = f"{int(chosen_TK.min())} to {int(chosen_TK.max())}"
            raise InputError(sentence(where, allowed=f"-1 to {known - 1}", got=got))


def _rest(before: Routing, now: Routing) -> tuple[Any, ...]:
    """Return what a gate gave to others than its experts, as recorded; what is no tensor is that of now."""
    if len(before.rest) != len(now.rest):
        return now.rest
    pairs = zip(before.rest, now.rest, strict=True)
    return tuple(was.to(is_now) if isinstance(is_now, Tensor) else is_now for was, is_now in pairs)


def _recorded(
    records: Sequence[Sequence[Routing]], number: int, count: int, now: Routing, hook: GateHook
) -> Routing:
    """Return what a pass shall repeat; raises for one that it can't be of."""
    tokens, experts = hook.tokens, hook.layers[number].num_experts
    if count >= len(records[number]):
        allowed = f"{len(records[number])} passes, as were recorded"
        raise InputError(sentence(f"layer {number}: pass {count + 1}", allowed=allowed))
    before, where = records[number][count], f"layer {number}, pass {count + 1}"
    was_TK, is_TK = tuple(before.indices_TK.shape), tuple(now.indices_TK.shape)
    # K is that of the token with the most experts where a gate is free in how many it takes.
    is_free = hasattr(hook.layers[number].gate, "_turnout_answer") or bool((before.indices_TK < 0).any())
    ends = 1 if is_free and was_TK[0] == is_TK[0] else 2
    sizes = [("tokens and experts", "(T, K)", was_TK[:ends], is_TK[:ends])]
    # A gate may have outputs that are no expert of its block, and one that stood in its place none of them.
    if before.logits_TE.shape[-1] != experts:
        sizes.append(("outputs of the gate", "(E,)", before.logits_TE.shape[-1:], now.logits_TE.shape[-1:]))
    if before.batch_size is not None and now.batch_size is not None:
        sizes.append(("items", "(B,)", (before.batch_size,), (now.batch_size,)))
    for what, name, was, got in sizes:
        if was != got:
            allowed = f"{name} = {tuple(was)}, as recorded"
            raise ShapeError(sentence(f"{where}: {what}", allowed=allowed, got=tuple(got)))
    if before.tokens is not None and tokens is not None and before.tokens != tokens:
        raise InputError(
            sentence(
                f"{where}: token ids", allowed=f"those recorded, of fingerprint {before.tokens}", got=tokens
            )
        )
    return before


def save_routings(path: Path, records: Sequence[Sequence[Routing]]) -> Path:
    """Write what was recorded, in one safetensors file; its folder is made if it is not there."""
    tensors: dict[str, Tensor] = {}
    sizes: list[list[int | None]] = []
    tokens = [[routing.tokens for routing in passes] for passes in records]
    for number, passes in enumerate(records):
        sizes.append([routing.batch_size for routing in passes])
        for count, routing in enumerate(passes):
            for part in PARTS:
                tensors[f"{number}.{count}.{part}"] = getattr(routing, part).detach().cpu().contiguous()
            if routing.mask_T is not None:
                # Layers of a pass share one, and a file holds no shared memory.
                tensors[f"{number}.{count}.mask_T"] = routing.mask_T.detach().cpu().clone()
            for place, value in enumerate(routing.rest):
                # Saved are tensors; a part that is none stays with the run that made it.
                if isinstance(value, Tensor):
                    tensors[f"{number}.{count}.rest.{place}"] = value.detach().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        tensors,
        path,
        metadata={"format": FORMAT, "batch_sizes": json.dumps(sizes), "tokens": json.dumps(tokens)},
    )
    return path


def load_routings(path: Path) -> list[list[Routing]]:
    """Read what `save_routings` wrote; raises `ArtifactError` for another file.

    In files of the first format a choice of weight 0 is read as a hole.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            sentence(f"{str(path)!r}", allowed="routings in safetensors", got=str(error))
        ) from error
    if notes.get("format") not in FORMATS:
        got = notes.get("format", "no format")
        raise ArtifactError(sentence(f"{str(path)!r}", allowed=f"the format {FORMAT!r}", got=got))
    records: list[list[Routing]] = []
    # Files of before have none.
    tokens = json.loads(notes.get("tokens", "null"))
    for number, sizes in enumerate(json.loads(notes["batch_sizes"])):
        passes = []
        for count, size in enumerate(sizes):
            parts: dict[str, torch.Tensor] = {part: tensors[f"{number}.{count}.{part}"] for part in PARTS}
            if notes["format"] == FORMATS[0]:
                parts["indices_TK"] = parts["indices_TK"].masked_fill(parts["weights_TK"] == 0, -1)
            rest: list[Tensor] = []
            while (found := tensors.get(f"{number}.{count}.rest.{len(rest)}")) is not None:
                rest.append(found)
            named = None if tokens is None else tokens[number][count]
            mask_T = tensors.get(f"{number}.{count}.mask_T")
            passes.append(Routing(batch_size=size, rest=tuple(rest), tokens=named, mask_T=mask_T, **parts))
        records.append(passes)
    return records
