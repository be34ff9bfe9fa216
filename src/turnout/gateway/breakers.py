"""This module keeps a breaker for every upstream place: a provider, and the name of a model there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from turnout.core.clock import Clock
from turnout.core.errors import sentence
from turnout.gateway.breaker import Breaker
from turnout.gateway.config import BreakerSettings
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Fault, Place

Key = tuple[str, str]
"""Name of the provider, and the upstream's name of the model."""


@final
class Pass:
    """A call's leave to go to a place; its verdict is given once, whatever is said after that."""

    __slots__ = ("_breaker", "_call", "_clock", "_is_over")

    def __init__(self, breaker: Breaker, call: int, clock: Clock) -> None:
        self._breaker = breaker
        self._call = call
        self._clock = clock
        self._is_over = False

    def answered(self) -> None:
        """Note the first byte."""
        self._breaker.answered(self._call)

    def succeeded(self) -> None:
        """Note the end of a good answer."""
        if self._ends():
            self._breaker.succeeded(self._call, self._clock.now_s())

    def failed(self, fault: Fault | None = None) -> None:
        """Note a fault; None stands for a cut in the middle of a stream."""
        if not self._ends():
            return
        now_s = self._clock.now_s()
        if fault is not None and fault.is_limit:
            self._breaker.limited(self._call, now_s, fault.retry_after_s)
        elif fault is None or fault.is_failure:
            self._breaker.failed(self._call, now_s)
        else:
            self._breaker.succeeded(self._call, now_s)

    def abandoned(self) -> None:
        """Note that nobody waits for the answer any more."""
        if self._ends():
            self._breaker.abandoned(self._call)

    def _ends(self) -> bool:
        is_first, self._is_over = not self._is_over, True
        return is_first


@final
class Breakers:
    """The breakers of a gateway; as many as its candidates have places, so they are bounded.

    Parameters
    ----------
    settings:
        For all of them.
    clock:
        What time it is.
    places:
        Who is guarded.
    """

    def __init__(self, *, settings: BreakerSettings, clock: Clock, places: Iterable[Place]) -> None:
        self.settings = settings
        self.clock = clock
        self.by_place = {key_of(place): Breaker(settings=settings) for place in places}

    def enter(self, place: Place) -> Pass | None:
        """Return leave to call, or None while the breaker is open."""
        breaker = self.by_place[key_of(place)]
        call = breaker.enter(self.clock.now_s())
        return None if call is None else Pass(breaker, call, self.clock)

    def refusal(self, places: Iterable[Place]) -> ApiError:
        """503 for a request all of whose candidates are behind open breakers; says when to ask again."""
        now_s = self.clock.now_s()
        wait_s = min(self.by_place[key_of(place)].wait_s(now_s) for place in places)
        message = sentence(
            "every candidate for this request failed lately and rests",
            allowed="a request once the breakers let a probe pass",
            got=f"{wait_s:.1f} s to wait",
            do="ask again after that, or see GET /admin/breakers",
        )
        headers = [(b"retry-after", b"%d" % max(1, round(wait_s + 0.5)))]
        return ApiError(503, message, code="breaker_open", kind="upstream_error", headers=headers)

    def listed(self) -> list[dict[str, object]]:
        """Return every breaker's state, for people and for metrics."""
        now_s = self.clock.now_s()
        return [
            {
                "provider": provider,
                "model": model,
                "state": breaker.state(now_s),
                "wait_s": round(breaker.wait_s(now_s), 3),
            }
            for (provider, model), breaker in self.by_place.items()
        ]

    def carry_over(self, before: Breakers) -> None:
        """Take over the breakers of places that were guarded before by the same rules."""
        if before.settings == self.settings:
            self.by_place.update(
                {key: before.by_place[key] for key in self.by_place if key in before.by_place}
            )


def key_of(place: Place) -> Key:
    """Return the name of a place."""
    provider, model = place
    return provider.name, model
