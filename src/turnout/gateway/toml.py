"""This module reads the configuration file and says where it is wrong: file, key, nearest name."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from turnout.core.errors import ConfigError, did_you_mean, sentence
from turnout.gateway.config import Config, SequencerSettings
from turnout.gateway.expected import choices, keys_in, mismatch
from turnout.gateway.secret import resolved
from turnout.gateway.settings import Settings, check_plain
from turnout.gateway.settings_keys import KeySettings
from turnout.gateway.settings_models import CandidateSettings, ModelSettings
from turnout.gateway.settings_providers import (
    AnthropicSettings,
    AzureSettings,
    BedrockSettings,
    GeminiSettings,
    LocalSettings,
    OpenAISettings,
    ProviderSettings,
    ReplaySettings,
)
from turnout.gateway.settings_rules import RuleSettings
from turnout.gateway.settings_signals import SIGNAL_KINDS, DomainSettings, SignalSettings

_KINDS: dict[str, type[Settings]] = {
    "openai": OpenAISettings,
    "azure": AzureSettings,
    "anthropic": AnthropicSettings,
    "gemini": GeminiSettings,
    "bedrock": BedrockSettings,
    "replay": ReplaySettings,
    "local": LocalSettings,
}


def read_config(path: Path) -> Config:
    """Read, check and resolve one file; see `config.load_config`."""
    data = _read(path)
    _check_keys(data, Config, "", path)
    try:
        check_plain("", data)
        config = msgspec.convert(data, Config).check()
    except msgspec.ValidationError as error:
        raise _wrong(path, data, error) from error
    except ConfigError as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error
    return _resolve(config, path.parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(
            sentence(
                f"the configuration {str(path)!r} cannot be read",
                allowed="a TOML file that one may read",
                got=error.strerror,
                do="check the path",
            )
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            sentence(
                f"the configuration {str(path)!r} is not UTF-8 at byte offset {error.start}",
                allowed="UTF-8 text",
                got=f"0x{error.object[error.start]:02x}",
                do="save it as UTF-8",
            )
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            sentence(
                f"{str(path)!r} is not TOML", allowed="TOML 1.0", got=str(error), do="correct that place"
            )
        ) from error


def _check_keys(data: Mapping[str, Any], kind: type[Settings], where: str, path: Path) -> None:
    """Find unknown keys before types are looked at: a misspelt key explains a missing one."""
    known = {field.name: field.type for field in msgspec.structs.fields(kind)}
    tag = {"kind"} if kind in (*_KINDS.values(), *SIGNAL_KINDS.values()) else set()
    for key, value in data.items():
        if key not in known:
            if key in tag:
                continue
            raise ConfigError(
                sentence(
                    f"{str(path)!r} has the unknown key {where + key!r}",
                    allowed=", ".join(sorted([*known, *tag])),
                    do=did_you_mean(key, [*known, *tag]),
                )
            )
        _check_value(value, known[key], f"{where}{key}.", path)


def _check_value(value: Any, annotation: Any, where: str, path: Path) -> None:
    if isinstance(value, list) and annotation == list[RuleSettings]:
        for place, entry in enumerate(value):
            if isinstance(entry, dict):
                _check_keys(entry, RuleSettings, f"{where.removesuffix('.')}[{place}].", path)
    if not isinstance(value, dict):
        return
    struct = _struct_of(annotation)
    if struct is not None:
        _check_keys(value, struct, where, path)
        return
    item = _item_of(annotation)
    for name, entry in value.items():
        if isinstance(entry, dict) and item is not None:
            own = f"{where}{name}."
            kind = item if isinstance(item, type) else _kind_of(entry, item, own, path)
            _check_keys(entry, kind, own, path)


def _struct_of(annotation: Any) -> type[Settings] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, Settings):
            return option
    return None


def _item_of(annotation: Any) -> type[Settings] | Mapping[str, type[Settings]] | None:
    """Return the struct of a table of tables, or the structs by their kind."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    arguments = typing.get_args(annotation)
    if len(arguments) != 2:
        return None
    if arguments[1] == SignalSettings:
        return SIGNAL_KINDS
    if isinstance(arguments[1], types.UnionType):
        return _KINDS
    return _struct_of(arguments[1])


def _kind_of(
    entry: Mapping[str, Any], kinds: Mapping[str, type[Settings]], where: str, path: Path
) -> type[Settings]:
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(
            sentence(
                f"{str(path)!r}: the key {where + 'kind'!r}",
                allowed=" or ".join(repr(name) for name in kinds),
                got=kind,
                do="name one of them",
            )
        )
    return kinds[kind]


def _wrong(path: Path, data: dict[str, Any], error: msgspec.ValidationError) -> ConfigError:
    """Turn `Expected ... - at $.server.port` into a sentence that names the key and shows its value."""
    found = mismatch(error)
    keys = _keys_of(found.place, data)
    if found.missing is not None:
        key = _shown([*keys, found.missing])
        what, do = f"{str(path)!r}: the key {key!r} is required and missing", "add it as docs/config.md says"
        return ConfigError(sentence(what, allowed="a file that has it", do=do))
    got: Any = data
    for name in keys:
        got = got[name]
    what, do = f"{str(path)!r}: the key {_shown(keys)!r} is wrong", "change it as docs/config.md says"
    allowed = " or ".join(map(repr, choices(Config, keys))) or found.allowed
    return ConfigError(sentence(what, allowed=allowed, got=got, do=do))


def _shown(keys: list[str | int]) -> str:
    """Return a place as it is written in messages, such as `rules[0].name`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _keys_of(place: str, data: Mapping[str, Any]) -> list[str | int]:
    """Return the keys that lead to a place; which entry of a table of tables it is, is found by trying."""
    table, is_entry, rest = place.partition("[...]")
    keys = keys_in(rest)
    if not is_entry:
        return keys_in(table)
    kind: Any = _ENTRIES.get(table, CandidateSettings)
    if table not in data:
        return keys_in(table)
    for name, entry in data[table].items():
        try:
            msgspec.convert(entry, kind)
        except msgspec.ValidationError:
            return [table, name, *keys]
    return [table]


_ENTRIES: dict[str, Any] = {
    "providers": ProviderSettings,
    "models": ModelSettings,
    "sequencers": SequencerSettings,
    "keys": KeySettings,
    "signals": SignalSettings,
}


def _resolve(config: Config, folder: Path) -> Config:
    providers = {name: _resolve_provider(entry, folder) for name, entry in config.providers.items()}
    sequencers = {
        name: own
        if own.artifact is None
        else msgspec.structs.replace(own, artifact=str(folder / own.artifact))
        for name, own in config.sequencers.items()
    }
    return msgspec.structs.replace(
        config,
        deployment=None if config.deployment is None else str(folder / config.deployment),
        rollout=None
        if config.rollout is None
        else msgspec.structs.replace(config.rollout, deployment=str(folder / config.rollout.deployment)),
        providers=providers,
        sequencers=sequencers,
        rules=[_resolve_rule(rule, folder) for rule in config.rules],
        signals={name: _resolve_signal(entry, folder) for name, entry in config.signals.items()},
        ledger=msgspec.structs.replace(config.ledger, path=str(folder / config.ledger.path)),
        auth=msgspec.structs.replace(config.auth, path=str(folder / config.auth.path)),
        prices=msgspec.structs.replace(
            config.prices, path=None if config.prices.path is None else str(folder / config.prices.path)
        ),
        shared=msgspec.structs.replace(
            config.shared,
            redis=None if config.shared.redis is None else resolved(config.shared.redis, folder),
            postgres=None if config.shared.postgres is None else resolved(config.shared.postgres, folder),
        ),
        keys={name: _resolve_key(key, folder) for name, key in config.keys.items()},
    )


def _resolve_rule(rule: RuleSettings, folder: Path) -> RuleSettings:
    headers = {name: resolved(value, folder) for name, value in rule.request_headers.items()}
    return msgspec.structs.replace(rule, request_headers=headers)


def _resolve_key(key: KeySettings, folder: Path) -> KeySettings:
    return key if key.secret is None else msgspec.structs.replace(key, secret=resolved(key.secret, folder))


def _resolve_provider(provider: ProviderSettings, folder: Path) -> ProviderSettings:
    if isinstance(provider, ReplaySettings):
        return msgspec.structs.replace(provider, table=str(folder / provider.table))
    if isinstance(provider, LocalSettings):
        return msgspec.structs.replace(provider, folder=str(folder / provider.folder))
    if provider.api_key is None:
        return provider
    return msgspec.structs.replace(provider, api_key=resolved(provider.api_key, folder))


def _resolve_signal(signal: SignalSettings, folder: Path) -> SignalSettings:
    if isinstance(signal, DomainSettings):
        return msgspec.structs.replace(signal, artifact=str(folder / signal.artifact))
    return signal
