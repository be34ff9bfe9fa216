"""This module writes prompts as token ids, in the way of the model's own tokenizer."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: str, *, is_rendered: bool | None = None
) -> list[int]:
    """Return the token ids of a prompt, as the tokenizer writes them.

    A chat template says itself which special tokens a prompt has, and its text is read as it is; to any other
    text the tokenizer adds its own. `is_rendered` says whether a template wrote the text; None says so of a
    tokenizer with a template where the text holds a special token.
    """
    if is_rendered is None:
        is_rendered = tokenizer.chat_template is not None and _has_special(tokenizer, prompt)
    ids: list[int] = tokenizer.encode(prompt, add_special_tokens=not is_rendered)
    return ids


def answer_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> list[int]:
    """Return the token ids that say an answer after a prompt, without an end token.

    Some tokenizers write a space in front of a text: what goes on after the prompt has none.
    """
    before: list[int] = tokenizer.encode(prompt, add_special_tokens=False)
    both: list[int] = tokenizer.encode(prompt + answer, add_special_tokens=False)
    if both[: len(before)] == before:
        return both[len(before) :]
    # A token would span the border; whoever answers begins after the prompt's tokens.
    alone: list[int] = tokenizer.encode(answer, add_special_tokens=False)
    return alone


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end an answer: those of the model's generation and the tokenizer's."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = named if isinstance(named, list) else [named]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)


def padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id to pad with: the tokenizer's, else that of its end token, else 0; it is masked."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((i for i in known if i is not None), 0)


def _has_special(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = (added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
    return not special.isdisjoint(tokenizer.encode(text, add_special_tokens=False))
