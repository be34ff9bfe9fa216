"""One gateway before a willing model that speaks several APIs; clients of other projects ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.gateway.clients.willing_chat import say_chat
from tests.gateway.clients.willing_messages import say_messages
from tests.gateway.clients.willing_responses import say_responses
from tests.gateway.conftest import Served
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import Asked, Say, Told, told_server, whole
from turnout.core import Candidate
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import AnthropicSettings

PLAIN = Candidate(model="plain")
CLAUDE = Candidate(model="claude")


def pytest_configure(config: pytest.Config) -> None:
    """Know the marks of langchain's tests, whose plug-ins stay out of this project's runs."""
    for name in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{name}: of langchain's standard tests")


def say(asked: Asked) -> Say:
    """Answer in the API that was asked."""
    last = asked.path.partition("?")[0].rpartition("/")[2]
    known = {"completions": say_chat, "messages": say_messages, "responses": say_responses}
    return known[last](asked) if last in known else whole({"error": {"message": asked.path}}, 404)


@pytest.fixture(scope="session")
def willing() -> Iterator[Told]:
    """The upstream."""
    with told_server() as told:
        told.say = say
        yield told


@pytest.fixture(scope="session")
def served(willing: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose `plain` is asked in chat and whose `claude` is asked in Messages."""
    ledger = Path(tmp_path_factory.mktemp("clients") / "ledger.sqlite")
    plain = make_config(willing.base_url, ledger)
    config = msgspec.structs.replace(
        plain,
        providers={**plain.providers, "claude": AnthropicSettings(base_url=willing.base_url)},
        default_provider="main",
        candidates={"claude": CandidateSettings(provider="claude")},
    )
    with running(config.check(), deployment=make_deployment((PLAIN, CLAUDE))) as ready:
        yield Served(ready.base_url, ledger)


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio."""
    return "asyncio"
