"""This module is one circuit breaker: pure, and told what time it is.

Closed lets calls pass and counts how they end. It opens after so many failures in a row, or where a share of
the calls of a window failed. Open lets nothing pass until its time is up; then it is half open, and lets one
call pass, the probe: the probe's answer closes it, its failure opens it again for twice as long. A rate limit
is no failure: it opens the breaker for as long as the upstream asks, and a probe follows too.
"""

from __future__ import annotations

from typing import Literal, final

from turnout.gateway.config import BreakerSettings

State = Literal["closed", "open", "half_open"]

STATES: tuple[State, ...] = ("closed", "half_open", "open")
"""Every state, from the best to the worst."""


@final
class Breaker:
    """Guards one upstream place.

    Parameters
    ----------
    settings:
        When it opens, and for how long.
    """

    __slots__ = (
        "_failed",
        "_half_began_s",
        "_in_a_row",
        "_num_opened",
        "_old",
        "_open_until_s",
        "_passed",
        "_probe",
        "_serial",
        "settings",
    )

    def __init__(self, *, settings: BreakerSettings) -> None:
        self.settings = settings
        self._in_a_row = 0
        self._num_opened = 0
        self._open_until_s: float | None = None
        self._probe: int | None = None
        self._serial = 0
        # Counts of calls of this half of the window, and of the half before.
        self._half_began_s = 0.0
        self._passed = self._failed = 0
        self._old = (0, 0)

    def state(self, now_s: float) -> State:
        """Return the state."""
        if self._open_until_s is None:
            return "closed"
        return "open" if now_s < self._open_until_s else "half_open"

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until a call may pass; 0 where one may pass now."""
        return 0.0 if self._open_until_s is None else max(0.0, self._open_until_s - now_s)

    def enter(self, now_s: float) -> int | None:
        """Let a call pass and return its number, or None; every number is given back exactly once."""
        if self._open_until_s is not None and (now_s < self._open_until_s or self._probe is not None):
            return None
        self._serial += 1
        if self._open_until_s is not None:
            self._probe = self._serial
        return self._serial

    def answered(self, call: int) -> None:
        """Note the first byte of an answer: it is all that a probe has to show."""
        if call == self._probe:
            self._close()

    def succeeded(self, call: int, now_s: float) -> None:
        """Note an answer that came to its end."""
        self.answered(call)
        if self._open_until_s is None:
            self._in_a_row = 0
            self._count(now_s, is_failure=False)

    def failed(self, call: int, now_s: float) -> None:
        """Note a failure; one of a call that began before the breaker opened changes nothing."""
        if call == self._probe:
            self._open(now_s)
        elif self._open_until_s is None:
            self._in_a_row += 1
            self._count(now_s, is_failure=True)
            if self._in_a_row >= self.settings.failures or self._is_bad_share():
                self._open(now_s)

    def limited(self, call: int, now_s: float, retry_after_s: float | None) -> None:
        """Note a rate limit; None stands for an upstream that did not say how long to wait."""
        wait_s = self.settings.cooldown_s if retry_after_s is None else retry_after_s
        until_s = now_s + min(wait_s, self.settings.max_cooldown_s)
        if call == self._probe:
            self._probe = None
        self.hold(until_s)

    def abandoned(self, call: int) -> None:
        """Note a call that was given up without a verdict, as when its client left."""
        if call == self._probe:
            self._probe = None

    def hold(self, until_s: float) -> None:
        """Let nothing pass until a time; one that is held longer already stays so."""
        if self._open_until_s is None or until_s > self._open_until_s:
            self._open_until_s = until_s

    @property
    def open_until_s(self) -> float | None:
        """When the next probe may pass; None while closed."""
        return self._open_until_s

    def _open(self, now_s: float) -> None:
        seconds = min(self.settings.open_s * 2**self._num_opened, self.settings.max_open_s)
        self._num_opened = min(self._num_opened + 1, 30)
        self._open_until_s = now_s + seconds
        self._probe = None
        self._reset()

    def _close(self) -> None:
        self._open_until_s = self._probe = None
        self._num_opened = 0
        self._reset()

    def _reset(self) -> None:
        self._in_a_row = self._passed = self._failed = 0
        self._old = (0, 0)

    def _count(self, now_s: float, *, is_failure: bool) -> None:
        half_s = self.settings.window_s / 2
        age_s = now_s - self._half_began_s
        if age_s >= half_s:
            self._old = (self._passed, self._failed) if age_s < 2 * half_s else (0, 0)
            self._half_began_s, self._passed, self._failed = now_s, 0, 0
        self._failed += is_failure
        self._passed += not is_failure

    def _is_bad_share(self) -> bool:
        failed = self._failed + self._old[1]
        calls = failed + self._passed + self._old[0]
        return calls >= self.settings.min_calls and failed >= self.settings.failure_share * calls
