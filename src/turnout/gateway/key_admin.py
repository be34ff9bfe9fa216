"""This module makes, lists and revokes keys, beside a running gateway or without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, final

import msgspec

from turnout.core.clock import SystemClock
from turnout.core.errors import InputError, sentence
from turnout.gateway.books import Books, open_books
from turnout.gateway.build import load_deployment, served_names
from turnout.gateway.config import Config
from turnout.gateway.expected import choices, keys_in, mismatch
from turnout.gateway.key import period_of
from turnout.gateway.settings import check_label
from turnout.gateway.settings_keys import KeySettings


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class KeyLine:
    """One key, as people see it."""

    name: str
    hint: str
    """How its secret begins; the settings where the secret is theirs."""
    tenant: str
    state: str
    """`in force`, `expired` or `revoked`."""
    budget_usd: float | None
    period: str | None
    spent_usd: float
    held_usd: float
    created_s: float | None
    expires_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


async def create_key(
    config: Config, name: str, section: Mapping[str, Any], *, expires_in_s: float | None = None
) -> str:
    """Make a key with the settings of a section `keys.NAME`; return its secret.

    Raises `InputError` for a name in use or a setting that is wrong, `ConfigError` for a name that cannot
    stand in a log.
    """
    check_label(f"keys.{name}", name)
    if name in config.keys:
        what = f"the settings have a section 'keys.{name}' already"
        raise InputError(sentence(what, allowed="a new name", do="choose another name"))
    try:
        settings = msgspec.convert(dict(section), KeySettings)
    except msgspec.ValidationError as error:
        found = mismatch(error)
        keys = keys_in(found.place)
        allowed = " or ".join(map(repr, choices(KeySettings, keys))) or found.allowed
        what = f"the setting {found.place!r} of the key {name!r} is wrong"
        got: Any = section
        for key in keys:
            got = got[key]
        raise InputError(sentence(what, allowed=allowed, got=got, do="change it")) from error
    if expires_in_s is not None and not expires_in_s > 0:
        what = f"the time until the key {name!r} expires"
        raise InputError(sentence(what, allowed="more than 0", got=expires_in_s, do="change it"))
    async with _books(config) as books:
        until_s = None if expires_in_s is None else SystemClock().now_s() + expires_in_s
        return await books.keys.create(name, settings, expires_s=until_s)


def model_names(config: Config) -> list[str]:
    """Return every name that clients of the gateway may ask for, as `GET /v1/models` lists them.

    Raises a `TurnoutError` where the deployment cannot be loaded here.
    """
    named = config.deployment
    return served_names(config, None if named is None else load_deployment(named))


async def list_keys(config: Config) -> list[KeyLine]:
    """Return the keys of the settings and those of the store, with what they have spent in this period."""
    async with _books(config) as books:
        lines = [
            await _line(books, name, "settings", settings, state="in force")
            for name, settings in config.keys.items()
        ]
        now_s = SystemClock().now_s()
        for one in await books.keys.listed():
            is_late = one.expires_s is not None and now_s >= one.expires_s
            state = "revoked" if one.revoked_s is not None else "expired" if is_late else "in force"
            times = {"created_s": one.created_s, "expires_s": one.expires_s}
            lines.append(await _line(books, one.name, one.hint, one.settings, state=state, **times))
        return lines


async def revoke_key(config: Config, name: str) -> None:
    """End a key of the store; raises `InputError` where there is none of this name."""
    if name in config.keys:
        what = f"the key {name!r} stands in the settings"
        raise InputError(sentence(what, allowed="a key of the store", do=f"remove the section 'keys.{name}'"))
    async with _books(config) as books:
        await books.keys.revoke(name)


@asynccontextmanager
async def _books(config: Config) -> AsyncIterator[Books]:
    books = await open_books(config, SystemClock())
    try:
        yield books
    finally:
        await books.close()


async def _line(
    books: Books,
    name: str,
    hint: str,
    settings: KeySettings,
    *,
    state: str,
    created_s: float | None = None,
    expires_s: float | None = None,
) -> KeyLine:
    period = period_of(settings.budget_period, SystemClock().now_s())[0]
    spend = await books.limits.spend(name, period)
    return KeyLine(
        name=name,
        hint=hint,
        tenant=name if settings.tenant is None else settings.tenant,
        state=state,
        budget_usd=settings.budget_usd,
        period=None if settings.budget_usd is None else period,
        spent_usd=spend.spent_usd,
        held_usd=spend.held_usd,
        created_s=created_s,
        expires_s=expires_s,
    )
