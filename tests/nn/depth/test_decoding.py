"""Decoding under a depth router comes to what the library's own loop comes to, with fewer of its steps."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)
from transformers.generation import stopping_criteria as limits

from tests.nn.depth.families import FAMILIES, Given, make, prompts, random_counts
from tests.nn.given import given
from turnout.nn.depth import RoutedDepth, blocks, generate_grouped
from turnout.nn.tiny import character_tokenizer

NEW = 8
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": NEW, "eos_token_id": None}


def routed_model(family: str = "llama", rows: int = 5) -> RoutedDepth:
    return RoutedDepth(model=make(family), router=Given(random_counts(rows)))


@contextmanager
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, the library's own loop decodes."""
    with monkeypatch.context() as patched:
        patched.setattr(blocks, "may_decode", lambda *_: False)
        yield


@contextmanager
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Yield a list that grows whenever the arguments of a forward are prepared by the library."""
    calls: list[int] = []
    before = GenerationMixin.prepare_inputs_for_generation

    @functools.wraps(before)
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return before(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(GenerationMixin, "prepare_inputs_for_generation", counted)
        yield calls


class Upwards(LogitsProcessor):
    """Lets nothing below the last token follow it, so that it reads what was said."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        below = torch.arange(scores.shape[1])[None] < input_ids[:, -1:] % 20
        return scores.masked_fill(below, -torch.inf)


class AfterFive(StoppingCriteria):
    """Ends a row, each at another length, after a token that is divisible by five."""

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return input_ids[:, -1] % 5 == 0


OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "temperature": 1.5, "top_k": 20},
    "without what was said": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    "processor": {"logits_processor": LogitsProcessorList([Upwards()])},
    "criterion": {"stopping_criteria": StoppingCriteriaList([AfterFive()])},
    "several samples": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 3},
    "dictionary": {"return_dict_in_generate": True, "output_logits": True},
    "without a cache": {"use_cache": False},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padding", ["left", "none"])
def test_tokens_are_those_of_the_librarys_loop(
    monkeypatch: pytest.MonkeyPatch, family: str, padding: str
) -> None:
    routed = routed_model(family)
    ids_BT, mask_BT = prompts()
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT if padding == "left" else mask_BT * 0 + 1}
    with prepared(monkeypatch) as calls:
        here_BT = routed.model.generate(**inputs, **GREEDY)
    assert len(calls) == 2  # the prompt, and the first token after it
    with library(monkeypatch), prepared(monkeypatch) as calls:
        there_BT = routed.model.generate(**inputs, **GREEDY)
    assert len(calls) == NEW
    assert torch.equal(here_BT, there_BT)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("ends", [False, True])
def test_every_way_to_ask_is_answered_as_the_library_answers_it(
    monkeypatch: pytest.MonkeyPatch, name: str, ends: bool
) -> None:
    routed = RoutedDepth(model=make("llama"))
    ids_BT, mask_BT = prompts()
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
    counts_BL = random_counts(5)
    # What some rows say on their way to the last token.
    with routed.forced(counts_BL):
        said_BT = routed.model.generate(**inputs, **GREEDY)
    end = said_BT[:2, -5:-3].flatten().tolist() if ends else None
    options = {**GREEDY, "eos_token_id": end, **OPTIONS[name]}
    torch.manual_seed(3)
    with routed.forced(counts_BL):
        here = routed.model.generate(**inputs, **options)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    with library(monkeypatch), routed.forced(counts_BL):
        there = routed.model.generate(**inputs, **options)
    assert torch.equal(drawn, torch.rand(1))
    if name == "dictionary":
        assert all(torch.equal(*pair) for pair in zip(here.logits, there.logits, strict=True))
        here, there = here.sequences, there.sequences
    assert torch.equal(here, there)
    if ends and name == "greedy":
        assert (here[:, -1] == 0).any()  # a row that ended is filled up with padding


def test_answers_end_where_all_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    routed = routed_model(rows=1)
    ids_BT = prompts(rows=1)[0]
    said = routed.model.generate(input_ids=ids_BT, **GREEDY)[0, -NEW:].tolist()
    end = said[3]
    options = {**GREEDY, "eos_token_id": end}
    here_BT = routed.model.generate(input_ids=ids_BT, **options)
    assert here_BT.shape[1] == ids_BT.shape[1] + said.index(end) + 1
    with library(monkeypatch):
        assert torch.equal(routed.model.generate(input_ids=ids_BT, **options), here_BT)


def test_what_asks_for_another_loop_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    routed = routed_model(rows=1)
    ids_BT = prompts(rows=1)[0].repeat(1, 3)
    plain_BT = routed.model.generate(input_ids=ids_BT, **GREEDY)
    with prepared(monkeypatch) as calls:
        looked_up_BT = routed.model.generate(input_ids=ids_BT, prompt_lookup_num_tokens=2, **GREEDY)
    assert len(calls) > 2
    assert torch.equal(looked_up_BT, plain_BT)


def test_embeddings_for_a_prompt_and_arguments_that_grow_otherwise_are_left_to_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routed = routed_model()
    ids_BT, mask_BT = prompts()
    embeds_BTD = routed.model.get_input_embeddings()(ids_BT).detach()
    with prepared(monkeypatch) as calls:
        told_BT = routed.model.generate(inputs_embeds=embeds_BTD, attention_mask=mask_BT, **GREEDY)
    assert len(calls) == NEW
    whole_BT = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **GREEDY)
    assert torch.equal(told_BT, whole_BT[:, -told_BT.shape[1] :])


def test_a_model_that_prepares_its_arguments_itself_is_asked_for_every_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routed = routed_model()
    ids_BT, mask_BT = prompts()
    plain_BT = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **GREEDY)
    calls: list[int] = []
    before = type(routed.model).prepare_inputs_for_generation

    def own(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return before(self, *args, **kwargs)

    monkeypatch.setattr(type(routed.model), "prepare_inputs_for_generation", own)
    assert torch.equal(routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **GREEDY), plain_BT)
    assert len(calls) == NEW


def test_a_streamer_hears_every_token_and_strings_that_stop_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = character_tokenizer("".join(map(chr, range(0x61, 0x61 + 26))) + "0123456789ABCDEFGH")
    routed = routed_model(rows=1)
    ids_BT = prompts(rows=1)[0]
    said_BT = routed.model.generate(input_ids=ids_BT, **GREEDY)
    text = tokenizer.decode(said_BT[0, -NEW:])
    streamer = TextStreamer(tokenizer, skip_prompt=True)
    assert torch.equal(routed.model.generate(input_ids=ids_BT, streamer=streamer, **GREEDY), said_BT)
    assert capsys.readouterr().out.strip() == text
    ended_BT = routed.model.generate(
        input_ids=ids_BT, stop_strings=[text[3:5]], tokenizer=tokenizer, **GREEDY
    )
    assert ended_BT.shape[1] == said_BT.shape[1] - NEW + text.index(text[3:5]) + 2


def test_a_cache_that_is_given_goes_on_and_groups_decode_in_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routed = routed_model()
    ids_BT = prompts(padding="none")[0]
    ids_BT = torch.where(ids_BT == 0, 4, ids_BT)
    whole_BT = routed.model.generate(input_ids=ids_BT, **{**GREEDY, "max_new_tokens": NEW + 3})
    cache = DynamicCache(config=routed.model.config)
    first_BT = routed.model.generate(input_ids=ids_BT, **given(cache), **GREEDY)
    with prepared(monkeypatch) as calls:
        rest_BT = routed.model.generate(input_ids=first_BT, **given(cache), **{**GREEDY, "max_new_tokens": 3})
    assert len(calls) == 2
    assert torch.equal(rest_BT, whole_BT)
    same = RoutedDepth(model=make("llama"))
    with same.forced([1, 0, 1, 1]), prepared(monkeypatch) as calls:
        grouped_BT = generate_grouped(same, ids_BT, **GREEDY)
        assert len(calls) == 2
        assert torch.equal(grouped_BT, same.model.generate(input_ids=ids_BT, **GREEDY))


def test_a_limit_of_positions_that_is_passed_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    routed = routed_model(rows=1)
    warned: list[str] = []
    monkeypatch.setattr(limits.logger, "warning_once", warned.append)
    long_BT = prompts(rows=1)[0].repeat(1, 14)[:, :124]
    routed.model.generate(input_ids=long_BT, **{**GREEDY, "max_new_tokens": 4})
    assert not warned
    routed.model.generate(input_ids=long_BT, **GREEDY)
    assert len(warned) == 3
