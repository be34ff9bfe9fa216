"""This module generates a batch's answers a stretch at a time, so that something may change in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.caches import cache_keyword, find_cache

CACHES = ("cache", "past_key_values")
OWNED = ("inputs", "input_ids", "attention_mask", *CACHES, "max_length", "return_dict_in_generate")
"""Arguments of `generate` that are set here."""

WHOLE = (
    "forced_bos_token_id",
    "forced_eos_token_id",
    "begin_suppress_tokens",
    "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "guidance_scale",
    "max_time",
)
"""Arguments that mean the start, the prompt or the end of one call; a stretch has its own of them."""


class Segments:
    """Prompts and their answers so far; `active` are the items that have not ended.

    Raises `InputError` for options that don't make sense in stretches: beams, several answers a prompt, a
    cache made elsewhere.
    """

    def __init__(
        self,
        model: Any,
        ids_BT: Tensor,
        mask_BT: Tensor,
        *,
        max_new_tokens: int,
        options: Mapping[str, Any],
    ) -> None:
        if not hasattr(model, "generate"):
            raise InputError(
                sentence(f"{type(model).__name__} can't generate", allowed="a model with `generate`")
            )
        _check_options(model, options)
        self.model = model
        self.ids_BT, self.mask_BT = ids_BT, mask_BT
        self.remaining = max_new_tokens
        own = ("pad_token_id", "min_new_tokens", "streamer")
        self.options = {k: v for k, v in options.items() if k not in own}
        streamer = options.get("streamer")
        self._stream = None if streamer is None else _Stream(streamer)
        self.least = int(_setting(model, options, "min_new_tokens") or 0)
        self.active = list(range(len(ids_BT)))
        self.eos = _eos_ids(model, options)
        self.pad = _pad_id(model, options, self.eos)
        self._cache: Any = None

    @property
    def rows(self) -> Tensor:
        """The indices of the active items."""
        return torch.tensor(self.active, device=self.ids_BT.device)

    def context(self) -> tuple[Tensor, Tensor]:
        """Return (ids, mask) of the active items, prompt and answer so far."""
        return self.ids_BT[self.rows], self.mask_BT[self.rows]

    def extend(self, tokens: int, *, is_cache_kept: bool) -> None:
        """Generate up to `tokens` more for the active items; those that end leave `active`."""
        rows, (ids_BT, mask_BT) = self.rows, self.context()
        count = min(tokens, self.remaining)
        if self._stream is not None:
            self._stream.begin_stretch()
        out = self.model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=count,
            return_dict_in_generate=True,
            # At least so many in all: what is left of it, within this stretch.
            min_new_tokens=max(min(count, self.least), 0),
            pad_token_id=self.pad,
            streamer=self._stream,
            **{cache_keyword(self.model): self._cache if is_cache_kept else None},
            **self.options,
        )
        self.least -= count
        new_BT = out.sequences[:, ids_BT.shape[1] :]
        is_end_BT = torch.isin(new_BT, torch.tensor(self.eos, device=new_BT.device, dtype=new_BT.dtype))
        # An end token is text; what follows it is padding.
        is_text_BT = is_end_BT.long().cumsum(dim=1) - is_end_BT.long() == 0
        self._append(rows, new_BT.where(is_text_BT, self.pad), is_text_BT)
        has_ended_B = is_end_BT.any(dim=1)
        # `generate` ends before the count where all items ended or a criterion of the caller's was met.
        self.remaining = self.remaining - count if new_BT.shape[1] == count else 0
        going = (~has_ended_B).nonzero().flatten()
        self.active = [self.active[i] for i in going.tolist()] if self.remaining else []
        if is_cache_kept and self.active:
            self._cache = find_cache(out.values())
            self._cache.batch_select_indices(going)
        if self._stream is not None and not self.active:
            self._stream.streamer.end()

    def _append(self, rows: Tensor, new_BT: Tensor, is_text_BT: Tensor) -> None:
        """Add columns to all items; those that ended before are padded."""
        shape = (len(self.ids_BT), new_BT.shape[1])
        ids = self.ids_BT.new_full(shape, self.pad)
        mask = self.mask_BT.new_zeros(shape)
        ids[rows], mask[rows] = new_BT, is_text_BT.to(mask)
        self.ids_BT = torch.cat([self.ids_BT, ids], dim=1)
        self.mask_BT = torch.cat([self.mask_BT, mask], dim=1)


class _Stream:
    """Hands a caller's streamer the prompt once, the tokens of all stretches, and one end."""

    def __init__(self, streamer: Any) -> None:
        self.streamer = streamer
        self._is_prompt_due = True
        self._is_prompt_next = False

    def begin_stretch(self) -> None:
        """Expect the text so far, with which `generate` begins."""
        self._is_prompt_next = True

    def put(self, value: Tensor) -> None:
        """Hand tokens on."""
        is_told = self._is_prompt_next and not self._is_prompt_due
        self._is_prompt_next = self._is_prompt_due = False
        if not is_told:
            self.streamer.put(value)

    def end(self) -> None:
        """Do nothing: the end of a stretch is no end."""


def _setting(model: Any, options: Mapping[str, Any], name: str) -> Any:
    """Return a setting from the call, else its generation config, or the model's own."""
    # A None that the caller says holds, as in the library: `eos_token_id=None` is an answer without an end.
    if name in options:
        return options[name]
    for config in (options.get("generation_config"), model.generation_config):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    return None


def _check_options(model: Any, options: Mapping[str, Any]) -> None:
    for name in OWNED:
        if name in options:
            what = "a cache made under another routing" if name in CACHES else f"the option {name!r}"
            raise InputError(sentence(f"rewiring: generate takes {what} from nobody", do=f"leave out {name}"))
    for name in ("num_beams", "num_return_sequences"):
        value = _setting(model, options, name)
        if value not in (None, 1):
            raise InputError(
                sentence(f"rewiring: {name}", allowed="1 (offsets belong to one item)", got=value)
            )
    for name in WHOLE:
        value = _setting(model, options, name)
        if value is not None and not (name == "guidance_scale" and value == 1):
            raise InputError(
                sentence(
                    f"rewiring: {name} means the whole of a call, and answers are written in stretches",
                    allowed="none",
                    got=value,
                    do="leave it out, or set it to None in the model's generation_config",
                )
            )


def _eos_ids(model: Any, options: Mapping[str, Any]) -> list[int]:
    found = _setting(model, options, "eos_token_id")
    return [] if found is None else [found] if isinstance(found, int) else [int(i) for i in found]


def _pad_id(model: Any, options: Mapping[str, Any], eos: list[int]) -> int:
    found = _setting(model, options, "pad_token_id")
    if found is not None:
        return int(found)
    return eos[0] if eos else 0
