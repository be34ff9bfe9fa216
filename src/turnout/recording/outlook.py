"""This module looks ahead: what a run would ask, the most that may cost, and which prompt cannot be asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from turnout.core.errors import InputError
from turnout.gateway.errors import ApiError
from turnout.recording.asking import Asking, most_usd
from turnout.recording.journal import NAME, Journal
from turnout.recording.pool import Member
from turnout.recording.prompts import Prompt


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a run would ask, before it does."""

    calls: int
    """Calls of candidates."""
    most_usd: float | None
    """The most that they may cost, without a judge; None where a price is unknown."""
    answered: int
    """Cells whose answer is recorded already."""
    spent_usd: float
    """What earlier runs into the folder spent, at most."""


def foresee(
    prompts: Sequence[Prompt],
    members: Sequence[Member],
    *,
    folder: Path,
    asking: Asking | None = None,
    samples: int = 1,
) -> Outlook:
    """Say what `run` would ask and what that may cost at most; asks nobody and writes nothing."""
    asking = asking or Asking()
    check_prompts(prompts, asking)
    state = Journal(folder / NAME).look()
    most: list[float | None] = []
    for prompt in prompts:
        request = asking.request(prompt.messages)
        for member in members:
            each = most_usd(member, request, asking)
            for sample in range(samples):
                line = state.answers.get((prompt.id, member.name, sample))
                if line is None or not line.is_final:
                    most.append(each)
    known = [usd for usd in most if usd is not None]
    return Outlook(
        calls=len(most),
        most_usd=math.fsum(known) if len(known) == len(most) else None,
        answered=len(prompts) * len(members) * samples - len(most),
        spent_usd=state.spent_usd,
    )


def check_prompts(prompts: Sequence[Prompt], asking: Asking) -> None:
    """Raise `InputError` that names a prompt which is no chat request."""
    for prompt in prompts:
        try:
            asking.request(prompt.messages)
        except ApiError as error:
            raise InputError(f"the prompt {prompt.id!r} cannot be asked; {error.message}") from error
