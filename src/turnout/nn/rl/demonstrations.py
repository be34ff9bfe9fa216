"""This module makes batches of demonstrations: the loss falls on the model's own turns, never on replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from turnout.core.errors import InputError, sentence
from turnout.nn.prompts import padding, prompt_ids
from turnout.nn.tiny import IGNORED, Batch, left_padded


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
    """Return a batch padded on the left; a row reads prompt, turn, reply, turn, and so on.

    The prompt is written as in `roll_out`, with the special tokens that the tokenizer adds to a text.
    """
    rows = [_row(tokenizer, one) for one in demonstrations]
    ids_BT, mask_BT = left_padded([ids for ids, _ in rows], padding(tokenizer))
    labels_BT, _ = left_padded([labels for _, labels in rows], IGNORED)
    return Batch(input_ids_BT=ids_BT, attention_mask_BT=mask_BT, labels_BT=labels_BT)


def _row(tokenizer: PreTrainedTokenizerBase, one: Demonstration) -> tuple[list[int], list[int]]:
    ids = prompt_ids(tokenizer, one.prompt)
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
