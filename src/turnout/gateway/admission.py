"""This module is the step that asks who a client is, what it may ask for, and what it has left.

In the order of a request: its key is recognised before its body is read; the model's name and the rates are
checked before anything is decided; the budget is reserved once it is known who would answer; what is left
over is given back when the request has ended, whichever way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import msgspec

from turnout.core.candidate import Candidate
from turnout.core.clock import Clock
from turnout.core.errors import sentence
from turnout.gateway.account import Account
from turnout.gateway.afford import most_output_tokens, most_usd
from turnout.gateway.books import Books
from turnout.gateway.errors import ApiError
from turnout.gateway.key import Key, period_of
from turnout.gateway.keyring import Keyring
from turnout.gateway.limits import Rate, Spend, TooFast, largest
from turnout.gateway.select import Selection
from turnout.gateway.settings_keys import AuthSettings
from turnout.gateway.wire import ChatRequest


@final
@dataclass(kw_only=True, slots=True)
class Hold:
    """What a running request has reserved."""

    key: Key
    tokens: Rate | None = None
    period: str | None = None
    usd: float = 0.0


@final
class Admission:
    """Lets requests in by their keys.

    Parameters
    ----------
    keyring:
        Who is known.
    books:
        Where keys are kept, and spend and rates counted.
    settings:
        How many tokens to reserve where nobody sets a limit.
    clock:
        What time it is.
    """

    def __init__(self, *, keyring: Keyring, books: Books, settings: AuthSettings, clock: Clock) -> None:
        self.keyring = keyring
        self.books = books
        self.limits = books.limits
        self.settings = settings
        self.clock = clock

    async def recognise(self, headers: Sequence[tuple[bytes, bytes]]) -> Key:
        """Return the key of a request; raises `ApiError` (401)."""
        return await self.keyring.recognise(headers)

    async def enter(self, key: Key, request: ChatRequest) -> Hold:
        """Check the model and take from the rates; raises `ApiError` (403, 429)."""
        check_model(key, request.model)
        hold = Hold(key=key)
        if not key.is_rated:
            return hold
        rates = []
        if key.requests_per_min is not None:
            rates.append(Rate(kind="requests", per_min=key.requests_per_min, amount=1.0))
        if key.tokens_per_min is not None:
            tokens = request.input_tokens + most_output_tokens(request, None, 0)
            hold.tokens = Rate(kind="tokens", per_min=key.tokens_per_min, amount=float(tokens))
            rates.append(hold.tokens)
        refused = await self.limits.take(key.name, rates)
        if refused is not None:
            raise _too_fast(key, refused)
        return hold

    async def afford(
        self, hold: Hold, request: ChatRequest, selection: Selection, *, num_asked: int, num_at_once: int
    ) -> tuple[Selection, list[str]]:
        """Reserve the dearest answer that the budget allows; return who may give one, and who is too dear.

        Of the ranked list, the first `num_asked` are asked, `num_at_once` of them at a time.
        Raises `ApiError` (429 `insufficient_quota` or `budget_held`, 403 where nobody's price is known).
        """
        key = hold.key
        if key.budget_usd is None:
            return selection, []
        otherwise = self.settings.reserve_output_tokens
        most = [
            (candidate, usd * num_at_once)
            for candidate in selection.ranked[:num_asked]
            if (usd := most_usd(request, candidate, otherwise)) is not None
        ]
        if not most:
            raise _unpriced(key, selection.ranked[0])
        held = await self._reserve(hold, [usd for _, usd in most])
        ranked = tuple(candidate for candidate, usd in most if usd <= held)
        dropped = [one.name for one in selection.ranked[:num_asked] if one not in ranked]
        return msgspec.structs.replace(selection, ranked=ranked), dropped

    async def afford_sequence(
        self, hold: Hold, bound_usd: float | None, *, most_usd: float | None
    ) -> float | None:
        """Reserve what a sequencer may spend; return it as its bound. Raises `ApiError` (429).

        Without a bound of its own, a sequencer holds what its steps may cost at most (`most_usd`), and where
        that is more than what is left, or is not known, all that is left.
        """
        if hold.key.budget_usd is None:
            return bound_usd
        wanted_usd = most_usd if bound_usd is None else bound_usd
        if wanted_usd is not None:
            try:
                return await self._reserve(hold, [wanted_usd])
            except ApiError as error:
                if error.status != 429:
                    raise
                # The rest of the budget is a smaller bound, and better than none.
        return await self._reserve(hold, [math.inf])

    def leave(self, hold: Hold, account: Account) -> None:
        """Account for what the request took, and give the rest back; never waits."""
        if hold.tokens is not None:
            used = sum(count or 0 for count in account.counted_tokens)
            rest = hold.tokens.amount - used
            self.limits.give_back(hold.key.name, replace(hold.tokens, amount=rest))
        if hold.period is None:
            return
        usd = account.usd if account.usd is not None else account.unknown_usd
        self.limits.settle(hold.key.name, hold.period, held_usd=hold.usd, usd=usd)

    async def close(self) -> None:
        """Close what keys are kept in, and spend and rates counted."""
        await self.books.close()

    async def _reserve(self, hold: Hold, wanted_usd: list[float]) -> float:
        key = hold.key
        if key.budget_usd is None:
            raise RuntimeError("only a key with a budget reserves")
        period, rest_s = period_of(key.budget_period, self.clock.now_s())
        usd, before = await self.limits.reserve(
            key.name, period, budget_usd=key.budget_usd, wanted_usd=wanted_usd
        )
        if usd is None:
            raise _no_money(key, before, min(wanted_usd), rest_s)
        hold.period, hold.usd = period, usd
        return usd


def check_model(key: Key, model: str) -> None:
    """Raise `ApiError` (403) where the key may not ask for the model."""
    if key.models is not None and model not in key.models:
        raise _not_allowed(key, model)


def _not_allowed(key: Key, model: str) -> ApiError:
    message = sentence(
        f"the key {key.name!r} may not ask for the model {model[:200]!r}",
        allowed=", ".join(sorted(key.models or ())) or "no model",
        do="name one of them, or have the key's 'models' widened",
    )
    return ApiError(403, message, code="model_not_allowed", param="model")


def _too_fast(key: Key, refused: TooFast) -> ApiError:
    message = sentence(
        f"the key {key.name!r} has reached its rate of {refused.kind}",
        allowed=f"{refused.per_min} {refused.kind} in a minute",
        got=f"{refused.left:.0f} left; {refused.wait_s:.2f} s to wait",
        do="ask again after that",
    )
    kind = refused.kind.encode()
    headers = [
        (b"retry-after", b"%d" % math.ceil(refused.wait_s)),
        (b"retry-after-ms", b"%d" % math.ceil(refused.wait_s * 1000)),
        (b"x-ratelimit-limit-" + kind, b"%d" % refused.per_min),
        (b"x-ratelimit-remaining-" + kind, b"%d" % refused.left),
        (b"x-ratelimit-reset-" + kind, b"%.3fs" % refused.wait_s),
    ]
    return ApiError(429, message, code="rate_limit_exceeded", kind="rate_limit_error", headers=headers)


def _no_money(key: Key, spend: Spend, least_usd: float, rest_s: float) -> ApiError:
    budget_usd = key.budget_usd or 0.0
    left_usd = budget_usd - spend.spent_usd
    # All that is left, where that is asked for, is something.
    is_held = left_usd > 0 if math.isinf(least_usd) else largest([least_usd], left_usd) is not None
    message = sentence(
        f"the budget of the key {key.name!r} does not pay this request"
        + (" while others run" if is_held else ""),
        allowed=f"{budget_usd:g} usd in a {key.budget_period}"
        if key.budget_period != "total"
        else f"{budget_usd:g} usd in total",
        got=f"{max(0.0, left_usd - spend.held_usd):.6g} usd left, {spend.held_usd:.6g} usd held by running "
        "requests" + ("" if math.isinf(least_usd) else f", {least_usd:.6g} usd needed at least"),
        do="wait for the running ones, or set a smaller limit of output tokens"
        if is_held
        else "set a smaller limit of output tokens, or have the budget raised",
    )
    if is_held:
        # What running requests do not spend comes back when they end: a client may well try again.
        wait = [(b"retry-after", b"1")]
        return ApiError(429, message, code="budget_held", kind="rate_limit_error", headers=wait)
    # A client that tries again on its own would only be refused again.
    headers = [(b"x-should-retry", b"false")]
    if math.isfinite(rest_s):
        headers.append((b"retry-after", b"%d" % math.ceil(rest_s)))
    return ApiError(429, message, code="insufficient_quota", kind="insufficient_quota", headers=headers)


def _unpriced(key: Key, candidate: Candidate) -> ApiError:
    message = sentence(
        f"the key {key.name!r} has a budget, and nobody knows what {candidate.name!r} charges",
        allowed="candidates with a price card",
        do="name another model, or state its prices (models.NAME.input_usd_per_mtok, or prices.path)",
    )
    return ApiError(403, message, code="price_unknown", param="model")
