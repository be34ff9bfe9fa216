"""This module holds every promise that a class of ours does not make, with the reason.

A key is "room:name:check", or "room:name:variant:check" for one setting. An excused check must fail: an
excuse that is no longer needed fails the test, so the table cannot rot.
"""

from __future__ import annotations

from types import SimpleNamespace

from turnout.checks import Settings
from turnout.checks.fixtures import LetterCounts
from turnout.features import SignalsEmbedder, TextEmbedder
from turnout.routers import BestSingleRouter, RidgeRouter
from turnout.sequential import LogisticScorer, SyntheticTask

TAGS = {"think": "think", "route": "search", "information": "information", "answer": "answer"}

EXCUSES: dict[str, str] = {
    "features:columns:different_texts_get_different_vectors": (
        "it reads numbers that were recorded with a query, and no text"
    ),
    "policies:threshold:a_dominated_candidate_is_not_chosen": (
        "the published rule knows two candidates, and a third may dominate both"
    ),
    "policies:threshold:an_unknown_quality_is_not_chosen": (
        "the published rule knows two candidates, and an unknown gain does not justify the strong one"
    ),
    "routers:domain_experts:experts=(('maths', 'owl'),):a_table_of_hard_texts_works": (
        "a domain that no query of the table has is refused as a mistyped one"
    ),
    "policies:threshold:weak='owl':an_unknown_cost_is_not_free": "its choice never reads the cost",
    "policies:threshold:strong='yak':an_unknown_cost_is_not_free": "its choice never reads the cost",
    "policies:cheapest:share=0.5:an_unknown_cost_is_not_free": (
        "the quality floor goes first: where only a candidate of unknown cost reaches it, it is the best one"
    ),
}

SETTINGS: dict[str, Settings] = {
    "features:api": {"model": ("small", "large"), "client": (None, SimpleNamespace(embeddings=None))},
    "features:columns": {"names": (("signals",), ("hidden", "probe"))},
    "features:joined": {
        "embedders": ((SignalsEmbedder(), LetterCounts()), (TextEmbedder(), SignalsEmbedder())),
        "weights": (None, (1.0, 3.0)),
    },
    "features:onnx": {"folder": ("here", "there")},
    "features:sentence": {"model": ("small", "large"), "device": (None, "cpu")},
    "routers:blend": {
        "members": (None, (RidgeRouter(), BestSingleRouter())),
        "weights": (None, ((0.5, 0.5, 1.0), (0.2, 0.0, 0.0), (0.0, 0.0, 0.0))),
    },
    "routers:composition": {"budget_params_b": (None, 100.0)},
    "routers:domain_experts": {"experts": ((), (("maths", "owl"),))},
    "routers:preference_routes": {"routes": ((), (("maths", "count the numbers", "owl"),))},
    "routers:safe_route": {"small": (None, "owl")},
    "sequential:cascade": {
        "scorer": (LogisticScorer(), LogisticScorer(penalty=1.0)),
        "order": (None, ("ant", "elk")),
    },
    "sequential:fixed": {"order": (("ant", "owl"), ("owl",))},
    "sequential:learned": {
        "embedder": (None, SignalsEmbedder()),
        "router": (None, RidgeRouter()),
        "scorer": (None, LogisticScorer()),
        "signals": ((), ("agreement",)),
    },
    "sequential:logistic": {
        "embedder": (None, SignalsEmbedder()),
        "answers": (None, SignalsEmbedder()),
        "signals": ((), ("agreement",)),
    },
    "sequential:optimal": {"task": (SyntheticTask(), SyntheticTask(rounds=2))},
    "sequential:router_r1": {
        "descriptions": ((), (("ant", "small and quick"),)),
        **{f"{name}_tag": (tag, f"my_{tag}") for name, tag in TAGS.items()},
    },
    "sequential:synthetic": {
        "success": (SyntheticTask().success, ((0.9, 0.9, 0.9), (0.5, 0.5, 0.5), (0.1, 0.1, 0.1))),
        "usd": (SyntheticTask().usd, (0.25, 0.5, 1.0)),
        "difficulty": (None, (0.5, 0.25, 0.25)),
        "hint": (None, SyntheticTask().hint),
        "signal": (SyntheticTask().signal, ((0.5, 0.5), (0.25, 0.75))),
    },
    "policies:threshold": {"weak": ("ant", "owl"), "strong": ("elk", "yak")},
}
"""Values of parameters that cannot be guessed, by "room:name"; the names are those of the checks' pool."""

CONSTRUCTOR_ONLY: dict[str, str] = {
    "features:api": "it needs a client, which is not saved; its own tests bring one",
    "features:onnx": "it needs a model file and an extra; its own tests bring them",
    "features:sentence": "it needs a model file and an extra; its own tests bring them",
}
"""Classes that can be built but not used on a bare machine, by "room:name"."""

NOT_VARIED: dict[str, str] = {
    "sequential:one_shot": "it is made around a deployment, which has its own tests; its own tests bring one",
    "sequential:recruit": "it is made around a fitted router; its own tests bring one",
    "policies:deployment": (
        "it is made of fitted parts, each of which is checked; its own promises are tested with training"
    ),
}
"""Classes whose settings are not values, by "room:name"."""


def excuse(test_id: str) -> str | None:
    """Return the reason why the check behind `room:name:variant:check` may fail, or None."""
    room, name, rest = test_id.split(":", 2)
    check = rest.rpartition(":")[2]
    return EXCUSES.get(test_id) or EXCUSES.get(f"{room}:{name}:{check}")
