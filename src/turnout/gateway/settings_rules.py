"""This module holds the settings of rules: a condition over signals, and what follows where it holds."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.features.pii import KINDS
from turnout.gateway.settings import GoalSettings, Name, Settings, check_label, check_plain
from turnout.gateway.settings_cache import CacheSettings

ALL_PII = "all"
"""Stands for every kind of personal data in `redact`."""

_OPERATORS = ("all", "any", "not")
_EXAMPLE = 'write for example {all = ["a", {not = "b"}]}'


class RulePolicy(Settings, frozen=True, kw_only=True):
    """How estimates become a decision where the rule holds."""

    kind: Name
    """Registered name of the policy."""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    """Arguments of its class."""


class RuleSettings(Settings, frozen=True, kw_only=True):
    """One rule: where its condition holds, what it states is in force."""

    name: Name
    """What the ledger, the headers and `/v1/route` call it."""
    when: Any = True
    """The condition: a signal's name, `{all = [...]}`, `{any = [...]}`, `{not = ...}`, or true."""
    go_on: bool = False
    """Whether later rules may hold as well; what an earlier one states stays."""
    candidates: list[Name] | None = None
    """Candidates that may serve; none means the whole pool."""
    effort: Name | None = None
    """Only candidates at this reasoning effort."""
    adapter: Name | None = None
    """Only candidates with this adapter."""
    binds_named: bool = False
    """Whether a request that names a candidate outside this set is refused instead of served."""
    goal: GoalSettings | None = None
    """The dial where the request sets none."""
    policy: RulePolicy | None = None
    """The policy; none means the deployment's own."""
    system_prompt: Name | None = None
    """Text that is added to the system prompt."""
    system_place: Literal["before", "after", "instead", "if_missing"] = "before"
    """Where it stands relative to the client's own."""
    set_fields: dict[str, Any] = msgspec.field(default_factory=dict)
    """Members of the body that are set, such as `reasoning_effort` or `temperature`."""
    request_headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Headers that are sent upstream."""
    response_headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Headers that are added to the answer."""
    redact: list[Name] = msgspec.field(default_factory=list)
    """Kinds of personal data that are replaced before anybody upstream sees them; `all` for every kind."""
    cache: CacheSettings | None = None
    """Answers are kept, and given again to who asks the same."""
    block: Name | None = None
    """Refuse the request with a 403 that says this."""

    def check(self, place: int, signals: set[str]) -> None:
        """Raise `ConfigError` where the rule contradicts itself or names what is not there."""
        where = f"rules[{place}]"
        check_label(f"{where}.name", self.name, without=",")
        check_plain(f"{where}.set_fields", self.set_fields)
        if self.policy is not None:
            check_plain(f"{where}.policy.options", self.policy.options)
        if self.cache is not None:
            self.cache.check(f"{where}.cache")
        _check_condition(self.when, f"{where}.when", signals)
        for kind in self.redact:
            if kind != ALL_PII and kind not in KINDS:
                raise ConfigError(
                    sentence(
                        f"the setting '{where}.redact' names no kind of personal data",
                        allowed=", ".join([ALL_PII, *KINDS]),
                        got=kind,
                        do=did_you_mean(kind, [ALL_PII, *KINDS]),
                    )
                )
        for key in ("request_headers", "response_headers"):
            for name, value in getattr(self, key).items():
                _check_header(f"{where}.{key}", name, value)
        for name in self.set_fields:
            if name in ("model", "messages", "input", "stream", "stream_options"):
                raise ConfigError(
                    sentence(
                        f"the setting '{where}.set_fields' sets {name!r}",
                        allowed="a member that the gateway itself does not read, such as 'temperature'",
                        do="choose candidates by 'candidates', or leave it out",
                    )
                )

    @property
    def narrows(self) -> bool:
        """Whether the rule says who may serve."""
        return not (self.candidates is None and self.effort is None and self.adapter is None)

    @property
    def names(self) -> list[str]:
        """The signals that the condition names, in order."""
        return names_in(self.when)


def names_in(condition: Any) -> list[str]:
    """Return the signals that a checked condition names, in order."""
    if isinstance(condition, str):
        return [condition]
    if isinstance(condition, dict):
        parts = condition.get("all") or condition.get("any") or [condition.get("not", True)]
        return [name for part in parts for name in names_in(part)]
    return []


def check_rules(rules: list[RuleSettings], signals: set[str]) -> None:
    """Raise `ConfigError` for a rule that cannot be meant."""
    seen: set[str] = set()
    for place, rule in enumerate(rules):
        rule.check(place, signals)
        if rule.name in seen:
            raise ConfigError(
                sentence(
                    f"the setting 'rules[{place}].name' is taken by an earlier rule",
                    allowed="a name of its own for each rule",
                    got=rule.name,
                    do="rename one of them",
                )
            )
        seen.add(rule.name)
        if rule.when is True and not rule.go_on and place < len(rules) - 1:
            raise ConfigError(
                sentence(
                    f"the rule {rule.name!r} always holds, so that no rule after it is reached",
                    allowed="a rule without 'when' at the end of the list",
                    do="move it to the end, give it a condition, or set go_on = true",
                )
            )


def _check_condition(condition: Any, where: str, signals: set[str]) -> None:
    if condition is True:
        return
    if isinstance(condition, str):
        if condition not in signals:
            raise ConfigError(
                sentence(
                    f"the setting {where!r} names no signal",
                    allowed="a name of a section 'signals.NAME'",
                    got=condition,
                    do=did_you_mean(condition, signals),
                )
            )
        return
    operator = next(iter(condition)) if isinstance(condition, dict) and len(condition) == 1 else None
    if operator not in _OPERATORS:
        raise _no_condition(where, condition)
    assert isinstance(condition, dict)
    inner = condition[operator]
    if operator == "not":
        _check_condition(inner, f"{where}.not", signals)
        return
    if not isinstance(inner, list) or not inner:
        raise _no_condition(f"{where}.{operator}", inner)
    for place, part in enumerate(inner):
        _check_condition(part, f"{where}.{operator}[{place}]", signals)


def _no_condition(where: str, got: object) -> ConfigError:
    return ConfigError(
        sentence(
            f"the setting {where!r} is no condition",
            allowed="a signal's name, {all = [...]}, {any = [...]}, {not = ...}, or true",
            got=got,
            do=_EXAMPLE,
        )
    )


_RESERVED = ("authorization", "content-length", "content-type", "host", "transfer-encoding", "connection")


def _check_header(where: str, name: str, value: str) -> None:
    is_name = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    is_value = value.isascii() and value.isprintable()
    if not is_name or not is_value or name.lower() in _RESERVED or name.lower().startswith("x-turnout-"):
        raise ConfigError(
            sentence(
                f"the setting '{where}' holds no header that one may set",
                allowed="a name of letters, digits and hyphens, other than the gateway's own and "
                + ", ".join(_RESERVED)
                + ", with a value of printable ASCII",
                got=f"{name}: (a value that is not shown)",
                do="rename it, or leave it out",
            )
        )
