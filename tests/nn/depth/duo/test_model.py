from __future__ import annotations

import re
import warnings

import pytest
import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.nn.depth.duo.setup import LAYERS, make_batch, make_choice, make_duo, make_ids, pad_left
from turnout.core.errors import InputError, ShapeError
from turnout.nn.depth.duo import DuoModel
from turnout.nn.tiny import tiny_llama

COMMON = {
    "vocab_size": 30,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def families() -> dict[str, PreTrainedModel]:
    torch.manual_seed(0)
    return {
        "llama": tiny_llama(vocab_size=30, width=32, layers=3),
        "qwen3": Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=16)).eval(),
        "phi3": Phi3ForCausalLM(Phi3Config(**COMMON)).eval(),
        "gemma2": Gemma2ForCausalLM(Gemma2Config(**COMMON, head_dim=16)).eval(),
    }


@pytest.mark.parametrize("name", ["llama", "qwen3", "phi3", "gemma2"])
def test_all_big_is_the_base_bit_for_bit_also_when_generating(name: str) -> None:
    model = families()[name]
    ids_BT = make_ids(3, 9)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, :4] = 0

    def run() -> list[torch.Tensor]:
        with torch.no_grad():
            logits = model(input_ids=ids_BT, attention_mask=mask_BT).logits
            beams = model.generate(
                input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=6, num_beams=3, do_sample=False
            )
            greedy = model.generate(
                input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=6, do_sample=False
            )
        return [logits, beams, greedy]

    base = run()
    duo = DuoModel(model)
    assert all(map(torch.equal, base, run()))
    with duo.forced([1, 1, 1]):
        assert all(map(torch.equal, base, run()))
    with duo.forced([0, 1, 0]):
        assert not torch.equal(base[0], run()[0])
    assert duo.unwrap() is model
    assert all(map(torch.equal, base, run()))
    assert not duo.is_wrapped()


def test_small_modules_have_a_sixteenth_of_the_inner_width() -> None:
    duo = DuoModel(families()["phi3"])
    small = duo.layers[0].small
    assert small.get_parameter("gate_up_proj.weight").shape == (8, 32)
    assert small.get_parameter("down_proj.weight").shape == (32, 4)
    assert DuoModel(families()["llama"], divisor=8).layers[2].small.get_parameter("up_proj.weight").shape == (
        12,
        32,
    )


def test_wrapping_draws_nothing_from_the_global_generator_and_same_seed_is_same_weights() -> None:
    state = torch.get_rng_state()
    one, two, other = (make_duo(seed=seed).small_parameters() for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, one, two))
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("padding", [0, 3])
def test_greedy_decoding_with_a_cache_equals_without_for_random_choices_of_every_token(padding: int) -> None:
    duo = make_duo()
    batch = pad_left(make_batch(3, 5), padding)
    choice_BTL = make_choice(3, 5 + padding + 8)
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    with duo.forced(choice_BTL):
        both = [
            duo.model.generate(
                input_ids=batch.input_ids_BT,
                attention_mask=batch.attention_mask_BT,
                use_cache=use_cache,
                **settings,
            )
            for use_cache in (True, False)
        ]
    assert torch.equal(*both)
    base = duo.model.generate(
        input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT, **settings
    )
    assert not torch.equal(base, both[0])


def test_greedy_decoding_with_a_cache_equals_without_for_routers() -> None:
    duo = make_duo()
    ids_BT = make_ids(3, 5)
    duo.is_routed = True
    with duo.recording() as record:
        cached = duo.model.generate(input_ids=ids_BT, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert torch.equal(
        cached,
        duo.model.generate(
            input_ids=ids_BT, max_new_tokens=8, do_sample=False, eos_token_id=None, use_cache=False
        ),
    )
    # What was recorded step by step is what one pass over the whole text would choose.
    with duo.recording() as whole:
        duo.model(input_ids=cached[:, :-1])
    assert torch.equal(record.choice_BTL, whole.choice_BTL)
    assert 0 < record.choice_BTL.double().mean() < 1


def test_permuting_the_batch_permutes_the_outputs() -> None:
    duo = make_duo(allow_skip=True)
    ids_BT, choice_BTL = make_ids(5, 7), make_choice(5, 7, choices=3)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        with duo.forced(choice_BTL):
            one = duo.model(input_ids=ids_BT).logits
        with duo.forced(choice_BTL[order]):
            other = duo.model(input_ids=ids_BT[order]).logits
        with duo.routed():
            routed, again = (duo.model(input_ids=ids).logits for ids in (ids_BT, ids_BT[order]))
    torch.testing.assert_close(one[order], other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(routed[order], again, rtol=1e-4, atol=1e-4)


def test_padding_changes_nothing() -> None:
    duo = make_duo()
    batch = make_batch(3, 6)
    padded = pad_left(batch, 4)
    pattern_BL = make_choice(3, 1)[:, 0]
    with torch.no_grad(), duo.forced(pattern_BL):
        plain = duo.model(input_ids=batch.input_ids_BT).logits
        late = duo.model(input_ids=padded.input_ids_BT, attention_mask=padded.attention_mask_BT).logits
    torch.testing.assert_close(late[:, 4:], plain, rtol=1e-3, atol=1e-3)


def test_a_pattern_per_sequence_is_that_sequence_alone() -> None:
    duo = make_duo(allow_skip=True)
    ids_BT, pattern_BL = make_ids(4, 6), make_choice(4, 1, choices=3)[:, 0]
    with torch.no_grad():
        with duo.forced(pattern_BL):
            together = duo.model(input_ids=ids_BT).logits
        for row in range(4):
            with duo.forced(pattern_BL[row]):
                alone = duo.model(input_ids=ids_BT[row : row + 1]).logits
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_beams_follow_the_choice_of_their_sequence() -> None:
    duo = make_duo()
    ids_BT, pattern_BL = make_ids(2, 5), torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]])
    settings = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "eos_token_id": None}
    with duo.forced(pattern_BL, beams=3):
        together = duo.model.generate(input_ids=ids_BT, **settings)
    for row in range(2):
        with duo.forced(pattern_BL[row]):
            alone = duo.model.generate(input_ids=ids_BT[row : row + 1], **settings)
        assert torch.equal(together[row], alone[0])


def test_a_low_temperature_is_the_hard_choice() -> None:
    duo = make_duo(allow_skip=True, bias=True)
    with torch.no_grad():
        for layer in duo.layers:
            layer.router.weight_AD.mul_(10)
    ids_BT = make_ids(3, 6)
    gaps = []
    with torch.no_grad():
        with duo.routed():
            hard = duo.model(input_ids=ids_BT).logits
        for temperature in (1.0, 1e-4):
            with duo.soft(temperature):
                gaps.append(float((duo.model(input_ids=ids_BT).logits - hard).abs().max()))
    assert gaps[1] < 1e-3 < gaps[0]


def test_contexts_end_with_what_was_before_also_after_an_error() -> None:
    duo = make_duo()
    with duo.forced([0, 0, 0, 0]):
        with pytest.raises(ZeroDivisionError), duo.forced([1, 0, 0, 0]):
            raise ZeroDivisionError
        assert duo.flow.choice is not None
        assert duo.flow.choice.sum() == 0
    assert duo.flow.choice is None


@pytest.mark.parametrize(
    ("choice", "kind", "words"),
    [
        (
            [0, 1, 2, 0],
            InputError,
            r"duo: choice; allowed: 0 (small), 1 (big); got: 2; build DuoModel with allow_skip",
        ),
        ([0, 1, -1, 0], InputError, "got: -1"),
        ([0, 1, 0], ShapeError, "with L = 4; got: (3,)"),
        ([0.0, 1.0, 0.0, 1.0], InputError, "whole numbers"),
        ([[[[0, 1, 0, 1]]]], ShapeError, "(L,), (B, L) or (B, T, L)"),
        ([[0, 1, 0, 1], [0, 1]], InputError, "equally long rows"),
        ("big", InputError, "equally long rows"),
        (None, InputError, "equally long rows"),
    ],
)
def test_a_choice_out_of_range_is_refused(choice: object, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        make_duo().forced(choice)


def test_a_choice_that_does_not_fit_the_batch_is_refused() -> None:
    duo = make_duo()
    with duo.forced(make_choice(2, 1)[:, 0]), pytest.raises(ShapeError, match="rows disagree"):
        duo.model(input_ids=make_ids(3, 5))
    with duo.forced(make_choice(3, 4)), pytest.raises(InputError, match="ends before the text"):
        duo.model(input_ids=make_ids(3, 5))
    with duo.forced(make_choice(2, 6)), pytest.raises(InputError, match="ends before the text"):
        duo.model.generate(input_ids=make_ids(2, 5), max_new_tokens=4, do_sample=False, eos_token_id=None)


def test_routing_a_model_that_was_unwrapped_is_refused() -> None:
    duo = make_duo()
    with duo.bare(), pytest.raises(InputError, match="does not run through these modules"), duo.routed():
        pass
    duo.unwrap()
    for context in (duo.forced([0, 0, 0, 0]), duo.recording()):
        with pytest.raises(InputError, match="does not run through these modules"), context:
            pass
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in duo.model.modules())


def test_families_without_a_plain_mlp_are_refused_and_left_as_they_were() -> None:
    opt = OPTForCausalLM(
        OPTConfig(vocab_size=30, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2)
    )
    with pytest.raises(InputError, match="block 0 of OPTForCausalLM has no feed-forward called `mlp`"):
        DuoModel(opt)
    olmoe = OlmoeForCausalLM(OlmoeConfig(**COMMON, num_experts=4, num_experts_per_tok=2))
    with pytest.raises(InputError, match="OlmoeSparseMoeBlock has no inner width"):
        DuoModel(olmoe)
    mixed = DeepseekV3ForCausalLM(
        DeepseekV3Config(
            **COMMON, moe_intermediate_size=32, n_routed_experts=4, n_group=2, topk_group=1,
            first_k_dense_replace=1, num_experts_per_tok=2, q_lora_rank=32, kv_lora_rank=16,
            qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
        )
    )  # fmt: skip
    kinds = [type(block.mlp) for block in mixed.model.layers]
    with pytest.raises(InputError, match="has no inner width"):
        DuoModel(mixed)
    assert [type(block.mlp) for block in mixed.model.layers] == kinds


def test_wrapping_twice_is_refused() -> None:
    duo = make_duo()
    with pytest.raises(InputError, match="wrapped already; call unwrap first"):
        DuoModel(duo.model)
    DuoModel(duo.unwrap())


def test_random_choices_under_checkpointing_are_refused() -> None:
    duo = make_duo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        duo.model.gradient_checkpointing_enable()
    with pytest.raises(InputError, match="backward pass would draw other choices"):
        duo.random(torch.Generator())


def test_an_empty_record_says_so() -> None:
    with make_duo().recording() as record, pytest.raises(InputError, match="nothing was recorded"):
        _ = record.choice_BTL


def test_unusual_numbers_are_refused() -> None:
    model = tiny_llama(vocab_size=30, width=32, layers=LAYERS)
    with pytest.raises(InputError, match="divisor"):
        DuoModel(model, divisor=0)
    duo = DuoModel(model)
    with pytest.raises(InputError, match="temperature"):
        duo.soft(0.0)
    with pytest.raises(InputError, match="beams"):
        duo.forced([0, 0, 0, 0], beams=0)


@pytest.mark.parametrize("allow_skip", [False, True])
@torch.no_grad()
def test_a_wrapped_model_may_be_moved_to_half_precision(allow_skip: bool) -> None:
    duo, ids_BT = make_duo(allow_skip=allow_skip, bias=True), make_ids(2, 5)
    duo.layers[0].router.shift_ += 0.5
    duo.model.to(torch.bfloat16)
    router, x_TD = duo.layers[0].router, torch.randn(3, 32).to(torch.bfloat16)
    logits_TA = x_TD.float() @ router.weight_AD.float().T
    logits_TA[:, 1] += 0.5
    torch.testing.assert_close(router(x_TD), logits_TA)
    with duo.routed():
        assert duo.model(input_ids=ids_BT).logits.dtype == torch.bfloat16
        duo.model.generate(input_ids=ids_BT, max_new_tokens=2, do_sample=False)
    if not allow_skip:
        with duo.soft():
            assert duo.model(input_ids=ids_BT).logits.isfinite().all()
