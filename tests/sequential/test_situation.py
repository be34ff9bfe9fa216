"""What a learned policy sees is what the trace says."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sequential.scripted import query
from turnout.sequential import Bounds, Call, Observed, Started, Trace
from turnout.sequential.situation import NUM_SHARED, NUM_STATE, Prior, agreement, describe, num_state

COLUMN = {"a": 0, "b": 1, "c": 2}
PRIOR = Prior(np.array([0.25, -0.5]), np.array([0.3, 0.6, 0.9]), np.array([0.2, 0.4, 0.1]))


def trace(*seen: Observed, usd: float | None = None) -> Trace:
    """Return a trace of these observations."""
    found = Trace(Started(query=query(), candidates=tuple(COLUMN), bounds=Bounds(usd=usd), seed=0))
    for observed in seen:
        found.append(observed)
    return found


def seen(name: str, answer: str | None = "x", **values: object) -> Observed:
    """Return an observation."""
    return Observed(call=Call(candidate=name), answer=answer, **values)  # type: ignore[arg-type]


def test_before_the_first_call_only_the_prior_is_known() -> None:
    found = describe(trace(), PRIOR, column=COLUMN, signals=["s"], scores=(), max_samples=1)
    assert found.state_D.shape == (num_state(3, 1, 2),)
    assert found.state_D.tolist() == [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0.25, -0.5]
    assert found.action_AK.shape == (4, NUM_SHARED)
    assert found.action_AK[:, 0].tolist() == [0.2, 0.4, 0.1, 0.0]
    assert found.allowed_A.tolist() == [True, True, True, False]


def test_after_a_call_the_history_counts() -> None:
    first = seen("b", usd=0.25, signals={"s": 0.5})
    found = describe(trace(first, usd=1.0), PRIOR, column=COLUMN, signals=["s"], scores=[0.7], max_samples=1)
    assert found.state_D[:NUM_STATE].tolist() == [1, 1, 0.25, 0.75, 0, 0, 0.7]
    assert found.state_D[NUM_STATE:].tolist() == [0.5, 0.5, 0, 1, 0, 0.25, -0.5]
    assert found.allowed_A.tolist() == [True, False, True, True]
    assert found.action_AK[2] == pytest.approx([0, 0.1, 0.3, 0.2, 0, 0])
    assert found.action_AK[3] == pytest.approx([0, 0, 0, 0, 0, 0.7])


def test_one_may_stop_without_an_answer_only_where_nobody_is_left() -> None:
    failed = seen("a", None, error="gone")
    some = trace(failed)
    some.admissible = ("b",)
    found = describe(some, PRIOR, column=COLUMN, signals=(), scores=[0.0], max_samples=1)
    assert found.allowed_A.tolist() == [False, True, False, False]
    some.admissible = ()
    found = describe(some, PRIOR, column=COLUMN, signals=(), scores=[0.0], max_samples=1)
    assert found.allowed_A.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("answers", "share"),
    [
        ((), (0.0, 0.0)),
        (("x",), (0.0, 0.0)),
        (("x", "y"), (0.0, 0.0)),
        (("x", " X"), (1.0, 1.0)),
        (("x", "x", "y", None), (2 / 3, 0.0)),
    ],
)
def test_agreement_is_among_known_texts(answers: tuple[str | None, ...], share: tuple[float, float]) -> None:
    assert agreement([seen("a", answer) for answer in answers]) == share
