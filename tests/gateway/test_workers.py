"""Several workers share one port, one ledger and one count of spend."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.client import ask, call, rows
from tests.gateway.upstream import Upstream
from turnout.core import Goal
from turnout.core.artifact import save
from turnout.datasets import load
from turnout.gateway.board import Board, Snapshot
from turnout.gateway.metrics import Tally
from turnout.training import train

MODEL = "gpt-5.1"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers") / "deployment"
    save(train(load("reason18"), Goal(usd_per_quality=0.01), router="best_single"), folder)
    return folder


def write(folder: Path, deployment: Path, upstream: Upstream, text: str = "") -> Path:
    path = folder / "turnout.toml"
    path.write_text(
        f'deployment = "{deployment}"\n[providers.main]\nkind = "openai"\nbase_url = "{upstream.base_url}"\n'
        f'[ledger]\npath = "l.sqlite"\n[server]\nport = 0\ndrain_s = 5\n{text}'
    )
    return path


class Crew:
    """A gateway of several processes."""

    def __init__(self, process: subprocess.Popen[str], base_url: str, log: Path) -> None:
        self.process, self.base_url, self.log = process, base_url, log
        self.root = base_url.removesuffix("/v1")

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that there are now."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(one) for one in found.split()]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def crew(path: Path, count: int = 2) -> Iterator[Crew]:
    command = [sys.executable, "-m", "turnout", "serve", str(path), "--workers", str(count)]
    log = path.with_suffix(".log")
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Crew(process, line.split()[2], log)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def total(root: str, name: str, headers: dict[str, str]) -> float:
    text = call(root, "/metrics", headers=headers).body.decode()
    families = text_string_to_metric_families(text)
    return sum(s.value for family in families for s in family.samples if s.name == name)


def eventually(check: object, wanted: object) -> None:
    """Require that a call returns a value within some seconds."""
    assert callable(check)
    for _ in range(200):
        if check() == wanted:
            return
        time.sleep(0.05)
    assert check() == wanted


def test_workers_share_port_ledger_numbers_budgets_and_settings(
    upstream: Upstream, tmp_path: Path, deployment: Path
) -> None:
    keys = "".join(
        f'[keys.{name}]\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{rest}\n'
        for name, rest in (("boss", "is_admin = true"), ("team", "requests_per_min = 3"))
    )
    boss, team = ({"authorization": f"Bearer {name}"} for name in ("boss", "team"))
    path = write(tmp_path, deployment, upstream, keys)
    with crew(path) as gateway:
        before = gateway.workers
        assert len(before) == 2
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: ask(gateway.base_url, headers=boss), range(60)))
            assert Counter(answer.status for answer in answers) == {200: 60}
            # Sixteen at once over two workers, and a rate of three: three are served.
            limited = list(pool.map(lambda _: ask(gateway.base_url, headers=team), range(16)))
            assert Counter(answer.status for answer in limited) == {200: 3, 429: 13}
        counted = functools.partial(total, gateway.root, "turnout_requests_total", boss)
        # Whoever is asked answers for all of them.
        eventually(lambda: {counted() for _ in range(12)}, {76.0})

        # A reload over HTTP reaches one worker, and that one's word the others.
        write(tmp_path, deployment, upstream, f"{keys}[routing]\nalias = 'house/auto'\n")
        reloaded = call(gateway.root, "/admin/reload", method="POST", body=b"", headers=boss)
        assert reloaded.json["changes"][0]["key"] == "routing.alias"

        def aliases() -> set[str]:
            models = [call(gateway.base_url, "/models", headers=boss).json for _ in range(12)]
            return {found["data"][0]["id"] for found in models}

        eventually(aliases, {"house/auto"})
        write(tmp_path, deployment, upstream, keys)
        gateway.process.send_signal(signal.SIGHUP)
        eventually(aliases, {"turnout/auto"})

        # One worker dies: the other goes on, another takes its place, and no counter falls.
        time.sleep(1.2)
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: len([one for one in gateway.workers if one != before[0]]), 2)
        # What may be missing is told while there is somebody to read it.
        eventually(lambda: f"(process {before[0]}): it wrote last" in gateway.log.read_text(), True)
        eventually(counted, 76.0)
        statuses = Counter(_status(gateway, boss) for _ in range(20))
        assert statuses[200] >= 18, "at most what the dead one had accepted is lost"
        assert gateway.end() == 0
    found = rows(tmp_path / "l.sqlite")
    assert len(found) == 76 + statuses[200]
    assert len({entry["session_id"] for entry in found}) >= 2


def _status(gateway: Crew, headers: dict[str, str]) -> int:
    try:
        return ask(gateway.base_url, headers=headers).status
    except OSError:
        return 0


def test_workers_end_when_their_parent_was_killed(
    upstream: Upstream, tmp_path: Path, deployment: Path
) -> None:
    with crew(write(tmp_path, deployment, upstream)) as gateway:
        workers = gateway.workers
        gateway.process.kill()
        gateway.process.wait(10)

        def alive() -> list[int]:
            return [one for one in workers if Path(f"/proc/{one}").exists() and _state(one) != "Z"]

        eventually(alive, [])
    sessions = {entry["session_id"] for entry in rows(tmp_path / "l.sqlite")}
    assert sessions == set()


def _state(pid: int) -> str:
    try:
        found = re.search(r"\) (\w)", Path(f"/proc/{pid}/stat").read_text())
    except OSError:
        return "Z"
    return found.group(1) if found else "Z"


def test_a_worker_that_cannot_start_ends_the_start_with_its_sentence(
    upstream: Upstream, tmp_path: Path
) -> None:
    path = write(tmp_path, tmp_path / "nowhere", upstream)
    command = [sys.executable, "-m", "turnout", "serve", str(path), "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no artifact at" in done.stderr
    assert "Traceback" not in done.stderr


def test_numbers_of_workers_add_up_and_a_successor_goes_on(tmp_path: Path) -> None:
    one, two = Board(folder=tmp_path, slot=0), Board(folder=tmp_path, slot=1)

    def snapshot(count: int, **fields: object) -> Snapshot:
        tally = Tally()
        tally.count("turnout_calls", (), count)
        return Snapshot(tally=tally, **fields)  # type: ignore[arg-type]

    place = ("main", "small")
    one.write(snapshot(3, running=1, breakers={place: (0, 0.0)}, configured_s=5.0))
    two.write(snapshot(4, running=2, is_ledger_up=False, breakers={place: (2, 1.5)}, configured_s=4.0))
    (other,) = one.others()
    mine = snapshot(3, running=1, breakers={place: (0, 0.0)}, configured_s=5.0)
    mine.add(other)
    assert mine.tally.counters["turnout_calls"][()] == 7
    assert (mine.running, mine.is_ledger_up, mine.configured_s) == (3, False, 4.0)
    assert mine.breakers == {place: (2, 1.5)}
    assert Board(folder=tmp_path, slot=1).before().counters["turnout_calls"][()] == 4
    assert Board(folder=tmp_path, slot=2).before() == Tally()
    (tmp_path / "3.numbers").write_bytes(b"cut")
    assert len(one.others()) == 1


def test_a_reload_while_workers_start_ends_nobody_and_reaches_all(
    upstream: Upstream, tmp_path: Path, deployment: Path
) -> None:
    """The first worker serves already; the others may have read the settings from before."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    path = write(tmp_path, deployment, upstream)
    path.write_text(path.read_text().replace("port = 0", f"port = {port}"))
    root = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "turnout", "serve", str(path), "--workers", "3"]
    log = tmp_path / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        for _ in range(1000):
            with suppress(OSError):
                if call(root, "/healthz").status == 200:
                    break
            time.sleep(0.02)
        path.write_text(path.read_text() + '[routing]\nalias = "turnout/other"\n')
        assert call(root, "/admin/reload", method="POST").status == 200
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert process.stdout.readline(), log.read_text()
        eventually(
            lambda: {'"turnout/other"' in call(root, "/v1/models").body.decode() for _ in range(30)}, {True}
        )
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            process.communicate(timeout=20)
    assert code == 0, log.read_text()
