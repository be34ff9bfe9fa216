"""This module holds the settings of the gateway; docs/config.md has a heading for each of them.

One TOML file is decoded into frozen structs. Secrets are named, never written: `api_key_env` is the name
of an environment variable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from turnout.core.errors import ConfigError, InputError, did_you_mean, sentence
from turnout.gateway.settings import Count, GoalSettings, Name, Port, Seconds, Settings, Share, check_label
from turnout.gateway.settings_keys import AuthSettings, KeySettings
from turnout.gateway.settings_models import CandidateSettings, ModelSettings, check_models
from turnout.gateway.settings_prices import PricesSettings
from turnout.gateway.settings_providers import ProviderSettings, ReplaySettings, UpstreamSettings
from turnout.gateway.settings_rollout import RolloutSettings
from turnout.gateway.settings_rules import RuleSettings, check_rules
from turnout.gateway.settings_shared import SharedSettings
from turnout.gateway.settings_signals import SignalSettings
from turnout.gateway.settings_telemetry import TelemetrySettings


class ServerSettings(Settings, frozen=True, kw_only=True):
    """Where clients connect."""

    host: Name = "127.0.0.1"
    """Address to listen on; anything but loopback opens a gateway without a login."""
    port: Port = 8100
    """TCP port; 0 takes a free one."""
    max_body_mb: Annotated[float, msgspec.Meta(gt=0, le=4096)] = 32.0
    """Largest request body in megabytes (1e6 bytes); a larger one is answered with 413."""
    body_s: Seconds = 120.0
    """Seconds that a request's body may take to come in; one that takes longer is answered with 408."""
    max_bodies_mb: Annotated[float, msgspec.Meta(gt=0)] = 256.0
    """Most megabytes of bodies that are still coming in, together; a further one is answered with 503."""
    send_s: Seconds = 60.0
    """Seconds in which a client has to read something of what is sent to it; else it is cut off."""
    allowed_hosts: list[Name] = msgspec.field(default_factory=list)
    """Names under which a gateway without keys on loopback may be asked, and whose pages may ask it."""
    drain_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 30
    """Seconds that running answers get to finish after SIGTERM before they are cut."""
    leave_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] | None = None
    """Seconds of these in which others are still let in; none means 5 beyond loopback, else 0."""
    keep_alive_s: Seconds = 15.0
    """Seconds without an event after which a stream gets a comment, so that no proxy closes it."""
    max_running: Count = 2048
    """Most requests that are served at once, streams included; a further one waits."""
    max_queued: Annotated[int, msgspec.Meta(ge=0)] = 1024
    """Most requests that wait for a place; a further one is answered with 503 at once."""
    queue_s: Seconds = 10.0
    """Seconds that a request waits for a place before it is answered with 503."""

    def check(self) -> None:
        """Raise `ConfigError` where the largest body would never be let in, or no time is left to drain."""
        if self.leave_s is not None and self.leave_s > self.drain_s:
            raise ConfigError(
                sentence(
                    "the setting 'server.leave_s' leaves no time to drain",
                    allowed=f"at most server.drain_s ({self.drain_s})",
                    got=self.leave_s,
                    do="lower it, or raise server.drain_s",
                )
            )
        if self.max_bodies_mb < self.max_body_mb:
            raise ConfigError(
                sentence(
                    "the setting 'server.max_bodies_mb' is too small",
                    allowed=f"at least server.max_body_mb ({self.max_body_mb:g})",
                    got=self.max_bodies_mb,
                    do="raise it",
                )
            )


class RoutingSettings(Settings, frozen=True, kw_only=True):
    """How a request is decided."""

    alias: Name = "turnout/auto"
    """The model name that asks the router; every other name is a candidate's own."""
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    """Most candidates that are asked for one request, down the ranked list, before the first byte."""
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    """How often the list is gone through again where nobody on it answered."""
    retry_wait_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.25
    """Longest wait in seconds before the first retry; it doubles with each, and half of it is chance."""
    retry_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    """Most retries as a share of all requests, so that an outage is not answered with more load."""
    deadline_s: Seconds = 600.0
    """Seconds from a request's coming to the first byte of its answer, all calls together."""
    hedge_after_s: Seconds | None = None
    """Seconds without a first byte after which the next candidate is asked as well; none never does."""
    hedge_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    """Most hedged calls as a share of all requests."""
    pace: bool = True
    """Whether the price of a spend cap follows what is really spent, so that the cap is kept online."""
    seed: int = 0
    """Seed of the generator that a stochastic policy draws from."""
    sticky: bool = False
    """Whether a change of the model counts what the new one charges for reading a conversation again."""
    sticky_idle_s: Seconds = 300.0
    """Seconds of silence after which a provider's prompt cache counts as cold."""
    explore_share: Share = 0.0
    """Share of routed requests on which chance chooses among all who may serve, so that a ledger can tell."""
    sequencer: Name | None = None
    """Sequencer that serves the alias instead of the router."""


class BreakerSettings(Settings, frozen=True, kw_only=True):
    """When an upstream that fails is left alone, and for how long."""

    failures: Count = 5
    """Failures in a row that open a breaker."""
    failure_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """Share of failed calls in the window that opens it too."""
    min_calls: Count = 20
    """Calls in the window below which a share says nothing."""
    window_s: Seconds = 30.0
    """Length of the window in seconds."""
    open_s: Seconds = 5.0
    """Seconds before the first probe; they double with every probe that fails."""
    max_open_s: Seconds = 120.0
    """Most seconds between two probes."""
    cooldown_s: Seconds = 5.0
    """Seconds of rest after a rate limit whose upstream did not say how long to wait."""
    max_cooldown_s: Seconds = 600.0
    """Most seconds of rest after a rate limit, whatever the upstream asks for."""


class LedgerSettings(Settings, frozen=True, kw_only=True):
    """Where decisions and spend are remembered."""

    path: Name = "turnout.sqlite"
    """SQLite file, made if missing."""
    flush_ms: Annotated[int, msgspec.Meta(ge=1, le=100)] = 25
    """Longest time in milliseconds that a row waits in memory; bounds what `kill -9` can lose."""
    flush_rows: Count = 256
    """Rows that are written at once without waiting for `flush_ms`."""
    max_pending: Count = 100_000
    """Rows kept in memory while the disk refuses them; beyond it new requests are answered with 503."""
    keep_text: bool = False
    """Whether to store what was routed on: the last user message, and told task and tags; off by default."""
    keep_days: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Days after which a request is deleted; none keeps all."""


class SequencerSettings(Settings, frozen=True, kw_only=True):
    """A sequencer, which clients ask as the model `turnout/NAME`."""

    kind: Name | None = None
    """Its registered name, such as `router_r1`; either this or `artifact`."""
    artifact: Name | None = None
    """Folder of a saved sequencer."""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    """Arguments of the class that `kind` names."""
    candidates: list[Name] | None = None
    """Candidates that it may call; none means all but the policy's own model."""
    policy_model: Name | None = None
    """The policy's own model, for one that thinks: a candidate, or any where `policy_provider` is set."""
    policy_provider: Name | None = None
    """Provider of a policy model that is no candidate."""
    policy_input_usd_per_mtok: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Tariff of a policy model that is no candidate, in USD per million input tokens."""
    policy_output_usd_per_mtok: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Tariff of a policy model that is no candidate, in USD per million output tokens."""
    max_steps: Count = 16
    """Most choices for one request, thoughts and refused calls included."""
    max_calls: Count | None = None
    """Most calls of candidates for one request."""
    max_usd: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Most USD for one request, thoughts included; a call that may cost more than what is left is refused."""
    deadline_s: Seconds = 120.0
    """Seconds after which no further call starts; the last one is given what is left."""
    call_s: Seconds = 60.0
    """Seconds that one call or thought may take."""
    max_output_tokens: Count = 1024
    """Most output tokens of a call to a candidate without a budget, where the client states no limit."""


class Config(Settings, frozen=True, kw_only=True):
    """The whole file."""

    deployment: Name | None = None
    """Artifact folder that `turnout fit` wrote; without one every request names its model."""
    providers: Annotated[dict[str, ProviderSettings], msgspec.Meta(min_length=1)]
    """Who answers, by a name of your choice."""
    default_provider: Name | None = None
    """Provider of every candidate that names none; needed only with more than one provider."""
    candidates: dict[str, CandidateSettings] = msgspec.field(default_factory=dict)
    """Candidates that differ, by candidate name."""
    models: dict[str, ModelSettings] = msgspec.field(default_factory=dict)
    """Models by the name that clients ask for: served whether a router knows them or not."""
    sequencers: dict[str, SequencerSettings] = msgspec.field(default_factory=dict)
    """Sequencers, by a name of your choice."""
    signals: dict[str, SignalSettings] = msgspec.field(default_factory=dict)
    """What rules may ask about a request, by a name of your choice."""
    rules: list[RuleSettings] = msgspec.field(default_factory=list)
    """What holds for which requests; the first rule whose condition holds is in force."""
    server: ServerSettings = ServerSettings()
    """Where clients connect."""
    routing: RoutingSettings = RoutingSettings()
    """How a request is decided."""
    breakers: BreakerSettings = BreakerSettings()
    """When an upstream that fails is left alone."""
    goal: GoalSettings | None = None
    """The dial; none means the deployment's own."""
    ledger: LedgerSettings = LedgerSettings()
    """Where decisions and spend are remembered."""
    keys: dict[str, KeySettings] = msgspec.field(default_factory=dict)
    """Who may ask, by a name of your choice."""
    auth: AuthSettings = AuthSettings()
    """How clients are told apart."""
    shared: SharedSettings = SharedSettings()
    """What gateways on several hosts share."""
    prices: PricesSettings = PricesSettings()
    """What models charge, where that has changed."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """What OpenTelemetry is told."""
    rollout: RolloutSettings | None = None
    """A second deployment, tried beside the one in force."""

    @property
    def asks_for_keys(self) -> bool:
        """Whether a client needs a key."""
        return self.auth.required or bool(self.keys)

    @property
    def fallbacks(self) -> dict[str, list[str]]:
        """Who stands in for whom, by name."""
        sections = {**self.candidates, **self.models}
        return {name: own.fallbacks for name, own in sections.items() if own.fallbacks}

    def own_of(self, candidate: str) -> CandidateSettings | None:
        """Return what the settings say of one candidate or model; None where they say nothing."""
        return self.candidates.get(candidate) or self.models.get(candidate)

    def provider_of(self, candidate: str) -> str:
        """Return the name of the provider that serves a candidate."""
        own = self.own_of(candidate)
        if own is not None and own.provider is not None:
            return own.provider
        return self.default_provider or next(iter(self.providers))

    def _check_names(self) -> None:
        """Names are shown in headers and logs."""
        check_label("routing.alias", self.routing.alias)
        for section in ("providers", "models", "sequencers", "keys", "signals"):
            for name in getattr(self, section):
                check_label(f"{section}.{name}", name)

    def check(self) -> Config:
        """Return the same settings, or raise `ConfigError` where two of them contradict each other."""
        self._check_names()
        self.server.check()
        named = {"default_provider": self.default_provider}
        for section in ("models", "candidates"):
            for name, own in getattr(self, section).items():
                named[f"{section}.{name}.provider"] = own.provider
        for key, wanted in named.items():
            if wanted is not None and wanted not in self.providers:
                raise ConfigError(
                    sentence(
                        f"the setting {key!r} names no provider",
                        allowed="a name of a section 'providers.NAME'",
                        got=wanted,
                        do=did_you_mean(wanted, self.providers),
                    )
                )
        for name, provider in self.providers.items():
            if isinstance(provider, UpstreamSettings):
                provider.check(name)
        # Whom a deployment knows beyond the sections is not seen here.
        is_open = self.deployment is not None or any(own.provider is None for own in self.models.values())
        if is_open and len(self.providers) > 1 and self.default_provider is None:
            raise ConfigError(
                sentence(
                    "the setting 'default_provider' is missing",
                    allowed=f"one of {', '.join(sorted(self.providers))}",
                    do="with more than one provider, name the one that serves whoever names none",
                )
            )
        if self.rollout is not None and self.rollout.sticky_by == "key" and not self.asks_for_keys:
            raise ConfigError(
                sentence(
                    "the setting 'rollout.sticky_by' asks for keys, and nobody has one",
                    allowed="conversation, user or request, or sections 'keys.NAME'",
                    got="key",
                    do="stick by something else",
                )
            )
        self.shared.check()
        for name, own_key in self.keys.items():
            own_key.check(name)
        check_models(self)
        check_rules(self.rules, set(self.signals))
        if self.goal is not None:
            try:
                self.goal.goal()
            except InputError as error:
                raise ConfigError(
                    f"the section 'goal' is wrong; {error}; keep one of its keys, within its range"
                ) from error
        return self


def demo_config(
    deployment: str | Path,
    table: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8100,
    ledger: str | Path = "turnout.sqlite",
) -> Config:
    """Return settings that serve a deployment from the recorded answers of a table: no key, no network."""
    return Config(
        deployment=str(deployment),
        providers={"recorded": ReplaySettings(table=str(table))},
        server=ServerSettings(host=host, port=port),
        ledger=LedgerSettings(path=str(ledger)),
    ).check()


def load_config(path: str | Path) -> Config:
    """Read a TOML file; relative paths in it start at its own folder.

    Raises `ConfigError` with the path of the key for unknown keys, wrong types and contradictions.
    """
    from turnout.gateway.toml import read_config

    return read_config(Path(path))
