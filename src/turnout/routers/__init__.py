"""How good and how dear would each candidate be on this query?

Contract: `Router.fit(table)` learns from recorded outcomes; `Router.estimate(queries)` returns an
`Estimate` (quality, spread, cost and latency of every candidate, shape (Q, M)) and changes nothing;
`Router.add_candidate(candidate, table)` learns one more candidate and leaves the others as they are.
What is unknown is NaN: a candidate without one observation has quality NaN and spread infinity, and
policies rank it last. A router never forbids: `allowed_QM` is true everywhere, masks are policies.

Imports: `core`, `features`. Used by: `training`. Rooms it does not see: `policies`, `datasets` (what
cannot be imported cannot leak), `evaluation`.

`registry` is the room's table: a name, and the "module:Class" that it stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.contracts import Router
from turnout.core.lazy import lazy_exports
from turnout.core.registry import Registry

if TYPE_CHECKING:
    from turnout.routers.avengers import AvengersRouter
    from turnout.routers.best_single import BestSingleRouter
    from turnout.routers.blend import BlendRouter
    from turnout.routers.carrot import CarrotRouter
    from turnout.routers.composition import CompositionRouter
    from turnout.routers.continual import ContinualRouter
    from turnout.routers.domain_experts import DomainExpertsRouter
    from turnout.routers.factorisation import FactorisationRouter
    from turnout.routers.group_mean import GroupMeanRouter
    from turnout.routers.icl import ICLRouter
    from turnout.routers.inferred_group import InferredGroupRouter
    from turnout.routers.knn import KNNRouter
    from turnout.routers.mirt import MIRTRouter
    from turnout.routers.mode_gate import ModeGateRouter
    from turnout.routers.neural.cscr import CSCRRouter
    from turnout.routers.neural.graph import GraphRouter
    from turnout.routers.neural.lookahead import LookaheadRouter
    from turnout.routers.neural.probe import ProbeRouter
    from turnout.routers.neural.rag import RAGRouter
    from turnout.routers.neural.routerdc import RouterDCRouter
    from turnout.routers.preference_factors import PreferenceFactorsRouter
    from turnout.routers.preference_routes import PreferenceRoutesRouter
    from turnout.routers.r2 import R2Router
    from turnout.routers.ridge import RidgeRouter
    from turnout.routers.safe_route import SafeRouteRouter
    from turnout.routers.scope import ScopeRouter
    from turnout.routers.similarity_ranking import SimilarityRankingRouter
    from turnout.routers.skills import SkillsRouter
    from turnout.routers.tag import TagRouter
    from turnout.routers.uniform import UniformRouter
    from turnout.routers.uniroute import UniRouteRouter

TABLE = {
    "avengers": "turnout.routers.avengers:AvengersRouter",
    "best_single": "turnout.routers.best_single:BestSingleRouter",
    "blend": "turnout.routers.blend:BlendRouter",
    "carrot": "turnout.routers.carrot:CarrotRouter",
    "composition": "turnout.routers.composition:CompositionRouter",
    "continual": "turnout.routers.continual:ContinualRouter",
    "cscr": "turnout.routers.neural.cscr:CSCRRouter",
    "domain_experts": "turnout.routers.domain_experts:DomainExpertsRouter",
    "factorisation": "turnout.routers.factorisation:FactorisationRouter",
    "graph": "turnout.routers.neural.graph:GraphRouter",
    "group_mean": "turnout.routers.group_mean:GroupMeanRouter",
    "icl": "turnout.routers.icl:ICLRouter",
    "inferred_group": "turnout.routers.inferred_group:InferredGroupRouter",
    "knn": "turnout.routers.knn:KNNRouter",
    "lookahead": "turnout.routers.neural.lookahead:LookaheadRouter",
    "mirt": "turnout.routers.mirt:MIRTRouter",
    "mode_gate": "turnout.routers.mode_gate:ModeGateRouter",
    "preference_factors": "turnout.routers.preference_factors:PreferenceFactorsRouter",
    "preference_routes": "turnout.routers.preference_routes:PreferenceRoutesRouter",
    "probe": "turnout.routers.neural.probe:ProbeRouter",
    "r2": "turnout.routers.r2:R2Router",
    "rag": "turnout.routers.neural.rag:RAGRouter",
    "ridge": "turnout.routers.ridge:RidgeRouter",
    "routerdc": "turnout.routers.neural.routerdc:RouterDCRouter",
    "safe_route": "turnout.routers.safe_route:SafeRouteRouter",
    "scope": "turnout.routers.scope:ScopeRouter",
    "similarity_ranking": "turnout.routers.similarity_ranking:SimilarityRankingRouter",
    "skills": "turnout.routers.skills:SkillsRouter",
    "tag": "turnout.routers.tag:TagRouter",
    "uniform": "turnout.routers.uniform:UniformRouter",
    "uniroute": "turnout.routers.uniroute:UniRouteRouter",
}
"""Names of the routers."""

registry = Registry("routers", TABLE, kind=Router, reserved=("auto",))
"""The room's names; third parties add theirs through the entry points `turnout.routers`."""

__all__ = [
    "TABLE",
    "AvengersRouter",
    "BestSingleRouter",
    "BlendRouter",
    "CSCRRouter",
    "CarrotRouter",
    "CompositionRouter",
    "ContinualRouter",
    "DomainExpertsRouter",
    "FactorisationRouter",
    "GraphRouter",
    "GroupMeanRouter",
    "ICLRouter",
    "InferredGroupRouter",
    "KNNRouter",
    "LookaheadRouter",
    "MIRTRouter",
    "ModeGateRouter",
    "PreferenceFactorsRouter",
    "PreferenceRoutesRouter",
    "ProbeRouter",
    "R2Router",
    "RAGRouter",
    "RidgeRouter",
    "RouterDCRouter",
    "SafeRouteRouter",
    "ScopeRouter",
    "SimilarityRankingRouter",
    "SkillsRouter",
    "TagRouter",
    "UniRouteRouter",
    "UniformRouter",
    "registry",
]

__getattr__, __dir__ = lazy_exports(__name__, {path.split(":")[1]: path for path in TABLE.values()})
