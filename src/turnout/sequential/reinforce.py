"""This module improves a softmax policy by trying it out: REINFORCE with the other tries as the baseline.

R. J. Williams, Machine Learning 8, 1992: the gradient of the expected reward is E[r * d log pi(trace)], and
any baseline that does not depend on the try may be taken from r. Each query is tried R times here, and the
baseline of a try is the mean of the others (W. Kool, H. van Hoof and M. Welling, 2019), so that easy queries
do not drown hard ones. An entropy bonus, which fades, keeps it trying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from turnout.core.progress import Progress
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_number
from turnout.sequential.actions import Choice
from turnout.sequential.contracts import Environment, Sequencer
from turnout.sequential.loop import Outcome, run
from turnout.sequential.softmax import Adam, Situation, Weights, log_probabilities, sum_gradient
from turnout.sequential.trace import Bounds, Trace

if TYPE_CHECKING:
    from turnout.sequential.learned import LearnedSequencer

Reward = Callable[[Outcome], float]
"""What a finished task is worth."""

Try = tuple[list[tuple[Situation, int]], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How training goes."""

    epochs: int = 10
    """Times that every query is tried."""
    tries: int = 4
    """Tries per query and epoch, at least 2."""
    batch: int = 64
    """Queries per step."""
    step: float = 0.03
    """Step size of Adam; falls to 0 towards the end."""
    entropy: float = 0.01
    """Reward of one nat of entropy; falls to 0 towards the end."""
    decay: float = 1e-4
    """Share of the weights' distance from their start that is taken back per step."""

    def __post_init__(self) -> None:
        check_count("Settings.epochs", self.epochs, low=0)
        check_count("Settings.tries", self.tries, low=2)
        check_count("Settings.batch", self.batch)
        for name in ("step", "entropy", "decay"):
            check_number(f"Settings.{name}", getattr(self, name), low=0.0)


class _Recorder(Sequencer):
    """Draws like the policy and keeps what each choice was made from."""

    def __init__(self, policy: LearnedSequencer) -> None:
        self.policy = policy
        self.steps: list[tuple[Situation, int]] = []

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return a drawn choice."""
        situation = self.policy.situation(trace)
        chance_A = np.exp(log_probabilities(self.policy.weights_, situation))
        action = int((rng.random() * chance_A.sum() >= chance_A.cumsum()[:-1]).sum())
        self.steps.append((situation, action))
        return Choice(action=self.policy.action(action, trace), propensity=min(float(chance_A[action]), 1.0))


def improve(
    policy: LearnedSequencer,
    environment: Environment,
    queries: Sequence[Query],
    *,
    bounds: Bounds,
    reward: Reward,
    settings: Settings,
    seed: int,
    progress: Progress,
) -> list[float]:
    """Improve the policy's weights in place and return the mean reward of every epoch."""
    rng = make_rng(seed, "reinforce")
    adam = Adam(settings.step)
    start = Weights(policy.weights_.weights_AD.copy(), policy.weights_.shared_K.copy())
    history = []
    for epoch in range(settings.epochs):
        left = 1.0 - epoch / settings.epochs
        adam.step = settings.step * left
        order = rng.permutation(len(queries))
        rewards: list[float] = []
        for begin in range(0, order.size, settings.batch):
            part = [queries[index] for index in order[begin : begin + settings.batch]]
            rows = [
                [_try(policy, environment, query, bounds, reward, rng) for _ in range(settings.tries)]
                for query in part
            ]
            rewards.extend(r for tries in rows for _, r in tries)
            adam.ascend(policy.weights_, gradient(policy.weights_, rows, entropy=settings.entropy * left))
            for value, was in zip(_arrays(policy.weights_), _arrays(start), strict=True):
                value -= settings.decay * (value - was)
        history.append(float(np.mean(rewards)))
        progress("train", epoch + 1, settings.epochs)
    return history


def gradient(weights: Weights, rows: Sequence[Sequence[Try]], *, entropy: float) -> Weights:
    """Return the estimate of the gradient of the expected reward, over tries in rows of one query each."""
    situations: list[Situation] = []
    actions: list[int] = []
    scales: list[float] = []
    count = sum(len(tries) for tries in rows)
    for tries in rows:
        reward_R = np.array([reward for _, reward in tries])
        other_R = (reward_R.sum() - reward_R) / (reward_R.size - 1)
        for (steps, _), advantage in zip(tries, (reward_R - other_R).tolist(), strict=True):
            for situation, action in steps:
                situations.append(situation)
                actions.append(action)
                scales.append(advantage / count)
    return sum_gradient(weights, situations, actions, scales, entropy=entropy / count)


def _try(
    policy: LearnedSequencer,
    environment: Environment,
    query: Query,
    bounds: Bounds,
    reward: Reward,
    rng: np.random.Generator,
) -> Try:
    recorder = _Recorder(policy)
    outcome = run(environment, recorder, query, bounds=bounds, seed=int(rng.integers(2**31)))
    return recorder.steps, reward(outcome)


def _arrays(weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    return weights.weights_AD, weights.shared_K
