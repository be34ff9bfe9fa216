"""What next, having seen the last step?

Contract: `Sequencer.next(trace, rng) -> Choice`, whose action is one of `Call`, `CallSet`, `Think` (a
policy's own language model writes on), `Stop`, `Escalate` or `Abstain`. A trace holds one task's steps so
far: what was chosen, what it cost, what came back. Embedders and clients come by injection, and an
environment stands in for the world.

    outcome = run(ReplayEnvironment(table, independent=True), FixedOrder(order=("small", "large")), query)

Imports: `core`, `policies`. Used by: `gateway`, `cli`. Siblings it does not see: `routers`, `online`.

| name | sentence | source |
|---|---|---|
| `fixed` | everybody of a list, in its order | control |
| `random` | whoever the lot falls on | control |
| `one_shot` | a deployment's choice and its fallbacks | this package |
| `cascade` | cheap ones first, until an answer's score is good enough | FrugalGPT |
| `learned` | a small softmax policy, trained on recorded outcomes | S7's task; REINFORCE |
| `logistic` | scores an answer by what it shows, for the two above | FrugalGPT's g |
| `optimal` | the best of a task whose chances are known | dynamic programming |
| `synthetic` | that task: hidden difficulty, noisy signals | this package |
| `recruit` | a team of experts per query, then a vote or an aggregator | S173, Symbolic-MoE |
| `router_r1` | a language model that thinks, asks and answers | S7, Router-R1 (arXiv 2506.09033) |

`registry` is the room's table: a name, and the "module:Class" that it stands for. See docs/sequential.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.lazy import lazy_exports
from turnout.core.registry import Registry

if TYPE_CHECKING:
    from turnout.sequential.actions import Abstain, Call, CallSet, Choice, Escalate, Stop, Think
    from turnout.sequential.auditing import audit
    from turnout.sequential.cascade import Cascade
    from turnout.sequential.contracts import AsyncEnvironment, Environment, Scorer, Sequencer
    from turnout.sequential.dynamic import optimal_value
    from turnout.sequential.fixed import FixedOrder
    from turnout.sequential.learned import LearnedSequencer
    from turnout.sequential.live import BlockingEnvironment, LiveEnvironment
    from turnout.sequential.logistic import LogisticScorer
    from turnout.sequential.loop import Outcome, run, run_async
    from turnout.sequential.one_shot import OneShot
    from turnout.sequential.optimal import OptimalSequencer
    from turnout.sequential.random import RandomSequencer
    from turnout.sequential.recruit import Recruit, ask_by_expert, by_expert
    from turnout.sequential.reinforce import Settings
    from turnout.sequential.replay import ReplayEnvironment
    from turnout.sequential.router_r1.router import RouterR1
    from turnout.sequential.synthetic import SyntheticTask
    from turnout.sequential.trace import Bounds, Ended, Observed, Started, Thought, Trace

TABLE: dict[str, str] = {
    "cascade": "turnout.sequential.cascade:Cascade",
    "fixed": "turnout.sequential.fixed:FixedOrder",
    "learned": "turnout.sequential.learned:LearnedSequencer",
    "logistic": "turnout.sequential.logistic:LogisticScorer",
    "one_shot": "turnout.sequential.one_shot:OneShot",
    "optimal": "turnout.sequential.optimal:OptimalSequencer",
    "random": "turnout.sequential.random:RandomSequencer",
    "recruit": "turnout.sequential.recruit:Recruit",
    "router_r1": "turnout.sequential.router_r1.router:RouterR1",
    "synthetic": "turnout.sequential.synthetic:SyntheticTask",
}
"""Names of the sequencers, and of the scorers that they may be given."""

registry = Registry("sequential", TABLE)
"""The room's names; third parties add theirs through the entry points `turnout.sequential`."""

_LAZY = {
    "Abstain": ".actions",
    "AsyncEnvironment": ".contracts",
    "BlockingEnvironment": ".live",
    "Bounds": ".trace",
    "Call": ".actions",
    "CallSet": ".actions",
    "Cascade": ".cascade",
    "Choice": ".actions",
    "Ended": ".trace",
    "Environment": ".contracts",
    "Escalate": ".actions",
    "FixedOrder": ".fixed",
    "LearnedSequencer": ".learned",
    "LiveEnvironment": ".live",
    "LogisticScorer": ".logistic",
    "Observed": ".trace",
    "OneShot": ".one_shot",
    "OptimalSequencer": ".optimal",
    "Outcome": ".loop",
    "RandomSequencer": ".random",
    "Recruit": ".recruit",
    "ReplayEnvironment": ".replay",
    "RouterR1": ".router_r1.router",
    "Scorer": ".contracts",
    "Sequencer": ".contracts",
    "Settings": ".reinforce",
    "Started": ".trace",
    "Stop": ".actions",
    "SyntheticTask": ".synthetic",
    "Think": ".actions",
    "Thought": ".trace",
    "Trace": ".trace",
    "ask_by_expert": ".recruit",
    "audit": ".auditing",
    "by_expert": ".recruit",
    "optimal_value": ".dynamic",
    "run": ".loop",
    "run_async": ".loop",
}

__all__ = [
    "optimal_value",
    "ask_by_expert",
    "audit",
    "by_expert",
    "SyntheticTask",
    "Settings",
    "OptimalSequencer",
    "LogisticScorer",
    "LearnedSequencer",
    "Cascade",
    "Abstain",
    "AsyncEnvironment",
    "BlockingEnvironment",
    "Bounds",
    "Call",
    "CallSet",
    "Choice",
    "Ended",
    "Environment",
    "Escalate",
    "FixedOrder",
    "LiveEnvironment",
    "Observed",
    "OneShot",
    "Outcome",
    "RandomSequencer",
    "Recruit",
    "ReplayEnvironment",
    "RouterR1",
    "Scorer",
    "Sequencer",
    "Started",
    "Stop",
    "Think",
    "Thought",
    "Trace",
    "registry",
    "run",
    "run_async",
]


__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
