"""What the settings of a sequencer may name, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.gateway.pool import LARGE, SMALL, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.stand import R1
from turnout.core import ConfigError, artifact
from turnout.gateway.app import build_app
from turnout.gateway.config import RoutingSettings, SequencerSettings, load_config
from turnout.sequential.router_r1 import RouterR1


def test_a_saved_sequencer_is_loaded_and_a_pool_may_be_part(tmp_path: Path) -> None:
    artifact.save(RouterR1(descriptions=(("small", "a bargain"),)), tmp_path / "r1")
    text = """
        deployment = "d"
        [providers.main]
        kind = "openai"
        base_url = "http://127.0.0.1:9/v1"
        [sequencers.own]
        artifact = "r1"
        policy_model = "large"
        candidates = ["small"]
        [sequencers.made]
        kind = "router_r1"
        policy_model = "large"
        options = { max_turns = 2, descriptions = [["small", "cheap"]] }
    """
    (tmp_path / "turnout.toml").write_text(text)
    config = load_config(tmp_path / "turnout.toml")
    found = build_app(config, deployment=make_deployment()).chat.sequences.sequences
    own, made = found["turnout/own"], found["turnout/made"]
    assert own.sequencer.config()["descriptions"] == (("small", "a bargain"),)
    assert own.pool == made.pool == (SMALL,)
    assert own.thinker == LARGE
    assert made.sequencer.config()["max_turns"] == 2


WRONG = {
    "kind": ({"kind": "router_r2"}, "sequencers.x.kind"),
    "neither": ({}, "either 'kind' or 'artifact'"),
    "both": ({"kind": "fixed", "artifact": "a"}, "either 'kind' or 'artifact'"),
    "option": ({"kind": "router_r1", "options": {"max_turn": 3}}, "did you mean 'max_turns'"),
    "value": ({"kind": "router_r1", "options": {"max_turns": 0}}, "sequencers.x.options"),
    "missing": ({"kind": "fixed"}, "sequencers.x.options"),
    "policy": ({"kind": "router_r1", "policy_model": "smal"}, "did you mean 'small'"),
    "provider": (
        {"kind": "router_r1", "policy_model": "p", "policy_provider": "mian"},
        "did you mean 'main'",
    ),
    "pool": ({"kind": "router_r1", "candidates": ["smaller"]}, "sequencers.x.candidates"),
    "price": (
        {"kind": "router_r1", "policy_model": "p", "policy_provider": "main", "max_usd": 1.0},
        "none of p",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named_at_the_start(name: str) -> None:
    fields, words = WRONG[name]
    plain = make_config("http://127.0.0.1:9/v1", Path("never.sqlite"))
    config = msgspec.structs.replace(plain, sequencers={"x": SequencerSettings(**fields)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        build_app(config, deployment=make_deployment())
    assert words in str(caught.value)
    assert "sequencers.x" in str(caught.value)


def test_names_must_not_collide() -> None:
    plain = make_config("http://127.0.0.1:9/v1", Path("never.sqlite"))
    for changes, words in (
        ({"sequencers": {"auto": R1}}, "a name that nothing else has"),
        ({"routing": RoutingSettings(sequencer="r3"), "sequencers": {"r1": R1}}, "did you mean 'r1'"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_app(msgspec.structs.replace(plain, **changes), deployment=make_deployment())


def test_a_misspelt_key_of_a_file_is_named(tmp_path: Path) -> None:
    start = 'deployment = "d"\n[providers.main]\nkind = "openai"\nbase_url = "http://x/v1"\n[sequencers.r1]\n'
    path = tmp_path / "turnout.toml"
    path.write_text(start + 'kind = "router_r1"\nmax_step = 3\n')
    with pytest.raises(ConfigError, match=r"unknown key 'sequencers.r1.max_step'.*did you mean 'max_steps'"):
        load_config(path)
    path.write_text(start + 'kind = "router_r1"\nmax_steps = 0\n')
    with pytest.raises(ConfigError, match=r"the key 'sequencers.r1.max_steps' is wrong"):
        load_config(path)
