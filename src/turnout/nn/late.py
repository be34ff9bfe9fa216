"""This module looks at numbers of a GPU once they have arrived, so that nobody waits for them.

Whoever asks a GPU whether a number is NaN waits until all that was launched before is done, and the GPU then
waits for the next launch: once a gate, that is a share of a layer. So on CUDA a kernel leaves a sign in
memory of the processor, or the answer is copied beside the work, and what is wrong is refused by the next
gate or question of the thread, or by `refuse_arrived(wait=True)`.
"""

from __future__ import annotations

import functools
import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from turnout.core.errors import TurnoutError
from turnout.nn.probe import Probe, is_captured
from turnout.nn.uncompiled import untraced

PLACES = 256
"""Signs of a board: they are looked at all at once."""

MOST = 256
"""So many answers wait at most; one more waits for them."""


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


class _Board:
    """Places for signs of one kind of device, in memory of the processor that the device writes to."""

    def __init__(self, *, is_pinned: bool) -> None:
        # A tensor of inference mode could not be written to outside of it.
        with torch.inference_mode(mode=False):
            self.places_N = torch.zeros(PLACES, dtype=torch.int32, pin_memory=is_pinned)
        self.seen_N = self.places_N.numpy()
        self.errors: list[Callable[[], TurnoutError]] = []
        self.is_pinned = is_pinned

    def has_room(self, *, is_pinned: bool) -> bool:
        return self.is_pinned == is_pinned and len(self.errors) < PLACES

    def take(self, error: Callable[[], TurnoutError]) -> Tensor:
        self.errors.append(error)
        return self.places_N[len(self.errors) - 1 : len(self.errors)]


class _Waiting(threading.local):
    """What a thread has asked, the oldest first: nobody is refused for what another thread did."""

    def __init__(self) -> None:
        self.answers: deque[_Answer] = deque()
        self.boards: list[_Board] = []
        self.signs: dict[tuple[Callable[[], TurnoutError], torch.device], Tensor] = {}

    def forget(self) -> None:
        self.answers.clear()
        for board in self.boards:
            board.seen_N[:] = 0


_waiting = _Waiting()


@untraced
def refuse_later(asked: dict[Callable[[], TurnoutError], Tensor]) -> None:
    """Ask whether a scalar is a number; for NaN and infinity its error is raised once that is looked at.

    First it looks at what has arrived, as `refuse_arrived` does, since plans are made where no gate runs too.
    While a CUDA graph is captured nothing is asked, since nobody could look at what a replay answers.
    """
    if not asked:
        return
    values_N = torch.stack([value.float() for value in asked.values()])
    arrival: Any = None
    if values_N.device.type == "cuda":
        if is_captured():
            return
        # Into pinned memory: a copy into any other would be waited for.
        device, values_N = values_N.device, values_N.to("cpu", non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        # The copy is in the stream of its own device, which need not be the current one.
        arrival.record(torch.cuda.current_stream(device))
    refuse_arrived(wait=len(_waiting.answers) >= MOST)
    _waiting.answers.append(_Answer(values_N=values_N, errors=tuple(asked), arrival=arrival))


@untraced
def sign(error: Callable[[], TurnoutError], device: torch.device) -> Tensor:
    """Return where a kernel writes anything but 0 for an error to be raised: (1,), int32, for this thread.

    It lies in memory of the processor that the device can write to, so that a pass without the error asks
    nothing and copies nothing. `error` is compared, so that it must be the same function each time (`same`).
    """
    found = _waiting.signs.get((error, device))
    if found is None:
        # Boards of one kind of memory are filled one after the other.
        is_pinned = device.type == "cuda"
        board = next((board for board in _waiting.boards if board.has_room(is_pinned=is_pinned)), None)
        if board is None and is_captured():
            # No new memory of the processor while a graph is captured: what is written here nobody reads.
            return torch.zeros(1, dtype=torch.int32, device=device)
        if board is None:
            board = _Board(is_pinned=is_pinned)
            _waiting.boards.append(board)
        found = _waiting.signs[error, device] = board.take(error)
    return found


@untraced
@functools.cache
def same(make: Callable[..., TurnoutError], *args: Hashable) -> Callable[[], TurnoutError]:
    """Return a function that makes an error of these arguments, the same one for the same arguments."""
    return functools.partial(make, *args)


def wrong_rows(
    error: Callable[[], TurnoutError], value_TX: Tensor, mask_T: Tensor | None = None, *, may_close: bool
) -> dict[Callable[[], TurnoutError], Tensor]:
    """Ask whether rows that are not masked are numbers; return what `refuse_later` is still to be asked.

    With `may_close` -inf is allowed beside a number. Where Triton works it is one launch and nothing is left
    to ask. `error` as in `sign`.
    """
    value_TX = value_TX.detach()
    if not value_TX.numel():
        return {}
    if value_TX.is_cuda and value_TX.dtype != torch.float64 and (look := _looking(value_TX.device)):
        look(value_TX.view(len(value_TX), -1), mask_T, sign(error, value_TX.device), may_close=may_close)
        return {}
    if may_close:
        value_TX = value_TX.amax(dim=-1)
    elif mask_T is not None:
        value_TX = value_TX.abs().amax(dim=-1)
    return {error: largest(value_TX if mask_T is None else value_TX.masked_fill(~mask_T, 0.0))}


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
    if _waiting.answers or _waiting.boards:
        _look(wait=wait)


@untraced
def _look(*, wait: bool) -> None:
    # While a graph is captured nobody may ask an event, or wait.
    answers, is_open = _waiting.answers, not is_captured()
    if wait and is_open:
        for device in {device for _, device in _waiting.signs if device.type == "cuda"}:
            torch.cuda.synchronize(device)
    for board in _waiting.boards:
        if board.seen_N.any():
            error = board.errors[int((board.seen_N != 0).argmax())]
            _waiting.forget()
            raise error()
    while answers and is_open:
        first = answers[0]
        if wait and first.arrival is not None:
            first.arrival.synchronize()
        if not first.has_arrived():
            return
        answers.popleft()
        for value, error in zip(first.values_N.tolist(), first.errors, strict=True):
            if not math.isfinite(value):
                _waiting.forget()
                raise error()


def _looks(device: torch.device) -> Callable[..., None] | None:
    """Return what looks by a kernel, where Triton is there and finds what is wrong."""
    from turnout.nn.late_kernel import look_for_wrong_rows

    value_TX = torch.zeros(3, 2, device=device)
    value_TX[1] = torch.inf
    found = torch.zeros(2, dtype=torch.int32, pin_memory=device.type == "cuda")
    for place, rows in ((found[:1], value_TX), (found[1:], value_TX[:1])):
        look_for_wrong_rows(rows, None, place, may_close=False)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return look_for_wrong_rows if found.tolist() == [1, 0] else None


_looking: Probe[Callable[..., None] | None] = Probe(_looks, otherwise=None)
