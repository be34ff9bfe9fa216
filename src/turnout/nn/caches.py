"""This module keeps a cache with the routing that filled it: keys of one routing are wrong under another.

What a cache was made under is an attribute of the cache, so that copies and selected rows take it along.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from turnout.core.errors import InputError, sentence
from turnout.nn.decoder import decoder_blocks

MADE_UNDER = "_turnout_made_under"
"""The attribute by which a cache remembers, for each guard, the stamp that it was filled under."""

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}
"""Whole numbers by the bytes of a weight; narrower than those they are added up in."""

serials = itertools.count(1)
"""Numbers that are never used twice in a process; unlike objects they stay equal in a copy."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """A routing that fills a cache: whose it is, and what is particular to each item of the batch."""

    who: object
    """Compared by `==`."""
    items: tuple[object, ...] = ()
    """One for each item that has a routing of its own; empty where all share one."""
    copies: int = 1
    """How many rows of the batch belong to an item."""

    def continues(self, made: Stamp | None, rows: int) -> bool:
        """Whether a cache made under `made` may go on here: the same, or some of its items in their order."""
        if made is None or made.who != self.who:
            return False
        if made.items == self.items:
            return True
        left = iter(made.items)
        return len(self.items) * self.copies == rows and all(item in left for item in self.items)


@dataclass(kw_only=True, eq=False)
class CacheGuard:
    """Stamps the caches that a model fills, and refuses one that was filled under another stamp.

    `now` returns the stamp in force, None for the model as it is, which fills caches
    without a stamp.
    Raises `InputError` in the forward that is given such a cache.
    """

    now: Callable[[], Stamp | None]
    do: str = "start from an empty cache"
    serial: int = field(default_factory=lambda: next(serials))

    def install(self, model: nn.Module) -> list[Any]:
        """Watch a model's forwards; return the handles that end it."""
        try:
            # The decoder inside, since it may be called without its head.
            module, _ = decoder_blocks(model)
        except InputError:
            module = model
        return [
            module.register_forward_pre_hook(self.check, with_kwargs=True),
            module.register_forward_hook(self.stamp),
        ]

    def check(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse the cache among a forward's arguments, or stamp it."""
        cache = find_cache((*args, *kwargs.values()))
        if cache is None:
            return
        now, made = self.now(), getattr(cache, MADE_UNDER, {}).get(self.serial)
        if now != made and cache.get_seq_length():
            source = kwargs.get("input_ids", args[0] if args else None)
            source = source if source is not None else kwargs.get("inputs_embeds")
            if now is None or not now.continues(made, 0 if source is None else len(source)):
                raise made_elsewhere(self.do)
        self._mark(cache, now)

    def adopt(self, cache: Cache) -> None:
        """Stamp a cache with what is in force, whatever it was filled under."""
        self._mark(cache, self.now())

    def stamp(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        """Stamp a cache that the forward made itself."""
        cache = find_cache(output.values() if isinstance(output, dict) else output)
        if cache is not None:
            self._mark(cache, self.now())

    def _mark(self, cache: Cache, now: Stamp | None) -> None:
        known = getattr(cache, MADE_UNDER, {})
        if known.get(self.serial) != now:
            # A new dictionary: a shallow copy of the cache keeps its own.
            setattr(cache, MADE_UNDER, {**known, self.serial: now})


def digest(weights: Iterable[Tensor]) -> int:
    """Return a number that changes with the bits of weights, and with nothing else.

    A weight that is edited through `.data` counts no version up, so that only its bits tell. Whole numbers,
    so that the order of a sum does not matter. Meant for routers, which are small beside their base.
    """
    alike: dict[tuple[object, object], list[Tensor]] = {}
    for weight in weights:
        alike.setdefault((weight.device, weight.dtype), []).append(weight.detach().reshape(-1))
    found = 0
    for (_, dtype), flat in alike.items():
        bits_N = torch.cat(flat).view(BITS[getattr(dtype, "itemsize", 1)]).long()
        # Odd factors, so that no bit is lost, and different ones, so that an exchange is seen.
        places_N = torch.arange(1, 2 * len(bits_N), 2, device=bits_N.device)
        found = 31 * found + int((bits_N * places_N).sum())
    return found


def cache_keyword(model: Any) -> str:
    """Return by what name a model's forward and `generate` take a cache: `cache` from transformers 5.24 on.

    A forward of `**kwargs` alone passes both names on; it gets the older one, which every release takes.
    """
    return _keyword(model.__class__)


def takes_cache(model: Any) -> bool:
    """Whether a model's forward names a cache among its parameters."""
    names = inspect.signature(model.__class__.forward).parameters
    return "cache" in names or "past_key_values" in names


@functools.cache
def _keyword(kind: Hashable) -> str:
    forward: Any = getattr(kind, "forward", None)
    names = () if forward is None else inspect.signature(forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def find_cache(values: Any) -> Cache | None:
    """Return the first cache among values; None where there is none."""
    found = values if isinstance(values, Iterable) and not isinstance(values, Tensor) else ()
    return next((value for value in found if isinstance(value, Cache)), None)


def made_elsewhere(do: str) -> InputError:
    """Build the error for a cache that was filled under another routing."""
    return InputError(sentence("this cache holds keys that were made under another routing", do=do))
