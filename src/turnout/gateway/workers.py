"""This module runs several workers on one port: processes that share the listening address and nothing else.

The parent binds the address (`SO_REUSEPORT`) without listening, so that the port is its own; every worker
binds it too and listens, and the system spreads connections over them. The first worker starts alone and
makes the files that all of them use. A worker that dies is started again; one that cannot start ends the
start. Workers end when the parent does, however it ends: its end of a pipe closes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, final

from turnout.core.errors import ConfigError
from turnout.gateway.address import bind, shown_address
from turnout.gateway.config import load_config
from turnout.gateway.lifecycle import OnReady, Ready

logger = logging.getLogger(__name__)

_START_S = 60.0
_LONGEST_WAIT_S = 5.0
_SPARE_S = 5.0
_POLL_S = 0.02
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@final
@dataclass(kw_only=True, slots=True)
class _Worker:
    """One place for a worker, and who has it now."""

    slot: int
    process: subprocess.Popen[str]
    is_ready: bool = False
    is_stale: bool = False
    """Whether settings were reloaded while it started: it may have read those before."""
    deaths: int = 0
    start_again_s: float | None = None
    notices: list[str] = field(default_factory=list)


@final
class Crew:
    """The workers of one gateway.

    Parameters
    ----------
    path:
        The settings file; every worker reads it.
    num_workers:
        How many there are.
    ready:
        Called once, when all of them accept.
    """

    def __init__(self, *, path: Path, num_workers: int, ready: OnReady) -> None:
        self.path = path
        self.num_workers = num_workers
        self.ready = ready
        self.settings = load_config(path)
        self._told: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._workers: dict[int, _Worker] = {}
        self._is_stopping = False
        self._is_hasty = False
        """Whether nobody is to be let in any more, as on Ctrl-C."""
        self._told_notices = frozenset[str]()
        self._folder = ""
        self._address: tuple[str, int] = "", 0

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM; raises `ConfigError` where a worker cannot start."""
        server = self.settings.server
        with (
            bind(server.host, server.port, share=True, listen=False) as reserved,
            tempfile.TemporaryDirectory(prefix="turnout-workers-") as self._folder,
            self._signals(),
        ):
            self._address = server.host, reserved.getsockname()[1]
            try:
                self._start_all()
                if not self._is_stopping:
                    self._tell_ready(reserved)
                while not self._is_stopping:
                    self._hear(0.2)
                    self._restart()
            finally:
                self._stop_all()

    def _start_all(self) -> None:
        """Start the first worker, and when it is ready the others."""
        for slots in ([0], range(1, self.num_workers)):
            for slot in slots:
                self._workers[slot] = self._start(slot)
            deadline_s = time.monotonic() + _START_S
            while not self._is_stopping and not all(self._workers[slot].is_ready for slot in slots):
                if time.monotonic() > deadline_s:
                    raise ConfigError("a worker did not start in time; allowed: a minute; see its log")
                self._hear(0.2)

    def _start(self, slot: int) -> _Worker:
        host, port = self._address
        command = [sys.executable, "-m", "turnout.gateway.worker", str(self.path), host, str(port)]
        process = subprocess.Popen(
            [*command, self._folder, str(slot)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._listen, args=(slot, process), daemon=True).start()
        return _Worker(slot=slot, process=process)

    def _listen(self, slot: int, process: subprocess.Popen[str]) -> None:
        """Hand on what a worker says, and that it has ended."""
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                self._told.put((slot, json.loads(line)))
        process.wait()
        self._told.put((slot, None))

    def _hear(self, wait_s: float) -> None:
        """Take in one thing that a worker said, if there is one."""
        try:
            slot, message = self._told.get(timeout=wait_s)
        except queue.Empty:
            return
        worker = self._workers[slot]
        if message is None:
            self._mourn(worker)
        elif "error" in message and not worker.is_ready and worker.deaths == 0:
            raise ConfigError(message["error"])
        elif "ready" in message:
            worker.is_ready, worker.notices = True, message["ready"]
            self._tell_news(worker)
            if worker.is_stale:
                worker.is_stale = False
                worker.process.send_signal(signal.SIGHUP)
        elif "reloaded" in message:
            self._reload_all(but=slot)

    def _tell_news(self, worker: _Worker) -> None:
        """Log what a worker found that was started again, such as rows that the dead one left open."""
        if worker.deaths:
            for notice in worker.notices:
                if notice not in self._told_notices:
                    logger.warning("worker %d: %s", worker.slot, notice)

    def _mourn(self, worker: _Worker) -> None:
        if self._is_stopping or worker.process.poll() is None:
            return
        if not worker.is_ready and worker.deaths == 0:
            raise ConfigError(f"worker {worker.slot} ended with {worker.process.returncode} before it served")
        wait_s = min(0.1 * 2.0**worker.deaths, _LONGEST_WAIT_S)
        logger.error("worker %d ended with %s and is started again", worker.slot, worker.process.returncode)
        worker.deaths += 1
        worker.start_again_s = time.monotonic() + wait_s

    def _restart(self) -> None:
        for slot, worker in self._workers.items():
            if worker.start_again_s is not None and time.monotonic() >= worker.start_again_s:
                fresh = self._start(slot)
                fresh.deaths = worker.deaths
                self._workers[slot] = fresh

    def _tell_ready(self, reserved: socket.socket) -> None:
        notices = dict.fromkeys(text for one in self._workers.values() for text in one.notices)
        self._told_notices = frozenset(notices)
        self.ready(Ready(base_url=f"http://{shown_address(reserved)}/v1", notices=tuple(notices)))

    def _signal_all(self, number: int, *, but_ready: bool = False) -> None:
        for worker in self._workers.values():
            if worker.process.poll() is None and not (but_ready and worker.is_ready):
                worker.process.send_signal(number)

    def _reload_all(self, *, but: int | None = None) -> None:
        """Have the workers read the settings again; one that starts would die of it, and is told later."""
        for slot, worker in self._workers.items():
            if slot == but or worker.process.poll() is not None:
                continue
            if worker.is_ready:
                worker.process.send_signal(signal.SIGHUP)
            else:
                worker.is_stale = True

    def _stop_all(self) -> None:
        """Tell every worker to end, and wait for it; who does not is killed."""
        if self._is_stopping and not self._is_hasty:
            self._signal_all(signal.SIGTERM)
        else:
            self._hasten()
            # Who is not there yet would start before it reads that.
            self._signal_all(signal.SIGTERM, but_ready=True)
        self._is_stopping = True
        deadline_s = time.monotonic() + self.settings.server.drain_s + _SPARE_S
        for worker in self._workers.values():
            process = worker.process
            while process.poll() is None and time.monotonic() < deadline_s:
                time.sleep(_POLL_S)
                if self._is_hasty:
                    self._hasten()
            if process.poll() is None:
                process.kill()
                process.wait()
        self._hasten()

    def _hasten(self) -> None:
        """Have every worker drain at once: whoever is waited for before that is let in no more."""
        for worker in self._workers.values():
            if worker.process.stdin is not None:
                worker.process.stdin.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            self._reload_all()
            return
        if self._is_stopping or number == signal.SIGINT:
            self._is_hasty = True
        self._is_stopping = True
