"""This module gives every adapter the same weight: the baseline that knows nothing."""

from __future__ import annotations

from torch import Tensor

from turnout.nn.adapters.contract import AdapterRouter, Context
from turnout.nn.adapters.linear import AdapterLinear, ones


class MergedAdapters(AdapterRouter):
    """out = W u + (1 / E) sum_i s_i B_i A_i u: what a merge of the products B_i A_i into W computes.

    Source: weight averaging of adapters as in AdapterSoup, arXiv 2302.07027, and the uniform baseline of
    PHATGOOSE, arXiv 2402.05859, section 4. Averaging A and B each would be another function.
    """

    def weights(self, u: Tensor, site: AdapterLinear, context: Context) -> Tensor:
        """Return (..., E) of 1 / E."""
        num = len(context.names)
        return ones(num, range(num), u)
