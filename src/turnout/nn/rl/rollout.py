"""This module plays many dialogues at once with one model: it writes its turns, the task writes the replies.

All rows advance token by token through one cache. A row whose task has replied is fed the reply's tokens in
place of sampled ones, so rows in different turns stay in one batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from turnout.core.validation import check_count
from turnout.nn.caches import cache_keyword, find_cache
from turnout.nn.prompts import padding, prompt_ids
from turnout.nn.rl.dialogue import Dialogue
from turnout.nn.tiny import left_padded


@dataclass(kw_only=True)
class Rollout:
    """One dialogue as tokens."""

    prompt_ids: list[int]
    completion_ids: list[int] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    """1 for each token of the completion that the model wrote, 0 for one of a reply."""
    logprobs: list[float] = field(default_factory=list)
    """Log probability of each token that the model wrote, 0 for those of replies."""
    is_over: bool = False
    """Whether the task ended; false where `max_tokens` cut it."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long dialogues may be."""

    max_tokens: int
    """Most tokens of a completion, replies included."""
    max_turn_tokens: int
    """Most tokens of one turn; a longer one is handed to the task as it is."""

    def __post_init__(self) -> None:
        check_count("Limits.max_tokens", self.max_tokens)
        check_count("Limits.max_turn_tokens", self.max_turn_tokens)


@torch.no_grad()
def roll_out(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Dialogue],
    *,
    limits: Limits,
    stop_ids: Collection[int],
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[Rollout]:
    """Play the dialogues to their ends.

    Parameters
    ----------
    model, tokenizer:
        The policy. A turn is decoded with its special tokens, so that a stray one is seen by the task.
    dialogues:
        The tasks; each is played once.
    limits:
        Lengths.
    stop_ids:
        Tokens that end a turn, besides the end of the text.
    temperature:
        Of the sampling; 0 is greedy.
    generator:
        What samples are drawn from; None is torch's own.
    """
    prompts = [prompt_ids(tokenizer, dialogue.prompt) for dialogue in dialogues]
    rows = [_Row(tokenizer, d, p, limits, stop_ids) for d, p in zip(dialogues, prompts, strict=True)]
    pad = padding(tokenizer)
    was_training = model.training
    model.eval()
    ids_BT, mask_BT = (part_BT.to(model.device) for part_BT in left_padded(prompts, pad))
    place_B = mask_BT.sum(dim=1)
    cache: Any = None
    positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    while True:
        out = model(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            position_ids=positions_BT,
            use_cache=True,
            **{cache_keyword(model): cache},
        )
        cache = find_cache(out.values())
        logprobs_BV = torch.log_softmax(_tempered(out.logits[:, -1].float(), temperature), dim=-1)
        drawn_B = _draw(logprobs_BV, temperature, generator)
        chosen_B = logprobs_BV.gather(1, drawn_B[:, None])[:, 0]
        told = zip(rows, drawn_B.tolist(), chosen_B.tolist(), strict=True)
        next_ids = [row.advance(token, logprob) for row, token, logprob in told]
        if all(token is None for token in next_ids):
            break
        ids_BT = torch.tensor([[pad if token is None else token] for token in next_ids], device=model.device)
        alive_B1 = torch.tensor([[int(token is not None)] for token in next_ids], device=model.device)
        mask_BT = torch.cat([mask_BT, alive_B1], dim=1)
        positions_BT = place_B[:, None]
        place_B = place_B + 1
    model.train(was_training)
    return [row.rollout for row in rows]


class _Row:
    """One dialogue under way."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        dialogue: Dialogue,
        prompt_ids: list[int],
        limits: Limits,
        stop_ids: Collection[int],
    ) -> None:
        self.tokenizer = tokenizer
        self.dialogue = dialogue
        self.limits = limits
        self.ends = {*stop_ids, tokenizer.eos_token_id}
        self.rollout = Rollout(prompt_ids=prompt_ids)
        self.turn: list[int] = []
        self.forced: deque[int] = deque()

    def advance(self, token: int, logprob: float) -> int | None:
        """Return the token to feed next, the model's or the reply's; None once the dialogue has ended."""
        if self.rollout.is_over or len(self.rollout.completion_ids) >= self.limits.max_tokens:
            return None
        if self.forced:
            token = self.forced.popleft()
            self._add(token, own=0, logprob=0.0)
            return token
        self._add(token, own=1, logprob=logprob)
        self.turn.append(token)
        if token in self.ends or len(self.turn) >= self.limits.max_turn_tokens:
            self._end_turn()
        return token

    def _add(self, token: int, *, own: int, logprob: float) -> None:
        self.rollout.completion_ids.append(token)
        self.rollout.own.append(own)
        self.rollout.logprobs.append(logprob)

    def _end_turn(self) -> None:
        ids = self.turn[:-1] if self.turn[-1] == self.tokenizer.eos_token_id else self.turn
        reply = self.dialogue.reply(self.tokenizer.decode(ids, skip_special_tokens=False))
        self.turn = []
        if reply is None:
            self.rollout.is_over = True
        else:
            self.forced.extend(_encode(self.tokenizer, reply))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _tempered(logits_BV: Tensor, temperature: float) -> Tensor:
    return logits_BV if temperature == 0 else logits_BV / temperature


def _draw(logprobs_BV: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return logprobs_BV.argmax(dim=-1)
    return torch.multinomial(logprobs_BV.exp(), 1, generator=generator)[:, 0]
