"""This module accounts for one request: a decision row when it is decided, one result row when it ends."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import msgspec

from turnout.core.candidate import Candidate
from turnout.core.clock import Clock
from turnout.core.estimate import Estimate
from turnout.gateway.key import Key
from turnout.gateway.ledger import Ledger
from turnout.gateway.schema import DecisionRow, ResultRow
from turnout.gateway.select import Selection
from turnout.gateway.stream import Scanner, UsageCount
from turnout.gateway.wire import CHARS_PER_TOKEN, ChatRequest

CLIENT_LEFT = 499
"""Status of a request whose client closed the connection before the end."""


# Seeded by the system, then no system call per request.
_chance = random.Random()


def new_decision_id(now_s: float) -> str:
    """Return an id that sorts by time: 12 hex digits of milliseconds, then 16 of chance."""
    return f"{int(now_s * 1000):012x}{_chance.getrandbits(64):016x}"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a sequencer's calls and thoughts came to together; one request, one row."""

    name: str
    """The model name that the client asked for."""
    input_tokens: int | None
    output_tokens: int | None
    usd: float | None
    is_estimated: bool
    """Whether some token counts are no provider's own report."""


@final
class Account:
    """What is known of one request so far.

    Parameters
    ----------
    ledger, clock:
        Where rows go, and what time it is.
    keep_text:
        Whether the routed text is stored.
    """

    def __init__(self, *, ledger: Ledger, clock: Clock, keep_text: bool) -> None:
        self.ledger = ledger
        self.keep_text = keep_text
        self.time_s = clock.now_s()
        self.decision_id = new_decision_id(self.time_s)
        self.key: Key | None = None
        self.request: ChatRequest | None = None
        self.selection: Selection | None = None
        self.served: Candidate | None = None
        self.provider: str | None = None
        self.is_replay = False
        self.attempts = 0
        self.num_unseen = 0
        """Calls that were given up for another's answer: what they cost is not known."""
        self.faults: list[str] = []
        self.usage: UsageCount | None = None
        self.output_estimate: int | None = None
        self.spent: Spent | None = None
        self.unknown_usd = 0.0
        """The most that charges of a sequencer which nobody reported may have come to."""
        self.status: int | None = None
        """How the request ended; None before that."""
        self.error: str | None = None
        self.latency_s = 0.0
        self.served_name: str | None = None
        self.usd: float | None = None
        """What it cost, once it has ended and where that is known."""
        self.counted_tokens: tuple[int | None, int | None] = None, None
        """Input and output tokens, once it has ended."""
        self.first_byte_s: float | None = None
        self.on_end: Callable[[Account], None] | None = None
        """Told once, when the request has ended."""
        self.rule: str | None = None
        """Names of the rules that hold."""
        self.branch: str | None = None
        """Whose deployment decides, where two are tried: the one in force or the canary."""
        self.unit: str | None = None
        """Names what stays on one side of the two."""
        self.added_headers: tuple[tuple[bytes, bytes], ...] = ()
        """What they add to the answer."""
        self.is_sending = False
        self._started_s = time.perf_counter()
        self._is_decided = False
        self._is_ended = False

    @property
    def is_estimated(self) -> bool:
        """Whether the token counts are no provider's own report of this call."""
        if self.spent is not None:
            return self.is_replay or self.spent.is_estimated
        if self.num_unseen:
            return True
        return self.is_replay or self.usage is None or self.usage.completion_tokens is None

    @property
    def tenant(self) -> str:
        """Whose request it is; empty where nobody needs a key."""
        return "" if self.key is None else self.key.tenant

    def elapsed_s(self) -> float:
        """Return the seconds since the request came in."""
        return time.perf_counter() - self._started_s

    def decide(self, selection: Selection | None, **described: Any) -> None:
        """Write the decision; None stands for a request that was refused before there was one.

        `described` holds columns of the row where a sequencer decides.
        """
        self._is_decided = True
        self.selection = selection
        request = self.request
        self.ledger.add(
            DecisionRow(
                decision_id=self.decision_id,
                session_id=self.ledger.session_id,
                time_s=self.time_s,
                requested_model=None if request is None else request.model,
                is_stream=request is not None and request.is_stream,
                text=request.text if request is not None and self.keep_text else None,
                key=None if self.key is None else self.key.name,
                tenant=None if self.key is None else self.key.tenant,
                rule=self.rule,
                branch=self.branch,
                unit=self.unit,
                **(described if selection is None else _described(selection)),
            )
        )

    def read_stream(self, scanner: Scanner) -> None:
        """Take over what a stream said of its usage, or estimate it by its events."""
        self.usage = scanner.usage
        # The first event brings the role, the last is [DONE]; each in between is about one token.
        self.output_estimate = max(0, scanner.num_events - 2)

    def end(self, status: int, error: str | None = None) -> None:
        """Write the result; only the first call counts."""
        if self._is_ended:
            return
        self._is_ended = True
        if not self._is_decided:
            self.decide(None)
        input_tokens, output_tokens, cached_tokens = self._tokens()
        usd = self._usd(input_tokens, output_tokens, cached_tokens)
        self.status, self.error, self.latency_s = status, error, self.elapsed_s()
        self.usd, self.counted_tokens = usd, (input_tokens, output_tokens)
        self.served_name = served = self._served()
        if usd is not None and self.selection is not None and self.selection.pacer is not None:
            self.selection.pacer.observe(usd)
        if self.on_end is not None:
            self.on_end(self)
        self.ledger.add(
            ResultRow(
                decision_id=self.decision_id,
                end_s=self.time_s + self.latency_s,
                served=served,
                provider=self.provider,
                is_replay=self.is_replay,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cached_tokens=cached_tokens,
                usage_estimated=served is not None and self.is_estimated,
                usd=usd,
                status=status,
                error=error,
                attempts=self.attempts,
                faults="; ".join(self.faults) or None,
                latency_s=self.latency_s,
                first_byte_s=self.first_byte_s,
            )
        )

    def _served(self) -> str | None:
        if self.spent is not None:
            return self.spent.name
        return None if self.served is None else self.served.name

    def _tokens(self) -> tuple[int | None, int | None, int | None]:
        """Return input, output and cached tokens; the provider's counts, else estimates, else None."""
        if self.spent is not None:
            return self.spent.input_tokens, self.spent.output_tokens, None
        if self.served is None or self.request is None:
            return None, None, None
        usage = UsageCount() if self.usage is None else self.usage
        tokens_in, tokens_out = usage.prompt_tokens, usage.completion_tokens
        if tokens_in is None:
            tokens_in = self.request.input_tokens
        return tokens_in, self.output_estimate if tokens_out is None else tokens_out, usage.cached_tokens

    def _usd(self, tokens_in: int | None, tokens_out: int | None, cached: int | None) -> float | None:
        if self.spent is not None:
            return self.spent.usd
        card = None if self.served is None else self.served.price_card
        if card is None or tokens_in is None or tokens_out is None:
            return None
        return card.usd(input_tokens=tokens_in, output_tokens=tokens_out, cached_tokens=cached or 0)


def estimate_tokens(text: str) -> int:
    """Return the estimate for an answer whose usage was not reported."""
    return -(-len(text) // CHARS_PER_TOKEN)


def _described(selection: Selection) -> dict[str, Any]:
    return {
        "chosen": selection.ranked[0].name,
        "reason": selection.reason,
        "propensity": selection.propensity,
        "price": known(selection.price),
        "goal": selection.goal,
        "fingerprint": selection.fingerprint,
        "expected_quality": known(selection.expected_quality),
        "expected_cost_usd": known(selection.expected_cost_usd),
        "decision_s": selection.decision_s,
        "own": None if selection.own is None else selection.own.name,
        "scores": scores_of(selection.estimate, selection.row),
    }


def scores_of(estimate: Estimate | None, row: int) -> str | None:
    """Return what every candidate that might have served was expected to give and to cost."""
    if estimate is None:
        return None
    rows = zip(
        estimate.names,
        estimate.quality_QM[row].tolist(),
        estimate.cost_usd_QM[row].tolist(),
        estimate.allowed_QM[row].tolist(),
        strict=True,
    )
    # The encoder writes NaN, which is what unknown is, as null.
    return msgspec.json.encode({name: (quality, usd) for name, quality, usd, may in rows if may}).decode()


def known(value: float) -> float | None:
    """Return a number, or None for NaN, which stands for unknown."""
    return None if math.isnan(value) else value
