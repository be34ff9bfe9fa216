"""This module scores an episode: format first, then the outcome, then the cost.

It follows S7, Router-R1 (arXiv 2506.09033): a broken format gives -1 and cancels the rest, a wrong answer 0,
a right one `(1 - a) + a * R_cost`, with

    R_cost = 1 - clip((sqrt(cost) - P5) / (P95 - P5), 0, 1)

where P5 and P95 are percentiles of sqrt(cost) over a sliding window of 1,000 episodes.

`corrected` repairs what the published reward leaves out:

- the policy's own tokens and all input tokens are free there; here every charge counts;
- calls that failed are free there; here they count, and a charge that nobody knows earns no credit;
- a dear wrong answer is worth as much as a cheap one there (0); here it loses up to `a`, never as much as a
  broken format.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from turnout.core.candidate import PriceCard
from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number
from turnout.sequential.loop import Outcome
from turnout.sequential.trace import Chosen, Observed, Trace

BROKEN = -1.0
"""The reward of a broken format."""

_LOW, _HIGH = 5.0, 95.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """What of an episode the reward looks at."""

    is_valid: bool
    """Whether every text of the policy followed the protocol, and it came to an answer of its own."""
    quality: float
    """Quality of the answer in [0, 1]."""
    usd: float
    """Its cost in USD, as the reward counts it; NaN where a part of it is not known."""

    def __post_init__(self) -> None:
        if not math.isnan(self.usd):
            check_number("Episode.usd", self.usd, low=0.0, allow_high=False)
        if self.is_valid:
            check_number("Episode.quality", self.quality, low=0.0, high=1.0)


@final
class RewardR1:
    """The reward, with the window that its cost scale comes from.

    Parameters
    ----------
    cost_weight:
        `a` in [0, 1]: 0, the published default, rewards the outcome alone.
    corrected:
        Whether to count what the published reward leaves out.
    window:
        Episodes that the percentiles are taken over.
    """

    def __init__(self, *, cost_weight: float = 0.0, corrected: bool = False, window: int = 1000) -> None:
        check_number("RewardR1.cost_weight", cost_weight, low=0.0, high=1.0)
        if corrected and cost_weight >= 1.0:
            # At 1 a dear wrong answer would be worth as much as a broken format, and a dear right one 0.
            raise InputError(sentence("RewardR1.cost_weight", allowed="less than 1 if corrected", got=1.0))
        check_count("RewardR1.window", window)
        self.cost_weight = cost_weight
        self.corrected = corrected
        self.window = window
        self._roots: deque[float] = deque(maxlen=window)

    def scores(self, episodes: Sequence[Episode], *, learn: bool = True) -> list[float]:
        """Return one reward per episode, on one scale: the window, which takes these in first.

        One scale for all matters to GRPO, which compares the episodes of a group with each other. With
        `learn=False` the window stays as it is, for episodes that are compared with earlier ones.
        """
        if learn:
            self._roots.extend(math.sqrt(one.usd) for one in episodes if not math.isnan(one.usd))
        low, high = self.scale()
        return [self._score(episode, low, high) for episode in episodes]

    def scale(self) -> tuple[float, float]:
        """Return (P5, P95) of the square root of cost over the window; (0, 0) while it is empty."""
        if not self._roots:
            return 0.0, 0.0
        low, high = np.percentile(np.fromiter(self._roots, np.float64), [_LOW, _HIGH])
        return float(low), float(high)

    def _score(self, episode: Episode, low: float, high: float) -> float:
        if not episode.is_valid:
            return BROKEN
        a, credit = self.cost_weight, cost_credit(episode.usd, low, high)
        right = episode.quality * ((1 - a) + a * credit)
        if not self.corrected:
            return right
        return right - (1 - episode.quality) * a * (1 - credit)


def cost_credit(usd: float, low: float, high: float) -> float:
    """Return R_cost in [0, 1] for a cost in USD; a cost that is not known (NaN) earns 0."""
    if math.isnan(usd):
        return 0.0
    root = math.sqrt(usd)
    if high <= low:
        return 1.0 if root <= low else 0.0
    return 1.0 - min(max((root - low) / (high - low), 0.0), 1.0)


def episode_of(
    outcome: Outcome, price_cards: Mapping[str, PriceCard], *, corrected: bool, quality: float | None = None
) -> Episode:
    """Return what the reward looks at in the outcome of a `RouterR1`.

    Parameters
    ----------
    outcome:
        A finished task.
    price_cards:
        Tariffs by candidate name; needed for the published cost, which counts output tokens only.
    corrected:
        Whether to take every charge of the trace instead.
    quality:
        The answer's quality where the environment does not know it.
    """
    trace = outcome.trace
    is_valid = outcome.ended.how == "stop" and violations(trace) == 0 and not gave_up(trace)
    value = outcome.quality if quality is None else quality
    usd = _all_usd(outcome.trace) if corrected else _output_usd(outcome.trace, price_cards)
    return Episode(is_valid=is_valid and not math.isnan(value), quality=value, usd=usd)


def violations(trace: Trace) -> int:
    """Return how often the policy broke the protocol, as the sequencer wrote it into its choices."""
    return int(_largest("violations", trace))


def gave_up(trace: Trace) -> bool:
    """Return whether the task ended without an answer of the policy's, be it with that of the last model."""
    return _largest("gave_up", trace) > 0


def _largest(value: str, trace: Trace) -> float:
    chosen = (event.choice for event in trace.events if isinstance(event, Chosen))
    return max((choice.values.get(value, 0.0) for choice in chosen), default=0.0)


def _all_usd(trace: Trace) -> float:
    return math.nan if trace.num_unknown_charges else trace.usd


def _output_usd(trace: Trace, price_cards: Mapping[str, PriceCard]) -> float:
    return sum(_published_usd(item, price_cards) for item in trace.observed)


def _published_usd(item: Observed, price_cards: Mapping[str, PriceCard]) -> float:
    if item.error is not None:
        return 0.0
    card = price_cards.get(item.call.candidate)
    if card is None or item.output_tokens is None:
        # A table may know what a call cost without saying how; all of it is the nearest there is.
        return item.usd
    return card.usd(input_tokens=0, output_tokens=item.output_tokens)
