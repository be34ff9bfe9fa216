"""A promotion and a rollback on a gateway that runs: file, parts and ledger agree, or nothing has changed."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.gateway.client import check_advice
from tests.gateway.fitted import fitted
from tests.gateway.pool import SMALL
from tests.gateway.rolling import LIVE, SECOND, Trial, trial
from tests.gateway.servers import free_port
from turnout.cli.main import main
from turnout.core import ConfigError
from turnout.core.artifact import save
from turnout.gateway.config import load_config
from turnout.gateway.promote import promotion
from turnout.gateway.toml_edit import edited, replace_file

MARGINS = (
    "share = 0.5\nmin_requests = 40\nmax_quality_loss = 0.3\nmax_cost_growth = 0.5\nmax_failure_growth = 0.3"
)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Trial]:
    with trial(tmp_path) as made:
        yield made


def serve_some(stand: Trial, number: int = 60, *, small: float = 1.0, large: float = 1.0) -> None:
    """Ask, and score answers by who gave them."""
    for place in range(number):
        answer = stand.ask(f"question {place}")
        stand.score(answer, small if answer.headers["x-turnout-model"] == "small" else large)
    for table in ("shadows", "results", "feedback"):
        stand.wait(f"SELECT 1 FROM {table}", number)


def test_a_good_canary_is_promoted_and_rolled_back(stand: Trial) -> None:
    stand.write(MARGINS)
    with stand.running():
        serve_some(stand)
        told = stand.admin("rollout", "GET").json
        assert told["objections"] == []
        assert abs(told["comparison"]["quality"]["mean"]) < 0.2
        body = stand.admin("promote").json
        assert body["after"] == {"deployment": "new", "fingerprint": SECOND.fingerprint}
        assert {stand.ask(f"q{n}").headers["x-turnout-model"] for n in range(8)} == {"small"}
        config = load_config(stand.path)
        assert Path(str(config.deployment)).name == "new"
        assert config.rollout is not None
        assert (Path(config.rollout.deployment).name, config.rollout.share) == ("old", 0.0)
        # What was written by hand is still there.
        text = stand.path.read_text(encoding="utf-8")
        assert text.startswith("# settings of the shop\n")
        assert 'deployment = "new"  # in force\n' in text
        assert "[rollout]  # on trial\n" in text
        # The old one decides on in the shadow.
        shadows = stand.wait("SELECT * FROM shadows WHERE share = 0.0", 8)
        assert {row["chosen"] for row in shadows} == {"large"}
        assert stand.admin("rollback").json["action"] == "rollback"
        assert stand.ask("q").headers["x-turnout-model"] == "large"
        assert stand.path.read_text(encoding="utf-8") == text.replace('"new"  #', '"old"  #').replace(
            'deployment = "old"\nshare', 'deployment = "new"\nshare'
        )
        refused = stand.admin("rollback")
    assert refused.status == 409
    assert "nothing to roll back" in refused.error["message"]
    first, second = stand.rows("SELECT * FROM switches ORDER BY rowid")
    assert (first["action"], first["before"], first["after"], first["is_forced"]) == (
        "promote",
        "old",
        "new",
        0,
    )
    assert (first["before_fingerprint"], first["after_fingerprint"]) == (LIVE.fingerprint, SECOND.fingerprint)
    assert json.loads(first["evidence"])["requests"] == 60
    assert (second["action"], second["before"], second["after"]) == ("rollback", "new", "old")


def test_a_smaller_pool_is_promoted_and_rolled_back(stand: Trial) -> None:
    save(fitted(pool=(SMALL,), better="small"), stand.folder / "new")
    stand.server.say["large-2"] = lambda _: "well"
    stand.write("share = 0.5", more='[candidates.large]\nmodel = "large-2"')
    with stand.running():
        assert stand.admin("promote?force").status == 200
        assert {stand.ask(f"q{n}").headers["x-turnout-model"] for n in range(4)} == {"small"}
        assert stand.ask("q", model="large").status == 404
        # The old one knows more than those in force, and decides in the shadow alone.
        shadows = stand.wait("SELECT * FROM shadows WHERE share = 0.0", 4)
        assert {row["chosen"] for row in shadows} == {"large"}
        assert stand.admin("rollback").json["action"] == "rollback"
        assert stand.ask("q").headers["x-turnout-model"] == "large"
        assert stand.server.seen[-1]["model"] == "large-2"


def test_a_worse_one_is_refused_unless_it_is_forced(stand: Trial) -> None:
    stand.write(MARGINS)
    with stand.running():
        serve_some(stand, small=0.0)
        refused = stand.admin("promote")
        assert refused.status == 409
        assert refused.error["code"] == "not_switched"
        assert "its loss of feedback may be" in refused.error["message"]
        check_advice(refused.error["message"])
        assert Path(str(load_config(stand.path).deployment)).name == "old"
        assert stand.rows("SELECT * FROM switches") == []
        assert stand.admin("promote?force").status == 200
    (row,) = stand.rows("SELECT * FROM switches")
    assert row["is_forced"] == 1
    assert json.loads(row["evidence"])["quality"]["mean"] < -0.5


def test_a_canary_that_fails_is_refused(stand: Trial) -> None:
    stand.write(MARGINS.replace("max_quality_loss = 0.3", "max_quality_loss = 1.0"))
    stand.server.say["small"] = lambda _: 500
    stand.server.say["large"] = lambda _: "well"
    with stand.running():
        for place in range(60):
            stand.ask(f"question {place}", model="turnout/auto")
        stand.wait("SELECT 1 FROM shadows", 60)
        found = stand.wait("SELECT * FROM results", 60)
        # The ranked list goes on to `large`, so that nobody noticed.
        assert {row["status"] for row in found} == {200}
        assert stand.admin("rollout", "GET").json["comparison"]["canary"]["failures"] == 0
        stand.server.say["large"] = lambda body: 500 if "down" in str(body) else "well"
        failing = [stand.ask(f"down {place}").status for place in range(40)]
        assert set(failing) <= {502, 503}
        stand.wait("SELECT * FROM results WHERE status > 500", 40)
        comparison = stand.admin("rollout", "GET").json["comparison"]
        assert comparison["canary"]["failures"] + comparison["control"]["failures"] == 40


def test_too_little_is_no_evidence(stand: Trial) -> None:
    stand.write("share = 0.5")
    with stand.running():
        serve_some(stand, 5)
        message = stand.admin("promote").error["message"]
    assert "5 requests with feedback were decided by both, of 200 needed" in message


def test_no_second_deployment_is_no_promotion(stand: Trial) -> None:
    stand.write(None)
    with stand.running():
        for path in ("promote", "promote?force"):
            refused = stand.admin(path)
            assert (refused.status, "no second deployment" in refused.error["message"]) == (409, True)
        assert stand.admin("rollback").status == 409


def test_a_deployment_that_vanished_takes_the_switch_back(stand: Trial) -> None:
    stand.write(MARGINS)
    text = stand.path.read_text(encoding="utf-8")
    with stand.running():
        serve_some(stand)
        shutil.move(stand.folder / "old", stand.folder / "moved")
        refused = stand.admin("promote")
        assert refused.status == 409
        assert "the switch was taken back" in refused.error["message"]
        assert stand.path.read_text(encoding="utf-8") == text
        assert stand.ask("still here").status == 200
        assert [row["action"] for row in stand.rows("SELECT * FROM switches")] == ["promote", "undone"]
        shutil.move(stand.folder / "moved", stand.folder / "old")
        shutil.rmtree(stand.folder / "new")
        assert stand.admin("promote").status == 409
        assert stand.path.read_text(encoding="utf-8") == text
        assert {stand.ask(f"q{n}").status for n in range(10)} == {200}


def test_a_rollback_ends_a_canary(stand: Trial) -> None:
    stand.write("share = 1.0")
    with stand.running():
        assert stand.ask("q").headers["x-turnout-model"] == "small"
        assert stand.admin("rollback").json["action"] == "stop_canary"
        assert stand.ask("q").headers["x-turnout-model"] == "large"
        assert "share = 0.0" in stand.path.read_text(encoding="utf-8")
        assert stand.admin("rollback").status == 409


def test_a_file_that_changed_meanwhile_is_reloaded_first(stand: Trial) -> None:
    stand.write(MARGINS)
    with stand.running():
        serve_some(stand)
        text = stand.path.read_text(encoding="utf-8")
        changed = text.replace('deployment = "new"', 'deployment = "old"')
        stand.path.write_text(changed, encoding="utf-8")
        assert "reload it first" in stand.admin("promote").error["message"]
        assert stand.path.read_text(encoding="utf-8") == changed


def test_a_file_or_a_ledger_that_is_broken_is_a_sentence_and_no_switch(stand: Trial) -> None:
    stand.write(MARGINS)
    text = stand.path.read_text(encoding="utf-8")
    with stand.running():
        serve_some(stand)
        for broken in ('deployment = "old', "deployment = 3\n", "\x00"):
            stand.path.write_text(broken, encoding="utf-8")
            for path in ("promote?force", "rollback"):
                refused = stand.admin(path)
                assert (refused.status, refused.error["code"]) == (409, "not_switched")
            assert stand.path.read_text(encoding="utf-8") == broken
        stand.path.write_text(text, encoding="utf-8")
        with closing(sqlite3.connect(stand.ledger)) as connection:
            connection.execute("DROP TABLE switches")
        refused = stand.admin("promote?force")
        assert refused.status == 409
        assert "cannot take a switch" in refused.error["message"]
        assert stand.path.read_text(encoding="utf-8") == text
        assert stand.ask("q").status == 200


def test_requests_in_flight_end_where_they_began(stand: Trial) -> None:
    stand.write(MARGINS)
    release = threading.Event()

    def hold(body: dict) -> str:
        release.wait(10)
        return "late"

    with stand.running():
        serve_some(stand)
        stand.server.say["large"] = hold
        found: list[str] = []
        live = [
            threading.Thread(target=lambda n=n: found.append(stand.ask(f"question {n}").body.decode()))
            for n in range(8)
        ]
        for thread in live:
            thread.start()
        while not any("question" in str(body) for body in stand.server.asked("large")[-4:]):
            time.sleep(0.01)
        assert stand.admin("promote").status == 200
        assert stand.ask("new").headers["x-turnout-model"] == "small"
        release.set()
        for thread in live:
            thread.join()
    assert len(found) == 8
    assert all('"late"' in body or '"hm"' in body for body in found)


def test_only_an_admin_may_switch_and_the_ledger_says_who(
    stand: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOSS", "a-secret-of-the-boss")
    monkeypatch.setenv("SHOP", "a-secret-of-the-shop")
    keys = '[keys.boss]\nsecret = "env:BOSS"\nis_admin = true\n[keys.shop]\nsecret = "env:SHOP"\n'
    stand.write("share = 1.0", more=keys)
    with stand.running():
        assert stand.admin("rollback").status == 401
        assert stand.admin("rollback", authorization="Bearer a-secret-of-the-shop").status == 403
        assert stand.admin("promote?force", authorization="Bearer a-secret-of-the-boss").status == 200
    assert [row["who"] for row in stand.rows("SELECT who FROM switches")] == ["boss"]


def test_the_command_line_does_the_same_with_and_without_a_gateway(
    stand: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    stand.write(MARGINS)
    with stand.running() as ready:
        url = ["--url", ready.base_url.removesuffix("/v1")]
        assert main(["promote", str(stand.path), *url]) == 1
        assert "of 40 needed" in capsys.readouterr().err
        serve_some(stand)
        assert main(["promote", str(stand.path), "--check"]) == 0
        assert "nothing speaks against a promotion" in capsys.readouterr().out
        assert main(["promote", str(stand.path), *url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["action"] == "promote"
        assert stand.ask("q").headers["x-turnout-model"] == "small"
        assert main(["rollback", str(stand.path), *url]) == 0
        assert stand.ask("q").headers["x-turnout-model"] == "large"
    # Nobody runs now: port 0 says nothing of where, so the file is changed for the next start.
    assert main(["promote", str(stand.path)]) == 0
    assert "hold from the gateway's next start" in capsys.readouterr().err
    assert main(["rollback", str(stand.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["after"]["deployment"] == "old"
    assert main(["promote", str(stand.path), "--force"]) == 0
    with stand.running():
        assert stand.ask("q").headers["x-turnout-model"] == "small"
    assert [row["action"] for row in stand.rows("SELECT action FROM switches")] == [
        "promote", "rollback", "promote", "rollback", "promote",
    ]  # fmt: skip
    assert main(["rollback", str(stand.path), "--url", "http://127.0.0.1:1"]) == 1
    assert "no gateway answers" in capsys.readouterr().err
    assert main(["rollback", str(stand.path), "--url", "nonsense"]) == 1
    assert "--url is wrong" in capsys.readouterr().err


def test_a_kill_in_the_middle_leaves_one_file_or_the_other(stand: Trial) -> None:
    """A process that exchanges the two without end is killed at any moment: the file is always whole."""
    stand.write(MARGINS)
    code = (
        "import sys; from pathlib import Path; from turnout.gateway.promote import promotion\n"
        "print('ready', flush=True)\n"
        "while True: promotion(Path(sys.argv[1])).apply()\n"
    )
    for wait_s in (0.0, 0.03, 0.11):
        command = [sys.executable, "-c", code, str(stand.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(wait_s)
            process.send_signal(signal.SIGKILL)
        config = load_config(stand.path)
        assert config.rollout is not None
        names = {Path(str(config.deployment)).name, Path(config.rollout.deployment).name}
        assert names == {"old", "new"}
        assert stand.path.read_text(encoding="utf-8").endswith("max_failure_growth = 0.3\n")


@pytest.mark.parametrize(
    "text",
    [
        'deployment = "a"\nrollout = {deployment = "b"}\n',
        'deployment = "a"\nrollout.deployment = "b"\n',
        'deployment = """a"""\n[rollout]\ndeployment = "b"\n',
        '"deployment" = "a"\n[rollout]\ndeployment = "b"\n',
    ],
)
def test_a_file_that_no_program_may_change_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "turnout.toml"
    text += '[providers.main]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="change it by hand"):
        promotion(path)
    assert path.read_text(encoding="utf-8") == text


def test_values_are_changed_and_nothing_else() -> None:
    text = (
        '# deployment = "no"\ndeployment = \'a\'   # here\n[other]\ndeployment = "z"\nshare=1\n'
        '[rollout]\r\n  deployment = "b # \\"c\\""\r\n  share = 0.5 # half\r\n'
    )
    after = edited(
        text, {("deployment",): 'b # "c"', ("rollout", "deployment"): "a", ("rollout", "share"): 0.0}
    )
    assert after == (
        '# deployment = "no"\ndeployment = "b # \\"c\\""   # here\n[other]\ndeployment = "z"\nshare=1\n'
        '[rollout]\r\n  deployment = "a"\r\n  share = 0.0 # half\r\n'
    )


def test_a_file_is_replaced_behind_a_link_and_keeps_its_mode(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    real.write_text("a = 1\n", encoding="utf-8")
    real.chmod(0o640)
    link.symlink_to(real)
    replace_file(link, "a = 2\n")
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8") == "a = 2\n"
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.toml", "real.toml"]


@contextmanager
def served(path: Path, port: int, workers: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve in processes of their own, and kill what is left of them."""
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("port = 0", f"port = {port}"), encoding="utf-8")
    command = [sys.executable, "-m", "turnout", "serve", str(path), "--workers", str(workers), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            url = next(line.split('"')[3] for line in lines if "base_url" in line)
            yield process, url
        finally:
            process.kill()


def test_every_worker_switches_and_a_killed_gateway_comes_back_promoted(stand: Trial) -> None:
    stand.write("share = 0.0")
    port = free_port()
    with served(stand.path, port, 2) as (_, stand.base_url):
        assert {stand.ask(f"q{number}").headers["x-turnout-model"] for number in range(12)} == {"large"}
        assert main(["promote", str(stand.path), "--force"]) == 0
        found: set[str] = set()
        for _ in range(100):
            found = {stand.ask(f"q{number}").headers["x-turnout-model"] for number in range(12)}
            if found == {"small"}:
                break
            time.sleep(0.05)
        assert found == {"small"}
    with served(stand.path, port, 1) as (_, stand.base_url):
        assert stand.ask("after the kill").headers["x-turnout-model"] == "small"
        assert stand.admin("rollback").status == 200
    assert [row["action"] for row in stand.rows("SELECT action FROM switches")] == ["promote", "rollback"]
