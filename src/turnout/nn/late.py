"""This module looks at numbers of a GPU once they have arrived, so that nobody waits for them.

Whoever asks a GPU whether a number is NaN waits until all that was launched before is done, and the GPU then
waits for the next launch: once a gate, that is a share of a layer. So on CUDA the answer is copied beside the
work, and what is wrong is refused by the next gate of the thread, or by `refuse_arrived(wait=True)`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from turnout.core.errors import TurnoutError


def is_late(device: torch.device) -> bool:
    """Whether what a device says is looked at later."""
    return device.type == "cuda"


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What a device was asked: numbers on their way to a processor, and an error for each that is none."""

    values_N: Tensor
    errors: tuple[Callable[[], TurnoutError], ...]
    arrival: Any
    """A `torch.cuda.Event`, None where there is nothing to wait for."""

    def has_arrived(self) -> bool:
        return self.arrival is None or bool(self.arrival.query())


class _Waiting(threading.local):
    """What a thread has asked, the oldest first: nobody is refused for what another thread did."""

    def __init__(self) -> None:
        self.answers: deque[_Answer] = deque()
        self.signs: dict[Callable[[], TurnoutError], Tensor] = {}


_waiting = _Waiting()


def refuse_later(asked: dict[Callable[[], TurnoutError], Tensor]) -> None:
    """Ask whether a scalar is a number; for NaN and infinity its error is raised once that is looked at.

    While a CUDA graph is captured nothing is asked, since nobody could look at what a replay answers.
    """
    if not asked:
        return
    values_N = torch.stack([value.float() for value in asked.values()])
    arrival: Any = None
    if values_N.device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            return
        # Into pinned memory: a copy into any other would be waited for.
        values_N = values_N.to("cpu", non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrival.record()
    _waiting.answers.append(_Answer(values_N=values_N, errors=tuple(asked), arrival=arrival))


def sign(error: Callable[[], TurnoutError], device: torch.device) -> Tensor:
    """Return where a kernel writes anything but 0 for an error to be raised: (1,), int32, for this thread.

    It lies in memory of the processor that the device can write to, so that a pass without the error asks
    nothing and copies nothing. `error` is compared, so that it must be the same function each time.
    """
    found = _waiting.signs.get(error)
    if found is None:
        found = torch.zeros(1, dtype=torch.int32, pin_memory=device.type == "cuda")
        _waiting.signs[error] = found
    return found


def infinite_if(flag: Tensor) -> Tensor:
    """Return what `refuse_later` asks of a flag: infinity where it is set."""
    return torch.where(flag, torch.inf, 0.0)


def largest(value_N: Tensor) -> Tensor:
    """Return the largest size of some numbers, a scalar, which tells of NaN and infinity; one launch."""
    size: Tensor = torch.linalg.vector_norm(value_N, torch.inf)
    return size


def refuse_arrived(*, wait: bool = False) -> None:
    """Raise the first error of what this thread's gates asked a GPU, as far as the answers are there.

    `wait` waits for all of them: call it after the last pass, where no gate runs any more. What is raised is
    forgotten, and so is all that was asked after it.
    """
    answers = _waiting.answers
    if wait and any(place.is_pinned() for place in _waiting.signs.values()):
        torch.cuda.synchronize()
    for error, place in _waiting.signs.items():
        if int(place):
            place.zero_()
            answers.clear()
            raise error()
    while answers:
        first = answers[0]
        if wait and first.arrival is not None:
            first.arrival.synchronize()
        if not first.has_arrived():
            return
        answers.popleft()
        for value, error in zip(first.values_N.tolist(), first.errors, strict=True):
            if not math.isfinite(value):
                answers.clear()
                raise error()
