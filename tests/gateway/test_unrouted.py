"""A gateway without a router: keys, budgets and fallbacks over models that clients name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway.client import Answer, ask, call, check_advice, row
from tests.gateway.fitted import fitted
from tests.gateway.told import Asked, Say, Told, told_server, whole
from turnout.cli.main import main
from turnout.core import Candidate, ConfigError, PriceCard
from turnout.core.artifact import save
from turnout.gateway.app import build_app
from turnout.gateway.config import load_config
from turnout.gateway.config_schema import config_schema
from turnout.gateway.lifecycle import running
from turnout.gateway.rollout_admin import SettingsFile

ROOT = Path(__file__).parents[2]
USAGE = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 400}}

MODELS = """
[models.small]
input_usd_per_mtok = 1.0
output_usd_per_mtok = 10.0
cached_usd_per_mtok = 0.1

[models.large]
model = "gpt-large"
fallbacks = ["broken", "small"]

[models.broken]
"""

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def answer(asked: Asked) -> Say:
    model = asked.json["model"]
    if asked.path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        return whole({"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 3}})
    if model in ("broken", "gpt-large"):
        return whole({"error": {"message": "out of order"}}, status=500)
    message = {"role": "assistant", "content": f"{model} says hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return whole(
        {"id": "c", "object": "chat.completion", "model": model, "choices": [choice], "usage": USAGE}
    )


@dataclass
class House:
    """A gateway, its settings file and what stands behind it."""

    folder: Path
    upstream: Told
    base_url: str = ""

    @property
    def root(self) -> str:
        return self.base_url.removesuffix("/v1")

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.sqlite"

    @property
    def path(self) -> Path:
        return self.folder / "turnout.toml"

    def write(self, more: str = MODELS, head: str = "", routing: str = "") -> Path:
        provider = f'[providers.main]\nkind = "openai"\nbase_url = "{self.upstream.base_url}"\n'
        rest = f'[server]\nport = 0\n[ledger]\npath = "ledger.sqlite"\n[routing]\nretries = 0\n{routing}'
        self.path.write_text(f"{head}\n{provider}\n{rest}\n{more}", encoding="utf-8")
        return self.path

    @contextmanager
    def open(self) -> Iterator[House]:
        source = SettingsFile(self.path)
        with running(source(), source=source) as ready:
            self.base_url = ready.base_url
            yield self

    def asked(self) -> list[str]:
        return [one.json["model"] for one in self.upstream.seen]

    def get(self, path: str, base: str = "") -> Any:
        found = call(base or self.root, path)
        assert found.status == 200, found.body
        return found.json

    def reload(self) -> Answer:
        return call(self.root, "/admin/reload", method="POST", body=b"")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with told_server() as upstream:
        upstream.say = answer
        made = House(tmp_path, upstream)
        made.write()
        yield made


def test_whoever_names_a_model_is_served_by_it_and_by_nobody_else(house: House) -> None:
    with house.open(), openai.OpenAI(base_url=house.base_url, api_key="x", max_retries=0) as client:
        said = client.chat.completions.with_raw_response.create(model="small", messages=HELLO)
        assert said.parse().choices[0].message.content == "small says hello"
        assert said.headers["x-turnout-model"] == "small"
        assert said.headers["x-turnout-reason"] == "named"
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="broken", messages=HELLO)
        assert house.asked() == ["small", "broken"]
        assert client.embeddings.create(model="small", input="x").data[0].embedding == [0.5]
        found = row(house.ledger, said.headers["x-turnout-decision-id"])
        assert (found["chosen"], found["served"], found["fingerprint"]) == ("small", "small", None)


def test_others_stand_in_only_where_the_settings_say_so(house: House) -> None:
    with house.open():
        said = ask(house.base_url, model="large")
        assert said.json["choices"][0]["message"]["content"] == "small says hello"
        assert house.asked() == ["gpt-large", "broken", "small"]
        assert (said.headers["x-turnout-model"], said.headers["x-turnout-chosen"]) == ("small", "large")
        assert said.headers["x-turnout-attempts"] == "3"
        found = row(house.ledger, said.decision_id)
        # Charged is who served, and what it read from the cache at the price of that.
        assert found["usd"] == pytest.approx((600 * 1.0 + 400 * 0.1 + 10 * 10.0) / 1e6)


@pytest.mark.parametrize("fallbacks", ['["smal"]', '["large"]', '["turnout/auto"]'])
def test_nobody_stands_in_who_is_not_there(house: House, fallbacks: str) -> None:
    house.write(MODELS.replace('["broken", "small"]', fallbacks))
    with pytest.raises(ConfigError, match=r"'models.large.fallbacks' names nobody"):
        build_app(load_config(house.path))


def test_the_routers_name_says_in_one_sentence_how_to_get_one(house: House) -> None:
    with house.open(), openai.OpenAI(base_url=house.base_url, api_key="x", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="turnout/auto", messages=HELLO)
        assert caught.value.code == "no_deployment"
        assert caught.value.body is not None
        message = caught.value.body["message"]  # type: ignore[index]
        check_advice(message)
        for word in ("small, large, broken", "turnout record", "turnout fit", "'deployment'", "reload"):
            assert word in message
        assert "\n" not in message
        with pytest.raises(openai.NotFoundError, match="turnout fit"):
            client.responses.create(model="turnout/auto", input="hello")
        with pytest.raises(openai.NotFoundError, match="turnout fit"):
            client.models.retrieve("turnout/auto")
        with pytest.raises(openai.NotFoundError, match="known: broken, large, small"):
            client.chat.completions.create(model="tiny", messages=HELLO)
        assert house.asked() == []


def test_what_is_shown_of_it(house: House) -> None:
    with house.open():
        assert [one["id"] for one in house.get("/models", house.base_url)["data"]] == [
            "small",
            "large",
            "broken",
        ]
        health = house.get("/healthz")
        assert (health["deployment"], health["candidates"], health["models"]) == (None, 0, 3)
        assert house.get("/readyz")["ready"]
        ask(house.base_url, model="small")
        page = house.get("/ui/data?span=all")
        assert (page["curve"], page["saving"]) == (None, None)
        assert page["gateway"]["fingerprint"] is None
        assert page["gateway"]["candidates"] == ["small", "large", "broken"]
        assert {one["state"] for one in page["breakers"]} == {"closed"}
        body = json.dumps({"model": "large", "messages": HELLO}).encode()
        told = call(house.base_url, "/route", method="POST", body=body).json
        assert (told["ranked"], told["reason"]) == (["large", "broken", "small"], "named")
        assert (told["candidates"], told["goal"]["text"]) == ([], None)
        body = json.dumps({"model": "turnout/auto", "messages": HELLO}).encode()
        told = call(house.base_url, "/route", method="POST", body=body).json
        assert (told["chosen"], told["refused"]["code"]) == (None, "no_deployment")


def test_keys_have_models_and_budgets(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T_SECRET", "sk-a-long-enough-secret")
    key = '[keys.team]\nsecret = "env:T_SECRET"\nmodels = ["large", "turnout/auto"]\nbudget_usd = 0.06\n'
    house.write(MODELS + key + 'is_admin = true\n[auth]\npath = "keys.sqlite"\nreserve_output_tokens = 100\n')
    sent = {"authorization": "Bearer sk-a-long-enough-secret"}
    with house.open():
        assert ask(house.base_url, model="small").status == 401
        assert ask(house.base_url, model="small", headers=sent).status == 403
        assert ask(house.base_url, model="turnout/auto", headers=sent).error["code"] == "no_deployment"
        first = ask(house.base_url, model="large", messages=_words(100_000), headers=sent)
        assert (first.status, first.headers["x-turnout-model"]) == (200, "small")
        # Nobody knows what the others charge: a key with a budget does not reach them.
        assert house.asked() == ["small"]
        # It took less than what was reserved: there is room for another one, and not for one twice as long.
        assert ask(house.base_url, model="large", messages=_words(100_000), headers=sent).status == 200
        refused = ask(house.base_url, model="large", messages=_words(200_000), headers=sent)
        assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")


def _words(num_chars: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "x" * num_chars}]


def test_a_price_file_names_models(house: House) -> None:
    card = {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 2.0}
    prices = house.folder / "prices.json"
    prices.write_text(json.dumps({"date": "2026-11-01", "models": {"small": card}}))
    house.write(MODELS + '[prices]\npath = "prices.json"\nwarn_days = 100000\n')
    with house.open():
        found = row(house.ledger, ask(house.base_url, model="small").decision_id)
        assert found["usd"] == pytest.approx(1010 * 2.0 / 1e6)
        assert "turnout_price_age_days" in call(house.root, "/metrics").body.decode()


def test_fields_that_a_model_refuses_are_left_out(house: House) -> None:
    house.write('[models.small]\nleave_out = ["temperature"]\n')
    with house.open():
        ask(house.base_url, model="small", temperature=0.5, top_p=0.5)
        assert house.upstream.last.json.keys() == {"model", "messages", "top_p"}


def test_a_deployment_is_added_by_a_reload_and_taken_away_by_one(house: House) -> None:
    """Models that the router knows keep their sections: only one line of the file changes."""
    pool = (
        Candidate(model="small", price_card=PriceCard(input_usd_per_mtok=9.0, output_usd_per_mtok=9.0)),
        Candidate(model="other"),
    )
    save(fitted(better="small", pool=pool), house.folder / "fitted")
    with house.open():
        assert ask(house.base_url).error["code"] == "no_deployment"
        house.write(head='deployment = "fitted"')
        changed = [one["key"] for one in house.reload().json["changes"]]
        assert changed == ["deployment", "deployment (fingerprint)"]
        routed = ask(house.base_url)
        assert (routed.status, routed.headers["x-turnout-model"]) == (200, "small")
        # The section's tariff stands in the place of the deployment's card.
        assert row(house.ledger, routed.decision_id)["usd"] == pytest.approx(740 / 1e6)
        names = [one["id"] for one in house.get("/models", house.base_url)["data"]]
        assert names == ["turnout/auto", "small", "other", "large", "broken"]
        assert ask(house.base_url, model="large").headers["x-turnout-model"] == "small"
        house.write()
        assert house.reload().json["changes"][0] == {
            "key": "deployment",
            "before": str(house.folder / "fitted"),
            "after": "not set",
        }
        assert ask(house.base_url).error["code"] == "no_deployment"
        assert ask(house.base_url, model="small").status == 200


def test_a_second_deployment_of_a_smaller_pool_knows_fewer_who_stand_in(house: House) -> None:
    pool = (Candidate(model="broken"), Candidate(model="small"))
    save(fitted(better="small", pool=pool), house.folder / "whole")
    save(fitted(better="broken", pool=pool[:1]), house.folder / "part")
    more = '[candidates.broken]\nfallbacks = ["small"]\n[rollout]\ndeployment = "{}"\n'
    house.write(more.format("part"), head='deployment = "whole"')
    with house.open():
        assert ask(house.base_url, model="broken").headers["x-turnout-model"] == "small"
        # Promoted, the pool is smaller; the section stays for the way back, and nobody stands in meanwhile.
        house.write(more.format("whole"), head='deployment = "part"')
        assert house.reload().status == 200
        assert ask(house.base_url, model="broken").status == 502


@pytest.mark.parametrize(
    ("more", "setting"),
    [
        ("[goal]\nquality_floor = 0.9\n", "goal"),
        ('[rollout]\ndeployment = "other"\n', "rollout"),
        ('[candidates.small2]\nmodel = "x"\n', "candidates.small2"),
        ('[sequencers.one]\nkind = "fixed"\noptions = {order = ["small"]}\n', "sequencers.one"),
        ('[keys.a]\nsecret = "env:PATH"\ngoal = {quality_floor = 0.9}\n', "keys.a.goal"),
        ('[[rules]]\nname = "a"\ngoal = {quality_floor = 0.9}\n', "rules[0].goal"),
        ('[[rules]]\nname = "a"\npolicy = {kind = "best"}\n', "rules[0].policy"),
        ('[[rules]]\nname = "a"\ncandidates = ["small"]\n', "rules[0] (candidates, effort or adapter)"),
    ],
)
def test_a_setting_for_a_router_is_refused_by_name(house: House, more: str, setting: str) -> None:
    house.write(MODELS + more)
    with pytest.raises(ConfigError) as caught:
        build_app(load_config(house.path))
    message = str(caught.value)
    check_advice(message)
    assert f"{setting!r} is for a router" in message
    assert "turnout fit" in message


def test_rules_that_choose_nobody_hold(house: House) -> None:
    house.write(MODELS + '[[rules]]\nname = "no mail"\nredact = ["EMAIL_ADDRESS"]\n')
    with house.open():
        said = ask(house.base_url, model="small", messages=[{"role": "user", "content": "a@example.com"}])
        assert said.headers["x-turnout-rule"] == "no mail"
        assert "example.com" not in house.upstream.last.body.decode()


def test_a_default_provider_is_asked_for_only_where_a_model_names_none(house: House) -> None:
    more = '[providers.other]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
    named = '[models.small]\nprovider = "other"\n[models.large]\nprovider = "main"\n'
    assert load_config(house.write(more + named)).provider_of("large") == "main"
    with pytest.raises(ConfigError, match="'default_provider' is missing"):
        load_config(house.write(more + named + "[models.third]\n"))
    with pytest.raises(ConfigError, match="'default_provider' is missing"):
        load_config(house.write(more + named, head='deployment = "fitted"'))


def test_two_sections_of_one_model_are_refused(house: House) -> None:
    house.write(MODELS + '[candidates.small]\nmodel = "x"\n', head='deployment = "fitted"')
    with pytest.raises(ConfigError, match=r"'models.small' and 'candidates.small' are of the same model"):
        load_config(house.path)


def test_the_commands_say_it(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(house.path), "--check"]) == 0
    assert "ok" in capsys.readouterr().out
    for command in (["whatif"], ["retrain", "--out", str(house.folder / "new")]):
        assert main([command[0], str(house.path), *command[1:]]) != 0
        assert "the settings name no deployment" in capsys.readouterr().err
    for one in ("promote", "rollback"):
        assert main([one, str(house.path)]) != 0
        assert "Traceback" not in capsys.readouterr().err
    made = ["keys", "create", str(house.path), "team", "--model", "small"]
    assert main(made) == 0
    assert main([*made[:3], "other", "--model", "turnout/auto"]) != 0
    house.write("")
    capsys.readouterr()
    assert main(["serve", str(house.path), "--check"]) != 0
    assert "neither a deployment nor a model" in capsys.readouterr().err


def test_the_models_of_such_a_gateway_are_recorded_for_a_table(house: House) -> None:
    """The way to a deployment: its prompts, its models, its settings file."""
    prompts = house.folder / "prompts.jsonl"
    prompts.write_text('{"id": "1", "prompt": "hi", "reference": "hello"}\n')
    house.write("[models.small]\ninput_usd_per_mtok = 1.0\n[models.tiny]\n")
    told = ["record", str(prompts), "--out", str(house.folder / "table"), "--config", str(house.path)]
    assert main([*told, "--score", "contains"]) == 0
    assert sorted(house.asked()) == ["small", "tiny"]


@pytest.mark.parametrize("page", ["gateway.md", "config.md"])
def test_the_files_of_the_docs_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    for name in ("OPENAI_API_KEY", "TEAM_SECRET"):
        monkeypatch.setenv(name, "a-long-enough-secret")
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    path = tmp_path / "turnout.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    names = build_app(load_config(path)).parts.names
    assert names == (["large", "small"] if page == "gateway.md" else ["gpt-5"])


def test_the_schema_asks_for_no_deployment() -> None:
    assert config_schema()["$defs"]["Config"]["required"] == ["providers"]
