from __future__ import annotations

import copy

import pytest
import torch

from turnout.core.errors import InputError, ShapeError
from turnout.nn.depth import DepthRouter, FixedDepth, RoutedDepth
from turnout.nn.depth.drllm.metrics import router_metrics
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.drllm.training import (
    Lessons,
    RouterRecipe,
    make_lessons,
    taught_decisions,
    train_router,
)
from turnout.nn.depth.rewards import prompts_of
from turnout.nn.tiny import Batch, answer_batch, character_tokenizer, tiny_llama

TOKENIZER = character_tokenizer("abcdefgh=")
QUICK = RouterRecipe(epochs=40, batch_size=8, lr=5e-3)


def questions(count: int = 48) -> tuple[Batch, torch.Tensor]:
    """Questions of two kinds and label paths that depend on the kind alone."""
    rng = torch.Generator().manual_seed(0)
    pairs, labels = [], []
    for number in range(count):
        kind = number % 2
        letters = "abcd" if kind else "efgh"
        word = "".join(letters[int(i)] for i in torch.randint(0, 4, (4 + number % 7,), generator=rng))
        pairs.append((word + "=", "a"))
        labels.append([1, 0, 1, 2] if kind else [1, 1, 0, 1])
    return answer_batch(TOKENIZER, pairs), torch.tensor(labels)


def routed(router: DepthRouter | None = None) -> RoutedDepth:
    return RoutedDepth(model=tiny_llama(vocab_size=len(TOKENIZER), width=32, layers=4), router=router)


def test_routers_learn_label_paths_and_take_them_on_new_prompts() -> None:
    batch, labels_QL = questions()
    base = routed()
    router = DrLLMRouter(layers=4, width=32)
    lessons = make_lessons(base, batch, labels_QL)
    losses = train_router(router, lessons, recipe=QUICK)
    assert losses[-1] < 0.1 * losses[0]
    assert router_metrics(taught_decisions(router, lessons), labels_QL).macro_f1 > 0.95
    fresh, fresh_labels = questions(80)
    base.set_router(router)
    ids_BT, prompt_BT = prompts_of(fresh)
    with torch.no_grad(), base.prompted(prompt_BT):
        base.model(input_ids=ids_BT, attention_mask=fresh.attention_mask_BT)
    assert router_metrics(base.counts_BL, fresh_labels).macro_f1 > 0.9


def test_training_descends_the_focal_loss_with_weights_of_the_classes() -> None:
    # One batch of everything: the first epoch's loss is that of the untrained router.
    base = routed()
    lessons = make_lessons(base, *questions())
    labels_N = lessons.labels_QL.flatten()
    fresh, used_QW = DrLLMRouter(layers=4, width=32), lessons.is_used_QW.float()
    with torch.no_grad():
        each = [fresh.heads[layer](lessons.means_QLWD[:, layer]) for layer in range(4)]
    logits_QLC = torch.stack([(e * used_QW[..., None]).sum(1) / used_QW.sum(1)[:, None] for e in each], 1)
    chance_N = logits_QLC.flatten(0, 1).softmax(-1)[torch.arange(len(labels_N)), labels_N]
    counts_C = labels_N.bincount(minlength=3)
    alpha_C = (1 - 0.999) / (1 - 0.999**counts_C)
    alpha_C = alpha_C / alpha_C.sum() * 3

    def first_loss(**recipe: object) -> float:
        whole = RouterRecipe(epochs=1, batch_size=len(lessons.labels_QL), **recipe)  # type: ignore[arg-type]
        return train_router(DrLLMRouter(layers=4, width=32), lessons, recipe=whole)[0]

    plain = float(-chance_N.log().mean())
    assert first_loss(gamma=0.0, is_balanced=False) == pytest.approx(plain, rel=1e-5)
    focal_N = -((1 - chance_N) ** 2) * chance_N.log()
    assert first_loss(gamma=2.0, is_balanced=False) == pytest.approx(float(focal_N.mean()), rel=1e-5)
    balanced = float((alpha_C[labels_N] * focal_N).mean())
    assert first_loss(gamma=2.0, beta=0.999) == pytest.approx(balanced, rel=1e-4)
    assert abs(balanced - plain) > 0.1 * plain


def test_lessons_follow_the_label_path_and_see_the_prompt_alone() -> None:
    batch, labels_QL = questions(6)
    first = make_lessons(routed(), batch, labels_QL)
    other = Batch(
        input_ids_BT=batch.input_ids_BT.clone(),
        attention_mask_BT=batch.attention_mask_BT,
        labels_BT=batch.labels_BT,
    )
    other.input_ids_BT[batch.labels_BT >= 0] = 5
    assert torch.equal(make_lessons(routed(), other, labels_QL).means_QLWD, first.means_QLWD)
    # At block 2, questions of the second kind have skipped block 1: they bring what they had there.
    means = first.means_QLWD
    assert torch.equal(means[1::2, 2], means[1::2, 1])
    assert not torch.allclose(means[::2, 2], means[::2, 1])


def test_lessons_of_other_windows_than_the_routers_are_refused() -> None:
    lessons = make_lessons(routed(), *questions(6))
    with pytest.raises(ShapeError, match=r"allowed: the router's .*'windows': 2.*got: .*'windows': 8"):
        train_router(DrLLMRouter(layers=4, width=32, windows=2), lessons)


def test_lessons_in_small_batches_are_the_same() -> None:
    batch, labels_QL = questions(10)
    whole = make_lessons(routed(), batch, labels_QL)
    parts = make_lessons(routed(), batch, labels_QL, batch_size=3)
    torch.testing.assert_close(parts.means_QLWD, whole.means_QLWD)
    assert torch.equal(parts.is_used_QW, whole.is_used_QW)


def test_training_changes_the_router_and_nothing_else_and_repeats_itself() -> None:
    batch, labels_QL = questions(16)
    base = routed()
    before = copy.deepcopy(base.model.state_dict())
    lessons = make_lessons(base, batch, labels_QL)
    recipe = RouterRecipe(epochs=2)
    routers = [DrLLMRouter(layers=4, width=32) for _ in range(2)]
    losses = [train_router(router, lessons, recipe=recipe, seed=5) for router in routers]
    assert losses[0] == losses[1]
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())


def test_what_does_not_fit_is_refused() -> None:
    batch, labels_QL = questions(4)
    with pytest.raises(ShapeError, match="labels_QL"):
        make_lessons(routed(FixedDepth(counts=[1] * 4)), batch, labels_QL[:3])
    empty = Lessons(
        means_QLWD=torch.zeros(0, 4, 8, 32), is_used_QW=torch.zeros(0, 8), labels_QL=torch.zeros(0, 4)
    )
    with pytest.raises(InputError, match="at least one question"):
        train_router(DrLLMRouter(layers=4, width=32), empty)
    with pytest.raises(InputError, match="lr"):
        RouterRecipe(lr=0.0)
