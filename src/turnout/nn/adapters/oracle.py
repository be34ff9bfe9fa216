"""This module gives each item of a batch the adapter that it names: where the task is known."""

from __future__ import annotations

import torch
from torch import Tensor

from turnout.core.errors import InputError, sentence
from turnout.nn.adapters.contract import AdapterRouter, Context
from turnout.nn.adapters.linear import AdapterLinear


class OracleAdapter(AdapterRouter):
    """out = W u + s B A u of the adapter that the item asks for; an item that asks for None gets W u."""

    def weights(self, u: Tensor, site: AdapterLinear, context: Context) -> Tensor:
        """Return (B, 1, E), one-hot or 0; raises `InputError` without tasks, `UnknownNameError` for one."""
        rows_BE = torch.zeros(len(_tasks(context)), len(context.names), dtype=u.dtype, device=u.device)
        for row, task in enumerate(_tasks(context)):
            if task is not None:
                rows_BE[row, context.index(task)] = 1
        return context.per_item("OracleAdapter: tasks", rows_BE, u)

    def active(self, context: Context) -> tuple[int, ...]:
        """Return the places of the adapters that some item asks for."""
        return tuple(sorted({context.index(task) for task in _tasks(context) if task is not None}))


def _tasks(context: Context) -> tuple[str | None, ...]:
    if not context.tasks_B:
        raise InputError(
            sentence("OracleAdapter: tasks", allowed="one for each item", got="none", do="pass tasks=")
        )
    return context.tasks_B
