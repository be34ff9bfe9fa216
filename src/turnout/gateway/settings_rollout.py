"""This module holds the settings of a second deployment that is tried beside the one in force."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from turnout.gateway.settings import Count, Name, Settings, Share

Stick = Literal["conversation", "user", "key", "request"]


class RolloutSettings(Settings, frozen=True, kw_only=True):
    """A second deployment: it decides in the shadow, and a share of requests may be served by it."""

    deployment: Name
    """Artifact folder of the second deployment; its candidates are some of those in force, or all."""
    share: Share = 0.0
    """Share of requests that it serves (a canary); 0 leaves it in the shadow."""
    sticky_by: Stick = "conversation"
    """What stays on one side: a conversation, a user of the client's, a key, or nothing but a request."""
    salt: str = ""
    """Mixed into the draw of sides; another one draws anew."""
    max_queue: Count = 1000
    """Shadow decisions that may wait; a further one is dropped."""
    max_quality_loss: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    """Loss of mean feedback that a promotion may risk; 1 asks for no feedback."""
    max_cost_growth: Annotated[float, msgspec.Meta(ge=0)] = 0.1
    """Growth of the mean cost, as a share of it, that a promotion may risk."""
    max_failure_growth: Share = 0.02
    """Growth of the share of failed requests that a promotion may risk; a canary alone can tell."""
    min_requests: Count = 200
    """Requests below which nothing is promoted: scored ones, where feedback counts."""
    confidence: Annotated[float, msgspec.Meta(gt=0.5, lt=1)] = 0.95
    """Confidence of the one-sided bounds that these margins are compared with."""
