from __future__ import annotations

from pathlib import Path

import pytest

from tests.nn.serving.models import PAIRS
from turnout.core.errors import InputError
from turnout.core.query import Query
from turnout.nn.serving.local import LocalModel
from turnout.nn.serving.recipe import Size, make_model
from turnout.nn.serving.record import Exercise, record

SIZE = Size(
    width=32, layers=3, steps=100, lr=5e-3, bottleneck=4, simulations=20, efforts={"lean": 0.0, "least": -0.9}
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
        "letters: training routers",
    ]


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
