"""This module words why a request cannot be decided: nobody chooses, nobody may serve, or not this one."""

from __future__ import annotations

from collections.abc import Iterable

from turnout.core.errors import sentence
from turnout.core.query import Query
from turnout.gateway.errors import ApiError
from turnout.gateway.settings_models import HOW
from turnout.policies.deployment import Deployment
from turnout.policies.masks import obstacles

_SHOWN = 20


def no_deployment(alias: str, names: Iterable[str]) -> ApiError:
    """404 of a gateway that has models and nobody who chooses among them."""
    known = list(names)
    more = f", and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    message = sentence(
        f"nobody chooses a model for {alias!r}, for this gateway has no deployment",
        allowed=f"the name of a model: {', '.join(known[:_SHOWN])}{more}",
        got=alias,
        do=f"name one; or {HOW}",
    )
    return ApiError(404, message, code="no_deployment", param="model")


def not_allowed(model: str, bound: frozenset[str]) -> ApiError:
    """403 of a model that a rule keeps from a request."""
    message = sentence(
        f"a rule does not let the candidate {model!r} serve this request",
        allowed=", ".join(sorted(bound)),
        got=model,
        do="name one of these, or leave the choice to the router",
    )
    return ApiError(403, message, code="model_not_allowed", param="model", kind="permission_error")


def infeasible(query: Query, deployment: Deployment, cause: str = "the deployment's budget") -> ApiError:
    """422 that says why each candidate may not serve; `cause` stands for those that could."""
    refused = obstacles(query, deployment.candidates)
    names = [candidate.name for candidate in deployment.candidates]
    shown = "; ".join(f"{name}: {refused.get(name, cause)}" for name in names[:_SHOWN])
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    message = sentence(
        "no candidate may serve this request",
        allowed=f"a candidate with {', '.join(sorted(query.needs)) or 'room for it'} within the budget",
        do=f"ask for less, or add a candidate that can (why not: {shown}{more})",
    )
    return ApiError(422, message, code="no_feasible_candidate", param="model")
