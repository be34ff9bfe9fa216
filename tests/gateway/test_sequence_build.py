"""What the settings of a sequencer may name, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.gateway.client import check_advice
from tests.gateway.pool import LARGE, SMALL, make_deployment
from tests.gateway.settings import make_config
from tests.gateway.stand import R1
from turnout.core import ConfigError, artifact
from turnout.gateway.app import build_app
from turnout.gateway.config import RoutingSettings, SequencerSettings, load_config
from turnout.sequential import FixedOrder
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
    found = build_app(config, deployment=make_deployment()).parts.sequences.sequences
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
    "missing": ({"kind": "fixed"}, "the setting 'sequencers.x.options.order' is missing"),
    "number": ({"kind": "fixed", "options": {"order": 3}}, "sequencers.x.options"),
    "nobody": (
        {"kind": "fixed", "options": {"order": ["smal"]}},
        "'sequencers.x.options.order' is wrong; allowed: a candidate of its pool (2 of them); got: 'smal'; "
        "did you mean 'small'",
    ),
    "outside": (
        {"kind": "fixed", "options": {"order": ["small"]}, "candidates": ["large"]},
        "allowed: a candidate of its pool (1 of them)",
    ),
    "scorer": ({"kind": "logistic"}, "got: 'LogisticScorer'"),
    "object": ({"kind": "cascade"}, "name its folder in 'artifact'"),
    "unfitted": ({"kind": "learned"}, "which has learned nothing"),
    "thinker": ({"kind": "router_r1"}, "'sequencers.x.policy_model' is wrong"),
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
    said = str(caught.value)
    assert words in said
    assert said.startswith(("the setting 'sequencers.x", "the section 'sequencers.x"))
    assert not any(inside in said for inside in ("__init__", "'goal'", "FixedOrder.", "RouterR1."))
    check_advice(said)


def test_names_must_not_collide() -> None:
    plain = make_config("http://127.0.0.1:9/v1", Path("never.sqlite"))
    for changes, words in (
        ({"sequencers": {"auto": R1}}, "a name that nothing else has"),
        ({"routing": RoutingSettings(sequencer="r3"), "sequencers": {"r1": R1}}, "did you mean 'r1'"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            build_app(msgspec.structs.replace(plain, **changes), deployment=make_deployment())
        assert "'goal'" not in str(caught.value)


def test_a_saved_order_must_fit_the_pool(tmp_path: Path) -> None:
    artifact.save(FixedOrder(order=["small", "gone"]), tmp_path / "order")
    plain = make_config("http://127.0.0.1:9/v1", Path("never.sqlite"))
    own = SequencerSettings(artifact=str(tmp_path / "order"))
    with pytest.raises(ConfigError, match=r"'sequencers.x.artifact' is wrong; .*got: 'gone'"):
        build_app(msgspec.structs.replace(plain, sequencers={"x": own}), deployment=make_deployment())


def test_a_misspelt_key_of_a_file_is_named(tmp_path: Path) -> None:
    start = 'deployment = "d"\n[providers.main]\nkind = "openai"\nbase_url = "http://x/v1"\n[sequencers.r1]\n'
    path = tmp_path / "turnout.toml"
    path.write_text(start + 'kind = "router_r1"\nmax_step = 3\n')
    with pytest.raises(ConfigError, match=r"unknown key 'sequencers.r1.max_step'.*did you mean 'max_steps'"):
        load_config(path)
    path.write_text(start + 'kind = "router_r1"\nmax_steps = 0\n')
    with pytest.raises(ConfigError, match=r"the key 'sequencers.r1.max_steps' is wrong"):
        load_config(path)
