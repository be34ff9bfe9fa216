from __future__ import annotations

import copy
import io

import pytest
import torch
from transformers import DynamicCache, StaticCache

from tests.nn.depth.families import FAMILIES, LAYERS, make, prompts, random_counts
from tests.nn.given import given
from turnout.core.errors import InputError, ShapeError
from turnout.nn.depth import FixedDepth, RandomSkip, RoutedDepth
from turnout.nn.depth.drllm.router import DrLLMRouter

GREEDY = {"do_sample": False, "max_new_tokens": 6, "eos_token_id": None}
BEAMS = {**GREEDY, "num_beams": 3}
EVERY = pytest.mark.parametrize("family", FAMILIES)


def wild_router(width: int = 32, seed: int = 0) -> DrLLMRouter:
    """A router whose decisions differ from prompt to prompt."""
    router = DrLLMRouter(layers=LAYERS, width=width, seed=seed)
    with torch.no_grad():
        for parameter in router.parameters():
            parameter.mul_(5.0)
    return router


@pytest.mark.parametrize("counts", ["abcd", [[1, 1, 1, 1], [1, 1]]], ids=str)
def test_counts_that_are_no_table_of_numbers_are_refused(counts: object) -> None:
    routed = RoutedDepth(model=make("llama"))
    with pytest.raises(InputError, match=r"forced: counts.*rows of one length"), routed.forced(counts):
        pass


def test_a_prompt_that_is_read_in_chunks_is_refused() -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, _ = prompts(padding="none")
    config = copy.deepcopy(routed.model.generation_config)
    config.prefill_chunk_size = 4
    for options in ({"prefill_chunk_size": 4}, {"generation_config": config}):
        with pytest.raises(InputError, match=r"prefill_chunk_size .*whole prompt.*got: 4; leave it out"):
            routed.model.generate(input_ids=ids_BT, max_new_tokens=2, **options)


@EVERY
def test_executing_every_block_is_the_base_bit_for_bit(family: str) -> None:
    model = make(family)
    ids_BT, mask_BT = prompts()
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}

    def outputs() -> list[torch.Tensor]:
        sampled = {"do_sample": True, "max_new_tokens": 6, "num_return_sequences": 2}
        found = [model(**inputs).logits]
        for options in (GREEDY, BEAMS, {**GREEDY, "use_cache": False}, sampled):
            torch.manual_seed(3)
            found.append(model.generate(**inputs, **options))
        return found

    with torch.no_grad():
        before = outputs()
        routed = RoutedDepth(model=model)
        inside = outputs()
        with routed.forced([1] * LAYERS):
            forced = outputs()
        routed.unwrap()
        after = outputs()
    for other in (inside, forced, after):
        assert all(torch.equal(a, b) for a, b in zip(before, other, strict=True))
    assert "generate" not in model.__dict__


@EVERY
@pytest.mark.parametrize("padding", ["left", "none"])
def test_decoding_with_a_cache_is_decoding_without_for_random_decisions(family: str, padding: str) -> None:
    routed = RoutedDepth(model=make(family))
    ids_BT, mask_BT = prompts()
    if padding == "none":
        mask_BT = torch.ones_like(mask_BT)
    for seed in range(2):
        with routed.forced(random_counts(5, seed=seed)):
            cached, plain = (
                routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, use_cache=use, **GREEDY)
                for use in (True, False)
            )
        assert torch.equal(cached, plain)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_logits_of_cached_steps_are_those_of_one_whole_forward(family: str) -> None:
    routed = RoutedDepth(model=make(family))
    ids_BT, _ = prompts(tokens=14)
    with torch.no_grad(), routed.forced(random_counts(5)):
        whole_BTV = routed.model(ids_BT, use_cache=False).logits
        cache = DynamicCache(config=routed.model.config)
        steps = [routed.model(ids_BT[:, :4], **given(cache)).logits]
        for at in range(4, 14):
            steps.append(routed.model(ids_BT[:, at : at + 1], **given(cache)).logits)
            assert cache.get_seq_length() == at + 1
    torch.testing.assert_close(torch.cat(steps, dim=1), whole_BTV, atol=2e-4, rtol=2e-4)


def test_beams_move_decisions_and_slots() -> None:
    routed = RoutedDepth(model=make("llama"))
    ids_BT, mask_BT = prompts()
    with routed.forced(random_counts(5)):
        cached, plain = (
            routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, use_cache=use, **BEAMS)
            for use in (True, False)
        )
        greedy = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **GREEDY)
    assert torch.equal(cached, plain)
    assert not torch.equal(cached, greedy)


def test_reordering_a_cache_takes_each_rows_own_decision_along() -> None:
    routed = RoutedDepth(model=make("llama"))
    ids_BT, _ = prompts()
    counts_BL = random_counts(5)
    order = torch.tensor([3, 3, 0, 2, 4])
    token_B1 = torch.tensor([[7], [8], [9], [10], [11]])
    with torch.no_grad():
        cache, again = DynamicCache(), DynamicCache()
        with routed.forced(counts_BL):
            routed.model(ids_BT, **given(cache))
        cache.reorder_cache(order)
        moved = routed.model(token_B1, **given(cache)).logits
        with routed.forced(counts_BL[order]):
            routed.model(ids_BT[order], **given(again))
            plain = routed.model(token_B1, **given(again)).logits
    torch.testing.assert_close(moved, plain)


@EVERY
def test_each_sequence_of_a_batch_is_what_it_is_alone(family: str) -> None:
    routed = RoutedDepth(model=make(family))
    ids_BT, _ = prompts()
    counts_BL = random_counts(5)
    with torch.no_grad():
        with routed.forced(counts_BL):
            together = routed.model(ids_BT).logits
        for row in range(5):
            with routed.forced(counts_BL[row]):
                alone = routed.model(ids_BT[row : row + 1]).logits
            torch.testing.assert_close(together[row : row + 1], alone, atol=2e-4, rtol=2e-4)


def test_permuting_a_batch_permutes_its_outputs_and_its_decisions() -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, mask_BT = prompts(rows=8)
    order = torch.randperm(8)
    first = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **GREEDY)
    decided_BL = routed.counts_BL
    second = routed.model.generate(input_ids=ids_BT[order], attention_mask=mask_BT[order], **GREEDY)
    assert len(decided_BL.unique(dim=0)) > 2
    assert torch.equal(decided_BL[order], routed.counts_BL)
    assert torch.equal(first[order], second)


@pytest.mark.parametrize("options", [GREEDY, BEAMS])
def test_a_router_decides_by_the_prompt_alone_with_and_without_a_cache(options: dict) -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, mask_BT = prompts()
    cached = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, **options)
    decided_BL = routed.counts_BL
    plain = routed.model.generate(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False, **options)
    assert torch.equal(cached, plain)
    assert torch.equal(decided_BL, routed.counts_BL)
    assert len(decided_BL.unique(dim=0)) > 2


def test_neither_side_of_the_padding_nor_its_length_changes_a_decision() -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, mask_BT = prompts(rows=4, padding="left")
    right_ids, right_mask = torch.zeros(4, 20, dtype=torch.long), torch.zeros(4, 20, dtype=torch.long)
    for row in range(4):
        tokens = ids_BT[row][mask_BT[row].bool()]
        right_ids[row, : len(tokens)], right_mask[row, : len(tokens)] = tokens, 1
    decided = []
    with torch.no_grad():
        for ids, mask in ((ids_BT, mask_BT), (right_ids, right_mask)):
            routed.model(ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0))
            decided.append(routed.counts_BL)
    assert torch.equal(decided[0], decided[1])


def test_what_is_skipped_is_not_computed_and_what_is_repeated_twice() -> None:
    routed = RoutedDepth(model=make("llama"))
    rows: list[int] = []
    routed.owner.layers[1].mlp.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    with torch.no_grad(), routed.forced([[1, 0, 1, 1], [1, 2, 1, 1], [1, 1, 1, 1]]):
        routed.model(prompts(rows=3)[0])
    assert rows == [2, 1]


def test_the_wrapper_can_be_put_back() -> None:
    routed = RoutedDepth(model=make("llama"), router=FixedDepth(counts=[1, 0, 2, 1]))
    ids_BT, _ = prompts(rows=2)
    with torch.no_grad():
        before = routed.model(ids_BT).logits
        bare = routed.unwrap()(ids_BT).logits
        routed.wrap()
        assert torch.equal(routed.model(ids_BT).logits, before)
    assert not torch.equal(bare, before)


def test_no_decision_before_the_first_prompt() -> None:
    with pytest.raises(InputError, match="nothing was decided"):
        _ = RoutedDepth(model=make("llama")).counts_BL


def test_hidden_states_can_be_asked_for() -> None:
    model = make("llama")
    ids_BT, _ = prompts(rows=2)
    with torch.no_grad():
        plain = model(ids_BT, output_hidden_states=True).hidden_states
        routed = RoutedDepth(model=model)
        with routed.forced([[1, 1, 0, 1], [1, 1, 2, 1]]):
            found = model(ids_BT, output_hidden_states=True).hidden_states
    assert len(found) == len(plain) == LAYERS + 1
    assert torch.equal(found[2], plain[2])
    assert torch.equal(found[3][0], found[2][0])
    assert not torch.equal(found[3][1], plain[3][1])


def test_names_of_the_base_stay_and_gradients_flow() -> None:
    model = make("llama")
    names = list(model.state_dict())
    routed = RoutedDepth(model=model)
    assert list(model.state_dict()) == names
    with routed.forced([[0, 1, 2, 1], [1, 1, 0, 1]]):
        torch.autograd.backward(model(prompts(rows=2)[0]).logits.sum())
    assert all(p.grad is not None for p in model.model.layers[0].parameters())


def test_a_skipped_stack_is_the_embedding_under_the_head() -> None:
    routed = RoutedDepth(model=make("llama"), router=FixedDepth(counts=[0] * LAYERS))
    ids_BT, _ = prompts(rows=2)
    with torch.no_grad():
        model = routed.model
        plain = model.lm_head(model.model.norm(model.model.embed_tokens(ids_BT)))
        assert torch.equal(model(ids_BT).logits, plain)
        out = model.generate(input_ids=ids_BT, **GREEDY)
    assert out.shape == (2, 15)


@pytest.mark.parametrize("tokens", [1, 3, 7])
def test_a_prompt_shorter_than_the_windows_works(tokens: int) -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    out = routed.model.generate(input_ids=prompts(rows=2, tokens=tokens + 1)[0][:, 1:], **GREEDY)
    assert out.shape == (2, tokens + 6)


def test_continuing_a_conversation_keeps_the_decisions() -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, _ = prompts(rows=3)
    cache = DynamicCache()
    with torch.no_grad():
        routed.model(ids_BT, **given(cache))
        decided = routed.counts_BL
        with pytest.raises(InputError, match=r"'9 tokens, then 5'; read .* whole, or go on .*`kept\(\)`"):
            routed.model(torch.full((3, 5), 9), **given(cache))
        with routed.kept():
            routed.model(torch.full((3, 5), 9), **given(cache))
    assert cache.get_seq_length() == 14
    assert torch.equal(torch.stack([s.counts_B for s in cache.layers], 1), decided)


def test_a_copy_of_a_wrapped_model_is_a_model_of_its_own() -> None:
    routed = RoutedDepth(model=make("llama"))
    ids_BT, _ = prompts(rows=2)
    before = routed.model.generate(input_ids=ids_BT, **GREEDY)
    other = copy.deepcopy(routed.model)
    with torch.no_grad():
        for parameter in routed.model.parameters():
            parameter.zero_()
    assert torch.equal(other.generate(input_ids=ids_BT, **GREEDY), before)


def test_a_pickle_of_a_wrapped_model_is_refused_by_name() -> None:
    routed = RoutedDepth(model=make("llama"))
    for part in (routed.model, routed, routed.owner.layers[1]):
        with pytest.raises(InputError, match=r"RoutedDepth wraps.*no pickle.*save_depth, or call unwrap"):
            torch.save(part, io.BytesIO())
    torch.save(routed.unwrap(), io.BytesIO())


def refusals() -> dict:
    ids_BT = prompts(rows=3)[0]

    def under_the_base(routed: RoutedDepth) -> None:
        cache = DynamicCache()
        routed.unwrap()(ids_BT, **given(cache))
        RoutedDepth(model=routed.model).model(ids_BT, **given(cache))

    def by_the_base(routed: RoutedDepth) -> None:
        cache = DynamicCache()
        routed.model(ids_BT, **given(cache))
        routed.unwrap()(ids_BT, **given(cache))

    def by_another_wrapper(routed: RoutedDepth) -> None:
        cache = DynamicCache()
        routed.model(ids_BT, **given(cache))
        RoutedDepth(model=routed.unwrap()).model(ids_BT, **given(cache))

    def other_decisions(routed: RoutedDepth) -> None:
        cache = DynamicCache()
        with routed.forced([1, 0, 1, 1]):
            routed.model(ids_BT, **given(cache))
        with routed.forced([1, 1, 1, 1]):
            routed.model(ids_BT, **given(cache))

    def another_batch(routed: RoutedDepth) -> None:
        cache = DynamicCache()
        routed.model(ids_BT, **given(cache))
        routed.model(ids_BT[:2], **given(cache))

    def forced(counts: object):
        def run(routed: RoutedDepth) -> None:
            with routed.forced(counts):
                routed.model(ids_BT)

        return run

    return {
        "made under another routing": under_the_base,
        "made under depth routing": by_the_base,
        "cache was made under another routing.*one of this wrapper": by_another_wrapper,
        "other decisions at layer 1": other_decisions,
        "another batch.*3 sequences.*2": another_batch,
        "layers 0 to 3": forced([1, 1, 1, 1, 0]),
        "got: \\[0, 1, 3\\]": forced([0, 1, 3, 1]),
        "3 rows, or one for all; got: 2": forced([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "kind of cache.*DynamicCache.*got: 'StaticCache'": lambda routed: routed.model(
            ids_BT, **given(StaticCache(config=routed.model.config, max_cache_len=32))
        ),
        "kind of cache.*got: 'StaticCache'; leave .*cache_implementation": lambda routed: (
            routed.model.generate(ids_BT, max_new_tokens=2, cache_implementation="static")
        ),
        "empty prompt": lambda routed: routed.model(ids_BT[:, :0]),
        "wrapped already": lambda routed: RoutedDepth(model=routed.model),
        "another base.*4 layers of width 32": lambda routed: routed.set_router(
            DrLLMRouter(layers=4, width=64)
        ),
        "outside its model": lambda routed: routed.owner.layers[0](torch.zeros(1, 2, 32)),
    }


@pytest.mark.parametrize("message", refusals())
def test_what_cannot_be_right_is_refused_in_one_sentence(message: str) -> None:
    routed = RoutedDepth(model=make("llama"))
    with torch.no_grad(), pytest.raises((InputError, ShapeError), match=message):
        refusals()[message](routed)


def test_a_row_of_padding_alone_is_refused() -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, mask_BT = prompts(rows=2)
    mask_BT[1] = 0
    with pytest.raises(InputError, match="without a token of the prompt"):
        routed.model(ids_BT, attention_mask=mask_BT)


def test_strict_refuses_a_batch_that_disagrees_and_takes_one_that_agrees() -> None:
    routed = RoutedDepth(model=make("llama"), strict=True)
    ids_BT, _ = prompts(rows=2)
    with routed.forced([1, 0, 1, 1]):
        routed.model(ids_BT)
    with (
        pytest.raises(InputError, match=r"disagree at layer 1.*generate_grouped"),
        routed.forced([[1, 0, 1, 1], [1, 1, 1, 1]]),
    ):
        routed.model(ids_BT)


def test_a_cache_can_be_reset_and_used_under_another_decision() -> None:
    routed = RoutedDepth(model=make("llama"), router=RandomSkip(layers=LAYERS, executed=2))
    ids_BT, _ = prompts(rows=3)
    cache = DynamicCache()
    with torch.no_grad():
        routed.model(ids_BT, **given(cache))
        cache.reset()
        with routed.forced([1, 2, 0, 1]):
            reused = routed.model(ids_BT, **given(cache)).logits
            fresh = routed.model(ids_BT, **given(DynamicCache())).logits
    assert torch.equal(reused, fresh)
