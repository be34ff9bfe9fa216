"""turnout: the routing layer of an LLM system.

Given these candidates, what would each give, what would each cost, and who should serve this?

| room | question |
|---|---|
| `core` | what is routed, and what is a decision? |
| `features` | what do we know before anyone answers? |
| `policies` | given estimates and a budget, whom do we call? |
| `dispatch` | the model is chosen: which replica? |
| `datasets` | where do outcome tables come from? |
| `nn` | the same questions inside a network |
| `routers` | how good and how dear would each candidate be on this query? |
| `online` | what does one observed answer teach us? |
| `sequential` | what next, having seen the last step? |
| `evaluation` | was it worth it? |
| `training` | what shall we deploy? |
| `gateway` | how do bytes get in and out? |
| `checks` | does a class keep its promises? |
| `cli` | thin doors to the rooms |

The names below load on first use; `import turnout` itself loads numpy and nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turnout.core import (
        Budget,
        Candidate,
        Decision,
        Decisions,
        Estimate,
        Goal,
        OutcomeTable,
        PriceCard,
        Query,
        TurnoutError,
    )
    from turnout.datasets import load as load_table
    from turnout.evaluation import evaluate
    from turnout.policies import Deployment
    from turnout.training import train

__version__ = "0.1.0"

_LAZY = {
    "Budget": "turnout.core",
    "Candidate": "turnout.core",
    "Decision": "turnout.core",
    "Decisions": "turnout.core",
    "Deployment": "turnout.policies",
    "Estimate": "turnout.core",
    "Goal": "turnout.core",
    "OutcomeTable": "turnout.core",
    "PriceCard": "turnout.core",
    "Query": "turnout.core",
    "TurnoutError": "turnout.core",
    "evaluate": "turnout.evaluation",
    "load_table": "turnout.datasets",
    "train": "turnout.training",
}

__all__ = [
    "Budget",
    "Candidate",
    "Decision",
    "Decisions",
    "Deployment",
    "Estimate",
    "Goal",
    "OutcomeTable",
    "PriceCard",
    "Query",
    "TurnoutError",
    "__version__",
    "evaluate",
    "load_table",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'turnout' has no attribute {name!r}; it has {', '.join(sorted(_LAZY))}")
    attribute = "load" if name == "load_table" else name
    return getattr(importlib.import_module(_LAZY[name]), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
