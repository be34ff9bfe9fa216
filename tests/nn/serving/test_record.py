from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.nn.serving.models import PAIRS, trained
from turnout.core.errors import InputError
from turnout.core.generation import Generation
from turnout.core.query import Query
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.flops import executed_flops
from turnout.nn.serving.local import LocalModel, Variant
from turnout.nn.serving.record import Exercise, record

EXERCISES = [
    Exercise(query=Query(id=f"q{i}", text=prompt, task="letters"), reference=answer, split="train")
    for i, (prompt, answer) in enumerate(PAIRS)
]


@pytest.fixture
def model() -> Iterator[LocalModel]:
    base, tokenizer = trained()
    routed = RoutedDepth(model=base, router=DrLLMRouter(layers=3, width=32, bottleneck=1))
    model = LocalModel(
        model=base,
        tokenizer=tokenizer,
        routed=routed,
        variants=[Variant(model="tiny"), Variant(model="tiny", effort="none", knob=-1.0)],
    )
    yield model
    model.close()


def test_quality_and_cost_come_from_running(model: LocalModel) -> None:
    seen: list[tuple[str, int, int]] = []
    table = record(
        [model],
        EXERCISES,
        usd_per_pflop=2.0,
        max_new_tokens=10,
        progress=lambda *step: seen.append(step),
    )
    assert table.names == ("tiny", "tiny[effort=none]")
    assert table.quality_QM[:, 0].tolist() == [1.0] * 4
    assert table.quality_QM[:, 1].mean() < 1.0
    assert np.array_equal(table.output_tokens_QM[:, 0], [len(answer) + 1 for _, answer in PAIRS])
    flops = np.asarray(table.extras["flops"], float)
    assert np.allclose(flops / 1e15 * 2.0, table.cost_usd, rtol=1e-9, atol=0)
    request = Generation(prompt=PAIRS[3][0], variant="tiny", max_new_tokens=10)
    assert flops[3] == executed_flops(lambda: model.engine.run_alone(request, lambda _event: None))[1]
    assert {candidate.context_tokens for candidate in table.candidates} == {64}
    assert table.splits == ("train",) * 4
    assert (seen[0], seen[-1]) == (("recording", 1, 8), ("recording", 8, 8))


def test_a_question_is_recorded_as_it_is_served(model: LocalModel) -> None:
    plain = record([model], EXERCISES, usd_per_pflop=1.0, max_new_tokens=10)
    # The engine reads what a template writes as it is.
    model.tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    try:
        found = record([model], EXERCISES, usd_per_pflop=1.0, max_new_tokens=10)
    finally:
        model.tokenizer.chat_template = None
    assert found.input_tokens.tolist() == plain.input_tokens.tolist()
    assert found.extras["answer"].tolist() == plain.extras["answer"].tolist()


def test_what_is_skipped_costs_nothing(model: LocalModel) -> None:
    table = record([model], EXERCISES, usd_per_pflop=1.0, max_new_tokens=1)
    flops = np.asarray(table.extras["flops"], float).reshape(2, 4)
    # Without a block there remain the router and the product with the vocabulary.
    assert flops[1].min() >= 2 * 32 * len(model.tokenizer)
    assert flops[0].min() > 20 * flops[1].max()


def test_the_price_card_of_a_variant_fits_what_it_cost(model: LocalModel) -> None:
    table = record([model], EXERCISES, usd_per_pflop=1.0, max_new_tokens=10)
    for column, candidate in enumerate(table.candidates):
        rows = table.candidate_index == column
        assert candidate.price_card is not None
        told = sum(
            candidate.price_card.usd(input_tokens=i, output_tokens=o)
            for i, o in zip(table.input_tokens[rows], table.output_tokens[rows], strict=True)
        )
        assert told == pytest.approx(table.cost_usd[rows].sum(), rel=0.05)


def test_nothing_to_run_is_refused(model: LocalModel) -> None:
    with pytest.raises(InputError, match="models and exercises"):
        record([model], [], usd_per_pflop=1.0)
    with pytest.raises(InputError, match="usd_per_pflop"):
        record([model], EXERCISES, usd_per_pflop=0.0)
