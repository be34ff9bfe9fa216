"""This module describes what one may call: a model at an effort, with a token budget and an adapter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_name, check_number

CAPABILITIES = frozenset({"audio", "json", "logprobs", "reasoning", "tools", "vision"})
"""The capability words that requests are matched against; others are allowed and compared by name."""

_ALWAYS_WRITTEN = ("input_usd_per_mtok", "output_usd_per_mtok", "cached_usd_per_mtok")
_WRITES = ("cache_write_usd_per_mtok", "cache_write_1h_usd_per_mtok")


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceCard:
    """What a model's tariff charges, in US dollars per million tokens."""

    input_usd_per_mtok: float
    """USD per million input tokens; 0 is allowed (a model of one's own)."""
    output_usd_per_mtok: float
    """USD per million output tokens."""
    cached_usd_per_mtok: float | None = None
    """USD per million input tokens read from the provider's prompt cache; None means as input."""
    cache_write_usd_per_mtok: float | None = None
    """USD per million input tokens written to that cache; None means unknown, and as input."""
    cache_write_1h_usd_per_mtok: float | None = None
    """USD per million input tokens written to be kept for an hour; None means as other writes."""

    def __post_init__(self) -> None:
        for name in (*_ALWAYS_WRITTEN, *_WRITES):
            value = getattr(self, name)
            if value is not None:
                check_number(f"PriceCard.{name}", value, low=0.0, high=math.inf, allow_high=False)

    def usd(
        self,
        *,
        input_tokens: float,
        output_tokens: float,
        cached_tokens: float = 0.0,
        written_tokens: float = 0.0,
        written_1h_tokens: float = 0.0,
    ) -> float:
        """Return the charge in USD.

        `cached_tokens` and `written_tokens` are part of `input_tokens`, `written_1h_tokens` of those written.
        """
        cached = self.input_usd_per_mtok if self.cached_usd_per_mtok is None else self.cached_usd_per_mtok
        fresh = input_tokens - cached_tokens
        total = fresh * self.input_usd_per_mtok + cached_tokens * cached
        if written_tokens:
            more, more_1h = self._writes_usd_per_mtok()
            short_tokens = written_tokens - written_1h_tokens
            total += short_tokens * more + written_1h_tokens * more_1h
        return (total + output_tokens * self.output_usd_per_mtok) / 1e6

    def _writes_usd_per_mtok(self) -> tuple[float, float]:
        """Return what a write costs more than input, and what one for an hour does."""
        plain = self.input_usd_per_mtok
        write = plain if self.cache_write_usd_per_mtok is None else self.cache_write_usd_per_mtok
        write_1h = write if self.cache_write_1h_usd_per_mtok is None else self.cache_write_1h_usd_per_mtok
        return write - plain, write_1h - plain

    def to_dict(self) -> dict[str, float | None]:
        """Return the members; prices of writes stand there where they are known."""
        told = {name: getattr(self, name) for name in _ALWAYS_WRITTEN}
        return told | {name: usd for name in _WRITES if (usd := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One thing that can be called: a model, optionally at an effort, with a budget, with an adapter."""

    model: str
    """The model's name as its provider knows it."""
    effort: str | None = None
    """Reasoning effort (for example `low`); None means the model's default."""
    max_output_tokens: int | None = None
    """Token budget of the answer; None means the model's default."""
    adapter: str | None = None
    """Name of a LoRA adapter on the model; None means the bare model."""
    price_card: PriceCard | None = None
    """The tariff; None means unknown, which is not the same as free."""
    context_tokens: int | None = None
    """Context window in tokens; None means unknown and is never used to refuse."""
    capabilities: frozenset[str] | None = None
    """What the model can do; None means unknown and is never used to refuse."""
    descriptors: Mapping[str, float | str] = field(default_factory=dict)
    """Anything else known before a call, such as `params_b`."""
    name: str = field(init=False, repr=False, compare=False)
    """The identity in tables, logs and headers: `model`, then what differs from its default."""

    def __post_init__(self) -> None:
        check_name("Candidate.model", self.model)
        if self.model.splitlines() != [self.model]:
            raise InputError(
                sentence("Candidate.model", allowed="a name on one line", got=self.model, do="rename it")
            )
        for name in ("max_output_tokens", "context_tokens"):
            value = getattr(self, name)
            if value is not None:
                check_count(f"Candidate.{name} of {self.model!r}", value)
        object.__setattr__(self, "descriptors", dict(self.descriptors))
        if self.capabilities is not None:
            object.__setattr__(self, "capabilities", frozenset(self.capabilities))
        # Written once: a gateway reads it a dozen times a request.
        object.__setattr__(self, "name", self._write_name())

    def __repr__(self) -> str:
        """Return what would make it, without what is not known: a decision holds a list of them."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.repr}
        known = [f"{name}={value!r}" for name, value in told.items() if value not in (None, {})]
        return f"Candidate({', '.join(known)})"

    def _write_name(self) -> str:
        extras = []
        if self.effort is not None:
            extras.append(f"effort={self.effort}")
        if self.max_output_tokens is not None:
            extras.append(f"max_output_tokens={self.max_output_tokens}")
        if self.adapter is not None:
            extras.append(f"adapter={self.adapter}")
        return f"{self.model}[{','.join(extras)}]" if extras else self.model

    def with_price_card(self, price_card: PriceCard | None) -> Candidate:
        """Return the same candidate under another tariff."""
        return replace(self, price_card=price_card)

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready description; `candidate_from_dict` reads it back."""
        card = self.price_card
        return {
            "model": self.model,
            "effort": self.effort,
            "max_output_tokens": self.max_output_tokens,
            "adapter": self.adapter,
            "price_card": None if card is None else card.to_dict(),
            "context_tokens": self.context_tokens,
            "capabilities": None if self.capabilities is None else sorted(self.capabilities),
            "descriptors": dict(self.descriptors),
        }

    def __hash__(self) -> int:
        return hash(self.name)


def candidate_from_dict(data: Mapping[str, object]) -> Candidate:
    """Rebuild a candidate from `Candidate.to_dict`."""
    values = dict(data)
    card = values.get("price_card")
    if isinstance(card, Mapping):
        values["price_card"] = PriceCard(**card)
    capabilities = values.get("capabilities")
    if isinstance(capabilities, list):
        values["capabilities"] = frozenset(capabilities)
    return Candidate(**values)  # type: ignore[arg-type]


def check_unique(where: str, candidates: tuple[Candidate, ...]) -> None:
    """Raise `InputError` when two candidates share a name, or there is none."""
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice or not names:
        raise InputError(
            sentence(where, allowed="at least one candidate, every name once", got=twice or "no candidate")
        )
