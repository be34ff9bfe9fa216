"""This module says whether greedy decoding would answer right, without decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.tiny import IGNORED, Batch


@torch.no_grad()
def right_answers(
    routed: RoutedDepth, batch: Batch, *, counts_BL: Any = None, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """Return (is_right_B, counts_BL): whether greedy decoding gives each answer, and the depths it ran at.

    One forward over prompt and answer: greedy decoding gives the answer if and only if every token of it is
    the most likely one after those before. What is to be said inside the prompt (see `answer_batch`) must be
    right as well. The router sees the prompt alone. `counts_BL` forces decisions.
    Raises `InputError` for rows that are not padded on the left alone.
    """
    rows = len(batch.input_ids_BT)
    if counts_BL is not None and len(counts_BL) != rows:
        raise InputError(sentence("right_answers: counts_BL", allowed=f"{rows} rows", got=len(counts_BL)))
    mask_BT = batch.attention_mask_BT.bool()
    if bool((mask_BT[:, :-1] & ~mask_BT[:, 1:]).any()):
        raise InputError(
            sentence(
                "right_answers: attention_mask_BT",
                allowed="rows that are padded on the left alone",
                got="padding after a token",
                do="build the batch with answer_batch",
            )
        )
    right, counts = [], []
    for start in range(0, rows, batch_size):
        part = slice(start, start + batch_size)
        one = take_questions(batch, range(rows)[part])
        right.append(_right(routed, one, None if counts_BL is None else counts_BL[part]))
        counts.append(routed.counts_BL)
    return torch.cat(right), torch.cat(counts)


def _right(routed: RoutedDepth, batch: Batch, counts: Any) -> Tensor:
    _, prompt_BT = prompts_of(batch)
    with routed.prompted(prompt_BT):
        if counts is None:
            logits_BTV = _logits(routed, batch)
        else:
            with routed.forced(counts):
                logits_BTV = _logits(routed, batch)
    said_BT = logits_BTV[:, :-1].argmax(-1)
    meant_BT = batch.labels_BT[:, 1:]
    return ((said_BT == meant_BT) | (meant_BT == IGNORED)).all(1)


def _logits(routed: RoutedDepth, batch: Batch) -> Tensor:
    # Only the answer's columns need the head: rows are padded on the left, so they are the last.
    columns = int((batch.labels_BT != IGNORED).any(0).sum()) + 1
    output = routed.model(
        input_ids=batch.input_ids_BT,
        attention_mask=batch.attention_mask_BT,
        use_cache=False,
        logits_to_keep=columns,
    )
    logits_BTV: Tensor = output.logits
    spare = batch.input_ids_BT.shape[1] - logits_BTV.shape[1]
    return torch.nn.functional.pad(logits_BTV, (0, 0, spare, 0)) if spare else logits_BTV


def take_questions(batch: Batch, rows: Sequence[int] | Tensor) -> Batch:
    """Return the questions `rows` of a batch; a row may come more than once."""
    index = torch.as_tensor(rows, dtype=torch.int64)
    return Batch(
        input_ids_BT=batch.input_ids_BT[index],
        attention_mask_BT=batch.attention_mask_BT[index],
        labels_BT=batch.labels_BT[index],
        prompt_BT=None if batch.prompt_BT is None else batch.prompt_BT[index],
    )


def prompts_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return (input_ids_BT, prompt_BT): everything, and where the prompt is."""
    if batch.prompt_BT is not None:
        return batch.input_ids_BT, batch.prompt_BT
    return batch.input_ids_BT, (batch.labels_BT == IGNORED) & batch.attention_mask_BT.bool()
