"""This module is the ASGI callable: a table of paths, and the parts that live from start to shutdown."""

from __future__ import annotations

import asyncio
import logging
from typing import final

import msgspec

from turnout.core import artifact
from turnout.core.clock import Clock, SystemClock
from turnout.core.errors import ConfigError, InputError, TurnoutError, did_you_mean, sentence
from turnout.core.query import Query
from turnout.core.rng import make_rng
from turnout.gateway.caps import unkept
from turnout.gateway.chat import ChatHandler
from turnout.gateway.config import Config
from turnout.gateway.disconnect import Message, Receive, Scope, Send
from turnout.gateway.errors import ApiError, unknown_model, unknown_path, wrong_method
from turnout.gateway.ledger import Ledger
from turnout.gateway.providers import build
from turnout.gateway.providers.base import Provider, Reply
from turnout.gateway.reply import send_body, send_error
from turnout.gateway.select import Selector
from turnout.gateway.wire import MODELS
from turnout.policies.deployment import Deployment

logger = logging.getLogger(__name__)

CHAT = "/v1/chat/completions"
HEALTH = "/healthz"

_JSON = [(b"content-type", b"application/json")]
_LAST_CALLS_S = 1.0


@final
class Gateway:
    """The ASGI app; its lifespan opens and closes the ledger and the clients.

    Parameters
    ----------
    config:
        The settings.
    deployment:
        What decides.
    providers:
        Who answers, by the name that the configuration gives them.
    clock:
        What time it is.
    """

    def __init__(
        self,
        *,
        config: Config,
        deployment: Deployment,
        providers: dict[str, Provider],
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self.providers = providers
        self.clock = SystemClock() if clock is None else clock
        self.ledger = Ledger(settings=config.ledger, clock=self.clock)
        self.selector = Selector(
            deployment=deployment,
            alias=config.routing.alias,
            goal=None if config.goal is None else config.goal.goal(),
            rng=make_rng(config.routing.seed, "gateway"),
            pace=config.routing.pace,
        )
        self.chat = ChatHandler(
            config=config,
            selector=self.selector,
            providers=providers,
            ledger=self.ledger,
            clock=self.clock,
        )
        self.notices: tuple[str, ...] = ()
        self.startup_error: TurnoutError | None = None
        self.num_running = 0
        self._created_s = int(self.clock.now_s())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            self.num_running += 1
            try:
                await self._route(scope, receive, send)
            finally:
                self.num_running -= 1
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def start(self) -> None:
        """Open the ledger and the clients, and decide once so that no client waits for a first time."""
        first = Query(id="start", text="a first question")
        self.selector.deployment.decide([first], goal=self.selector.goal)
        self.notices = self.ledger.open() + unkept(self.selector.deployment, self.selector.goal)
        for provider in self.providers.values():
            await provider.start()

    async def stop(self) -> None:
        """Let requests that were cut write their rows, then close clients and ledger."""
        waited_s = 0.0
        while self.num_running and waited_s < _LAST_CALLS_S:
            await asyncio.sleep(0.01)
            waited_s += 0.01
        for provider in self.providers.values():
            await provider.close()
        self.ledger.close()

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        method: str = scope["method"]
        if path == CHAT and method == "POST":
            await self.chat.handle(scope, receive, send)
            return
        try:
            reply = self._read_only(path, method)
        except ApiError as error:
            await send_error(send, error, [])
            return
        await send_body(send, reply, [], is_estimated=False)

    def _read_only(self, path: str, method: str) -> Reply:
        """Answer the paths that change nothing; raises `ApiError` for 404 and 405."""
        if path == CHAT:
            raise wrong_method(path, method, "POST")
        if path not in (MODELS, HEALTH) and not path.startswith(MODELS + "/"):
            raise unknown_path(path)
        if method not in ("GET", "HEAD"):
            raise wrong_method(path, method, "GET")
        if path == HEALTH:
            return self._health()
        names = list(
            dict.fromkeys([self.config.routing.alias, *self.chat.sequences.sequences, *self.selector.by_name])
        )
        if path == MODELS:
            return _json({"object": "list", "data": [self._model(name) for name in names]})
        name = path.removeprefix(MODELS + "/")
        if name not in names:
            raise unknown_model(name, names)
        return _json(self._model(name))

    def _model(self, name: str) -> dict[str, object]:
        owner = "turnout"
        if name in self.selector.by_name:
            owner = self.config.provider_of(name)
        return {"id": name, "object": "model", "created": self._created_s, "owned_by": owner}

    def _health(self) -> Reply:
        failure = self.ledger.failure
        state = "ok" if failure is None else "ledger cannot be written"
        body = {
            "status": state,
            "deployment": self.selector.deployment.fingerprint,
            "candidates": len(self.selector.by_name),
        }
        return _json(body, status=200 if failure is None else 503)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message: Message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.start()
                except TurnoutError as error:
                    self.startup_error = error
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def build_app(config: Config, *, deployment: Deployment | None = None) -> Gateway:
    """Load the deployment (unless one is given) and the providers; opens no socket and no ledger.

    Raises `ArtifactError`, `TableError` or `ConfigError`.
    """
    config.check()
    loaded = load_deployment(config.deployment) if deployment is None else deployment
    known = [candidate.name for candidate in loaded.candidates]
    for name in config.candidates:
        if name not in known:
            raise ConfigError(
                sentence(
                    f"the section 'candidates.{name}' names no candidate of the deployment",
                    allowed=f"one of its {len(known)} candidates",
                    got=name,
                    do=did_you_mean(name, known),
                )
            )
    providers = {name: build(name, settings) for name, settings in config.providers.items()}
    try:
        return Gateway(config=config, deployment=loaded, providers=providers)
    except ConfigError:
        raise
    except InputError as error:
        raise ConfigError(f"the section 'goal' cannot be served; {error}") from error


def load_deployment(folder: str) -> Deployment:
    """Load a deployment; raises `ArtifactError`, or `ConfigError` for an artifact of another kind."""
    loaded = artifact.load(folder)
    if not isinstance(loaded, Deployment):
        raise ConfigError(
            sentence(
                f"the artifact {folder!r} is not a deployment",
                allowed="a folder that `turnout fit` wrote",
                got=type(loaded).__name__,
                do="name such a folder in the setting 'deployment'",
            )
        )
    return loaded


def _json(value: object, *, status: int = 200) -> Reply:
    return Reply(status=status, headers=_JSON, body=msgspec.json.encode(value))
