"""What is routed, and what is a decision?

Contract: types only. Imports: numpy (pyarrow and safetensors inside the functions that read and write).
Every other room stands on this one and nothing stands below it.
"""

from __future__ import annotations

from turnout.core.budget import Budget, Goal
from turnout.core.candidate import Candidate, PriceCard
from turnout.core.clock import Clock, ManualClock, SystemClock
from turnout.core.contracts import Configured, Embedder, Policy, Router, State, fitted
from turnout.core.decision import NONE, Decision, Decisions, decisions_for
from turnout.core.errors import (
    ArtifactError,
    ArtifactVersionError,
    ConfigError,
    InputError,
    LeakageError,
    MissingExtraError,
    NotFittedError,
    ProviderError,
    ShapeError,
    TableError,
    TurnoutError,
    UnknownNameError,
)
from turnout.core.estimate import Estimate, make_estimate
from turnout.core.outcomes import OutcomeTable
from turnout.core.query import Query
from turnout.core.registry import Registry, find_registry
from turnout.core.rng import make_rng

__all__ = [
    "NONE",
    "ArtifactError",
    "ArtifactVersionError",
    "Budget",
    "Candidate",
    "Clock",
    "ConfigError",
    "Configured",
    "Decision",
    "Decisions",
    "Embedder",
    "Estimate",
    "Goal",
    "InputError",
    "LeakageError",
    "ManualClock",
    "MissingExtraError",
    "NotFittedError",
    "OutcomeTable",
    "Policy",
    "PriceCard",
    "ProviderError",
    "Query",
    "Registry",
    "Router",
    "ShapeError",
    "State",
    "SystemClock",
    "TableError",
    "TurnoutError",
    "UnknownNameError",
    "decisions_for",
    "find_registry",
    "fitted",
    "make_estimate",
    "make_rng",
]
