"""This module is the ASGI callable: a table of paths, and the parts that live from start to shutdown."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Coroutine
from typing import Any, final

from turnout.core.clock import Clock, SystemClock
from turnout.core.errors import TurnoutError
from turnout.core.query import Query
from turnout.gateway.admin import Admin
from turnout.gateway.board import PERIOD_S, Board
from turnout.gateway.build import Built, build_all
from turnout.gateway.caps import unkept
from turnout.gateway.central import Sender
from turnout.gateway.config import Config
from turnout.gateway.conversations import Conversations
from turnout.gateway.disconnect import ClientGoneError, Message, Receive, Scope, Send
from turnout.gateway.door import guard, open_admission
from turnout.gateway.endpoints import ReadOnly
from turnout.gateway.errors import ApiError
from turnout.gateway.exchange import Exchange
from turnout.gateway.explain import Explain
from turnout.gateway.feedback import Feedback
from turnout.gateway.flow import serve_exchange
from turnout.gateway.input_tokens import InputTokens
from turnout.gateway.ledger import Ledger
from turnout.gateway.metrics_text import snapshot_of
from turnout.gateway.pages import check_page
from turnout.gateway.pins_store import PinStore, SqlitePins, file_beside
from turnout.gateway.prices import stale_notice, uncounted_notice
from turnout.gateway.protocols import PROTOCOLS
from turnout.gateway.protocols.base import Protocol
from turnout.gateway.reload import Reloader
from turnout.gateway.reply import send_error
from turnout.gateway.rollout_admin import RolloutAdmin
from turnout.gateway.routes import Handler, Routes
from turnout.gateway.shared import check_redis, redis_client
from turnout.gateway.shared_breakers import SharedBreakers
from turnout.gateway.stored import StoredResponses
from turnout.gateway.stored_chat import StoredChat
from turnout.gateway.ui.endpoints import Ui
from turnout.policies.deployment import Deployment

logger = logging.getLogger(__name__)

_CLOSE_S = 5.0
"""Longest that the end waits for what other hosts hold."""
_CANCELS = 10
_LAST_CALLS_S = 1.0


@final
class Gateway:
    """The ASGI app; its lifespan opens and closes the ledger and the clients.

    Parameters
    ----------
    built:
        What the settings name.
    given:
        A deployment that stands for the artifact, where it was given in memory.
    source:
        Reads the settings again; None where they were given in memory.
    clock:
        What time it is.
    """

    def __init__(
        self,
        *,
        built: Built,
        given: Deployment | None = None,
        source: Callable[[], Config] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = SystemClock() if clock is None else clock
        self.keys = built.keys
        self.given = given
        self.reloader = Reloader(gateway=self, source=source)
        ledger = Ledger(settings=built.config.ledger, clock=self.clock)
        if (url := built.config.shared.central) is not None:
            ledger.sender = Sender(url=url, path=ledger.path)
        self.parts = built.parts(ledger=ledger, clock=self.clock)
        self.routes = Routes()
        # What asks a model is let in by its own steps, so that a refusal has a row and the words of its API.
        self._accounted = frozenset(protocol.path for protocol in PROTOCOLS)
        for protocol in PROTOCOLS:
            self.routes.add("POST", protocol.path, self._answers(protocol))
        for endpoint in (ReadOnly, Explain, Feedback, InputTokens, StoredResponses, Conversations, Ui):
            endpoint(parts=lambda: self.parts).add_to(self.routes)
        StoredChat().add_to(self.routes)
        for calls in (Admin, RolloutAdmin):
            calls(reloader=self.reloader).add_to(self.routes)
        self.notices: tuple[str, ...] = ()
        self.startup_error: TurnoutError | None = None
        self.num_running = 0
        self._beside: list[asyncio.Task[None]] = []

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self.parts.config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            self.num_running += 1
            try:
                handler = self.routes.find(scope)
                if scope["path"] not in self._accounted:
                    await guard(scope, self.parts.admission, self.parts.config.server)
                elif self.parts.admission is None:
                    check_page(scope, self.parts.config.server)
                await handler(scope, receive, send)
            except ApiError as error:
                await send_error(send, error, [])
            except ClientGoneError:
                return  # nobody is left to be told anything
            finally:
                self.num_running -= 1
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def start(self) -> None:
        """Open the ledger and the clients, and decide once so that no client waits for a first time."""
        selector, ledger = self.parts.selector, self.parts.ledger
        deployment = selector.deployment
        if deployment is not None:
            deployment.decide([Query(id="start", text="a first question")], goal=selector.goal)
        away = await check_redis(self.config.shared)
        self.notices = ledger.open() + away
        if deployment is not None:
            self.notices += unkept(deployment, selector.goal)
            self.notices += uncounted_notice(self.parts.prices, deployment)
        self.notices += stale_notice(self.parts.prices, self.config.prices, self.clock.now_s())
        admission = await open_admission(self.config, self.keys, self.clock)
        self.parts = dataclasses.replace(self.parts, admission=admission)
        self.parts.pins.store = self._pin_store()
        for provider in self.parts.providers.values():
            await provider.start()
        self.parts.check_models()
        if self.parts.metrics.board is not None:
            self._beside.append(asyncio.create_task(self._write_numbers(self.parts.metrics.board)))
        if self.config.shared.redis is not None:
            self._beside.append(asyncio.create_task(self._share_breakers()))

    async def stop(self) -> None:
        """Let requests that were cut write their rows, then close clients and ledger."""
        waited_s = 0.0
        while self.num_running and waited_s < _LAST_CALLS_S:
            await asyncio.sleep(0.01)
            waited_s += 0.01
        await self.parts.errands.close()
        await _end(self._beside)
        if self.parts.metrics.board is not None:
            self.parts.metrics.board.write(snapshot_of(self.parts))
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self.reloader.close()
        except TimeoutError:
            logger.warning("what a reload had replaced was not closed in time")
        for provider in self.parts.providers.values():
            await provider.close()
        if self.parts.admission is not None:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await self.parts.admission.close()
            except TimeoutError:
                logger.warning("the count of spend and rates was not closed in time")
        if self.parts.rollout is not None:
            self.parts.rollout.close()
        if self.parts.rules is not None:
            self.parts.rules.close()
        if self.parts.pins.store is not None:
            await self.parts.pins.store.close()
        self.parts.ledger.close()

    def _pin_store(self) -> PinStore:
        """Return where workers and hosts find what one of them made."""
        if self.config.shared.redis is None:
            return SqlitePins(path=file_beside(self.parts.ledger.path))
        from turnout.gateway.pins_redis import RedisPins

        return RedisPins(client=redis_client(self.config.shared), prefix=self.config.shared.redis_prefix)

    async def _write_numbers(self, board: Board) -> None:
        while True:
            board.write(snapshot_of(self.parts))
            await asyncio.sleep(PERIOD_S)

    async def _share_breakers(self) -> None:
        client = redis_client(self.config.shared)
        try:
            await SharedBreakers(
                client=client,
                breakers=lambda: self.parts.breakers,
                clock=self.clock,
                prefix=self.config.shared.redis_prefix,
            ).run()
        finally:
            await client.aclose()

    def _answers(self, protocol: Protocol) -> Handler:
        """Return the handler of a protocol's path."""

        # No coroutine of its own: each that waits for another one costs a request as much as a look-up.
        def handle(scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
            return serve_exchange(
                Exchange(parts=self.parts, protocol=protocol, scope=scope, receive=receive, send=send)
            )

        return handle

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


def build_app(
    config: Config, *, deployment: Deployment | None = None, source: Callable[[], Config] | None = None
) -> Gateway:
    """Load the deployment (unless one is given) and the providers; opens no socket and no ledger.

    `source` reads the settings again, for a reload. Raises `ArtifactError`, `TableError` or `ConfigError`.
    """
    return Gateway(built=build_all(config, deployment=deployment), given=deployment, source=source)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks until they end: a client may swallow a cancellation while it closes a connection."""
    pending = set(tasks)
    for _ in range(_CANCELS):
        if not pending:
            return
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_CLOSE_S / _CANCELS)
        await asyncio.gather(*done, return_exceptions=True)
