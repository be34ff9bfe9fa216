"""This module answers the admin's calls about a second deployment: how it does, promotion and rollback.

`GET /admin/rollout` compares, `POST /admin/promote` and `POST /admin/rollback` switch: the settings file
first, then the running gateway by a reload. Where the reload is refused the file is put back, so that the two
never differ.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import msgspec

from turnout.core.errors import ConfigError, TurnoutError, sentence
from turnout.gateway.build import load_deployment
from turnout.gateway.compare import Comparison, compare, objections
from turnout.gateway.config import Config, load_config
from turnout.gateway.disconnect import Receive, Scope, Send
from turnout.gateway.door import KEY
from turnout.gateway.errors import ApiError
from turnout.gateway.key import Key
from turnout.gateway.look import url_of
from turnout.gateway.parts import Parts
from turnout.gateway.promote import (
    Action,
    Switch,
    check_promotion,
    no_rollout,
    note_switch,
    promotion,
    rollback,
)
from turnout.gateway.reload import Reloader
from turnout.gateway.reply import json_reply, send_body
from turnout.gateway.rollout import RolloutDecider
from turnout.gateway.routes import Routes

ROLLOUT, PROMOTE, ROLLBACK = "/admin/rollout", "/admin/promote", "/admin/rollback"
REPLICAS = "replicas_switch_by_file"
"""Code of the refusal of a gateway that reads its settings at its start alone."""
DAYS = 30.0
"""How far back requests are compared."""

_DAY_S = 86_400.0


@final
@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings file that can be read again, and written."""

    path: Path

    def __call__(self) -> Config:
        """Read it."""
        return load_config(self.path)


@final
@dataclass(frozen=True, slots=True)
class ReplicasFile:
    """A settings file that replicas which do not know each other read at their start."""

    path: Path

    def __call__(self) -> Config:
        """Read it."""
        return load_config(self.path)


@final
class RolloutAdmin:
    """The endpoints.

    Parameters
    ----------
    reloader:
        Replaces the configuration.
    """

    def __init__(self, *, reloader: Reloader) -> None:
        self.reloader = reloader
        self._lock = asyncio.Lock()

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("GET", ROLLOUT, self.show)
        routes.add("POST", PROMOTE, self.promote)
        routes.add("POST", ROLLBACK, self.rollback)

    async def show(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say how the second deployment does beside the one in force; 409 where there is none."""
        parts = self.reloader.gateway.parts
        try:
            rollout, found = await self._compared(parts)
        except TurnoutError as error:
            raise _refused("there is nothing to compare", error) from error
        body = {
            "share": rollout.settings.share,
            "sticky_by": rollout.settings.sticky_by,
            "shadow": {why: number for (why,), number in rollout.missing().items()},
            "comparison": msgspec.to_builtins(found),
            "objections": objections(found, rollout.settings),
        }
        await send_body(send, json_reply(body), [], is_estimated=False)

    async def promote(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put the second deployment in force; 409 where it is not shown to be good enough, but `?force`."""
        is_forced = scope["query_string"].startswith(b"force")
        self._check_alone("nothing was promoted")
        async with self._lock:
            parts = self.reloader.gateway.parts
            try:
                path = self._path()
                rollout, found = await self._compared(parts)
                if not is_forced:
                    check_promotion(found, rollout.settings)
                switch = await asyncio.to_thread(promotion, path)
                self._check_in_force(switch, parts)
            except TurnoutError as error:
                raise _refused("nothing was promoted", error) from error
            body = await self._switch(switch, scope, is_forced=is_forced, evidence=found)
        await send_body(send, json_reply(body), [], is_estimated=False)

    async def rollback(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the last promotion back, or else end the canary; 409 for neither."""
        self._check_alone("nothing was rolled back")
        async with self._lock:
            parts = self.reloader.gateway.parts
            try:
                switch = await asyncio.to_thread(
                    rollback, self._path(), parts.ledger.path, url_of(parts.ledger.sender)
                )
            except TurnoutError as error:
                raise _refused("nothing was rolled back", error) from error
            body = await self._switch(switch, scope, is_forced=False, evidence=None)
        await send_body(send, json_reply(body), [], is_estimated=False)

    def _check_alone(self, what: str) -> None:
        """Raise `ApiError` (409) in a replica: one that switched would leave the others behind."""
        source = self.reloader.source
        if isinstance(source, ReplicasFile):
            message = sentence(
                f"{what}; a replica on Ray cannot switch the others",
                allowed="a switch of the settings file, which all of them read at their start",
                do=f"run `turnout promote` or `turnout rollback` with {str(source.path)!r} where that file "
                "lies, and then `serve deploy` (or `serve run`) again, which replaces the replicas",
            )
            raise ApiError(409, message, code=REPLICAS)

    async def _compared(self, parts: Parts) -> tuple[RolloutDecider, Comparison]:
        rollout = parts.rollout
        if rollout is None:
            raise no_rollout()
        return rollout, await asyncio.to_thread(
            compare,
            parts.ledger.path,
            parts.selector.fingerprint or "",
            rollout.canary.selector.fingerprint or "",
            url=url_of(parts.ledger.sender),
            confidence=rollout.settings.confidence,
            since_s=parts.clock.now_s() - DAYS * _DAY_S,
        )

    def _path(self) -> Path:
        source = self.reloader.source
        if not isinstance(source, SettingsFile):
            raise ConfigError(
                sentence(
                    "this gateway has no settings file to change",
                    allowed="a gateway that was started with the path of one",
                    do="start it with `turnout serve FILE`",
                )
            )
        return source.path

    def _check_in_force(self, switch: Switch, parts: Parts) -> None:
        """Raise where the file names other deployments than those that were compared."""
        named, held = load_config(switch.path), parts.config
        assert named.rollout is not None
        assert held.rollout is not None
        if (named.deployment, named.rollout.deployment) != (held.deployment, held.rollout.deployment):
            what = "the settings file names other deployments than the gateway runs with"
            allowed = "the two that were compared"
            raise ConfigError(sentence(what, allowed=allowed, do="reload it first, and compare those"))

    async def _switch(
        self, switch: Switch, scope: Scope, *, is_forced: bool, evidence: Comparison | None
    ) -> dict[str, Any]:
        """Note the switch, write the file, reload; where that is refused, put the file back and say so."""
        before = self.reloader.gateway.parts
        key: Key | None = scope.get(KEY)

        def note(action: Action) -> None:
            note_switch(
                before.ledger.path,
                switch,
                action=action,
                now_s=before.clock.now_s(),
                fingerprints=fingerprints,
                is_forced=is_forced,
                who=None if key is None else key.name,
                evidence=evidence,
                is_shared=before.ledger.sender is not None,
            )

        try:
            fingerprints = await asyncio.to_thread(_fingerprints, switch, before)
            # First the note: a switch that a crash leaves without one would be nobody's.
            await asyncio.to_thread(note, switch.action)
            try:
                await asyncio.to_thread(switch.apply)
                try:
                    await self.reloader.reload()
                except BaseException:
                    switch.undo()
                    raise
            except BaseException:
                await asyncio.to_thread(note, "undone")
                raise
        except TurnoutError as error:
            raise _refused("the switch was taken back, and nothing has changed", error) from error
        if self.reloader.on_reload is not None:
            self.reloader.on_reload()
        return switched(switch, fingerprints)


def _fingerprints(switch: Switch, parts: Parts) -> tuple[str, str]:
    """Return the names of what is in force and what will be; raises where the latter cannot be loaded."""
    live = parts.selector.fingerprint or ""
    if switch.before == switch.after:
        return live, live
    return live, load_deployment(str(switch.path.parent / switch.after)).fingerprint


def switched(switch: Switch, fingerprints: tuple[str, str]) -> dict[str, Any]:
    """Return what is told of a switch."""
    return {
        "object": "turnout.switch",
        "action": switch.action,
        "before": {"deployment": switch.before, "fingerprint": fingerprints[0]},
        "after": {"deployment": switch.after, "fingerprint": fingerprints[1]},
    }


def _refused(what: str, error: TurnoutError) -> ApiError:
    return ApiError(409, f"{what}; {error}", code="not_switched")
