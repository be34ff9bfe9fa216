"""This module learns whom to ask next, and when to stop, by trying it out on recorded outcomes.

The task is that of S7, Router-R1 (arXiv 2506.09033, section 3): calls one after the other, an answer, and a
reward at the end. The policy there is a language model; here it is a small softmax over calls and the stop,
which writes no text of its own, so that it trains in seconds and decides in microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.contracts import Embedder, Router, State, fitted
from turnout.core.errors import InputError, sentence
from turnout.core.outcomes import Floats
from turnout.core.progress import Progress, silent
from turnout.core.query import Query
from turnout.core.validation import check_choice, check_count, check_kind, check_number
from turnout.sequential.actions import AGGREGATES, Aggregate, Call, Choice, Stop
from turnout.sequential.contracts import Environment, Scorer, Sequencer
from turnout.sequential.episodes import refuse_unknown_charges
from turnout.sequential.loop import Outcome
from turnout.sequential.reinforce import Reward, Settings, improve
from turnout.sequential.situation import NUM_SHARED, Prior, describe, num_state
from turnout.sequential.softmax import Situation, Weights, log_probabilities
from turnout.sequential.trace import Bounds, Trace

MAX_KEPT = 8192
WARM = 40.0
"""Weight of the expected utility before training where a router is given."""
STOPPING = 4.0
"""Head start of the stop there: estimates are too hopeful after a first answer that was wrong."""


@final
class LearnedSequencer(Sequencer):
    """Draws the next call, or the stop, from a softmax over features of the query and of what came back.

    Parameters
    ----------
    price:
        Quality that one USD must buy: enters the features and the reward.
    embedder:
        Makes the query's vector; None does without. Fitted on the training queries if it is not fitted.
    router:
        A fitted router whose estimates are features of the calls; None does without. Fit it on other
        queries than those of training: on its own it knows the answers. With one the policy starts by
        looking one step ahead, without one evenly.
    scorer:
        A fitted scorer of answers, likewise; None does without.
    signals:
        Names of signals of the observations that are features.
    max_samples:
        How often one candidate may be asked.
    aggregate:
        How the answers become one.
    is_greedy:
        Whether to take the most probable action (propensity 1) and not to draw.
    """

    def __init__(
        self,
        *,
        price: float = 0.0,
        embedder: Embedder | None = None,
        router: Router | None = None,
        scorer: Scorer | None = None,
        signals: Sequence[str] = (),
        max_samples: int = 1,
        aggregate: Aggregate = "last",
        is_greedy: bool = False,
    ) -> None:
        for name, value, kind in (
            ("embedder", embedder, Embedder), ("router", router, Router), ("scorer", scorer, Scorer)
        ):  # fmt: skip
            if value is not None:
                check_kind(f"LearnedSequencer.{name}", value, kind)
        self.price = check_number("LearnedSequencer.price", price, low=0.0)
        self.embedder = embedder
        self.router = router
        self.scorer = scorer
        self.signals = tuple(signals)
        self.max_samples = check_count("LearnedSequencer.max_samples", max_samples)
        self.aggregate: Aggregate = aggregate
        check_choice("LearnedSequencer.aggregate", aggregate, AGGREGATES)
        self.is_greedy = is_greedy
        self._priors: dict[tuple[str, str | None], Prior] = {}
        self._column: dict[str, int] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether weights are known."""
        return hasattr(self, "weights_")

    def fit(
        self,
        environment: Environment,
        queries: Sequence[Query],
        *,
        bounds: Bounds | None = None,
        reward: Reward | None = None,
        settings: Settings | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> Self:
        """Learn by policy gradient on these queries; `reward` None is quality minus price times USD."""
        self.prepare(environment, queries)
        self.history_ = improve(
            self,
            environment,
            queries,
            bounds=bounds or Bounds(),
            reward=reward or self.reward,
            settings=settings or Settings(),
            seed=seed,
            progress=progress,
        )
        return self

    def prepare(self, environment: Environment, queries: Sequence[Query]) -> None:
        """Set the weights before training; `fit` does it."""
        if not queries:
            raise InputError(sentence("LearnedSequencer.fit: queries", allowed="one or more", got="none"))
        self.names_ = tuple(candidate.name for candidate in environment.candidates)
        self.embedder_ = None if self.embedder is None else fitted(self.embedder, queries)
        self._priors, self._column = {}, {}
        width = self._prior(queries[0]).x_F.size
        depth = num_state(len(self.names_), len(self.signals), width)
        self.weights_ = Weights.zeros(len(self.names_) + 1, depth, NUM_SHARED)
        if self.router is not None:
            # One step ahead: a call promises its expected utility, the stop what the last answer seems worth.
            self.weights_.shared_K[[0, 1, 5]] = WARM
            self.weights_.weights_AD[-1, 0] = STOPPING

    def reward(self, outcome: Outcome) -> float:
        """Return quality minus price times USD; an answer whose quality nobody knows counts as 0.

        Raises `InputError` at a price for an answer whose charge nobody knows.
        """
        if self.price:
            refuse_unknown_charges("LearnedSequencer", outcome.trace.observed)
        return (0.0 if math.isnan(outcome.quality) else outcome.quality) - self.price * outcome.usd

    def next(self, trace: Trace, rng: np.random.Generator) -> Choice:
        """Return the next choice with its probability."""
        self.require_fitted("next")
        situation = self.situation(trace)
        chance_A = np.exp(log_probabilities(self.weights_, situation))
        action = int(chance_A.argmax()) if self.is_greedy else _draw(chance_A, rng)
        propensity = 1.0 if self.is_greedy else float(min(chance_A[action], 1.0))
        return Choice(action=self.action(action, trace), propensity=propensity, reason="learned")

    def situation(self, trace: Trace) -> Situation:
        """Return what the choice is made from."""
        scores = () if self.scorer is None else [self.scorer.score(trace.query, o) for o in trace.observed]
        if len(self._column) != len(self.names_):
            self._column = {name: index for index, name in enumerate(self.names_)}
        return describe(
            trace,
            self._prior(trace.query),
            column=self._column,
            signals=self.signals,
            scores=scores,
            max_samples=self.max_samples,
        )

    def action(self, index: int, trace: Trace) -> Call | Stop:
        """Return the action of an index: calls in the order of the pool, then the stop."""
        if index == len(self.names_):
            return Stop(aggregate=self.aggregate)
        name = self.names_[index]
        return Call(candidate=name, sample=trace.next_sample(name))

    def state(self) -> State:
        """Return weights, names and embedder."""
        parts = {} if self.embedder_ is None else {"embedder": self.embedder_}
        arrays = {"weights": self.weights_.weights_AD, "shared": self.weights_.shared_K}
        return State(arrays=arrays, values={"names": list(self.names_)}, parts=parts)

    def restore(self, state: State) -> None:
        """Take over what `state` returned."""
        self.names_ = tuple(state.values["names"])  # type: ignore[arg-type]
        self.weights_ = Weights(state.arrays["weights"], state.arrays["shared"])
        self.embedder_ = state.parts.get("embedder")  # type: ignore[assignment]

    def _prior(self, query: Query) -> Prior:
        key = (query.id, query.text)
        prior = self._priors.get(key)
        if prior is None:
            if len(self._priors) >= MAX_KEPT:
                self._priors.clear()
            prior = self._priors[key] = self._make_prior(query)
        return prior

    def _make_prior(self, query: Query) -> Prior:
        x_F = (
            np.zeros(0)
            if self.embedder_ is None
            else np.asarray(self.embedder_.embed([query])[0], np.float64)
        )
        if self.router is None:
            nothing_M = np.zeros(len(self.names_))
            return Prior(x_F, nothing_M, nothing_M)
        estimate = self.router.estimate([query]).reorder(self.names_)
        quality_M = _known(estimate.quality_QM[0])
        usd_M = estimate.cost_usd_QM[0]
        # What may cost anything is no bargain: it counts as the dearest that is known.
        usd_M = np.where(np.isnan(usd_M), np.nanmax(np.append(usd_M, 0.0)), usd_M)
        return Prior(x_F, quality_M, quality_M - self.price * usd_M)


def _known(values_M: Floats) -> Floats:
    return np.where(np.isnan(values_M), 0.0, values_M)


def _draw(chance_A: Floats, rng: np.random.Generator) -> int:
    drawn = rng.random() * chance_A.sum()
    action = int(np.searchsorted(chance_A.cumsum(), drawn, side="right"))
    # Rounding may point past the last action of any probability.
    return min(action, int(np.flatnonzero(chance_A)[-1]))
