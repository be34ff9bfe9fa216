from __future__ import annotations

import numpy as np
import pytest
import torch

from turnout.core.errors import InputError
from turnout.nn.depth import RoutedDepth, right_answers
from turnout.nn.depth.drllm.labels import Labels, find_labels
from turnout.nn.depth.drllm.search import SearchRule
from turnout.nn.tiny import Batch, answer_batch, answers, character_tokenizer, tiny_llama, train

TOKENIZER = character_tokenizer("abcdef=")
PAIRS = [(f"{a}{b}=", f"{b}{a}") for a in "abcdef" for b in "abcdef"]


@pytest.fixture(scope="module")
def base() -> RoutedDepth:
    """A model that has learned half of its questions, then had a block of noise put in front."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = tiny_llama(vocab_size=len(TOKENIZER), width=32, layers=4)
    rng = np.random.default_rng(0)

    def draw() -> Batch:
        return answer_batch(TOKENIZER, [PAIRS[i] for i in rng.integers(0, len(PAIRS), size=16)])

    train(model, draw, steps=120, lr=5e-3)
    return RoutedDepth(model=model)


def test_right_answers_are_those_of_greedy_decoding(base: RoutedDepth) -> None:
    counts_BL = torch.randint(0, 3, (len(PAIRS), 4), generator=torch.Generator().manual_seed(1))
    counts_BL[::2] = 1
    counts_BL[1::4, :3] = 1
    right_B, counts = right_answers(base, answer_batch(TOKENIZER, PAIRS), counts_BL=counts_BL)
    assert torch.equal(counts, counts_BL)
    with base.forced(counts_BL):
        said = answers(base.model, TOKENIZER, [p for p, _ in PAIRS], max_new_tokens=3)
    assert right_B.tolist() == [a == b for a, (_, b) in zip(said, PAIRS, strict=True)]
    assert 0.2 < right_B.float().mean() < 0.98


def test_what_is_said_inside_a_prompt_counts_and_still_belongs_to_the_prompt(base: RoutedDepth) -> None:
    ids_BT = answer_batch(TOKENIZER, PAIRS).input_ids_BT
    with torch.no_grad():
        said_B = base.model(input_ids=ids_BT).logits[:, 2].argmax(-1)
    said = [TOKENIZER.convert_ids_to_tokens(int(token)) for token in said_B]
    taught = [
        (prompt, answer, word) for (prompt, answer), word in zip(PAIRS, said, strict=True) if len(word) == 1
    ]
    assert len(taught) > 9
    other = [(prompt, answer, "a" if word != "a" else "b") for prompt, answer, word in taught]
    plain, right, wrong = (
        right_answers(base, answer_batch(TOKENIZER, pairs))[0]
        for pairs in ([pair[:2] for pair in taught], taught, other)
    )
    assert torch.equal(plain, right)
    assert plain.any()
    assert not wrong.any()
    masks: list[torch.Tensor] = []
    with base.watched(lambda _layer, _hidden, mask_BT: masks.append(mask_BT)):
        right_answers(base, answer_batch(TOKENIZER, taught))
    assert masks[0][0].tolist() == [True] * 4 + [False] * 3


def test_every_label_that_was_found_is_right_and_short(base: RoutedDepth) -> None:
    batch = answer_batch(TOKENIZER, PAIRS)
    dense_B, _ = right_answers(base, batch, counts_BL=torch.ones(len(PAIRS), 4))
    labels = find_labels(base, batch, rule=SearchRule(simulations=25))
    right_B, _ = right_answers(base, batch, counts_BL=labels.counts_QL)
    assert torch.equal(right_B, labels.is_found_Q)
    assert bool((labels.is_found_Q >= dense_B).all())
    assert torch.equal(labels.is_improved_Q, labels.is_found_Q & ~dense_B)
    assert labels.counts_QL[dense_B].sum(1).float().mean() < 4
    assert bool((labels.counts_QL[~labels.is_found_Q] == 1).all())
    assert labels.measured <= 26 * len(PAIRS)


def test_teaching_keeps_the_share_of_improved_questions() -> None:
    labels = Labels(
        counts_QL=torch.ones(10, 2, dtype=torch.int64),
        is_found_Q=torch.tensor([True] * 9 + [False]),
        is_improved_Q=torch.tensor([True, True] + [False] * 8),
        measured=0,
    )
    assert labels.teaching().tolist() == list(range(9))
    kept = labels.teaching(improved_share=0.4).tolist()
    assert kept[:2] == [0, 1]
    assert len(kept) == 5
    with pytest.raises(InputError, match="improved_share"):
        labels.teaching(improved_share=1.0)


def test_a_path_that_its_label_would_not_repeat_is_refused(base: RoutedDepth) -> None:
    with pytest.raises(InputError, match="most_calls; allowed: 1 to 2; got: 3"):
        find_labels(base, answer_batch(TOKENIZER, PAIRS), rule=SearchRule(most_calls=3))


def test_counts_for_other_questions_are_refused(base: RoutedDepth) -> None:
    with pytest.raises(InputError, match="36 rows"):
        right_answers(base, answer_batch(TOKENIZER, PAIRS), counts_BL=torch.ones(3, 4))


def test_rows_that_are_padded_on_the_right_are_refused(base: RoutedDepth) -> None:
    batch = answer_batch(TOKENIZER, PAIRS)
    flipped = Batch(
        input_ids_BT=batch.input_ids_BT,
        attention_mask_BT=batch.attention_mask_BT.clone(),
        labels_BT=batch.labels_BT,
    )
    flipped.attention_mask_BT[0, -1] = 0
    with pytest.raises(InputError, match="padded on the left alone; got: 'padding after a token'"):
        right_answers(base, flipped)
