"""This module says who may make a conversation: providers that keep them, the most useful one first."""

from __future__ import annotations

from typing import final

import msgspec

from turnout.core.errors import ABSENT, sentence
from turnout.gateway.admission import check_model
from turnout.gateway.disconnect import Scope
from turnout.gateway.door import KEY
from turnout.gateway.errors import ApiError, unknown_model
from turnout.gateway.parts import Parts
from turnout.gateway.providers.base import Provider
from turnout.gateway.select import Selector

KIND = "conversations"
HEADER = b"x-turnout-model"
"""Names a model that is to go on from the conversation: whoever serves it keeps it."""


@final
class Maker(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A provider that keeps conversations, and a candidate of its that pins stand for."""

    provider: Provider
    candidate: str


def makers(parts: Parts, scope: Scope, selector: Selector) -> list[Maker]:
    """Return who may make a conversation; raises `ApiError` (400, 403, 404) where nobody may.

    The provider with most of the candidates that the client may ask for comes first, then the one by
    default, then the order of the settings. A model outside the pool counts where it is named, or where a
    provider serves nothing else.
    """
    names = _allowed(parts, scope, selector)
    served: dict[str, list[str]] = {name: [] for name in parts.providers}
    for name in names:
        provider = parts.places[name][0]
        if provider.keeps(KIND):
            served[provider.name].append(name)
    default = parts.config.default_provider

    def worth(provider: str) -> tuple[int, bool]:
        num_in_pool = sum(name in selector.by_name for name in served[provider])
        return -num_in_pool, provider != default

    order = sorted((name for name, ours in served.items() if ours), key=worth)
    if not order:
        raise no_keeper()
    return [Maker(provider=parts.providers[name], candidate=served[name][0]) for name in order]


def _allowed(parts: Parts, scope: Scope, selector: Selector) -> list[str]:
    """Return who may go on from one: the model that the client names, else all, those of the pool first."""
    key = scope.get(KEY)
    models = None if key is None else key.models
    named = next((value.decode("latin-1") for name, value in scope["headers"] if name == HEADER), None)
    if named is not None:
        if key is not None:
            check_model(key, named)
        if named not in parts.places:
            raise unknown_model(named, list(parts.places))
        if selector.bound is not None and named not in selector.bound:
            raise no_keeper(named)
        return [named]
    may_ask = set(parts.places) if models is None else models
    inside, has_choice = selector.allowed, models is None or parts.config.routing.alias in models
    pool = [one for one in selector.by_name if one in inside and (has_choice or one in may_ask)]
    return pool if selector.bound is not None else [*pool, *(may_ask & selector.unrouted.keys())]


def no_keeper(got: object = ABSENT) -> ApiError:
    """400 where no provider keeps a conversation for the client."""
    message = sentence(
        "no provider here keeps conversations for this client",
        allowed="a model that it may ask for, at a provider whose 'apis' have \"conversations\"",
        got=got,
        do="send the whole conversation as the 'input' of each response instead",
    )
    return ApiError(400, message, code="not_supported")
