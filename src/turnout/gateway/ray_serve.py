"""This module puts the gateway on Ray Serve: replicas that Ray starts, spreads over hosts and replaces.

Ray's own proxy accepts the connections; each replica is one gateway, as one worker of `turnout serve` is.
Replicas of one host share the files beside the ledger; those of several hosts share what the section `shared`
names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from turnout.core.errors import ConfigError, InputError, sentence
from turnout.gateway.app import Gateway, build_app
from turnout.gateway.config import load_config
from turnout.gateway.disconnect import CANCELLED_IS_GONE, Receive, Scope, Send
from turnout.gateway.lifecycle import set_up_telemetry
from turnout.gateway.rollout_admin import ReplicasFile

if TYPE_CHECKING:
    from ray.serve import Application

NAME = "turnout"
"""Name of the deployment in Ray."""

_ARGUMENTS = ("path", "num_replicas", "num_cpus")


def application(
    path: str | Path, *, num_replicas: int = 1, num_cpus: float = 1.0, **options: Any
) -> Application:
    """Return what `ray.serve.run` takes; the settings are checked here, before Ray is asked for anything.

    Raises `ConfigError` for wrong settings, or where Ray Serve is not installed.

    Parameters
    ----------
    path:
        The settings, at the same path on every host.
    num_replicas:
        Gateways. `server.host` and `server.port` have no meaning here: Ray's proxy has them.
    num_cpus:
        Cores that Ray keeps for one of them.
    options:
        Further options of `ray.serve.deployment`, such as `autoscaling_config`.
    """
    if num_replicas < 1:
        what = "the number of replicas is wrong"
        raise InputError(sentence(what, allowed="at least 1", got=num_replicas, do="start one or more"))
    settings = str(Path(path).resolve())
    load_config(settings)
    try:
        from ray import serve
    except ImportError as error:
        what, do = "Ray Serve is not installed", "run pip install 'turnout[serve]'"
        raise ConfigError(sentence(what, allowed="ray[serve]", got=str(error), do=do)) from error

    def build() -> BehindProxy:
        return BehindProxy(build_replica(settings))

    @serve.ingress(build)
    class Replica:
        """One gateway; its paths are the gateway's own."""

    options = {"max_ongoing_requests": 1000, **options}
    made = serve.deployment(
        name=NAME, num_replicas=num_replicas, ray_actor_options={"num_cpus": num_cpus}, **options
    )
    bound: Application = made(Replica).bind()
    return bound


def from_arguments(arguments: Mapping[str, str]) -> Application:
    """Return the application for the texts of `serve run` and of Ray's own configuration files.

    Raises `ConfigError` for an argument that is unknown, missing, or no number.
    """
    unknown = sorted(set(arguments) - set(_ARGUMENTS))
    if unknown or "path" not in arguments:
        raise ConfigError(
            sentence(
                "the arguments of the gateway on Ray are wrong",
                allowed=f"'path', and perhaps {', '.join(_ARGUMENTS[1:])}",
                got=", ".join(arguments) or "none",
                do="write path=turnout.toml",
            )
        )
    try:
        counts = int(arguments.get("num_replicas", "1")), float(arguments.get("num_cpus", "1"))
    except ValueError as error:
        what, allowed = "an argument of the gateway on Ray is no number", "num_replicas=2, num_cpus=0.5"
        raise ConfigError(sentence(what, allowed=allowed, got=str(error), do="write a number")) from error
    return application(arguments["path"], num_replicas=counts[0], num_cpus=counts[1])


@final
class BehindProxy:
    """A gateway whose server cancels a request when its client leaves, sometimes before it says so."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        scope[CANCELLED_IS_GONE] = True
        await self._gateway(scope, receive, send)


def build_replica(path: str) -> Gateway:
    """Return the app of one replica, in the process that Ray has started for it."""
    source = ReplicasFile(Path(path))
    settings = source()
    set_up_telemetry(settings)
    return build_app(settings, source=source)
