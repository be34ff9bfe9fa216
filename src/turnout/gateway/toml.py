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
from turnout.gateway.config import (
    CandidateSettings,
    Config,
    LocalSettings,
    OpenAISettings,
    ProviderSettings,
    ReplaySettings,
    SequencerSettings,
    Settings,
)
from turnout.gateway.expected import mismatch

_KINDS: dict[str, type[Settings]] = {
    "openai": OpenAISettings,
    "replay": ReplaySettings,
    "local": LocalSettings,
}


def read_config(path: Path) -> Config:
    """Read, check and resolve one file; see `config.load_config`."""
    data = _read(path)
    _check_keys(data, Config, "", path)
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise _wrong(path, data, error) from error
    try:
        config.check()
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
    tag = {"kind"} if kind in _KINDS.values() else set()
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
            _check_keys(entry, _provider_kind(entry, own, path) if item is Settings else item, own, path)


def _struct_of(annotation: Any) -> type[Settings] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, Settings):
            return option
    return None


def _item_of(annotation: Any) -> type[Settings] | None:
    """Return the struct of a table of tables; `Settings` itself stands for "by its kind"."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    arguments = typing.get_args(annotation)
    if len(arguments) != 2:
        return None
    if isinstance(arguments[1], types.UnionType):
        return Settings
    return _struct_of(arguments[1])


def _provider_kind(entry: Mapping[str, Any], where: str, path: Path) -> type[Settings]:
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError(
            sentence(
                f"{str(path)!r}: the key {where + 'kind'!r}",
                allowed=" or ".join(repr(name) for name in _KINDS),
                got=kind,
                do="name one of them",
            )
        )
    return _KINDS[kind]


def _wrong(path: Path, data: dict[str, Any], error: msgspec.ValidationError) -> ConfigError:
    """Turn `Expected ... - at $.server.port` into a sentence that names the key and shows its value."""
    found = mismatch(error)
    keys = _keys_of(found.place, data)
    if found.missing is not None:
        key = ".".join([*keys, found.missing])
        what, do = f"{str(path)!r}: the key {key!r} is required and missing", "add it as docs/config.md says"
        return ConfigError(sentence(what, allowed="a file that has it", do=do))
    got: Any = data
    for name in keys:
        got = got[name]
    what, do = f"{str(path)!r}: the key {'.'.join(keys)!r} is wrong", "change it as docs/config.md says"
    return ConfigError(sentence(what, allowed=found.allowed, got=got, do=do))


def _keys_of(place: str, data: Mapping[str, Any]) -> list[str]:
    """Return the keys that lead to a place; which entry of a table of tables it is, is found by trying."""
    table, is_entry, rest = place.partition("[...]")
    keys = [name for name in rest.split(".") if name]
    if not is_entry:
        return [name for name in table.split(".") if name]
    kind: Any = {"providers": ProviderSettings, "sequencers": SequencerSettings}.get(table, CandidateSettings)
    for name, entry in data[table].items():
        try:
            msgspec.convert(entry, kind)
        except msgspec.ValidationError:
            return [table, name, *keys]
    return [table]


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
        deployment=str(folder / config.deployment),
        providers=providers,
        sequencers=sequencers,
        ledger=msgspec.structs.replace(config.ledger, path=str(folder / config.ledger.path)),
    )


def _resolve_provider(provider: ProviderSettings, folder: Path) -> ProviderSettings:
    if isinstance(provider, ReplaySettings):
        return msgspec.structs.replace(provider, table=str(folder / provider.table))
    if isinstance(provider, LocalSettings):
        return msgspec.structs.replace(provider, folder=str(folder / provider.folder))
    return provider
