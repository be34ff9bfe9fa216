from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnout.core import Budget, Candidate, Goal, InputError, OutcomeTable, PriceCard, Query
from turnout.core.artifact import load, save
from turnout.policies import Best, Deployment, Frontier, Guard, measure_pairs, measure_singles
from turnout.routers import BestSingleRouter, KNNRouter

POOL = (
    Candidate(
        model="plain",
        price_card=PriceCard(input_usd_per_mtok=0.1, output_usd_per_mtok=0.1),
        capabilities=frozenset(),
        context_tokens=1000,
    ),
    Candidate(model="coder", capabilities=frozenset({"tools"})),
    Candidate(model="poet", capabilities=frozenset({"tools", "vision"})),
)
TOPICS = ("write a python function that sorts numbers", "write a poem about rivers and autumn light")


def make_table(num: int = 120) -> OutcomeTable:
    """The coder is right on code and the poet on poems; the plain one is always half right and cheap."""
    topic = np.arange(num) % 2
    texts = [f"{TOPICS[t]} number {i}" for i, t in enumerate(topic)]
    quality_QM = np.stack([np.full(num, 0.5), 1.0 - topic, topic.astype(float)], axis=1)
    quality_QM = np.clip(quality_QM + np.random.default_rng(0).normal(0, 0.02, quality_QM.shape), 0, 1)
    return OutcomeTable(
        queries=[Query(id=str(i), text=text) for i, text in enumerate(texts)],
        candidates=POOL,
        query_index=np.repeat(np.arange(num), 3),
        candidate_index=np.tile(np.arange(3), num),
        quality=quality_QM.ravel(),
        cost_usd=np.tile([0.0001, 0.001, 0.001], num),
    )


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    table = make_table()
    router, fallback = KNNRouter().fit(table), BestSingleRouter().fit(table)
    quality_MQ, usd_MQ = table.quality_QM.T, table.cost_usd_QM.T
    best_Q = table.quality_QM.max(axis=1)[None, :]
    routed = measure_pairs(
        np.vstack([best_Q, quality_MQ[:1]]), np.vstack([usd_MQ[1:2], usd_MQ[:1]]), quality_MQ, usd_MQ
    )
    singles, means = (
        measure_singles(quality_MQ, usd_MQ, int(fallback.estimate(table.queries[:1]).quality_QM[0].argmax())),
        fallback.estimate(table.queries[:1]),
    )
    frontier = Frontier(
        price_P=np.array([0.0, np.inf]),
        options=routed,
        singles=singles,
        quality_M=means.quality_QM[0],
        usd_M=means.cost_usd_QM[0],
        best=int(means.quality_QM[0].argmax()),
    )
    return Deployment(
        router=router,
        fallback=fallback,
        policy=Best(),
        goal=Goal(),
        frontier=frontier,
        guard=Guard(options=routed, confidence=0.95),
        certificate={"note": "made by hand"},
    )


def ask(text: str, **fields: object) -> list[Query]:
    return [Query(id="q", text=text, **fields)]  # type: ignore[arg-type]


def test_each_topic_goes_to_its_specialist(deployment: Deployment) -> None:
    queries = ask(f"{TOPICS[0]} quickly") + ask(f"{TOPICS[1]} slowly")
    decisions = deployment.decide(queries)
    assert decisions.names_Q == ("coder", "poet")
    assert decisions.fingerprint == deployment.fingerprint
    assert decisions[0].propensity == 1.0


def test_capability_and_context_are_masked_before_the_choice(deployment: Deployment) -> None:
    needs_eyes = deployment.decide(ask(TOPICS[0], needs=frozenset({"vision"})))
    assert needs_eyes.names_Q == ("poet",)
    cheap = Goal(usd_per_quality=1e-12)
    assert deployment.decide(ask(TOPICS[0]), goal=cheap).names_Q == ("plain",)
    too_long = deployment.decide(ask(TOPICS[0], input_tokens=2000), goal=cheap)
    assert too_long.names_Q[0] in ("coder", "poet")
    nobody = deployment.decide(ask(TOPICS[0], needs=frozenset({"audio", "tools"})))
    assert nobody.names_Q == (None,)


def test_a_mask_of_the_caller_and_a_cap_are_obeyed(deployment: Deployment) -> None:
    assert deployment.decide(ask(TOPICS[0]), allowed_QM=np.array([True, False, True])).names_Q != ("coder",)
    capped = deployment.decide(ask(TOPICS[0]), budget=Budget(usd_per_query=0.0005))
    assert capped.names_Q == ("plain",)


def test_behind_a_shut_guard_the_single_model_for_the_goal_serves(deployment: Deployment) -> None:
    shut = Deployment(
        router=deployment.router,
        fallback=deployment.fallback,
        policy=Best(),
        goal=Goal(),
        frontier=deployment.frontier,
        guard=Guard(options=_worse(deployment), confidence=0.95),
    )
    decisions = shut.decide(ask(TOPICS[0]) + ask(TOPICS[1]))
    assert len(set(decisions.names_Q)) == 1
    assert decisions.reason_Q[0] == "guard: not shown to beat the best single model"
    without = shut.decide(
        ask(TOPICS[0]), allowed_QM=np.array([n != decisions.names_Q[0] for n in ("plain", "coder", "poet")])
    )
    assert without.names_Q[0] not in (None, decisions.names_Q[0])


def _worse(deployment: Deployment):
    table = make_table()
    zero_PQ = np.zeros((2, len(table.queries)))
    return measure_pairs(zero_PQ, zero_PQ + 0.01, table.quality_QM.T, table.cost_usd_QM.T)


def test_it_survives_the_disk_with_its_plans_and_its_name(deployment: Deployment, tmp_path: Path) -> None:
    copy = load(save(deployment, tmp_path / "artifact"))
    assert isinstance(copy, Deployment)
    assert copy.fingerprint == deployment.fingerprint
    assert copy.certificate == {"note": "made by hand"}
    for goal in (Goal(), Goal(quality_floor=0.9), Goal(usd_per_1k=0.5), Goal(usd_per_quality=0.01)):
        assert copy.plan(goal) == deployment.plan(goal)


def test_without_calibration_only_a_stated_price_is_served(deployment: Deployment) -> None:
    bare = Deployment(router=deployment.router, fallback=deployment.fallback, policy=Best(), goal=Goal())
    assert bare.decide(ask(TOPICS[0])).names_Q == ("coder",)
    with pytest.raises(InputError, match="needs a calibrated frontier; fit with a calibration split"):
        bare.decide(ask(TOPICS[0]), goal=Goal(quality_floor=0.9))


def test_a_batch_decides_as_one_by_one(deployment: Deployment) -> None:
    queries = [Query(id=str(i), text=f"{TOPICS[i % 2]} {i}") for i in range(20)]
    together = deployment.decide(queries).names_Q
    assert together == tuple(deployment.decide([query]).names_Q[0] for query in queries)


@pytest.mark.parametrize(
    ("asked", "options", "message"),
    [
        (["hi"], {}, r"queries; allowed: a sequence of Query; got: 'hi'; write \[Query\(id='1'"),
        ("hi", {}, r"queries; allowed: a sequence of Query; got: 'hi'"),
        (Query(id="1", text="hi"), {}, r"queries; allowed: a sequence of Query; got: Query\(id='1'"),
        ([], {"goal": 0.95}, r"goal; allowed: an object of the kind Goal; got: 0.95; write for example Goal"),
        ([], {"goal": {}}, r"goal; allowed: an object of the kind Goal; got: \{\}"),
        ([], {"budget": 0.1}, r"budget; allowed: an object of the kind Budget; got: 0.1; write for example"),
    ],
)
def test_a_likely_slip_is_told_what_to_write(
    deployment: Deployment, asked: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        deployment.decide(asked, **options)
