"""This module puts a new configuration in the place of the one in force: all of it, or nothing.

It is read, checked and built whole beside the running gateway. Only then one assignment makes it the one in
force: requests that run keep the parts they began with, and those parts are closed when the last of them has
ended. A configuration that is wrong in any way changes nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from turnout.core.errors import ConfigError, sentence
from turnout.gateway.build import build_all
from turnout.gateway.config import Config
from turnout.gateway.diff import Change, differences
from turnout.gateway.door import open_admission
from turnout.gateway.parts import Parts
from turnout.gateway.providers.base import Provider

if TYPE_CHECKING:
    from turnout.gateway.app import Gateway

logger = logging.getLogger(__name__)

_POLL_S = 0.05


@final
class Reloader:
    """Reloads one gateway.

    Parameters
    ----------
    gateway:
        Whose parts are replaced.
    source:
        Reads the configuration; None where the gateway was given its settings in memory.
    """

    def __init__(self, *, gateway: Gateway, source: Callable[[], Config] | None) -> None:
        self.gateway = gateway
        self.source = source
        self.on_reload: Callable[[], None] | None = None
        """Told of a reload over HTTP, which reaches one worker of several."""
        self._lock = asyncio.Lock()
        self._is_closing = False
        self._retiring: set[asyncio.Task[None]] = set()

    async def reload(self, *, only_check: bool = False) -> list[Change]:
        """Replace the configuration and return what changed; raises as `build_app` does.

        Whatever is raised, nothing has changed. `only_check` stops before the replacement.
        """
        async with self._lock:
            before = self.gateway.parts
            config = await asyncio.to_thread(self._read)
            changes = differences(before.config, config)
            _check_restart(changes)
            given = self.gateway.given if config.deployment == before.config.deployment else None
            built = await asyncio.to_thread(build_all, config, deployment=given, before=before)
            after = built.parts(ledger=before.ledger, clock=before.clock)
            changes += _new_deployment(before, after)
            if only_check:
                return changes
            fresh = [one for one in after.providers.values() if one not in before.providers.values()]
            admission = await open_admission(config, built.keys, before.clock)
            started: list[Provider] = []
            try:
                for provider in fresh:
                    await provider.start()
                    started.append(provider)
                after.check_models()
            except BaseException:
                for provider in started:
                    await provider.close()
                if admission is not None:
                    await admission.close()
                raise
            self._swap(before, dataclasses.replace(after, admission=admission))
            for change in changes:
                logger.warning("setting %s", change)
            return changes

    async def close(self) -> None:
        """Close parts whose requests have ended or were cut."""
        self._is_closing = True
        await asyncio.gather(*self._retiring)

    def _read(self) -> Config:
        if self.source is None:
            raise ConfigError(
                sentence(
                    "this gateway has no settings file",
                    allowed="a gateway that was started with the path of one",
                    do="start it with `turnout serve FILE`",
                )
            )
        return self.source()

    def _swap(self, before: Parts, after: Parts) -> None:
        """Make the new parts the ones in force; what counts and remembers is taken over."""
        after.breakers.carry_over(before.breakers)
        if after.warmth is not None and before.warmth is not None:
            after.warmth.carry_over(before.warmth)
        if after.rules is not None and before.rules is not None:
            after.rules.carry_over(before.rules)
        before.gate.settings = after.config.server
        before.ledger.settings = after.config.ledger
        self.gateway.parts = dataclasses.replace(
            after, gate=before.gate, pins=before.pins, metrics=before.metrics, errands=before.errands
        )
        task = asyncio.create_task(self._retire(before, after))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, before: Parts, after: Parts) -> None:
        """Close what only the old parts used, once their last request has ended."""
        while before.running.count and not self._is_closing:  # noqa: ASYNC110 (requests count themselves)
            await asyncio.sleep(_POLL_S)
        for provider in before.providers.values():
            if provider not in after.providers.values():
                await provider.close()
        if before.rollout is not None:
            before.rollout.close()
        if before.rules is not None:
            before.rules.close()
        if before.admission is not None:
            await before.admission.close()


def _new_deployment(before: Parts, after: Parts) -> list[Change]:
    """Return the change of an artifact whose folder has the same name and another content."""
    old, new = before.selector.fingerprint, after.selector.fingerprint
    return [] if old == new else [Change(key="deployment (fingerprint)", before=old, after=new)]


def _check_restart(changes: list[Change]) -> None:
    fixed = [change for change in changes if change.needs_restart]
    if fixed:
        raise ConfigError(
            sentence(
                f"a running gateway cannot change {', '.join(repr(change.key) for change in fixed)}",
                allowed="the value it was started with",
                got=fixed[0].after,
                do="put it back, or restart the gateway",
            )
        )
