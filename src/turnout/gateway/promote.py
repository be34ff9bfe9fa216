"""This module puts a second deployment in the place of the one in force, and takes that back.

The settings file stays the one truth. A promotion exchanges two names in it, `deployment` and
`rollout.deployment`, and sets the canary's share to 0, so that the old one decides on in the shadow and a
rollback is the same exchange. What changed, who did it and on which evidence is written into the ledger.
"""

from __future__ import annotations

import secrets
import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import msgspec

from turnout.core.errors import ConfigError, InputError, sentence
from turnout.gateway.central import NOTE, outbox_row
from turnout.gateway.compare import Comparison, as_json, objections
from turnout.gateway.config import load_config
from turnout.gateway.look import Look, look_at, look_at_file
from turnout.gateway.schema import SwitchRow, insert_statement, migrate
from turnout.gateway.settings_models import HOW
from turnout.gateway.settings_rollout import RolloutSettings
from turnout.gateway.toml_edit import Key, edited, replace_file

Action = Literal["promote", "rollback", "stop_canary", "undone"]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Switch:
    """A change of the settings file that is about to be made."""

    action: Action
    path: Path
    text_before: str
    text_after: str
    before: str
    """Folder of the deployment in force, as the file names it."""
    after: str

    def apply(self) -> None:
        """Write the file; raises `ConfigError` where it cannot be, and where it has changed since."""
        self._replace(self.text_before, self.text_after)

    def undo(self) -> None:
        """Write what was there before."""
        self._replace(self.text_after, self.text_before)

    def _replace(self, old: str, new: str) -> None:
        try:
            if _read(self.path) != old:
                what = f"the settings file {str(self.path)!r} was changed by somebody else meanwhile"
                raise ConfigError(
                    sentence(what, allowed="the file as it was read", do="look at it, and try again")
                )
            replace_file(self.path, new)
        except OSError as error:
            raise ConfigError(
                sentence(
                    f"the settings file {str(self.path)!r} cannot be written",
                    allowed="a file and a folder that one may write to",
                    got=error.strerror,
                    do="exchange 'deployment' and 'rollout.deployment' by hand, and reload",
                )
            ) from error


def promotion(path: Path) -> Switch:
    """Return the exchange of the two deployments; raises `ConfigError` where there is no second one."""
    load_config(path)
    text = _read(path)
    data = tomllib.loads(text)
    rollout = data.get("rollout")
    if not isinstance(rollout, dict):
        raise no_rollout()
    before, after = _in_force(data), str(rollout["deployment"])
    return _switch("promote", path, text, rollout, before, after)


def rollback(path: Path, ledger: str | Path, url: str | None = None) -> Switch:
    """Return what takes the last promotion back, or else ends a canary; raises `ConfigError` for neither.

    `url` is the PostgreSQL that knows the promotions of all hosts.
    """
    load_config(path)
    text = _read(path)
    data = tomllib.loads(text)
    rollout = data.get("rollout")
    in_force = _in_force(data)
    known = [row for row in last_switches(ledger, url) if (row.action, row.after) == ("promote", in_force)]
    if known:
        last = max(known, key=lambda row: row.time_s)
        return _switch("rollback", path, text, rollout, in_force, last.before)
    if isinstance(rollout, dict) and rollout.get("share", 0.0) > 0.0:
        changed = edited(text, {("rollout", "share"): 0.0})
        return Switch(
            action="stop_canary",
            path=path,
            text_before=text,
            text_after=changed,
            before=in_force,
            after=in_force,
        )
    raise ConfigError(
        sentence(
            "there is nothing to roll back",
            allowed="a promotion whose deployment is still in force, or a canary with a share",
            got=f"deployment {in_force!r}, and no promotion of it in the ledger",
            do="name another 'deployment' in the settings, and reload",
        )
    )


def _in_force(data: dict[str, Any]) -> str:
    """Return the deployment that a file names; raises `ConfigError` for one without."""
    if "deployment" not in data:
        raise ConfigError(
            sentence(
                "there is no deployment in force that another one could take the place of",
                allowed="a settings file with a 'deployment'",
                do=HOW,
            )
        )
    return str(data["deployment"])


def _switch(action: Action, path: Path, text: str, rollout: object, before: str, after: str) -> Switch:
    changes: dict[Key, str | float] = {("deployment",): after}
    if isinstance(rollout, dict):
        changes["rollout", "deployment"] = before
        if "share" in rollout:
            changes["rollout", "share"] = 0.0
    return Switch(
        action=action,
        path=path,
        text_before=text,
        text_after=edited(text, changes),
        before=before,
        after=after,
    )


def check_promotion(found: Comparison, settings: RolloutSettings) -> None:
    """Raise `InputError` that says all that speaks against a promotion."""
    said = objections(found, settings)
    if said:
        raise InputError(
            sentence(
                "the second deployment is not shown to be good enough: " + "; ".join(said),
                allowed="one that is shown to be within the margins of 'rollout'",
                do="wait for more requests, widen these margins, or force it (--force, or ?force)",
            )
        )


def last_switches(ledger: str | Path, url: str | None = None) -> list[SwitchRow]:
    """Return the last promotion or rollback that a ledger knows, and the last of all hosts.

    Hosts may share their settings file or have one each, and a host's own last switch may still be on its
    way to PostgreSQL: which of the two counts, the deployment in force tells.
    """
    names = ", ".join(SwitchRow.__struct_fields__)
    query = f"SELECT {names} FROM {{switches}} WHERE action != 'stop_canary' ORDER BY time_s DESC LIMIT 1"

    def ask(look: Look) -> list[SwitchRow]:
        return [msgspec.convert(row, SwitchRow, strict=False) for row in look.rows(query, {})]

    path = Path(ledger)
    with _opened(path):  # brings it up to date, or makes it, as the gateway's next start would
        found = look_at_file(path, ask)
    if url is not None:
        found += look_at(path, url, ask)
    return found


def note_switch(
    ledger: str | Path,
    switch: Switch,
    *,
    action: Action,
    now_s: float,
    fingerprints: tuple[str, str],
    is_forced: bool,
    who: str | None,
    evidence: Comparison | None,
    is_shared: bool,
) -> None:
    """Write a switch into the ledger; beside a gateway that runs, too.

    `is_shared` says that it is sent on to a PostgreSQL, as every row of the gateway is.
    """
    row = SwitchRow(
        time_s=now_s,
        action=action,
        before=switch.before,
        before_fingerprint=fingerprints[0],
        after=switch.after,
        after_fingerprint=fingerprints[1],
        is_forced=is_forced,
        who=who,
        evidence=None if evidence is None else as_json(evidence).decode(),
    )
    with _opened(ledger) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(insert_statement(SwitchRow, "switches"), msgspec.structs.astuple(row))
        if is_shared:
            connection.execute(NOTE, (f"switch-{secrets.token_hex(8)}", *outbox_row(row)))


def no_rollout() -> ConfigError:
    """Return the error of settings without a second deployment."""
    return ConfigError(
        sentence(
            "there is no second deployment to promote",
            allowed="settings with a section 'rollout'",
            do="add it with its 'deployment', reload, and let it decide in the shadow for a while",
        )
    )


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


@contextmanager
def _opened(ledger: str | Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(ledger, isolation_level=None, timeout=10.0)) as connection:
            migrate(connection, now_s=0.0, where=str(ledger))
            yield connection
    except sqlite3.Error as error:
        raise InputError(
            sentence(
                f"the ledger {str(ledger)!r} cannot take a switch",
                allowed="a SQLite file that a turnout gateway wrote, and that one may write to",
                got=str(error),
                do="switch nothing before that is mended",
            )
        ) from error
