"""This module decodes sequences of equal depth together: a batch as narrow as it is wide."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from turnout.core.errors import InputError, sentence
from turnout.nn.caches import cache_keyword
from turnout.nn.depth.blocks import decodes_lightly, lightly
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.depth.slots import take_rows


def generate_grouped(
    routed: RoutedDepth, input_ids_BT: Tensor, attention_mask_BT: Tensor | None = None, **options: Any
) -> Tensor:
    """Return what `model.generate` returns for the batch, one group of equal decisions after another.

    The prompt is read once, for all; then the rows of the cache are shared out. `options` go to `generate`
    (`max_new_tokens`, `do_sample`, ...); the answers are padded on the right to the longest. Beams, several
    answers and answers as a dict are refused with `InputError`.
    """
    _check_plain(options, routed.model.generation_config)
    # The caches are made here and do not leave; a copy of the ids is a tensor like others.
    with lightly(routed.model) if decodes_lightly(routed) else torch.no_grad():
        answers_BT = _grouped(routed, input_ids_BT, attention_mask_BT, options)
    return answers_BT.clone()


def _grouped(
    routed: RoutedDepth, input_ids_BT: Tensor, attention_mask_BT: Tensor | None, options: dict[str, Any]
) -> Tensor:
    if attention_mask_BT is None:
        attention_mask_BT = torch.ones_like(input_ids_BT)
    cache, counts_BL = read_prompts(routed, input_ids_BT, attention_mask_BT)
    model: Any = routed.model
    answers: list[tuple[Tensor, Tensor]] = []
    for rows in groups(counts_BL):
        inputs = {"input_ids": input_ids_BT[rows], "attention_mask": attention_mask_BT[rows]}
        if cache is not None:
            inputs[cache_keyword(model)] = cache if len(rows) == len(input_ids_BT) else take_rows(cache, rows)
            with routed.kept():
                answers.append((rows, model.generate(**inputs, **options)))
            continue
        with routed.forced(counts_BL[rows]):
            answers.append((rows, model.generate(**inputs, **options)))
    return _joined(answers, input_ids_BT, options.get("pad_token_id", model.generation_config.pad_token_id))


def _check_plain(options: dict[str, Any], config: Any) -> None:
    """Raise `InputError` for more than one sequence a prompt: rows are shared out by prompt."""
    config = options.get("generation_config", config)
    for name, plain in (("return_dict_in_generate", False), ("num_return_sequences", 1), ("num_beams", 1)):
        got = options.get(name, getattr(config, name, None))
        if got is not None and got != plain:
            raise InputError(
                sentence(
                    f"generate_grouped: {name}",
                    allowed=plain,
                    got=got,
                    do="call generate of the model itself, which takes mixed decisions too",
                )
            )


def groups(counts_BL: Tensor) -> list[Tensor]:
    """Return the rows of each decision that occurs, in the order of their first rows."""
    found: dict[tuple[int, ...], list[int]] = {}
    for row, counts in enumerate(counts_BL.tolist()):
        found.setdefault(tuple(counts), []).append(row)
    return [torch.tensor(rows, device=counts_BL.device) for rows in found.values()]


def read_prompts(
    routed: RoutedDepth, input_ids_BT: Tensor, attention_mask_BT: Tensor
) -> tuple[DynamicCache | None, Tensor]:
    """Return (cache, counts_BL) after reading prompts, the cache without the last token, still to be read.

    The cache is None for prompts of one token, of which nothing would be left.
    """
    model: Any = routed.model
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache.activate_past_recording()
    position_BT = (attention_mask_BT.long().cumsum(-1) - 1).clamp(min=0)
    model(
        input_ids=input_ids_BT,
        attention_mask=attention_mask_BT,
        position_ids=position_BT,
        use_cache=True,
        logits_to_keep=1,
        **{cache_keyword(model): cache},
    )
    counts_BL = torch.stack([slots.counts_B for slots in cache.layers], dim=1)
    if input_ids_BT.shape[1] < 2:
        return None, counts_BL
    cache.crop(-1)
    for slots in cache.layers:
        slots.record_past = False
    return cache, counts_BL


def _joined(answers: list[tuple[Tensor, Tensor]], like_BT: Tensor, pad: int | None) -> Tensor:
    longest = max(out_RT.shape[1] for _, out_RT in answers)
    joined_BT = torch.full(
        (len(like_BT), longest), 0 if pad is None else pad, dtype=like_BT.dtype, device=like_BT.device
    )
    for rows, out_RT in answers:
        joined_BT[rows, : out_RT.shape[1]] = out_RT
    return joined_BT
