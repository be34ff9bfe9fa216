"""One upstream and one gateway for the whole room; a test that needs its own starts its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import psycopg
import pytest

from tests.gateway.pool import ADAPTED, LARGE, SMALL, THINKING, make_deployment
from tests.gateway.servers import PostgresServer, RedisServer, postgres_server, redis_server
from tests.gateway.settings import make_config
from tests.gateway.upstream import Upstream, upstream_server
from turnout.gateway import central
from turnout.gateway.lifecycle import running

WIDE = (SMALL, LARGE, THINKING, ADAPTED)


@dataclass
class Served:
    """A gateway at work."""

    base_url: str
    ledger: Path


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A real Redis; who uses it takes a prefix of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def central_url(postgres: PostgresServer) -> str:
    """A PostgreSQL without rows."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP VIEW IF EXISTS turnout_requests")
        for table in (*central.TABLES, "sessions", "keys"):
            connection.execute(f"DROP TABLE IF EXISTS turnout_{table}")
    return postgres.url


@pytest.fixture(scope="session")
def one_upstream() -> Iterator[Upstream]:
    with upstream_server() as upstream:
        yield upstream


@pytest.fixture
def upstream(one_upstream: Upstream) -> Upstream:
    one_upstream.reset()
    return one_upstream


@pytest.fixture(scope="session")
def one_gateway(one_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ledger = tmp_path_factory.mktemp("gateway") / "ledger.sqlite"
    config = make_config(one_upstream.base_url, ledger, first_byte_s=1.0, idle_s=1.0, connect_s=1.0)
    with running(config, deployment=make_deployment(WIDE)) as ready:
        yield Served(ready.base_url, ledger)


@pytest.fixture
def gateway(one_gateway: Served, upstream: Upstream) -> Served:
    """The shared gateway, before a shared upstream that has forgotten everything."""
    return one_gateway


@pytest.fixture
def client(gateway: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made
