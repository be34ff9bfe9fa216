"""This module remembers which provider keeps what: a response, a conversation, encrypted reasoning.

A request that builds on such a thing can only be answered there, whatever the router would choose.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import final

from turnout.core.candidate import Candidate
from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.providers.base import Place
from turnout.gateway.select import Selection

CAPACITY = 100_000
"""Names that are remembered; the ones that were used longest ago are forgotten first."""


@final
class Pins:
    """A bounded memory: name -> who made it."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._makers: OrderedDict[str, Candidate] = OrderedDict()

    def __len__(self) -> int:
        return len(self._makers)

    def remember(self, names: Sequence[str], maker: Candidate) -> None:
        """Note who made what."""
        for name in names:
            self._makers[name] = maker
            self._makers.move_to_end(name)
        while len(self._makers) > self.capacity:
            self._makers.popitem(last=False)

    def maker(self, names: Sequence[str]) -> Candidate | None:
        """Return who made the first of these that is known."""
        for name in names:
            found = self._makers.get(name)
            if found is not None:
                self._makers.move_to_end(name)
                return found
        return None

    def keep_to(self, names: Sequence[str], selection: Selection, places: Mapping[str, Place]) -> Selection:
        """Return the selection with those alone whose provider keeps what the request builds on.

        Where the router ranked none of them, whoever made it is asked. Nothing changes for names that nobody
        here has made. Raises `ApiError` (400) where the client names a candidate of another provider.
        """
        maker = self.maker(names)
        if maker is None or maker.name not in places:
            return selection
        provider = places[maker.name][0].name
        ranked = tuple(one for one in selection.ranked if places[one.name][0].name == provider)
        if ranked and ranked[0] is selection.ranked[0]:
            return dataclasses.replace(selection, ranked=ranked)
        if selection.reason == "named":
            raise _elsewhere(selection.ranked[0], maker)
        return dataclasses.replace(selection, ranked=ranked or (maker,), reason="pinned", propensity=1.0)


def _elsewhere(named: Candidate, maker: Candidate) -> ApiError:
    message = sentence(
        f"{named.name!r} cannot go on from what this request builds on",
        allowed=f"a candidate of the provider that keeps it, such as {maker.name!r}",
        do="name that one, or send the whole conversation instead",
    )
    return ApiError(400, message, code="made_elsewhere", param="model")
