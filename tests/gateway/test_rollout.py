"""A second deployment in the shadow and as a canary, beside one that must not notice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.client import ask, call
from tests.gateway.fitted import fitted
from tests.gateway.pool import SMALL, make_deployment
from tests.gateway.rolling import LIVE, SECOND, Trial, trial
from tests.gateway.servers import PostgresServer
from turnout.core import Candidate, ConfigError, Query
from turnout.core.artifact import save
from turnout.core.errors import ArtifactError
from turnout.core.rng import make_rng
from turnout.gateway.app import build_app
from turnout.gateway.config import LedgerSettings, load_config
from turnout.gateway.decide import RouterDecider
from turnout.gateway.ledger import Ledger
from turnout.gateway.ledger_admin import prune
from turnout.gateway.rollout import part_of
from turnout.gateway.schema import ShadowRow
from turnout.gateway.select import Selection, Selector
from turnout.gateway.shadow import Job, Shadow
from turnout.gateway.wire import parse_chat
from turnout.policies.deployment import Deployment


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Trial]:
    with trial(tmp_path) as made:
        yield made


def test_a_shadow_writes_its_choice_and_calls_nobody(stand: Trial) -> None:
    stand.write()
    with stand.running():
        for number in range(10):
            assert stand.ask(f"question {number}").headers["x-turnout-model"] == "large"
        assert stand.ask("named", model="small").status == 200
        rows = stand.wait("SELECT * FROM requests JOIN shadows USING (decision_id)", 10)
    assert {row["chosen"] for row in stand.rows("SELECT chosen FROM shadows")} == {"small"}
    assert {row["branch"] for row in rows} == {"live"}
    assert len(rows) == 10
    assert {row["fingerprint"] for row in stand.rows("SELECT fingerprint FROM shadows")} == {
        SECOND.fingerprint
    }
    assert len(stand.server.asked("large")) == 10
    # Only the one that named it asked `small`.
    assert len(stand.server.asked("small")) == 1
    named = stand.rows("SELECT branch, unit FROM decisions WHERE reason = 'named'")
    assert named == [{"branch": None, "unit": None}]


def test_a_canary_serves_its_share_and_a_unit_stays_on_its_side(stand: Trial) -> None:
    stand.write('share = 0.4\nsticky_by = "user"')
    with stand.running():
        served: dict[str, set[str]] = {}
        for number in range(120):
            user = f"u{number % 40}"
            model = stand.ask(f"question {number}", user=user).headers["x-turnout-model"]
            served.setdefault(user, set()).add(model)
        stand.wait("SELECT 1 FROM shadows", 120)
    assert all(len(models) == 1 for models in served.values())
    share = sum(models == {"small"} for models in served.values()) / 40
    assert 0.15 < share < 0.65
    rows = stand.rows(
        "SELECT d.*, s.fingerprint AS other, s.chosen AS other_choice, s.share FROM decisions d "
        "JOIN shadows s USING (decision_id)"
    )
    for row in rows:
        is_canary = row["branch"] == "canary"
        assert (part_of(row["unit"]) < 0.4) == is_canary
        sides = (
            (SECOND.fingerprint, LIVE.fingerprint) if is_canary else (LIVE.fingerprint, SECOND.fingerprint)
        )
        assert (row["fingerprint"], row["other"]) == sides
        choices = ("small", "large") if is_canary else ("large", "small")
        assert (row["chosen"], row["other_choice"]) == choices
        assert row["share"] == 0.4
    assert len({row["unit"] for row in rows}) == 40
    assert not any("u1" in row["unit"] for row in rows)


def test_a_route_is_explained_by_the_side_that_would_serve_it(stand: Trial) -> None:
    stand.write('share = 0.5\nsticky_by = "user"')
    with stand.running():
        for number in range(12):
            body = {
                "model": "turnout/auto",
                "messages": [{"role": "user", "content": "x"}],
                "user": f"u{number}",
            }
            said = call(stand.base_url, "/route", method="POST", body=json.dumps(body).encode()).json
            answer = stand.ask("x", user=f"u{number}")
            assert said["chosen"] == answer.headers["x-turnout-model"]
        rows = stand.wait("SELECT branch, count(*) AS num FROM decisions GROUP BY branch", 2)
    assert {row["branch"] for row in rows} == {"live", "canary"}


def test_a_conversation_stays_where_it_began_whatever_comes_later(stand: Trial) -> None:
    stand.write("share = 0.5")
    with stand.running():
        models = {}
        for number in range(12):
            first = {"role": "user", "content": f"question {number}"}
            more = [first, {"role": "assistant", "content": "well"}, {"role": "user", "content": "go on"}]
            one = stand.ask(first["content"])
            two = ask(stand.base_url, messages=more)
            models[number] = (one.headers["x-turnout-model"], two.headers["x-turnout-model"])
    assert all(one == two for one, two in models.values())
    assert len({one for one, _ in models.values()}) == 2


def test_another_salt_draws_anew(stand: Trial) -> None:
    sides = []
    for salt in ("a", "b"):
        stand.write(f'share = 0.5\nsalt = "{salt}"')
        with stand.running():
            sides.append([stand.ask(f"q{number}").headers["x-turnout-model"] for number in range(24)])
    assert sides[0] != sides[1]


def test_a_second_deployment_that_fails_leaves_its_requests_to_the_one_in_force(
    stand: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.write("share = 0.5")
    with stand.running():
        consider = Deployment.consider

        def broken(self: Deployment, *args: object, **named: object) -> object:
            if self.fingerprint == SECOND.fingerprint:
                raise ValueError("a bug in the new one")
            return consider(self, *args, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(Deployment, "consider", broken)
        answers = [stand.ask(f"q{number}") for number in range(20)]
        assert {answer.status for answer in answers} == {200}
        assert {answer.headers["x-turnout-model"] for answer in answers} == {"large"}
        told = stand.admin("rollout", "GET").json
        failed = stand.wait("SELECT * FROM shadows WHERE error IS NOT NULL", 1)
    assert "a bug in the new one" in failed[0]["error"]
    assert told["shadow"]["failed"] >= 20
    assert {row["branch"] for row in stand.rows("SELECT branch FROM decisions")} == {"live"}


def test_a_slow_shadow_holds_up_nobody(stand: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.write("max_queue = 3")
    consider = Deployment.consider

    def slow(self: Deployment, *args: object, **named: object) -> object:
        if self.fingerprint == SECOND.fingerprint:
            time.sleep(0.5)
        return consider(self, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Deployment, "consider", slow)
    with stand.running():
        stand.ask("warm up")
        started_s = time.monotonic()
        assert {stand.ask(f"q{number}").status for number in range(30)} == {200}
        took_s = time.monotonic() - started_s
        told = stand.admin("rollout", "GET").json
        page = call(stand.base_url.removesuffix("/v1"), "/metrics").body.decode()
    assert f'turnout_shadow_missing{{why="dropped"}} {told["shadow"]["dropped"]}' in page
    # One after another in the shadow they would take 15 s.
    assert took_s < 7
    assert told["shadow"]["dropped"] > 10
    assert len(stand.rows("SELECT 1 FROM decisions")) == 31


def test_a_gateway_without_a_second_deployment_decides_as_before(stand: Trial) -> None:
    stand.write(None)
    app = build_app(load_config(stand.path))
    assert type(app.parts.decider) is RouterDecider
    assert app.parts.rollout is None
    with stand.running():
        stand.ask("a question")
        (row,) = stand.wait("SELECT * FROM requests WHERE status IS NOT NULL", 1)
        assert (row["branch"], row["unit"]) == (None, None)
        assert stand.admin("rollout", "GET").status == 409


def test_a_shadow_that_is_closed_takes_what_waits_and_nothing_more(tmp_path: Path) -> None:
    ledger = Ledger(settings=LedgerSettings(path=str(tmp_path / "l.sqlite")))
    shadow = Shadow(ledger=ledger, max_queue=10, rng=make_rng(0, "x"))
    shadow.close()
    shadow.put(None)  # type: ignore[arg-type]
    assert shadow.num_dropped == 1


def test_rules_hold_on_both_sides(stand: Trial) -> None:
    rule = '[signals.code]\nkind = "keyword"\nwords = ["code"]\n[[rules]]\nname = "coders"\nwhen = "code"\n'
    stand.write("share = 1.0", more=rule + 'candidates = ["large"]')
    with stand.running():
        assert stand.ask("some code").headers["x-turnout-model"] == "large"
        assert stand.ask("some prose").headers["x-turnout-model"] == "small"
        rows = stand.wait("SELECT * FROM decisions JOIN shadows USING (decision_id)", 2)
    assert {row["branch"] for row in rows} == {"canary"}


@pytest.mark.parametrize(
    ("rollout", "part"),
    [
        ("share = 1.5", "rollout.share"),
        ("share = -0.1", "rollout.share"),
        ('share = "half"', "rollout.share"),
        ('sticky_by = "phase"', "rollout.sticky_by"),
        ('sticky_by = "key"', "asks for keys"),
        ("max_quality_loss = 2", "rollout.max_quality_loss"),
        ("confidence = 0.2", "rollout.confidence"),
        ("min_requests = 0", "rollout.min_requests"),
        ("shares = 0.5", "did you mean 'share'"),
    ],
)
def test_a_wrong_section_is_one_sentence(stand: Trial, rollout: str, part: str) -> None:
    stand.write(rollout)
    with pytest.raises(ConfigError, match=part):
        load_config(stand.path)


def test_a_second_deployment_that_does_not_fit_is_refused_at_the_start(stand: Trial) -> None:
    stand.write()
    save(
        fitted(pool=(SMALL, Candidate(model="other"))),
        stand.folder / "new",
    )
    with pytest.raises(ConfigError, match="of another pool"):
        build_app(load_config(stand.path))
    for old in (stand.folder / "new").iterdir():
        old.unlink()
    with pytest.raises(ArtifactError, match="new"):
        build_app(load_config(stand.path))


def test_a_smaller_pool_may_be_tried(stand: Trial) -> None:
    save(fitted(pool=(SMALL,), better="small"), stand.folder / "new")
    stand.write("share = 1.0")
    with stand.running():
        assert stand.ask("a question").headers["x-turnout-model"] == "small"
        assert stand.ask("a question", model="large").headers["x-turnout-model"] == "large"


def test_a_rule_that_names_whom_the_second_one_lacks_is_refused(stand: Trial) -> None:
    save(fitted(pool=(SMALL,), better="small"), stand.folder / "new")
    rule = '[signals.code]\nkind = "keyword"\nwords = ["code"]\n[[rules]]\nname = "coders"\nwhen = "code"\n'
    stand.write(more=rule + 'candidates = ["large"]')
    with pytest.raises(ConfigError, match="does not go with the rules"):
        build_app(load_config(stand.path))


def test_what_is_deleted_takes_its_shadow_along_and_a_postgres_has_it_too(
    stand: Trial, postgres: PostgresServer
) -> None:
    import psycopg

    stand.write("share = 0.5", more=f'[shared]\npostgres = "{postgres.url}"')
    with stand.running():
        ids = [stand.ask(f"q{number}").decision_id for number in range(6)]
        stand.wait("SELECT 1 FROM shadows", 6)
        stand.wait("SELECT 1 FROM results", 6)
    with psycopg.connect(postgres.url) as connection:
        query = "SELECT count(*) FROM turnout_shadows JOIN turnout_requests USING (decision_id) WHERE "
        found = connection.execute(query + "branch IS NOT NULL AND decision_id = ANY(%s)", (ids,)).fetchone()
    assert found == (6,)
    assert prune(stand.ledger, before_s=time.time() + 1) == 6
    assert stand.rows("SELECT * FROM shadows") == []


def test_shadows_that_are_taken_together_are_as_if_alone(stand: Trial) -> None:
    knows_easy = make_deployment()
    ledger = Ledger(settings=LedgerSettings(path=str(stand.folder / "own.sqlite")))
    shadow = Shadow(ledger=ledger, max_queue=100, rng=make_rng(0, "x"))
    chooser = Selector(deployment=knows_easy, alias="turnout/auto", goal=None, rng=make_rng(0, "y"))
    held = threading.Event()
    together: list[int] = []
    choose_all = chooser.choose_all

    def watched(queries: Sequence[Query], *more: Any) -> list[Selection] | None:
        together.append(len(queries))
        held.wait(5)
        return choose_all(queries, *more)

    chooser.choose_all = watched  # type: ignore[method-assign,assignment]
    for number in range(40):
        text = "an easy one" if number % 3 else "a hard one"
        body = json.dumps({"model": "turnout/auto", "messages": [{"role": "user", "content": text}]})
        request = parse_chat(body.encode())
        name = f"d{number:02d}"
        shadow.put(
            Job(
                decision_id=name,
                selector=chooser,
                request=request,
                query=request.query(name),
                goal=None,
                whose=None,
                extra_usd_M=None,
                share=0.0,
            )
        )
    held.set()
    shadow.close()
    rows = {row.decision_id: row for row in ledger._rows if isinstance(row, ShadowRow)}
    assert len(rows) == 40
    assert max(together, default=0) > 1
    for number in range(40):
        row = rows[f"d{number:02d}"]
        assert row.chosen == ("small" if number % 3 else "large")
        assert json.loads(row.scores or "")["small"][0] == (1.0 if number % 3 else 0.5)
