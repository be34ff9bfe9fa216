"""Every setting that names another thing is refused where that thing is not there, by a sentence.

Settings that hold texts are told apart once, here: a new one is either a name, with a case below, or a text
of its own, with the reason why nothing can be missing.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway.client import check_advice
from tests.gateway.fitted import fitted
from tests.gateway.pool import POOL as TWO
from tests.gateway.pool import THINKING, make_deployment
from turnout.core import ConfigError, Query, TurnoutError, artifact
from turnout.core.clock import SystemClock
from turnout.features.task import TaskEmbedder
from turnout.gateway.build import build_all
from turnout.gateway.config import Config, LedgerSettings, load_config
from turnout.gateway.ledger import Ledger
from turnout.gateway.providers.base import Provider, check_places
from turnout.gateway.settings import Settings

POOL = (*TWO, THINKING)
GOOD = """
deployment = "given in memory"
default_provider = "main"
[providers.main]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[providers.other]
kind = "openai"
base_url = "http://127.0.0.1:2/v1"
[candidates.large]
provider = "other"
[models.embed]
provider = "other"
[sequencers.steps]
kind = "fixed"
options = { order = ["small", "large"] }
[signals.code]
kind = "code"
[[rules]]
name = "first"
when = "code"
candidates = ["small"]
go_on = true
[keys.ann]
sha256 = "%s"
models = ["turnout/auto", "turnout/steps", "small", "embed"]
""" % ("0" * 64)  # fmt: skip
UPSTREAM = '[providers.more]\nbase_url = "http://x"\nkind = '
SIMILAR = '\n[signals.more]\nkind = "similarity"\nexamples = ["a", "b"]\nembedder = '
DOMAIN = '\n[signals.more]\nkind = "domain"\nartifact = '
SIGNAL = "\n[signals.more]\n"
RULE = '\n[[rules]]\nname = "more"\n'
SEQUENCER = '\n[sequencers.more]\nkind = "router_r1"\n'

NAMES: dict[str, tuple[str, str, str]] = {
    # setting: (what is added to the file, or what is written in place of what, the name, its neighbour)
    "default_provider": ('default_provider = "mian"', "mian", "'main'"),
    "providers.NAME.table": ('[providers.more]\nkind = "replay"\ntable = "gone"', "gone", ""),
    "providers.NAME.api_key_env": (UPSTREAM + '"openai"\napi_key_env = "GONE_X"', "GONE_X", ""),
    "providers.NAME.api_key": (UPSTREAM + '"openai"\napi_key = "env:GONE_X"', "GONE_X", ""),
    "providers.NAME.access_key_env": (
        UPSTREAM + '"bedrock"\naccess_key_env = "GONE_X"', "GONE_X", ""
    ),
    "providers.NAME.secret_key_env": (
        UPSTREAM + '"bedrock"\naccess_key_env = "PATH"\nsecret_key_env = "GONE_X"',
        "GONE_X", "",
    ),
    "candidates": ('[candidates.smal]\nmodel = "x"', "smal", "'small'"),
    "candidates.NAME.provider": ('[candidates.small]\nprovider = "othr"', "othr", "'other'"),
    "candidates.NAME.fallbacks": ('[candidates.small]\nfallbacks = ["larg"]', "larg", "'large'"),
    "models.NAME.fallbacks": ('[models.more]\nfallbacks = ["smal"]', "smal", "'small'"),
    "models.NAME.provider": ('[models.more]\nprovider = "othr"', "othr", "'other'"),
    "routing.sequencer": ('[routing]\nsequencer = "stebs"', "stebs", "'steps'"),
    "sequencers.NAME.kind": ('[sequencers.more]\nkind = "cascad"', "cascad", "'cascade'"),
    "sequencers.NAME.artifact": ('[sequencers.more]\nartifact = "gone"', "gone", ""),
    "sequencers.NAME.options": (
        '[sequencers.more]\nkind = "fixed"\noptions = { order = ["smal"] }', "smal", "'small'"
    ),
    "sequencers.NAME.candidates": (SEQUENCER + 'candidates = ["smal"]', "smal", "'small'"),
    "sequencers.NAME.policy_model": (SEQUENCER + 'policy_model = "smal"', "smal", "'small'"),
    "sequencers.NAME.policy_provider": (
        SEQUENCER + 'policy_model = "any"\npolicy_provider = "othr"', "othr", "'other'"
    ),
    "rules.when": (RULE + 'when = {any = ["code", {not = "cod"}]}', "cod", "'code'"),
    "rules.candidates": (RULE + 'candidates = ["smal"]', "smal", "'small'"),
    "rules.effort": (RULE + 'effort = "hihg"', "hihg", "'high'"),
    "rules.adapter": (RULE + 'adapter = "leagl"', "leagl", ""),
    "rules.policy.kind": (RULE + 'policy = {kind = "besst"}', "besst", "'best'"),
    "rules.policy.options": (RULE + 'policy = {kind = "best", options = {cautoin = 1}}', "cautoin", ""),
    "rules.redact": (RULE + 'redact = ["URLS"]', "URLS", "'URL'"),
    "rules.cache.embedder": (RULE + 'cache = {similarity = 0.9, embedder = "txt"}', "txt", "'text'"),
    "rules.cache.options": (RULE + 'cache = {similarity = 0.9, options = {diim = 1}}', "diim", ""),
    "signals.NAME.languages": (SIGNAL + 'kind = "language"\nlanguages = ["eng"]', "eng", "'en'"),
    "signals.NAME.needs": (SIGNAL + 'kind = "needs"\nneeds = ["tool"]', "tool", "'tools'"),
    "signals.NAME.artifact": (DOMAIN + '"gone"\nlabels = ["a"]', "gone", ""),
    "signals.NAME.labels": (DOMAIN + '"tasks"\nlabels = ["mahts"]', "mahts", "'maths'"),
    "signals.NAME.embedder": (SIMILAR + '"txt"', "txt", "'text'"),
    "signals.NAME.options": (
        SIMILAR + '"text"\noptions = {diim = 1}', "diim", ""
    ),
    "signals.NAME.kinds": (SIGNAL + 'kind = "pii"\nkinds = ["URLS"]', "URLS", "'URL'"),
    "keys.NAME.secret": ('[keys.more]\nsecret = "env:GONE_X"', "GONE_X", ""),
    "keys.NAME.models": ('[keys.more]\nsha256 = "%s"\nmodels = ["smal"]' % ("1" * 64), "smal", "'small'"),
    "rollout.deployment": ('[rollout]\ndeployment = "gone"', "gone", ""),
    "deployment": ('deployment = "gone"', "gone", ""),
    "prices.path": ('[prices]\npath = "gone.json"', "gone.json", ""),
    "shared.redis": ('[shared]\nredis = "env:GONE_X"', "GONE_X", ""),
    "shared.postgres": ('[shared]\npostgres = "env:GONE_X"', "GONE_X", ""),
}  # fmt: skip

FREE = {
    "providers.NAME.base_url": "an address",
    "providers.NAME.max_tokens_field": "a word of the upstream's",
    "providers.NAME.adapter_model": "a form",
    "providers.NAME.api_version": "a word of the upstream's",
    "providers.NAME.version": "a word of the upstream's",
    "providers.NAME.region": "a word of the upstream's",
    "providers.NAME.session_token_env": "may be absent",
    "providers.NAME.folder": "read when the provider starts: `tests/gateway/test_local.py`",
    "candidates.NAME.model": "known upstream alone; a model in this process: below",
    "candidates.NAME.leave_out": "words of the client's API, those of a vendor too",
    "models.NAME.model": "known upstream alone",
    "models.NAME.leave_out": "words of the client's API, those of a vendor too",
    "signals.NAME.words": "words to be found",
    "signals.NAME.pattern": "a pattern",
    "signals.NAME.examples": "texts",
    "signals.NAME.unlike": "texts",
    "signals.NAME.header": "a proxy's",
    "signals.NAME.values": "a proxy's",
    "signals.NAME.tenants": "`turnout keys` makes tenants while the gateway runs",
    "rules.name": "is a name",
    "rules.system_prompt": "a text",
    "rules.set_fields": "words of the client's API",
    "rules.request_headers": "a proxy's",
    "rules.response_headers": "a proxy's",
    "rules.block": "a text",
    "keys.NAME.sha256": "a hash",
    "keys.NAME.tenant": "is a name",
    "auth.path": "made where it is missing",
    "ledger.path": "made where it is missing",
    "shared.redis_prefix": "is a name",
    "server.host": "an address",
    "server.allowed_hosts": "names of hosts, which need not be there yet",
    "routing.alias": "is a name",
    "rollout.salt": "any text",
}
"""Settings that hold texts of their own, and why nothing that they name could be missing."""


def texts_of(kind: Any, where: str) -> Iterator[str]:
    """Yield every setting whose value is or holds a text that is not one of a few words."""
    for field in msgspec.structs.fields(kind):
        place = where + field.name
        structs = [one for one in leaves(field.type) if isinstance(one, type) and issubclass(one, Settings)]
        bare = field.type.__origin__ if hasattr(field.type, "__metadata__") else field.type
        is_named = typing.get_origin(bare) is dict
        for one in structs:
            yield from texts_of(one, f"{place}.NAME." if is_named else f"{place}.")
        if is_named if structs else {str, Any} & set(leaves(field.type)):
            yield place


def leaves(kind: Any) -> Iterator[Any]:
    """Yield the types that a type is made of; the names of a table of texts are its keys."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from leaves(typing.get_args(kind)[0])
    elif origin in (list, dict, tuple, typing.Union, types.UnionType):
        for one in typing.get_args(kind)[1 if origin is dict else 0 :]:
            yield from leaves(one)
    elif origin is not typing.Literal:
        yield kind


OWN = {"providers", "models", "sequencers", "signals", "keys"}
"""Sections whose names are of one's own choice."""


def test_every_text_of_the_settings_is_a_name_with_a_case_or_a_text_with_a_reason() -> None:
    found = set(texts_of(Config, "")) - OWN
    assert found == NAMES.keys() | FREE.keys()
    assert not NAMES.keys() & FREE.keys()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier of tasks."""
    place = tmp_path_factory.mktemp("names")
    queries = [Query(id=str(at), text=text, task=task) for at, (text, task) in enumerate(
        [("add two numbers", "maths"), ("a poem on rain", "verse")] * 6)]  # fmt: skip
    artifact.save(TaskEmbedder().fit(queries), place / "tasks")
    artifact.save(fitted(), place / "second")
    return place


def build(folder: Path, text: str, *, is_loaded: bool = False) -> None:
    """Load a file, and make all that it names."""
    path = folder / "gateway.toml"
    path.write_text(text)
    config = load_config(path)
    built = build_all(config, deployment=None if is_loaded else make_deployment(POOL))
    parts = built.parts(ledger=Ledger(settings=LedgerSettings(), clock=SystemClock()), clock=SystemClock())
    _ = config.shared.central
    if config.shared.redis is not None:
        from turnout.gateway.shared import redis_client

        redis_client(config.shared)
    if parts.rules is not None:
        parts.rules.close()


def test_the_file_without_a_wrong_name_is_taken(folder: Path) -> None:
    build(folder, GOOD)


@pytest.mark.parametrize("setting", NAMES)
def test_a_name_of_what_is_not_there_is_refused_when_the_settings_are_loaded(
    folder: Path, setting: str
) -> None:
    added, got, neighbour = NAMES[setting]
    if setting in ("default_provider", "deployment"):
        text = re.sub(rf"(?m)^{setting} = .*$", added, GOOD)
    else:
        text = GOOD + "\n" + added + "\n"
    with pytest.raises(TurnoutError) as told:
        build(folder, text, is_loaded=setting == "deployment")
    message = str(told.value)
    assert got in message, message
    assert neighbour in message, message
    if "no artifact at" in message:
        assert f"the setting '{setting.replace('NAME', 'more')}'" in message
    else:
        check_advice(message)


def test_prices_and_a_second_deployment_name_the_pool(folder: Path) -> None:
    card = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}
    (folder / "prices.json").write_text(json.dumps({"date": "2026-01-01", "models": {"smal": card}}))
    with pytest.raises(ConfigError, match=r"'smal'.*did you mean 'small'"):
        build(folder, GOOD + '\n[prices]\npath = "prices.json"\n')


class _Knows(Provider):
    models = ("small", "large")

    async def ask(self, call: Any) -> Any:
        raise NotImplementedError


def test_a_provider_that_knows_its_models_is_asked_for_those_alone() -> None:
    knows = _Knows(name="here")
    check_places({"a": (knows, "small")})
    with pytest.raises(ConfigError, match=r"'a' has no model at .*'here'.*got: 'smal'; did you mean 'small'"):
        check_places({"a": (knows, "smal")})
