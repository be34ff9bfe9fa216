from __future__ import annotations

from pathlib import Path

import pytest

from tests.nn.serving.models import PAIRS, trained
from turnout.core.errors import InputError
from turnout.core.query import Query
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.rewards import right_answers
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.serving.local import LocalModel
from turnout.nn.serving.recipe import Size, find_knob, make_model
from turnout.nn.serving.record import Exercise, record
from turnout.nn.tiny import answer_batch

SIZE = Size(
    width=32, layers=3, steps=100, lr=5e-3, bottleneck=4, simulations=20, efforts={"lean": 0.9, "least": 0.1}
)


def test_a_model_is_made_that_answers_at_less_than_its_full_depth(tmp_path: Path) -> None:
    seen: list[str] = []
    folder = make_model(
        tmp_path / "model",
        name="letters",
        size=SIZE,
        alphabet="abc=",
        draw=lambda: PAIRS,
        held=PAIRS,
        progress=lambda phrase, *_: seen.append(phrase),
    )
    model = LocalModel.load(folder)
    exercises = [Exercise(query=Query(id=prompt, text=prompt), reference=answer) for prompt, answer in PAIRS]
    table = record([model], exercises, usd_per_pflop=1.0, max_new_tokens=10)
    model.close()
    assert table.names == ("letters", "letters[effort=lean]", "letters[effort=least]")
    quality_M, cost_M = table.quality_QM.mean(0), table.cost_usd_QM.mean(0)
    assert quality_M[0] == 1.0
    assert quality_M[1] > 0.0
    assert cost_M[2] < min(cost_M[:2])
    assert list(dict.fromkeys(seen)) == [
        "letters: training",
        "letters: searching",
        "letters: sharing paths",
        "letters: training routers",
    ]


def test_a_knob_keeps_within_its_share_of_calls_and_answers_as_much_as_it_can() -> None:
    model, tokenizer = trained()
    routed = RoutedDepth(model=model)
    router = DrLLMRouter(layers=3, width=32, knob=0.3)
    batch = answer_batch(tokenizer, PAIRS)
    routed.set_router(router)

    def at(share: float) -> tuple[float, float]:
        router.set_knob(find_knob(routed, router, batch, share))
        right_B, counts_BL = right_answers(routed, batch)
        router.set_knob(0.3)
        return float(right_B.float().mean()), float(counts_BL.sum(1).float().mean())

    try:
        found = {share: at(share) for share in (0.1, 0.5, 1.0)}
        assert find_knob(routed, router, batch, 0.5) != router.knob == 0.3
    finally:
        routed.unwrap()
    assert all(calls <= 3 * share for share, (_, calls) in found.items())
    # All blocks answer everything, and some knob does so with fewer calls.
    assert found[1.0][0] == 1.0
    assert found[1.0][1] < 3.0
    assert found[0.1][0] < 1.0


def test_a_budget_of_no_calls_is_refused() -> None:
    with pytest.raises(InputError, match=r"effort 'none'; allowed: a number in \(0, 1\]"):
        Size(efforts={"none": 0.0})


def test_a_model_that_answers_nothing_teaches_no_router(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'letters' answers none of the questions; train it for more steps"):
        make_model(
            tmp_path,
            name="letters",
            size=Size(width=16, layers=2, steps=1, simulations=2),
            alphabet="abc=",
            draw=lambda: PAIRS,
            held=[("a=", "bcbcbcbcb")],
        )
