from __future__ import annotations

import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.tiny import (
    BOS,
    EOS,
    IGNORED,
    PAD,
    answer_batch,
    answers,
    character_tokenizer,
    prompt_batch,
    tiny_llama,
    train,
)

ALPHABET = "abc=\n "


def test_the_tokenizer_gives_a_token_to_every_character_and_reads_it_back() -> None:
    tokenizer = character_tokenizer(ALPHABET)
    ids = tokenizer.encode("ab \nc=", add_special_tokens=False)
    assert len(ids) == 6
    assert tokenizer.decode(ids) == "ab \nc="
    assert tokenizer.encode("z", add_special_tokens=False) == [tokenizer.unk_token_id]
    assert len(tokenizer) == 4 + len(ALPHABET)


def test_a_model_is_the_same_for_the_same_seed_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = (tiny_llama(vocab_size=12, width=16, layers=2, seed=3) for _ in range(2))
    other = tiny_llama(vocab_size=12, width=16, layers=2, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_only_answers_and_their_end_carry_a_loss() -> None:
    tokenizer = character_tokenizer(ALPHABET)
    batch = answer_batch(tokenizer, [("ab=", "c"), ("a=", "bb")])
    a, b, c, equals = (tokenizer.convert_tokens_to_ids(word) for word in "abc=")
    assert batch.input_ids_BT.tolist() == [[BOS, a, b, equals, c, EOS], [BOS, a, equals, b, b, EOS]]
    assert batch.labels_BT.tolist() == [[IGNORED] * 4 + [c, EOS], [IGNORED] * 3 + [b, b, EOS]]


def test_a_third_text_is_taught_inside_the_prompt() -> None:
    tokenizer = character_tokenizer(ALPHABET)
    batch = answer_batch(tokenizer, [("abc=", "a", "cb"), ("b=", "c")])
    a, b, c = (tokenizer.convert_tokens_to_ids(word) for word in "abc")
    # What is said at b is the label one to its right.
    assert batch.input_ids_BT[0, 2].item() == b
    assert batch.labels_BT[0].tolist() == [IGNORED] * 3 + [c, b, a, EOS]
    assert batch.labels_BT[1].tolist() == [IGNORED] * 5 + [c, EOS]
    with pytest.raises(InputError, match="fewer tokens inside than the 2 of 'a='"):
        answer_batch(tokenizer, [("a=", "b", "bb")])


def test_shorter_rows_are_padded_on_the_left_and_masked() -> None:
    ids_BT, mask_BT = prompt_batch(character_tokenizer(ALPHABET), ["a", "abc"])
    assert ids_BT[0, :3].tolist() == [PAD, PAD, BOS]
    assert mask_BT.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]


def test_no_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        answer_batch(character_tokenizer(ALPHABET), [])


def test_training_teaches_a_small_rule_that_generation_then_follows() -> None:
    tokenizer = character_tokenizer(ALPHABET)
    pairs = [("a=", "b"), ("b=", "c"), ("c=", "a"), ("ab=", "bc")]
    model = tiny_llama(vocab_size=len(tokenizer), width=32, layers=2)
    untrained = answers(model, tokenizer, [prompt for prompt, _ in pairs], max_new_tokens=4)
    seen: list[tuple[str, int, int]] = []
    losses = train(
        model,
        lambda: answer_batch(tokenizer, pairs),
        steps=80,
        lr=5e-3,
        progress=lambda *step: seen.append(step),
    )
    right = [answer for _, answer in pairs]
    assert untrained != right
    assert answers(model, tokenizer, [prompt for prompt, _ in pairs], max_new_tokens=4) == right
    assert losses[-1] < 0.1 * losses[0]
    assert seen[-1] == ("training", 80, 80)
    assert not model.training


def test_only_the_named_parameters_move() -> None:
    tokenizer = character_tokenizer(ALPHABET)
    model = tiny_llama(vocab_size=len(tokenizer), width=16, layers=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, lambda: answer_batch(tokenizer, [("a=", "b")]), steps=3, parameters=[model.lm_head.weight])
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert moved == ["lm_head.weight"]
