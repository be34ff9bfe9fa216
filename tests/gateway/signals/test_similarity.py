"""The similarity signal fires on its topic and not on what only sounds alike: the threshold is relative."""

from __future__ import annotations

import pytest

from tests.gateway.signals.facts import facts_of
from turnout.core.errors import ConfigError
from turnout.gateway.settings_signals import SimilaritySettings
from turnout.gateway.signals.background import UNRELATED
from turnout.gateway.signals.similarity import SimilaritySignal

REFUND = [
    "I want my money back for the shoes I ordered",
    "How do I get a refund for a broken product?",
    "My parcel never arrived, please refund me",
    "Can I return this jacket and get my money back?",
    "The item was damaged, I would like a refund",
    "How long does a refund take to reach my account?",
]
TRAVEL = [
    "Find me a cheap flight from Berlin to Rome",
    "Book a hotel near the station in Vienna",
    "Which flights go to Lisbon on Friday evening?",
    "I need a hotel with a pool for two nights",
    "Change my flight to an earlier one",
    "Cancel the hotel booking for next week",
    "Is breakfast included in the hotel booking?",
]
MEANT = {
    "refund": ("please refund my order", "where is my refund?", "the blender is broken, refund please"),
    "travel": ("book a flight to Oslo", "cheap hotels in Rome for two nights", "cancel my hotel booking"),
}
LOOSE = {
    "refund": (
        "How do I get a visa for India?",
        "My jacket is too warm, what should I wear?",
        "I want to order a pizza",
        "What product of two primes is 91?",
        "How long does it take to fly to Madrid?",
        "The parcel of land is three acres",
        "How much money does a pilot earn?",
        "Write me a story about shoes",
    ),
    "travel": (
        "Cancel my gym membership",
        "Which evening class can you recommend?",
        "A cheap phone for my mother",
        "Who won the Friday game?",
        "Is sugar included in the recipe?",
        "The capital of Italy is Rome",
    ),
}


def signal_for(topic: str, **settings: object) -> SimilaritySignal:
    examples = {"refund": REFUND, "travel": TRAVEL}[topic]
    return SimilaritySignal(name="s", settings=SimilaritySettings(examples=examples, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("topic", ["refund", "travel"])
def test_it_fires_on_its_topic_and_not_on_loosely_similar_text(topic: str) -> None:
    signal = signal_for(topic)
    assert [text for text in MEANT[topic] if not signal.read(facts_of(text)).holds] == []
    assert [text for text in LOOSE[topic] if signal.read(facts_of(text)).holds] == []


@pytest.mark.parametrize("topic", ["refund", "travel"])
def test_it_never_fires_on_an_unrelated_text(topic: str) -> None:
    signal = signal_for(topic)
    assert [text for text in UNRELATED if signal.read(facts_of(text)).holds] == []


def test_the_threshold_stands_above_every_other_text_and_below_the_examples() -> None:
    plain = signal_for("refund")
    told = signal_for("refund", unlike=["I want my umbrella back"])
    assert plain.far < plain.threshold < plain.near
    assert plain.far < told.far < told.threshold < told.near


@pytest.mark.parametrize(
    ("topic", "miss", "unlike"),
    [
        (
            "refund",
            "Can I get my driving licence back?",
            ["Can I get my keys back?", "I want my umbrella back"],
        ),
        ("travel", "The book is near the lamp", ["Which book should I read?", "The book lies on the shelf"]),
    ],
)
def test_a_near_miss_is_told_apart_once_its_like_is_named(topic: str, miss: str, unlike: list[str]) -> None:
    assert signal_for(topic).read(facts_of(miss)).holds
    told = signal_for(topic, unlike=unlike)
    assert not told.read(facts_of(miss)).holds
    assert [text for text in MEANT[topic] if not told.read(facts_of(text)).holds] == []


def test_strictness_moves_the_threshold_between_the_two() -> None:
    loose, strict = signal_for("refund", strictness=0.0), signal_for("refund", strictness=1.0)
    assert loose.threshold == loose.far
    assert strict.threshold == strict.near


def test_examples_without_a_topic_are_refused() -> None:
    with pytest.raises(ConfigError, match="too little in common"):
        SimilaritySignal(name="s", settings=SimilaritySettings(examples=list(UNRELATED[:6])))


def test_an_embedder_of_the_registry_may_measure() -> None:
    same = [f"refund the order {number} please" for number in ("one", "two", "three", "four")]
    settings = SimilaritySettings(examples=same, embedder="text", options={"num_features": 16})
    signal = SimilaritySignal(name="s", settings=settings)
    assert signal.is_slow
    assert signal.read(facts_of("refund the order nine please")).holds
    assert not signal.read(facts_of("What is the capital of Mongolia?")).holds
