"""This module builds and trains models that are small enough for a test, a demo or a benchmark on a CPU.

They are real `transformers` models with a real tokenizer, one token a character: what holds for them holds
for the code path of a large checkpoint, and their answers can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from turnout.core.errors import InputError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.validation import check_count, check_number
from turnout.nn.prompts import answer_ids, end_tokens, padding, prompt_ids

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNKNOWN = 0, 1, 2, 3
"""Ids of the special tokens of `character_tokenizer`."""

IGNORED = -100
"""The label of a position that carries no loss."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Token ids with labels; `labels_BT` is `IGNORED` where no loss falls."""

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    labels_BT: Tensor
    prompt_BT: Tensor | None = None
    """Where the prompt is; None where it is all that is not padding and carries no loss."""


def character_tokenizer(alphabet: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per character of `alphabet`, after four special tokens."""
    words = [*SPECIAL, *sorted(set(alphabet))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return with_special_tokens(tokenizer)


def with_special_tokens(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer for `transformers` that pads on the left, from one that knows `SPECIAL`.

    It writes `<bos>` in front of a text, as the models here are trained to read one.
    """
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def tiny_llama(
    *, vocab_size: int, width: int = 64, layers: int = 6, heads: int = 4, positions: int = 256, seed: int = 0
) -> LlamaForCausalLM:
    """Return a randomly initialised Llama of `layers` blocks of `width`; same seed, same weights."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=width * 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        max_position_embeddings=positions,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def answer_batch(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, ...]], *, end: int | None = None
) -> Batch:
    """Return (prompt, answer) pairs as one batch, padded on the left; only answers carry a loss.

    A row reads: the prompt as the tokenizer writes it (see `prompt_ids`), the answer, and `end`, the id that
    the model ends answers with; None is the tokenizer's end token. A third text of a pair, to teach by and
    not to judge by, is what to say inside the prompt: its last character before the prompt's last one, and so
    on backwards.

    Raises `InputError` for no pairs, a prompt without a token, a third text that is as long as its prompt,
    and no end token.
    """
    if not pairs:
        raise InputError(sentence("answer_batch: pairs", allowed="at least one", got="none"))
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        raise InputError(
            sentence("answer_batch: tokenizer", allowed="one with an end token", got="none", do="pass end=")
        )
    rows, ends = [], []
    for prompt, answer, *inside in pairs:
        prompt_T = prompt_ids(tokenizer, prompt)
        answer_T = [*answer_ids(tokenizer, prompt, answer), end]
        inside_T = [i for text in inside for i in tokenizer.encode(text, add_special_tokens=False)]
        most = len(tokenizer.encode(prompt, add_special_tokens=False))
        if not prompt_T:
            raise InputError(
                sentence("answer_batch: pairs", allowed="prompts of at least one token", got=prompt)
            )
        if inside_T and len(inside_T) >= most:
            allowed = f"fewer tokens inside than the {most} of {prompt!r}"
            raise InputError(sentence("answer_batch: pairs", allowed=allowed, got=len(inside_T)))
        before = len(prompt_T) - len(inside_T)
        rows.append((prompt_T + answer_T, [IGNORED] * before + inside_T + answer_T))
        ends.append(len(answer_T))
    ids_BT, mask_BT = left_padded([ids for ids, _ in rows], padding(tokenizer))
    labels_BT, _ = left_padded([labels for _, labels in rows], IGNORED)
    ends_B1 = torch.tensor(ends)[:, None]
    is_prompt_BT = torch.arange(ids_BT.shape[1]) < ids_BT.shape[1] - ends_B1
    return Batch(
        input_ids_BT=ids_BT,
        attention_mask_BT=mask_BT,
        labels_BT=labels_BT,
        prompt_BT=is_prompt_BT & mask_BT.bool(),
    )


def prompt_batch(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return (input_ids_BT, attention_mask_BT) of prompts (see `prompt_ids`), padded on the left."""
    return left_padded([prompt_ids(tokenizer, prompt) for prompt in prompts], padding(tokenizer))


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return (ids_BT, mask_BT) of rows of ids, as long as the longest of them."""
    length = max(len(ids) for ids in rows)
    ids_BT = torch.tensor([[pad] * (length - len(ids)) + list(ids) for ids in rows])
    mask_BT = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids in rows])
    return ids_BT, mask_BT


def train(
    model: PreTrainedModel,
    draw: Callable[[], Batch],
    *,
    steps: int,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    parameters: Sequence[torch.nn.Parameter] | None = None,
    penalty: Callable[[Batch], Tensor] | None = None,
    progress: Progress = silent,
) -> list[float]:
    """Train on batches from `draw` by AdamW with warm-up and a cosine; return the loss of every step.

    `parameters` are what may move; None means all that require a gradient. `penalty` is called after each
    forward pass and its scalar is added to the loss. The model ends in eval mode.
    """
    check_count("train: steps", steps, low=0)
    check_number("train: lr", lr, low=0.0)
    moving = [p for p in model.parameters() if p.requires_grad] if parameters is None else list(parameters)
    optimizer = torch.optim.AdamW(moving, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95))
    warm_up = max(steps // 20, 1)

    def scale(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    losses = []
    model.train()
    for step in range(steps):
        batch = draw()
        loss = model(
            input_ids=batch.input_ids_BT,
            attention_mask=batch.attention_mask_BT,
            labels=batch.labels_BT,
            use_cache=False,
        ).loss
        if penalty is not None:
            loss = loss + penalty(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        progress("training", step + 1, steps)
    model.eval()
    return losses


@torch.no_grad()
def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
) -> list[str]:
    """Return the greedy answers to prompts, without what follows the first end token."""
    found: list[str] = []
    for start in range(0, len(prompts), batch_size):
        ids_BT, mask_BT = prompt_batch(tokenizer, prompts[start : start + batch_size])
        out_BT = model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(end_tokens(model, tokenizer)) or None,
            pad_token_id=padding(tokenizer),
        )
        found += tokenizer.batch_decode(out_BT[:, ids_BT.shape[1] :], skip_special_tokens=True)
    return found
