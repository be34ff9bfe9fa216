"""This module decodes token by token as the library's loop does, with less between two tokens.

The library prepares the arguments of a model anew for every token, since any of them may have to grow with
the answer. Where only token ids, mask and positions do, the others are those of the token before.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, GenerationMixin
from transformers.generation import GenerationMode, MaxLengthCriteria

GROWING = ("input_ids", "attention_mask", "position_ids")
"""Arguments that get a token longer with every token, in a way that is known here."""

PARTS = ("_prefill", "_sample", "_optimize_model_for_decode", "_update_model_kwargs_for_generation")
"""What this takes from the library beside what is public; a release without them has its own loop run."""

OUTPUTS = (
    "return_dict_in_generate",
    "output_scores",
    "output_logits",
    "output_attentions",
    "output_hidden_states",
)

UNHEARD = (
    "custom_generate",
    "streamer",
    "synced_gpus",
    "tokenizer",
    "assistant_tokenizer",
    "assistant_model",
)
"""Arguments of `generate` that ask for another loop, or that the library hands to its own alone."""

HEARD = 4
"""Arguments of `generate` after the prompt that may be given by place; the next one is `synced_gpus`."""


class NotHere(Exception):
    """The answer is asked for in a way that is for the library alone, such as by beams."""


@functools.cache
def knows_library() -> bool:
    """Whether the installed release has the parts that are taken from it."""
    prepare: Any = getattr(GenerationMixin, "prepare_inputs_for_generation", None)
    if prepare is None or not all(hasattr(GenerationMixin, name) for name in PARTS):
        return False
    return "next_sequence_length" in inspect.signature(prepare).parameters


def may_decode(generate: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `decode` may be handed to this `generate` with these arguments, the prompt left out."""
    if getattr(generate, "__func__", None) is not GenerationMixin.generate or len(args) > HEARD:
        return False
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return False
    return knows_library() and all(kwargs.get(name) is None for name in UNHEARD)


def decode(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    **model_kwargs: Any,
) -> Any:
    """Return what the library's loop returns for the same arguments: `custom_generate` of `generate`.

    Bit for bit, and with the same draws where it samples. What needs more than that runs in the library's
    loop; raises `NotHere` where that is another than the one for single sequences.
    """
    if generation_config.get_generation_mode() not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        raise NotHere
    if not _is_plain(model, generation_config, logits_processor, model_kwargs):
        return model._sample(
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            **model_kwargs,
        )
    with model._optimize_model_for_decode():
        return _decode(model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs)


def _is_plain(model: Any, config: Any, processors: Any, model_kwargs: dict[str, Any]) -> bool:
    """Whether arguments grow as known here, and nothing but token ids is asked for."""
    for name in ("prepare_inputs_for_generation", "_update_model_kwargs_for_generation"):
        if getattr(getattr(model, name), "__func__", None) is not getattr(GenerationMixin, name):
            return False
    if any(getattr(config, name, None) for name in OUTPUTS) or config.is_assistant:
        return False
    if model.config.is_encoder_decoder:
        return False
    # There the library looks a token late whether all have come to their end.
    if model.device.type == "mps" or not model_kwargs.get("use_cache"):
        return False
    others = [value for name, value in model_kwargs.items() if name not in GROWING]
    if not all(value is None or isinstance(value, Cache | bool | int | float | str) for value in others):
        return False
    return all(len(inspect.signature(processor.__call__).parameters) == 2 for processor in processors)


def _decode(
    model: Any, ids_BT: Tensor, processors: Any, criteria: Any, config: Any, model_kwargs: dict[str, Any]
) -> Tensor:
    end = _End(criteria, config, ids_BT)
    outputs = model._prefill(ids_BT, config, model_kwargs)
    inputs: dict[str, Any] | None = None
    while True:
        scores_BV = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=ids_BT.device)
        for processor in processors:
            scores_BV = processor(ids_BT, scores_BV)
        if config.do_sample:
            chosen_B = torch.multinomial(scores_BV.softmax(dim=-1), num_samples=1).squeeze(1)
        else:
            chosen_B = scores_BV.argmax(dim=-1)
        chosen_B = end.padded(chosen_B)
        ids_BT = torch.cat([ids_BT, chosen_B[:, None]], dim=-1)
        if end.is_reached(ids_BT):
            return ids_BT
        if inputs is None:
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
            inputs = model.prepare_inputs_for_generation(ids_BT, next_sequence_length=1, **model_kwargs)
        else:
            _grow(inputs, chosen_B)
        # Those of the prompt may be many, and wait no longer than they have to.
        del outputs
        outputs = model(**inputs, return_dict=True)


def _grow(inputs: dict[str, Any], chosen_B: Tensor) -> None:
    """Make a token's arguments those of the next one."""
    inputs["input_ids"] = chosen_B[:, None].to(inputs["input_ids"].device)
    mask_BT, position_BT = inputs.get("attention_mask"), inputs.get("position_ids")
    if mask_BT is not None:
        inputs["attention_mask"] = torch.cat([mask_BT, mask_BT.new_ones(len(mask_BT), 1)], dim=-1)
    if position_BT is not None:
        inputs["position_ids"] = position_BT + 1


class _End:
    """Which sequences have come to their end, and when all have."""

    def __init__(self, criteria: Any, config: Any, ids_BT: Tensor) -> None:
        self.lengths = [one for one in criteria if type(one) is MaxLengthCriteria]
        self.others = [one for one in criteria if type(one) is not MaxLengthCriteria]
        # From here on a limit of length has something to say: that it is reached, or a warning.
        limits = [(one.max_length, one.max_position_embeddings) for one in self.lengths]
        self.from_length = min((n for pair in limits for n in pair if n is not None), default=None)
        self.unfinished_B = torch.ones(len(ids_BT), dtype=torch.long, device=ids_BT.device)
        has_end = any(hasattr(one, "eos_token_id") for one in criteria)
        self.pad: Tensor | None = config._pad_token_tensor.to(ids_BT.device) if has_end else None

    def padded(self, chosen_B: Tensor) -> Tensor:
        """Return padding for sequences that have come to their end, and for others what was chosen."""
        if self.pad is None:
            return chosen_B
        return chosen_B * self.unfinished_B + self.pad * (1 - self.unfinished_B)

    def is_reached(self, ids_BT: Tensor) -> bool:
        """Whether all sequences have come to their end."""
        asked = list(self.others)
        if self.from_length is not None and ids_BT.shape[1] >= self.from_length:
            asked += self.lengths
        for one in asked:
            self.unfinished_B = self.unfinished_B & ~one(ids_BT, None)
        return bool(asked) and not bool(self.unfinished_B.any())
