"""Reasoning on or off per request (S114): the example's rules, and a router that learned when it pays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.docs import markdown
from tests.gateway.client import ask, row
from tests.gateway.conftest import Served
from tests.gateway.upstream import Upstream
from turnout.core import Candidate, Goal, OutcomeTable, Query, artifact
from turnout.features import TextEmbedder
from turnout.gateway.config import LedgerSettings, ServerSettings, load_config
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_providers import OpenAISettings
from turnout.policies import Best, Deployment
from turnout.routers import KNNRouter

EXAMPLE = markdown.ROOT / "examples" / "reasoning" / "turnout.toml"
OFF, ON = Candidate(model="qwen3", effort="none"), Candidate(model="qwen3", effort="high")
SUMS = [f"What is {a} times {b} minus {a}?" for a in range(11, 21) for b in (13, 17, 19)]
CAPITALS = [f"Name the capital of country {name}." for name in "abcdefghijklmnopqrstuvwxyz"]


def learned() -> Deployment:
    """Fit on a table in which thinking helps with sums and with nothing else, at ten times the cost."""
    queries = [Query(id=str(number), text=text) for number, text in enumerate([*SUMS, *CAPITALS])]
    num = len(queries)
    quality_QM = np.array([[0.2, 1.0] if query.text in SUMS else [1.0, 1.0] for query in queries])
    table = OutcomeTable(
        queries=queries,
        candidates=[OFF, ON],
        query_index=np.repeat(np.arange(num), 2),
        candidate_index=np.tile([0, 1], num),
        sample=np.zeros(2 * num, dtype=int),
        quality=quality_QM.ravel(),
        cost_usd=np.tile([1e-4, 1e-3], num),
    )
    router = KNNRouter(embedder=TextEmbedder(), k=5).fit(table)
    return Deployment(router=router, fallback=router, policy=Best(), goal=Goal(usd_per_quality=0.01))


@pytest.fixture(scope="module")
def stand(one_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The example's own file, with a deployment beside it and the address of our upstream."""
    folder = tmp_path_factory.mktemp("reasoning")
    artifact.save(learned(), folder / "deployment")
    path = folder / "turnout.toml"
    path.write_bytes(EXAMPLE.read_bytes())
    config = msgspec.structs.replace(
        load_config(path),
        providers={"main": OpenAISettings(base_url=one_upstream.base_url)},
        server=ServerSettings(port=0),
        ledger=LedgerSettings(path=str(folder / "ledger.sqlite")),
    )
    with running(config) as ready:
        yield Served(ready.base_url, Path(config.ledger.path))


@pytest.mark.parametrize(
    ("text", "effort", "rule"),
    [
        ("Prove that the square root of 2 is irrational.", "high", "think"),
        ("hello!", "none", "answer at once"),
        ("What is 14 times 18 minus 14?", "high", None),
        ("Name the capital of country k, now.", "none", None),
    ],
)
def test_thinking_is_bought_where_it_pays(
    stand: Served, upstream: Upstream, text: str, effort: str, rule: str | None
) -> None:
    answer = ask(stand.base_url, messages=[{"role": "user", "content": text}])
    assert answer.status == 200
    assert (upstream.last.json["model"], upstream.last.json["reasoning_effort"]) == ("qwen3", effort)
    assert answer.headers["x-turnout-model"] == f"qwen3[effort={effort}]"
    assert answer.headers.get("x-turnout-rule") == rule
    assert row(stand.ledger, answer.decision_id)["chosen"] == f"qwen3[effort={effort}]"


def test_the_dial_moves_the_line(stand: Served, upstream: Upstream) -> None:
    """One more right answer that is worth little buys no thinking; a rule buys it all the same."""
    sum_ = [{"role": "user", "content": "What is 14 times 18 minus 14?"}]
    proof = [{"role": "user", "content": "Prove it: what is 14 times 18 minus 14?"}]
    stingy = {"x-turnout-usd-per-quality": "0.0001"}
    ask(stand.base_url, messages=sum_, headers=stingy)
    assert upstream.last.json["reasoning_effort"] == "none"
    ask(stand.base_url, messages=proof, headers=stingy)
    assert upstream.last.json["reasoning_effort"] == "high"
