"""This module makes a recording for analyses of what `GateHook.recording` kept, pass by pass.

Letters as in `recording`: B sequences, S tokens of a sequence, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from turnout.core.errors import InputError, ShapeError, sentence
from turnout.nn.analysis.recording import Recording, chosen_of
from turnout.nn.gate_hook import Routing
from turnout.nn.replay import FORMATS, load_routings


def read_recording(path: Path) -> Recording:
    """Read a file of `Recording.save` or of `save_routings`; raises `ArtifactError` for another."""
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("format")
    except SafetensorError:
        found = None
    return from_routings(load_routings(path)) if found in FORMATS else Recording.load(path)


def from_routings(records: Sequence[Sequence[Routing]]) -> Recording:
    """Return the recording of passes that were kept one by one, as for replay.

    A pass of one token a sequence goes on with the sequences of the pass before, as `generate` does with a
    cache, if there are as many; every other pass begins new ones. Shorter sequences are padded on the
    right. What a pass knew as padding is left out; without its mask it counts where gates gave it experts.
    Raises `InputError` without a pass and for logits that are NaN at a token, `ShapeError` for layers with
    other passes.
    """
    if not records or not all(records):
        raise InputError(sentence("from_routings: records", allowed="a pass in every layer", got="none"))
    lengths = [[_sizes(routing) for routing in passes] for passes in records]
    if any(sizes != lengths[0] for sizes in lengths):
        raise ShapeError(
            sentence("from_routings: records", allowed="(B, S) equal in all layers", got="layers that differ")
        )
    rows, most = _rows(lengths[0])
    chosen, probs = [], []
    for number, passes in enumerate(records):
        experts = passes[0].logits_TE.shape[-1]
        for count, routing in enumerate(passes):
            wrong_T = routing.logits_TE.isnan().any(dim=-1)
            if bool((wrong_T if routing.mask_T is None else wrong_T & routing.mask_T).any()):
                what = f"from_routings: logits of layer {number}, pass {count + 1}"
                raise InputError(sentence(what, allowed="numbers", got="NaN"))
        found = [chosen_of(routing.indices_TK, experts) for routing in passes]
        chosen.append(_joined(found, lengths[0], rows, most))
        sure = [routing.logits_TE.float().softmax(dim=-1) for routing in passes]
        probs.append(_joined(sure, lengths[0], rows, most))
    masks = [_real(routing)[:, None] for routing in records[0]]
    mask_BS = _joined(masks, lengths[0], rows, most)[..., 0]
    return Recording(
        chosen=tuple(chosen), probs=tuple(probs), mask_BS=None if bool(mask_BS.all()) else mask_BS
    )


def _sizes(routing: Routing) -> tuple[int, int]:
    """Return (B, S) of a pass; one whose batch is not known is one sequence."""
    items = routing.batch_size or 1
    return items, routing.indices_TK.shape[0] // items


def _real(routing: Routing) -> Tensor:
    """Return where a pass had tokens, (T,)."""
    if routing.mask_T is not None:
        return routing.mask_T
    return torch.ones(len(routing.indices_TK), dtype=torch.bool)


def _rows(sizes: Sequence[tuple[int, int]]) -> tuple[list[list[int]], int]:
    """Return the passes of each group of sequences, and the length of the longest."""
    rows: list[list[int]] = []
    for count, (items, positions) in enumerate(sizes):
        if rows and positions == 1 and sizes[rows[-1][0]][0] == items:
            rows[-1].append(count)
        else:
            rows.append([count])
    return rows, max(sum(sizes[count][1] for count in row) for row in rows)


def _joined(
    parts: Sequence[Tensor], sizes: Sequence[tuple[int, int]], rows: Sequence[Sequence[int]], most: int
) -> Tensor:
    """Return (B, S, E) of all sequences of (T, E) of all passes, 0 behind what is shorter."""
    groups = []
    for row in rows:
        joined_BSE = torch.cat([parts[count].cpu().reshape(*sizes[count], -1) for count in row], dim=1)
        groups.append(torch.nn.functional.pad(joined_BSE, (0, 0, 0, most - joined_BSE.shape[1])))
    return torch.cat(groups)
