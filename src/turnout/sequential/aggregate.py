"""This module makes one answer of several calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from turnout.sequential.actions import Aggregate, Call
from turnout.sequential.trace import Observed


def aggregate(how: Aggregate, observed: Sequence[Observed]) -> tuple[str | None, Call | None]:
    """Return (text, call) of the answer; (None, None) where no call answered.

    `vote` takes the most frequent text after trimming and case folding, the earliest of equals; calls whose
    text was not recorded do not vote, and where none was, the last call answers.
    """
    answered = [item for item in observed if item.error is None]
    if not answered:
        return None, None
    if how == "first":
        chosen = answered[0]
    elif how == "vote":
        chosen = _majority(answered)
    else:
        chosen = answered[-1]
    return chosen.answer, chosen.call


def _majority(answered: Sequence[Observed]) -> Observed:
    votes = Counter(_normal(item.answer) for item in answered if item.answer is not None)
    if not votes:
        return answered[-1]
    winner = max(votes.values())
    return next(i for i in answered if i.answer is not None and votes[_normal(i.answer)] == winner)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
