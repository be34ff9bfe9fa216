"""This module lists what is tested: every class of every room, under every setting, by every check."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache

from tests.contracts.excuses import CONSTRUCTOR_ONLY, NOT_VARIED, SETTINGS
from turnout.checks import (
    Check,
    Variant,
    check_configured,
    check_embedder,
    check_policy,
    check_router,
    yield_variants,
)
from turnout.core.contracts import Configured, Embedder, Policy, Router
from turnout.core.errors import TurnoutError
from turnout.core.registry import find_registry

ROOMS = ("features", "routers", "policies", "sequential")


def classes() -> Iterator[tuple[str, type[Configured]]]:
    """Yield "room:name" and the class, for everything that a registry knows."""
    for room in ROOMS:
        spec = importlib.util.find_spec(f"turnout.{room}")
        if spec is None or spec.origin is None:
            continue
        registry = find_registry(room)
        for name in registry:
            yield f"{room}:{name}", registry.get(name)


@cache
def variants(key: str) -> tuple[Variant, ...]:
    """Return the variants of the class that stands under `key`; none where they cannot be guessed."""
    cls = dict(classes())[key]
    if key in NOT_VARIED:
        return ()
    try:
        return tuple(yield_variants(cls, settings=SETTINGS.get(key)))
    except TurnoutError:
        # The test of the variants itself fails with this sentence.
        return ()


def suite(key: str, thing: Configured) -> Iterator[Check]:
    """Yield the checks of the contract that an object implements."""
    if key in CONSTRUCTOR_ONLY:
        return check_configured(thing)
    if isinstance(thing, Router):
        return check_router(thing)
    if isinstance(thing, Policy):
        return check_policy(thing)
    if isinstance(thing, Embedder):
        return check_embedder(thing)
    return check_configured(thing)


def matrix() -> Iterator[tuple[str, Check]]:
    """Yield "room:name:variant:check" and the check; slow ones for the default setting only."""
    for key, _ in classes():
        for variant in variants(key):
            for check in suite(key, variant.thing):
                if variant.name == "default" or not check.is_slow:
                    yield f"{key}:{variant.name}:{check.name}", check
