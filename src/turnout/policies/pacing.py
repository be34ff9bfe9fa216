"""This module keeps a spend cap online: the price of money follows what is really spent."""

from __future__ import annotations

import threading
from typing import final

from turnout.core.prices import dual_step
from turnout.core.scoring import LEAST_PRICE
from turnout.core.validation import check_number


@final
class Pacer:
    """Raise the price after dear answers and lower it after cheap ones, so that mean spend meets a cap.

    Calibration finds a price for the traffic of yesterday; this follows the traffic of today. After each
    answer the price takes one dual step, `price <- max(0, price + step * (usd - cap))`
    (`core.prices.dual_step`), with `step = rate * scale / cap`, so that an answer that costs twice the cap
    moves the price by `rate` times its scale, whatever the units. With the price bounded, the mean
    overspend after n answers is at most `(last price - first price) / (step n)`: it goes to 0. Safe to use
    from several threads.

    Parameters
    ----------
    usd_per_1k:
        The cap, in USD per 1,000 requests.
    price:
        The calibrated price, where it starts; in quality per USD.
    rate:
        Length of a step relative to the price's scale; larger follows faster and jitters more.
    scale:
        The price's own scale, in quality per USD; None means the starting price, or where that is 0 or
        infinite, one unit of quality for the cap.
    """

    def __init__(
        self, *, usd_per_1k: float, price: float, rate: float = 0.02, scale: float | None = None
    ) -> None:
        self.usd_per_1k = check_number("Pacer.usd_per_1k", usd_per_1k, low=0.0, allow_low=False)
        self.rate = check_number("Pacer.rate", rate, low=0.0, high=1.0, allow_low=False)
        cap_usd = self.usd_per_1k / 1000.0
        usable = LEAST_PRICE < price < float("inf")
        self.scale = (price if usable else 1.0 / cap_usd) if scale is None else scale
        check_number("Pacer.scale", self.scale, low=0.0, allow_low=False)
        self._price = check_number("Pacer.price", price, low=0.0) if price < float("inf") else self.scale
        self._lock = threading.Lock()

    @property
    def price(self) -> float:
        """The dual price of money that is now in force, in quality per USD."""
        return self._price

    def observe(self, usd: float) -> None:
        """Take one step for an answer that cost `usd`."""
        check_number("Pacer.observe: usd", usd, low=0.0)
        cap_usd = self.usd_per_1k / 1000.0
        step = self.rate * self.scale / cap_usd
        with self._lock:
            self._price = float(dual_step(self._price, usage=usd, target=cap_usd, step=step))
