"""This module generates a batch's answers a stretch at a time, so that something may change in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.generation.configuration_utils import ALL_STATIC_CACHE_IMPLEMENTATIONS
from transformers.generation.stopping_criteria import (
    EosTokenCriteria,
    MaxLengthCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

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
    "token_healing",
)
"""Arguments that mean the start, the prompt or the end of one call; a stretch has its own of them."""

REPLACING: dict[type, str] = {MaxLengthCriteria: "max_new_tokens", EosTokenCriteria: "eos_token_id"}
"""Criteria that `generate` makes itself, and from which argument."""

NEVER = 2**62


class Segments:
    """Prompts and their answers so far; `active` are the items that have not ended.

    Every stretch is generated for the whole batch, as `generate` does: what belongs to an item by its number
    (a constraint, a processor or a criterion with state) stays with it. An item that has ended is padded.

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
        is_cache_kept: bool,
        options: Mapping[str, Any],
    ) -> None:
        if not hasattr(model, "generate"):
            raise InputError(
                sentence(f"{type(model).__name__} can't generate", allowed="a model with `generate`")
            )
        _check_options(model, options, is_cache_kept=is_cache_kept)
        self.model = model
        self.ids_BT, self.mask_BT = ids_BT, mask_BT
        self.prompt_length = ids_BT.shape[1]
        self.remaining = max_new_tokens
        self.is_cache_kept = is_cache_kept
        own = ("pad_token_id", "min_new_tokens", "streamer", "stopping_criteria")
        self.options = {k: v for k, v in options.items() if k not in own}
        streamer = options.get("streamer")
        self._stream = None if streamer is None else _Stream(streamer)
        self.least = int(_setting(model, options, "min_new_tokens") or 0)
        self.active = list(range(len(ids_BT)))
        self.eos = _eos_ids(model, options)
        self.pad = _pad_id(model, options, self.eos)
        self._ends = Ends(criteria=_criteria(model, options), like=ids_BT)
        self._cache: Any = None

    @property
    def rows(self) -> Tensor:
        """The indices of the active items."""
        return torch.tensor(self.active, device=self.ids_BT.device)

    def context(self) -> tuple[Tensor, Tensor]:
        """Return (ids, mask) of the active items, prompt and answer so far."""
        return self.ids_BT[self.rows], self.mask_BT[self.rows]

    def extend(self, tokens: int) -> None:
        """Generate up to `tokens` more; items that end leave `active`."""
        count = min(tokens, self.remaining)
        if self._stream is not None:
            self._stream.begin_stretch()
        seen_BT = self.mask_BT.clone()
        # As `generate` has it within a call: what pads an item that has ended concerns nobody else.
        seen_BT[:, self.prompt_length :] = 1
        out = self.model.generate(
            input_ids=self.ids_BT,
            attention_mask=seen_BT,
            max_new_tokens=count,
            return_dict_in_generate=True,
            # At least so many in all: what is left of it, within this stretch.
            min_new_tokens=max(min(count, self.least), 0),
            pad_token_id=self.pad,
            streamer=self._stream,
            stopping_criteria=StoppingCriteriaList([self._ends]),
            **{cache_keyword(self.model): self._cache},
            **self.options,
        )
        self.least -= count
        new_BT = out.sequences[:, self.ids_BT.shape[1] :]
        is_text_BT = self._ends.text(new_BT, self.ids_BT.shape[1], self.eos)
        self.ids_BT = torch.cat([self.ids_BT, new_BT.where(is_text_BT, self.pad)], dim=1)
        self.mask_BT = torch.cat([self.mask_BT, is_text_BT.to(self.mask_BT)], dim=1)
        # `generate` ends before the count where all items have ended.
        self.remaining = self.remaining - count if new_BT.shape[1] == count else 0
        is_going_B = self._ends.length_B > self.ids_BT.shape[1]
        self.active = is_going_B.nonzero().flatten().tolist() if self.remaining else []
        if self.is_cache_kept:
            self._cache = find_cache(out.values())
        if self._stream is not None and not self.active:
            self._stream.streamer.end()


class Ends(StoppingCriteria):  # type: ignore[misc]
    """Remembers how long each item's text was when it ended; `length_B` is `NEVER` where it goes on.

    Every call of `generate` begins with all items unfinished, and none says which of them met a criterion:
    the caller's are asked here, once a token, about the whole answer.
    """

    def __init__(self, *, criteria: StoppingCriteriaList, like: Tensor) -> None:
        self.length_B = torch.full((len(like),), NEVER, device=like.device)
        self._criteria = criteria
        self._scores: tuple[Tensor, ...] = ()
        self._new_scores: tuple[Tensor, ...] = ()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return which items have ended (B,)."""
        length = input_ids.shape[1]
        if scores is not None:
            self._new_scores, scores = tuple(scores), (*self._scores, *scores)
        is_end_B = self._criteria(input_ids, scores, **kwargs).to(self.length_B.device)
        self.length_B = self.length_B.where(~is_end_B, self.length_B.clamp_max(length))
        return (self.length_B <= length).to(input_ids.device)

    def text(self, new_BT: Tensor, start: int, eos: list[int]) -> Tensor:
        """Return which tokens of a stretch that began after `start` tokens are text and not padding (B, T).

        The token that ends an item, an end token or one that met a criterion, is text.
        """
        self._scores, self._new_scores = (*self._scores, *self._new_scores), ()
        is_eos_BT = torch.isin(new_BT, torch.tensor(eos, device=new_BT.device, dtype=new_BT.dtype))
        lengths_T = torch.arange(start + 1, start + 1 + new_BT.shape[1], device=new_BT.device)
        ended_BT = lengths_T.expand_as(new_BT).where(is_eos_BT, NEVER)
        self.length_B = torch.minimum(self.length_B, ended_BT.amin(dim=1))
        return lengths_T <= self.length_B[:, None]


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


def _criteria(model: Any, options: Mapping[str, Any]) -> StoppingCriteriaList:
    """Return when an answer of the caller's ends, but for its length and its end tokens."""
    found = StoppingCriteriaList(options.get("stopping_criteria") or [])
    for criterion in found:
        # `generate` takes one of these in place of its own, which a stretch needs.
        if instead := REPLACING.get(type(criterion)):
            what = f"rewiring: a {type(criterion).__name__} among stopping_criteria"
            raise InputError(sentence(what, allowed="others", do=f"pass {instead}"))
    stops = _setting(model, options, "stop_strings")
    # Without a tokenizer `generate` says that it needs one.
    if stops is not None and options.get("tokenizer") is not None:
        found.append(StopStringCriteria(options["tokenizer"], stops))
    return found


def _check_options(model: Any, options: Mapping[str, Any], *, is_cache_kept: bool) -> None:
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
        if value is not None and value is not False and not (name == "guidance_scale" and value == 1):
            raise InputError(
                sentence(
                    f"rewiring: {name} means the whole of a call, and answers are written in stretches",
                    allowed="none",
                    got=value,
                    do="leave it out, or set it to None in the model's generation_config",
                )
            )
    kind, is_used = _setting(model, options, "cache_implementation"), _setting(model, options, "use_cache")
    if is_cache_kept and (is_used is False or kind in ALL_STATIC_CACHE_IMPLEMENTATIONS):
        raise InputError(
            sentence(
                "rewiring: is_cache_kept",
                allowed="with a cache that grows",
                got="use_cache=False" if is_used is False else f"cache_implementation={kind!r}",
                do="leave one of them out",
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
