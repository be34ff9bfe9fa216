"""This module makes batches of demonstrations: the loss falls on the model's own turns, never on replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from turnout.core.errors import InputError, sentence
from turnout.nn.tiny import IGNORED, Batch


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A dialogue as it should go."""

    prompt: str
    turns: tuple[str, ...]
    """What the model writes, turn by turn."""
    replies: tuple[str, ...]
    """What it reads after each turn but the last."""

    def __post_init__(self) -> None:
        if len(self.replies) != len(self.turns) - 1:
            raise InputError(
                sentence(
                    "Demonstration.replies",
                    allowed=f"one fewer than the turns ({len(self.turns)})",
                    got=len(self.replies),
                )
            )


def demonstration_batch(tokenizer: PreTrainedTokenizerBase, demonstrations: Sequence[Demonstration]) -> Batch:
    """Return a batch padded on the left; a row reads begin, prompt, turn, reply, turn, and so on."""
    rows = [_row(tokenizer, one) for one in demonstrations]
    length = max(len(ids) for ids, _ in rows)
    pads = [length - len(ids) for ids, _ in rows]
    pad = tokenizer.pad_token_id
    return Batch(
        input_ids_BT=torch.tensor([[pad] * n + ids for n, (ids, _) in zip(pads, rows, strict=True)]),
        attention_mask_BT=torch.tensor(
            [[0] * n + [1] * len(ids) for n, (ids, _) in zip(pads, rows, strict=True)]
        ),
        labels_BT=torch.tensor([[IGNORED] * n + labels for n, (_, labels) in zip(pads, rows, strict=True)]),
    )


def _row(tokenizer: PreTrainedTokenizerBase, one: Demonstration) -> tuple[list[int], list[int]]:
    ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids += tokenizer.encode(one.prompt, add_special_tokens=False)
    labels = [IGNORED] * len(ids)
    for number, turn in enumerate(one.turns):
        own = tokenizer.encode(turn, add_special_tokens=False)
        ids += own
        labels += own
        if number < len(one.replies):
            read = tokenizer.encode(one.replies[number], add_special_tokens=False)
            ids += read
            labels += [IGNORED] * len(read)
    return ids, labels
