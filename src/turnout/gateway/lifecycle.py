"""This module runs the gateway: a bound socket, signals, a drain, and a ledger that is closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast, final

import uvicorn

from turnout.core.errors import ConfigError, sentence
from turnout.gateway.address import BACKLOG, bind, is_on_loopback, open_door_notice, shown_address
from turnout.gateway.app import Gateway, build_app
from turnout.gateway.attended import AttendedProtocol
from turnout.gateway.config import Config, load_config
from turnout.gateway.garbage import RareSearch
from turnout.gateway.one_thread import OneThread
from turnout.gateway.rollout_admin import SettingsFile
from turnout.policies.deployment import Deployment

logger = logging.getLogger(__name__)

_START_S = 60.0
_LEAVE_S = 5.0
"""How long others are let in after SIGTERM, beyond loopback: Kubernetes takes some seconds to tell them."""
_START_FAILED = "Application startup failed. Exiting."


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A gateway that accepts connections."""

    base_url: str
    """What an OpenAI client takes as its `base_url`."""
    notices: tuple[str, ...]
    """Sentences that whoever started it should read."""


OnReady = Callable[[Ready], None]


def serve(
    config: Config | str | Path,
    *,
    deployment: Deployment | None = None,
    ready: OnReady | None = None,
    workers: int = 1,
) -> None:
    """Serve until SIGINT or SIGTERM, then drain, close the ledger and return; main thread only.

    `ready` is called once, when the socket accepts; without it, notices are logged. Several `workers` are
    processes that share the port; they read the settings from a file. Raises `ConfigError` (a wrong
    setting, a taken port), `ArtifactError` or `TableError` before that.
    """
    if workers > 1:
        _serve_crew(config, deployment, ready, workers)
        return
    source = None if isinstance(config, Config) else SettingsFile(Path(config))
    settings = config if isinstance(config, Config) else load_config(config)
    server = _prepare(settings, deployment, ready, source)
    stop = set_up_telemetry(settings)
    try:
        server.run_bound()
    finally:
        stop()


def _serve_crew(
    config: Config | str | Path, deployment: Deployment | None, ready: OnReady | None, workers: int
) -> None:
    if isinstance(config, Config) or deployment is not None:
        what = "several workers need a settings file, which each of them reads"
        raise ConfigError(
            sentence(what, allowed="the path of one", do="pass the path, or serve by one worker")
        )
    from turnout.gateway.workers import Crew

    Crew(path=Path(config), num_workers=workers, ready=_log_notices if ready is None else ready).run()


def set_up_telemetry(config: Config) -> Callable[[], None]:
    """Send telemetry where the settings say so; return what sends the rest and stops."""
    if not config.telemetry.otel:
        return lambda: None
    from turnout.gateway.telemetry_setup import set_up

    return set_up()


@contextlib.contextmanager
def running(
    config: Config, *, deployment: Deployment | None = None, source: Callable[[], Config] | None = None
) -> Iterator[Ready]:
    """Serve from a thread while the block runs; raises what `serve` raises.

    `source` reads the settings again when the gateway is told to reload.
    """
    told: list[Ready] = []
    failed: list[BaseException] = []
    started = threading.Event()

    def on_ready(ready: Ready) -> None:
        told.append(ready)
        started.set()

    server = _prepare(config, deployment, on_ready, source)

    def work() -> None:
        try:
            server.run_bound()
        except BaseException as error:  # noqa: BLE001 (the edge: raised again in the caller's thread)
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, name="turnout-gateway")
    thread.start()
    try:
        started.wait(_START_S)
        if not told:
            raise failed[0] if failed else RuntimeError("the gateway did not start in time")
        yield told[0]
    finally:
        server.should_exit = True
        thread.join()
    if failed:
        raise failed[0]


@final
class Server(uvicorn.Server):
    """Uvicorn on a bound socket: it tells when it is up, and returns when it is told to stop."""

    def __init__(self, *, gateway: Gateway, listener: socket.socket, ready: OnReady) -> None:
        super().__init__(
            uvicorn.Config(
                gateway,
                lifespan="on",
                http=self._protocol(gateway),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=gateway.config.server.drain_s,
                backlog=BACKLOG,
            )
        )
        self.gateway = gateway
        self.listener = listener
        self.on_ready = ready
        self._search = RareSearch()
        self._one_thread = OneThread()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reloading: asyncio.Future[Any] | None = None
        self._since_s: float | None = None
        """When it was told to end."""

    @staticmethod
    def _protocol(gateway: Gateway) -> type[asyncio.Protocol]:
        """Return what makes connections; a reload changes how long they wait."""

        def made(*args: Any, **kwargs: Any) -> AttendedProtocol:
            is_leaving = gateway.parts.gate.is_leaving
            return AttendedProtocol(*args, send_s=send_s, is_leaving=is_leaving, **kwargs)

        def send_s() -> float:
            return gateway.config.server.send_s

        return cast("type[asyncio.Protocol]", made)

    def run_bound(self) -> None:
        """Run until `should_exit`; raises what the gateway's start raised."""
        log = logging.getLogger("uvicorn.error")
        log.addFilter(self._is_news)
        try:
            self.run(sockets=[self.listener])
        except SystemExit:
            if self.gateway.startup_error is None:
                raise
            raise self.gateway.startup_error from None
        finally:
            self._search.stop()
            self._one_thread.stop()
            log.removeFilter(self._is_news)
            self.listener.close()

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Whether a line of uvicorn's log says what our caller is not told by an exception anyway."""
        failure = self.gateway.startup_error
        return failure is None or record.getMessage() not in (str(failure), _START_FAILED)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        self._loop = asyncio.get_running_loop()
        self._one_thread.start()
        await super().startup(sockets)
        if self.started:
            self._search.start()
            self.on_ready(_ready(self.gateway, self.listener))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on a signal and swallow it: after a complete drain, the caller goes on and exits with 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        if hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._reload)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _reload(self, number: int, frame: FrameType | None) -> None:
        """Reload the settings; what is wrong with them is logged, and nothing changes."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_reload)

    def _begin_reload(self) -> None:
        self._reloading = asyncio.ensure_future(self.gateway.reloader.reload())
        self._reloading.add_done_callback(_log_reload)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Leave on SIGTERM, drain on Ctrl-C or a second signal; a further Ctrl-C does not wait."""
        if self.should_exit and number == signal.SIGINT:
            self.force_exit = True
        if number == signal.SIGTERM and self._loop is not None and self.started and self._since_s is None:
            self._since_s = time.monotonic()
            self._loop.call_soon_threadsafe(self._leave, self._loop)
        else:
            self.should_exit = True

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say that nobody should be sent here any more, and go on for a while: others hear it late."""
        self.gateway.parts.gate.is_leaving = True
        for connection in list(self.server_state.connections):
            if isinstance(connection, AttendedProtocol):
                connection.leave()
        wait_s = self.gateway.config.server.leave_s
        if wait_s is None:
            wait_s = 0.0 if is_on_loopback(self.listener) else _LEAVE_S
        loop.call_later(min(wait_s, self.gateway.config.server.drain_s), self._end)

    def _end(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, and let running answers end within what is left of the drain."""
        gone_s = 0.0 if self._since_s is None else time.monotonic() - self._since_s
        # Uvicorn waits for whole seconds, or for parts of one.
        left_s = max(0.1, self.gateway.config.server.drain_s - gone_s)
        self.config.timeout_graceful_shutdown = cast("int", left_s)
        await super().shutdown(sockets)


def _log_reload(done: asyncio.Future[Any]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.error("the settings were not reloaded, and those before stay in force: %s", error)


def _log_notices(ready: Ready) -> None:
    for notice in ready.notices:
        logger.warning("%s", notice)


def _prepare(
    config: Config,
    deployment: Deployment | None,
    ready: OnReady | None,
    source: Callable[[], Config] | None,
) -> Server:
    gateway = build_app(config, deployment=deployment, source=source)
    listener = bind(config.server.host, config.server.port)
    return Server(gateway=gateway, listener=listener, ready=_log_notices if ready is None else ready)


def _ready(gateway: Gateway, listener: socket.socket) -> Ready:
    notices = gateway.notices
    notice = None if gateway.config.asks_for_keys else open_door_notice(listener)
    if notice is not None:
        notices += (notice,)
    return Ready(base_url=f"http://{shown_address(listener)}/v1", notices=notices)
