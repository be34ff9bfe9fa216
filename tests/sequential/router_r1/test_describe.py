"""The pool is described from what is known of it, and a model that is added today needs no training."""

from __future__ import annotations

from turnout.core import Candidate, OutcomeTable, PriceCard, Query
from turnout.sequential.router_r1 import describe_pool, system_text

CARD = PriceCard(input_usd_per_mtok=0.1, output_usd_per_mtok=0.4)
SMALL, LARGE = Candidate(model="small", price_card=CARD), Candidate(model="large")


def table() -> OutcomeTable:
    queries = [
        Query(id=f"{task}{i}", text=f"{task} {i}?", task=task) for task in ("sum", "law") for i in range(6)
    ]
    rows = [(q, m) for q in range(12) for m in range(2)]
    # The small model can add, the large one knows the law; both answer sum 0.
    quality = [float((m == 0) == (q < 6) or q == 0) for q, m in rows]
    return OutcomeTable(
        queries=queries,
        candidates=[SMALL, LARGE],
        query_index=[q for q, _ in rows],
        candidate_index=[m for _, m in rows],
        quality=quality,
        cost_usd=[1e-5 if m == 0 else 2e-3 for _, m in rows],
        latency_s=[0.5 if m == 0 else 4.0 for _, m in rows],
    )


def test_a_line_names_price_strength_cost_latency_and_an_example() -> None:
    small, large = (line for _, line in describe_pool((SMALL, LARGE), table()))
    for part in (
        "0.1 in / 0.4 out",
        "right 50% of the time",
        "strong in sum",
        "weak in law",
        "1e-05 usd a call",
    ):
        assert part in small
    assert "4 s a call" in large
    assert "strong in law" in large
    # Not sum 0, which both got right.
    assert "got right: 'sum 1?'" in small


def test_a_model_without_outcomes_says_what_its_description_says() -> None:
    new = Candidate(model="new", price_card=CARD, context_tokens=8000, descriptors={"params_b": 7.0})
    line = dict(describe_pool((new, LARGE), table()))["new"]
    assert line == "0.1 in / 0.4 out usd per million tokens; context 8000 tokens; params_b 7"
    assert dict(describe_pool((Candidate(model="bare"),)))["bare"] == "nothing is known of it"


def test_one_task_alone_is_no_strength() -> None:
    part = table().select(task="sum")
    assert "strong" not in dict(describe_pool((SMALL,), part))["small"]


def test_the_prompt_lists_everybody_and_the_rules() -> None:
    text = system_text(("small", "new"), describe_pool((SMALL,)), max_turns=3)
    assert "- small: 0.1 in" in text
    assert text.endswith("- new")
    assert "at most 3 times" in text
    assert "<search>Model: sub-query</search>" in text
    assert "<search>Model</search>" in system_text(("small",), sub_queries=False)
