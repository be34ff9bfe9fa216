"""The JSON schema takes what the gateway takes, and refuses what it refuses."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from tests.docs import markdown
from tests.gateway.test_config import GOOD
from turnout.core import ConfigError
from turnout.gateway.config import load_config
from turnout.gateway.config_schema import config_schema

DOCS = markdown.ROOT / "docs"
VALIDATOR = jsonschema.Draft202012Validator(config_schema())


def examples() -> list[tuple[str, dict[str, Any]]]:
    """Return every TOML block of the docs that is a configuration or a part of one."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        blocks = [part.partition("```")[0] for part in text.split("```toml\n")[1:]]
        for number, block in enumerate(blocks):
            data = tomllib.loads(block)
            if "project" not in data:
                found.append((f"{page.name} {number}", data))
    return found


def whole(data: dict[str, Any]) -> dict[str, Any]:
    """Complete a part of a configuration with what is required."""
    return {**tomllib.loads(GOOD), **data}


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema())


@pytest.mark.parametrize(("name", "data"), examples(), ids=[name for name, _ in examples()])
def test_the_examples_of_the_docs_fit(name: str, data: dict[str, Any]) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(whole(data))] == []


def test_there_are_examples() -> None:
    assert len(examples()) >= 3


@pytest.mark.parametrize(
    "text",
    [
        "[server]\nprot = 1\n",
        "[server]\nport = 99999\n",
        "[server]\nport = 'x'\n",
        "[ledger]\nflush_ms = 5000\n",
        "[candidates.small]\nmodel = 3\n",
        "[keys.a]\nsha256 = 'xyz'\n",
        "[keys.a]\nbudget_usd = 0\n",
        "[keys.a]\nbudget_period = 'week'\n",
        "[keys.a]\ndials = ['lambda']\n",
        "[providers.b]\nkind = 'opneai'\nbase_url = 'http://x'\n",
    ],
)
def test_what_the_gateway_refuses_the_schema_refuses(tmp_path: Path, text: str) -> None:
    path = tmp_path / "turnout.toml"
    path.write_text(GOOD + text, encoding="utf-8")
    with pytest.raises(ConfigError):
        load_config(path)
    assert list(VALIDATOR.iter_errors(tomllib.loads(GOOD + text)))


def test_every_setting_has_its_sentence() -> None:
    schema = config_schema()
    silent = [
        f"{name}.{key}"
        for name, section in schema["$defs"].items()
        for key, value in section["properties"].items()
        if "description" not in value and key != "kind"
    ]
    assert silent == []
    assert msgspec.json.decode(msgspec.json.encode(schema)) == schema
