"""Prompts, answers and ends are the tokenizer's own, whatever ids its special tokens have."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.nn.rl.dialogues import Guess
from turnout.core.errors import InputError
from turnout.nn.depth import RoutedDepth, right_answers
from turnout.nn.prompts import padding
from turnout.nn.rl.demonstrations import Demonstration, demonstration_batch
from turnout.nn.rl.rollout import Limits, roll_out
from turnout.nn.serving.engine import Engine
from turnout.nn.tiny import IGNORED, Batch, answer_batch, answers, prompt_batch, tiny_llama, train

LETTERS = "abcdefgh="
PAIRS = [("ab=", "ba"), ("c=", "d"), ("hg=", "ab"), ("bc=", "c")]


def own_tokenizer(
    *, begins: bool = False, template: str | None = None, **named: str
) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose special tokens stand behind its letters."""
    words = [*LETTERS, "<pad>", "<eos>", "<unk>", "<bos>"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.decoder = decoders.Fuse()
    if begins:
        inner.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", words.index("<bos>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", unk_token="<unk>", padding_side="left", **named
    )
    tokenizer.chat_template = template
    return tokenizer


NAMED: Any = {"pad_token": "<pad>", "eos_token": "<eos>"}


def stock_batch(tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Return the pairs as somebody writes them who has the library alone."""
    rows = [tokenizer(p).input_ids + tokenizer(a).input_ids + [tokenizer.eos_token_id] for p, a in PAIRS]
    told = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    labels_BT = told.input_ids.clone()
    for row, (_, answer) in enumerate(PAIRS):
        labels_BT[row, : -len(answer) - 1] = IGNORED
    return Batch(input_ids_BT=told.input_ids, attention_mask_BT=told.attention_mask, labels_BT=labels_BT)


def test_rows_are_what_the_library_writes() -> None:
    tokenizer = own_tokenizer(**NAMED)
    found, wanted = answer_batch(tokenizer, PAIRS), stock_batch(tokenizer)
    assert torch.equal(found.input_ids_BT, wanted.input_ids_BT)
    assert torch.equal(found.attention_mask_BT, wanted.attention_mask_BT)
    assert torch.equal(found.labels_BT, wanted.labels_BT)
    ids_BT, mask_BT = prompt_batch(tokenizer, [prompt for prompt, _ in PAIRS])
    told = tokenizer([prompt for prompt, _ in PAIRS], padding=True, return_tensors="pt")
    assert torch.equal(ids_BT, told.input_ids)
    assert torch.equal(mask_BT, told.attention_mask)


def test_a_model_that_answers_right_is_judged_right() -> None:
    tokenizer = own_tokenizer(**NAMED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    batch = stock_batch(tokenizer)
    train(model, lambda: batch, steps=60, lr=5e-3)
    for prompt, answer in PAIRS:
        ids = tokenizer(prompt, return_tensors="pt")
        out_BT = model.generate(**ids, max_new_tokens=4, do_sample=False)
        assert tokenizer.decode(out_BT[0, ids.input_ids.shape[1] :], skip_special_tokens=True) == answer
    assert answers(model, tokenizer, [p for p, _ in PAIRS], max_new_tokens=4) == [a for _, a in PAIRS]
    routed = RoutedDepth(model=model)
    is_right_B, _ = right_answers(routed, answer_batch(tokenizer, [*PAIRS, ("ab=", "h")]))
    assert is_right_B.tolist() == [True] * 4 + [False]


def test_a_tokenizer_without_padding_or_end() -> None:
    no_pad = own_tokenizer(eos_token="<eos>")
    assert padding(no_pad) == no_pad.eos_token_id
    batch = answer_batch(no_pad, PAIRS)
    assert batch.input_ids_BT[1, 0] == no_pad.eos_token_id
    assert batch.attention_mask_BT[1].tolist() == [0, 0, 1, 1, 1, 1]
    assert batch.prompt_BT is not None
    assert batch.prompt_BT[1].tolist() == [False, False, True, True, False, False]
    bare = own_tokenizer()
    assert padding(bare) == 0
    with pytest.raises(InputError, match="an end token"):
        answer_batch(bare, PAIRS)
    # A model that ends its turns with another token than the tokenizer's.
    assert (answer_batch(bare, PAIRS, end=7).labels_BT[:, -1] == 7).all()


def test_a_prompt_without_a_token_is_refused() -> None:
    with pytest.raises(InputError, match="at least one token"):
        answer_batch(own_tokenizer(**NAMED), [("", "a")])


def test_an_answer_goes_on_after_its_prompt_without_a_space() -> None:
    words = ["\u2581", "a", "b", "\u2581a", "<unk>", "<eos>"]
    inner = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [("\u2581", "a")], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    inner.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>")
    ids = answer_batch(tokenizer, [("ab", "ab")]).input_ids_BT[0].tolist()
    assert [words[i] for i in ids] == ["\u2581a", "b", "a", "b", "<eos>"]


@pytest.mark.parametrize("begins", [False, True])
def test_a_text_that_a_template_wrote_is_read_as_it_is(begins: bool) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = own_tokenizer(begins=begins, template=template, **NAMED)
    messages = [{"role": "user", "content": "ab="}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    for prompt, wanted in [(rendered, whole), ("ab=", tokenizer("ab=").input_ids)]:
        assert prompt_batch(tokenizer, [prompt])[0][0].tolist() == wanted
    # A text of its own that a template wrote without any special token: the engine knows where it comes from.
    engine = Engine(
        model=tiny_llama(vocab_size=16, width=8, layers=1), tokenizer=tokenizer, variants={"a": nullcontext}
    )
    engine.close()
    assert engine.encode("ab=") == tokenizer.encode("ab=", add_special_tokens=False)


def test_a_policy_is_shown_and_asked_the_same_prompt_and_no_begin_token_by_hand() -> None:
    tokenizer = own_tokenizer(**NAMED)
    shown = demonstration_batch(tokenizer, [Demonstration(prompt="ab=", turns=("ba",), replies=())])
    assert shown.input_ids_BT[0].tolist() == tokenizer("ab=ba").input_ids
    model = tiny_llama(vocab_size=16, width=8, layers=1, heads=2)
    limits = Limits(max_tokens=2, max_turn_tokens=2)
    rollouts = roll_out(model, tokenizer, [Guess("ab=")], limits=limits, stop_ids=[], temperature=0)
    assert rollouts[0].prompt_ids == tokenizer("ab=").input_ids
