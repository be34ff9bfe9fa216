"""This module finds the rules that hold for a request, and what they put in force together (S23)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import msgspec
import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.clock import Clock
from turnout.core.contracts import Policy
from turnout.core.errors import ConfigError, InputError, TurnoutError, did_you_mean, sentence
from turnout.core.rng import make_rng
from turnout.gateway.cache import AnswerCache
from turnout.gateway.conditions import holds
from turnout.gateway.config import Config
from turnout.gateway.providers.base import unrouted_of
from turnout.gateway.secret import is_reference, read_secret
from turnout.gateway.select import Selector
from turnout.gateway.settings_rules import RuleSettings
from turnout.gateway.signals.base import Facts
from turnout.gateway.signals.board import Board, Reader
from turnout.policies import registry
from turnout.policies.deployment import Deployment

Headers = tuple[tuple[bytes, bytes], ...]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """What is in force for a request on which at least one rule holds."""

    rules: tuple[RuleSettings, ...]
    """In the order of the file."""
    selector: Selector
    """Decides among the candidates that the rules leave."""
    request_headers: Headers
    """Sent upstream."""
    response_headers: Headers
    """Added to the answer."""
    cache: AnswerCache | None
    """Where answers are kept; None where they are not."""

    @property
    def name(self) -> str:
        """The rules' names, for the ledger and for the client."""
        return ", ".join(rule.name for rule in self.rules)


@final
class Rules:
    """The rules of a configuration, over its signals.

    Parameters
    ----------
    config:
        The settings. Raises `ConfigError` for a rule that can put nothing in force.
    deployment:
        What decides; None where nobody is chosen.
    clock:
        What time it is.
    """

    def __init__(self, *, config: Config, deployment: Deployment | None, clock: Clock) -> None:
        self.config = config
        self.deployment = deployment
        self.rules = tuple(_with_secrets(rule, place) for place, rule in enumerate(config.rules))
        self.board = Board(settings=config.signals)
        self.caches = {
            rule.name: AnswerCache(settings=rule.cache, clock=clock, where=f"rules[{place}].cache")
            for place, rule in enumerate(self.rules)
            if rule.cache is not None
        }
        self._rulings: dict[tuple[int, ...], Ruling] = {}
        for place in range(len(self.rules)):
            self._ruling((place,))

    async def find(self, facts: Facts) -> tuple[Ruling | None, Reader]:
        """Return what is in force, or None, and what was read on the way."""
        reader = self.board.reader(facts)
        held: list[int] = []
        for place, rule in enumerate(self.rules):
            if await holds(rule.when, reader):
                held.append(place)
                if not rule.go_on:
                    break
        return (self._ruling(tuple(held)) if held else None), reader

    def carry_over(self, before: Rules) -> None:
        """Take over the answers that were kept under an earlier configuration, where a cache is as it was."""
        for name, cache in self.caches.items():
            old = before.caches.get(name)
            if old is not None and old.settings == cache.settings:
                cache.carry_over(old)

    def close(self) -> None:
        """Let the threads of slow signals go."""
        self.board.close()

    def _ruling(self, held: tuple[int, ...]) -> Ruling:
        """Return what these rules put in force together; made once for each set that occurs."""
        known = self._rulings.get(held)
        if known is None:
            rules = tuple(self.rules[place] for place in held)
            known = self._rulings[held] = Ruling(
                rules=rules,
                selector=make_selector(self.config, self.deployment, rules, f"rules[{held[-1]}]"),
                request_headers=_headers(rules, "request_headers"),
                response_headers=_headers(rules, "response_headers"),
                cache=next((self.caches[rule.name] for rule in rules if rule.cache is not None), None),
            )
        return known


def make_selector(
    config: Config, deployment: Deployment | None, rules: tuple[RuleSettings, ...], where: str
) -> Selector:
    """Return what decides under these rules; raises `ConfigError` that names the setting `where`."""
    routing, goal = config.routing, _first(rules, "goal") or config.goal
    pool = () if deployment is None else deployment.candidates
    try:
        return Selector(
            deployment=None if deployment is None else _with_policy(deployment, rules, where),
            alias=routing.alias,
            goal=None if goal is None else goal.goal(),
            rng=make_rng(routing.seed, "gateway", *(rule.name for rule in rules)),
            pace=routing.pace,
            unrouted=unrouted_of(config, [candidate.name for candidate in pool]),
            fallbacks=config.fallbacks,
            allowed_M=_allowed(pool, rules, where),
            binds_named=any(rule.binds_named for rule in rules),
            explore_share=routing.explore_share,
        )
    except ConfigError:
        raise
    except InputError as error:
        raise ConfigError(f"the setting '{where}.goal' cannot be served; {error}") from error


def selector_for(config: Config, deployment: Deployment, rules: tuple[RuleSettings, ...]) -> Selector:
    """Return what decides with another deployment under rules that hold together."""
    return make_selector(config, deployment, rules, f"rules[{config.rules.index(rules[-1])}]")


def _first(rules: tuple[RuleSettings, ...], key: str) -> Any:
    """Return what the first rule that states `key` says; None where none does."""
    return next((value for rule in rules if (value := getattr(rule, key)) is not None), None)


def _with_secrets(rule: RuleSettings, place: int) -> RuleSettings:
    """Return a rule with the secrets that its headers refer to; raises `ConfigError` where one is missing."""
    read = {
        name: read_secret(value, f"rules[{place}].request_headers.{name}")
        for name, value in rule.request_headers.items()
        if is_reference(value)
    }
    return msgspec.structs.replace(rule, request_headers={**rule.request_headers, **read}) if read else rule


def _headers(rules: tuple[RuleSettings, ...], key: str) -> Headers:
    merged: dict[str, str] = {}
    for rule in reversed(rules):
        merged |= {name.lower(): value for name, value in getattr(rule, key).items()}
    return tuple((name.encode(), value.encode()) for name, value in merged.items())


def _allowed(candidates: Sequence[Candidate], rules: tuple[RuleSettings, ...], where: str) -> Any:
    """Return `allowed_M` as the first rule says that narrows the pool, or None where none does."""
    narrow = [rule for rule in rules if rule.narrows]
    if not narrow:
        return None
    names, effort, adapter = narrow[0].candidates, narrow[0].effort, narrow[0].adapter
    known = [candidate.name for candidate in candidates]
    for key, wanted, there in (
        ("candidates", names or (), known),
        ("effort", [effort], [one.effort for one in candidates]),
        ("adapter", [adapter], [one.adapter for one in candidates]),
    ):
        for name in wanted:
            if name is not None and name not in there:
                what = f"the setting '{where}.{key}' names no candidate"
                near = did_you_mean(name, {one for one in there if one is not None})
                raise ConfigError(sentence(what, allowed="one of the deployment's", got=name, do=near))
    allowed_M = np.array(
        [
            (names is None or candidate.name in names)
            and (effort is None or candidate.effort == effort)
            and (adapter is None or candidate.adapter == adapter)
            for candidate in candidates
        ]
    )
    if not allowed_M.any():
        raise ConfigError(
            sentence(
                f"the rule {rules[-1].name!r} ({where}) leaves no candidate",
                allowed=f"a set, an effort and an adapter that one of them has: {', '.join(known)}",
                got=f"candidates {names}, effort {effort}, adapter {adapter}",
                do="loosen one of them, or add such a candidate to the deployment",
            )
        )
    return allowed_M


def _with_policy(deployment: Deployment, rules: tuple[RuleSettings, ...], where: str) -> Deployment:
    own = _first(rules, "policy")
    if own is None:
        return deployment
    try:
        policy = registry.get(own.kind)(**own.options)
        if not isinstance(policy, Policy):
            raise TypeError(f"{own.kind} is no policy of estimates")
    except (TurnoutError, TypeError) as error:
        raise ConfigError(
            sentence(
                f"the setting '{where}.policy' cannot be made",
                allowed="a registered policy and arguments of its class",
                got=str(error),
                do="correct 'kind' and 'options'",
            )
        ) from error
    changed = Deployment(
        router=deployment.router,
        fallback=deployment.fallback,
        policy=policy,
        goal=deployment.goal,
        frontier=deployment.frontier,
        guard=deployment.guard,
        certificate=deployment.certificate,
    )
    changed.arrivals = deployment.arrivals
    return changed
