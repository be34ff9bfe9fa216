"""This module routes each token by its local gates and by what the whole query asks for.

Source: Glider, S3, arXiv 2410.07172, sections 3.2 and 3.3.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from turnout.core.errors import NotFittedError, sentence
from turnout.core.validation import check_number
from turnout.nn.adapters.choose import check_choice_of, choose
from turnout.nn.adapters.contract import AdapterRouter, Context
from turnout.nn.adapters.linear import AdapterLinear
from turnout.nn.adapters.phatgoose import gate_scores


class GliderRouter(AdapterRouter):
    """Scores are PHATGOOSE's plus `alpha` cos(e_q, e_i); their best adapters share a softmax.

    e_i is an adapter's global vector (`AdapterPool.describe`) and e_q that of the query, one for each item
    of the batch. The published code takes e_q from the name of the query's task, so that all queries of a
    task share it; here it belongs to the sample, and who wants the former passes the task's vector for
    each of them. With `alpha` 0 this is PHATGOOSE and needs no vectors.
    """

    def __init__(self, *, alpha: float = 3.0, top_k: int | None = 2, top_p: float | None = None) -> None:
        check_choice_of("GliderRouter", top_k, top_p)
        self.alpha = check_number("GliderRouter: alpha", alpha, low=0.0, high=1e12)
        self.top_k, self.top_p = top_k, top_p

    def weights(self, u: Tensor, site: AdapterLinear, context: Context) -> Tensor:
        """Return the weights, (..., E); raises `NotFittedError` without gates, or without vectors."""
        scores = gate_scores(u, site, context)
        if self.alpha:
            near_BE = self._similarity(context).to(scores)
            scores = scores + self.alpha * context.per_item("GliderRouter: query vectors", near_BE, u)
        return choose(scores, self.top_k, self.top_p)

    def _similarity(self, context: Context) -> Tensor:
        vectors_EG, queries_BG = context.vectors_EG, context.queries_BG
        if vectors_EG is None or queries_BG is None:
            lacking = "every adapter" if vectors_EG is None else "the queries"
            raise NotFittedError(
                sentence(
                    f"GliderRouter with alpha {self.alpha:g} needs global vectors of {lacking}",
                    do="call pool.describe for each adapter and pass queries= to pool.routed",
                )
            )
        return F.normalize(queries_BG.double(), dim=-1) @ F.normalize(vectors_EG.double(), dim=-1).T
