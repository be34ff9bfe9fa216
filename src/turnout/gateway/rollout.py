"""This module tries a second deployment beside the one in force: in the shadow, and on a share of requests.

Each request belongs to a side, drawn from what it sticks by. One side's deployment decides who serves it; the
other decides in the shadow, so that the ledger has both choices, and with which probability each was served.
A second deployment that fails leaves its requests to the one in force.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

from turnout.core.candidate import Candidate
from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.core.rng import make_rng
from turnout.gateway.config import Config
from turnout.gateway.decide import Decider, RouterDecider, reading_of
from turnout.gateway.dial import goal_of
from turnout.gateway.errors import ApiError
from turnout.gateway.key import Key
from turnout.gateway.ledger import Ledger
from turnout.gateway.providers.base import Reply
from turnout.gateway.rules import Ruling, make_selector, selector_for
from turnout.gateway.select import Selection, Selector
from turnout.gateway.settings_rollout import RolloutSettings
from turnout.gateway.shadow import Job, Shadow
from turnout.gateway.warmth import key_of
from turnout.gateway.wire import ChatRequest
from turnout.policies.deployment import Deployment

if TYPE_CHECKING:
    from turnout.gateway.exchange import Exchange

logger = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]

LIVE, CANARY = "live", "canary"
_USER_MEMBERS = ("user", "safety_identifier")


@final
class RolloutDecider(Decider):
    """Decides with two deployments.

    Parameters
    ----------
    live:
        The decider in force.
    selector:
        The second deployment's.
    rules:
        Returns the second deployment's selector under what rules put in force.
    settings:
        Who is served by it.
    shadow:
        Where the other side decides.
    """

    def __init__(
        self,
        *,
        live: RouterDecider,
        selector: Selector,
        rules: Callable[[Ruling], Selector],
        settings: RolloutSettings,
        shadow: Shadow,
    ) -> None:
        self.live = live
        self.canary = RouterDecider(selector=selector, ruled=rules)
        self.settings = settings
        self.shadow = shadow
        self.num_failed = 0
        """Canary decisions that failed and were left to the deployment in force."""

    async def decide(self, exchange: Exchange) -> Selection | Reply:
        """Return the selection of the request's side; the other side decides in the shadow."""
        if exchange.request.model != self.live.selector.alias:
            return await self.live.decide(exchange)
        account = exchange.account
        account.unit = unit_of(
            exchange.as_sent, exchange.headers, account.key, self.settings, name=account.decision_id
        )
        if part_of(account.unit) >= self.settings.share:
            account.branch = LIVE
            selection = await self.live.decide(exchange)
            self._in_shadow(exchange, self.canary)
            return selection
        try:
            account.branch = CANARY
            selection = await self.canary.decide(exchange)
        except Exception as error:  # The edge: whatever the new one raises, the one in force can answer.
            account.branch = LIVE
            if not isinstance(error, ApiError):
                self.num_failed += 1
                logger.exception("the second deployment failed on request %s", account.decision_id)
            return await self.live.decide(exchange)
        self._in_shadow(exchange, self.live)
        return selection

    def selectors(
        self, request: ChatRequest, headers: Headers, key: Key | None, ruling: Ruling | None
    ) -> dict[str, Selector]:
        """Return who decides a request, by side: whoever comes first, the next where that one refuses.

        `request` is as the client sent it. Where each request is drawn anew, the side that is more likely
        comes first.
        """
        live = self.live.selector if ruling is None else self.live.ruled(ruling)
        if request.model != self.live.selector.alias:
            return {LIVE: live}
        part = 0.5
        if self.settings.sticky_by != "request":
            part = part_of(unit_of(request, headers, key, self.settings, name=""))
        if part >= self.settings.share:
            return {LIVE: live}
        canary = self.canary.selector if ruling is None else self.canary.ruled(ruling)
        return {CANARY: canary, LIVE: live}

    def missing(self) -> dict[tuple[str, ...], int]:
        """Return how many decisions of the second deployment are missing, by why."""
        return {("dropped",): self.shadow.num_dropped, ("failed",): self.shadow.num_failed + self.num_failed}

    def close(self) -> None:
        """Let the thread of the shadow go."""
        self.shadow.close()

    def _in_shadow(self, exchange: Exchange, other: RouterDecider) -> None:
        request, account = exchange.request, exchange.account
        selector = other.selector_of(exchange)
        goal, whose = goal_of(exchange.headers, account.key, request.dial)
        self.shadow.put(
            Job(
                decision_id=account.decision_id,
                selector=selector,
                request=request,
                query=request.query(account.decision_id),
                goal=goal,
                whose=whose,
                extra_usd_M=reading_of(exchange, selector),
                share=self.settings.share,
            )
        )


def make_rollout(
    config: Config, *, live: RouterDecider, deployment: Deployment, ledger: Ledger
) -> RolloutDecider:
    """Put the second deployment beside the decider in force; raises `ConfigError` where it does not fit."""
    settings = config.rollout
    assert settings is not None
    _check_pool(live.selector.candidates, deployment, settings)
    selector = make_selector(config, deployment, (), "rollout")
    ruled: dict[tuple[str, ...], Selector] = {}

    def rules(ruling: Ruling) -> Selector:
        names = tuple(rule.name for rule in ruling.rules)
        if names not in ruled:
            ruled[names] = selector_for(config, deployment, ruling.rules)
        return ruled[names]

    try:
        for rule in config.rules:
            selector_for(config, deployment, (rule,))
    except ConfigError as error:
        raise ConfigError(f"the deployment of 'rollout' does not go with the rules; {error}") from error
    shadow = Shadow(
        ledger=ledger, max_queue=settings.max_queue, rng=make_rng(config.routing.seed, "gateway", "shadow")
    )
    return RolloutDecider(live=live, selector=selector, rules=rules, settings=settings, shadow=shadow)


def unit_of(
    request: ChatRequest, headers: Headers, key: Key | None, settings: RolloutSettings, *, name: str
) -> str:
    """Return sixteen hex digits that name what stays on one side; nobody can read a name out of them.

    `name` is the request's own.
    """
    tenant = "" if key is None else key.tenant
    told: str | None = None
    if settings.sticky_by == "request":
        told = name
    elif settings.sticky_by == "key" and key is not None:
        told = f"key:{key.name}"
    elif settings.sticky_by == "user":
        given = next((request.members[one] for one in _USER_MEMBERS if one in request.members), None)
        told = None if given is None else f"user:{tenant}:{bytes(given).decode('utf-8', 'replace')}"
    if told is None:
        told = key_of(request, headers, tenant)
    return hashlib.blake2b(told.encode(), digest_size=8, key=settings.salt.encode()[:64]).hexdigest()


def part_of(unit: str) -> float:
    """Return where in [0, 1) a unit lies."""
    return int(unit, 16) / 16.0 ** len(unit)


def _check_pool(live: Sequence[Candidate], deployment: Deployment, settings: RolloutSettings) -> None:
    """Raise `ConfigError` for a candidate of the second deployment that is not in force.

    In the shadow it may know more, as the one before a promotion to a smaller pool does: it serves nobody.
    """
    known = [candidate.name for candidate in live]
    if settings.share == 0.0 and {*known} <= {candidate.name for candidate in deployment.candidates}:
        return
    for candidate in deployment.candidates:
        if candidate.name not in known:
            raise ConfigError(
                sentence(
                    "the deployment of 'rollout' is of another pool",
                    allowed=f"some of the {len(known)} candidates of the deployment in force, or all",
                    got=candidate.name,
                    do=f"{did_you_mean(candidate.name, known)}; a new model joins the one in force first",
                )
            )
