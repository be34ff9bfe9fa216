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
from turnout.gateway.cache_prices import says_writes, with_reads, with_writes
from turnout.gateway.key import Key
from turnout.gateway.ledger import Ledger
from turnout.gateway.schema import DecisionRow, ResultRow
from turnout.gateway.select import Selection
from turnout.gateway.stream import Scanner, UsageCount
from turnout.gateway.wire import ChatRequest, estimate_tokens

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

    # What nearly every request has stands here, and is not set anew for each.
    key: Key | None = None
    request: ChatRequest | None = None
    selection: Selection | None = None
    served: Candidate | None = None
    provider: str | None = None
    is_replay = False
    attempts = 0
    unseen: tuple[Candidate, ...] = ()
    """Who was asked, and may charge without an answer: each is charged for the prompt, by its estimate."""
    usage: UsageCount | None = None
    """What the provider reported; the least that it was, where `output_estimate` stands beside it."""
    output_estimate: int | None = None
    """Output tokens by what was said, where the provider did not report them or only the first of them."""
    are_writes_listed = False
    """Whether whoever served charges for writes to its prompt cache as Anthropic's price list says."""
    are_reads_listed = False
    """Whether it does so for what it reads from there."""
    spent: Spent | None = None
    unknown_usd = 0.0
    """The most that charges of a sequencer which nobody reported may have come to."""
    status: int | None = None
    """How the request ended; None before that."""
    error: str | None = None
    latency_s = 0.0
    served_name: str | None = None
    usd: float | None = None
    """What it cost, once it has ended and where that is known."""
    counted_tokens: tuple[int | None, int | None] = None, None
    """Input and output tokens, once it has ended."""
    first_byte_s: float | None = None
    on_end: Callable[[Account], None] | None = None
    """Told once, when the request has ended."""
    rule: str | None = None
    """Names of the rules that hold."""
    branch: str | None = None
    """Whose deployment decides, where two are tried: the one in force or the canary."""
    unit: str | None = None
    """Names what stays on one side of the two."""
    added_headers: tuple[tuple[bytes, bytes], ...] = ()
    """What they add to the answer."""
    is_sending = False
    _is_decided = False
    _is_ended = False

    def __init__(self, *, ledger: Ledger, clock: Clock, keep_text: bool) -> None:
        self.ledger = ledger
        self.keep_text = keep_text
        self.time_s = clock.now_s()
        self.decision_id = new_decision_id(self.time_s)
        self.faults: list[str] = []
        self._started_s = time.perf_counter()

    @property
    def is_estimated(self) -> bool:
        """Whether the token counts are no provider's own report of this call."""
        if self.spent is not None:
            return self.is_replay or self.spent.is_estimated or self.unknown_usd > 0
        if self.unseen:
            return True
        if self.is_replay or self.usage is None or self.usage.completion_tokens is None:
            return True
        if self.usage.has_audio or (not self.are_writes_listed and self._are_writes_guessed()):
            return True
        is_unread = (
            not self.usage.prompt_tokens and self.request is not None and self.request.input_tokens > 0
        )
        return is_unread or self.output_estimate is not None

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
        columns = described if selection is None else _described(selection)
        columns["decision_id"] = self.decision_id
        columns["session_id"] = self.ledger.session.id
        columns["time_s"] = self.time_s
        columns["requested_model"] = None if request is None else request.model
        columns["is_stream"] = request is not None and request.is_stream
        if self.key is not None:
            columns["key"], columns["tenant"] = self.key.name, self.key.tenant
        if request is not None and self.keep_text:
            columns["text"], columns["task"] = request.text, request.told.task
            if request.told.tags:
                columns["tags"] = msgspec.json.encode(request.told.tags).decode()
        if self.rule is not None:
            columns["rule"] = self.rule
        if self.unit is not None:
            columns["branch"], columns["unit"] = self.branch, self.unit
        self.ledger.add(DecisionRow(**columns))

    def read_stream(self, scanner: Scanner, reported: UsageCount | None = None) -> None:
        """Take over what a stream said of its usage; where that was not the last word, estimate by its text.

        `reported` is what the upstream had said where the client's own stream says it at its end only.
        """
        if self.status is not None:
            return  # the row is written
        self.usage = usage = scanner.usage
        if usage is not None and scanner.is_usage_last and usage.completion_tokens:
            return
        tokens = estimate_tokens(scanner.said_chars())
        if usage is None or not scanner.is_usage_last or usage.completion_tokens is None or tokens:
            self.output_estimate = tokens
            self.usage = _larger(usage, reported)

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
                usage_estimated=(served is not None or usd is not None) and self.is_estimated,
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
        tokens_out = usage.completion_tokens
        if tokens_out is None or (self.output_estimate or 0) > tokens_out:
            tokens_out = self.output_estimate
        # No prompt is read in no tokens: a zero is a report that is still to come, or that never will.
        return usage.prompt_tokens or self.request.prompt_tokens, tokens_out, usage.cached_tokens

    def _usd(self, tokens_in: int | None, tokens_out: int | None, cached: int | None) -> float | None:
        if self.spent is not None:
            return None if self.spent.usd is None else self.spent.usd + self.unknown_usd
        unseen_usd = self._unseen_usd()
        if self.served is None:
            return unseen_usd
        card = self.served.price_card
        if card is None or tokens_in is None or tokens_out is None:
            return None
        written, written_1h = (0, 0) if self.usage is None else self.usage.written_tokens
        if cached and self.are_reads_listed:
            card = with_reads(card)
        usd = (with_writes(card) if written else card).usd(
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cached_tokens=cached or 0,
            written_tokens=written,
            written_1h_tokens=written_1h,
        )
        return usd + (unseen_usd or 0.0)

    def _are_writes_guessed(self) -> bool:
        """Whether tokens were written to a prompt cache, and no price card says what that costs."""
        card = None if self.served is None else self.served.price_card
        written, written_1h = (0, 0) if self.usage is None else self.usage.written_tokens
        return bool(written and card is not None and not says_writes(card, has_1h=written_1h > 0))

    def _unseen_usd(self) -> float | None:
        """Return what the prompt cost those who gave no answer, None where nobody is known to charge."""
        if not self.unseen or self.request is None:
            return None
        cards = [candidate.price_card for candidate in self.unseen]
        tokens = self.request.prompt_tokens
        usd = [card.usd(input_tokens=tokens, output_tokens=0) for card in cards if card is not None]
        return sum(usd) if usd else None


def _larger(one: UsageCount | None, other: UsageCount | None) -> UsageCount | None:
    """Return whichever report has come further."""
    reports = [report for report in (one, other) if report is not None]
    return max(
        reports, key=lambda report: (report.completion_tokens or 0, report.prompt_tokens or 0), default=None
    )


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
        "scores": selection.scores,
    }


def known(value: float) -> float | None:
    """Return a number, or None for NaN, which stands for unknown."""
    return None if math.isnan(value) else value
